"""What the explorer puts into a page comes out again."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_explorer import FIXED, explored, means
from PIL import Image

from mmlib.figures.explorer import explorer, pack, runs_of
from mmlib.figures.overlays import axial

COMPONENTS = Path(__file__).parents[2] / "book" / "_components"


def regions_of(runs, shape):
    """The regions (3, *shape) that `runs_of` packed."""
    values, left = [], iter(runs.tolist())
    for byte in left:
        value, length, shift = byte & 7, byte >> 3 & 15, 4
        while byte & 128:
            byte = next(left)
            length, shift = length | (byte & 127) << shift, shift + 7
        values += [value] * length
    whole = np.reshape(values, shape)
    return np.stack([(whole >> bit & 1).astype(bool) for bit in range(3)])


def volume_of(address, shape):
    """The image (row, column, slice) that stands in a sheet of slices."""
    height, width, depth = shape
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split("base64,")[1]))).convert("L"))
    tiles = sheet.reshape(-1, height, sheet.shape[1] // width, width).transpose(0, 2, 1, 3)
    return np.moveaxis(tiles.reshape(-1, height, width)[:depth], 0, -1).astype(int)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_runs_hold_regions_exactly(share):
    regions = np.random.default_rng(0).random((3, 40, 50, 60)) < share
    runs = runs_of(regions)
    assert runs.dtype == np.uint8 and len(runs) <= regions[0].size, "at most a byte a voxel, also of noise"
    np.testing.assert_array_equal(regions_of(runs, regions.shape[1:]), regions)


def test_a_short_run_is_one_byte_and_more_than_three_regions_are_refused():
    assert runs_of(np.ones((2, 15), bool)).tolist() == [15 << 3 | 3]
    assert runs_of(np.zeros((3, 16), bool)).tolist() == [128, 1]
    assert len(runs_of(np.zeros((1, 2**18), bool))) == 4
    with pytest.raises(ValueError, match="three bits"):
        runs_of(np.zeros((4, 1), bool))


def test_masks_are_those_of_the_case_around_its_brain():
    one = explored()
    packed = pack([one], means(), 40, 0.56, fixed=FIXED)
    (case,) = packed["cases"]
    runs = np.frombuffer(base64.b64decode(case["truth"]), "u1")
    turned = axial(one.case.regions, one.case.affine)
    restored = regions_of(runs, case["shape"])
    assert restored.sum() == turned.sum() and case["shape"] == [10, 12, 8]
    image = volume_of(case["images"]["t1ce"], case["shape"])
    assert image[restored[2]].min() > image[~restored[0]].max(), "what enhances is bright in t1ce"
    assert image[0].max() < 9, "a margin around the brain"
    assert case["times"] == 1, "nothing finer is shown"
    assert case["spacing"] == [3.0, 2.0, 4.0], "rows run front to back, columns left to right"
    at = case["start"]
    assert restored[0][:, :, at[0]].any() and restored[0][at[1]].any() and restored[0][:, at[2]].any()


def test_finer_voxels_are_shown_where_there_are_any_and_marks_of_networks_keep_theirs():
    coarse, fine = explored(), explored(finer=True)
    (usual,), (closer,) = (pack([one], means(), 40, fixed=FIXED)["cases"] for one in (coarse, fine))
    assert closer["times"] == 2 and closer["shape"] == [2 * size for size in usual["shape"]]
    assert closer["spacing"] == [1.5, 1.0, 2.0]
    assert closer["predicted"] == usual["predicted"] and closer["dice"] == usual["dice"]
    truth, finer = (
        regions_of(np.frombuffer(base64.b64decode(one["truth"]), "u1"), one["shape"]) for one in (usual, closer)
    )
    np.testing.assert_array_equal(finer, truth.repeat(2, 1).repeat(2, 2).repeat(2, 3), "both lie on one place")
    rows = volume_of(closer["images"]["t1"], closer["shape"])[2:-2].mean(axis=(1, 2))
    assert (np.diff(rows)[::2] > 0).all(), "detail that the case does not have"
    assert closer["filled"]["number"] == 8, "one of the two slices of the fourth"
    for at in closer["start"]:
        assert at >= 2


def test_voxels_that_do_not_fill_those_of_the_case_are_not_shown():
    one = explored(finer=True)
    for wrong in (one.shown.affine + 0.1, one.shown.affine * np.array([1.5, 1.5, 1.5, 1])):
        with pytest.raises(ValueError, match="do not hold a whole number"):
            pack([replace(one, shown=replace(one.shown, affine=wrong))], means(), 40, fixed=FIXED)


def test_slices_of_synthesis_are_packed_with_their_error():
    (case,) = pack([explored()], means(), 40, fillers={"regression unet": "regression"}, fixed=FIXED)["cases"]
    filled = case["filled"]
    assert filled["shape"] == [4, 5] and filled["number"] == 4, "one voxel of margin lies below the brain"
    grey = np.frombuffer(base64.b64decode(filled["acquired"]["t2"]), "u1")
    assert (grey[0], grey[-1]) == (0, 255)
    image, psnr = filled["made"]["regression unet"]["t1+t1ce"]["flair"]
    assert psnr == 12.3 and set(np.frombuffer(base64.b64decode(image), "u1")) == {127}
    assert "flair" not in filled["made"]["regression unet"]["flair"]


def test_a_combination_that_was_not_predicted_is_an_error():
    one = explored()
    del one.predicted["dropout-unet"]["t1"]
    with pytest.raises(ValueError, match=r"dropout-unet lacks predictions from \['t1'\]"):
        pack([one], means(), 40, fixed=FIXED)
    with pytest.raises(ValueError, match=r"protokd lacks predictions from \['t1ce'\]"):
        pack([explored()], means(), 40, fixed=FIXED | {"protokd": replace(FIXED["protokd"], reads="t1ce")})
    with pytest.raises(ValueError, match="no case"):
        pack([], {}, 0)


def test_the_page_holds_data_that_cannot_end_its_script():
    packed = pack([explored(rule="</script>")], means(), 40, None, "Smoke run. ", fixed=FIXED)
    html = explorer(packed, COMPONENTS, "a < b").html
    inside = html.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(inside) == packed and "a &lt; b" in html and html.count("</script>") == 2


def test_a_case_of_one_s_own_has_what_it_has():
    """Without a truth it has volumes; it opens on what was found from most images."""
    whole = explored()
    less = {kind: whole.case.images[kind] for kind in ("t1", "flair")}
    found = {"t1": np.zeros_like(whole.case.regions), "t1+flair": whole.case.regions}
    one = replace(whole, case=replace(whole.case, images=less, labels=None), predicted={"dropout-unet": found}, dice={})
    packed = pack([one], {}, 0, own=True)
    (case,) = packed["cases"]
    assert packed["own"] and list(case["images"]) == ["t1", "flair"] and case["truth"] is None and case["dice"] == {}
    voxels = found["t1+flair"].sum(axis=(1, 2, 3))
    assert case["volumes"]["dropout-unet"]["t1+flair"] == pytest.approx((voxels * 24 / 1000).tolist(), abs=0.006)
    assert pack([replace(one, predicted={})], {}, 0, own=True)["methods"] == []
    whole_case = pack([explored()], means(), 40, fixed=FIXED)["cases"][0]
    assert whole_case["volumes"] == {} and case["start"] == whole_case["start"], "where most is found"
    with pytest.raises(ValueError, match="dropout-unet lacks predictions"):
        pack([one], {}, 0)


def test_what_a_notebook_displays_names_no_address():
    """JupyterLab, VS Code and a saved page get this, and need nothing else."""
    shown = explorer(pack([explored()], {}, 0, own=True), COMPONENTS, "a caption")
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    for text in bundle.values():
        assert not re.search(r"(https?:)?//[\w.-]+\.\w|\bsrc=|\bhref=|\bimport\b *[({'\"]|\bfetch\(|url\(", text)
