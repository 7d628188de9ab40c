"""ProtoKD on single modalities: the tables and figures of its chapter.

An arm is a method with its variant (`protokd`, `protokd pixel`, `unimodal`, `teacher`), a student the one modality
that a network reads. Dice is in points (percent), laid out as tables (seeds, cases), so that every comparison is
paired by case and, where both arms have them, by seed. The target `avg` is the mean of the three regions.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr, ttest_rel

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import Effect, cell_means, holm, paired_effects, signed_rank
from mmlib.analysis.wording import counted, format_effect, format_interval, select
from mmlib.figures.style import MODALITY, new_figure, styled
from mmlib.methods import protokd
from mmlib.modalities import MRI, label
from mmlib.tasks import distillation
from mmlib.tasks.distillation import CLASSES, CombinationVNet, distillation_loss

REGION_ORDER = ("wt", "tc", "et")
TARGETS = (*REGION_ORDER, "avg")
SINGLES = ("t1", "t2", "t1ce", "flair")
ALL = label(MRI, MRI)
PUBLISHED = ("Unimodal", "U-HVED", "KD-Net", "PMKL", "ProtoKD")  # rows of Table 1
NAMES = {
    "teacher": "teacher",
    "unimodal": "no teacher",
    "protokd": "ProtoKD",
    "kd-net": "KD-Net-style",
    "pmkl": "PMKL-style",
    "protokd pixel": "pixel-wise term alone",
    "protokd prototype": "prototype term alone",
    "shaspec paper": "ShaSpec",
    "dropout-unet": "dropout U-Net",
    "u-hemis": "U-HeMIS",
    "u-hved": "U-HVED",
}
TERMS = {"pixel-wise alone": "protokd pixel", "prototype alone": "protokd prototype", "both": "protokd"}
RATES = {
    "as released: taught, constant, over alone, falling": ("protokd constant", "unimodal"),
    "the teacher, both falling": ("protokd", "unimodal"),
    "the teacher, both constant": ("protokd constant", "unimodal constant"),
    "the rate alone, no teacher: constant over falling": ("unimodal constant", "unimodal"),
}
GUIDES = {"whole": "", "half": "half-teacher", "quarter": "quarter-teacher", "shuffled": "shuffled-teacher"}
WHERE = {
    "et-found": "on the rim",
    "et-core": "in the rest of the core",
    "et-elsewhere": "outside the core",
    "et-missed": "rim that is missed",
}
ON_RIM = "of what is marked in the core, on the rim, %"
COLOURS = dict(zip(SINGLES, ("#0072B2", "#009E73", "#D55E00", "#CC79A7"), strict=True))
MARKERS = {"wt": "o", "tc": "s", "et": "^"}


# ----------------------------------------------------------------------------------------------------------- study
@dataclass(frozen=True)
class Study:
    """The runs of one experiment, ready to be compared.

    Attributes:
        records: one row per run, indexed by its name.
        every: all scores, with the column `arm`.
        scores: Dice in points on the test cases that every run scored, of the three regions and their average.
        tested: those cases.
        students: the modalities that ProtoKD and the network without a teacher were trained for.
    """

    records: pd.DataFrame
    every: pd.DataFrame
    scores: pd.DataFrame
    tested: list[str]
    students: list[str]

    @property
    def stand_in(self) -> bool:
        """Whether the cases are phantoms."""
        return bool(self.records["stand_in"].all())

    @property
    def sample(self) -> str:
        """What a caption says of the sample: n, seeds and where the cases come from."""
        seeds = counted(min(self.seeds("protokd"), self.seeds("unimodal")), "seed")
        origin = "phantom" if self.stand_in else "your own cases"
        return f"n = {len(self.tested)} test cases, {seeds} of ProtoKD and of the network without a teacher, {origin}"

    @property
    def arms(self) -> list[str]:
        """The arms of the table of results: those of `NAMES` that were run, the teacher first."""
        return [arm for arm in NAMES if arm == "teacher" or any(self.has(arm, name) for name in self.students)]

    def seeds(self, arm: str) -> int:
        """How many seeds an arm has."""
        return int(self.scores.loc[self.scores["arm"].eq(arm), "seed"].nunique())

    def has(self, arm: str, available: str) -> bool:
        """Whether an arm was scored with a modality."""
        return bool((self.scores["arm"].eq(arm) & self.scores["available"].eq(available)).any())

    def have(self, arms: Iterable[str]) -> list[str]:
        """The students that all of some arms were trained for."""
        arms = list(arms)
        return [name for name in self.students if all(self.has(arm, name) for arm in arms)]

    def table(self, arm: str, available: str, target: str = "avg") -> pd.DataFrame:
        """Dice of one arm, (seeds, cases), in points."""
        return select(self.scores, arm=arm, available=available, target=target)

    def pair(self, first: str, second: str, available: str, target: str = "avg") -> tuple[pd.DataFrame, pd.DataFrame]:
        """Dice of two arms on the seeds that both have."""
        return shared_seeds(*(self.table(arm, available, target) for arm in (first, second)))

    def gain(self, first: str, second: str, available: str, target: str = "avg") -> Effect:
        """First arm minus second, in points of Dice."""
        return paired_effects([self.pair(first, second, available, target)])[0]

    def gains(self, first: str, second: str) -> dict[str, Effect]:
        """First arm minus second for every student, in points of average Dice, as one family of questions."""
        effects = paired_effects([self.pair(first, second, name) for name in self.students])
        return dict(zip(self.students, effects, strict=True))

    def metric(self, *names: str) -> pd.DataFrame:
        """The scores of other metrics on the test cases."""
        return self.every[self.every["metric"].isin(names) & self.every["case"].isin(self.tested)]

    @cached_property
    def means(self) -> pd.DataFrame:
        """mean, low and high of every arm, availability and target."""
        rows = self.scores[self.scores["arm"].isin(self.arms)]
        return cell_means(rows).set_index(["arm", "available", "target"])


def shared_seeds(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables (seeds, cases) on the seeds that both have."""
    seeds = first.index.intersection(second.index)
    return first.loc[seeds], second.loc[seeds]


