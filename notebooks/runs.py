"""What a profile asks for, and one way to make it: for the pipeline, and for a chapter opened alone.

A profile (`profiles/<name>.yaml`) lists data sets, experiments (many runs of one training notebook) and chapters. A run
is one execution of its training notebook by papermill and leaves one record; the executed copy stays beside it.
The Snakefile calls this file as a program, a chapter calls `ensure`; both start the same commands.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import yaml

OWN = "-own"  # ends the name of a profile whose data set is a folder of the reader's
RESULTS = "build/results"
ABOUT_A_GROUP = ("name", "variants", "seeds", "minutes")  # the rest of an entry is parameters
STANDARD = "standard"  # the variant of a method that has only one
SPLIT_WITHIN = ("avmnist", "derm7pt", "radpath")  # layouts that say themselves which cases are for testing
PHANTOMS = {
    "brats": "mmlib.data.phantom",
    "ixi": "mmlib.data.phantom",
    "derm7pt": "mmlib.data.lesion",
    "radpath": "mmlib.data.histology",
}  # the modules that write phantoms, each by its function write_<layout>


@cache
def project_root() -> Path:
    """The folder that holds `pyproject.toml`, from wherever a notebook is run.

    Raises:
        FileNotFoundError: if no folder above the working directory, or above this file, is the project's.
    """
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "profiles").is_dir():
                return folder
    raise FileNotFoundError(f"no project above {Path.cwd()}: start from the folder of the repository or below it")


@lru_cache
def _parsed(path: Path, modified_ns: int) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _written(name: str) -> dict[str, Any]:
    """A profile as its file has it."""
    path = project_root() / "profiles" / f"{name}.yaml"
    if not path.is_file():
        known = sorted(other.stem for other in path.parent.glob("*.yaml"))
        raise ValueError(f"there is no profile {name!r}; choose one of {', '.join(known)}")
    return copy.deepcopy(_parsed(path, path.stat().st_mtime_ns))


def filed_under(name: str) -> str:
    """The name a profile's results are filed under: `quick`, or `quick-own` where data of the reader's are used."""
    replaced = any(
        _has_default(data) and os.environ.get(data.get("replaced_by", "")) for data in _written(name)["data"].values()
    )
    return f"{name}{OWN}" if replaced else name


def _has_default(data: dict[str, Any]) -> bool:
    """Whether a data set is there without the reader's doing: made, or carried by installed packages."""
    return "phantom" in data or data["layout"] == "avmnist"


def profile(name: str) -> dict[str, Any]:
    """Read a profile; where its name ends in `-own`, the reader's folders stand in place of the default data.

    Raises:
        ValueError: if there is no such profile, or it needs a folder of data and the variable for it names none.
    """
    base = name.removesuffix(OWN)
    settings = _written(base)
    variables = [data["replaced_by"] for data in settings["data"].values()]
    none_given = not any(os.environ.get(variable) for variable in variables)
    for data in settings["data"].values():
        variable = data.pop("replaced_by")
        given = os.environ.get(variable, "")
        if _has_default(data) and (name == base or not (given or none_given)):
            continue
        folder = project_root() / Path(given).expanduser()
        if not given or not folder.is_dir():
            raise ValueError(
                f"profile {name!r} needs a folder of cases in the {data['layout']} layout; {variable} is {given!r}, "
                f"which is no folder: make book PROFILE={base} {variable}=folder"
            )
        layout = data["layout"]
        data.clear()
        data.update(layout=layout, folder=str(folder))
        if layout not in SPLIT_WITHIN:
            data.update(train=0, valid=0, test=0)  # 0: all cases of that part
    return settings


