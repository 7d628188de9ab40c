"""Scores by hand, all combinations at once against one by one, and the way back to the native grid."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmlib.data.cases import Case
from mmlib.data.phantoms.brain import make_subject
from mmlib.methods.shaspec import ShaSpecSegmenter
from mmlib.modalities import MRI, combinations, mask
from mmlib.tasks.segmentation import (
    calibration_error,
    dice,
    entropy,
    evaluate_combinations,
    hd95,
    pooled_features,
    predict,
    probabilities,
    watched_dice,
)


class Threshold(nn.Module):
    """Marks every region where the mean of the available z-scored images is above 0: no training, known answer."""

    modalities, stride = MRI, (4, 4, 4)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def encode(self, images, available):
        return images

    def decode(self, encoding, available):
        weights = available.float() / available.sum(dim=1, keepdim=True)
        return self.scale * torch.einsum("km,mdhw->kdhw", weights, encoding[0])[:, None].expand(-1, 3, -1, -1, -1)


def case(lacking: tuple[str, ...] = (), labelled: bool = True) -> Case:
    images = np.zeros((10, 12, 9), dtype=np.float32)
    images[2:8, 2:9, 1:7] = 1
    labels = np.zeros(images.shape, dtype=np.int16)
    labels[4:6, 4:8, 3:5] = 4
    images[labels > 0] = 5
    given = {name: images for name in MRI if name not in lacking}
    return Case("made", given, np.diag([2.0, 3.0, 4.0, 1.0]), labels if labelled else None)


def test_a_model_that_sees_the_tumour_scores_one():
    scores = evaluate_combinations(Threshold(), [case()])
    assert list(scores.columns) == ["case", "available", "target", "metric", "value"]
    assert len(scores) == 15 * 3 * 2
    assert (scores.loc[scores["metric"] == "dice", "value"] == 1).all()
    assert (scores.loc[scores["metric"] == "hd95", "value"] == 0).all()


def test_the_watched_score_is_the_mean_over_all_modalities_and_each_alone():
    spoilt = case()
    spoilt = Case("spoilt", {**spoilt.images, "t1": np.roll(spoilt.images["t1"], 3, 0)}, spoilt.affine, spoilt.labels)
    scores = evaluate_combinations(Threshold(), [spoilt], hausdorff=False)
    means = scores.groupby("available")["value"].mean()
    assert means["t1"] < means["t2"], "else the test shows nothing"
    watched = watched_dice([spoilt])(Threshold().eval())
    assert watched == pytest.approx(means[["t1+t1ce+t2+flair", *MRI]].mean())
    assert watched_dice([spoilt], ("t1",))(Threshold().eval()) == pytest.approx(means["t1"])


def test_combinations_with_a_lacking_modality_are_left_out():
    scores = evaluate_combinations(Threshold(), {"made": case(lacking=("t2", "flair"))}, hausdorff=False)
    assert list(scores["available"].unique()) == ["t1", "t1ce", "t1+t1ce"]
    asked = evaluate_combinations(Threshold(), [case()], [("flair", "t1")], hausdorff=False)
    assert list(asked["available"].unique()) == ["t1+flair"]


def test_dice_by_hand():
    truth = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]]).bool().view(2, 1, 2, 2)
    predicted = torch.tensor([[[1, 0, 1, 0], [0, 0, 0, 0]], [[0, 0, 0, 0], [1, 0, 0, 0]]]).bool().view(2, 2, 1, 2, 2)
    assert dice(predicted, truth).tolist() == [[0.5, 1.0], [0.0, 0.0]]


def test_hd95_by_hand():
    one, other = torch.zeros(9, 9, 9, dtype=torch.bool), torch.zeros(9, 9, 9, dtype=torch.bool)
    one[4, 4, 2], other[4, 4, 5] = True, True
    assert hd95(one, other, (1, 1, 2)) == 6
    nothing = torch.zeros_like(one)
    assert hd95(nothing, nothing, (1, 1, 1)) == 0
    assert math.isnan(hd95(one, nothing, (1, 1, 1))) and math.isnan(hd95(nothing, one, (1, 1, 1)))


def test_all_combinations_at_once_equal_one_by_one():
    torch.manual_seed(0)
    model, subject = ShaSpecSegmenter(MRI, (8, 16)), make_subject(0)
    model.decoder.out.bias.data += 0.1  # an untrained net marks about half of the voxels
    together = evaluate_combinations(model, [subject], hausdorff=False)
    apart = [evaluate_combinations(model, [subject], [one], hausdorff=False) for one in combinations(MRI)]
    values = np.concatenate([part["value"] for part in apart])
    assert together["value"].to_numpy() == pytest.approx(values, abs=1e-5)
    assert together["value"].nunique() > 3


def test_windows_agree_with_the_whole_volume_for_a_voxelwise_model():
    images = torch.randn(4, 20, 24, 12)
    available = torch.stack([mask(("t1",), MRI), mask(MRI, MRI)])
    whole = probabilities(Threshold(), images, available, window=32)
    tiled = probabilities(Threshold(), images, available, window=8)
    assert whole.shape == (2, 3, 20, 24, 12)
    assert torch.allclose(whole, tiled, atol=1e-6)


class Places(nn.Module):
    """Marks nothing; remembers the first voxel of each window, which the images hold as coordinates."""

    modalities, stride = ("z", "y", "x"), (1, 1, 1)

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.zeros(1)), set()

    def encode(self, images, available):
        self.seen.add(tuple(images[0, :, 0, 0, 0].int().tolist()))
        return images[:, :1]

    def decode(self, encoding, available):
        return torch.zeros_like(encoding)


def seen(model: Places, window=None) -> set:
    images = torch.stack(torch.meshgrid(*(torch.arange(side) for side in (20, 24, 12)), indexing="ij")).float()
    probabilities(model, images, torch.ones(1, 3, dtype=torch.bool), window)
    return model.seen


def test_a_network_is_shown_windows_as_large_as_its_training_crops():
    known = Places()
    known.window = [8, 12, 8]
    assert seen(known) == seen(Places(), [8, 12, 8]) and len(known.seen) > 1
    assert seen(Places()) == {(0, 0, 0)}, "in one piece where the crop is not known"
    asked = Places()
    asked.window = 8
    assert seen(asked, 32) == {(0, 0, 0)}, "what the caller asks for comes first"


def test_windows_of_the_released_code_g3():
    """Steps of 54, 107 and 107 voxels for windows of 80 x 160 x 160; the last window is shifted to fit."""
    images = torch.stack(torch.meshgrid(*(torch.arange(float(side)) for side in (155, 160, 300)), indexing="ij"))
    model = Places()
    probabilities(model, images, torch.ones(1, 3, dtype=torch.bool), window=(80, 160, 160))
    assert model.seen == {(z, 0, x) for z in (0, 54, 75) for x in (0, 107, 140)}


def untrained() -> ShaSpecSegmenter:
    torch.manual_seed(0)
    model = ShaSpecSegmenter(MRI, (8, 16))
    model.decoder.out.bias.data += 0.1  # an untrained net marks about half of the voxels
    return model


@pytest.mark.parametrize("content", ["a voxel outside the head", 1e9, math.nan])
def test_a_hidden_modality_moves_neither_box_nor_intensities(content):
    model, subject = untrained(), make_subject(0)
    flair = subject.images["flair"].astype(np.float64)  # a copy that can hold NaN
    if isinstance(content, str):
        flair[0, 0, 0] = 1
    else:
        flair[:] = content
    other = replace(subject, images={**subject.images, "flair": flair})
    shown = [("t1",), ("t1", "t2")]
    for one in shown:
        assert np.array_equal(predict(model, subject, one), predict(model, other, one))
    scores = [evaluate_combinations(model, [each], shown, hausdorff=False) for each in (subject, other)]
    assert scores[0].equals(scores[1]) and scores[0]["value"].nunique() > 3


def test_where_all_images_show_one_brain_a_case_is_encoded_once_and_else_once_for_each_box():
    model, calls = Threshold(), []
    model.encode = lambda images, available: calls.append(available) or images
    evaluate_combinations(model, [case()], hausdorff=False)
    assert len(calls) == 1 and calls[0].all()
    wider = case()
    wider.images["flair"] = np.pad(wider.images["flair"][:, :, 1:], ((0, 0), (0, 0), (0, 1)))  # one voxel lower
    evaluate_combinations(model, [wider], hausdorff=False)
    assert len(calls) == 4  # without flair, flair alone, with flair and others


def test_a_tumour_outside_the_box_counts_in_the_score():
    given = case()
    given.labels[0, 0, 0:8] = 2  # 8 voxels of air beside 16 of tumour
    scores = evaluate_combinations(Threshold(), [given], [("t1",)], hausdorff=False)
    assert scores.loc[scores["target"] == "wt", "value"].item() == pytest.approx(2 * 16 / (16 + 24))


def test_pooled_features_are_computed_where_the_model_is():
    class Elsewhere(Threshold):
        def encode(self, images, available):
            assert images.device.type == available.device.type == "meta"
            return SimpleNamespace(shared=torch.ones(1, 4, 2, 1, 1, 1), specific=torch.ones(1, 4, 2, 1, 1, 1))

    assert pooled_features(Elsewhere().to("meta"), [case()])["shared"].shape == (1, 4, 2)


def test_prediction_lies_where_the_tumour_is_in_the_native_grid():
    given = case(lacking=("t1",), labelled=False)
    found = predict(Threshold(), given)
    assert found.shape == (3, 10, 12, 9) and found.dtype == bool
    assert np.array_equal(found[0], given.images["t2"] == 5)


def test_pooled_features():
    torch.manual_seed(0)
    found = pooled_features(ShaSpecSegmenter(MRI, (8, 16)), [make_subject(seed) for seed in range(2)])
    assert found["shared"].shape == found["specific"].shape == (2, 4, 16)


def test_errors():
    with pytest.raises(ValueError, match="case made has no labels, so it cannot be scored"):
        evaluate_combinations(Threshold(), [case(labelled=False)])
    with pytest.raises(ValueError, match="nothing to score"):
        evaluate_combinations(Threshold(), [case(lacking=("t1",))], [("t1",)])
    with pytest.raises(ValueError, match=r"case made lacks \['t1'\]"):
        predict(Threshold(), case(lacking=("t1",)), ("t1", "t2"))


def test_calibration_by_hand():
    probability = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.1, 0.5])
    truth = torch.tensor([True, True, True, False, False, True])
    inside = torch.tensor([True, True, True, True, True, False])
    # one bin of four: 0.9 said, 0.75 true; one of one: 0.1 said, 0 true
    assert calibration_error(probability, truth, inside) == pytest.approx(4 / 5 * 0.15 + 1 / 5 * 0.1)
    assert calibration_error(truth.float(), truth, inside) == 0
    assert math.isnan(calibration_error(probability, truth, ~inside & inside))
    assert entropy(torch.tensor([0.5, 0.0, 1.0, 0.25])) == pytest.approx((1 + 0.811278) / 4, rel=1e-5)
    assert math.isnan(entropy(torch.tensor([])))


def test_calibration_is_computed_in_the_brain_and_leaves_dice_as_it_is():
    plain = evaluate_combinations(Threshold(), [case()], hausdorff=False)
    scores = evaluate_combinations(Threshold(), [case()], hausdorff=False, calibration=True)
    assert scores[scores["metric"] == "dice"].reset_index(drop=True).equals(plain)
    assert scores["metric"].value_counts().to_dict() == {
        name: 45 for name in ("dice", "ece", "entropy", "entropy-inside")
    }
    values = scores[(scores["available"] == "t1") & (scores["target"] == "wt")].set_index("metric")["value"]
    made = case()
    brain = made.brain_mask
    image = made.images["t1"]
    share = torch.from_numpy((image - image[brain].mean()) / image[brain].std()).mul(10).sigmoid()[brain]
    assert values["entropy"] == pytest.approx(entropy(share), rel=1e-4)
    truth, inside = torch.from_numpy(made.labels > 0)[brain], torch.ones(int(brain.sum()), dtype=torch.bool)
    assert values["ece"] == pytest.approx(calibration_error(share, truth, inside), rel=1e-4)
