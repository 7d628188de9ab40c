"""Ranks, fronts and calibration of the comparison, by hand on made-up scores."""

from dataclasses import replace

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from made_segmentation import made_runs, results_of, rows_of

from mmlib.analysis.results import Results
from mmlib.modalities import MRI, label
from mmlib.studies import comparison as study
from mmlib.studies import segmentation


@pytest.fixture
def runs():
    return made_runs()


def test_the_ranking_is_by_the_mean_over_combinations_and_regions(runs):
    table = study.ranking(runs)
    assert list(table.index) == [
        "U-HeMIS",
        "ShaSpec (paper)",
        "U-Net with dropout",
        "ShaSpec (released)",
        "U-Net fed zeros",
    ]
    assert table["first, %"].astype(int).sum() == 100 and table.loc["ShaSpec (paper)", "seeds"] == 2
    scores = runs.scores[runs.scores["arm"].eq("u-hemis")]
    assert table.loc["U-HeMIS", "Dice, %"].startswith(f"{scores['value'].mean():.1f} (")
    facts = study.facts(runs)
    assert facts["least_learned"].startswith("U-Net fed zeros (")
    assert facts["best"] == "U-HeMIS" and facts["networks"] == "5" and "U-Net fed zeros" in facts["low"]


def test_who_has_one_image_is_shown_beside_students_on_the_cases_of_all(runs):
    taught = results_of(pd.DataFrame([*rows_of("protokd", "standard", 0.5), *rows_of("teacher", "standard", 0.9)]))
    table = study.one_image(runs, taught)
    assert list(table.columns) == list(MRI) and "teacher" not in table.index.get_level_values("network")
    wanted = taught.scores[taught.scores["method"].eq("protokd") & taught.scores["available"].eq("t1")]
    row = table.loc[("this image, as in ProtoKD", "ProtoKD")]
    assert row["t1"].startswith(f"{100 * wanted['value'].mean():.1f} (")
    few = taught.scores[taught.scores["case"].ne(taught.scores["case"].iloc[0])]
    fewer = study.one_image(runs, Results(taught.records, few)).loc[("any combination", "U-HeMIS"), "t1"]
    heard = runs.scores[runs.scores["arm"].eq("u-hemis") & runs.scores["available"].eq("t1")]
    assert fewer.startswith(f"{heard.loc[heard['case'].isin(few['case']), 'value'].mean():.1f} (")
    alone = study.one_image(runs, Results(taught.records.iloc[:0], taught.scores.iloc[:0]))
    assert "any combination" in alone.index.get_level_values(0) and len(alone) < len(table)


def test_networks_of_two_stages_are_beside_others_trained_for_as_many_steps():
    def made(experiment, *arms):
        rows = [row for method, level in arms for row in rows_of(method, "standard", level, experiment=experiment)]
        return results_of(pd.DataFrame(rows))

    once = made("comparison", ("dropout-unet", 0.45), ("simmlm", 0.5), ("u-hemis", 0.3))
    twice = made("comparison-twice", ("dropout-unet", 0.48))
    longer = made("comparison-longer", ("dropout-unet", 0.52))

    def together(*parts):
        return Results(*(pd.concat(tables) for tables in zip(*((p.records, p.scores) for p in parts), strict=True)))

    table = study.more_steps(together(once, twice))
    assert table.index.tolist() == ["SimMLM", "U-Net with dropout"]
    assert list(table) == ["steps", "twice the steps", "gain by twice, points"]
    assert table["steps"]["SimMLM"] == "-" and table["gain by twice, points"]["SimMLM"] == "two stages"
    assert table["gain by twice, points"]["U-Net with dropout"].startswith("+3.0")
    assert study.more_steps(once).empty
    six = study.more_steps(together(once, twice, longer))["six times the steps"]
    assert six["SimMLM"] == "-" and float(six["U-Net with dropout"].split()[0]) == pytest.approx(
        float(table["twice the steps"]["U-Net with dropout"].split()[0]) + 4, abs=0.11
    )
    turned = together(once, made("comparison-longer", ("dropout-unet", 0.52), ("u-hemis", 0.54)))
    turned.records["parameters.steps"] = turned.records["experiment"].map({"comparison": 2000.0}).fillna(12000.0)
    first, last = study.by_steps(turned, "u-hemis", "dropout-unet").split(" and ")
    assert first.startswith("-15.0") and first.endswith("after 2,000 steps (1 seed)")
    assert last.startswith("+2.0") and last.endswith("after 12,000 steps (1 seed)")
    alone = Results(turned.records.iloc[:3], turned.scores[turned.scores["experiment"].eq("comparison")])
    assert study.by_steps(alone, "u-hemis", "dropout-unet") == "(not trained for longer in this profile)"


def test_what_fills_a_gap_is_beside_what_leaves_it_out():
    three = {missing: "+".join(name for name in MRI if name != missing) for missing in MRI}
    rows = [
        (variant, 0, case, available, region, "dice", value / 100 + step)
        for variant, value in zip(study.FILLED, (60, 50, 55, 40, 30, 20), strict=True)
        for available in three.values()
        for case, step in (("a", 0.01), ("b", -0.01))
        for region in ("wt", "tc", "et")
    ]
    rows += [(*row[:2], "healthy", *row[3:6], float(row[0] == "zero")) for row in rows if row[2] == "a"]
    rows.append(("complete", 0, "a", "t1+t1ce+t2+flair", "wt", "dice", 0.9))
    scores = pd.DataFrame(rows, columns=["variant", "seed", "case", "available", "target", "metric", "value"])
    table, whole, cases = study.filled_first(Results(pd.DataFrame(), scores))
    assert list(table.columns) == [f"no {name}" for name in MRI] and whole == pytest.approx(90) and cases == 2
    assert list(table.index)[:3] == [study.FILLED[name] for name in ("shaspec", "regression", "unet")]
    assert table.loc["M2DN's image", "no t1ce"].startswith("50.0 (")
    nothing = Results(pd.DataFrame(), scores.assign(value=scores["value"].round()))
    assert study.filled_first(nothing)[2] == len(study.filled_first(nothing)[0]) == 0


