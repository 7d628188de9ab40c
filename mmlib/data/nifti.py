"""NIfTI in and out: which files make up a case, reading them one case at a time, writing a segmentation back.

The modules of the layouts (`brats`, `ixi`, `table`) say where the files are; this one opens them. nibabel reads.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.spatialimages import HeaderDataError, ImageDataError
from nibabel.wrapstruct import WrapStructError

from mmlib.data.cases import REGIONS, Case, raw_labels
from mmlib.modalities import MRI

SAME_AFFINE = 1e-3  # mm; entries of two affines of one grid differ by less
UNREADABLE = (
    OSError, EOFError, ValueError, zlib.error, ImageFileError, WrapStructError, HeaderDataError, ImageDataError,
)  # fmt: skip


@dataclass(frozen=True)
class CaseFiles:
    """Where the files of one case are; nothing is opened.

    Attributes:
        name: of the case.
        images: modality name -> file; only acquired modalities.
        seg: the segmentation, if there is one.
        brain: the brain mask, if there is one.
        subject: who was scanned; cases of one subject are never split apart.
        modalities: all names the data set knows, in canonical order.
        enhancing_label: raw label of enhancing tumour, if the layout tells.
        targets: names of the regions that the segmentation tells apart; see `mmlib.data.cases.Case`.
        ambiguous: files that claim a place already taken, such as `x_t1.nii` beside `x_t1.nii.gz`.
        extra: other files beside these.
    """

    name: str
    images: dict[str, Path]
    seg: Path | None = None
    brain: Path | None = None
    subject: str = ""
    modalities: tuple[str, ...] = MRI
    enhancing_label: int | None = None
    targets: tuple[str, ...] = REGIONS
    ambiguous: tuple[Path, ...] = ()
    extra: tuple[Path, ...] = ()


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray, Nifti1Header]:
    """Read one 3-D volume whole.

    Returns:
        (X, Y, Z) float32, the (4, 4) affine in mm, and the header.

    Raises:
        ValueError: if the file is missing, truncated, not a NIfTI file or not 3-D; it names the file and the remedy.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path, or leave the modality out")
    try:
        image = nibabel.load(path)
        if not isinstance(image, Nifti1Image):
            raise ValueError(f"it holds a {type(image).__name__}")
        volume = np.asarray(image.dataobj, dtype=np.float32)
    except UNREADABLE as error:
        reason = " ".join(str(error).replace(str(path), path.name).split())[:120]
        raise ValueError(
            f"{path}: cannot be read: truncated, damaged or not a NIfTI file ({type(error).__name__}: {reason}); "
            "download or convert it again"
        ) from error
    if volume.ndim == 4 and volume.shape[3] == 1:
        volume = volume[..., 0]
    if volume.ndim != 3 or 0 in volume.shape:
        raise ValueError(f"{path}: expected one 3-D volume, found shape {volume.shape}; write one volume per file")
    return volume, image.affine, image.header


def as_labels(volume: np.ndarray, path: Path) -> np.ndarray:
    """Turn a volume read as float32 into integer labels, (X, Y, Z) int16.

    Raises:
        ValueError: if a value is not a whole number: the labels were interpolated.
    """
    labels = np.rint(volume)
    whole = np.abs(volume - labels) <= 1e-3
    if not whole.all():
        raise ValueError(
            f"{path}: holds {volume[~whole][0]}, which is no label; labels are whole numbers: "
            "resample segmentations with nearest neighbours"
        )
    return labels.astype(np.int16)


def read_case(files: CaseFiles) -> Case:
    """Read all volumes of a case; they must lie on one grid.

    Raises:
        ValueError: if no modality is there, a place is claimed by two files, a file cannot be read (as
            `read_volume`), two volumes differ in shape or affine, or the segmentation holds no labels.
    """
    if files.ambiguous:
        raise ValueError(
            f"case {files.name}: {', '.join(path.name for path in files.ambiguous)} beside another file for the same "
            f"place in {files.ambiguous[0].parent}; keep one file for each modality and one folder for each case"
        )
    if not files.images:
        raise ValueError(f"case {files.name}: no file of any modality {files.modalities}; leave the case out")
    places = {**files.images, "seg": files.seg, "brain": files.brain}
    volumes: dict[str, np.ndarray] = {}
    first = next(iter(files.images.values()))
    shape, affine, header = (), np.eye(4), None
    for place, path in places.items():
        if path is None:
            continue
        volume, own_affine, own_header = read_volume(path)
        if header is None:
            shape, affine, header = volume.shape, own_affine, own_header
        if difference := grid_difference(volume.shape, own_affine, shape, affine):
            raise ValueError(f"{path}: {difference} {first.name}; resample or re-register the case to one grid")
        volumes[place] = volume
    return Case(
        name=files.name,
        images={name: volumes[name] for name in files.images},
        affine=affine,
        labels=as_labels(volumes["seg"], files.seg) if files.seg else None,
        modalities=files.modalities,
        brain=volumes["brain"] > 0.5 if files.brain else None,
        enhancing_label=files.enhancing_label,
        targets=files.targets,
        header=header,
    )


Sorted = Callable[[Path, Sequence[str]], CaseFiles | None]  # folder, names of its files -> their places; None: no case


