"""The brain phantom: real anatomy, simulated physics, a known answer.

Anatomy comes from the MNI152 (ICBM 2009a, symmetric) T1, grey-matter and white-matter maps that nilearn carries
(Fonov et al., NeuroImage 2011); CSF is what the brain mask leaves. A subject is a random deformation of this one
anatomy, so a held-out subject is a new deformation, not a new person. Signals are spin-echo equations on tissue
values, then a smooth gain field and Rician noise (Gudbjartsson & Patz, Magn Reson Med 1995).

What can be known from an image is fixed by construction. The tumour core holds necrosis and solid tissue. A sector of
the solid tissue enhances: its centre is uniform on the sphere and its share is uniform, both drawn independently of all
else. Enhancing and non-enhancing solid tissue have the same proton density, T1 and T2 and differ only in gadolinium
concentration, which enters t1ce alone. So t1, t2 and flair hold nothing about which part of the core enhances. That is
the plain phantom; `mmlib.data.phantoms.options` tells what may be added and what then can be known.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import nibabel
import numpy as np
import torch
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch.nn.functional import avg_pool3d, grid_sample
from tqdm.auto import tqdm

from mmlib.data.cases import Case
from mmlib.data.nifti import read_volume, save_image
from mmlib.data.phantoms.options import (
    ENHANCES,
    HEALTHY,
    PLAIN,
    SHARE_ENHANCING,
    TIMES,
    Options,
    best_marking,
    read_options,
    site_of,
)
from mmlib.modalities import IXI, MRI
from mmlib.records import new_folder, one_at_a_time

Array = np.ndarray | float
VERSION = 3  # of the images; raised whenever the same seed gives other voxels, so that stale files are made anew
SPACINGS = (2.0, 3.0, 4.0, 8.0)  # mm; the last to try a program, not to look at
MARGIN = math.ceil((max(SPACINGS) / 2 - 1) / 2)  # mm around the brain that the average over half a voxel reaches
LAYOUTS = {"brats": MRI, "ixi": IXI}
TISSUES = ("csf", "gm", "wm", "oedema", "necrosis", "solid", "enhancing")
# Proton density (1 = water), T1 and T2 in ms; solid and enhancing tissue are alike on purpose.
VALUES = np.array(
    [(1.0, 4200, 1990), (0.86, 1100, 95), (0.74, 700, 80), (0.92, 1350, 150), (0.95, 2400, 240), (0.88, 1250, 120)]
)
DENSE = 90 / 120  # T2 of the dense part of the solid tissue over that of the rest
RELAXIVITY = 4.5  # of gadolinium, 1/(s mM)
WORLD = ((-98.0, 98.0), (-134.0, 98.0), (-72.0, 116.0))  # mm, voxel centres of the 1 mm maps


@dataclass(frozen=True)
class Tissues:
    """The truth behind a phantom subject.

    Attributes:
        fractions: tissue name -> (X, Y, Z) float32, its share of each voxel in [0, 1]; they add up to `brain`.
        affine: (4, 4), voxel to world, mm.
        dense: "solid" and "enhancing" -> (X, Y, Z), the share of each voxel that is that tissue and dense in cells;
            empty where the phantom has no such sign of enhancement.
        without_tumour: fractions of the same subject before the tumour grew; empty where all modalities show it.
        shown_by: the modalities that show the tumour.
    """

    fractions: dict[str, np.ndarray]
    affine: np.ndarray
    dense: dict[str, np.ndarray] = field(default_factory=dict)
    without_tumour: dict[str, np.ndarray] = field(default_factory=dict)
    shown_by: tuple[str, ...] = MRI

    @property
    def brain(self) -> np.ndarray:
        """(X, Y, Z) bool: at least half of the voxel is brain."""
        return np.sum(list(self.fractions.values()), axis=0) >= 0.5

    @property
    def labels(self) -> np.ndarray:
        """(X, Y, Z) uint8: 2 oedema, 1 necrosis or non-enhancing tumour, 4 enhancing, 0 where tumour is under half."""
        oedema, necrosis, solid, enhancing = (self.fractions[name] for name in TISSUES[3:])
        parts = np.stack([oedema, necrosis + solid, enhancing])
        labels = np.array([2, 1, 4], dtype=np.uint8)[parts.argmax(axis=0)]
        labels[(parts.sum(axis=0) < 0.5) | ~self.brain] = 0
        return labels


@lru_cache(maxsize=1)
def _template() -> tuple[tuple[int, ...], tuple[slice, ...], tuple[np.ndarray, ...]]:
    """The template's grid of 1 mm, the box that holds its brain and a margin, and CSF, GM and WM in that box."""
    t1, gm, wm = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    )
    brain = t1 > 0  # the map is skull-stripped
    box = _around(brain, MARGIN)
    brain, gm, wm = brain[box], gm[box], wm[box]
    total = np.maximum(gm + wm, 1)
    gm, wm = gm / total * brain, wm / total * brain
    return t1.shape, box, (brain - gm - wm, gm, wm)


