"""From the claims ledger and the run records to verdicts on three questions, by rules that stand in the ledger.

A claim is asked three things, and the answers stay apart:

tables      Do the paper's own numbers support its sentence? FOLLOWS, DOES NOT FOLLOW, or NOT CHECKABLE where it prints
            none. Arithmetic on `book/published`, no run.
stand-in    Does the effect appear in data with a known answer, where it could? The word of its interval, below, if the
            controls that the word asks for do what they should, else NOT TESTABLE. Every word asks for a positive
            control that shows at least twice the smallest effect of interest, so that a missing effect is not the
            fault of the data; SHOWN under `greater` and `at-least` asks besides for a negative control without a gain,
            so that a found one is not the fault of the measurement. What is counted or timed `direct`ly asks for none.
            IMPOSSIBLE: a theorem says that the effect cannot appear in these data. NOT ASKED: the sentence is not
            about a stand-in. NOT RUN: a run is missing, or the profile gives no results.
real data   Does it appear there? SHOWN, NOT SHOWN or NOT RUN.

The unit is the test subject; intervals are those of `mmlib.analysis.statistics`. A claim consists of parts (a region,
an opponent, a combination), each gets a word, and the weakest decides (intersection-union). With the effect d in the
claimed direction, its 95 % interval and the smallest effect of interest s, the first line that holds is the word
under `greater`:

SHOWN       interval above 0 and d >= s
ABSENT      interval inside (-s, s)
REVERSED    interval below 0; here the interval that holds for all parts together counts (Bonferroni), because of many
            parts one lies below by chance
UNRESOLVED  what is left

`no-worse` replaces the first line by "interval above -s", `equivalent` by "interval inside (-s, s)" (and is reversed
by an interval outside), `at-least` by "interval above the reference"; they have no ABSENT. ABSENT and REVERSED ask
for five seeds, SHOWN for two; with fewer the word is UNRESOLVED. Counts and repeats of a measurement have no seeds to
ask for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import MOST_SEEDS, Effect, required
from mmlib.analysis.wording import format_effect
from mmlib.ledgers.contrasts import MEASURED, NAMES, NotTestedError, is_balanced
from mmlib.ledgers.paper_tables import ARITHMETIC

TABLES, STAND_IN, REAL = "paper's tables", "stand-in", "real data"
QUESTIONS = {  # column -> its words
    TABLES: ("FOLLOWS", "DOES NOT FOLLOW", "NOT CHECKABLE"),
    STAND_IN: ("SHOWN", "ABSENT", "REVERSED", "IMPOSSIBLE", "UNRESOLVED", "NOT TESTABLE", "NOT RUN", "NOT ASKED"),
    REAL: ("SHOWN", "NOT SHOWN", "NOT RUN"),
}
WEAKEST_FIRST = ("REVERSED", "ABSENT", "UNRESOLVED", "SHOWN")
FEWEST = {"SHOWN": 2, "ABSENT": 5, "REVERSED": 5}  # seeds
SENTENCES = ("paper", "ours")  # whose sentence is judged
CONTROLS = ("positive_control", "negative_control")
REASONS = ("no_control", "direct", "not_asked")  # why a control is lacking, none is needed, or no stand-in is asked
OWN_METRICS = ("audit", "linear", "repeats", "gain-and-gap")  # statistics that name their metrics themselves
RULES = ("greater", "no-worse", "equivalent", "at-least")
WANTED = ("id", "paper", "claim", "sentence", "source", "paper_says", "registered")  # of every claim
OF_RUNS = ("sesoi", "unit", "rule")  # of a claim that runs can answer
NO_RESULT = "a few steps show that everything runs, its numbers are no result"


def gives_results(profile: str) -> bool:
    """Whether the numbers of a profile are results where nobody says so: of all profiles but `smoke`.

    Args:
        profile: its name; `-own` at the end (on the reader's data) makes no difference.
    """
    return profile.removesuffix("-own") != "smoke"


def read_yaml(path: str | Path) -> Any:
    """What a YAML file of the book holds."""
    text = Path(path).read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # libyaml's is ten times as fast


def read_ledger(path: str | Path) -> list[dict[str, Any]]:
    """Read `claims.yml` and check that every entry can be decided.

    Raises:
        ValueError: if an entry lacks a key or has an unknown one, has neither arithmetic nor a measured contrast,
            names an unknown statistic, rule, theorem or owner of its sentence, has a date that is none, or if an id
            occurs twice.
    """
    ledger = read_yaml(path)
    entries, theorems = ledger["claims"], ledger.get("theorems", {})
    known = {*WANTED, *OF_RUNS, *CONTROLS, *REASONS, "arithmetic", "measured", "theorem", "changed", "note"}
    for entry in entries:
        name = f"{path}, claim {entry.get('id')}"
        lacking = [key for key in WANTED + (OF_RUNS if "measured" in entry else ()) if key not in entry]
        if lacking:
            raise ValueError(f"{name} lacks {lacking}")
        if set(entry) - known:
            raise ValueError(f"{name} has the unknown keys {sorted(set(entry) - known)}; known are {sorted(known)}")
        if not {"arithmetic", "measured"} & set(entry):
            raise ValueError(f"{name} has neither `arithmetic` nor `measured`")
        for key in {"arithmetic", "measured", *CONTROLS} & set(entry):
            statistics = tuple(ARITHMETIC if key == "arithmetic" else MEASURED)
            if entry[key].get("statistic") not in statistics:
                found = entry[key].get("statistic")
                raise ValueError(f"{name}: unknown statistic {found!r} of {key}, expected one of {statistics}")
        unknown = set(entry.get("rule", "").split(" and ")) - {*RULES, ""}
        if unknown:
            raise ValueError(f"{name}: unknown rule {sorted(unknown)}, expected one of {RULES}")
        if entry["sentence"] not in SENTENCES:
            raise ValueError(f"{name}: sentence is {entry['sentence']!r}, expected one of {SENTENCES}")
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", str(entry["registered"])):
            raise ValueError(f"{name}: registered is {entry['registered']!r}, expected a date such as 2026-11-22")
        if entry.get("theorem", "") not in {*theorems, ""}:
            raise ValueError(f"{name}: unknown theorem {entry['theorem']!r}, expected one of {tuple(theorems)}")
    names = [entry["id"] for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: an id occurs twice: {sorted({name for name in names if names.count(name) > 1})}")
    return entries


def read_theorems(path: str | Path) -> dict[str, str]:
    """Why some claims cannot appear by construction: name -> statement, of `claims.yml`."""
    return read_yaml(path).get("theorems", {})


def _by_interval(effect: Effect, sesoi: float, rule: str) -> str:
    """The word of an interval, however many seeds it rests on."""
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
        return "SHOWN"
    if rule == "greater" and inside:
        return "ABSENT"
    outside = effect.family_high < 0
    if rule == "equivalent":
        outside = effect.family_low >= sesoi or effect.family_high <= -sesoi
    return "REVERSED" if outside else "UNRESOLVED"


def _enough_seeds(effect: Effect, word: str) -> bool:
    return effect.resampled in ("repeats", "nothing") or effect.seeds >= FEWEST.get(word, 0)


def judge(effect: Effect, sesoi: float, rule: str = "greater") -> str:
    """The word for one part, by the rules in the header of this module.

    Args:
        effect: in the claimed direction.
        sesoi: the smallest effect of interest, in the unit of the effect.

    Raises:
        ValueError: if the rule is unknown.
    """
    word = _by_interval(effect, sesoi, rule)
    return word if _enough_seeds(effect, word) else "UNRESOLVED"


def what_it_would_take(effect: Effect, sesoi: float, rule: str = "greater") -> str:
    """For a part that is UNRESOLVED: how many seeds or cases would resolve it, by the variances that were observed."""
    word = _by_interval(effect, sesoi, rule)
    if effect.n == 1 and np.isnan(effect.low):
        return "One case: no interval."
    if effect.resampled == "subjects":
        return "One seed: the interval accounts for subjects alone; at least five are asked for."
    if not _enough_seeds(effect, word):
        return f"The interval says {word}, for which five seeds are asked."
    absent = rule == "greater" and effect.effect < sesoi  # what it points to
    needed = required(effect, sesoi, equivalence=absent or rule == "equivalent")
    if needed is None:
        known = np.isfinite(effect.variances).all()
        return f"More than {MOST_SEEDS} seeds would not resolve it (power 80 %, level 5 %)." if known else ""
    seeds, cases = max(needed[0], FEWEST["ABSENT"]) if absent else needed[0], needed[1]
    of = f" and {cases:,} cases" if cases else ""
    no_gain = rule == "greater" and effect.family_high < sesoi
    excluded = f"A gain of {sesoi:g} is excluded, a loss of as much is not. " if no_gain else ""
    return f"{excluded}To tell {sesoi:g} and 0 apart takes {seeds} seeds{of} (power 80 %, level 5 %)."


def effect_rows(
    names: Iterable[str],
    effects: Iterable[Effect],
    sesoi: float = 1.0,
    unit: str = "Dice points",
    rule: str = "greater",
) -> pd.DataFrame:
    """Effects as the rows of a forest plot, with the words of their intervals; no control stands behind them.

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
        ],
        columns=["part", *numbers, "sesoi", "unit", "verdict"],
    )


