import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mmlib.data.cases import Case
from mmlib.figures.viewer import COLOURS, STRIP, frames, slice_viewer

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def case(affine: np.ndarray = LPS, shape=(200, 220, 6)) -> Case:
    """Bright in the front of the patient's right; t1ce and t2 are missing."""
    brain = np.zeros(shape, bool)
    brain[2:-2, 2:-2, 1:-1] = True
    image = brain * 100.0
    image[2:100, 2:110, 1:-1] = 900
    return Case("one <1>", {"t1": image, "flair": image}, affine, brain=brain)


def found(shape=(200, 220, 6)) -> np.ndarray:
    """Whole tumour in slices 2 and 3, larger in 3; a core in slice 3; nothing enhances."""
    regions = np.zeros((3, *shape), bool)
    regions[0, 20:60, 20:60, 2:4] = True
    regions[0, 20:80, 20:60, 3] = True
    regions[1, 30:50, 30:50, 3] = True
    return regions


def tile(picture: Image.Image, index: int) -> np.ndarray:
    """One of the tiles of 196 x 216 pixels, three in a row."""
    row, column = divmod(index, 3)
    left, top = column * 200, row * (216 + STRIP + 4) + STRIP
    return np.array(picture)[top : top + 216, left : left + 196].astype(int)


def test_right_is_left_and_front_is_up_whatever_the_axes():
    first, _ = frames(case())
    ras = replace(case(), affine=np.diag([1.0, 1, 1, 1]), brain=case().brain[::-1, ::-1])
    ras = replace(ras, images={name: image[::-1, ::-1] for name, image in ras.images.items()})
    second, _ = frames(ras)
    assert len(first) == len(second) == 4
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))
    bright = tile(first[0], 0)[..., 0] > 200
    assert bright[:100, :90].all() and not bright[120:].any() and not bright[:, 110:].any()


def test_a_missing_modality_is_hatched_and_not_black():
    picture = frames(case())[0][0]
    hatched, given = tile(picture, 1), tile(picture, 3)
    assert set(np.unique(hatched)) == {60, 150} and not np.array_equal(hatched, given)
    np.testing.assert_array_equal(hatched, tile(picture, 2))
    np.testing.assert_array_equal(given, tile(picture, 0))


def test_outlines_lie_on_the_border_in_their_colours():
    pictures, first = frames(case(), found(), found())
    assert first == 2  # slices 1 to 4 are shown; slice 3 holds most
    picture = tile(pictures[2], 4)
    for name, corner in (("wt", (18, 18)), ("tc", (28, 28))):  # the brain begins at 2
        assert tuple(picture[corner]) == COLOURS[name]
    assert tuple(picture[24, 24]) == (255, 255, 255)
    assert not (picture == COLOURS["et"]).all(-1).any()
    np.testing.assert_array_equal(picture, tile(pictures[2], 5))
    assert not (tile(pictures[0], 4) == COLOURS["wt"]).all(-1).any()


def test_coarse_and_anisotropic_voxels_keep_their_proportions():
    coarse = case(np.diag([-4.0, -8.0, 4.0, 1.0]), shape=(44, 24, 6))
    width, height = frames(coarse)[0][0].size
    across, down = (width + 4) // 3 - 4, (height + 4) // 2 - 4 - STRIP
    assert across >= 190 and down == across  # 40 voxels of 4 mm and 20 of 8 mm


def test_at_most_so_many_slices():
    assert len(frames(case(shape=(200, 220, 60)), slices=7)[0]) == 7


def test_the_page_holds_every_slice_and_needs_nothing_else():
    html = slice_viewer(case(), found()).data
    sources = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)
    assert len(sources) == 5  # four slices, and the first one shown
    stored = Image.open(io.BytesIO(base64.b64decode(sources[0])))
    drawn, first = frames(case(), found())
    assert stored.size == (3 * 200 - 4, 2 * (216 + STRIP + 4) - 4) and first == 2
    difference = np.abs(np.array(stored.convert("RGB")).astype(int) - np.array(drawn[first]))
    assert difference.max() <= 5  # few greys are enough, and the outlines keep their colours
    assert tuple(tile(stored.convert("RGB"), 4)[18, 18]) == COLOURS["wt"]
    assert 'alt="Axial slices of case one &lt;1&gt;: t1, flair; missing: t1ce, t2; outlined: the prediction"' in html
    assert 'max="3" value="2"' in html and "<output>3</output> of 4" in html
    assert "http" not in html and html == slice_viewer(case(), found()).data


def test_regions_must_lie_on_the_grid_of_the_case():
    with pytest.raises(ValueError, match=r"truth has shape \(3, 6, 220, 200\), but case one <1> needs"):
        frames(case(), None, found().transpose(0, 3, 2, 1))