@lru_cache(maxsize=len(SPACINGS))
def _maps(spacing: float) -> torch.Tensor:
    """CSF, GM and WM of the template, (1, 3, X, Y, Z) at 1 mm, averaged over half a voxel of `spacing`."""
    shape, box, parts = _template()
    blur = (spacing / 2 - 1) / 2  # a voxel is sampled at 2 x 2 x 2 points, each standing for half a voxel per axis
    maps = np.zeros((3, *shape), np.float32)
    for part, whole in zip(parts, maps, strict=True):
        ndimage.gaussian_filter(part, blur, radius=max(1, math.ceil(blur)), output=whole[box])
    return torch.from_numpy(maps)[None]


def _around(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The box that holds `mask` and `margin` voxels around it, as far as there are any."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(0, part.start - margin), part.stop + margin) for part in box)


@lru_cache(maxsize=1)
def _tumour_sites() -> np.ndarray:
    """Where a tumour may start: template positions in mm, (N, 3), deep in the white matter of the hemispheres."""
    maps = _maps(4.0)[0, :, ::2, ::2, ::2].numpy()
    brain, white = maps.sum(axis=0) > 0.5, maps[2]
    depth, box = np.zeros(brain.shape), _around(brain, 1)
    depth[box] = 2 * ndimage.distance_transform_edt(brain[box])  # mm
    sites = np.argwhere((depth > 14) & (ndimage.gaussian_filter(white, 2) > 0.6)) * 2.0 + [low for low, _ in WORLD]
    return sites[(sites[:, 2] > -15) & (np.abs(sites[:, 0]) > 14)]


def _smooth(rng: np.random.Generator, axes: Sequence[np.ndarray], scale: float) -> np.ndarray:
    """A Gaussian random field of mean 0, variance 1 and correlation length about `scale` mm, at the points of `axes`.

    The knots cover the whole template, so the same draw gives the same field on every grid.
    """
    knots = [np.arange(low - 2 * scale, high + 2 * scale, scale) for low, high in WORLD]
    field = rng.standard_normal([len(line) for line in knots], dtype=np.float32)
    for points, line in zip(axes, knots, strict=True):
        weights = np.exp(-(((points[:, None] - line) / scale) ** 2)).astype(np.float32)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        field = np.tensordot(field, weights, axes=(0, 1))  # consumes one axis, appends another: three times = in order
    return field


def _warp(seed: int, axes: list[np.ndarray], points: list[np.ndarray]) -> list[np.ndarray]:
    """The subject's anatomy: template coordinates in mm of its `points` (three arrays that broadcast over `axes`)."""
    rng = np.random.default_rng((seed, 1))
    angles, scales = np.deg2rad(rng.normal(0, 3, 3)), rng.normal(1, 0.04, 3)
    shift, shear = rng.normal(0, 2, 3), rng.normal(0, 0.03, 3)
    torque_width, torque_length = rng.normal(0, 0.02), rng.normal(0, 2)
    ventricle = rng.uniform(-0.1, 0.35)
    matrix = np.diag(scales)
    for angle, (a, b) in zip(angles, ((0, 1), (0, 2), (1, 2)), strict=True):
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    matrix[[0, 0, 1], [1, 2, 2]] += shear
    x, y, z = (
        (row[0] * points[0] + row[1] * points[1] + row[2] * points[2] + offset).astype(np.float32)
        for row, offset in zip(matrix, shift, strict=True)
    )
    side = np.tanh(x / 20)
    x, y = x * (1 + torque_width * side), y + torque_length * side
    reach = 1 - ventricle * np.exp(-(x**2 / 800 + (y + 15) ** 2 / 1800 + (z - 12) ** 2 / 800))
    moved = [x * reach, (y + 15) * reach - 15, (z - 12) * reach + 12]
    return [part + 3.0 * _smooth(rng, axes, 32) + 1.0 * _smooth(rng, axes, 14) for part in moved]


@dataclass(frozen=True)
class _Tumour:
    """Drawn parameters of a tumour; lengths in mm."""

    centre: np.ndarray
    squeeze: np.ndarray
    core: float
    rim: float
    necrosis: bool
    oedema: float
    mass_effect: float
    direction: np.ndarray
    share: float
    focus: int = 0  # 0: the first, whose random streams are those of the plain phantom
    sign_direction: np.ndarray | None = None  # of the dense sector; None: there is no sign
    sign_share: float = 0.0

    def stream(self, seed: int, number: int) -> np.random.Generator:
        """The random numbers of one property of this focus; every focus has its own."""
        return np.random.default_rng((seed, number, self.focus) if self.focus else (seed, number))


def _draw_tumour(seed: int, tumour: bool | None) -> _Tumour | None:
    rng = np.random.default_rng((seed, 2))
    healthy, necrosis, enhances = rng.random(3) < (HEALTHY, 0.85, ENHANCES)
    site = _tumour_sites()[rng.integers(len(_tumour_sites()))]
    squeeze = np.exp(rng.normal(0, 0.1, 3))
    core, rim, oedema, mass = rng.uniform(13, 25), rng.uniform(7, 11), rng.uniform(6, 13), rng.uniform(0.1, 0.5)
    rng = np.random.default_rng((seed, 3))  # enhancement is drawn independently of all that other modalities show
    direction, share = rng.standard_normal(3), rng.uniform(*SHARE_ENHANCING)
    if tumour is False or (tumour is None and healthy):
        return None
    return _Tumour(
        _place(seed, site), squeeze / squeeze.prod() ** (1 / 3), core, rim, bool(necrosis), oedema, mass,
        direction / np.linalg.norm(direction), share if enhances else 0.0,
    )  # fmt: skip


def _place(seed: int, site: np.ndarray) -> np.ndarray:
    """The subject's point whose template position is the site, in mm."""
    point = site.copy()
    for _ in range(5):
        axes = [point[k : k + 1] for k in range(3)]
        found = _warp(seed, axes, [point[k].reshape(1, 1, 1) for k in range(3)])
        point = point + site - np.array([part.item() for part in found])
    return point


def _draw_foci(seed: int, tumour: bool | None, options: Options) -> list[_Tumour]:
    """The tumour and what the options add to it; the first focus comes first."""
    first = _draw_tumour(seed, tumour)
    if first is None:
        return []
    if options.irregular:
        first = replace(first, squeeze=first.squeeze ** (1 + 2 * options.irregular))
    if options.shared < 1:
        first = replace(first, mass_effect=0.0)
    foci = [first]
    rng = np.random.default_rng((seed, 11))
    if rng.random() < options.multifocal:
        for number in range(1, 1 + int(rng.integers(1, 3))):
            away = np.linalg.norm(_tumour_sites() - first.centre, axis=1) - first.core - first.oedema
            sites = _tumour_sites()[(away > 10) & (away < 50)]
            direction = rng.standard_normal(3)
            focus = _Tumour(
                _place(seed, sites[rng.integers(len(sites))]), np.ones(3), rng.uniform(6, 11), rng.uniform(4, 6),
                bool(rng.random() < 0.5), rng.uniform(4, 8), 0.0, direction / np.linalg.norm(direction),
                rng.uniform(*SHARE_ENHANCING) if first.share else 0.0, number,
            )  # fmt: skip
            foci.append(focus)
    return [_signed(focus, seed, options.predictable) for focus in foci] if options.predictable else foci


def _signed(focus: _Tumour, seed: int, predictable: float) -> _Tumour:
    """The focus with its dense sector: where it enhances, or another draw by the same law."""
    tied, visible = np.random.default_rng((seed, 12)).random(2) < (predictable, ENHANCES)  # of the subject
    if tied:
        return replace(focus, sign_direction=focus.direction, sign_share=focus.share)
    rng = focus.stream(seed, 13)
    direction, share = rng.standard_normal(3), rng.uniform(*SHARE_ENHANCING)
    return replace(focus, sign_direction=direction / np.linalg.norm(direction), sign_share=share if visible else 0.0)


def _shown_by(seed: int, shared: float) -> tuple[str, ...]:
    """The modalities that show the subject's tumour: all, or one."""
    rng = np.random.default_rng((seed, 14))
    return MRI if rng.random() < shared else (MRI[rng.integers(len(MRI))],)


def _axes(spacing: float, per_voxel: int) -> tuple[list[np.ndarray], tuple[int, ...], np.ndarray]:
    """Points of the grid in mm per axis, its shape in voxels, its affine; a voxel is a block of template voxels."""
    shape = tuple(int(np.ceil((high - low + 1) / spacing / 2)) * 2 for low, high in WORLD)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [low - 0.5 + spacing / 2 for low, _ in WORLD]
    counts = [(np.arange(n * per_voxel) + 0.5) / per_voxel for n in shape]
    return [low - 0.5 + spacing * line for line, (low, _) in zip(counts, WORLD, strict=True)], shape, affine


def _check(seed: int, spacing: float) -> None:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0; got {seed!r}")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing must be 2, 3, 4 or 8 mm; got {spacing!r}")