# ------------------------------------------------------------------------------------------------------- verdicts
COLUMNS = (
    *("id", "paper", "sentence", "claim", "source", "paper_says", "registered", "changed", "question", "part"),
    *("effect", "low", "high", "sesoi", "unit", "rule", "n", "seeds", "passes", "parts", "judged", "verdict"),
    *("data", "reason"),
)


def _row(claim: dict[str, Any], question: str, verdict: str, **facts: Any) -> dict[str, Any]:
    texts = ("id", "paper", "sentence", "claim", "source", "paper_says", "registered", "changed", "unit", "rule")
    numbers = dict.fromkeys(("effect", "low", "high", "n", "seeds"), np.nan)
    blank = {"part": "", "sesoi": claim.get("sesoi", np.nan), **numbers, "judged": "", "data": "", "reason": ""}
    return {
        **{key: str(claim.get(key, "")) for key in texts},
        **blank,
        "question": question,
        "verdict": verdict,
        **facts,
    }


def _arms(contrast: dict[str, Any]) -> list[dict[str, list[str]]]:
    """What tells the runs of every arm of a contrast from others, key -> values: method and, where given, more."""
    if contrast["statistic"] in ("linear", "repeats"):
        named = [arm for part in contrast["parts"] for side in ("add", "subtract") for arm in part[side]]
    elif contrast["statistic"] == "gain-and-gap":
        named = [contrast[side] for side in ("first", "second", "reference")]
    else:
        named = contrast.get("first", [{"method": contrast["statistic"]}]) + contrast.get("second", [])
    arms = [{**contrast.get("all", {}), **arm} for arm in named]
    keys = ("method", "variant", "experiment", "target")  # "{" in a value: {rate} stands for several
    listed = [
        {key: [arm[key]] if isinstance(arm[key], str) else arm[key] for key in keys if key in arm} for arm in arms
    ]
    return [{key: values for key, values in arm.items() if "{" not in values[0]} for arm in listed]


