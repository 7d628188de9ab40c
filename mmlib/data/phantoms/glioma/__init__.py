"""MRI and slides of gliomas: what a case has (model) and how it looks (drawing)."""
