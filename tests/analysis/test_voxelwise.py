import numpy as np
import pytest

from mmlib.analysis.voxelwise import voxel_features, voxelwise_dice
from mmlib.data.cases import Case
from mmlib.data.phantoms.brain import make_subject
from mmlib.modalities import MRI


@pytest.fixture(scope="module")
def cases():
    return {f"phantom-{seed:04d}": make_subject(seed, 8.0) for seed in range(10)}


def parts(cases):
    names = list(cases)
    return names[:6], names[4:6], names[6:]


def test_features_are_the_intensity_and_two_local_means_of_each_modality():
    images = {name: np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32) + 10 for name in ("t1", "t2")}
    images["t1"][0] = images["t2"][0] = 0  # outside of the brain
    case = Case("a", images, np.diag([4.0, 4, 4, 1]))
    found = voxel_features(case, ("t1", "t2"))
    assert found.shape == (5 * 36, 6)
    np.testing.assert_allclose(found[:, [0, 3]].mean(0), 0, atol=1e-5)
    assert (found[:, [1, 4]].std(0) < found[:, [0, 3]].std(0)).all()  # smoothed


def test_trees_see_enhancement_in_t1ce_alone(cases):
    found = voxelwise_dice(cases, *parts(cases), [("t1",), ("t1ce",)], MRI)
    means = found.groupby(["available", "target"])["value"].mean()
    assert len(found) == 2 * 4 * 3
    assert means["t1ce", "et"] > means["t1", "et"] + 0.1


def test_labels_of_test_cases_reach_no_tree(cases):
    """With the truth of one test case emptied, the scores of the others stay."""
    train, tune, test = parts(cases)
    before = voxelwise_dice(cases, train, tune, test, [("t1ce",)], MRI)
    changed = dict(cases)
    old = cases[test[0]]
    changed[test[0]] = make_subject(0, 8.0)
    after = voxelwise_dice(changed, train, tune, test, [("t1ce",)], MRI)
    assert old is not changed[test[0]]
    same = before["case"] != test[0]
    assert before[same].equals(after[same])