def read_study(results: Results, experiment: str, beside: Sequence[str] = ()) -> Study:
    """The study of one experiment.

    Args:
        beside: experiments whose networks are shown in its tables.

    Raises:
        ValueError: if no modality has both a student of ProtoKD and a network without a teacher.
    """
    every = results.scores[results.scores["experiment"].isin([experiment, *beside])]
    plain = every["variant"].isin(["standard", ""])
    every = every.assign(arm=every["method"] + (" " + every["variant"]).where(~plain, ""))
    dice = every[every["metric"].eq("dice") & every["available"].isin([*MRI, ALL])]
    dice = dice.assign(value=100 * dice["value"])
    by_run = dice[dice["experiment"] == experiment].groupby("run")["case"]
    tested = sorted(set.intersection(*(set(cases) for _, cases in by_run)))
    dice = dice[dice["case"].isin(tested)]
    keys = ["experiment", "arm", "seed", "case", "available"]
    average = dice.groupby(keys, sort=False)["value"].mean().reset_index().assign(target="avg")
    scores = pd.concat([dice, average])
    records = results.records[results.records["experiment"] == experiment].set_index("run")
    own = scores[scores["experiment"] == experiment]
    taught, alone = (set(own.loc[own["arm"] == arm, "available"]) for arm in ("protokd", "unimodal"))
    students = [name for name in SINGLES if name in taught & alone]
    if not students:
        raise ValueError(
            f"{experiment}: no modality has both arms: protokd was scored with {sorted(taught)}, unimodal with "
            f"{sorted(alone)}; give a run of the two the same `students`"
        )
    return Study(records, every, scores, tested, students)


def arm_name(arm: str) -> str:
    """An arm as tables print it."""
    method, _, variant = arm.partition(" ")
    return NAMES.get(arm) or f"{NAMES.get(method, method)}, {variant}"


