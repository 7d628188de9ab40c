"""Multimodal medical imaging when a modality is missing: models, losses and the machinery of the book."""

__version__ = "0.1.0"
