"""Guidance where its effect is known (latents with a dial), and on tables of breast tumours: what chapter 07 shows.

Scores are in points. A setting of the dial is the target of a score, `coupled 0.3 300 1000`: kind of pairs, noise of
the labels, labelled cases, pairs. A target of the tumours is `30 labels`, with `, published test part` where the test
samples are those of the published split and not of random ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.statistics import Effect, by_seed_and_case, resampled_effect, shared_effect
from mmlib.analysis.wording import format_effect
from mmlib.data.phantoms import latents as phantom
from mmlib.data.phantoms.glioma.model import expected_scores as counted
from mmlib.data.phantoms.lesion.expected import expected_scores as linear
from mmlib.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, new_figure, styled

DIAL, TUMOURS = "guidance-dial", "guidance-tcga"  # experiments
LESIONS = {"coupled": "guidance-lesions-coupled", "decoupled": "guidance-lesions-decoupled"}
GLIOMAS = {"coupled": "guidance-gliomas-coupled", "decoupled": "guidance-gliomas-decoupled"}
READ = {  # encoders that have learned to see, on other cases but for the last
    **{kind: f"{experiment}-read" for kind, experiment in GLIOMAS.items()},
    "coupled, same cases": "guidance-gliomas-same-read",
}
FEW = {"100 diagnoses": "guidance-lesions-few", "all diagnoses": "guidance-lesions-all"}
EXPECTED = {
    "DIAG": (linear, "linear, sees all"),
    "class": (counted, "counts, sees all"),
}  # task -> scores, and how they come
PUBLISHED = ", published test part"
DIAL_CLAIMS = ("G11", "G12", "G13", "G14", "G15", "G16")  # in the claims ledger
LESION_CLAIMS, GLIOMA_CLAIMS, READ_CLAIMS, FEW_CLAIMS = ("G21", "G22"), ("G25", "G26"), ("G27", "G28"), ("G23", "G24")
TUMOUR_CLAIMS = ("G17", "G18", "G19", "G17f", "G18f", "G19f", "G20")
TUMOUR_ROWS = ("combined", "combined-b", "linear-combined")
ROWS = {  # row -> name, colour, marker
    "inferior": ("I, head of stage (a)", GREY, "s"),
    "logistic": ("I, tuned logistic regression", BLACK, "s"),
    "centroid": ("I, nearest mean", BLACK, "d"),
    "wider": ("I, wider head", PURPLE, "D"),
    "superior": ("S", GREY, "P"),
    "guided-b": ("G(I), stage (b)", ORANGE, ">"),
    "combined-b": ("G(I)+I, G of stage (b)", SKY, "v"),
    "guided": ("G(I), stage (c)", VERMILLION, "<"),
    "combined": ("G(I)+I", BLUE, "o"),
    "linear-guided": ("G(I), linear", GREEN, "^"),
    "linear-combined": ("G(I)+I, linear", GREEN, "o"),
    "guided-b-shuffled": ("G(I), stage (b), shuffled pairs", ORANGE, "X"),
    "guided-b-within-class": ("G(I), stage (b), shuffled within the label", ORANGE, "x"),
    "combined-b-shuffled": ("G(I)+I, G of (b), shuffled pairs", SKY, "X"),
    "combined-b-within-class": ("G(I)+I, G of (b), shuffled within the subtype", SKY, "x"),
    "linear-combined-shuffled": ("G(I)+I, linear, shuffled pairs", GREEN, "X"),
    "linear-combined-within-class": ("G(I)+I, linear, shuffled within the subtype", GREEN, "x"),
    "linear-superior": ("S, tuned logistic regression", GREY, "p"),
    "linear-both": ("I+S, tuned logistic regression", GREY, "*"),
    "within-class": ("G(I)+I, shuffled within the label", BLUE, "x"),
}
CURVES = ("linear-guided", "guided-b", "combined")  # rows of the figure of the dial
KINDS = {"coupled": ("coupled", BLUE, "o", "-"), "decoupled": ("decoupled", VERMILLION, "X", "--")}


def repeats(scores: pd.DataFrame, row: str, target: str) -> pd.DataFrame:
    """The scores of a row, in points: (repeats, cases), one column where a repeat has one number.

    Args:
        scores: of one experiment, as `mmlib.analysis.results.Results.scores`.

    Raises:
        ValueError: if there are none.
    """
    chosen = scores[scores["variant"].eq(row) & scores["target"].eq(target)]
    return 100 * by_seed_and_case(chosen)


def range_words(scores: pd.DataFrame, row: str, target: str) -> str:
    """Lowest, median and highest mean of a row over its repeats, in percent; arguments as `repeats`."""
    means = repeats(scores, row, target).mean(axis=1)
    return " / ".join(f"{value:.1f}" for value in (means.min(), means.median(), means.max())) + " %"


def gain(scores: pd.DataFrame, row: str, other: str, target: str, test_over_train: float = 0.0) -> Effect:
    """By how much a row lies above another, in points, with its interval over the repeats that both have.

    Of scores case by case, the same cases in every repeat, cases and repeats are resampled.
    """
    first, second = (repeats(scores, name, target) for name in (row, other))
    if first.shape[1] > 1:
        return shared_effect(first, second)
    common = first.index.intersection(second.index)
    return resampled_effect((first.loc[common] - second.loc[common]).mean(axis=1), test_over_train)


# ------------------------------------------------------------------------------------------------------------ the dial
def dial_settings(scores: pd.DataFrame) -> pd.DataFrame:
    """The settings that were run: target, kind, noise, labels, pairs."""
    targets = scores["target"].drop_duplicates()
    parts = targets.str.split(" ", expand=True).set_axis(["kind", "noise", "labels", "pairs"], axis=1)
    return parts.astype({"noise": float, "labels": int, "pairs": int}).assign(target=targets).reset_index(drop=True)


def expected(setting, guided: bool) -> float:
    """What the theory expects of a setting, %: of labels alone, or of guidance by all pairs; see the phantom."""
    coupled = setting.kind == "coupled"
    s, cases = (
        (phantom.witness(setting.noise, coupled), setting.pairs)
        if guided
        else (phantom.witness(setting.noise), setting.labels)
    )
    return 100 * phantom.expected_accuracy(s, cases)


def dial_table(scores: pd.DataFrame, targets: Sequence[str]) -> pd.DataFrame:
    """Accuracy of every row, % (standard deviation over repeats), and below what theory expects; a column a setting."""
    settings = dial_settings(scores).set_index("target")
    columns = {}
    for target in targets:
        setting = settings.loc[target]
        own = {}
        for row in (row for row in ROWS if row in set(scores["variant"])):
            values = repeats(scores, row, target).mean(axis=1)
            own[ROWS[row][0]] = f"{values.mean():.1f} ({values.std():.1f})"
        own["theory: labels alone"] = f"{expected(setting, guided=False):.1f}"
        own["theory: guidance"] = f"{expected(setting, guided=True):.1f}"
        name = f"{setting.kind}, noise {setting.noise:g}, {setting.labels} labels, {setting.pairs} pairs"
        columns[name] = own
    return pd.DataFrame(columns)


def dial_gains(scores: pd.DataFrame, row: str, other: str = "centroid") -> pd.DataFrame:
    """The gain of a row in every setting in which it was run: the columns of `dial_settings`, effect, low, high."""
    run = scores.loc[scores["variant"].eq(row), "target"].unique()
    settings = dial_settings(scores)
    settings = settings[settings["target"].isin(run)]
    effects = [gain(scores, row, other, target) for target in settings["target"]]
    return settings.assign(**{key: [getattr(e, key) for e in effects] for key in ("effect", "low", "high")})


def gains_of_kinds(gains: pd.DataFrame, labels: int, noise: float) -> dict[str, str]:
    """For the prose: kind of pairs -> the gain where all pairs have labels, `+2.2 (+0.4 to +4.0)`; of `dial_gains`."""
    at = gains[gains["labels"].eq(labels) & gains["pairs"].eq(labels) & gains["noise"].eq(noise)]
    return {row.kind: format_effect(row) for row in at.itertuples()}


@styled
def dial_figure(scores: pd.DataFrame, labels: int, noise: float) -> Figure:
    """Gain over the nearest mean on I, against the noise of labels and against their number, with the theory's lines.

    Args:
        labels: labelled cases of the left column, all pairs labelled.
        noise: of the labels in the right column.
    """
    figure, axes = new_figure(9, 7.4, len(CURVES), 2, sharex="col", sharey=True)
    for line, row in zip(axes, CURVES, strict=True):
        gains = dial_gains(scores, row)
        line[0].set_ylabel(f"{ROWS[row][0]}\ngain, points")
        for kind, (name, colour, marker, dash) in KINDS.items():
            own = gains[gains["kind"].eq(kind)]
            same = own[own["labels"].eq(labels) & own["pairs"].eq(labels)]
            most = own["pairs"][own["labels"].ne(own["pairs"])].mode().max()
            fewer = own[own["noise"].eq(noise) & own["pairs"].eq(most)]
            for axis, part, key in ((line[0], same, "noise"), (line[1], fewer, "labels")):
                part = part.sort_values(key)
                axis.vlines(part[key], part["low"], part["high"], color=colour, linewidth=1)
                axis.plot(part[key], part["effect"], marker, color=colour, label=f"{name}, measured")
            x = np.linspace(0, 0.45, 46)
            y = [phantom.expected_gain(one, kind == "coupled", labels, labels) for one in x]
            line[0].plot(x, y, dash, color=colour, label=f"{name}, theory")
            if len(fewer):
                x = np.geomspace(fewer["labels"].min(), most, 40)
                y = [phantom.expected_gain(noise, kind == "coupled", one, most) for one in x]
                line[1].plot(x, y, dash, color=colour)
                line[1].set_xscale("log")
                counts = sorted(gains["labels"][gains["noise"].eq(noise) & gains["pairs"].eq(most)].unique())
                line[1].set_xticks(counts, [f"{count:g}" for count in counts])
                line[1].minorticks_off()
        for axis in line:
            axis.axhline(0, color=BLACK, linewidth=0.8)
            axis.set_ylim(-38, 42)
    axes[0, 0].set_title(f"{labels} labelled pairs")
    axes[0, 1].set_title(f"label noise {noise:g}, {'' if np.isnan(most) else f'{most:.0f} '}pairs")
    axes[-1, 0].set_xlabel("share of wrong labels")
    axes[-1, 1].set_xlabel("labelled cases")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def image_table(
    scores: pd.DataFrame,
    experiments: Mapping[str, str],
    settings: Mapping[str, tuple[int, int, float]],
    task: str = "DIAG",
) -> pd.DataFrame:
    """Balanced accuracy of a task, %, and the gain over I with its 95 % interval, for both kinds of pairs.

    Below, in expectation, what somebody gets who sees without fail, see `EXPECTED`.

    Args:
        scores: of the experiments.
        experiments: name of the columns -> experiment; in "decoupled" pairs, superior images follow labels.
        settings: name of the columns -> labelled cases, pairs, and share of wrong labels, of training cases.
        task: the diagnosis of a lesion, or the class of a glioma (`class`).
    """
    columns: dict[str, dict[str, str]] = {}
    expected, how = EXPECTED[task]
    for kind, experiment in experiments.items():
        own = scores[scores["experiment"].eq(experiment) & scores["metric"].eq("balanced")]
        level, over = (columns.setdefault(f"{kind}, {what}", {}) for what in ("%", "over I"))
        for row in (row for row in ROWS if row in set(own["variant"])):
            level[ROWS[row][0]] = f"{repeats(own, row, task).to_numpy().mean():.1f}"
            if row != "inferior":
                over[ROWS[row][0]] = format_effect(gain(own, row, "inferior", task))
        if kind in settings:
            found = expected(*settings[kind], kind == "decoupled")
            for row, name in {"inferior": "I", "superior": "S", "guided": "G(I)"}.items():
                level[f"{name}, {how}"] = f"{100 * found[row]:.1f}"
                if row != "inferior":
                    over[f"{name}, {how}"] = f"{100 * (found[row] - found['inferior']):+.1f}"
    return pd.DataFrame(columns).fillna("")


# --------------------------------------------------------------------------------------------------------- the tumours
def label_counts(scores: pd.DataFrame) -> list[int]:
    """Numbers of labels that the runs on tumours were made with."""
    return sorted({int(target.split()[0]) for target in scores["target"]})


def tumour_rows(scores: pd.DataFrame, published: bool) -> pd.DataFrame:
    """Balanced accuracy, %, of every row by number of labels."""
    ending = PUBLISHED if published else ""
    return pd.DataFrame(
        {
            f"{count} labels": {
                ROWS[row][0]: repeats(scores, row, f"{count} labels{ending}").to_numpy().mean()
                for row in ROWS
                if row in set(scores["variant"])
            }
            for count in label_counts(scores)
        }
    )


def tumour_gains(
    scores: pd.DataFrame, rows: Sequence[str], test_over_train: float, other: str = "logistic"
) -> pd.DataFrame:
    """Gains over tuned logistic regression on I: row, labels, published, effect (an `Effect`)."""
    found = []
    for row in rows:
        for count in label_counts(scores):
            for published, ending in ((False, ""), (True, PUBLISHED)):
                target = f"{count} labels{ending}"
                if target in set(scores["target"]):  # the other reading may not have been run
                    effect = gain(scores, row, other, target, test_over_train)
                    found.append({"row": row, "labels": count, "published": published, "effect": effect})
    return pd.DataFrame(found)


@styled
def tumour_figure(gains: pd.DataFrame) -> Figure:
    """`tumour_gains` against the number of labels: random splits left, the published test part right."""
    figure, axes = new_figure(9, 3.8, 1, 2, sharey=True)
    rows = list(gains["row"].unique())
    for axis, published in zip(axes[0], (False, True), strict=True):
        for place, row in enumerate(rows):
            part = gains[gains["row"].eq(row) & gains["published"].eq(published)]
            name, colour, marker = ROWS[row]
            x = part["labels"] * 1.05 ** (place - (len(rows) - 1) / 2)
            axis.vlines(x, [e.low for e in part["effect"]], [e.high for e in part["effect"]], color=colour, linewidth=1)
            axis.plot(x, [e.effect for e in part["effect"]], marker, color=colour, label=name)
        axis.axhline(0, color=BLACK, linewidth=0.8)
        axis.set_xscale("log")
        counts = sorted(gains["labels"].unique())
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set_xlabel("labelled tumours")
        axis.set_title("published test part" if published else "random splits")
    axes[0, 0].set_ylabel("gain in balanced accuracy, points")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def gain_words(gains: pd.DataFrame, published: bool = False) -> str:
    """For the prose: `+5.2 (-0.3 to +10.7) with 15 labels, ...`."""
    part = gains[gains["published"].eq(published)]
    return ", ".join(f"{format_effect(row.effect)} with {row.labels} labels" for row in part.itertuples())
