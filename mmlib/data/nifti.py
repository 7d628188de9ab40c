"""NIfTI in and out: which files make up a case, reading them one case at a time, writing a segmentation back.

The modules of the layouts (`brats`, `ixi`, `table`) say where the files are; this one opens them. nibabel reads.
"""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import cast, overload

import numpy as np
from nibabel import aff2axcodes
from nibabel.affines import voxel_sizes
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Image
from nibabel.openers import ImageOpener

from mmlib.data.cases import LABELS, REGIONS, Case, Orientation, raw_labels
from mmlib.modalities import MRI
from mmlib.records import folders_below, write_whole

SAME_AFFINE = 1e-3  # mm; entries of two affines of one grid differ by less
VOXEL = (1e-4, 1e3)  # mm; a header that says less or more of a voxel's side is damaged
LARGEST = 512**3  # voxels of a volume, 0.5 GiB in memory; of more none is read
DEFLATED = 1032  # bytes at most that a byte of a .gz file can stand for
LONGEST_OFFSET = 1 << 26  # bytes before the first voxel: the header and its extensions
LONGEST_END = 1 << 20  # bytes after the last voxel
CHUNK = 1 << 20  # voxels or bytes read at a time
HEADERS = {348: Nifti1Image, 540: Nifti2Image}  # size of the header, which is its first number -> its kind


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
        foreign: files that are named after another case than the rest.
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
    foreign: tuple[Path, ...] = ()
    extra: tuple[Path, ...] = ()


def shown(path: Path | str, most: int = 300) -> str:
    """A path as it stands in a message: of one that is too long, the beginning and the end."""
    text = str(path)
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]} ({len(text)} characters)"


def is_file(path: Path) -> bool:
    """Whether there is such a file; False also for a path that is too long for the system."""
    try:
        return path.is_file()
    except OSError:
        return False


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong in reading a file into one sentence that names it."""
    try:
        yield
    except Exception as error:  # of nibabel, zlib, numpy or the system: a damaged header may lead anywhere
        reason = " ".join(str(error).replace(str(path), path.name).split())[:120]
        raise ValueError(
            f"{path}: cannot be read: truncated, damaged or not a NIfTI file ({type(error).__name__}: {reason}); "
            "download or convert it again"
        ) from error


def open_volume(path: Path) -> Nifti1Image:
    """Open one 3-D volume and compare what its header claims with what the file can hold; no voxel is read.

    Returns:
        The image; (X, Y, Z), or (X, Y, Z, 1).

    Raises:
        ValueError: if the file is missing, not a NIfTI file, not 3-D, not of real numbers, larger than `LARGEST` or
            than its file, or if its affine is none; it names the file and the remedy.
    """
    if not is_file(path):
        raise ValueError(f"{shown(path)}: no such file; check the path, or leave the modality out")
    with _naming(path):
        with ImageOpener(str(path)) as stream:
            start = stream.read(max(HEADERS))
        sizes = [int.from_bytes(start[:4], order) for order in ("little", "big")]
        kind = next((HEADERS[size] for size in sizes if size in HEADERS), None)
        if kind is None:
            raise ValueError("it does not begin with a NIfTI header")
        size = kind.header_class.sizeof_hdr
        offset = float(kind.header_class(start[:size], check=False)["vox_offset"])
        if not 0 <= offset <= LONGEST_OFFSET:
            raise ValueError(f"the header says that the voxels begin at byte {offset:g}")
        image = kind.from_filename(path)
    shape, dtype = image.shape, image.get_data_dtype()
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)) or min(shape) < 1:
        raise ValueError(f"{path}: expected one 3-D volume, found shape {shape}; write one volume per file")
    if dtype.kind not in "iuf":
        found = "complex numbers" if dtype.kind == "c" else "colours"
        raise ValueError(f"{path}: holds {found} ({dtype}), not one real number per voxel; convert it to one intensity")
    claimed = int(offset) + math.prod(shape) * dtype.itemsize
    holds = path.stat().st_size * {".nii": 1, ".gz": DEFLATED}.get(path.suffix.lower(), math.inf)
    with _naming(path):
        if claimed > holds:
            raise EOFError(f"{_by(shape)} voxels, {claimed:.3g} bytes, are claimed; the file can hold {holds:.3g}")
    if math.prod(shape) > LARGEST:
        raise ValueError(
            f"{path}: {_by(shape)} voxels are more than the {LARGEST:.3g} that are read; "
            "crop it, or bring it to larger voxels"
        )
    _check_affine(path, image.affine)
    return image


def _by(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _check_affine(path: Path, affine: np.ndarray) -> None:
    sides = voxel_sizes(affine) if np.isfinite(affine).all() else np.zeros(3)
    possible = VOXEL[0] <= sides.min() and sides.max() <= VOXEL[1]
    if not possible or abs(np.linalg.det(affine[:3, :3] / sides)) < 1e-6:
        raise ValueError(
            f"{path}: the affine is singular or not finite: voxels have no place or size; write a valid header"
        )


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray, Nifti1Header]:
    """Read one 3-D volume whole, and its file to the end, where the check sum of a `.gz` is.

    Memory is taken for what the file holds, not for what its header claims.

    Returns:
        (X, Y, Z) float32, the (4, 4) affine in mm, and the header.

    Raises:
        ValueError: as `open_volume`, or if the file is truncated or damaged; it names the file and the remedy.
    """
    image = open_volume(path)
    with _naming(path):
        volume = _voxels(path, cast(ArrayProxy, image.dataobj))
    return volume.reshape(image.shape[:3], order="F"), image.affine, image.header


def _voxels(path: Path, stored: ArrayProxy) -> np.ndarray:
    """Read the voxels in the order of the file, scaled, (X * Y * Z,) float32."""
    count = math.prod(stored.shape)
    values = np.empty(count, dtype=np.float32)  # pages of it exist once they are written
    with ImageOpener(str(path)) as stream:
        stream.seek(stored.offset)
        for start in range(0, count, CHUNK):
            number = min(CHUNK, count - start)
            raw = stream.read(number * stored.dtype.itemsize)
            if len(raw) < number * stored.dtype.itemsize:
                raise EOFError(f"{count} voxels are claimed, {start + len(raw) // stored.dtype.itemsize} are there")
            part = ArrayProxy(BytesIO(raw), ((number,), stored.dtype, 0, stored.slope, stored.inter), mmap=False)
            with np.errstate(over="ignore"):  # it becomes infinite, which whoever normalises it refuses
                values[start : start + number] = np.asarray(part, dtype=np.float32)
        after = 0
        while more := len(stream.read(CHUNK)):
            after += more
            if after > LONGEST_END:
                raise ValueError(f"more than {LONGEST_END} bytes follow the {count} voxels that the header claims")
    return values


def as_labels(volume: np.ndarray, path: Path) -> np.ndarray:
    """Turn a volume read as float32 into integer labels, (X, Y, Z) int16.

    Raises:
        ValueError: if a value is not a whole number (the labels were interpolated), or none of `LABELS`.
    """
    labels = np.rint(volume)
    whole = np.abs(volume - labels) <= 1e-3
    if not whole.all():
        raise ValueError(
            f"{path}: holds {volume[~whole][0]}, which is no label; labels are whole numbers: "
            "resample segmentations with nearest neighbours"
        )
    unknown = np.unique(labels[~np.isin(labels, LABELS)])
    if unknown.size:
        more = f" and {unknown.size - 5} more" if unknown.size > 5 else ""
        raise ValueError(
            f"{path}: unknown label {', '.join(f'{value:.10g}' for value in unknown[:5])}{more}, labels are 0-4; "
            "map the labels to 0-4"
        )
    return labels.astype(np.int16)


def read_case(files: CaseFiles) -> Case:
    """Read all volumes of a case; they must lie on one grid.

    Raises:
        ValueError: if no modality is there, a place is claimed by two files, a file is named after another case, a file
            cannot be read (as `read_volume`), two volumes differ in shape or affine, or the segmentation holds no
            labels.
    """
    if files.foreign:
        raise ValueError(
            f"case {files.name}: {', '.join(path.name for path in files.foreign)} in {files.foreign[0].parent} is "
            "named after another case than the rest; move it to its own folder, or name all files of a case alike"
        )
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
OnError = Callable[[OSError], None]


def refuse(error: OSError) -> None:
    """Say which folder cannot be listed; what to do with an error of listing where nothing else is asked for.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"{shown(error.filename)}: cannot be listed ({error.strerror}), so its cases would be left out; "
        "give yourself the right to read it, or move it away"
    ) from error


