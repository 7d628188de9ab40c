"""The figure of predictions: what the network was given, what it said, what is true, and where it erred.

Axial slices in radiological orientation (the patient's right is on the left of the picture, the front at the top), one
intensity window for all tiles, colours as in `mmlib.figures.style`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nibabel
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from nibabel import orientations

from mmlib.data.cases import Case, zscore
from mmlib.figures.style import BLUE, ORANGE, PURPLE, REGION, REGION_NAME, new_figure, styled

WINDOW = (-2.0, 4.0)  # black and white, in standard deviations of the brain


@dataclass(frozen=True)
class Overlay:
    """One row of `overlay_panel`: a case, what of it the network was given, and what it predicted.

    Attributes:
        available: the modalities given to the network; the case may have more.
        predicted: (R, X, Y, Z) bool, the regions of the case, such as WT, TC, ET, on its grid, as
            `mmlib.tasks.segmentation.predict` returns it.
        title: of the row, such as "best: Dice 91 / 85 / 80".
    """

    case: Case
    available: tuple[str, ...]
    predicted: np.ndarray
    title: str


def axial(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(..., X, Y, Z) -> (..., row, column, slice): front at the top, patient's right on the left, slices upwards."""
    turn = orientations.ornt_transform(nibabel.io_orientation(affine), orientations.axcodes2ornt("LPS"))
    volumes = volume.reshape(-1, *volume.shape[-3:])
    turned = np.stack([orientations.apply_orientation(one, turn).swapaxes(0, 1) for one in volumes])
    return turned.reshape(*volume.shape[:-3], *turned.shape[-3:])


@styled
def overlay_panel(overlays: Sequence[Overlay]) -> Figure:
    """Inputs, prediction, truth and error, one row each; axial, radiological orientation, one intensity window.

    Shown is the slice with most true tumour (most predicted where there is none). A modality that was not given is a
    hatched tile with its name. The error tile marks tumour voxels that were missed, invented, or of the wrong part.

    Raises:
        ValueError: if a case has no labels, or predicted regions are not on its grid.
    """
    modalities = overlays[0].case.modalities
    columns = [*modalities, "prediction", "truth", "error"]
    targets = overlays[0].case.targets
    figure, axes = new_figure(1.25 * len(columns), 1.62 * len(overlays) + 0.5, len(overlays), len(columns))
    for line, overlay in zip(axes, overlays, strict=True):
        planes, predicted, truth = _planes(overlay)
        behind = planes[next(name for name in ("flair", "t1ce", "t2", *planes) if name in planes)]
        aspect = overlay.case.spacing[1] / overlay.case.spacing[0]
        for axis, name in zip(line, columns, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
            shown = np.repeat(_grey(planes.get(name, behind))[..., None], 3, axis=2)
            if name in modalities and name not in overlay.available:
                axis.imshow(np.ones_like(shown), aspect=aspect)
                height, width = shown.shape[:2]
                axis.add_patch(
                    Rectangle((-0.5, -0.5), width, height, hatch="////", facecolor="#F4F4F4", edgecolor="#999999")
                )
                middle = dict(ha="center", va="center", backgroundcolor="white", fontsize=8)
                axis.text(width / 2, height / 2, f"{name}\nmissing", **middle)
                continue
            if name == "prediction":
                shown = _tinted(shown, {REGION[r][0]: m for r, m in zip(targets, predicted, strict=True)})
            elif name == "truth":
                shown = _tinted(shown, {REGION[r][0]: m for r, m in zip(targets, truth, strict=True)})
            elif name == "error":
                wrong_part = (predicted != truth).any(axis=0) & predicted[0] & truth[0]
                missed, invented = truth[0] & ~predicted[0], predicted[0] & ~truth[0]
                shown = _tinted(shown, {PURPLE: wrong_part, BLUE: missed, ORANGE: invented})
            axis.imshow(shown, interpolation="nearest", aspect=aspect)
        line[0].set_title(overlay.title, fontsize=8)
    for axis, name in zip(axes[-1], columns, strict=True):
        axis.set_xlabel(name)
    parts = [Patch(color=REGION[name][0], label=REGION_NAME[name]) for name in targets]
    errors = [Patch(color=c, label=t) for c, t in ((BLUE, "missed"), (ORANGE, "invented"), (PURPLE, "wrong part"))]
    figure.legend(
        handles=parts + errors,
        loc="outside lower center",
        ncols=6,
        title="axial; the patient's right is on the left",
        fontsize=8,
    )
    return figure


@styled
def portrait(case: Case, outline: bool = False) -> Figure:
    """The acquired modalities of a case and its true regions, in the slice and the colours of `overlay_panel`.

    Args:
        case: with labels.
        outline: draw the border of the regions, which hides nothing of small ones, instead of filling them.

    Raises:
        ValueError: if the case has no labels.
    """
    acquired = tuple(case.images)
    nothing = np.zeros((len(case.targets), *case.images[acquired[0]].shape), dtype=bool)
    planes, _, truth = _planes(Overlay(case, acquired, nothing, ""))
    behind = planes["flair" if "flair" in planes else acquired[0]]
    figure, axes = new_figure(9, 2.4, 1, len(acquired) + 1)
    for axis, name in zip(axes[0], [*acquired, "truth"], strict=True):
        shown = np.repeat(_grey(planes.get(name, behind))[..., None], 3, axis=2)
        colours = {REGION[r][0]: mask for r, mask in zip(case.targets, truth, strict=True)} if name == "truth" else {}
        if not outline:
            shown = _tinted(shown, colours, strength=1)
        for colour, mask in colours.items() if outline else ():
            axis.contour(mask, levels=[0.5], colors=colour, linewidths=0.8)
        axis.imshow(shown, interpolation="nearest", aspect=case.spacing[1] / case.spacing[0])
        axis.set(title=name, xticks=[], yticks=[])
        axis.grid(False)
    return figure


def _planes(overlay: Overlay) -> tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]:
    """The chosen slice, cropped to the brain: given modalities (row, column), predicted and true regions (R, ...)."""
    case = overlay.case
    if case.labels is None:
        raise ValueError(f"case {case.name} has no labels, so there is no truth to draw")
    expected = (len(case.targets), *case.labels.shape)
    if overlay.predicted.shape != expected:
        raise ValueError(f"predicted has shape {overlay.predicted.shape}, but case {case.name} needs {expected}")
    truth, predicted = axial(case.regions, case.affine), axial(overlay.predicted, case.affine)
    marked = truth if truth.any() else predicted
    place = int(marked[0].sum(axis=(0, 1)).argmax()) if marked.any() else truth.shape[-1] // 2
    brain = axial(case.brain_mask, case.affine)
    rows, columns = np.flatnonzero(brain.any(axis=(1, 2))), np.flatnonzero(brain.any(axis=(0, 2)))
    box = (..., slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1), place)
    planes = {name: axial(zscore(case.images[name], case.brain_mask), case.affine)[box] for name in overlay.available}
    outside = ~brain[box]
    return {name: np.where(outside, WINDOW[0], plane) for name, plane in planes.items()}, predicted[box], truth[box]


def _grey(plane: np.ndarray) -> np.ndarray:
    return ((plane - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).clip(0, 1)


def _tinted(plane: np.ndarray, masks: Mapping[str, np.ndarray], strength: float = 0.65) -> np.ndarray:
    """Lay colours over a grey plane (row, column, 3); later masks lie on top."""
    shown = plane.copy()
    for colour, mask in masks.items():
        shown[mask] = (1 - strength) * plane[mask] + strength * np.array(to_rgb(colour))
    return shown