# ----------------------------------------------------------------------------------------------------------- paper
def published_grid(published: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of the paper: methods by (modality, region), with the average of the regions added; Dice in percent.

    Args:
        published: rows of method, available, target, dice_percent.
    """
    own = published[published["available"].isin(SINGLES)]
    grid = own.pivot(index="method", columns=["available", "target"], values="dice_percent")
    grid = grid.loc[list(PUBLISHED), [(name, target) for name in SINGLES for target in REGION_ORDER]]
    for name in SINGLES:
        grid[name, "avg"] = grid[name].mean(axis=1)
    return grid[[(name, target) for name in SINGLES for target in TARGETS]]


def not_best(grid: pd.DataFrame, method: str = "ProtoKD") -> list[str]:
    """The cells in which a method is not best, each with the method that is."""
    cells = [(name, target) for name in SINGLES for target in REGION_ORDER]
    best = {cell: grid[cell].idxmax() for cell in cells}
    return [
        f"{name.upper()} {target.upper()} ({winner})" for (name, target), winner in best.items() if winner != method
    ]


def comparison(study: Study, grid: pd.DataFrame, usual: str) -> pd.DataFrame:
    """The gain over no teacher, paper and ours: a row per student and target.

    Args:
        grid: as `published_grid` returns it.
        usual: the reason of a gap where there is no better one.
    """
    published, rows = grid.loc["ProtoKD"] - grid.loc["Unimodal"], []
    for name in study.students:
        for target in TARGETS:
            first, second = study.pair("protokd", "unimodal", name, target)
            per_seed = first.mean(axis=1) - second.mean(axis=1)
            ours, seeds = per_seed.mean(), len(per_seed)
            no_rim = target == "et" and name != "t1ce" and study.stand_in
            rows.append(
                {
                    "train with / test with": f"all four teach, {name} / {name}",
                    "metric": f"{target.upper()} Dice gained over no teacher",
                    "paper (Table 1)": f"{published[name, target]:+.2f}",
                    "released code": "not run",
                    "ours": f"{ours:+.1f} ± {per_seed.std(ddof=1) if seeds > 1 else 0:.1f} ({counted(seeds, 'seed')})",
                    "gap": f"{ours - published[name, target]:+.1f}",
                    "likely reason": "no rim in this modality: nothing to gain on the phantom" if no_rim else usual,
                }
            )
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------------------------- training
def task_losses(history: pd.DataFrame) -> dict[str, pd.Series]:
    """The task loss of every network of a run against the step, as a running mean.

    Args:
        history: rows of step, student and segmentation (the task loss).
    """
    losses = {name: rows.set_index("step")["segmentation"] for name, rows in history.groupby("student", sort=False)}
    return {name: one.rolling(max(1, len(one) // 15), min_periods=1).mean() for name, one in losses.items()}


def validation_scores(history: pd.DataFrame) -> dict[str, pd.Series]:
    """The score that decides when to stop, of every network of a run at the steps that were scored, in points of Dice.

    Args:
        history: rows of step, student and, where there was a stopping rule, score in [0, 1].

    Returns:
        Empty where there was no rule.
    """
    if "score" not in history:
        return {}
    scored = history.dropna(subset="score").groupby("student", sort=False)
    return {name: 100 * rows.set_index("step")["score"] for name, rows in scored}


@styled
def curve_panels(curves: Mapping[str, Mapping[str, pd.Series]], what: str, markers: bool = False) -> Figure:
    """A panel per run, a line per network, against the step.

    Args:
        curves: title -> what `task_losses` or `validation_scores` returns.
        what: is drawn, the label of the vertical axis.
        markers: whether each value gets the marker of its modality.
    """
    figure, axes = new_figure(8.5, 2.9, 1, len(curves), sharex=True, sharey=True)
    for axis, (title, lines) in zip(axes[0], curves.items(), strict=True):
        for student, line in lines.items():
            name = "all four" if student == ALL else student
            colour, marker = MODALITY.get(student, ("#444444", "P"))
            axis.plot(line, color=colour, label=name, marker=marker if markers else "", markersize=4)
        axis.set(title=title, xlabel="optimiser step")
        axis.legend(fontsize=8)
    axes[0, 0].set_ylabel(what)
    return figure


def training_ends(results: Results, experiment: str) -> pd.DataFrame:
    """How the training of every network ended: arm, student, seed, steps, ended.

    Returns:
        `ended` is `rule` where the stopping rule ended it before the limit of steps, `limit` where it did not, and
        `schedule` where there was no such rule.
    """
    rows = []
    for record in results.records[results.records["experiment"] == experiment].to_dict("records"):
        history, variant = results.history(record["run"], experiment), record["variant"]
        arm = record["method"] if variant in ("standard", "") else f"{record['method']} {variant}"
        watched = validation_scores(history)
        for student, last in history.groupby("student", sort=False)["step"].max().items():  # rows may be thinned
            steps = last + 1
            early = steps < record["parameters.steps"] - 1  # the fall is a whole number of steps
            ended = "schedule" if student not in watched else "rule" if early else "limit"
            rows.append({"arm": arm, "student": student, "seed": record["seed"], "steps": int(steps), "ended": ended})
    return pd.DataFrame(rows)


def ends_in_words(ends: pd.DataFrame) -> str:
    """How many networks the stopping rule ended, how many the limit, and which; of `training_ends`."""
    ruled = ends[ends["ended"].ne("schedule")]
    late = ruled[ruled["ended"].eq("limit")]
    names = [
        f"{arm_name(arm)} ({', '.join(dict.fromkeys(rows['student'].replace(ALL, 'all four')))})"
        for arm, rows in late.groupby("arm", sort=False)
    ]
    unruled = [arm_name(arm) for arm in ends.loc[ends["ended"].eq("schedule"), "arm"].unique()]
    text = ""
    if len(ruled):
        text += f"The rule ended {counted(len(ruled) - len(late), 'training')}, the limit of steps {len(late)}"
        text += f": {', '.join(names)}. " if names else ". "
    return text + (f"Without a rule, over a fixed number of steps: {', '.join(unruled)}." if unruled else "")


def steps_taken(ends: pd.DataFrame) -> pd.DataFrame:
    """Steps of every arm (row) and network (column), a number a seed, as text; `limit` where the rule did not stop it.

    Args:
        ends: as `training_ends` returns them.
    """
    marks = {"rule": "", "limit": " (limit)", "schedule": " (fixed)"}
    text = ends["steps"].map("{:,}".format) + ends["ended"].map(marks)
    wide = ends.assign(text=text).sort_values("seed", kind="stable").groupby(["arm", "student"], sort=False)["text"]
    table = wide.agg("; ".join).unstack("student").fillna("-")
    order = [arm for arm in dict.fromkeys([*NAMES, *ends["arm"]]) if arm in table.index]
    table = table.loc[order, [name for name in (ALL, *SINGLES) if name in table]].rename(columns={ALL: "all four"})
    return table.rename(index=arm_name).rename_axis("trained").reset_index()


def spent(records: pd.DataFrame, networks: Sequence[int]) -> pd.DataFrame:
    """The records with their arm and the number of networks that each run trained."""
    variant = records["variant"]
    return records.assign(arm=records["method"] + (" " + variant).where(variant != "standard", ""), networks=networks)


def crop_sides(record: pd.Series) -> list[int]:
    """The three sides of a run's training crops, in voxels."""
    crop = record["parameters.crop"]
    return list(crop) if isinstance(crop, list) else [int(crop)] * 3


def training_costs(runs: pd.DataFrame) -> pd.DataFrame:
    """What every arm took: runs, networks, weights, seconds and memory.

    Args:
        runs: as `spent` returns them.
    """
    cost = runs.groupby("arm", sort=False).agg(
        runs=("networks", "size"),
        networks=("networks", "sum"),
        weights=("parameter_count", "max"),
        train=("seconds.train", "sum"),
        evaluate=("seconds.evaluate", "sum"),
        memory=("peak_memory_mib", "max"),
    )
    cost = cost.assign(weights=cost["weights"].map("{:,.0f}".format)).reset_index()
    titles = {"arm": "trained", "weights": "weights of one", "train": "training / s", "evaluate": "evaluation / s"}
    return cost.assign(arm=cost["arm"].map(arm_name)).rename(columns={**titles, "memory": "peak memory / MiB"})


def serving_costs(runs: pd.DataFrame, rival: pd.DataFrame, ends: pd.DataFrame) -> pd.DataFrame:
    """A teacher and a student per modality against one network for all combinations: weights, steps, seconds.

    Seconds and memory are left out where the two were trained on different devices: they say nothing of the networks.

    Args:
        runs: as `spent` returns them.
        rival: the records of the network for all combinations.
        ends: as `training_ends` returns them; steps are means over seeds and, of students, over those that were run.
    """
    steps = ends.groupby("arm")["steps"].mean()
    taught = runs[runs["arm"].eq("protokd")].iloc[0]
    teacher = runs[runs["arm"].eq("teacher")].iloc[0]
    each, weights = taught["seconds.train"] / taught["networks"], f"{rival['parameter_count'].iloc[0]:,.0f}"
    ours = {
        "what": "teacher and one student per modality",
        "networks": 1 + len(MRI),
        "weights": f"{teacher['parameter_count'] + len(MRI) * taught['parameter_count']:,.0f}",
        "weights at test time": f"{taught['parameter_count']:,.0f} of the one that fits",
        "steps": f"{steps['teacher'] + len(MRI) * steps['protokd']:,.0f}",
        "training / s": teacher["seconds.train"] + len(MRI) * each,
        "peak memory / MiB": runs["peak_memory_mib"].max(),
        "serves": "4 combinations",
    }
    most = "at most " if rival.iloc[0].get("parameters.patience") else ""
    theirs = {
        "what": "one ShaSpec",
        "networks": 1,
        "weights": weights,
        "weights at test time": weights,
        "steps": f"{most}{int(rival.iloc[0]['parameters.steps']):,}",
        "training / s": rival["seconds.train"].mean(),
        "peak memory / MiB": rival["peak_memory_mib"].max(),
        "serves": "15 combinations",
    }
    table = pd.DataFrame([ours, theirs])
    devices = {teacher["device"], taught["device"], *rival["device"]}
    return table if len(devices) == 1 else table.drop(columns=["training / s", "peak memory / MiB"])


# --------------------------------------------------------------------------------------------------------- results
def entry(study: Study, arm: str, available: str, target: str, key: str = "mean") -> float:
    """Mean Dice (or `low`, `high`) of an arm, in points; the teacher always has all modalities; NaN if not run."""
    means, place = study.means, (arm, ALL if arm == "teacher" else available, target)
    return float(means.loc[place, key]) if place in means.index else np.nan


def dice_grid(study: Study) -> pd.DataFrame:
    """Mean Dice in the shape of Table 1: arms by (modality, region), in points."""
    means = study.means["mean"]
    columns = [(name, target) for name in study.students for target in TARGETS]
    places = [[(arm, ALL if arm == "teacher" else name, target) for name, target in columns] for arm in study.arms]
    return pd.DataFrame(
        [[means.get(place, np.nan) for place in row] for row in places],
        index=[NAMES[arm] for arm in study.arms],
        columns=pd.MultiIndex.from_tuples([(name, target.upper()) for name, target in columns]),
    )


def best_in_bold(grid: pd.DataFrame) -> pd.DataFrame:
    """Styles of a grid: the best of a column below the teacher is bold."""
    single = grid.drop(index="teacher")
    bold = np.where(single.eq(single.max()), "font-weight: bold", "")
    return pd.DataFrame(bold, single.index, single.columns).reindex(grid.index, fill_value="")


def average_intervals(study: Study) -> pd.DataFrame:
    """Average Dice of every arm and student with its interval, as text."""
    means = study.means

    def cell(arm: str, name: str) -> str:
        if not study.has(arm, name):
            return "-"
        mean, low, high = means.loc[(arm, name, "avg"), ["mean", "low", "high"]]
        return f"{mean:.1f} ({format_interval(low, high)})"

    rows = [arm for arm in study.arms if arm != "teacher"]
    return pd.DataFrame([{"trained": NAMES[arm], **{name: cell(arm, name) for name in study.students}} for arm in rows])


def seed_distances(study: Study) -> pd.Series:
    """How far the seeds of an arm lie apart, largest minus smallest mean: (arm, student) -> points of average Dice."""
    arms = [arm for arm in ("unimodal", "protokd") if study.seeds(arm) > 1]
    pairs = [(arm, name) for arm in arms for name in study.students]
    return pd.Series({pair: np.ptp(study.table(*pair).mean(axis=1)) for pair in pairs}, dtype=float)


def paired_tests(study: Study) -> pd.DataFrame:
    """ProtoKD against every other single-modality arm: effect, interval and p values, Holm over all rows."""
    opponents = [arm for arm in study.arms if arm not in ("teacher", "protokd")]
    asked = [(name, arm) for arm in opponents for name in study.students if study.has(arm, name)]
    pairs, rows = [study.pair("protokd", arm, name) for name, arm in asked], []
    for (name, arm), (first, second), e in zip(asked, pairs, paired_effects(pairs), strict=True):
        rows.append(
            {
                "student": name,
                "ProtoKD minus": NAMES[arm],
                "points": e.effect,
                "95 % interval": format_interval(e.low, e.high, sign="+"),
                "seeds": e.seeds,
                "p, paired t": ttest_rel(first.mean(), second.mean()).pvalue,
                "p, Wilcoxon": signed_rank(first.mean() - second.mean()),
            }
        )
    tests = pd.DataFrame(rows)
    return tests.assign(**{"p, Wilcoxon, Holm": holm(tests["p, Wilcoxon"])})


def gains_and_gaps(study: Study) -> pd.DataFrame:
    """A row per student and region: what ProtoKD gains (`gain`) and how far the teacher leads (`gap`), in points."""
    grid = dice_grid(study)
    rows = [(name, target, grid[name, target.upper()]) for name in study.students for target in REGION_ORDER]
    return pd.DataFrame(
        [
            {
                "student": name,
                "target": target,
                "gain": column["ProtoKD"] - column["no teacher"],
                "gap": column["teacher"] - column["no teacher"],
            }
            for name, target, column in rows
        ]
    )


@styled
def gain_and_gap(points: pd.DataFrame) -> Figure:
    """Gain against the teacher's lead; colour: student, shape: region.

    Args:
        points: as `gains_and_gaps` returns them.
    """
    figure, axes = new_figure(5.6, 3.6)
    axis = axes[0, 0]
    axis.axhline(0, color="#444444", linewidth=0.8)
    plain = {"linestyle": "none"}
    for row in points.itertuples():
        axis.plot(row.gap, row.gain, marker=MARKERS[row.target], color=COLOURS[row.student], markersize=7, **plain)
    for name in points["student"].unique():
        axis.plot([], [], marker="o", color=COLOURS[name], label=name, **plain)
    for target, marker in MARKERS.items():
        axis.plot([], [], marker=marker, color="#444444", label=target.upper(), **plain)
    axis.set(xlabel="teacher minus network without a teacher, Dice points", ylabel="gain of ProtoKD, Dice points")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def region_gains(study: Study) -> dict[str, Effect]:
    """Gain of ProtoKD per region, mean over students, in points."""
    effects = {}
    for target in REGION_ORDER:
        pairs = [study.pair("protokd", "unimodal", name, target) for name in study.students]
        first, second = (sum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1))
        effects[target] = paired_effects([(first, second)])[0]
    return effects


