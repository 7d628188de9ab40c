"""What synthesised images are good for in tables and figures, on made-up scores."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmlib.analysis.results import Results
from mmlib.modalities import MRI
from mmlib.studies import synthesis_images as images
from mmlib.studies.synthesis import Study, read_study


def studied(rows: list[tuple[str, str, str, float]]) -> Study:
    """Scores of `synthesis-studies` alone: variant, target, metric, value."""
    same = {"experiment": "synthesis-studies", "run": "studies", "method": "studies", "seed": 0, "case": "a"}
    names = ["variant", "target", "metric", "value"]
    table = pd.DataFrame([{**same, "available": "", **dict(zip(names, row, strict=True))} for row in rows])
    return read_study(Results(table[["experiment", "run"]].drop_duplicates().assign(stand_in=True), table))


def test_without_a_known_answer_nothing_is_said_of_the_rim() -> None:
    known = images.known_contrast(studied([("paper", "t1", "sharpness", 1.0)]))
    assert known.empty and images.contrast_facts(known, "paper")["rim"] == "not known for these data"


def test_a_leak_is_named_where_more_is_recovered_than_there_can_be() -> None:
    rows = [("contrast-enhancement", "paper", 50.0, 40.0, 60.0, 3), ("contrast-oedema", "paper", 90.0, 80.0, 95.0, 3)]
    known = pd.DataFrame(rows, columns=["metric", "name", "mean", "low", "high", "subjects"])
    facts = images.contrast_facts(known, "paper")
    assert facts["rim"] == "50 % (40 to 60)" and "look for a leak" in facts["rim_headline"]
    assert images.contrast_table(known)["synthesised by"].iloc[0] == "M2DN, as drawn"


def test_what_is_painted_stands_beside_the_least_error_that_is_possible() -> None:
    values = {"found": 0.6, "invented": 0.6, "rmse": 0.4}
    rows = [
        (name, "t1ce", f"{metric}-{kind}", value)
        for name in images.STUDIED
        for kind in ("enhancement", "oedema")
        for metric, value in values.items()
    ]
    scores = studied([*rows, ("bound", "t1ce", "rmse-enhancement", 0.3)])
    rates = images.painted(scores)
    assert len(rates) == 2 * len(images.STUDIED) + 1 and rates["rmse"].iloc[-1] == 0.3
    assert rates.loc[0, ["found", "invented", "rmse"]].tolist() == [0.6, 0.6, 0.4]
    figure = images.known_and_unknown(rates)
    assert [line.get_label() for line in figure.axes[1].lines][-1] == "least, enhancement"
    assert images.painted(studied([("paper", "t1", "sharpness", 1.0)])).empty, "without a known answer there is none"


def test_the_classifier_s_success_is_printed_with_its_interval() -> None:
    ends = {"two-sample": 0.9, "two-sample-low": 0.85, "two-sample-high": 0.95}
    rows = [(name, target, end, value) for name in images.STUDIED for target in MRI for end, value in ends.items()]
    table = images.told_apart(studied(rows))
    assert table.shape == (len(images.STUDIED), len(MRI)) and table.loc["MM-GAN", "t1"] == "0.90 (0.85-0.95)"


def test_a_spread_far_below_the_error_is_no_sign_of_a_right_image() -> None:
    row = {"network": ["x"], "missing": ["t1"], "honesty": [0.2], "coverage": [0.3], "nominal": [5 / 7], "rank": [0.3]}
    facts = images.spread_facts(pd.DataFrame(row))
    assert facts["spread_most"] == "20%" and "no sign of a right image" in facts["spread_verdict"]
    assert (facts["nominal"], facts["coverage"], facts["spread_ranks"]) == ("71%", "30%", "0.30")


def test_pictures_are_drawn_around_the_slice_with_most_enhancing_tumour() -> None:
    labels = np.zeros((2, 8, 8), dtype=int)
    labels[1, 2:5, 2:5] = 4
    pictures = {"drawn labels": labels, "drawn truth": np.zeros((2, len(MRI), 8, 8))}
    for target in MRI:
        for name in images.STUDIED:
            pictures[f"made {name} {target}"] = np.zeros((2, 8, 8))
            pictures[f"spectrum {name} {target}"] = np.ones(16)
        pictures[f"spectrum true {target}"] = np.ones(16)
        pictures[f"drawn paper {target}"] = np.zeros((2, 2, 8, 8))
        pictures[f"spread paper {target}"] = pictures[f"error paper {target}"] = np.zeros((2, 8, 8))
    assert images.most_enhancing(pictures) == 1
    assert len(images.invented(pictures).axes) == 28 and len(images.spectra(pictures).axes) == 4
    assert sum(axis.get_visible() for axis in images.spreads(pictures, "paper").axes) == 10
