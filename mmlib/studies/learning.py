"""Have the networks learned? Settings tried on validation cases, and bars set before the runs: one page's tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import paired_effects
from mmlib.analysis.wording import counted, format_effect
from mmlib.figures.results import arm_of, arm_style
from mmlib.figures.style import METHOD, new_figure, styled
from mmlib.modalities import MRI, label
from mmlib.studies import digits, distillation, guidance, synthesis

ALL = label(MRI, MRI)
SEGMENTERS = ("shaspec paper", "u-hemis", "dropout-unet", "zero-fill")
REGIONS = ("et", "tc", "wt")
BARS = {"et": 85.0, "wt": 90.0}  # Dice in points with all four modalities, on held-out cases
LONGER_MARGIN = 3.0  # points that a longer run may gain with one modality
LONGER = {  # bar -> the same networks for fewer and for more steps
    "a run three times as long": ("comparison-twice", "comparison-longer"),
    "three times as long once more (asked later, results of the first known)": (
        "comparison-longer",
        "comparison-longest",
    ),
    "twice the steps of chapter 09 (asked later, results known)": ("comparison", "comparison-twice"),
}
TEACHER_LEAD = 5.0  # points of average Dice
REGRESSION_MARGIN, NOISE_MARGIN = 0.7, 3.0  # dB


class Tuning(NamedTuple):
    """Where settings were tried: the experiments that take the best, what marks validation scores, and their unit."""

    main: tuple[str, ...]
    where: dict[str, str]
    scale: float
    unit: str


TUNED = {
    "tuning": Tuning(("comparison", "segmentation", "subsets"), {"metric": "valid-dice"}, 100, "Dice in points"),
    "tuning-crop": Tuning(("segmentation",), {"metric": "valid-dice"}, 100, "Dice in points"),
    "tuning-centred": Tuning(("segmentation",), {"metric": "valid-dice"}, 100, "Dice in points"),
    "tuning-distillation": Tuning(("distillation",), {"metric": "valid-dice"}, 100, "Dice in points"),
    "tuning-synthesis": Tuning(("synthesis",), {"metric": "valid-psnr"}, 1, "PSNR in dB"),
    "tuning-digits": Tuning(("avmnist",), {"target": "valid", "metric": "correct"}, 100, "accuracy in points"),
    "tuning-guidance": Tuning(("derm7pt",), {"metric": "balanced"}, 100, "balanced accuracy in points"),
}
NAMES = {  # arm, of whichever study -> printed name
    **{row: name for row, (name, *_) in guidance.ROWS.items()},
    **digits.NAMES,
    **synthesis.NAMES,
    **distillation.NAMES,
    **{arm: name for arm, (*_, name) in METHOD.items()},
}
SETTING = re.compile(r"-([a-z_]+)=([0-9.e+-]*[0-9])")  # of a run of a grid, in its name


def name_of(arm: str) -> str:
    """The printed name of an arm of any study; of digits, whose arms name an audio rate, and of guidance too."""
    bare = re.sub(r"( standard)?@[0-9.]+$", "", arm).removeprefix("guidance ")
    return NAMES.get(bare, bare)


def _named(setting: Sequence[tuple[str, str]]) -> str:
    """A setting as tables print it."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in setting)


def tried(results: Results, experiment: str) -> pd.DataFrame:
    """The validation score of every setting that was tried.

    Returns:
        One row per method, one column per setting. Empty where nothing was tried.
    """
    tuning = TUNED[experiment]
    scores = results.scores[results.scores["experiment"].eq(experiment)]
    for name, value in tuning.where.items():
        scores = scores[scores[name].eq(value)]
    settings = {run: _named(SETTING.findall(run)) for run in scores["run"].unique() if SETTING.search(run)}
    scores = scores[scores["run"].isin(settings)]  # not the teacher of those that are tuned
    if scores.empty:
        return pd.DataFrame()
    setting = scores["run"].map(settings)
    scores = scores.assign(value=scores["value"] * tuning.scale, setting=setting, arm=arm_of(scores))
    return scores.pivot_table(index="arm", columns="setting", values="value", sort=False)


def taken(results: Results, experiment: str) -> dict[str, str]:
    """The setting that each method of a tuning experiment has in the main experiments."""
    tuned = results.records.loc[results.records["experiment"].eq(experiment), "run"]
    keys = dict.fromkeys(key for run in tuned for key, _ in SETTING.findall(run))
    records = results.records[results.records["experiment"].isin(TUNED[experiment].main)]
    arms = results.scores[["experiment", "run", "method", "variant"]].drop_duplicates()
    arms = arms.assign(arm=arm_of(arms)).merge(records, on=["experiment", "run"])
    return {row["arm"]: _named([(key, f"{row[f'parameters.{key}']:g}") for key in keys]) for _, row in arms.iterrows()}


