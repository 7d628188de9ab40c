"""Measures of synthesised slices beside an error, against values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mmlib.analysis import realism


def slices(count: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 12, 10, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_sharpness_of_a_ramp_is_the_ratio_of_the_slopes() -> None:
    ramp = (torch.arange(6.0)[:, None] * 3 + torch.arange(5.0) * 4)[None] / 30  # gradient 5 / 30 everywhere
    brain = torch.ones(1, 6, 5, dtype=torch.bool)
    size, inside = realism.gradients(ramp, brain)
    assert size.shape == (1, 5, 4) and torch.allclose(size, torch.tensor(5 / 30)) and inside.all()
    assert realism.sharpness(0.5 * ramp, ramp, brain).tolist() == pytest.approx([0.5])
    step = torch.where(torch.arange(6)[:, None] < 3, ramp, ramp + 9)  # a jump that the brain's border hides
    brain[:, 2] = False
    assert realism.sharpness(step, ramp, brain).tolist() == pytest.approx([1.0])


def test_the_power_of_a_wave_lies_at_its_frequency() -> None:
    wave = torch.cos(2 * math.pi * 8 * torch.arange(64) / 64).expand(1, 64, 64)  # 1/8 cycle per pixel: bin 4
    power = realism.radial_power(wave - 1)  # without a mean, which is bin 0
    assert power.shape == (1, 16) and power.argmax() == 4
    frequency = torch.fft.fftfreq(64)
    ring = (torch.hypot(frequency[:, None], frequency[None]) * 32).long()
    # two of the 64 x 64 waves have it, with an amplitude of one half each
    assert power[0, 4].item() == pytest.approx(2 * (64 * 64 / 2) ** 2 / int((ring == 4).sum()))
    assert power[0, [0, 1, 2, 3, *range(5, 16)]].max() < 1e-6 * power[0, 4]


def test_slices_of_the_same_kind_cannot_be_told_apart_and_smoothed_ones_can() -> None:
    brain, names = torch.ones(40, 12, 10, dtype=torch.bool), [f"subject-{row // 2}" for row in range(40)]
    same = realism.two_sample_test(slices(), slices(seed=1), brain, names)
    assert same.low < 0.5 < same.high and same.low <= same.value <= same.high
    smooth = torch.nn.functional.avg_pool2d(slices(seed=1)[:, None], 3, 1, 1)[:, 0]
    assert realism.two_sample_test(slices(), smooth, brain, names).value > 0.95
    with pytest.raises(ValueError, match="slices of two subjects or more; got 1"):
        realism.two_sample_test(slices(), smooth, brain, ["a"] * 40)


def test_intervals_over_subjects_are_those_of_weighted_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the classifier says: here rounded numbers, so that some tie, and subjects of unlike size."""
    rng, sizes = np.random.default_rng(0), [2, 5, 9, 4]
    names, target = np.repeat(["a", "b", "c", "d"], sizes), np.repeat([0, 1], 20)
    said = rng.normal(target, 1).round(1)
    monkeypatch.setattr(realism, "cross_val_predict", lambda *arguments, **options: said)
    images, brain = torch.rand(20, 8, 8), torch.ones(20, 8, 8, dtype=torch.bool)
    found = realism.two_sample_test(images, images, brain, names, draws=40, seed=3)
    counts = np.random.default_rng(3).multinomial(4, [0.25] * 4, size=40)
    weights = np.tile(np.repeat(counts, sizes, axis=1), 2)
    areas = [roc_auc_score(target, said, sample_weight=weight) for weight in weights]
    assert found.value == pytest.approx(roc_auc_score(target, said))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])))


def test_calibration_of_two_results_by_hand() -> None:
    results = torch.tensor([[[0.0, 0.2], [0.0, 9.0]], [[0.4, 0.4], [0.2, 9.0]]])
    truth, mask = torch.tensor([[0.1, 0.5], [0.1, 0.0]]), torch.tensor([[True, True], [True, False]])
    found = realism.calibration(results, truth, mask)
    # standard deviations 0.4, 0.2, 0.2 over sqrt(2); means 0.2, 0.3, 0.1, which are off by 0.1, -0.2, 0
    assert found.spread == pytest.approx(math.sqrt((0.08 + 0.02 + 0.02) / 3))
    assert found.error == pytest.approx(math.sqrt((0.01 + 0.04 + 0) / 3))
    assert found.honesty == pytest.approx(found.spread * math.sqrt(1.5) / found.error)
    assert found.coverage == pytest.approx(2 / 3) and found.nominal == pytest.approx(1 / 3)
    for several, area in ((results[:1], mask), (results, mask & False)):
        with pytest.raises(ValueError, match="calibration needs two results and a pixel"):
            realism.calibration(several, truth, area)


def test_a_truth_that_is_one_more_result_is_covered_as_often_as_said() -> None:
    drawn = torch.randn(7, 100, 100, generator=torch.Generator().manual_seed(0))
    found = realism.calibration(drawn[:6], drawn[6], torch.ones(100, 100, dtype=torch.bool))
    assert found.nominal == pytest.approx(5 / 7) and found.coverage == pytest.approx(5 / 7, abs=0.02)
    assert found.honesty == pytest.approx(1, abs=0.03)


def test_what_is_found_and_what_is_invented_by_hand() -> None:
    truth = torch.tensor([1.0, 1.0, 0.0, 0.0])
    inside = truth == 1
    assert realism.found_and_invented(truth, truth, inside, ~inside) == (1, 0)
    assert realism.found_and_invented(torch.tensor([0.9, 0.2, 0.6, 0.4]), truth, inside, ~inside) == (0.5, 0.5)
    assert realism.found_and_invented(-truth, -truth, inside, ~inside) == (1, 0), "a dark region is a region too"
    blind = torch.full((4,), 0.8)
    assert realism.found_and_invented(blind, truth, inside, ~inside) == (1, 1)


def test_the_least_error_is_that_of_the_mean_of_both_regions() -> None:
    truth = torch.tensor([3.0, 0.0, 0.0, 0.0])
    expected = float((truth - truth.mean()).square().mean().sqrt())
    assert realism.least_error(truth, truth == 3, truth == 0) == pytest.approx(expected)
