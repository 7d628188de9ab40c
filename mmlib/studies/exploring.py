"""Which cases the explorer shows, what networks make of them from every combination, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mmlib import records
from mmlib.analysis.results import Results
from mmlib.data.cases import REGIONS, Case
from mmlib.data.nifti import Cases
from mmlib.data.phantoms.brain import ceiling_without_t1ce, make_subject, make_tissues
from mmlib.data.phantoms.options import Options
from mmlib.data.slices import axial_slices, patterns
from mmlib.figures.explorer import Explored, Filled, Fixed
from mmlib.figures.style import GREEN, ORANGE, PURPLE
from mmlib.methods import load, m2dn
from mmlib.modalities import MRI, label, mask, parse
from mmlib.prediction import Network
from mmlib.studies.segmentation import Study
from mmlib.studies.synthesis import NAMES, upright
from mmlib.tasks.distillation import load_network
from mmlib.tasks.segmentation import Segmenter, dice, predict, shares_of
from mmlib.tasks.synthesis import psnr

KEPT = "fit.safetensors"  # the weights of a run
FILLERS, FILLED_BY = ("regression", "m2dn"), "unet"  # methods of synthesis and their variant that are shown
STRIDE = 8  # of a network of slices that does not say its own
STUDENT = "t1"  # the image of the students that are shown
VOXELS = 1_900_000  # of all images of a reader's case together: four of a brain at 2 mm, under 1 MB in a page


def kept_runs(study: Study) -> dict[str, str]:
    """Arm -> its run with the lowest seed whose weights are here, of the arms that take any combination."""
    found = {}
    for arm in study.whole:
        rows = study.records[study.records["arm"].eq(arm)].sort_values("seed")
        there = [row.run for row in rows.itertuples() if (Path(row.folder) / KEPT).is_file()]
        if there:
            found[arm] = there[0]
    return found


def choose(sizes: pd.DataFrame, scores: pd.Series) -> dict[str, tuple[str, str]]:
    """Six cases, each by a rule: case -> why, in a word or two, and the rule as a sentence.

    Args:
        sizes: rows: test cases, columns wt, tc and et: true volume, ml.
        scores: test case -> mean Dice, %, of all networks, regions and combinations.

    A case that an earlier rule took is passed over; a rule that no case meets gives none.
    """
    enhancing = scores[sizes["et"] > 0].sort_values()
    silent = sizes.index[(sizes["tc"] > 0) & (sizes["et"] == 0)]
    middle = enhancing.iloc[(enhancing - enhancing.median()).abs().argsort()].index
    rules = [
        ("easy", "the highest mean Dice of those with enhancing tumour", enhancing.index[::-1]),
        ("typical", "the median Dice of those with enhancing tumour", middle),
        ("hard", "the lowest mean Dice of those with enhancing tumour", enhancing.index),
        ("small", "the smallest tumour", sizes.index[sizes["wt"] > 0][sizes["wt"][sizes["wt"] > 0].argsort()]),
        (
            "no enhancement",
            "the largest tumour of which nothing enhances",
            silent[sizes.loc[silent, "wt"].argsort()[::-1]],
        ),
        ("no tumour", "the first case without a tumour", sizes.index[sizes["wt"] == 0]),
    ]
    chosen: dict[str, tuple[str, str]] = {}
    for why, rule, ranked in rules:
        if name := next((one for one in ranked if one not in chosen), None):
            size = f"{sizes.loc[name, 'wt']:.0f} ml of tumour, {sizes.loc[name, 'et']:.0f} ml of it enhancing"
            left = (
                f"of the {len(sizes) - len(chosen)} test cases that are left"
                if chosen
                else f"of {len(sizes)} test cases"
            )
            chosen[name] = (why, f"{rule}, {left}; it has {size}.")
    return chosen


def volumes(cases: Mapping[str, Case], names: Sequence[str]) -> pd.DataFrame:
    """True volume of the regions of cases, ml; a row per case."""
    rows = {}
    for name in names:
        case = cases[name]
        rows[name] = case.regions.sum(axis=(1, 2, 3)) * np.prod(case.spacing) / 1000
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(REGIONS))


def ragged(name: str, spacing: float, fine: float, options: Options) -> tuple[Case, tuple[str, str], float, Case]:
    """A subject of the phantom with a tumour unlike those of training: ragged outlines, and foci beside the first.

    Args:
        name: of the subject, `phantom-0120`.
        spacing, fine: of the grid that networks read, and of the one that is shown; mm.
        options: that the others were made with.

    Returns:
        The case; why it is shown, as `choose` gives it; the highest Dice for enhancing tumour without t1ce, in [0, 1];
        and the case in finer voxels.
    """
    seed, unlike = int(name.rpartition("-")[2]), replace(options, irregular=1.0, multifocal=1.0)
    tissues = make_tissues(seed, spacing, True, unlike)
    case = make_subject(seed, spacing, options=unlike, tissues=tissues)
    closer = make_subject(seed, fine, tumour=True, options=unlike)
    wt, _, et = volumes({name: case}, [name]).loc[name]
    rule = (
        f"{name} with ragged outlines and further foci, as no training case has them; it is in no mean. "
        f"It has {wt:.0f} ml of tumour, {et:.0f} ml of it enhancing."
    )
    limit = ceiling_without_t1ce(tissues, options.predictable)
    named = replace(case, name=f"{name}-ragged")
    return named, ("several foci", rule), limit, replace(closer, name=named.name)


def predict_all(model: Segmenter, case: Case) -> dict[str, np.ndarray]:
    """What a network finds from every combination: label -> (R, X, Y, Z) bool on the grid of the case."""
    return {label(one, case.modalities): found.numpy() for one, found in shares_of(model, case).items()}


def explore(
    case: Case,
    why: tuple[str, str],
    models: Mapping[str, Segmenter],
    known: float | None,
    filled: Filled | None = None,
    taught: Mapping[str, Taught] | None = None,
    shown: Case | None = None,
) -> Explored:
    """Predict a case with every network from every combination, and score it.

    Args:
        why: as `choose` gives it.
        models: arm -> network, in evaluation mode.
        known, filled, shown: see `Explored`.
        taught: arm -> network that reads one combination, and is predicted from that alone.
    """
    predicted = {arm: predict_all(model, case) for arm, model in models.items()}
    for arm, one in (taught or {}).items():
        reads = one.about.reads
        predicted[arm] = {reads: predict(one.network, case, reads.split("+"))}
    return Explored(case, *why, predicted, _scored(case, predicted), known, filled, shown)


def _scored(case: Case, predicted: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    truth = torch.from_numpy(case.regions)
    return {
        arm: {have: dice(torch.from_numpy(found)[None], truth)[0].tolist() for have, found in by.items()}
        for arm, by in predicted.items()
    }


# ----------------------------------------------------------------------------------------------------- a reader's cases
def look_at(case: Case, network: Network | None = None, every: bool = True, voxels: int = VOXELS) -> Explored:
    """A case of a reader's, which may lack images and a truth, in few enough voxels for a page.

    Args:
        network: segments it; None: its truth alone is shown.
        every: from every combination of what it has, at most 15; else from all that it has together.
        voxels: of all images together, see `coarser`.

    Raises:
        ValueError: as `Network.segment` and `coarser`.
    """
    predicted = {}
    if network is not None:
        taken = {name: image for name, image in case.images.items() if name in network.modalities}
        case = replace(case, images=taken, modalities=network.modalities)
    view = coarser(case, voxels)
    if network is not None:
        chosen = None if every else [parse(network.used(case), network.modalities)]
        method, variant = (network.record[part] for part in ("method", "variant"))
        arm = method if variant in ("", "standard") else f"{method} {variant}"
        predicted[arm] = network.segment_each(case, view, chosen)
    own, shown = ("\u00a0x\u00a0".join(f"{side:.3g}" for side in one.spacing) + "\u00a0mm" for one in (case, view))
    lacking = [name for name in case.modalities if name not in case.images]
    about = ", ".join(case.images) + (f"; without {', '.join(lacking)}" if lacking else "")
    about += f". Voxels of {own}" + ("." if own == shown else f", shown and measured here with {shown}.")
    return Explored(view, case.name, about, predicted, {} if view.labels is None else _scored(view, predicted))


def coarser(case: Case, most: int) -> Case:
    """A case for a page: cut to its brain, and with no more voxels than a page can carry.

    The finest axis is made coarser in whole steps until all images together fit; thick slices stay as they are. Images
    are averaged over the brain in a new voxel, which is brain where half of it is; its label is that of its middle.

    Args:
        case: on any grid.
        most: voxels of all images of the case together.

    Returns:
        The case on its new grid, with `brain` set; its axes stay.

    Raises:
        ValueError: if the brain is empty, or `most` leaves less than a voxel for each image.
    """
    if not case.brain_mask.any() or most < len(case.images):
        brain = np.count_nonzero(case.brain_mask)
        raise ValueError(f"case {case.name}: {brain} voxels of brain, and {most} may be shown: give more")
    lines = [np.flatnonzero(case.brain_mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(max(0, line[0] - 1), line[-1] + 2) for line in lines)
    inside = case.brain_mask[box]
    steps, shape = np.ones(3, int), np.array(inside.shape)
    while len(case.images) * np.prod(-(-shape // steps)) > most:
        steps[np.argmin(np.where(steps < shape, steps * case.spacing, np.inf))] += 1

    def averaged(volume: np.ndarray) -> np.ndarray:
        padded = np.pad(volume.astype(np.float32), [(0, size) for size in -shape % steps], mode="edge")
        parts = zip(-(-shape // steps), steps, strict=True)
        return padded.reshape([size for pair in parts for size in pair]).mean(axis=(1, 3, 5))

    share = averaged(inside)
    images = {
        name: np.divide(averaged(image[box] * inside), share, out=np.zeros_like(share), where=share > 0)
        for name, image in case.images.items()
    }
    middle = tuple(
        np.minimum(np.arange(step // 2, size + step // 2, step), size - 1)
        for step, size in zip(steps, shape, strict=True)
    )
    affine = case.affine @ np.diag([*steps, 1])
    affine[:3, 3] += case.affine[:3, :3] @ ([part.start for part in box] + (steps - 1) / 2)
    labels = None if case.labels is None else case.labels[box][np.ix_(*middle)]
    return replace(case, images=images, affine=affine, labels=labels, brain=share >= 0.5, header=None)


# -------------------------------------------------------------------------------------------------------- distillation
@dataclass(frozen=True)
class Taught:
    """A teacher or a student.

    Attributes:
        about: its name and what it reads.
        run: that trained it.
        network: in evaluation mode.
        mean: Dice in [0, 1] of every region, over all test cases and seeds.
    """

    about: Fixed
    run: str
    network: Segmenter
    mean: list[float]


def read_taught(results: Results, tested: Sequence[str]) -> dict[str, Taught]:
    """Arm -> teacher of all images, student without a teacher and student of ProtoKD, each with its lowest seed.

    Those whose weights are not here are left out; all are where the teacher's or the taught student's are not.

    Args:
        results: runs of distillation.
        tested: cases that means are taken over.
    """
    whole = label(MRI, MRI)
    shown = {
        "teacher": Fixed("teacher (reads all images)", PURPLE, whole),
        "unimodal": Fixed(f"no teacher (reads {STUDENT})", ORANGE, STUDENT),
        "protokd": Fixed(f"student (reads {STUDENT})", GREEN, STUDENT),
    }
    found: dict[str, Taught] = {}
    for arm, about in shown.items():
        rows = results.records[results.records["method"].eq(arm) & results.records["variant"].eq("standard")]
        for row in rows.sort_values("seed").itertuples():
            if (Path(row.folder) / f"{about.reads}.safetensors").is_file():
                width = records.read_record(row.folder)["parameters"]["width"]
                network = load_network(row.folder, about.reads, MRI, width)
                mean = taught_mean(results, arm, about.reads, tested)
                found[arm] = Taught(about, row.run, network, mean)
                break
    return found if {"teacher", "protokd"} <= set(found) else {}


def taught_mean(results: Results, arm: str, reads: str, tested: Sequence[str]) -> list[float]:
    """Mean Dice in [0, 1] of every region, of a teacher or student over test cases and seeds."""
    asked = {"method": arm, "variant": "standard", "metric": "dice", "available": reads}
    rows = results.scores[results.scores["case"].isin(tested)]
    for column, value in asked.items():
        rows = rows[rows[column].eq(value)]
    return rows.groupby("target", observed=True)["value"].mean()[list(REGIONS)].tolist()


# ----------------------------------------------------------------------------------------------------------- synthesis
@dataclass(frozen=True)
class Filler:
    """A network that synthesises missing images, slice by slice.

    Attributes:
        name: as it is printed.
        run: that trained it, with its variant and seed.
        synthesise: (N, M, H, W) in [-1, 1] and (N, M) bool -> (N, M, H, W).
        size: (H, W) of its slices.
        stride: that divides them.
    """

    name: str
    run: str
    synthesise: Callable[[Tensor, Tensor], Tensor]
    size: tuple[int, int]
    stride: int


def read_fillers(results: Results) -> dict[str, Filler]:
    """Arm -> network of synthesis, of the runs of `FILLERS` whose weights are here, each with its lowest seed."""
    found: dict[str, Filler] = {}
    for row in results.records.itertuples():
        arm = f"{row.method} {FILLED_BY}"
        kept = sorted(Path(row.folder).glob(f"{FILLED_BY}-s*/{KEPT}"))
        if row.method not in FILLERS or arm in found or not kept:
            continue
        seed, asked = int(kept[0].parent.name.rsplit("-s", 1)[1]), records.read_record(row.folder)["parameters"]
        network = load(row.folder, variant=FILLED_BY, seed=seed)
        synthesise: Callable[[Tensor, Tensor], Tensor] = network
        if row.method == "m2dn":
            synthesise = partial(_sampled, network, asked["sampling_steps"])
        height, width = asked["size"]
        run = f"{row.run}/{FILLED_BY}-s{seed}"
        found[arm] = Filler(NAMES[arm], run, synthesise, (height, width), int(getattr(network, "stride", STRIDE)))
    return found


def _sampled(network: nn.Module, steps: int, images: Tensor, available: Tensor) -> Tensor:
    """Sample with the same noise in every call."""
    return m2dn.sample(network, images, available, steps, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def fill(case: Cases, fillers: Mapping[str, Filler]) -> Filled | None:
    """What networks make up for what is missing, from every combination, in the slice with most tumour.

    Args:
        case: a data set of one case with every modality.
        fillers: of `read_fillers`, all for slices of one size; None is returned where there are none.
    """
    if not fillers:
        return None
    first = next(iter(fillers.values()))
    slices = axial_slices(case, MRI, size=first.size, stride=first.stride, least_brain=0)
    seen = slices.labels if slices.labels is not None and slices.labels.any() else slices.brain
    place = int(((seen > 0).int() + (seen == 4).int()).sum(dim=(1, 2)).argmax())  # what enhances counts twice
    image, brain = slices.images[place], slices.brain[place]  # M H W, H W
    every = patterns(MRI)
    available = torch.stack([mask(one, MRI) for one in every])  # K M
    given = torch.where(available[..., None, None], image, 0)  # K M H W
    made: dict[str, dict[str, dict[str, tuple[np.ndarray, float]]]] = {}
    for arm, filler in fillers.items():
        found = filler.synthesise(given, available)  # K M H W
        made[arm] = {
            label(one, MRI): {
                name: (upright(found[k, m].numpy()), float(psnr(found[k, m][None], image[m][None], brain[None])))
                for m, name in enumerate(MRI)
                if name not in one
            }
            for k, one in enumerate(every)
        }
    acquired = {name: upright(image[m].numpy()) for m, name in enumerate(MRI)}
    return Filled(place + 1, acquired, made)


def means(
    study: Study, arms: Sequence[str], taught: Mapping[str, Taught] | None = None
) -> dict[str, dict[str, list[float]]]:
    """Arm -> combination -> mean Dice in [0, 1] of every region, over all test cases and seeds."""
    fixed = {arm: {one.about.reads: one.mean} for arm, one in (taught or {}).items()}
    return fixed | {
        arm: {have: (row / 100).tolist() for have, row in zip(table.index, table.to_numpy(), strict=True)}
        for arm, table in ((arm, study.dice(arm)) for arm in arms)
    }
