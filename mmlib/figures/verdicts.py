"""Pictures of the claims ledger: how many claims got which verdict, and every measured effect, paper by paper."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator

from mmlib.figures.style import GREY, VERDICT, new_figure, styled, text_table
from mmlib.ledgers.claims import VERDICTS, page

HATCH = {
    "REPRODUCED": "",
    "DIRECTION ONLY": "//",
    "NO EFFECT": "..",
    "CONTRADICTED": "xx",
    "UNDERPOWERED": "\\\\",
    "NOT TESTED HERE": "--",
}
ASKED = {"equivalent": " (equal)", "no-worse": " (no worse)"}  # beside the id, where a claim asks no gain
TICKS = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100)  # multiples of the smallest effect of interest


def _colour(verdict: str) -> str:
    return VERDICT[verdict][0] if verdict in VERDICT else "white"


@styled
def verdict_bars(counts: pd.DataFrame) -> Figure:
    """How many claims of each paper got each verdict: a stacked bar a paper, with the counts in it.

    Args:
        counts: as `mmlib.ledgers.claims.count` returns them: papers by verdicts.

    Raises:
        ValueError: if there is no paper, or a column is no verdict.
    """
    unknown = set(counts.columns) - set(VERDICTS)
    if counts.empty or unknown:
        raise ValueError(
            f"needs papers by verdicts; got {len(counts)} papers and the unknown verdicts {sorted(unknown)}"
        )
    figure, axes = new_figure(7.5, 0.42 * len(counts) + 1.3)
    axis = axes[0, 0]
    left = np.zeros(len(counts))
    for verdict in [name for name in VERDICTS if name in counts and counts[name].any()]:
        widths = counts[verdict].to_numpy(float)
        axis.barh(
            range(len(counts)), widths, left=left, color=_colour(verdict), hatch=HATCH[verdict], edgecolor="#222222",
            linewidth=0.6, label=verdict,
        )  # fmt: skip
        for place, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
                axis.text(start + width / 2, place, f"{width:.0f}", ha="center", va="center", fontsize=8, bbox=box)
        left += widths
    axis.set_yticks(range(len(counts)), list(counts.index))
    axis.invert_yaxis()
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("checks of claims")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def drawable(table: pd.DataFrame) -> pd.DataFrame:
    """The measured rows with an interval, in multiples of the smallest effect of interest, in the order of the ledger.

    Args:
        table: rows as `mmlib.ledgers.claims.weakest` returns them; rows of arithmetic, without numbers, without an
            interval or with a smallest effect of 0 are left out.
    """
    rows = table[table["kind"].eq("measured") & np.isfinite(table["low"].astype(float)) & table["sesoi"].gt(0)]
    return rows.assign(**{name: rows[name].astype(float) / rows["sesoi"] for name in ("effect", "low", "high")})


@styled
def claims_forest(table: pd.DataFrame) -> Figure:
    """The effect of every measured claim with its interval, grouped by paper.

    Effects of different units share an axis, which counts smallest effects of interest: linear from -1 to 1 (the grey
    band), logarithmic beyond.

    Args:
        table: as `mmlib.ledgers.claims.weakest` returns it: the weakest part of every claim.

    Raises:
        ValueError: if no row has an interval.
    """
    rows = drawable(table)
    if rows.empty:
        raise ValueError("a forest plot needs a measured effect with an interval, and there is none")
    papers = list(dict.fromkeys(rows["paper"]))
    heights = [int(rows["paper"].eq(paper).sum()) for paper in papers]
    figure, axes = new_figure(
        7.5, 0.24 * sum(heights) + 0.35 * len(papers) + 1.3, len(papers), 1, sharex=True, height_ratios=heights
    )
    for axis, paper in zip(axes[:, 0], papers, strict=True):
        own = rows[rows["paper"] == paper]
        axis.add_patch(Rectangle((-1, -0.5), 2, len(own), color="#E8E8E8", zorder=0))
        axis.axvline(0, color="#444444", linewidth=0.8)
        for place, row in enumerate(own.itertuples()):
            colour, marker = VERDICT[row.verdict]
            axis.hlines(place, row.low, row.high, color=colour)
            axis.plot(row.effect, place, marker=marker, color=colour, linestyle="none", markersize=6)
        axis.set_yticks(range(len(own)), [f"{row.id}{ASKED.get(row.rule, '')}" for row in own.itertuples()])
        axis.set_ylim(len(own) - 0.5, -0.5)
        axis.set_title(paper)
    last = axes[-1, 0]
    last.set_xscale("symlog", linthresh=1, linscale=0.8)
    reach = 1.3 * max(1.0, float(rows[["low", "high"]].abs().to_numpy().max()))
    last.set_xlim(-reach, reach)
    last.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if abs(tick) <= reach]))
    last.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    last.set_xlabel("effect in the claimed direction, in smallest effects of interest, 95 % interval")
    present = set(rows["verdict"])
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker=marker, label=verdict)
        for verdict, (colour, marker) in VERDICT.items()
        if verdict in present
    ]
    band = Patch(facecolor="#E8E8E8", edgecolor=GREY, linewidth=0.3, label="below the smallest effect of interest")
    figure.legend(handles=[*handles, band], loc="outside lower center", ncols=3)
    return figure


WIDTHS = {  # of the columns of a table of claims, em
    **{"claim": 13, "verdict": 9, "effect": 7, "95 % interval": 7, "part": 12, "rule": 7},
    **{"paper says": 11, "reason": 16},
}


def claims_table(table: pd.DataFrame, paper: str) -> str:
    """The claims of one paper as HTML, in a frame that scrolls where a screen is narrow.

    Args:
        table: as `mmlib.ledgers.claims.weakest` returns it.
        paper: as the ledger names it.
    """
    html = text_table(page(table, paper), WIDTHS).set_table_attributes('class="dataframe claims"').to_html()
    return f'<div style="overflow-x: auto">{html}</div>'


def verdict_filter() -> str:
    """A choice that leaves, in all tables of claims on the page, the rows with one verdict; HTML without a network."""
    options = "".join(f"<option>{verdict}</option>" for verdict in VERDICTS)
    return (
        f'<p><label>Show <select id="verdict"><option value="">all verdicts</option>{options}</select></label></p>'
        '<script>document.getElementById("verdict").onchange = event => {'
        'for (const row of document.querySelectorAll("table.claims tbody tr")) {'
        "row.hidden = !row.cells[2].textContent.startsWith(event.target.value); } };</script>"
    )