# ------------------------------------------------------------------------------------------------------------ maps
@styled
def variation_maps(maps: Mapping[str, np.ndarray], truth: np.ndarray, brain: np.ndarray) -> Figure:
    """Maps of feature variation: a row per network, a column per class, with the true regions in white.

    Args:
        maps: title -> (classes, row, column), cosines; the first is the teacher's.
        truth: (regions, row, column), bool.
        brain: (row, column), bool; outside it nothing is shown.
    """
    figure, axes = new_figure(9, 5.6, len(maps), len(CLASSES))
    for place, (line, (title, planes)) in enumerate(zip(axes, maps.items(), strict=True)):
        for axis, name, values in zip(line, CLASSES, planes, strict=True):
            shown = axis.imshow(np.where(brain, values, np.nan), cmap="cividis", vmin=0, vmax=1)
            for mask in truth:
                axis.contour(mask, [0.5], colors="white", linewidths=0.6)
            axis.set(xticks=[], yticks=[], title="" if place else name)
            axis.grid(False)
        line[0].set_ylabel(title)
    figure.colorbar(shown, ax=axes, shrink=0.6, label="cosine with the prototype")
    return figure


def map_distances(study: Study) -> pd.DataFrame:
    """Distance of each student's map from the teacher's, without and with distillation, and its link to Dice."""
    distances, rows = study.metric("i2fv-distance"), []
    for name in study.students:
        own = {arm: select(distances, arm=arm, available=name, target="all") for arm in ("unimodal", "protokd")}
        without, taught = shared_seeds(own["unimodal"], own["protokd"])
        (e,) = paired_effects([(without, taught)])
        nearer = without.mean() - taught.mean()
        first, second = study.pair("protokd", "unimodal", name)
        link = spearmanr(nearer, (first.mean() - second.mean())[nearer.index])
        rows.append(
            {
                "student": name,
                "no teacher": without.to_numpy().mean(),
                "ProtoKD": taught.to_numpy().mean(),
                "nearer by": format_effect(e, 4),
                "rho with the gain in Dice": f"{link.statistic:+.2f} (p {link.pvalue:.2g})",
            }
        )
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ rims and borders
def rim_volumes(study: Study) -> pd.DataFrame:
    """Where each arm marks enhancing tumour: mean volumes in ml per student, and the share that lies on the rim."""
    placed = study.metric(*WHERE).pivot_table(
        index=["arm", "available", "seed", "case"], columns="metric", values="value"
    )
    rim_true = placed["et-found"] + placed["et-missed"]
    marked = placed[["et-found", "et-core", "et-elsewhere"]].sum(axis=1)
    arms, rows = set(placed.index.get_level_values("arm")), []
    for arm, name in [(arm, name) for arm in NAMES if arm in arms for name in study.students]:
        if (arm, name) not in placed.index.droplevel([2, 3]):
            continue
        own, empty = placed.loc[(arm, name)], rim_true.loc[(arm, name)] == 0
        inside = own["et-found"].sum() + own["et-core"].sum()
        rows.append(
            {
                "student": name,
                "trained": NAMES[arm],
                "ET Dice, %": entry(study, arm, name, "et"),
                **{text: own[metric].mean() for metric, text in WHERE.items()},
                ON_RIM: 100 * own["et-found"].sum() / inside if inside else np.nan,
                "marked where nothing enhances": marked.loc[(arm, name)][empty].mean() if empty.any() else np.nan,
            }
        )
    return pd.DataFrame(rows)


