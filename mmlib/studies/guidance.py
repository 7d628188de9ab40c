"""Deep Multimodal Guidance on skin lesions and brain tumours: the tables and figures of its chapter.

A row is a trained model (`inferior`, `guided`, `combined` and so on, see `ROWS`), a target is a task. Scores are in
points (percent), laid out as tables (seeds, cases), so that every comparison is paired by seed and case. Balanced
accuracy enters as influence values (`mmlib.analysis.per_case`), whose mean over cases is the statistic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmlib.analysis.per_case import balanced_accuracy_values
from mmlib.analysis.results import Results, read_arrays
from mmlib.analysis.statistics import Effect, by_seed_and_case, holm, mean_interval, paired_effects, tost
from mmlib.analysis.wording import counted, format_effect, format_interval, outcome
from mmlib.data import derm7pt, radpath
from mmlib.data.phantoms.glioma import model as histology
from mmlib.data.phantoms.lesion import model as lesion
from mmlib.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    new_figure,
    styled,
)
from mmlib.ledgers.claims import effect_rows

TASKS = tuple(derm7pt.TASKS)
TARGETS = {"derm7pt": TASKS, "radpath": ("class",)}  # experiment -> what its mean is taken over
LABELS = {"derm7pt": "lesions, mean of eight tasks", "radpath": "tumour class"}
NOUNS = {"derm7pt": "lesion", "radpath": "tumour"}
REPLICA = "replica"  # target: the tumour class on a test set of the published size
ROWS = {  # row -> name, colour, marker
    "inferior": ("I", BLACK, "s"),
    "superior": ("S", GREY, "P"),
    "both": ("I+S", GREEN, "^"),
    "guided-b": ("G(I), stage (b)", YELLOW, "<"),
    "guided": ("G(I), stage (c)", ORANGE, ">"),
    "combined-b": ("G(I)+I, G of stage (b)", SKY, "v"),
    "combined": ("G(I)+I", BLUE, "o"),
    "wider": ("wider head on I", PURPLE, "D"),
    "shuffled": ("G(I)+I, shuffled pairs", VERMILLION, "X"),
    "released": ("G(I)+I, released head", "#882255", "d"),
    "joint": ("G(I)+I in one stage", "#999933", "p"),
}
PARTS = {  # row -> what it changes in G(I)+I
    "combined-b": "without stage (c)",
    "guided": "without I (stage (d) left out)",
    "shuffled": "shuffled pairs",
    "wider": "no guidance, head of equal size",
    "released": "released head",
    "joint": "one stage",
}
STAGES = {  # in the histories -> title
    "a inferior": "(a) I",
    "a superior": "(a) S",
    "b guided": "(b)",
    "c guided": "(c)",
    "d combined": "(d)",
    "joint": "one stage",
}
LATENTS = {  # in the stored files -> name
    "inferior": "z_I",
    "guided_b": "G(z_I), stage (b)",
    "guided": "G(z_I), stage (c)",
    "superior": "z_S",
}
SESOI = 2.0  # points of balanced accuracy, as in the claims ledger
Latents = dict[tuple[str, str], Mapping[str, np.ndarray]]  # experiment, seed -> arrays by name
Ceilings = dict[str, dict[str, float]]  # what is available -> target -> percent


# ------------------------------------------------------------------------------------------------------------ scores
@dataclass(frozen=True)
class Scores:
    """The scores of both experiments, in points.

    Attributes:
        tables: experiment, metric, row, target -> (seeds, cases).
    """

    tables: Mapping[tuple[str, str, str, str], pd.DataFrame]

    @classmethod
    def from_scores(cls, scores: pd.DataFrame) -> Scores:
        """From tidy scores in [0, 1], as `mmlib.analysis.results.Results.scores`."""
        groups = scores.groupby(["experiment", "metric", "variant", "target"], sort=False)
        return cls({key: 100 * part.pivot(index="seed", columns="case", values="value") for key, part in groups})

    def has(self, experiment: str, row: str, target: str | None = None, metric: str = "balanced") -> bool:
        """Whether a row was scored on a target; None: on the first of the experiment."""
        return (experiment, metric, row, target or TARGETS[experiment][0]) in self.tables

    def table(
        self, experiment: str, row: str, targets: str | Sequence[str] | None = None, metric: str = "balanced"
    ) -> pd.DataFrame:
        """(seeds, cases) of one row: the mean over targets; None: over all of the experiment.

        Raises:
            KeyError: if the row has no such score.
        """
        names = [targets] if isinstance(targets, str) else list(targets or TARGETS[experiment])
        total = self.tables[experiment, metric, row, names[0]]
        for name in names[1:]:
            total = total + self.tables[experiment, metric, row, name]
        return total / len(names)

    def effects(
        self, experiment: str, pairs: Iterable[tuple[str, str]], targets: str | Sequence[str] | None = None
    ) -> list[Effect]:
        """Points of balanced accuracy by which the first row of each pair lies above the second."""
        return paired_effects(
            [(self.table(experiment, a, targets), self.table(experiment, b, targets)) for a, b in pairs]
        )

    def effect(self, experiment: str, row: str, other: str, targets: str | Sequence[str] | None = None) -> Effect:
        """`effects` of one pair."""
        return self.effects(experiment, [(row, other)], targets)[0]

    def rows(self, experiment: str) -> list[str]:
        """The rows that were scored, in the order of `ROWS`."""
        return [row for row in ROWS if self.has(experiment, row)]

    def cases(self, experiment: str, target: str | None = None) -> int:
        """Number of test cases; 0 where the target was not scored."""
        key = (experiment, "balanced", "inferior", target or TARGETS[experiment][0])
        return self.tables[key].shape[1] if key in self.tables else 0

    def seeds(self, experiment: str, metric: str = "balanced") -> list[int]:
        """The numbers of seeds that rows have; published results hold some metrics of a part of the seeds."""
        return sorted({len(table) for key, table in self.tables.items() if key[:2] == (experiment, metric)})

    def sample(self, experiment: str, kind: str, metric: str = "balanced") -> str:
        """For captions: `1,000 test lesions (phantom), 3 seeds`."""
        number, seeds = self.cases(experiment), self.seeds(experiment, metric)
        noun = f"test {NOUNS[experiment]}" + ("" if number == 1 else "s")
        trained = counted(seeds[-1], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
        return f"{number:,} {noun} ({kind}), {trained}"


def recall_error(counts: Sequence[int], recall: float) -> float:
    """Standard error, in points, of a balanced accuracy over classes with these numbers of cases and this recall."""
    return 100 * sum(recall * (1 - recall) / n for n in counts) ** 0.5 / len(counts)


def _with_interval(values: pd.DataFrame) -> str:
    mean, low, high = mean_interval(values)
    return f"{mean:.1f} ({format_interval(low, high, between='-')})"


def lesion_table(scores: Scores) -> pd.DataFrame:
    """Every row's balanced accuracy on the eight tasks and their mean, and the AUROC of melanoma; with intervals."""
    rows = {
        ROWS[row][0]: {
            **{task: _with_interval(scores.table("derm7pt", row, task)) for task in TASKS},
            "mean": _with_interval(scores.table("derm7pt", row)),
            "melanoma": _with_interval(scores.table("derm7pt", row, "melanoma", "auroc")),
            "paper": "",
        }
        for row in scores.rows("derm7pt")
    }
    return pd.DataFrame(rows).T


