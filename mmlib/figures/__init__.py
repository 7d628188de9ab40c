"""Figures and pages of the book, in one style."""
