"""A page on paper: what is folded is open, what is to be clicked is gone, and it says where it is from."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
SHOWN = "one => getComputedStyle(one).display !== 'none'"
PAGE = """<!doctype html><html data-theme="dark"><head><style>{css}</style></head><body>
<nav class="bd-sidebar-primary">contents</nav>
<article class="bd-article"><details id="folded"><summary>Answer</summary>because</details>
<details id="code" class="hide above-input"><summary>Show source</summary>print()</details>
<details id="open" open><summary>Why?</summary>so</details>
<pre style="overflow: auto">code</pre><button class="copybtn">copy</button>
<p class="printed-from">from</p></article><script>{script}</script></body></html>"""


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Any:
    static = BOOK / "_static"
    text = PAGE.format(css=(static / "print.css").read_text(), script=(static / "print.js").read_text())
    (tmp_path / "page.html").write_text(text)
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    yield page
    page.close()


def test_what_is_folded_opens_for_the_printer_and_closes_again(opened: Any) -> None:
    places = "['folded', 'code', 'open'].map(name => document.getElementById(name).open)"
    state = f"() => [...{places}, document.documentElement.dataset.theme]"
    before = opened.evaluate(state)
    assert before == [False, False, True, "dark"]
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.evaluate(state) == [True, False, True, "light"], "code stays folded"
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.evaluate(state) == before


def test_paper_has_the_text_and_its_origin_and_nothing_to_click(opened: Any) -> None:
    for medium, clicked, origin in (("screen", True, False), ("print", False, True)):
        opened.emulate_media(media=medium)
        assert opened.eval_on_selector(".bd-sidebar-primary", SHOWN) is clicked
        assert opened.eval_on_selector(".copybtn", SHOWN) is clicked
        assert opened.eval_on_selector(".printed-from", SHOWN) is origin
    assert opened.eval_on_selector("pre", "one => getComputedStyle(one).overflow") == "visible"


@pytest.mark.parametrize(
    ("page", "ends"),
    [
        ("chapters/05_protokd", "/notebooks/05_protokd.md"),
        ("start", "/book/start.md"),
        ("generated/mmlib.load", "example.org/book"),
    ],
)
def test_a_page_ends_with_the_link_to_its_text_at_a_commit(
    page: str, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(BOOK.parent)
    monkeypatch.syspath_prepend(str(BOOK / "_ext"))
    import pages

    options = {"repository_url": "https://example.org/book"}
    app = SimpleNamespace(config=SimpleNamespace(html_theme_options=options, html_title="A & B"))
    context = {"body": "<p>text</p>", "last_updated": "Nov 29, 2026"}
    pages.print_origin(app, page, "page.html", context, object())
    sys.modules.pop("pages")
    (address,) = re.findall(r'<a href="(.*?)">', context["body"])
    assert address.endswith(ends) and "A &amp; B, Nov 29, 2026" in context["body"]
    if "blob" in address:
        assert re.search(r"/blob/([0-9a-f]{40}|main)/", address)