def tumour_table(scores: Scores) -> pd.DataFrame:
    """Every row's balanced accuracy on all test tumours and, where there is one, on a test set of published size."""
    targets = {f"{scores.cases('radpath'):,} cases": "class"}
    if few := scores.cases("radpath", REPLICA):
        targets[f"{few} cases"] = REPLICA
    rows = [
        {"": ROWS[row][0]}
        | {name: _with_interval(scores.table("radpath", row, target)) for name, target in targets.items()}
        for row in scores.rows("radpath")
    ]
    return pd.DataFrame(rows).assign(paper="")


# -------------------------------------------------------------------------------------------------- data and training
def phantom_ceilings(lesions: bool, tumours: bool, mri: str = "t1ce") -> Ceilings:
    """The best attainable balanced accuracy (and AUROC of melanoma) in percent, by enumeration.

    Args:
        lesions, tumours: whether these are phantoms; nobody knows the ceiling of patients' data.
        mri: sequence of the tumours' inferior image.

    Returns:
        `I`, `S`, `I+S` -> target -> percent; empty if neither is a phantom.
    """
    ceilings: Ceilings = {}
    if lesions:
        for row, names in {"I": ["clinic"], "S": ["derm"], "I+S": ["clinic", "derm"]}.items():
            best = 100 * lesion.ceiling(*names)["balanced_accuracy"]
            ceilings[row] = {**best.to_dict(), "melanoma, AUROC": 100 * lesion.melanoma_ceiling(*names)}
    if tumours:
        for row, names in {"I": [mri], "S": ["slide"], "I+S": [mri, "slide"]}.items():
            best = 100 * histology.ceiling(*names)["balanced_accuracy"]
            ceilings.setdefault(row, {})["tumour class"] = float(best)
    return ceilings


