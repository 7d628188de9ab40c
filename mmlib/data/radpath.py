"""RadPath: MRI of a glioma and patches of its H&E slide, three classes (CPM-RadPath 2020 and what is laid out like it).

The challenge's data are gated. It gives one slide of a case as a .tiff of gigapixels: patches of tissue have to be cut
out beforehand (DeepGuide used CLAM, mahmoodlab/CLAM, with 256 x 256 pixels), and put down as PNG files:

    classes.csv                                   case,class   with the class G, O or A
    split.csv                                     case,part    with the part train, valid or test
    mri/<case>/<case>_t1.nii.gz, _t1ce, _t2, _flair            in either naming of `mmlib.data.brats`
    patches/<case>/*.png                          of one size
    findings.csv, where encoders are to learn other than the class: case, and findings as mri_oedema or slide_necrosis

G: glioblastoma, and astrocytoma with its molecular features; O: oligodendroglioma; A: astrocytoma of lower grade.
As in DeepGuide (Mallya & Hamarneh, MICCAI 2022, arXiv 2203.05683), an experiment takes one MRI modality, in RAS
orientation, slices first, scaled to mean 0 and standard deviation 1 over all voxels. Its split 1 of three parts is the
only one that is published: 165, 28 and 28 cases.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor

from mmlib.data.brats import find_cases
from mmlib.data.cases import zscore
from mmlib.data.csv_files import quoted, read_csv
from mmlib.data.nifti import read_volume
from mmlib.data.pictures import read_rgb
from mmlib.modalities import MRI

MODALITIES = ("mri", "slide")
CLASSES = ("G", "O", "A")
PARTS = ("train", "valid", "test")
PATCHES = 64  # of a slide, at most, unless asked otherwise
PATCH_PIXELS = 1 << 22  # the most of a patch, 2,048 x 2,048; 64 of them take 0.8 GB


class Cases(Sequence):
    """Cases by position; files are read when they are asked for.

    Attributes:
        labels: (N,) int64, positions in `CLASSES`; or (N, T) of findings, see `with_labels`.
        available: (N, 2) bool, columns as `MODALITIES`; all True, as a case that lacks one is refused.
        case: the names.
    """

    def __init__(
        self,
        volumes: Sequence[Path],
        slides: Sequence[Sequence[Path]],
        labels: Tensor,
        case: Sequence[str],
        keep: bool = True,
    ):
        """Take the files of each case: one volume, and the patches of one slide.

        Args:
            volumes, slides, labels, case: of N cases.
            keep: hold in memory what was read; right for small volumes, wrong for 221 whole brains.
        """
        self.volumes, self.slides = tuple(volumes), tuple(slides)
        self.labels, self.case, self.keep = labels, tuple(case), keep
        self.available = torch.ones(len(labels), len(MODALITIES), dtype=torch.bool)
        self._read = lru_cache(maxsize=None if keep else 1)(self._pair)

    def _pair(self, row: int) -> tuple[Tensor, Tensor]:
        return read_scan(self.volumes[row], self.case[row]), _bag(self.slides[row], self.case[row])

    def __len__(self) -> int:
        return len(self.case)

    def __getitem__(self, index):
        """The batch of some cases, by positions, a slice, or a bool for each.

        Returns:
            `inputs`: "mri" (B, 1, D, H, W) float32, "slide" (B, P, 3, h, w) float32 in [0, 1], P that of the largest
            bag, the rest zero; `patches` (B, P) bool, True where there is a patch; `available`; `label`, or `labels`
            where there are several; `case`.

        Raises:
            ValueError: if a file cannot be read, a volume is constant, sizes differ within the batch, or a patch is no
                sound picture (as `mmlib.data.pictures.read_rgb`) or has more than `PATCH_PIXELS`.
        """
        rows = torch.arange(len(self))[index].tolist()
        volumes, bags = zip(*(self._read(row) for row in rows), strict=True)
        names = [self.case[row] for row in rows]
        _same_size(volumes, names, "volume")
        _same_size([bag[0] for bag in bags], names, "patch")
        counts = torch.tensor([len(bag) for bag in bags])
        slides = torch.zeros(len(rows), int(counts.max()), *bags[0].shape[1:])
        for row, bag in enumerate(bags):
            slides[row, : len(bag)] = bag.float() / 255
        return {
            "inputs": {"mri": torch.stack(volumes)[:, None], "slide": slides},
            "patches": torch.arange(slides.shape[1]) < counts[:, None],
            "available": self.available[rows],
            "label" if self.labels.ndim == 1 else "labels": self.labels[rows],
            "case": names,
        }

    def subset(self, index: Tensor | slice | Sequence[int]) -> Cases:
        """Some of the cases, by positions, a slice, or a bool for each."""
        rows = torch.arange(len(self))[index].tolist()
        return Cases(
            [self.volumes[row] for row in rows],
            [self.slides[row] for row in rows],
            self.labels[rows],
            [self.case[row] for row in rows],
            self.keep,
        )

    def with_labels(self, labels: Tensor) -> Cases:
        """The same cases with other labels, (N,) or (N, T) int64."""
        return Cases(self.volumes, self.slides, labels, self.case, self.keep)


class RadPath:
    """The parts of the data set.

    Attributes:
        train, valid, test: the cases of each part.
        modality: of the MRI.
    """

    def __init__(self, train: Cases, valid: Cases, test: Cases, modality: str):
        self.train, self.valid, self.test, self.modality = train, valid, test, modality

    def __str__(self) -> str:
        """One line per part: how many cases, and of which class."""
        lines = []
        for part in PARTS:
            cases = getattr(self, part)
            counts = torch.bincount(cases.labels, minlength=len(CLASSES)).tolist()
            of_class = ", ".join(f"{name} {count}" for name, count in zip(CLASSES, counts, strict=True))
            lines.append(f"{part}: {len(cases)} cases ({of_class}), {self.modality} and slide")
        return "\n".join(lines)


def load(root: str | Path, modality: str = "t1ce", patches: int = PATCHES, keep: bool = True) -> RadPath:
    """Find the files of every case that the split names; images are opened when they are asked for.

    Args:
        root: the folder with classes.csv, split.csv, mri/ and patches/.
        modality: t1, t1ce, t2 or flair; one an experiment.
        patches: the most that are taken of a slide, evenly spread over its files in the order of their names.
        keep: hold in memory what was read; right for small volumes, wrong for 221 whole brains.

    Raises:
        FileNotFoundError: if a table is missing.
        ValueError: if an argument or a table is not as above or no CSV (as `mmlib.data.csv_files.read_csv`), a case is
            listed twice, has two files for one modality, no class, no volume of this modality or no patch, or the
            training part lacks a class.

    Warns:
        UserWarning: if another part lacks a class; its balanced accuracy is then over the classes it has.
    """
    if modality not in MRI:
        raise ValueError(f"unknown modality {modality!r}; choose one of {MRI}")
    if patches < 1:
        raise ValueError(f"patches is the most that are taken of a slide, at least 1; got {patches}")
    root = Path(root).resolve()
    classes, split = read_lists(root)
    found = find_cases(root / "mri")
    volumes = {files.name: files.images for files in found}
    double = {name for name, count in Counter(files.name for files in found).items() if count > 1}
    double |= {files.name for files in found if files.ambiguous}
    parts = {}
    for part in PARTS:
        names = [name for name, its_part in split.items() if its_part == part]
        for name in names:
            if name not in classes:
                raise ValueError(
                    f"{root / 'classes.csv'}: case {name} of split.csv has no class; add it, or take it out"
                )
            if name in double:
                raise ValueError(
                    f"case {name}: two folders of {root / 'mri'} or two files for one modality hold it; keep one"
                )
            if modality not in volumes.get(name, {}):
                raise ValueError(f"case {name}: no {modality} volume in {root / 'mri' / name}; add it, or take it out")
        labels = torch.tensor([CLASSES.index(classes[name]) for name in names], dtype=torch.long)
        _check_classes(labels, part, root)
        slides = [patch_files(root / "patches" / name, name, patches) for name in names]
        parts[part] = Cases([volumes[name][modality] for name in names], slides, labels, names, keep)
    return RadPath(**parts, modality=modality)


def read_lists(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Case -> class, and case -> part.

    Raises:
        FileNotFoundError, ValueError: as `load`, of the tables.
    """
    return _table(root / "classes.csv", "class", CLASSES), _table(root / "split.csv", "part", PARTS)


