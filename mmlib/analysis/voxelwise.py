"""The reference that knows no shapes and no places: boosted trees that label each voxel by itself.

A segmentation network that stays below it with the same modalities has not learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier

from mmlib.data.cases import REGIONS, Case, regions, zscore
from mmlib.modalities import label
from mmlib.tasks.segmentation import dice

SCALES = (4, 10)  # mm, standard deviations of the local means
PER_MODALITY = 1 + len(SCALES)
THRESHOLDS = np.linspace(0.1, 0.9, 17)


def voxel_features(case: Case, modalities: Sequence[str]) -> np.ndarray:
    """What the trees see of each voxel of the brain: intensity, z-scored, and its local means at two scales.

    Args:
        case: with all of `modalities`.
        modalities: M names.

    Returns:
        (voxels, 3 M), the three features of a modality side by side.
    """
    brain, spacing = case.brain_mask, min(case.spacing)
    widths = [width / spacing for width in SCALES]
    weights = [ndimage.gaussian_filter(brain.astype(np.float32), width)[brain] for width in widths]
    columns = []
    for name in modalities:
        image = zscore(case.images[name], brain)
        smooth = [ndimage.gaussian_filter(image, width)[brain] for width in widths]
        columns += [image[brain], *(part / weight for part, weight in zip(smooth, weights, strict=True))]
    return np.stack(columns, axis=1)


def voxelwise_dice(
    cases: Mapping[str, Case],
    train: Sequence[str],
    tune: Sequence[str],
    test: Sequence[str],
    combinations: Sequence[Sequence[str]],
    modalities: Sequence[str],
    seed: int = 0,
) -> pd.DataFrame:
    """Dice of trees fitted to each combination of modalities.

    They learn from every tumour voxel and a tenth of the others. The threshold of each region is the best on `tune`.

    Args:
        cases: name -> complete case with labels 1, 2 and 4.
        train: names of the cases to fit.
        tune: names of those whose Dice chooses the thresholds.
        test: names of those that are scored.
        combinations: sets of modalities, trees of their own for each.
        modalities: M names.
        seed: of the draw of voxels and of the trees.

    Returns:
        One row per combination, test case and region: available, case, target, value in [0, 1].
    """
    rng = np.random.default_rng(seed)
    every = list(dict.fromkeys([*train, *tune, *test]))
    features = {name: voxel_features(cases[name], modalities) for name in every}
    labels = {name: np.asarray(cases[name].labels)[cases[name].brain_mask] for name in every}
    kept = {name: (labels[name] > 0) | (rng.random(labels[name].size) < 0.1) for name in train}
    targets = np.concatenate([labels[name][kept[name]] for name in train])

    def scored(marked: np.ndarray, name: str) -> np.ndarray:
        truth = torch.from_numpy(regions(labels[name][None, None], 4))  # R 1 1 voxels
        return dice(torch.from_numpy(marked)[None, :, None, None], truth)[0].numpy()  # R voxels -> R

    rows = []
    for combination in combinations:
        places = [list(modalities).index(name) for name in combination]
        columns = [PER_MODALITY * place + part for place in places for part in range(PER_MODALITY)]
        trees = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=seed)
        trees.fit(np.concatenate([features[name][kept[name]][:, columns] for name in train]), targets)
        chances = {}
        for name in {*tune, *test}:
            of_label = dict(zip(trees.classes_, trees.predict_proba(features[name][:, columns]).T, strict=True))
            oedema, core, rim = (of_label.get(value, 0.0) for value in (2, 1, 4))
            chances[name] = np.stack(np.broadcast_arrays(oedema + core + rim, core + rim, rim))  # R voxels
        grid = [np.mean([scored(chances[name] > cut, name) for name in tune], axis=0) for cut in THRESHOLDS]
        best = THRESHOLDS[np.argmax(grid, axis=0)][:, None]  # R 1
        for name in test:
            values = scored(chances[name] > best, name)
            rows += [
                (label(combination, modalities), name, target, float(value))
                for target, value in zip(REGIONS, values, strict=True)
            ]
    return pd.DataFrame(rows, columns=["available", "case", "target", "value"])
