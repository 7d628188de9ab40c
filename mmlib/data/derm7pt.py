"""Derm7pt: a clinical photograph and a dermoscopic image of each lesion, a diagnosis and the seven-point checklist.

Data: J. Kawahara, S. Daneshvar, G. Argenziano, G. Hamarneh, Seven-Point Checklist and Skin Lesion Classification using
Multi-Task Multi-Modal Neural Nets, IEEE Journal of Biomedical and Health Informatics, 2018. The images may not be
redistributed: ask for the release at https://derm.cs.sfu.ca. Its layout is read as it is unpacked:

    meta/meta.csv            a row per case: case_num, diagnosis, pigment_network, ..., clinic, derm (paths in images/)
    meta/train_indexes.csv   the column `indexes`: rows of meta.csv, counted from 0; so too valid_indexes, test_indexes
    images/                  the files

Labels are grouped as by the class for infrequent labels of jeremykawahara/derm7pt (read for its column names and label
strings; nothing copied). Images are squeezed to a square, as DeepGuide (Mallya & Hamarneh, MICCAI 2022) does.

What differs from DeepGuide: in some rows `clinic` and `derm` are the same file. They are found by comparing the two
paths; the released lists leave out nine cases by number, eight of them the wrong ones.
Our rule: melanoma is scored by the expected seven-point score. How the paper infers it is UNVERIFIED.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmlib.data.csv_files import quoted, read_csv
from mmlib.data.pictures import read_rgb

MODALITIES = ("clinic", "derm")
PARTS = ("train", "valid", "test")
NO = ("absent",)
LABELS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "DIAG": (
        "diagnosis",
        {
            "BCC": ("basal cell carcinoma",),
            "NEV": (
                "blue nevus", "clark nevus", "combined nevus", "congenital nevus", "dermal nevus", "recurrent nevus",
                "reed or spitz nevus",
            ),
            "MEL": (
                "melanoma", "melanoma (in situ)", "melanoma (less than 0.76 mm)", "melanoma (0.76 to 1.5 mm)",
                "melanoma (more than 1.5 mm)", "melanoma metastasis",
            ),
            "MISC": ("dermatofibroma", "lentigo", "melanosis", "miscellaneous", "vascular lesion"),
            "SK": ("seborrheic keratosis",),
        },
    ),
    "PN": ("pigment_network", {"ABS": NO, "TYP": ("typical",), "ATP": ("atypical",)}),
    "BWV": ("blue_whitish_veil", {"ABS": NO, "PRS": ("present",)}),
    "VS": (
        "vascular_structures",
        {
            "ABS": NO,
            "REG": ("arborizing", "comma", "hairpin", "within regression", "wreath"),
            "IR": ("dotted", "linear irregular"),
        },
    ),
    "PIG": (
        "pigmentation",
        {
            "ABS": NO,
            "REG": ("diffuse regular", "localized regular"),
            "IR": ("diffuse irregular", "localized irregular"),
        },
    ),
    "STR": ("streaks", {"ABS": NO, "REG": ("regular",), "IR": ("irregular",)}),
    "DaG": ("dots_and_globules", {"ABS": NO, "REG": ("regular",), "IR": ("irregular",)}),
    "RS": ("regression_structures", {"ABS": NO, "PRS": ("blue areas", "white areas", "combinations")}),
}  # fmt: skip
TASKS = {task: tuple(classes) for task, (_, classes) in LABELS.items()}
POINTS = {"PN": 2, "BWV": 2, "VS": 2, "PIG": 1, "STR": 1, "DaG": 1, "RS": 1}  # for each criterion's last class


@dataclass(frozen=True)
class Lesions:
    """Pairs of images of lesions, decoded, with their labels.

    Attributes:
        inputs: "clinic" and "derm" -> (N, 3, H, W) uint8, RGB.
        labels: (N, 8) int64, class ids; columns as `TASKS`.
        available: (N, 2) bool, columns as `MODALITIES`; all True, as a pair that lacks an image is refused.
        case: the number of each case in the release, as text.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    available: Tensor
    case: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> dict:
        """The batch of some pairs: inputs (name -> (B, 3, H, W) float32 in [0, 1]), available, labels, case."""
        chosen = self.subset(index)
        return {
            "inputs": {name: images.float() / 255 for name, images in chosen.inputs.items()},
            "available": chosen.available,
            "labels": chosen.labels,
            "case": list(chosen.case),
        }

    def subset(self, index: Tensor | slice | Sequence[int]) -> Lesions:
        """Some of the pairs, by positions, a slice, or a bool for each."""
        rows = torch.arange(len(self))[index]
        return Lesions(
            {name: images[rows] for name, images in self.inputs.items()},
            self.labels[rows],
            self.available[rows],
            tuple(self.case[row] for row in rows.tolist()),
        )


