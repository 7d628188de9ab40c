import base64
import re

import nibabel
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from mmlib.analysis.results import read_runs
from mmlib.analysis.statistics import paired_effects
from mmlib.data.cases import Case
from mmlib.figures import overlays, style
from mmlib.figures import results as figures
from mmlib.modalities import MRI, combinations, label
from mmlib.records import open_run

LABELS = [label(names, MRI) for names in combinations(MRI)]
ARMS = [("shaspec", "paper"), ("dropout-unet", "standard"), ("dedicated", "t1")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds, three cases; Dice grows by 0.1 a modality, by 0.3 for t1ce and ET; dedicated nets have t1 alone."""
    root = tmp_path_factory.mktemp("results")
    fixed = {name: "x" for name in ("device", "threads", "precision", "seconds", "parameter_count", "fingerprint")}
    fixed |= dict(availability_sampler="x", exposure={}, stand_in=True, data_fingerprint="d", split_hash="s")
    for method, variant in ARMS:
        for seed in (0, 1):
            rows = [
                (
                    f"c{i}",
                    name,
                    target,
                    "dice",
                    0.1 * len(name.split("+")) + 0.02 * i + 0.3 * ("t1ce" in name and target == "et"),
                )
                for name in (LABELS if method != "dedicated" else ["t1"])
                for target in ("wt", "tc", "et")
                for i in range(3)
            ]
            run = open_run(
                root,
                "quick",
                "segmentation",
                f"{method}-{variant}-s{seed}",
                dict(method=method, variant=variant, seed=seed),
            )
            history = pd.DataFrame(
                {"step": range(50), "loss": np.linspace(2, 1, 50), "dice": 0.5, "lr": 0.1, "seconds": 0.1}
            )
            run.save(history, pd.DataFrame(rows, columns=["case", "available", "target", "metric", "value"]), **fixed)
    return read_runs(root, "quick")


def picture(shown):
    return base64.b64decode(re.search(r'base64,([^"]+)"', shown.html)[1])


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_a_shown_figure_carries_alt_text_and_caption():
    def draw():
        figure, axes = style.new_figure(2, 1)
        axes[0, 0].plot([0, 1])
        return figure

    shown = figures.show(draw(), alt='Dice of "a" & b', caption="n = 3 < 4")
    assert 'alt="Dice of &quot;a&quot; &amp; b"' in shown.html and ">n = 3 &lt; 4</figcaption>" in shown.html
    assert set(shown._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert picture(shown).startswith(b"<?xml") and b"<svg" in picture(shown)
    assert picture(figures.show(draw(), alt="x", image=True)).startswith(b"\x89PNG")
    assert picture(shown) == picture(figures.show(draw(), alt="x"))  # the same picture, byte for byte
    with pytest.raises(ValueError, match="alt text"):
        figures.show(draw(), alt=" ")


def test_a_text_table_has_no_index_and_its_widths():
    html = figures.text_table(pd.DataFrame({"a": ["x"], "b": ["y"]}, index=["row"]), {"b": 12}).to_html()
    assert 'class="dataframe"' in html and "min-width: 12em" in html and "row_heading" not in html
    assert re.search(r"td.col1, *#?\w* *th.col1|td.col1", html)


def test_style_is_fixed_and_told_apart_without_colour():
    for kinds in (style.MODALITY, style.REGION, style.METHOD, style.VERDICT):
        assert len({entry[1] for entry in kinds.values()}) == len(kinds)  # a marker of its own
        assert len({entry[0] for entry in kinds.values()}) == len(kinds)
    assert figures.arm_style("a-new-method")[2] == "a-new-method"


def test_arms_are_methods_with_their_variant_where_there_are_several(runs):
    arms = figures.arm_of(runs.scores)
    assert sorted(arms.unique()) == ["dedicated", "dropout-unet", "shaspec paper"]


def test_history_curves_have_a_panel_per_arm_and_a_line_per_seed(runs):
    figure = figures.history_curves(runs)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "ShaSpec (paper)",
        "U-Net with dropout",
        "dedicated nets",
    ]
    assert [len(axis.lines) for axis in figure.axes] == [2, 2, 2]


def test_curves_of_the_validation_score_pass_over_steps_that_were_not_scored(runs, monkeypatch):
    history = pd.DataFrame({"step": range(4), "loss": 1.0, "score": [np.nan, 0.5, np.nan, 0.75]})
    monkeypatch.setattr(type(runs), "history", lambda self, run, experiment=None: history)
    figure = figures.history_curves(runs, column="score")
    (first, *_) = figure.axes[0].lines
    assert list(first.get_xdata()) == [1, 3] and list(first.get_ydata()) == [0.5, 0.75]
    assert figure.axes[0].get_ylabel() == "validation score"


def test_combination_dots_put_every_mean_in_its_row(runs):
    figure = figures.combination_dots(runs.scores, arms=["shaspec paper", "dropout-unet"])
    marks, panels = figure.axes[0], figure.axes[1:]
    filled = [line for line in marks.lines if line.get_markerfacecolor() != "none" and len(line.get_xdata()) == 1]
    assert len(filled) == 4 * 8  # each modality is in 8 of 15 combinations
    assert [axis.get_title(loc="left")[:2] for axis in panels] == ["WT", "TC", "ET"]
    line = next(line for line in panels[2].lines if line.get_label() == "ShaSpec (paper)")
    by_row = dict(zip(np.round(line.get_ydata()).astype(int), line.get_xdata(), strict=True))
    assert by_row[LABELS.index("t1")] == pytest.approx(12) and by_row[LABELS.index("t1ce+flair")] == pytest.approx(52)
    with pytest.raises(ValueError, match="no scores of .'u-hemis'"):
        figures.combination_dots(runs.scores, arms=["u-hemis"])


def test_combination_heatmap_prints_means_and_hatches_what_was_not_run(runs):
    figure = figures.combination_heatmap(runs.scores)
    axis = figure.axes[1]
    assert len(texts(axis)) == 15 * 2 + 1 and any(text.startswith("12 ±") for text in texts(axis))
    assert sum(patch.get_hatch() is not None for patch in axis.patches) == 14
    assert [tick.get_text() for tick in axis.get_xticklabels()][-1] == "dedicated nets"


def test_gains_of_t1ce_by_hand(runs):
    added = figures.gains(runs.scores, "t1ce", ["shaspec paper"])
    assert len(added) == 7 * 3
    effects = added.set_index(["target", "available"])["effect"]
    assert effects["et", "t1"].effect == pytest.approx(40) and effects["wt", "t1+t2+flair"].effect == pytest.approx(10)
    with pytest.raises(ValueError, match="no dice of dedicated"):
        figures.gains(runs.scores, "t1ce", ["dedicated"])


def test_forest_draws_effects_and_the_band():
    table = pd.DataFrame([[1.0, 2.0, 4.0]])
    effect = paired_effects([(table, table - 2)])[0]
    row = dict(
        id="S1", part="WT", effect=effect.effect, low=1.5, high=2.5, sesoi=1.0, unit="Dice points", verdict="SHOWN"
    )
    untested = {**row, "effect": np.nan, "verdict": "NOT RUN"}
    axis = figures.forest(pd.DataFrame([row, untested])).axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["S1  WT"]
    band = axis.patches[0]
    assert (band.get_x(), band.get_width()) == (-1, 2)
    with pytest.raises(ValueError, match="one unit"):
        figures.forest(pd.DataFrame([untested]))
    with pytest.raises(ValueError, match="one unit"):
        figures.forest(pd.DataFrame([row, {**row, "unit": "s"}]))


# ----------------------------------------------------------------------------------------------------- predictions
def case():
    """An asymmetric head: the tumour sits in the patient's right front; arrays are RAS unless the affine says else."""
    image = np.zeros((8, 10, 4))
    image[1:7, 1:9] = 1 + np.random.default_rng(0).random((6, 8, 4))
    labels = np.zeros((8, 10, 4), dtype=np.uint8)
    labels[5:7, 7:9, 2] = 2  # high x is the patient's right where x grows to the right (RAS)
    labels[6, 8, 2] = 4
    return Case("made", {"t1": image, "flair": image}, np.eye(4), labels)


def test_axial_is_radiological():
    volume = case().labels
    turned = overlays.axial(volume, case().affine)
    assert turned.shape == (10, 8, 4)
    rows, columns = np.nonzero(turned[..., 2])
    assert rows.max() < 5 and columns.max() < 4  # front at the top, the patient's right on the left


def test_axial_does_not_depend_on_how_the_file_lies():
    image = nibabel.Nifti1Image(case().labels, np.eye(4))
    for axes in ("LPS", "SAR", "PIL"):
        change = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(np.eye(4)), nibabel.orientations.axcodes2ornt(axes)
        )
        other = image.as_reoriented(change)
        turned = overlays.axial(np.asanyarray(other.dataobj), other.affine)
        np.testing.assert_array_equal(turned, overlays.axial(case().labels, np.eye(4)))


