"""The tables and figures of the chapter on the losses of ShaSpec, on made-up scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmlib.analysis.results import Results
from mmlib.modalities import MRI, combinations, label
from mmlib.studies import losses as study

COMBINATIONS = [label(names, MRI) for names in combinations(MRI)]
CASES = ("a", "b", "c")
LEVEL = {  # variant -> mean Dice on test cases
    "l1-0.01": 0.60,
    "l1-0.1": 0.64,
    "l1-1": 0.58,
    "mse-0.1": 0.62,
    "kl-1": 0.61,
    "kl-10": 0.66,
    "ce-1": 0.59,
    "alpha-0": 0.63,
    "beta-0": 0.64,
    "alpha-0-beta-0": 0.62,
    "alpha-1-beta-1": 0.20,
    "only-t1ce": 0.70,
}
VALID = LEVEL | {"kl-1": 0.67}  # on validation cases another weight of KL is best
DIGITS = {"l1-0.1": 92.0, "l1-1": 91.0, "kl-1": 90.0}  # accuracy, %
CORNERS = {"alpha-0-beta-0": 90.0, "alpha-0.1-beta-0.02": 92.0, "alpha-1-beta-1": 88.0}


def score(experiment: str, variant: str, **other: Any) -> dict[str, Any]:
    run = f"shaspec-{variant}-s0"
    return {"experiment": experiment, "run": run, "method": "shaspec", "variant": variant, "seed": 0, **other}


def dice(experiment: str, variant: str, level: float, metric: str = "dice") -> list[dict[str, Any]]:
    given = [variant.removeprefix("only-")] if variant.startswith("only-") else COMBINATIONS
    return [
        score(experiment, variant, case=case, available=available, target=target, metric=metric)
        | {"value": level + 0.01 * place + 0.02 * (target == "wt")}
        for place, case in enumerate(CASES)
        for available in given
        for target in study.REGIONS
    ]


def features(experiment: str, variant: str, probe: float, retrieval: float) -> list[dict[str, Any]]:
    values = {"probe": probe, "silhouette": 0.1, "silhouette-p": 0.01, "retrieval": retrieval}
    same = {"case": "all", "available": "all", "target": "modality"}
    return [
        score(experiment, variant, metric=f"{name}-{side}", value=value, **same)
        for name, value in values.items()
        for side in study.SIDES
    ]


def right(experiment: str, variant: str, percent: float, target: str) -> list[dict[str, Any]]:
    """A hundred digits for each of two seeds, of which so many are named right."""
    same = {"available": "image", "target": target, "metric": "correct"}
    rows = []
    for seed in (0, 1):
        made = [
            score(experiment, f"{variant}@20", case=f"{n:03d}", value=float(n < percent), **same) for n in range(100)
        ]
        rows += [{**row, "seed": seed, "run": "shaspec"} for row in made]
    return rows


def results_of(rows: list[dict[str, Any]], folder: Path, **facts: Any) -> Results:
    scores = pd.DataFrame(rows)
    records = scores[["experiment", "run", "method", "variant", "seed"]].drop_duplicates(["experiment", "run"])
    same: dict[str, Any] = {
        "stand_in": True,
        "parameters.steps": 700.0,
        "parameters.split": "phantom-quick",
        "parameters.cases_train": 12.0,
        "parameter_count": 1000,
        "seconds.train": 10.0,
        "seconds.evaluate": 2.0,
        **facts,
    }
    folders = [str(folder / row.experiment / row.run) for row in records.itertuples()]
    return Results(records.assign(**same, folder=folders).reset_index(drop=True), scores)


@pytest.fixture
def runs(tmp_path: Path) -> study.Study:
    rows = [row for arm, level in LEVEL.items() for row in dice("studies", arm, level)]
    rows += [row for arm, level in VALID.items() for row in dice("studies", arm, level, "valid-dice")]
    rows += features("studies", "l1-0.1", 0.9, 0.5) + features("segmentation", "paper", 0.26, 0.02)
    rows += dice("segmentation", "paper", 0.7)
    for arm, percent in DIGITS.items():
        rows += right("avmnist-alignment", arm, percent, "large_test")
        rows += right("avmnist-alignment", arm, 100 - percent, "valid")
    for arm, percent in CORNERS.items():
        rows += right("avmnist-grid", arm, percent, "large_test")
    stored = tmp_path / "segmentation" / study.LARGER_RUN
    stored.mkdir(parents=True)
    np.savez(stored / "features.npz", shared=np.zeros((50, 4, 3)), specific=np.ones((50, 4, 3)))
    return study.read_study(results_of(rows, tmp_path))


@pytest.fixture
def printed() -> pd.DataFrame:
    values = {"l1": 60.0, "mse": 61.0, "kl": 58.0, "ce": 57.0}
    return pd.DataFrame({kind: [value + 9, value, value - 9] for kind, value in values.items()}, index=study.REGIONS)


def test_an_arm_is_named_by_what_sets_it_apart() -> None:
    names = [study.variant_name(arm) for arm in ("l1-0.1", "kl-10", "only-t1", "zero-fill")]
    assert names == ["α = 0.1, β = 0.02", "KL, α = 10, β = 0.02", "dedicated to t1", "U-Net fed zeros"]
    assert study.weights_of("alpha-1-beta-1") == (1, 1) and study.weights_of("l1-0.1") == study.PAPER_WEIGHTS
    assert [study.weights_of(arm) for arm in ("kl-10", "only-t1", "zero-fill")] == [None] * 3


def test_validation_cases_choose_the_weight(runs: study.Study) -> None:
    assert runs.chosen == {"l1": "l1-0.1", "mse": "mse-0.1", "kl": "kl-1", "ce": "ce-1"}
    table = study.weight_table(runs)
    assert list(table.loc[table["chosen"].ne(""), "weight"]) == ["0.1", "0.1", "1", "1"]
    facts = study.choice_facts(runs)
    assert facts["weights"] == "L1 0.1, MSE 0.1, KL 1 and CE 1"
    assert facts["at_an_end"] == "MSE, KL and CE", "the middle of three is no end; a single weight is"


def test_a_case_that_lacks_a_modality_is_left_out(tmp_path: Path) -> None:
    rows = [row for row in dice("studies", "l1-0.1", 0.6) if row["case"] != "a" or "t2" not in row["available"]]
    scores = study.read_study(
        results_of(rows + features("studies", "l1-0.1", 1, 1) + right("avmnist", "paper", 90, "test"), tmp_path)
    )
    assert set(scores.test["case"]) == {"b", "c"}
    assert scores.sample == "n = 2 test cases, 1 seed, phantom"


def test_gains_are_in_points_and_paired(runs: study.Study) -> None:
    assert runs.gain("l1-0.1", "alpha-0").effect == pytest.approx(1)
    lead = study.lead_rows(runs).set_index("part")["effect"]
    assert lead["paper's weights - both weights 1"] == pytest.approx(44)
    assert lead["L1 - KL"] == pytest.approx(3), "KL at the weight that validation cases chose"
    rows = study.l1_gains(runs)
    assert len(rows) == 3 * 4 and rows["effect"].iloc[-1] == pytest.approx(1), "the last is over none"


def test_the_first_lines_of_the_chapter_follow_the_intervals(runs: study.Study) -> None:
    facts = study.lead_facts(runs, study.ranks(runs))
    assert facts["alignment_words"] == "gains" and facts["best_kind"] == "L1" and facts["tied"] == "none of the others"
    assert facts["classifier_gain"] == "+0.0 points (+0.0 to +0.0)"


def test_ranks_agree_with_the_order_of_the_text(runs: study.Study, printed: pd.DataFrame) -> None:
    ranked = study.ranks(runs)
    assert list(ranked.index) == ["l1", "mse", "kl", "ce"]
    # of six pairs one (KL, MSE) stands the other way round: (5 - 1) / 6
    assert study.agreement(ranked, printed) == {"tau_text": "+0.67", "tau_table": "+0.67"}
    assert study.agreement(ranked.head(2), printed)["tau_text"].startswith("not computed")
    assert study.best_text(ranked).startswith("L1 in 100%")


def test_printed_facts_are_those_of_the_table(printed: pd.DataFrame) -> None:
    facts = study.printed_facts(printed)
    assert facts["table_order"] == "MSE 61.00, L1 60.00, KL 58.00 and CE 57.00"
    assert facts["best_for_et"] == "MSE" and facts["table_range"] == "4.0"


def test_pairs_of_weights(runs: study.Study) -> None:
    assert set(runs.grid) == {(0.01, 0.02), (0.1, 0.02), (1, 0.02), (0, 0.02), (0.1, 0), (0, 0), (1, 1)}
    gained = study.weight_gains(runs)
    facts = study.weight_facts(runs, gained)
    assert facts["collapse"] == "a collapse" and facts["worst_point"].startswith("α = 1, β = 1")
    assert facts["above"] == "5 of 6" and facts["below"] == "0", "without the classifier it is the same"
    titles = [axis.get_title("left") for axis in study.weight_maps(runs).axes]
    assert titles[:3] == ["WT, mean of 15", "TC, mean of 15", "ET, mean of 15"]


def test_digits_choose_by_held_out_training_digits(runs: study.Study) -> None:
    assert study.digit_choice(runs) == {"l1": "l1-1", "kl": "kl-1"}
    table = study.digit_kinds(runs).set_index("loss")
    assert table.loc["L1", "accuracy at all weights, %"] == "92.00, 91.00"
    assert table.loc["KL", "L1 - this, points"].startswith("+1.00 (")
    assert study.digit_sample(runs, "avmnist-grid") == "100 test digits, 2 seeds"


def test_the_corners_of_the_grid_of_digits(runs: study.Study) -> None:
    means = study.digit_means(runs)
    assert means == {(0, 0): 90, (0.1, 0.02): 92, (1, 1): 88}
    facts = study.corner_facts(runs, means)
    assert facts["digit_best"] == "(0.1, 0.02)" and facts["digit_range"] == "4.00"
    assert facts["digit_corners"].startswith("+2.00 (") and " over (1, 1)" in facts["digit_corners"]
    assert study.digit_map(means).axes


@pytest.mark.parametrize(
    ("probe", "retrieval", "words"),
    [(26, 2, ("not excluded", "do not give")), (90, 50, ("did not collapse", "still give"))],
)
def test_features_are_judged_against_chance(
    runs: study.Study, probe: int, retrieval: int, words: tuple[str, str]
) -> None:
    table = study.feature_table(runs)
    assert list(table["net"]) == ["net of chapter 01 (larger)", "paper's weights (α = 0.1, β = 0.02)", "chance"]
    chance = table.iloc[-1]
    assert (chance["probe, shared"], chance["retrieval, shared"], chance["silhouette, shared"]) == (25, 2, 0)
    place = 0 if probe == 26 else 1
    assert (table.iloc[place]["probe, shared"], table.iloc[place]["retrieval, shared"]) == (probe, retrieval)
    facts = study.feature_facts(table.iloc[place:])
    assert words[0] in facts["collapsed"] and words[1] in facts["free"]


def test_dedicated_networks_are_compared_with_their_modality_alone(runs: study.Study) -> None:
    gained = study.dedicated_gains(runs)
    assert list(gained["part"]) == ["WT, t1ce", "TC, t1ce", "ET, t1ce"]
    assert gained["effect"].to_numpy() == pytest.approx(6)
    printed = pd.Series({("t1ce", target): value for target, value in zip(study.REGIONS, (1, -1, 3), strict=True)})
    assert study.dedicated_table(runs, gained, printed)["gain"].str.startswith("+6.0 (").all()
    facts: Mapping[str, str] = study.dedicated_facts(gained, printed)
    assert (facts["dedicated_up"], facts["printed_up"], facts["dedicated_mean"]) == ("3", "2 of 3", "+6.0")


def test_ours_stand_beside_the_papers_table(runs: study.Study, printed: pd.DataFrame) -> None:
    table = study.beside_paper(runs, printed)
    assert len(table) == 4 * 3
    first = table.iloc[0]
    assert first["ours"] == "67.0 (1 seed)" and first["gap"] == "-2.0" and "post-processed" in first["likely reason"]


def test_the_alignment_loss_is_drawn_above_its_least_value(runs: study.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    fall = np.linspace(1, 0.5, 40)

    def history(results: Results, run: str, experiment: str | None = None) -> pd.DataFrame:
        return pd.DataFrame({"step": np.arange(40), "alignment": fall + (np.log(4) if "-ce-" in run else 0)})

    monkeypatch.setattr(Results, "history", history)
    for arm in ("l1-0.1", "ce-1"):
        assert study.share_left(runs, arm).iloc[-1] == pytest.approx((fall[-2:] / fall[:2].mean()).mean())
    assert len(study.alignment_curves(runs).axes) == 4 and "ce-1 5" in study.shares_left_text(runs)
