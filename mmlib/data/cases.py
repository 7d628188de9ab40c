"""A case as it lies on disk, and the tensors a network takes from it.

Arrays of a `Case` keep the axes and the grid of their files (x, y, z in NIfTI order), so that `affine` stays true.
Tensors are (D, H, W) = (z, y, x): axial slices first. `Frame` remembers the way back to the native grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from nibabel import aff2axcodes
from nibabel.nifti1 import Nifti1Header

from mmlib.modalities import MRI

REGIONS = ("wt", "tc", "et")  # of a glioma, nested
LABELS = (0, 1, 2, 3, 4)  # of BraTS, all years


@dataclass(frozen=True)
class Case:
    """One subject at one time point.

    Attributes:
        name: identifies the case in tables and file names.
        images: modality name -> (X, Y, Z) array of native intensities; only acquired modalities.
        affine: (4, 4), voxel to world, mm.
        labels: (X, Y, Z) integer raw labels, or None where no segmentation exists.
        modalities: all names the data set knows, in canonical order.
        brain: (X, Y, Z) bool, or None: then the brain is where an image is not zero (skull-stripped data). One that is
            given belongs to the case: it may be used whatever modality is hidden.
        enhancing_label: raw label of enhancing tumour; None leaves it to `regions`.
        targets: names of the regions that the labels tell apart: those of a glioma, or one name such as `lesion` for
            all that is labelled.
        header: of the file whose grid this is, so that what is written back carries the same geometry; None: not
            read from a NIfTI file.
    """

    name: str
    images: dict[str, np.ndarray]
    affine: np.ndarray
    labels: np.ndarray | None = None
    modalities: tuple[str, ...] = MRI
    brain: np.ndarray | None = field(default=None, repr=False)
    enhancing_label: int | None = None
    targets: tuple[str, ...] = REGIONS
    header: Nifti1Header | None = field(default=None, repr=False)

    @property
    def available(self) -> dict[str, bool]:
        """Modality name -> acquired or not, for every modality of the data set."""
        return {name: name in self.images for name in self.modalities}

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along the array axes."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return x, y, z

    @property
    def axes(self) -> str:
        """The direction in which each array axis grows, such as `RAS`: to the right, to the front, up."""
        return "".join(aff2axcodes(self.affine))

    @property
    def regions(self) -> np.ndarray:
        """(R, X, Y, Z) bool, one region for each of `targets`.

        Raises:
            ValueError: if the case has no labels, or labels that its regions do not know (see `regions`).
        """
        if self.labels is None:
            raise ValueError(f"case {self.name} has no labels: give it a segmentation, or leave it out")
        return self.labels[None] > 0 if len(self.targets) == 1 else regions(self.labels, self.enhancing_label)

    @cached_property
    def brain_mask(self) -> np.ndarray:
        """(X, Y, Z) bool: the brain as all acquired images show it."""
        return self.brain_of(self.images)

    def brain_of(self, combination: Iterable[str]) -> np.ndarray:
        """The brain as some of the acquired images show it, (X, Y, Z) bool; the others are not read."""
        if self.brain is not None:
            return self.brain.astype(bool)
        return np.any([self.images[name] != 0 for name in combination], axis=0)


@dataclass
class Orientation:
    """The axes along which cases are stored that a network meets together: those of the first one."""

    axes: str = ""
    case: str = ""

    def check(self, case: str, axes: str) -> None:
        """Compare a case with the first one; see `Case.axes`.

        Raises:
            ValueError: if it is stored along other axes: to a network one of them is a mirror image, or turned.
        """
        if not self.axes:
            self.axes, self.case = axes, case
        if axes != self.axes:
            raise ValueError(
                f"case {case} is stored along {axes}, case {self.case} along {self.axes}: as they are, one is a mirror "
                "image of the other, or turned; bring all to one orientation (nibabel.as_closest_canonical), or to one "
                "grid (mmlib.data.resample)"
            )


def regions(labels: np.ndarray, enhancing: int | None = None) -> np.ndarray:
    """Turn raw labels into the three nested tumour regions.

    Whole tumour is every label above 0. Tumour core is 1, 3 and 4 (necrosis, non-enhancing and enhancing tumour in
    any of the conventions). Enhancing tumour is 4 (BraTS 2012-2021) or 3 (BraTS 2023+). Where it is 3, a label 4 is
    the resection cavity of BraTS 2024 and belongs to no region.

    Args:
        labels: (...) integers.
        enhancing: the label of enhancing tumour; None: 4 if it occurs, else 3.

    Returns:
        (3, ...) bool, in the order of `REGIONS`: wt, tc, et.

    Raises:
        ValueError: if a label other than 0-4 occurs.
    """
    values = np.unique(labels)
    unknown = values[~np.isin(values, LABELS)]
    if unknown.size:
        raise ValueError(f"labels must be 0-4 (BraTS); found {unknown[:5].tolist()}: map them first")
    if enhancing is None:
        enhancing = 4 if 4 in values else 3
    core = (1, 3) if enhancing == 3 else (1, 3, 4)
    return np.stack([np.isin(labels, (2, *core)), np.isin(labels, core), labels == enhancing])


def raw_labels(regions: np.ndarray, enhancing: int = 4) -> np.ndarray:
    """Turn nested regions (3, ...) bool back into raw labels (...) uint8: 2 oedema, 1 core, `enhancing`.

    A single region (1, ...) becomes label 1. Later regions overwrite earlier ones, so voxels marked `et` outside `wt`
    still become enhancing tumour.
    """
    labels = np.zeros(regions.shape[1:], dtype=np.uint8)
    for region, value in zip(regions, (1,) if len(regions) == 1 else (2, 1, enhancing), strict=True):
        labels[region.astype(bool)] = value
    return labels


def zscore(image: np.ndarray, brain: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """Scale to mean 0 and (population) standard deviation 1 over the brain; exactly 0 outside it.

    Raises:
        ValueError: if the brain is empty, or the image is constant or not finite inside it.
    """
    values = image[brain].astype(np.float64)
    if values.size == 0:
        raise ValueError("the brain mask is empty: the image is zero everywhere")
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all() or low == high:
        raise ValueError(
            f"cannot normalise: intensities in the brain are constant or not finite (they run from {low} to {high})"
        )
    scaled: np.ndarray = np.zeros(image.shape, dtype=dtype)
    scaled[brain] = (values - values.mean()) / values.std()
    return scaled


@dataclass(frozen=True)
class Frame:
    """Where a (D, H, W) box lies in the native (X, Y, Z) grid; `to_native` undoes `to_box`."""

    shape: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    padding: tuple[int, ...]

    @classmethod
    def around(cls, brain: np.ndarray, multiple: int = 1) -> Frame:
        """The bounding box of the brain, to be padded at its end to a multiple of the network's stride.

        Raises:
            ValueError: if the brain is empty.
        """
        if not brain.any():
            raise ValueError("the brain mask is empty: every image is zero everywhere, or the mask given is")
        planes = ((1, 2), (0, 2), (0, 1))
        corners = [np.flatnonzero(brain.any(axis=plane)) for plane in planes]
        low = tuple(int(line[0]) for line in corners)
        high = tuple(int(line[-1]) + 1 for line in corners)
        padding = tuple(-(b - a) % multiple for a, b in zip(low, high, strict=True))
        return cls(brain.shape, low, high, padding)

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the padded box, (D, H, W)."""
        sides = zip(self.low, self.high, self.padding, strict=True)
        return tuple(high - low + pad for low, high, pad in sides)[::-1]

    def to_box(self, array: np.ndarray) -> np.ndarray:
        """(..., X, Y, Z) -> (..., D, H, W), cropped and padded with zeros."""
        x, y, z = (slice(a, b) for a, b in zip(self.low, self.high, strict=True))
        inside = array[..., x, y, z]
        padded = np.pad(inside, [(0, 0)] * (array.ndim - 3) + [(0, pad) for pad in self.padding])
        return np.ascontiguousarray(np.moveaxis(padded, (-3, -2, -1), (-1, -2, -3)))

    def to_native(self, box: np.ndarray) -> np.ndarray:
        """(..., D, H, W) -> (..., X, Y, Z); zero outside the box."""
        moved = np.moveaxis(box, (-3, -2, -1), (-1, -2, -3))
        x, y, z = (slice(a, b) for a, b in zip(self.low, self.high, strict=True))
        width, height, depth = (b - a for a, b in zip(self.low, self.high, strict=True))
        native = np.zeros((*box.shape[:-3], *self.shape), dtype=box.dtype)
        native[..., x, y, z] = moved[..., :width, :height, :depth]
        return native


