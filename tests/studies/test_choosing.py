"""The tree of choices: what is advised follows from the records, and what is not known is said to be so."""

import numpy as np
import pandas as pd
import pytest
from made_segmentation import results_of, rows_of

from mmlib import published
from mmlib.analysis.results import Results
from mmlib.figures.tree import tree
from mmlib.modalities import MRI
from mmlib.studies import choosing as study
from mmlib.studies import comparison
from pipeline.profiles import profile


def made(zeros: float, dropout: float, shaspec: float, experiment: str = "segmentation") -> Results:
    levels = {("zero-fill", "standard"): zeros, ("dropout-unet", "standard"): dropout, ("shaspec", "paper"): shaspec}
    rows = [row for arm, level in levels.items() for row in rows_of(*arm, level, experiment=experiment)]
    rows = [{**row, "seed": seed, "run": f"{row['run']}-{seed}"} for row in rows if row["seed"] == 0 for seed in (0, 1)]
    return results_of(pd.DataFrame(rows))


def test_the_costlier_way_is_advised_where_its_gain_is_shown():
    leaves = study.leaves(made(0.2, 0.45, 0.45), {"09_comparison"})
    dropout = leaves["least-work"]
    assert dropout.advice == "A U-Net with modality dropout" and dropout.effect.effect == pytest.approx(25)
    assert "+25.0 points of Dice" in dropout.reason and ", a gain; n = 3 test cases, 2 seeds." in dropout.reason
    assert (dropout.link, dropout.page) == ("09_comparison.html", "Chapter 09")
    equal = leaves["a-method"]
    assert equal.advice == "A U-Net with modality dropout" and equal.effect.effect == pytest.approx(0)
    assert study.leaves(made(0.2, 0.45, 0.6), ())["a-method"].advice == "ShaSpec"
    assert study.leaves(made(0.2, 0.1, 0.6), ())["least-work"].advice == "A plain U-Net, fed zeros for what is missing"


def test_a_leaf_without_its_runs_says_so_and_leads_nowhere():
    leaves = study.leaves(made(0.2, 0.45, 0.45), {"09_comparison"})
    taught = [f"teacher-{name}" for name in MRI]
    for name in (*taught, "for-all", "few-cases", "many-cases", "image", "rare-audio", "costly-image"):
        assert (leaves[name].advice, leaves[name].effect) == ("Not known yet", None)
        assert leaves[name].reason.endswith("runs are not published.")
    assert leaves["image"].link == "" and study.summary(leaves).startswith("4 of 14 leaves are known.")
    drawn = tree(study.TREE, leaves, alt="a", caption="<c>").html
    assert drawn.count("Not known yet") == 10 and drawn.count("<svg") == 4 and "&lt;c&gt;" in drawn
    assert drawn.count('href="09_comparison.html"') == 7  # of a chapter that is there


def test_leaves_take_the_networks_that_chapter_09_shows(monkeypatch):
    found = [made(0.2, 0.45, 0.45), made(0.2, 0.45, 0.6, "comparison")]
    both = Results(*(pd.concat([getattr(runs, name) for runs in found]) for name in ("records", "scores")))
    leaf = study.leaves(both, ())["a-method"]
    assert leaf.effect.effect == pytest.approx(0), "some lack in the comparison"
    monkeypatch.setattr(comparison, "NEWER", ())
    monkeypatch.setattr(comparison, "SEEDS", 2)
    leaf = study.leaves(both, ())["a-method"]
    assert leaf.advice == "ShaSpec" and leaf.effect.effect == pytest.approx(15)


def test_of_the_comparison_the_first_two_are_named():
    best = study.leaves(made(0.2, 0.45, 0.6, "comparison"), ())["the-best"]
    assert best.advice == "ShaSpec (paper)" and best.effect.effect == pytest.approx(15)
    assert best.reason.startswith("ShaSpec (paper), against U-Net with dropout: +15.0 points")
    tie = study.leaves(made(0.2, 0.45, 0.452, "comparison"), ())["the-best"]
    assert tie.advice == "ShaSpec (paper) or U-Net with dropout, the cheaper one"


def test_gaps_in_training_are_asked_at_the_setting_of_the_question():
    gaps = {"parameters.missing_share": 0.6, "parameters.missing": "random"}
    found = made(0.2, 0.45, 0.6, "missingness")
    other = made(0.2, 0.45, 0.2, "missingness")
    scores = other.scores.assign(run=other.scores["run"] + "-200")
    records = other.records.assign(run=other.records["run"] + "-200")
    both = Results(
        pd.concat(
            [
                found.records.assign(**{**gaps, "parameters.cases_train": 12}),
                records.assign(**{**gaps, "parameters.cases_train": 200}),
            ]
        ),
        pd.concat([found.scores, scores]),
    )
    leaves = study.leaves(both, ())
    assert leaves["few-cases"].effect.effect == pytest.approx(15) and leaves["few-cases"].advice == "ShaSpec"
    assert leaves["many-cases"].effect.effect == pytest.approx(-25)


def test_every_leaf_has_its_choice_and_every_experiment_stands_in_the_profile(monkeypatch):
    assert sorted(study.TREE.leaves) == sorted(study.CHOICES)
    needed = {one for choice in study.CHOICES.values() for one in choice.experiments}
    monkeypatch.setenv("TRAIN", "1")
    assert needed == set(profile("book")["chapters"]["97_choosing"]["experiments"])


def test_leaves_agree_with_the_published_scores():
    """Means of the published files, taken by another way."""
    scores = {name: published.scores(f"book/{name}") for name in ("comparison", "distillation")}
    rows = [table.assign(experiment=name) for name, table in scores.items()]
    runs = Results(pd.DataFrame(columns=["experiment", "run"]), pd.concat(rows, ignore_index=True))

    def mean(experiment: str, method: str, variant: str, sets, seeds) -> float:
        table = scores[experiment]
        mine = table[table["metric"].eq("dice") & table["method"].eq(method) & table["variant"].eq(variant)]
        return 100 * mine.loc[mine["available"].isin(sets) & mine["seed"].isin(seeds), "value"].mean()

    every, given = range(5), [name for name in study.SETS if name != study.ALL]
    alone = [mean("comparison", "dedicated", name, [name], every) for name in MRI]
    expected = {
        "complete": ("dropout-unet", "standard", "zero-fill", "standard", [study.ALL]),
        "least-work": ("dropout-unet", "standard", "zero-fill", "standard", given),
        "a-method": ("shaspec", "paper", "dropout-unet", "standard", study.SETS),
    }
    by_hand = {
        leaf: mean("comparison", one, variant, sets, every) - mean("comparison", other, plain, sets, every)
        for leaf, (one, variant, other, plain, sets) in expected.items()
    }
    by_hand["for-all"] = np.mean(alone) - mean("comparison", "dropout-unet", "standard", MRI, every)
    for name in MRI:
        taught, untaught = (mean("distillation", one, "standard", [name], every) for one in ("protokd", "unimodal"))
        by_hand[f"teacher-{name}"] = taught - untaught
    for name, value in by_hand.items():
        leaf = study.decide(name, runs, ())
        assert leaf.effect.effect == pytest.approx(value, abs=1e-3), name
        assert f"{value:+.1f} points" in leaf.reason
        choice = study.CHOICES[name]
        told = leaf.effect.low > 0 and value >= choice.sesoi
        assert leaf.advice.lower() == (choice.other if told else choice.simple).lower()