def border_distances(study: Study) -> pd.DataFrame:
    """HD95 of whole tumour and core in mm, ProtoKD minus no teacher, over the cases that have a distance."""
    edges = study.metric("hd95").dropna(subset="value")
    arms, rows = ["protokd", "unimodal"], []
    for name, target in [(name, target) for name in study.students for target in ("wt", "tc")]:
        own = edges[edges["available"].eq(name) & edges["target"].eq(target) & edges["arm"].isin(arms)]
        per_case = own.groupby(["arm", "case"])["value"].mean().unstack("arm").dropna()
        if len(per_case) < 2 or set(per_case) != set(arms):
            continue
        first, second = (per_case[arm].to_frame().T for arm in arms)
        (e,) = paired_effects([(first, second)])
        rows.append(
            {
                "student": name,
                "region": target.upper(),
                "no teacher, mm": per_case["unimodal"].mean(),
                "ProtoKD, mm": per_case["protokd"].mean(),
                "difference, mm": format_effect(e),
                "cases": len(per_case),
            }
        )
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------------- ablations
def term_effects(study: Study) -> tuple[list[str], list[Effect]]:
    """Each term alone and both over none, and their interaction: names of the rows and effects, in points."""
    pairs, names = [], []
    for name in study.have(TERMS.values()):
        pairs += [study.pair(arm, "unimodal", name) for arm in TERMS.values()]
        four = [study.table(arm, name) for arm in ("protokd", "unimodal", "protokd pixel", "protokd prototype")]
        seeds = sorted(set.intersection(*(set(one.index) for one in four)))
        both, none, pixel, prototype = (one.loc[seeds] for one in four)
        pairs.append((both + none, pixel + prototype))
        names += [*(f"{name}: {title} over none" for title in TERMS), f"{name}: interaction"]
    return names, paired_effects(pairs) if pairs else []