def _origin(runs: Results, arms: pd.DataFrame, claim: dict[str, Any], contrast: dict[str, Any]) -> tuple[str, str]:
    """Which question the runs of a contrast answer, and on what data; and a check that they used the same.

    A contrast with `across: data` is between data sets that differ on purpose; in an interaction of experiments the
    data of each cancel, so that only runs of one experiment must have the same. `arms` has a row for every run,
    method, variant, target and metric that there are scores of.
    """
    scores = arms
    if contrast["statistic"] not in OWN_METRICS:
        metrics = [contrast["metric"]] if "metric" in contrast else [part["metric"] for part in contrast["parts"]]
        scores = scores[scores["metric"].isin(metrics)]
    asked = [scores[list(arm)].isin(arm).all(axis=1) for arm in _arms(contrast)]
    made = scores[np.logical_or.reduce(asked)][["experiment", "run"]].drop_duplicates()
    facts = ["experiment", "run", "stand_in", "data_fingerprint", "split_hash"]
    used = runs.records[facts].merge(made, on=["experiment", "run"])
    across = contrast.get("across") == "data"
    if across and used["stand_in"].nunique() > 1:
        raise NotTestedError("one of the data sets that it compares is a stand-in, the other is not")
    apart = contrast["statistic"] == "linear" and is_balanced(contrast)
    for fact in ("stand_in", "split_hash") if across else ("stand_in", "data_fingerprint", "split_hash"):
        compared = [used] if fact == "stand_in" or not apart else [own for _, own in used.groupby("experiment")]
        if max(own[fact].nunique() for own in compared) > 1:
            found = used.groupby(fact)["run"].first().to_dict()
            raise ValueError(
                f"claim {claim['id']} compares runs that differ in {fact}: {found}; run them on the same data"
            )
    return (STAND_IN if used["stand_in"].iloc[0] else REAL), ", ".join(sorted(set(used["experiment"])))


