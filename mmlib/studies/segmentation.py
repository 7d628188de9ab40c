"""ShaSpec and its rivals on every combination of modalities: data, training, scores and predictions of their chapter.

An arm is a way to train (`shaspec paper`, `dropout-unet` and so on, see `ARMS`). Scores are Dice in percent, effects
are in points; scores are laid out as tables (seeds, cases), so that every comparison is paired by case and by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import Effect, cell_means, paired_effects
from mmlib.analysis.wording import counted, format_interval, listed, seeds_in_words, select
from mmlib.data.cases import REGIONS, Case, regions
from mmlib.figures.overlays import Overlay
from mmlib.figures.results import arm_of, arm_style
from mmlib.figures.style import METHOD, REGION_NAME, new_figure, styled
from mmlib.modalities import MRI, combinations, draw, label
from mmlib.tasks.segmentation import Segmenter, predict
from mmlib.tasks.segmentation import dice as dice_of

COMBINATIONS = tuple(label(names, MRI) for names in combinations(MRI))
ALL = label(MRI, MRI)
WITHOUT_T1CE = tuple(name for name in MRI if name != "t1ce")
ME = "shaspec paper"
RIVALS = ("dropout-unet", "u-hemis")  # other networks for any combination
ARMS = (ME, "shaspec released", *RIVALS, "zero-fill", "dedicated")


def arm_name(arm: str) -> str:
    """The printed name of an arm."""
    return arm_style(arm)[2]


# ------------------------------------------------------------------------------------------------------------ scores
@dataclass(frozen=True)
class Study:
    """The runs of the experiment, on the test cases that have all modalities.

    Attributes:
        results: records and scores, as `mmlib.analysis.results.read_runs` returns them.
        scores: Dice in percent, one row per value, with the columns `arm` and `size` (number of modalities).
    """

    results: Results
    scores: pd.DataFrame

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row per run, with its arm."""
        return self.results.records.assign(arm=arm_of(self.results.records))

    @cached_property
    def arms(self) -> list[str]:
        """The arms that have scores: those of `ARMS` first, then others that have a style."""
        there = set(self.scores["arm"])
        return [arm for arm in dict.fromkeys([*ARMS, *METHOD]) if arm in there]

    @cached_property
    def whole(self) -> list[str]:
        """The arms that are scored with all fifteen combinations."""
        counts = self.scores.groupby("arm")["available"].nunique()
        return [arm for arm in self.arms if counts[arm] == len(COMBINATIONS)]

    @property
    def rivals(self) -> list[str]:
        """The other networks for any combination that are scored with all fifteen."""
        return [arm for arm in RIVALS if arm in self.whole]

    @property
    def tested(self) -> list[str]:
        """Names of the test cases."""
        return sorted(self.scores["case"].unique())

    @property
    def stand_in(self) -> bool:
        """Whether all runs are on the phantom."""
        return bool(self.results.records["stand_in"].all())

    @property
    def sample(self) -> str:
        """For captions: `n = 16 test cases, 1 to 2 seeds, phantom`."""
        seeds = self.scores[self.scores["arm"].isin(self.arms)].groupby("arm")["seed"].nunique()
        data = "phantom" if self.stand_in else "your own cases"
        return f"n = {len(self.tested)} test cases, {seeds_in_words(seeds)}, {data}"

    def record(self, run: str) -> pd.Series:
        """What is recorded of a run."""
        return self.records.set_index("run").loc[run]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Mean Dice of every arm, combination and region, as `mmlib.analysis.statistics.cell_means` returns it."""
        return cell_means(self.scores[self.scores["arm"].isin(self.arms)])

    def dice(self, arm: str) -> pd.DataFrame:
        """Mean Dice of an arm; rows: combinations, columns: regions."""
        means = self.cells[self.cells["arm"].eq(arm)].pivot(index="available", columns="target", values="mean")
        return means.reindex(index=[name for name in COMBINATIONS if name in means.index], columns=list(REGIONS))

    @cached_property
    def middle(self) -> pd.DataFrame:
        """As `cells`, of the mean over the fifteen combinations."""
        return cell_means(_averaged(self.scores[self.scores["arm"].isin(self.whole)], "mean of 15"))

    @cached_property
    def by_size(self) -> pd.DataFrame:
        """As `cells`, of the mean over combinations of one size, which stands in the column `available`."""
        parts = self.scores[self.scores["arm"].isin(self.whole)].groupby("size")
        return cell_means(pd.concat([_averaged(part, size) for size, part in parts]))

    def gains(self, first: str, second: str, **conditions: Sequence[Any]) -> list[Effect]:
        """Effects of one arm over another in points, over the seeds that both have.

        Args:
            conditions: a column and its values, an effect for each; none: one effect, over everything.
        """
        seeds = [set(self.scores.loc[self.scores["arm"].eq(arm), "seed"]) for arm in (first, second)]
        shared = self.scores[self.scores["seed"].isin(seeds[0] & seeds[1])]
        wanted = [{name: value} for name, values in conditions.items() for value in values] or [{}]
        return paired_effects([(select(shared, arm=first, **one), select(shared, arm=second, **one)) for one in wanted])

    def gain(self, first: str, second: str, **condition: Any) -> Effect:
        """One effect of `gains`; a condition is a column and its value, or a list of values."""
        (effect,) = self.gains(first, second, **{name: [value] for name, value in condition.items()})
        return effect


def _averaged(rows: pd.DataFrame, name: Any) -> pd.DataFrame:
    """One value per arm, target, seed and case: the mean over combinations, named as a combination of its own."""
    keys = ["arm", "target", "seed", "case"]
    return rows.groupby(keys, sort=False)["value"].mean().reset_index().assign(available=name)


def read_study(results: Results) -> Study:
    """The runs of the experiment, without the cases that cannot be scored in every combination.

    A case that lacks a modality is left out, so that all means are over the same cases.
    """
    dice = results.scores[results.scores["metric"].eq("dice")]
    combinations_of = dice.groupby("case")["available"].nunique()
    tested = combinations_of.index[combinations_of == combinations_of.max()]
    kept = results.scores[results.scores["case"].isin([*tested, "all"])]
    dice = dice[dice["case"].isin(tested)]
    size = dice["available"].str.count(r"\+") + 1
    return Study(Results(results.records, kept), dice.assign(value=100 * dice["value"], arm=arm_of(dice), size=size))


# ------------------------------------------------------------------------------------------------------ paper and data
def printed_means(published: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice over the combinations of the paper's Table 1, %; rows: methods, columns: regions."""
    methods = list(dict.fromkeys(published["method"]))
    means = published.pivot_table(index="method", columns="target", values="dice_percent")
    return means.loc[methods, list(REGIONS)].rename(columns=str.upper)


