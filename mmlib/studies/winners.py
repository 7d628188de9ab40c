"""When does each win? Networks over the number of training cases and what these lack; and who lacks what.

Scores are Dice in percent; a network's level is a mean over combinations and the three regions, an effect is a
difference of levels in points, paired by case and by seed. One place of the map has three seeds at most; how much the
difference of two networks varies between seeds is taken from all places together (`pooled_variance`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations as pairs_of

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import (
    Effect,
    by_seed_and_case,
    mean_effect,
    mean_interval,
    paired_effects,
    pooled_variance,
)
from mmlib.analysis.wording import counted, format_effect, format_interval, listed, seeds_in_words
from mmlib.data.missingness import MECHANISMS, share_missing
from mmlib.figures.results import arm_of
from mmlib.figures.style import METHOD, new_figure, styled
from mmlib.modalities import MRI, combinations, label
from mmlib.studies.segmentation import arm_name

EXPERIMENT = "missingness"
BY_SITES = tuple(f"{EXPERIMENT}-{name}" for name in ("none", *MECHANISMS))  # who lacks what, one experiment each
ALL = label(MRI, MRI)
NEEDS: dict[str, tuple[str, ...]] = {  # at the test -> the combinations that count
    "one modality": MRI,
    "any combination": tuple(label(names, MRI) for names in combinations(MRI)),
    "complete": (ALL,),
}
SHORT = {"zero-fill": "fed zeros", "dropout-unet": "dropout", "shaspec paper": "ShaSpec"}  # where room is scarce


@dataclass(frozen=True)
class Cell:
    """Who wins in one place of the map.

    Attributes:
        best: the arm with the highest level.
        level: of it, %.
        margin: over the second; None of a single arm.
        second: that arm.
        tied: the other arms whose interval of the difference from the best reaches 0.
    """

    best: str
    level: float
    margin: Effect | None
    second: str
    tied: tuple[str, ...]

    @property
    def told(self) -> bool:
        """Whether the best is told from every other, by intervals that account for seeds."""
        return self.margin is not None and self.margin.resampled == "seeds and subjects" and not self.tied


def read_gaps(results: Results) -> pd.DataFrame:
    """Dice in percent of every run, with what it was trained on.

    Returns:
        As `Results.scores` of the metric, and: arm, cases (number for training), chance (that a modality was missing),
        missing (by which mechanism). Cases that are not scored in all combinations are left out.
    """
    facts = ["cases_train", "missing_share", "missing"]
    given = results.records[["experiment", "run", *(f"parameters.{name}" for name in facts)]]
    given = given.set_axis(["experiment", "run", "cases", "chance", "missing"], axis=1)
    dice = results.scores[results.scores["metric"].eq("dice")]
    complete = dice.groupby("case")["available"].nunique()
    dice = dice[dice["case"].isin(complete.index[complete == complete.max()])]
    rows = dice.merge(given, on=["experiment", "run"])
    return rows.assign(arm=arm_of(rows), value=100 * rows["value"])


def _tables(scores: pd.DataFrame, need: str) -> dict[str, pd.DataFrame]:
    """Arm -> its level for a need by seed and case, on the seeds that all arms have; the arms in the book's order."""
    rows = scores[scores["available"].isin(NEEDS[need])]
    tables = {arm: by_seed_and_case(rows[rows["arm"].eq(arm)]) for arm in METHOD if rows["arm"].eq(arm).any()}
    shared = sorted(set.intersection(*(set(table.index) for table in tables.values()))) if tables else []
    return {arm: table.loc[shared] for arm, table in tables.items()} if shared else tables


Pooled = Mapping[frozenset[str], tuple[float, int] | None]  # two arms -> variance between seeds, degrees of freedom


def winner(tables: Mapping[str, pd.DataFrame], pooled: Pooled | None = None) -> Cell:
    """Who wins, from the levels of every arm by seed and case.

    Args:
        pooled: how much the difference of two arms varies between seeds, where more than these tables tell it.

    Raises:
        ValueError: if there is no arm, or arms share no case (as `paired_effects`).
    """
    if not tables:
        raise ValueError("no arm has scores here")
    order = sorted(tables, key=lambda arm: -tables[arm].to_numpy().mean())
    best, *others = order
    level = float(tables[best].to_numpy().mean())
    if not others:
        return Cell(best, level, None, "", ())
    effects = [_effect(tables, best, arm, pooled or {}) for arm in others]
    tied = tuple(arm for arm, effect in zip(others, effects, strict=True) if not effect.low > 0)
    return Cell(best, level, effects[0], others[0], tied)


def _effect(tables: Mapping[str, pd.DataFrame], first: str, second: str, pooled: Pooled) -> Effect:
    sides = tables[first], tables[second]
    by_seed = sides[0].index.equals(sides[1].index)
    return paired_effects([sides], pooled=pooled.get(frozenset((first, second))) if by_seed else None)[0]


Places = dict[tuple[int, float], dict[str, pd.DataFrame]]  # training cases and chance -> arm -> levels


