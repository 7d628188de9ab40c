"""The tables and figures of the chapter on M2DN, on made-up scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from mmlib.analysis.results import Results
from mmlib.data.slices import Slices, patterns
from mmlib.modalities import IXI, MRI, label
from mmlib.studies import synthesis as study

CASES = ("a", "b", "c")
LEVEL = {  # arm -> PSNR, dB
    ("m2dn", "paper"): 24.0,
    ("m2dn", "unet"): 25.0,
    ("m2dn", "skips"): 24.5,
    ("m2dn", "noise"): 4.0,
    ("m2dn", "unet-noise"): 20.0,
    ("regression", "standard"): 27.0,
    ("regression", "unet"): 25.5,
    ("mm-gan", "standard"): 23.0,
    ("floors", "mean"): 20.0,
    ("floors", "nearest"): 22.0,
}


def rows_of(experiment: str, method: str, variant: str, metric: str, level: float, **where: str) -> list[dict]:
    seeds = (0, 1) if method == "m2dn" else (0,)
    same = {"experiment": experiment, "run": method, "method": method, "variant": variant, "metric": metric}
    same = {**same, "available": "one missing", "target": "mean", **where}
    return [
        {**same, "seed": seed, "case": case, "value": level + 0.1 * place}
        for seed in seeds
        for place, case in enumerate(CASES)
    ]


@pytest.fixture
def scores() -> study.Study:
    rows = []
    for (method, variant), level in LEVEL.items():
        for experiment, (_, modalities) in study.LAYOUTS.items():
            for missing in study.MISSING:
                rows += rows_of(experiment, method, variant, "psnr-mean", level, available=missing)
            for left in patterns(modalities):
                for target in set(modalities) - set(left):
                    where = {"available": label(left, modalities), "target": target}
                    rows += rows_of(experiment, method, variant, "psnr", level + len(left), **where)
        if method == "m2dn":
            rows += rows_of("synthesis", method, variant, "valid-psnr", level)
    for method, level in (("regression", 24.0), ("mm-gan", 22.0)):
        rows += rows_of("synthesis-steps", method, "standard", "psnr-mean", level, available="one missing")
    rows += rows_of("synthesis-ixi", "m2dn", "no-mask", "psnr-mean", 23.5)
    for variant, level in {"noise": 20.0, "noise handed-over": 24.0, "probe-unet": 25.0}.items():
        rows += rows_of("synthesis-studies", "studies", variant, "psnr-mean", level)
    table = pd.DataFrame(rows)
    records = table[["experiment", "run"]].drop_duplicates().assign(stand_in=True)
    other = rows_of("segmentation", "shaspec", "paper", "dice", 0.5)
    return study.read_study(Results(records, pd.concat([table, pd.DataFrame(other)], ignore_index=True)))


def studied(rows: list[tuple[str, str, str, float]]) -> study.Study:
    """Scores of `synthesis-studies` alone: variant, target, metric, value."""
    same = {"experiment": "synthesis-studies", "run": "studies", "method": "studies", "seed": 0, "case": "a"}
    names = ["variant", "target", "metric", "value"]
    table = pd.DataFrame([{**same, "available": "", **dict(zip(names, row, strict=True))} for row in rows])
    return study.read_study(Results(table[["experiment", "run"]].drop_duplicates().assign(stand_in=True), table))


def cost_scores() -> study.Study:
    values = {  # variant -> seconds, PSNR
        "paper ddim-1": (1.0, 20.0),
        "paper ddim-25": (25.0, 21.0),
        "paper ancestral-1000": (1000.0, 21.1),
        "regression": (0.5, 22.0),
        "mm-gan": (0.5, 19.0),
    }
    rows = []
    for variant, (seconds, psnr) in values.items():
        facts = {"sample-seconds": seconds, "psnr": psnr}
        if "ddim" in variant:
            facts |= {"psnr-gain": psnr - 21.1, "psnr-gain-low": psnr - 21.2, "psnr-gain-high": psnr - 21.0}
        for metric, value in facts.items():
            rows += [
                {"experiment": "synthesis-sampling", "run": "cost", "method": "m2dn", "variant": variant}
                | {"seed": 0, "case": case, "available": "", "target": "t1", "metric": metric, "value": value}
                for case in (CASES if metric == "psnr" else CASES[:1])
            ]
    rows += [
        {"experiment": "synthesis-sampling", "run": "cost", "method": "m2dn", "variant": "regression", "seed": 0}
        | {"case": "a", "available": "", "target": "t1", "metric": "peak-mib", "value": 8.0}
    ]
    records = pd.DataFrame([{"experiment": "synthesis-sampling", "run": "cost", "stand_in": True}])
    return study.read_study(Results(records, pd.DataFrame(rows)))


def test_the_study_leaves_other_experiments_out_and_names_its_sample(scores: study.Study) -> None:
    assert set(scores.scores["experiment"]) == set(study.EXPERIMENTS[:5]) - {"synthesis-sampling"}
    assert scores.sample("synthesis") == "n = 3 test subjects, 2 seeds, phantom, BraTS layout"


def test_validation_subjects_choose_the_better_network(scores: study.Study) -> None:
    assert scores.better == "unet" and scores.better_arm == "m2dn unet"
    assert scores.network_gain().effect == pytest.approx(1)


def test_scores_that_are_not_there_are_an_error_and_can_be_asked_for(scores: study.Study) -> None:
    assert scores.has("synthesis-ixi", arm="m2dn no-mask") and not scores.has("synthesis", arm="m2dn no-mask")
    with pytest.raises(ValueError, match="no scores"):
        scores.table("synthesis", "m2dn no-mask", "psnr-mean")
    with pytest.raises(ValueError, match="no scores"):
        scores.studied("dice", "paper")


def test_the_standing_compares_the_better_network_with_every_rival(scores: study.Study) -> None:
    rows = study.standing(scores).set_index("part")
    assert len(rows) == 8 and rows["unit"].eq("dB").all()
    assert rows.loc["over mean image, IXI layout", "effect"] == pytest.approx(5)
    assert rows.loc["over regression U-Net, BraTS layout", "verdict"] == "UNRESOLVED"


def test_budgets_compare_equal_steps_and_equal_time_apart(scores: study.Study) -> None:
    rows = study.budgets(scores)
    effects = rows.set_index("part")["effect"]
    assert effects["M2DN, U-Net over regression U-Net, equal steps"] == pytest.approx(1)
    assert effects["M2DN, U-Net over regression U-Net, equal time"] == pytest.approx(-2)
    assert effects["M2DN, as drawn over MM-GAN, equal steps"] == pytest.approx(2)
    facts = study.budget_facts(rows)
    assert facts["over_twin"].startswith("-0.50") and facts["near_twin"] == "This holds."
    assert study.budget_facts(rows.assign(low=-0.8))["near_twin"] == "This does not hold."


def test_noise_is_judged_by_what_was_allowed_and_by_its_first_step(scores: study.Study, monkeypatch) -> None:
    steps = {"network": "fit", "seed": 0, "step": [0, 1]}
    ends = {"m2dn": ("noise", 0.51), "m2dn-unet": ("unet-noise", 0.04)}

    def history(_, run: str, experiment: str) -> pd.DataFrame:
        variant, loss = ends[run]
        return pd.DataFrame({**steps, "variant": variant, "loss": loss})

    monkeypatch.setattr(Results, "history", history)
    facts = study.noise_facts(scores)
    assert (facts["noise_floor"], facts["noise_loss"]) == ("0.50", "0.51")
    assert (facts["noise_floor_unet"], facts["noise_loss_unet"], facts["noise_factor"]) == ("1", "0.040", "157")
    assert facts["noise_gain"].startswith("-5.00") and facts["handed_over"].startswith("-1.00")
    assert "its first step" not in facts["noise_verdict"] and "for the first step alone" in facts["noise_verdict"]
    assert list(study.knobs(scores)["effect"][:2].round(2)) == [5.0, 5.0]


def test_the_best_cell_of_a_table_is_bold(scores: study.Study) -> None:
    texts, best = study.by_observed(scores, "synthesis", "psnr")
    assert texts.loc[("3 of 4", "regression U-Net"), "t1"] == "30.1 (29.9-30.3)"
    assert best.loc[("3 of 4", "regression U-Net")].all() and best.to_numpy().sum() == 3 * len(MRI)
    assert study.bold(best).loc[("1 of 4", "regression U-Net"), "t2"] == "font-weight: bold"


def test_gains_over_the_trivial_baselines_answer_what_was_asked(scores: study.Study) -> None:
    gains = study.over_baselines(scores)
    assert len(gains) == 2 * (len(MRI) + len(IXI))
    facts = study.baseline_facts(gains, "m2dn unet")
    assert facts["patterns_above"] == "7 of 7" and facts["asked_of_mean"] == "This holds."
    assert facts["over_mean"] == "+5.0" and facts["over_copy"] == "+3.0"
    assert list(study.over_baselines_table(gains)["missing"][:3]) == ["t1", "t1", "t1ce"]


def test_the_ablation_leaves_parts_without_runs_out(scores: study.Study) -> None:
    cells = {"M2DN (U+J+M)": 30.0, "cDM(U+J)": 28.0, "cDM(U+M)": 25.0, "cDM": 26.0}
    printed = [{"method": name, "missing": "one missing", "psnr_db": value} for name, value in cells.items()]
    published = {7: pd.DataFrame(printed)}
    rows = study.ablation(scores, published)
    assert list(rows["part"]) == ["without M (U+J), one missing"]
    assert rows["effect"].iloc[0] == pytest.approx(0.5) and rows["paper"].iloc[0] == 2
    assert study.printed_losses(published, ["m2dn no-mask", "m2dn no-joint", "m2dn cdm"]) == "2.00, 5.00 and 4.00"


def test_more_modalities_make_a_trend_only_where_there_are_three_numbers(scores: study.Study) -> None:
    brats, ixi = study.trend(scores, "synthesis", "m2dn paper"), study.trend(scores, "synthesis-ixi", "m2dn paper")
    assert list(brats.table.columns) == [1, 2, 3] and brats.p < 0.05
    assert np.isnan(ixi.p) and (brats.lost, brats.pairs) == (0, 36) and ixi.pairs == 6
    assert list(study.fewer_inputs(scores)["Page's L"][3:]) == ["-", "-", "-"]


def test_samplers_are_read_from_their_names_and_compared_with_the_longest() -> None:
    table = study.samplers(cost_scores())
    assert study.longest(table) == {"paper": "paper ancestral-1000"}
    assert table.loc["paper ddim-25", "name"] == "M2DN, as drawn, DDIM, 25" and table["subjects"].eq(3).all()
    printed = study.sampler_table(table)
    assert printed.loc["paper ddim-25", "faster than that, times"] == "40.0"
    assert printed.loc["regression", "minus its longest process, dB"] == "-"
    assert printed.loc["regression", "memory, ratio to regression"] == "1.00"
    third = pd.DataFrame({"method": ["MM-GAN", "M2DN"], "seconds": [0.1, 1.5], "memory_gb": [1.0, 2.5]})
    facts = study.sampler_facts(table, {3: third})
    assert facts["asked_of_steps"] == "both hold, for both networks" and facts["most_steps"] == "1000"
    assert facts["like_printed"] == "25 steps (M2DN, as drawn)"
    assert study.printed_cost({3: third}).loc["M2DN", "time, ratio to MM-GAN"] == "15.0"


def test_losses_are_of_the_fitted_network_by_seed() -> None:
    same = {"variant": "paper", "network": "fit"}
    history = pd.DataFrame(
        [{**same, "seed": seed, "step": step, "loss": 4.0 - step} for seed in (0, 1) for step in (0, 1, 2)]
    )
    other = history.assign(network="critic", loss=9.0)
    curves = {"M2DN, as drawn, BraTS layout": study.losses(pd.concat([history, other]), "paper")}
    assert study.halves(curves) == {"M2DN, as drawn, BraTS layout": (3.0, 2.0)}
    assert len(study.loss_curves(curves).axes[0].lines) == 2


def test_a_slice_hangs_with_the_front_at_the_top() -> None:
    assert study.upright(np.array([[1, 2], [3, 4]])).tolist() == [[4, 3], [2, 1]]


def test_without_a_known_answer_nothing_is_said_of_the_rim(scores: study.Study) -> None:
    known = study.known_contrast(scores)
    assert known.empty and study.contrast_facts(known, "paper")["rim"] == "not known for these data"


def test_a_leak_is_named_where_more_is_recovered_than_there_can_be() -> None:
    rows = [("contrast-enhancement", "paper", 50.0, 40.0, 60.0, 3), ("contrast-oedema", "paper", 90.0, 80.0, 95.0, 3)]
    known = pd.DataFrame(rows, columns=["metric", "name", "mean", "low", "high", "subjects"])
    facts = study.contrast_facts(known, "paper")
    assert facts["rim"] == "50 % (40 to 60)" and "look for a leak" in facts["rim_headline"]
    assert study.contrast_table(known)["synthesised by"].iloc[0] == "M2DN, as drawn"


def test_what_is_painted_stands_beside_the_least_error_that_is_possible() -> None:
    values = {"found": 0.6, "invented": 0.6, "rmse": 0.4}
    rows = [
        (name, "t1ce", f"{metric}-{kind}", value)
        for name in study.STUDIED
        for kind in ("enhancement", "oedema")
        for metric, value in values.items()
    ]
    scores = studied([*rows, ("bound", "t1ce", "rmse-enhancement", 0.3)])
    rates = study.painted(scores)
    assert len(rates) == 2 * len(study.STUDIED) + 1 and rates["rmse"].iloc[-1] == 0.3
    assert rates.loc[0, ["found", "invented", "rmse"]].tolist() == [0.6, 0.6, 0.4]
    figure = study.known_and_unknown(rates)
    assert [line.get_label() for line in figure.axes[1].lines][-1] == "least, enhancement"
    assert study.painted(studied([("paper", "t1", "sharpness", 1.0)])).empty, "without a known answer there is none"


def test_the_classifier_s_success_is_printed_with_its_interval() -> None:
    ends = {"two-sample": 0.9, "two-sample-low": 0.85, "two-sample-high": 0.95}
    rows = [(name, target, end, value) for name in study.STUDIED for target in MRI for end, value in ends.items()]
    table = study.told_apart(studied(rows))
    assert table.shape == (len(study.STUDIED), len(MRI)) and table.loc["MM-GAN", "t1"] == "0.90 (0.85-0.95)"


def test_a_network_whose_error_does_not_rise_ignores_the_noise() -> None:
    errors = pd.DataFrame({"untrained": [1, 1], "trained": [0.1, 0.5], "as drawn": [0.5, 0.5]}, index=[1, 1000])
    facts = study.use_of_noise(errors)
    assert "does not look at the noisy image" in facts["noise_as_drawn"]
    assert facts["noise_with_unet"] == "The U-Net uses it." and facts["rise_unet"] == "5.0"


def test_a_spread_far_below_the_error_is_no_sign_of_a_right_image() -> None:
    row = {"network": ["x"], "missing": ["t1"], "honesty": [0.2], "coverage": [0.3], "nominal": [5 / 7], "rank": [0.3]}
    facts = study.spread_facts(pd.DataFrame(row))
    assert facts["spread_most"] == "20%" and "no sign of a right image" in facts["spread_verdict"]
    assert (facts["nominal"], facts["coverage"], facts["spread_ranks"]) == ("71%", "30%", "0.30")


def test_every_pattern_has_a_panel_per_modality(scores: study.Study) -> None:
    figure = study.every_pattern(scores, "synthesis-ixi")
    assert [axis.get_title(loc="left") for axis in figure.axes] == [f"{name} synthesised" for name in IXI]


def test_a_layout_with_fewer_modalities_leaves_tiles_empty() -> None:
    names, one = ("x", "x", "x"), torch.zeros(3, len(IXI), 4, 4)
    flags = torch.ones(3, len(IXI), dtype=torch.bool), torch.ones(3, 4, 4, dtype=torch.bool)
    shown = {"synthesis-ixi": Slices(one, *flags, None, names, names, torch.arange(3), IXI)}
    figure = study.modalities_side_by_side(shown)
    assert [axis.get_visible() for axis in figure.axes] == [True, True, True, False]


def test_pictures_are_drawn_around_the_slice_with_most_enhancing_tumour() -> None:
    labels = np.zeros((2, 8, 8), dtype=int)
    labels[1, 2:5, 2:5] = 4
    pictures = {"drawn labels": labels, "drawn truth": np.zeros((2, len(MRI), 8, 8))}
    for target in MRI:
        for name in study.STUDIED:
            pictures[f"made {name} {target}"] = np.zeros((2, 8, 8))
            pictures[f"spectrum {name} {target}"] = np.ones(16)
        pictures[f"spectrum true {target}"] = np.ones(16)
        pictures[f"drawn paper {target}"] = np.zeros((2, 2, 8, 8))
        pictures[f"spread paper {target}"] = pictures[f"error paper {target}"] = np.zeros((2, 8, 8))
    assert study.most_enhancing(pictures) == 1
    assert len(study.invented(pictures).axes) == 28 and len(study.spectra(pictures).axes) == 4
    assert sum(axis.get_visible() for axis in study.spreads(pictures, "paper").axes) == 10


def test_two_grids_stand_side_by_side_and_an_absent_one_gets_a_sentence(scores: study.Study) -> None:
    assert study.at_2_mm(scores).empty and "not run in this profile" in study.order_at_2_mm(scores)
    finer = []
    for method, variant, level in (("m2dn", "unet", 22.0), ("regression", "unet", 24.0), ("floors", "mean", 18.0)):
        for metric, value in (("psnr-mean", level), ("ssim-mean", 0.8)):
            finer += rows_of("synthesis-2mm", method, variant, metric, value, available="one missing")
    more = pd.concat([scores.results.scores, pd.DataFrame(finer)], ignore_index=True)
    both = study.read_study(Results(scores.results.records, more))
    table = study.at_2_mm(both).set_index("arm")
    assert table.loc["M2DN, U-Net", "PSNR at 2 mm, dB"].startswith("22.1 (")
    assert table.loc["M2DN, U-Net", "PSNR at 4 mm, dB"].startswith("25.1 (")
    assert table.loc["nearest modality", "PSNR at 2 mm, dB"] == "not run"
    assert table.loc["mean image", "SSIM at 4 mm, %"] == "not run"
    assert study.order_at_2_mm(both).startswith("At 2 mm M2DN's U-Net lies -2.00 (")
    assert "at 4 mm -0.50 (" in study.order_at_2_mm(both)
