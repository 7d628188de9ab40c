"""A dial of how much of the enhancement can be known: what chapter 06 shows of the experiments `hallucination-...`.

Networks synthesise t1ce from t1, t2 and flair, on phantoms whose option `predictable` says how often the sector that
t2 and flair show is the one that enhances (`mmlib.data.phantoms.options`). Errors by region come from the records of
the networks. What is found of the enhancement and what is invented is measured on test subjects by the run `images`
of the experiment `hallucination-...-images`, with the functions of the middle part; the chapter reads what it left.

Images are (N, H, W) in [-1, 1]; image + 1 is proportional to the signal, since -1 is its zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mmlib.analysis.results import Results, read_arrays
from mmlib.analysis.statistics import mean_interval, shared_effect
from mmlib.analysis.wording import counted, format_effect, listed, select
from mmlib.data.brats import BratsFolder
from mmlib.data.canvas import Canvas
from mmlib.data.phantoms.brain import Tissues, make_tissues
from mmlib.data.phantoms.options import ENHANCES, SHARE_ENHANCING, Options, read_options
from mmlib.data.slices import Slices, axial_slices
from mmlib.data.splits import read_split
from mmlib.figures.style import BLACK, GREY, ORANGE, PURPLE, SKY, VERMILLION, new_figure, styled
from mmlib.ledgers.claims import effect_rows
from mmlib.methods import load, m2dn
from mmlib.modalities import MRI, mask
from mmlib.studies.synthesis import DIALLED, tile, upright
from mmlib.tasks.synthesis import CopyNearest, MeanImage, mae, psnr

IMAGES = "-images"  # ends the name of the experiment that measured the images of the networks of one of these
RATES = ("enhances", "found", "invented", "rmse_et", "rmse_solid")
GIVEN, TARGET = ("t1", "t2", "flair"), "t1ce"
NETWORKS = {"m2dn unet": "M2DN, U-Net", "regression unet": "regression, U-Net of M2DN"}  # arm -> name
REGIONS = {"et": (4, "enhancing tumour"), "core": (1, "rest of the core"), "oedema": (2, "oedema, the control")}
ARMS = {  # arm -> name, colour, marker
    "true": ("true image", BLACK, "*"),
    "limit": ("best guess", BLACK, "_"),
    "m2dn unet": ("M2DN, U-Net", SKY, "s"),
    "sample": ("M2DN, one sample", PURPLE, "v"),
    "mean": ("M2DN, mean of samples", PURPLE, "o"),
    "regression unet": ("regression, U-Net of M2DN", VERMILLION, "D"),
    "floors mean": ("mean image", GREY, "X"),
    "floors nearest": ("nearest modality", ORANGE, "P"),
}
SESOI = 1.0  # dB, as in the claims ledger
EXPECTED_SHARE = ENHANCES * sum(SHARE_ENHANCING) / 2  # of the solid tissue that enhances, where nothing tells
DRAW_STEPS = 10  # reverse steps of a sample, ancestral
FEWEST = 10  # voxels of a region from which a subject's share of it counts


# ---------------------------------------------------------------------------------------------------------- the dial
@dataclass(frozen=True)
class Position:
    """One position of the dial: an experiment, the phantoms it was trained on, and the record of its M2DN.

    Attributes:
        images: folder of the run that measured its networks' images; None: not run.
    """

    experiment: str
    options: Options
    record: pd.Series
    images: Path | None = None

    @property
    def predictable(self) -> float:
        """Chance that t2 and flair show the sector that enhances."""
        return self.options.predictable


def positions(results: Results, phantoms: Mapping[str, Mapping[str, Any]]) -> list[Position]:
    """The positions of the dial that were run on phantoms, from the least predictable.

    Args:
        phantoms: data folder, as in `parameters.data` of a record -> what its phantoms were made with, as a profile's
            `phantom:` names it; empty or absent for cases of the reader's, of which nobody knows the position.
    """
    found = []
    for experiment in DIALLED:
        records = results.records[results.records["experiment"].eq(experiment)].set_index("run")
        if not {"m2dn", "regression"} <= set(records.index):
            continue
        if made := phantoms.get(records.loc["m2dn", "parameters.data"]):
            options = read_options(**{name: value for name, value in made.items() if name != "spacing"})
            measured = results.records[results.records["experiment"].eq(experiment + IMAGES)]
            folder = Path(measured["folder"].iloc[0]) if len(measured) else None
            found.append(Position(experiment, options, records.loc["m2dn"], folder))
    return sorted(found, key=lambda position: position.predictable)


def what_was_run(dial: Sequence[Position]) -> str:
    """The positions in a sentence; also where there are none."""
    if not dial:
        return "No position of the dial was run on phantoms in this profile: there is nothing to show here."
    text = listed(f"{position.predictable:.0%} (`{position.experiment}`)" for position in dial)
    alone = " One position alone tells no difference." if len(dial) == 1 else ""
    return f"Run in this profile: t2 and flair show the enhancing sector in {text} of the tumours.{alone}"


# ------------------------------------------------------------------------------------------------- errors, of records
def _error(scores: pd.DataFrame, experiment: str, arm: str, metric: str, region: str) -> pd.DataFrame:
    method, variant = arm.split(" ") if " " in arm else (arm, "standard")
    where = {"experiment": experiment, "method": method, "variant": variant, "metric": f"{metric}-{region}"}
    return select(scores, **where, available="t1+t2+flair", target=TARGET)


def errors_by_region(scores: pd.DataFrame, dial: Sequence[Position], metric: str = "psnr") -> pd.DataFrame:
    """Quality of the synthesised t1ce by region along the dial.

    Args:
        scores: of the runs, and those of `yardsticks`.
        metric: `psnr` (dB) or `mae` (percent of the data range).

    Returns:
        predictable, arm, region, mean, low, high (95 % over seeds and subjects), subjects, seeds; no row where a run
        did not score the arm or fewer than two subjects have the region.
    """
    rows = []
    for position in dial:
        for arm in ARMS:
            for region in REGIONS:
                try:
                    table = _error(scores, position.experiment, arm, metric, region)
                except ValueError:  # not scored
                    continue
                if table.shape[1] < 2:
                    continue
                facts = dict(zip(("mean", "low", "high"), mean_interval(table), strict=True))
                size = {"subjects": table.shape[1], "seeds": len(table)}
                rows.append({"predictable": position.predictable, "arm": arm, "region": region, **facts, **size})
    columns = ["predictable", "arm", "region", "mean", "low", "high", "subjects", "seeds"]
    return pd.DataFrame(rows, columns=columns)


@styled
def errors_figure(errors: pd.DataFrame) -> Figure:
    """`errors_by_region` in dB against the dial, a panel per region; the best guess is drawn for what enhances."""
    errors = errors[errors["arm"].ne("limit") | errors["region"].eq("et")]
    regions = [region for region in REGIONS if errors["region"].eq(region).any()]
    figure, axes = new_figure(9, 3.4, 1, len(regions), sharey=True)
    for axis, region in zip(axes[0], regions, strict=True):
        for arm, part in errors[errors["region"].eq(region)].groupby("arm", sort=False):
            name, colour, marker = ARMS[arm]
            line = {"linestyle": "--" if arm == "limit" else "-", "linewidth": 1, "color": colour}
            axis.plot(part["predictable"], part["mean"], marker=marker, label=name, **line)
            axis.vlines(part["predictable"], part["low"], part["high"], color=colour, linewidth=0.8)
        axis.set(title=REGIONS[region][1], xlabel="predictable", xticks=sorted(errors["predictable"].unique()))
    axes[0, 0].set_ylabel("PSNR of t1ce, dB")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def gains(scores: pd.DataFrame, dial: Sequence[Position]) -> pd.DataFrame:
    """What PSNR gains from the least to the most predictable position in each region, and enhancing less oedema.

    Paired by seed and, over those that have the region at both ends, by subject.

    Returns:
        As `mmlib.ledgers.claims.effect_rows`; no rows where there is one position, or too few subjects were scored.
    """
    names, effects = [], []
    for arm, name in NETWORKS.items():
        changes = {}
        for region in REGIONS if len(dial) > 1 else ():
            try:
                ends = [_error(scores, position.experiment, arm, "psnr", region) for position in (dial[0], dial[-1])]
                change = shared_effect(ends[1], ends[0])
            except ValueError:  # not scored
                continue
            if change.n < 2:
                continue
            effects.append(change)
            names.append(f"{REGIONS[region][1]}: {name}")
            changes[region] = (ends[1] - ends[0]).dropna(axis=1)
        if {"et", "oedema"} <= set(changes):
            effects.append(shared_effect(changes["et"], changes["oedema"]))
            names.append(f"enhancing less oedema: {name}")
    order = np.argsort([name.split(":")[0] for name in names], kind="stable")
    return effect_rows([names[place] for place in order], [effects[place] for place in order], SESOI, "dB")


# ------------------------------------------------------------------------------------------------ what can be known
def best_guess(tissues: Tissues, predictable: float) -> np.ndarray:
    """The share of each voxel that is expected to enhance, by who knows all but that, (X, Y, Z) in [0, 1].

    With the chance `predictable` the dense sector is what enhances, otherwise another draw is: of any solid tissue the
    share 0.88 (0.25 + 0.65) / 2 = 0.396, since the direction of the sector is uniform. Given the sector, or that there
    is none, its chance to be the one that enhances is still `predictable`: both are drawn by one law.

    Args:
        tissues: made with that option.
    """
    solid = tissues.fractions["solid"] + tissues.fractions["enhancing"]
    sign = np.sum(list(tissues.dense.values()), axis=0) if tissues.dense else 0.0
    expected: np.ndarray = predictable * sign + (1 - predictable) * EXPECTED_SHARE * solid
    return expected


@dataclass(frozen=True)
class Truth:
    """Test subjects with what they are made of, slice by slice.

    Attributes:
        slices: N of them, all that have brain, case by case from below.
        enhancing, solid, guess: (N, H, W), the share of a voxel that enhances, that is other solid tissue, and
            `best_guess`.
        white: (N, H, W) bool, white matter.
        brightness: subject -> what enhancement adds to the solid tissue in t1ce, by least squares over voxels that are
            all solid tissue; subjects who have enough of both.
        shows: subject -> what is brighter than so many times the white matter shows enhancement: half way between the
            two; the same subjects.
    """

    slices: Slices
    enhancing: Tensor
    solid: Tensor
    guess: Tensor
    white: Tensor
    brightness: dict[str, float]
    shows: dict[str, float]

    def every(self, step: int, least_brain: float = 0.0) -> Tensor:
        """Positions of every `step`-th slice of each case from its first, as `axial_slices` counts."""
        places = pd.Series(range(len(self.slices))).groupby(list(self.slices.case), sort=False)
        kept = np.concatenate([rows.to_numpy()[::step] for _, rows in places])
        enough = self.slices.brain[kept].float().mean(dim=(1, 2)) >= least_brain
        return torch.from_numpy(kept)[enough]

    def tumour_slices(self, every: int) -> Tensor:
        """Of `every`, the positions of slices with solid tissue, enhancing or not."""
        rows = self.every(every)
        return rows[((self.enhancing[rows] > 0.5) | (self.solid[rows] > 0.5)).any(dim=2).any(dim=1)]

    def subset(self, rows: Tensor) -> Truth:
        """Some of the slices, by positions."""
        parts = (self.enhancing[rows], self.solid[rows], self.guess[rows], self.white[rows])
        return Truth(self.slices.subset(rows), *parts, self.brightness, self.shows)

    @property
    def t1ce(self) -> Tensor:
        """(N, H, W), the true image."""
        return self.slices.images[:, MRI.index(TARGET)]

    @property
    def best_image(self) -> Tensor:
        """(N, H, W): the true image with `best_guess` in place of what enhances, and the mean brightness.

        It is the image of least expected squared error for who knows all but which tissue enhances and how brightly:
        anatomy, gain and noise too, so no network comes near it where those are what is hard.
        """
        usual = float(np.mean(list(self.brightness.values()))) if self.brightness else 0.0
        own = torch.tensor([self.brightness.get(who, usual) for who in self.slices.subject])[:, None, None]
        return self.t1ce + self.guess * usual - self.enhancing * own


def read_truth(position: Position, root: Path, subjects: int = 0) -> Truth:
    """The test subjects of a position, from their files and, made anew, their tissues.

    Args:
        root: of the project.
        subjects: the first so many; 0: all that the run was tested on.
    """
    record, names = position.record, _names(position, root)["test"]
    count = int(record["parameters.cases_test"]) or len(names)
    names = names[: min(count, subjects or count)]
    cases = BratsFolder(root / record["parameters.data"])
    slices = axial_slices(cases[names], MRI, size=_size(record), stride=8, least_brain=0)
    maps: dict[str, list[np.ndarray]] = {"enhancing": [], "solid": [], "guess": [], "white": []}
    for name in names:
        case = cases[name]
        tissues = make_tissues(int(name.rsplit("-", 1)[1]), float(min(case.spacing)), options=position.options)
        canvas = Canvas.around(case, _size(record), 8)
        at = slices.position[[row for row, one in enumerate(slices.case) if one == name]].numpy()
        for kind in ("enhancing", "solid"):
            maps[kind].append(canvas.to_slices(tissues.fractions[kind])[at])
        maps["guess"].append(canvas.to_slices(best_guess(tissues, position.predictable))[at])
        maps["white"].append(canvas.to_slices(tissues.fractions["wm"])[at] > 0.9)
    enhancing, solid, guess, white = (torch.from_numpy(np.concatenate(part)) for part in maps.values())
    truth = Truth(slices, enhancing.float(), solid.float(), guess.float(), white, {}, {})
    for who, rows in _by_subject(slices).items():
        pure = truth.solid[rows] + truth.enhancing[rows] > 0.9
        lit, image = truth.enhancing[rows][pure].double(), truth.t1ce[rows]
        if (lit > 0.5).sum() >= FEWEST and (lit < 0.5).sum() >= FEWEST:
            slope = float(torch.cov(torch.stack([lit, image[pure].double()]))[0, 1] / lit.var())
            dark = float(image[pure].mean() - slope * lit.mean())
            truth.brightness[who] = slope
            truth.shows[who] = (dark + slope / 2 + 1) / (float(image[truth.white[rows]].median()) + 1)
    return truth


def _size(record: pd.Series) -> tuple[int, int]:
    height, width = record["parameters.size"]
    return int(height), int(width)


def _names(position: Position, root: Path) -> dict[str, list[str]]:
    split = position.record["parameters.split"]
    parts = read_split(root / split if split.endswith(".csv") else split)
    return {"train": list(parts.train), "test": list(parts.test)}


def _by_subject(slices: Slices) -> dict[str, Tensor]:
    groups = pd.Series(range(len(slices))).groupby(list(slices.subject), sort=False)
    return {str(who): torch.tensor(rows.tolist()) for who, rows in groups}


def floors(position: Position, root: Path) -> dict[str, Any]:
    """The two trivial baselines, fitted to the training slices of a position."""
    record, names = position.record, _names(position, root)["train"]
    cut = {"size": _size(record), "stride": 8, "least_brain": record["parameters.least_brain"]}
    chosen = names[: int(record["parameters.cases_train"]) or None]
    cases = BratsFolder(root / record["parameters.data"])[chosen]
    train = axial_slices(cases, MRI, every=int(record["parameters.every_train"]), **cut)
    return {"floors mean": MeanImage(train), "floors nearest": CopyNearest(train)}


def yardsticks(truth: Truth, position: Position, baselines: Mapping[str, Any]) -> pd.DataFrame:
    """What the best guess and the trivial baselines score, on the slices that the runs were tested on.

    Returns:
        Scores of a run, variant: the arm.
    """
    record = position.record
    shown = truth.subset(truth.every(int(record["parameters.every_test"]), record["parameters.least_brain"]))
    available = mask(GIVEN, MRI).expand(len(shown.slices), -1)  # N M
    images = torch.where(available[..., None, None], shown.slices.images, 0)  # N M H W
    made = {name: floor(images, available)[:, MRI.index(TARGET)] for name, floor in baselines.items()}
    labels = shown.slices.labels if shown.slices.labels is not None else torch.zeros(images[:, 0].shape)
    tables = []
    for arm, image in {"limit": shown.best_image, **made}.items():
        for region, (value, _) in REGIONS.items():
            area = torch.isin(labels, torch.tensor(value, dtype=torch.uint8))
            for name, measure in {"psnr": psnr, "mae": mae}.items():
                found = pd.DataFrame({"case": shown.slices.subject, "value": measure(image, shown.t1ce, area).numpy()})
                mean = found.dropna().groupby("case", as_index=False)["value"].mean()
                tables.append(mean.assign(variant=arm, metric=f"{name}-{region}"))
    return pd.concat(tables, ignore_index=True).assign(available="t1+t2+flair", target=TARGET)


# ------------------------------------------------------------------------------------------------ found and invented
@torch.no_grad()
def synthesise(
    folders: Mapping[str, Path], slices: Slices, *, variant: str, steps: int, draws: int, seed: int
) -> dict[str, Tensor]:
    """The t1ce that networks make from the other three, (K, N, H, W) by arm; K is `draws` for `sample`, else 1.

    Args:
        folders: `m2dn` and `regression` -> folder of the run.
        variant: of the networks.
        steps: of the reverse process of the main comparison (DDIM).
        draws: samples of M2DN, ancestral, each from noise of its own.
        seed: of the networks and of the noise.
    """
    diffusion, regression = (load(folders[name], variant=variant, seed=seed) for name in ("m2dn", "regression"))
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, list[list[Tensor]]] = {
        "regression unet": [[]],
        "m2dn unet": [[]],
        "sample": [[] for _ in range(draws)],
    }
    for rows in torch.arange(len(slices)).split(64):
        available = mask(GIVEN, MRI).expand(len(rows), -1)  # B M
        images = torch.where(available[..., None, None], slices.images[rows], 0)  # B M H W
        one_pass = regression(images, available)
        usual = m2dn.sample(diffusion, images, available, steps, generator=generator)
        made["regression unet"][0].append(one_pass[:, MRI.index(TARGET)])
        made["m2dn unet"][0].append(usual[:, MRI.index(TARGET)])
        for drawn in made["sample"]:
            one = m2dn.sample(diffusion, images, available, DRAW_STEPS, "ancestral", generator)
            drawn.append(one[:, MRI.index(TARGET)])
    whole = {arm: torch.stack([torch.cat(parts) for parts in several]) for arm, several in made.items()}  # K N H W
    return {**whole, "mean": whole["sample"].mean(dim=0, keepdim=True)}


def rates(truth: Truth, made: Mapping[str, Tensor]) -> pd.DataFrame:
    """What every arm shows of the enhancement of each subject, what it invents, and its error over solid tissue.

    A voxel shows enhancement if it is brighter than `Truth.shows` times the white matter of the same image (median of
    the subject's slices); in a tumour that does not enhance, than the median of that over the others. The best
    guess shows what is more likely than not to enhance.

    Args:
        made: arm -> (K, N, H, W); shares and errors are means over K.

    Returns:
        arm, subject, enhances; found: share of what enhances that is shown; invented: share of the other solid tissue
        that is shown; rmse_et and rmse_solid: root mean square error, percent of the data range, over what enhances
        and over all solid tissue. NaN where a subject has fewer than 10 voxels of a region; no rows where no
        tumour enhances.
    """
    rows: list[dict[str, Any]] = []
    if not truth.shows:
        return pd.DataFrame(columns=["arm", "subject", "enhances", "found", "invented", "rmse_et", "rmse_solid"])
    usual = float(np.median(list(truth.shows.values())))
    images = {"true": truth.t1ce[None], "limit": truth.best_image[None], **made}
    for who, own in _by_subject(truth.slices).items():
        lit, other, white = truth.enhancing[own] > 0.5, truth.solid[own] > 0.5, truth.white[own]
        if (lit | other).sum() < FEWEST or not white.any():
            continue
        true = truth.t1ce[own]
        for arm, several in images.items():
            found: list[dict[str, float]] = []
            for image in several[:, own].float():
                shows = image + 1 > truth.shows.get(who, usual) * (image[white] + 1).median()
                if arm == "limit":
                    shows = truth.guess[own] > (truth.enhancing[own] + truth.solid[own]) / 2
                off = (image - true).square()
                areas = {"found": (shows.float(), lit), "invented": (shows.float(), other)}
                areas |= {"rmse_et": (off, lit), "rmse_solid": (off, lit | other)}
                found.append(
                    {
                        name: float(values[area].mean()) if area.sum() >= FEWEST else np.nan
                        for name, (values, area) in areas.items()
                    }
                )
            means = pd.DataFrame(found).mean()
            for name in ("rmse_et", "rmse_solid"):
                means[name] = 100 / 2 * means[name] ** 0.5
            rows.append({"arm": arm, "subject": who, "enhances": bool(lit.any()), **means})
    return pd.DataFrame(rows)


def read_yardsticks(scores: pd.DataFrame, dial: Sequence[Position]) -> pd.DataFrame:
    """Scores of all runs with the `yardsticks` of the dial among those of its networks."""
    tables = [scores]
    for position in dial:
        own = scores[scores["experiment"].eq(position.experiment + IMAGES) & ~scores["metric"].isin(RATES)]
        method = own["variant"].str.split(" ").str[0]
        variant = own["variant"].str.split(" ").str[1].fillna("standard")
        tables.append(own.assign(experiment=position.experiment, method=method, variant=variant))
    return pd.concat(tables, ignore_index=True)


def read_rates(scores: pd.DataFrame, dial: Sequence[Position]) -> dict[float, pd.DataFrame]:
    """What `rates` measured at the positions of the dial where any tumour enhances, by `predictable`."""
    found = {}
    for position in dial:
        own = scores[scores["experiment"].eq(position.experiment + IMAGES) & scores["metric"].isin(RATES)]
        if len(own):
            table = own.pivot(index=["variant", "case"], columns="metric", values="value").reindex(columns=RATES)
            table = table.rename_axis(index=["arm", "subject"], columns=None).reset_index()
            found[position.predictable] = table.assign(enhances=table["enhances"].eq(1))
    return found


def read_examples(dial: Sequence[Position]) -> dict[float, dict[str, dict[str, np.ndarray]]]:
    """The `example_images` of the positions, by `predictable` and kind."""
    found: dict[float, dict[str, dict[str, np.ndarray]]] = {}
    for position in dial:
        if position.images is not None:
            kinds = found.setdefault(position.predictable, {})
            for name, array in read_arrays(position.images / "examples.npz").items():
                kind, _, image = name.rpartition("/")
                kinds.setdefault(kind, {})[image] = array
    return found


def rates_table(found: Mapping[float, pd.DataFrame]) -> pd.DataFrame:
    """Means of `rates` by position and arm; shares and errors in percent.

    Args:
        found: predictable -> `rates`.
    """
    rows = []
    for predictable, table in found.items():
        for arm in ARMS:
            own = table[table["arm"].eq(arm)]
            if own.empty:
                continue
            enhancing, none = own[own["enhances"]], own[~own["enhances"]]
            rows.append(
                {
                    "predictable": f"{predictable:.0%}",
                    "t1ce": ARMS[arm][0],
                    "found, %": 100 * enhancing["found"].mean(),
                    "invented beside it, %": 100 * enhancing["invented"].mean(),
                    "invented where nothing enhances, %": 100 * none["invented"].mean(),
                    "error, enhancing, %": enhancing["rmse_et"].mean(),
                    "error, all solid, %": own["rmse_solid"].mean(),
                    "tumours": f"{len(enhancing)} + {len(none)}",
                }
            )
    return pd.DataFrame(rows)


@styled
def rates_figure(found: Mapping[float, pd.DataFrame]) -> Figure:
    """Found against invented, a panel per position of the dial; on the diagonal nothing is known.

    Filled: invented in tumours that enhance; hollow: in those that do not, at the height of what is found in others.
    """
    figure, axes = new_figure(3.2 * max(len(found), 2), 3.7, 1, len(found), sharey=True)
    for axis, (predictable, table) in zip(axes[0], found.items(), strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8, label="nothing known")
        for arm, (name, colour, marker) in ARMS.items():
            own = table[table["arm"].eq(arm)]
            if own.empty:
                continue
            enhancing, none = own[own["enhances"]], own[~own["enhances"]]
            look = {"color": colour, "marker": marker, "linestyle": "none"}
            axis.plot(enhancing["invented"].mean(), enhancing["found"].mean(), label=name, **look)
            axis.plot(none["invented"].mean(), enhancing["found"].mean(), markerfacecolor="none", **look)
        ends = {"xlim": (-0.04, 1.04), "ylim": (-0.04, 1.04)}
        axis.set(title=f"shown in {predictable:.0%} of the tumours", xlabel="share invented", **ends)
    axes[0, 0].set_ylabel("share found")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def rates_facts(found: Mapping[float, pd.DataFrame]) -> dict[str, str]:
    """What is found and invented at both ends of the dial, as texts by name; of one position, both ends are it."""
    facts = {}
    for end, pick in {"least": min, "most": max}.items():
        for arm in ("regression unet", "sample", "mean"):
            name = f"{end}_{arm.split(' ')[0]}"
            facts[name] = facts[f"{name}_none"] = "not known in this profile"
            if not found:
                continue
            table = found[pick(found)]
            own = table[table["arm"].eq(arm)]
            enhancing, none = own[own["enhances"]], own[~own["enhances"]]
            facts[name] = f"{enhancing['found'].mean():.0%} found and {enhancing['invented'].mean():.0%} invented"
            if len(none):
                facts[f"{name}_none"] = f"{none['invented'].mean():.0%}"
    return facts


def limit_facts(errors: pd.DataFrame, absolute: pd.DataFrame) -> dict[str, str]:
    """The error of the best guess in enhancing tumour at both ends of the dial, as texts by name.

    Args:
        errors, absolute: `errors_by_region` in PSNR and in MAE.
    """
    facts = {}
    for name, table, unit in (("psnr", errors, "dB"), ("mae", absolute, "%")):
        own = table[table["arm"].eq("limit") & table["region"].eq("et")].sort_values("predictable")["mean"]
        for end, place in (("least", 0), ("most", -1)):
            facts[f"limit_{name}_{end}"] = f"{own.iloc[place]:.1f} {unit}" if len(own) else "not known"
    return facts


def gain_facts(rows: pd.DataFrame) -> dict[str, str]:
    """The gains along the dial as texts by name; of `gains`."""
    facts, keys = {}, {"enhancing tumour": "et", "oedema, the control": "oedema", "enhancing less oedema": "net"}
    for arm, name in NETWORKS.items():
        for region, key in keys.items():
            own = rows[rows["part"].eq(f"{region}: {name}")] if len(rows) else rows
            text = f"{format_effect(next(own.itertuples()))} dB" if len(own) else "not known in this profile"
            facts[f"dial_{key}_{arm.split(' ')[0]}"] = text
    return facts


def examples(truth: Truth) -> dict[str, int]:
    """A slice with most enhancement, and of a tumour that does not enhance the one with most solid tissue."""
    lit = (truth.enhancing > 0.5).sum(dim=(1, 2))
    chosen = {"enhances": int(lit.argmax())} if lit.any() else {}
    whole = {who: int(lit[rows].sum()) for who, rows in _by_subject(truth.slices).items()}
    solid = (truth.solid > 0.5).sum(dim=(1, 2)) * torch.tensor([whole[who] == 0 for who in truth.slices.subject])
    if solid.max() >= FEWEST:
        chosen["does not enhance"] = int(solid.argmax())
    return chosen


def example_images(truth: Truth, made: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The `examples` as arrays: `<kind>/<image>` -> (H, W) half precision, `sample` (K, H, W), areas bool."""
    arrays: dict[str, Tensor] = {}
    for kind, row in examples(truth).items():
        arrays |= {
            f"{kind}/flair": truth.slices.images[row, MRI.index("flair")],
            f"{kind}/t1ce": truth.t1ce[row],
            f"{kind}/regression": made["regression unet"][0, row],
            f"{kind}/sample": made["sample"][:, row],
            f"{kind}/mean": made["mean"][0, row],
            f"{kind}/lit": truth.enhancing[row] > 0.5,
            f"{kind}/solid": truth.enhancing[row] + truth.solid[row] > 0.5,
        }
    return {name: (one if one.dtype == torch.bool else one.half()).numpy() for name, one in arrays.items()}


@styled
def examples_figure(shown: Mapping[float, Mapping[str, Mapping[str, np.ndarray]]]) -> Figure:
    """Tumours that enhance and that do not, at each position: flair, the true t1ce and what the networks make of it.

    Args:
        shown: of `read_examples`.
    """
    rows = [(at, kind, images) for at, kinds in shown.items() for kind, images in kinds.items()]
    samples = min(3, *(len(images["sample"]) for _, _, images in rows))
    drawn = [f"sample {number + 1}" for number in range(samples)]
    titles = ["flair", "true t1ce", "regression", *drawn, "mean of samples"]
    figure, axes = new_figure(1.3 * len(titles) + 0.6, 1.4 * len(rows) + 0.4, len(rows), len(titles))
    for number, (line, (at, kind, images)) in enumerate(zip(axes, rows, strict=True)):
        lit, solid = images["lit"], images["solid"]
        window = _around(solid)
        tiles = [images["flair"], images["t1ce"], images["regression"], *images["sample"][:samples], images["mean"]]
        for axis, image, title in zip(line, tiles, titles, strict=True):
            tile(axis, image[window], title if number == 0 else "")
            axis.contour(upright(solid[window]), [0.5], colors=[SKY], linewidths=0.6)
            if lit.any():
                axis.contour(upright(lit[window]), [0.5], colors=[VERMILLION], linewidths=0.9)
        line[0].set_ylabel(f"{at:.0%}\n{kind}", fontsize=8)
    return figure


def _around(area: np.ndarray, side: int = 28) -> tuple[slice, slice]:
    """A window of `side` x `side` voxels about the middle of an area (H, W), as far as it lies in the slice."""
    middle = [round(float(places.mean())) for places in area.nonzero()]
    lows = [min(max(0, at - side // 2), max(0, size - side)) for at, size in zip(middle, area.shape, strict=True)]
    return slice(lows[0], lows[0] + side), slice(lows[1], lows[1] + side)


def sample_text(found: Mapping[float, pd.DataFrame]) -> str:
    """For captions: how many tumours enhance and how many do not."""
    own = next(iter(found.values())).drop_duplicates("subject")
    enhancing = counted(int(own["enhances"].sum()), "tumour")
    return f"n = {enhancing} that enhance and {int((~own['enhances']).sum())} that do not"
