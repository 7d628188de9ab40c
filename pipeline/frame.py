"""The frame of a run: is its record current, and if not, begin, train, save. Every training notebook uses it.

A record is current while its parameters, the code that made it, its data and the networks that it takes are the same.
`stale_because` decides that for a run, for a chapter and for Snakemake alike.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mmlib import records
from mmlib.methods import MODULES, module_of
from pipeline.make import data_folder
from pipeline.profiles import RESULTS, project_root, read_manifest, run_name
from pipeline.profiles import profile as settings_of
from pipeline.sources import code_fingerprint, parameters_of


def stale_because(
    folder: Path, notebook: str, parameters: Mapping[str, Any], data: str | None = None, split: str | None = None
) -> str:
    """Why a run has to be made (anew); empty while its record is current.

    A parameter that came into the notebook since has its own value in the record too: it must be the one that changes
    nothing, or the code differs. A published record (see `pipeline.store`) stays also where code or data have changed
    since: who builds the book does not train for days because of it, and `code_changed` tells.

    Args:
        folder: of the run.
        notebook: name of its training notebook, without ending.
        parameters: what is asked for; what is not named has the notebook's own value.
        data: fingerprint of the data; None: as far as the manifest of the data says it.
        split: hash of the split; None: not compared.
    """
    try:
        record = records.read_record(folder)
    except FileNotFoundError:
        return "there is no record"
    except records.RecordError as error:
        return str(error)
    defaults = parameters_of(notebook)
    made = {**_inputs(defaults), **record["parameters"]}  # one that is new has the value that changes nothing
    asked = _inputs({**defaults, **parameters})
    differing = sorted(key for key in made.keys() | asked.keys() if made.get(key, ...) != asked.get(key, ...))
    if differing:
        return "parameters differ: " + ", ".join(
            f"{key} is {made.get(key, 'not there')!r} there, {asked.get(key, 'not there')!r} here" for key in differing
        )
    if "published" in record:
        return ""
    inputs = record.get("inputs", {})
    if code_changed(record, notebook):
        return "code changed"
    data = data or _data_of(asked).get("fingerprint")
    if data and data != record["data_fingerprint"]:
        return "data changed"
    if split and split != record["split_hash"]:
        return "the split changed"
    for name, fingerprint in inputs.get("networks", {}).items():
        if _fingerprint_of(folder.parents[1] / name) != fingerprint:
            return f"the network of {name} was made anew"
    return ""


def code_changed(record: Mapping[str, Any], notebook: str) -> bool:
    """Whether the code that made a record is other code than here."""
    made_by = record.get("inputs", {}).get("code")
    return made_by != code_fingerprint(notebook, *_modules(notebook, record["parameters"]))


def changed_runs(found: Mapping[Any, Mapping[str, Any]]) -> dict[Any, bool]:
    """`code_changed` of many records, by their names; the code of each notebook and method is read once."""
    code: dict[tuple[str, ...], str] = {}
    changed = {}
    for name, record in found.items():
        used = (notebook_of(record), *_modules(notebook_of(record), record["parameters"]))
        if used not in code:
            code[used] = code_fingerprint(*used)
        changed[name] = record.get("inputs", {}).get("code") != code[used]
    return changed


def notebook_of(record: Mapping[str, Any]) -> str:
    """The name of the training notebook that wrote a record, without ending."""
    task = record["task"]
    return f"train_{task}" if (project_root() / "notebooks" / f"train_{task}.md").is_file() else task


def _inputs(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key not in records.NOT_INPUTS}


def _modules(notebook: str, parameters: Mapping[str, Any]) -> list[str]:
    """What a training notebook imports at run time: the file of its method."""
    task = _task(notebook)
    return [module_of(task, parameters["method"])] if task in MODULES else []


def _task(notebook: str) -> str:
    return notebook.removeprefix("train_")


def _data_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest beside the data of a run; empty where there is none."""
    place = parameters.get("data") or parameters.get("root")
    return read_manifest(project_root() / place) if place else {}


def _fingerprint_of(folder: Path) -> str:
    try:
        return json.loads((folder / "record.json").read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError):
        return ""


def case_folder(profile: str, data: str, cases: Collection[str] = ()) -> Path:
    """The folder of a run's cases; a phantom of the profile is made where it is missing or no longer what was made.

    Args:
        profile: its name.
        data: the folder, from the root of the project.
        cases: as `pipeline.make.data_folder`.
    """
    folder = project_root() / data
    made = folder.parent == project_root() / "build" / "data" / profile
    if made and folder.name in settings_of(profile)["data"]:
        data_folder(profile, folder.name, cases)
    return folder


