"""From the claims ledger and the run records to verdicts, by rules that were fixed before the runs.

The unit is the test subject; intervals are those of `mmlib.analysis.statistics`. A claim consists of parts (a region,
an opponent, a combination), each part gets a verdict, and the weakest part decides the claim (intersection-union).
With the effect d in the claimed direction, its 95 % interval and the smallest effect worth a sentence s, a part of
rule `greater` is, in this order:

REPRODUCED      interval above 0 and d >= s
NO EFFECT       interval inside (-s, s)
CONTRADICTED    interval below 0; here the interval that holds for all parts together counts (Bonferroni), because of
                many parts one lies below by chance
UNDERPOWERED    half the interval is longer than 2 s
DIRECTION ONLY  d > 0
UNDERPOWERED    what is left: d <= 0, and the interval excludes neither sign

`no-worse` replaces the first condition by "interval above -s", `equivalent` by "interval inside (-s, s)" (and is
contradicted by an interval outside), `at-least` by "interval above the reference"; they have no NO EFFECT. `exact`
claims are checked by arithmetic on the paper's own table: REPRODUCED if every number follows, else CONTRADICTED.
NOT TESTED HERE: a run is missing, the chapter is not written, or the profile gives no results (smoke).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import Effect, holm
from mmlib.ledgers.contrasts import MEASURED, NAMES, NotTestedError
from mmlib.ledgers.paper_tables import ARITHMETIC

VERDICTS = ("REPRODUCED", "DIRECTION ONLY", "NO EFFECT", "CONTRADICTED", "UNDERPOWERED", "NOT TESTED HERE")
WEAKEST_FIRST = ("CONTRADICTED", "NO EFFECT", "UNDERPOWERED", "DIRECTION ONLY", "REPRODUCED")
RESULT_PROFILES = ("quick", "full", "paper", "quick-own", "full-own")  # -own: on the reader's data
KINDS = ("measured", "arithmetic", "pending")
OWN_METRICS = ("audit", "linear", "gain-and-gap")  # statistics that name their metrics themselves
RULES = ("greater", "no-worse", "equivalent", "at-least", "exact")


def read_ledger(path: str | Path) -> list[dict[str, Any]]:
    """Read `claims.yml` and check that every entry can be decided.

    Raises:
        ValueError: if an entry lacks a key, has an unknown kind or rule, or an id occurs twice in one kind.
    """
    entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["claims"]
    seen = set()
    for entry in entries:
        name = f"{path}, claim {entry.get('id')}"
        wanted = ["id", "paper", "claim", "source", "kind"]
        if entry.get("kind") != "pending":
            wanted += ["paper_says", "contrast", "sesoi", "unit", "rule"]
        lacking = [key for key in wanted if key not in entry]
        if lacking:
            raise ValueError(f"{name} lacks {lacking}")
        if entry["kind"] not in KINDS:
            raise ValueError(f"{name}: kind is {entry['kind']!r}, expected one of {KINDS}")
        unknown = set(str(entry.get("rule", "exact")).split(" and ")) - set(RULES)
        if unknown:
            raise ValueError(f"{name}: unknown rule {sorted(unknown)}, expected one of {RULES}")
        if (entry["id"], entry["kind"]) in seen:
            raise ValueError(f"{name} occurs twice as {entry['kind']}")
        seen.add((entry["id"], entry["kind"]))
    return entries


def judge(effect: Effect, sesoi: float, rule: str = "greater") -> str:
    """The verdict on one part, by the rules in the header of this module.

    Args:
        effect: in the claimed direction.
        sesoi: the smallest effect worth a sentence, in the unit of the effect.

    Raises:
        ValueError: if the rule is unknown or `exact`, which arithmetic decides.
    """
    inside = -sesoi < effect.low and effect.high < sesoi
    passes = {
        "greater": effect.low > 0 and effect.effect >= sesoi,
        "no-worse": effect.low > -sesoi,
        "equivalent": inside,
        "at-least": effect.low > 0,
    }
    if rule not in passes:
        raise ValueError(f"rule {rule!r} does not judge an interval; choose one of {tuple(passes)}")
    if passes[rule]:
        return "REPRODUCED"
    if rule == "greater" and inside:
        return "NO EFFECT"
    if rule == "equivalent":
        outside, right = effect.family_low >= sesoi or effect.family_high <= -sesoi, abs(effect.effect) < sesoi
    else:
        outside, right = effect.family_high < 0, effect.effect > 0
    if outside:
        return "CONTRADICTED"
    return "DIRECTION ONLY" if right and effect.half_width <= 2 * sesoi else "UNDERPOWERED"


def effect_rows(
    names: Iterable[str],
    effects: Iterable[Effect],
    sesoi: float = 1.0,
    unit: str = "Dice points",
    rule: str = "greater",
) -> pd.DataFrame:
    """Effects as the rows of a forest plot, judged as the ledger would judge them.

    Args:
        names: of the parts.
        effects: one a part, in the direction that is better.
        sesoi: the smallest effect of interest, in `unit`.

    Returns:
        part, effect, low, high, p, n, seeds, sesoi, unit, verdict; one row per part.
    """
    numbers = ("effect", "low", "high", "p", "n", "seeds")
    return pd.DataFrame(
        [
            {
                "part": name,
                **{key: getattr(effect, key) for key in numbers},
                "sesoi": sesoi,
                "unit": unit,
                "verdict": judge(effect, sesoi, rule),
            }
            for name, effect in zip(names, effects, strict=True)
        ]
    )


# ------------------------------------------------------------------------------------------------------- verdicts
COLUMNS = (
    *("id", "paper", "kind", "claim", "source", "paper_says", "part", "effect", "low", "high", "sesoi", "unit", "rule"),
    *("n", "seeds", "p", "p_holm", "passes", "parts", "verdict", "on", "reason"),
)


def _row(claim: dict[str, Any], **facts: Any) -> dict[str, Any]:
    blank = dict.fromkeys(("effect", "low", "high", "p", "p_holm", "n", "seeds"), np.nan)
    texts = ("id", "paper", "kind", "claim", "source", "paper_says", "unit", "rule")
    same = {key: claim.get(key, "") for key in texts}
    row = {**same, "part": "", "sesoi": claim.get("sesoi", np.nan), **blank, "passes": 0, "parts": 0, "on": "", **facts}
    row["reason"] = " ".join(text.strip() for text in (facts.get("reason", ""), claim.get("note", "")) if text.strip())
    return row


def _arms(contrast: dict[str, Any]) -> list[dict[str, str]]:
    """What tells the runs of every arm of a contrast from others: method and, where they are given, more."""
    if contrast["statistic"] == "linear":
        named = [arm for part in contrast["parts"] for side in ("add", "subtract") for arm in part[side]]
    elif contrast["statistic"] == "gain-and-gap":
        named = [contrast[side] for side in ("first", "second", "reference")]
    else:
        named = contrast.get("first", [{"method": contrast["statistic"]}]) + contrast.get("second", [])
    arms = [{**contrast.get("all", {}), **arm} for arm in named]
    keys = ("method", "variant", "experiment")  # "{" in a value: {rate} stands for several
    return [{key: arm[key] for key in keys if key in arm and "{" not in arm[key]} for arm in arms]


def _origin(runs: Results, arms: pd.DataFrame, claim: dict[str, Any]) -> str:
    """ "on stand-in" or "on real data", of the runs a contrast uses; and a check that they used the same data.

    `arms` has a row for every run, method, variant and metric that there are scores of.
    """
    contrast, scores = claim["contrast"], arms
    if contrast["statistic"] not in OWN_METRICS:
        metrics = [contrast["metric"]] if "metric" in contrast else [part["metric"] for part in contrast["parts"]]
        scores = scores[scores["metric"].isin(metrics)]
    asked = [(scores[list(arm)] == pd.Series(arm)).all(axis=1) for arm in _arms(contrast)]
    made = scores[np.logical_or.reduce(asked)][["experiment", "run"]].drop_duplicates()
    used = runs.records.merge(made, on=["experiment", "run"])
    for fact in ("stand_in", "data_fingerprint", "split_hash"):
        if used[fact].nunique() > 1:
            found = used.groupby(fact)["run"].first().to_dict()
            raise ValueError(
                f"claim {claim['id']} compares runs that differ in {fact}: {found}; run them on the same data"
            )
    return "on stand-in" if used["stand_in"].iloc[0] else "on real data"


def _measured(claim: dict[str, Any], runs: Results, arms: pd.DataFrame) -> list[dict[str, Any]]:
    parts, note = MEASURED[claim["contrast"]["statistic"]](claim, runs)
    on = _origin(runs, arms, claim)
    if any(effect.resampled == "subjects" for _, effect, _, _ in parts):
        note += " One seed: the interval accounts for subjects only."
    numbers = ("effect", "low", "high", "p", "n", "seeds")
    return [
        _row(
            claim,
            part=name,
            sesoi=sesoi,
            rule=rule,
            verdict=judge(effect, sesoi, rule),
            on=on,
            reason=note,
            **{key: getattr(effect, key) for key in numbers},
        )
        for name, effect, sesoi, rule in parts
    ]


def _arithmetic(claim: dict[str, Any], published: Path) -> list[dict[str, Any]]:
    parts, note = ARITHMETIC[claim["contrast"]["statistic"]](claim["contrast"], published)
    word = {True: "REPRODUCED", False: "CONTRADICTED"}
    return [
        _row(claim, part=name, effect=value, verdict=word[bool(agrees)], on="on real data", reason=note)
        for name, value, agrees in parts
    ]


def evidence(runs: Results, ledger: str | Path) -> pd.DataFrame:
    """Every part of every claim with its effect and verdict; a claim that is not tested is one row without numbers.

    Args:
        runs: the runs of one profile. Those of a profile that gives no results (smoke) yield no numbers here.
        ledger: `claims.yml`; the papers' tables lie beside it in `published/`.

    Returns:
        One row per part: id, paper, kind, claim, source, paper_says, part, effect, low, high, sesoi, unit, rule, n,
        seeds, p, p_holm (Holm over all parts of a paper), passes, parts, verdict, on ("on stand-in", "on real data" or
        empty), reason.

    Raises:
        ValueError: if the ledger is not well formed, or the runs of a contrast are not comparable.
    """
    ledger, rows = Path(ledger), []
    profiles = sorted(set(runs.records["profile"]))
    runs = Results(
        runs.records, runs.scores.astype(dict.fromkeys(NAMES, "category"))
    )  # compared often, in millions of rows
    arms = runs.scores[["run", *NAMES]].drop_duplicates().astype(str)
    for claim in read_ledger(ledger):
        try:
            if claim["kind"] == "pending":
                raise NotTestedError(claim.get("reason", f"the {claim['paper']} chapter is not written yet"))
            if claim["kind"] == "arithmetic":
                rows += _arithmetic(claim, ledger.parent / "published")
                continue
            if not set(profiles) <= set(RESULT_PROFILES):
                raise NotTestedError(
                    f"{' '.join(profiles)} profile: a few steps show that everything runs, its numbers are no result"
                )
            rows += _measured(claim, runs, arms)
        except NotTestedError as reason:
            rows.append(_row(claim, verdict="NOT TESTED HERE", reason=f"{reason}."))
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("paper", sort=False)["p"].transform(lambda p: holm(p.to_numpy(float)))
    groups = table.groupby(["id", "kind"], sort=False)["verdict"]
    table["parts"] = groups.transform(lambda words: 0 if words.eq("NOT TESTED HERE").all() else len(words))
    table["passes"] = groups.transform(lambda words: words.eq("REPRODUCED").sum())
    return table[list(COLUMNS)]


def weakest(parts: pd.DataFrame) -> pd.DataFrame:
    """Of every claim and kind the weakest part, and with it the verdict, in the order of the ledger.

    Args:
        parts: as `evidence` returns them.
    """
    order = parts["verdict"].map({word: place for place, word in enumerate(WEAKEST_FIRST)})
    ranked = parts.assign(order=order).sort_values(["order", "effect"], kind="stable")
    return ranked.groupby(["id", "kind"], sort=False).head(1).sort_index()[list(COLUMNS)].reset_index(drop=True)


def verdicts(runs: Results, ledger: str | Path) -> pd.DataFrame:
    """One row per claim and kind: `weakest` of `evidence`. `passes` of `parts` tells how many parts are reproduced."""
    return weakest(evidence(runs, ledger))


def count(table: pd.DataFrame) -> pd.DataFrame:
    """How many claims of each paper got each verdict; all six verdicts are columns, also the empty ones."""
    counted = pd.crosstab(table["paper"], table["verdict"]).reindex(index=table["paper"].unique(), columns=VERDICTS)
    return counted.fillna(0).astype(int)


def measured_text(row: pd.Series) -> str:
    """What was measured, as a table cell: the weakest part with its effect, interval, n and seeds."""
    if pd.isna(row["effect"]):
        return "-"
    text = f"{row['effect']:+.2f} {row['unit']}"
    if not pd.isna(row["low"]):
        bounds = "none" if np.isinf(row["low"]) else f"{row['low']:+.2f} to {row['high']:+.2f}"
        text += f", 95 % interval {bounds}"
        text += f", n = {int(row['n'])}" if row["n"] else ""
        text += f", seeds = {int(row['seeds'])}"
    parts = int(row["parts"])
    return f"{text} ({row['part']}" + (f"; weakest of {parts}, {int(row['passes'])} pass)" if parts > 1 else ")")


def page(table: pd.DataFrame, paper: str) -> pd.DataFrame:
    """The verdicts on one paper as its page prints them: id, paper says, we measured, verdict, why it may differ."""
    rows = table[table["paper"] == paper]
    says = rows["paper_says"].where(rows["paper_says"] == "", ": " + rows["paper_says"].astype(str))
    kind = rows["kind"].map({"arithmetic": "by arithmetic", "measured": "", "pending": ""})
    verdict = rows["verdict"] + " " + rows["on"] + kind.where(kind == "", ", " + kind)
    return pd.DataFrame(
        {
            "id": rows["id"],
            "paper says": rows["claim"] + " (" + rows["source"] + says + ")",
            "we measured": rows.apply(measured_text, axis=1),
            "verdict": verdict.str.strip(),
            "why it may differ": rows["reason"],
        }
    )
