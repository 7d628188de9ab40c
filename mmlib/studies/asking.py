"""The published scores in one form for a page that is asked: task, network, combination, region and measure.

A score is the mean over test cases and seeds with its 95 % interval, and names the runs it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import cell_means
from mmlib.figures.lanes import SHAPES, paint
from mmlib.figures.results import arm_of
from mmlib.figures.style import BLUE, GREEN, GREY, METHOD, MODALITY, ORANGE, PURPLE, REGION_NAME, SKY, VERMILLION
from mmlib.modalities import MRI, combinations, label
from mmlib.studies import distillation, synthesis

PALETTE = [(BLUE, "o"), (VERMILLION, "D"), (GREEN, "^"), (ORANGE, "P"), (PURPLE, "v"), (SKY, "s"), (GREY, "X")]


@dataclass(frozen=True)
class Measure:
    """A metric as it is shown.

    Attributes:
        name: with its unit.
        factor: by which values are multiplied.
        digits: that are printed.
        bounds: of the scale; None: as the values have it.
        better: "higher" or "lower".
    """

    name: str
    factor: float = 1
    digits: int = 1
    bounds: tuple[float | None, float | None] = (None, None)
    better: str = "higher"


@dataclass(frozen=True)
class Topic:
    """A task whose scores can be asked for.

    Attributes:
        title: of the task.
        asks: what its targets are.
        experiments: whose runs are read.
        measures: metric -> how it is shown.
        targets: target of the scores -> its name.
        opens: the target that is shown first.
        arms: arm -> colour, marker, name; others are left out.
    """

    title: str
    asks: str
    experiments: tuple[str, ...]
    measures: Mapping[str, Measure]
    targets: Mapping[str, str]
    opens: str
    arms: Mapping[str, tuple[str, str, str]]


DICE = Measure("Dice, %", 100, bounds=(0, 100))
OVERLAP = {"dice": DICE, "hd95": Measure("HD95, mm", bounds=(0, None), better="lower")}
TOPICS = (
    Topic(
        "segmentation",
        "Region",
        ("segmentation", "subsets"),
        OVERLAP,
        {name: REGION_NAME[name] for name in ("wt", "tc", "et")},
        "et",
        METHOD,
    ),
    Topic(
        "segmentation from one image, taught by four",
        "Region",
        ("distillation",),
        OVERLAP,
        {name: REGION_NAME[name] for name in ("wt", "tc", "et")},
        "et",
        {
            arm: (*PALETTE[place % len(PALETTE)], distillation.NAMES[arm])
            for place, arm in enumerate(("unimodal", "protokd", "kd-net", "pmkl", "teacher"))
        },
    ),
    Topic(
        "synthesis of a missing image",
        "Image that is missing",
        ("synthesis",),
        {
            "psnr": Measure("PSNR, dB"),
            "ssim": Measure("SSIM, %", 100),
            "psnr-et": Measure("PSNR in the enhancing tumour, dB"),
        },
        {name: name for name in MRI},
        "t1ce",
        {arm: (*synthesis.STYLE[arm], synthesis.NAMES[arm]) for arm in synthesis.MAIN},
    ),
)


def cells(topic: Topic, results: Results) -> pd.DataFrame:
    """The scores of a topic: arm, available, target, metric, mean, low, high, n, seeds, and the runs behind each."""
    scores = results.scores[results.scores["experiment"].isin(topic.experiments)]
    scores = scores.assign(arm=arm_of(scores))
    known = (
        scores["arm"].isin(topic.arms) & scores["target"].isin(topic.targets) & scores["metric"].isin(topic.measures)
    )
    possible = {label(names, MRI) for names in combinations(MRI)}
    scores = scores[known & scores["available"].isin(possible)]
    if scores.empty:
        return pd.DataFrame(
            columns=["arm", "available", "target", "metric", "mean", "low", "high", "n", "seeds", "runs"]
        )
    named = scores["experiment"].astype(str) + "/" + scores["run"].astype(str)
    behind = named.groupby([scores["arm"], scores["available"]]).agg(lambda runs: tuple(sorted(set(runs))))
    parts = [cell_means(part).assign(metric=metric) for metric, part in scores.groupby("metric", sort=False)]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(runs=[behind[arm, have] for arm, have in zip(table["arm"], table["available"], strict=True)])


def packed(topic: Topic, table: pd.DataFrame) -> dict[str, Any]:
    """A topic as plain values for the page.

    Args:
        table: of `cells`, with at least one row.
    """
    arms = [arm for arm in topic.arms if arm in set(table["arm"])]
    haves = [one for one in _most_first() if one in set(table["available"])]
    metrics = [name for name in topic.measures if name in set(table["metric"])]
    targets = [name for name in topic.targets if name in set(table["target"])]
    runs = sorted(set(table["runs"]))
    rows = []
    for row in table[table["mean"].notna()].itertuples():
        factor = topic.measures[row.metric].factor
        place = [arms.index(row.arm), haves.index(row.available), targets.index(row.target), metrics.index(row.metric)]
        values = [None if np.isnan(one) else round(factor * one, 3) for one in (row.mean, row.low, row.high)]
        rows.append([*place, *values, int(row.n), int(row.seeds), runs.index(row.runs)])
    return {
        "title": topic.title,
        "asks": topic.asks,
        "modalities": list(MRI),
        "combinations": haves,
        "targets": [topic.targets[name] for name in targets],
        "opens": targets.index(topic.opens) if topic.opens in targets else 0,
        "metrics": [_shown(name, topic.measures[name]) for name in metrics],
        "arms": [_styled(arm, *topic.arms[arm]) for arm in arms],
        "runs": [list(one) for one in runs],
        "rows": rows,
    }


def _most_first() -> Sequence[str]:
    return [label(names, MRI) for names in reversed(combinations(MRI))]


def _shown(key: str, measure: Measure) -> dict[str, Any]:
    return {
        "key": key,
        "name": measure.name,
        "digits": measure.digits,
        "bounds": list(measure.bounds),
        "better": measure.better,
    }


def _styled(arm: str, colour: str, marker: str, name: str) -> dict[str, str]:
    return {"key": arm, "name": name, "colour": paint(colour), "shape": SHAPES[marker]}


def pack(results: Results, caveat: str = "") -> dict[str, Any]:
    """The scores of every topic that has any, as plain values for the page.

    Args:
        results: as `read_runs` returns them.
        caveat: stands before numbers that are no results.
    """
    tables = [(topic, cells(topic, results)) for topic in TOPICS]
    return {
        "caveat": caveat,
        "colours": {name: paint(MODALITY[name][0]) for name in MRI},
        "tasks": [packed(topic, table) for topic, table in tables if len(table)],
    }
