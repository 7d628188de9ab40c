"""Arithmetic on the tables that papers print: one entry of the claims ledger becomes exact numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from mmlib.analysis.statistics import order_agreement, violations
from mmlib.modalities import MRI

PERCENT = 100

Exact = tuple[list[tuple[str, float, bool]], str]  # parts: name, value, whether it agrees with the claim; a note


def _published(folder: Path, name: str, value: str = "dice_percent") -> pd.DataFrame:
    """A paper's table: rows (available, target), one column per method; a method that is not listed there is NaN."""
    table = pd.read_csv(folder / name)
    return table.pivot(index=["available", "target"], columns="method", values=value)


def _stated_gains(contrast: dict[str, Any], folder: Path) -> Exact:
    means = _published(folder, contrast["table"]).groupby("target").mean()
    gains = means[contrast["first"]] - means[contrast["others"]].max(axis=1)
    best = means[contrast["others"]].idxmax(axis=1)
    parts = [
        (f"{target.upper()} over {best[target]}, stated {stated}", gains[target], abs(gains[target] - stated) < 0.01)
        for target, stated in contrast["stated"].items()
    ]
    return parts, ""


def _wins(contrast: dict[str, Any], folder: Path) -> Exact:
    table = _published(folder, contrast["table"], contrast.get("value", "dice_percent"))
    table = table[[contrast["first"], *contrast["others"]]].dropna()
    if contrast.get("mean_over_targets"):
        table = pd.concat({"mean": table.groupby("available", sort=False).mean()}).swaplevel()
    others, margin = table[contrast["others"]], table[contrast["first"]] - table[contrast["others"]].max(axis=1)
    best = others.idxmax(axis=1)
    parts = [(f"{t.upper()}, {a} over {best[a, t]}", value, value > 0) for (a, t), value in margin.items()]
    lost = ", ".join(f"{name} {value:+.2f}" for name, value, agrees in parts if not agrees)
    return parts, f"Best in {sum(part[2] for part in parts)} of {len(parts)} cells; not in {lost}." if lost else ""


def _dedicated(contrast: dict[str, Any], folder: Path) -> Exact:
    special = _published(folder, contrast["table"])[contrast["first"]]
    gains = special - _published(folder, contrast["against"])[contrast["first"]].reindex(special.index)
    means = gains.groupby("target").mean()
    parts = [(f"{target.upper()}, {available}", value, value >= 0) for (available, target), value in gains.items()]
    return parts, "Mean gain " + ", ".join(f"{target.upper()} {value:+.2f}" for target, value in means.items()) + "."


def _order(contrast: dict[str, Any], folder: Path) -> Exact:
    means = _published(folder, contrast["table"]).mean()
    tied, order = set(contrast["tied"]), contrast["order"]
    parts = [
        (f"mean of {better} over {worse}", means[better] - means[worse], means[better] > means[worse])
        for place, better in enumerate(order)
        for worse in order[place + 1 :]
        if not {better, worse} <= tied
    ]
    listed = ", ".join(f"{name} {value:.2f}" for name, value in means.sort_values(ascending=False).items())
    tau = order_agreement(means.to_dict(), order)
    return parts, f"Means over regions: {listed}; Kendall tau with the stated order {tau:+.2f}."


def _never_lower(contrast: dict[str, Any], folder: Path) -> Exact:
    table = _published(folder, contrast["table"])
    parts = []
    for method in contrast["methods"]:
        found = violations(table[method].unstack("target"), MRI)
        name = f"{method}: lower in {found.count} of {found.pairs}, most {found.worst} ({found.worst_change:+.2f})"
        parts.append((name, PERCENT * found.rate, found.count == 0))
    return parts, ""


def _ceiling(contrast: dict[str, Any], folder: Path) -> Exact:
    table = _published(folder, contrast["table"])
    top = table[contrast["first"]].dropna().droplevel("available")
    others = table.drop(columns=contrast["first"]).dropna()
    best, name = others.max(axis=1), others.idxmax(axis=1)
    parts = [
        (f"{t.upper()}, {a}: {contrast['first']} over {name[a, t]}", top[t] - value, top[t] > value)
        for (a, t), value in best.items()
    ]
    return parts, f"Above every other in {sum(part[2] for part in parts)} of {len(parts)} cells."


def _fewer_inputs(contrast: dict[str, Any], folder: Path) -> Exact:
    table = _published(folder, contrast["table"], contrast["value"])[contrast["first"]]
    gains = {
        f"{target.upper()}, {small} to {large}": value - table[small, target]
        for (large, target), value in table.items()
        for small, of in table.index
        if of == target and set(small.split("+")) < set(large.split("+")) and large.count("+") == small.count("+") + 1
    }
    return [(name, gain, gain > 0) for name, gain in gains.items()], ""


ARITHMETIC: dict[str, Callable[[dict[str, Any], Path], Exact]] = {
    "stated-gains": _stated_gains,
    "wins": _wins,
    "dedicated": _dedicated,
    "order": _order,
    "never-lower": _never_lower,
    "fewer-inputs": _fewer_inputs,
    "ceiling": _ceiling,
}
