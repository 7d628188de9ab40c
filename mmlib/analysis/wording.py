"""Effects in words: one way to write a number with its interval, one rule for beats, loses and cannot be told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from mmlib.analysis.statistics import Effect, by_seed_and_case

OUTCOMES = ("beats", "loses to", "cannot be told from")


NO_INTERVAL = "one case: no interval"


def format_interval(low: float, high: float, digits: int = 1, sign: str = "", between: str = " to ") -> str:
    """The bounds of a 95 % interval, `0.3 to 2.7`; or, where they are NaN, that there is none."""
    if math.isnan(low):
        return NO_INTERVAL
    return f"{low:{sign}.{digits}f}{between}{high:{sign}.{digits}f}"


def format_effect(effect: Effect, digits: int = 1, unit: str = "") -> str:
    """An effect with its 95 % interval: `+1.2 (-0.3 to +2.7)`, or `+1.2 points (-0.3 to +2.7)` with a unit.

    Of one case there is none: `+1.2 (one case: no interval)`.
    """
    unit = f" {unit}" if unit else ""
    return f"{effect.effect:+.{digits}f}{unit} ({format_interval(effect.low, effect.high, digits, '+')})"


def format_effects(rows: pd.DataFrame, digits: int = 1) -> str:
    """The rows of a forest plot (part, effect, low, high) as one line, for an alternative text."""
    return "; ".join(f"{row.part} {format_effect(row, digits)}" for row in rows.itertuples())


def outcome(effect: Effect, words: Sequence[str] = OUTCOMES) -> str:
    """The first word where the interval lies above 0, the second where it lies below, else the third.

    Args:
        effect: of one arm over another; larger is better for the first.
        words: for better, worse and undecided.
    """
    better, worse, undecided = words
    return better if effect.low > 0 else worse if effect.high < 0 else undecided


def counted(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seeds_in_words(counts: pd.Series) -> str:
    """`5 seeds`, or `3 to 5 seeds` where numbers of seeds differ."""
    few, many = int(counts.min()), int(counts.max())
    return counted(many, "seed") if few == many else f"{few} to {many} seeds"


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def quick(scores: pd.DataFrame) -> pd.DataFrame:
    """The same scores with categories for texts: of millions of rows those that meet a condition are found sooner."""
    return scores.astype(dict.fromkeys(scores.select_dtypes("str").columns, "category"))


def select(scores: pd.DataFrame, **conditions: str | float | Iterable[str | float]) -> pd.DataFrame:
    """The scores that meet conditions, as a table (seeds, cases); means over what is left open.

    Args:
        scores: tidy; what a condition names is a column.
        conditions: column -> a value, or a list of values.

    Raises:
        ValueError: if no score meets them.
    """
    rows = np.arange(len(scores))
    for name, wanted in conditions.items():  # each looks only at what met those before it: there are some 100,000 rows
        column, values = scores[name].iloc[rows], [wanted] if isinstance(wanted, str | float | int) else list(wanted)
        quick = len(values) == 1 and isinstance(column.dtype, pd.CategoricalDtype)
        rows = rows[(column == values[0] if quick else column.isin(values)).to_numpy()]
    if not len(rows):
        raise ValueError(f"no scores with {conditions}")
    if scores["value"].iloc[rows].isna().any():
        return by_seed_and_case(scores.iloc[rows])  # whose error names all that is known of the value
    return by_seed_and_case(scores[["seed", "case", "value"]].iloc[rows])  # texts take long to copy