def usable(case: Case, modalities: Sequence[str], combination: Sequence[str] | None = None) -> list[str]:
    """The acquired ones of `modalities`, in this order; with a combination only those that are in it too."""
    return [name for name in modalities if name in case.images and (combination is None or name in combination)]


def box_of(case: Case, combination: Sequence[str], multiple: int = 1) -> Frame:
    """The box of the brain as a combination of images shows it; see `Frame.around`.

    Raises:
        ValueError: if that brain is empty; the case is named.
    """
    try:
        return Frame.around(case.brain_of(combination), multiple)
    except ValueError as error:
        raise ValueError(f"case {case.name}: {error}") from None


def tensors(
    case: Case, modalities: Sequence[str], multiple: int = 1, combination: Sequence[str] | None = None
) -> tuple[dict[str, Any], Frame]:
    """Make the network's input from a case: the brain's box, z-scored, absent modalities zero and flagged.

    Nothing depends on an image that is not used: the box is that of the brain in the images used, and each of them is
    normalised within its own voxels that are not zero, or in the case's `brain` where there is one.

    Args:
        case: with at least one of `modalities` acquired.
        modalities: the network's modalities, in its order.
        multiple: pad every side to a multiple of this.
        combination: the modalities to use; the others are treated as not acquired. None: all.

    Returns:
        A dict on the batch contract without the batch axis: `images` (M, D, H, W) float32, `available` (M,) bool,
        `case` its name and, where labels exist, `regions` (R, D, H, W) bool; and the frame that leads back.

    Raises:
        ValueError: if the case has none of the modalities, or an image cannot be normalised; the case is named.
    """
    used = usable(case, modalities, combination)
    if not used:
        raise ValueError(
            f"case {case.name} has {sorted(case.images)} but the network takes {tuple(modalities)}: none is available"
        )
    frame = box_of(case, used, multiple)
    available = torch.tensor([name in used for name in modalities])
    images = np.zeros((len(modalities), *frame.grid), dtype=np.float32)
    for name in used:
        try:
            scaled = zscore(case.images[name], case.brain_of([name]))
        except ValueError as error:
            raise ValueError(f"case {case.name}, modality {name}: {error}") from None
        images[modalities.index(name)] = frame.to_box(scaled)
    sample: dict[str, Any] = {"images": torch.from_numpy(images), "available": available, "case": case.name}
    if case.labels is not None:
        sample["regions"] = torch.from_numpy(frame.to_box(case.regions))
    return sample, frame