def read_findings(root: str | Path, findings: Sequence[str], cases: Sequence[str]) -> tuple[Tensor, dict[str, int]]:
    """What somebody wrote down of scans and slides, for encoders to learn.

    Args:
        root: the folder, with findings.csv.
        findings: columns of that table, named by the modality that shows them: `mri_...` or `slide_...`.
        cases: by name.

    Returns:
        (N, T) int64, positions among the sorted values of each column over all cases of the table; finding -> values.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if the name of a column says no modality, the table is no CSV or lacks the column (as
            `mmlib.data.csv_files.read_csv`), has a case twice, or lacks one.
    """
    nameless = [finding for finding in findings if finding.partition("_")[0] not in MODALITIES]
    if nameless:
        raise ValueError(
            f"finding {nameless[0]!r}: a finding is named mri_... or slide_..., by what shows it; rename it"
        )
    path = Path(root).resolve() / "findings.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a table of case, {', '.join(findings)}")
    table = read_csv(path, ("case", *findings), filled=("case", *findings))
    twice = table.case[table.case.duplicated()]
    if len(twice):
        raise ValueError(f"{path}: case {twice.iloc[0]} is listed twice; list every case once")
    lacking = sorted(set(cases) - set(table.case))
    if lacking:
        raise ValueError(f"{path}: case {lacking[0]} has no row; add it, or take the case out of split.csv")
    values = {finding: sorted(table[finding].unique()) for finding in findings}
    rows = table.set_index("case").loc[list(cases)]
    labels = [[known.index(value) for value in rows[finding]] for finding, known in values.items()]
    return torch.tensor(labels, dtype=torch.long).T, {finding: len(known) for finding, known in values.items()}


