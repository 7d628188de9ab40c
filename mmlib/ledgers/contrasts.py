"""The contrasts of runs a claims ledger can name: one entry becomes parts, each an effect with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import (
    Effect,
    by_seed_and_case,
    nested_pairs,
    order_agreement,
    page_trend,
    paired_effects,
    rank_distribution,
    resampled_effect,
    seed_effect,
    violation_rate,
)

PERCENT = 100  # Dice and accuracies are stored in [0, 1] and compared in points
NAMES = ("experiment", "method", "variant", "metric")  # what contrasts choose scores by


class NotTestedError(Exception):
    """A claim cannot be decided from the runs at hand; the text says why."""


# --------------------------------------------------------------------------------------------- contrasts of runs
def _name(arm: dict[str, str]) -> str:
    return " ".join(arm[key] for key in ("method", "variant") if arm.get(key))


def _scores(runs: Results, arm: dict[str, Any], metrics: list[str], scale: float = PERCENT) -> pd.DataFrame:
    """The scores of one arm, of one experiment, in points."""
    scores = runs.of_method(arm["method"], arm.get("experiment"))
    scores = scores[scores["metric"].isin(metrics)]
    if "parameters" in arm:  # of several runs of a method in one experiment
        given = runs.records.reindex(columns=["experiment", "run", *(f"parameters.{key}" for key in arm["parameters"])])
        given = given[(given.iloc[:, 2:] == list(arm["parameters"].values())).all(axis=1)]
        scores = scores[scores["run"].isin(given["run"]) & scores["experiment"].isin(given["experiment"])]
    for key in ("variant", "experiment"):
        if key in arm:
            scores = scores[scores[key].eq(arm[key])]
        elif scores[key].nunique() > 1:
            found = sorted(scores[key].unique())
            raise ValueError(f"{_name(arm)} was run with several values of {key}: {found}; name one in the ledger")
    if scores.empty:
        raise NotTestedError(f"no run of {_name(arm)} with {', '.join(metrics)} in this profile")
    return scores.astype(dict.fromkeys(NAMES, str)).assign(value=scores["value"] * scale)


def _tables(scores: pd.DataFrame, contrast: dict[str, Any]) -> dict[tuple[str, str], pd.DataFrame]:
    """(combination, target) -> table (seeds, cases), over the combinations the contrast asks for."""
    sizes = {name: name.count("+") for name in scores["available"].unique()}
    most = max(sizes.values()) - contrast.get("missing_at_least", 0)
    chosen = scores[scores["available"].isin([name for name, size in sizes.items() if size <= most])]
    chosen = chosen[chosen["target"].isin(contrast["targets"])]
    wide = chosen.pivot(index=["available", "target", "seed"], columns="case", values="value")
    cells = {cell: table.droplevel([0, 1]) for cell, table in wide.groupby(level=[0, 1])}
    return {cell: table.dropna(axis=1, how="all") for cell, table in cells.items()}  # targets may differ in their cases


def _mean(tables: dict[tuple[str, str], pd.DataFrame], target: str) -> pd.DataFrame:
    chosen = [table for (_, name), table in tables.items() if name == target]
    return sum(chosen[1:], start=chosen[0]) / len(chosen)


def _opponents(runs: Results, contrast: dict[str, Any]) -> dict[str, pd.DataFrame]:
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


Part = tuple[str, Effect, float, str]  # name, effect, smallest effect of interest, rule


def _judged(names: list[str], pairs: list, claim: dict[str, Any]) -> list[Part]:
    return [(name, e, claim["sesoi"], claim["rule"]) for name, e in zip(names, paired_effects(pairs), strict=True)]


def _arms(runs: Results, contrast: dict[str, Any]) -> tuple[dict[str, dict], dict[str, dict]]:
    """Tables of both sides, on the same combinations and targets."""
    first = {_name(arm): _tables(_scores(runs, arm, [contrast["metric"]]), contrast) for arm in contrast["first"]}
    second = {name: _tables(scores, contrast) for name, scores in _opponents(runs, contrast).items()}
    expected = set(next(iter(first.values())))
    for name, tables in {**first, **second}.items():
        odd = expected.symmetric_difference(tables)
        if odd:
            raise ValueError(f"{name} was not scored on the same combinations and targets: {sorted(odd)[:3]}")
    return first, second


def _by_mean(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
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


def _by_cell(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
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


def _by_nested_pair(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """One part per nested pair and target: what the larger combination gains."""
    contrast, names, pairs, notes = claim["contrast"], [], [], []
    for arm in contrast["first"]:
        tables = _tables(_scores(runs, arm, [contrast["metric"]]), contrast)
        modalities = tuple(max((name for name, _ in tables), key=len).split("+"))
        of = f", {_name(arm)}" if len(contrast["first"]) > 1 else ""
        for small, large in nested_pairs(modalities):
            for target in contrast["targets"]:
                names.append(f"{target.upper()}, {small} to {large}{of}")
                pairs.append((tables[large, target], tables[small, target]))
        rate = violation_rate(tables, modalities)
        bounds = "one case: no interval" if np.isnan(rate.low) else f"95 % interval {rate.low:.1%} to {rate.high:.1%}"
        notes.append(f"Lower in {rate.count} of {rate.pairs} nested pairs ({rate.rate:.1%}, {bounds}){of}.")
    return _judged(names, pairs, claim), " ".join(notes)


def _by_probe(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """One part per probe: accuracies, one per seed, against a reference."""
    parts, (arm,) = [], claim["contrast"]["first"]
    for part in claim["contrast"]["parts"]:
        scores = _scores(runs, arm, [part["metric"]])
        same = runs.scores["run"].isin(scores["run"]) & runs.scores["experiment"].isin(scores["experiment"])
        own = runs.scores[same & runs.scores["metric"].eq("dice")]
        sizes = own["available"].str.split("+").str.len()
        chance = {"chance": sizes.max(), "chance among cases": own.loc[sizes == sizes.max(), "case"].nunique()}
        reference = PERCENT / chance[part["reference"]] if part["reference"] in chance else part["reference"]
        name = f"{part['metric']} less {part['reference']} ({reference:g})"
        parts.append((name, seed_effect(scores["value"], reference), part["sesoi"], part["rule"]))
    return parts, ""


def _where_scored(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """One part per arm of the first side and target: on what that arm was scored on, against the one opponent there."""
    contrast = claim["contrast"]
    (opponent,) = contrast["second"]
    theirs = _tables(_scores(runs, opponent, [contrast["metric"]]), contrast)
    names, pairs = [], []
    for arm in contrast["first"]:
        for (available, target), ours in _tables(_scores(runs, arm, [contrast["metric"]]), contrast).items():
            names.append(f"{target.upper()}, {available}, {_name(arm)} against {_name(opponent)}")
            pairs.append((ours, theirs[available, target]))
    return _judged(names, pairs, claim), ""


def _by_tuned_family(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """One part per other family of arms, each represented by the arm that its validation cases choose.

    An arm is of the family that its variant names before the last hyphen: `mse-0.1` is of `mse`. Means are over
    combinations and targets.
    """
    contrast = claim["contrast"]
    chosen: dict[str, tuple[float, dict]] = {}
    for arm in contrast["first"] + contrast["second"]:
        family = arm["variant"].rpartition("-")[0]
        mean = _scores(runs, arm, [contrast["chosen_by"]])["value"].mean()
        chosen[family] = max(chosen.get(family, (mean, arm)), (mean, arm), key=lambda one: one[0])
    means = {}
    for family, (_, arm) in chosen.items():
        tables = _tables(_scores(runs, arm, [contrast["metric"]]), contrast)
        means[family] = sum(tables.values()) / len(tables)
    first, *others = means
    ranks = rank_distribution(means)
    parts = _judged(
        [f"{first} against {other}" for other in others], [(means[first], means[other]) for other in others], claim
    )
    weights = ", ".join(arm["variant"] for _, arm in chosen.values())
    places = ", ".join(f"{r.Index} {r.p_best:.0%} ({r.rank_low:g}-{r.rank_high:g})" for r in ranks.itertuples())
    taus = {source: order_agreement(ranks["mean"].to_dict(), order) for source, order in contrast["orders"].items()}
    agreement = ", ".join(f"{tau:+.2f} with that of {source}" for source, tau in taus.items())
    note = f"Chosen by validation cases: {weights}. Chance of being best (95 % of ranks): {places}. "
    return parts, f"{note}Kendall tau of the order: {agreement}."


def _arm_table(runs: Results, arm: dict[str, Any], scale: float) -> pd.DataFrame:
    """Mean of one arm over the combinations and targets that it names: a table (seeds, cases)."""
    scores = _scores(runs, arm, [arm["metric"]], scale)
    wanted = [[arm[key]] if isinstance(arm[key], str) else arm[key] for key in ("available", "target")]
    chosen = scores[scores["available"].isin(wanted[0]) & scores["target"].isin(wanted[1])]
    if chosen.groupby(["available", "target"]).ngroups != len(wanted[0]) * len(wanted[1]):
        raise NotTestedError(f"{_name(arm)} was not scored with {arm['available']} on {arm['target']}")
    return by_seed_and_case(chosen)


def _linear(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """One part per entry of `parts`: the sum of the arms of `add` less the sum of those of `subtract`, on shared seeds.

    An arm names method, variant, experiment, metric, `parameters` where an experiment has several runs of it, and one
    or several `available` and `target`, over which its mean is taken; what all arms share stands in `all`. A part may
    have a `sesoi` and a `rule` of its own, and a `reference` in points that is taken off, for the rule `at-least`. With
    `cases: shared` only cases count that all arms of all parts were scored on: a region may be absent from some. Arms
    of several experiments are paired by the names of their cases, which a phantom keeps when an option of it changes.
    """
    contrast = claim["contrast"]
    asked = [{**claim, **part} for part in contrast["parts"]]
    judged = zip(asked, paired_effects(_sides(contrast, runs)), strict=True)
    return [(part["name"], effect, part["sesoi"], part["rule"]) for part, effect in judged], ""


def _sides(contrast: dict[str, Any], runs: Results) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Both sides of every part of a contrast: sums of tables (seeds, cases), on the seeds that all arms share."""
    shared, scale, pairs = contrast.get("all", {}), contrast.get("scale", PERCENT), []
    named = [[[{**shared, **arm} for arm in part[side]] for side in ("add", "subtract")] for part in contrast["parts"]]
    parts = [[[_arm_table(runs, arm, scale) for arm in side] for side in sides] for sides in named]
    if contrast.get("cases") == "shared":
        kept = sorted(set.intersection(*(set(table) for sides in parts for side in sides for table in side)))
        if len(kept) < 2:
            raise NotTestedError(f"the arms of {contrast['parts'][0]['name']} share {len(kept)} cases")
        parts = [[[table[kept] for table in side] for side in sides] for sides in parts]
    for part, sides, tables in zip(contrast["parts"], named, parts, strict=True):
        seeds = sorted(set.intersection(*(set(table.index) for side in tables for table in side)))
        if not seeds:
            raise NotTestedError(f"{part['name']}: its arms share no seed")
        if len({tuple(table.columns) for side in tables for table in side}) > 1 and not _of_one_experiment(sides):
            raise NotTestedError(f"{part['name']}: its experiments were tested on different cases")
        first, second = (sum(table.loc[seeds] for table in side) for side in tables)
        pairs.append((first - part.get("reference", 0), second))
    return pairs


