"""The difference ledger: paper, released code and this book side by side, with the effect of each difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mmlib.analysis.results import Results
from mmlib.data.cases import REGIONS
from mmlib.ledgers.claims import RESULT_PROFILES
from mmlib.ledgers.contrasts import MEASURED, NotTestedError

TEXTS = ("id", "method", "topic", "paper", "code", "here")
SESOI = 1.0  # Dice points, as in the claims ledger


def read_differences(path: str | Path) -> list[dict[str, Any]]:
    """Read `differences.yml`.

    Raises:
        ValueError: if an entry lacks a text, has neither a contrast nor a reason, or an id occurs twice.
    """
    entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["differences"]
    for entry in entries:
        lacking = [name for name in TEXTS if name not in entry]
        if lacking or ("contrast" in entry) == ("unmeasured" in entry):
            raise ValueError(f"{path}, difference {entry.get('id')}: needs {TEXTS} and either contrast or unmeasured")
    names = [entry["id"] for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: an id occurs twice among {names}")
    return entries


def effects(runs: Results, ledger: str | Path) -> pd.DataFrame:
    """What this book's default (the paper's way) gains over the other way, per difference and region.

    Args:
        runs: of one profile; of a profile that gives no results (smoke) nothing is shown.
        ledger: `differences.yml`.

    Returns:
        One row per difference and region: the texts of the ledger, part, effect, low, high (Dice points, 95 %),
        sesoi, unit, n, seeds, on, unmeasured. A difference that is not measured is one row with a reason.
    """
    rows: list[dict[str, Any]] = []
    profiles = set(runs.records["profile"])
    for entry in read_differences(ledger):
        texts = {name: entry[name] for name in TEXTS}
        try:
            if "unmeasured" in entry:
                raise NotTestedError(entry["unmeasured"])
            if not profiles <= set(RESULT_PROFILES):
                raise NotTestedError(f"{' '.join(sorted(profiles))} profile: its numbers are no result")
            parts, on = _contrast(entry["contrast"], runs)
        except NotTestedError as reason:
            rows.append({**texts, "unmeasured": str(reason)})
            continue
        for target, (_, effect, _, _) in zip(REGIONS, parts, strict=True):
            numbers = {name: getattr(effect, name) for name in ("effect", "low", "high", "n", "seeds")}
            shown = {"part": target.upper(), "sesoi": SESOI, "unit": "Dice points", "on": on, "unmeasured": ""}
            rows.append({**texts, **shown, **numbers})
    return pd.DataFrame(rows)


def _contrast(contrast: dict[str, Any], runs: Results) -> tuple[list, str]:
    arm = {"method": contrast["method"], "variant": contrast["variant"]}
    if "available" in contrast:  # a method that is scored on some combinations only
        default = {**arm, "variant": "standard"}
        sums: list[dict[str, Any]] = [
            {"name": one, "add": [{**default, "target": one}], "subtract": [{**arm, "target": one}]} for one in REGIONS
        ]
        shared = {"metric": "dice", "available": contrast["available"]}
        question = {"contrast": {"all": shared, "parts": sums}, "sesoi": SESOI, "rule": "greater"}
        return MEASURED["linear"](question, runs)[0], _origin(runs, arm["method"])
    question = {
        "first": [{**arm, "variant": "paper"}],
        "second": [arm],
        "choose": "all",
        "metric": "dice",
        "targets": list(REGIONS),
        "missing_at_least": contrast.get("missing_at_least", 0),
    }
    parts, _ = MEASURED["mean"]({"contrast": question, "sesoi": SESOI, "rule": "greater"}, runs)
    return parts, _origin(runs, arm["method"])


def _origin(runs: Results, method: str) -> str:
    return "on stand-in" if runs.records.loc[runs.records["method"] == method, "stand_in"].all() else "on real data"


def page(table: pd.DataFrame) -> pd.DataFrame:
    """The ledger as its page prints it: one row per difference, effects and intervals of all regions in one cell."""
    rows = []
    for _, part in table.groupby("id", sort=False):
        first = part.iloc[0]
        if first["unmeasured"]:
            effect = f"not measured: {first['unmeasured']}"
        else:
            cells = [f"{r.part} {r.effect:+.1f} ({r.low:+.1f} to {r.high:+.1f})" for r in part.itertuples()]
            effect = f"{', '.join(cells)}; n = {int(first['n'])}, seeds = {int(first['seeds'])}, {first['on']}"
        rows.append({**first[list(TEXTS)], "effect, Dice points": effect})
    return pd.DataFrame(rows)
