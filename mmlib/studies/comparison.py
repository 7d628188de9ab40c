"""All networks for any combination on equal terms: ranks, critical differences, cost beside quality, calibration.

Scores are those of `mmlib.studies.segmentation.Study`, Dice in percent. A network's level is its mean over the fifteen
combinations and the three regions.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import by_seed_and_case, mean_interval, paired_effects, rank_distribution
from mmlib.analysis.wording import counted, format_effect, format_interval, listed
from mmlib.figures.results import arm_style
from mmlib.figures.style import new_figure, styled
from mmlib.modalities import MRI, label
from mmlib.studies.distillation import NAMES
from mmlib.studies.segmentation import Study, arm_name, cost_table, read_study

EXPERIMENTS = (("comparison",), ("segmentation", "subsets"))  # equal terms within each; see `on_equal_terms`
LONGER = {  # some networks of `comparison` for more steps
    "twice the steps": "comparison-twice",
    "six times the steps": "comparison-longer",
    "eighteen times the steps": "comparison-longest",
}
NEWER = ("rfnet", "mmformer", "m3ae", "simmlm")
TWO_STAGES = ("m3ae", "simmlm")  # the first takes as many steps as the second
SEEDS = 3  # of each network, from which on they are compared
STUDENTS = ("unimodal", "protokd", "kd-net", "pmkl")
FILLED = {  # variant of `synthesis-studies` -> what stands for the missing image
    "shaspec": "nothing: ShaSpec leaves it out",
    "unet": "M2DN's image",
    "regression": "regression's image",
    "mm-gan": "MM-GAN's image",
    "mean": "the mean image",
    "zero": "zeros",
}
EQUAL = 0.9  # share of the best level below which a reason is asked for
LEVEL = 0.05  # of the tests of ranks


def on_equal_terms(results: Results) -> Study:
    """The networks of chapter 09: of the first of `EXPERIMENTS` that has run; of none where none has.

    `comparison` waits, where others have run, until all their networks and the newer ones have `SEEDS` seeds in it;
    networks for one modality may come later.
    """
    there = set(results.records["experiment"])
    groups = [names for names in EXPERIMENTS if there.intersection(names)] or [EXPERIMENTS[0]]
    if len(groups) > 1:
        seeds = results.scores.groupby(["experiment", "method"], observed=True)["seed"].nunique()
        older = {method for experiment, method in seeds.index if experiment in groups[1] and method != "dedicated"}
        first = seeds.get(groups[0][0]).reindex([*older, *NEWER], fill_value=0)
        if first.min() < SEEDS:
            groups = groups[1:]
    return read_study(
        Results(*(table[table["experiment"].isin(groups[0])] for table in (results.records, results.scores)))
    )


def absent(study: Study) -> str:
    """Which of the newer networks have no runs here, as a sentence; empty where all have."""
    there = set(study.scores["method"])
    lacking = [arm_name(method) for method in NEWER if method not in there]
    return f"Not trained for these results, and so in none of the tables: {listed(lacking)}." if lacking else ""


def levels(study: Study) -> dict[str, pd.DataFrame]:
    """Arm -> its level by seed and case, of the arms that are scored with all combinations."""
    return {arm: by_seed_and_case(study.scores[study.scores["arm"].eq(arm)]) for arm in study.whole}


def ranking(study: Study) -> pd.DataFrame:
    """Arms, best first: level with its interval, rank with its 95 % of draws, and how often it is first."""
    tables = levels(study)
    ranks = rank_distribution(tables)
    intervals = {arm: mean_interval(table) for arm, table in tables.items()}
    rows = [
        {
            "network": arm_name(arm),
            "Dice, %": f"{intervals[arm][0]:.1f} ({format_interval(*intervals[arm][1:])})",
            "rank": f"{row['rank']:.0f} ({row.rank_low:.0f} to {row.rank_high:.0f})",
            "first, %": f"{100 * row.p_best:.0f}",
            "seeds": len(tables[arm]),
        }
        for arm, row in ranks.iterrows()
    ]
    return pd.DataFrame(rows).set_index("network")


def low_levels(study: Study) -> list[str]:
    """Arms whose level lies below `EQUAL` times that of the best, for which a reason is asked."""
    means = {arm: table.to_numpy().mean() for arm, table in levels(study).items()}
    return [arm for arm, mean in means.items() if mean < EQUAL * max(means.values())]


def one_image(study: Study, distilled: Results) -> pd.DataFrame:
    """Who has one image at the test: networks for any combination, for this one alone, and students; mean of regions.

    Args:
        study: networks for any combination and dedicated ones.
        distilled: the runs of `distillation`, or none.

    Returns:
        Rows: what a network is made for, and its name, best first; columns: the modality, Dice in percent with its 95 %
        interval. Only test cases that all were scored on count.
    """
    scores = study.scores[study.scores["available"].isin(MRI)]
    alone = scores["method"].eq("dedicated")
    scores = scores.assign(made_for="any combination", named=scores["arm"].map(arm_name))
    scores.loc[alone, ["made_for", "named"]] = ["this image", "a U-Net for each image"]
    taught = distilled.scores
    taught = taught[taught["metric"].eq("dice") & taught["available"].isin(MRI) & taught["variant"].eq("standard")]
    taught = taught[taught["method"].isin(STUDENTS)]
    taught = taught.assign(
        value=100 * taught["value"], made_for="this image, as in ProtoKD", named=taught["method"].map(NAMES)
    )
    both = pd.concat([scores, taught])
    cases = set.intersection(*(set(rows["case"]) for _, rows in both.groupby("named", observed=True)))
    both = both[both["case"].isin(cases)]
    found = []
    for (made_for, named), rows in both.groupby(["made_for", "named"], observed=True):
        means = {name: mean_interval(by_seed_and_case(one)) for name, one in rows.groupby("available", observed=True)}
        level = np.mean([mean for mean, *_ in means.values()])
        texts = {name: f"{mean:.1f} ({format_interval(low, high)})" for name, (mean, low, high) in means.items()}
        found.append({"made for": made_for, "network": named, "level": level, **texts})
    table = pd.DataFrame(found)
    table["best"] = table.groupby("made for")["level"].transform("max")
    table = table.sort_values(["best", "level"], ascending=False).set_index(["made for", "network"])
    return table.reindex(columns=list(MRI)).fillna("-")


def filled_first(results: Results) -> tuple[pd.DataFrame, float, int]:
    """One image is missing: it is filled and a network for complete sets segments, or ShaSpec does without it.

    Args:
        results: the runs of `synthesis-studies`.

    Returns:
        Rows: what stands for the missing image, best first; columns: which it is; mean Dice in percent, over the
        regions that a case has (elsewhere one marked voxel turns 1 into 0), with its 95 % interval. Then
        that mean of the network for complete sets with all images, and the number of cases with a region.
    """
    scores = results.scores[results.scores["metric"].eq("dice")]
    nothing = scores["value"].isin((0, 1)).groupby([scores["case"], scores["target"]], observed=True).transform("all")
    scores = scores[~nothing].assign(value=100 * scores["value"])
    scores = scores.groupby(["variant", "available", "seed", "case"], observed=True)["value"].mean().reset_index()
    rows = {}
    for variant, name in FILLED.items():
        mine = scores[scores["variant"].eq(variant)]
        if mine.empty:
            continue
        cells = {
            missing: mean_interval(by_seed_and_case(mine[mine["available"].eq(label(set(MRI) - {missing}, MRI))]))
            for missing in MRI
        }
        texts = {
            f"no {missing}": f"{mean:.1f} ({format_interval(low, min(high, 100.0))})"
            for missing, (mean, low, high) in cells.items()
        }
        rows[name] = {"level": np.mean([mean for mean, *_ in cells.values()]), **texts}
    columns = ["level", *(f"no {missing}" for missing in MRI)]
    table = pd.DataFrame(list(rows.values()), index=pd.Index(rows, name="in its place"), columns=columns)
    table = table.sort_values("level", ascending=False)
    whole = scores.loc[scores["variant"].eq("complete"), "value"].mean()
    return table.drop(columns="level"), float(whole), scores["case"].nunique()


def _levels_by_length(results: Results) -> dict[str, dict[str, pd.DataFrame]]:
    """Experiment -> arm -> level by seed and case: of `comparison`, then of those of `LONGER` that have run."""
    trained = {}
    for name in (EXPERIMENTS[0][0], *LONGER.values()):
        if name in set(results.records["experiment"]):
            parts = (table[table["experiment"].eq(name)] for table in (results.records, results.scores))
            trained[name] = levels(read_study(Results(*parts)))
    return trained


def by_steps(results: Results, arm: str = "shaspec paper", other: str = "dropout-unet") -> str:
    """By how many points one network lies above another after ever more steps, in words; over shared seeds and cases.

    Args:
        results: as for `more_steps`.
        arm, other: the two networks.
    """
    steps = results.records.groupby("experiment")["parameters.steps"].max()
    said = []
    for name, tables in _levels_by_length(results).items():
        if {arm, other} <= set(tables):
            shared = tables[arm].index.intersection(tables[other].index)
            (gain,) = paired_effects([(tables[arm].loc[shared], tables[other].loc[shared])])
            said.append(f"{format_effect(gain)} after {steps[name]:,.0f} steps ({counted(gain.seeds, 'seed')})")
    return listed(said) if len(said) > 1 else "(not trained for longer in this profile)"


def more_steps(results: Results) -> pd.DataFrame:
    """Networks after more steps: those whose earlier stage takes as many, and others that were trained as long.

    Args:
        results: with the runs of `comparison` and, of the others, those of the experiments of `LONGER`.

    Returns:
        Rows: networks, best after twice the steps first; columns: level in percent with its 95 % interval and seeds
        after the steps of `comparison` and of each of `LONGER` that was run, and the gain in points by twice the steps
        over shared seeds and cases. Empty where none was trained longer.
    """
    columns = {EXPERIMENTS[0][0]: "steps", **{name: column for column, name in LONGER.items()}}
    trained = {columns[name]: tables for name, tables in _levels_by_length(results).items()}
    twice = next(iter(LONGER))
    if twice not in trained:
        return pd.DataFrame()
    once = trained.pop("steps", {})
    staged = {arm: once[arm] for arm in TWO_STAGES if arm in once}
    trained[twice] = {**staged, **trained[twice]}
    gains = dict.fromkeys(staged, "two stages")
    for arm in (arm for arm in trained[twice] if arm in once and arm not in staged):
        shared = trained[twice][arm].index.intersection(once[arm].index)
        (gain,) = paired_effects([(trained[twice][arm].loc[shared], once[arm].loc[shared])])
        gains[arm] = format_effect(gain)
    trained = {"steps": {arm: table for arm, table in once.items() if arm not in staged}, **trained}
    found = [
        {"network": arm_name(arm), **{column: _level(tables.get(arm)) for column, tables in trained.items()}}
        | {"gain by twice, points": gains.get(arm, "-")}
        for arm in sorted(trained[twice], key=lambda arm: -mean_interval(trained[twice][arm])[0])
    ]
    return pd.DataFrame(found).set_index("network")


def _level(table: pd.DataFrame | None) -> str:
    """A level by seed and case as a cell of a table."""
    if table is None:
        return "-"
    mean, low, high = mean_interval(table)
    return f"{mean:.1f} ({format_interval(low, high)}), {counted(len(table), 'seed')}"


def guessed_from_the_core(study: Study, available: str = "t1") -> float:
    """Correlation of the Dice of the enhancing tumour with that of the core, where nothing shows what enhances.

    Over networks for any combination; the U-Net fed zeros, which finds nothing then, is left out.
    """
    arms = [arm for arm in study.whole if arm != "zero-fill"]
    mine = study.scores[study.scores["available"].eq(available) & study.scores["arm"].isin(arms)]
    means = mine.pivot_table(index="arm", columns="target", values="value", observed=True)
    return float(means["et"].corr(means["tc"]))


def facts(study: Study) -> dict[str, str]:
    """What the chapter says in its prose, as texts by name."""
    ranks = rank_distribution(levels(study))
    best, low = ranks.index[0], low_levels(study)
    rivals = [arm_name(arm) for arm, row in ranks.iloc[1:].iterrows() if row.rank_low <= 1]
    complete = study.scores[study.scores["available"].eq(label(MRI, MRI)) & study.scores["target"].eq("et")]
    learned = complete[complete["arm"].isin(study.whole)].groupby("arm", observed=True)["value"].mean()
    return {
        "least_learned": f"{arm_name(learned.idxmin())} ({learned.min():.1f} %, the best {learned.max():.1f} %)",
        "best": arm_name(best),
        "best_level": f"{ranks['mean'].iloc[0]:.1f}",
        "best_first": f"{100 * ranks['p_best'].iloc[0]:.0f}",
        "could_be_first": listed(rivals) if rivals else "no other network",
        "low": listed(arm_name(arm) for arm in low) if low else "none",
        "networks": str(len(ranks)),
        "guessed": f"{guessed_from_the_core(study):.2f}",
    }


# --------------------------------------------------------------------------------------------------------------- ranks
def mean_ranks(study: Study) -> tuple[pd.Series, float, float]:
    """Mean rank of each arm over cases (seeds averaged), the p of Friedman's test, and Nemenyi's critical difference.

    Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006; cases stand in the place of
    data sets. Two networks whose mean ranks differ by less than the critical difference are not told apart.

    Returns:
        Arm -> mean rank, best first (1 is the highest Dice); p is NaN of fewer than three networks.
    """
    table = pd.DataFrame({arm: values.mean() for arm, values in levels(study).items()})  # cases arms
    ranks = table.rank(axis=1, ascending=False).mean().sort_values()
    cases, arms = table.shape
    p = float(stats.friedmanchisquare(*table.to_numpy().T).pvalue) if arms > 2 else math.nan
    quantile = float(stats.studentized_range.ppf(1 - LEVEL, max(arms, 2), np.inf)) / math.sqrt(2)
    return ranks, p, quantile * math.sqrt(arms * (arms + 1) / (6 * cases))


def cliques(ranks: pd.Series, difference: float) -> list[tuple[int, int]]:
    """Largest runs of networks, by place from the best, whose ranks differ by less than the critical difference."""
    values = ranks.to_numpy()
    found: list[tuple[int, int]] = []
    for first in range(len(values)):
        last = int(np.flatnonzero(values - values[first] < difference)[-1])
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


@styled
def critical_differences(study: Study) -> Figure:
    """Mean ranks on a line, best on the left; a bar joins networks that are not told apart."""
    ranks, _, difference = mean_ranks(study)
    joined = cliques(ranks, difference)
    count = len(ranks)
    figure, axes = new_figure(7.5, 0.24 * count + 0.16 * len(joined) + 1.1)
    axis = axes[0, 0]
    lowest, highest = 1, max(count, 2)
    under = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # no line runs through a name
    for place, (arm, rank) in enumerate(ranks.items()):
        colour, marker, name = arm_style(str(arm))
        height = -(place + 1) - 0.7 * len(joined)
        axis.plot([rank, rank], [0, height], color=colour, linewidth=1)
        axis.plot(rank, height, marker=marker, color=colour, markersize=5, linestyle="none")
        axis.text(rank + 0.08, height, f"{name}  {rank:.1f}", va="center", fontsize=8.5, bbox=under)
    for row, (first, last) in enumerate(joined):
        height = -0.55 - 0.7 * row
        axis.plot([ranks.iloc[first], ranks.iloc[last]], [height, height], color="black", linewidth=3, alpha=0.75)
    axis.plot([lowest, lowest + difference], [1, 1], color="black", linewidth=1.5)
    axis.text(lowest + difference + 0.1, 1, f"critical difference {difference:.1f}", va="center", fontsize=8.5)
    axis.axhline(0, color="black", linewidth=1)
    axis.set(xlim=(lowest - 0.2, highest + 1.8), ylim=(-count - 0.7 * len(joined) - 0.8, 1.7), yticks=[])
    axis.set_xticks(range(lowest, highest + 1))
    axis.set_xlabel("mean rank over cases; 1 is best")
    axis.grid(False)
    return figure


# ---------------------------------------------------------------------------------------------------------------- cost
def costs(study: Study) -> pd.DataFrame:
    """Level, weights, seconds of training and of a test case, and memory of every arm with all combinations."""
    table = cost_table(study)
    level = {arm_name(arm): values.to_numpy().mean() for arm, values in levels(study).items()}
    rows = table.loc[[name for name in table.index if name in level]].copy()
    rows.insert(0, "Dice, %", [level[name] for name in rows.index])
    rows["evaluation / s"] /= len(study.tested)
    return rows.rename(columns={"evaluation / s": "a case, 15 combinations / s"})


def front(costs: pd.DataFrame, price: str) -> list[str]:
    """The networks than which no cheaper one has a higher level, cheapest first."""
    best, found = -math.inf, []
    for name, row in costs.sort_values([price, "Dice, %"], ascending=[True, False]).iterrows():
        if row["Dice, %"] > best:
            best = row["Dice, %"]
            found.append(str(name))
    return found


@styled
def pareto(study: Study) -> Figure:
    """Level against seconds of training and against seconds of a case; a line joins the networks of the front."""
    table = costs(study)
    styles = {arm_name(arm): arm_style(arm) for arm in study.whole}
    figure, axes = new_figure(8.5, 3.6, 1, 2, sharey=True)
    for axis, price in zip(axes[0], ("training / s", "a case, 15 combinations / s"), strict=True):
        for name, row in table.iterrows():
            colour, marker, _ = styles[str(name)]
            axis.plot(row[price], row["Dice, %"], marker=marker, color=colour, linestyle="none", label=name)
        best = table.loc[front(table, price)]
        axis.plot(best[price], best["Dice, %"], color="#888888", linewidth=1, zorder=0)
        axis.set_xlabel(price)
        axis.set_xscale("log")
    axes[0, 0].set_ylabel("Dice, %, mean of 15 combinations")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


# --------------------------------------------------------------------------------------------------------- calibration
def calibration(study: Study, target: str = "et", blind: str = "t1ce") -> pd.DataFrame:
    """Calibration error and entropy in the tumour with all modalities and without one, means over seeds and cases.

    Args:
        study: whose runs were scored for it.
        target: the region.
        blind: the modality that alone shows it.

    Returns:
        One row per arm with all combinations; empty where calibration was not scored.
    """
    rows = study.results.scores
    rows = rows[rows["metric"].isin(("ece", "entropy-inside")) & rows["target"].eq(target)]
    given = {"all": label(MRI, MRI), f"without {blind}": label([name for name in MRI if name != blind], MRI)}
    found: dict[str, dict[str, float]] = {}
    for arm in study.whole:
        method, _, variant = arm.partition(" ")
        mine = rows[rows["method"].eq(method) & (rows["variant"].eq(variant) if variant else True)]
        if mine.empty:
            continue
        means = mine.groupby(["metric", "available"], observed=True)["value"].mean()
        found[arm_name(arm)] = {
            f"{name}, {said}": scale * means[metric, available]
            for metric, name, scale in (("ece", "calibration error, %", 100), ("entropy-inside", "entropy, bits", 1))
            for said, available in given.items()
        }
    return pd.DataFrame.from_dict(found, orient="index")


def knows(table: pd.DataFrame) -> str:
    """How many networks are less sure in the tumour without the modality than with all, as a text."""
    entropy = table[[name for name in table if name.startswith("entropy")]]
    less = (entropy.iloc[:, 1] > entropy.iloc[:, 0]).sum()
    return f"{less} of {len(table)}"