def printed_gains(means: pd.DataFrame) -> str:
    """What ShaSpec gains over the best other network of `printed_means`, as a text."""
    others = means[~means.index.str.startswith("ShaSpec")]
    gains = means.loc["ShaSpec"] - others.max()
    best = others.idxmax()
    return listed(f"{gain:+.2f} ({target}, over {best[target]})" for target, gain in gains.items())


def example_case(cases: Any, names: Iterable[str]) -> str:
    """The first of ten cases with an enhancing tumour that can be seen and does not fill the core; else the first.

    Args:
        cases: name -> `mmlib.data.cases.Case`.
    """
    names = list(names)
    for name in names[:10]:
        _, core, rim = true_regions(cases[name]).sum(axis=(1, 2, 3))
        if 30 < rim < 0.7 * core:
            return name
    return names[0]


def sampler_users(study: Study) -> dict[str, list[str]]:
    """Sampler of combinations -> printed names of the arms that train with it."""
    users = study.records.groupby("availability_sampler", sort=False)["arm"].agg(set)
    return {sampler: [arm_name(arm) for arm in study.arms if arm in who] for sampler, who in users.items()}


def examples_of(record: pd.Series) -> int:
    """How many training examples a run draws."""
    return int(record["parameters.steps"] * record["parameters.batch_size"])


def combinations_met(samplers: Iterable[str], count: int) -> pd.DataFrame:
    """Share of training examples by what is available, %; rows: combinations, columns: samplers.

    Args:
        count: of draws, of cases that have all modalities.
    """
    shares = {}
    for sampler in dict.fromkeys(samplers):
        every = torch.ones(count, len(MRI), dtype=torch.bool)
        rows = draw(sampler, every, torch.Generator().manual_seed(0)).tolist()
        names = [label([name for name, has in zip(MRI, row, strict=True) if has], MRI) for row in rows]
        shares[sampler] = pd.Series(names).value_counts(normalize=True)
    return 100 * pd.DataFrame(shares).reindex(COMBINATIONS).fillna(0).rename_axis("available")