def _listed(profile_name: str, experiment: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every run of an experiment: its name, its parameters, and the entry of the profile that it comes from."""
    settings = profile(profile_name)
    asked = settings["experiments"][experiment]
    data = settings["data"][asked["data"]]
    place = f"build/data/{profile_name}/{asked['data']}"
    cases = {"root": data.get("folder", place if "phantom" in data else "")}
    if data["layout"] not in SPLIT_WITHIN:
        cases = {"data": data.get("folder", place), "split": data.get("split", f"{place}.csv")}
        cases |= {"cases_train": data["train"], "cases_test": data["test"]}
    for group in asked["runs"]:
        filed = {"profile": profile_name, "experiment": experiment, "results": RESULTS}
        given = {**asked["common"], **{key: value for key, value in group.items() if key not in ABOUT_A_GROUP}}
        texts = {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in given.items()}
        variants = group.get("variants", [STANDARD])
        if asked.get("together"):  # short trainings: one run holds all variants and seeds of its entry
            members = {"variants": " ".join(variants), "seeds": " ".join(map(str, group["seeds"]))}
            name = group.get("name", group["method"])
            yield name, {**filed, "run": name, **cases, **members, **texts}, group
            continue
        for variant, seed in product(variants, group["seeds"]):
            name = "-".join([group["method"], *([] if variant == STANDARD else [variant]), f"s{seed}"])
            taught = {"teacher": texts["teacher"].format(seed=seed)} if "teacher" in texts else {}
            yield name, {**filed, "variant": variant, "seed": seed, **cases, **texts, **taught}, group


def runs(profile_name: str, experiment: str) -> dict[str, dict[str, Any]]:
    """List the runs of an experiment: name -> parameters of its training notebook, all of them plain values.

    Raises:
        ValueError: as `profile`.
    """
    return {name: parameters for name, parameters, _ in _listed(profile_name, experiment)}


def groups(profile_name: str, experiment: str) -> dict[str, dict[str, Any]]:
    """Run name -> the entry of the profile that it comes from: its method's `module`, its `minutes` on one core."""
    return {name: group for name, _, group in _listed(profile_name, experiment)}


# ----------------------------------------------------------------------------------------- what a notebook depends on
def _code(path: Path) -> str:
    """The Python of a module, or of the code cells of a text notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".md":
        return text
    cells = re.findall(r"^(`{3,})\{code-cell\}[^\n]*\n(.*?)^\1\s*$", text, flags=re.MULTILINE | re.DOTALL)
    bodies = [re.sub(r"\A(---\n.*?^---\n|(:[^\n]*\n)+)", "", body, flags=re.MULTILINE | re.DOTALL) for _, body in cells]
    return "\n".join(re.sub(r"^(\s*)[%!].*$", r"\1pass", body, flags=re.MULTILINE) for body in bodies)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(_code(path), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(notebook: str | Path, *modules: str) -> list[Path]:
    """The notebook and every file of mmlib that it imports, directly or through another: what its results rest on.

    Args:
        notebook: a text notebook, relative to the project.
        modules: names of modules that it imports at run time, such as the method of a run.

    Returns:
        Paths relative to the project, sorted; without data files.
    """
    found: set[Path] = set()
    waiting = [Path(notebook), *(file for module in modules for file in _files(module))]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in _imported(project_root() / path) for file in _files(name)]
    return sorted(found)


def book_files(notebook: str | Path) -> list[Path]:
    """The ledgers, tables and drawings that a notebook reads, written in it as `root / "book" / "claims.yml"`."""
    named = re.findall(r'"book"((?:\s*/\s*"[^"]+")+)', _code(project_root() / notebook))
    return sorted({Path("book", *re.findall(r'"([^"]+)"', parts)) for parts in named})


def _file(module: str) -> Path | None:
    base = Path(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if (project_root() / path).is_file()), None)


def _files(name: str) -> list[Path]:
    """The files that `import name` executes: the module and the packages above it; nothing outside mmlib."""
    parts = name.split(".")
    if parts[0] != "mmlib":
        return []
    return [file for end in range(1, len(parts) + 1) if (file := _file(".".join(parts[:end])))]


# ------------------------------------------------------------------------------------------------------------- making
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
        from mmlib.data.brats import BratsFolder, make_split, write_split
        from mmlib.data.ixi import IxiFolder

        folders = {"brats": BratsFolder, "ixi": IxiFolder}
        split = make_split(folders[data["layout"]](data["folder"]), seed=0)
        if not split.train or not split.test:
            raise ValueError(
                f"{data['folder']} holds {len(split.subjects)} cases: too few to train on some and to test on others; "
                "give at least three subjects, or segment them with the notebook 02_your_data, which trains nothing"
            )
        write_split(split, target.with_suffix(".csv"))
    else:
        from mmlib.data.brats import read_split

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


def ensure(profile_name: str, experiment: str, force: bool = False) -> Path:
    """Make the records of an experiment that are missing or were made with other parameters.

    Runs go side by side, one thread each, as many as there are cores. Nothing happens when all records are there,
    as in the pipeline.

    Args:
        profile_name: which settings; see `profiles/`.
        experiment: as listed in the profile.
        force: make all of them anew.

    Returns:
        The folder to give to `mmlib.records.read_runs`.

    Raises:
        RuntimeError: if a run fails; the others are finished first, and the failed run's notebook is named.
    """
    asked = runs(profile_name, experiment)
    results = project_root() / RESULTS
    wanted = [name for name, given in asked.items() if force or not _is_made(profile_name, experiment, name, given)]
    if not wanted:
        return results
    settings = profile(profile_name)["experiments"][experiment]
    for needed in settings.get("needs", []):  # experiments whose networks this one takes
        ensure(profile_name, needed)
    data_folder(profile_name, settings["data"])
    minutes = groups(profile_name, experiment)
    cost = {name: minutes[name]["minutes"] for name in wanted}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, len(wanted))
    print(f"{len(wanted)} of {len(asked)} runs of {experiment!r} are to be made, {workers} side by side:", end=" ")
    print(f"about {sum(cost.values()) / workers:.0f} minutes")
    failed = []

    def make(name: str) -> None:
        command = [sys.executable, __file__, "run", profile_name, experiment, name, *(["--force"] if force else [])]
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
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


def run(profile_name: str, experiment: str, name: str, force: bool = False) -> None:
    """Make one run: execute its training notebook; the executed copy and the record lie in the same folder."""
    parameters = {**runs(profile_name, experiment)[name], "force": force}
    notebook = Path("notebooks") / f"{profile(profile_name)['experiments'][experiment]['notebook']}.md"
    folder = project_root() / RESULTS / profile_name / experiment / name
    execute(project_root() / notebook, folder / f"{notebook.stem}.ipynb", parameters)
    if not (folder / "record.json").is_file():
        raise RuntimeError(f"{notebook} ended without writing {folder / 'record.json'}: see the notebook beside it")


def chapter(profile_name: str, name: str) -> None:
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
    action = {"data": make_data, "run": run, "chapter": chapter}[given.pop("command")]
    action(given.pop("profile"), **given)


if __name__ == "__main__":
    main()
