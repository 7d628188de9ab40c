"""The guidance chapter's tables on scores that are made up: what is compared, and how it is said."""

import numpy as np
import pandas as pd
import pytest

from mmlib.studies import guidance as study


def made_up(levels, experiments=("derm7pt", "radpath"), cases=24, seeds=2):
    """Scores in which every row lies at its level plus noise that all rows share, so that effects are sharp."""
    rows = []
    for experiment in experiments:
        for target in study.TARGETS[experiment]:
            noise = np.random.default_rng(len(target)).normal(0, 0.05, (seeds, cases))
            for row, level in levels.items():
                own = np.random.default_rng(len(row)).normal(0, 0.01, (seeds, cases))
                for (seed, case), value in np.ndenumerate(level + noise + own):
                    rows.append((experiment, "balanced", row, target, seed, f"c{case:02}", value))
    columns = ["experiment", "metric", "variant", "target", "seed", "case", "value"]
    return study.Scores.from_scores(pd.DataFrame(rows, columns=columns))


LEVELS = {"inferior": 0.5, "superior": 0.8, "both": 0.8, "combined": 0.55, "guided": 0.5, "shuffled": 0.5}
LEVELS |= {"chance": 0.2, "combined-b": 0.55, "wider": 0.5, "released": 0.3, "joint": 0.45, "guided-b": 0.5}


@pytest.fixture(scope="module")
def scores():
    return made_up(LEVELS)


def test_a_table_is_the_mean_over_targets_in_points(scores):
    table = scores.table("derm7pt", "inferior")
    assert table.shape == (2, 24)
    assert table.to_numpy().mean() == pytest.approx(50, abs=3)
    parts = [scores.table("derm7pt", "inferior", task).to_numpy() for task in study.TASKS]
    assert np.allclose(table, np.mean(parts, axis=0))


def test_what_was_not_scored_has_no_cases_and_is_no_row(scores):
    assert scores.cases("radpath", study.REPLICA) == 0
    assert study.small_test_table(scores).empty
    assert made_up({"inferior": 0.5, "guided": 0.6}).rows("radpath") == ["inferior", "guided"]


def test_a_sample_says_how_many_cases_of_which_kind(scores):
    assert scores.sample("derm7pt", "phantom") == "24 test lesions (phantom), 2 seeds"
    matched = scores.table("derm7pt", "guided")[:1]  # of the first seed alone
    of_part = study.Scores({**scores.tables, ("derm7pt", "match", "guided", study.TASKS[0]): matched})
    assert of_part.sample("derm7pt", "phantom", "match") == "24 test lesions (phantom), 1 seed"
    both = study.Scores(
        {**of_part.tables, ("derm7pt", "match", "combined", study.TASKS[0]): scores.table("derm7pt", "guided")}
    )
    assert both.sample("derm7pt", "phantom", "match") == "24 test lesions (phantom), 1 to 2 seeds"


def test_the_error_of_a_balanced_accuracy_is_that_of_its_recalls():
    assert study.recall_error((100,), 0.5) == pytest.approx(5.0)
    assert study.recall_error((100, 100), 0.5) == pytest.approx(5.0 / 2**0.5)


def test_gains_are_over_the_inferior_image_and_adjusted_within_a_row(scores):
    gains = study.gains_over_inferior(scores, ["superior", "joint"])
    assert len(gains) == 2 * 9
    assert (gains["holm"] >= gains["p"]).all()
    assert all(effect.low > 0 for effect in gains.loc[gains["row"].eq("superior"), "effect"])
    table = study.gain_table(gains)
    assert list(table.columns) == ["S", "G(I)+I in one stage"] and list(table.index)[-1] == "class"
    assert table["S"].str.endswith(" *").all()


def test_equivalence_is_shown_only_inside_the_margin():
    table = study.equivalence_table(made_up(LEVELS, seeds=5), [("combined", "combined-b"), ("combined", "both")])
    assert list(table["equivalent within 2 points"]) == ["shown", "not shown"] * 2


def test_conditions_tell_what_does_not_hold():
    table = study.conditions_table(made_up({**LEVELS, "superior": 0.4}))
    premises = table[table["what has to hold"].str.contains("S beats I")]
    assert list(premises["holds"]) == ["NO", "NO"]
    assert table["holds"].tolist().count("NO") == 2 and len(table) == 13


def test_a_part_of_the_ablation_is_worth_what_is_lost_without_it(scores):
    rows = study.ablation(scores).set_index("part")
    assert rows.loc["lesions: released head", "effect"] == pytest.approx(25, abs=1.5)
    assert rows.loc["lesions: released head", "verdict"] == "SHOWN"
    assert rows.loc["tumours: without stage (c)", "verdict"] == "UNRESOLVED"


def test_gains_in_words_say_gain_loss_and_doubt(scores):
    words = study.gains_in_words(scores)
    assert words["lesions_superior"].startswith("gains +") and "points (" in words["lesions_superior"]
    assert words["tumours_joint"].startswith("loses -")
    same = study.gains_in_words(scores, ["inferior"])
    assert same["lesions_inferior"].startswith("shows no clear gain: +0.0")


def test_a_probe_reads_what_latents_hold_and_nothing_else():
    generator = np.random.default_rng(0)
    truth = np.arange(200) // 2 % 2
    noise = generator.normal(size=(200, 3))
    assert study.probe_values(noise + 5 * truth[:, None], truth).mean() > 95
    assert study.probe_values(noise, truth).mean() == pytest.approx(50, abs=15)


def test_probes_of_one_class_name_that_class():
    assert study.probe_values(np.zeros((6, 2)), np.zeros(6, dtype=int)).mean() == 100


def test_tasks_that_cross_over_are_named_by_their_interval_not_by_their_text():
    generator = np.random.default_rng(1)
    levels = {"A": {"guided_b": 60}, "B": {"guided_b": 40}, "C": {}}
    rows = [
        (seed, case, task, latent, levels[task].get(latent, 50) + generator.normal(0, 1))
        for task in levels
        for latent in study.LATENTS
        for seed in range(2)
        for case in range(30)
    ]
    effects = study.probe_effects(pd.DataFrame(rows, columns=["seed", "case", "task", "latent", "value"]))
    assert study.tasks_read(effects, "better") == "A" and study.tasks_read(effects, "worse") == "B"
    table = study.probe_table(effects, lesion_phantom=False, ceilings={})
    assert list(table["crosses over"]) == ["yes", "no", "no"] and "ceiling of I" not in table


def test_shares_of_pairs_name_their_rows():
    records = pd.DataFrame({"experiment": ["derm7pt", "radpath"], "parameters.paired": [[100, 5, 25], [100, 1]]})
    assert study.paired_shares(records) == [5, 25, 100]
    assert [study.at_share("combined", share) for share in (25, 100)] == ["combined@25", "combined"]


def test_guided_latents_that_shrink_have_a_small_spread_ratio():
    superior = np.random.default_rng(0).normal(size=(50, 4))
    pairs = study.latent_pairs({("radpath", "0"): {"superior": superior, "guided_b": superior / 2}}, most=40)
    assert pairs["radpath"].shape == (40, 2, 4)
    assert study.spread_ratio(pairs["radpath"]) == pytest.approx(0.5)


def test_the_ladder_has_a_panel_per_experiment(scores):
    figure = study.ladder(scores, {"I": {"tumour class": 70.0}})
    assert [axis.get_title("left") for axis in figure.axes] == list(study.LABELS.values())


def test_patients_have_no_ceiling():
    assert study.phantom_ceilings(False, False) == {}
    assert set(study.phantom_ceilings(False, True)["I"]) == {"tumour class"}
