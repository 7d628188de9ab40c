"""Make what a profile asks for: data, runs, chapters. The Snakefile calls it, and so does a chapter opened alone."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from mmlib import records
from mmlib.data.findings import printable
from mmlib.published import STORE
from pipeline import own, warm
from pipeline.lock import SNAKEMAKE, only_pipeline, run_pipeline
from pipeline.profiles import (
    OWN,
    RESULTS,
    SPLIT_WITHIN,
    TRAIN,
    UNMADE,
    asked_profile,
    groups,
    list_runs,
    profile,
    project_root,
    read_manifest,
    results_profile,
)

CHAPTER = 0.5  # minutes of one core that a chapter and its page take, on average
IN_PIPELINE = "MADE_BY_THE_PIPELINE"  # environment variable of chapters that the pipeline makes
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
    os.environ["PYTHONWARNINGS"] = warm.AT_START["PYTHONWARNINGS"]
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
            request_save_on_cell_execute=False,  # twice a cell all of it, pictures too
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/s"}}),
        )


def make_data(profile_name: str, name: str) -> Path:
    """Write the phantom of a data set, or the split of the reader's own cases, and then the manifest beside it.

    Of data that installed packages carry, or that are read as they lie, only the manifest is written. Of two processes
    that make the same, the second waits.

    Raises:
        ValueError: if the reader's folder holds too few subjects, see `pipeline.own`.
    """
    with _only_maker(profile_name, name):
        return _make_data(profile_name, name)


def _only_maker(profile_name: str, name: str) -> AbstractContextManager[None]:
    """Wait until no other process makes this data set."""
    return records.one_at_a_time(project_root() / "build" / "data" / profile_name / f".{name}.lock")


def _make_data(profile_name: str, name: str) -> Path:
    data = profile(profile_name)["data"][name]
    target = project_root() / "build" / "data" / profile_name / name
    _check_own(data)
    if data["layout"] in SPLIT_WITHIN:
        if "phantom" in data:
            sizes = (data["train"], data["valid"], data["test"])
            with records.naming_a_full_disk(target):
                _write_phantom(data["layout"])(target, *sizes, **data["phantom"])
    elif "folder" in data:
        from mmlib.data.splits import write_split

        for ending, split in own.make_splits(data["layout"], data["folder"], data.get("folds", 0)).items():
            write_split(split, target.with_name(f"{name}{ending}.csv"))
    else:
        from mmlib.data.splits import read_split

        split = read_split(data["split"]).head(data["train"], data["valid"], data["test"])
        with records.naming_a_full_disk(target):
            _write_phantom(data["layout"])(target, _seeds([*split.train, *split.valid, *split.test]), **data["phantom"])
    cases = Path(data.get("folder", target))
    content = {"settings": data, "stand_in": "phantom" in data}
    content |= {"fingerprint": records.data_fingerprint(cases)} if cases.is_dir() else {}
    content |= {"sha256": _content(target)} if "phantom" in data else {}
    manifest, text = target.with_suffix(".json"), json.dumps(content, indent=1) + "\n"
    if not manifest.is_file() or manifest.read_bytes() != text.encode():  # what is the same keeps its time
        records.write_whole(manifest, lambda temporary: temporary.write_bytes(text.encode()))
    return manifest


def _check_own(data: dict[str, Any]) -> None:
    """Refuse a folder of the reader's whose cases a network would meet as mirror images of each other."""
    from mmlib.data.brats import BratsFolder
    from mmlib.data.ixi import IxiFolder
    from mmlib.data.nifti import check_orientation

    folders = {"brats": BratsFolder, "ixi": IxiFolder}  # read as they lie; those of other layouts are resampled
    if "folder" in data and data["layout"] in folders:
        check_orientation(folders[data["layout"]](data["folder"]))


