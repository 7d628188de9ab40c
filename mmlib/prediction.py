"""From files to files: a trained network segments cases, or synthesises what they lack, in the scans' own space.

A case is brought to the voxels and axes that the network learned from, predicted from the modalities it has, and
brought back to its own grid. Images that are synthesised run from 0 to 1 and are 0 outside the brain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import torch
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.processing import resample_from_to
from torch import Tensor, nn
from tqdm.auto import tqdm

from mmlib import records
from mmlib.data.brats import LAYOUT
from mmlib.data.cases import REGIONS, Case, raw_labels, regions
from mmlib.data.doctor import FOLDERS
from mmlib.data.filenames import file_name, for_spreadsheets
from mmlib.data.nifti import CaseFiles, Cases, save_image, write_segmentation
from mmlib.data.resample import PHANTOM_AXES, back_to, resample
from mmlib.data.slices import axial_slices, volumes
from mmlib.data.table import TableCases
from mmlib.methods import load, m2dn
from mmlib.modalities import combinations, label
from mmlib.tasks.distillation import load_network
from mmlib.tasks.segmentation import predict, shares_of

SLICES = 64  # synthesised together
STRIDE = 8  # of a network of slices that does not say its own, as in training
TABLE = "predictions.csv"
PHANTOMS = "trained on phantoms: not for patients"
PATIENTS = "a network of a book: not for clinical use"


def warning_of(record: Mapping[str, Any]) -> str:
    """What to say beside everything that the network of a record makes."""
    return PHANTOMS if record["stand_in"] else PATIENTS


@dataclass(frozen=True)
class Network:
    """A trained network and what it expects of a case.

    Attributes:
        name: published under it, or `<profile>/<experiment>/<run>`.
        model: in evaluation mode, on the CPU.
        record: of the run that trained it.
        spacing: mm, side of the voxels that it learned from; 0 where nobody knows.
        axes: their order, such as `RAS`.
    """

    name: str
    model: Any
    record: Mapping[str, Any]
    spacing: float
    axes: str

    @classmethod
    def of_run(
        cls, folder: Path | str, file: str = "fit.safetensors", *, name: str = "", spacing: float = 0.0
    ) -> Network:
        """Load a network of a finished run.

        Args:
            folder: of the run.
            file: its weights, from there: of a run that holds several networks `<variant>-s<seed>/fit.safetensors`, of
                distillation `<modalities read>.safetensors`.
            name: of the network.
            spacing: mm, of the voxels it learned from, where the record does not say it.

        Raises:
            FileNotFoundError, RecordError, ValueError: as `mmlib.methods.load`, or if the run is of a task that takes
                no volumes.
        """
        record = records.read_record(folder)
        member, _, stage = file.removesuffix(".safetensors").rpartition("/")
        model: nn.Module
        if record["task"] == "distillation":
            model = load_network(folder, stage, record["modalities"], record["parameters"]["width"])
        elif record["task"] in ("segmentation", "synthesis"):
            variant, _, seed = member.rpartition("-s")
            model = load(folder, variant=variant or None, seed=int(seed) if seed else None, name=stage)
        else:
            raise ValueError(f"{folder} is a run of {record['task']}: expected one of segmentation or synthesis")
        known = name or "/".join(record[part] for part in records.PLACE)
        return cls(known, model, record, record.get("spacing", spacing), record.get("axes", PHANTOM_AXES))

    @property
    def synthesises(self) -> bool:
        """Whether it completes cases; else it segments them."""
        return self.record["task"] == "synthesis"

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it reads, in their order; of a student a part of those in the batch."""
        return tuple(getattr(self.model, "combination", self.record["modalities"]))

    @property
    def warning(self) -> str:
        """What to say beside everything that it makes."""
        return warning_of(self.record)

    def used(self, case: Case) -> str:
        """The label of the modalities that it takes of a case, such as `t1+flair`.

        Raises:
            ValueError: if there is none.
        """
        return label([kind for kind in self.modalities if kind in case.images], self.modalities)

    def _small(self, case: Case) -> Case:
        if not self.spacing:
            raise ValueError(f"{self.name}: the record does not say on what voxels it was trained; give spacing in mm")
        return resample(case, self.spacing, self.axes)

    def segment(self, case: Case) -> np.ndarray:
        """Segment one case from the modalities it has.

        Returns:
            (R, X, Y, Z) bool on the case's own grid; of tumours wt, tc and et.

        Raises:
            ValueError: if the network synthesises, or the case has none of its modalities.
        """
        if self.synthesises:
            raise ValueError(f"{self.name} synthesises images: use complete")
        small = self._small(case)
        return back_to(case, predict(self.model, small, getattr(self.model, "combination", None)), small)

    def segment_each(
        self, case: Case, onto: Case, chosen: Sequence[tuple[str, ...]] | None = None
    ) -> dict[str, np.ndarray]:
        """Segment one case from every combination of the modalities it has, as files would have it.

        Args:
            onto: the case on the grid that is wanted, such as a coarser one to look at.
            chosen: combinations; None: all. Those that the case, or a student, cannot give are left out.

        Returns:
            Label of a combination, few images first -> (R, X, Y, Z) bool on that grid; of tumours the inner label wins.

        Raises:
            ValueError: as `segment`.
        """
        self.used(case)
        small, reads = self._small(case), getattr(self.model, "combination", None)
        wanted = combinations(self.modalities) if chosen is None else chosen
        found = shares_of(self.model, small, [one for one in wanted if reads in (None, one)])
        return {
            label(one, self.modalities): _as_filed(back_to(onto, marked.numpy(), small), case)[1]
            for one, marked in found.items()
        }

    def complete(self, case: Case) -> dict[str, np.ndarray]:
        """Synthesise the modalities that a case lacks, slice by slice.

        Returns:
            Modality -> (X, Y, Z) float32 in [0, 1] on the case's own grid, 0 outside the brain; empty where nothing is
            missing.

        Raises:
            ValueError: if the network segments, the case has none of its modalities, or its brain does not fit on the
                canvas of training.
        """
        if not self.synthesises:
            raise ValueError(f"{self.name} segments: use segment")
        missing = [kind for kind in self.modalities if kind not in case.images]
        if not missing:
            return {}
        small, (height, width) = self._small(case), self.record["parameters"]["size"]
        slices = axial_slices(
            _Single(small),
            self.modalities,
            size=(height, width),
            stride=getattr(self.model, "stride", STRIDE),
            every=1,
            least_brain=0,
        )
        made = volumes(small, slices, self._synthesise(slices.images, slices.available))
        return {kind: _on_grid_of(case, made[kind], small) for kind in missing}

    @torch.inference_mode()
    def _synthesise(self, images: Tensor, available: Tensor) -> Tensor:
        """(N, M, H, W) and (N, M) -> (N, M, H, W); the noise of a diffusion model is the same in every call."""
        forward: Callable[[Tensor, Tensor], Tensor] = self.model
        if self.record["method"] == "m2dn":
            noise, steps = torch.Generator().manual_seed(0), self.record["parameters"]["sampling_steps"]

            def forward(part: Tensor, there: Tensor) -> Tensor:
                return m2dn.sample(self.model, part, there, steps, generator=noise)

        pairs = zip(images.split(SLICES), available.split(SLICES), strict=True)
        return torch.cat([forward(part, there) for part, there in pairs])


