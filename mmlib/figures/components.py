"""A part of a page that a reader works: its data as text, its style and its script, all in the page itself.

So it needs no server, no network and no kernel, and JupyterLab, the executed notebook and the book show the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from mmlib.figures.style import Shown


def component(kind: str, data: Mapping[str, Any], script: str, style: str, *, alt: str, caption: str) -> Shown:
    """Put a component on a page.

    Args:
        kind: the class of its `<figure>`, by which script and style find it.
        data: plain values; the script reads them from the page.
        script: JavaScript that draws the component before the `<noscript>` of its figure.
        style: CSS.
        alt: what it is, where HTML cannot be shown.
        caption: stands below.
    """
    inside = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return Shown(
        f'<style>{style}</style><figure class="{kind}"><script type="application/json">{inside}</script>'
        "<noscript><p>This page needs JavaScript, which it carries itself.</p></noscript>"
        f"<figcaption>{escape(caption)}</figcaption><script>{script}</script></figure>",
        alt,
    )
