"""How much of a modality the other modalities hold: what they predict of it in a subject never seen, and correlations.

On a phantom the answer is built in; on patients it is a measurement, and says how far a phantom is from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from mmlib.data.cases import Case, zscore
from mmlib.modalities import label

PAIRS = (("t1", "t1ce"), ("t2", "flair"))


def brain_values(case: Case, modalities: Sequence[str], most: int = 20_000, seed: int = 0) -> np.ndarray:
    """Intensities of a case at voxels of its brain, each modality with mean 0 and standard deviation 1 over the brain.

    Args:
        case: with all of `modalities`.
        modalities: M names.
        most: where the brain has more voxels, so many are drawn.
        seed: of the draw.

    Returns:
        (voxels, M).

    Raises:
        ValueError: if the case lacks a modality, or one cannot be normalised.
    """
    lacking = [name for name in modalities if name not in case.images]
    if lacking:
        raise ValueError(f"case {case.name} lacks {', '.join(lacking)}: leave it out, or ask for other modalities")
    brain = case.brain_mask
    values = np.stack([zscore(case.images[name], brain)[brain] for name in modalities], axis=1)
    if len(values) <= most:
        return values
    return values[np.random.default_rng(seed).choice(len(values), most, replace=False)]


def modality_overlap(
    subjects: Mapping[str, np.ndarray],
    modalities: Sequence[str],
    pairs: Sequence[tuple[str, str]] = PAIRS,
    seed: int = 0,
) -> pd.DataFrame:
    """R2 of each modality from the others in a subject that the regression has not seen, and correlations of pairs.

    Each subject is left out once: a linear regression and boosted trees (scikit-learn's, default settings) learn from
    the voxels of the other subjects and predict those of this one. R2 is 1 - squared error / variance within the
    subject left out: 1 where nothing is left unknown, 0 for a guess of its mean, below 0 for worse.

    Args:
        subjects: name -> (voxels, M), as `brain_values` returns them.
        modalities: M names, the order of the columns.
        pairs: of names, whose correlation over the voxels of each subject is computed.
        seed: of the trees.

    Returns:
        Tidy: subject, target (the modality), source (what it is predicted from or compared with, joined by `+`),
        value, kind (`r2-linear`, `r2-trees`, `correlation`).

    Raises:
        ValueError: if there are fewer than two subjects or two modalities.
    """
    if len(subjects) < 2 or len(modalities) < 2:
        raise ValueError(f"two subjects and two modalities are needed; got {list(subjects)} and {tuple(modalities)}")
    names = list(modalities)
    rows: list[tuple[str, str, str, float, str]] = []
    for left_out, values in subjects.items():
        others = np.concatenate([one for name, one in subjects.items() if name != left_out])
        for column, target in enumerate(names):
            rest = [index for index in range(len(names)) if index != column]
            source = label([names[index] for index in rest], modalities)
            for kind, regression in (
                ("r2-linear", LinearRegression()),
                ("r2-trees", HistGradientBoostingRegressor(random_state=seed)),
            ):
                fitted = regression.fit(others[:, rest], others[:, column])
                score = r2_score(values[:, column], fitted.predict(values[:, rest]))
                rows.append((left_out, target, source, float(score), kind))
        for first, second in pairs:
            both = values[:, [names.index(first), names.index(second)]]
            rows.append((left_out, second, first, float(np.corrcoef(both, rowvar=False)[0, 1]), "correlation"))
    return pd.DataFrame(rows, columns=["subject", "target", "source", "value", "kind"])
