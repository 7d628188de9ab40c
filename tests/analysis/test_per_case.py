"""Balanced accuracy and AUROC as values of cases: the mean is scikit-learn's number, the spread is the right one."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mmlib.analysis.per_case import auroc_values, balanced_accuracy_values


def test_balanced_accuracy_by_hand():
    truth, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    values = balanced_accuracy_values(predicted, truth)  # recalls 3/4 and 1/2, B = 5/8
    right, wrong = 5 / 8 + 6 / 8 * (1 / 4), 5 / 8 + 6 / 8 * (-3 / 4)
    assert values == pytest.approx([right, right, right, wrong, 5 / 8 + 6 / 4 / 2, 5 / 8 - 6 / 4 / 2])
    assert values.mean() == pytest.approx(5 / 8)


@pytest.mark.parametrize("seed", range(3))
def test_means_are_the_statistics(seed):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 5, 200) ** 2 // 5
    predicted = generator.permutation(truth)
    assert balanced_accuracy_values(predicted, truth).mean() == pytest.approx(balanced_accuracy_score(truth, predicted))
    scores, positive = generator.integers(0, 9, 200), generator.random(200) < 0.2  # with ties
    assert auroc_values(scores, positive).mean() == pytest.approx(roc_auc_score(positive, scores))


def test_auroc_by_hand():
    values = auroc_values(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False]))  # A = 3/4
    assert values == pytest.approx([3 / 4 + 2 / 4, 3 / 4 - 2 / 4, 3 / 4 - 2 / 4, 3 / 4 + 2 / 4])


def test_the_spread_of_the_values_is_that_of_the_statistic_under_repeated_sampling():
    generator = np.random.default_rng(0)
    areas, accuracies, spreads = [], [], []
    for _ in range(400):
        truth = generator.choice(3, 150, p=[0.7, 0.2, 0.1])
        predicted = np.where(generator.random(150) < np.array([0.9, 0.5, 0.3])[truth], truth, (truth + 1) % 3)
        positive = truth == 2
        scores = generator.normal(size=150) + positive
        both = balanced_accuracy_values(predicted, truth), auroc_values(scores, positive)
        accuracies.append(both[0].mean())
        areas.append(both[1].mean())
        spreads.append([values.std() / np.sqrt(150) for values in both])
    assert np.mean(spreads, axis=0) == pytest.approx([np.std(accuracies), np.std(areas)], rel=0.08)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"as many predictions as true classes, one or more; got \(2,\) and \(3,\)"):
        balanced_accuracy_values(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="AUROC needs positive and negative cases; 0 of 3 are positive"):
        auroc_values(np.arange(3), np.zeros(3))
