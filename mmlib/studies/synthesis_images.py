"""What synthesised images are good for, and what they invent: tables and figures of the chapter on M2DN.

Sharpness and a classifier that is to tell them from true ones, what a segmenter makes of them, what is found of what
cannot be known, and the spread over several results; from the experiment `synthesis-studies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.statistics import Effect, mean_interval, paired_effects, shared_effect
from mmlib.analysis.wording import NO_INTERVAL, format_interval
from mmlib.figures.style import BLACK, GREY, VERMILLION, new_figure, styled
from mmlib.ledgers.claims import effect_rows
from mmlib.modalities import MRI, label
from mmlib.studies.synthesis import MAIN, NAMES, NETWORKS, SINGLE, STYLE, Pictures, Study, tile, upright

STUDIED = {  # variant in `synthesis-studies` -> arm
    "paper": "m2dn paper",
    "unet": "m2dn unet",
    "sample": "m2dn sample",
    "regression": "regression",
    "mm-gan": "mm-gan",
    "mean": "floors mean",
}
FILLED = {  # variant in `synthesis-studies` -> what the segmenter is given
    "complete": "complete",
    "zero": "zeros",
    "mean": "mean image",
    "regression": "regression U-Net",
    "mm-gan": "MM-GAN",
    "paper": "M2DN, as drawn",
    "unet": "M2DN, U-Net",
    "sample": "M2DN, U-Net, one sample",
    "shaspec": "ShaSpec, no synthesis",
}
REGIONS = ("wt", "tc", "et")
CONTRASTS = {  # metric -> which contrast
    "contrast-enhancement": "enhancing against other solid tumour, t1ce from the others",
    "contrast-oedema": "oedema against the rest of the brain, flair from the others",
}
ERRORS = {
    "mae-et": "enhancing tumour",
    "mae-core": "rest of the core",
    "mae-oedema": "oedema",
    "mae-brain": "whole brain",
}


# ------------------------------------------------------------------------------------------------------------ sharpness
@styled
def spectra(pictures: Pictures) -> Figure:
    """Mean power of true and synthesised slices by spatial frequency, a panel per modality."""
    figure, axes = new_figure(9, 2.9, 1, len(MRI), sharey=True)
    frequency = (np.arange(16) + 0.5) / 32
    for axis, target in zip(axes[0], MRI, strict=True):
        axis.plot(frequency, pictures[f"spectrum true {target}"], color=BLACK, label="true")
        for name, arm in STUDIED.items():
            colour, marker = STYLE[arm]
            power = pictures[f"spectrum {name} {target}"]
            axis.plot(frequency, power, color=colour, marker=marker, markersize=3, linewidth=0.9, label=NAMES[arm])
        axis.set(yscale="log", title=f"{target} synthesised", xlabel="cycles per voxel")
    axes[0, 0].set_ylabel("power")
    handles, texts = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4)
    return figure


def sharpness(study: Study) -> pd.DataFrame:
    """Mean gradient in the brain as a share of that of the true image; rows `STUDIED`, columns modalities."""
    rows = {
        name: {target: study.studied("sharpness", name, target).to_numpy().mean() for target in MRI} for name in STUDIED
    }
    return pd.DataFrame(rows).T


def told_apart(study: Study) -> pd.DataFrame:
    """AUROC of a classifier of true and synthesised slices, with 95 % intervals; rows `STUDIED`, columns modalities."""

    def cell(name: str, target: str) -> str:
        value, low, high = (
            study.studied(f"two-sample{end}", name, target).to_numpy().item() for end in ("", "-low", "-high")
        )
        return f"{value:.2f} ({format_interval(low, high, 2, between='-')})"

    rows = {NAMES[arm]: {target: cell(name, target) for target in MRI} for name, arm in STUDIED.items()}
    return pd.DataFrame(rows).T


def sharper(study: Study, variant: str, other: str) -> Effect:
    """The sharpness of one variant above that of another, mean over modalities."""
    first, second = (sum(study.studied("sharpness", name, target) for target in MRI) for name in (variant, other))
    return shared_effect(first / len(MRI), second / len(MRI))


# ------------------------------------------------------------------------------------------------------------ segmenter
def dice_table(study: Study) -> pd.DataFrame:
    """Dice in percent, by filling; columns: region and the modality that is missing."""
    rows: dict[str, dict[tuple[str, str], float]] = {}
    for name, text in FILLED.items():
        for region in REGIONS:
            for target in MRI:
                left = label(MRI, MRI) if name == "complete" else SINGLE[target]
                dice = 100 * study.studied("dice", name, region, left).to_numpy().mean()
                rows.setdefault(text, {})[region.upper(), target] = dice
    return pd.DataFrame(rows).T.rename_axis(columns=["region", "missing"])


def dice_cases(study: Study) -> int:
    """Number of segmented test cases."""
    return study.studied("dice", "zero", "wt", SINGLE["t1"]).shape[1]


def filled_over_zeros(study: Study) -> pd.DataFrame:
    """Dice of every filling over that with zeros, mean of four missing modalities; rows of a forest plot."""
    names, pairs = [], []
    left = list(SINGLE.values())
    for name in ("mean", "regression", "mm-gan", "paper", "unet", "sample", "shaspec"):
        for region in REGIONS:
            names.append(f"{region.upper()}, {FILLED[name]}")
            pairs.append((_dice(study, name, region, left), _dice(study, "zero", region, left)))
    return effect_rows(names, paired_effects(pairs), 1.0)


def _dice(study: Study, variant: str, region: str, left: Sequence[str]) -> pd.DataFrame:
    return 100 * study.studied("dice", variant, region, left)


def dice_gain(study: Study, variant: str, other: str) -> Effect:
    """Points of Dice of one filling over another, mean over regions and missing modalities."""
    left = list(SINGLE.values())
    first, second = (sum(_dice(study, name, region, left) for region in REGIONS) / 3 for name in (variant, other))
    return shared_effect(first, second)


def best_filling(dice: pd.DataFrame) -> str:
    """The synthesis with the highest Dice, mean over regions and modalities; of `dice_table`."""
    names = [text for name, text in FILLED.items() if name not in ("complete", "shaspec", "zero")]
    return str(dice.loc[names].mean(axis=1).idxmax())


def agreement(study: Study, dice: pd.DataFrame) -> pd.Series:
    """Missing modality -> rank correlation of PSNR and Dice over the fillings."""
    rows = [
        {
            "missing": target,
            "psnr": study.table("synthesis", arm, "psnr", SINGLE[target], target).to_numpy().mean(),
            "dice": dice.loc[FILLED[name]].groupby(level=1).mean()[target],
        }
        for name, arm in STUDIED.items()
        if name != "sample"  # PSNR is that of the reverse process of the main comparison
        for target in MRI
    ]
    parts = pd.DataFrame(rows).groupby("missing")
    return pd.Series({name: part["psnr"].corr(part["dice"], method="spearman") for name, part in parts})


# ------------------------------------------------------------------------------------------------- what cannot be known
def known_contrast(study: Study) -> pd.DataFrame:
    """Percent of the true contrast in the synthesised image.

    Returns:
        metric, name (variant), mean, low, high (95 %) and subjects; no rows where the data have no known answer.
    """
    rows = []
    for metric in CONTRASTS:
        for name in STUDIED if study.has("synthesis-studies", metric=metric) else ():
            share = 100 * study.studied(metric, name)
            mean, low, high = mean_interval(share)
            facts = {"mean": mean, "low": low, "high": high, "subjects": share.shape[1]}
            rows.append({"metric": metric, "name": name, **facts})
    return pd.DataFrame(rows, columns=["metric", "name", "mean", "low", "high", "subjects"])


def contrast_table(known: pd.DataFrame) -> pd.DataFrame:
    """`known_contrast` as texts."""
    texts = [f"{row.mean:.0f} ({format_interval(row.low, row.high, 0)})" for row in known.itertuples(name="Row")]
    return pd.DataFrame(
        {
            "contrast": known["metric"].map(CONTRASTS),
            "synthesised by": known["name"].map(STUDIED).map(NAMES),
            "share recovered, %": texts,
            "subjects": known["subjects"],
        }
    )


def contrast_facts(known: pd.DataFrame, variant: str) -> dict[str, str]:
    """How much of both contrasts a variant recovers, as texts by name; they say so where one is not known."""
    rows = known[known["name"].eq(variant)].set_index("metric")
    if set(CONTRASTS).difference(rows.index):
        unknown = "not known for these data"
        return dict.fromkeys(("rim", "rim_brief", "oedema", "oedema_brief", "rim_verdict", "rim_headline"), unknown)
    rim, oedema = rows.loc["contrast-enhancement"], rows.loc["contrast-oedema"]
    where = "the interval holds zero" if rim["low"] <= 0 <= rim["high"] else "the interval lies off zero"
    expected = "It does not find what is not there", "It finds more than there can be: look for a leak"
    return {
        "rim": f"{rim['mean']:.0f} % ({format_interval(rim['low'], rim['high'], 0)})",
        "rim_brief": f"{rim['mean']:.0f} %",
        "oedema": f"{oedema['mean']:.0f} % ({format_interval(oedema['low'], oedema['high'], 0)})",
        "oedema_brief": f"{oedema['mean']:.0f} %",
        "rim_verdict": NO_INTERVAL if np.isnan(rim["low"]) else where,
        "rim_headline": expected[0] if rim["low"] <= 10 else expected[1],
    }


def painted(study: Study) -> pd.DataFrame:
    """What is found of a region and what of it is painted where there is none, and the error over both.

    Returns:
        kind (`enhancement`, `oedema`), arm, found, invented (shares) and rmse, means over subjects; in the arm `bound`
        the least error that is possible where enhancement cannot be known. No rows without a known answer.
    """
    rows: list[dict[str, Any]] = []
    for kind in ("enhancement", "oedema"):
        for name, arm in STUDIED.items() if study.has("synthesis-studies", metric=f"found-{kind}") else ():
            parts = {part: study.studied(f"{part}-{kind}", name) for part in ("found", "invented", "rmse")}
            means = {part: table.to_numpy().mean() for part, table in parts.items()}
            rows.append({"kind": kind, "arm": arm, **means})
    if study.has("synthesis-studies", metric="rmse-enhancement", variant="bound"):
        least = study.studied("rmse-enhancement", "bound").to_numpy().mean()
        rows.append({"kind": "enhancement", "arm": "bound", "rmse": least})
    return pd.DataFrame(rows, columns=["kind", "arm", "found", "invented", "rmse"])


@styled
def known_and_unknown(rates: pd.DataFrame) -> Figure:
    """`painted` beside the known answers: the diagonal and the least error for enhancement, the corner for oedema."""
    figure, axes = new_figure(8, 3.2, 1, 2)
    left, right = axes[0]
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8, label="cannot be known")
    arms = [arm for arm in STUDIED.values() if arm in set(rates["arm"])]
    for place, arm in enumerate(arms):
        colour, marker = STYLE[arm]
        for kind, face in (("enhancement", colour), ("oedema", "none")):
            row = rates[rates["arm"].eq(arm) & rates["kind"].eq(kind)]
            look = {"color": colour, "marker": marker, "markerfacecolor": face, "linestyle": "none"}
            left.plot(row["invented"], row["found"], label=NAMES[arm] if kind == "enhancement" else None, **look)
            right.plot(row["rmse"], [place] * len(row), **look)
    for least in rates.loc[rates["arm"].eq("bound"), "rmse"]:
        right.axvline(least, color=BLACK, linewidth=0.8, label="least, enhancement")
    left.set(xlabel="painted where there is none", ylabel="found", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    right.set(xlabel="root mean square error", xlim=(0, None))
    right.set_yticks(range(len(arms)), [NAMES[arm] for arm in arms])
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def errors_by_region(study: Study) -> pd.DataFrame:
    """Mean absolute error, % of the data range, by missing modality and region; columns: arms."""
    rows = {
        NAMES[arm]: {
            (target, text): study.table("synthesis", arm, metric, SINGLE[target], target).to_numpy().mean()
            for target in MRI
            for metric, text in ERRORS.items()
        }
        for arm in MAIN
    }
    return pd.DataFrame(rows)


def most_enhancing(pictures: Pictures) -> int:
    """Index of the drawn slice with the largest enhancing tumour."""
    return int(np.argmax([(one == 4).sum() for one in pictures["drawn labels"]]))


@styled
def invented(pictures: Pictures) -> Figure:
    """Each modality as it is and as the studied arms synthesise it; red: outline of the true enhancing tumour."""
    at = most_enhancing(pictures)
    enhancing = upright(pictures["drawn labels"][at] == 4)
    figure, axes = new_figure(10, 6.2, len(MRI), len(STUDIED) + 1)
    for row, target in enumerate(MRI):
        tile(axes[row, 0], pictures["drawn truth"][at, row], "true" if row == 0 else "")
        axes[row, 0].set_ylabel(f"{target} missing")
        for column, (name, arm) in enumerate(STUDIED.items(), start=1):
            tile(axes[row, column], pictures[f"made {name} {target}"][at], NAMES[arm] if row == 0 else "")
        for axis in axes[row]:
            axis.contour(enhancing, [0.5], colors=[VERMILLION], linewidths=0.6)
    return figure


# ------------------------------------------------------------------------------------------------------ several results
def spread_table(study: Study) -> pd.DataFrame:
    """How honest the spread of several results is, by network and modality: `realism.calibration` in numbers."""
    metrics = ["spread", "error", "honesty", "coverage", "nominal", "rank"]
    if study.has("synthesis-studies", metric="honesty-et"):
        metrics += ["honesty-et", "coverage-et"]
    rows = []
    for name in NETWORKS:
        for target in MRI:
            tables = {metric: study.studied(metric, name, target) for metric in metrics}
            means = {metric: table.to_numpy().mean() for metric, table in tables.items()}
            rows.append({"network": NAMES[f"m2dn {name}"], "missing": target, **means, "n": tables["spread"].shape[1]})
    return pd.DataFrame(rows)


def spread_facts(table: pd.DataFrame) -> dict[str, str]:
    """How the spread compares with the error, as texts by name; of `spread_table`."""
    means = table.groupby("network", sort=False)[["honesty", "coverage", "rank"]].mean()
    small = "Where the results agree, they may agree on something wrong: a small spread is no sign of a right image."
    honest = means["honesty"].max() >= 0.8
    return {
        "honesty": " and ".join(f"{value:.0%} ({name})" for name, value in means["honesty"].items()),
        "coverage": " and ".join(f"{value:.0%}" for value in means["coverage"]),
        "nominal": f"{table['nominal'].iloc[0]:.0%}",
        "spread_ranks": " and ".join(f"{value:.2f}" for value in means["rank"]),
        "spread_verdict": "The spread is of the size of the error, at least in one network." if honest else small,
        "spread_most": f"{means['honesty'].max():.0%}",
    }


@styled
def spreads(pictures: Pictures, variant: str) -> Figure:
    """For t1ce and flair: the true slice, up to three results, their spread and the error of their mean."""
    at = most_enhancing(pictures)
    figure, axes = new_figure(9, 3.9, 2, 6)
    for row, target in enumerate(("t1ce", "flair")):
        titles = ("true", "result 1", "result 2", "result 3", "spread", "error") if row == 0 else ("",) * 6
        tile(axes[row, 0], pictures["drawn truth"][at, MRI.index(target)], titles[0])
        axes[row, 0].set_ylabel(f"{target} missing")
        results = pictures[f"drawn {variant} {target}"][at]
        for column in (1, 2, 3):
            axes[row, column].set_visible(column <= len(results))
            if column <= len(results):
                tile(axes[row, column], results[column - 1], titles[column])
        error = np.abs(pictures[f"error {variant} {target}"][at].astype(float))
        tile(axes[row, 4], pictures[f"spread {variant} {target}"][at], titles[4], 0, 0.3, cmap="viridis")
        tile(axes[row, 5], error, titles[5], 0, 0.6, cmap="viridis")
    return figure
