"""The pages of the smoke book, opened one by one in a real browser that can reach nothing but them."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from pipelines import ROOT, snakemake

from mmlib.analysis.per_case import auroc_values, balanced_accuracy_values
from mmlib.analysis.results import Results, read_runs
from mmlib.data.derm7pt import TASKS, is_melanoma, seven_point_score
from mmlib.ledgers.claims import TABLES, evidence, read_yaml
from mmlib.studies.lesions import read_answers
from pipeline import asked_runs
from pipeline.slides import DECKS, LABEL, make_slides

pytestmark = pytest.mark.pipeline

PHONE = {"width": 390, "height": 844}  # CSS pixels
DESK = {"width": 1280, "height": 900}
LOCAL = re.compile(r"http://127\.0\.0\.1:|data:|blob:|file:")
SMOKE = "not results"
LISTINGS = "_modules/"  # of source code, a hundred pages of one template

# contrast of the text of the first paragraph against what is painted behind it, by WCAG 2
CONTRAST = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const part = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    return .2126 * part(r) + .7152 * part(g) + .0722 * part(b); };
  const text = document.querySelector('article p, .bd-article p, .bd-content p, main h1');
  let behind = text;
  while (behind && (numbers(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
  const paint = behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)';
  const [a, b] = [light(numbers(getComputedStyle(text).color)), light(numbers(paint))];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}"""
IMAGES = """() => [...document.images].map(image => ({
  src: image.getAttribute('src').slice(0, 80), width: image.naturalWidth, alt: image.alt,
  figure: Boolean(image.closest('article'))}))"""
WIDER = """() => {
  const page = document.documentElement, end = page.clientWidth + 1;
  const scrolls = e => e && e !== page
    && (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  if (page.scrollWidth <= end) return [];
  const wide = [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > end && !scrolls(e.parentElement));
  return [`${page.scrollWidth} pixels`, ...wide.slice(0, 5).map(e => `${e.tagName}.${e.className}`)];
}"""
ALL_PICTURES = """() => Promise.all([...document.images].map(image => {
  image.loading = 'eager'; return image.decode().catch(() => {}); }))"""
PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
WORDS = """() => {
  const words = text => text.replace(/\\[?smoke run, not a result[.\\]]/gi, '').match(/[\\p{L}\\d]\\S*/gu) || [];
  const counted = node => node.nodeType === Node.TEXT_NODE ? words(node.data).length
    : node.nodeType !== Node.ELEMENT_NODE || !node.checkVisibility() ? 0
    : node.matches('table, pre, math, script, .hide > summary') ? 0
    : [...node.childNodes].reduce((sum, child) => sum + counted(child), 0);
  return counted(document.querySelector('article') || document.body); }"""
THEME = "theme => { document.documentElement.dataset.theme = theme; document.documentElement.dataset.mode = theme; }"


@dataclass
class Page:
    """What a browser saw on one page."""

    name: str
    problems: list[str] = field(default_factory=list)  # of the console, of requests
    images: list[dict[str, Any]] = field(default_factory=list)
    formulas: tuple[int, int] = (0, 0)  # places for a formula, formulas rendered there
    too_wide: list[str] = field(default_factory=list)
    contrast: dict[str, float] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    text: str = ""
    words: int = 0  # to be read: of what is not folded, without tables, code and formulas


