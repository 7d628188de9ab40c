"""Splits by subject: committed ones by name, one's own from a CSV or drawn at random."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from mmlib.data.csv_files import quoted, read_csv
from mmlib.data.nifti import Cases

PARTS = ("train", "valid", "test")
SPLITS = Path(__file__).parent / "splits"


@dataclass(frozen=True)
class Split:
    """Which cases train, validate and test; no subject is in two parts.

    Attributes:
        train, valid, test: names of cases.
        subjects: case -> subject.
    """

    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]
    subjects: dict[str, str]

    def __post_init__(self) -> None:
        parts: dict[str, str] = {}
        for part in PARTS:
            for case in getattr(self, part):
                subject = self.subjects[case]
                if parts.setdefault(subject, part) != part:
                    raise ValueError(
                        f"subject {subject} (case {case}) is in {parts[subject]} and in {part}; put all cases of a "
                        "subject in one part, else the test set is not held out"
                    )
        twice = [case for case, count in Counter(self.train + self.valid + self.test).items() if count > 1]
        if twice:
            raise ValueError(f"case {twice[0]} is listed twice; list every case once")

    @property
    def table(self) -> pd.DataFrame:
        """One row per case, columns case, subject, part, as in the file."""
        rows = [(case, self.subjects[case], part) for part in PARTS for case in getattr(self, part)]
        return pd.DataFrame(rows, columns=["case", "subject", "part"])

    @property
    def hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the sorted rows: the same split has the same hash."""
        rows = sorted(",".join(row) for row in self.table.itertuples(index=False))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]

    def head(self, train: int, valid: int, test: int) -> Split:
        """The first cases of each part.

        Raises:
            ValueError: if a part has fewer.
        """
        for part, number in zip(PARTS, (train, valid, test), strict=True):
            if not 0 <= number <= len(getattr(self, part)):
                raise ValueError(f"the part {part} has {len(getattr(self, part))} cases; cannot take {number}")
        return Split(self.train[:train], self.valid[:valid], self.test[:test], self.subjects)


def read_split(name_or_path: Path | str) -> Split:
    """Read a split: a CSV with the columns case, subject, part (train, valid, test).

    Args:
        name_or_path: the name of a committed split such as `brats-phantom`, or the path of a CSV of one's own.

    Raises:
        ValueError: if there is no such split, the file is no CSV (as `mmlib.data.csv_files.read_csv`) or has no row, a
            column or part is not as above, or a subject is in two parts.
    """
    path = Path(name_or_path)
    if path.suffix != ".csv":
        path = SPLITS / f"{name_or_path}.csv"
    if not os.path.isfile(path):  # False for a name of 5,000 characters, where Path.is_file raises
        known = sorted(one.stem for one in SPLITS.glob("*.csv"))
        raise ValueError(f"no split {quoted(str(name_or_path))}: give one of {known} or the path of a .csv file")
    columns = ("case", "subject", "part")
    table = read_csv(path, columns, filled=columns)
    if tuple(table.columns) != columns:
        raise ValueError(f"{path}: columns must be case, subject, part; found {', '.join(table.columns[:10])}")
    if table.empty:
        raise ValueError(f"{path}: has no row; add one for each case")
    wrong = sorted(set(table.part) - set(PARTS))
    if wrong:
        raise ValueError(f"{path}: part must be one of {PARTS}; found {', '.join(quoted(one) for one in wrong[:5])}")
    if table.case.duplicated().any():
        raise ValueError(f"{path}: case {table.case[table.case.duplicated()].iloc[0]} is listed twice; list it once")
    train, valid, test = (tuple(table.case[table.part == part]) for part in PARTS)
    return Split(train, valid, test, dict(zip(table.case, table.subject, strict=True)))


def make_split(cases: Cases, seed: int, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)) -> Split:
    """Split one's own cases at random by subject; the same subjects and seed give the same split.

    Args:
        cases: by name.
        seed: of the shuffle.
        fractions: of the subjects, for train, valid and test; they sum to 1.

    Raises:
        ValueError: if a fraction is negative or they do not sum to 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions of train, valid and test must be at least 0 and sum to 1; got {fractions}")
    subjects = {name: cases.subject(name) for name in sorted(cases)}
    order = np.random.default_rng(seed).permutation(sorted(set(subjects.values()))).tolist()
    ends = np.rint(np.cumsum(fractions) * len(order)).astype(int)
    parts = [set(order[start:end]) for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    train, valid, test = (tuple(name for name, subject in subjects.items() if subject in part) for part in parts)
    return Split(train, valid, test, subjects)


def make_folds(cases: Cases, count: int, seed: int) -> list[Split]:
    """Cross-validation by subject: each subject is tested in one fold and trains in the others; none validates.

    Args:
        cases: by name.
        count: of folds; with as many subjects, each is left out once.
        seed: of the shuffle.

    Raises:
        ValueError: if there are fewer subjects than folds, or fewer than two folds.
    """
    subjects = {name: cases.subject(name) for name in sorted(cases)}
    people = np.array(sorted(set(subjects.values())))
    if not 2 <= count <= len(people):
        raise ValueError(
            f"{cases.source} holds {len(people)} subjects: {count} folds need at least that many, and two or more"
        )
    folds = []
    for _, held_out in KFold(count, shuffle=True, random_state=seed).split(people):
        test = set(people[held_out].tolist())
        parts = {inside: tuple(name for name in subjects if (subjects[name] in test) == inside) for inside in (0, 1)}
        folds.append(Split(parts[0], (), parts[1], subjects))
    return folds


def write_split(split: Split, path: Path | str) -> None:
    """Write a split as `read_split` reads it."""
    split.table.to_csv(path, index=False)