def _content(folder: Path) -> str:
    """SHA-256 of the names and contents of all files below a folder."""
    total = hashlib.sha256()
    for below, names in records.folders_below(folder):
        for path in (below / name for name in names):
            with path.open("rb") as stream:
                total.update(path.relative_to(folder).as_posix().encode() + b"\0")
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _seeds(cases: Collection[str]) -> list[int]:
    """The seeds of phantom cases, as their names have them."""
    return [int(case.rsplit("-", 1)[1]) for case in cases]


def _write_phantom(layout: str) -> Callable[..., Any]:
    return getattr(import_module(PHANTOMS[layout]), f"write_{layout}")


def data_folder(profile_name: str, name: str = "brats", cases: Collection[str] = (), most: int = 0) -> Path:
    """The folder of a data set's cases; a phantom is made where it is missing, and anew where its files changed.

    Args:
        profile_name: see `profiles/`.
        name: of the data set.
        cases: those that are opened; where nothing of a phantom has been made, no others are.
        most: of a layout that says itself which cases are for testing: so many of each part are opened; likewise.
    """
    data = profile(profile_name)["data"][name]
    target = project_root() / "build" / "data" / profile_name / name
    if _as_made(data, target):
        return Path(data.get("folder", target))
    with _only_maker(profile_name, name):
        if not _as_made(data, target):  # else another process made it while this one waited
            if (cases or most) and "phantom" in data and not read_manifest(target):
                parts = [min(most, data[part]) for part in ("train", "valid", "test")]
                which = parts if data["layout"] in SPLIT_WITHIN else [_seeds(cases)]
                with records.naming_a_full_disk(target):
                    _write_phantom(data["layout"])(target, *which, **data["phantom"])
                return target
            if "phantom" in data and read_manifest(target).get("settings") == data and target.is_dir():
                print(f"{target}: files are not those that were made; all are made anew", flush=True)
                shutil.rmtree(target)
            _make_data(profile_name, name)
    return Path(data.get("folder", target))


def _as_made(data: dict[str, Any], target: Path) -> bool:
    """Whether a data set was made by these settings, and its phantom, if it is one, is still what was written."""
    manifest = read_manifest(target)
    if manifest.get("settings") != data or "phantom" not in data:
        return manifest.get("settings") == data
    if not target.is_dir() or not any(target.iterdir()):
        return False
    if "sha256" in manifest:
        return manifest["sha256"] == _content(target)
    return manifest.get("fingerprint") == records.data_fingerprint(target)


def require_runs(profile_name: str, *experiments: str) -> None:
    """Have the records of experiments: nothing happens while all are current; else Snakemake makes what is not.

    Args:
        profile_name: which settings; see `profiles/`.
        experiments: as listed in the profile.

    Raises:
        BusyError: if another pipeline works in the folder.
        RuntimeError: if a run fails; the others are finished first, and the failed run's notebook is named. And in a
            chapter that the pipeline makes, if records ceased to be current since it began.
    """
    from pipeline.frame import stale_runs

    root = project_root()
    waiting: dict[str, float] = {}
    for experiment in experiments:
        notebook = profile(profile_name)["experiments"][experiment]["notebook"]
        stale = stale_runs(profile_name, experiment, list_runs(profile_name, experiment), notebook)
        minutes = groups(profile_name, experiment)
        for name, why in stale.items():
            waiting[f"{RESULTS}/{profile_name}/{experiment}/{name}/record.json"] = minutes[name]["minutes"]
            print(f"{experiment}/{name}: {why}")
    if waiting and os.environ.get(IN_PIPELINE):
        raise RuntimeError("code or data changed while the pipeline ran, see above; call it again")
    if waiting:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        print(
            f"{len(waiting)} runs are made, about {sum(waiting.values()) / cores:.0f} minutes on {cores} cores",
            flush=True,
        )
        with only_pipeline(root) as stream:
            done = subprocess.run(
                [*SNAKEMAKE, "--cores", str(cores), "--quiet", "all", "--", *waiting],
                cwd=root,
                env={**os.environ, "PROFILE": profile_name.removesuffix(OWN)},
                pass_fds=[stream.fileno()],
                capture_output=True,
                text=True,
            )
        if done.returncode:
            failed = [str(Path(record).parent) for record in waiting if not (root / record).is_file()]
            raise RuntimeError(
                f"Snakemake ended with an error; the executed notebooks show why, in {', '.join(failed) or RESULTS}\n"
                + done.stderr[-2000:]
            )