@dataclass(frozen=True)
class Frame:
    """One run of a training notebook. Made by `open_run`.

    Attributes:
        run: where its files lie and what it was asked for.
        inputs: hashes of code, data, split and networks.
        stale: why it is to be made; empty: its record is reused.
        task: of the notebook, such as `segmentation`.
        stand_in: made-up data with a known answer, as the manifest of the data says.
    """

    run: records.Run
    inputs: dict[str, Any]
    stale: str
    stand_in: bool
    task: str

    @property
    def reuse(self) -> bool:
        """Whether the record is current, so that nothing is to be trained."""
        return not self.stale

    @property
    def folder(self) -> Path:
        """Of the record, the weights and the executed notebook."""
        return self.run.folder

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all that the result depends on."""
        return records.fingerprint({"parameters": self.run.parameters, **self.inputs})

    def begin(self) -> None:
        """Withdraw what an earlier, finished run left; the checkpoints of an interrupted one stay, to go on from."""
        if (self.folder / "record.json").exists() or self.stale == FORCED:
            self._sweep()
        records.sweep(self.folder)
        self.run.clear()

    def save(self, history: pd.DataFrame, scores: pd.DataFrame, **facts: Any) -> None:
        """Write the record (see `mmlib.records.Run.save`), with what the frame knows; then drop the checkpoints."""
        import torch

        from mmlib.training import precision_here

        asked = self.run.parameters
        on_gpu = torch.cuda.is_available() and asked.get("device", "cpu") != "cpu"
        known = {
            "device": "cuda" if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "precision": precision_here(asked.get("precision", "float32")),
            "stand_in": self.stand_in,
            "data_fingerprint": self.inputs["data"],
            "split_hash": self.inputs["split"],
            "fingerprint": self.fingerprint,
            "inputs": self.inputs,
            "task": self.task,
        }
        self.run.save(history, scores, **(known | facts))
        self._sweep()

    def _sweep(self) -> None:
        for checkpoint in self.folder.rglob("*.checkpoint.pt"):
            checkpoint.unlink()

    @property
    def summary(self) -> str:
        """Seconds, memory and place of the finished run, in one line."""
        record = self.result.record
        place = os.path.relpath(self.folder, project_root())
        seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in record["seconds"].items())
        return f"{seconds}; peak memory {record['peak_memory_mib']:.0f} MiB; in {place}"

    @property
    def result(self) -> records.Finished:
        """What the run left: record, history, scores."""
        return records.read_run(self.folder)


FORCED = "asked for anew"


def open_run(
    cell: Mapping[str, Any], notebook: str, *, data: Path | str, split: str = "none", networks: Iterable[str] = ()
) -> Frame:
    """Open the folder of a run and tell whether its record is current.

    Args:
        cell: the notebook's `globals()`: the values of its parameters cell are taken from there, all of them.
        notebook: its name, without ending.
        data: folder of the data, or their fingerprint where they come with packages.
        split: hash of the split.
        networks: `<experiment>/<run>` of the profile whose networks this run takes.

    Raises:
        ValueError: if the folder holds the record of a run with other parameters: nothing is overwritten in silence.
        FileNotFoundError: if a run whose network is needed is not finished.
    """
    parameters = {name: cell[name] for name in parameters_of(notebook)}
    asked = _inputs(parameters)
    name = parameters.get("run") or run_name(
        parameters["method"], parameters["variant"], parameters["seed"], parameters.get("fold", 0)
    )
    results = project_root() / parameters["results"]
    run = records.open_run(results, parameters["profile"], parameters["experiment"], name, asked)
    manifest = read_manifest(data) if isinstance(data, Path) else {}
    inputs: dict[str, Any] = {
        "code": code_fingerprint(notebook, *_modules(notebook, asked)),
        "data": records.data_fingerprint(data) if isinstance(data, Path) else data,
        "split": split,
        "networks": {
            network: records.read_record(results / parameters["profile"] / network)["fingerprint"]
            for network in networks
        },
    }
    stale = FORCED if parameters["force"] else stale_because(run.folder, notebook, asked, inputs["data"], split)
    if stale.startswith("parameters differ"):
        raise ValueError(
            f"{run.folder} holds another run ({stale}): give this one an experiment of its own (-p experiment NAME), "
            "or overwrite that one with -p force True"
        )
    frame = Frame(run, inputs, stale, bool(manifest.get("stand_in", False)), _task(notebook))
    print(f"{name}: {'the record is current' if frame.reuse else stale}; fingerprint {frame.fingerprint}")
    return frame


def stale_runs(profile: str, experiment: str, asked: Mapping[str, Mapping[str, Any]], notebook: str) -> dict[str, str]:
    """Which runs of an experiment are to be made, and why."""
    folder = project_root() / RESULTS / profile / experiment
    reasons = {name: stale_because(folder / name, notebook, given) for name, given in asked.items()}
    return {name: why for name, why in reasons.items() if why}