def _places(scores: pd.DataFrame, need: str) -> Places:
    return {
        (int(cases), float(chance)): _tables(part, need)
        for (cases, chance), part in scores.groupby(["cases", "chance"])
    }


def _together(places: Places) -> dict[tuple[str, str], list[tuple[pd.DataFrame, pd.DataFrame]]]:
    """Two arms in the book's order -> their levels in every place in which both were trained with the same seeds."""
    arms = [arm for arm in METHOD if any(arm in tables for tables in places.values())]
    found = {}
    for pair in pairs_of(arms, 2):
        both = [(tables[pair[0]], tables[pair[1]]) for tables in places.values() if set(pair) <= set(tables)]
        found[pair] = [(first, second) for first, second in both if first.index.equals(second.index)]
    return found


def _spreads(places: Places) -> Pooled:
    return {frozenset(pair): pooled_variance(both) for pair, both in _together(places).items()}


def difference(
    scores: pd.DataFrame, first: str, second: str, place: tuple[int, float], need: str = "any combination"
) -> Effect | None:
    """How much one arm lies above another in a place (training cases, chance); None where one of them was not trained.

    Args:
        scores: as `read_gaps`, of the experiment of the map.
    """
    places = _places(scores, need)
    tables = places.get(place, {})
    if not {first, second} <= set(tables):
        return None
    return _effect(tables, first, second, _spreads(places))


def winners(scores: pd.DataFrame) -> dict[tuple[str, int, float], Cell]:
    """Need, number of training cases and chance -> who wins there.

    Args:
        scores: as `read_gaps`, of the experiment of the map.
    """
    found: dict[tuple[str, int, float], Cell] = {}
    for need in NEEDS:
        places = _places(scores, need)
        pooled = _spreads(places)
        found |= {(need, *place): winner(tables, pooled) for place, tables in places.items()}
    return found


def over_all(scores: pd.DataFrame) -> pd.DataFrame:
    """Each network against each other in the mean over the places that have both.

    Args:
        scores: as `read_gaps`, of the experiment of the map.

    Returns:
        Texts; rows: two networks; columns: needs, and places.
    """
    rows: dict[str, dict[str, str | int]] = {}
    for need in NEEDS:
        for (first, second), both in _together(_places(scores, need)).items():
            if both:
                row = rows.setdefault(f"{arm_name(first)} over {arm_name(second)}", {})
                row |= {need: format_effect(mean_effect(both)), "cells": len(both)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*NEEDS, "cells"]).rename_axis("networks")


def sample(results: Results) -> str:
    """For captions: `n = 40 test cases, 1 to 3 seeds, 25 to 200 training cases, phantom`."""
    gaps, records = read_gaps(results), results.records
    seeds = gaps.groupby(["experiment", "arm", "cases", "chance"])["seed"].nunique()
    few, many = int(records["parameters.cases_train"].min()), int(records["parameters.cases_train"].max())
    trained = f"{few} to {many}" if few < many else str(few)
    data = "phantom" if records["stand_in"].all() else "your own cases"
    return f"n = {gaps['case'].nunique()} test cases, {seeds_in_words(seeds)}, {trained} training cases, {data}"


def short_name(arm: str) -> str:
    """The name of an arm where room is scarce."""
    return SHORT.get(arm, arm_name(arm))


def _chance_name(chance: float) -> str:
    return f"{chance:g} ({100 * share_missing(chance, len(MRI)):.0f} %)"


@styled
def winner_map(cells: Mapping[tuple[str, int, float], Cell]) -> Figure:
    """The map: a panel for each need, who wins and by how much in each cell.

    A cell holds the best network and its margin over the second with the 95 % interval, in points. It has the network's
    colour where the best is told from every other; hatched, a tie.
    """
    counts = sorted({cases for _, cases, _ in cells})
    chances = sorted({chance for *_, chance in cells})
    height = 0.42 * len(chances) + 0.55
    figure, axes = new_figure(max(4.2, 1.22 * len(counts) + 1.2), len(NEEDS) * height + 1.0, len(NEEDS), 1, sharex=True)
    for axis, need in zip(axes[:, 0], NEEDS, strict=True):
        for x, cases in enumerate(counts):
            for y, chance in enumerate(chances):
                _draw_cell(axis, x, y, cells.get((need, cases, chance)))
        axis.set(xlim=(-0.5, len(counts) - 0.5), ylim=(len(chances) - 0.5, -0.5), title=f"{need} at the test")
        axis.set_xticks(range(len(counts)), [str(cases) for cases in counts])
        axis.set_yticks(range(len(chances)), [_chance_name(chance) for chance in chances])
        axis.tick_params(length=0)
        axis.grid(False)
        axis.spines[:].set_visible(False)
    axes[-1, 0].set_xlabel("training cases")
    figure.supylabel("chance that a modality is missing in training (share)", fontsize=9)
    arms = [arm for arm in METHOD if any(one.told and arm == one.best for one in cells.values())]
    handles = [Patch(facecolor=_pale(METHOD[arm][0]), edgecolor="white", label=arm_name(arm)) for arm in arms]
    tie = Patch(facecolor="white", edgecolor="#BBBBBB", hatch="////", label="not told apart")
    figure.legend(handles=[*handles, tie], loc="outside lower center", ncols=3)
    return figure


