"""Data sets: one module per folder layout and per phantom; `cases` holds what they share."""