def find_folders(root: Path | str, sort: Sorted, onerror: OnError = refuse) -> list[CaseFiles]:
    """List every folder under `root` that holds a case, sorted by path; nothing is opened, hidden folders are skipped.

    Links are followed.

    Args:
        sort: tells what the files of a folder are.
        onerror: is given the error where a folder cannot be listed.

    Raises:
        ValueError: as `onerror`.
    """
    found = []
    for folder, names in folders_below(Path(root).resolve(), onerror):
        files = sort(folder, names)
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
    if not os.path.isdir(folder):
        raise ValueError(f"{shown(folder)}: no such folder; expected {expected}")
    _, names = next(folders_below(folder, refuse))
    files = sort(folder, names)
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


def check_orientation(cases: Cases) -> None:
    """Compare by headers alone along which axes the cases of a data set are stored.

    Raises:
        ValueError: if two differ (see `Orientation.check`), or a file cannot be opened (as `open_volume`).
    """
    orientation = Orientation()
    for name, files in cases.files.items():
        if files.images:
            affine = open_volume(next(iter(files.images.values()))).affine
            orientation.check(name, "".join(aff2axcodes(affine)))


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
    save_image(image, path)
    return path


def save_image(image: Nifti1Image, path: Path) -> None:
    """Write an image whole or not at all, with the bytes that `nibabel.save` writes.

    Args:
        image: goes to `path`.
        path: compressed where it ends in .gz; its folder exists.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as raw:
            zipped = path.suffix.lower() == ".gz"
            with gzip.GzipFile("", "wb", 1, raw, mtime=0) if zipped else nullcontext(raw) as stream:
                image.to_stream(stream)

    write_whole(path, write)
