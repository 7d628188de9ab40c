"""From a scan's own grid to the voxel size and axes a network was trained with, and back.

A network sees voxels, not millimetres: trained at 4 mm it takes a 1 mm scan for a giant's head. It is also not
indifferent to a flip, so the axes are brought into one order too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from nibabel import orientations
from nibabel.affines import voxel_sizes
from scipy import ndimage

from mmlib.data.cases import Case

PHANTOM_AXES = "RAS"  # how mmlib.data.phantoms.brain writes its volumes


def resample(case: Case, spacing: float, axes: str = PHANTOM_AXES) -> Case:
    """Bring a case to isotropic voxels with the given axes; the field of view stays.

    Intensities are averaged over the voxels of the brain that a new voxel covers (a Gaussian as wide as the box of
    the new voxel, then linear interpolation). The background takes no part, whatever its value is: 0, or something
    else in images normalised by others. Outside the brain the result is 0. The brain is where it fills at least half
    a voxel; labels are those of the nearest voxel.

    Args:
        case: on any grid; oblique axes keep their tilt.
        spacing: of the new voxels, mm.
        axes: three letters, the direction in which each array axis grows: `RAS` (to the right, to the front, up).

    Returns:
        The case on the new grid, float32, with `brain` set and no header.

    Raises:
        ValueError: if `spacing` is not positive or `axes` does not name three different axes.
    """
    if not spacing > 0:
        raise ValueError(f"spacing must be a positive number of mm; got {spacing}")
    if sorted(min(pair) for pair in ("LR", "PA", "IS") for letter in axes if letter in pair) != ["A", "I", "L"]:
        raise ValueError(f"axes must name three different directions, such as RAS or LPS; got {axes!r}")
    shape, affine = _grid(case, spacing, axes)
    width = np.maximum(spacing / np.array(case.spacing), 1)
    sigma = np.sqrt((width**2 - 1) / 12)  # the variance of a box of this width, less that of one voxel

    def averaged(array: np.ndarray) -> np.ndarray:
        smooth = ndimage.gaussian_filter(array, sigma, output=np.float32, mode="constant")
        return _sample(smooth, case.affine, affine, shape, order=1)

    inside = case.brain_mask
    share = averaged(inside.astype(np.float32))
    brain = share >= 0.5
    images = {}
    for name, image in case.images.items():
        total = averaged(np.where(inside, image, 0).astype(np.float32))
        images[name] = np.divide(total, share, out=np.zeros(shape, np.float32), where=brain)
    labels = None
    if case.labels is not None:
        labels = _sample(case.labels, case.affine, affine, shape, order=0)
    return replace(case, images=images, affine=affine, labels=labels, brain=brain, header=None)


def back_to(native: Case, regions: np.ndarray, resampled: Case) -> np.ndarray:
    """Bring regions found on the grid of `resampled` back to the grid of the scan itself.

    Args:
        native: the case as it was read.
        regions: (..., X, Y, Z) bool, or probabilities in [0, 1], on the grid of `resampled`.
        resampled: the case that `resample` made of it.

    Returns:
        (..., X, Y, Z) bool on the native grid: where linear interpolation gives more than one half.

    Raises:
        ValueError: if `regions` is not on the grid of `resampled`.
    """
    grid = next(iter(resampled.images.values())).shape
    if regions.shape[-3:] != grid:
        raise ValueError(f"regions have shape {regions.shape[-3:]}, but the resampled case {resampled.name} has {grid}")
    shape = next(iter(native.images.values())).shape
    stack = regions.reshape(-1, *grid).astype(np.float32)
    back = [_sample(region, resampled.affine, native.affine, shape, order=1) > 0.5 for region in stack]
    return np.stack(back).reshape(*regions.shape[:-3], *shape)


def _grid(case: Case, spacing: float, axes: str) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the new grid: same corner, same directions up to order and sign, enough voxels to cover."""
    old = next(iter(case.images.values())).shape
    turn = orientations.ornt_transform(orientations.io_orientation(case.affine), orientations.axcodes2ornt(axes))
    turned = case.affine @ orientations.inv_ornt_aff(turn, old)
    shape = np.empty(3)
    shape[turn[:, 0].astype(int)] = old
    factor = spacing / voxel_sizes(turned)
    scale = np.diag([*factor, 1.0])
    scale[:3, 3] = (factor - 1) / 2  # the first new centre: the outer faces of both grids coincide
    return tuple(np.ceil(shape / factor - 1e-6).astype(int).tolist()), turned @ scale


def _sample(
    array: np.ndarray, affine: np.ndarray, new_affine: np.ndarray, shape: tuple[int, ...], order: int
) -> np.ndarray:
    """Read an array at the voxel centres of another grid; beyond its edge, its edge goes on."""
    to_old = np.linalg.inv(affine) @ new_affine
    return ndimage.affine_transform(array, to_old, output_shape=shape, order=order, mode="nearest")
