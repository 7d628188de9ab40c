"""Pictures of chapters lie once, as files; the directive `gallery` shows all, each with the way to its place.

An executed notebook holds a picture as text within its figure. In the book the text becomes a file in `_images`, which
the chapter and the gallery both show, so that no picture is stored twice and a chapter's page is light.
"""

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from meanings import SENTENCE
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mmlib.figures.page import CAVEAT

FIGURE = re.compile(
    r"<figure(?P<given>[^>]*)>"
    r'<img(?P<before>[^>]*?) src="data:image/(?P<kind>svg|png)[^,]*,(?P<data>[^"]+)"(?P<after>[^>]*)>'
    r"(?P<rest>.*?)</figure>",
    flags=re.DOTALL,
)


class Picture(NamedTuple):
    """A figure of a chapter: where it is, its file, and what it says, as HTML."""

    anchor: str
    file: str
    alt: str
    says: str


class gallery(nodes.General, nodes.Element):  # noqa: N801, docutils' nodes are named like elements
    """Stands in the place of the pictures until all pages are read."""


class Gallery(SphinxDirective):
    """All figures of all chapters."""

    def run(self) -> list[nodes.Node]:
        """Hold the place."""
        return [gallery()]


def first_sentence(text: str) -> str:
    """The first sentence of a caption, after the label of a run that is no result."""
    label = CAVEAT if text.startswith(CAVEAT) else ""
    return label + SENTENCE.split(text.removeprefix(label), maxsplit=1)[0]


def take_out(app: Sphinx, document: nodes.document) -> None:
    """Write the pictures of a page to files, give each figure an anchor, and note it."""
    page = app.env.docname
    found: list[Picture] = []

    def as_file(figure: re.Match[str]) -> str:
        data = base64.b64decode(figure["data"])
        file = f"_images/{hashlib.sha256(data).hexdigest()[:16]}.{figure['kind']}"
        target = Path(app.outdir) / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        alt = re.search(r'alt="([^"]*)"', figure["before"] + figure["after"])
        caption = re.search(r"<figcaption[^>]*>(.*?)</figcaption>", figure["rest"], flags=re.DOTALL)
        says = html.unescape(re.sub(r"<[^>]*>", "", (caption or alt)[1]))
        named = re.search(r' id="([^"]*)"', figure["given"])  # a viewer's script finds its figure by it
        anchor = named[1] if named else f"figure-{len(found) + 1}"
        found.append(Picture(anchor, file, alt[1], html.escape(first_sentence(says))))
        source = "../" * page.count("/") + file
        image = f'<img{figure["before"]} src="{source}"{figure["after"]}>'
        given = figure["given"] if named else f' id="{anchor}"{figure["given"]}'
        return f"<figure{given}>{image}{figure['rest']}</figure>"

    for raw in document.findall(nodes.raw):
        if "html" in raw.get("format", "") and "<figure" in raw.astext():
            raw.children[:] = [nodes.Text(FIGURE.sub(as_file, raw.astext()))]
            raw.rawsource = raw.astext()
    if found:
        app.env.pictures[page] = found


def hang(app: Sphinx, document: nodes.document, page: str) -> None:
    """Put all pictures in the place of the directive, by chapter."""
    for place in list(document.findall(gallery)):
        parts: list[nodes.Node] = []
        for chapter, pictures in sorted(app.env.pictures.items()):
            address = app.builder.get_relative_uri(page, chapter)
            up = "../" * page.count("/")
            title = html.escape(app.env.titles[chapter].astext())
            shown = "".join(
                f'<li><a href="{address}#{one.anchor}"><img loading="lazy" src="{up}{one.file}" alt="{one.alt}">'
                f"<span>{one.says}</span></a></li>"
                for one in pictures
            )
            text = f'<h2><a href="{address}">{title}</a></h2><ul class="gallery">{shown}</ul>'
            parts.append(nodes.raw("", text, format="html"))
        place.replace_self(parts)


def begin(app: Sphinx) -> None:
    """No pictures are known before the pages are read."""
    app.env.pictures = {}


def setup(app: Sphinx) -> dict[str, Any]:
    """A book is read anew each time it is built, by one process."""
    app.add_node(gallery)
    app.add_directive("gallery", Gallery)
    app.connect("builder-inited", begin)
    app.connect("doctree-read", take_out)
    app.connect("doctree-resolved", hang)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
