"""Measures of synthesised images on answers worked out by hand, what is scored, and the trivial baselines."""

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import SSIMMetric
from skimage.metrics import structural_similarity

from mmlib.data.slices import Slices, patterns
from mmlib.modalities import IXI
from mmlib.tasks.synthesis import CopyNearest, MeanImage, evaluate_synthesis, mae, mean_scores, psnr, ssim


def make_slices(count: int = 6, side: int = 16, seed: int = 0, modalities: tuple[str, ...] = IXI) -> Slices:
    """Random slices of two subjects, three heights each, brain in the middle."""
    generator = torch.Generator().manual_seed(seed)
    brain = torch.zeros(count, side, side, dtype=torch.bool)
    brain[:, 4:12, 4:12] = True
    images = torch.rand(count, len(modalities), side, side, generator=generator) * 1.8 - 0.9
    images = torch.where(brain[:, None], images, -1)
    labels = torch.zeros(count, side, side, dtype=torch.uint8)
    labels[0, 5:7, 5:7] = 4
    subjects = tuple(f"s{index // 3}" for index in range(count))
    available = torch.ones(count, len(modalities), dtype=torch.bool)
    position = torch.arange(count) % 3
    return Slices(images, available, brain, labels, subjects, subjects, position, modalities)


def test_errors_by_hand():
    truth = torch.full((2, 2, 2), -1.0)
    prediction = truth.clone()
    prediction[0, 0, 0] = 0.0  # squares: 1, 0, 0, 0
    inside = torch.zeros(2, 2, 2, dtype=torch.bool)
    inside[:, 0] = True  # of which two in the mask
    # range 2: 10 log10(4 / 0.25), 10 log10(4 / 0.5); the second image is exact
    assert psnr(prediction, truth).tolist() == pytest.approx([12.0411998, 100])
    assert psnr(prediction, truth, inside).tolist() == pytest.approx([9.0308999, 100])
    assert mae(prediction, truth).tolist() == pytest.approx([12.5, 0])
    assert mae(prediction, truth, inside).tolist() == pytest.approx([25, 0])
    assert psnr(prediction, truth, inside & False).isnan().all()
    assert psnr(truth, -truth).tolist() == pytest.approx([0, 0]) and mae(truth, -truth).tolist() == [100, 100]