def make_run(profile_name: str, experiment: str, name: str, force: bool = False) -> None:
    """Make one run: execute its training notebook; the executed copy and the record lie in the same folder."""
    from pipeline.frame import stale_because

    asked = list_runs(profile_name, experiment)[name]
    notebook = Path("notebooks") / f"{profile(profile_name)['experiments'][experiment]['notebook']}.md"
    folder = project_root() / RESULTS / profile_name / experiment / name
    # what the profile asks for now takes the place of what it asked for before
    force = force or stale_because(folder, notebook.stem, asked).startswith("parameters differ")
    parameters = {**asked, "force": force}
    execute(project_root() / notebook, folder / f"{notebook.stem}.ipynb", parameters)
    if not (folder / "record.json").is_file():
        raise RuntimeError(f"{notebook} ended without writing {folder / 'record.json'}: see the notebook beside it")


def make_chapter(profile_name: str, name: str) -> None:
    """Execute a chapter into `build/logs`, and copy it to `build/notebooks` when every cell has run."""
    asked = profile(profile_name)["chapters"][name] or {}
    root = project_root()
    executed = root / "build" / "logs" / profile_name / f"{name}.ipynb"
    os.environ[IN_PIPELINE] = "1"  # its kernel must not call the pipeline that waits for it
    execute(root / "notebooks" / f"{name}.md", executed, {"profile": profile_name, **asked.get("parameters", {})})
    finished = root / "build" / "notebooks" / profile_name / f"{name}.ipynb"
    finished.parent.mkdir(parents=True, exist_ok=True)
    records.write_whole(finished, lambda temporary: shutil.copyfile(executed, temporary))


def _waiting_minutes(name: str, wanted: Sequence[str] = ()) -> list[float]:
    """Of each run of a profile, or of some experiments of it, that is not current, its minutes on one core."""
    from pipeline.frame import stale_runs

    return [
        groups(name, experiment)[run]["minutes"]
        for experiment, asked in profile(name)["experiments"].items()
        if experiment in wanted or not wanted
        for run in stale_runs(name, experiment, list_runs(name, experiment), asked["notebook"])
    ]


def describe_own_data(profile_name: str, cores: int) -> str:
    """What the reader's folders allow, what is made of them and how long it takes; empty where none is given.

    Args:
        profile_name: as typed, such as `quick`.
        cores: that work side by side.

    Raises:
        ValueError: as `profile`.
    """
    name = results_profile(profile_name)
    settings = profile(name)
    looked_at = [data for data in settings["data"].values() if "folder" in data and data["layout"] in own.VARIABLES]
    if not looked_at:
        return ""
    lines = [own.look(data["layout"], data["folder"]).describe() for data in looked_at]
    waiting = _waiting_minutes(name)
    lines.append(f"Chapters: {', '.join(settings['chapters']) or 'none'}.")
    left_out = settings["left_out_chapters"]
    for why in dict.fromkeys(left_out.values()):
        lines.append(f"Left out are {', '.join(name for name in left_out if left_out[name] == why)}: {why}.")
    lines.append(
        f"{len(waiting)} runs are to be made, about {sum(waiting) / cores:.0f} minutes on {cores} cores by the "
        f"profile {profile_name}, which counts on the voxels of the phantom; finer ones take longer."
    )
    return "\n".join(lines)


