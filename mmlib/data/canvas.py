"""Axial slices of a volume on a canvas of fixed size, the brain in its middle, and the way back to the volume.

Slices are seen with the front up: (H, W) = (y, x) after the volume was turned to grow to the right, to the front and up
(RAS), whatever the order of its axes on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from mmlib.data.cases import Case

RAS = axcodes2ornt("RAS")


@dataclass(frozen=True)
class Canvas:
    """Where the canvases of a case lie in its volume; `to_native` undoes `to_slices`.

    Attributes:
        to_ras, from_ras: (3, 2), the turns between the axes on disk and RAS, as nibabel writes them.
        shape: (X, Y, Z) of the turned volume.
        low: (y, x) of the canvas' first pixel in the turned volume; negative where the canvas sticks out.
        size: (H, W).
    """

    to_ras: np.ndarray
    from_ras: np.ndarray
    shape: tuple[int, int, int]
    low: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def around(cls, case: Case, size: tuple[int, int], stride: int = 1) -> Canvas:
        """The canvas with the brain's bounding box in its middle.

        Raises:
            ValueError: if the stride does not divide the size, or the brain is empty or does not fit; it names the next
                legal size.
        """
        legal = tuple(-(-side // stride) * stride for side in size)
        if legal != tuple(size):
            raise ValueError(
                f"a stride of {stride} does not divide the size {tuple(size)}; the next legal size: {legal}"
            )
        own = io_orientation(case.affine)
        to_ras = ornt_transform(own, RAS)
        brain = apply_orientation(case.brain_mask, to_ras)
        if not brain.any():
            raise ValueError(f"case {case.name}: the brain mask is empty: every image is zero, or the mask given is")
        filled = [np.flatnonzero(brain.any(axis=others)) for others in ((0, 2), (1, 2))]  # along y, along x
        extent = [int(line[-1] - line[0]) + 1 for line in filled]
        if extent[0] > size[0] or extent[1] > size[1]:
            legal = tuple(-(-max(pair) // stride) * stride for pair in zip(extent, size, strict=True))
            raise ValueError(
                f"case {case.name}: its brain measures {extent[0]} x {extent[1]} voxels (y, x) and does not fit on a "
                f"canvas of {tuple(size)}; the next legal size: {legal}"
            )
        low = [int(line[0]) - (side - one) // 2 for line, one, side in zip(filled, extent, size, strict=True)]
        return cls(to_ras, ornt_transform(RAS, own), brain.shape, (low[0], low[1]), (size[0], size[1]))

    def _shared(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns that volume and canvas share: where they are in the volume, and on the canvas."""
        lengths = self.shape[1], self.shape[0]
        starts = [max(low, 0) for low in self.low]
        ends = [min(low + side, length) for low, side, length in zip(self.low, self.size, lengths, strict=True)]
        rows, columns = (slice(start, end) for start, end in zip(starts, ends, strict=True))
        on_canvas = [slice(a - low, b - low) for a, b, low in zip(starts, ends, self.low, strict=True)]
        return (rows, columns), (on_canvas[0], on_canvas[1])

    def to_slices(self, volume: np.ndarray, outside: float = 0) -> np.ndarray:
        """(X, Y, Z) as on disk -> (D, H, W), from below upwards; `outside` where the canvas sticks out."""
        inside, canvas = self._shared()
        slices = np.full((self.shape[2], *self.size), outside, dtype=volume.dtype)
        slices[:, *canvas] = apply_orientation(volume, self.to_ras).transpose(2, 1, 0)[:, *inside]
        return slices

    def to_native(self, slices: np.ndarray) -> np.ndarray:
        """(D, H, W) -> (X, Y, Z) as on disk; 0 where there was no canvas."""
        inside, canvas = self._shared()
        turned = np.zeros(self.shape[::-1], dtype=slices.dtype)
        turned[:, *inside] = slices[:, *canvas]
        return apply_orientation(turned.transpose(2, 1, 0), self.from_ras)
