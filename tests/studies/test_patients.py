"""The tables, figures and sentences of the chapter on real patients, on made-up scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmlib.analysis.results import Results
from mmlib.studies import patients as study

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "open_ms"
LEVEL = {("shaspec", "paper"): 0.5, ("dropout-unet", "standard"): 0.4, ("zero-fill", "standard"): 0.1}


def results_of(count: int) -> Results:
    """Scores of so many patients: the level of the arm, 0.01 for each patient, 0.02 for each modality."""
    rows = [
        {"experiment": "patients", "run": f"{method}-s0-fold{1 + place % 3}", "method": method, "variant": variant}
        | {"seed": 0, "case": f"patient{place:02d}", "available": available, "target": "lesion", "metric": "dice"}
        | {"value": level + 0.01 * place + 0.02 * (available.count("+") + 1)}
        for (method, variant), level in LEVEL.items()
        for place in range(count)
        for available in study.COMBINATIONS
    ]
    scores = pd.DataFrame(rows)
    return Results(scores[["experiment", "run", "method", "variant", "seed"]].drop_duplicates(), scores)


def test_the_table_has_mean_lowest_and_highest_patient_in_points() -> None:
    table = study.table(study.read(results_of(3)))
    assert list(table.columns) == ["ShaSpec (paper)", "U-Net with dropout", "U-Net fed zeros"]
    assert list(table.index) == list(study.COMBINATIONS)
    assert table.loc["t1", "ShaSpec (paper)"] == "53 (52 to 54)"
    assert table.loc["t1+t1ce+t2+flair", "U-Net fed zeros"] == "19 (18 to 20)"


def test_means_are_over_patients_and_combinations() -> None:
    # 32 modalities in 15 combinations
    found = study.means(study.read(results_of(3)))
    assert found["shaspec paper"] == pytest.approx(50 + 1 + 2 * 32 / 15)


def test_a_patient_tested_twice_in_an_arm_is_refused() -> None:
    results = results_of(3)
    twice = pd.concat([results.scores, results.scores.head(1)])
    with pytest.raises(ValueError, match="tested twice in one arm: runs of different folders are mixed"):
        study.read(Results(results.records, twice))


def test_three_patients_are_no_sample_and_no_method_is_compared() -> None:
    three = study.read(results_of(3))
    assert not three.is_sample
    assert "3 patients are not a sample" in study.coverage(three, "full")
    with pytest.raises(ValueError, match="3 patients are no sample; 10 are needed"):
        study.gains(three)


def test_thirty_patients_are_compared_with_intervals() -> None:
    thirty = study.read(results_of(30))
    assert thirty.is_sample and "not a sample" not in study.coverage(thirty, "full")
    rows = study.gains(thirty)
    assert list(rows["part"]) == [f"{size} of 4 modalities" for size in (1, 2, 3, 4)]
    np.testing.assert_allclose(rows["effect"], 10), "ten points, for every patient"
    assert set(rows["n"]) == {30}


def test_without_runs_the_sentence_says_what_to_do() -> None:
    said = study.coverage(None, "quick")
    assert "no runs on patients" in said and "fetch open-ms FOLDER" in said and "MS=FOLDER" in said


def test_every_patient_is_a_dot() -> None:
    figure = study.every_patient(study.read(results_of(4)))
    dots = [len(points.get_offsets()) for points in figure.axes[0].collections]
    assert dots == [4 * 15] * 3
    first = figure.axes[0].collections[0].get_offsets()
    assert first[0][0] == pytest.approx(52), "ShaSpec, patient 0, t1"


def test_the_committed_overlaps_are_complete_and_say_how_they_were_computed() -> None:
    overlap = pd.read_csv(ROOT / "book" / study.OVERLAP)
    assert list(overlap.columns) == ["subject", "target", "source", "value", "kind", "computed"]
    assert overlap.groupby(["subject", "kind"]).size().unstack().to_dict("list") == {
        "correlation": [2] * 3, "r2-linear": [4] * 3, "r2-trees": [4] * 3,
    }  # fmt: skip
    assert overlap["value"].between(-1, 1).all()
    ranges = study.overlap_ranges(overlap)
    assert list(ranges.index) == ["t1", "t1ce", "t2", "flair"] and "(with t1)" in ranges.loc["t1ce", "correlation"]


def test_the_picture_is_small() -> None:
    assert (ROOT / "book" / study.PICTURE).stat().st_size < 150_000


@pytest.mark.skipif(not REAL.is_dir(), reason="the three patients of shared/data/open_ms are not here")
def test_the_committed_correlations_are_those_of_the_files() -> None:
    from mmlib.analysis.overlap import brain_values
    from mmlib.data.ms import MsFolder
    from mmlib.data.resample import resample

    values = brain_values(resample(MsFolder(REAL)["patient26"], 4.0), ("t1", "t1ce"))
    overlap = pd.read_csv(ROOT / "book" / study.OVERLAP).set_index(["subject", "target", "kind"])["value"]
    found = np.corrcoef(values, rowvar=False)[0, 1]
    assert found == pytest.approx(overlap["patient26", "t1ce", "correlation"], abs=1e-3)
