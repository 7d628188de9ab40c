"""The standard figures of the book. Every function returns a matplotlib Figure; `show` puts it on a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import cell_means, paired_effects
from mmlib.data.cases import REGIONS
from mmlib.figures.style import (
    GREY,
    METHOD,
    MODALITY,
    REGION_NAME,
    VERDICT,
    VERMILLION,
    new_figure,
    styled,
)
from mmlib.figures.style import show as show
from mmlib.figures.style import text_table as text_table
from mmlib.modalities import MRI, combinations, label


def arm_of(scores: pd.DataFrame) -> pd.Series:
    """Name what is compared: the method, with its variant where it has several; all dedicated nets are one arm."""
    plain = scores["variant"].isin(("", "standard")) | scores["method"].eq("dedicated")
    return scores["method"].where(plain, scores["method"] + " " + scores["variant"])


def arm_style(arm: str) -> tuple[str, str, str]:
    """Colour, marker and printed name of an arm; an arm without a fixed style is grey and keeps its own name."""
    return METHOD.get(arm, (GREY, "h", arm))


def _dice_cells(scores: pd.DataFrame, arms: Sequence[str] | None) -> pd.DataFrame:
    dice = scores[scores["metric"].eq("dice")]
    dice = dice.assign(arm=arm_of(dice), value=100 * dice["value"])
    known = [arm for arm in (arms or METHOD) if arm in set(dice["arm"])]
    if arms is not None and len(known) < len(arms):
        raise ValueError(f"no scores of {sorted(set(arms) - set(known))}; there are {sorted(dice['arm'].unique())}")
    if not known:
        raise ValueError(f"no dice of a known method; there are {sorted(dice['arm'].unique())}")
    return cell_means(dice[dice["arm"].isin(known)]).astype({"arm": pd.CategoricalDtype(known, ordered=True)})


# ---------------------------------------------------------------------------------------------------------- curves
@styled
def history_curves(
    runs: Results, experiment: str | None = None, arms: Sequence[str] | None = None, column: str = "loss"
) -> Figure:
    """The history of every run, one panel per arm, one line per seed.

    Args:
        column: `loss`, as running means; losses of different methods have different parts, so only the shape is
            compared. Or `score`, the validation score of a stopping rule.
    """
    records = runs.records if experiment is None else runs.records[runs.records["experiment"] == experiment]
    records = records.assign(arm=arm_of(records))
    known = [arm for arm in (arms or METHOD) if arm in set(records["arm"])]
    columns = min(3, len(known))
    rows = -(-len(known) // columns)
    figure, axes = new_figure(2.6 * columns + 0.6, 1.9 * rows + 0.4, rows, columns, sharex=True)
    for axis in axes.flat[len(known) :]:
        axis.set_visible(False)
    for axis, arm in zip(axes.flat, known, strict=False):
        colour, _, name = arm_style(arm)
        for index, row in enumerate(records[records["arm"] == arm].itertuples()):
            history = runs.history(row.run, row.experiment)
            if column not in history:
                continue  # a run without a stopping rule
            curve = history.set_index("step")[column].dropna()
            if column == "loss":
                curve = _smooth(curve).iloc[:: max(1, len(curve) // 150)]
            axis.plot(curve, color=colour, linestyle=("-", "--", ":", "-.")[index % 4])
        axis.set_title(name)
    for axis in axes.flat[len(known) - columns : len(known)]:
        axis.set_xlabel("optimiser step")
        axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("loss" if column == "loss" else "validation score")
    return figure


def _smooth(values: pd.Series) -> pd.Series:
    return values.rolling(max(1, len(values) // 40), min_periods=1, center=True).mean()


# ---------------------------------------------------------------------------------------------------- combinations
def _combination_axis(axis: Axes, modalities: Sequence[str]) -> list[str]:
    """Draw which modalities each row has: a filled marker is available, an empty circle is missing."""
    rows = [label(names, modalities) for names in combinations(modalities)]
    for row, names in enumerate(combinations(modalities)):
        for column, name in enumerate(modalities):
            colour, marker = MODALITY[name]
            style: dict[str, Any] = (
                {"marker": marker, "color": colour}
                if name in names
                else {"marker": "o", "color": "#BBBBBB", "mfc": "none"}
            )
            axis.plot(column, row, markersize=6, linestyle="none", **style)
    axis.set(xlim=(-0.6, len(modalities) - 0.4), yticks=[], xticks=range(len(modalities)))
    axis.set_xticklabels(modalities, rotation=90)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.xaxis.tick_top()
    return rows


def _combination_axes(
    panels: int, width: float, modalities: Sequence[str]
) -> tuple[Figure, Axes, np.ndarray, list[str]]:
    count = 2 ** len(modalities) - 1
    ratios = [0.25 * len(modalities)] + [width] * panels
    figure, axes = new_figure(sum(ratios) + 0.3, 0.26 * count + 1.4, 1, panels + 1, width_ratios=ratios, sharey=True)
    rows = _combination_axis(axes[0, 0], modalities)
    axes[0, 0].set_ylim(count - 0.5, -0.5)
    sizes = [name.count("+") for name in rows]
    for axis in axes[0]:
        for row in range(1, count):
            if sizes[row] != sizes[row - 1]:
                axis.axhline(row - 0.5, color="#888888", linewidth=0.8)
    return figure, axes[0, 0], axes[0, 1:], rows


@styled
def combination_dots(
    scores: pd.DataFrame,
    arms: Sequence[str] | None = None,
    targets: Sequence[str] = REGIONS,
    modalities: Sequence[str] = MRI,
) -> Figure:
    """Dice of every combination, one panel per region, one marker with its interval per method.

    Args:
        scores: tidy, as `Results.scores`.
        arms: which methods, see `arm_of`; None: all with a fixed style.

    Raises:
        ValueError: if an arm has no scores.
    """
    cells = _dice_cells(scores, arms)
    figure, _, axes, rows = _combination_axes(len(targets), 2.5, modalities)
    known = list(cells["arm"].cat.categories)
    for axis, target in zip(axes, targets, strict=True):
        for place, arm in enumerate(known):
            colour, marker, name = arm_style(arm)
            part = cells[cells["arm"].eq(arm) & cells["target"].eq(target) & cells["available"].isin(rows)]
            y = part["available"].map(rows.index) + 0.7 * ((place + 0.5) / len(known) - 0.5)
            axis.hlines(y, part["low"], part["high"], color=colour, linewidth=1)
            axis.plot(part["mean"], y, linestyle="none", marker=marker, markersize=4, color=colour, label=name)
        axis.set_title(f"{target.upper()}, {REGION_NAME.get(target, target)}")
        axis.set_xlabel("Dice, %")
        axis.set_xlim(0, 100)
        axis.tick_params(axis="y", length=0)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(known)))
    return figure


@styled
def combination_heatmap(
    scores: pd.DataFrame,
    arms: Sequence[str] | None = None,
    targets: Sequence[str] = REGIONS,
    modalities: Sequence[str] = MRI,
) -> Figure:
    """Dice of every combination as numbers on a shade: rows are combinations, columns methods, panels regions.

    A cell holds the mean and half the length of its 95 % interval, both in points; the best mean of a row is framed.

    Args, Raises: as `combination_dots`.
    """
    cells = _dice_cells(scores, arms)
    known = list(cells["arm"].cat.categories)
    figure, _, axes, rows = _combination_axes(len(targets), 0.62 * len(known), modalities)
    for axis, target in zip(axes, targets, strict=True):
        part = cells[cells["target"] == target]
        means = (
            part.pivot(index="available", columns="arm", values="mean")
            .reindex(index=rows, columns=known)
            .to_numpy(float)
        )
        half = (part["high"] - part["low"]) / 2
        halves = (
            part.assign(half=half)
            .pivot(index="available", columns="arm", values="half")
            .reindex(index=rows, columns=known)
        )
        axis.imshow(means, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        for (row, column), mean in np.ndenumerate(means):
            if np.isnan(mean):
                axis.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#BBBBBB")
                )
                continue
            colour, width = (
                ("black", halves.to_numpy(float)[row, column])
                if mean > 55
                else ("white", halves.to_numpy(float)[row, column])
            )
            text = f"{mean:.0f}" if np.isnan(width) else f"{mean:.0f} ±{width:.0f}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
        for row, best in enumerate(np.nanargmax(np.nan_to_num(means, nan=-1), axis=1)):
            axis.add_patch(
                Rectangle((best - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor=VERMILLION, linewidth=1.6)
            )
        axis.grid(False)
        axis.set_xticks(range(len(known)))
        axis.set_xticklabels([arm_style(arm)[2] for arm in known], rotation=90)
        axis.set_title(f"{target.upper()}, {REGION_NAME.get(target, target)}")
        axis.tick_params(axis="both", length=0)
    return figure


def gains(
    scores: pd.DataFrame,
    modality: str,
    arms: Sequence[str],
    targets: Sequence[str] = REGIONS,
    modalities: Sequence[str] = MRI,
) -> pd.DataFrame:
    """What one modality adds to every combination that lacks it: arm, available, target and the `Effect` in points.

    Raises:
        ValueError: if an arm lacks a combination or subjects are not paired.
    """
    dice = scores[scores["metric"].eq("dice")]
    dice = dice.assign(arm=arm_of(dice), value=100 * dice["value"])
    rows = [names for names in combinations(modalities) if modality not in names]
    keys = [(arm, names, target) for arm in arms for target in targets for names in rows]
    cells = dict(list(dice.groupby(["arm", "available", "target"])))

    def table(arm: str, names: Sequence[str], target: str) -> pd.DataFrame:
        key = (arm, label(names, modalities), target)
        if key not in cells:
            raise ValueError(f"no dice of {arm} for {key[1]}, {target}")
        return cells[key].pivot(index="seed", columns="case", values="value")

    pairs = [(table(arm, (*names, modality), target), table(arm, names, target)) for arm, names, target in keys]
    found = zip(keys, paired_effects(pairs), strict=True)
    return pd.DataFrame(
        [(arm, label(names, modalities), target, effect) for (arm, names, target), effect in found],
        columns=["arm", "available", "target", "effect"],
    )


# ---------------------------------------------------------------------------------------------------------- claims
@styled
def forest(parts: pd.DataFrame, names: Sequence[str] | None = None) -> Figure:
    """Effects with their intervals, one row each, and the band below the smallest effect of interest.

    Args:
        parts: rows with effect, low, high, sesoi, unit and verdict, as `mmlib.ledgers.claims.evidence`
            gives them; all of one unit. Where no row has an interval, of one case, effects stand without.
        names: of the rows; None: id and part.

    Raises:
        ValueError: if there are no rows with numbers, or several units.
    """
    known = parts[parts["effect"].notna()]
    sure = known[np.isfinite(known["low"].astype(float))]
    rows = known[known["low"].isna()] if sure.empty else sure
    if rows.empty or rows["unit"].nunique() > 1:
        raise ValueError(
            f"a forest plot needs rows with intervals in one unit; got units {sorted(parts['unit'].unique())}"
        )
    names = list(rows["id"] + "  " + rows["part"]) if names is None else list(names)
    figure, axes = new_figure(8.5, 0.28 * len(rows) + 1.5)
    axis = axes[0, 0]
    for place, row in enumerate(rows.itertuples()):
        colour, marker = VERDICT[row.verdict]
        axis.add_patch(Rectangle((-row.sesoi, place - 0.5), 2 * row.sesoi, 1, color="#EEEEEE", zorder=0))
        axis.hlines(place, row.low, row.high, color=colour)
        axis.plot(row.effect, place, marker=marker, color=colour, linestyle="none", markersize=6)
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(f"effect in the claimed direction, {rows['unit'].iloc[0]}, 95 % interval")
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker=marker, label=verdict)
        for verdict, (colour, marker) in VERDICT.items()
        if verdict in set(rows["verdict"])
    ]
    figure.legend(
        handles=[*handles, Patch(color="#EEEEEE", label="below the smallest effect of interest")],
        loc="outside lower center",
        ncols=4,
    )
    return figure
