"""What the first page says: one drawing and two sentences, made from the runs of the segmentation study.

Arms, scores and units are those of `mmlib.studies.segmentation`.
"""

from __future__ import annotations

import pandas as pd

from mmlib.analysis.wording import format_effect, outcome
from mmlib.figures.lanes import lanes
from mmlib.figures.style import REGION_NAME, Shown
from mmlib.modalities import MRI
from mmlib.studies.segmentation import ALL, COMBINATIONS, Study, arm_name
from mmlib.studies.segmentation_findings import BLIND, Ceiling

WITH, WITHOUT = "With t1ce", "Without t1ce"
GROUPS = {  # the most modalities first
    WITH: [name for name in reversed(COMBINATIONS) if name not in BLIND],
    WITHOUT: list(reversed(BLIND)),
}


def enhancing_cells(study: Study) -> pd.DataFrame:
    """The ET cells of the networks that are scored with all combinations, in the order of the study's arms."""
    cells = study.cells[study.cells["target"].eq("et") & study.cells["arm"].isin(study.whole)]
    return cells.sort_values("arm", key=lambda arms: arms.map(study.whole.index), kind="stable")


def what_is_missing_stays_missing(study: Study, limit: Ceiling | None) -> str:
    """The finding about the images: how much of the enhancing tumour is found without t1ce, and could be."""
    means = enhancing_cells(study).set_index(["arm", "available"])["mean"]
    blind = means[means.index.isin(BLIND, level="available")]
    arm, available = blind.idxmax()
    known = f"the images hold {limit.mean:.0f} %" if limit else "how much these images hold, nobody knows"
    return (
        f"Without t1ce no network reaches a Dice above {blind.max():.0f} % for the enhancing tumour ({arm_name(arm)}, "
        f"from {available}); {known}. With all four images the same network reaches {means[arm, ALL]:.0f} %."
    )


def training_with_gaps(study: Study) -> str:
    """The finding about training: what meeting incomplete sets is worth on them, and what it costs on complete ones."""
    met, never = "dropout-unet", "zero-fill"
    if not {met, never} <= set(study.whole):
        return "What training with gaps is worth was not run in this profile."
    gain = study.gain(met, never, size=list(range(1, len(MRI))))
    price = study.gain(met, never, available=ALL)
    word = outcome(gain, ("gains", "loses", "shows no clear gain:"))
    cost = outcome(price, ("it gains", "it loses", "the difference is not clear:"))
    return (
        f"A U-Net that met incomplete sets in training {word} {format_effect(gain, unit='points')} of Dice on them "
        f"over the same net that did not; on complete sets {cost} {format_effect(price, unit='points')}."
    )


def first_picture(study: Study, limit: Ceiling | None, caveat: str = "") -> Shown:
    """The enhancing tumour with every combination, for every network that takes any of them.

    Args:
        caveat: stands before alt text and caption where the numbers are no results.
    """
    line = f" Dashed: {limit.mean:.0f} %, the most that can be known without t1ce;" if limit else ""
    return lanes(
        enhancing_cells(study),
        GROUPS,
        alt=f"{caveat}Dice of the enhancing tumour, {len(study.whole)} networks, {len(COMBINATIONS)} combinations of "
        f"modalities. {what_is_missing_stays_missing(study, limit)}",
        caption=f"{caveat}Each lane is one combination of images (filled: there, ring: missing), each marker a "
        f"network: the mean, and the 95 % interval.{line or ' All:'} {study.sample}.",
        unit=f"Dice of the {REGION_NAME['et']}, %",
        known={WITHOUT: limit.mean} if limit else {},
    )


def first_page(study: Study | None, limit: Ceiling | None, caveat: str = "") -> tuple[Shown, dict[str, str]]:
    """The picture of the first page and its sentences: `missing` and `gaps`.

    Args:
        study: None, or without a network that was scored with all combinations: then picture and sentences say so.
        limit: what can be known without t1ce, where it is known.
        caveat: as `first_picture` takes it.
    """
    if study is None or not study.whole:
        none = "Segmentation from every combination of modalities was not run in this profile."
        return Shown(f"<p>{none}</p>", none), {"missing": none, "gaps": none}
    said = {"missing": what_is_missing_stays_missing(study, limit), "gaps": training_with_gaps(study)}
    return first_picture(study, limit, caveat), said
