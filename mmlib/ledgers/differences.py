"""The difference ledger: paper, released code and this book side by side, with the effect of each difference.

An entry that is measured has `contrast`, `sesoi` and `unit` as a claim has, and is judged by the same rule: the default
of this book is asked to be better than the other way. REPRODUCED then says that it is, NO EFFECT that the difference is
below the smallest effect of interest, CONTRADICTED that the other way is better.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mmlib.analysis.results import Results
from mmlib.analysis.wording import format_effect
from mmlib.ledgers.claims import NO_RESULT, WEAKEST_FIRST, gives_results, measured_parts, with_arms
from mmlib.ledgers.contrasts import MEASURED, NotTestedError

TEXTS = ("id", "method", "topic", "paper", "code", "here")
NUMBERS = ("effect", "low", "high", "p", "n", "seeds", "sesoi", "unit", "rule", "verdict", "on")  # of a measured part


def read_differences(path: str | Path) -> list[dict[str, Any]]:
    """Read `differences.yml`.

    Raises:
        ValueError: if an entry lacks a text, has neither a contrast nor a reason, has a contrast of no known statistic
            or without unit and sesoi, or if an id occurs twice.
    """
    entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["differences"]
    for entry in entries:
        name = f"{path}, difference {entry.get('id')}"
        lacking = [key for key in TEXTS if key not in entry]
        if lacking or ("contrast" in entry) == ("unmeasured" in entry):
            raise ValueError(f"{name}: needs {TEXTS} and either contrast or unmeasured")
        if "contrast" not in entry:
            continue
        lacking = [key for key in ("unit", "sesoi") if key not in entry]
        if lacking:
            raise ValueError(f"{name} has a contrast and lacks {lacking}")
        unknown = {contrast.get("statistic") for contrast in _contrasts(entry)} - set(MEASURED)
        if unknown:
            raise ValueError(f"{name}: unknown statistic {unknown}, expected one of {tuple(MEASURED)}")
    names = [entry["id"] for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: an id occurs twice among {names}")
    return entries


def _contrasts(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The contrasts of an entry: several where data sets differ in their cases."""
    return entry["contrast"] if isinstance(entry["contrast"], list) else [entry["contrast"]]


def effects(runs: Results, ledger: str | Path, is_result: bool | None = None) -> pd.DataFrame:
    """What this book's default (the paper's way, where the paper says it) gains over the other way.

    Args:
        runs: of one profile.
        ledger: `differences.yml`.
        is_result: whether numbers of these runs are results; None: what `gives_results` says of the profile. Of runs
            that are no results nothing is shown.

    Returns:
        One row per difference and part: the texts of the ledger, part, effect, low, high (95 %), p, n, seeds, sesoi,
        unit, rule, verdict, on, unmeasured. What is not measured is one row, with the reason in `unmeasured`.
    """
    rows: list[dict[str, Any]] = []
    profiles = sorted(set(runs.records["profile"]))
    is_result = all(map(gives_results, profiles)) if is_result is None else is_result
    runs, arms = with_arms(runs)
    for entry in read_differences(ledger):
        texts = {name: entry[name] for name in TEXTS}
        if "unmeasured" in entry:
            rows.append({**texts, "unmeasured": entry["unmeasured"]})
            continue
        for contrast in _contrasts(entry):
            try:
                if not is_result:
                    raise NotTestedError(f"{' '.join(profiles)} profile: {NO_RESULT}")
                parts = measured_parts({"rule": "greater", **entry, "contrast": contrast}, runs, arms)
            except NotTestedError as reason:
                rows.append({**texts, "unmeasured": str(reason)})
                continue
            for name, part in zip(_brief([part["part"] for part in parts]), parts, strict=True):
                rows.append({**texts, "part": name, **{key: part[key] for key in NUMBERS}, "unmeasured": ""})
    return pd.DataFrame(rows).reindex(columns=[*TEXTS, "part", *NUMBERS, "unmeasured"])


def _brief(names: list[str]) -> list[str]:
    """Names of parts without what all of them say after the first comma, or before it.

    `WT, a against b` and `TC, a against b` become `WT` and `TC`.
    """
    heads, _, tails = zip(*(name.partition(", ") for name in names), strict=True)
    if len(names) == 1 or not all(tails):
        return names
    return list(heads) if len(set(tails)) == 1 else list(tails) if len(set(heads)) == 1 else names


def _told(parts: pd.DataFrame) -> str:
    """The measured parts of one difference in one line."""
    digits = 1 if parts["sesoi"].min() >= 1 else 2
    differ = parts["verdict"].nunique() > 1
    cells = [
        f"{row.part} {format_effect(row, digits)}" + (f" {row.verdict}" if differ else "") for row in parts.itertuples()
    ]
    n, seeds = (" and ".join(str(int(value)) for value in parts[key].unique()) for key in ("n", "seeds"))
    return f"{', '.join(cells)}; n = {n}, seeds = {seeds}, {' and '.join(parts['on'].unique())}"


def page(table: pd.DataFrame) -> pd.DataFrame:
    """The ledger as its page prints it: one row per difference, with effects, intervals and verdicts of all its parts.

    Args:
        table: as `effects` returns it.

    Returns:
        The texts of the ledger, then verdict (of the weakest part, as for a claim), unit and effect.
    """
    rows = []
    for _, parts in table.groupby("id", sort=False):
        measured, rest = parts[parts["unmeasured"] == ""], parts.loc[parts["unmeasured"] != "", "unmeasured"]
        verdict, unit, told = "", "", []
        if len(measured):
            verdict = min(measured["verdict"], key=WEAKEST_FIRST.index)
            unit = f"{measured['unit'].iloc[0]}, smallest of interest {measured['sesoi'].iloc[0]:g}"
            told.append(_told(measured))
        told += [f"not measured: {reason}" for reason in dict.fromkeys(rest)]
        rows.append({**parts.iloc[0][list(TEXTS)], "verdict": verdict, "unit": unit, "effect": "; ".join(told)})
    return pd.DataFrame(rows)