def make_book(arguments: Sequence[str]) -> NoReturn:
    """Say what own data allow, where some are given, and then run the pipeline; arguments are Snakemake's."""
    gc.set_threshold(100_000, 100, 100)  # records are large and hold no cycles to look for: a third of the time
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--cores", "-c", default="1")
    asked = options.parse_known_args(arguments)[0].cores
    cores = int(asked) if asked.isdigit() else os.cpu_count() or 1
    try:
        said = describe_own_data(asked_profile(), cores)
    except ValueError as error:
        sys.exit(printable(str(error), keep="\n"))
    if said:
        print(printable(said, keep="\n"), flush=True)
    if "train" in arguments:
        os.environ[TRAIN] = "1"
        known = profile(results_profile(asked_profile()))["experiments"]
        for name in os.environ.get("EXPERIMENTS", "").split():
            if name not in known:
                sys.exit(f"EXPERIMENTS: {name!r} is no experiment of this profile; it has {', '.join(known)}")
    run_pipeline(project_root(), arguments, partial(prepare, cores), say_what_was_verified)


def write_absent_chapters(profile_name: str, book: Path) -> None:
    """Put a page in the place of every chapter that the table of contents names and the profile does not make.

    Args:
        profile_name: see `profiles/`.
        book: the folder in which the source of the book is put together.
    """
    settings = profile(profile_name)
    contents = (book / "_toc.yml").read_text(encoding="utf-8")
    for name in re.findall(r"file: chapters/(\S+)", contents):
        page = book / "chapters" / f"{name}.ipynb"
        if page.exists():
            continue
        text = (project_root() / "notebooks" / f"{name}.md").read_text(encoding="utf-8")
        (title, *_) = re.findall(r"^# .*$", text, flags=re.MULTILINE)
        why = settings["left_out_chapters"].get(name, f"the profile {profile_name} does not make it")
        cell = {"cell_type": "markdown", "id": "left-out", "metadata": {}, "source": f"{title}\n\nLeft out: {why}."}
        notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        page.write_text(json.dumps(notebook), encoding="utf-8")


def make_pages(profile_name: str, book: Path) -> None:
    """Build the pages of a book whose source was put together, with warnings as errors, into `_build/html` in it.

    Args:
        profile_name: see `profiles/`.
        book: the folder of the source.
    """
    from jupyter_book.cli.main import build

    gc.disable()  # page trees stay to the end: a third of the time for nothing (1.5 GB at the most, with garbage)
    write_absent_chapters(profile_name, book)
    strictly = ["-W", "--keep-going", "--quiet"]
    build([str(book), "--config", "_config.yml", "--path-output", str(book), *strictly], prog_name="jupyter-book build")


def use_a_home() -> None:
    """Where the home folder is missing or cannot be written, let what caches there (matplotlib, IPython) use build."""
    home = Path.home() if "HOME" in os.environ else None
    try:
        if home is not None:
            with tempfile.TemporaryFile(dir=home):
                return
    except OSError:
        pass
    for name in own.VARIABLES.values():
        if given := os.environ.get(name):
            os.environ[name] = str(Path(given).expanduser())
    place = project_root() / "build" / "home"
    place.mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(place)


def prepare(cores: int) -> None:
    """Restore what is published, and say how long the rest takes."""
    restore_results()
    name = results_profile(asked_profile())
    settings, training = profile(name), TRAIN in os.environ
    given = any("folder" in one for one in settings["data"].values())
    wanted = os.environ.get("EXPERIMENTS", "").split()
    minutes = [] if UNMADE in settings and not given else _waiting_minutes(name, wanted)  # only what is published
    texts = [f"{len(minutes)} runs, {sum(minutes) / cores:.0f} minutes"] if minutes else []
    if not training:
        count = len(settings["chapters"])
        texts += [f"{count} chapters and their pages, {count * CHAPTER / cores:.0f} minutes"]
    if texts:
        print(f"At most, on {cores} cores about: {'; '.join(texts)}. What is current stays.", flush=True)


