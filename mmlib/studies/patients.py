"""Real patients (Lesjak et al. 2017, CC BY): what their chapter tabulates, draws and says, and what the book ships.

    python -m mmlib.studies.patients FOLDER book

writes the table of overlaps and the picture of one patient that the book shows to readers without the data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.overlap import brain_values, modality_overlap
from mmlib.analysis.results import Results
from mmlib.analysis.statistics import paired_effects
from mmlib.analysis.wording import select
from mmlib.data.ms import MsFolder
from mmlib.data.resample import resample
from mmlib.figures.overlays import portrait
from mmlib.figures.results import arm_of, arm_style
from mmlib.figures.style import as_text, new_figure, styled
from mmlib.ledgers.claims import effect_rows
from mmlib.modalities import MRI, combinations, label

COMBINATIONS = tuple(label(names, MRI) for names in combinations(MRI))
ARMS = ("shaspec paper", "dropout-unet", "zero-fill")
SAMPLE = 10  # patients; with fewer, no interval is computed and no method is said to be better
SESOI = 1.0  # Dice points, as in the claims ledger
OVERLAP = Path("published") / "open_ms_overlap.csv"
PICTURE = Path("_static") / "open-ms-patient.png"


@dataclass(frozen=True)
class Study:
    """The runs on patients: every patient is tested by networks that were trained on others.

    Attributes:
        results: records and scores of the experiment.
        scores: Dice of the lesions in percent, one row per patient, combination and arm.
    """

    results: Results
    scores: pd.DataFrame

    @cached_property
    def patients(self) -> list[str]:
        """Names of the patients tested."""
        return sorted(self.scores["case"].unique())

    @property
    def is_sample(self) -> bool:
        """Whether there are enough patients to compare methods by."""
        return len(self.patients) >= SAMPLE

    @property
    def arms(self) -> list[str]:
        """The arms that have scores."""
        return [arm for arm in ARMS if arm in set(self.scores["arm"])]


def read(results: Results) -> Study:
    """Take the runs of the experiment.

    Raises:
        ValueError: if a patient was tested by two folds of one arm: folds of different data are mixed.
    """
    dice = results.scores[results.scores["metric"].eq("dice") & results.scores["target"].eq("lesion")]
    dice = dice.assign(arm=arm_of(dice), value=100 * dice["value"])
    if dice.duplicated(["arm", "seed", "case", "available"]).any():
        raise ValueError("a patient is tested twice in one arm: runs of different folders are mixed; run them anew")
    return Study(results, dice)


def table(study: Study) -> pd.DataFrame:
    """Mean Dice over patients, lowest and highest patient, as texts; rows: combinations, columns: arms."""
    groups = study.scores.groupby(["available", "arm"])["value"]
    texts = groups.agg(lambda values: f"{values.mean():.0f} ({values.min():.0f} to {values.max():.0f})").unstack()
    shown = texts.reindex(index=[one for one in COMBINATIONS if one in texts.index], columns=study.arms)
    return shown.rename(columns=lambda arm: arm_style(arm)[2]).rename_axis("available")


def means(study: Study) -> dict[str, float]:
    """Arm -> mean Dice over patients and combinations."""
    return study.scores.groupby("arm")["value"].mean().reindex(study.arms).to_dict()


@styled
def every_patient(study: Study) -> Figure:
    """Dice of every patient in every combination, a dot each; arms by colour and marker."""
    figure, axes = new_figure(7.5, 5.2)
    axis = axes[0, 0]
    for place, arm in enumerate(study.arms):
        colour, marker, name = arm_style(arm)
        part = study.scores[study.scores["arm"] == arm]
        rows = part["available"].map(COMBINATIONS.index) + 0.7 * ((place + 0.5) / len(study.arms) - 0.5)
        axis.scatter(part["value"], rows, s=14, color=colour, marker=marker, label=name)
    axis.set(xlabel="Dice of lesions, %", xlim=(-2, 100), ylim=(len(COMBINATIONS) - 0.5, -0.5))
    axis.set_yticks(range(len(COMBINATIONS)), COMBINATIONS)
    figure.legend(loc="outside lower center", ncols=len(study.arms))
    return figure


def gains(study: Study, rival: str = "dropout-unet", me: str = "shaspec paper") -> pd.DataFrame:
    """Points of Dice over a rival by number of modalities: rows of a forest plot, with intervals over patients.

    Raises:
        ValueError: if there are too few patients for intervals.
    """
    if not study.is_sample:
        raise ValueError(f"{len(study.patients)} patients are no sample; {SAMPLE} are needed for an interval")
    sizes = study.scores["available"].str.count(r"\+") + 1
    parts = [study.scores[sizes == size] for size in range(1, len(MRI) + 1)]
    effects = paired_effects([(select(part, arm=me), select(part, arm=rival)) for part in parts])
    return effect_rows([f"{size} of {len(MRI)} modalities" for size in range(1, len(MRI) + 1)], effects, SESOI)


def coverage(study: Study | None, profile: str) -> str:
    """What the runs are on, and what follows from their number; or, without runs, how to get them."""
    if study is None:
        return (
            f"**There are no runs on patients here: the profile `{profile}` was made without their files.** "
            "To get them, `python -m mmlib fetch open-ms FOLDER` (0.5 GB, no registration); then "
            "`make book PROFILE=full MS=FOLDER`. Nothing stands in for patients, so the tables below are left out."
        )
    count = len(study.patients)
    if not study.is_sample:
        return (
            f"**These are runs on real files, not results: {count} patients are not a sample.** Each was tested by "
            f"networks trained on the others ({', '.join(map(as_text, study.patients))}). The same command gives "
            f"results with all thirty; below {SAMPLE} patients no interval is computed and no method is called better."
        )
    return f"**{count} patients, each tested by networks that were trained on others.** Intervals are over patients."


# ------------------------------------------------------------------------------------------- what the book ships
def overlap_ranges(overlap: pd.DataFrame) -> pd.DataFrame:
    """Lowest to highest subject of a table of overlaps, as texts; rows: modalities, columns: kinds."""
    kinds = {"r2-linear": "R2, line", "r2-trees": "R2, trees", "correlation": "correlation"}
    other = overlap["source"].where(overlap["kind"].eq("correlation"), "")
    groups = overlap.assign(other=other).groupby(["target", "kind", "other"], sort=False)["value"]
    texts = groups.agg(lambda values: f"{values.min():.2f} to {values.max():.2f}").reset_index()
    texts["value"] += texts["other"].map(lambda name: f" (with {name})" if name else "")
    return (
        texts.pivot(index="target", columns="kind", values="value")
        .reindex(list(MRI))[list(kinds)]
        .rename(columns=kinds)
    )


def overlap_of(cases: MsFolder, spacing: float | None) -> pd.DataFrame:
    """`modality_overlap` of all patients, on cubes of `spacing` mm or, with None, on voxels as they are."""
    read = {name: cases[name] if spacing is None else resample(cases[name], spacing) for name in cases}
    return modality_overlap({name: brain_values(case, MRI) for name, case in read.items()}, MRI)


def write_published(folder: Path, book: Path, patient: str = "patient26") -> list[Path]:
    """Write what the book shows of the patients: the table of overlaps at the phantom's 4 mm, and one picture.

    Args:
        folder: of the patients.
        book: where it is written.
        patient: the one in the picture.
    """
    cases = MsFolder(folder)
    table = overlap_of(cases, 4.0).round({"value": 4})
    how = "measured on cubes of 4 mm, 20000 voxels of each brain at most, by python -m mmlib.studies.patients"
    table.assign(computed=how).to_csv(book / OVERLAP, index=False)
    portrait(cases[patient], outline=True).savefig(book / PICTURE, dpi=110)
    return [book / OVERLAP, book / PICTURE]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line, see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("book", type=Path)
    given = parser.parse_args(arguments)
    for path in write_published(given.folder, given.book):
        print(path)


if __name__ == "__main__":
    main()
