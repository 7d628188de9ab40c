"""Slides for journal clubs: a deck for each paper from the pages of a built book, with reveal.js beside it.

A page has its numbers from records, and a deck takes over what stands on the page: nothing is computed or typed here.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
from collections.abc import Iterable, Iterator
from html import escape
from importlib.util import find_spec
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup, Tag
from nbconvert import SlidesExporter

from mmlib.ledgers.claims import QUESTIONS, STAND_IN
from pipeline.profiles import project_root

DECKS = {  # paper -> its chapter, and where that draws no method the drawing of the setting on the page `problem`
    "shaspec": ("01_shaspec_segmentation", ""),
    "smil": ("03_audiovision_mnist", "missing-both"),
    "protokd": ("05_protokd", "missing-privileged"),
    "m2dn": ("06_m2dn", ""),
    "deep-guidance": ("07_deep_guidance", "missing-privileged"),
}
ASIDE = {"data", "model", "train", "exercises"}  # sections whose figures stay on the page
WORDS, ROWS = 150, 7  # of a slide, and of a table on one; about
REVEAL = ("LICENSE", "dist", "plugin/notes")  # what decks need of reveal.js
LABEL = "Smoke run: no number in this deck is a result."


class Deck:
    """The slides of one chapter.

    Args:
        html: the folder of the built book.
        folder: of the decks; pictures are put into `images` in it.
        chapter: its name.
        drawing: of `DECKS`.
    """

    def __init__(self, html: Path, folder: Path, chapter: str, drawing: str) -> None:
        self.html, self.folder = html, folder
        self.page, self.drawing = f"chapters/{chapter}.html", drawing
        article = self.read(self.page)
        self.chapter, self.origin = one(article, "section"), article.select(".printed-from")
        self.title = own_text(one(self.chapter, "h1"))
        self.cells: list[nbformat.NotebookNode] = []

    def read(self, page: str) -> Tag:
        """The text of a page; its links lead on from the folder of the decks."""
        article = one(BeautifulSoup((self.html / page).read_text(encoding="utf-8"), "html.parser"), "article")
        for image in article.select("img[src]:not([src^='data:'])"):
            image["src"] = ((self.html / page).parent / str(image["src"])).as_posix()
        for link in article.select("a[href]"):
            file, _, anchor = str(link["href"]).partition("#")
            if "://" not in file:
                there = (self.html / page).parent / file if file else self.html / page
                link["href"] = os.path.relpath(there, self.folder) + (f"#{anchor}" if anchor else "")
        return article

    def add(self, title: str, *parts: Tag | str) -> None:
        """A slide of parts of the page, whose pictures are put into the folder of the decks."""
        for part in parts:
            for image in part.select("img[src]:not([src^='data:'], [src^='images/'])") if isinstance(part, Tag) else ():
                place = self.folder / "images" / Path(str(image["src"])).name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(image["src"]), place)
                image["src"] = f"images/{place.name}"
        text = f"<h2>{escape(title)}</h2>" + "".join(map(bare, parts))
        metadata = {"slideshow": {"slide_type": "slide"}, "raw_mimetype": "text/html"}
        self.cells.append(nbformat.v4.new_raw_cell(text, metadata=metadata))

    def add_points(self, title: str, points: Iterable[Tag]) -> None:
        """The points of a list, on as many slides as they need."""
        for part in packed(points):
            self.add(title, "<ul>", *part, "</ul>")

    def make(self) -> nbformat.NotebookNode:
        """All slides, as a notebook."""
        claim, *others = self.chapter.find_all("p", recursive=False)
        paper = escape(str(one(claim, "a[title][href*='bibliography.html']")["title"]))
        label = LABEL if "not a result" in self.chapter.get_text() else ""
        book = f'From the book <em>Learning with missing modalities</em>. <span class="label">{label}</span>'
        self.add(self.title, f"<p>{paper}</p>", f'<p class="small">{book}</p>')
        self.add(
            "The question", claim, "<p>Afterwards you know</p>", *self.chapter.select(":scope > .admonition.tip ul")
        )
        self.add("The method", *self.method())
        figures = self.chapter.select("figure")
        for part in packed(text for text in others if text.select_one(".pasted-text")):
            self.add("What came out", *part)
        self.add("What came out", figures[0])
        self.add_points("Findings", self.chapter.select(":scope > section#take-away > ul > li"))
        for figure in figures[1:]:
            sections = figure.find_parents("section")
            if ASIDE.isdisjoint(str(section["id"]) for section in sections):
                self.add(own_text(one(sections[0], "h1, h2, h3, h4")), figure)
        self.add_verdicts()
        self.add_points("Limits", self.chapter.select(":scope > section#limitations-and-differences > ul > li"))
        self.add("To discuss", "<ol>", *self.chapter.select(":scope > section#three-questions > ol > li"), "</ol>")
        there = os.path.relpath(self.html / self.page, self.folder)
        link = f'<a href="{there}">The chapter</a> has all figures, tables and runs, and answers to the questions.'
        self.add("Read on", f"<p>{link}</p>", *self.origin)
        return nbformat.v4.new_notebook(cells=self.cells, metadata={"title": self.title})

    def method(self) -> list[Tag | str]:
        """The first sentences on the method, and its picture."""
        model = one(self.chapter, "section#model")
        if drawn := model.select_one("figure"):
            return [one(model, "p"), drawn]
        setting = one(self.read("problem.html"), f"img[src$='{self.drawing}.svg']")
        return [one(model, "p"), setting.wrap(Tag(name="figure"))]

    def add_verdicts(self) -> None:
        """What the ledger says of each claim of the chapter: a word for each question, and the effect."""
        rows: dict[str, str] = {}
        for row in self.chapter.select("tr:has(.claim)"):
            name = one(row, "strong").get_text()
            cells = [name, one(row, ".claim").get_text()]
            for question, answer in zip(QUESTIONS, row.select(".answer"), strict=True):
                word = one(answer, "strong").get_text()
                measured = answer.get_text().partition(word)[2].strip()
                effect = measured.split(", n = ")[0] if question == STAND_IN else ""
                cells.append(f"<strong>{word}</strong><br>{escape(effect)}")
            rows[name] = "".join(f"<td>{cell}</td>" for cell in [*map(escape, cells[:2]), *cells[2:]])
        head = "".join(f"<th>{name}</th>" for name in ["id", "claim", *QUESTIONS])
        for begin in range(0, len(rows), ROWS):
            body = "".join(f"<tr>{row}</tr>" for row in list(rows.values())[begin : begin + ROWS])
            self.add("Verdicts", f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def one(tag: Tag, selector: str) -> Tag:
    """The first part that a selector finds.

    Raises:
        ValueError: if there is none: the chapter is not made as chapters are.
    """
    found = tag.select_one(selector)
    if found is None:
        raise ValueError(f"no {selector} in <{tag.name} id={tag.get('id')!r}>: slides are made of chapters with it")
    return found


def own_text(tag: Tag) -> str:
    """The text of a heading without the sign of its link."""
    return "".join(text for text in tag.find_all(string=True) if text.parent and text.parent.name != "a")


def bare(part: Tag | str) -> str:
    """A part of a page as HTML, without what only a page has: anchors, titles that are pointed at, folded answers."""
    if isinstance(part, str):
        return part
    part = copy.copy(part)
    for gone in part.select("a.headerlink, details, script"):
        gone.decompose()
    for tag in [part, *part.select("[id], [title], [style]")]:
        for name in ("id", "title", "style"):
            tag.attrs.pop(name, None)
    return str(part)


def packed(parts: Iterable[Tag]) -> Iterator[list[Tag]]:
    """Parts, as many together as a slide takes."""
    together: list[Tag] = []
    for part in parts:
        if together and sum(len(one.get_text().split()) for one in [*together, part]) > WORDS:
            yield together
            together = []
        together.append(part)
    if together:
        yield together


def make_slides(html: Path, folder: Path) -> list[Path]:
    """Write the decks of all chapters that a book holds, and reveal.js beside them.

    Args:
        html: the folder of the built book.
        folder: where the decks are put; what was there is replaced.

    Returns:
        The decks.

    Raises:
        ValueError: if the folder holds no book, or a chapter is not made as chapters are.
    """
    shutil.rmtree(folder, ignore_errors=True)
    found = find_spec("sphinx_revealjs")  # its copy of reveal.js alone: nothing of it is imported
    if found is None or found.origin is None:
        raise ValueError("the package sphinx-revealjs, which has reveal.js, is missing: make setup installs it")
    there = Path(found.origin).parent / "_static" / "revealjs"
    for name in REVEAL:
        copied = shutil.copytree if (there / name).is_dir() else shutil.copy
        (folder / "reveal.js" / name).parent.mkdir(parents=True, exist_ok=True)
        copied(there / name, folder / "reveal.js" / name)
    exporter = SlidesExporter(
        extra_template_basedirs=[str(project_root() / "book")],
        template_name="_deck",
        reveal_url_prefix="reveal.js",
        reveal_theme="white",  # its fonts lie beside it
    )
    made = []
    for paper, (chapter, drawing) in DECKS.items():
        page = html / "chapters" / f"{chapter}.html"
        if not page.is_file():
            raise ValueError(f"{page} is missing: make book builds it")
        if "Left out:" in one(BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser"), "article").get_text():
            continue
        text, _ = exporter.from_notebook_node(Deck(html, folder, chapter, drawing).make())
        made.append(folder / f"{paper}.html")
        made[-1].write_text(text, encoding="utf-8")
    return made


def main() -> None:
    """The command line that the Makefile uses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("html", type=Path, help="the folder of the built book")
    parser.add_argument("folder", type=Path, help="for the decks")
    for deck in make_slides(**vars(parser.parse_args())):
        print(f"Open file://{deck.resolve()}")


if __name__ == "__main__":
    main()
