"""Pictures and tables of the ledgers: how many claims got which verdict, and every measured effect, paper by paper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator

from mmlib.figures.style import BLUE, GREY, VERDICT, VERMILLION, new_figure, styled, text_table
from mmlib.ledgers.claims import QUESTIONS, TABLES, page

HATCH = {  # word -> hatch, so that words differ without colour; every word of one question has its own
    "FOLLOWS": "",
    "DOES NOT FOLLOW": "xx",
    "NOT CHECKABLE": "..",
    "SHOWN": "",
    "ABSENT": "..",
    "REVERSED": "xx",
    "IMPOSSIBLE": "oo",
    "UNRESOLVED": "\\\\",
    "NOT TESTABLE": "--",
    "NOT SHOWN": "//",
    "NOT RUN": "++",
    "NOT ASKED": "**",
}
COLOUR = {word: colour for word, (colour, _) in VERDICT.items()}
COLOUR |= {"FOLLOWS": BLUE, "DOES NOT FOLLOW": VERMILLION}
COLOUR |= dict.fromkeys(("NOT TESTABLE", "NOT ASKED"), "white")  # no answer
ASKED = {"equivalent": " (equal)", "no-worse": " (no worse)"}  # beside the id, where a claim asks no gain
TICKS = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100)  # multiples of the smallest effect of interest


@styled
def verdict_bars(counts: dict[str, pd.DataFrame]) -> Figure:
    """How many claims of each paper got each word: a panel for each question, a stacked bar for each paper.

    Args:
        counts: question -> as `mmlib.ledgers.claims.count` returns them: the same papers by the words of the question.

    Raises:
        ValueError: if there is no paper, or a column is no word of its question.
    """
    unknown = sorted({word for name, table in counts.items() for word in table.columns if word not in QUESTIONS[name]})
    papers = list(next(iter(counts.values())).index)
    if not papers or unknown:
        raise ValueError(f"needs papers by verdicts; got {len(papers)} papers and the unknown verdicts {unknown}")
    figure, axes = new_figure(7.5, (0.34 * len(papers) + 1.0) * len(counts), len(counts), 1, sharex=True)
    for axis, (question, table) in zip(axes[:, 0], counts.items(), strict=True):
        left = np.zeros(len(papers))
        for word in [word for word in QUESTIONS[question] if word in table and table[word].any()]:
            widths = table[word].to_numpy(float)
            axis.barh(
                range(len(papers)), widths, left=left, color=COLOUR.get(word, "white"), hatch=HATCH[word],
                edgecolor="#222222", linewidth=0.6, label=word,
            )  # fmt: skip
            for place, (start, width) in enumerate(zip(left, widths, strict=True)):
                if width:
                    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
                    axis.text(start + width / 2, place, f"{width:.0f}", ha="center", va="center", fontsize=8, bbox=box)
            left += widths
        axis.set_title(question[0].upper() + question[1:])
        axis.set_yticks(range(len(papers)), papers)
        axis.invert_yaxis()
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(visible=False, axis="y")
        if axis.patches:
            axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize=8)
    axes[-1, 0].set_xlabel("number")
    return figure


def drawable(table: pd.DataFrame) -> pd.DataFrame:
    """The measured rows with an interval, in multiples of the smallest effect of interest, in the order of the ledger.

    Args:
        table: rows as `mmlib.ledgers.claims.weakest` returns them; rows of arithmetic, without numbers, without an
            interval or with a smallest effect of 0 are left out.
    """
    rows = table[table["question"].ne(TABLES) & np.isfinite(table["low"].astype(float)) & table["sesoi"].gt(0)]
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
    **{"claim": 13, **dict.fromkeys(QUESTIONS, 10), "paper says": 11, "rule, and its date": 9, "why": 20},
}


def ledger_table(rows: pd.DataFrame, widths: dict[str, int]) -> str:
    """Rows of a ledger as HTML, in a frame that scrolls where a screen is narrow; the word of a verdict is bold.

    Args:
        rows: as `page` of a ledger returns them: all cells are text, a verdict is the first line of its cell.
        widths: column -> least width in em.
    """

    def cell(text: str) -> str:
        word, _, rest = text.partition("\n")
        return f"<strong>{escape(word)}</strong>" + (f"<br>{escape(rest)}" if rest else "")

    answers = [name for name in rows.columns if name in QUESTIONS]
    table = text_table(rows, widths).format(escape="html", subset=[c for c in rows.columns if c not in answers])
    html = table.format(cell, subset=answers).set_table_attributes('class="dataframe ledger"').to_html()
    return f'<div style="overflow-x: auto">{html}</div>'


def claims_table(table: pd.DataFrame, paper: str) -> str:
    """The claims of one paper as HTML.

    Args:
        table: as `mmlib.ledgers.claims.weakest` returns it.
        paper: as the ledger names it.
    """
    return ledger_table(page(table[table["paper"] == paper]), WIDTHS)


def verdict_filter(rows: pd.DataFrame, facts: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Choices that leave, in all tables of a ledger on the page, the rows that meet all of them; HTML and a script.

    Args:
        rows: whose columns the tables have, those of `page` of a ledger; the first holds the id.
        facts: a further choice, such as `paper` -> id of a row -> what it is. Sections without a row left are hidden.
    """
    groups = "".join(
        f'<optgroup label="{escape(question)}">'
        + "".join(f'<option value="{place}:{word}">{question}: {word}</option>' for word in QUESTIONS[question])
        + "</optgroup>"
        for place, question in enumerate(rows.columns)
        if question in QUESTIONS
    )
    chosen = [f'<label>Show <select id="verdict"><option value="">every verdict</option>{groups}</select></label>']
    for name, of in (facts or {}).items():
        options = "".join(f"<option>{escape(value)}</option>" for value in dict.fromkeys(of.values()))
        chosen.append(
            f'<label>{escape(name)} <select data-fact="{escape(name)}"><option value="">every {escape(name)}</option>'
            f"{options}</select></label>"
        )
    known = json.dumps(facts or {}).replace("</", "<\\/")
    return (
        f'<p class="ledger-filter" style="display: flex; flex-wrap: wrap; gap: .4em 1.2em">{" ".join(chosen)}'
        '<output aria-live="polite"></output></p>'
        f"<script>(() => {{ const facts = {known}, bar = document.querySelector('.ledger-filter');"
        "bar.onchange = () => { const rows = [...document.querySelectorAll('table.ledger tbody tr')];"
        "const [place, word] = bar.querySelector('#verdict').value.split(':');"
        "const picked = [...bar.querySelectorAll('[data-fact]')].filter(one => one.value);"
        "for (const row of rows) { const id = row.cells[0].textContent.trim();"
        "row.hidden = Boolean(word) && row.cells[place].querySelector('strong').textContent !== word"
        "|| picked.some(one => facts[one.dataset.fact][id] !== one.value); }"
        "const sections = new Set(rows.map(row => row.closest('section section section')));"
        "for (const one of sections) if (one) one.hidden = ![...one.querySelectorAll('table.ledger tbody tr')]"
        ".some(row => !row.hidden);"
        "const left = rows.filter(row => !row.hidden).length;"
        "bar.querySelector('output').value = left < rows.length ? `${left} of ${rows.length}` : ''; }; })()</script>"
    )


def claims_filter(table: pd.DataFrame) -> str:
    """`verdict_filter` for the claims, with choices of the paper, and of whose sentence and which kind it is.

    Args:
        table: as `mmlib.ledgers.claims.weakest` returns it.
    """
    first = table.drop_duplicates("id").set_index("id")
    facts = {
        "paper": first["paper"].to_dict(),
        "sentence": first["sentence"].map({"ours": "ours"}).fillna("the paper's").to_dict(),
        "rule": table.groupby("id", sort=False)["rule"].max().replace("", "no run").to_dict(),
    }
    return verdict_filter(page(table), facts)
