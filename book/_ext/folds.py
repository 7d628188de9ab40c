"""What is folded on a page: what goes beyond ten minutes of reading, and the code of chapters.

The comment `% fold the rest` folds what follows it in its section: a comment, because cells of a notebook stand in no
directive, and JupyterLab shows no comment and all cells. Pages that teach their code keep it open (`code_shown`).
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


def fold_code(app: Sphinx, document: nodes.document) -> None:
    """Let every code cell show its output alone, until its code is asked for."""
    if app.env.docname in app.config.code_shown:
        return
    for cell in document.findall(nodes.container):
        if cell.get("nb_element") == "cell_code" and cell.get("hide_mode") in (None, "output"):
            cell["hide_mode"] = "input+output" if cell.get("hide_mode") else "input"
            cell["prompt_show"], cell["prompt_hide"] = app.config.nb_code_prompt_show, app.config.nb_code_prompt_hide


def setup(app: Sphinx) -> dict[str, Any]:
    """Pages are folded as they are read."""
    app.add_config_value("code_shown", [], "env")
    app.connect("doctree-read", fold)
    app.connect("doctree-read", fold_code)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
