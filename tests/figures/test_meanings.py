"""A term says its meaning where it is pointed at: a small book of two pages, built by Sphinx."""

import re
import shutil
from pathlib import Path

import pytest
from small_books import EXTENSIONS, build

CONF = """
extensions = ["myst_parser", "sphinxcontrib.bibtex", "meanings"]
bibtex_bibfiles = ["references.bib"]
myst_enable_extensions = ["colon_fence"]
"""
GLOSSARY = """# Words

```{glossary}
Dice
    Twice the overlap, 1 is perfect ("all"). See elsewhere.

oedema
swelling
    Label 2 of BraTS; bright in `flair`
    and more. Next to {term}`Dice`.

empty
```
"""
PAGE = "# Page\n\n{term}`Dice`, {term}`swollen <swelling>`, {term}`empty` and [a link](https://example.org).\n"


def with_sources(book: Path, **pages: str) -> Path:
    """The HTML of a book with these pages and the book's bibliography."""
    shutil.copy(EXTENSIONS.parent / "references.bib", book)
    return build(book, CONF, pages)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_sources(tmp_path_factory.mktemp("book"), index=f"{PAGE}\n```{{toctree}}\nwords\n```\n", words=GLOSSARY)


def titles(page: Path) -> dict[str, str | None]:
    """The title of every link to a term, by the text of the link."""
    links = re.findall(r'<a class="reference[^>]*>(?:<span class="xref std std-term">).*?</a>', page.read_text())
    text = {link: re.sub(r"<[^>]*>", "", link) for link in links}
    return {text[link]: (found := re.search(r' title="(.*?)"', link)) and found[1] for link in links}


def test_a_link_to_a_term_has_the_first_sentence_of_its_definition(built: Path) -> None:
    found = titles(built / "index.html")
    assert found["Dice"] == "Twice the overlap, 1 is perfect (“all”)."
    assert found["swollen"] == "Label 2 of BraTS; bright in flair and more.", "lines are joined, names share a meaning"


def test_a_term_without_a_definition_and_other_links_say_nothing(built: Path) -> None:
    assert titles(built / "index.html").get("empty") is None
    assert "title" not in re.search(r"<a [^>]*example.org[^>]*>", (built / "index.html").read_text())[0]


def test_the_glossary_s_own_links_say_it_too(built: Path) -> None:
    assert titles(built / "words.html")["Dice"].startswith("Twice the overlap")


def test_every_term_of_the_book_has_a_meaning_short_enough_to_point_at(tmp_path: Path) -> None:
    glossary = (EXTENSIONS.parent / "glossary.md").read_text()
    terms = re.findall(r"^(\w.*)\n    \S", glossary, re.MULTILINE)
    links = "\n\n".join(f"{{term}}`{term}`" for term in terms)
    found = titles(with_sources(tmp_path, index=f"# Terms\n\n{links}\n", glossary=glossary) / "index.html")
    assert len(terms) > 50 and sorted(found) == sorted(terms)
    assert {term: said for term, said in found.items() if not said or not 10 < len(said) < 250} == {}