class _Single(Cases):
    """A case in memory as a data set of its own."""

    def __init__(self, case: Case):
        super().__init__([CaseFiles(case.name, {})], case.name)
        self.case = case

    def __getitem__(self, key):
        return self.case


def _on_grid_of(case: Case, image: np.ndarray, small: Case) -> np.ndarray:
    """An image of the resampled case on the case's own grid, linearly interpolated; 0 outside the brain."""
    grid = (case.brain_mask.shape, case.affine)
    back = resample_from_to(Nifti1Image(image, small.affine), grid, order=1, mode="nearest")
    return np.where(case.brain_mask, back.get_fdata(dtype=np.float32), np.float32(0))


# ---------------------------------------------------------------------------------------------------------------- files
@dataclass(frozen=True)
class Made:
    """What was made of a case.

    Attributes:
        case: its name.
        used: the modalities that were taken, as `t1+flair`.
        files: that were written.
        volumes: of a segmentation region -> ml; of a synthesis empty.
        regions: (R, X, Y, Z) bool, as the file of a segmentation has them; None of a synthesis.
    """

    case: str
    used: str
    files: tuple[Path, ...]
    volumes: dict[str, float]
    regions: np.ndarray | None = None


def find_layout(path: Path) -> str:
    """The layout of a table (`.csv`) or of a folder of cases, the first in which it has a case.

    Raises:
        ValueError: if there is none.
    """
    if path.suffix.lower() == ".csv":
        return "table"  # the doctor says it where there is none
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; check the path")
    if path.is_file():
        raise ValueError(f"{path} is one file: say which modality it is, such as t1={path}, or give its folder")
    for layout, module in FOLDERS.items():
        if path.is_dir() and module.find_cases(path, lambda error: None):
            return layout
    raise ValueError(f"{path}: no case found; expected a CSV (layout table) or a folder with {LAYOUT}")


def open_cases(layout: str, path: Path) -> Cases:
    """The cases of a folder or table; nothing is read yet.

    Args:
        layout: "brats", "ixi", "ms" or "table".
        path: the folder, or the CSV.

    Raises:
        ValueError: if there is no case, or a case occurs twice.
    """
    if layout == "table":
        return TableCases(path)
    return Cases(FOLDERS[layout].find_cases(path), str(path))


def joined(sets: Sequence[Cases]) -> Cases:
    """Several data sets as one.

    Raises:
        ValueError: if a case occurs twice.
    """
    return Cases([files for cases in sets for files in cases.files.values()], ", ".join(one.source for one in sets))


