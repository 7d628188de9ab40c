"""The losses of ShaSpec, their kinds and weights, and what features hold because of them: tables and figures.

An arm is a variant of ShaSpec (`l1-0.1`, `alpha-1-beta-1`, `only-t1`, see `mmlib.methods.shaspec.variant_of`) or the
U-Net fed zeros. Scores are Dice and accuracies in percent, effects are in points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmlib.analysis.results import Results, read_arrays
from mmlib.analysis.statistics import (
    Effect,
    cell_means,
    order_agreement,
    rank_distribution,
    shared_effect,
)
from mmlib.analysis.wording import counted, format_effect, listed, outcome, select
from mmlib.data.cases import REGIONS
from mmlib.data.splits import read_split
from mmlib.figures.style import BLUE, GREEN, GREY, PURPLE, VERMILLION, new_figure, styled
from mmlib.ledgers.claims import effect_rows
from mmlib.methods import shaspec
from mmlib.methods.shaspec.losses import KINDS
from mmlib.methods.shaspec.segmentation import ONLY
from mmlib.modalities import MRI, combinations

SEGMENTATION = "studies"  # many short trainings of one small network
LARGER = "segmentation"  # the network of chapter 01
ALIGNMENT, GRID, DIGITS = "avmnist-alignment", "avmnist-grid", "avmnist"
EXPERIMENTS = (SEGMENTATION, LARGER, DIGITS, ALIGNMENT, GRID)
LARGER_RUN = "shaspec-paper-s0"  # the run of `LARGER` whose features are drawn

PAPER, PAPER_WEIGHTS = "l1-0.1", (0.1, 0.02)  # the paper's losses and weights (alpha, beta)
NEITHER = "alpha-0-beta-0"
STRONG = "alpha-1-beta-1"
CHANGED = {  # arm -> what sets it apart
    "alpha-0": "no alignment loss",
    "beta-0": "no modality classifier",
    NEITHER: "neither",
    STRONG: "both strong",
}
NAMES = {"l1": "L1", "mse": "MSE", "kl": "KL", "ce": "CE"}  # kind of alignment loss -> as printed
TEXT_ORDER = ("l1", "kl", "mse", "ce")  # best first, as the paper's text has it
STYLE = dict(zip(KINDS, [(BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D")], strict=True))
COMBINATIONS = len(combinations(MRI))
PANELS = {f"mean of {COMBINATIONS}": {}, "t1 alone": {"available": "t1"}}  # heading -> which scores
MEASURES = {"probe": 0, "silhouette": 2, "silhouette-p": 3, "retrieval": 1}  # of features -> printed decimals
SIDES = ("shared", "specific")
SESOI = 1.0  # Dice points, as in the claims ledger
GAINS = ("gains", "costs", "makes no clear difference")


def variant_name(arm: str) -> str:
    """An arm as tables print it."""
    if arm == "zero-fill":
        return "U-Net fed zeros"
    if arm.startswith(ONLY):
        return f"dedicated to {arm.removeprefix(ONLY)}"
    chosen = shaspec.variant_of(arm)
    return f"{'' if chosen.kind == 'l1' else NAMES[chosen.kind] + ', '}α = {chosen.alpha:g}, β = {chosen.beta:g}"


def weights_of(arm: str) -> tuple[float, float] | None:
    """The weights (alpha, beta) of an arm that has the L1 loss and is trained for all combinations; else None."""
    if arm == "zero-fill" or arm.startswith(ONLY) or shaspec.variant_of(arm).kind != "l1":
        return None
    return shaspec.variant_of(arm).alpha, shaspec.variant_of(arm).beta


def _by_kind(arms: Iterable[str]) -> dict[str, list[str]]:
    """Kind of alignment loss -> its arms, from the least weight to the largest; without kinds that were not run."""
    kinds = {kind: [arm for arm in arms if arm.rpartition("-")[0] == kind] for kind in KINDS}
    return {
        kind: sorted(found, key=lambda arm: shaspec.variant_of(arm).alpha) for kind, found in kinds.items() if found
    }


# ------------------------------------------------------------------------------------------------------------ scores
@dataclass(frozen=True)
class Study:
    """The runs of the five experiments, on test cases that can be scored in every combination.

    Attributes:
        results: records and scores, as `mmlib.analysis.results.read_runs` returns them.
        test, valid: Dice in percent of test and of validation cases, one row per value, with the column `arm`.
        digits: scores of ShaSpec on digits in percent, with the columns `arm` and `rate` (of audio, percent).
        features: mean of every measure of features; index: experiment and arm.
    """

    results: Results
    test: pd.DataFrame
    valid: pd.DataFrame
    digits: pd.DataFrame
    features: pd.DataFrame

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row per run of the small network, with its arm."""
        rows = self.results.records[self.results.records["experiment"].eq(SEGMENTATION)]
        return rows.assign(arm=_arm_of(rows))

    @cached_property
    def arms(self) -> list[str]:
        """The arms of the small network."""
        return list(dict.fromkeys(self.test["arm"]))

    @cached_property
    def kinds(self) -> dict[str, list[str]]:
        """Kind of alignment loss -> its arms, from the least weight to the largest."""
        return _by_kind(self.arms)

    @cached_property
    def chosen(self) -> dict[str, str]:
        """Kind of alignment loss -> the arm with the highest mean Dice of validation cases."""
        means = self.valid.groupby("arm")["value"].mean()
        return {kind: max(arms, key=lambda arm: means.get(arm, -1)) for kind, arms in self.kinds.items()}

    @cached_property
    def compared(self) -> dict[str, str]:
        """Printed name -> arm: each alignment loss at its chosen weight, and none."""
        none = {"none": "alpha-0"} if "alpha-0" in self.arms else {}
        return {NAMES[kind]: arm for kind, arm in self.chosen.items()} | none

    @cached_property
    def grid(self) -> dict[tuple[float, float], str]:
        """Weights (alpha, beta) of the L1 loss -> arm."""
        return {point: arm for arm in self.arms if (point := weights_of(arm))}

    @property
    def single(self) -> list[str]:
        """The modalities for which a dedicated network was trained."""
        return [name for name in MRI if f"{ONLY}{name}" in self.arms]

    @property
    def stand_in(self) -> bool:
        """Whether all runs are on the phantom."""
        return bool(self.records["stand_in"].all())

    @property
    def sample(self) -> str:
        """For captions: `n = 16 test cases, 1 seed, phantom`."""
        seeds = self.test.loc[self.test["arm"].eq(PAPER), "seed"].nunique()
        data = "phantom" if self.stand_in else "your own cases"
        return f"n = {self.test['case'].nunique()} test cases, {counted(seeds, 'seed')}, {data}"

    def setting(self, name: str) -> Any:
        """A parameter of the runs of the small network, which share it."""
        return self.records[f"parameters.{name}"].iloc[0]

    def table(self, arm: str, **condition: Any) -> pd.DataFrame:
        """Dice of test cases (seeds, cases) of one arm; a condition is a column and its value."""
        return select(self.test, arm=arm, **condition)

    def gain(self, first: str, second: str, **condition: Any) -> Effect:
        """What one arm has more than another in Dice points, over their common seeds."""
        return shared_effect(self.table(first, **condition), self.table(second, **condition))

    def right(self, arm: str, experiment: str) -> pd.DataFrame:
        """Whether an arm names the digits of the large test set (seeds, digits), in percent."""
        rows = self.digits[self.digits["metric"].eq("correct")]
        return select(rows, experiment=experiment, arm=arm, target="large_test")

    def feature_arrays(self, run: str, experiment: str, *below: str) -> dict[str, np.ndarray]:
        """Kind of feature -> (cases, modalities, features), as a run has stored them."""
        stored = read_arrays(self.results.folder(run, experiment).joinpath(*below) / "features.npz")
        return {side: stored[side] for side in SIDES}


