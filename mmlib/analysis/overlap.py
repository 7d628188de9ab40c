"""How much of an image the other modalities of the same subject hold: correlations, and R2 of a left-out subject.

Intensities are scaled to mean 0 and standard deviation 1 over the voxels of a subject, image by image, since the scale
of an MR image has no meaning. A model then predicts each modality of a voxel from the other modalities of the same
voxel; it is fitted to all subjects but one and scored on that one. R2 is 1 minus the squared error over the variance:
1 if the others determine the modality, 0 if they say nothing, below 0 if what they say elsewhere misleads here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

KINDS = ("linear", "trees")


def _standardised(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    if len(images) < 2:
        raise ValueError(f"R2 of a left-out subject needs at least two subjects; got {len(images)}")
    for place, values in enumerate(images):
        if values.ndim != 2 or values.shape[0] != images[0].shape[0] or values.shape[0] < 2:
            raise ValueError(
                f"subject {place}: expected (M, V) with the same M >= 2 for every subject; got {values.shape}"
            )
        if not np.isfinite(values).all() or (values.std(axis=1) == 0).any():
            raise ValueError(f"subject {place}: a modality is constant or not finite over its voxels")
    return [(v - v.mean(axis=1, keepdims=True)) / v.std(axis=1, keepdims=True) for v in images]


def r2_from_others(images: Sequence[np.ndarray], kind: str = "linear", voxels: int = 4000, seed: int = 0) -> np.ndarray:
    """R2 of each modality from the others, of the subject that the model was not fitted to.

    Args:
        images: one array (M, V) per subject, M >= 2 modalities and any number of voxels V.
        kind: "linear": least squares; "trees": gradient-boosted trees, which find any relation.
        voxels: at most so many voxels, drawn at random, of every subject are fitted to. All are scored.
        seed: of that draw.

    Returns:
        (S, M), R2 of every left-out subject and modality, at most 1.

    Raises:
        ValueError: if `kind` is unknown, there are fewer than two subjects, or an array is of another shape, constant
            or not finite.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose one of {KINDS}")
    scaled = _standardised([np.asarray(values, dtype=np.float64) for values in images])
    rng = np.random.default_rng(seed)
    drawn = [v[:, rng.permutation(v.shape[1])[:voxels]] for v in scaled]
    found = np.empty((len(scaled), len(scaled[0])))
    for left_out, values in enumerate(scaled):
        fitted = np.concatenate([part for place, part in enumerate(drawn) if place != left_out], axis=1)
        for target in range(len(values)):
            model = (
                LinearRegression()
                if kind == "linear"
                else HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=0)
            )
            model.fit(np.delete(fitted, target, axis=0).T, fitted[target])
            error = values[target] - model.predict(np.delete(values, target, axis=0).T)
            found[left_out, target] = 1 - (error**2).mean()  # the variance is 1
    return found


def overlap_table(images: Mapping[str, np.ndarray], modalities: Sequence[str]) -> pd.DataFrame:
    """All measures of overlap as rows.

    Args:
        images: subject -> (M, V), as in `r2_from_others`.
        modalities: names of the M rows.

    Returns:
        Columns subject, target, source, value, kind. Kind is `r2-linear` or `r2-trees`, whose source is the others
        (`t1ce+t2+flair`), or `correlation` (Pearson) of target and source, each pair once, in the order of `modalities`.

    Raises:
        ValueError: as `r2_from_others`.
    """
    rows = []
    for kind in KINDS:
        for subject, values in zip(images, r2_from_others(list(images.values()), kind), strict=True):
            for target, value in zip(modalities, values, strict=True):
                source = "+".join(name for name in modalities if name != target)
                rows.append((subject, target, source, value, f"r2-{kind}"))
    for subject, array in images.items():
        matrix = np.corrcoef(array)
        rows += [
            (subject, target, source, matrix[i, i + 1 + j], "correlation")
            for i, target in enumerate(modalities)
            for j, source in enumerate(modalities[i + 1 :])
        ]
    return pd.DataFrame(rows, columns=["subject", "target", "source", "value", "kind"])
