"""The dial of what can be known, on made-up scores and hand-made tissues, and on two small phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmlib.analysis.results import Results
from mmlib.data.phantoms.brain import Tissues, write_brats
from mmlib.data.phantoms.options import Options
from mmlib.data.slices import Slices
from mmlib.modalities import MRI
from mmlib.studies import hallucination as study

FOLDERS = {"plain": {"spacing": 4.0}, "signed": {"spacing": 4.0, "predictable": 1.0}, "own": {}}


def results(levels: dict[str, dict[str, float]], data: dict[str, str], cases: int = 4) -> Results:
    """Runs of both networks with PSNR by region: experiment -> region -> level; M2DN lies 1 dB lower."""
    rows, records = [], []
    for experiment, regions in levels.items():
        for method in ("m2dn", "regression"):
            facts = {"parameters.data": data[experiment], "parameters.cases_test": cases}
            records.append({"experiment": experiment, "run": method, "stand_in": True, **facts})
            for region, level in regions.items():
                for seed in (0, 1):
                    for case in range(cases):
                        value = level - (method == "m2dn") + 0.1 * case + 0.05 * seed
                        own = {"metric": f"psnr-{region}", "seed": seed, "case": f"c{case}", "value": value}
                        rows.append(
                            {"experiment": experiment, "run": method, "method": method, "variant": "unet", **own}
                        )
    scores = pd.DataFrame(rows).assign(available="t1+t2+flair", target="t1ce")
    return Results(pd.DataFrame(records), scores)


@pytest.fixture
def runs() -> Results:
    levels = {
        "hallucination-0": {"et": 10.0, "core": 15.0, "oedema": 20.0},
        "hallucination-100": {"et": 16.0, "core": 18.0, "oedema": 20.5},
    }
    return results(levels, {"hallucination-0": "plain", "hallucination-100": "signed"})


def truth(solid: list[float], lit: list[float], guess: list[float], subjects: tuple[str, ...] = ("a",)) -> study.Truth:
    """Slices of 1 x 40 voxels: 10 of white matter at 0.0, and three times 10 with the shares given, one list for all.

    Solid tissue is at -0.2 and enhancing at 0.8 in t1ce.
    """
    shares = [torch.tensor([0.0] + part).repeat_interleave(10)[None, None] for part in (solid, lit, guess)]
    solid_map, lit_map, guess_map = (one.expand(len(subjects), 1, 40).clone() for one in shares)
    white = torch.zeros(len(subjects), 1, 40, dtype=torch.bool)
    white[..., :10] = True
    images = torch.full((len(subjects), 4, 1, 40), -1.0)
    t1ce = 0.8 * solid_map + 1.8 * lit_map - 1 + white
    images[:, MRI.index("t1ce")] = t1ce
    everywhere = torch.ones(len(subjects), 1, 40, dtype=torch.bool)
    labels = (4 * (lit_map > 0.5) + 1 * (solid_map > 0.5)).to(torch.uint8)
    slices = Slices(
        images,
        torch.ones(len(subjects), 4, dtype=torch.bool),
        everywhere,
        labels,
        subjects,
        subjects,
        torch.zeros(len(subjects), dtype=torch.int64),
        MRI,
    )
    # half way from -0.2 to 0.8 is 0.3: 1.3 times the white matter
    return study.Truth(slices, lit_map, solid_map, guess_map, white, {"a": 1.0}, {"a": 1.3})


def test_positions_are_those_of_phantoms_from_the_least_predictable(runs: Results) -> None:
    dial = study.positions(runs, FOLDERS)
    assert [position.predictable for position in dial] == [0, 1]
    text = study.what_was_run(dial)
    assert "0% (`hallucination-0`) and 100% (`hallucination-100`)" in text and "alone" not in text


def test_cases_of_the_readers_and_absent_experiments_are_no_position(runs: Results) -> None:
    own = runs.records.assign(**{"parameters.data": runs.records["parameters.data"].replace("plain", "own")})
    dial = study.positions(Results(own, runs.scores), FOLDERS)
    assert [position.experiment for position in dial] == ["hallucination-100"]
    assert "One position alone tells no difference" in study.what_was_run(dial)
    nothing = study.positions(Results(own.iloc[:0], runs.scores.iloc[:0]), FOLDERS)
    assert nothing == [] and "nothing to show here" in study.what_was_run(nothing)
    assert study.gains(runs.scores, dial).empty and study.errors_by_region(runs.scores, nothing).empty
    assert study.gain_facts(study.gains(runs.scores, dial))["dial_et_m2dn"] == "not known in this profile"


def test_a_run_without_its_rival_is_no_position(runs: Results) -> None:
    alone = runs.records[runs.records["run"].eq("m2dn")]
    assert study.positions(Results(alone, runs.scores), FOLDERS) == []


def test_errors_by_region_are_means_over_seeds_and_subjects(runs: Results) -> None:
    errors = study.errors_by_region(runs.scores, study.positions(runs, FOLDERS))
    row = errors.query("arm == 'm2dn unet' and region == 'et' and predictable == 1").iloc[0]
    assert row["mean"] == pytest.approx(16 - 1 + 0.15 + 0.025) and (row["subjects"], row["seeds"]) == (4, 2)
    assert len(errors) == 2 * 2 * 3


def test_a_region_of_one_subject_has_no_row(runs: Results) -> None:
    scores = runs.scores[~(runs.scores["metric"].eq("psnr-et") & runs.scores["case"].ne("c0"))]
    errors = study.errors_by_region(scores, study.positions(runs, FOLDERS))
    assert set(errors["region"]) == {"core", "oedema"}
    assert not study.gains(scores, study.positions(runs, FOLDERS))["part"].str.contains("enhancing").any()


def test_gains_along_the_dial_and_less_the_control_by_hand(runs: Results) -> None:
    rows = study.gains(runs.scores, study.positions(runs, FOLDERS)).set_index("part")
    assert rows.loc["enhancing tumour: M2DN, U-Net", "effect"] == pytest.approx(6)
    assert rows.loc["oedema, the control: M2DN, U-Net", "effect"] == pytest.approx(0.5)
    assert rows.loc["enhancing less oedema: M2DN, U-Net", "effect"] == pytest.approx(5.5)
    assert rows["unit"].eq("dB").all() and len(rows) == 8
    facts = study.gain_facts(rows.reset_index())
    assert facts["dial_net_regression"].startswith("+5.5 (") and facts["dial_net_regression"].endswith(" dB")


def test_the_gain_of_subjects_that_lack_a_region_at_one_end_is_over_the_others(runs: Results) -> None:
    gone = runs.scores["experiment"].eq("hallucination-0") & runs.scores["case"].eq("c3")
    rows = study.gains(runs.scores[~gone], study.positions(runs, FOLDERS))
    assert rows["n"].eq(3).all()


def test_the_best_guess_by_hand() -> None:
    solid, lit, dense = np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 1.0])
    maps = {"solid": solid, "enhancing": lit}
    plain = Tissues(maps, np.eye(4))
    # 0.88 of the tumours enhance, on average 0.45 of their solid tissue
    assert study.best_guess(plain, 0.0) == pytest.approx([0.396] * 3)
    signed = Tissues(maps, np.eye(4), {"solid": 0 * dense, "enhancing": dense})
    assert study.best_guess(signed, 1.0) == pytest.approx(lit)
    assert study.best_guess(signed, 0.5) == pytest.approx([0.198, 0.198 + 0.25, 0.198 + 0.5])


def test_the_best_guess_is_right_on_average_and_does_not_look_at_what_enhances() -> None:
    seeds = np.random.default_rng(0)
    share = np.where(seeds.random(200_000) < 0.88, seeds.uniform(0.25, 0.65, 200_000), 0)
    assert share.mean() == pytest.approx(study.EXPECTED_SHARE, abs=2e-3)
    one, other = ({"solid": np.array([a]), "enhancing": np.array([1 - a])} for a in (0.0, 1.0))
    same = {"solid": np.array([0.0]), "enhancing": np.array([0.0])}
    guesses = [study.best_guess(Tissues(maps, np.eye(4), same), 0.5) for maps in (one, other)]
    assert guesses[0] == guesses[1]


def test_the_image_of_the_best_guess_by_hand() -> None:
    known = truth(solid=[1, 0, 0], lit=[0, 1, 0], guess=[0.4, 0.4, 0.0])
    off = (known.best_image - known.t1ce)[0, 0]
    assert off[:10].abs().max() == 0 and off[30:].abs().max() == 0
    assert off[10:20].numpy() == pytest.approx(0.4) and off[20:30].numpy() == pytest.approx(0.4 - 1.0)


def test_rates_by_hand_and_they_do_not_depend_on_the_scale_of_the_image() -> None:
    known = truth(solid=[1, 0, 0], lit=[0, 1, 0], guess=[0.4, 0.4, 0.0])
    half = known.t1ce.clone()
    half[..., 20:25] = -0.2  # half of what enhances is not shown
    half[..., 10:12] = 0.8  # a fifth of the rest is, though it does not enhance
    dimmed = (half + 1) * 0.7 - 1
    made = {"sample": torch.stack([half, known.t1ce]), "mean": dimmed[None]}
    found = study.rates(known, made).set_index("arm")
    assert found["enhances"].all()
    assert found.loc["true", ["found", "invented", "rmse_et"]].tolist() == pytest.approx([1, 0, 0])
    assert found.loc["limit", ["found", "invented"]].tolist() == pytest.approx([0, 0])  # 0.4 is less likely than not
    assert found.loc["sample", ["found", "invented"]].tolist() == pytest.approx([0.75, 0.1])
    assert found.loc["mean", ["found", "invented"]].tolist() == pytest.approx([0.5, 0.2])
    sure = study.rates(truth(solid=[1, 0, 0], lit=[0, 1, 0], guess=[0.4, 0.6, 0.0]), {}).set_index("arm")
    assert sure.loc["limit", ["found", "invented"]].tolist() == pytest.approx([1, 0])
    # of the limit: 0.4 and 0.6 in equal parts, in percent of a range of 2
    assert found.loc["limit", "rmse_et"] == pytest.approx(30)
    assert found.loc["limit", "rmse_solid"] == pytest.approx(50 * ((0.16 + 0.36) / 2) ** 0.5)


def test_a_tumour_that_does_not_enhance_has_what_is_invented_and_nothing_to_find() -> None:
    known = truth(solid=[1, 1, 0], lit=[0, 0, 0], guess=[0.4, 0.4, 0.0])
    made = {"sample": (known.t1ce + 1.5)[None]}  # brighter, white matter too: 1.3 / 2.5 is not enhancement
    made["mean"] = torch.where(known.white, known.t1ce, known.t1ce + 1.5)[None]
    found = study.rates(known, made).set_index("arm")
    assert not found["enhances"].any() and found["found"].isna().all()
    assert found.loc["sample", "invented"] == 0 and found.loc["mean", "invented"] == 1
    table = study.rates_table({0.0: found.reset_index()}).set_index("t1ce")
    assert table.loc["M2DN, mean of samples", "invented where nothing enhances, %"] == 100
    assert table.loc["true image", "tumours"] == "0 + 1"


def test_without_a_tumour_that_enhances_nothing_is_measured() -> None:
    known = truth(solid=[1, 1, 0], lit=[0, 0, 0], guess=[0.4, 0.4, 0.0])
    blind = study.Truth(known.slices, known.enhancing, known.solid, known.guess, known.white, {}, {})
    assert study.rates(blind, {}).empty
    assert study.rates_table({0.0: study.rates(blind, {})}).empty
    assert set(study.rates_facts({}).values()) == {"not known in this profile"}


def test_what_a_run_measured_is_read_back_as_it_was(runs: Results, tmp_path: Path) -> None:
    known = truth(solid=[1, 0, 0], lit=[0, 1, 0], guess=[0.4, 0.6, 0.0], subjects=("a", "b"))
    enhancing, dark = known.enhancing.clone(), known.solid.clone()
    dark[1], enhancing[1] = dark[1] + enhancing[1], 0  # b has nothing that enhances
    known = study.Truth(known.slices, enhancing, dark, known.guess, known.white, known.brightness, known.shows)
    several = torch.stack([known.t1ce, known.best_image, known.t1ce])
    made = {"regression unet": known.best_image[None], "sample": several, "mean": several.mean(0, keepdim=True)}
    measured = study.rates(known, made)
    rows = measured.rename(columns={"arm": "variant", "subject": "case"}).melt(["variant", "case"], var_name="metric")
    limit = pd.DataFrame({"variant": ["floors mean"], "case": ["a"], "metric": ["psnr-et"], "value": [7.0]})
    own = pd.concat([rows.dropna(), limit]).assign(
        experiment="hallucination-0-images", method="images", available="t1+t2+flair", target="t1ce", seed=0
    )
    np.savez_compressed(tmp_path / "examples.npz", **study.example_images(known, made))
    record = {"experiment": "hallucination-0-images", "run": "images", "folder": str(tmp_path)}
    both = Results(
        pd.concat([runs.records, pd.DataFrame([record])], ignore_index=True),
        pd.concat([runs.scores, own.astype({"value": float})], ignore_index=True),
    )
    dial = study.positions(both, FOLDERS)
    assert [position.images for position in dial] == [tmp_path, None]
    found = study.read_rates(both.scores, dial)
    assert list(found) == [0.0] and found[0.0]["enhances"].dtype == bool
    order = ["arm", "subject"]
    pd.testing.assert_frame_equal(
        found[0.0].sort_values(order, ignore_index=True), measured.sort_values(order, ignore_index=True)
    )
    row = study.read_yardsticks(both.scores, dial).query("method == 'floors'")
    assert row[["experiment", "variant", "value"]].to_numpy().tolist() == [["hallucination-0", "mean", 7.0]]
    shown = study.read_examples(dial)[0.0]
    assert set(shown) == {"enhances", "does not enhance"} and shown["enhances"]["sample"].shape == (3, 1, 40)
    assert shown["enhances"]["lit"].sum() == 10 and not shown["does not enhance"]["lit"].any()
    tall = {kind: {name: np.repeat(one, 2, axis=-2) for name, one in own.items()} for kind, own in shown.items()}
    figure = study.examples_figure({0.0: tall})
    assert {"sample 3", "mean of samples"} < {axis.get_title(loc="left") for axis in figure.axes}


def test_tissues_of_phantoms_lie_where_their_slices_show_them(tmp_path: Path) -> None:
    seeds = (3, 5)
    write_brats(tmp_path / "data", seeds, 4.0, predictable=1.0)
    names = [f"phantom-{seed:04d}" for seed in seeds]
    split = pd.DataFrame({"case": names, "subject": names, "part": ["train", "test"]})
    split.to_csv(tmp_path / "split.csv", index=False)
    record = pd.Series(
        {
            "parameters.data": "data",
            "parameters.split": "split.csv",
            "parameters.size": [56, 48],
            "parameters.cases_train": 0,
            "parameters.cases_test": 0,
            "parameters.least_brain": 0.15,
            "parameters.every_train": 4,
            "parameters.every_test": 3,
        }
    )
    position = study.Position("hallucination-100", Options(predictable=1.0), record)
    known = study.read_truth(position, tmp_path)
    assert set(known.slices.case) == {"phantom-0005"}
    lit, other = known.enhancing > 0.5, known.solid > 0.5
    assert known.slices.labels is not None and (known.slices.labels[lit] == 4).float().mean() > 0.95
    assert known.t1ce[lit].mean() > known.t1ce[other].mean() + 0.1  # the contrast agent shows
    assert (known.guess - known.enhancing).abs().max() < 1e-5  # all of it can be known
    blind = study.Truth(known.slices, known.enhancing, known.solid, known.guess * 0, known.white, known.brightness, {})
    pure = known.solid + known.enhancing > 0.9  # without its guess the image holds nothing of what enhances
    left = torch.corrcoef(torch.stack([blind.best_image[pure], known.enhancing[pure]]))[0, 1]
    assert abs(left) < 0.01 < torch.corrcoef(torch.stack([known.t1ce[pure], known.enhancing[pure]]))[0, 1] - 0.5
    thin = known.every(3, 0.15)
    assert thin[0] >= 0 and len(thin) < len(known.slices) / 2 and set(thin.tolist()) <= set(range(0, 999, 3))
    cut = known.tumour_slices(2)
    assert 0 < len(cut) < len(known.every(2)) and ((known.solid + known.enhancing)[cut].amax(dim=(1, 2)) > 0.5).all()
    scores = study.yardsticks(known, position, study.floors(position, tmp_path))
    level = scores[scores["metric"].eq("psnr-et")].set_index("variant")["value"]
    assert level["limit"] == pytest.approx(100)  # brightness is that of the one subject
    assert set(level.index) == {"limit", "floors mean", "floors nearest"}
    assert scores["available"].eq("t1+t2+flair").all()
