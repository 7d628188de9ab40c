"""Skin lesions: which signs a case has (model) and how they look (drawing)."""