def find_folders(root: Path | str, sort: Sorted) -> list[CaseFiles]:
    """List every folder under `root` that holds a case, sorted by path; nothing is opened, hidden folders are skipped.

    Args:
        sort: tells what the files of a folder are.
    """
    found = []
    for folder, below, names in os.walk(Path(root).resolve()):
        below[:] = sorted(name for name in below if not name.startswith("."))
        files = sort(Path(folder), names)
        if files is not None:
            found.append(files)
    return found


def read_folder(folder: Path | str, sort: Sorted, unknown: str, expected: str) -> Case:
    """Read the case of one folder.

    Args:
        sort: as `find_folders`.
        unknown: what is said where no file is known.
        expected: the layout, for messages.

    Raises:
        ValueError: if the folder is not there or holds no known file, or as `read_case`.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected {expected}")
    files = sort(folder, [path.name for path in folder.iterdir() if path.is_file()])
    if files is None:
        raise ValueError(f"{folder}: {unknown}; expected {expected}")
    return read_case(files)


def grid_difference(
    shape: tuple[int, ...], affine: np.ndarray, other_shape: tuple[int, ...], other_affine: np.ndarray
) -> str:
    """Say how a grid differs from another one; an empty string where it does not."""
    if shape != other_shape:
        swapped = ", the same axes in another order," if sorted(shape) == sorted(other_shape) else ""
        return f"shape {shape}{swapped} differs from {other_shape} of"
    if not np.allclose(affine, other_affine, atol=SAME_AFFINE):
        row, column = np.unravel_index(np.abs(affine - other_affine).argmax(), (4, 4))
        return f"affine[{row}, {column}] is {affine[row, column]:g}, but {other_affine[row, column]:g} in"
    return ""


class Cases(Mapping[str, Case]):
    """Cases by name, read when asked for and not kept.

    `cases["name"]` reads one; `cases[["name", ...]]` is another `Cases` with only these, in this order, nothing read.
    """

    def __init__(
        self, files: Iterable[CaseFiles], source: str, prepare: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        """Take the files of each case.

        Args:
            files: of all cases; names must differ.
            source: where they come from, for messages.
            prepare: applied to every image as it is read, (X, Y, Z) native intensities -> the same shape.

        Raises:
            ValueError: if a name occurs twice.
        """
        self.source, self.prepare = source, prepare
        self.files: dict[str, CaseFiles] = {}
        for one in files:
            if one.name in self.files:
                raise ValueError(f"{source}: case {one.name} occurs twice; give every case a name of its own")
            self.files[one.name] = one

    @overload
    def __getitem__(self, key: str) -> Case: ...
    @overload
    def __getitem__(self, key: list[str] | tuple[str, ...]) -> Cases: ...
    def __getitem__(self, key):
        names = [key] if isinstance(key, str) else list(key)
        unknown = [name for name in names if name not in self.files]
        if unknown:
            raise KeyError(f"{self.source} has no case {', '.join(unknown[:5])}; it has {len(self)} cases")
        if isinstance(key, str):
            case = read_case(self.files[key])
            if self.prepare is None:
                return case
            return replace(case, images={name: self.prepare(image) for name, image in case.images.items()})
        return Cases([self.files[name] for name in names], self.source, self.prepare)

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def subject(self, name: str) -> str:
        """Who was scanned in this case; the case's own name where the layout does not tell."""
        return self.files[name].subject or name


def write_segmentation(path: Path | str, segmentation: np.ndarray, case: Case) -> Path:
    """Write a segmentation in the case's own grid, uint8, with the geometry of the case's own header.

    The file appears under its name only when it is whole.

    Args:
        path: ends in .nii or .nii.gz; its folder is made.
        segmentation: (X, Y, Z) integer raw labels, or (R, X, Y, Z) bool regions, which become labels by
            `mmlib.data.cases.raw_labels` with the case's label of enhancing tumour (4 if it has none).
        case: gives shape, affine and header.

    Raises:
        ValueError: if `segmentation` is not on the grid of the case, or the file name has another ending.
    """
    path = Path(path)
    suffix = next((ending for ending in (".nii.gz", ".nii") if path.name.endswith(ending)), None)
    if suffix is None:
        raise ValueError(f"{path}: a segmentation is written as .nii or .nii.gz")
    shape = next(iter(case.images.values())).shape
    labels = segmentation
    if segmentation.ndim == 4:
        labels = raw_labels(segmentation, case.enhancing_label or 4)
    if labels.shape != shape:
        raise ValueError(
            f"{path}: the segmentation has shape {segmentation.shape}, but case {case.name} has {shape}; "
            "bring it back to the native grid first (Frame.to_native, mmlib.data.resample.back_to)"
        )
    if labels.min() < 0 or labels.max() > 255:
        raise ValueError(f"{path}: labels run from {labels.min()} to {labels.max()}; uint8 holds 0 to 255")
    header = Nifti1Header() if case.header is None else case.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # a display window for intensities, not for labels
    image = Nifti1Image(labels.astype(np.uint8), case.affine, header)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name.removesuffix(suffix)}.{os.getpid()}.tmp{suffix}")
    try:
        nibabel.save(image, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