def check_files(network: Network, cases: Cases, output: Path, places: Sequence[Path] = ()) -> None:
    """Refuse what would be found out in the middle of the work, or would be read as a case later.

    Args:
        network: that is to be given the cases.
        cases: nothing of them is read.
        output: the folder of what is made.
        places: the folders of the cases.

    Raises:
        ValueError: if a case has none of the network's modalities (a student's: not all), or `output` lies among the
            cases.
    """
    folders = [path.resolve() for path in places if path.is_dir()]
    inside = next((one for one in folders if output.resolve().is_relative_to(one)), None)
    if inside is not None:
        raise ValueError(f"{output} lies in {inside}, among the cases: give another folder for what is made")
    needs_all = hasattr(network.model, "combination")
    for files in cases.files.values():
        has = [kind for kind in network.modalities if kind in files.images]
        if not has or (needs_all and len(has) < len(network.modalities)):
            raise ValueError(
                f"case {files.name} has {', '.join(files.images) or 'no modality'}, but {network.name} takes "
                f"{'all' if needs_all else 'any'} of {', '.join(network.modalities)}: leave the case out"
            )
        own = {path.resolve().parent for path in (*files.images.values(), files.seg) if path is not None}
        if output.resolve() in own:
            raise ValueError(f"{output} holds files of case {files.name}: give another folder for what is made")


def _marked(network: Network, case: Case) -> Case:
    """The case with the warning in its header, from where it goes into what is written: 79 letters of `descrip`."""
    header = Nifti1Header() if case.header is None else case.header.copy()
    header["descrip"] = f"{network.name}: {network.warning}".encode()[:79]
    return replace(case, header=header)


def _as_filed(found: np.ndarray, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Regions (R, ...) as labels (...), of which the inner one wins, and what regions these hold, (R, ...) bool."""
    enhancing = case.enhancing_label or 4
    labels = raw_labels(found, enhancing)
    return labels, labels[None] > 0 if len(found) == 1 else regions(labels, enhancing)


def segment_files(network: Network, cases: Mapping[str, Case], output: Path, progress: bool = False) -> Iterator[Made]:
    """Segment cases one by one and write `<case>_seg.nii.gz`: own grid and affine, labels as the case has them.

    The labels are 1, 2 and 4, or 3 for 4 where the case's own say so; the inner one wins. A file is written whole or
    not at all, with the network's name and its warning in the header.

    Args:
        network: see `Network.segment`.
        cases: read one at a time.
        output: the folder; it is made.
        progress: show a bar.

    Raises:
        ValueError: as `Network.segment` and the reader of the cases.
    """
    for name in tqdm(cases, desc="segment", unit="case", disable=None if progress else True):
        case = cases[name]
        found = network.segment(case)
        targets = network.record.get("targets", REGIONS)
        labels, whole = _as_filed(found, case)
        file = write_segmentation(output / f"{file_name(name)}_seg.nii.gz", labels, _marked(network, case))
        sizes = whole.sum(axis=(1, 2, 3)) * np.prod(case.spacing) / 1000  # voxels -> ml
        volumes_ml = dict(zip(targets, sizes.tolist(), strict=True))
        yield Made(name, network.used(case), (file,), volumes_ml, whole)


def complete_files(network: Network, cases: Mapping[str, Case], output: Path, progress: bool = False) -> Iterator[Made]:
    """Synthesise what cases lack, one by one, and write `<case>_<modality>-synthesised.nii.gz` on their own grids.

    Arguments, headers and errors as those of `segment_files`; a case that lacks nothing gets no file.
    """
    for name in tqdm(cases, desc="complete", unit="case", disable=None if progress else True):
        case = cases[name]
        marked = _marked(network, case)
        files = []
        for kind, image in network.complete(case).items():
            assert marked.header is not None  # `_marked` gave it one
            marked.header.set_data_dtype(np.float32)
            marked.header.set_slope_inter(1, 0)
            marked.header["cal_min"], marked.header["cal_max"] = 0, 1
            path = output / f"{file_name(name)}_{kind}-synthesised.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(nibabel.Nifti1Image(image, case.affine, marked.header), path)
            files.append(path)
        yield Made(name, network.used(case), tuple(files), {})


def write_about(network: Network, rows: Sequence[Mapping[str, Any]], output: Path, card: str = "") -> None:
    """Write `predictions.csv` and the network's card beside what was made.

    Args:
        network: that made it.
        rows: of `row`.
        output: the folder; it is made.
        card: Markdown; empty: none is written.
    """
    output.mkdir(parents=True, exist_ok=True)
    table = for_spreadsheets(pd.DataFrame(rows).set_index("case"))
    records.write_whole(output / TABLE, lambda path: table.to_csv(path))
    if card:
        records.write_whole(output / f"{network.name}.md", lambda path: path.write_text(card, encoding="utf-8"))


def row(network: Network, made: Made) -> dict[str, Any]:
    """A row of `predictions.csv`: case, used, volumes in ml, files, network and warning."""
    sizes = {f"{region} (ml)": size for region, size in made.volumes.items()}
    files = " ".join(file.name for file in made.files)
    return {"case": made.case, "used": made.used, **sizes, "file": files} | {
        "network": network.name,
        "warning": network.warning,
    }
