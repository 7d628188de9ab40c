"""A part of a page that a reader works: its data as text, its style and its script, all in the page itself.

So it needs no server, no network and no kernel, and JupyterLab, VS Code, a notebook saved as HTML and the book show the
same. A widget would need a package more in each of them, and in a saved page fetch its manager from a server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from mmlib.figures.style import Shown


def component(folder: Path, kind: str, data: Mapping[str, Any], *, alt: str, caption: str, style: str = "") -> Shown:
    """Put a component on a page.

    Args:
        folder: of scripts and styles. `<name>.js` draws the component before the `<noscript>` of its figure, with what
            `parts.js` gives to all; `<name>.css` is its style.
        kind: classes of its `<figure>`, by which the style finds it; the last one is its name.
        data: plain values; the script reads them from the page.
        alt: what it is, where HTML cannot be shown.
        caption: stands below.
        style: CSS that comes before its own.

    Raises:
        FileNotFoundError: if one of the files is not in the folder.
    """
    name = kind.split()[-1]
    script = "".join((folder / f"{part}.js").read_text(encoding="utf-8") for part in ("parts", name))
    style += (folder / f"{name}.css").read_text(encoding="utf-8")
    inside = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Shown(
        f'<style>{style}</style><figure class="{kind}"><script type="application/json">{inside}</script>'
        "<noscript><p>This page needs JavaScript, which it carries itself.</p></noscript>"
        f"<figcaption>{escape(caption)}</figcaption><script>(() => {{\n{script}}})();</script></figure>",
        alt,
    )