def _ceiling(column: Mapping[str, float], experiment: str) -> float | None:
    if experiment == "radpath":
        return column.get("tumour class")
    return float(np.mean([column[task] for task in TASKS])) if "DIAG" in column else None


def headroom(scores: Scores, ceilings: Ceilings) -> tuple[float | None, float]:
    """The best attainable balanced accuracy of I on lesions (None: not known) and what I reaches, %; means of tasks."""
    reached = float(scores.table("derm7pt", "inferior").to_numpy().mean())
    return _ceiling(ceilings.get("I", {}), "derm7pt"), reached


@styled
def portraits(lesions: Any, tumours: Any) -> Figure:
    """One test case of every diagnosis and tumour class: the inferior image above, the superior one below.

    Args:
        lesions, tumours: test parts, as `mmlib.data.derm7pt.load` and `mmlib.data.radpath.load` give them.
    """
    columns = []
    for cases, labels, names in (
        (lesions, lesions.labels[:, 0], derm7pt.TASKS["DIAG"]),
        (tumours, tumours.labels, radpath.CLASSES),
    ):
        for k, name in enumerate(names):
            if (labels == k).any():
                columns.append((name, cases[[int((labels == k).nonzero()[0])]]["inputs"]))
    figure, axes = new_figure(9, 2.7, 2, len(columns))
    for column, (name, images) in zip(axes.T, columns, strict=True):
        column[0].set_title(name)
        if "mri" in images:
            volume = images["mri"][0, 0]
            column[0].imshow(volume[:, :, volume.shape[2] // 2].T.flip(0), cmap="gray")
            column[1].imshow(images["slide"][0, 0].permute(1, 2, 0))
        else:
            for axis, modality in zip(column, derm7pt.MODALITIES, strict=True):
                axis.imshow(images[modality][0].permute(1, 2, 0))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    axes[0, 0].set_ylabel("inferior")
    axes[1, 0].set_ylabel("superior")
    return figure


def stage_histories(runs: Results, experiment: str) -> pd.DataFrame:
    """The training histories of an experiment, with every training case paired: stage, seed, loss and others."""
    names = runs.records.loc[runs.records["experiment"].eq(experiment), "run"]
    history = pd.concat([runs.history(name, experiment) for name in names])
    return history[history["paired"].eq(100)]


@styled
def stage_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """The loss of every stage against the step, running means; a row per experiment, a line per seed.

    Args:
        histories: experiment -> as `stage_histories`.
    """
    figure, axes = new_figure(9, 1.9 * len(histories), len(histories), len(STAGES))
    for row, (experiment, history) in zip(axes, histories.items(), strict=True):
        for axis, (stage, title) in zip(row, STAGES.items(), strict=True):
            for _, part in history[history["stage"].eq(stage)].groupby("seed"):
                loss = part["loss"].reset_index(drop=True)
                smooth = loss.rolling(max(1, len(loss) // 20), min_periods=1).mean()
                axis.plot(smooth, linewidth=1, color=BLUE, alpha=0.7)
            axis.set_ylim(bottom=0)
            axis.set_title(title)
        row[0].set_ylabel(f"{experiment}\nloss, running mean")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return figure


def speed_ratios(records: pd.DataFrame) -> pd.Series:
    """Experiment -> how many times as fast a step of stage (b) is on kept latents; medians over runs."""
    timed = records.dropna(subset=["speed.cached"])
    ratio = timed["speed.anew"] / timed["speed.cached"]
    return ratio.groupby(timed["experiment"], sort=False).median()


# --------------------------------------------------------------------------------------------------------- comparisons
@styled
def ladder(scores: Scores, ceilings: Ceilings) -> Figure:
    """Balanced accuracy of every row with its interval, one panel per experiment; dotted: the best attainable."""
    figure, axes = new_figure(9, 4.2, 1, 2, sharey=True)
    order = list(ROWS)[::-1]
    for axis, experiment in zip(axes[0], TARGETS, strict=True):
        for row in scores.rows(experiment):
            mean, low, high = mean_interval(scores.table(experiment, row))
            _, colour, marker = ROWS[row]
            place = order.index(row)
            axis.hlines(place, low, high, color=colour)
            axis.plot(mean, place, marker, color=colour, markeredgecolor="black", markeredgewidth=0.3)
        for name, column in ceilings.items():
            best = _ceiling(column, experiment)
            if best is not None:
                side = {"S": "right", "I+S": "left"}.get(name, "center")
                axis.axvline(best, color="#888888", linestyle=":", linewidth=1)
                axis.text(
                    best, len(order) - 0.35, f" {name} ", ha=side, va="bottom", fontsize=8, color="#555555"
                )  # fmt: skip
        axis.set_title(LABELS[experiment], pad=16)
        axis.set_xlabel("balanced accuracy, %")
    axes[0, 0].set_yticks(range(len(order)), [ROWS[row][0] for row in order])
    return figure


def gains_over_inferior(scores: Scores, rows: Sequence[str]) -> pd.DataFrame:
    """Points of balanced accuracy over I, for every row and task.

    Returns:
        row, task, effect (an `Effect`), p (Student's test on differences of cases, averaged over seeds: that of a
        difference of balanced accuracies), holm (adjusted over the tasks of a row).
    """
    parts = []
    for row in rows:
        cells = [(experiment, task) for experiment, tasks in TARGETS.items() for task in tasks]
        pairs = [(scores.table(name, row, task), scores.table(name, "inferior", task)) for name, task in cells]
        first = len(TASKS)
        effects = [*paired_effects(pairs[:first]), *paired_effects(pairs[first:])]
        p = [float(ttest_1samp(a.mean() - b.mean(), 0).pvalue) for a, b in pairs]
        tasks = [task for _, task in cells]
        parts.append(pd.DataFrame({"row": row, "task": tasks, "effect": effects, "p": p, "holm": holm(p)}))
    return pd.concat(parts, ignore_index=True)


def gain_table(gains: pd.DataFrame) -> pd.DataFrame:
    """`gains_over_inferior` as texts, tasks by rows; a star marks an adjusted p below 0.05."""
    stars = np.where(gains["holm"] < 0.05, " *", "")
    wide = gains.assign(text=gains["effect"].map(format_effect) + stars)
    wide = wide.pivot(index="task", columns="row", values="text")
    wide = wide.loc[gains["task"].unique(), gains["row"].unique()]
    return wide.rename(columns=lambda row: ROWS[row][0]).rename_axis(columns=None, index=None)


def equivalence_table(scores: Scores, pairs: Sequence[tuple[str, str]], margin: float = SESOI) -> pd.DataFrame:
    """Whether two rows are equivalent within a margin in points: two one-sided tests, and the interval inside it."""
    rows = []
    for experiment, label in LABELS.items():
        for row, other in pairs:
            if {row, other} <= set(scores.rows(experiment)):
                difference = scores.table(experiment, row).mean() - scores.table(experiment, other).mean()
                effect = scores.effect(experiment, row, other)
                inside = -margin < effect.low and effect.high < margin
                rows.append(
                    {
                        "": label,
                        "compared": f"{ROWS[row][0]} - {ROWS[other][0]}",
                        "points": format_effect(effect),
                        "p of equivalence": tost(difference, margin),
                        f"equivalent within {margin:g} points": "shown" if inside else "not shown",
                    }
                )
    return pd.DataFrame(rows)


def small_test_table(scores: Scores) -> pd.DataFrame:
    """The same networks judged by a test set of the published size and by all test tumours.

    Returns:
        test set, compared, points, half of the interval (points); no row where there is no small test set.
    """
    pairs = [("combined", "superior"), ("combined", "inferior"), ("superior", "inferior")]
    targets = [target for target in (REPLICA, "class") if scores.cases("radpath", target)]
    rows = [
        {
            "test set": f"{scores.cases('radpath', target):,} cases",
            "compared": f"{ROWS[a][0]} - {ROWS[b][0]}",
            "points": format_effect(effect),
            "half of the interval": effect.half_width,
        }
        for target in (targets if REPLICA in targets else [])
        for (a, b), effect in zip(pairs, scores.effects("radpath", pairs, target), strict=True)
    ]
    return pd.DataFrame(rows, columns=["test set", "compared", "points", "half of the interval"])


def conditions_table(scores: Scores) -> pd.DataFrame:
    """Conditions on the data and the controls, set before the runs: what has to hold, points, holds (yes or NO)."""
    checks: list[tuple[str, Effect, bool]] = []
    for experiment, label in LABELS.items():
        premise, capacity = scores.effects(experiment, [("superior", "inferior"), ("shuffled", "combined")])
        checks.append((f"{label}: S beats I, interval above 0", premise, premise.low > 0))
        text = f"{label}: shuffled pairs do not beat G(I)+I by more than the interval"
        checks.append((text, capacity, capacity.low <= 0))
    for experiment, tasks in TARGETS.items():
        for task in tasks:
            effect = scores.effect(experiment, "inferior", "chance", task)
            checks.append((f"{task}: I above chance, interval above 0", effect, effect.low > 0))
    rows = [(text, format_effect(effect), "yes" if holds else "NO") for text, effect, holds in checks]
    return pd.DataFrame(rows, columns=["what has to hold", "points", "holds"])


def ablation(scores: Scores) -> pd.DataFrame:
    """What G(I)+I gains over itself with one part changed, as rows of a forest plot."""
    names, effects = [], []
    for experiment, noun in NOUNS.items():
        for row, words in PARTS.items():
            names.append(f"{noun}s: {words}")
            effects.append(scores.effect(experiment, "combined", row))
    return effect_rows(names, effects, SESOI, "points of balanced accuracy")


def gains_in_words(scores: Scores, rows: Sequence[str] = ("superior", "guided", "combined", "joint")) -> dict[str, str]:
    """For the prose: `lesions_guided` -> `gains +1.2 points (+0.3 to +2.1)` over I; the mean over tasks."""
    words = ("gains", "loses", "shows no clear gain:")
    texts = {}
    for experiment, noun in NOUNS.items():
        for row, effect in zip(rows, scores.effects(experiment, [(r, "inferior") for r in rows]), strict=True):
            texts[f"{noun}s_{row}"] = f"{outcome(effect, words)} {format_effect(effect, unit='points')}"
    return texts


# -------------------------------------------------------------------------------------------------------------- latents
def read_latents(runs: Results) -> Latents:
    """The latents of the test cases that the runs stored: arrays by the names of `LATENTS`, labels and case."""
    files: Latents = {}
    for row in runs.records.itertuples():
        for path in sorted(Path(runs.folder(row.run, row.experiment)).glob("latents-s*.npz")):
            files[row.experiment, path.stem.rsplit("-s", 1)[1]] = read_arrays(path)
    return files


def probe_values(latents: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How well a linear classifier reads a task from latents: fitted on one half of the cases, scored on the other.

    Args:
        latents: (n, F). truth: class ids (n,).

    Returns:
        (n,) influence values of the balanced accuracy, in points; both halves are scored.
    """
    predicted = np.empty_like(truth)
    half = np.arange(len(truth)) % 2 == 0
    for part in (half, ~half):
        if len(np.unique(truth[part])) == 1:
            predicted[~part] = truth[part][0]
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=300, class_weight="balanced"))
        predicted[~part] = probe.fit(latents[part], truth[part]).predict(latents[~part])
    return 100 * balanced_accuracy_values(predicted, truth)


def probe_scores(latents: Latents) -> pd.DataFrame:
    """`probe_values` of all seeds, tasks and kinds of latents: seed, case, task, latent, value."""
    parts = []
    for (experiment, seed), file in latents.items():
        for column, task in enumerate(TARGETS[experiment]):
            for name in LATENTS:
                values = probe_values(file[name], file["labels"][:, column])
                parts.append(
                    pd.DataFrame({"seed": seed, "case": file["case"], "task": task, "latent": name, "value": values})
                )
    return pd.concat(parts)


def probe_effects(probes: pd.DataFrame) -> pd.DataFrame:
    """What linear probes read, per task.

    Args:
        probes: as `probe_scores`.

    Returns:
        task; the mean of each kind of latents, %; crossing, the `Effect` of guided (stage (b)) over inferior latents;
        kept_back, that of superior over guided ones.
    """
    rows = []
    for task in probes["task"].unique():
        part = probes[probes["task"].eq(task)]
        tables = {name: by_seed_and_case(part[part["latent"].eq(name)]) for name in LATENTS}
        crossing, kept_back = paired_effects(
            [(tables["guided_b"], tables["inferior"]), (tables["superior"], tables["guided_b"])]
        )
        means = {name: table.to_numpy().mean() for name, table in tables.items()}
        rows.append({"task": task, **means, "crossing": crossing, "kept_back": kept_back})
    return pd.DataFrame(rows)


def probe_table(effects: pd.DataFrame, lesion_phantom: bool, ceilings: Ceilings) -> pd.DataFrame:
    """`probe_effects` for a page; on the phantom with how often the photograph shows a sign, and the ceiling of I."""
    table = effects[["task"]].join(effects[list(LATENTS)].rename(columns=LATENTS))
    table["G(z_I) of (b) - z_I"] = effects["crossing"].map(format_effect)
    table["z_S - G(z_I) of (b)"] = effects["kept_back"].map(format_effect)
    if lesion_phantom:
        table["shown by the photograph, %"] = 100 * effects["task"].map(lesion.VISIBILITY["clinic"])
    if ceilings:
        table["ceiling of I"] = effects["task"].replace("class", "tumour class").map(ceilings["I"])
    table["crosses over"] = ["yes" if effect.low > 0 else "no" for effect in effects["crossing"]]
    return table


def tasks_read(effects: pd.DataFrame, word: str) -> str:
    """Tasks that guided latents tell `better` or `worse` than inferior ones, with the interval on one side of zero."""
    outcomes = [outcome(effect, ("better", "worse", "undecided")) for effect in effects["crossing"]]
    return ", ".join(effects.loc[[one == word for one in outcomes], "task"]) or "no task"


def latent_pairs(latents: Latents, most: int = 200) -> dict[str, np.ndarray]:
    """Superior and guided latents (stage (b)) of the first seed: experiment -> (n, 2, F), of at most `most` cases."""
    pairs: dict[str, np.ndarray] = {}
    for (experiment, _), file in latents.items():
        if experiment not in pairs:
            pairs[experiment] = np.stack([file["superior"], file["guided_b"]], axis=1)[:most]
    return pairs


def spread_ratio(pairs: np.ndarray) -> float:
    """How much guided latents vary, relative to superior ones: the ratio of mean standard deviations of a feature."""
    return float(pairs[:, 1].std(axis=0).mean() / pairs[:, 0].std(axis=0).mean())


def match_table(scores: Scores, rows: Sequence[str] = ("guided-b", "guided", "combined")) -> pd.DataFrame:
    """AUROC, %, with which a small distance between G(z_I) and z_S tells right answers; a column per task.

    Two controls of each row follow: the distance to z_S of another case, and the confidence of the answer.
    """
    cells = [(experiment, task) for experiment, tasks in TARGETS.items() for task in tasks]
    told = {"match": "", "match-other": ", to another case", "confidence": ", confidence instead"}
    return pd.DataFrame(
        [
            {"": ROWS[row][0] + words}
            | {
                task: _with_interval(scores.table(experiment, row, task, metric))
                for experiment, task in cells
                if scores.has(experiment, row, task, metric)
            }
            for metric, words in told.items()
            for row in rows
            if any(scores.has(experiment, row, task, metric) for experiment, task in cells)
        ]
    )


# --------------------------------------------------------------------------------------------------- shares of pairs
def paired_shares(records: pd.DataFrame) -> list[int]:
    """The shares of paired training cases, %, that the runs on lesions were made with."""
    asked = records.loc[records["experiment"].eq("derm7pt"), "parameters.paired"]
    return sorted({share for shares in asked for share in shares})


def at_share(row: str, share: int) -> str:
    """The name of a row that was trained with a share of paired cases, %."""
    return row if share == 100 else f"{row}@{share}"


@styled
def pairs_figure(scores: Scores, shares: Sequence[int]) -> Figure:
    """Mean balanced accuracy on lesions against the share of paired training cases; grey: the interval of I."""
    figure, axes = new_figure(7, 3.4)
    axis = axes[0, 0]
    _, low, high = mean_interval(scores.table("derm7pt", "inferior"))
    axis.axhspan(low, high, color="#E4E4E4", label="I")
    for place, row in enumerate(("superior", "guided", "combined")):
        tables = [scores.table("derm7pt", at_share(row, share)) for share in shares]
        means, lows, highs = zip(*map(mean_interval, tables), strict=True)
        name, colour, marker = ROWS[row]
        x = np.array(shares) * 1.04 ** (place - 1)
        axis.vlines(x, lows, highs, color=colour, linewidth=1)
        axis.plot(x, means, marker=marker, color=colour, linewidth=0.8, label=name)
    axis.set_xscale("log")
    axis.set_xticks(shares, [str(share) for share in shares])
    axis.minorticks_off()
    axis.set(xlabel="paired training cases, %", ylabel="balanced accuracy, %")
    figure.legend(loc="outside lower center", ncols=4)
    return figure
