"""Features with a known answer: apart by modality, the same for all modalities, collapsed, and without structure."""

import numpy as np
import pytest

from mmlib.analysis.features import embed, modality_probe, modality_silhouette, retrieval

GENERATOR = np.random.default_rng(0)
RANDOM = GENERATOR.normal(size=(30, 4, 16))
APART = 0.1 * RANDOM + GENERATOR.normal(size=(4, 16))  # the modality is all they tell
SHARED = np.repeat(GENERATOR.normal(size=(30, 1, 16)), 4, axis=1)  # the case is all they tell
COLLAPSED = np.full((30, 4, 16), 3.0) + 1e-7 * RANDOM  # differences of rounding


def test_probe():
    assert modality_probe(APART) == 1
    assert modality_probe(SHARED) == 0.25
    assert abs(modality_probe(GENERATOR.normal(size=(200, 4, 6))) - 0.25) < 0.08
    assert modality_probe(np.stack([RANDOM[:, 0], RANDOM[:, 1] + 10], axis=1)) == 1, "two modalities"


def test_silhouette():
    score, p = modality_silhouette(APART, permutations=99)
    assert score > 0.8 and p == 0.01
    score, p = modality_silhouette(SHARED, permutations=99)
    assert score < 0 and p == 1, "every permutation is the data again"
    assert modality_silhouette(np.full((30, 4, 16), 3.0), permutations=99) == (0, 1)


def test_silhouette_by_hand():
    """Two cases at 0 and 1 in modality a, at 10 and 11 in b: s = 1 - 1 / 10.5 for the outer points, 1 - 1 / 9.5."""
    features = np.array([[[0.0], [10.0]], [[1.0], [11.0]]])
    expected = 1 - (1 / 10.5 + 1 / 9.5) / 2
    score, p = modality_silhouette(features, permutations=3)
    assert score == pytest.approx(expected)
    assert p >= 1 / 4


def test_p_is_uniform_where_modalities_are_alike():
    generator = np.random.default_rng(1)
    p = [modality_silhouette(generator.normal(size=(8, 3, 4)), 39, seed)[1] for seed in range(100)]
    assert 0.4 < np.mean(p) < 0.6
    assert np.mean(np.array(p) <= 0.25) == pytest.approx(0.25, abs=0.12)


def test_what_a_case_shares_does_not_count_as_separation():
    features = 5 * SHARED + RANDOM
    assert modality_silhouette(features, permutations=99)[1] > 0.05


def test_retrieval():
    assert retrieval(SHARED) == 1
    assert retrieval(SHARED + 0.01 * RANDOM) == 1
    assert abs(retrieval(GENERATOR.normal(size=(200, 3, 8))) - 1 / 200) < 0.02
    assert retrieval(COLLAPSED) == retrieval(np.zeros((30, 4, 16))) == pytest.approx(1 / 30), "ties share a hit"
    by_modality = np.broadcast_to(np.eye(4, 16), (30, 4, 16))
    assert retrieval(by_modality) == pytest.approx(1 / 30), "the modality alone finds no case"


def test_retrieval_by_hand():
    """From a to b: case 0 ties with 2 (1/2), 1 hits, 2 finds 1. From b to a: 0 hits, 1 ties with 2 (1/2), 2 finds 0."""
    x, y = [1.0, 0.0], [0.0, 1.0]
    assert retrieval(np.array([[x, x], [y, y], [y, x]])) == pytest.approx(3 / 6)


def test_layout_keeps_the_order_and_can_be_repeated():
    points = embed(APART, perplexity=5)
    assert points.shape == (120, 2)
    assert np.array_equal(points, embed(APART, perplexity=5))
    centres = points.reshape(30, 4, 2).mean(axis=0)
    spread = points.reshape(30, 4, 2).std(axis=0).max()
    assert min(np.linalg.norm(centres[a] - centres[b]) for a in range(4) for b in range(a)) > spread
    assert embed(APART[:2], perplexity=30).shape == (8, 2), "few rows: fewer neighbours"
    assert not embed(np.full((5, 2, 3), 7.0)).any()


@pytest.mark.parametrize("measure", [modality_probe, modality_silhouette, retrieval, embed])
def test_errors(measure):
    with pytest.raises(ValueError, match="needs two complete cases or more; got 1"):
        measure(RANDOM[:1])
    with pytest.raises(ValueError, match=r"of two modalities or more; got shape \(30, 1, 16\)"):
        measure(RANDOM[:, :1])
    with pytest.raises(ValueError, match="1 values not finite"):
        measure(np.concatenate([RANDOM.ravel()[:-1], [np.nan]]).reshape(RANDOM.shape))


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="method must be 'tsne' or 'umap'; got 'pca'"):
        embed(RANDOM, method="pca")
