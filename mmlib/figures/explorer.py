"""Drop a modality: the data of a page on which a reader switches images of a case on and off, packed into the page.

Images become sheets of slices, compressed with a loss below their noise, and masks runs of one value; both stand as
text in the page, so that it needs no server, no network and no kernel. What draws them is
`book/_components/explorer.js`. The cases may be a reader's own: without some images, without a truth, predicted from
some combinations.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from mmlib.data.cases import Case
from mmlib.figures.components import component
from mmlib.figures.overlays import axial
from mmlib.figures.results import arm_style
from mmlib.figures.style import BLACK, MODALITY, REGION, REGION_NAME, Shown
from mmlib.modalities import combinations, label

MARGIN = 1  # voxels that networks read, around the brain
QUALITY = 90  # of WebP, at most 100
WINDOW = (1, 99.5)  # percentiles of the brain shown as black and white, one window for all slices of a modality


@dataclass(frozen=True)
class Filled:
    """One axial slice of a case, and what networks make up for the images that are missing.

    Attributes:
        number: of the slice, from below, the lowest with brain being 1.
        acquired: modality -> (H, W) in [-1, 1], front up, the patient's right on the left.
        made: arm -> label of a combination -> modality that is missing in it -> such an image, and its PSNR in the
            brain, dB.
    """

    number: int
    acquired: Mapping[str, np.ndarray]
    made: Mapping[str, Mapping[str, Mapping[str, tuple[np.ndarray, float]]]]


@dataclass(frozen=True)
class Fixed:
    """A network that reads one combination, whatever else there is: a teacher, or a student.

    Attributes:
        name: as it is printed.
        colour: of its bars.
        reads: label of the combination.
    """

    name: str
    colour: str
    reads: str


@dataclass(frozen=True)
class Explored:
    """A case and what networks make of it.

    Attributes:
        case: on the grid that is shown.
        why: it was chosen, in a word or two.
        rule: by which it was chosen, in a sentence.
        predicted: arm -> label of a combination -> (R, X, Y, Z) bool on the grid of the case.
        dice: arm -> label of a combination -> Dice in [0, 1], one a region; of a case without labels empty.
        known: the best Dice of the enhancing tumour that can be expected without t1ce, in [0, 1]; None: nobody knows.
        filled: a slice with what networks of synthesis make of it; None: there are none.
        shown: the same subject in finer voxels, of which a whole number fit into one of the case: images and truth to
            look at. None: the case itself is shown.
    """

    case: Case
    why: str
    rule: str
    predicted: Mapping[str, Mapping[str, np.ndarray]]
    dice: Mapping[str, Mapping[str, Sequence[float]]]
    known: float | None = None
    filled: Filled | None = None
    shown: Case | None = None


def runs_of(regions: np.ndarray) -> np.ndarray:
    """Regions (R, ...) bool as runs of one value, bytes: a short run takes one, also where a network marks noise.

    Of the first byte of a run the lowest three bits say which regions, the next four are the lowest of its length; of
    those that follow each has seven more. The highest bit says that one follows.

    Raises:
        ValueError: if there are more than three regions.
    """
    if len(regions) > 3:
        raise ValueError(f"a run has three bits for regions, and there are {len(regions)}")
    values = sum(region.astype(np.uint32) << bit for bit, region in enumerate(regions)).ravel()
    starts = np.flatnonzero(np.diff(values, prepend=values[0] + 1))
    lengths = np.diff(starts, append=values.size)
    shifts = np.array([0, 4, 11, 18, 25])
    parts = lengths[:, None] >> shifts & np.array([15, 127, 127, 127, 127])
    parts[:, 0] = parts[:, 0] << 3 | values[starts]
    follows = lengths[:, None] >> np.array([4, 11, 18, 25, 32]) > 0
    used = np.column_stack([np.ones(len(lengths), dtype=bool), follows[:, :-1]])
    return (parts | follows << 7)[used].astype(np.uint8)


def _text(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array.astype(kind)).tobytes()).decode()


def _sheet(volume: np.ndarray) -> str:
    """(row, column, slice) uint8 as the address of a WebP: its slices from left to right, row below row."""
    height, width, depth = volume.shape
    across = int(np.ceil(np.sqrt(depth)))
    sheet = np.zeros((-(-depth // across), height, across, width), dtype=np.uint8)
    for place in range(depth):
        sheet[place // across, :, place % across] = volume[..., place]
    file = io.BytesIO()
    Image.fromarray(sheet.reshape(-1, across * width)).save(file, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _finer(one: Explored) -> tuple[Case, int]:
    """What is shown, over all of the case's grid, and how many of its voxels stand in a row in one of the case."""
    case, shown = one.case, one.shown or one.case
    times = round(case.spacing[0] / shown.spacing[0])
    grid = np.array(next(iter(shown.images.values())).shape)
    lacking = times * np.array(next(iter(case.images.values())).shape) - grid  # beyond what was drawn there is nothing
    fits = np.allclose(case.affine[:3, :3], times * shown.affine[:3, :3])
    fits &= np.allclose(case.affine @ (-0.5, -0.5, -0.5, 1), shown.affine @ (-0.5, -0.5, -0.5, 1))
    if not fits or lacking.min() < 0:
        raise ValueError(f"case {case.name}: its voxels do not hold a whole number of those that are to be shown")
    ends = [(0, int(more)) for more in lacking]
    images = {name: np.pad(image, ends) for name, image in shown.images.items()}
    labels = None if shown.labels is None else np.pad(shown.labels, ends)
    return replace(shown, images=images, labels=labels), times


