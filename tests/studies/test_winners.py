"""When does each win? The map and its table by hand, on made-up scores."""

import numpy as np
import pandas as pd
import pytest
from made_segmentation import results_of, rows_of

from mmlib.analysis.results import Results
from mmlib.studies import winners as study


def made(**levels: dict) -> Results:
    """Runs of two networks; each `cases_chance` names their levels and, in `gap`, how far the cases of one differ."""
    rows, facts = [], []
    for name, level in levels.items():
        experiment, cases, chance, missing = level["where"]
        for method, variant in (("dropout-unet", "standard"), ("shaspec", "paper")):
            found = rows_of(method, variant, level[method.partition("-")[0]], experiment=experiment)
            alike = [row for row in found if row["seed"] == 0]
            seeds = range(level.get("seeds", 2))
            found = [{**row, "seed": seed, "run": f"{name}-{method}-s{seed}"} for seed in seeds for row in alike]
            if level.get("noise"):
                found = [{**row, "value": row["value"] + level["noise"] * (int(row["case"][-1]) - 2)} for row in found]
            facts += [(experiment, run, cases, chance, missing) for run in dict.fromkeys(row["run"] for row in found)]
            rows += found
            level = {**level, "noise": 0.0}  # of the first network alone
    results = results_of(pd.DataFrame(rows))
    columns = ["experiment", "run", "parameters.cases_train", "parameters.missing_share", "parameters.missing"]
    return Results(results.records.merge(pd.DataFrame(facts, columns=columns)), results.scores)


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return study.read_gaps(
        made(
            a={"where": ("missingness", 12, 0.0, "random"), "dropout": 0.5, "shaspec": 0.4},
            b={"where": ("missingness", 12, 0.6, "random"), "dropout": 0.4, "shaspec": 0.47},
            c={"where": ("missingness", 50, 0.6, "random"), "dropout": 0.5, "shaspec": 0.49, "noise": 0.2},
        )
    )


def test_the_winner_of_a_cell_and_its_margin_by_hand(scores):
    cells = study.winners(scores)
    assert set(cells) == {(need, *place) for need in study.NEEDS for place in ((12, 0.0), (12, 0.6), (50, 0.6))}
    few, gaps, noisy = (cells["any combination", *place] for place in ((12, 0.0), (12, 0.6), (50, 0.6)))
    assert (few.best, few.second, few.tied, few.told) == ("dropout-unet", "shaspec paper", (), True)
    assert few.margin.effect == pytest.approx(10) and few.margin.seeds == 2
    assert gaps.best == "shaspec paper" and gaps.margin.effect == pytest.approx(7)
    assert noisy.margin.low < 0 < noisy.margin.high and noisy.tied == ("shaspec paper",) and not noisy.told
    # single modalities: 0.4 + 0.05 and, without t1ce, 0.1 less for one of three regions, with flair 0.1 more
    assert cells["one modality", 12, 0.0].level == pytest.approx(50 + 5 + 2 - 10 * 3 / 4 / 3 + 10 / 4 / 3)
    assert cells["complete", 12, 0.0].level == pytest.approx(50 + 20 + 2 + 10 / 3)