def _arm_of(rows: pd.DataFrame) -> pd.Series:
    return rows["variant"].where(rows["method"].eq("shaspec"), rows["method"])


def read_study(results: Results) -> Study:
    """The runs of the five experiments.

    A case that lacks a modality cannot be scored in every combination: it is left out, so that all means are over the
    same cases.
    """
    scores = results.scores
    volumes = scores[scores["experiment"].isin((SEGMENTATION, LARGER))]
    scored_with = volumes[volumes["metric"].eq("dice")].groupby("case")["available"].nunique()
    complete = scored_with.index[scored_with == scored_with.max()]
    small = scores[scores["experiment"].eq(SEGMENTATION)]
    small = small.assign(value=100 * small["value"], arm=_arm_of(small))
    digits = scores[scores["experiment"].isin((ALIGNMENT, GRID, DIGITS)) & scores["method"].eq("shaspec")]
    arm, rate = digits["variant"].str.split("@").str[0], digits["variant"].str.split("@").str[1]
    features = volumes[volumes["target"].eq("modality")]
    return Study(
        Results(results.records, scores[scores["case"].isin(complete) | scores["metric"].ne("dice")]),
        test=small[small["metric"].eq("dice") & small["case"].isin(complete)],
        valid=small[small["metric"].eq("valid-dice")],
        digits=digits.assign(value=100 * digits["value"], arm=arm, rate=rate),
        features=features.groupby(["experiment", "variant", "metric"])["value"].mean().unstack().dropna(),
    )


# ---------------------------------------------------------------------------------------------------- paper and data
def read_printed(folder: Path) -> pd.DataFrame:
    """Table 4 of the paper: Dice with T1 alone, %; rows: regions, columns: kinds of alignment loss."""
    rows = pd.read_csv(folder / "shaspec_table4.csv")
    return rows.pivot(index="target", columns="method", values="dice_percent").loc[list(REGIONS), list(NAMES)]


