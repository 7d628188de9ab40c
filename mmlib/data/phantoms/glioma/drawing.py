"""How the glioma phantom is drawn: a tumour in a piece of brain, as MRI shows it, and its slide, as a bag of patches.

Neither drawing knows the class. `volumes` is told how the tumour enhances and how much oedema there is, `patches` what
the tissue looks like; the rest comes from the number of the case alone. Tissue values and the spin-echo signal are
those of `mmlib.data.phantoms.brain`, and so is the anatomy: pieces of a few healthy subjects, mirrored at random. A
patch is drawn as amounts of haematoxylin and eosin; scikit-image turns these into colours (A. Ruifrok, D. Johnston,
Quantification of histochemical staining by color deconvolution, Anal. Quant. Cytol. Histol., 2001).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage
from skimage.color import hed2rgb

from mmlib.data.phantoms.brain import VALUES, make_tissues, signal
from mmlib.modalities import MRI

ENHANCEMENT = ("none", "patchy", "ring")
OEDEMA = ("little", "much")
LOOKS = ("necrotic", "fried egg", "fibrillary")  # as G, O and A look
SPACING, SIDE = 4.0, 24  # of the volume: mm, voxels
ANATOMIES = 12
PALE = {"fried egg": 0.012, "necrotic": 0.030, "fibrillary": 0.028, "stroma": 0.020}  # eosin between the nuclei


# -------------------------------------------------------------------------------------------------------------- the MRI
@lru_cache(maxsize=ANATOMIES)
def _anatomy(number: int) -> tuple[np.ndarray, np.ndarray]:
    """CSF, grey and white matter of a healthy subject, (3, X, Y, Z), and corners of pieces centred in white matter."""
    tissues = make_tissues(number, SPACING, tumour=False)
    fractions = np.stack([np.pad(tissues.fractions[name], SIDE // 4) for name in ("csf", "gm", "wm")])
    corners = np.argwhere(ndimage.gaussian_filter(fractions[2], 2) > 0.6) - SIDE // 2
    fits = (corners >= 0).all(axis=1) & (corners + SIDE <= fractions.shape[1:]).all(axis=1)
    return fractions, corners[fits]


def _lumps(rng: np.random.Generator, points: list[np.ndarray], length: float) -> np.ndarray:
    """A smooth random field of mean 0 and variance 1: eight plane waves of about this length, mm."""
    waves = rng.normal(0, 2 * np.pi / length, (8, 3)).astype(np.float32)
    shifts = rng.uniform(0, 2 * np.pi, 8).astype(np.float32)
    phases = (sum(k * p for k, p in zip(wave, points, strict=True)) + s for wave, s in zip(waves, shifts, strict=True))
    return 0.5 * np.sum([np.cos(phase) for phase in phases], axis=0)


def _inside(distance: np.ndarray) -> np.ndarray:
    """1 where a distance in mm is well below 0, 0 well above; soft over half a voxel."""
    return np.clip(0.5 - distance / (SPACING / 2), 0, 1)


def volumes(number: int, enhancement: str, oedema: str) -> dict[str, np.ndarray]:
    """Draw the MRI of a glioma.

    Args:
        number: of the case, at least 0.
        enhancement: of `ENHANCEMENT`: none; patchy, a part of the solid tumour; ring, all of the rim of a necrosis.
            None and patchy differ in gadolinium alone, so only t1ce tells them apart.
        oedema: of `OEDEMA`.

    Returns:
        t1, t1ce, t2, flair -> (24, 24, 24) int16, 4 mm, 0 exactly outside the brain.
    """
    rng = np.random.default_rng((number, 2))
    fractions, corners = _anatomy(int(rng.integers(ANATOMIES)))
    low = corners[rng.integers(len(corners))]
    piece = fractions[(slice(None), *(slice(a, a + SIDE) for a in low))]
    csf, grey, white = piece[:, :: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    line = ((np.arange(SIDE) - (SIDE - 1) / 2) * SPACING).astype(np.float32)
    points = list(np.meshgrid(line, line, line, indexing="ij"))
    centre = rng.uniform(-8, 8, 3)
    offsets = [p - np.float32(c) for p, c in zip(points, centre, strict=True)]
    squeeze = np.exp(rng.normal(0, 0.12, 3))
    distance = np.sqrt(sum((o * np.float32(s)) ** 2 for o, s in zip(offsets, squeeze, strict=True)))
    radius, border, rim = rng.uniform(13, 20), rng.uniform((3, 12), (6, 18)), rng.uniform(4, 6)
    edge = radius * (1 + 0.1 * _lumps(rng, points, 40))
    core = _inside(distance - edge)
    swollen = edge + border[OEDEMA.index(oedema)] * (1 + 0.3 * _lumps(rng, points, 45))
    wet = (_inside(distance - swollen) - core).clip(0) * (1 - 0.5 * grey)
    hole = core * _inside(distance - (edge - rim)) * (enhancement == "ring")
    sector = _inside(4 * _lumps(rng, points, 30))  # half of the solid tissue
    lit = (core - hole) * {"none": 0, "patchy": sector, "ring": 1}[enhancement]
    brain = csf + grey + white
    tissue = grey + white
    parts = [wet, hole, core - hole - lit, lit]
    healthy = 1 - wet - core
    shares = np.stack([csf, grey * healthy, white * healthy, *(part * tissue for part in parts)])
    proton, t1, t2 = (VALUES * (1 + rng.normal(0, 0.03, VALUES.shape).clip(-0.07, 0.07)))[[0, 1, 2, 3, 4, 5, 5]].T
    gadolinium = np.array([0, 0.02, 0.02, 0.02, 0.02, 0.02, rng.uniform(0.3, 0.6)])
    images = {}
    for modality in MRI:
        gain, noise = 1500 * np.exp(rng.normal(0, 0.15)), rng.uniform(0.02, 0.04)
        clean = np.tensordot(signal(modality, proton, t1, t2, gadolinium), shares, 1)
        clean *= np.exp(0.08 * _lumps(rng, points, 200))
        sigma = noise * clean[brain >= 0.5].mean()
        noisy = np.hypot(*(part + sigma * rng.standard_normal(clean.shape) for part in (clean, 0)))
        images[modality] = np.where(brain >= 0.5, np.clip(np.rint(gain * noisy), 1, 32767), 0).astype(np.int16)
    return images


# ------------------------------------------------------------------------------------------------------------ the slide
def _spread(rng: np.random.Generator, rows: int, number: int, size: int, evenly: float) -> np.ndarray:
    """Places of nuclei, (rows, number, 2), pixels; the cells of a jittered lattice where `evenly` is 1, random at 0."""
    across = int(np.ceil(np.sqrt(number)))
    lattice = (np.stack(np.divmod(np.arange(across**2), across), axis=-1)[:number] + 0.5) / across
    jittered = lattice + rng.uniform(-0.22, 0.22, (rows, number, 2)) / across
    return size * (evenly * jittered + (1 - evenly) * rng.random((rows, number, 2)))


def patches(number: int, look: str, count: int = 12, size: int = 32) -> np.ndarray:
    """Draw patches of an H&E slide; at least three have the look, each other one has it or is plain stroma.

    necrotic: crowded nuclei of all sizes around pink necrosis without nuclei; fried egg: round, alike, evenly spaced
    nuclei in clear halos; fibrillary: few long, dark, ragged nuclei between pink fibres. Stroma is the same in all.

    Args:
        number: of the case, at least 0.
        look: of `LOOKS`.
        count: patches, at least 3.
        size: sides of a patch, pixels; about half a micrometre each.

    Returns:
        (count, size, size, 3) uint8, RGB.

    Raises:
        ValueError: if there are fewer than three patches.
    """
    if count < 3:
        raise ValueError(f"a slide has at least 3 patches; got {count}")
    rng = np.random.default_rng((number, 3))
    telling = rng.random(count) < 0.5
    telling[rng.permutation(count)[:3]] = True
    slide = rng.normal(1, 0.12, 2).clip(0.7, 1.3)  # how long this slide was stained with either
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    for stream, (kind, rows) in enumerate(((look, np.flatnonzero(telling)), ("stroma", np.flatnonzero(~telling)))):
        if len(rows):
            rng = np.random.default_rng((number, 3, stream))
            stains = _stains(rng, kind, len(rows), size) * np.array([*slide, 0], dtype=np.float32)
            grain = rng.normal(0, 0.012, stains.shape)
            images[rows] = np.clip(255 * (hed2rgb(stains) + grain), 0, 255)
    return images


def _stains(rng: np.random.Generator, kind: str, rows: int, size: int) -> np.ndarray:
    """Haematoxylin, eosin and (none of) DAB in each pixel, (rows, size, size, 3)."""
    nuclei = {"necrotic": 22, "fried egg": 9, "fibrillary": 7, "stroma": 4}[kind]
    spread = {"necrotic": 0.12, "fried egg": 0.03, "fibrillary": 0.10, "stroma": 0.06}[kind]
    radius = {"necrotic": 2.2, "fried egg": 2.3, "fibrillary": 2.2, "stroma": 1.5}[kind]
    flat = {"necrotic": 1.25, "fried egg": 1.03, "fibrillary": 1.7, "stroma": 1.1}[kind]  # root of length over width
    centres = _spread(rng, rows, nuclei, size, 0.9 if kind == "fried egg" else 0.4)
    radii = radius * np.exp(4 * spread * rng.standard_normal((rows, nuclei)).clip(-1.5, 1.5))
    along = rng.uniform(0, 2 * np.pi, (rows, 1)) + rng.normal(0, 0.3 if kind == "fibrillary" else 2, (rows, nuclei))
    grid = np.arange(size, dtype=np.float32)
    down, across = (
        line - centres[..., axis, None, None].astype(np.float32)
        for axis, line in enumerate((grid[:, None], grid[None, :]))
    )
    cosine, sine = (f(along)[..., None, None].astype(np.float32) for f in (np.cos, np.sin))
    u, v = (cosine * down + sine * across) / np.float32(flat), (cosine * across - sine * down) * np.float32(flat)
    distance = np.hypot(u, v) - radii[..., None, None].astype(np.float32)  # (rows, nuclei, size, size)
    noise = ndimage.gaussian_filter(rng.standard_normal((rows, size, size)), (0, 1.0, 1.0)) * 3.5  # about variance 1
    eosin = PALE[kind] * (1 + 0.15 * noise)
    if kind == "fibrillary":  # fibres along the nuclei
        turn = along[:, :1, None]
        across_fibres = np.cos(turn) * grid[None, :] - np.sin(turn) * grid[:, None]
        eosin = eosin * (1 + 0.5 * np.sin(1.3 * across_fibres + 1.2 * noise))
    if kind == "necrotic":  # nuclei are lost in the necrosis, on one side of the patch
        side = rng.uniform(0, 2 * np.pi, (rows, 1, 1))
        depth = np.cos(side) * (grid[None, :] - size / 2) + np.sin(side) * (grid[:, None] - size / 2)
        dead = np.clip(0.5 + (depth - size / 8 + noise) / 3, 0, 1)
        outside = centres - size / 2
        lost = np.sin(side[..., 0]) * outside[..., 0] + np.cos(side[..., 0]) * outside[..., 1] > size / 6
        distance = distance + 99 * lost[..., None, None]
        eosin = eosin + 0.02 * dead
    nearest = distance.min(axis=1)
    shade = np.exp(0.12 * noise) * {"stroma": 0.075, "fried egg": 0.085}.get(kind, 0.11)
    haematoxylin = 0.006 + shade * np.clip(0.5 - nearest, 0, 1)
    if kind == "fried egg":
        eosin = eosin + 0.03 * np.clip((nearest - 3.2) / 1.0, 0, 1)  # cytoplasm is clear around the nucleus
    return np.stack([haematoxylin, eosin, np.zeros_like(eosin)], axis=-1).clip(0).astype(np.float32)
