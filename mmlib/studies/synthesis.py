"""M2DN on the layouts of BraTS and IXI: the tables and figures of its chapter.

An arm is a trained network or a trivial baseline (`m2dn unet`, `regression`, `floors mean` and so on, see `NAMES`).
PSNR is in dB; scores are laid out as tables (seeds, subjects), so that every comparison is paired by subject and, where
both arms have the same seeds, by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import (
    Effect,
    cell_means,
    holm,
    mean_interval,
    page_trend,
    shared_effect,
)
from mmlib.analysis.wording import counted, format_effect, format_interval, listed, quick, select
from mmlib.data.slices import Slices, axial_slices, patterns
from mmlib.data.splits import read_split
from mmlib.figures.results import arm_of
from mmlib.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, new_figure, styled
from mmlib.ledgers.claims import effect_rows
from mmlib.methods import m2dn
from mmlib.modalities import IXI, MRI, label

DIALLED = ("hallucination-0", "hallucination-50", "hallucination-100")
EXPERIMENTS = (  # those of the second line may be absent from a profile
    *("synthesis", "synthesis-steps", "synthesis-ixi", "synthesis-sampling", "synthesis-studies"),
    *("synthesis-2mm", *DIALLED, *(f"{experiment}-images" for experiment in DIALLED)),
)
LAYOUTS = {"synthesis": ("BraTS layout", MRI), "synthesis-ixi": ("IXI layout", IXI)}  # experiment -> name, modalities
NAMES = {
    "m2dn paper": "M2DN, as drawn",
    "m2dn unet": "M2DN, U-Net",
    "m2dn sample": "M2DN, U-Net, one sample",
    "m2dn skips": "M2DN, as drawn, with skips",
    "m2dn noise": "prediction of noise, as drawn",
    "m2dn unet-noise": "prediction of noise, U-Net",
    "regression": "regression U-Net",
    "regression unet": "regression, U-Net of M2DN",
    "mm-gan": "MM-GAN",
    "floors mean": "mean image",
    "floors nearest": "nearest modality",
    "m2dn no-mask": "without M (U+J)",
    "m2dn no-joint": "without J (U+M)",
    "m2dn neither": "without both (U)",
    "m2dn cdm-joint": "dedicated (J)",
    "m2dn cdm": "dedicated",
}
STYLE = {  # arm -> colour, marker
    "m2dn paper": (BLUE, "o"),
    "m2dn unet": (SKY, "s"),
    "m2dn sample": (PURPLE, "v"),
    "regression": (VERMILLION, "D"),
    "mm-gan": (GREEN, "^"),
    "floors mean": (GREY, "X"),
    "floors nearest": (ORANGE, "P"),
}
MAIN = ("m2dn paper", "m2dn unet", "regression", "mm-gan", "floors nearest", "floors mean")
NETWORKS = ("paper", "unet")  # the two networks of M2DN, as variants
CURVES = (  # experiment, run, variant
    ("synthesis", "m2dn", "paper"),
    ("synthesis", "m2dn-unet", "unet"),
    ("synthesis", "regression", "standard"),
    ("synthesis-ixi", "m2dn", "paper"),
)
PRINTED = {  # arm -> its name in Table VII
    "m2dn no-mask": "cDM(U+J)",
    "m2dn no-joint": "cDM(U+M)",
    "m2dn neither": "cDM(U)",
    "m2dn cdm-joint": "cDM(J)",
    "m2dn cdm": "cDM",
}
MISSING = ("one missing", "several missing")
SINGLE = {target: label([name for name in MRI if name != target], MRI) for target in MRI}  # what is left without it
SESOI = 0.25  # dB, as in the claims ledger
FINER = ("m2dn unet", "regression unet", "floors nearest", "floors mean")  # the arms at 2 mm
TRAINED = {  # experiment with networks of its own -> its data, in the table of costs
    **dict.fromkeys(("synthesis", "synthesis-steps"), "BraTS layout"),
    "synthesis-ixi": "IXI layout",
    "synthesis-2mm": "BraTS layout, 2 mm",
}
BUDGETS = {"equal steps": "synthesis-steps", "equal time": "synthesis"}  # of the rivals -> experiment
NEAR = {"regression": 0.7, "noise": 3.0}  # dB that the U-Net may lie behind its one-pass twin, and noise behind images
Pictures = Mapping[str, np.ndarray]


# ------------------------------------------------------------------------------------------------------------ scores
@dataclass(frozen=True)
class Study:
    """The runs of the chapter's experiments.

    Attributes:
        results: records and scores, as `mmlib.analysis.results.read_runs` returns them.
        scores: the same scores with the column `arm`.
    """

    results: Results
    scores: pd.DataFrame

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row per run, by experiment and run."""
        return self.results.records.set_index(["experiment", "run"])

    def record(self, experiment: str, arm: str) -> pd.Series:
        """The record of the first run that trained an arm, such as `m2dn unet`."""
        method, variant = arm.split()
        rows = self.records.loc[experiment]
        return rows[rows["method"].eq(method) & rows["parameters.variants"].map(lambda names: variant in names)].iloc[0]

    def part(self, experiment: str) -> pd.DataFrame:
        """The scores of one experiment."""
        return self.scores[self.scores["experiment"].eq(experiment)]

    def has(self, experiment: str, **conditions: str) -> bool:
        """Whether an experiment has a score that meets the conditions (column -> value)."""
        part = self.part(experiment)
        return bool(np.logical_and.reduce([part[name].eq(value) for name, value in conditions.items()]).any())

    def table(
        self,
        experiment: str,
        arm: str,
        metric: str,
        available: str | Sequence[str] | None = None,
        target: str | None = None,
    ) -> pd.DataFrame:
        """Seeds by subjects of one arm; the mean over the combinations and targets asked for.

        Raises:
            ValueError: if there is no such score.
        """
        asked = {"available": available, "target": target}
        wanted = {name: value for name, value in asked.items() if value is not None}
        return select(self.scores, experiment=experiment, arm=arm, metric=metric, **wanted)

    def studied(
        self, metric: str, variant: str, target: str | None = None, available: str | Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Seeds by subjects of a variant in `synthesis-studies`; the mean over what is left open.

        Raises:
            ValueError: if there is no such score.
        """
        asked = {"available": available, "target": target}
        wanted = {name: value for name, value in asked.items() if value is not None}
        return select(self.scores, experiment="synthesis-studies", metric=metric, variant=variant, **wanted)

    def gain(
        self,
        arm: str,
        rival: str,
        experiment: str = "synthesis",
        missing: str = "one missing",
        rivals: str | None = None,
    ) -> Effect:
        """By how many dB of mean PSNR an arm lies above its rival, which may stand in the experiment `rivals`."""
        first = self.table(experiment, arm, "psnr-mean", missing)
        return shared_effect(first, self.table(rivals or experiment, rival, "psnr-mean", missing))

    @cached_property
    def better(self) -> str:
        """The variant of M2DN, `paper` or `unet`, with the higher PSNR on validation subjects."""
        return max(NETWORKS, key=lambda name: self.table("synthesis", f"m2dn {name}", "valid-psnr").to_numpy().mean())

    @property
    def better_arm(self) -> str:
        """The arm of `better`."""
        return f"m2dn {self.better}"

    def network_gain(self) -> Effect:
        """What the U-Net is worth against the network as drawn on validation subjects, dB."""
        return shared_effect(*(self.table("synthesis", f"m2dn {name}", "valid-psnr") for name in ("unet", "paper")))

    def sample(self, experiment: str) -> str:
        """For captions: `n = 12 test subjects, 3 seeds, phantom, BraTS layout`."""
        main = self.table(experiment, "m2dn paper", "psnr")
        data = "phantom" if bool(self.records["stand_in"].all()) else "your own cases"
        return f"n = {main.shape[1]} test subjects, {counted(len(main), 'seed')}, {data}, {LAYOUTS[experiment][0]}"


def read_study(results: Results) -> Study:
    """The runs of the chapter's experiments, with the arm of each score."""
    records, scores = (part[part["experiment"].isin(EXPERIMENTS)] for part in (results.records, results.scores))
    return Study(Results(records, scores), quick(scores.assign(arm=arm_of(scores))))


def contrasts(study: Study, rows: Iterable[tuple[str, str, str, str, str]]) -> pd.DataFrame:
    """Differences of mean PSNR as rows of a forest plot, judged as the ledger would.

    Args:
        rows: name, experiment, arm, rival, what is missing (`one missing`, `several missing`).

    Returns:
        As `mmlib.ledgers.claims.effect_rows`, in dB.
    """
    rows = list(rows)
    effects = [study.gain(arm, rival, experiment, missing) for _, experiment, arm, rival, missing in rows]
    return effect_rows([row[0] for row in rows], effects, SESOI, "dB")


# ------------------------------------------------------------------------------------------------------ paper and data
def read_published(folder: Path) -> dict[int, pd.DataFrame]:
    """Number of a table -> its printed numbers, as far as they are at hand."""
    return {number: pd.read_csv(folder / f"m2dn_table{number}.csv") for number in (1, 2, 3, 6, 7)}


def printed_facts(published: Mapping[int, pd.DataFrame]) -> dict[str, str]:
    """What is odd about the printed numbers, as texts by name."""
    three = published[1].query("method == 'M2DN' and available == '3 of 4'")["psnr_db"].mean()
    seconds = published[3].set_index("method")["seconds"]
    dice = published[6].set_index("method").loc[["complete"], "dice"].iloc[0]
    return {
        "printed_three": f"{three:.2f}",
        "printed_whole": f"{printed_psnr(published, 'M2DN (U+J+M)', 'one missing'):.2f}",
        "printed_dice": f"{dice:.3f}",
        "printed_seconds": f"{seconds['M2DN']:.1f}",
        "printed_unit_ddpm": f"{seconds['UNIT-DDPM']:.1f}",
        "printed_speed": f"{seconds['UNIT-DDPM'] / seconds['M2DN']:.0f}",
        "printed_over_gan": f"{seconds['M2DN'] / seconds['MM-GAN']:.0f}",
    }


def printed_psnr(published: Mapping[int, pd.DataFrame], method: str, missing: str) -> float:
    """A cell of Table VII, dB."""
    return float(published[7].set_index(["method", "missing"]).loc[(method, missing), "psnr_db"])


def example_case(record: pd.Series, root: Path) -> str:
    """The name of the first test case of a run.

    Args:
        record: of the run; names its split.
        root: of the project, where a split that is a file lies.
    """
    split = record["parameters.split"]
    return read_split(root / split if split.endswith(".csv") else split).test[0]


def example_slices(cases: Any, name: str, record: pd.Series, modalities: Sequence[str]) -> Slices:
    """The slices of a case, of the size that a run took.

    Args:
        cases: such as `BratsFolder(root)` or `IxiFolder(root)`.
        name: of the case.
        record: of the run.
    """
    height, width = record["parameters.size"]
    return axial_slices(cases[[name]], modalities, size=(height, width), stride=8, least_brain=0.15)


def data_table(study: Study) -> pd.DataFrame:
    """What networks are trained and tested on, a row per layout."""
    rows = []
    for experiment, (layout, modalities) in LAYOUTS.items():
        given = {arm: study.record(experiment, arm) for arm in ("m2dn paper", "m2dn unet")}
        drawn = given["m2dn paper"]
        batch = int(drawn["parameters.batch_size"])
        steps = [f"{NAMES[arm]}: {int(one['parameters.steps']):,} x {batch}" for arm, one in given.items()]
        rows.append(
            {
                "data": layout,
                "modalities": ", ".join(modalities),
                "patterns": len(patterns(modalities)),
                "training slices": int(drawn["slices_train"]),
                "test slices": int(drawn["slices_test"]),
                "size": "x".join(map(str, drawn["parameters.size"])),
                "steps x slices": "; ".join(steps),
            }
        )
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------------------ drawing
def upright(image: np.ndarray) -> np.ndarray:
    """A slice (H, W) as radiologists hang it: front at the top, the patient's right on the left."""
    return np.asarray(image, dtype=float)[::-1, ::-1]


def tile(axis: Axes, image: Any, title: str = "", low: float = -1, high: float = 1, **options: Any) -> None:
    """Draw a slice (H, W) on an axis, with the window from `low` to `high`."""
    axis.imshow(upright(image), **{"cmap": "gray", "vmin": low, "vmax": high, "interpolation": "nearest", **options})
    axis.set(xticks=[], yticks=[], title=title)
    axis.title.set_fontsize(8)
    axis.grid(False)
    axis.spines[:].set_visible(False)


@styled
def modalities_side_by_side(shown: Mapping[str, Slices]) -> Figure:
    """One slice of each layout in all of its modalities; the one with most tumour, or the middle one."""
    figure, axes = new_figure(7, 3.9, len(shown), len(MRI))
    for row, (experiment, slices) in enumerate(shown.items()):
        at = len(slices) // 2
        if slices.labels is not None:
            at = int((slices.labels > 0).sum(dim=(1, 2)).argmax())
        for column, axis in enumerate(axes[row]):
            axis.set_visible(column < len(slices.modalities))
            if axis.get_visible():
                tile(axis, slices.images[at, column], slices.modalities[column])
        axes[row, 0].set_ylabel(LAYOUTS[experiment][0])
    return figure


# ----------------------------------------------------------------------------------------------------------- training
def cost_table(study: Study) -> pd.DataFrame:
    """Weights, seconds and memory of the networks of each run that trains any, without those of the dial."""
    rows = study.records[study.records["seconds.train"].gt(0)].reset_index()
    rows = rows[rows["experiment"].isin(TRAINED)]
    count = [_networks(study, row.run, row.experiment) if row.parameter_count else 0 for row in rows.itertuples()]
    rows = rows.assign(networks=count).query("networks > 0")
    return pd.DataFrame(
        {
            "data": rows["experiment"].map(TRAINED),
            "run": rows["run"],
            "variants": rows["parameters.variants"].str.join(" "),
            "weights of one (first variant)": rows["parameter_count"].astype(int),
            "networks": rows["networks"].astype(int),
            "steps of one": rows["parameters.steps"].astype(int),
            "training, s each": rows["seconds.train"] / rows["networks"],
            "peak memory, MiB": rows["peak_memory_mib"],
        }
    )


def _networks(study: Study, run: str, experiment: str) -> int:
    return len(study.results.history(run, experiment)[["variant", "seed", "network"]].drop_duplicates())


def losses(history: pd.DataFrame, variant: str) -> dict[int, pd.Series]:
    """Seed -> running mean of the loss by step, over a twenty-fifth of the steps.

    Args:
        history: variant, network, seed, step, loss; one row per step.
    """
    rows = history[history["variant"].eq(variant) & history["network"].isin(["fit"])]
    return {
        seed: part.set_index("step")["loss"].rolling(max(1, len(part) // 25), min_periods=1).mean()
        for seed, part in rows.groupby("seed")
    }


def training_losses(study: Study) -> dict[str, dict[int, pd.Series]]:
    """Network and layout -> seed -> running mean of the loss, for `CURVES`."""
    return {
        f"{NAMES[run if variant == 'standard' else f'm2dn {variant}']}, {LAYOUTS[experiment][0]}": losses(
            study.results.history(run, experiment), variant
        )
        for experiment, run, variant in CURVES
    }


def halves(curves: Mapping[str, Mapping[int, pd.Series]]) -> dict[str, tuple[float, float]]:
    """The loss half way and at the end, of the first seed."""
    first = {name: by_seed[min(by_seed)] for name, by_seed in curves.items()}
    return {name: (float(loss.iloc[len(loss) // 2]), float(loss.iloc[-1])) for name, loss in first.items()}


@styled
def loss_curves(curves: Mapping[str, Mapping[int, pd.Series]]) -> Figure:
    """The training loss against the step, a panel per network and a line per seed."""
    figure, axes = new_figure(9, 2.6, 1, len(curves), sharey=False)
    for axis, (name, by_seed) in zip(axes[0], curves.items(), strict=True):
        colour = VERMILLION if name.startswith(NAMES["regression"]) else BLUE
        for seed, loss in by_seed.items():
            axis.plot(loss, color=colour, linestyle=("-", "--", ":")[seed % 3], label=f"seed {seed}")
        network, _, layout = name.rpartition(", ")
        axis.set(title=f"{network}\n{layout}", xlabel="step", yscale="log")
    axes[0, 0].set_ylabel("loss, running mean")
    return figure


# ------------------------------------------------------------------------------------------------------ every pattern
def by_observed(
    study: Study, experiment: str, metric: str, digits: int = 1, factor: float = 1.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The shape of Tables I and II: means with intervals by number of observed modalities, and the best of each cell.

    Args:
        metric: such as `psnr`; of `mae` the lowest is the best.
        factor: 100 turns shares into percent.

    Returns:
        Rows: observed and method; columns: targets. Texts, and a table of the same shape, True where the cell is best.
    """
    modalities = LAYOUTS[experiment][1]
    texts: dict[tuple[str, str], dict[str, str]] = {}
    best: dict[tuple[str, str], dict[str, bool]] = {}
    pick = min if metric.startswith("mae") else max
    for observed in range(len(modalities) - 1, 0, -1):
        row = f"{observed} of {len(modalities)}"
        for target in modalities:
            wanted = [label(one, modalities) for one in patterns(modalities) if len(one) == observed]
            wanted = [name for name in wanted if target not in name.split("+")]
            cells = {arm: factor * study.table(experiment, arm, metric, wanted, target) for arm in MAIN}
            means = {arm: float(cell.to_numpy().mean()) for arm, cell in cells.items()}
            winner = pick(means, key=lambda arm: means[arm])
            for arm, cell in cells.items():
                mean, low, high = mean_interval(cell)
                text = f"{mean:.{digits}f} ({format_interval(low, high, digits, between='-')})"
                texts.setdefault((row, NAMES[arm]), {})[target] = text
                best.setdefault((row, NAMES[arm]), {})[target] = arm == winner
    names = ["observed", "method"]
    return pd.DataFrame(texts).T.rename_axis(names), pd.DataFrame(best).T.rename_axis(names)


def bold(best: pd.DataFrame) -> pd.DataFrame:
    """CSS that prints the cells that are True in bold, for `Styler.apply(lambda _: bold(best), axis=None)`."""
    return best.astype(bool).map(lambda is_best: "font-weight: bold" if is_best else "")


@styled
def every_pattern(study: Study, experiment: str) -> Figure:
    """The shape of Tables IV and V: PSNR of every missing modality in every pattern, with intervals."""
    modalities = LAYOUTS[experiment][1]
    names = [label(one, modalities) for one in sorted(patterns(modalities), key=lambda one: -len(one))]
    figure, axes = new_figure(9, 0.28 * len(names) + 1.5, 1, len(modalities), sharey=True, sharex=True)
    part = study.part(experiment)
    cells = cell_means(part[part["metric"].eq("psnr") & part["arm"].isin(MAIN)])
    for axis, target in zip(axes[0], modalities, strict=True):
        for place, arm in enumerate(MAIN):
            colour, marker = STYLE[arm]
            rows = cells[cells["arm"].eq(arm) & cells["target"].eq(target)]
            y = rows["available"].map(names.index) + 0.7 * ((place + 0.5) / len(MAIN) - 0.5)
            axis.hlines(y, rows["low"], rows["high"], color=colour, linewidth=1)
            axis.plot(rows["mean"], y, marker, markersize=4, color=colour, label=NAMES[arm])
        axis.set(title=f"{target} synthesised", xlabel="PSNR, dB")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    handles, texts = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=3)
    return figure


def over_baselines(study: Study) -> pd.DataFrame:
    """Both networks over the trivial baselines with one modality missing: data, missing, network, arm and two `Effect`.

    The columns `mean` and `nearest` hold the effects over the mean image and over the nearest modality, dB.
    """
    rows = []
    for experiment, (layout, modalities) in LAYOUTS.items():
        for target in modalities:
            left = label([name for name in modalities if name != target], modalities)
            for arm in (f"m2dn {name}" for name in NETWORKS):
                table = study.table(experiment, arm, "psnr", left, target)
                effects = {
                    name: shared_effect(table, study.table(experiment, f"floors {name}", "psnr", left, target))
                    for name in ("mean", "nearest")
                }
                rows.append({"data": layout, "missing": target, "network": NAMES[arm], "arm": arm, **effects})
    return pd.DataFrame(rows)


def over_baselines_table(gains: pd.DataFrame) -> pd.DataFrame:
    """`over_baselines` as texts, with Wilcoxon's p for the mean image and Holm's correction over all rows."""
    p = [effect.p for effect in gains["mean"]]
    return gains[["data", "missing", "network"]].assign(
        **{
            "dB over the mean image": [format_effect(effect, 2) for effect in gains["mean"]],
            "dB over the nearest modality": [format_effect(effect, 2) for effect in gains["nearest"]],
            "Wilcoxon p": [f"{value:.1e}" for value in p],
            "Holm": [f"{value:.1e}" for value in holm(p)],
        }
    )


def baseline_facts(gains: pd.DataFrame, arm: str) -> dict[str, str]:
    """What an arm gains over the trivial baselines, as texts by name, with the answer to what was asked beforehand.

    Args:
        gains: as `over_baselines` returns it.
    """
    rows = gains[gains["arm"].eq(arm)]
    lows = [effect.low for effect in rows["mean"]]
    means = {name: np.mean([effect.effect for effect in part["mean"]]) for name, part in rows.groupby("data")}
    holds = min(lows) > 0 and min(means.values()) >= 3
    copied = list(rows["nearest"])
    return {
        "patterns_above": f"{sum(low > 0 for low in lows)} of {len(lows)}",
        "mean_gains": ", ".join(f"{value:+.1f} dB ({name})" for name, value in means.items()),
        "asked_of_mean": "This holds." if holds else "This does not hold.",
        "copies_beaten": f"{sum(effect.low > 0 for effect in copied)} of {len(copied)}",
        "copies_lost": f"{sum(effect.high < 0 for effect in copied)}",
        "over_mean": f"{np.mean([effect.effect for effect in rows['mean']]):+.1f}",
        "over_copy": f"{np.mean([effect.effect for effect in copied]):+.1f}",
        "works": "It works, whatever is missing" if min(lows) > 0 else "It does not always beat a mean image",
    }


# --------------------------------------------------------------------------------------------------------- the rivals
def standing(study: Study) -> pd.DataFrame:
    """The better network over every rival with one modality missing, on both layouts; rows of a forest plot."""
    rivals = ("floors mean", "floors nearest", "mm-gan", "regression")
    return contrasts(
        study,
        [
            (f"over {NAMES[rival]}, {layout}", experiment, study.better_arm, rival, "one missing")
            for rival in rivals
            for experiment, (layout, _) in LAYOUTS.items()
        ],
    )


def budgets(study: Study) -> pd.DataFrame:
    """Both networks over regression and the GAN at equal steps and at equal time; rows of a forest plot.

    BraTS layout, one modality missing. The first row has one network with and without diffusion, which is both.
    """
    twin = "regression unet"
    names = [f"{NAMES['m2dn unet']} over {NAMES[twin]}, both equal"]
    effects = [study.gain("m2dn unet", twin)]
    for rival in ("regression", "mm-gan"):
        for budget, experiment in BUDGETS.items():
            for arm in ("m2dn unet", "m2dn paper"):
                names.append(f"{NAMES[arm]} over {NAMES[rival]}, {budget}")
                effects.append(study.gain(arm, rival, rivals=experiment))
    return effect_rows(names, effects, SESOI, "dB")


def at_2_mm(study: Study) -> pd.DataFrame:
    """PSNR and SSIM at 2 mm beside those at 4 mm, a row per arm; no rows where `synthesis-2mm` was not run."""
    rows: list[dict[str, str]] = []
    for arm in FINER if study.part("synthesis-2mm")["metric"].eq("psnr-mean").any() else ():
        row = {"arm": NAMES[arm]}
        for metric, factor, unit in (("psnr", 1, "dB"), ("ssim", 100, "%")):
            for grid, experiment in (("2 mm", "synthesis-2mm"), ("4 mm", "synthesis")):
                cell = "not run"
                if study.has(experiment, arm=arm, metric=f"{metric}-mean"):
                    mean, low, high = mean_interval(
                        factor * study.table(experiment, arm, f"{metric}-mean", "one missing")
                    )
                    cell = f"{mean:.1f} ({format_interval(low, high)})"
                row[f"{metric.upper()} at {grid}, {unit}"] = cell
        rows.append(row)
    return pd.DataFrame(rows)


def order_at_2_mm(study: Study) -> str:
    """A sentence: by how much M2DN's U-Net lies above the same network without noise, at 2 mm and at 4 mm."""
    run = {name: study.has(name, arm="m2dn unet") for name in ("synthesis-2mm", "synthesis")}
    both = [name for name in run if run[name] and study.has(name, arm="regression unet", metric="psnr-mean")]
    if "synthesis-2mm" not in both:
        return "The comparison at 2 mm was not run in this profile; `synthesis-2mm` of the profile `book` has it."
    texts = {name: f"{format_effect(study.gain('m2dn unet', 'regression unet', name), 2)} dB" for name in both}
    beside = f"; at 4 mm {texts['synthesis']}" if "synthesis" in texts else ""
    return f"At 2 mm M2DN's U-Net lies {texts['synthesis-2mm']} from the same network without noise{beside}."


def budget_facts(rows: pd.DataFrame) -> dict[str, str]:
    """Whether the U-Net is near enough to the same network without diffusion, as texts by name; of `budgets`."""
    twin = rows.iloc[0]
    near = twin["low"] > -NEAR["regression"]
    return {"over_twin": format_effect(twin, 2), "near_twin": "This holds." if near else "This does not hold."}


def knobs(study: Study) -> pd.DataFrame:
    """Images against noise, and the networks against each other, on the BraTS layout; rows of a forest plot."""
    pairs = (
        ("m2dn unet", "m2dn unet-noise"),
        ("m2dn paper", "m2dn noise"),
        ("m2dn unet", "m2dn paper"),
        ("m2dn skips", "m2dn paper"),
    )
    return contrasts(
        study,
        [
            (f"{NAMES[first]} over {NAMES[second]}, {missing}", "synthesis", first, second, missing)
            for first, second in pairs
            for missing in MISSING
        ],
    )


def noise_facts(study: Study) -> dict[str, str]:
    """How the prediction of noise fares, and why, as texts by name.

    The loss of a network that predicts no noise stands beside the losses. `handed_over` is the noise network with its
    first reverse step taken by the network that predicts images, against that network alone.
    """
    behind = study.gain("m2dn unet-noise", "m2dn unet")
    images = study.studied("psnr-mean", "probe-unet")
    handed = shared_effect(study.studied("psnr-mean", "noise handed-over"), images)
    ends = {
        name: list(losses(study.results.history(f"m2dn-{name}", "synthesis"), name).values())[0].iloc[-1]
        for name in ("noise", "unet-noise")
    }
    floors = {joint: m2dn.no_noise_loss(MRI, joint) for joint in (True, False)}
    allowed = -NEAR["noise"]
    near = "lies within what was allowed"
    reason = "lies behind for the first step alone: with that step handed over it would do"
    open_end = "lies behind, and its first step does not explain it"
    return {
        "noise_gain": format_effect(behind, 2),
        "handed_over": format_effect(handed, 2),
        "noise_verdict": near if behind.low > allowed else reason if handed.low > allowed else open_end,
        "noise_loss": f"{ends['noise']:.2f}",
        "noise_floor": f"{floors[True]:.2f}",
        "noise_loss_unet": f"{ends['unet-noise']:.3f}",
        "noise_floor_unet": f"{floors[False]:.0f}",
        "noise_factor": f"{float(1 / m2dn.linear_alpha_bar()[-1].sqrt()):.0f}",
    }


def ablation(study: Study, published: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Table VII: the whole method over itself without a part, on the IXI layout.

    Returns:
        As `mmlib.ledgers.claims.effect_rows`, and `paper`: the printed difference, dB. Parts without runs are left out.
    """
    rows, printed = [], []
    for arm, name in PRINTED.items():
        for missing in MISSING:
            if not study.has("synthesis-ixi", arm=arm, metric="psnr-mean", available=missing):
                continue
            rows.append((f"{NAMES[arm]}, {missing}", "synthesis-ixi", "m2dn paper", arm, missing))
            whole = printed_psnr(published, "M2DN (U+J+M)", missing)
            printed.append(whole - printed_psnr(published, name, missing))
    return contrasts(study, rows).assign(paper=printed)


def printed_losses(published: Mapping[int, pd.DataFrame], arms: Iterable[str]) -> str:
    """What Table VII loses without each part, one missing: `1.90, 4.35 and 3.97`."""
    whole = printed_psnr(published, "M2DN (U+J+M)", "one missing")
    return listed(f"{whole - printed_psnr(published, PRINTED[arm], 'one missing'):.2f}" for arm in arms)


def finest(study: Study) -> str:
    """The arm of `MAIN` with the highest PSNR on the BraTS layout, one modality missing."""
    return max(MAIN, key=lambda arm: study.table("synthesis", arm, "psnr-mean", "one missing").to_numpy().mean())


def probe(study: Study, changed: str, of: str = "probe") -> Effect:
    """What a change of the mask or of the reconstructions does to PSNR, dB."""
    return shared_effect(study.studied("psnr-mean", f"{of} {changed}"), study.studied("psnr-mean", of))


# ------------------------------------------------------------------------------------------------------- fewer inputs
@dataclass(frozen=True)
class Trend:
    """PSNR against the number of observed modalities.

    Attributes:
        table: (subjects, numbers of observed modalities), dB.
        statistic, p: Page's test; NaN where there are fewer than three numbers.
        lost, pairs: nested pairs in which one modality more lowers the mean, and all of them.
    """

    table: pd.DataFrame
    statistic: float
    p: float
    lost: int
    pairs: int


def trend(study: Study, experiment: str, arm: str) -> Trend:
    """Does PSNR grow with every modality that is observed?"""
    part = study.part(experiment)
    part = part[part["arm"].eq(arm) & part["metric"].eq("psnr")]
    part = part.assign(observed=part["available"].str.count(r"\+") + 1)
    targets = part.groupby(["case", "target", "observed"])["value"].mean()
    table = targets.groupby(["case", "observed"]).mean().unstack()
    means = part.groupby(["available", "target"])["value"].mean()
    changes = [
        means[large, target] - means[small, target]
        for large, target in means.index
        for small, other in means.index
        if other == target
        and set(small.split("+")) < set(large.split("+"))
        and large.count("+") == small.count("+") + 1
    ]
    statistic, p = page_trend(table) if table.shape[1] > 2 else (np.nan, np.nan)  # two conditions are no trend
    return Trend(table, statistic, p, sum(change < 0 for change in changes), len(changes))


def fewer_inputs(study: Study) -> pd.DataFrame:
    """`trend` of both networks and of regression on both layouts, as a table."""
    rows = []
    for experiment, (layout, _) in LAYOUTS.items():
        for arm in ("m2dn paper", "m2dn unet", "regression"):
            one = trend(study, experiment, arm)
            means = {f"{k} observed": one.table[k].mean() if k in one.table else np.nan for k in (3, 2, 1)}
            tested = not np.isnan(one.p)
            rows.append(
                {
                    "data": layout,
                    "method": NAMES[arm],
                    **means,
                    "Page's L": f"{one.statistic:.0f}" if tested else "-",
                    "p": f"{one.p:.1e}" if tested else "-",
                    "nested pairs that lose": f"{one.lost} of {one.pairs}",
                }
            )
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------------------------------- paper
def beside_paper(study: Study, published: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Tables I and II with one modality missing, beside the better network; a row per target."""
    rows = []
    for number, experiment in ((1, "synthesis"), (2, "synthesis-ixi")):
        modalities = LAYOUTS[experiment][1]
        at_hand = published[number].query(f"available == '{len(modalities) - 1} of {len(modalities)}'")
        printed = at_hand.pivot(index="target", columns="method", values="psnr_db")
        given = study.record(experiment, study.better_arm)
        data = "phantom" if bool(study.records["stand_in"].all()) else "other cases"
        for target in modalities:
            left = label([name for name in modalities if name != target], modalities)
            ours, gan = (study.table(experiment, arm, "psnr", left, target) for arm in (study.better_arm, "mm-gan"))
            seeds = ours.mean(axis=1)
            sd = f" ± {seeds.std(ddof=1):.1f}" if len(seeds) > 1 else ""
            rows.append(
                {
                    "train with / test with": f"random patterns / {target} missing",
                    "metric": f"PSNR of {target}, dB",
                    "table": "I" if number == 1 else "II",
                    "paper: M2DN": printed.loc[target, "M2DN"],
                    "paper: over MM-GAN": f"{printed.loc[target, 'M2DN'] - printed.loc[target, 'MM-GAN']:+.2f}",
                    "released code": "none exists",
                    "ours": f"{seeds.mean():.1f}{sd} ({counted(len(seeds), 'seed')})",
                    "ours: over MM-GAN": format_effect(shared_effect(ours, gan), 2),
                    "likely reason": f"{data}, {'x'.join(map(str, given['parameters.size']))} voxels, small network, "
                    f"{int(given['parameters.steps']):,} steps",
                }
            )
    return pd.DataFrame(rows)
