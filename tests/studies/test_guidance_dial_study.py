"""The dial and the tumours on scores that are made up: settings, gains, and what theory is set beside them."""

import numpy as np
import pandas as pd
import pytest

from mmlib.studies import guidance_dial as dial

SETTINGS = {"coupled 0.3 300 300": 0.05, "decoupled 0.3 300 300": -0.10, "coupled 0.3 100 600": 0.15}


@pytest.fixture(scope="module")
def latents():
    rows = []
    for target, step in SETTINGS.items():
        for seed in range(3):
            base = 0.8 + 0.01 * seed
            levels = {"centroid": base, "guided-b": base + step + 0.001 * (seed - 1), "combined": base}
            rows += [(row, seed, "all", "inferior", target, "accuracy", value) for row, value in levels.items()]
    return pd.DataFrame(rows, columns=["variant", "seed", "case", "available", "target", "metric", "value"])


@pytest.fixture(scope="module")
def tumours():
    rows = []
    for count in (15, 130):
        for seed in range(4):
            for row, gain in {"logistic": 0.0, "combined": 0.04 + 0.01 * (seed % 2)}.items():
                rows.append((row, seed, "all", f"{count} labels", 0.7 + gain))
                noise = np.random.default_rng(seed).normal(0, 0.1, 12)
                published = f"{count} labels{dial.PUBLISHED}"
                rows += [(row, seed, f"c{n}", published, 0.7 + gain + one) for n, one in enumerate(noise)]
    columns = ["variant", "seed", "case", "target", "value"]
    return pd.DataFrame(rows, columns=columns).assign(available="inferior", metric="balanced")


def test_settings_are_read_from_the_names_of_targets(latents):
    found = dial.dial_settings(latents)
    assert found["kind"].tolist() == ["coupled", "decoupled", "coupled"]
    assert found.loc[2, ["noise", "labels", "pairs"]].tolist() == [0.3, 100, 600]


def test_gains_are_paired_by_data_set(latents):
    gains = dial.dial_gains(latents, "guided-b")
    assert gains["effect"].tolist() == pytest.approx([5, -10, 15])
    # differences 4.9, 5.0, 5.1: standard error 0.1 / sqrt(3), t of 2 degrees of freedom 4.3027
    assert gains["high"][0] - gains["effect"][0] == pytest.approx(4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert dial.gains_of_kinds(gains, 300, 0.3)["decoupled"] == "-10.0 (-10.2 to -9.8)"


def test_a_row_with_fewer_data_sets_than_its_opponent_is_compared_on_its_own(latents):
    fewer = latents[latents["variant"].ne("guided-b") | latents["seed"].ne(2)]
    gains = dial.dial_gains(fewer, "guided-b")
    assert gains["effect"].tolist() == pytest.approx([4.95, -10.05, 14.95])


def test_the_table_of_the_dial_ends_in_the_theory(latents):
    table = dial.dial_table(latents, ["coupled 0.3 300 300"])
    (column,) = table.columns
    assert column == "coupled, noise 0.3, 300 labels, 300 pairs"
    assert table[column].tolist()[-2:] == ["84.5", "91.5"]
    assert table.loc["I, nearest mean", column] == "81.0 (1.0)"


def test_overlapping_splits_widen_an_interval(tumours):
    apart = dial.gain(tumours, "combined", "logistic", "15 labels")
    overlapping = dial.gain(tumours, "combined", "logistic", "15 labels", 90 / 130)
    assert apart.effect == overlapping.effect == pytest.approx(4.5)
    assert overlapping.half_width / apart.half_width == pytest.approx(((1 / 4 + 90 / 130) / (1 / 4)) ** 0.5)


def test_the_published_part_resamples_cases(tumours):
    gains = dial.tumour_gains(tumours, ["combined"], 90 / 130)
    assert gains["labels"].tolist() == [15, 15, 130, 130] and gains["published"].tolist() == [False, True] * 2
    assert gains["effect"][1].n == 12 and gains["effect"][0].n == 0
    assert dial.gain_words(gains).startswith("+4.5 (") and dial.gain_words(gains).endswith("with 130 labels")


def test_rows_of_the_tumours_are_means_by_number_of_labels(tumours):
    table = dial.tumour_rows(tumours, published=False)
    assert table.loc["G(I)+I"].tolist() == pytest.approx([74.5, 74.5])


@pytest.mark.parametrize(
    ("experiments", "task", "how", "settings"),
    [
        (dial.GLIOMAS, "class", "counts, sees all", (100, 600, 0.3)),
        (dial.LESIONS, "DIAG", "linear, sees all", (15, 600, 0.3)),
    ],
)
def test_the_table_of_images_ends_in_what_who_sees_all_can_expect(experiments, task, how, settings):
    levels = {"inferior": 0.4, "superior": 0.7, "guided-b": 0.35}
    rows = [
        (experiment, row, seed, f"c{case}", task, level + 0.01 * case)
        for experiment in experiments.values()
        for row, level in levels.items()
        for seed in range(2)
        for case in range(3)
    ]
    columns = ["experiment", "variant", "seed", "case", "target", "value"]
    scores = pd.DataFrame(rows, columns=columns).assign(available="inferior", metric="balanced")
    table = dial.image_table(scores, experiments, dict.fromkeys(experiments, settings), task)
    assert table.loc["G(I), stage (b)", "coupled, over I"] == "-5.0 (-5.0 to -5.0)"
    assert table.loc[f"I, {how}", "coupled, over I"] == ""
    assert float(table.loc[f"S, {how}", "coupled, over I"]) > 10
    gained, lost = (float(table.loc[f"G(I), {how}", f"{kind}, over I"]) for kind in experiments)
    assert gained > 2 and lost < -1
    assert dial.range_words(scores[scores["seed"].eq(0)], "superior", task) == "71.0 / 71.0 / 71.0 %"


def test_figures_have_a_line_of_theory_for_each_kind(latents, tumours):
    figure = dial.dial_figure(latents, 300, 0.3)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["coupled, measured", "coupled, theory", "decoupled, measured", "decoupled, theory"]
    assert len(dial.tumour_figure(dial.tumour_gains(tumours, ["combined"], 0.7)).axes) == 2


def test_what_was_not_run_is_an_error(latents):
    with pytest.raises(ValueError, match="no scores"):
        dial.repeats(latents, "wider", "coupled 0.3 300 300")
