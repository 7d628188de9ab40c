"""Page through a case: every modality it has, the prediction and the truth, slice by slice, in plain HTML.

The slices lie in the page as PNG, so the viewer needs no kernel, no network and no widget library. Axial slices in
radiological orientation: the patient's right is on the left of the picture, the front at the top.
"""

from __future__ import annotations

import base64
import hashlib
import io
from html import escape
from typing import TYPE_CHECKING

import nibabel
import numpy as np
from nibabel import orientations
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from mmlib.data.cases import REGIONS, Case

if TYPE_CHECKING:
    from IPython.display import HTML

COLOURS = {"wt": (86, 180, 233), "tc": (240, 228, 66), "et": (230, 85, 40)}  # Okabe and Ito: told apart by everyone
NAMES = {"wt": "whole tumour", "tc": "tumour core", "et": "enhancing tumour"}
WINDOW = (1, 99.5)  # percentiles of the brain shown as black and white, one window for all slices of a modality
TILE = 190  # pixels, at least, across a tile; coarse voxels are drawn larger
STRIP = 18  # pixels, for the name above a tile
COLUMNS = 3


def slice_viewer(
    case: Case, predicted: np.ndarray | None = None, truth: np.ndarray | None = None, slices: int = 24
) -> HTML:
    """Show a case with a slider over its axial slices.

    Args:
        case: what was acquired is shown, a missing modality is a hatched tile with its name.
        predicted: (3, X, Y, Z) bool regions on the grid of the case, outlined in one more tile.
        truth: the same, of the segmentation by hand.
        slices: at most so many, evenly spaced through the brain.

    Returns:
        An IPython display object; the first slice shown is the one with most predicted (else true) tumour.

    Raises:
        ValueError: as `frames`.
    """
    from IPython.display import HTML

    pictures, first = frames(case, predicted, truth, slices)
    sources = ["data:image/png;base64," + base64.b64encode(_png(picture)).decode() for picture in pictures]
    key = "slices-" + hashlib.sha256(sources[first].encode()).hexdigest()[:12]
    missing = [name for name in case.modalities if name not in case.images]
    alt = f"Axial slices of case {case.name}: {', '.join(case.images)}"
    alt += f"; missing: {', '.join(missing)}" if missing else ""
    alt += "; outlined: the prediction" if predicted is not None else ""
    alt += "; outlined: the truth" if truth is not None else ""
    legend = " ".join(
        f'<span style="white-space:nowrap"><span aria-hidden="true" style="color:rgb{COLOURS[name]};'
        f'background:#222;padding:0 .2em">&#9632;</span> {NAMES[name]}</span>'
        for name in REGIONS
    )
    return HTML(
        f'<figure id="{key}" style="margin:1em 0"><img alt="{escape(alt)}" src="{sources[first]}" '
        f'style="max-width:100%;height:auto;background:#111">'
        f'<div><label>slice <input type="range" min="0" max="{len(sources) - 1}" value="{first}" '
        f'style="width:min(60%,24em);vertical-align:middle"></label> <output>{first + 1}</output> of {len(sources)}'
        f"</div><figcaption>{escape(case.name)}, axial, the patient's right on the left. Outlines: {legend}"
        "</figcaption></figure>"
        f"<script>(() => {{ const sources = {sources!r}, figure = document.getElementById({key!r});"
        "figure.querySelector('input').oninput = event => {"
        "figure.querySelector('img').src = sources[event.target.value];"
        "figure.querySelector('output').value = Number(event.target.value) + 1; }; })()</script>"
    )