@dataclass(frozen=True)
class Derm7pt:
    """The parts of the data set.

    Attributes:
        train, valid, test: the pairs of each part.
        refused: part -> numbers of the cases whose clinical photograph is the dermoscopic image.
    """

    train: Lesions
    valid: Lesions
    test: Lesions
    refused: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        """One line per part: how many pairs, and how many were refused."""
        return "\n".join(
            f"{part}: {len(getattr(self, part))} pairs; {len(self.refused[part])} refused, being one file twice"
            for part in PARTS
        )


def load(root: str | Path, size: int = 64) -> Derm7pt:
    """Read the release, or a phantom in its layout.

    Args:
        root: the folder with meta/ and images/; the three index files may also lie in it directly.
        size: sides of the decoded images, pixels. Everything is held in memory: 6 * size**2 bytes a pair.

    Raises:
        FileNotFoundError: if meta.csv or an index file is missing.
        ValueError: if one of them is no CSV (as `mmlib.data.csv_files.read_csv`), a column is missing, a part lists no
            case, an index is no row of meta.csv or is listed twice, a label is unknown, an image of a pair is not
            named, missing, outside of images/ or no sound picture (as `mmlib.data.pictures.read_rgb`), or the training
            part lacks a class.

    Warns:
        UserWarning: if another part lacks a class; its balanced accuracy is then over the classes it has. Or if an
            image belongs to two cases.
    """
    root = Path(root).resolve()
    listed = read_lists(root)
    parts, refused = {}, {}
    owners: dict[Path, str] = {}  # of images: a case
    for part in PARTS:
        chosen = listed[part]
        files = {name: [image_path(root, row, name) for _, row in chosen.iterrows()] for name in MODALITIES}
        same = np.array([clinic == derm for clinic, derm in zip(*files.values(), strict=True)], bool)
        refused[part] = tuple(chosen.case_num[same])
        chosen = chosen[~same]
        labels = class_ids(chosen, root / "meta" / "meta.csv")
        _check_classes(labels, part, root)
        images = {}
        for name in MODALITIES:
            kept = [files[name][row] for row in np.flatnonzero(~same)]
            _check_owners(kept, chosen.case_num, owners)
            images[name] = _images(kept, chosen.case_num, size)
        parts[part] = Lesions(
            images, labels, torch.ones(len(chosen), len(MODALITIES), dtype=torch.bool), tuple(chosen.case_num)
        )
    return Derm7pt(**parts, refused=refused)


def read_lists(root: Path) -> dict[str, pd.DataFrame]:
    """The rows of meta.csv of each part, in the order of its index file, as text.

    Raises:
        FileNotFoundError, ValueError: as `load`, of the tables.
    """
    path = root / "meta" / "meta.csv"
    meta = _table(path, ["case_num", *(column for column, _ in LABELS.values()), *MODALITIES], filled=["case_num"])
    return {part: meta.iloc[rows] for part, rows in _indexes(root, len(meta)).items()}


def _table(path: Path, columns: list[str], filled: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected meta/meta.csv and meta/train_indexes.csv, ... below it"
        )
    return read_csv(path, columns, filled)


def _indexes(root: Path, count: int) -> dict[str, list[int]]:
    """Rows of each part; no row is in two parts."""
    rows: dict[str, list[int]] = {}
    places: dict[int, Path] = {}
    for part in PARTS:
        path = root / f"{part}_indexes.csv"
        path = path if path.is_file() else root / "meta" / path.name
        rows[part] = []
        for text in _table(path, ["indexes"], filled=["indexes"])["indexes"]:
            if not text.isdecimal() or int(text) >= count:
                raise ValueError(
                    f"{path}: index {text} is no row of meta.csv, which has rows 0 to {count - 1}; correct it"
                )
            if int(text) in places:
                raise ValueError(f"{path}: index {text} is also in {places[int(text)]}; list every case once")
            places[int(text)] = path
            rows[part].append(int(text))
        if not rows[part]:
            raise ValueError(f"{path} lists no case; unpack the release again, or list the cases of the part")
    return rows


