"""Pictures of chapters lie once, as files, and the gallery leads to each: a small book, built by Sphinx."""

import base64
import re
from pathlib import Path

import pytest
from small_books import build

from mmlib.figures.page import CAVEAT

PICTURE = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
SHOWN = (
    '<figure style="margin:0"><img class="dark-light" alt="{alt}" '
    f'src="data:image/svg+xml;base64,{base64.b64encode(PICTURE).decode()}" style="max-width:100%">'
    "{below}</figure>"
)
CHAPTER = f"""# A chapter

```{{raw}} html
{SHOWN.format(alt="Dice falls to 3 &amp; less. More.", below="<figcaption>Dice, n = 40. Look left.</figcaption>")}
```

% fold the rest

```{{raw}} html
{SHOWN.format(alt="It rises", below=f"<figcaption>{CAVEAT}Dice &lt; 3. Look right.</figcaption>")}
```

```{{raw}} html
{SHOWN.format(alt="Slices", below="").replace("<figure", '<figure id="slices-1"')}<script>slide()</script>
```
"""
GALLERY = """# Gallery

```{gallery}
```

```{toctree}
chapters/one
```
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = 'extensions = ["myst_parser", "gallery", "folds"]'
    return build(tmp_path_factory.mktemp("book"), settings, {"chapters/one": CHAPTER, "index": GALLERY})


def test_a_picture_is_one_file_that_chapter_and_gallery_show(built: Path) -> None:
    (file,) = (built / "_images").iterdir()
    assert file.read_bytes() == PICTURE
    chapter = (built / "chapters" / "one.html").read_text()
    assert re.findall(r'id="((?:figure|slices)-\d)".*?src="([^"]*)"', chapter) == [
        ("figure-1", f"../_images/{file.name}"),
        ("figure-2", f"../_images/{file.name}"),
        ("slices-1", f"../_images/{file.name}"),
    ]
    assert re.findall(r'<figure id="(.*?)" style', chapter)[2:] == ["slices-1"], "its script finds it by that"
    assert chapter.count('style="max-width:100%"') == 3 and "Look left." in chapter


def test_what_follows_the_mark_is_folded_and_counted(built: Path) -> None:
    open_, _, folded = (built / "chapters" / "one.html").read_text().partition('<details class="fold">')
    assert folded.startswith("<summary>More: 2 figures</summary>") and folded.index("</details>") < folded.index(
        "</section>"
    )
    assert 'id="figure-1"' in open_ and 'id="figure-2"' in folded.partition("</details>")[0]


def test_the_gallery_says_the_first_sentence_and_leads_to_the_place(built: Path) -> None:
    items = re.findall(r"<li><a href=.*?</li>", (built / "index.html").read_text())
    assert [re.search('href="(.*?)"', one)[1] for one in items] == [
        f"chapters/one.html#{anchor}" for anchor in ("figure-1", "figure-2", "slices-1")
    ]
    assert [re.search("<span>(.*?)</span>", one)[1] for one in items] == [
        "Dice, n = 40.",
        f"{CAVEAT}Dice &lt; 3.",
        "Slices",
    ]
    assert all('loading="lazy"' in one for one in items)
    assert 'alt="Dice falls to 3 &amp; less. More."' in items[0]
