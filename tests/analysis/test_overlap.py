"""What modalities hold of each other, where the answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmlib.analysis.overlap import brain_values, modality_overlap
from mmlib.data.cases import Case
from mmlib.modalities import MRI


def subjects(noise: float = 0.0, count: int = 3, voxels: int = 800) -> dict[str, np.ndarray]:
    """t1 and t2 are independent; t1ce is their mean and noise; flair is t2 squared, which no line predicts."""
    found = {}
    for seed in range(count):
        rng = np.random.default_rng(seed)
        t1, t2, unknown = rng.standard_normal((3, voxels))
        found[f"s{seed}"] = np.stack([t1, (t1 + t2) / 2 + noise * unknown, t2, t2**2], axis=1)
    return found


def value(table: pd.DataFrame, target: str, kind: str) -> float:
    return table[(table["target"] == target) & (table["kind"] == kind)]["value"].mean()


def test_what_is_a_sum_of_others_is_predicted_in_full_and_a_square_by_trees_alone() -> None:
    table = modality_overlap(subjects(), MRI)
    assert value(table, "t1ce", "r2-linear") == pytest.approx(1)
    assert abs(value(table, "flair", "r2-linear")) < 0.1 and value(table, "flair", "r2-trees") > 0.9


def test_noise_of_its_own_is_what_the_others_cannot_predict() -> None:
    # variance of t1ce: 1/2 from t1 and t2, 1/2 of its own: R2 = 1/2
    table = modality_overlap(subjects(noise=np.sqrt(0.5), voxels=4000), MRI)
    assert value(table, "t1ce", "r2-linear") == pytest.approx(0.5, abs=0.05)


def test_the_score_is_that_of_a_subject_never_seen() -> None:
    known = subjects()
    known["s2"] = np.random.default_rng(9).standard_normal((800, 4))  # nothing holds in this one
    table = modality_overlap(known, MRI).set_index(["subject", "target", "kind"])["value"]
    assert table["s2", "t1ce", "r2-linear"] < 0.3 < 0.9 < table["s0", "t1ce", "r2-trees"] + 0.5


def test_rows_and_columns_and_a_correlation_by_hand() -> None:
    table = modality_overlap(subjects(), MRI)
    assert list(table.columns) == ["subject", "target", "source", "value", "kind"]
    assert len(table) == 3 * (4 * 2 + 2)
    assert set(table[table["target"].eq("t1") & table["kind"].ne("correlation")]["source"]) == {"t1ce+t2+flair"}
    row = table[table["kind"].eq("correlation") & table["target"].eq("t1ce") & table["subject"].eq("s1")].iloc[0]
    values = subjects()["s1"]
    assert row["source"] == "t1" and row["value"] == pytest.approx(np.corrcoef(values[:, 0], values[:, 1])[0, 1])


def case_of(voxels: int = 6) -> Case:
    rng = np.random.default_rng(0)
    images = {name: np.zeros((voxels + 2,) * 3, np.float32) for name in ("t1", "t2")}
    for image in images.values():
        image[1:-1, 1:-1, 1:-1] = rng.uniform(1, 9, (voxels,) * 3)
    return Case("one", images, np.eye(4))


def test_values_are_those_of_the_brain_with_mean_0_and_deviation_1() -> None:
    values = brain_values(case_of(), ("t1", "t2"))
    assert values.shape == (216, 2)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-6)
    few = brain_values(case_of(), ("t1", "t2"), most=50)
    assert few.shape == (50, 2)
    np.testing.assert_array_equal(few, brain_values(case_of(), ("t1", "t2"), most=50))


def test_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match="case one lacks flair: leave it out"):
        brain_values(case_of(), ("t1", "flair"))
    with pytest.raises(ValueError, match="two subjects and two modalities are needed"):
        modality_overlap({"s0": np.zeros((4, 2))}, ("t1", "t2"), pairs=())
