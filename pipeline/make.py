"""Make what a profile asks for: data, runs, chapters. The Snakefile calls it, and so does a chapter opened alone."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.profiles import RESULTS, SPLIT_WITHIN, groups, list_runs, profile, project_root

PHANTOMS = {
    "brats": "mmlib.data.phantoms.brain",
    "ixi": "mmlib.data.phantoms.brain",
    "derm7pt": "mmlib.data.phantoms.lesion.model",
    "radpath": "mmlib.data.phantoms.glioma.model",
}  # the modules that write phantoms, each by its function write_<layout>


def execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    """Run a text notebook with papermill; the executed copy is written also when a cell fails.

    Raises:
        papermill.PapermillExecutionError: with the failing cell and its traceback.
    """
    import jupytext
    import papermill
    from traitlets.config import Config

    os.environ["TQDM_DISABLE"] = "1"  # progress bars are for those who watch
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    output.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(jupytext.read(notebook), output, fmt="ipynb")
    place = os.path.relpath(output)  # papermill notes it in the notebook, which is published
    # sockets of files: of two kernels that start together one may lose a TCP port to the other, and die
    with tempfile.TemporaryDirectory(prefix="kernel-", dir="/tmp") as sockets:  # their paths must be short
        papermill.execute_notebook(
            place,
            place,
            parameters=parameters,
            kernel_name="python3",
            cwd=project_root() / "notebooks",
            progress_bar=False,
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/s"}}),
        )


def make_data(profile_name: str, name: str) -> Path:
    """Write the phantom of a data set, or the split of the reader's own cases, and then the manifest beside it.

    Of data that installed packages carry, or that are read as they lie, only the manifest is written.

    Raises:
        ValueError: if the reader's folder holds too few subjects to hold some out for testing.
    """
    data = profile(profile_name)["data"][name]
    target = project_root() / "build" / "data" / profile_name / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if data["layout"] in SPLIT_WITHIN:
        if "phantom" in data:
            _write_phantom(data["layout"])(target, data["train"], data["valid"], data["test"], **data["phantom"])
    elif "folder" in data:
        from mmlib.data.brats import BratsFolder
        from mmlib.data.ixi import IxiFolder
        from mmlib.data.splits import make_split, write_split

        folders = {"brats": BratsFolder, "ixi": IxiFolder}
        split = make_split(folders[data["layout"]](data["folder"]), seed=0)
        if not split.train or not split.test:
            raise ValueError(
                f"{data['folder']} holds {len(split.subjects)} cases: too few to train on some and to test on others; "
                "give at least three subjects, or segment them with the notebook 02_your_data, which trains nothing"
            )
        write_split(split, target.with_suffix(".csv"))
    else:
        from mmlib.data.splits import read_split

        split = read_split(data["split"]).head(data["train"], data["valid"], data["test"])
        seeds = [int(case.rsplit("-", 1)[1]) for case in (*split.train, *split.valid, *split.test)]
        _write_phantom(data["layout"])(target, seeds, **data["phantom"])
    manifest = target.with_suffix(".json")
    manifest.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return manifest


def _write_phantom(layout: str) -> Callable[..., Any]:
    return getattr(import_module(PHANTOMS[layout]), f"write_{layout}")


def data_folder(profile_name: str, name: str = "brats") -> Path:
    """The folder of a data set's cases; the phantom is made where it is missing."""
    data = profile(profile_name)["data"][name]
    manifest = project_root() / "build" / "data" / profile_name / f"{name}.json"
    if not manifest.is_file() or json.loads(manifest.read_text(encoding="utf-8")) != data:
        make_data(profile_name, name)
    return Path(data.get("folder", manifest.with_suffix("")))


def _is_made(profile_name: str, experiment: str, run: str, parameters: dict[str, Any]) -> bool:
    """Whether a complete record was made with these parameters."""
    record = project_root() / RESULTS / profile_name / experiment / run / "record.json"
    try:
        made = json.loads(record.read_text(encoding="utf-8"))["parameters"]
    except (OSError, ValueError, KeyError):
        return False
    return all(made.get(key, value) == value for key, value in parameters.items())


