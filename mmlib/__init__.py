"""Multimodal medical imaging when a modality is missing: models, losses and the machinery of the book."""

__version__ = "0.1.0"

_PLACES = {"load": "mmlib.published", "read_results": "mmlib.analysis.results"}


def __getattr__(name: str) -> object:
    """`mmlib.load` (see `mmlib.published`) and `mmlib.read_results` (`mmlib.analysis.results`), when asked for."""
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
