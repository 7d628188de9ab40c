"""The tables and figures of the chapter on audiovision-MNIST, on made-up scores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mmlib.analysis.results import Results
from mmlib.studies import digits as study

RIGHT = {  # experiment, method, variant -> how many of four digits are right with seed 0, and with seed 1
    ("avmnist", "lower", "standard@0"): (2, 2),
    ("avmnist", "lower", "longer@0"): (3, 3),
    ("avmnist", "upper", "standard@100"): (4, 4),
    ("avmnist", "gan", "standard@20"): (1, 1),
    ("avmnist", "gan", "standard@100"): (1, 1),
    ("avmnist", "smil", "paper@5"): (0, 0),
    ("avmnist", "smil", "paper@20"): (1, 1),
    ("avmnist", "smil", "released@5"): (3, 3),
    ("avmnist", "smil", "released@20"): (4, 4),
    ("avmnist", "shaspec", "paper@0"): (3, 3),
    ("avmnist", "shaspec", "paper@5"): (3, 3),
    ("avmnist", "shaspec", "paper@20"): (3, 3),
    ("avmnist", "shaspec", "padded@20"): (2, 2),
    ("avmnist-both", "shaspec", "paper@50"): (2, 4),
    ("avmnist-shuffled", "shaspec", "paper@20"): (2, 2),
    ("avmnist-smil", "smil", "joint@20"): (2,),
    ("avmnist-smil", "smil", "outer-both@20"): (3,),
}
COST = {  # variant -> metric -> value
    "shaspec": {"train-seconds": 0.01, "inference-seconds": 0.002, "parameters": 1000, "memory-slope": 0.0},
    "smil-released": {"train-seconds": 0.03, "inference-seconds": 0.001, "parameters": 2000, "memory-slope": 0.5},
    "two linear layers": {"loop-seconds": 0.3, "stack-seconds": 0.1, "stack-difference": 1e-7},
}


def scores_of(experiment: str, method: str, variant: str, right: tuple[int, ...]) -> list[dict]:
    both = method == "upper" or experiment == "avmnist-both"
    same = {"experiment": experiment, "run": method, "method": method, "variant": variant, "metric": "correct"}
    return [
        {**same, "seed": seed, "case": f"{target} {place}", "target": target, "value": float(place < count)}
        | {"available": "image+audio" if both else "image"}
        for seed, count in enumerate(right)
        for target in (("test",) if both else ("test", "large_test"))
        for place in range(4)
    ]


def made_up(without: tuple[tuple[str, str, str], ...] = ()) -> study.Study:
    rows = [row for key, right in RIGHT.items() if key not in without for row in scores_of(*key, right)]
    for variant, values in COST.items():
        slope = {f"memory-slope-{end}": values["memory-slope"] for end in ("low", "high") if "memory-slope" in values}
        growth = {"memory-growth": 10 * values["memory-slope"]} if "memory-slope" in values else {}
        rows += [
            {"experiment": "avmnist-cost", "run": "cost", "method": "cost", "variant": variant, "seed": 0}
            | {"case": "0", "available": "", "target": "", "metric": metric, "value": value}
            for metric, value in {**values, **slope, **growth}.items()
        ]
    scores = pd.DataFrame(rows)
    records = scores[["experiment", "run"]].drop_duplicates().assign(data_set="packaged")
    other = {**rows[0], "experiment": "segmentation"}
    return study.read_study(Results(records, pd.concat([scores, pd.DataFrame([other])], ignore_index=True)))


@pytest.fixture
def scores() -> study.Study:
    return made_up()


def test_scores_are_percent_with_an_arm_and_a_rate(scores: study.Study) -> None:
    assert set(scores.scores["experiment"]) == set(study.EXPERIMENTS) - {"avmnist-cost"}
    padded = scores.scores[scores.scores["arm"].eq("shaspec padded")]
    assert set(padded["rate"]) == {20.0} and set(padded["value"]) == {0.0, 100.0}
    assert scores.arms[:3] == ["lower", "lower longer", "upper"]
    assert scores.rates == [5.0, 20.0]
    assert scores.sample == "2 seeds, packaged audiovision-MNIST"
    assert scores.digits["large_test"] == "4 test digits"


def test_the_image_alone_does_not_depend_on_the_rate(scores: study.Study) -> None:
    assert scores.table("lower", 5.0).equals(scores.table("lower", 20.0))
    with pytest.raises(ValueError, match="no scores"):
        scores.table("gan", 5.0)


def test_an_arm_is_compared_with_another_in_points(scores: study.Study) -> None:
    assert scores.over("smil released", 20.0, "lower").effect == 50
    assert scores.both_over_image().effect == 50


def test_gains_are_over_the_image_alone_at_the_rates_of_the_paper(scores: study.Study) -> None:
    rows = study.gains(scores).set_index(["arm", "rate"])
    assert ("gan", 100.0) not in rows.index and ("upper", 100.0) not in rows.index
    assert rows.loc[("lower longer", 0.0), "effect"] == 25
    released = rows.loc[("smil released", 20.0)]
    assert (released["effect"], released["gained"], released["lost"]) == (50, 2, 0)
    shown = study.gain_table(rows.reset_index(), "4 test digits")
    assert list(shown["method"])[0] == "image alone, SMIL's updates"
    assert shown["gain on 4 test digits, points"].str.startswith("+25.00").any()


def test_the_standing_is_at_the_highest_rate_and_keeps_the_longer_training(scores: study.Study) -> None:
    standing = study.standing(scores).set_index("part")
    assert "image and audio" not in standing.index and "image alone" not in standing.index
    assert standing.loc["image alone, SMIL's updates", "effect"] == 25
    assert standing.loc["SMIL (paper)", "effect"] == -25


def test_words_follow_the_intervals() -> None:
    rows = pd.DataFrame(
        {
            "arm": ["gan", "smil paper", "shaspec paper", "lower longer"],
            "rate": [20.0, 20.0, 20.0, 0.0],
            "effect": [1.0, -1.0, 0.1, 2.0],
            "low": [0.5, -2.0, -0.2, 1.0],
            "high": [1.5, -0.5, 0.3, 3.0],
        }
    )
    text = study.gains_in_words(rows, 20.0)
    assert text.startswith("GAN gains, +1.00 (+0.50 to +1.50); SMIL (paper) loses")
    assert "ShaSpec shows no clear gain" in text and "updates" not in text


def test_answers_are_texts_for_the_page(scores: study.Study) -> None:
    facts = study.answers(scores, study.gains(scores))
    assert facts["top_rate"] == "20" and facts["image_accuracy"] == "50.0" and facts["both_accuracy"] == "100.0"
    assert facts["smil_gain"].startswith("+50.00") and facts["shaspec_over_smil"].startswith("-25.00")
    assert study.silent_facts(scores)["silent_gain"].startswith("+25.00")
    assert study.longer_facts(study.over_longer(scores))["over_longer"].startswith("+25.00")


def test_what_was_not_run_is_said_to_be_so() -> None:
    short = made_up(without=(("avmnist", "lower", "longer@0"), ("avmnist", "shaspec", "paper@0")))
    assert study.over_longer(short) == {}
    assert set(study.longer_facts({}).values()) == {"(not run in this profile)"}
    assert set(study.silent_facts(short).values()) == {"(not run in this profile)"}
    assert list(study.sound_in_shaspec(short)["over"]) == ["design padded"]


def test_accuracy_has_a_row_per_arm_and_repeats_what_knows_no_rate(scores: study.Study) -> None:
    cells = study.accuracy(scores)
    assert cells.loc[cells["arm"].eq("lower"), "rate"].isna().all()
    table = study.accuracy_table(cells, "test", scores.rates)
    assert table.loc["image alone", "5 %"] == table.loc["image alone", "20 %"]
    assert table.loc["image and audio", "20 %"].startswith("100.00")
    assert pd.isna(table.loc["GAN", "5 %"])
    assert "image and audio" not in study.accuracy_table(cells, "large_test", scores.rates).index


def test_figures_have_a_panel_per_test_set_and_a_band(scores: study.Study) -> None:
    left, right = study.accuracy_by_rate(scores, study.accuracy(scores)).axes
    assert left.get_title("left") == right.get_title("left") == "4 test digits"
    (axis,) = study.gains_by_rate(study.gains(scores)).axes
    assert list(axis.get_xticks()) == [5.0, 20.0]
    assert "image alone, SMIL's updates" in axis.get_legend_handles_labels()[1]


def test_the_paper_stands_beside_our_share_of_complete_pairs(scores: study.Study) -> None:
    read_off = pd.DataFrame({"method": ["shaspec", "smil"], "rate": [15, 15], "accuracy_percent": [97.0, 96.0]})
    (axis,) = study.complete_share(scores, read_off).axes
    assert axis.get_legend_handles_labels()[1] == ["ShaSpec", "ShaSpec, paper, other data", "SMIL, paper, other data"]
    assert study.complete_share_text(scores) == "ShaSpec at 50 % 75.0 %"


def test_the_control_compares_shuffled_sounds_with_none_and_with_true_ones(scores: study.Study) -> None:
    (row,) = study.shuffled_sounds(scores).to_dict("records")
    assert study.shuffled_rate(scores) == 20
    assert row["shuffled over image alone, points"].startswith("+0.00")
    assert row["true pairs over shuffled, points"].startswith("+25.00")


def test_costs_are_ratios_to_shaspec(scores: study.Study) -> None:
    medians = study.cost_medians(scores)
    steps = study.step_costs(medians)
    assert list(steps.index) == ["shaspec", "smil-released"]
    assert steps.loc["smil-released", "step over ShaSpec's"] == pytest.approx(3)
    assert steps.loc["smil-released", "paper"] == "5.1" and study.cost_repeats(scores) == 1
    assert study.growing(study.memory_slopes(medians)) == "smil-released"
    assert study.seeds_as_stack(medians).loc["two linear layers", "gain (ratio)"] == pytest.approx(3)


def test_nothing_grows_where_slopes_are_small() -> None:
    assert study.growing(pd.DataFrame({"low": [0.0, study.GROWING]}, index=["a", "b"])) == "none"


def test_conditions_name_the_worst_rate(scores: study.Study) -> None:
    table = study.conditions(scores, study.gains(scores)).set_index("what has to hold")
    assert table["holds"].iloc[0] == "NO" and table["measured"].iloc[0] == "50.00 %"
    assert table["measured"].iloc[3].startswith("-50.00")


def test_parts_of_smil_are_compared_over_common_seeds(scores: study.Study) -> None:
    (part,) = study.parts_of_smil(scores).to_dict("records")
    assert (part["part"], part["effect"], part["seeds"]) == ("joint training, no inner step, 20 % audio", 50, 1)
    (varied,) = study.outer_loss(scores).to_dict("records")
    assert varied["SMIL (paper), but"] == "outer loss on all pairs" and varied["common seeds"] == 1
    assert varied["over SMIL (paper), points"].startswith("+50.00")


def test_of_the_ledger_the_parts_of_one_claim_are_taken() -> None:
    parts = pd.DataFrame(
        {"id": ["S4", "S4", "S5"], "part": ["test, audio 5 %: a", "large_test, audio 5 %: a", "x"]}
        | {"effect": [1.0, np.nan, 1.0]}
    )
    (row,) = study.over_smil(parts).to_dict("records")
    assert (row["target"], row["name"]) == ("test", "audio 5 %: a")


def test_the_margin_of_the_paper_is_counted_in_images(tmp_path: Path) -> None:
    (tmp_path / "shaspec_table3.csv").write_text(
        "rate,method,accuracy_percent,source\n5,lower,92.35,T\n5,smil,92.89,T\n5,shaspec,93.33,T\n"
    )
    printed = study.read_printed(tmp_path)
    assert list(printed.index) == ["lower", "smil", "shaspec"]
    assert study.printed_facts(printed)["margins"] == "2"
    assert study.printed_facts(printed)["standard_error"] == "1.2"


def pairs(digits: int = 10) -> SimpleNamespace:
    labels = torch.arange(digits).repeat(2)
    sounds = torch.arange(2 * digits).float()[:, None, None, None].expand(-1, 1, 20, 20)
    return SimpleNamespace(labels=labels, images=torch.rand(2 * digits, 1, 28, 28), audio=sounds)


def test_every_digit_has_its_image_and_the_sounds_of_two_pairs() -> None:
    axes = np.array(study.portraits(pairs()).axes).reshape(3, 10)
    assert [axis.get_title("left") for axis in axes[0]] == [str(digit) for digit in range(10)]
    drawn = [np.asarray(axis.images[0].get_array()) for axis in axes[:, 3]]
    assert [one.shape for one in drawn] == [(28, 28), (study.COEFFICIENTS, 20), (study.COEFFICIENTS, 20)]
    assert drawn[1][0, 0] == 3 and drawn[2][0, 0] == 13


def test_a_digit_without_two_pairs_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="unpack"):
        study.portraits(pairs(9))