@styled
def sampler_bars(met: pd.DataFrame) -> Figure:
    """`combinations_met` as bars, a panel per sampler."""
    figure, axes = new_figure(7.5, 3.4, 1, met.shape[1], sharex=True, sharey=True)
    for axis, (sampler, shares) in zip(axes[0], met.items(), strict=True):
        axis.barh(range(len(shares)), shares, color="#0072B2")
        axis.set(title=sampler, xlabel="share of training examples, %", ylim=(len(shares) - 0.5, -0.5))
    axes[0, 0].set_yticks(range(len(met)), met.index)
    return figure


def complete_cases(record: pd.Series) -> tuple[int, int]:
    """Number of training cases of a run, and of those that it met with all modalities."""
    exposure = record["exposure"]["fit"]
    return len(exposure), sum(len(has) == len(MRI) for has in exposure.values())


# ----------------------------------------------------------------------------------------------------------- training
def losses(study: Study) -> dict[str, pd.Series]:
    """Run -> its training loss, indexed by the step; of a published run about every tenth step is kept."""
    rows = study.records[study.records["arm"].isin(study.arms)]
    histories = {row.run: study.results.history(row.run, row.experiment) for row in rows.itertuples()}
    return {run: history.set_index("step")["loss"] for run, history in histories.items()}


def count_on(steps: np.ndarray) -> np.ndarray:
    """Steps of a history, of which each stage counts from 0, counted on over its stages."""
    steps = np.array(steps)
    for place in np.flatnonzero(steps[1:] <= steps[:-1]) + 1:
        steps[place:] += steps[place - 1] + 1 - steps[place]
    return steps


