"""What a page holds beyond ten minutes is folded: the comment `% fold the rest` folds what follows it in its section.

A comment, because cells of a notebook stand in no directive, and JupyterLab shows no comment and all cells.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

MARK = "fold the rest"


def inside(parts: list[nodes.Node]) -> str:
    """What is folded, counted: figures and tables."""
    raw = "".join(one.astext() for part in parts for one in part.findall(nodes.raw))
    figures = raw.count("<figure") + sum(len(list(part.findall(nodes.figure))) for part in parts)
    tables = raw.count("<table") + sum(len(list(part.findall(nodes.table))) for part in parts)
    counts = {"figure": figures, "table": tables}
    return ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count)


def fold(app: Sphinx, document: nodes.document) -> None:
    """Put what follows a mark between the tags of an element that opens."""
    for mark in [one for one in document.findall(nodes.comment) if one.astext() == MARK]:
        section = mark.parent
        place = section.index(mark)
        held = inside(section.children[place + 1 :])
        summary = f"More: {held}" if held else "More"
        section[place] = nodes.raw("", f'<details class="fold"><summary>{summary}</summary>', format="html")
        section += nodes.raw("", "</details>", format="html")


def setup(app: Sphinx) -> dict[str, Any]:
    """Pages are folded as they are read."""
    app.connect("doctree-read", fold)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
