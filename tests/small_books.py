"""Books of a page or two, built by Sphinx with the extensions of the book."""

import sys
from pathlib import Path

from pipelines import ROOT
from sphinx.application import Sphinx

EXTENSIONS = ROOT / "book" / "_ext"


def build(book: Path, settings: str, pages: dict[str, str]) -> Path:
    """Write a book's settings and pages (name -> text), build it, and give the folder of its HTML."""
    (book / "conf.py").write_text(settings)
    for name, text in pages.items():
        (book / f"{name}.md").parent.mkdir(exist_ok=True)
        (book / f"{name}.md").write_text(text)
    sys.path.insert(0, str(EXTENSIONS))
    try:
        Sphinx(book, book, book / "html", book / "trees", "html", status=None, warning=None).build()
    finally:
        sys.path.remove(str(EXTENSIONS))
    return book / "html"
