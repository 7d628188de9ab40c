"""BraTS folders as they are downloaded, splits by subject, and the released code's intensity normalisation.

Read by modality name, in both official namings:
2018-2021: `<case>/<case>_flair.nii.gz`, `_t1`, `_t1ce`, `_t2`, `_seg` (in 2018 and 2019 under HGG/ and LGG/);
2023 on:   `<case>/<case>-t2f.nii.gz`, `-t1n`, `-t1c`, `-t2w`, `-seg`; enhancing tumour is label 3 there, not 4.
A case that lacks the file of a modality is a case in which this modality is not available; nothing is filled in.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmlib.data.cases import Case, zscore
from mmlib.data.nifti import CaseFiles, Cases, read_case, write_segmentation
from mmlib.modalities import MRI

__all__ = [
    "BratsFolder", "Split", "clip_tail", "find_cases", "load_case", "make_split", "read_split",
    "released_normalisation", "subject_of", "write_segmentation", "write_split",
]  # fmt: skip

CLASSIC = {"_t1": "t1", "_t1ce": "t1ce", "_t2": "t2", "_flair": "flair", "_seg": "seg"}
RECENT = {"-t1n": "t1", "-t1c": "t1ce", "-t2w": "t2", "-t2f": "flair", "-seg": "seg"}
NIFTI = re.compile(r"\.nii(\.gz)?$")
LAYOUT = (
    "<case>/<case>_flair.nii.gz, _t1, _t1ce, _t2, _seg (2018-2021) or <case>/<case>-t2f.nii.gz, -t1n, -t1c, -t2w, -seg"
)
PARTS = ("train", "valid", "test")
SPLITS = Path(__file__).parent / "splits"


def subject_of(case: str) -> str:
    """Name the person behind a case: from 2023 on the last number is a time point, in 2017-2019 a scan number."""
    recent = re.fullmatch(r"(BraTS-[A-Za-z-]+-\d+)-\d+", case)
    classic = re.fullmatch(r"(Brats1[789]_.+)_\d+", case, flags=re.IGNORECASE)
    match = recent or classic
    return match.group(1) if match else case


def _files(folder: Path, names: Sequence[str]) -> CaseFiles | None:
    """Sort the files of one folder into places; None where no file has an official name."""
    places: dict[str, Path] = {}
    ambiguous, extra, recent = [], [], False
    for name in sorted(names):
        if name.startswith("."):
            continue
        stem = NIFTI.sub("", name)
        endings = [ending for ending in (*CLASSIC, *RECENT) if stem != name and stem.endswith(ending)]
        if not endings:
            extra.append(folder / name)
            continue
        place = (CLASSIC | RECENT)[endings[0]]
        recent = recent or endings[0] in RECENT
        if place in places:
            ambiguous.append(folder / name)
        else:
            places[place] = folder / name
    if not places:
        return None
    return CaseFiles(
        name=folder.name,
        images={name: places[name] for name in MRI if name in places},
        seg=places.get("seg"),
        subject=subject_of(folder.name),
        enhancing_label=3 if recent else None,
        ambiguous=tuple(ambiguous),
        extra=tuple(extra),
    )


def find_cases(root: Path | str) -> list[CaseFiles]:
    """List every folder under `root` that holds files with official names, sorted by path; nothing is opened."""
    found = []
    for folder, below, names in os.walk(Path(root).resolve()):
        below[:] = sorted(name for name in below if not name.startswith("."))
        files = _files(Path(folder), names)
        if files is not None:
            found.append(files)
    return found


def load_case(folder: Path | str) -> Case:
    """Read one case folder.

    Returns:
        The case; `images` holds the acquired modalities, native intensities, float32, (X, Y, Z).

    Raises:
        ValueError: if the folder holds no file with an official name, or as `mmlib.data.nifti.read_case`.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected {LAYOUT}")
    files = _files(folder, [path.name for path in folder.iterdir() if path.is_file()])
    if files is None:
        raise ValueError(f"{folder}: no file is named as in BraTS; expected {LAYOUT}")
    return read_case(files)


class BratsFolder(Cases):
    """All cases below a folder, however deep (so HGG/ and LGG/ too), by name; each is read when it is asked for."""

    def __init__(self, root: Path | str) -> None:
        """Look for case folders.

        Raises:
            ValueError: if there is none, or two have the same name.
        """
        files = find_cases(root)
        if not files:
            raise ValueError(f"{Path(root).resolve()}: no case found; expected {LAYOUT}")
        self.root = Path(root).resolve()
        super().__init__(sorted(files, key=lambda one: one.name), str(root))


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
        ValueError: if there is no such split, a column or part is not as above, or a subject is in two parts.
    """
    path = Path(name_or_path)
    if path.suffix != ".csv":
        path = SPLITS / f"{name_or_path}.csv"
    if not path.is_file():
        known = sorted(one.stem for one in SPLITS.glob("*.csv"))
        raise ValueError(f"no split {str(name_or_path)!r}: give one of {known} or the path of a .csv file")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(table.columns) != ["case", "subject", "part"]:
        raise ValueError(f"{path}: columns must be case, subject, part; found {', '.join(table.columns)}")
    wrong = sorted(set(table.part) - set(PARTS))
    if wrong:
        raise ValueError(f"{path}: part must be one of {PARTS}; found {wrong}")
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


def write_split(split: Split, path: Path | str) -> None:
    """Write a split as `read_split` reads it."""
    split.table.to_csv(path, index=False)


def clip_tail(volume: np.ndarray, fewest: int = 50) -> np.ndarray:
    """Cut the sparse bright end of the histogram, as the released ShaSpec code does before normalising.

    The histogram has int(maximum) bins over the volume's range. The index of the last bin that holds at least
    `fewest` voxels becomes the largest intensity. The index serves as an intensity: true for data that start at 0.

    Args:
        volume: native intensities, (X, Y, Z), maximum at least 1.
        fewest: voxels a bin must hold to count.

    Raises:
        ValueError: if the maximum is below 1 (already normalised?) or no bin holds that many voxels.
    """
    highest = volume.max()
    if not highest >= 1:
        raise ValueError(f"clip_tail needs native intensities, with a maximum of 1 or more; the maximum is {highest}")
    counts, _ = np.histogram(volume, bins=int(highest))
    full = np.flatnonzero(counts >= fewest)
    if full.size == 0:
        raise ValueError(f"no bin of the histogram holds {fewest} voxels; the volume has only {volume.size}")
    return np.minimum(volume, full[-1])


def released_normalisation(volume: np.ndarray) -> np.ndarray:
    """Normalise as the released ShaSpec code does: `clip_tail`, then z-score of all that differs from voxel [0, 0, 0].

    Args:
        volume: native intensities, (X, Y, Z), skull-stripped: its first voxel is background.

    Returns:
        (X, Y, Z) float64, background exactly 0.

    Raises:
        ValueError: as `clip_tail`, and as `mmlib.data.cases.zscore`.
    """
    clipped = clip_tail(volume)
    return zscore(clipped, clipped != clipped[0, 0, 0], dtype=np.float64)