def with_arms(runs: Results) -> tuple[Results, pd.DataFrame]:
    """Runs made quick to compare, and their arms: experiment, run, method, variant, target and metric of all scores."""
    quick = runs.scores.astype(dict.fromkeys(NAMES, "category"))  # millions of rows
    return Results(runs.records, quick), quick[["run", "target", *NAMES]].drop_duplicates().astype(str)


def _measure(claim: dict[str, Any], side: str, runs: Results) -> tuple[list, str]:
    """Parts and note of one contrast of a claim: `measured`, or a control."""
    contrast = claim[side]
    return MEASURED[contrast["statistic"]]({**claim, "contrast": contrast}, runs)


def _no_gain(effect: Effect, sesoi: float) -> bool:
    """Whether a negative control shows no gain: below the margin, or small and not told from 0. A loss is none."""
    return effect.high < sesoi or (effect.effect < sesoi and effect.low <= 0)


def asked_controls(word: str, rule: str) -> tuple[str, ...]:
    """The controls that a word asks for: a positive one always, a negative one where an effect was found."""
    return CONTROLS if word == "SHOWN" and rule in ("greater", "at-least") else CONTROLS[:1]


class Judge:
    """Decides claims from the runs of one profile; controls that several claims share are computed once.

    Args:
        runs: the runs.
        is_result: whether their numbers are results; None: what `gives_results` says of the profile.
    """

    def __init__(self, runs: Results, is_result: bool | None = None) -> None:
        profiles = sorted(set(runs.records["profile"]))
        self.profile = " ".join(profiles)
        self.is_result = all(map(gives_results, profiles)) if is_result is None else is_result
        self.runs, self.arms = with_arms(runs)
        self.controls: dict[str, tuple[bool, str]] = {}

    def _control(self, claim: dict[str, Any], side: str) -> tuple[bool, str]:
        """Whether a control of a claim does what it should, and its numbers."""
        key = json.dumps([side, claim[side], claim["sesoi"]], sort_keys=True)
        if key not in self.controls:
            self.controls[key] = self._run_control(claim, side)
        return self.controls[key]

    def _run_control(self, claim: dict[str, Any], side: str) -> tuple[bool, str]:
        kind, size = side.replace("_", " "), claim["sesoi"]
        try:
            parts, _ = _measure(claim, side, self.runs)
        except NotTestedError as reason:
            return False, f"The {kind} is not run: {reason}."
        if side == "positive_control":
            fine = [judge(effect, 2 * size) == "SHOWN" for _, effect, _, _ in parts]
            said = "shows" if all(fine) else "does not show"
            told = f"{said} twice the smallest effect of interest"
        else:
            fine = [effect.resampled != "subjects" and _no_gain(effect, size) for _, effect, _, _ in parts]
            told = "shows no gain" if all(fine) else "does not hold a gain to be absent"
        one = ", one seed" if any(effect.resampled == "subjects" for _, effect, _, _ in parts) else ""
        weakest = parts[fine.index(False)] if not all(fine) else parts[0]
        return all(fine), f"The {kind} {told} ({weakest[0]}: {format_effect(weakest[1], 2)}{one})."

    def _unmeasured(self, claim: dict[str, Any], why: str) -> tuple[str, str]:
        """The word for a stand-in on which nothing was measured, and the reason."""
        if "theorem" in claim:
            return "IMPOSSIBLE", f"By theorem `{claim['theorem']}` the effect cannot appear in these data."
        if "measured" not in claim:
            return "NOT ASKED", "The sentence is about printed numbers; no run can tell."
        if "not_asked" in claim:
            return "NOT ASKED", claim["not_asked"]
        if "direct" in claim or CONTROLS[0] in claim:
            return "NOT RUN", f"{why}."
        return "NOT TESTABLE", _joined("The ledger names no positive control.", claim.get("no_control", ""))

    def _judged(self, claim: dict[str, Any], word: str, rule: str) -> tuple[str, str]:
        """The word for a part that was measured on a stand-in: that of its interval if controls allow it; and why."""
        if "theorem" in claim or "not_asked" in claim:
            return self._unmeasured(claim, "")
        if "direct" in claim:  # it has no seeds to ask for
            return word, claim["direct"]
        asked = asked_controls(word, rule)
        lacking = [side.replace("_", " ") for side in asked if side not in claim]
        if lacking:
            said = f"The ledger names no {' and no '.join(lacking)}."
            return "NOT TESTABLE", _joined(said, claim.get("no_control", ""))
        fine, told = zip(*(self._control(claim, side) for side in asked), strict=True)
        return (word if all(fine) else "NOT TESTABLE"), " ".join(told)

    def parts(self, claim: dict[str, Any]) -> list[dict[str, Any]]:
        """What runs say of one claim: rows of `evidence` for the stand-in and for real data.

        Args:
            claim: an entry with id, measured, sesoi, unit and rule; of this ledger or of `differences.yml`.

        Raises:
            ValueError: if the runs of a contrast are not comparable.
        """
        note = claim.get("note", "")
        if "measured" not in claim:
            verdict, told = self._unmeasured(claim, "")
            return [_row(claim, STAND_IN, verdict, reason=told), _row(claim, REAL, "NOT RUN")]
        try:
            if not self.is_result:
                raise NotTestedError(f"{self.profile} profile: {NO_RESULT}")
            parts, found = _measure(claim, "measured", self.runs)
            question, data = _origin(self.runs, self.arms, claim, claim["measured"])
        except NotTestedError as missing:
            verdict, told = self._unmeasured(claim, str(missing))
            return [
                _row(claim, STAND_IN, verdict, reason=_joined(told, note)),
                _row(claim, REAL, "NOT RUN", reason=f"{missing}."),
            ]
        rows = []
        for name, effect, sesoi, rule in parts:
            judged = _by_interval(effect, sesoi, rule) if "direct" in claim else judge(effect, sesoi, rule)
            takes = what_it_would_take(effect, sesoi, rule) if judged == "UNRESOLVED" else ""
            if question == REAL:
                verdict = "SHOWN" if judged == "SHOWN" else "NOT SHOWN"
                told = f"The interval says {judged}." if judged in ("ABSENT", "REVERSED") else ""
            else:
                verdict, told = self._judged(claim, judged, rule)
                takes = takes if verdict == "UNRESOLVED" or effect.resampled == "subjects" else ""
            numbers = {key: getattr(effect, key) for key in ("effect", "low", "high", "n", "seeds")}
            reason = _joined(told, takes, found, note)
            facts = dict(part=name, sesoi=sesoi, rule=rule, judged=judged, data=data, reason=reason, **numbers)
            rows.append(_row(claim, question, verdict, **facts))
        if question == STAND_IN:
            return [*rows, _row(claim, REAL, "NOT RUN")]
        verdict, told = self._unmeasured(claim, "No run on a stand-in")
        return [_row(claim, STAND_IN, verdict, reason=told), *rows]