def make_tissues(seed: int, spacing: float = 4.0, tumour: bool | None = None, options: Options = PLAIN) -> Tissues:
    """Make the tissue fractions of a subject: the truth behind its images.

    Args:
        seed: of the subject, >= 0; the anatomy does not depend on `spacing`.
        spacing: voxel size in mm, 2, 3, 4 or 8.
        tumour: None lets the seed decide (4 % are healthy); False makes the subject healthy, True gives it a tumour.
        options: what departs from the plain phantom.

    Raises:
        ValueError: if `seed` is negative or not an integer, or `spacing` is not one of 2, 3, 4, 8.
    """
    _check(seed, spacing)
    axes, shape, affine = _axes(float(spacing), 2)
    points = [line.reshape([-1 if k == axis else 1 for k in range(3)]) for axis, line in enumerate(axes)]
    foci = _draw_foci(seed, tumour, options)
    bent = points
    if foci and foci[0].mass_effect:  # the mass pushes its surroundings outwards, less with distance
        first = foci[0]
        offsets = [p - c for p, c in zip(points, first.centre, strict=True)]
        distance = np.sqrt(sum(o**2 for o in offsets)).astype(np.float32) + 1e-3
        inner = np.cbrt(np.maximum(distance**3 - first.mass_effect * np.minimum(distance, first.core) ** 3, 0))
        pull = (inner / distance - 1) * np.exp(-((distance / (3 * first.core)) ** 2))
        bent = [p + o * pull for p, o in zip(points, offsets, strict=True)]
    source = _warp(seed, axes, bent)
    scaled = [(s - low) * (2 / (high - low)) - 1 for s, (low, high) in zip(source, WORLD, strict=True)]
    grid = torch.from_numpy(np.stack(scaled[::-1], axis=-1).astype(np.float32))[None]  # torch counts axes from the last
    csf, gm, wm = grid_sample(_maps(float(spacing)), grid, align_corners=True)[0].numpy()
    fractions = dict(zip(TISSUES, (csf, gm, wm, *np.zeros((4, *csf.shape), dtype=np.float32)), strict=True))
    shown_by = _shown_by(seed, options.shared) if foci else MRI
    before = _pooled(fractions) if shown_by != MRI else {}
    dense = {name: np.zeros_like(csf) for name in ("solid", "enhancing")} if options.predictable and foci else {}
    for focus in foci:
        _grow(focus, seed, axes, fractions, options.irregular, dense)
    pooled, dense = _pooled(fractions), _pooled(dense) if dense else {}
    if options.stripped:
        brain = sum(pooled.values()) - pooled["csf"] >= 0.5
        closed = ndimage.binary_closing(brain, iterations=max(1, round(4 / spacing)))
        kept = ndimage.binary_fill_holes(closed) | brain
        pooled, dense, before = ({name: part * kept for name, part in maps.items()} for maps in (pooled, dense, before))
    return Tissues(pooled, affine, dense, before, shown_by)