def test_text_has_eight_points_at_least_where_a_wide_figure_is_shown_in_the_column_of_a_page():
    figure, axes = style.new_figure(9, 2)
    axes[0, 0].plot([0, 1], label="a line")
    axes[0, 0].set_title("large", fontsize=14)
    axes[0, 0].text(0.5, 0.5, "in a cell", fontsize=7)
    axes[0, 0].legend(fontsize=8)
    figures.show(figure, alt="x")
    sizes = {
        text.get_text(): text.get_fontsize() * style.COLUMN / 9 for text in figure.findobj(Text) if text.get_text()
    }
    assert min(sizes.values()) >= style.LEAST - 1e-9 and {"a line", "in a cell", "0.0"} <= set(sizes)
    assert sizes["large"] == pytest.approx(14 * style.COLUMN / 9)


def test_overlay_panel_shows_inputs_missing_tiles_and_errors():
    one = case()
    truth = np.stack([one.labels > 0, one.labels == 4, one.labels == 4])
    predicted = truth.copy()
    predicted[0, 5, 7, 2] = False  # missed
    predicted[0, 1, 1, 2] = True  # invented
    predicted[1:, 6, 8, 2] = False  # wrong part
    figure = overlays.overlay_panel([overlays.Overlay(one, ("flair",), predicted, "a title")])
    assert isinstance(figure, Figure) and len(figure.axes) == 7
    shown = dict(zip([*MRI, "prediction", "truth", "error"], figure.axes, strict=True))
    assert texts(shown["t1"]) == ["t1\nmissing"] and texts(shown["t2"]) == ["t2\nmissing"] and not texts(shown["flair"])
    error = np.asarray(shown["error"].images[0].get_array())
    plain = np.asarray(shown["flair"].images[0].get_array())
    changed = (error != plain).any(axis=2)
    assert changed.sum() == 3
    tint = {
        name: 0.65 * np.array(to_rgb(colour)) for name, colour in (("missed", style.BLUE), ("invented", style.ORANGE))
    }
    found = {name: np.isclose(error - 0.35 * plain, colour).all(axis=2).sum() for name, colour in tint.items()}
    assert found == {"missed": 1, "invented": 1}