def _packed_slice(filled: Filled | None, below: int, times: int) -> dict[str, Any] | None:
    if filled is None:
        return None

    def grey(image: np.ndarray) -> str:
        return _text((255 * (image + 1) / 2).clip(0, 255), "u1")

    return {
        "number": times * (filled.number - 1 + below) + times // 2 + 1,  # the middle one of those that are shown
        "shape": list(next(iter(filled.acquired.values())).shape),
        "acquired": {name: grey(image) for name, image in filled.acquired.items()},
        "made": {
            arm: {
                have: {name: [grey(image), round(psnr, 1)] for name, (image, psnr) in by.items()}
                for have, by in every.items()
            }
            for arm, every in filled.made.items()
        },
    }


def _volumes(one: Explored) -> dict[str, dict[str, list[float]]]:
    """Arm -> label of a combination -> ml, one a region."""
    voxel = np.prod(one.case.spacing) / 1000
    return {
        arm: {have: (found.sum(axis=(1, 2, 3)) * voxel).round(2).tolist() for have, found in by.items()}
        for arm, by in one.predicted.items()
    }


def _packed(one: Explored) -> dict[str, Any]:
    case, (shown, times) = one.case, _finer(one)
    brain = axial(shown.brain_mask, shown.affine)
    box = []
    for other in ((1, 2), (0, 2), (0, 1)):
        at = np.flatnonzero(brain.any(axis=other)) // times
        box.append(slice(max(0, at[0] - MARGIN), at[-1] + 1 + MARGIN))
    fine = tuple(slice(times * cut.start, times * cut.stop) for cut in box)
    lowest = np.flatnonzero(axial(case.brain_mask, case.affine).any(axis=(0, 1)))[0]

    def marks(regions: np.ndarray) -> str:
        return _text(runs_of(axial(regions, case.affine)[:, *box]), "u1")

    images = {}
    for name, image in shown.images.items():
        low, high = np.percentile(image[shown.brain_mask], WINDOW)
        scaled = np.where(shown.brain_mask, (image - low) / max(high - low, 1e-9), 0)
        images[name] = _sheet((255 * axial(scaled, shown.affine)[fine]).clip(0, 255).astype(np.uint8))
    truth = None if shown.labels is None else axial(shown.regions, shown.affine)[:, *fine]
    if truth is not None and truth.any():
        marked = truth.sum(axis=0)
    else:
        guessed = [found for by in one.predicted.values() for found in by.values()]  # the last is of most images
        seen = next((found for found in guessed[::-1] if found.any()), case.brain_mask[None])
        marked = axial(seen, case.affine)[:, *box].sum(axis=0).repeat(times, 0).repeat(times, 1).repeat(times, 2)
    x, y, z = (shown.spacing[axis] for axis in np.argsort(nibabel.io_orientation(shown.affine)[:, 0]).astype(int))
    most = [int(marked.sum(axis=other).argmax()) for other in ((1, 2), (0, 2), (0, 1))]  # row, column, slice
    return {
        "name": case.name,
        "why": one.why,
        "rule": one.rule,
        "shape": list(marked.shape),
        "spacing": [y, x, z],  # of rows, columns and slices, mm
        "times": times,
        "start": [most[2], most[0], most[1]],  # axial, coronal, sagittal
        "images": images,
        "truth": None if truth is None else _text(runs_of(truth), "u1"),
        "predicted": {arm: {have: marks(found) for have, found in by.items()} for arm, by in one.predicted.items()},
        "dice": {
            arm: {k: [round(float(v), 4) for v in values] for k, values in by.items()} for arm, by in one.dice.items()
        },
        "volumes": {} if truth is not None else _volumes(one),
        "known": None if one.known is None else round(one.known, 4),
        "filled": _packed_slice(one.filled, int(lowest - box[2].start), times),
    }