def frames(
    case: Case, predicted: np.ndarray | None = None, truth: np.ndarray | None = None, slices: int = 24
) -> tuple[list[Image.Image], int]:
    """Draw one picture per slice: a tile for each modality of the data set, for the prediction and for the truth.

    Returns:
        The pictures, from the bottom of the brain to its top, and the index of the one with most tumour.

    Raises:
        ValueError: if regions are not on the grid of the case.
    """
    shape = next(iter(case.images.values())).shape
    for name, found in (("predicted", predicted), ("truth", truth)):
        if found is not None and found.shape != (len(REGIONS), *shape):
            raise ValueError(f"{name} has shape {found.shape}, but case {case.name} needs {(len(REGIONS), *shape)}")
    brain = _axial(case.brain_mask, case.affine)
    rows, columns, heights = (np.flatnonzero(brain.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1)))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    chosen = np.unique(np.linspace(heights[0], heights[-1], min(slices, heights.size)).round().astype(int))

    grey = {}
    for name, image in case.images.items():
        low, high = np.percentile(image[case.brain_mask], WINDOW)
        scaled = (np.where(case.brain_mask, image, low) - low) / max(high - low, 1e-9)
        grey[name] = (255 * _axial(scaled, case.affine).clip(0, 1)).astype(np.uint8)[box]
    behind = next(name for name in ("flair", "t1ce", *case.images) if name in case.images)
    outlined = {
        f"{title} on {behind}": np.stack([_axial(region, case.affine)[box] for region in found])
        for title, found in (("prediction", predicted), ("truth", truth))
        if found is not None
    }

    x, y = (case.spacing[axis] for axis in _axes(case.affine)[:2])
    height, width, _ = grey[behind].shape
    enlarge = max(1, -(-TILE // round(width * x / min(x, y)))) / min(x, y)
    size = (round(width * x * enlarge), round(height * y * enlarge))
    pictures = []
    for z in chosen:
        tiles = []
        for name in case.modalities:
            if name in grey:
                tiles.append((name, _plain(grey[name][..., z], size)))
            else:
                tiles.append((f"{name}: missing", _hatched(size)))
        for title, found in outlined.items():
            tiles.append((title, _outlined(grey[behind][..., z], found[..., z], size)))
        pictures.append(_sheet(tiles, size))
    marked = next(iter(outlined.values()), brain[None][:, *box])
    return pictures, int(marked.sum(axis=(0, 1, 2))[chosen].argmax())


def _axes(affine: np.ndarray) -> list[int]:
    """Which array axis runs left-right, front-back and up-down."""
    return np.argsort(nibabel.io_orientation(affine)[:, 0]).astype(int).tolist()


def _axial(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(X, Y, Z) -> (row, column, slice): front at the top, the patient's right on the left, slices upwards."""
    turn = orientations.ornt_transform(nibabel.io_orientation(affine), orientations.axcodes2ornt("LPS"))
    return orientations.apply_orientation(volume, turn).swapaxes(0, 1)


def _plain(plane: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(plane).resize(size, Image.Resampling.NEAREST).convert("RGB")


def _hatched(size: tuple[int, int]) -> Image.Image:
    row, column = np.indices(size[::-1])
    lines = np.where((row + column) % 12 < 2, 150, 60).astype(np.uint8)
    return Image.fromarray(lines).convert("RGB")


def _outlined(plane: np.ndarray, regions: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Draw the inner border of each region, two pixels wide; inner regions over outer ones."""
    picture = np.array(_plain(plane, size))
    for name, region in zip(REGIONS, regions, strict=True):
        mask = np.array(Image.fromarray(region).resize(size, Image.Resampling.NEAREST))
        width = 1 if plane.shape[1] == size[0] else 2
        picture[mask & ~binary_erosion(mask, iterations=width)] = COLOURS[name]
    return Image.fromarray(picture)


def _sheet(tiles: list[tuple[str, Image.Image]], size: tuple[int, int]) -> Image.Image:
    """Lay tiles in rows, each with its name above."""
    gap, columns = 4, min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    step = (size[0] + gap, size[1] + STRIP + gap)
    sheet = Image.new("RGB", (columns * step[0] - gap, rows * step[1] - gap), (17, 17, 17))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, (name, tile) in enumerate(tiles):
        left, top = index % columns * step[0], index // columns * step[1]
        pen.text((left + 3, top + 1), name, fill=(235, 235, 235), font=font)
        sheet.paste(tile, (left, top + STRIP))
    return sheet


def _png(picture: Image.Image) -> bytes:
    """Compress with a palette of 61 greys and the colours of the outlines."""
    palette = Image.new("P", (1, 1))
    greys = np.linspace(0, 255, 61).round().astype(int).repeat(3).tolist()
    palette.putpalette([*greys, *(value for colour in COLOURS.values() for value in colour)])
    buffer = io.BytesIO()
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
