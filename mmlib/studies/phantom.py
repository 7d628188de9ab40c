"""Options and dials of the brain phantom, for its chapter: figures, ceilings, and overlap beside that of patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmlib.analysis.leaks import best_fixed_marking as best_fixed_marking
from mmlib.analysis.overlap import brain_values, modality_overlap
from mmlib.data.cases import REGIONS, Case, regions
from mmlib.data.phantoms.brain import ceiling_without_t1ce, make_subject, make_tissues
from mmlib.data.phantoms.options import PLAIN, REALISTIC, Options, enhancement_ceiling, tumour_ceiling
from mmlib.figures.overlays import axial
from mmlib.figures.style import BLACK, MODALITY, ORANGE, REGION, new_figure, styled
from mmlib.modalities import MRI

SHOWN = {  # what the figure of options shows
    "plain": PLAIN,
    "irregular 1": Options(irregular=1.0),
    "multifocal 1": Options(multifocal=1.0),
    "sites 3": Options(sites=3),
    "misregistration 4": Options(misregistration=4.0),
    "realistic": REALISTIC,
}
DIAL = np.linspace(0, 1, 41)


def look_closer(case: Case, fine: float, options: Options = PLAIN) -> Case:
    """The same subject of the phantom in finer voxels; as it is where its own do not hold a whole number of them.

    Args:
        case: of the phantom, by its name.
        fine: mm.
        options: that it was made with.
    """
    if case.spacing[0] % fine:
        return case
    return make_subject(int(case.name.rpartition("-")[2]), fine, options=options)


def as_score(case: str, target: str, metric: str, value: float) -> pd.DataFrame:
    """One row of scores."""
    return pd.DataFrame([{"case": case, "available": "none", "target": target, "metric": metric, "value": value}])


def facts_of_subjects(seeds: Iterable[int], spacing: float) -> tuple[pd.DataFrame, np.ndarray]:
    """What subjects of the plain phantom hold.

    Args:
        seeds: of the subjects.
        spacing: mm.

    Returns:
        Scores (case: the seed, available, target, metric, value): the metric `ml` of each region and of necrosis, and
        `ceiling`, see `ceiling_without_t1ce`, of `et`; and the whole tumours, (N, X, Y, Z) bool.
    """
    rows, masks = [], []
    for seed in seeds:
        truth = make_tissues(seed, spacing)
        parts = dict(zip(REGIONS, regions(truth.labels, 4), strict=True))
        parts["necrosis"] = truth.fractions["necrosis"] > 0.5
        values = [(name, "ml", part.sum() * spacing**3 / 1000) for name, part in parts.items()]
        rows += [as_score(str(seed), *one) for one in [*values, ("et", "ceiling", ceiling_without_t1ce(truth))]]
        masks.append(truth.labels > 0)
    return pd.concat(rows, ignore_index=True), np.stack(masks)


def read_facts(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """The volumes, ml, and the ceilings that `facts_of_subjects` found: a row per seed, a column per region."""
    own = scores[scores["case"].str.fullmatch(r"\d+")].astype({"case": int})
    sizes = own[own["metric"].eq("ml")].pivot(index="case", columns="target", values="value")
    return sizes, own[own["metric"].eq("ceiling")].set_index("case")["value"].sort_index()


def read_overlap(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What `overlap_of` found, by the name of the options: tables for `overlap_table`."""
    found = scores[scores["case"].str.contains(": ")]
    found = found.rename(columns={"available": "source", "metric": "kind"})
    return dict(list(found.groupby(found["case"].str.split(": ").str[0], sort=False)))


def overlap_of(options: Options, seeds: Iterable[int], spacing: float, most: int) -> pd.DataFrame:
    """`mmlib.analysis.overlap.modality_overlap` of phantom subjects.

    Args:
        options: of the phantom.
        seeds: at least two subjects.
        spacing: mm.
        most: so many voxels of each brain at most.
    """
    cases = [make_subject(seed, spacing, options=options) for seed in seeds]
    return modality_overlap({case.name: brain_values(case, MRI, most) for case in cases}, MRI)