def test_a_portrait_shows_what_was_acquired_and_the_truth_in_full_colour():
    one = case()
    figure = overlays.portrait(one)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [*one.images, "truth"]
    truth = np.asarray(figure.axes[-1].images[0].get_array())
    enhancing = np.isclose(truth, to_rgb(style.REGION["et"][0])).all(axis=2).sum()
    assert enhancing == (one.labels == 4).sum(axis=(0, 1)).max(), "of the slice with most tumour"


def test_overlay_errors():
    one = case()
    with pytest.raises(ValueError, match=r"predicted has shape \(3, 2, 2, 2\), but case made needs \(3, 8, 10, 4\)"):
        overlays.overlay_panel([overlays.Overlay(one, ("t1",), np.zeros((3, 2, 2, 2), bool), "")])
    unlabelled = Case("made", one.images, one.affine)
    with pytest.raises(ValueError, match="case made has no labels"):
        overlays.overlay_panel([overlays.Overlay(unlabelled, ("t1",), np.zeros((3, 8, 10, 4), bool), "")])


@pytest.mark.parametrize("formatter", [None, "{x:g}"])
@style.styled
def test_no_tick_of_a_logarithmic_axis_is_written_as_maths(formatter) -> None:
    figure, axes = style.new_figure(4, 3)
    axes[0, 0].plot([25, 600], [0, 1])
    axes[0, 0].set_xscale("log")
    if formatter:
        axes[0, 0].xaxis.set_major_formatter(formatter)
    shown = style.show(figure, "a line").html
    drawn = base64.b64decode(re.search(r'base64,([^"]+)', shown).group(1)).decode()
    assert "<svg" in drawn and "$" not in drawn