def test_the_map_holds_the_text_of_every_cell_and_says_what_was_not_run(scores):
    figure = study.winner_map(study.winners(scores))
    for axis, need in zip(figure.axes, study.NEEDS, strict=True):
        texts = [text.get_text() for text in axis.texts]
        assert axis.get_title(loc="left") == f"{need} at the test" and len(texts) == 4
        assert texts.count("not run") == 1  # 50 complete cases
        assert sum(text.startswith("dropout +10.0\n") for text in texts) == 1
        assert sum(text.startswith("ShaSpec +7.0\n") for text in texts) == 1
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["ShaSpec (paper)", "U-Net with dropout", "not told apart"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0 (0 %)", "0.6 (54 %)"]


def test_the_legend_names_the_networks_whose_colour_a_cell_has(scores):
    cells = {
        place: cell for place, cell in study.winners(scores).items() if cell.best != "dropout-unet" or not cell.told
    }
    names = [text.get_text() for text in study.winner_map(cells).legends[0].get_texts()]
    assert names == ["ShaSpec (paper)", "not told apart"]


def test_one_seed_tells_no_network_from_another_unless_other_cells_know_the_spread():
    one = {"where": ("missingness", 12, 0.0, "random"), "dropout": 0.5, "shaspec": 0.4, "seeds": 1}
    two = {"where": ("missingness", 12, 0.6, "random"), "dropout": 0.5, "shaspec": 0.4}
    alone, both = made(a=one), made(a=one, b=two)
    assert not study.winners(study.read_gaps(alone))["complete", 12, 0.0].told
    cells = study.winners(study.read_gaps(both))
    assert all(cells["complete", 12, chance].told for chance in (0.0, 0.6))  # seeds that do not differ
    assert study.winner_table(cells)["seeds"].tolist() == [1, 2] * len(study.NEEDS)
    assert ", 1 to 2 seeds, 12 training cases, " in study.sample(both)


def test_the_mean_over_cells_is_set_beside_each_cell(scores):
    table = study.over_all(scores)
    assert list(table.index) == ["ShaSpec (paper) over U-Net with dropout"] and table["cells"].tolist() == [3]
    assert table["complete"].iloc[0].startswith("-1.3 (")  # of -10, 7 and -1


def test_a_score_over_all_cases_together_is_no_test_case():
    found = made(a={"where": ("missingness", 12, 0.0, "random"), "dropout": 0.5, "shaspec": 0.4})
    cases = found.scores["case"].nunique()
    together = found.scores.head(1).assign(case="all", available="all", metric="mmd")
    both = Results(found.records.assign(stand_in=True), pd.concat([found.scores, together], ignore_index=True))
    assert study.sample(both).startswith(f"n = {cases} test cases, ")


def test_the_table_and_the_sentence_say_the_same(scores):
    cells = study.winners(scores)
    table = study.winner_table(cells)
    assert table["at the test"].tolist() == [need for need in study.NEEDS for _ in range(3)]
    row = table.iloc[2]
    assert (row["training cases"], row["highest"]) == (50, "U-Net with dropout")
    assert row["not told from"] == "ShaSpec (paper)"
    assert study.summary(cells).startswith(
        "one modality at the test: of 3 cells ShaSpec (paper) in 1, U-Net with dropout in 1 and nobody in 1; any"
    )


def test_a_network_alone_wins_nothing():
    table = pd.DataFrame([[50.0, 60.0]], index=[0], columns=["a", "b"])
    cell = study.winner({"rfnet": table})
    assert cell.margin is None and not cell.told and study.cell_text(cell) == ("RFNet", "alone")
    with pytest.raises(ValueError, match="no arm has scores here"):
        study.winner({})


def test_mechanisms_are_set_beside_gaps_at_random():
    runs = made(
        n={"where": ("missingness-none", 50, 0.0, "random"), "dropout": 0.55, "shaspec": 0.5},
        r={"where": ("missingness-random", 50, 0.6, "random"), "dropout": 0.5, "shaspec": 0.45},
        h={"where": ("missingness-hospital", 50, 0.6, "hospital"), "dropout": 0.4, "shaspec": 0.45},
    )
    table = study.mechanisms(study.read_gaps(runs))
    networks, kinds = ("ShaSpec (paper)", "U-Net with dropout"), ("random", "none", "hospital")
    assert list(table.index) == [(name, kind) for name in networks for kind in kinds]
    assert table.loc[("U-Net with dropout", "hospital"), "complete"].split("; ")[1].startswith("-10.0 (")
    assert table.loc[("U-Net with dropout", "none"), "any combination"].split("; ")[1].startswith("+5.0 (")
    assert study.mechanisms(study.read_gaps(runs).query("missing == 'hospital'")).empty


def test_cases_that_lack_a_modality_are_left_out(scores):
    runs = made(a={"where": ("missingness", 12, 0.0, "random"), "dropout": 0.5, "shaspec": 0.4})
    poor = runs.scores[~(runs.scores["case"].eq("phantom-0003") & runs.scores["available"].eq("t1"))]
    assert set(study.read_gaps(Results(runs.records, poor))["case"]) == {"phantom-0001", "phantom-0002"}
    assert np.isfinite(study.read_gaps(Results(runs.records, poor))["value"]).all()