def _joined(*sentences: str) -> str:
    return " ".join(sentence.strip() for sentence in sentences if sentence.strip())


def _on_tables(claim: dict[str, Any], published: Path) -> list[dict[str, Any]]:
    if "arithmetic" not in claim:
        return [_row(claim, TABLES, "NOT CHECKABLE")]
    contrast = claim["arithmetic"]
    parts, note = ARITHMETIC[contrast["statistic"]](contrast, published)
    word = {True: "FOLLOWS", False: "DOES NOT FOLLOW"}
    facts = {"unit": contrast.get("unit", claim.get("unit", "")), "rule": "exact", "sesoi": np.nan}
    return [
        _row(
            claim,
            TABLES,
            word[bool(agrees)],
            part=name,
            effect=value,
            judged=word[bool(agrees)],
            reason=_joined(note, contrast.get("note", "")),
            **facts,
        )
        for name, value, agrees in parts
    ]


def evidence(runs: Results, ledger: str | Path, is_result: bool | None = None) -> pd.DataFrame:
    """Every part of every claim under each of the three questions; what has no answer is one row without numbers.

    Args:
        runs: the runs of one profile.
        ledger: `claims.yml`; the papers' tables lie beside it in `published/`.
        is_result: whether numbers of these runs are results; None: what `gives_results` says of the profile. Runs
            that are no results yield no numbers here.

    Returns:
        One row per question and part: id, paper, sentence (whose: the paper's or ours), claim, source, paper_says,
        registered (date of the rule), changed (what was changed after results), question (of `QUESTIONS`), part,
        effect, low, high, sesoi, unit, rule, n, seeds, passes (of the parts, how many are SHOWN or FOLLOW), parts,
        judged (the word of this part's numbers), verdict (one of the question's words), data (experiments), reason.

    Raises:
        ValueError: if the ledger is not well formed, or the runs of a contrast are not comparable.
    """
    ledger, rows, judging = Path(ledger), [], Judge(runs, is_result)
    for claim in read_ledger(ledger):
        rows += [*_on_tables(claim, ledger.parent / "published"), *judging.parts(claim)]
    return counted_parts(pd.DataFrame(rows))[list(COLUMNS)]


