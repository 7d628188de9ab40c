"""Scores of every combination as lanes: a drawing that fits a phone, follows the theme and tells its points.

It is SVG in HTML without a library. Places along the scale are shares of the width, so text and markers keep their size
on every screen; colours of text and lines are those of the page. A point says on hover or tap what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from mmlib.analysis.wording import format_interval
from mmlib.figures.results import arm_style
from mmlib.figures.style import BLACK, MODALITY, Shown
from mmlib.modalities import MRI

LANE, HEAD, AXIS, STEP = 30, 30, 36, 24  # pixels: height of a lane, of a heading, of the scale; between modalities
SHAPES = {  # marker of matplotlib -> outline around 0 0, pixels
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "s": "M-3.6-3.6h7.2v7.2h-7.2z",
    "^": "M0-4.6L4.4 3.6H-4.4z",
    "v": "M0 4.6L4.4-3.6H-4.4z",
    "<": "M-4.6 0L3.6-4.4V4.4z",
    ">": "M4.6 0L-3.6-4.4V4.4z",
    "D": "M0-4.8L4.8 0L0 4.8L-4.8 0z",
    "d": "M0-5L3.4 0L0 5L-3.4 0z",
    "X": "M-4.4-2.4l2-2L0-2l2.4-2.4l2 2L2 0l2.4 2.4l-2 2L0 2l-2.4 2.4l-2-2L-2 0z",
    "P": "M-1.6-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "p": "M0-4.6L4.4-1.4L2.7 3.7H-2.7L-4.4-1.4z",
    "*": "M0-5.2L1.4-1.6L5-1.6L2.2 .8L3.2 4.4L0 2.3L-3.2 4.4L-2.2 .8L-5-1.6L-1.4-1.6z",
    "8": "M-1.8-4.4H1.8L4.4-1.8V1.8L1.8 4.4H-1.8L-4.4 1.8V-1.8z",
    "H": "M0-4.4L3.8-2.2V2.2L0 4.4L-3.8 2.2V-2.2z",
    "+": "M-.9-4.8h1.8v3.9h3.9v1.8h-3.9v3.9h-1.8v-3.9h-3.9v-1.8h3.9z",
    "x": "M-4-2.8l1.2-1.2L0-1.2l2.8-2.8l1.2 1.2L1.2 0l2.8 2.8l-1.2 1.2L0 1.2l-2.8 2.8l-1.2-1.2L-1.2 0z",
    "1": "M-.8-4.4H.8V0L4.2 2.2L3.3 3.6L0 1.5L-3.3 3.6L-4.2 2.2L-.8 0z",
    "h": "M-4.4 0L-2.2-3.8H2.2L4.4 0L2.2 3.8H-2.2z",
}
LANES_CSS = """
.lanes { margin: 1em 0; font-size: 14px; }
.lanes .sides { display: grid; grid-template-columns: 112px 1fr; }
.lanes svg { display: block; width: 100%; overflow: visible; font-size: 12px; }
.lanes text { fill: currentColor; }
.lanes .line { stroke: var(--pst-color-border, #bbb); stroke-width: 1; }
.lanes .absent { fill: none; stroke: var(--pst-color-border, #999); }
.lanes .known { stroke: currentColor; stroke-width: 1.6; stroke-dasharray: 5 3; }
.lanes .beyond { fill: currentColor; opacity: .08; }
.lanes g.point { cursor: pointer; }
.lanes g.point path { stroke: var(--pst-color-background, #fff); stroke-width: .8; }
.lanes g.point:hover path { stroke: currentColor; stroke-width: 1.6; }
.lanes .names { display: flex; flex-wrap: wrap; gap: .2em 1.2em; margin: .4em 0; }
.lanes .names svg { display: inline-block; width: 14px; height: 14px; vertical-align: -2px; }
.lanes output { display: block; min-height: 3em; padding: .3em .6em; border-left: 3px solid var(--pst-color-primary); }
.lanes figcaption { margin: .4em 0; text-align: left; font-weight: 400; color: var(--pst-color-text-muted, inherit); }
"""
TELL = (
    "<script>(() => { const figure = document.currentScript.parentElement, said = figure.querySelector('output');"
    "figure.addEventListener('pointerover', event => { const point = event.target.closest('g.point');"
    "if (point) said.textContent = point.querySelector('title').textContent; }); })()</script>"
)


def paint(colour: str) -> str:
    """The colour of a marker on light and dark pages alike: black is what the text is."""
    return "currentColor" if colour == BLACK else colour


def marker(arm: str, x: str = "7", y: float = 7) -> str:
    """The marker of an arm as SVG, at a place along the width and a height in pixels."""
    colour, kind, _ = arm_style(arm)
    return f'<svg x="{x}" y="{y}" style="width:1px"><path d="{SHAPES[kind]}" fill="{paint(colour)}"/></svg>'


def lanes(
    cells: pd.DataFrame,
    groups: Mapping[str, Sequence[str]],
    *,
    alt: str,
    caption: str,
    unit: str,
    known: Mapping[str, float] | None = None,
    modalities: Sequence[str] = MRI,
) -> Shown:
    """Draw one lane per combination, with the mean and the interval of every arm in it.

    Args:
        cells: of one target: arm, available, mean, low, high (in %), n, seeds; as `cell_means` returns them.
        groups: heading -> labels of combinations, from top to bottom.
        alt: what the drawing shows, for those who do not see it.
        caption: stands below.
        unit: what the scale is, such as `Dice of enhancing tumour, %`.
        known: heading -> the most that can be known there, %; a dashed line with a shade beyond.
        modalities: names, in canonical order.

    Raises:
        ValueError: if there is nothing to draw.
    """
    arms = list(dict.fromkeys(cells["arm"]))
    if not arms:
        raise ValueError("no scores to draw")
    left, right, y = [], [], 16.0
    for column, name in enumerate(modalities):
        left.append(f'<text x="{STEP * column + 12}" y="{y - 3}" text-anchor="middle" font-size="11">{name}</text>')
    for heading, combinations in groups.items():
        top, height = y + HEAD, LANE * len(combinations)
        right.append(f'<text x="0" y="{y + 21}" font-weight="600">{escape(heading)}</text>')
        for value in range(0, 101, 20):
            right.append(f'<line class="line" x1="{value}%" x2="{value}%" y1="{top}" y2="{top + height}"/>')
        if known and heading in known:
            most = known[heading]
            right.append(
                f'<rect class="beyond" x="{most:.2f}%" width="{100 - most:.2f}%" y="{top}" height="{height}"/>'
                f'<line class="known" x1="{most:.2f}%" x2="{most:.2f}%" y1="{top}" y2="{top + height}"/>'
                f'<text x="100%" dx="-4" y="{top + height / 2}" text-anchor="end" font-size="11">'
                "not in the images</text>"
            )
        for row, available in enumerate(combinations):
            middle = top + LANE * (row + 0.5)
            left.append(_holds(available, modalities, middle))
            right.append(f'<line class="line" x1="0" x2="100%" y1="{middle + LANE / 2}" y2="{middle + LANE / 2}"/>')
            right += _points(cells[cells["available"].eq(available)], arms, middle, unit)
        y = top + height
    for value in range(0, 101, 20):
        anchor = "end" if value == 100 else "middle"
        right.append(f'<text x="{value}%" y="{y + 16}" text-anchor="{anchor}">{value}</text>')
    right.append(f'<text x="50%" y="{y + 33}" text-anchor="middle">{escape(unit)}</text>')
    size = f'style="height:{y + AXIS}px"'
    names = "".join(
        f'<span><svg aria-hidden="true">{marker(arm)}</svg> {escape(arm_style(arm)[2])}</span>' for arm in arms
    )
    return Shown(
        f'<style>{LANES_CSS}</style><figure class="lanes"><div class="sides" role="img" aria-label="{escape(alt)}">'
        f'<svg {size}>{"".join(left)}</svg><svg {size}>{"".join(right)}</svg></div><div class="names">{names}</div>'
        f"<output>Point at a marker, or tap it, to read it.</output>"
        f"<figcaption>{escape(caption)}</figcaption>{TELL}</figure>",
        alt,
    )


def _holds(available: str, modalities: Sequence[str], y: float) -> str:
    """Filled circles for what is there, empty ones for what is missing."""
    has = available.split("+")
    return "".join(
        f'<circle cx="{STEP * column + 12}" cy="{y}" r="5"'
        + (f' fill="{paint(MODALITY[name][0])}"/>' if name in has else ' class="absent"/>')
        for column, name in enumerate(modalities)
    )


def _points(rows: pd.DataFrame, arms: Sequence[str], middle: float, unit: str) -> list[str]:
    """The points of one lane, the first arm on top, each with its interval and its text."""
    drawn = []
    for row in rows.itertuples():
        y = middle + (LANE - 6) * ((arms.index(row.arm) + 0.5) / len(arms) - 0.5)
        colour, _, name = arm_style(row.arm)
        says = f"{name} with {row.available}: {row.mean:.1f} ({format_interval(row.low, row.high)}); {unit}"
        says += f", 95 % interval, {row.n} cases, seeds: {row.seeds}"
        sure = row.low == row.low  # of one case there is no interval
        ends = (max(0, row.low), min(100, row.high)) if sure else (row.mean, row.mean)
        drawn.append(
            f'<g class="point"><title>{escape(says)}</title>'
            f'<line x1="{ends[0]:.2f}%" x2="{ends[1]:.2f}%" y1="{y:.1f}" y2="{y:.1f}" stroke="{paint(colour)}" '
            f'stroke-width="1.6"/>{marker(row.arm, f"{row.mean:.2f}%", round(y, 1))}</g>'
        )
    return drawn
