"""From the claims ledger and the run records to verdicts, by rules that were fixed before the runs.

The unit is the test subject; intervals are those of `mmlib.analysis.statistics`. A claim consists of parts (a region,
an opponent, a combination), each part gets a verdict, and the weakest part decides the claim (intersection-union).
With the effect d in the claimed direction, its 95 % interval and the smallest effect of interest s, a part of rule
`greater` is, in this order:

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
NOT TESTED HERE: a run is missing, or the profile gives no results (`gives_results`).
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
KINDS = ("measured", "arithmetic")
OWN_METRICS = ("audit", "linear", "repeats", "gain-and-gap")  # statistics that name their metrics themselves
RULES = ("greater", "no-worse", "equivalent", "at-least", "exact")
WANTED = ("id", "paper", "claim", "source", "kind", "paper_says", "contrast", "sesoi", "unit", "rule")  # of a claim
NO_RESULT = "a few steps show that everything runs, its numbers are no result"


def gives_results(profile: str) -> bool:
    """Whether the numbers of a profile are results where nobody says so: of all profiles but `smoke`.

    Args:
        profile: its name; `-own` at the end (on the reader's data) makes no difference.
    """
    return profile.removesuffix("-own") != "smoke"


def read_ledger(path: str | Path) -> list[dict[str, Any]]:
    """Read `claims.yml` and check that every entry can be decided.

    Raises:
        ValueError: if an entry lacks a key, has an unknown kind or rule, or an id occurs twice in one kind.
    """
    entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["claims"]
    seen = set()
    for entry in entries:
        name = f"{path}, claim {entry.get('id')}"
        lacking = [key for key in WANTED if key not in entry]
        if lacking:
            raise ValueError(f"{name} lacks {lacking}")
        if entry["kind"] not in KINDS:
            raise ValueError(f"{name}: kind is {entry['kind']!r}, expected one of {KINDS}")
        unknown = set(entry["rule"].split(" and ")) - set(RULES)
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
        sesoi: the smallest effect of interest, in the unit of the effect.

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
    if contrast["statistic"] in ("linear", "repeats"):
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


def with_arms(runs: Results) -> tuple[Results, pd.DataFrame]:
    """Runs made quick to compare, and their arms: experiment, run, method, variant and metric of all scores."""
    runs = Results(runs.records, runs.scores.astype(dict.fromkeys(NAMES, "category")))  # millions of rows
    return runs, runs.scores[["run", *NAMES]].drop_duplicates().astype(str)


def measured_parts(claim: dict[str, Any], runs: Results, arms: pd.DataFrame) -> list[dict[str, Any]]:
    """The parts of one contrast with their effects and verdicts, as rows of `evidence`.

    Args:
        claim: an entry with id, contrast, sesoi, unit and rule; of this ledger or of `differences.yml`.
        runs, arms: as `with_arms` returns them.

    Raises:
        NotTestedError: if runs that the contrast names are missing.
        ValueError: if they are not comparable.
    """
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


def evidence(runs: Results, ledger: str | Path, is_result: bool | None = None) -> pd.DataFrame:
    """Every part of every claim with its effect and verdict; a claim that is not tested is one row without numbers.

    Args:
        runs: the runs of one profile.
        ledger: `claims.yml`; the papers' tables lie beside it in `published/`.
        is_result: whether numbers of these runs are results; None: what `gives_results` says of the profile. Runs
            that are no results yield no numbers here.

    Returns:
        One row per part: id, paper, kind, claim, source, paper_says, part, effect, low, high, sesoi, unit, rule, n,
        seeds, p, p_holm (Holm over all parts of a paper), passes, parts, verdict, on ("on stand-in", "on real data" or
        empty), reason.

    Raises:
        ValueError: if the ledger is not well formed, or the runs of a contrast are not comparable.
    """
    ledger, rows = Path(ledger), []
    profiles = sorted(set(runs.records["profile"]))
    is_result = all(map(gives_results, profiles)) if is_result is None else is_result
    runs, arms = with_arms(runs)
    for claim in read_ledger(ledger):
        try:
            if claim["kind"] == "arithmetic":
                rows += _arithmetic(claim, ledger.parent / "published")
                continue
            if not is_result:
                raise NotTestedError(f"{' '.join(profiles)} profile: {NO_RESULT}")
            rows += measured_parts(claim, runs, arms)
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
    """The verdicts on one paper as the page of claims prints them, all cells as text.

    Args:
        table: one row per claim and kind, as `weakest` returns them.

    Returns:
        id, claim, verdict, effect, 95 % interval, n, seeds, part (which one it is, and how many pass), rule, paper
        says, reason.
    """
    rows = table[table["paper"] == paper]

    def cell(row: pd.Series, name: str) -> str:
        return "-" if pd.isna(row[name]) or not row[name] else str(int(row[name]))

    def interval(row: pd.Series) -> str:
        if pd.isna(row["low"]):
            return "-"
        return "none" if np.isinf(row["low"]) else f"{row['low']:+.2f} to {row['high']:+.2f}"

    def part(row: pd.Series) -> str:
        if not row["parts"]:
            return "-"
        weakest_of = f"; weakest of {row['parts']}, {row['passes']} pass" if row["parts"] > 1 else ""
        return f"{row['part']}{weakest_of}"

    def rule(row: pd.Series) -> str:
        return row["rule"] if row["rule"] == "exact" else f"{row['rule']}, {row['sesoi']:g} {row['unit']}"

    verdict = (rows["verdict"] + " " + rows["on"]).str.strip()
    effect = [f"{row.effect:+.2f} {row.unit}" if not pd.isna(row.effect) else "-" for row in rows.itertuples()]
    each = [row for _, row in rows.iterrows()]
    return pd.DataFrame(
        {
            "id": rows["id"],
            "claim": rows["claim"],
            "verdict": verdict.where(rows["kind"] != "arithmetic", verdict + ", by arithmetic"),
            "effect": effect,
            "95 % interval": [interval(row) for row in each],
            "n": [cell(row, "n") for row in each],
            "seeds": [cell(row, "seeds") for row in each],
            "part": [part(row) for row in each],
            "rule": [rule(row) for row in each],
            "paper says": rows["paper_says"].astype(str) + " (" + rows["source"] + ")",
            "reason": rows["reason"],
        }
    )
