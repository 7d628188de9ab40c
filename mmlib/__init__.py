"""Multimodal medical imaging when a modality is missing: models, losses and the machinery of the book."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`mmlib.read_results` (see `mmlib.analysis.results`), imported when it is asked for."""
    if name == "read_results":
        from importlib import import_module

        return import_module("mmlib.analysis.results").read_results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
