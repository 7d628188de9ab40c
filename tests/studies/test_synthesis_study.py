"""The tables and figures of the chapter on M2DN, on made-up scores."""

from __future__ import annotations

from dataclasses import replace

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
    ends = {"m2dn-noise": ("noise", 0.51), "m2dn-unet-noise": ("unet-noise", 0.04)}

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


def test_of_one_subject_tables_say_that_there_is_no_interval(scores: study.Study) -> None:
    one = replace(scores, scores=scores.scores[scores.scores["case"].eq("a")])
    texts, _ = study.by_observed(one, "synthesis", "psnr")
    assert texts.loc[("3 of 4", "regression U-Net"), "t1"] == "30.0 (one case: no interval)"
    facts = study.baseline_facts(study.over_baselines(one), "m2dn unet")
    assert facts["patterns_above"] == "0 of 7" and facts["over_mean"] == "+5.0"


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


def test_every_pattern_has_a_panel_per_modality(scores: study.Study) -> None:
    figure = study.every_pattern(scores, "synthesis-ixi")
    assert [axis.get_title(loc="left") for axis in figure.axes] == [f"{name} synthesised" for name in IXI]


def test_a_layout_with_fewer_modalities_leaves_tiles_empty() -> None:
    names, one = ("x", "x", "x"), torch.zeros(3, len(IXI), 4, 4)
    flags = torch.ones(3, len(IXI), dtype=torch.bool), torch.ones(3, 4, 4, dtype=torch.bool)
    shown = {"synthesis-ixi": Slices(one, *flags, None, names, names, torch.arange(3), IXI)}
    figure = study.modalities_side_by_side(shown)
    assert [axis.get_visible() for axis in figure.axes] == [True, True, True, False]


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


def test_each_network_is_described_by_the_run_that_trained_it() -> None:
    facts = {
        "method": "m2dn",
        "parameters.batch_size": 8,
        "parameters.size": [56, 48],
        "slices_train": 6,
        "slices_test": 2,
    }
    runs = {"m2dn": (["paper"], 1500), "m2dn-unet": (["unet-noise", "unet"], 2800)}
    records = [
        {"experiment": one, "run": run, "parameters.variants": names, "parameters.steps": steps, **facts}
        for one in study.LAYOUTS
        for run, (names, steps) in runs.items()
    ]
    scores = pd.DataFrame(rows_of("synthesis", "m2dn", "unet", "psnr", 20.0))
    studied = study.read_study(Results(pd.DataFrame(records), scores))
    assert studied.record("synthesis-ixi", "m2dn unet").name == "m2dn-unet"
    steps = study.data_table(studied)["steps x slices"].tolist()
    assert steps == ["M2DN, as drawn: 1,500 x 8; M2DN, U-Net: 2,800 x 8"] * 2
