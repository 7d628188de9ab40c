"""Decks of slides from pages made up for it: what of a chapter they take, and what they ask of the network."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from mmlib.figures.page import Page
from mmlib.ledgers.claims import COLUMNS, QUESTIONS, STAND_IN
from pipeline.slides import DECKS, LABEL, make_slides

FIGURE = (
    '<figure id="figure-{n}"><img src="../_images/{n}.svg" alt="It falls."><figcaption>Fig {n}.</figcaption></figure>'
)
POINTS = "".join(f"<li><p>{'word ' * 80}{n}</p></li>" for n in range(3))


def verdicts() -> str:
    """The table of a chapter: one claim, asked of the stand-in alone."""
    blank = dict.fromkeys(COLUMNS, "") | dict.fromkeys(("effect", "low", "high", "sesoi", "n", "seeds"), math.nan)
    blank |= {"id": "K1", "sentence": "paper", "claim": "It helps <.", "parts": 0, "passes": 0, "verdict": "NOT RUN"}
    asked = {"effect": 3.0, "low": 2.0, "high": 4.0, "sesoi": 1.0, "n": 40, "seeds": 5, "parts": 1, "passes": 1}
    asked |= {"unit": "points", "rule": "greater", "verdict": "SHOWN", "judged": "SHOWN"}
    rows = [blank | {"question": question} | (asked if question == STAND_IN else {}) for question in QUESTIONS]
    return Page("book").verdicts(pd.DataFrame(rows), "K1").to_html()


CHAPTER = f"""<article><section id="the-paper"><h1>A method<a class="headerlink" href="#the-paper">#</a></h1>
<p><strong>Claim: it helps</strong> [<a href="../bibliography.html#a" title="A. Author. A paper. 2023.">A</a>].</p>
<div class="admonition tip"><ul><li>what it is worth</li></ul></div>
<p>Gains <span class="pasted-text">+3.1 points</span>{{label}}.</p><p>The page reads runs.</p>
{FIGURE.format(n=1)}
<section id="data"><h2>Data</h2>{FIGURE.format(n=2)}</section>
<section id="model"><h2>Model</h2><p>Two networks.</p>{{drawing}}</section>
<section id="evaluate"><h2>Evaluate</h2><section id="maps"><h3>Maps</h3>{FIGURE.format(n=4)}</section></section>
{{verdicts}}
<section id="take-away"><h2>Take-away</h2><ul>{POINTS}</ul></section>
<section id="limitations-and-differences">
<h2>Limits</h2><ul><li>Few <a href="../limits.html">seeds</a>.</li></ul></section>
<section id="three-questions"><h2>Three</h2><ol><li>Why?<details>Because.</details></li></ol></section>
</section><p class="printed-from"><a href="https://example.org/notebooks/x.md">x</a></p></article>"""
SETTINGS = "".join(f'<img src="_images/missing-{name}.svg" alt="{name}">' for name in ("both", "privileged"))


@pytest.fixture(scope="module")
def decks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BeautifulSoup]:
    html = tmp_path_factory.mktemp("book") / "html"
    for folder in ("chapters", "_images"):
        (html / folder).mkdir(parents=True)
    for name in ("1", "2", "3", "4", "missing-both", "missing-privileged"):
        (html / "_images" / f"{name}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (html / "problem.html").write_text(f"<article>{SETTINGS}</article>")
    for chapter, drawing in DECKS.values():
        label = " [smoke run, not a result]" if chapter.startswith("03") else ""
        text = CHAPTER.format(drawing="" if drawing else FIGURE.format(n=3), label=label, verdicts=verdicts())
        (html / "chapters" / f"{chapter}.html").write_text(text)
    (html / "chapters" / f"{DECKS['m2dn'][0]}.html").write_text("<article><p>Left out: no runs.</p></article>")
    made = make_slides(html, html.parent / "slides")
    return {deck.stem: BeautifulSoup(deck.read_text(), "html.parser") for deck in made}


def slides(deck: BeautifulSoup) -> list[tuple[str, str]]:
    """Title and text of each slide."""
    heads = deck.select(".slides h2")
    return [(head.get_text(), " ".join(head.parent.get_text(" ").split())) for head in heads if head.parent]


def test_a_deck_goes_from_the_paper_to_the_limits_with_the_numbers_of_the_page(decks: dict[str, BeautifulSoup]) -> None:
    made = slides(decks["protokd"])
    titles = [
        "A method",
        "The question",
        "The method",
        "What came out",
        "What came out",
        "Findings",
        "Findings",
        "Findings",
    ]
    assert [title for title, _ in made] == [*titles, "Maps", "Verdicts", "Limits", "To discuss", "Read on"]
    said = [text for _, text in made]
    assert "A. Author. A paper. 2023." in said[0] and "Claim: it helps" in said[1]
    assert "+3.1 points" in said[3] and "Fig 1." in said[4]
    assert said[9].endswith("K1 It helps <. NOT RUN SHOWN +3.00 points, 95 % interval +2.00 to +4.00 NOT RUN")
    assert "Because." not in said[11], "answers are on the page"


def test_the_method_is_drawn_by_the_chapter_or_else_by_its_setting(decks: dict[str, BeautifulSoup]) -> None:
    pictures = {name: [image["src"] for image in deck.select(".slides img")] for name, deck in decks.items()}
    assert pictures["shaspec"] == ["images/3.svg", "images/1.svg", "images/4.svg"]
    assert (
        pictures["deep-guidance"][0] == "images/missing-privileged.svg"
        and pictures["smil"][0] == "images/missing-both.svg"
    )


def test_a_chapter_that_is_left_out_has_no_deck_and_a_smoke_run_says_so(decks: dict[str, BeautifulSoup]) -> None:
    assert sorted(decks) == ["deep-guidance", "protokd", "shaspec", "smil"]
    assert LABEL in slides(decks["smil"])[0][1] and LABEL not in slides(decks["shaspec"])[0][1]


def test_a_deck_leads_back_to_the_book_and_works_without_a_network(decks: dict[str, BeautifulSoup]) -> None:
    deck = decks["shaspec"]
    links = [link["href"] for link in deck.select(".slides a")]
    assert {"../html/chapters/01_shaspec_segmentation.html", "../html/limits.html"} <= set(links)
    asked = [one.get("src") or one.get("href") for one in deck.select("script[src], link[href], img[src]")]
    assert asked and not [one for one in asked if re.match("https?:|//", str(one))]
    assert "cdn" not in str(deck)


def test_without_a_book_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make book builds it"):
        make_slides(tmp_path, tmp_path / "slides")
