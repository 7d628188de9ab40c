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
    paired_effects,
    shared_effect,
)
from mmlib.analysis.wording import counted, format_effect, listed, select
from mmlib.data.slices import Slices, axial_slices, patterns
from mmlib.data.splits import read_split
from mmlib.figures.results import arm_of
from mmlib.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, new_figure, styled
from mmlib.ledgers.claims import effect_rows
from mmlib.methods import m2dn
from mmlib.modalities import IXI, MRI, label

EXPERIMENTS = (  # the last four may be absent from a profile
    *("synthesis", "synthesis-steps", "synthesis-ixi", "synthesis-sampling", "synthesis-studies"),
    *("synthesis-2mm", "hallucination-0", "hallucination-50", "hallucination-100"),
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
CURVES = (  # experiment, run, variant
    ("synthesis", "m2dn", "paper"),
    ("synthesis", "m2dn-unet", "unet"),
    ("synthesis", "regression", "standard"),
    ("synthesis-ixi", "m2dn", "paper"),
)
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
PRINTED = {  # arm -> its name in Table VII
    "m2dn no-mask": "cDM(U+J)",
    "m2dn no-joint": "cDM(U+M)",
    "m2dn neither": "cDM(U)",
    "m2dn cdm-joint": "cDM(J)",
    "m2dn cdm": "cDM",
}
STAGES = {"untrained": "untrained", "brief": "briefly trained", "fit": "trained", "paper": "as drawn"}
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
    return Study(Results(records, scores), scores.assign(arm=arm_of(scores)))


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


def example_slices(cases: Any, record: pd.Series, modalities: Sequence[str], root: Path) -> Slices:
    """The slices of the first test case of a run.

    Args:
        cases: such as `BratsFolder(root)` or `IxiFolder(root)`.
        record: of the run; names its split and size.
        root: of the project, where a split that is a file lies.
    """
    split = record["parameters.split"]
    parts = read_split(root / split if split.endswith(".csv") else split)
    height, width = record["parameters.size"]
    return axial_slices(cases[[parts.test[0]]], modalities, size=(height, width), stride=8, least_brain=0.15)


def data_table(study: Study) -> pd.DataFrame:
    """What networks are trained and tested on, a row per layout."""
    rows = []
    for experiment, (layout, modalities) in LAYOUTS.items():
        given = study.records.loc[(experiment, "m2dn")]
        steps, batch = int(given["parameters.steps"]), int(given["parameters.batch_size"])
        rows.append(
            {
                "data": layout,
                "modalities": ", ".join(modalities),
                "patterns": len(patterns(modalities)),
                "training slices": int(given["slices_train"]),
                "test slices": int(given["slices_test"]),
                "size": "x".join(map(str, given["parameters.size"])),
                "steps x slices": f"{steps} x {batch}",
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
                text = f"{mean:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
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
                    cell = f"{mean:.1f} ({low:.1f} to {high:.1f})"
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
        name: list(losses(study.results.history(run, "synthesis"), name).values())[0].iloc[-1]
        for name, run in {"noise": "m2dn", "unet-noise": "m2dn-unet"}.items()
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


# ---------------------------------------------------------------------------------------------------------- sharpness
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
        return f"{value:.2f} ({low:.2f}-{high:.2f})"

    rows = {NAMES[arm]: {target: cell(name, target) for target in MRI} for name, arm in STUDIED.items()}
    return pd.DataFrame(rows).T


def sharper(study: Study, variant: str, other: str) -> Effect:
    """The sharpness of one variant above that of another, mean over modalities."""
    first, second = (sum(study.studied("sharpness", name, target) for target in MRI) for name in (variant, other))
    return shared_effect(first / len(MRI), second / len(MRI))


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


# ----------------------------------------------------------------------------------------------------------- samplers
def samplers(study: Study) -> pd.DataFrame:
    """Every sampler and the one-pass networks of the experiment `synthesis-sampling`.

    Returns:
        Index: the sampler, such as `paper ddim-25`. Columns: name, net (`paper`, `unet`; of one pass: its own name),
        kind (`ddim`, `ancestral`, `one pass`), steps, seconds (of a slice, median), psnr (dB, mean), gain, low, high
        (dB over the longest process of the network; NaN for one pass), memory (MiB; NaN where not measured) and
        subjects (their number).
    """
    part = study.part("synthesis-sampling")
    psnr = part[part["metric"] == "psnr"].groupby("variant")["value"].mean()
    subjects = part[part["metric"] == "psnr"].groupby("variant")["case"].nunique()
    seconds = part[part["metric"] == "sample-seconds"].groupby("variant")["value"].median()
    memory = part[part["metric"] == "peak-mib"].set_index("variant")["value"]
    ends = ["psnr-gain", "psnr-gain-low", "psnr-gain-high"]
    gains = part[part["metric"].isin(ends)].pivot(index="variant", columns="metric", values="value")
    pattern = r"^(?P<net>\w+) (?P<kind>ddim|ancestral)-(?P<steps>\d+)$"
    table = pd.Series(seconds.index, index=seconds.index).str.extract(pattern).dropna().astype({"steps": int})
    order = {"ddim": "a", "ancestral": "b"}
    table = table.sort_values(["net", "kind", "steps"], key=lambda column: column.replace(order))
    names = {"ddim": "DDIM"}
    table["name"] = [
        f"{NAMES[f'm2dn {row.net}']}, {names.get(row.kind, row.kind)}, {row.steps}" for row in table.itertuples()
    ]
    single = [name for name in ("regression", "mm-gan") if name in seconds]
    one_pass = {"net": single, "kind": "one pass", "steps": 1, "name": [NAMES[name] for name in single]}
    table = pd.concat([table, pd.DataFrame(one_pass, index=single)])
    table = table.assign(seconds=seconds, psnr=psnr, memory=memory.reindex(table.index), subjects=subjects)
    gains = gains.reindex(index=table.index, columns=ends).set_axis(["gain", "low", "high"], axis="columns")
    return table.join(gains)


def longest(table: pd.DataFrame) -> dict[str, str]:
    """Network -> its longest ancestral process, of a table as `samplers` returns it."""
    return table[table["kind"] == "ancestral"].groupby("net")["steps"].idxmax().to_dict()


@styled
def pareto(table: pd.DataFrame) -> Figure:
    """PSNR against seconds per slice, a line per network and kind of sampler; of `samplers`."""
    figure, axes = new_figure(7.5, 3.4)
    axis = axes[0, 0]
    for (net, kind), part in table[table["kind"] != "one pass"].groupby(["net", "kind"], sort=False):
        colour, marker = STYLE[f"m2dn {net}"]
        ddim = kind == "ddim"
        look = {"linestyle": "-" if ddim else ":", "markerfacecolor": colour if ddim else "none", "linewidth": 0.8}
        name = f"{NAMES[f'm2dn {net}']}, {'DDIM' if ddim else kind}"
        axis.plot(part["seconds"], part["psnr"], color=colour, marker=marker, label=name, **look)
        for row in part.itertuples():
            at = {"textcoords": "offset points", "xytext": (3, 5 if ddim else -11), "fontsize": 7}
            axis.annotate(row.steps, (row.seconds, row.psnr), **at)
    for name, row in table[table["kind"] == "one pass"].iterrows():
        colour, marker = STYLE[name]
        axis.plot(row["seconds"], row["psnr"], color=colour, marker=marker, linestyle="none", label=NAMES[name])
    axis.set(xscale="log", xlabel="seconds per slice", ylabel="PSNR, dB")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def sampler_table(table: pd.DataFrame) -> pd.DataFrame:
    """`samplers` as the chapter prints it: ratios within one process."""
    reference = table.loc["regression"]
    slowest = table["net"].map(longest(table)).map(table["seconds"])
    rows = table.assign(faster=slowest / table["seconds"])
    return pd.DataFrame(
        {
            "sampler": rows["name"],
            "PSNR, dB": rows["psnr"],
            "minus its longest process, dB": [
                "-" if np.isnan(row.gain) else f"{row.gain:+.2f} ({row.low:+.2f} to {row.high:+.2f})"
                for row in rows.itertuples()
            ],
            "faster than that, times": [_ratio(value, 1) for value in rows["faster"]],
            "time, ratio to regression": [_ratio(value, 1) for value in rows["seconds"] / reference["seconds"]],
            "memory, ratio to regression": [_ratio(value, 2) for value in rows["memory"] / reference["memory"]],
        }
    )


def _ratio(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def printed_cost(published: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Table III, with ratios to MM-GAN."""
    third = published[3].set_index("method")[["seconds", "memory_gb"]]
    ratios = third / third.loc["MM-GAN"]
    return pd.DataFrame(
        {
            "seconds": third["seconds"],
            "time, ratio to MM-GAN": ratios["seconds"].map("{:.1f}".format),
            "memory, ratio to MM-GAN": ratios["memory_gb"].map("{:.2f}".format),
        }
    )


def sampler_facts(table: pd.DataFrame, published: Mapping[int, pd.DataFrame]) -> dict[str, str]:
    """What few steps cost, as texts by name, with the answer to what was asked beforehand.

    Args:
        table: as `samplers` returns it.
    """
    seconds = published[3].set_index("method")["seconds"]
    printed = np.log(seconds["M2DN"] / seconds["MM-GAN"])
    speed, brief, both, likest, gains = [], [], [], [], []
    for net, slowest in longest(table).items():
        name, few, one = NAMES[f"m2dn {net}"], table.loc[f"{net} ddim-25"], table.loc[f"{net} ddim-1"]
        faster = table.loc[slowest, "seconds"] / few["seconds"]
        gains.append(few["gain"])
        both.append(few["gain"] > -0.2 and faster >= 20)
        speed.append(
            f"{name}: {faster:.0f} times as fast as {table.loc[slowest, 'steps']} ancestral steps, "
            f"{few['gain']:+.2f} dB ({few['low']:+.2f} to {few['high']:+.2f})"
        )
        brief.append(f"{few['gain']:+.2f} dB with 25 steps, {one['gain']:+.2f} dB with one ({name})")
        ddim = table[table["net"].eq(net) & table["kind"].eq("ddim")]
        distance = (np.log(ddim["seconds"] / table.loc["mm-gan", "seconds"]) - printed).abs()
        likest.append(f"{ddim.loc[distance.idxmin(), 'steps']} steps ({name})")
    return {
        "few_steps": "; ".join(speed),
        "asked_of_steps": "both hold, for both networks" if all(both) else "that does not hold for both networks",
        "like_printed": " and ".join(likest),
        "few_headline": "Few steps do" if min(gains) > -0.2 else "Few steps may cost quality",
        "few_brief": " and by ".join(brief),
        "most_steps": f"{table['steps'].max()}",
    }


# ---------------------------------------------------------------------------------------------------------- segmenter
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


# ----------------------------------------------------------------------------------------------- what cannot be known
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
    texts = [f"{row.mean:.0f} ({row.low:.0f} to {row.high:.0f})" for row in known.itertuples(name="Row")]
    return pd.DataFrame(
        {
            "contrast": known["metric"].map(CONTRASTS),
            "synthesised by": known["name"].map(STUDIED).map(NAMES),
            "share recovered, %": texts,
            "subjects": known["subjects"],
        }
    )


def contrast_facts(known: pd.DataFrame, variant: str) -> dict[str, str]:
    """How much of both contrasts a variant recovers, as texts by name; dashes where there is no known answer."""
    if known.empty:
        unknown = "not known for these data"
        return dict.fromkeys(("rim", "rim_brief", "oedema", "oedema_brief", "rim_verdict", "rim_headline"), unknown)
    rows = known[known["name"].eq(variant)].set_index("metric")
    rim, oedema = rows.loc["contrast-enhancement"], rows.loc["contrast-oedema"]
    none = rim["low"] <= 0 <= rim["high"]
    expected = "It does not find what is not there", "It finds more than there can be: look for a leak"
    return {
        "rim": f"{rim['mean']:.0f} % ({rim['low']:.0f} to {rim['high']:.0f})",
        "rim_brief": f"{rim['mean']:.0f} %",
        "oedema": f"{oedema['mean']:.0f} % ({oedema['low']:.0f} to {oedema['high']:.0f})",
        "oedema_brief": f"{oedema['mean']:.0f} %",
        "rim_verdict": "the interval holds zero" if none else "the interval lies off zero",
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
    """Mean absolute error, % of the data range, by arm; columns: missing modality and region."""
    rows = {
        NAMES[arm]: {
            (target, text): study.table("synthesis", arm, metric, SINGLE[target], target).to_numpy().mean()
            for target in MRI
            for metric, text in ERRORS.items()
        }
        for arm in MAIN
    }
    return pd.DataFrame(rows).T


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


# ---------------------------------------------------------------------------------------------------- reverse process
@styled
def reverse_process(strips: Pictures, target: str) -> Figure:
    """States and predictions of the reverse process at six times, for networks trained for ever longer."""
    times = strips[f"t {target}"]
    wanted = np.unique(np.linspace(0, len(times) - 1, 6).round().astype(int))
    rows = [(stage, "images") for stage in ("untrained", "brief")]
    rows += [(stage, kind) for stage in ("fit", "paper") for kind in ("images", "predicted")]
    figure, axes = new_figure(9, 8.2, len(rows), len(wanted) + 1)
    for row, (stage, kind) in enumerate(rows):
        for column, step in enumerate(wanted):
            image = strips[f"{stage} {target} {kind}"][step]
            tile(axes[row, column], image, f"t = {times[step]}" if row == 0 else "", -1.5, 1.5)
        tile(axes[row, -1], strips[f"truth {target}"], "true" if row == 0 else "", -1.5, 1.5)
        axes[row, 0].set_ylabel(f"{STAGES[stage]}\n{'state' if kind == 'images' else 'prediction'}")
    return figure


def error_by_time(study: Study) -> pd.DataFrame:
    """Squared error of the predicted missing image; rows: time t, columns: the U-Net ever longer trained, as drawn."""
    part = study.part("synthesis-sampling")
    errors = part[part["metric"].str.startswith("mse-t")]
    errors = errors.assign(t=errors["metric"].str[5:].astype(int)).replace({"variant": {"paper": "as drawn"}})
    return errors.groupby(["variant", "t"])["value"].mean().unstack(0)[list(STAGES.values())]


@styled
def loss_by_time(errors: pd.DataFrame) -> Figure:
    """`error_by_time` as lines on a logarithmic scale."""
    figure, axes = new_figure(6.5, 3)
    looks = ((GREY, "X"), (ORANGE, "D"), STYLE["m2dn unet"], STYLE["m2dn paper"])
    for name, (colour, marker) in zip(errors.columns, looks, strict=True):
        axes[0, 0].plot(errors[name], color=colour, marker=marker, label=name)
    axes[0, 0].set(xlabel="time t", ylabel="squared error of the missing image", yscale="log")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def use_of_noise(errors: pd.DataFrame) -> dict[str, str]:
    """Whether the trained networks use the noisy image, as texts by name; of `error_by_time`."""
    ratio = errors.iloc[-1] / errors.iloc[0]
    ignored = (
        "As drawn, the network does not look at the noisy image at all, not even where it is nearly clean: nothing "
        "finer than the bottleneck comes through, and the reverse process is regression in many steps."
    )
    return {
        "rise": f"{ratio['as drawn']:.1f}",
        "rise_unet": f"{ratio['trained']:.1f}",
        "noise_as_drawn": ignored if ratio["as drawn"] < 1.1 else "As drawn, the network uses the noisy image.",
        "noise_with_unet": "The U-Net uses it." if ratio["trained"] > 1.5 else "The U-Net hardly uses it either.",
    }


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


# -------------------------------------------------------------------------------------------------------------- paper
def beside_paper(study: Study, published: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Tables I and II with one modality missing, beside the better network; a row per target."""
    rows = []
    for number, experiment in ((1, "synthesis"), (2, "synthesis-ixi")):
        modalities = LAYOUTS[experiment][1]
        at_hand = published[number].query(f"available == '{len(modalities) - 1} of {len(modalities)}'")
        printed = at_hand.pivot(index="target", columns="method", values="psnr_db")
        given = study.records.loc[(experiment, "m2dn")]
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
                    f"{int(given['parameters.steps'])} steps",
                }
            )
    return pd.DataFrame(rows)
