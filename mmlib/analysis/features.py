"""What features hold, in numbers: do they tell the modality, do they tell the case? And two dimensions to look at.

Features are (n, M, C): a row per case and modality. Every function standardises the C features over all rows first, as
one space: an offset between modalities stays, because features that are called shared must do without a correction.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import pairwise_distances, silhouette_score
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

ROUNDING = 1e-5  # a spread below this share of the largest magnitude comes from float32, not from the data


def modality_probe(features: np.ndarray, seed: int = 0) -> float:
    """How well a linear classifier tells the modality from a feature: 1 / M where features hold nothing about it.

    Logistic regression on standardised features, cross-validated with the features of a case kept together.

    Args:
        features: (n, M, C), one row a case and modality.
        seed: of the solver.

    Returns:
        Accuracy in [0, 1], mean over five folds.

    Raises:
        ValueError: with fewer than two cases: one to fit, one to test; or a value that is not finite.
    """
    cases, count, _ = _checked(features, "a probe").shape
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))
    groups, target = np.repeat(np.arange(cases), count), np.tile(np.arange(count), cases)
    folds = GroupKFold(min(5, cases))
    return float(cross_val_score(probe, features.reshape(cases * count, -1), target, groups=groups, cv=folds).mean())


def modality_silhouette(features: np.ndarray, permutations: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Silhouette of the features with the modalities as clusters: 1 where they lie apart, about 0 where they mix.

    The permutation test shuffles the modalities within each case, so that what the features of a case have in common
    counts for nothing.

    Args:
        features: (n, M, C).
        permutations: drawn; the least p is 1 / (permutations + 1).
        seed: of the permutations.

    Returns:
        The score in [-1, 1] and its one-sided p: the share of permutations, the data counted as one of them, that
        score as high.

    Raises:
        ValueError: with fewer than two cases, or a value that is not finite.
    """
    cases, count, _ = _checked(features, "a silhouette").shape
    distances = pairwise_distances(_standardised(features).reshape(cases * count, -1))
    np.fill_diagonal(distances, 0)

    def score(labels: np.ndarray) -> float:
        return float(silhouette_score(distances, labels.ravel(), metric="precomputed"))

    labels = np.tile(np.arange(count), (cases, 1))
    generator = np.random.default_rng(seed)
    found = score(labels)
    as_high = sum(score(generator.permuted(labels, axis=1)) >= found - 1e-12 for _ in range(permutations))
    return found, (as_high + 1) / (permutations + 1)


def retrieval(features: np.ndarray) -> float:
    """How often the nearest feature of another modality is that of the same case; chance is 1 / n.

    For every case and ordered pair of modalities (a, b), the feature of a is compared with those of b of all cases, by
    cosine. Of k nearest that are equally near each counts 1 / k, so features that collapsed to a constant are at
    chance.

    Args:
        features: (n, M, C).

    Returns:
        Share of hits in [0, 1].

    Raises:
        ValueError: with fewer than two cases or modalities, or a value that is not finite.
    """
    cases, count, _ = _checked(features, "retrieval").shape
    standardised = _standardised(features)
    norms = np.linalg.norm(standardised, axis=-1, keepdims=True)
    directions = np.divide(standardised, norms, out=np.zeros_like(standardised), where=norms > 0)
    hits = []
    for a in range(count):
        for b in range(count):
            if a != b:
                cosines = directions[:, a] @ directions[:, b].T
                nearest = cosines >= cosines.max(axis=1, keepdims=True) - 1e-9
                hits.append(np.diag(nearest) / nearest.sum(axis=1))
    return float(np.mean(hits))


def embed(features: np.ndarray, method: str = "tsne", perplexity: float = 15, seed: int = 0) -> np.ndarray:
    """Lay features out in two dimensions, to be looked at: distances between groups and their sizes mean nothing.

    Args:
        features: (n, M, C).
        method: `tsne` or `umap`, both started from the principal components.
        perplexity: about how many neighbours count; at most a third of the rows, and lowered to that. UMAP's number of
            neighbours.
        seed: of the layout.

    Returns:
        (n * M, 2), the modalities of a case one after another; all zero where the features are constant.

    Raises:
        ValueError: on an unknown method, fewer than two cases, or a value that is not finite.
    """
    rows = _standardised(_checked(features, "a layout")).reshape(-1, features.shape[-1])
    neighbours = min(perplexity, (len(rows) - 1) / 3)
    if not rows.any():
        return np.zeros((len(rows), 2))
    if method == "tsne":
        return TSNE(perplexity=neighbours, init="pca", random_state=seed).fit_transform(rows)
    if method == "umap":
        from umap import UMAP  # slow to import

        layout = UMAP(n_neighbors=max(2, round(neighbours)), init="pca", random_state=seed, n_jobs=1)
        with threadpool_limits(user_api="openmp"):  # numba sets OpenMP's threads, which torch shares: put back
            return layout.fit_transform(rows)
    raise ValueError(f"method must be 'tsne' or 'umap'; got {method!r}")


def _checked(features: np.ndarray, purpose: str) -> np.ndarray:
    if features.ndim != 3 or features.shape[1] < 2 or not np.isfinite(features).all():
        raise ValueError(
            f"{purpose} needs finite features (n, M, C) of two modalities or more; got shape {features.shape}, "
            f"{np.count_nonzero(~np.isfinite(features))} values not finite"
        )
    if len(features) < 2:
        raise ValueError(f"{purpose} needs two complete cases or more; got {len(features)}: give more, or leave it out")
    return features


def _standardised(features: np.ndarray) -> np.ndarray:
    """Each of the C features with mean 0 and spread 1 over cases and modalities; 0 where it is constant."""
    features = features.astype(float)
    spread = features.std(axis=(0, 1))
    varies = spread > ROUNDING * np.abs(features).max(axis=(0, 1))
    centred = features - features.mean(axis=(0, 1))
    return np.divide(centred, spread, out=np.zeros_like(centred), where=varies)