def pack(
    explored: Sequence[Explored],
    means: Mapping[str, Mapping[str, Sequence[float]]],
    cases: int,
    known: float | None = None,
    caveat: str = "",
    fillers: Mapping[str, str] | None = None,
    fixed: Mapping[str, Fixed] | None = None,
    own: bool = False,
) -> dict[str, Any]:
    """What the page needs, as plain values.

    Args:
        explored: the cases to choose from, with the same modalities, regions and arms.
        means: arm -> label of a combination -> mean Dice in [0, 1] over all test cases, one a region.
        cases: how many these are.
        known: as `Explored.known`, mean of all test cases.
        caveat: stands before numbers that are no results.
        fillers: arm of `Filled` -> its name.
        fixed: arm -> what it reads, of arms that were predicted from that alone; the page opens without them.
        own: the cases are a reader's own: any combinations were predicted, and the address tells nothing of them.

    Raises:
        ValueError: if there is no case, or a combination was not predicted and the cases are not the reader's.
    """
    if not explored:
        raise ValueError("there is no case to show")
    first, fixed = explored[0].case, fixed or {}
    every = {label(names, first.modalities) for names in combinations(first.modalities)}
    for one in [] if own else explored:
        for arm, by in one.predicted.items():
            if lacking := ({fixed[arm].reads} if arm in fixed else every) - set(by):
                raise ValueError(f"case {one.case.name}: {arm} lacks predictions from {sorted(lacking)}")
    return {
        "caveat": caveat,
        "own": own,
        "n": cases,
        "known": known,
        "modalities": [{"name": name, "colour": MODALITY[name][0]} for name in first.modalities],
        "regions": [_region(name) for name in first.targets],
        "methods": [_method(arm, fixed.get(arm)) for arm in explored[0].predicted],
        "means": {
            arm: {have: [round(float(v), 4) for v in one] for have, one in by.items()} for arm, by in means.items()
        },
        "fillers": [{"key": arm, "name": name} for arm, name in (fillers or {}).items()],
        "cases": [_packed(one) for one in explored],
    }


def _method(arm: str, fixed: Fixed | None) -> dict[str, str]:
    if fixed is not None:
        return {"key": arm, "name": fixed.name, "colour": fixed.colour, "reads": fixed.reads}
    colour, _, name = arm_style(arm)
    return {"key": arm, "name": name, "colour": "currentColor" if colour == BLACK else colour}


def _region(name: str) -> dict[str, Any]:
    colour = REGION[name][0]
    rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return {"name": name, "title": REGION_NAME[name], "colour": colour, "rgb": rgb}


def explorer(packed: Mapping[str, Any], folder: Path, caption: str) -> Shown:
    """Put the explorer on a page.

    Args:
        packed: of `pack`.
        folder: of its script and style, see `component`.
        caption: stands below.
    """
    alt = f"An explorer of {len(packed['cases'])} cases: switch images on and off, and see what networks find."
    return component(folder, "explorer", packed, alt=alt, caption=caption)