def _of_one_experiment(sides: list[list[dict[str, Any]]]) -> bool:
    return len({arm.get("experiment") for side in sides for arm in side}) == 1


def is_balanced(contrast: dict[str, Any]) -> bool:
    """Whether every experiment stands as often in `add` as in `subtract` of every part, so that its data cancel."""
    shared = contrast.get("all", {})
    counts = [
        [Counter({**shared, **arm}.get("experiment") for arm in part[side]) for side in ("add", "subtract")]
        for part in contrast["parts"]
    ]
    return all(add == subtract and None not in add for add, subtract in counts)


def _by_repeat(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """As `_linear`, with an interval over repeats of data and training: `resampled_effect` of each part.

    How far repeats overlap stands in the records of the runs (`test_over_train`, the largest counts).
    """
    contrast, parts = claim["contrast"], []
    sides = _sides(contrast, runs)
    experiment = contrast["all"]["experiment"]
    overlap = runs.records.loc[runs.records["experiment"].eq(experiment), "test_over_train"].max()
    for part, (first, second) in zip(contrast["parts"], sides, strict=True):
        effect = resampled_effect((first - second).mean(axis=1), overlap)
        parts.append((part["name"], effect, claim["sesoi"], claim["rule"]))
    return parts, ""


def _gain_and_gap(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """Rank correlation, over combinations and targets, of what a student gains with what its teacher is ahead.

    The gain is `first` less `second` of one seed, the gap `reference` less `second` of the other seeds: a `second` that
    stood in both would draw the correlation up by its noise alone. One value a seed, Student's interval over seeds.
    """
    contrast = claim["contrast"]
    keys = list(product(contrast["available"], contrast["targets"]))
    means = {}  # side -> (seeds, combinations and targets)
    for side in ("first", "second", "reference"):
        arm = {**contrast["all"], **contrast[side]}
        tables = [
            _arm_table(runs, {"available": available, **arm, "target": target}, PERCENT) for available, target in keys
        ]
        means[side] = pd.concat([table.mean(axis=1) for table in tables], axis=1)
    seeds = means["first"].index.intersection(means["second"].index)
    if len(means["second"]) < 2 or not len(seeds):
        raise NotTestedError("gain and gap need a network without a teacher of one seed each, and there is one seed")
    ahead = means["reference"].mean()
    found = [
        spearmanr(
            means["first"].loc[seed] - means["second"].loc[seed], ahead - means["second"].drop(index=seed).mean()
        ).statistic
        for seed in seeds
    ]
    name = f"Spearman's rho over {len(keys)} modalities and regions"
    return [(name, seed_effect(found, 0.0), claim["sesoi"], claim["rule"])], ""


def _by_order(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """Kendall's tau of the order of methods by one set of combinations with that by another, one value a seed.

    The mean over targets, combinations and cases orders the methods of `first`, by `available` and by `and`.
    """
    contrast = claim["contrast"]
    means: dict[str, pd.DataFrame] = {}  # side -> (seeds, methods)
    for side in ("available", "and"):
        arms = [{**arm, "metric": contrast["metric"], "target": contrast["targets"]} for arm in contrast["first"]]
        tables = {_name(arm): _arm_table(runs, {**arm, "available": contrast[side]}, PERCENT) for arm in arms}
        means[side] = pd.DataFrame({name: table.mean(axis=1) for name, table in tables.items()}).dropna()
    seeds = means["available"].index.intersection(means["and"].index)
    if not len(seeds):
        raise NotTestedError("the methods share no seed")
    found = [kendalltau(means["available"].loc[seed], means["and"].loc[seed]).statistic for seed in seeds]
    name = f"Kendall's tau over {means['and'].shape[1]} methods"
    return [(name, seed_effect(found, 0.0), claim["sesoi"], claim["rule"])], ""


# -------------------------------------------------------------------------------------------- contrasts of classifiers
def _at(arm: dict[str, str], rate: float) -> dict[str, str]:
    """An arm at an audio rate: `paper@{rate}` becomes `paper@5`."""
    return {**arm, "variant": arm["variant"].format(rate=rate)}


def _cells(runs: Results, arm: dict[str, str], contrast: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Test set -> table (seeds, cases), with the modalities that the contrast says were available."""
    tables = _tables(_scores(runs, arm, [contrast["metric"]]), contrast)
    found = {target: table for (available, target), table in tables.items() if available == contrast["available"]}
    lacking = set(contrast["targets"]) - set(found)
    if lacking:
        raise NotTestedError(
            f"{_name(arm)} was not scored on {', '.join(sorted(lacking))} with {contrast['available']}"
        )
    return found


def _by_rate(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """One part per test set, audio rate, arm and opponent."""
    contrast = claim["contrast"]
    cells = []
    for rate, arm, opponent in product(contrast["rates"], contrast["first"], contrast["second"]):
        arm, opponent = _at(arm, rate), _at(opponent, rate)
        name = f"audio {rate} %: {_name(arm)} against {_name(opponent)}"
        cells.append((name, _cells(runs, arm, contrast), _cells(runs, opponent, contrast)))
    parts: list[Part] = []
    for target in contrast["targets"]:  # test sets differ in their cases
        names = [f"{target}, {name}" for name, *_ in cells]
        parts += _judged(names, [(ours[target], theirs[target]) for _, ours, theirs in cells], claim)
    return parts, ""


def _by_trend(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """One part per arm and test set: what the highest rate gains over the lowest; and Page's test over all of them."""
    contrast, notes = claim["contrast"], []
    lowest, *_, highest = contrast["rates"]
    parts: list[Part] = []
    for arm in contrast["first"]:
        cells = {rate: _cells(runs, _at(arm, rate), contrast) for rate in contrast["rates"]}
        for target in contrast["targets"]:
            name = f"{target}, {_name(_at(arm, highest))} against {_name(_at(arm, lowest))}"
            parts += _judged([name], [(cells[highest][target], cells[lowest][target])], claim)
            statistic, p = page_trend(pd.DataFrame({rate: tables[target].mean() for rate, tables in cells.items()}))
            notes.append(f"{name}: Page's L {statistic:.0f}, one-sided p {p:.2g}")
    return parts, "; ".join(notes) + "."


def _by_audit(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """One part per arm: how many withheld recordings any of its training stages was shown, over all of its members."""
    parts: list[Part] = []
    for arm in claim["contrast"]["first"]:
        own = runs.scores[runs.scores["method"].eq(arm["method"]) & runs.scores["metric"].eq("withheld-recordings")]
        if own.empty:
            raise NotTestedError(f"no run of {arm['method']} with an audit in this profile")
        total, seeds = float(own["value"].sum()), own["seed"].nunique()
        effect = Effect(total, total, total, np.nan, 0, seeds, total, total, "nothing")
        parts.append((f"{arm['method']}, {len(own)} trainings", effect, claim["sesoi"], claim["rule"]))
    return parts, ""


def _by_cost(claim: dict[str, Any], runs: Results) -> tuple[list[Part], str]:
    """Parts of two kinds, from a run that measures cost: a ratio of medians less 1, or a slope with its interval.

    The interval of a ratio resamples the repeats; that of a slope (Theil-Sen) was written down by the run.
    """
    contrast, parts = claim["contrast"], []
    for part in contrast["parts"]:

        def values(variant: str, metric: str = part["metric"]) -> np.ndarray:
            own = runs.scores[runs.scores["method"].eq("cost") & runs.scores["metric"].eq(metric)]
            found = own.loc[own["variant"].eq(variant), "value"].to_numpy(float)
            if not len(found):
                raise NotTestedError(f"no run measures {metric} of {variant} in this profile")
            return found

        if "over" in part:
            first, second = values(part["variant"]), values(part["over"])
            draws = np.random.default_rng(0).integers(0, len(first), (2, 10_000, len(first)))
            ratios = np.median(second[draws[1]], axis=1) / np.median(first[draws[0]], axis=1)
            middle = float(np.median(second) / np.median(first)) - 1
            low, high = (float(bound) - 1 for bound in np.quantile(ratios, [0.025, 0.975]))
            name, repeats = f"{part['metric']} of {part['over']} over {part['variant']}, less 1", len(first)
        else:
            middle, low, high = (
                float(values(part["variant"], part["metric"] + end)[0]) for end in ("", "-low", "-high")
            )
            name, repeats = f"{part['metric']} of {part['variant']}", 1
        effect = Effect(middle, low, high, np.nan, 0, repeats, low, high, "repeats")
        parts.append((name, effect, part["sesoi"], part["rule"]))
    return parts, ""


MEASURED: dict[str, Callable[[dict[str, Any], Results], tuple[list[Part], str]]] = {
    "mean": _by_mean,
    "each": _by_cell,
    "nested": _by_nested_pair,
    "probe": _by_probe,
    "where-scored": _where_scored,
    "tuned": _by_tuned_family,
    "linear": _linear,
    "repeats": _by_repeat,
    "gain-and-gap": _gain_and_gap,
    "order": _by_order,
    "rates": _by_rate,
    "trend": _by_trend,
    "audit": _by_audit,
    "cost": _by_cost,
}