def overlap_table(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Means over subjects: a row per data set, a column per R2 (of trees) and per correlation.

    Args:
        measured: data set -> tidy table, as `mmlib.analysis.overlap.modality_overlap` returns it.
    """
    rows = {}
    for name, table in measured.items():
        means = table.groupby(["kind", "target", "source"], sort=False)["value"].mean()
        trees = means["r2-trees"].droplevel("source").reindex(list(MRI))
        pairs = means["correlation"]
        rows[name] = {f"R² {target}": value for target, value in trees.items()}
        rows[name] |= {f"r {source}, {target}": value for (target, source), value in pairs.items()}
    return pd.DataFrame(rows).T


def simulated_ceiling(predictable: float, seeds: Iterable[int], spacing: float) -> float:
    """Mean of `ceiling_without_t1ce` over subjects with a tumour."""
    options = Options(predictable=predictable)
    made = (make_tissues(seed, spacing, True, options) for seed in seeds)
    return float(np.mean([ceiling_without_t1ce(tissues, predictable) for tissues in made]))


def limits_around(mask: np.ndarray, margin: int = 2) -> dict[str, tuple[int, int]]:
    """Limits of axes that show axial slices: what a mask (row, column, slice) holds, and so many voxels around it."""
    rows, columns, _ = np.nonzero(mask)
    across, down = ((line.min() - margin, line.max() + margin) for line in (columns, rows))
    return {"xlim": across, "ylim": down[::-1]}


def _slice(case: Case, name: str, axes: Axes, z: int, outline: np.ndarray | None = None) -> None:
    window = np.percentile(case.images[name][case.brain_mask], 99.7)
    axes.imshow(axial(case.images[name], case.affine)[..., z], cmap="gray", vmin=0, vmax=window)
    if outline is not None and outline[..., z].any():
        axes.contour(outline[..., z], levels=[0.5], colors=[REGION["wt"][0]], linewidths=0.8)
    axes.set(**limits_around(axial(case.brain_mask, case.affine)))
    axes.axis("off")


def _largest(mask: np.ndarray) -> int:
    return int(mask.sum(axis=(0, 1)).argmax())


@styled
def draw_options(seed: int, spacing: float) -> Figure:
    """The same axial slice of t1ce and t2 of one subject under each of `SHOWN`; outlined in t2: the whole tumour."""
    figure, panels = new_figure(10, 4.4, 2, len(SHOWN))
    z = None
    for (above, below), (name, options) in zip(panels.T, SHOWN.items(), strict=True):
        case = make_subject(seed, spacing, tumour=True, options=options)
        tumour = axial(np.asarray(case.labels) > 0, case.affine)
        z = _largest(tumour) if z is None else z
        _slice(case, "t1ce", above, z)
        _slice(case, "t2", below, z, tumour)
        above.set_title(name)
    return figure


@styled
def draw_shared(seed: int, spacing: float, blind: float) -> Figure:
    """One subject with `shared` = 0, and the ceiling for the whole tumour along the dial.

    Args:
        seed, spacing: of the subject; mm.
        blind: as `mmlib.data.phantoms.options.tumour_ceiling`.
    """
    figure, panels = new_figure(10, 2.6, 1, 5, width_ratios=(1, 1, 1, 1, 1.6))
    case = make_subject(seed, spacing, tumour=True, options=Options(shared=0.0))
    tumour = axial(np.asarray(case.labels) > 0, case.affine)
    for axes, name in zip(panels[0], MRI, strict=False):
        _slice(case, name, axes, _largest(tumour), tumour)
        axes.set_title(name)
    for k, name in enumerate(MRI, start=1):
        colour, marker = MODALITY[name]
        curve = [tumour_ceiling(shared, MRI[:k], blind) for shared in DIAL]
        panels[0, 4].plot(DIAL, curve, color=colour, marker=marker, markevery=10, label=f"{k} of 4")
    panels[0, 4].set(xlabel="shared", ylabel="best mean WT Dice", ylim=(0, 1.02))
    panels[0, 4].legend()
    return figure


@styled
def draw_predictable(seed: int, spacing: float, simulated: Mapping[float, float]) -> Figure:
    """The sign of enhancement in one subject, and the ceiling without t1ce along the dial.

    Args:
        seed, spacing: of a subject whose tumour enhances; mm.
        simulated: `predictable` -> mean ceiling of simulated subjects.
    """
    figure, panels = new_figure(10, 2.6, 1, 5, width_ratios=(1, 1, 1, 1, 1.6))
    made = {  # a chance of one in a million: the sign is there, and says nothing
        dial: make_subject(seed, spacing, tumour=True, options=Options(predictable=dial)) for dial in (0.0, 1e-6, 1.0)
    }
    plain, apart = made[0.0], made[1e-6]
    enhancing = axial(np.asarray(plain.labels) == 4, plain.affine)
    darker = (plain.images["flair"] > 1.1 * apart.images["flair"]) & np.isin(np.asarray(plain.labels), (1, 4))
    rim, sign = (part.sum(axis=(0, 1)) for part in (enhancing, axial(darker, plain.affine)))
    z = int((np.minimum(rim, sign) + rim / max(rim.sum(), 1)).argmax())  # the slice with most of both, or of the first
    drawn = {
        "t1ce": ("t1ce", 0.0),
        "flair, 0": ("flair", 0.0),
        "flair, just above 0": ("flair", 1e-6),
        "flair, 1": ("flair", 1.0),
    }
    for axes, (title, (name, dial)) in zip(panels[0], drawn.items(), strict=False):
        _slice(made[dial], name, axes, z, enhancing)
        axes.set(**limits_around(axial(np.asarray(plain.labels) > 0, plain.affine), 6))
        axes.set_title(title)
    panels[0, 4].plot(DIAL, [enhancement_ceiling(q) for q in DIAL], color=BLACK, label="enumerated")
    panels[0, 4].plot(list(simulated), list(simulated.values()), "o", color=ORANGE, label="simulated")
    panels[0, 4].set(xlabel="predictable", ylabel="best mean ET Dice", ylim=(0, 1.02))
    panels[0, 4].legend()
    return figure