def image_path(root: Path, row: pd.Series, modality: str) -> Path:
    """Where the image of a case is; it need not be there.

    Raises:
        ValueError: if the row names none, or one outside of images/.
    """
    name = row[modality]
    if not name or name.startswith("/") or ".." in name.split("/"):
        what = f"is {quoted(name)}, expected a path below images/" if name else "is not named"
        raise ValueError(
            f"{root / 'meta' / 'meta.csv'}: case {row.case_num}: its {modality} image {what}; correct the row, or take "
            "it out of the index files"
        )
    return root / "images" / name


def class_ids(meta: pd.DataFrame, path: Path) -> Tensor:
    """Class ids of rows of meta.csv, (N, 8), columns as `TASKS`.

    Raises:
        ValueError: if a label is unknown; `path` is named.
    """
    labels = np.empty((len(meta), len(LABELS)), dtype=np.int64)
    for task, (column, classes) in enumerate(LABELS.values()):
        ids = {text: number for number, texts in enumerate(classes.values()) for text in texts}
        unknown = meta[~meta[column].isin(ids)]
        if len(unknown):
            first = unknown.iloc[0]
            raise ValueError(
                f"{path}: case {first.case_num} has the {column} {quoted(first[column])}, known are {', '.join(ids)}; "
                "correct it"
            )
        labels[:, task] = meta[column].map(ids)
    return torch.from_numpy(labels)


def lacking_classes(labels: Tensor) -> list[str]:
    """Classes that no case has, as "task class"; of (N, 8) class ids."""
    return [
        f"{task} {name}"
        for column, (task, names) in enumerate(TASKS.items())
        for number, name in enumerate(names)
        if not (labels[:, column] == number).any()
    ]


def _check_owners(files: Sequence[Path], cases: Sequence[str], owners: dict[Path, str]) -> None:
    for path, case in zip(files, cases, strict=True):
        if owners.setdefault(path, case) != case:
            warnings.warn(
                f"{path} is an image of case {owners[path]} and of case {case}; take one of them out of the index "
                "files, else the parts may share an image",
                stacklevel=3,
            )


def _check_classes(labels: Tensor, part: str, root: Path) -> None:
    lacking = lacking_classes(labels)
    if lacking and part == "train":
        raise ValueError(
            f"{root}: no training case of {', '.join(lacking)}; nothing can learn a class it is not shown: "
            "add such cases to train_indexes.csv"
        )
    if lacking:
        warnings.warn(
            f"{root}: the part {part} has no case of {', '.join(lacking)}; balanced accuracy there is over the classes "
            "it has",
            stacklevel=3,
        )


def read_image(path: Path, size: int) -> np.ndarray:
    """Decode one image, (size, size, 3) uint8.

    Raises:
        ValueError: if it is missing, or as `mmlib.data.pictures.read_rgb`.
    """
    if not os.path.isfile(path):  # False for names that are too long, where Path.is_file raises
        raise ValueError(
            f"{path} is missing; unpack the release again, correct the row of meta/meta.csv that names it, or take the "
            "case out of the index files"
        )
    return read_rgb(path, size)


def _images(files: Sequence[Path], cases: Sequence[str], size: int) -> Tensor:
    """Decode one image of each case, (N, 3, size, size) uint8."""
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for row, (case, path) in enumerate(zip(cases, files, strict=True)):
        try:
            images[row] = torch.from_numpy(read_image(path, size)).permute(2, 0, 1)
        except ValueError as error:
            raise ValueError(f"case {case}: {error}") from None
    return images


def seven_point_score(labels: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The seven-point checklist: 2 for each major criterion, 1 for each minor one, 0 to 10.

    The positive class of a criterion is its last: an atypical network; irregular vessels, pigmentation, streaks, dots
    and globules; a veil or regression that is present.

    Args:
        labels: (N, 8) class ids, columns as `TASKS`; or task -> (N, K) probabilities, of the seven criteria at least.

    Returns:
        (N,): int64, the score; of probabilities, float, the expected score, which is our soft rule.
    """
    if isinstance(labels, Tensor):
        positive = {task: (labels[:, list(TASKS).index(task)] == len(TASKS[task]) - 1).long() for task in POINTS}
    else:
        positive = {task: labels[task][:, -1] for task in POINTS}
    return sum((points * positive[task] for task, points in POINTS.items()), start=torch.zeros(()).long())


def is_melanoma(labels: Tensor) -> Tensor:
    """(N,) bool: the diagnosis among the labels, (N, 8), is melanoma. The target of the AUROC of the score."""
    return labels[:, list(TASKS).index("DIAG")] == TASKS["DIAG"].index("MEL")