def require_runs(profile_name: str, experiment: str, force: bool = False) -> Path:
    """Make the records of an experiment that are missing or were made with other parameters.

    Runs go side by side, one thread each, as many as there are cores. Nothing happens when all records are there,
    as in the pipeline.

    Args:
        profile_name: which settings; see `profiles/`.
        experiment: as listed in the profile.
        force: make all of them anew.

    Returns:
        The folder to give to `mmlib.analysis.results.read_runs`.

    Raises:
        RuntimeError: if a run fails; the others are finished first, and the failed run's notebook is named.
    """
    asked = list_runs(profile_name, experiment)
    results = project_root() / RESULTS
    wanted = [name for name, given in asked.items() if force or not _is_made(profile_name, experiment, name, given)]
    if not wanted:
        return results
    settings = profile(profile_name)["experiments"][experiment]
    for needed in settings.get("needs", []):  # experiments whose networks this one takes
        require_runs(profile_name, needed)
    data_folder(profile_name, settings["data"])
    minutes = groups(profile_name, experiment)
    cost = {name: minutes[name]["minutes"] for name in wanted}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, len(wanted))
    print(f"{len(wanted)} of {len(asked)} runs of {experiment!r} are to be made, {workers} side by side:", end=" ")
    print(f"about {sum(cost.values()) / workers:.0f} minutes")
    failed = []

    def make(name: str) -> None:
        command = [
            sys.executable,
            "-m",
            "pipeline",
            "run",
            profile_name,
            experiment,
            name,
            *(["--force"] if force else []),
        ]
        done = subprocess.run(
            command, cwd=project_root(), env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
        )
        failed.extend([name] if done.returncode else [])
        print(f"{name}: {'failed' if done.returncode else 'done'}", flush=True)

    teachers = {given.get("teacher") for given in asked.values()}  # before those whom they teach
    for turn in (teachers.intersection(wanted), set(wanted) - teachers):
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(make, sorted(turn, key=cost.__getitem__, reverse=True)))
    if failed:
        where = [str(results / profile_name / experiment / name) for name in failed]
        raise RuntimeError(f"{len(failed)} runs failed; the executed notebooks show why, in {', '.join(where)}")
    return results


def make_run(profile_name: str, experiment: str, name: str, force: bool = False) -> None:
    """Make one run: execute its training notebook; the executed copy and the record lie in the same folder."""
    parameters = {**list_runs(profile_name, experiment)[name], "force": force}
    notebook = Path("notebooks") / f"{profile(profile_name)['experiments'][experiment]['notebook']}.md"
    folder = project_root() / RESULTS / profile_name / experiment / name
    execute(project_root() / notebook, folder / f"{notebook.stem}.ipynb", parameters)
    if not (folder / "record.json").is_file():
        raise RuntimeError(f"{notebook} ended without writing {folder / 'record.json'}: see the notebook beside it")


def make_chapter(profile_name: str, name: str) -> None:
    """Execute a chapter into `build/logs`, and copy it to `build/notebooks` when every cell has run."""
    asked = profile(profile_name)["chapters"][name] or {}
    root = project_root()
    executed = root / "build" / "logs" / profile_name / f"{name}.ipynb"
    execute(root / "notebooks" / f"{name}.md", executed, {"profile": profile_name, **asked.get("parameters", {})})
    finished = root / "build" / "notebooks" / profile_name / f"{name}.ipynb"
    finished.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(executed, finished)


def main() -> None:
    """The command line that the Snakefile uses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command, arguments in {"data": ["name"], "run": ["experiment", "name"], "chapter": ["name"]}.items():
        made = commands.add_parser(command)
        for argument in ["profile", *arguments]:
            made.add_argument(argument)
        if command == "run":
            made.add_argument("--force", action="store_true", help="even if the record is current")
    given = vars(parser.parse_args())
    action = {"data": make_data, "run": make_run, "chapter": make_chapter}[given.pop("command")]
    action(given.pop("profile"), **given)
