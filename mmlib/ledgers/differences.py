"""The difference ledger: paper, released code and this book side by side, with the effect of each difference.

An entry that is measured has `contrast`, `sesoi`, `unit` and controls as a claim has, and is judged by the same
rules: the default of this book is asked to be better than the other way. SHOWN then says that it is, ABSENT that the
difference is below the smallest effect of interest, REVERSED that the other way is better. Of the three questions of
a claim the first does not arise, because no paper prints both ways.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mmlib.analysis.results import Results
from mmlib.analysis.wording import format_effect
from mmlib.ledgers.claims import CONTROLS, REAL, REASONS, STAND_IN, WEAKEST_FIRST, Judge, read_yaml
from mmlib.ledgers.contrasts import MEASURED

TEXTS = ("id", "method", "topic", "paper", "code", "here")
NUMBERS = ("effect", "low", "high", "n", "seeds", "sesoi", "unit", "rule", "judged", "data")  # of a measured part
KEYS = (*TEXTS, "contrast", "unmeasured", "sesoi", "unit", *CONTROLS, *REASONS)


def read_differences(path: str | Path) -> list[dict[str, Any]]:
    """Read `differences.yml`.

    Raises:
        ValueError: if an entry lacks a text or has an unknown key, has neither a contrast nor a reason, has a
            contrast or control of no known statistic or a contrast without unit and sesoi, has another number of
            controls than of contrasts, or if an id occurs twice.
    """
    entries = read_yaml(path)["differences"]
    for entry in entries:
        name = f"{path}, difference {entry.get('id')}"
        lacking = [key for key in TEXTS if key not in entry]
        if lacking or ("contrast" in entry) == ("unmeasured" in entry):
            raise ValueError(f"{name}: needs {TEXTS} and either contrast or unmeasured")
        if set(entry) - set(KEYS):
            raise ValueError(f"{name} has the unknown keys {sorted(set(entry) - set(KEYS))}; known are {KEYS}")
        if "contrast" not in entry:
            continue
        lacking = [key for key in ("unit", "sesoi") if key not in entry]
        if lacking:
            raise ValueError(f"{name} has a contrast and lacks {lacking}")
        sides = {side: _listed(entry[side]) for side in ("contrast", *CONTROLS) if side in entry}
        unknown = {one.get("statistic") for side in sides.values() for one in side} - set(MEASURED)
        if unknown:
            raise ValueError(f"{name}: unknown statistic {unknown}, expected one of {tuple(MEASURED)}")
        if len({len(side) for side in sides.values()}) > 1:
            raise ValueError(f"{name} has { {side: len(ones) for side, ones in sides.items()} }; needs as many of each")
    names = [entry["id"] for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: an id occurs twice among {names}")
    return entries


def _listed(contrasts: Any) -> list[dict[str, Any]]:
    """The contrasts of an entry: several where data sets differ in their cases."""
    return contrasts if isinstance(contrasts, list) else [contrasts]


def _questions(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """An entry as claims to be judged, one a contrast with its controls."""
    sides = {"measured": "contrast", **{side: side for side in CONTROLS}}
    given = {to: _listed(entry[side]) for to, side in sides.items() if side in entry}
    rest: dict[str, Any] = {key: entry[key] for key in ("id", "sesoi", "unit", *REASONS) if key in entry}
    return [
        {"rule": "greater", **rest, **{to: ones[place] for to, ones in given.items()}}
        for place in range(len(given["measured"]))
    ]


def effects(runs: Results, ledger: str | Path, is_result: bool | None = None) -> pd.DataFrame:
    """What this book's default (the paper's way, where the paper says it) gains over the other way.

    Args:
        runs: of one profile.
        ledger: `differences.yml`.
        is_result: whether numbers of these runs are results; None: what `gives_results` says of the profile. Of runs
            that are no results nothing is shown.

    Returns:
        One row per difference, question (stand-in, real data) and part: the texts of the ledger, question, verdict,
        part, effect, low, high (95 %), n, seeds, sesoi, unit, rule, judged (the word of the interval), data, reason.
        What is not measured has no numbers, and no `judged`.
    """
    rows: list[dict[str, Any]] = []
    judging = Judge(runs, is_result)
    for entry in read_differences(ledger):
        texts = {name: entry[name] for name in TEXTS}
        if "unmeasured" in entry:
            unasked = {**texts, "verdict": "NOT RUN", "judged": "", "reason": f"Not measured: {entry['unmeasured']}."}
            rows += [{**unasked, "question": question} for question in (STAND_IN, REAL)]
            continue
        for claim in _questions(entry):
            parts = judging.parts(claim)
            for name, part in zip(_brief([part["part"] for part in parts]), parts, strict=True):
                told = {key: part[key] for key in (*NUMBERS, "question", "verdict", "reason")}
                rows.append({**texts, **told, "part": name})
    return pd.DataFrame(rows).reindex(columns=[*TEXTS, "question", "verdict", "part", *NUMBERS, "reason"])


def _brief(names: list[str]) -> list[str]:
    """Names of parts without what all of them say after the first comma, or before it; empty names stay.

    `WT, a against b` and `TC, a against b` become `WT` and `TC`.
    """
    given = [name for name in names if name]
    split = [name.partition(", ") for name in given]
    heads, tails = {head for head, _, _ in split}, {tail for _, _, tail in split}
    if len(given) < 2 or "" in tails or min(len(heads), len(tails)) > 1:
        return names
    kept = 0 if len(tails) == 1 else 2
    return [name.partition(", ")[kept] if name else "" for name in names]


def _told(parts: pd.DataFrame) -> str:
    """The measured parts of one difference in one line."""
    digits = 1 if parts["sesoi"].min() >= 1 else 2
    differ = parts["judged"].nunique() > 1
    cells = [
        f"{row.part} {format_effect(row, digits)}" + (f" {row.judged}" if differ else "") for row in parts.itertuples()
    ]
    n, seeds = (" and ".join(str(int(value)) for value in parts[key].unique()) for key in ("n", "seeds"))
    return (
        f"{', '.join(cells)} {parts['unit'].iloc[0]}; n = {n}, seeds = {seeds}, {' and '.join(parts['data'].unique())}"
    )


def weakest(table: pd.DataFrame) -> pd.DataFrame:
    """One row per difference and question, of the part that decides: id, method, question, verdict.

    What several data sets say differently is decided by the weakest, as for a claim; what is measured comes before
    what is not.

    Args:
        table: as `effects` returns it.
    """
    order = table["judged"].map({word: place for place, word in enumerate(WEAKEST_FIRST)})
    ranked = table.assign(order=order).sort_values("order", kind="stable")
    chosen = ranked.groupby(["id", "question"], sort=False).head(1).sort_index()
    return chosen[["id", "method", "question", "verdict"]].reset_index(drop=True)


def page(table: pd.DataFrame) -> pd.DataFrame:
    """The ledger as its page prints it: one row per difference, with effects, intervals and words of all its parts.

    Args:
        table: as `effects` returns it.

    Returns:
        id, method, topic, a column for each question (the word, and on a new line what stands behind it), the ways,
        the smallest effect of interest, and why.
    """
    words = weakest(table).set_index(["id", "question"])["verdict"]
    rows = []
    for name, parts in table.groupby("id", sort=False):
        measured = parts[parts["judged"] != ""]
        asked = f"{measured['sesoi'].iloc[0]:g} {measured['unit'].iloc[0]}" if len(measured) else ""
        cells = {}
        for question in (STAND_IN, REAL):
            own = measured[measured["question"] == question]
            cells[question] = f"{words[name, question]}\n{_told(own) if len(own) else ''}".strip()
        why = " ".join(dict.fromkeys(reason for reason in parts["reason"] if reason))
        texts = parts.iloc[0]
        named, ways = ({key: texts[key] for key in keys} for keys in (TEXTS[:3], TEXTS[3:]))
        rows.append({**named, **cells, **ways, "smallest of interest": asked, "why": why})
    return pd.DataFrame(rows)