def rate_effects(study: Study) -> tuple[list[str], list[Effect]]:
    """What teacher and learning rate are worth: names of the rows and effects, in points."""
    students = study.have(["protokd constant", "unimodal constant"])
    keys = [(name, title, arms) for name in students for title, arms in RATES.items()]
    pairs = [study.pair(*arms, name) for name, _, arms in keys]
    return [f"{name}: {title}" for name, title, _ in keys], paired_effects(pairs) if pairs else []


def temperatures(study: Study) -> pd.DataFrame:
    """Dice at every temperature that was run, mean of the seeds that all of them have; empty if only one was run."""
    arms = [arm for arm in study.scores["arm"].unique() if arm.startswith("protokd temperature")]
    chosen = {"protokd": protokd.VARIANTS["standard"]}
    chosen |= {arm: protokd.VARIANTS[arm.removeprefix("protokd ")] for arm in arms}
    order = sorted(chosen.items(), key=lambda one: (one[1].squared, one[1].temperature))
    rows = []
    for name in study.have(chosen) if arms else []:
        seeds = sorted(set.intersection(*(set(study.table(arm, name).index) for arm in chosen)))
        for arm, variant in order if seeds else []:
            dice = [study.table(arm, name, target).loc[seeds].to_numpy().mean() for target in REGION_ORDER]
            rows.append(
                {
                    "student": name,
                    "temperature": variant.temperature,
                    "times T squared": "yes" if variant.squared else "no",
                    "WT / TC / ET": " / ".join(f"{value:.1f}" for value in dice),
                    "average, %": np.mean(dice),
                    "seeds": len(seeds),
                    "minus T = 10": "" if arm == "protokd" else format_effect(study.gain(arm, "protokd", name)),
                }
            )
    return pd.DataFrame(rows)