def fall(curves: Mapping[str, pd.Series]) -> str:
    """By how much losses fall from the first to the last tenth of the steps, as a text from least to most."""
    shares = []
    for loss in curves.values():
        tenth = max(1, len(loss) // 10)
        shares.append(1 - loss.tail(tenth).mean() / loss.head(tenth).mean())
    return f"{min(shares):.0%} to {max(shares):.0%}"


def stops(study: Study) -> str:
    """How many steps each arm took, and which runs took the most that were allowed, as a text."""
    taken = pd.Series({run: count_on(loss.index)[-1] + 1 for run, loss in losses(study).items()}, name="taken")
    rows = study.records[study.records["arm"].isin(study.arms)].join(taken, on="run")
    most = rows["parameters.steps"].astype(int)
    each = [
        f"{arm_name(arm)} {listed(f'{steps:,}' for steps in part['taken'])}"
        for arm, part in rows.groupby("arm", sort=False)
    ]
    return f"{'; '.join(each)}. {(rows['taken'] >= most).sum()} of {len(rows)} runs took all {most.max():,} steps"


def cost_table(study: Study) -> pd.DataFrame:
    """Runs, weights, steps taken, seconds and memory of every arm."""
    rows = study.records[study.records["arm"].isin(study.arms)]
    taken = {run: count_on(loss.index)[-1] + 1 for run, loss in losses(study).items()}
    rows = rows.assign(steps=rows["run"].map(taken)).groupby("arm", sort=False)
    cost = rows.agg(
        runs=("run", "size"),
        steps=("steps", "mean"),
        parameters=("parameter_count", "mean"),
        train=("seconds.train", "mean"),
        evaluate=("seconds.evaluate", "mean"),
        memory=("peak_memory_mib", "max"),
    )
    cost = cost.reindex(study.arms).rename(index=arm_name).rename_axis(None)
    cost["parameters"] = cost["parameters"].map("{:,.0f}".format)
    return cost.rename(columns={"train": "training / s", "evaluate": "evaluation / s", "memory": "peak memory / MiB"})


def setting(record: pd.Series) -> str:
    """Steps, crops, device, threads and precision of a run, as a text."""
    steps, batch = int(record["parameters.steps"]), int(record["parameters.batch_size"])
    threads = counted(int(record["threads"]), "thread")
    most = "at most " if record.get("parameters.patience", 0) else ""
    return f"{most}{steps} steps of {batch} crops, {record['device']}, {threads}, {record['precision']}"


# ------------------------------------------------------------------------------------------------------------- scores
def _text(row: pd.Series) -> str:
    return f"{row['mean']:.1f} ({format_interval(row['low'], row['high'])})"


def middle_table(study: Study) -> pd.DataFrame:
    """Mean Dice over the fifteen combinations with its interval, texts; rows: arms, columns: regions."""
    rows = study.middle.assign(text=study.middle.apply(_text, axis=1))
    table = rows.pivot(index="arm", columns="target", values="text").reindex(index=study.whole, columns=list(REGIONS))
    return table.rename(index=arm_name, columns=str.upper).rename_axis(index=None)


def middle_text(study: Study, arm: str = ME) -> str:
    """Mean Dice of an arm over the fifteen combinations, WT/TC/ET, as a text."""
    means = study.middle[study.middle["arm"].eq(arm)].set_index("target")["mean"]
    return "/".join(f"{means[target]:.0f}" for target in REGIONS)


def middle_texts(study: Study) -> str:
    """Mean Dice over the fifteen combinations of every arm, WT/TC/ET, for an alternative text."""
    return "; ".join(f"{arm_name(arm)} {middle_text(study, arm)}" for arm in study.whole)


def region_table(study: Study, target: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Dice of every combination with its interval, for one region; and where it is highest.

    Returns:
        Rows: combinations, columns: arms. Texts, and the style of each cell: bold where the mean is highest.
    """
    part = study.cells[study.cells["target"].eq(target)]
    part = part.assign(text=part.apply(_text, axis=1))
    tables = [part.pivot(index="available", columns="arm", values=name) for name in ("text", "mean")]
    texts, means = (table.reindex(index=COMBINATIONS, columns=study.arms) for table in tables)
    texts = texts.rename(columns=arm_name)
    best = means.eq(means.max(axis=1), axis=0)
    return texts, pd.DataFrame(np.where(best, "font-weight: bold", ""), texts.index, texts.columns)


def highest_counts(study: Study) -> str:
    """In how many cells (combination and region) each arm has the highest mean, as a text."""
    best = study.cells.loc[study.cells.groupby(["available", "target"])["mean"].idxmax(), "arm"].value_counts()
    return listed(f"{arm_name(arm)} in {best[arm]}" for arm in study.arms if arm in best)


@styled
def against_count(study: Study) -> Figure:
    """Dice against the number of available modalities, a panel per region, a line per arm."""
    figure, axes = new_figure(8.5, 3.2, 1, len(REGIONS), sharey=True)
    for axis, target in zip(axes[0], REGIONS, strict=True):
        for place, arm in enumerate(study.whole):
            colour, marker, name = arm_style(arm)
            part = study.by_size[study.by_size["arm"].eq(arm) & study.by_size["target"].eq(target)]
            part = part.sort_values("available")
            x = part["available"] + 0.08 * (place - (len(study.whole) - 1) / 2)
            axis.vlines(x, part["low"], part["high"], color=colour, linewidth=1)
            axis.plot(x, part["mean"], color=colour, marker=marker, markersize=4, label=name)
        title = f"{target.upper()}, {REGION_NAME[target]}"
        axis.set(title=title, xlabel="modalities available", xticks=range(1, len(MRI) + 1), ylim=(0, 100))
    axes[0, 0].set_ylabel("Dice, %")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(5, len(study.whole)))
    return figure


def one_and_four(study: Study) -> str:
    """ET with one modality and with four, of every arm, for an alternative text."""
    means = study.by_size.set_index(["arm", "target", "available"])["mean"]
    return "; ".join(
        f"{arm_name(arm)}, ET: {means[arm, 'et', 1]:.0f} with one, {means[arm, 'et', 4]:.0f} with four"
        for arm in study.whole
    )


def distance_table(study: Study) -> pd.DataFrame:
    """HD95, mm: mean of the defined values and share undefined, by arm; columns: region and number of modalities."""
    far = study.results.scores[study.results.scores["metric"].eq("hd95")]
    far = far.assign(arm=arm_of(far), size=far["available"].str.count(r"\+") + 1)
    groups = far[far["arm"].isin(study.whole)].groupby(["arm", "size", "target"], sort=False)["value"]
    texts = groups.agg(lambda values: f"{values.mean():.1f} ({values.isna().mean():.0%})").unstack(["target", "size"])
    columns = pd.MultiIndex.from_product([REGIONS, range(1, len(MRI) + 1)], names=["region", "modalities"])
    table = texts.reindex(index=study.whole, columns=columns).rename_axis(index=None).rename(index=arm_name)
    return table.rename(columns=lambda name: name.upper() if isinstance(name, str) else name)


def cost_of_missing(means: pd.DataFrame, modalities: Sequence[str] = MRI) -> pd.DataFrame:
    """Points of Dice lost when one modality is missing and all others are there.

    Args:
        means: Dice in percent; rows: combinations, such as `t1+t1ce+t2+flair`, columns: regions.

    Returns:
        Rows: the missing modality, columns: regions.

    Raises:
        KeyError: if the complete combination, or one that lacks a single modality, is not in the index.
    """
    complete = means.loc[label(modalities, modalities)]
    lost = {
        gone: complete - means.loc[label([name for name in modalities if name != gone], modalities)]
        for gone in modalities
    }
    return pd.DataFrame(lost).T.rename_axis("missing")


def hardest_to_miss(lost: pd.DataFrame) -> str:
    """The modality that costs most, by region, as a text; of `cost_of_missing`."""
    return listed(f"{name.upper()} {part.idxmax()} ({part.max():.1f} points)" for name, part in lost.items())


# --------------------------------------------------------------------------------------------------------- predictions
def enhancing_cases(study: Study, run: str, cases: Any) -> list[str]:
    """Test cases with enhancing tumour, by mean Dice of a run with all modalities, best first; all if there are none.

    Args:
        cases: name -> `mmlib.data.cases.Case`.
    """
    rows = study.scores[study.scores["run"].eq(run) & study.scores["available"].eq(ALL)]
    ranked = list(rows.groupby("case")["value"].mean().sort_values(ascending=False).index)
    marked = [name for name in ranked if true_regions(cases[name])[2].any()]
    return marked or ranked


def true_regions(case: Case) -> np.ndarray:
    """WT, TC and ET of a case, (3, X, Y, Z) bool.

    Raises:
        ValueError: if it has no labels.
    """
    if case.labels is None:
        raise ValueError(f"case {case.name} has no labels, so there is no truth to compare with")
    return regions(case.labels, case.enhancing_label)


def half_resolution_dice(cases: Any, names: Iterable[str], target: str = "et") -> float:
    """Mean Dice, %, of the truth copied at half the resolution: 2x2x2 blocks that are at least half full.

    Args:
        cases: name -> `mmlib.data.cases.Case`.
    """
    place, values = REGIONS.index(target), []
    for name in names:
        truth = torch.from_numpy(true_regions(cases[name])[place])[None]  # 1 X Y Z
        padded = torch.nn.functional.pad(truth.float(), [n for side in truth.shape[:0:-1] for n in (0, side % 2)])
        coarse = torch.nn.functional.avg_pool3d(padded[None], 2)[0] >= 0.5  # 1 x y z
        copied = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
        values.append(dice_of(copied[None, :, : truth.shape[1], : truth.shape[2], : truth.shape[3]], truth).item())
    return 100 * float(np.mean(values))


def dice_percent(case: Case, predicted: np.ndarray) -> list[float]:
    """Dice of WT, TC and ET, %.

    Args:
        predicted: (3, X, Y, Z) bool, on the grid of the case.
    """
    truth = torch.from_numpy(true_regions(case))
    return (100 * dice_of(torch.from_numpy(predicted)[None], truth)[0]).tolist()


def overlay(model: Segmenter, case: Case, kind: str, given: Sequence[str] = MRI) -> Overlay:
    """What a network makes of the given modalities of a case, with its Dice in the title."""
    predicted = predict(model, case, given)
    wt, tc, et = (round(value) for value in dice_percent(case, predicted))
    return Overlay(case, tuple(given), predicted, f"{kind}, {case.name}: Dice WT {wt}, TC {tc}, ET {et}")


def examples(model: Segmenter, cases: Any, ranked: Sequence[str]) -> list[Overlay]:
    """The best, the median and the worst case with all modalities, and the median one without t1ce.

    Args:
        cases: name -> `mmlib.data.cases.Case`.
        ranked: names, best first; as `enhancing_cases` returns them.
    """
    median = ranked[len(ranked) // 2]
    chosen = {"best": ranked[0], "median": median, "worst": ranked[-1]}
    rows = [overlay(model, cases[name], kind) for kind, name in chosen.items()]
    return [*rows, overlay(model, cases[median], "median, without t1ce", WITHOUT_T1CE)]