def counted_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of parts with `parts` and `passes`, of their id and question."""
    groups = rows.groupby(["id", "question"], sort=False)["judged"]
    parts = groups.transform(lambda words: words.ne("").sum())
    return rows.assign(parts=parts, passes=groups.transform(lambda words: words.isin(["SHOWN", "FOLLOWS"]).sum()))


def weakest(parts: pd.DataFrame) -> pd.DataFrame:
    """Of every claim and question the weakest part, and with it the verdict, in the order of the ledger.

    Args:
        parts: as `evidence` returns them.
    """
    words = ("DOES NOT FOLLOW", *WEAKEST_FIRST)
    order = parts["judged"].map({word: place for place, word in enumerate(words)})
    ranked = parts.assign(order=order).sort_values(["order", "effect"], kind="stable")
    return ranked.groupby(["id", "question"], sort=False).head(1).sort_index()[list(COLUMNS)].reset_index(drop=True)


def verdicts(runs: Results, ledger: str | Path) -> pd.DataFrame:
    """One row per claim and question: `weakest` of `evidence`. `passes` of `parts` tells how many parts are shown."""
    return weakest(evidence(runs, ledger))


def count(table: pd.DataFrame, question: str, by: str = "paper") -> pd.DataFrame:
    """How many claims of each paper got each word of a question; all its words are columns, also the empty ones.

    Args:
        table: as `weakest` returns it.
        question: of `QUESTIONS`.
        by: the column that rows are counted by.
    """
    asked = table[table["question"] == question]
    counted = pd.crosstab(asked[by], asked["verdict"])
    return counted.reindex(index=table[by].unique(), columns=QUESTIONS[question]).fillna(0).astype(int)


def answered(table: pd.DataFrame) -> pd.Series:
    """Whether a claim has an answer under at least one question: id -> bool. Proof that none can be is an answer.

    Args:
        table: as `weakest` returns it.
    """
    none = {"NOT CHECKABLE", "UNRESOLVED", "NOT TESTABLE", "NOT RUN", "NOT ASKED"}
    return (~table["verdict"].isin(none)).groupby(table["id"], sort=False).any()


def measured_text(row: pd.Series) -> str:
    """What was measured, as a table cell: the weakest part with its effect, interval, n and seeds."""
    if pd.isna(row["effect"]):
        return ""
    text = f"{row['effect']:+.2f} {row['unit']}"
    if not pd.isna(row["low"]):
        bounds = "none" if np.isinf(row["low"]) else f"{row['low']:+.2f} to {row['high']:+.2f}"
        text += f", 95 % interval {bounds}"
        text += f", n = {int(row['n'])}" if row["n"] else ""
        text += f", seeds = {int(row['seeds'])}"
    text += f", {row['data']}" if row["data"] else ""
    parts = int(row["parts"])
    return f"{text} ({row['part']}" + (f"; weakest of {parts}, {int(row['passes'])} pass)" if parts > 1 else ")")


def page(table: pd.DataFrame) -> pd.DataFrame:
    """Claims as a page prints them: one row a claim, one column a question, all cells as text.

    Args:
        table: one row per claim and question, as `weakest` returns them.

    Returns:
        id, claim, a column for each question (the word, and on a new line what stands behind it), paper says, rule
        and its date, why.
    """
    rows = []
    for _, own in table.groupby("id", sort=False):
        by = own.set_index("question")
        first = own.iloc[0]
        asked = by.loc[REAL if by.loc[REAL, "parts"] else STAND_IN]
        ruled = f"{asked['rule']}, {asked['sesoi']:g} {asked['unit']}; " if asked["rule"] else ""
        changed = f"; {first['changed']}" if first["changed"] else ""
        rows.append(
            {
                "id": first["id"],
                "claim": first["claim"] + (" (Our sentence.)" if first["sentence"] == "ours" else ""),
                **{name: f"{by.loc[name, 'verdict']}\n{measured_text(by.loc[name])}".strip() for name in QUESTIONS},
                "paper says": f"{first['paper_says']} ({first['source']})",
                "rule, and its date": f"{ruled}{first['registered']}{changed}",
                "why": " ".join(dict.fromkeys(reason for reason in own["reason"] if reason)),
            }
        )
    return pd.DataFrame(rows)