def with_mean(printed: pd.DataFrame) -> pd.DataFrame:
    """Table 4 with the mean over regions, as it is shown."""
    rows = pd.concat([printed.rename(str.upper), printed.mean().to_frame("mean").T])
    return rows.rename(columns=NAMES).rename_axis(columns=None)


def table_order(printed: pd.DataFrame) -> list[str]:
    """The kinds of alignment loss by their mean in Table 4, best first."""
    return list(printed.mean().sort_values(ascending=False).index)


def printed_facts(printed: pd.DataFrame) -> dict[str, str]:
    """What the prose says of Table 4."""
    means = printed.mean()
    return {
        "table_order": listed(f"{NAMES[kind]} {means[kind]:.2f}" for kind in table_order(printed)),
        "best_for_et": NAMES[str(printed.loc["et"].idxmax())],
        "table_range": f"{means.max() - means.min():.1f}",
    }


def parts_of_split(study: Study, root: Path) -> pd.DataFrame:
    """How many cases each part of the split has, and what for."""
    name = str(study.setting("split"))
    split = read_split(root / name if name.endswith(".csv") else name)
    uses = {
        "train": (int(study.setting("cases_train")) or len(split.train), "fits the weights of the network"),
        "valid": (study.valid["case"].nunique(), "chooses the weight of each alignment loss"),
        "test": (study.test["case"].nunique(), "everything else on this page"),
    }
    return pd.DataFrame([{"part": part, "cases": cases, "what for": what} for part, (cases, what) in uses.items()])