def test_ssim_agrees_with_monai_and_scikit_image():
    first, second = make_slices(2, side=32).images[:, :2].unbind(dim=1)
    found = ssim(first, second)
    monai = SSIMMetric(spatial_dims=2, data_range=2.0)(first[:, None] + 1, second[:, None] + 1)
    np.testing.assert_allclose(found, monai[:, 0], rtol=1e-5)
    settings = {"data_range": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    _, values = structural_similarity(first[0].numpy() + 1, second[0].numpy() + 1, **settings)
    assert float(found[0]) == pytest.approx(values[5:-5, 5:-5].mean(), rel=1e-4)
    # where the mask keeps off the border, it is the mean of the same map
    inside = torch.zeros(2, 32, 32, dtype=torch.bool)
    inside[:, 8:20, 10:15] = True
    assert float(ssim(first, second, inside)[0]) == pytest.approx(values[8:20, 10:15].mean(), rel=1e-4)
    assert ssim(first, first).tolist() == pytest.approx([1, 1]) == ssim(first, first, inside).tolist()


def test_two_constant_images_have_the_ssim_of_the_formula():
    """Means 1 and 1.5 after raising, no variance: (2 * 1.5 + c) / (1 + 2.25 + c), c = 0.02^2."""
    images = torch.zeros(1, 16, 16)
    assert float(ssim(images, images + 0.5)) == pytest.approx(3.0004 / 3.2504, abs=1e-3)


def test_only_what_is_missing_is_scored_per_subject():
    slices = make_slices()
    shift = torch.tensor([0.02, 0.04, 0.06, 0.2, 0.4, 0.6])  # of each slice
    seen = []

    def synthesise(images, available):
        seen.append((images.clone(), available.clone()))
        rows = [
            int((slices.images[:, available[0]] == image[available[0]]).flatten(1).all(1).nonzero()) for image in images
        ]
        return slices.images[rows] + shift[rows, None, None, None]

    table = evaluate_synthesis(synthesise, slices, regions={"et": (4,)}, batch_size=4)
    assert set(table["available"]) == {"t1", "t2", "pd", "t1+t2", "t1+pd", "t2+pd"}
    assert not any(
        target in names.split("+") for names, target in zip(table["available"], table["target"], strict=True)
    )
    values = table.set_index(["case", "available", "target", "metric"])["value"]
    assert values.index.is_unique
    assert values["s0", "t1", "t2", "mae"] == pytest.approx(2, abs=1e-4)
    assert values["s1", "t1+pd", "t2", "mae-brain"] == pytest.approx(20, abs=1e-4)
    by_slice = [10 * np.log10(4 / value**2) for value in (0.02, 0.04, 0.06)]
    assert values["s0", "t1", "pd", "psnr"] == pytest.approx(np.mean(by_slice), abs=1e-3)
    assert values["s0", "t1", "pd", "psnr-et"] == pytest.approx(by_slice[0], abs=1e-3)  # the one slice that has some
    assert not [key for key in values.index if key[0] == "s1" and key[3].endswith("-et")]
    assert len(table) == 9 * (6 * 2) + 9 * 3
    for images, available in seen:  # nothing of what is missing is handed over
        assert (images[~available] == 0).all()


def test_an_incomplete_case_is_scored_where_there_is_a_truth():
    slices = make_slices()
    slices.available[3:, 1] = False
    table = evaluate_synthesis(lambda images, available: images, slices)
    own = table[table["case"] == "s1"]
    assert set(zip(own["available"], own["target"], strict=True)) == {("t1", "pd"), ("pd", "t1")}
    assert np.isfinite(table["value"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": [IXI]}, r"t1\+t2\+pd leaves nothing to synthesise"),
        (
            {"synthesise": lambda images, available: images[:, :1]},
            r"returned \(6, 1, 16, 16\) for images of \(6, 3, 16",
        ),
    ],
)
def test_faults_are_named(arguments, message):
    given = {"synthesise": lambda images, available: images, "slices": make_slices(), **arguments}
    with pytest.raises(ValueError, match=message):
        evaluate_synthesis(**given)


def test_regions_need_labels_and_scores_need_a_truth():
    slices = make_slices()
    object.__setattr__(slices, "labels", None)
    with pytest.raises(ValueError, match="the region et is asked for, but the slices have no labels"):
        evaluate_synthesis(lambda images, available: images, slices, regions={"et": (4,)})
    slices.available[:, 1:] = False
    with pytest.raises(ValueError, match="nothing to score: no slice has all of one of"):
        evaluate_synthesis(lambda images, available: images, slices)


def test_the_mean_image_by_hand():
    train = make_slices()
    floor = MeanImage(train)
    one = train.subset([1, 2])
    available = torch.tensor([[True, False, False], [False, True, True]])
    made = floor(torch.where(available[..., None, None], one.images, torch.nan), available)
    for row, height in enumerate((1, 2)):
        torch.testing.assert_close(made[row], train.images[[height, height + 3]].mean(dim=0))


def test_a_copy_by_hand():
    train = make_slices()
    noise = train.images[:, 2].clone()
    train.images[:, 1] = torch.where(train.brain, 0.2 - 0.5 * train.images[:, 0], -1)
    train.images[:, 2] = torch.where(train.brain, 0.5 * train.images[:, 0] + 0.2 * noise, -1)
    floor = CopyNearest(train)
    assert float(floor.correlation[0, 1]) == pytest.approx(-1)
    assert (float(floor.slope[1, 0]), float(floor.intercept[1, 0])) == pytest.approx((-0.5, 0.2), abs=1e-5)
    available = torch.tensor([[True, False, True]]).expand(6, 3)
    made = floor(torch.where(available[..., None, None], train.images, torch.nan), available)
    torch.testing.assert_close(made, train.images)  # t2 is a line of t1, which is nearer than pd
    lone = torch.tensor([[False, False, True]]).expand(6, 3)
    x, y = (train.images[:, m][train.brain].double().numpy() for m in (2, 0))
    slope, intercept = np.polyfit(x, y, 1)
    made = floor(train.images, lone)
    np.testing.assert_allclose(made[:, 0][train.brain], np.clip(slope * x + intercept, -1, 1), atol=1e-5)
    assert (made[:, 0][~train.brain] == -1).all()


def test_a_truth_beats_the_floors_and_floors_need_complete_cases():
    train = make_slices()
    tables = [evaluate_synthesis(floor(train), make_slices(seed=1)) for floor in (MeanImage, CopyNearest)]
    assert [len(table) for table in tables] == [108, 108] and len(patterns(IXI)) == 6
    assert (pd.concat(tables).query("metric == 'psnr'")["value"] < 100).all()
    train.available[:, 1] = False
    for floor in (MeanImage, CopyNearest):
        with pytest.raises(ValueError, match="no training case has all modalities: a floor needs some that do"):
            floor(train)


def test_means_over_what_is_missing():
    rows = [("a", "t1+t2", "pd", "psnr", 30.0), ("a", "t1+pd", "t2", "psnr", 20.0), ("a", "t1", "t2", "psnr", 12.0)]
    rows += [("a", "t1", "pd", "psnr", 16.0), ("b", "t1+t2", "pd", "psnr", 28.0), ("a", "t1+t2", "pd", "psnr-et", 9.0)]
    scores = pd.DataFrame(rows, columns=["case", "available", "target", "metric", "value"])
    found = mean_scores(scores, ("t1", "t2", "pd"))
    assert found.head(len(scores)).equals(scores)
    means = found.iloc[len(scores) :].set_index(["case", "available"])["value"]
    assert means.to_dict() == {("a", "one missing"): 25.0, ("a", "several missing"): 14.0, ("b", "one missing"): 28.0}
    assert set(found["metric"].iloc[len(scores) :]) == {"psnr-mean"}


def test_ssim_is_the_same_where_networks_run_in_bfloat16():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 24, 24, generator=generator) * 2 - 1
    flat = torch.full_like(truth, 0.003)
    expected = ssim(flat, truth)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim(flat, truth), expected)