def test_newer_networks_take_part_without_being_named_in_the_chapter_on_shaspec():
    rows = [*rows_of("rfnet", "standard", 0.5), *rows_of("shaspec", "paper", 0.4)]
    runs = segmentation.read_study(results_of(pd.DataFrame(rows)))
    assert runs.arms == ["shaspec paper", "rfnet"] and study.facts(runs)["best"] == "RFNet"


def test_an_experiment_of_its_own_comes_before_what_other_chapters_trained_once_it_is_whole():
    def results(*named):
        rows = [
            {**row, "experiment": experiment, "run": f"{method}-s{seed}", "seed": seed}
            for experiment, methods, seeds, level in named
            for method in methods
            for seed in range(seeds)
            for row in rows_of(method, "paper" if method == "shaspec" else "standard", level)
        ]
        return results_of(pd.DataFrame(rows))

    def taken(*named):
        return set(study.on_equal_terms(results(*named)).scores["experiment"])

    older = ("segmentation", ("shaspec", "dropout-unet"), 1, 0.25)
    every = ("shaspec", "dropout-unet", *study.NEWER)
    assert taken(older, ("distillation", ("protokd",), 1, 0.5)) == {"segmentation"}
    assert taken(older, ("comparison", every, study.SEEDS, 0.75)) == {"comparison"}
    assert taken(older, ("segmentation", ("dedicated",), 1, 0.25), ("comparison", every, study.SEEDS, 0.75)) == {
        "comparison"
    }
    assert taken(older, ("comparison", every[1:], study.SEEDS, 0.75)) == {"segmentation"}, "a network is lacking"
    assert taken(older, ("comparison", every, study.SEEDS - 1, 0.75)) == {"segmentation"}, "seeds are lacking"
    alone = study.on_equal_terms(results(("comparison", every[:2], 1, 0.75)))
    assert set(alone.scores["experiment"]) == {"comparison"}, "better than nothing"
    assert study.absent(alone).endswith("in none of the tables: RFNet, mmFormer, M3AE and SimMLM.")


def test_a_guess_from_the_core_goes_with_the_core(runs):
    assert study.guessed_from_the_core(runs) == pytest.approx(1), "both are the level less a constant"
    turned = replace(
        runs,
        scores=runs.scores.assign(
            value=runs.scores["value"].where(runs.scores["target"].ne("et"), -runs.scores["value"])
        ),
    )
    assert study.guessed_from_the_core(turned) == pytest.approx(-1)


def test_mean_ranks_and_their_critical_difference_by_hand(runs):
    ranks, p, difference = study.mean_ranks(runs)
    assert ranks.tolist() == [1, 2, 3, 4, 5] and ranks.index[0] == "u-hemis"  # the same order in all three cases
    assert p == pytest.approx(0.0174, abs=1e-3)  # chi square of 12 with 4 degrees of freedom
    assert difference == pytest.approx(2.728 * np.sqrt(5 * 6 / (6 * 3)), rel=1e-3)  # q of 5 methods: Demsar, table 5


def test_what_is_not_told_apart_is_joined_once():
    ranks = pd.Series({"a": 1.0, "b": 1.5, "c": 2.4, "d": 4.0})
    assert study.cliques(ranks, 1.0) == [(0, 1), (1, 2)]
    assert study.cliques(ranks, 5.0) == [(0, 3)] and study.cliques(ranks, 0.1) == []


def test_the_front_holds_what_no_cheaper_network_beats():
    costs = pd.DataFrame({"Dice, %": [50, 60, 55, 70], "s": [1, 2, 3, 3]}, index=list("abcd"))
    assert study.front(costs, "s") == ["a", "b", "d"]


def test_calibration_is_read_with_all_modalities_and_without_the_telling_one():
    rows = rows_of("dropout-unet", "standard", 0.5)
    given, blind = label(MRI, MRI), "t1+t2+flair"
    more = [
        {**row, "metric": metric, "value": value + (row["available"] == blind) * rise}
        for row in rows
        if row["available"] in (given, blind) and row["target"] == "et"
        for metric, value, rise in (("ece", 0.01, 0.02), ("entropy-inside", 0.1, 0.3))
    ]
    runs = segmentation.read_study(results_of(pd.DataFrame(rows + more)))
    table = study.calibration(runs)
    assert table.loc["U-Net with dropout"].tolist() == pytest.approx([1, 3, 0.1, 0.4])
    assert study.knows(table) == "1 of 1"


def test_without_calibration_the_table_is_empty(runs):
    assert study.calibration(runs).empty


@pytest.mark.parametrize("draw", [study.critical_differences, study.pareto])
def test_figures_are_drawn(runs, draw, monkeypatch):
    monkeypatch.setattr(segmentation, "losses", lambda runs: {run: pd.Series([1.0]) for run in runs.records["run"]})
    figure = draw(runs)
    figure.canvas.draw()
    assert isinstance(figure, matplotlib.figure.Figure)