def say_what_was_verified() -> None:
    """Whether what is published was held against this machine, and when."""
    from pipeline.verify import read_verified

    name = results_profile(asked_profile())
    if not any((project_root() / STORE / name).glob("*.tar.xz")):
        return
    if not (known := read_verified(project_root()).get(name)):
        print("Not verified on this machine: the published results. make verify compares them in minutes.", flush=True)
        return
    words = [one["passed"] for one in known["outcomes"]]
    print(
        f"Verified on {known['day']} at commit {(known['commit'] or 'unknown')[:10]}: {words.count(True)} of "
        f"{len(words)} checks passed, {words.count(False)} failed, {words.count(None)} were left open.",
        flush=True,
    )


def restore_results() -> None:
    """Put the published results of the profile that is asked for where chapters read them, and say what there is."""
    from pipeline.store import restore

    name = results_profile(asked_profile())
    done = restore(project_root() / STORE, name, project_root() / RESULTS)
    if any(done.values()):
        counts = [f"{len(done['restored'])} published results restored", f"{len(done['there'])} there already"]
        counts += [f"{len(done['kept'])} made here and kept"] if done["kept"] else []
        print("; ".join(counts), flush=True)
    if unmade := profile(name).get(UNMADE):
        print(
            f"not computed yet and left out (make train PROFILE={name} computes them): {', '.join(unmade)}", flush=True
        )


def main() -> None:
    """The command line that the Makefile and the Snakefile use."""
    use_a_home()
    if sys.argv[1:2] == ["book"]:  # the rest is for Snakemake
        make_book(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    published = commands.add_parser("publish", help="finished runs go into results/, which git keeps")
    published.add_argument("profile")
    published.add_argument("experiments", nargs="*", help="of these; all, where none is named")
    asked = {"data": ["name"], "run": ["experiment", "name"], "chapter": ["name"], "pages": ["book"]}
    for command, arguments in asked.items():
        made = commands.add_parser(command)
        for argument in ["profile", *arguments]:
            made.add_argument(argument, type=Path if argument == "book" else str)
        if command == "run":
            made.add_argument("--force", action="store_true", help="even if the record is current")
    checked = commands.add_parser("verify", help="whether published data, scores and losses come out here")
    checked.add_argument("profile")
    checked.add_argument("experiments", nargs="*", help="of these; all, where none is named")
    checked.add_argument("--seed", type=int, default=0, help="of the draw of networks and cases")
    checked.add_argument("--jobs", type=int, default=0, help="processes side by side; 0: one for each core")
    checked.add_argument("--sets", type=int, default=0, help="data sets made only to be compared; 0: all")
    remade = commands.add_parser("reproduce", help="train published runs again, and compare their scores")
    for argument in ("profile", "experiment"):
        remade.add_argument(argument)
    remade.add_argument("names", nargs="*", metavar="run", help="all of the experiment, where none is named")
    taken = commands.add_parser("withdraw", help="published runs leave results/ again")
    for argument in ("profile", "experiment"):
        taken.add_argument(argument)
    taken.add_argument("names", nargs="*", metavar="run", help="all of the experiment, where none is named")
    given = vars(parser.parse_args())
    if given["command"] in ("data", "run", "publish", "withdraw", "verify", "reproduce"):
        os.environ[TRAIN] = "1"  # also what chapters leave out, since it is not there yet
    actions: dict[str, Callable[..., Any]] = {"data": make_data, "run": make_run, "chapter": make_chapter}
    actions["pages"] = make_pages
    if given["command"] in ("publish", "withdraw"):
        from pipeline.store import publish_profile, withdraw_runs

        actions |= {"publish": publish_profile, "withdraw": withdraw_runs}
    if given["command"] == "verify":
        from pipeline.verify import main as verify

        actions["verify"] = verify
    if given["command"] == "reproduce":
        from pipeline.reproduce import reproduce

        actions["reproduce"] = reproduce
    try:
        actions[given.pop("command")](given.pop("profile"), **given)
    except OSError as error:
        try:
            with records.naming_a_full_disk(Path(error.filename or project_root() / "build" / "data")):
                raise
        except records.NoSpaceError as full:
            sys.exit(printable(str(full)))
