"""Docstrings are plain text with `code` in single backticks: make valid reStructuredText of them for the API page."""

import re
from itertools import groupby
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

ITEM = re.compile(r"\s*(- |\d+\. )")
COLUMNS = re.compile(r"\S {2,}\S")


def escape(line: str) -> str:
    """Keep bars and asterisks outside of code as they are."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def paragraph(lines: list[str]) -> list[str]:
    """Text that is aligned in columns stays so; a list begins and ends with an empty line."""
    if not lines[0].startswith(" ") and any(COLUMNS.search(line.strip()) for line in lines):
        return ["::", "", *(f"   {line}" for line in lines)]
    made: list[str] = []
    inside = False
    for line in lines:
        item = ITEM.match(line) is not None
        if made and (item and not inside or inside and not item and not line.startswith("  ")):
            made.append("")
        inside = item or inside and line.startswith("  ")
        made.append(escape(line))
    return made


def plain(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring, paragraph by paragraph."""
    made: list[str] = []
    for filled, part in groupby(lines, key=lambda line: bool(line.strip())):
        together = list(part)
        made += paragraph(together) if filled else together
    lines[:] = made


def config(app: Sphinx, config: Config) -> None:
    """Read single backticks as code, and attributes as one list instead of an entry each."""
    config.default_role = "literal"
    config.napoleon_use_ivar = True


def setup(app: Sphinx) -> dict[str, Any]:
    """Run before napoleon, whose priority is 500."""
    app.connect("config-inited", config)
    app.connect("autodoc-process-docstring", plain, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