def choices(table: pd.DataFrame, used: Mapping[str, str]) -> pd.DataFrame:
    """`tried`, with the setting in use and what the best one would have given more.

    Returns:
        The table as text, the best of each row marked by a star; `in use`, `best less in use`.
    """
    best = table.idxmax(axis=1)
    shown = table.map("{:.2f}".format)
    for arm, setting in best.items():
        shown.loc[arm, setting] += " *"
    shown["in use"] = [used.get(arm, "-") for arm in table.index]
    lost = [table.loc[arm, best[arm]] - table.loc[arm].get(used.get(arm, ""), float("nan")) for arm in table.index]
    shown["best less in use"] = [f"{value:.2f}" if value == value else "-" for value in lost]
    return shown.rename(index=name_of).rename_axis(index=None)


def _dice(results: Results, experiment: str) -> pd.DataFrame:
    scores = results.scores
    dice = scores[scores["experiment"].eq(experiment) & scores["metric"].eq("dice")]
    return dice.assign(arm=arm_of(dice), value=100 * dice["value"])


def with_all(results: Results, trees: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice with all four modalities, in points: a row per network, the trees last.

    Args:
        results: with the experiment `segmentation`.
        trees: as `mmlib.analysis.voxelwise.voxelwise_dice` gives them.
    """
    dice = _dice(results, "segmentation")
    dice = dice[dice["available"].eq(ALL) & dice["arm"].isin(SEGMENTERS)]
    means = dice.pivot_table(index="arm", columns="target", values="value").reindex(columns=list(REGIONS))
    means = means.reindex([arm for arm in SEGMENTERS if arm in means.index])
    reference = trees[trees["available"].eq(ALL)].groupby("target")["value"].mean() * 100
    means.loc["boosted trees"] = reference.reindex(REGIONS)
    return means.rename_axis(index=None)


def above_trees(results: Results, trees: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of each network less that of the trees with the same modalities, in points.

    Returns:
        arm, available, target, network, trees, difference; a network that was not trained for a set is not asked.
    """
    dice = _dice(results, "segmentation")
    reference = 100 * trees.groupby(["available", "target"])["value"].mean().rename("trees")
    dice = dice[dice["arm"].isin([arm for arm in SEGMENTERS if arm != "zero-fill"])]
    means = dice.groupby(["arm", "available", "target"], sort=False)["value"].mean().rename("network").reset_index()
    rows = means.join(reference, on=["available", "target"], how="inner")
    return rows.assign(difference=rows["network"] - rows["trees"]).reset_index(drop=True)


@styled
def tree_panels(rows: pd.DataFrame) -> Figure:
    """Networks against trees, a panel per region; points below the diagonal have not learned what a voxel tells."""
    figure, panels = new_figure(10, 3.4, 1, len(REGIONS), sharex=True, sharey=True)
    for panel, target in zip(panels[0], REGIONS, strict=True):
        for arm, part in rows[rows["target"].eq(target)].groupby("arm", sort=False):
            colour, marker, name = arm_style(arm)
            panel.scatter(part["trees"], part["network"], color=colour, marker=marker, label=name)
        panel.axline((0, 0), slope=1, color="0.5", linewidth=1)
        panel.set(title=target.upper(), xlabel="trees, Dice in points", xlim=(0, 100), ylim=(0, 100))
    panels[0, 0].set_ylabel("network, Dice in points")
    panels[0, -1].legend(fontsize=8)
    return figure


def gained_by_time(results: Results, experiment: str, longer_experiment: str) -> pd.DataFrame:
    """What a run of more steps gains with one modality, mean of three regions: arm, available, effect."""
    rows = []
    usual, longer = _dice(results, experiment), _dice(results, longer_experiment)
    for arm in longer["arm"].unique():
        for name in MRI:
            tables = [
                part[part["arm"].eq(arm) & part["available"].eq(name)]
                .groupby(["seed", "case"])["value"]
                .mean()
                .unstack()
                for part in (longer, usual)
            ]
            seeds = tables[0].index.intersection(tables[1].index)
            effect = paired_effects([(tables[0].loc[seeds], tables[1].loc[seeds])])[0]
            rows.append((arm, name, effect))
    return pd.DataFrame(rows, columns=["arm", "available", "effect"])


def gains_by_steps(results: Results) -> pd.DataFrame:
    """What more steps gain with one modality, points of average Dice: a row per network and modality, steps in columns.

    Args:
        results: with the runs of two experiments of `LONGER` or more; without, the table is empty.
    """
    steps = results.records.groupby("experiment")["parameters.steps"].max()
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for usual, longer in sorted(LONGER.values(), key=lambda pair: steps.get(pair[1], 0)):
        if {usual, longer} <= set(steps.index):
            column = f"{steps[longer]:,.0f} steps over {steps[usual]:,.0f}"
            for row in gained_by_time(results, usual, longer).itertuples():
                text = f"{format_effect(row.effect)}, {counted(row.effect.seeds, 'seed')}"
                rows.setdefault((name_of(row.arm), row.available), {})[column] = text
    told = [{"network": network, "modality": name, **columns} for (network, name), columns in rows.items()]
    return pd.DataFrame(told).fillna("-")


def largest_gains(gains: pd.DataFrame) -> str:
    """Of `gained_by_time`: the largest gain of each network, judged."""
    most = gains.loc[gains["effect"].map(lambda effect: effect.effect).groupby(gains["arm"]).idxmax()]
    return "; ".join(
        judged(f"{name_of(row.arm)}, {row.available} {format_effect(row.effect)}", row.effect.effect <= LONGER_MARGIN)
        for row in most.itertuples()
    )


def teacher_leads(results: Results) -> pd.Series:
    """Average Dice of the teacher less that of each student's best method, in points: a value per student."""
    dice = _dice(results, "distillation")
    plain = dice["variant"].isin(["standard", ""])
    means = dice[plain].groupby(["method", "available"])["value"].mean()
    teacher = means["teacher", ALL]
    students = means.drop("teacher").groupby("available").max()
    return (teacher - students).reindex([name for name in MRI if name in students.index])


def diffusion_quality(results: Results) -> pd.Series:
    """Mean PSNR in dB, one modality missing, test subjects: of m2dn unet, its noise form and regression unet."""
    scores = results.scores
    psnr = scores[scores["experiment"].eq("synthesis") & scores["metric"].eq("psnr")]
    psnr = psnr[psnr["available"].str.count(r"\+").eq(len(MRI) - 2)]
    means = psnr.groupby(["method", "variant"])["value"].mean()
    wanted = {"x0": ("m2dn", "unet"), "noise": ("m2dn", "unet-noise"), "regression": ("regression", "unet")}
    return pd.Series({name: means[arm] for name, arm in wanted.items() if arm in means.index})


def judged(text: str, passed: bool) -> str:
    """What was measured, and whether it passes its bar."""
    return f"{text}, {'passed' if passed else 'not passed'}"


def bars(results: Results, trees: pd.DataFrame) -> pd.DataFrame:
    """Every bar, what was measured, and whether it is passed; those whose runs are absent say so."""
    present = set(results.records["experiment"])
    rows: dict[str, str] = {}
    if "segmentation" in present:
        means = with_all(results, trees).drop(index=["boosted trees", "zero-fill"], errors="ignore")
        for target, least in BARS.items():
            texts = [judged(f"{name_of(arm)} {value:.1f}", value >= least) for arm, value in means[target].items()]
            rows[f"{target.upper()} with all four modalities at least {least:g}"] = "; ".join(texts)
        cells = above_trees(results, trees)
        worst, below = cells.loc[cells["difference"].idxmin()], (cells["difference"] < 0).sum()
        lowest = f"{name_of(worst['arm'])}, {worst['available']}, {worst['target'].upper()} {worst['difference']:+.1f}"
        text = f"{below} of {len(cells)} cells below; lowest: {lowest}"
        rows["no network below the trees with the same modalities"] = judged(text, below == 0)
    for bar, (usual, longer) in LONGER.items():
        there = {usual, longer} <= present
        text = largest_gains(gained_by_time(results, usual, longer)) if there else "not run in this profile"
        rows[f"one modality: {bar} gains at most {LONGER_MARGIN:g}"] = text
    if "distillation" in present:
        leads = teacher_leads(results).items()
        texts = [judged(f"{name} {value:.1f}", value >= TEACHER_LEAD) for name, value in leads]
        rows[f"teacher at least {TEACHER_LEAD:g} above the best student"] = "; ".join(texts)
    quality = diffusion_quality(results)
    for bar, better, worse, margin in (
        (f"M2DN within {REGRESSION_MARGIN:g} dB of regression, both as U-Net", "regression", "x0", REGRESSION_MARGIN),
        (f"predicting noise within {NOISE_MARGIN:g} dB of predicting images", "x0", "noise", NOISE_MARGIN),
    ):
        if {better, worse} <= set(quality.index):
            gap = quality[better] - quality[worse]
            rows[bar] = judged(f"{gap:.2f}", gap <= margin)
    return pd.DataFrame(rows.items(), columns=["bar, fixed before the runs", "measured"])


def asked_of_trees(results: Results) -> pd.DataFrame:
    """Dice of the trees with the sets of modalities that the bars compare: each alone, and all."""
    trees = results.scores[results.scores["experiment"].eq("trees")]
    return trees[trees["available"].isin([*MRI, ALL])]