def worse_teachers(study: Study, ends: pd.DataFrame) -> pd.DataFrame:
    """Steps and Dice of every teacher that was run, and what its students gain over no teacher, in points.

    Args:
        ends: as `training_ends` returns them.
    """
    run = set(study.scores["arm"])
    arms = {title: f"protokd {variant}".strip() for title, variant in GUIDES.items()}
    arms = {title: arm for title, arm in arms.items() if arm in run}
    students, rows = study.have(arms.values()), []
    for title, arm in arms.items():
        teacher = "teacher" if title == "whole" else f"teacher {title}"
        took = ends.loc[ends["arm"].eq(teacher), "steps"].mean()
        own = study.table(teacher, ALL).to_numpy().mean()
        row = {"teacher": title, "its steps": f"{took:,.0f}", "its own Dice, average, %": own}
        for name in students:
            e = study.gain(arm, "unimodal", name)
            row[f"student of {name}, over no teacher"] = f"{format_effect(e)}, {counted(e.seeds, 'seed')}"
        rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------------ benchmarks
def step_seconds(width: int, side: int, size: int, bfloat16: bool, repeats: int) -> pd.Series:
    """Median seconds of a plain step (`plain`), the teacher's inference (`teacher`) and a taught step (`taught`).

    Args:
        width: of the networks. side: of a crop, in voxels. size: crops in a batch.
        repeats: of each timing, in turns, after two that do not count.
    """
    torch.manual_seed(0)
    shape = (side, side, side)
    batch = {
        "images": torch.randn(size, len(MRI), *shape),
        "available": torch.ones(size, len(MRI), dtype=torch.bool),
        "regions": torch.rand(size, 1, *shape).lt(0.1).repeat(1, 3, 1, 1, 1),
    }
    student, teacher = CombinationVNet(MRI, ("t1",), width), CombinationVNet(MRI, MRI, width)
    losses: dict[str, Callable] = {
        "plain": distillation_loss(distillation.teaching("unimodal", "standard")),
        "taught": distillation_loss(protokd.teaching("protokd", "standard"), teacher),
    }

    def seconds(kind: str) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            if kind == "teacher":
                with torch.no_grad():
                    teacher(batch["images"], batch["available"])
            else:
                total, _ = losses[kind](student, batch)
        if kind != "teacher":
            total.backward()
        return time.perf_counter() - start

    rounds = [{kind: seconds(kind) for kind in ("plain", "teacher", "taught")} for _ in range(repeats + 2)]
    return pd.DataFrame(rounds).iloc[2:].median()


