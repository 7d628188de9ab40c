"""One style for the whole book: fixed colour and marker per modality, region, method, verdict; and the way on a page.

Colours are those of Okabe and Ito, told apart by colour-blind readers; a marker or a hatch always says the same.
Figures have a white ground and a margin, so that they read on light and dark pages alike.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatterMathtext, NullFormatter
from pandas.io.formats.style import Styler

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#767676"

MODALITY = {
    "t1": (BLUE, "o"),
    "t1ce": (VERMILLION, "s"),
    "t2": (GREEN, "^"),
    "flair": (PURPLE, "D"),
    "pd": (ORANGE, "v"),
    "image": (SKY, "p"),
    "audio": (BLACK, "X"),
    "inferior": ("#882255", "<"),
    "superior": (GREY, "h"),
    "guided": ("#999933", ">"),
}
REGION = {
    "wt": (SKY, "o"),
    "tc": (YELLOW, "s"),
    "et": ("#E65528", "^"),
    "lesion": (VERMILLION, "D"),
}
REGION_NAME = {"wt": "whole tumour", "tc": "tumour core", "et": "enhancing tumour", "lesion": "lesion"}
METHOD = {  # arm -> colour, marker, name
    "shaspec paper": (BLUE, "o", "ShaSpec (paper)"),
    "shaspec released": (SKY, "s", "ShaSpec (released)"),
    "shaspec first-available": (PURPLE, "<", "ShaSpec, first-available"),
    "shaspec ring": (ORANGE, ">", "ShaSpec, ring"),
    "shaspec unmasked": (YELLOW, "v", "ShaSpec, unmasked"),
    "shaspec poly": ("#999933", "p", "ShaSpec, poly"),
    "shaspec blank-skips": ("#882255", "d", "ShaSpec, blank-skips"),
    "shaspec mean-skips": ("#661100", "*", "ShaSpec, mean-skips"),
    "dropout-unet": (VERMILLION, "D", "U-Net with dropout"),
    "u-hemis": (GREEN, "^", "U-HeMIS"),
    "u-hved": ("#44AA99", "8", "U-HVED"),
    "rfnet": ("#332288", "H", "RFNet"),
    "mmformer": ("#CC6677", "+", "mmFormer"),
    "m3ae": ("#AA4499", "x", "M3AE"),
    "simmlm": ("#117733", "1", "SimMLM"),
    "zero-fill": (GREY, "X", "U-Net fed zeros"),
    "dedicated": (BLACK, "P", "dedicated nets"),
}
VERDICT = {  # word of a verdict with numbers -> colour, marker
    "SHOWN": (BLUE, "o"),
    "ABSENT": (GREY, "s"),
    "REVERSED": (VERMILLION, "X"),
    "UNRESOLVED": (ORANGE, "v"),
    "IMPOSSIBLE": (GREEN, "*"),
    "NOT TESTABLE": (PURPLE, "D"),
    "NOT ASKED": (BLACK, "^"),
    "NOT SHOWN": (SKY, "P"),
}
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.12,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,  # a dollar in a label is part of a name; no label of the book has maths
    "svg.hashsalt": "mmlib",
}
DPI = 120
COLUMN = 7.2  # inches of a page of the book that a figure has; a wider one is shown smaller
LEAST = 8  # points of the smallest text on the page
styled = mpl.rc_context(STYLE)  # decorates a function that draws


@dataclass(frozen=True)
class Shown:
    """A figure as it stands on a page; the last expression of a notebook cell displays it."""

    html: str
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.alt}


@styled
def show(figure: Figure, alt: str, caption: str = "", *, image: bool = False) -> Shown:
    """Put a figure on a page, with alt text and caption. Every chapter shows its figures this way.

    The figure becomes an HTML `<figure>` with the picture inside: vector for plots, PNG for images. Alt text and
    caption are strings made in the cell, so they may hold numbers of the run, and JupyterLab, the executed notebook
    and the book show the same. (myst-nb can set `alt` in the metadata of a cell, but only to a text typed beforehand.)

    Args:
        figure: as the functions of `mmlib.figures.results` and `mmlib.figures.overlays` return it.
        alt: what a reader who cannot see the figure needs to know: what is drawn and what it shows.
        caption: stands below; say n, seeds and what to look for.
        image: the figure holds images: PNG instead of SVG.

    Raises:
        ValueError: if the alt text is empty.
    """
    if not alt.strip():
        raise ValueError("a figure needs alt text: say what is drawn and what it shows")
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            _plain_logarithms(axis)
    _make_legible(figure)
    buffer, kind = io.BytesIO(), ("png", "image/png") if image else ("svg", "image/svg+xml")
    figure.savefig(buffer, format=kind[0], dpi=DPI, metadata=None if image else {"Date": None})
    source = f"data:{kind[1]};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    below = f'<figcaption style="color:inherit">{escape(caption)}</figcaption>' if caption else ""
    html = (
        f'<figure style="margin:1em 0"><img class="dark-light" alt="{escape(alt)}" src="{source}" '
        f'style="max-width:100%;height:auto;background:white">{below}</figure>'
    )
    return Shown(html, alt)


def _make_legible(figure: Figure) -> None:
    """Enlarge text that the page would show below 8 points; numbers in the cells of a wide grid by a half at most."""
    shrinks = max(1.0, figure.get_figwidth() / COLUMN)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            size = float(axis.get_ticklabels()[0].get_fontsize()) if axis.get_ticklabels() else LEAST
            axis.set_tick_params(labelsize=max(size, LEAST * shrinks))
    for text in figure.findobj(Text):
        size = float(text.get_fontsize())
        text.set_fontsize(max(size, min(LEAST * shrinks, 1.5 * size)))


def _plain_logarithms(axis: Axis) -> None:
    """Label a logarithmic axis by numbers such as 0.01: matplotlib's own labels are maths, which is off."""
    if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
        axis.set_major_formatter("{x:g}")
    if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
        low, high = axis.get_view_interval()
        axis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())


def as_text(name: object) -> str:
    """A name from elsewhere, such as that of a case or a column, as text for a sentence in Markdown or HTML.

    Letters, digits and spaces stay; every other character becomes its number, which neither language reads as markup.
    """
    return re.sub(r"[^\w ]|_", lambda found: f"&#{ord(found[0])};", str(name))


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns), size in inches; made without pyplot, it is never left open."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def text_table(table: pd.DataFrame, widths: dict[str, int] | None = None) -> Styler:
    """A table of sentences for a page: without index, left and top aligned, wrapped; it scrolls where it is too wide.

    Args:
        table: whose cells and columns are text, not markup.
        widths: column -> least width in em; others take what they need.
    """
    cell = (
        "text-align: left; vertical-align: top; white-space: normal; font-size: 90%; padding: 0.3em 0.8em 0.3em 0.2em"
    )
    styles: list[Any] = [{"selector": "td, th", "props": cell}]
    for name, width in (widths or {}).items():
        place = table.columns.get_loc(name)
        styles.append({"selector": f"td.col{place}, th.col{place}", "props": f"min-width: {width}em"})
    styled_table = table.style.format(escape="html").format_index(escape="html", axis=1).hide(axis="index")
    return styled_table.set_table_styles(styles).set_table_attributes(
        'class="dataframe"'
    )  # themes know this class, in the dark too