def _pooled(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Means over the 2 x 2 x 2 points of each voxel."""
    pooled = avg_pool3d(torch.from_numpy(np.stack(list(maps.values()))), 2).numpy()
    return dict(zip(maps, pooled, strict=True))


def _grow(
    drawn: _Tumour,
    seed: int,
    axes: list[np.ndarray],
    fractions: dict[str, np.ndarray],
    irregular: float,
    dense: dict[str, np.ndarray],
) -> None:
    """Replace brain by tumour, in place: nested noisy balls with soft borders; nothing grows into CSF."""
    reach = drawn.core * (1 + irregular) + 2 * drawn.oedema + 12
    ends = [np.searchsorted(line, (c - reach, c + reach)) for line, c in zip(axes, drawn.centre, strict=True)]
    box = tuple(slice(*end) for end in ends)
    near = [line[cut] for line, cut in zip(axes, box, strict=True)]
    offsets = np.meshgrid(*[line - c for line, c in zip(near, drawn.centre, strict=True)], indexing="ij")
    distance = np.sqrt(sum((o * s) ** 2 for o, s in zip(offsets, drawn.squeeze, strict=True)))
    rng = drawn.stream(seed, 4)
    lumps, fingers, hollow = (_smooth(rng, near, scale) for scale in (14, 12, 9))
    core_edge = drawn.core * (1 + 0.12 * lumps)
    if irregular:
        bays = _smooth(drawn.stream(seed, 15), near, 8)
        core_edge *= np.exp(irregular * (0.3 * lumps + 0.25 * bays)).clip(0.3, 1 + irregular)
    white = ndimage.gaussian_filter(fractions["wm"][box], 1.5)
    oedema_edge = core_edge + drawn.oedema * (0.25 + 1.2 * white) * (1 + 0.3 * fingers)
    hollow_edge = (core_edge - drawn.rim) * (1 + 0.15 * hollow) if drawn.necrosis else np.full_like(distance, -99)
    inside = partial(_inside, distance=distance)
    lit = _sector(drawn.direction, drawn.share, drawn.stream(seed, 5), offsets, near)
    tissue = fractions["gm"][box] + fractions["wm"][box]
    core, hole = inside(core_edge), inside(np.minimum(hollow_edge, core_edge))
    oedema = np.maximum(inside(oedema_edge) - core, 0)
    solid = np.maximum(core - hole, 0)
    parts = {"oedema": oedema, "necrosis": core - solid, "solid": solid * (1 - lit), "enhancing": solid * lit}
    for name, share in parts.items():
        fractions[name][box] += share * tissue
    if drawn.sign_direction is not None:
        tied = drawn.sign_direction is drawn.direction
        rng = drawn.stream(seed, 5 if tied else 16)  # the same border where it is the same sector
        sign = _sector(drawn.sign_direction, drawn.sign_share, rng, offsets, near)
        for name, part in dense.items():
            part[box] += sign * parts[name] * tissue
    for name in ("gm", "wm"):
        fractions[name][box] *= 1 - core - oedema


def _sector(
    direction: np.ndarray,
    share: float,
    rng: np.random.Generator,
    offsets: Sequence[np.ndarray],
    near: Sequence[np.ndarray],
) -> np.ndarray:
    """1 in a ragged sector of a ball, 0 outside it: around the direction, over a share of the sphere."""
    cosine = sum(o * d for o, d in zip(offsets, direction, strict=True))
    cosine /= np.sqrt(sum(o**2 for o in offsets)) + 1e-3
    ragged = _smooth(rng, near, 12)
    # the cap of a sphere with cos > 1 - 2 p has the share p of its surface
    sector: np.ndarray = 1 / (1 + np.exp(-(cosine + 0.15 * ragged - (1 - 2 * share)) / 0.05)) if share else 0 * cosine
    return sector


def _inside(edge: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """1 inside the edge, 0 outside, soft over about 2 mm."""
    return 1 / (1 + np.exp(np.clip((distance - edge) / 0.7, -30, 30)))


def signal(
    modality: str,
    pd: Array,
    t1: Array,
    t2: Array,
    gadolinium: Array = 0.0,
    times: Mapping[str, tuple[float, ...]] = TIMES,
) -> Array:
    """Evaluate the spin-echo equation of a modality; times in ms, gadolinium in mM; water at rest gives 1.

    Only t1ce is acquired after the contrast agent: `gadolinium` does not enter the others. `times` has the repetition,
    echo and inversion times of the modalities.

    Raises:
        ValueError: if the modality is unknown.
    """
    if modality not in times:
        raise ValueError(f"unknown modality {modality!r}; choose one of {tuple(times)}")
    if modality == "t1ce":
        t1 = 1 / (1 / t1 + RELAXIVITY * gadolinium / 1000)
    repetition, echo, *inversion = times[modality]
    if inversion:
        recovered = np.abs(1 - 2 * np.exp(-inversion[0] / t1) + np.exp(-repetition / t1))
    else:
        recovered = 1 - np.exp(-repetition / t1)
    return pd * recovered * np.exp(-echo / t2)


def make_subject(
    seed: int,
    spacing: float = 4.0,
    layout: str = "brats",
    tumour: bool | None = None,
    options: Options = PLAIN,
    tissues: Tissues | None = None,
) -> Case:
    """Make a phantom subject: the same arguments give the same voxels, and another spacing the same anatomy.

    Args:
        seed: of the subject, >= 0.
        spacing: voxel size in mm, 2, 3, 4 or 8.
        layout: "brats": t1, t1ce, t2, flair with labels 1, 2, 4; "ixi": t1, t2, pd of a healthy subject, no labels.
        tumour: None lets the seed decide (4 % are healthy; some tumours have no enhancement, some no necrosis);
            False makes the subject healthy, True gives it a tumour.
        options: what departs from the plain phantom.
        tissues: what `make_tissues` gives for the same arguments, where it is at hand.

    Returns:
        A skull-stripped case: int16 images, 0 exactly outside the brain; uint8 labels; an affine in MNI space (RAS).

    Raises:
        ValueError: as `make_tissues`, if `layout` is unknown, or if a tumour is asked for in the layout "ixi".
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; choose one of {tuple(LAYOUTS)}")
    if layout == "ixi" and tumour:
        raise ValueError("IXI holds healthy volunteers only: leave tumour out, or use layout='brats'")
    if tissues is None:
        tissues = make_tissues(seed, spacing, False if layout == "ixi" else tumour, options)
    axes, shape, _ = _axes(float(spacing), 1)
    site = site_of(seed, options.sites)
    times = site.times or TIMES
    rng = np.random.default_rng((seed, 6))
    jitter = 1 + rng.normal(0, 0.03, VALUES.shape).clip(-0.07, 0.07)
    pd, t1, t2 = (VALUES * jitter)[[0, 1, 2, 3, 4, 5, 5]].T
    gadolinium = np.array([0, 0.02, 0.02, 0.02, 0.02, 0.02, rng.uniform(0.3, 0.6)])
    shares, brain = np.stack(list(tissues.fractions.values())), tissues.brain
    common = _smooth(rng, axes, 8)
    images = {}
    for index, modality in enumerate(("t1", "t1ce", "t2", "flair", "pd")):
        rng = np.random.default_rng((seed, 7, index))
        gain, noise = 1500 * np.exp(rng.normal(0, 0.15)), site.noise * rng.uniform(0.02, 0.04)
        bias = np.exp(site.field * _smooth(rng, axes, 70))
        if modality in LAYOUTS[layout]:
            seen = modality in tissues.shown_by or not tissues.without_tumour
            mixed = shares if seen else np.stack(list(tissues.without_tumour.values()))
            clean = np.tensordot(signal(modality, pd, t1, t2, gadolinium, times), mixed, 1)
            if seen and tissues.dense:
                density, t1_both, t2_both, agent = (np.array(one)[[5, 6]] for one in (pd, t1, t2, gadolinium))
                usual = signal(modality, density, t1_both, t2_both, agent, times)
                change = signal(modality, density, t1_both, t2_both * DENSE, agent, times) - usual
                clean += np.tensordot(change, np.stack(list(tissues.dense.values())), 1)
            clean = clean * _texture(common, seed, index, modality, axes, options) * bias
            if options.misregistration and modality != "t1":
                clean = _moved(clean, np.random.default_rng((seed, 17, index + 1)), options.misregistration, spacing)
            sigma = noise * clean[brain].mean()
            noisy = np.hypot(*(part + sigma * rng.standard_normal(shape) for part in (clean, 0)))
            images[modality] = np.where(brain, np.clip(np.rint(gain * noisy), 1, 32767), 0).astype(np.int16)
    name = f"phantom-{seed:04d}" if layout == "brats" else f"IXI{seed:04d}-Phantom-{seed:04d}"
    ordered = {modality: images[modality] for modality in LAYOUTS[layout]}
    if layout == "ixi":
        return Case(name, ordered, tissues.affine, modalities=IXI)
    return Case(name, ordered, tissues.affine, tissues.labels, enhancing_label=4)


def _texture(
    common: np.ndarray, seed: int, index: int, modality: str, axes: list[np.ndarray], options: Options
) -> np.ndarray:
    """The multiplicative structure of a modality, (X, Y, Z): what all share, and what it has of its own."""
    alone = options.flair_texture if modality == "flair" else 0.0
    if not alone and options.shared == 1:
        return 1 + 0.03 * common
    own = _smooth(np.random.default_rng((seed, 18, index + 1)), axes, 8)
    return 1 + 0.03 * np.sqrt(options.shared) * common + np.hypot(0.03 * np.sqrt(1 - options.shared), alone) * own


def _moved(image: np.ndarray, rng: np.random.Generator, size: float, spacing: float) -> np.ndarray:
    """The image turned about its centre by about `size` degrees and shifted by about `size` mm, along each axis."""
    turn = Rotation.from_euler("xyz", rng.normal(0, size, 3), degrees=True).as_matrix()
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - turn @ centre + rng.normal(0, size / spacing, 3)
    moved: np.ndarray = ndimage.affine_transform(image, turn, offset, order=1)
    return moved


def ceiling_without_t1ce(tissues: Tissues, predictable: float = 0.0) -> float:
    """Dice for enhancing tumour of who sees everything but enhancement, and marks what is best marked.

    Its mean over subjects bounds the mean of any method without t1ce. In the plain phantom every part of the solid
    tissue is as likely to enhance as any other, so marking a share s of it finds, on average, the share s of the
    enhancing voxels, and 2 s |ET| / (s |solid| + |ET|) grows with s: all of it is marked. Where a dense sector is seen
    that enhances with the chance `predictable`, it may be better to mark the sector alone, or nothing where there is
    none: see `mmlib.data.phantoms.options.best_marking`.

    Args:
        tissues: made with that option.
        predictable: the dial, in [0, 1].

    Returns:
        In the plain phantom 2 |ET| / (|solid| + |ET|), |solid| counting enhancing and non-enhancing voxels: 0 where
        solid tissue exists and none of it enhances, 1 where there is no solid tissue (both empty).
    """
    necrosis, *solid = (tissues.fractions[name] for name in ("necrosis", "solid", "enhancing"))
    enhancing = tissues.labels == 4
    marked = enhancing | ((tissues.labels == 1) & (np.sum(solid, axis=0) > necrosis))
    if not tissues.dense:
        return float(2 * enhancing.sum() / (marked.sum() + enhancing.sum())) if marked.any() else 1.0
    dense = np.sum(list(tissues.dense.values()), axis=0)
    as_seen = {**tissues.fractions, "solid": np.sum(solid, axis=0) - dense, "enhancing": dense}
    sign = Tissues(as_seen, tissues.affine).labels == 4
    marked |= sign
    share = sign.sum() / max(marked.sum(), 1)
    best = best_marking(predictable, float(share))
    if not marked.any() or best == 0:
        return float(not enhancing.any())
    rest = (best - share) / max(1 - share, 1e-6)  # share of what bears no sign
    found = (enhancing & sign).sum() + rest * (enhancing & ~sign).sum()
    return float(2 * found / (best * marked.sum() + enhancing.sum()))


def _image(array: np.ndarray, affine: np.ndarray, mark: str) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(array, affine)
    image.set_qform(affine, "aligned")
    image.set_sform(affine, "aligned")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = mark
    return image


def _mark(seed: int, spacing: float, options: Options) -> str:
    _check(seed, spacing)
    mark = f"mmlib phantom v{VERSION} seed {seed} {spacing:g} mm"
    return f"{mark} {hashlib.sha256(str(options).encode()).hexdigest()[:12]}" if options != PLAIN else mark


def _complete(files: Iterable[Path], mark: str) -> bool:
    """All files are there, whole, and their headers say that this version made them from this seed at this spacing."""
    try:
        return all(read_volume(file)[2]["descrip"].item().decode() == mark for file in files)
    except ValueError:
        return False


def write_brats(
    folder: str | Path, seeds: Iterable[int], spacing: float = 4.0, preset: str = "plain", **changes: float
) -> list[Path]:
    """Write phantom subjects as BraTS does: `phantom-0007/phantom-0007_t1.nii.gz`, ..., `_seg.nii.gz`.

    A case appears under its name only when all of its files are written, also where several processes write the same.
    Cases already there and whole, made by this version at this spacing with these options, are left alone; others of
    the same name are replaced.

    Args:
        folder, seeds, spacing: where to, which subjects, and mm.
        preset, changes: as `mmlib.data.phantoms.options.read_options`.

    Returns:
        The folders of the cases, in the order of `seeds`.

    Raises:
        ValueError: as `make_subject` and `read_options`.
    """
    written, options = [], read_options(preset, **changes)
    for seed in tqdm(list(seeds), desc="phantom (BraTS layout)", unit="case"):
        mark, name = _mark(seed, spacing, options), f"phantom-{seed:04d}"
        target = Path(folder) / name
        written.append(target)
        with one_at_a_time(Path(folder)):
            if _complete([target / f"{name}_{part}.nii.gz" for part in (*MRI, "seg")], mark):
                continue
            case = make_subject(seed, spacing, options=options)
            with new_folder(target) as made:
                for part, array in (*case.images.items(), ("seg", np.asarray(case.labels))):
                    save_image(_image(array, case.affine, mark), made / f"{name}_{part}.nii.gz")
    return written


def write_ixi(
    folder: str | Path, seeds: Iterable[int], spacing: float = 4.0, preset: str = "plain", **changes: float
) -> list[Path]:
    """Write healthy phantom subjects as IXI does: `IXI-T1/IXI0007-Phantom-0007-T1.nii.gz`, and so for T2 and PD.

    Each file appears under its name only when it is complete; what is already there is treated as in `write_brats`, and
    so are the arguments.

    Returns:
        The T1 files, in the order of `seeds`.

    Raises:
        ValueError: as `make_subject` and `read_options`.
    """
    written, options = [], read_options(preset, **changes)
    for seed in tqdm(list(seeds), desc="phantom (IXI layout)", unit="case"):
        mark, name = _mark(seed, spacing, options), f"IXI{seed:04d}-Phantom-{seed:04d}"
        files = {part: Path(folder) / f"IXI-{part.upper()}" / f"{name}-{part.upper()}.nii.gz" for part in IXI}
        written.append(files["t1"])
        with one_at_a_time(Path(folder)):
            if _complete(files.values(), mark):
                continue
            case = make_subject(seed, spacing, layout="ixi", options=options)
            for part, file in files.items():
                file.parent.mkdir(parents=True, exist_ok=True)
                save_image(_image(case.images[part], case.affine, mark), file)
    return written
