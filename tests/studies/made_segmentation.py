"""Made-up scores of the arms of chapter 01, and a case with a tumour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mmlib.analysis.results import Results
from mmlib.data.cases import Case
from mmlib.modalities import MRI
from mmlib.studies import segmentation as study

CASES = ("phantom-0001", "phantom-0002", "phantom-0003")
LEVEL = {  # arm -> Dice of a single modality
    ("shaspec", "paper"): 0.5,
    ("shaspec", "released"): 0.4,
    ("dropout-unet", "standard"): 0.45,
    ("u-hemis", "standard"): 0.6,
    ("zero-fill", "standard"): 0.2,
    ("dedicated", "t1ce"): 0.55,
}


def value_of(level: float, available: str, target: str, seed: int, place: int) -> float:
    size = available.count("+") + 1
    blind = target == "et" and "t1ce" not in available
    wt = 0.1 if target == "wt" and "flair" in available else 0.0
    return level + 0.05 * size - 0.1 * blind + wt + 0.02 * seed + 0.02 * place


def rows_of(method: str, variant: str, level: float, **other: Any) -> list[dict[str, Any]]:
    seeds = (0, 1) if method == "shaspec" and variant == "paper" else (0,)
    given = ("t1ce",) if method == "dedicated" else study.COMBINATIONS
    return [
        {"experiment": "segmentation", "run": f"{method}-{variant}-s{seed}", "method": method, "variant": variant}
        | {"seed": seed, "case": case, "available": available, "target": target, "metric": "dice"}
        | {"value": value_of(level, available, target, seed, place), **other}
        for seed in seeds
        for place, case in enumerate(CASES)
        for available in given
        for target in study.REGIONS
    ]


def results_of(scores: pd.DataFrame, **facts: Any) -> Results:
    records = scores[["experiment", "run", "method", "variant", "seed"]].drop_duplicates()
    same: dict[str, Any] = {
        "stand_in": True,
        "availability_sampler": "uniform-subsets",
        "parameters.steps": 1500.0,
        "parameters.batch_size": 4.0,
        "parameter_count": 1000,
        "seconds.train": 10.0,
        "seconds.evaluate": 2.0,
        "peak_memory_mib": 100.0,
        "device": "cpu",
        "threads": 1.0,
        "precision": "bfloat16",
        "git_commit": "0123456789abcdef",
        "fingerprint": "f",
        "spacing": 4.0,
        "folder": "",
        **facts,
    }
    widths = {"parameters.widths": [[16, 32]] * len(records)}
    exposure = [{"fit": {"a": ["t1"], "b": list(MRI)}}] * len(records)
    return Results(records.assign(**same, exposure=exposure, **widths).reset_index(drop=True), scores)


def made_runs() -> study.Study:
    """Two seeds of the paper's ShaSpec and one of every other arm."""
    rows = [row for (method, variant), level in LEVEL.items() for row in rows_of(method, variant, level)]
    hd95 = [{**row, "metric": "hd95", "value": np.nan if row["case"] == CASES[0] else 6.0} for row in rows]
    return study.read_study(results_of(pd.DataFrame(rows + hd95)))


def made_table() -> pd.DataFrame:
    """A table in the form of the paper's Table 1."""
    levels = {"U-HeMIS": 40.0, "mmFormer": 60.0, "ShaSpec": 62.0, "ShaSpec*": 63.0}
    return pd.DataFrame(
        [
            {"method": method, "available": available, "target": target, "dice_percent": level + available.count("+")}
            for method, level in levels.items()
            for available in study.COMBINATIONS
            for target in study.REGIONS
        ]
    )


def case_with_tumour() -> tuple[Case, np.ndarray]:
    labels = np.zeros((12, 12, 12), dtype=int)
    labels[2:8, 2:8, 2:8] = 1
    labels[2:8, 2:8, 2:6] = 4
    images = {name: np.where(labels > 0, 2.0, 1.0) for name in MRI}
    case = Case("a", images, np.diag([4.0, 4.0, 4.0, 1.0]), labels, enhancing_label=4)
    predicted = study.true_regions(case).copy()
    predicted[:, 11, 11, 11] = True
    return case, predicted
