"""Balanced accuracy and AUROC as one value per case, so that their intervals come from resampling cases.

Both are statistics of a whole test set and no means over cases. Each is turned into its influence values: the mean over
cases is the statistic, exactly, and the spread over cases is its sampling spread to first order. For AUROC these are
the components of DeLong, DeLong and Clarke-Pearson (Biometrics 1988); for balanced accuracy the same with recalls.
So `mmlib.analysis.statistics` treats them as any score of a case: seeds and cases resampled, arms paired by case.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def balanced_accuracy_values(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Influence values of balanced accuracy, the mean recall over the classes that the test set holds.

    With n cases in K classes, n_c in class c, a case of class c has B + n / (K n_c) (right - recall_c).

    Args:
        predicted, truth: class ids, (n,).

    Returns:
        (n,); the mean is the balanced accuracy B in [0, 1]; single values may lie outside.

    Raises:
        ValueError: if there is no case, or the lengths differ.
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if len(truth) == 0 or predicted.shape != truth.shape:
        raise ValueError(
            f"expected as many predictions as true classes, one or more; got {predicted.shape} and {truth.shape}"
        )
    classes, place, counts = np.unique(truth, return_inverse=True, return_counts=True)
    right = (predicted == truth).astype(float)
    recalls = np.bincount(place, right) / counts
    return recalls.mean() + len(truth) / (len(classes) * counts[place]) * (right - recalls[place])


def auroc_values(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Influence values of the area under the ROC curve.

    A case's placement is the share of cases of the other kind that it is ranked rightly against, ties counting as one
    half; with n cases, m of its kind, its value is A + n / m (placement - A).

    Args:
        scores: (n,), higher where a positive case is thought likelier.
        positive: (n,) bool.

    Returns:
        (n,); the mean is the AUROC A in [0, 1].

    Raises:
        ValueError: if all cases are positive, or none is.
    """
    scores, positive = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    m, n = int(positive.sum()), len(positive)
    if m in (0, n):
        raise ValueError(f"AUROC needs positive and negative cases; {m} of {n} are positive")
    ranks, own = rankdata(scores), np.empty(n)
    own[positive], own[~positive] = rankdata(scores[positive]), rankdata(scores[~positive])
    below = ranks - own  # cases of the other kind with a lower score, ties as halves
    placement = np.where(positive, below / (n - m), 1 - below / m)
    area = placement[positive].mean()
    return area + n / np.where(positive, m, n - m) * (placement - area)