@pytest.fixture(scope="module")
def address(smoke_book: Path) -> Iterator[str]:
    """The book behind a server on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(smoke_book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def watch(tab: Any, problems: list[str]) -> None:
    """Note what a tab asks for in vain or of others, and what it complains of."""
    tab.on("request", lambda asked: LOCAL.match(asked.url) or problems.append(f"asked for {asked.url}"))
    tab.on("console", lambda said: said.type == "error" and problems.append(f"console: {said.text}"))
    tab.on("pageerror", lambda error: problems.append(f"script: {error}"))
    tab.on("requestfailed", lambda request: problems.append(f"failed: {request.url} {request.failure}"))
    tab.on("response", lambda got: got.status >= 400 and problems.append(f"{got.status}: {got.url}"))


def look(tab: Any, heard: list[str], url: str, name: str) -> Page:
    """Open a page and note what it asks for, what it says, and how it looks in both themes and on a phone.

    Args:
        heard: where `watch` notes what this tab complains of.
    """
    seen = Page(name)
    tab.set_viewport_size(DESK)
    tab.goto(url, wait_until="load")
    tab.evaluate(PAINTED)
    tab.evaluate(ALL_PICTURES)
    seen.images = tab.evaluate(IMAGES)
    seen.formulas = tab.locator(".math.notranslate").count(), tab.locator(".math.notranslate math").count()
    seen.links = tab.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
    seen.text = tab.inner_text("body")
    seen.words = tab.evaluate(WORDS)
    tab.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    for theme in ("light", "dark"):
        tab.evaluate(THEME, theme)
        seen.contrast[theme] = tab.evaluate(CONTRAST)
    tab.set_viewport_size(PHONE)
    tab.evaluate(PAINTED)
    seen.too_wide = tab.evaluate(WIDER)
    seen.problems = heard.copy()
    heard.clear()
    return seen


@pytest.fixture(scope="module")
def pages(smoke_book: Path, address: str, browser: Any) -> list[Page]:
    """Every page of the book, as seen; of the listings of source code the index, the longest and the shortest."""
    sizes = {path.relative_to(smoke_book).as_posix(): path.stat().st_size for path in smoke_book.rglob("*.html")}
    names = sorted(name for name in sizes if not name.startswith(LISTINGS))
    listed = sorted(set(sizes).difference(names, [f"{LISTINGS}index.html"]), key=sizes.__getitem__)
    names += [f"{LISTINGS}index.html", listed[0], listed[-1]]
    heard: list[str] = []
    tab = browser.new_page()  # one for all: what all pages share is read once
    watch(tab, heard)
    seen = [look(tab, heard, f"{address}/{name}", name) for name in names if not name.startswith("_static/")]
    tab.close()
    return seen


def chapters(pages: list[Page]) -> list[Page]:
    return [page for page in pages if page.name.startswith("chapters/")]


def test_every_page_of_the_contents_is_there(pages: list[Page]) -> None:
    toc = (ROOT / "book" / "_toc.yml").read_text()
    wanted = {f"{name}.html" for name in re.findall(r"(?:root|file): (\S+)", toc)}
    assert wanted <= {page.name for page in pages}


def test_no_page_complains_misses_a_file_or_asks_the_network(pages: list[Page]) -> None:
    assert {page.name: page.problems for page in pages if page.problems} == {}


def test_listings_of_source_code_ask_for_files_that_are_there_and_say_what_the_book_is(smoke_book: Path) -> None:
    listings = list((smoke_book / LISTINGS).rglob("*.html"))
    assert len(listings) > 50
    for page in listings:
        text = page.read_text()
        asked = set(re.findall(r'<[^<>]* (?:src|href)="(?![a-z]+:)([^"#?]+)', text))
        assert len(asked) > 10 and SMOKE in text, page
        assert {name for name in asked if not (page.parent / name).exists()} == set(), page


def test_every_image_is_there_and_says_what_it_shows(pages: list[Page]) -> None:
    without = {
        page.name: bad
        for page in pages
        if (bad := [one for one in page.images if one["width"] == 0 or not says_something(one["alt"])])
    }
    assert without == {}
    pictured = {page.name for page in pages if any(one["figure"] and one["width"] > 200 for one in page.images)}
    drawn = {page.name for page in pages if page.name.endswith("02_your_data.html")}  # in the explorer, by a script
    assert {page.name for page in chapters(pages) if "/9" not in page.name} <= pictured | drawn, "chapters have figures"


def says_something(alt: str) -> bool:
    """Without alt text of its own, an image is given its file name."""
    return len(alt.strip()) > 3 and not re.search(r"\.(png|svg|jpe?g)$", alt)


def test_formulas_are_rendered_without_a_script(pages: list[Page]) -> None:
    assert {page.name: page.formulas for page in pages if page.formulas[0] != page.formulas[1]} == {}
    assert sum(page.formulas[1] for page in pages) > 0


def test_no_page_is_wider_than_a_phone(pages: list[Page]) -> None:
    assert {page.name: page.too_wide for page in pages if page.too_wide} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable(pages: list[Page], theme: str) -> None:
    assert {page.name: page.contrast[theme] for page in pages if page.contrast[theme] < 4.5} == {}


@pytest.mark.parametrize(
    "name",
    [
        "index",
        "chapters/02_your_data",
        "chapters/90_claims",
        "chapters/91_compute",
        "chapters/95_explorer",
        "chapters/96_results",
        "chapters/97_choosing",
        "gallery",
        "glossary",
        "bibliography",
    ],
)
def test_nothing_shuts_anybody_out(smoke_book: Path, browser: Any, name: str) -> None:
    """A page of each kind breaks no rule of WCAG 2 A and AA that axe-core tests, with all that is folded laid open."""
    tab = browser.new_page()
    tab.set_viewport_size(DESK)
    tab.goto(f"file://{smoke_book}/{name}.html")
    tab.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    violations = {}
    for theme, rules in (("light", ["wcag2a", "wcag2aa"]), ("dark", ["color-contrast"])):
        tab.evaluate(THEME, theme)
        found = Axe().run(tab, options={"runOnly": rules, "resultTypes": ["violations"]}).response["violations"]
        violations |= {f"{one['id']}, {theme}": [node["target"] for node in one["nodes"]] for one in found}
    tab.close()
    assert violations == {}


def test_code_is_folded_but_where_it_is_what_a_page_teaches(smoke_book: Path) -> None:
    for page in (smoke_book / "chapters").glob("*.html"):
        text = page.read_text()
        cells = text.count('<div class="cell_input ')
        folded = text.count('<details class="admonition hide above-input">')
        assert cells and folded == (0 if page.stem == "02_your_data" else cells), page.stem


def test_the_gallery_shows_every_figure_of_every_chapter_and_is_light(smoke_book: Path) -> None:
    page = smoke_book / "gallery.html"
    assert page.stat().st_size < 500e3
    shown = set(re.findall(r'href="(chapters/\S+?\.html#[\w-]+)"><img', page.read_text()))
    there = {
        f"chapters/{chapter.name}#{anchor}"
        for chapter in (smoke_book / "chapters").glob("*.html")
        for anchor in re.findall(r'<figure id="([\w-]+)"', chapter.read_text())
    }
    assert shown == there and len(shown) > 50


def test_a_part_of_which_the_profile_has_runs_is_not_left_out(smoke_book: Path) -> None:
    text = (smoke_book / "chapters" / "07_deep_guidance.html").read_text()
    assert "100 diagnoses, %" in text and "all diagnoses, over I" in text


def test_a_chapter_is_read_in_ten_minutes(pages: list[Page]) -> None:
    """At 240 words a minute, as adults read prose in English (Brysbaert, 2019); tables and formulas are looked at."""
    assert {page.name: page.words for page in chapters(pages) if page.words > 2400 and "95_" not in page.name} == {}


def test_a_chapter_can_be_downloaded_launched_and_edited(pages: list[Page], smoke_book: Path) -> None:
    assert chapters(pages)
    for page in chapters(pages):
        name = Path(page.name).stem
        offered = [link for link in page.links if "/_sources/chapters/" in link]
        assert sorted(link.rsplit(".", 1)[1] for link in offered) == ["ipynb", "md"], page.name
        for ending in ("ipynb", "md"):
            assert (smoke_book / "_sources" / "chapters" / f"{name}.{ending}").stat().st_size > 0
        assert [link for link in page.links if link.endswith(f"urlpath=lab/tree/notebooks/{name}.md")], page.name
        assert [link for link in page.links if link.endswith(f"/edit/main/notebooks/{name}.md")], page.name


def test_a_smoke_book_says_on_every_page_that_its_numbers_are_no_results(pages: list[Page]) -> None:
    assert [page.name for page in pages if SMOKE not in page.text] == []


def test_what_can_be_downloaded_names_no_folder_of_this_machine(smoke_book: Path) -> None:
    for path in (smoke_book / "_sources").rglob("*.ipynb"):
        assert str(ROOT) not in path.read_text(), path.name


def test_the_book_opens_from_a_folder_and_can_be_searched(smoke_book: Path, browser: Any) -> None:
    tab, problems = browser.new_page(), []
    watch(tab, problems)
    tab.goto(f"file://{smoke_book}/index.html")
    assert problems == []
    tab.goto(f"file://{smoke_book}/search.html?q=modality")
    tab.wait_for_selector("#search-results li")
    tab.close()


def test_claims_are_there_for_every_paper_and_can_be_filtered_by_verdict(smoke_book: Path, browser: Any) -> None:
    tab = browser.new_page()
    tab.goto(f"file://{smoke_book}/chapters/90_claims.html")
    rows = tab.locator("table.ledger tbody tr")
    ledger = read_yaml(ROOT / "book" / "claims.yml")["claims"]
    assert rows.count() == len(ledger), "one row a claim"
    titles = tab.locator("h3").all_text_contents()
    assert all(any(title.startswith(claim["paper"]) for title in titles) for claim in ledger)
    heads = tab.locator("table.ledger thead tr").first.locator("th").all_text_contents()
    for question, word in (
        ("paper's tables", "DOES NOT FOLLOW"),
        ("stand-in", "NOT TESTABLE"),
        ("real data", "NOT RUN"),
    ):
        place = heads.index(question)
        tab.select_option("#verdict", f"{place}:{word}")
        left = [row.locator("td").nth(place).inner_text() for row in rows.all() if row.is_visible()]
        assert left and all(verdict.startswith(word) for verdict in left)
    tab.select_option("#verdict", "")
    assert all(row.is_visible() for row in rows.all())
    tab.close()


def test_pages_that_are_looked_at_are_light_and_show_what_they_promise(smoke_book: Path, browser: Any) -> None:
    most = {
        "index": 0.5,
        "chapters/02_your_data": 3,
        "chapters/95_explorer": 12,
        "chapters/96_results": 2,
    }  # MB, of a page with its data
    assert {name for name, size in most.items() if (smoke_book / f"{name}.html").stat().st_size > size * 1e6} == set()
    tab = browser.new_page()
    tab.goto(f"file://{smoke_book}/index.html")
    assert tab.locator(".lanes g.point title").count() >= 15, "a point for each combination"
    assert "not a result" in (tab.get_attribute(".lanes .sides", "aria-label") or "")
    tab.locator(".lanes .sides g.point").last.hover()
    assert "Dice of the enhancing tumour, %" in tab.inner_text(".lanes output")
    tab.goto(f"file://{smoke_book}/chapters/95_explorer.html")
    tab.locator(".explorer .tile input[value=t1ce]").click()
    link = tab.evaluate("location.href")
    assert "have=t1+t2+flair" in link and tab.locator(".explorer tr[data-method]").count() >= 1
    other = browser.new_page()
    other.goto(link)
    assert other.inner_text(".explorer table.scores") == tab.inner_text(".explorer table.scores")
    assert tab.locator(".lesions .answers tr.true td").count() == 3
    assert "not a result" in tab.inner_text(".lesions figcaption")
    tab.goto(f"file://{smoke_book}/chapters/96_results.html")
    assert tab.locator(".asking g.point").count() >= 15
    assert "not a result" in tab.inner_text(".asking figcaption")
    tab.close()
    other.close()


def test_cases_of_one_s_own_are_worked_as_in_the_explorer(smoke_book: Path, browser: Any) -> None:
    tab, problems = browser.new_page(), []
    watch(tab, problems)
    tab.goto(f"file://{smoke_book}/chapters/02_your_data.html")
    view = tab.locator("figure.explorer")

    def drawn() -> list[str]:
        return view.locator("canvas").evaluate_all("all => all.map(canvas => canvas.toDataURL())")

    first, said = drawn(), view.locator(".said").inner_text()
    view.locator("input[value=flair]").click()
    without = drawn()
    assert view.locator(".missing .gone").inner_text() == "flair missing" and view.locator(".said").inner_text() != said
    assert [one != other for one, other in zip(first, without, strict=True)][4:] == [True, True], "on another image"
    view.locator("input[type=range]").last.fill("100")
    assert drawn()[4] != without[4], "the truth hides what is below"
    view.locator("input[type=range]").first.focus()
    tab.keyboard.press("ArrowRight")
    assert all(one != other for one, other in zip(drawn(), without, strict=True))
    view.get_by_text("phantom-0123").click()
    assert view.locator(".missing .gone").all_inner_texts() == ["t1 not acquired", "flair not acquired"]
    assert view.locator("thead th").first.inner_text() == "Volume, ml", "nobody has drawn a truth"
    assert "not for patients" in view.locator("figcaption").inner_text() and problems == []
    tab.close()


def test_probabilities_that_a_run_kept_give_the_scores_it_recorded(smoke_book: Path) -> None:
    runs = read_runs(ROOT / "build/results", "smoke", "derm7pt")
    answers = read_answers(runs)
    assert answers is not None and set(answers.predicted) == {"inferior", "superior", "both", "guided", "combined"}
    bounds = np.cumsum([len(classes) for classes in TASKS.values()])[:-1]
    recorded = runs.scores[runs.scores["run"].eq(answers.run.split(",")[0])]
    recorded = recorded.groupby(["variant", "metric", "target"], observed=True)["value"].mean()
    for row, said in answers.probabilities.items():
        parts = dict(zip(TASKS, np.split(said, bounds, axis=1), strict=True))
        for column, (task, part) in enumerate(parts.items()):
            assert part.sum(axis=1) == pytest.approx(1, abs=1e-5)
            again = balanced_accuracy_values(part.argmax(axis=1), answers.labels[:, column]).mean()
            assert again == pytest.approx(recorded[row, "balanced", task], abs=1e-4)
        score = seven_point_score({task: torch.from_numpy(part) for task, part in parts.items()}).numpy()
        again = auroc_values(score, is_melanoma(torch.from_numpy(answers.labels)).numpy()).mean()
        assert again == pytest.approx(recorded[row, "auroc", "melanoma"], abs=1e-4)


def test_decks_of_slides_open_without_a_network(smoke_book: Path, browser: Any, tmp_path: Path) -> None:
    made = make_slides(smoke_book, tmp_path / "slides")
    assert len(made) == len(DECKS)
    for deck in made:
        tab, problems = browser.new_page(), []
        watch(tab, problems)
        tab.goto(f"file://{deck}")
        assert tab.evaluate("Reveal.isReady() && Reveal.getTotalSlides()") > 12
        assert problems == [] and LABEL in tab.inner_text("section.present section.present")
        assert all(one["width"] and says_something(one["alt"]) for one in tab.evaluate(IMAGES)), deck.name
        tab.close()


def test_claims_can_be_filtered_by_paper_and_sentence(smoke_book: Path, browser: Any) -> None:
    tab = browser.new_page()
    tab.goto(f"file://{smoke_book}/chapters/90_claims.html")
    ledger = read_yaml(ROOT / "book" / "claims.yml")["claims"]
    tab.select_option("[data-fact=paper]", "Deep Guidance")
    tab.select_option("[data-fact=sentence]", "ours")
    wanted = [one["id"] for one in ledger if one["paper"] == "Deep Guidance" and one["sentence"] == "ours"]
    shown = [
        row.locator("td").first.inner_text() for row in tab.locator("table.ledger tbody tr").all() if row.is_visible()
    ]
    assert sorted(shown) == sorted(wanted) and shown
    assert not tab.locator("h3", has_text="ProtoKD").is_visible()
    assert tab.inner_text(".ledger-filter output") == f"{len(wanted)} of {len(ledger)}"
    tab.close()


def test_a_second_call_runs_nothing(smoke_book: Path) -> None:
    again = snakemake(ROOT, PROFILE="smoke", HTML=smoke_book.relative_to(ROOT).as_posix())
    assert "Nothing to be done" in again.stdout + again.stderr, again.stdout + again.stderr


def test_the_ledger_names_arms_that_the_runs_have(smoke_book: Path) -> None:
    """As if smoke numbers were results, so that a wrong name is found before the hours of another profile."""
    made = read_runs(ROOT / "build" / "results", "smoke", asked=asked_runs("smoke", "90_claims"))
    parts = evidence(Results(made.records.assign(profile="quick"), made.scores), ROOT / "book" / "claims.yml")
    decided = parts[parts["question"].ne(TABLES) & parts["judged"].ne("")]
    assert {"S1", "S12", "L2", "M1", "M8", "G3"} <= set(decided["id"])
