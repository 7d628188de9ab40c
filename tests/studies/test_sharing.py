"""The dial of what modalities share, on scores that are made up: contrasts by hand, the ceiling, and what is absent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from mmlib.analysis.results import Results
from mmlib.modalities import MRI
from mmlib.studies import sharing as study

PLACES: dict[str, float | None] = {"sharing-0": 0.0, "sharing-100": 1.0}
CASES = ("a", "b", "c")
WORTH = {0.0: 0.01, 1.0: 0.04}  # what both losses are worth, Dice
FEATURES = {"probe-shared": 0.4, "probe-specific": 1.0, "retrieval-shared": 0.5}


def scores_of(
    arms: Iterable[str] = study.ARMS, places: Iterable[str] = PLACES, seeds: Iterable[int] = (0, 1)
) -> pd.DataFrame:
    """Dice by place, combination, region, case and seed; of `paper` so much more than of all others."""
    rows = []
    for experiment in places:
        shared = PLACES[experiment] or 0.0
        for arm in arms:
            method = "dropout-unet" if arm == study.UNET else "shaspec"
            for seed in seeds:
                same = (experiment, method, "standard" if arm == study.UNET else arm, seed)
                rows += [
                    (*same, case, names, target, "dice", 0.3 + 0.1 * len(names.split("+")) + gain + spread)
                    for gain in (WORTH[shared] if arm == study.PAPER else 0.0,)
                    for names in study.SETS[study.ANY]
                    for target, less in (("wt", 0.0), ("tc", 0.1), ("et", 0.2))
                    for place, case in enumerate(CASES)
                    for spread in (0.01 * place + 0.002 * seed - less,)
                ]
                if method == "shaspec":
                    rows += [(*same, "all", "all", "modality", name, value) for name, value in FEATURES.items()]
    columns = ["experiment", "method", "variant", "seed", "case", "available", "target", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def dial_of(scores: pd.DataFrame, places: dict[str, float | None] = PLACES) -> study.Dial:
    return study.read_dial(Results(pd.DataFrame(), scores), places)


@pytest.fixture(scope="module")
def dial() -> study.Dial:
    return dial_of(scores_of())


def test_captions_say_how_many_seeds_the_places_have(dial: study.Dial) -> None:
    scores = scores_of()
    assert dial.sample == f"n = {len(CASES)} test cases, 2 seeds, phantom"
    fewer = scores[scores["experiment"].ne("sharing-0") | scores["seed"].eq(0)]
    assert dial_of(fewer).sample == f"n = {len(CASES)} test cases, 1 to 2 seeds, phantom"


@pytest.mark.parametrize(
    ("phantom", "place"),
    [({"spacing": 4.0, "shared": 0.5}, 0.5), ({"spacing": 4.0}, 1.0), ({"preset": "realistic"}, 1.0), ({}, None)],
)
def test_the_place_of_a_data_set_is_that_of_its_phantoms(phantom: dict[str, Any], place: float | None) -> None:
    assert study.shared_of(phantom) == place


def test_the_gain_of_the_losses_is_the_mean_over_combinations_and_regions(dial: study.Dial) -> None:
    for shared, worth in WORTH.items():
        gain = dial.gain(study.NEITHER, shared)
        assert gain is not None and gain.effect == pytest.approx(100 * worth)
        assert (gain.n, gain.seeds) == (3, 2)


def test_a_gain_is_paired_by_seed_and_case() -> None:
    scores = scores_of()
    ours = scores["variant"].eq(study.PAPER) & scores["experiment"].eq("sharing-100") & scores["metric"].eq("dice")
    scores.loc[ours & scores["case"].eq("a"), "value"] += 0.03
    gain = dial_of(scores).gain(study.NEITHER, 1.0, study.SINGLE)
    assert gain is not None
    # differences of cases 7, 4, 4: mean 5, standard error 1 (sd sqrt(3), three cases), t of 2 degrees of freedom 4.3027
    assert gain.effect == pytest.approx(5) and gain.high - gain.effect == pytest.approx(4.3027, abs=1e-4)


def test_the_change_along_the_dial_is_the_difference_of_gains_on_shared_seeds() -> None:
    scores = scores_of()
    alone = scores["seed"].eq(1) & scores["experiment"].eq("sharing-0") & scores["variant"].eq(study.NEITHER)
    change = dial_of(scores[~alone]).change(study.NEITHER)
    assert change is not None
    assert change.effect == pytest.approx(3) and change.seeds == 1


def test_reached_is_dice_of_whole_tumour(dial: study.Dial) -> None:
    rows = study.reached(dial).set_index(["arm", "shared", "names"])["mean"]
    assert rows[study.NEITHER, 1.0, study.SINGLE] == pytest.approx(41.1)  # 30 + 10 for one modality, + 1 and + 0.1
    assert rows[study.PAPER, 1.0, study.COMPLETE] == pytest.approx(75.1)
    # the mean size of a combination is 32 / 15
    assert rows[study.UNET, 0.0, study.ANY] == pytest.approx(31.1 + 10 * 32 / 15)


def test_the_ceiling_by_hand() -> None:
    # 4 % are healthy; at 0 one of four modalities sees a quarter of the tumours
    assert study.ceiling(0.0, study.SINGLE, blind=0.2) == pytest.approx(100 * 0.96 * (0.25 + 0.75 * 0.2))
    assert study.ceiling(0.0, study.SINGLE, blind=0.0) == pytest.approx(100 * (0.96 * 0.25 + 0.04)), "marks nothing"
    # 4 combinations of one, 6 of two, 4 of three modalities and 1 of four
    seen = (4 * 0.25 + 6 * 0.5 + 4 * 0.75 + 1) / 15
    share = (14 * 0.96 * 0.2 + 0.04 - 0.96 * 0.2 * (4 * 0.25 + 6 * 0.5 + 4 * 0.75)) / 15
    assert study.ceiling(0.0, study.ANY, blind=0.2) == pytest.approx(100 * (0.96 * seen + share))
    for names in study.SETS:
        assert study.ceiling(1.0, names, blind=0.2) == pytest.approx(100)


def test_the_best_blind_marking_is_of_the_test_cases(tmp_path: Path) -> None:
    for case, voxels in {"a": 2, "b": 1, "c": 1}.items():  # voxels of tumour, from the same corner
        (tmp_path / case).mkdir()
        labels = np.zeros((4, 4, 4), np.uint8)
        labels[0, 0, :voxels] = 1
        for name, volume in {**dict.fromkeys(MRI, np.ones((4, 4, 4), np.float32)), "seg": labels}.items():
            nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / case / f"{case}_{name}.nii.gz")
    dial = dial_of(scores_of([study.PAPER], ["sharing-0"]))
    # one voxel has a Dice of 2/3, 1 and 1; two have 1, 2/3 and 2/3
    assert study.blind_dice(dial, lambda name, cases: {"sharing-0": tmp_path}[name]) == pytest.approx(8 / 9)


def test_the_figures_draw_a_line_per_arm_and_the_ceiling(dial: study.Dial) -> None:
    rows, gained = study.reached(dial), study.gains(dial)
    curves = study.dial_figure(rows, blind=0.2).axes
    assert [axis.get_title(loc="left") for axis in curves] == list(study.SETS)
    ceiling, *arms = curves[1].lines
    assert len(arms) == len(study.ARMS)
    np.testing.assert_allclose(ceiling.get_ydata()[[0, -1]], [100 * 0.96 * 0.4, 100])
    (both, *_) = (line for line in study.gain_figure(gained).axes[0].lines if line.get_label() == "both losses")
    np.testing.assert_allclose(both.get_ydata(), [1, 4])
    assert len(study.feature_figure(dial).axes) == len(study.MEASURES)


def test_the_table_has_a_column_per_place(dial: study.Dial) -> None:
    table = study.gain_table(study.gains(dial))
    assert list(table.columns) == ["worth of", "tested with", "shared = 0", "shared = 1"]
    assert table.loc[0].tolist() == ["both losses", study.ANY, "+1.0 (+1.0 to +1.0)", "+4.0 (+4.0 to +4.0)"]
    assert len(table) == len(study.GAINS) * len(study.SETS)


def test_what_the_prose_says(dial: study.Dial) -> None:
    told = study.facts(dial, study.reached(dial), blind=0.2)
    assert (told["dial_first"], told["dial_last"], told["dial_blind"]) == ("0", "1", "0.20")
    assert (told["dial_single_first"], told["dial_ceiling_first"]) == ("42.1", "38.4")
    assert (
        told["dial_losses_last"] == "+4.0 points (+4.0 to +4.0)" and told["dial_losses_words"] == "raise the mean Dice"
    )
    assert told["dial_change"] == "+3.0 points (+3.0 to +3.0)" and told["dial_change_words"] == "grows along the dial"
    assert study.feature_text(dial).startswith("probe, shared features 40 % at 0, 40 % at 1; probe, specific")
    assert study.reached_text(study.reached(dial)).startswith("ShaSpec 42.1 at 0, 45.1 at 1")
    assert study.gain_text(study.gains(dial)).startswith("both losses +1.0 (+1.0 to +1.0) at 0, +4.0")


@pytest.mark.parametrize(
    ("arms", "places"),
    [([study.PAPER], ["sharing-0"]), ([study.PAPER, study.NEITHER], ["sharing-0"]), ([study.NEITHER], [*PLACES])],
)
def test_an_arm_or_a_place_that_was_not_run_gives_a_sentence(arms: list[str], places: list[str]) -> None:
    dial = dial_of(scores_of(arms, places))
    told = study.facts(dial, study.reached(dial), blind=0.2)
    assert told["dial_change"] == told["dial_unet_first"] == study.ABSENT
    assert told["dial_change_words"] == "was not compared at both ends in this profile"
    study.dial_figure(study.reached(dial), blind=0.2)
    assert study.gains(dial).empty == (study.PAPER not in arms or study.NEITHER not in arms)


def test_without_any_run_on_the_dial_there_are_sentences_and_no_error() -> None:
    for scores, places in ((scores_of(), dict.fromkeys(PLACES)), (scores_of().head(0), {})):
        dial = dial_of(scores, places)
        rows = study.reached(dial)
        assert rows.empty and study.gains(dial).empty and dial.features.empty
        assert np.isnan(study.blind_dice(dial, lambda name, cases: {}[name]))
        assert set(study.facts(dial, rows, np.nan)) == set(study.facts(dial_of(scores_of()), rows, 0.2))
    assert study.places_text({}) == study.NOTHING


def test_the_places_are_told_and_data_that_have_none() -> None:
    assert study.places_text({"sharing-0": 0.0, "sharing-100": 1.0}) == (
        "On the dial, `shared` is 0 and 1. Not run in this profile: `sharing-50`."
    )
    own = study.places_text({"sharing-0": 0.0, "sharing-50": 0.5, "sharing-100": None})
    assert own.endswith("The data of `sharing-100` are no phantom: of them nobody knows what modalities share.")


def test_the_sets_are_combinations_of_the_four_modalities() -> None:
    assert [len(names) for names in study.SETS.values()] == [15, 4, 1] and len(MRI) == 4
