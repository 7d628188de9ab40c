"""Tiny cases on disk: 6 x 8 x 10 voxels, a brain of 4 x 6 x 8, a tumour of 2 x 2 x 2."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

SHAPE = (6, 8, 10)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, -1, 0, 7], [0, 0, 2, -3], [0, 0, 0, 1]])
CLASSIC = {"t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "flair": "_flair", "seg": "_seg"}
RECENT = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"}


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def tiny_volumes(seed: int = 0, enhancing: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    volumes = {}
    for name in ("t1", "t1ce", "t2", "flair"):
        volumes[name] = np.zeros(SHAPE, np.int16)
        volumes[name][1:5, 1:7, 1:9] = rng.integers(1, 1000, (4, 6, 8))
    labels = np.zeros(SHAPE, np.uint8)
    place = 2 + seed % 6  # no two cases have the same tumour
    labels[2:4, 2:4, place : place + 2] = [[[2, 2], [1, 1]], [[2, 1], [enhancing, enhancing]]]
    return volumes | {"seg": labels}


@pytest.fixture
def write_case() -> Callable[..., Path]:
    """A function that writes one case folder, with official names, and returns it."""

    def write(
        folder: Path, seed: int = 0, endings: dict[str, str] = CLASSIC, suffix: str = ".nii.gz", without: tuple = ()
    ) -> Path:
        volumes = tiny_volumes(seed, enhancing=3 if endings is RECENT else 4)
        for name, ending in endings.items():
            if name not in without:
                save(folder / f"{folder.name}{ending}{suffix}", volumes[name])
        return folder

    return write
