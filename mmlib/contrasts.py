"""The contrasts a claims ledger can name: one entry becomes parts, each a number and what it should be.

Contrasts of runs give effects with intervals; arithmetic on a paper's printed table gives exact numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from mmlib.modalities import MRI
from mmlib.records import Runs
from mmlib.statistics import (
    Effect,
    nested_pairs,
    order_agreement,
    paired_effects,
    seed_effect,
    violation_rate,
    violations,
)

PERCENT = 100  # Dice and accuracies are stored in [0, 1] and compared in points


class NotTestedError(Exception):
    """A claim cannot be decided from the runs at hand; the text says why."""


# --------------------------------------------------------------------------------------------- contrasts of runs
def _name(arm: dict[str, str]) -> str:
    return " ".join(arm[key] for key in ("method", "variant") if arm.get(key))


def _scores(runs: Runs, arm: dict[str, str], metrics: list[str]) -> pd.DataFrame:
    """The scores of one arm, of one experiment, in points."""
    scores = runs.scores[runs.scores["method"].eq(arm["method"]) & runs.scores["metric"].isin(metrics)]
    for key in ("variant", "experiment"):
        if key in arm:
            scores = scores[scores[key].eq(arm[key])]
        elif scores[key].nunique() > 1:
            found = sorted(scores[key].unique())
            raise ValueError(f"{_name(arm)} was run with several values of {key}: {found}; name one in the ledger")
    if scores.empty:
        raise NotTestedError(f"no run of {_name(arm)} with {', '.join(metrics)} in this profile")
    return scores.assign(value=scores["value"] * PERCENT)


def _tables(scores: pd.DataFrame, contrast: dict[str, Any]) -> dict[tuple[str, str], pd.DataFrame]:
    """(combination, target) -> table (seeds, cases), over the combinations the contrast asks for."""
    total = scores["available"].map(lambda name: len(name.split("+"))).max()
    fewest = contrast.get("missing_at_least", 0)
    chosen = scores[scores["available"].map(lambda name: total - len(name.split("+")) >= fewest)]
    chosen = chosen[chosen["target"].isin(contrast["targets"])]
    wide = chosen.pivot(index=["available", "target", "seed"], columns="case", values="value")
    return {cell: table.droplevel([0, 1]) for cell, table in wide.groupby(level=[0, 1])}


def _mean(tables: dict[tuple[str, str], pd.DataFrame], target: str) -> pd.DataFrame:
    chosen = [table for (_, name), table in tables.items() if name == target]
    return sum(chosen[1:], start=chosen[0]) / len(chosen)


def _opponents(runs: Runs, contrast: dict[str, Any]) -> dict[str, pd.DataFrame]:
    found = {}
    for arm in contrast["second"]:
        try:
            found[_name(arm)] = _scores(runs, arm, [contrast["metric"]])
        except NotTestedError:
            if contrast["choose"] != "first-found":
                raise
        if found and contrast["choose"] == "first-found":
            break
    if not found:
        raise NotTestedError(f"no run of {' or '.join(map(_name, contrast['second']))} in this profile")
    return found


Part = tuple[str, Effect, float, str]  # name, effect, smallest effect worth a sentence, rule


def _judged(names: list[str], pairs: list, claim: dict[str, Any]) -> list[Part]:
    return [(name, e, claim["sesoi"], claim["rule"]) for name, e in zip(names, paired_effects(pairs), strict=True)]


def _arms(runs: Runs, contrast: dict[str, Any]) -> tuple[dict[str, dict], dict[str, dict]]:
    """Tables of both sides, on the same combinations and targets."""
    first = {_name(arm): _tables(_scores(runs, arm, [contrast["metric"]]), contrast) for arm in contrast["first"]}
    second = {name: _tables(scores, contrast) for name, scores in _opponents(runs, contrast).items()}
    expected = set(next(iter(first.values())))
    for name, tables in {**first, **second}.items():
        odd = expected.symmetric_difference(tables)
        if odd:
            raise ValueError(f"{name} was not scored on the same combinations and targets: {sorted(odd)[:3]}")
    return first, second


def _by_mean(claim: dict[str, Any], runs: Runs) -> tuple[list[Part], str]:
    """One part per target, arm and opponent: the mean over combinations."""
    contrast = claim["contrast"]
    first, second = _arms(runs, contrast)
    names, pairs = [], []
    for arm, ours in first.items():
        for opponent, theirs in second.items():
            for target in contrast["targets"]:
                names.append(f"{target.upper()}, {arm} against {opponent}")
                pairs.append((_mean(ours, target), _mean(theirs, target)))
    note = ""
    if contrast.get("count_cells"):
        ours = next(iter(first.values()))
        for opponent, theirs in second.items():
            above = sum(effect.low > 0 for effect in paired_effects([(ours[cell], theirs[cell]) for cell in ours]))
            note += f"Interval above 0 in {above} of {len(ours)} cells against {opponent}. "
    return _judged(names, pairs, claim), note


def _by_cell(claim: dict[str, Any], runs: Runs) -> tuple[list[Part], str]:
    """One part per combination and target, against the opponent with the highest mean there."""
    first, second = _arms(runs, claim["contrast"])
    ((arm, ours),) = first.items()
    names, pairs = [], []
    for available, target in ours:
        strongest = max(second, key=lambda name: second[name][available, target].to_numpy().mean())
        names.append(f"{target.upper()}, {available}, {arm} against {strongest}")
        pairs.append((ours[available, target], second[strongest][available, target]))
    parts = _judged(names, pairs, claim)
    above, ahead = sum(part[1].low > 0 for part in parts), sum(part[1].effect > 0 for part in parts)
    return parts, f"Ahead in {ahead} of {len(parts)} cells, interval above 0 in {above}. "


def _by_nested_pair(claim: dict[str, Any], runs: Runs) -> tuple[list[Part], str]:
    """One part per nested pair and target: what the larger combination gains."""
    contrast = claim["contrast"]
    (arm,) = contrast["first"]
    tables = _tables(_scores(runs, arm, [contrast["metric"]]), contrast)
    modalities = tuple(max((name for name, _ in tables), key=len).split("+"))
    keys = [(small, large, target) for small, large in nested_pairs(modalities) for target in contrast["targets"]]
    names = [f"{target.upper()}, {small} to {large}" for small, large, target in keys]
    parts = _judged(names, [(tables[large, target], tables[small, target]) for small, large, target in keys], claim)
    rate = violation_rate(tables, modalities)
    interval = f"{rate.rate:.1%}, 95 % interval {rate.low:.1%} to {rate.high:.1%}"
    return parts, f"Lower in {rate.count} of {rate.pairs} nested pairs ({interval})."


def _by_probe(claim: dict[str, Any], runs: Runs) -> tuple[list[Part], str]:
    """One part per probe: accuracies, one per seed, against a reference."""
    parts, (arm,) = [], claim["contrast"]["first"]
    for part in claim["contrast"]["parts"]:
        scores = _scores(runs, arm, [part["metric"]])
        modalities = runs.scores.loc[runs.scores["run"].isin(scores["run"]), "available"].str.split("+").str.len().max()
        reference = PERCENT / modalities if part["reference"] == "chance" else part["reference"]
        name = f"{part['metric']} less {part['reference']} ({reference:g})"
        parts.append((name, seed_effect(scores["value"], reference), part["sesoi"], part["rule"]))
    return parts, ""


# ------------------------------------------------------------------------------------- arithmetic on paper tables
Exact = tuple[list[tuple[str, float, bool]], str]  # parts: name, value, whether it agrees with the claim; a note


def _published(folder: Path, name: str) -> pd.DataFrame:
    """A paper's table: rows (available, target), one column per method."""
    table = pd.read_csv(folder / name)
    return table.pivot(index=["available", "target"], columns="method", values="dice_percent")


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
    table = _published(folder, contrast["table"])
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


MEASURED: dict[str, Callable[[dict[str, Any], Runs], tuple[list[Part], str]]] = {
    "mean": _by_mean,
    "each": _by_cell,
    "nested": _by_nested_pair,
    "probe": _by_probe,
}
ARITHMETIC: dict[str, Callable[[dict[str, Any], Path], Exact]] = {
    "stated-gains": _stated_gains,
    "wins": _wins,
    "dedicated": _dedicated,
    "order": _order,
    "never-lower": _never_lower,
}