def _pale(colour: str) -> tuple[float, float, float]:
    """A colour on which black text reads."""
    red, green, blue = (0.62 + 0.38 * part for part in to_rgb(colour))
    return red, green, blue


def _draw_cell(axis: Axes, x: int, y: int, cell: Cell | None) -> None:
    box = partial(Rectangle, (x - 0.47, y - 0.45), 0.94, 0.9, linewidth=0)
    if cell is None:
        axis.add_patch(box(facecolor="#F4F4F4"))
        axis.text(x, y, "not run", ha="center", va="center", fontsize=7.5, color="#555555")
        return
    if cell.told:
        axis.add_patch(box(facecolor=_pale(METHOD[cell.best][0])))
    else:
        axis.add_patch(box(facecolor="white", edgecolor="#DDDDDD", hatch="////"))
    plain = None if cell.told else {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    text = "\n".join(cell_text(cell))
    axis.text(x, y, text, ha="center", va="center", fontsize=7.5, linespacing=1.25, bbox=plain)


def cell_text(cell: Cell) -> tuple[str, str]:
    """The two lines of a cell: the best and its margin, and the interval of that."""
    if cell.margin is None:
        return short_name(cell.best), "alone"
    bounds = format_interval(cell.margin.low, cell.margin.high, sign="+")
    return f"{short_name(cell.best)} {cell.margin.effect:+.1f}", bounds


def winner_table(cells: Mapping[tuple[str, int, float], Cell]) -> pd.DataFrame:
    """The map as a table: a row per cell, with whom the best is tied."""
    return pd.DataFrame(
        [
            {
                "at the test": need,
                "training cases": cases,
                "chance": chance,
                "highest": arm_name(cell.best),
                "Dice, %": cell.level,
                "over the second, points": format_effect(cell.margin) if cell.margin else "-",
                "second": arm_name(cell.second) if cell.second else "-",
                "seeds": cell.margin.seeds if cell.margin else "-",
                "not told from": listed(map(arm_name, cell.tied)) if cell.tied else "-",
            }
            for (need, cases, chance), cell in cells.items()
        ]
    ).sort_values(["at the test", "training cases", "chance"], key=_in_order, ignore_index=True)


def _in_order(column: pd.Series) -> pd.Series:
    return column.map(list(NEEDS).index) if column.name == "at the test" else column


def summary(cells: Mapping[tuple[str, int, float], Cell]) -> str:
    """How often each network wins, for each need, as a text."""
    parts = []
    for need in NEEDS:
        mine = [cell for (one, *_), cell in cells.items() if one == need]
        told = [cell.best for cell in mine if cell.told]
        won = [f"{arm_name(arm)} in {told.count(arm)}" for arm in METHOD if arm in told]
        ties = len(mine) - len(told)
        said = listed([*won, f"nobody in {ties}"]) if ties or not won else listed(won)
        parts.append(f"{need} at the test: of {counted(len(mine), 'cell')} {said}")
    return "; ".join(parts)


def mechanisms(scores: pd.DataFrame) -> pd.DataFrame:
    """Who lacks what: levels of every network for each need, and how far they lie from those with gaps at random.

    Args:
        scores: as `read_gaps`, of the experiments `BY_SITES`.

    Returns:
        Texts; rows: network and mechanism (`none`: complete cases); columns: needs. Empty where `random` was not run.
    """
    kind = scores["experiment"].str.removeprefix(f"{EXPERIMENT}-")
    rows = []
    for arm in [arm for arm in METHOD if scores["arm"].eq(arm).any()]:
        own = {name: scores[scores["arm"].eq(arm) & kind.eq(name)] for name in ("random", "none", *MECHANISMS[1:])}
        if own["random"].empty:
            continue
        for name, part in own.items():
            if part.empty:
                continue
            texts = {need: _beside(part, own["random"], need, name == "random") for need in NEEDS}
            rows.append({"network": arm_name(arm), "missing": name, **texts})
    return pd.DataFrame(rows, columns=["network", "missing", *NEEDS]).set_index(["network", "missing"])


def _beside(part: pd.DataFrame, reference: pd.DataFrame, need: str, alone: bool) -> str:
    tables = [by_seed_and_case(one[one["available"].isin(NEEDS[need])]) for one in (part, reference)]
    level, low, high = mean_interval(tables[0])
    if alone:
        return f"{level:.1f} ({format_interval(low, high)})"
    shared = tables[0].index.intersection(tables[1].index)
    (effect,) = paired_effects([(tables[0].loc[shared], tables[1].loc[shared])])
    return f"{level:.1f}; {format_effect(effect)}"
