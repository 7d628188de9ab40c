"""A link to a term of the glossary says what the term means, where it is pointed at or focused."""

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[\"'(*]?[A-Z0-9])")


def meaning(definition: nodes.definition) -> str:
    """The first sentence of a definition, as plain text without its citations."""
    paragraph = next(iter(definition.findall(nodes.paragraph))).deepcopy()
    for link in list(paragraph.findall(pending_xref)):
        if link.get("refdomain") == "cite":
            link.parent.remove(link)
    text = re.sub(r"\s+([.,;:])", r"\1", " ".join(paragraph.astext().split()))
    return SENTENCE.split(text, maxsplit=1)[0]


def meanings(document: nodes.document) -> dict[str, str]:
    """What each term of a page means, by the anchor of the term; terms that share a definition share its meaning."""
    found: dict[str, str] = {}
    for item in document.findall(nodes.definition_list_item):
        anchors = [anchor for term in item.findall(nodes.term) for anchor in term["ids"]]
        definitions = [child for child in item.children if isinstance(child, nodes.definition)]
        if definitions and any(definitions[0].findall(nodes.paragraph)):
            found |= dict.fromkeys(anchors, meaning(definitions[0]))
    return found


class Tell:
    """Give every link to a term its title; the pages with terms are read once."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, str]] = {}

    def __call__(self, app: Sphinx, document: nodes.document, page: str) -> None:
        """Go through the links of one page."""
        homes = {home for _, _, kind, home, _, _ in app.env.get_domain("std").get_objects() if kind == "term"}
        for home in sorted(homes - self.known.keys()):
            self.known[home] = meanings(app.env.get_doctree(home))
        said = {anchor: text for home in homes for anchor, text in self.known[home].items()}
        for link in document.findall(nodes.reference):
            if not any("std-term" in part["classes"] for part in link.findall(nodes.inline)):
                continue
            if text := said.get(link.get("refid") or link.get("refuri", "").rpartition("#")[2]):
                link["reftitle"] = text


def setup(app: Sphinx) -> dict[str, Any]:
    """Links are known once they are resolved."""
    app.connect("doctree-resolved", Tell())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