# ---------------------------------------------------------------------------------------------------------- training
def share_left(study: Study, arm: str) -> pd.Series:
    """The alignment loss above its least value by step, as a share of that in the first steps; first seed."""
    rows = study.records[study.records["arm"].eq(arm)]
    history = study.results.history(rows["run"].iloc[0], SEGMENTATION)
    above = history["alignment"] - (np.log(len(MRI)) if shaspec.variant_of(arm).kind == "ce" else 0)
    window = max(1, len(above) // 20)
    smooth = above.rolling(window, min_periods=1).mean()
    return (smooth / above.head(window).mean()).clip(lower=1e-4).set_axis(history["step"])


@styled
def alignment_curves(study: Study) -> Figure:
    """`share_left` of every weight, a panel per kind of alignment loss."""
    figure, axes = new_figure(8.5, 2.6, 1, len(study.kinds), sharey=True)
    for axis, (kind, arms) in zip(axes[0], study.kinds.items(), strict=True):
        for arm, dashes in zip(arms, (":", "-", "--"), strict=False):
            name = f"α = {shaspec.variant_of(arm).alpha:g}"
            axis.plot(share_left(study, arm), color=STYLE[kind][0], linestyle=dashes, label=name)
        axis.set(title=NAMES[kind], xlabel="optimiser step", yscale="log")
        axis.legend()
    axes[0, 0].set_ylabel("share of the first steps")
    return figure


def shares_left_text(study: Study) -> str:
    """`share_left` after the last step of every arm, for an alternative text."""
    return ", ".join(f"{arm} {share_left(study, arm).iloc[-1]:.2%}" for arms in study.kinds.values() for arm in arms)


def cost_table(study: Study) -> pd.DataFrame:
    """Runs, weights and seconds, by kind of network."""
    dedicated, zeros = study.records["arm"].str.startswith(ONLY), study.records["arm"].eq("zero-fill")
    kind = np.select([dedicated, zeros], ["dedicated", "U-Net fed zeros"], "non-dedicated")
    rows = study.records.assign(kind=kind).groupby("kind", sort=False)
    cost = rows.agg(
        runs=("arm", "size"),
        parameters=("parameter_count", "max"),
        train=("seconds.train", "mean"),
        evaluate=("seconds.evaluate", "mean"),
    )
    return cost.rename(columns={"train": "training / s", "evaluate": "evaluation / s"}).rename_axis(None)


# ---------------------------------------------------------------------------------------------- kinds, segmentation
def weight_table(study: Study) -> pd.DataFrame:
    """Dice of validation cases for every weight of every alignment loss, and which weight is chosen."""
    means = study.valid.groupby("arm")["value"].mean()
    rows = [
        {
            "loss": NAMES[kind],
            "weight": f"{shaspec.variant_of(arm).alpha:g}",
            "Dice of validation cases, %": means.get(arm, np.nan),
            "chosen": "chosen" if study.chosen[kind] == arm else "",
        }
        for kind, arms in study.kinds.items()
        for arm in arms
    ]
    return pd.DataFrame(rows)


def choice_facts(study: Study) -> dict[str, str]:
    """What the prose says of the chosen weights."""
    ends = [NAMES[kind] for kind, arm in study.chosen.items() if arm in (study.kinds[kind][0], study.kinds[kind][-1])]
    return {
        "weights": listed(f"{NAMES[kind]} {shaspec.variant_of(arm).alpha:g}" for kind, arm in study.chosen.items()),
        "at_an_end": listed(ends) if ends else "none",
    }


def reached(study: Study) -> pd.DataFrame:
    """Mean Dice with its interval of the losses that are compared; index: panel, region, arm."""
    rows = study.test[study.test["arm"].isin(study.compared.values())]
    keys = ["arm", "seed", "case", "target"]
    panels = []
    for panel, condition in PANELS.items():
        part = rows[rows["available"].eq(condition["available"])] if condition else rows
        means = part.groupby(keys, sort=False)["value"].mean().reset_index()
        panels.append(means.assign(available=panel))
    return cell_means(pd.concat(panels)).set_index(["available", "target", "arm"])


@styled
def losses_compared(study: Study, cells: pd.DataFrame) -> Figure:
    """`reached` as points with intervals; a row per panel, a column per region."""
    figure, axes = new_figure(8.5, 3.6, len(PANELS), len(REGIONS), sharey=True)
    for row, panel in zip(axes, PANELS, strict=True):
        for axis, target in zip(row, REGIONS, strict=True):
            for place, (name, arm) in enumerate(study.compared.items()):
                colour, marker = (GREY, "X") if name == "none" else STYLE[shaspec.variant_of(arm).kind]
                cell = cells.loc[(panel, target, arm)]
                axis.hlines(place, cell["low"], cell["high"], color=colour)
                axis.plot(cell["mean"], place, marker=marker, color=colour)
            axis.set(title=f"{target.upper()}, {panel}", ylim=(len(study.compared) - 0.5, -0.5))
            axis.set_yticks(range(len(study.compared)), list(study.compared))
    for axis in axes[-1]:
        axis.set_xlabel("Dice, %")
    return figure


def reached_text(study: Study, cells: pd.DataFrame) -> str:
    """Mean Dice of every loss over the combinations, WT/TC/ET, for an alternative text."""
    panel = next(iter(PANELS))
    texts = {
        name: "/".join(f"{cells.loc[(panel, target, arm), 'mean']:.1f}" for target in REGIONS)
        for name, arm in study.compared.items()
    }
    return "; ".join(f"{name} {text}" for name, text in texts.items())


def l1_gains(study: Study) -> pd.DataFrame:
    """L1 - each other loss at its chosen weight, mean over combinations, per region: rows of a forest plot."""
    l1 = study.chosen["l1"]
    pairs = [(name, arm, target) for name, arm in study.compared.items() if arm != l1 for target in REGIONS]
    names = [f"{target.upper()}, over {name}" for name, _, target in pairs]
    return effect_rows(names, [study.gain(l1, arm, target=target) for _, arm, target in pairs], SESOI)


def ranks(study: Study) -> pd.DataFrame:
    """Ranks of the alignment losses at their chosen weights, see `mmlib.analysis.statistics.rank_distribution`."""
    return rank_distribution({kind: study.table(arm) for kind, arm in study.chosen.items()})


def rank_table(ranked: pd.DataFrame) -> pd.DataFrame:
    """`ranks` as it is shown."""
    texts = [f"{row.rank_low:g} to {row.rank_high:g}" for row in ranked.itertuples()]
    shown = pd.DataFrame(
        {
            "loss": [NAMES[kind] for kind in ranked.index],
            "mean Dice, %": ranked["mean"].to_numpy(),
            "best of all, % of draws": 100 * ranked["p_best"].to_numpy(),
            "ranks, 95 % of draws": texts,
        }
    )
    return shown


def agreement(ranked: pd.DataFrame, printed: pd.DataFrame) -> dict[str, str]:
    """Kendall's tau of our order with that of the paper's text and with that of the means of its Table 4."""
    if len(ranked) < len(KINDS):
        return {"tau_text": "not computed (not all losses were run)", "tau_table": "not computed"}
    means = ranked["mean"].to_dict()
    taus = order_agreement(means, TEXT_ORDER), order_agreement(means, table_order(printed))
    return dict(zip(("tau_text", "tau_table"), (f"{tau:+.2f}" for tau in taus), strict=True))


def best_text(ranked: pd.DataFrame) -> str:
    """How often each loss is the best of the resampled draws, as a text."""
    return listed(f"{NAMES[kind]} in {row['p_best']:.0%}" for kind, row in ranked.iterrows())


@styled
def weight_curves(study: Study) -> Figure:
    """Mean Dice against the weight of each alignment loss, on validation and on test cases."""
    valid, test = (scores.groupby("arm")["value"].mean() for scores in (study.valid, study.test))
    figure, axes = new_figure(8.5, 2.8, 1, len(study.kinds), sharey=True)
    for axis, (kind, arms) in zip(axes[0], study.kinds.items(), strict=True):
        colour, marker = STYLE[kind]
        x = [shaspec.variant_of(arm).alpha for arm in arms]
        axis.plot(x, valid.reindex(arms), ":", marker=marker, color=colour, mfc="white", label="validation")
        axis.plot(x, test[arms], marker=marker, color=colour, label="test")
        if "alpha-0" in study.arms:
            axis.axhline(test["alpha-0"], color=GREY, linewidth=0.8, label="test, no alignment")
        axis.set(title=NAMES[kind], xlabel="weight α", xscale="log")
    axes[0, 0].set_ylabel("mean Dice, %")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def weight_curves_text(study: Study) -> str:
    """Mean Dice of test cases for every weight of every alignment loss, for an alternative text."""
    test = study.test.groupby("arm")["value"].mean()
    return "; ".join(
        f"{NAMES[kind]} " + ", ".join(f"{test[arm]:.1f} at {shaspec.variant_of(arm).alpha:g}" for arm in arms)
        for kind, arms in study.kinds.items()
    )


# ---------------------------------------------------------------------------------------------------- kinds, digits
def digit_choice(study: Study) -> dict[str, str]:
    """Kind of alignment loss -> the arm with the highest accuracy on held-out training digits."""
    rows = study.digits[study.digits["experiment"].eq(ALIGNMENT) & study.digits["metric"].eq("correct")]
    means = rows[rows["target"].eq("valid")].groupby("arm", sort=False)["value"].mean()
    return {kind: str(means[arms].idxmax()) for kind, arms in _by_kind(means.index).items()}


def digit_kinds(study: Study) -> pd.DataFrame:
    """Accuracy of every alignment loss from the image alone, and L1 - each other."""
    chosen = digit_choice(study)
    arms = _by_kind(study.digits.loc[study.digits["experiment"].eq(ALIGNMENT), "arm"].unique())
    rows = []
    for kind, arm in chosen.items():
        means = [study.right(one, ALIGNMENT).to_numpy().mean() for one in arms[kind]]
        gain = shared_effect(study.right(chosen["l1"], ALIGNMENT), study.right(arm, ALIGNMENT))
        rows.append(
            {
                "loss": NAMES[kind],
                "weight chosen": f"{shaspec.variant_of(arm).alpha:g}",
                "accuracy at all weights, %": ", ".join(f"{mean:.2f}" for mean in means),
                "at the chosen one, %": means[arms[kind].index(arm)],
                "L1 - this, points": "" if kind == "l1" else format_effect(gain, 2),
            }
        )
    return pd.DataFrame(rows)


def digit_ranks(study: Study) -> pd.DataFrame:
    """As `ranks`, on digits."""
    return rank_distribution({kind: study.right(arm, ALIGNMENT) for kind, arm in digit_choice(study).items()})


def digit_sample(study: Study, experiment: str) -> str:
    """For captions: `3,500 test digits, 3 seeds`."""
    rows = study.digits[study.digits["experiment"].eq(experiment) & study.digits["target"].eq("large_test")]
    return f"{rows['case'].nunique():,} test digits, {counted(rows['seed'].nunique(), 'seed')}"


# ----------------------------------------------------------------------------------------------------------- weights
def _grid_frame(values: Mapping[tuple[float, float], float]) -> pd.DataFrame:
    """Values of pairs (alpha, beta) as a table: rows alpha, columns beta."""
    table = pd.Series(dict(values)).unstack()
    return table.sort_index().sort_index(axis=1)


def _draw_grid(axis: Axes, values: pd.DataFrame, decimals: int, least_range: float) -> None:
    """A heat map of `values`, with the paper's weights framed and what was not run hatched."""
    low, high = np.nanmin(values), np.nanmax(values)
    sns.heatmap(
        values,
        ax=axis,
        annot=True,
        fmt=f".{decimals}f",
        cmap="cividis",
        vmin=low,
        vmax=max(high, low + least_range),
        cbar=False,
        xticklabels=[f"{beta:g}" for beta in values.columns],
        yticklabels=[f"{alpha:g}" for alpha in values.index],
    )
    for (i, j), value in np.ndenumerate(values.to_numpy()):
        if np.isnan(value):
            axis.add_patch(Rectangle((j, i), 1, 1, fill=False, hatch="////", edgecolor="#BBBBBB"))
        elif (values.index[i], values.columns[j]) == PAPER_WEIGHTS:
            axis.add_patch(Rectangle((j, i), 1, 1, fill=False, edgecolor=VERMILLION, linewidth=2.5, zorder=3))
    axis.set(xlabel="β", ylabel="α")
    axis.tick_params(axis="y", rotation=0)


def grid_means(study: Study, **condition: Any) -> dict[tuple[float, float], float]:
    """Weights (alpha, beta) -> mean Dice of test cases; a condition is a column and its value."""
    return {point: study.table(arm, **condition).to_numpy().mean() for point, arm in study.grid.items()}


@styled
def weight_maps(study: Study) -> Figure:
    """Mean Dice for every pair of weights; a row per panel, a column per region, each with its own shades."""
    rows, columns = _grid_frame(grid_means(study)).shape
    figure, axes = new_figure(1.2 + 0.62 * 3 * (columns + 1), 1.2 + 0.8 * (rows + 1), len(PANELS), len(REGIONS))
    for row, (panel, condition) in zip(axes, PANELS.items(), strict=True):
        for axis, target in zip(row, REGIONS, strict=True):
            _draw_grid(axis, _grid_frame(grid_means(study, target=target, **condition)), 0, 1)
            axis.set_title(f"{target.upper()}, {panel}")
    return figure


def grid_text(means: Mapping[tuple[float, float], float], digits: int = 1) -> str:
    """The values of pairs of weights, for an alternative text."""
    return ", ".join(f"({alpha:g}, {beta:g}) {value:.{digits}f}" for (alpha, beta), value in sorted(means.items()))


def weight_gains(study: Study) -> pd.DataFrame:
    """The paper's weights - each other pair, over all combinations and regions: rows of a forest plot."""
    others = {point: arm for point, arm in sorted(study.grid.items()) if arm != PAPER}
    names = [f"over α = {alpha:g}, β = {beta:g}" for alpha, beta in others]
    return effect_rows(names, [study.gain(PAPER, arm) for arm in others.values()], SESOI)


def weight_facts(study: Study, gained: pd.DataFrame) -> dict[str, str]:
    """What the prose says of the pairs of weights."""
    means = {study.grid[point]: mean for point, mean in grid_means(study).items()}
    best, worst = max(means, key=lambda arm: means[arm]), min(means, key=lambda arm: means[arm])
    ratio = means[worst] / means[best]
    return {
        "best_point": f"{variant_name(best)} ({means[best]:.1f} %)",
        "worst_point": f"{variant_name(worst)} ({means[worst]:.1f} %)",
        "points_run": str(len(means)),
        "above": f"{(gained['low'] > 0).sum()} of {len(gained)}",
        "below": str((gained["high"] < 0).sum()),
        "worst_share": f"{ratio:.0%}",
        "collapse": "a collapse" if ratio < 0.5 else "no collapse",
        "over_strong": _gain_text(study, PAPER, STRONG),
    }


def _gain_text(study: Study, first: str, second: str) -> str:
    if second not in study.arms:
        return "not run in this profile"
    return format_effect(study.gain(first, second), unit="points")


def digit_grid(study: Study) -> dict[tuple[float, float], str]:
    """Weights (alpha, beta) -> arm, of the digits."""
    arms = study.digits.loc[study.digits["experiment"].eq(GRID), "arm"].unique()
    return {point: str(arm) for arm in arms if (point := weights_of(str(arm)))}


def digit_means(study: Study) -> dict[tuple[float, float], float]:
    """Weights (alpha, beta) -> accuracy from the image alone, %."""
    return {point: study.right(arm, GRID).to_numpy().mean() for point, arm in digit_grid(study).items()}


@styled
def digit_map(means: Mapping[tuple[float, float], float]) -> Figure:
    """`digit_means` as a heat map."""
    figure, axes = new_figure(4.8, 3.6)
    _draw_grid(axes[0, 0], _grid_frame(means), 1, 0)
    return figure


def corner_facts(study: Study, means: Mapping[tuple[float, float], float]) -> dict[str, str]:
    """What the prose says of the pairs of weights on digits."""
    arms = digit_grid(study)
    base = arms.get(PAPER_WEIGHTS)
    gains = []
    for pair in ((0.0, 0.0), (1.0, 1.0)):
        if base and pair in arms:
            gain = shared_effect(study.right(base, GRID), study.right(arms[pair], GRID))
            gains.append(f"{format_effect(gain, 2)} over ({pair[0]:g}, {pair[1]:g})")
    alpha, beta = max(means, key=lambda pair: means[pair])
    return {
        "digit_range": f"{max(means.values()) - min(means.values()):.2f}",
        "digit_best": f"({alpha:g}, {beta:g})",
        "digit_corners": listed(gains) if gains else "not run in this profile",
    }


# ---------------------------------------------------------------------------------------------------------- features
def _feature_row(values: Mapping[str, float]) -> dict[str, float]:
    """Measures of features as a row of a table; probe and retrieval in percent."""
    names = [(measure, side) for measure in MEASURES for side in SIDES]
    scale = {"probe": 100, "retrieval": 100}
    return {f"{one}, {side}": values.get(f"{one}-{side}", np.nan) * scale.get(one, 1) for one, side in names}


def _chance_row(modalities: int, subjects: int) -> dict[str, float]:
    chance = {"probe": 1 / modalities, "silhouette": 0.0, "retrieval": 1 / subjects}
    return _feature_row({f"{measure}-{side}": value for measure, value in chance.items() for side in SIDES})


def complete_cases(study: Study) -> int:
    """Number of test cases whose features were stored."""
    return len(study.feature_arrays(LARGER_RUN, LARGER)["shared"])


def feature_table(study: Study) -> pd.DataFrame:
    """Probe, silhouette and retrieval of shared and specific features, a row per network and one for chance."""
    wanted = {(LARGER, "paper"): "net of chapter 01", (SEGMENTATION, PAPER): "paper's weights"}
    wanted |= {(SEGMENTATION, arm): what for arm, what in CHANGED.items()}
    kinds = {arm: kind for kind, arm in study.chosen.items() if arm != PAPER}
    wanted |= {(SEGMENTATION, arm): f"{NAMES[kind]}, chosen weight" for arm, kind in kinds.items()}
    rows = []
    for (experiment, arm), what in wanted.items():
        if (experiment, arm) in study.features.index:
            name = "larger" if experiment == LARGER else variant_name(arm)
            rows.append({"net": f"{what} ({name})", **_feature_row(study.features.loc[(experiment, arm)])})
    return pd.DataFrame([*rows, {"net": "chance", **_chance_row(len(MRI), complete_cases(study))}])


def feature_formats(table: pd.DataFrame) -> dict[str, str]:
    """The format of each column of a table of features."""
    names = [name for name in table.columns if name != "net"]
    return {name: f"{{:.{MEASURES[name.split(',')[0]]}f}}" for name in names}


def feature_facts(table: pd.DataFrame) -> dict[str, str]:
    """What the prose says of the features of the network of chapter 01, the first row."""
    first, chance = table.iloc[0], table.iloc[-1]
    collapsed = first["retrieval, shared"] <= 2 * chance["retrieval, shared"]
    told = first["probe, shared"] > chance["probe, shared"] + 5
    return {
        "probe_shared": f"{first['probe, shared']:.0f}",
        "probe_specific": f"{first['probe, specific']:.0f}",
        "probe_chance": f"{chance['probe, shared']:.0f}",
        "retrieval_shared": f"{first['retrieval, shared']:.0f}",
        "retrieval_chance": f"{chance['retrieval, shared']:.1f}",
        "collapsed": "so collapse is not excluded" if collapsed else "so they did not collapse",
        "free": "but they still give the modality away" if told else "and they do not give the modality away",
    }


def silhouettes(row: Mapping[str, Any] | pd.Series) -> str:
    """The silhouettes of a row of a table of features, for captions."""
    return listed(f"{side} {row[f'silhouette, {side}']:.2f}" for side in SIDES)


def bare_run(study: Study) -> str | None:
    """The first run without either auxiliary loss; None where there is none."""
    runs = study.records.loc[study.records["arm"].eq(NEITHER), "run"]
    return None if runs.empty else str(runs.iloc[0])


def digit_features(study: Study) -> pd.DataFrame:
    """As `feature_table`, of images and sounds."""
    rows = study.digits[study.digits["target"].eq("modality") & study.digits["experiment"].isin((DIGITS, GRID))]
    means = rows.groupby(["experiment", "arm", "rate", "metric"], sort=False)["value"].mean().unstack() / 100
    entries = [
        {"net": f"{arm}, {rate} % audio", **_feature_row(row)}
        for (experiment, arm, rate), row in means.iterrows()
        if experiment == DIGITS or arm in (NEITHER, STRONG)
    ]
    pairs = study.digits.loc[study.digits["target"].eq("test"), "case"].nunique()
    return pd.DataFrame([*entries, {"net": "chance", **_chance_row(2, pairs)}]).dropna(axis="columns", how="all")


def digit_points(study: Study, most: int = 150) -> tuple[str, dict[str, np.ndarray]]:
    """The highest audio rate of the paper's variant, and some of its features of test pairs."""
    rows = study.digits[study.digits["experiment"].eq(DIGITS) & study.digits["arm"].eq("paper")]
    rate = max(rows["rate"].unique(), key=float)
    arrays = study.feature_arrays("shaspec", DIGITS, f"{rate}-s0", "paper")
    every = max(1, len(arrays["shared"]) // most)
    return rate, {side: values[::every] for side, values in arrays.items()}


# --------------------------------------------------------------------------------------------------------- dedicated
def dedicated_gains(study: Study) -> pd.DataFrame:
    """Dedicated network - that for all combinations, with the one modality: rows of a forest plot.

    Returns:
        As `mmlib.ledgers.claims.effect_rows`, with the columns modality and region.
    """
    cells = [(name, target) for name in study.single for target in REGIONS]
    effects = [study.gain(f"{ONLY}{name}", PAPER, available=name, target=target) for name, target in cells]
    rows = effect_rows([f"{target.upper()}, {name}" for name, target in cells], effects, SESOI, rule="no-worse")
    return rows.assign(modality=[name for name, _ in cells], region=[target for _, target in cells])


def printed_gains(folder: Path) -> pd.Series:
    """Table 2 - Table 1 of the paper, Dice points; index: modality, region."""
    dedicated, common = (
        pd.read_csv(folder / f"shaspec_table{number}.csv")
        .query("method == 'ShaSpec'")
        .set_index(["available", "target"])["dice_percent"]
        for number in (2, 1)
    )
    return dedicated - common.reindex(dedicated.index)


def dedicated_table(study: Study, gained: pd.DataFrame, printed: pd.Series) -> pd.DataFrame:
    """Dice of dedicated networks and of that for all combinations, beside the paper's difference."""

    def mean(arm: str, row: Any) -> float:
        return float(study.table(arm, available=row.modality, target=row.region).to_numpy().mean())

    rows = [
        {
            "modality": row.modality,
            "region": row.region.upper(),
            "dedicated": mean(f"{ONLY}{row.modality}", row),
            "one for all": mean(PAPER, row),
            "gain": format_effect(row),
            "gain in the paper": printed[row.modality, row.region],
        }
        for row in gained.itertuples()
    ]
    return pd.DataFrame(rows)


def dedicated_facts(gained: pd.DataFrame, printed: pd.Series) -> dict[str, str]:
    """What the prose says of dedicated networks."""
    up, down = (gained["low"] > 0).sum(), (gained["high"] < 0).sum()
    return {
        "dedicated_intervals": str(len(gained)),
        "dedicated_up": str(up),
        "dedicated_down": str(down),
        "dedicated_mean": f"{gained['effect'].mean():+.1f}" if len(gained) else "(not run)",
        "printed_up": f"{(printed > 0).sum()} of {len(printed)}",
        "printed_mean": f"{printed.mean():+.1f}",
    }


# ------------------------------------------------------------------------------------------------------------- paper
def beside_paper(study: Study, printed: pd.DataFrame) -> pd.DataFrame:
    """Table 4 beside ours: each alignment loss at its chosen weight, with T1 alone."""
    data = "phantom, not BraTS" if study.stand_in else "other test cases"
    usual = f"{data}; smaller net; {int(study.setting('steps')):,} steps of 180,000"
    rows = []
    for kind, arm in study.chosen.items():
        for target in REGIONS:
            mine = study.table(arm, available="t1", target=target).mean(axis=1)
            spread = f" ± {mine.std(ddof=1):.1f}" if len(mine) > 1 else ""
            l1 = kind == "l1"
            rows.append(
                {
                    "train with / test with": "random subsets / t1",
                    "metric": f"{target.upper()} Dice, %, {NAMES[kind]}",
                    "paper (Table 4)": f"{printed.loc[target, kind]:.2f}",
                    "released code": f"not run, {'weights not published' if l1 else 'this loss is a comment in it'}",
                    "ours": f"{mine.mean():.1f}{spread} ({counted(len(mine), 'seed')})",
                    "gap": f"{mine.mean() - printed.loc[target, kind]:+.1f}",
                    "likely reason": usual + ("; the paper's value is post-processed" if l1 else ""),
                }
            )
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------------------------------- lead
def lead_rows(study: Study) -> pd.DataFrame:
    """What each idea is worth in mean Dice over combinations and regions: rows of a forest plot."""
    asked: list[tuple[str, str, Sequence[str]]] = [
        ("alignment loss: with - without", PAPER, ("alpha-0",)),
        ("modality classifier: with - without", PAPER, ("beta-0",)),
        ("both: with - without", PAPER, (NEITHER,)),
        ("paper's weights - both weights 1", PAPER, (STRONG,)),
        *((f"L1 - {NAMES[kind]}", study.chosen["l1"], (arm,)) for kind, arm in study.chosen.items() if kind != "l1"),
    ]
    pairs = [(name, first, second) for name, first, (second,) in asked if {first, second} <= set(study.arms)]
    return effect_rows([name for name, *_ in pairs], [study.gain(first, second) for _, first, second in pairs], SESOI)


def lead_facts(study: Study, ranked: pd.DataFrame) -> dict[str, str]:
    """What the first lines of the chapter say."""
    best = ranked.index[0]
    ties = [NAMES[kind] for kind in ranked.index[1:] if ranked.loc[kind, "rank_low"] <= 1]
    worth = "has not been tried without in this profile"
    if "alpha-0" in study.arms:
        worth = outcome(study.gain(PAPER, "alpha-0"), GAINS)
    return {
        "alignment_words": worth,
        "alignment_gain": _gain_text(study, PAPER, "alpha-0"),
        "classifier_gain": _gain_text(study, PAPER, "beta-0"),
        "best_kind": NAMES[best],
        "tied": listed(ties) if ties else "none of the others",
        "l1_best": f"{ranked.loc['l1', 'p_best']:.0%}",
        "kind_range": f"{ranked['mean'].max() - ranked['mean'].min():.1f}",
    }