MAP_PROGRAM = """
import resource, sys, time, torch
from mmlib.methods.protokd import i2fv, prototypes
torch.set_num_threads(1)
torch.manual_seed(0)
grid = [int(side) for side in sys.argv[1].split("x")]
features, labels = torch.rand(1, 16, *grid), torch.randint(0, 4, (1, *grid))
def expanded():
    centres = prototypes(features, labels, 4)[..., None, None, None]
    repeated = features[:, None].expand(-1, 4, -1, -1, -1, -1).contiguous()
    return torch.cosine_similarity(repeated, centres, dim=2, eps=1e-5)
make = expanded if sys.argv[2] == "expanded" else lambda: i2fv(features, labels, 4)
began = time.perf_counter()
made = make()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(time.perf_counter() - began, peak, float(made.mean()))
"""


def map_costs(grid: str) -> pd.DataFrame:
    """The map of 4 classes and 16 channels as a matrix product and by an expanded tensor, each in its own process.

    Args:
        grid: `96x128x128`, voxels.

    Returns:
        Rows `product` and `expanded`; columns seconds, MiB (peak, libraries and input included), mean (of the map).
    """
    rows = {}
    for kind in ("product", "expanded"):
        command = [sys.executable, "-c", MAP_PROGRAM, grid, kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[kind] = [float(word) for word in done.stdout.split()]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["seconds", "MiB", "mean"])