def _table(path: Path, column: str, known: Sequence[str]) -> dict[str, str]:
    """Case -> value."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected classes.csv, split.csv, mri/ and patches/ in the folder"
        )
    table = read_csv(path, ("case", column), filled=("case", column))
    for case, value in zip(table.case, table[column], strict=True):
        if {"/", "\\"} & set(case) or case in (".", ".."):
            raise ValueError(f"{path}: case {quoted(case)} is no name of a folder; give it a name without / and \\")
        if value not in known:
            raise ValueError(
                f"{path}: case {case} has the {column} {quoted(value)}, known are {', '.join(known)}; correct it"
            )
    twice = [case for case, count in Counter(table.case).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: case {twice[0]} is listed twice; list every case once")
    return dict(zip(table.case, table[column], strict=True))


def patch_files(folder: Path, case: str, most: int | None = None) -> list[Path]:
    """The patches that are taken of a slide, at most so many; None: all.

    Raises:
        ValueError: if there is none.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png" and path.name[0] != ".")
    except OSError as error:
        raise ValueError(
            f"case {case}: {folder} cannot be listed ({error.strerror}), expected its patches as .png; add them, or "
            "take the case out"
        ) from None
    if not files:
        raise ValueError(f"case {case}: no .png in {folder}; cut patches out of its slide, or take the case out")
    count = min(most or len(files), len(files))
    return [files[k] for k in np.unique(np.linspace(0, len(files) - 1, count).round().astype(int))]


def _check_classes(labels: Tensor, part: str, root: Path) -> None:
    lacking = [name for number, name in enumerate(CLASSES) if not (labels == number).any()]
    if lacking and part == "train":
        raise ValueError(
            f"{root}: no training case of class {', '.join(lacking)}; nothing can learn a class it is not shown: add "
            "such cases to split.csv"
        )
    if lacking:
        warnings.warn(
            f"{root}: the part {part} has no case of class {', '.join(lacking)}; balanced accuracy there is over the "
            "classes it has",
            stacklevel=3,
        )


def read_scan(path: Path, case: str) -> Tensor:
    """Read, turn to RAS, scale over all voxels; (D, H, W), slices first.

    Raises:
        ValueError: if the file cannot be read, its affine gives no orientation, or all voxels are alike.
    """
    volume, affine, _ = read_volume(path)
    try:
        turned = nibabel.orientations.apply_orientation(volume, nibabel.orientations.io_orientation(affine))
        scaled = zscore(turned, np.ones(turned.shape, dtype=bool))
    except (ValueError, nibabel.orientations.OrientationError) as error:
        raise ValueError(f"case {case}, {path}: {error}") from None
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 1, 0)))


def _bag(files: Sequence[Path], case: str) -> Tensor:
    """Decode the patches of a slide, (P, 3, h, w) uint8."""
    bag = []
    for path in files:
        try:
            bag.append(torch.from_numpy(read_rgb(path, pixels=PATCH_PIXELS)).permute(2, 0, 1))
        except ValueError as error:
            raise ValueError(f"case {case}: {error}") from None
    _same_size(bag, [path.name for path in files], "patch")
    return torch.stack(bag)


def _same_size(images: Sequence[Tensor], names: Sequence[str], what: str) -> None:
    for image, name in zip(images, names, strict=True):
        if image.shape != images[0].shape:
            shapes = f"{tuple(image.shape)}, that of {names[0]} {tuple(images[0].shape)}"
            raise ValueError(f"the {what} of {name} has the shape {shapes}; bring all to one size")
