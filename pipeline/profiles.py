"""What a profile asks for: data sets, experiments (many runs of one training notebook) and chapters.

A profile is a file `profiles/<name>.yaml`. A run is one execution of its training notebook and leaves one record.
"""

from __future__ import annotations

import copy
import json
import os
import shlex
from collections.abc import Container, Iterator, Mapping
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from pipeline import own

OWN = "-own"  # ends the name of a profile whose data set is a folder of the reader's
RESULTS = "build/results"
DEFAULT, DEFAULT_OWN = "book", "quick"  # the profile of a plain `make book`: what is published; on the reader's data
ABOUT_A_GROUP = ("name", "variants", "seeds", "minutes", "grid", "optional")  # the rest of an entry is parameters
STANDARD = "standard"  # the variant of a method that has only one
LEFT_OUT_CHAPTERS = "left_out_chapters"  # of a profile as read: chapters that it cannot make -> the reason
UNMADE = "unmade"  # of a profile as read: experiments that are not published, or in part
TRAIN = "TRAIN"  # variable of the environment: what is not published is trained
FOLDERS = ("DATA", "IXI", "AVMNIST", "DERM7PT", "RADPATH", "MS", "TCGA")  # variables that name the reader's data
PUBLISHED_AS = "published_as"  # of a data set that is not here: what its published records name in its folder's place
LEFT_OUT = "left_out"  # of a profile as read: experiments that need a folder which is not given -> its variable
SPLIT_WITHIN = ("avmnist", "derm7pt", "radpath", "tcga")  # layouts that say themselves which cases are for testing


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
    text = path.read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # libyaml's is ten times as fast


def _written(name: str) -> dict[str, Any]:
    """A copy of a profile as its file has it."""
    written = copy.deepcopy(_read(name))
    return {**written, "chapters": written["chapters"] or {}}


def _read(name: str) -> dict[str, Any]:
    """A profile as its file has it, not to be changed."""
    path = project_root() / "profiles" / f"{name}.yaml"
    if not path.is_file():
        known = sorted(other.stem for other in path.parent.glob("*.yaml"))
        raise ValueError(f"there is no profile {name!r}; choose one of {', '.join(known)}")
    return _parsed(path, path.stat().st_mtime_ns)


def results_profile(name: str) -> str:
    """The name a profile's results are filed under: `quick`, or `quick-own` where data of the reader's are used."""
    replaced = any(
        _has_default(data) and os.environ.get(data.get("replaced_by", "")) for data in _read(name)["data"].values()
    )
    return f"{name}{OWN}" if replaced else name


def asked_profile() -> str:
    """The profile that PROFILE names; without it the published one, or, on data of the reader's, one that trains."""
    return os.environ.get("PROFILE") or (DEFAULT_OWN if results_profile(DEFAULT) != DEFAULT else DEFAULT)


def _has_default(data: dict[str, Any]) -> bool:
    """Whether a data set is there without the reader's doing: made, or carried by installed packages."""
    return "phantom" in data or data["layout"] == "avmnist"


def profile(name: str) -> dict[str, Any]:
    """Read a profile; where its name ends in `-own`, the reader's folders stand in place of the default data.

    A data set that is `optional` and not given is left out, and with it the experiments that need it; they are listed
    under `left_out`, each with the variable that would bring it in. Published runs on it are shown all the same. What a
    folder of few cases does not allow is left out too, see `pipeline.own`. A profile that is `published_only` trains
    nothing by itself: an experiment of which a run is neither in `results/` nor made here is left out (or, where all
    such runs are of `optional` entries, their seeds), unless the environment has TRAIN. Chapters without their data
    or results (`only_with` names the experiments that one is about) stand under `left_out_chapters`, each with the
    reason.

    Raises:
        ValueError: if there is no such profile, or it needs a folder of data and the variable for it names none, or one
            that nothing can be trained on.
    """
    base = name.removesuffix(OWN)
    settings = _written(base)
    settings[LEFT_OUT_CHAPTERS] = {}
    settings[LEFT_OUT] = _leave_out(settings, name)
    with_default = [data for data in settings["data"].values() if _has_default(data)]
    variables = [data["replaced_by"] for data in with_default if "replaced_by" in data]
    none_given = not any(os.environ.get(variable) for variable in variables)
    for data in settings["data"].values():
        variable = data.pop("replaced_by", "")  # a phantom without it is never replaced
        given = os.environ.get(variable, "")
        if PUBLISHED_AS in data:
            continue
        if _has_default(data) and (name == base or not variable or not (given or none_given)):
            continue
        folder = project_root() / Path(given).expanduser()
        if data["layout"] == "brats" and folder.is_file():
            raise ValueError(
                f"{variable}={given} is a file: cases of a table can be segmented, and nothing is trained on them; for "
                f"training, give a folder in the BraTS layout. {own.segment_command(given, 'table')}"
            )
        if not given or not folder.is_dir():
            raise ValueError(
                f"profile {name!r} needs a folder of cases in the {data['layout']} layout; {variable} is {given!r}, "
                f"which is no folder: make book PROFILE={base} {variable}=folder"
            )
        kept = {key: data[key] for key in ("layout", "folds") if key in data}
        data.clear()
        data.update(kept, folder=str(folder))
        if data["layout"] not in SPLIT_WITHIN:
            data.update(train=0, valid=0, test=0)  # 0: all cases of that part
    on_phantoms = {one: asked["data"] for one, asked in settings["experiments"].items() if asked.get("phantoms")}
    _remove(settings, [one for one, data in on_phantoms.items() if "folder" in settings["data"][data]])
    own.allow(settings, f"build/data/{name}")
    if _only_published(settings, name):
        _leave_out_unmade(settings, name)
    return settings


def phantom_of(profile_name: str, folder: str | Path) -> dict[str, Any]:
    """What the phantoms in a data folder are made with, as the profile says it; empty for cases that are none.

    Args:
        folder: of the data, as `parameters.data` of a record.
    """
    place = Path(folder)
    if place.parent.parts[-2:] != ("data", profile_name):
        return {}
    return dict(profile(profile_name)["data"].get(place.name, {}).get("phantom", {}))


def experiments_of(profile_name: str, chapter: str) -> list[str]:
    """The experiments that a chapter reads: those that the profile names, without those on data that are not there."""
    return (profile(profile_name)["chapters"].get(chapter) or {}).get("experiments", [])


def _only_published(settings: dict[str, Any], name: str) -> bool:
    return bool(settings.get("published_only")) and not name.endswith(OWN) and not os.environ.get(TRAIN)


def _leave_out(settings: dict[str, Any], name: str) -> dict[str, str]:
    """Take optional data that are not given out of a profile, with what needs them: experiment -> variable."""
    base = name.removesuffix(OWN)
    absent = {
        name: data["replaced_by"]
        for name, data in settings["data"].items()
        if data.pop("optional", False) and not os.environ.get(data["replaced_by"])
    }
    experiments = settings["experiments"]
    left_out = {name: absent[asked["data"]] for name, asked in experiments.items() if asked.get("data") in absent}
    for data, variable in absent.items():
        settings["data"][data] |= {PUBLISHED_AS: variable, "train": 0, "valid": 0, "test": 0}
    if _only_published(settings, name):
        results = project_root() / RESULTS / name
        for experiment in list(left_out):
            runs = [run for run, _, _ in _listed(settings, name, experiment)]
            if all((results / experiment / run / "record.json").is_file() for run in runs):
                del left_out[experiment]
    shown = {experiments[one]["data"] for one in experiments if one not in left_out and "data" in experiments[one]}
    settings["data"] = {data: one for data, one in settings["data"].items() if data not in absent or data in shown}
    for chapter, lacking in _remove(settings, left_out).items():
        variables = " ".join(f"{one}=folder" for one in sorted({left_out[one] for one in lacking}))
        settings[LEFT_OUT_CHAPTERS][chapter] = (
            f"its data are not given: `make book PROFILE={base} {variables}`, "
            "beside what is given already, makes it; {doc}`../data` has their layout and source"
        )
    return left_out


def _leave_out_unmade(settings: dict[str, Any], name: str) -> None:
    """Take out of a profile what lacks the record of a run: seeds of `optional` entries, else the whole experiment.

    A seed stays when all its runs, of every variant and setting of the entry, are there. Experiments on the reader's
    own folders stay.
    """
    results = project_root() / RESULTS / name
    unmade, in_part = set(), []
    for experiment, asked in settings["experiments"].items():
        if "folder" in settings["data"].get(asked.get("data"), {}):
            continue
        listed = list(_listed(settings, name, experiment))
        absent = [listing for listing in listed if not (results / experiment / listing[0] / "record.json").is_file()]
        there = []
        for entry in asked["runs"]:
            of_entry = [parameters for _, parameters, one in absent if one is entry]
            gone = {seed for given in of_entry for seed in given.get("seeds", [given.get("seed")])}
            if kept := [seed for seed in entry["seeds"] if seed not in gone]:
                there.append({**entry, "seeds": kept})
        if not there or not all(entry.get("optional") for _, _, entry in absent):
            unmade.add(experiment)
            continue
        asked["runs"] = there
        if absent:
            in_part.append(
                f"{experiment} ({len(list_runs(name, experiment, settings))} of {len(listed)} runs are there)"
            )
    for chapter, lacking in _remove(settings, unmade).items():
        settings[LEFT_OUT_CHAPTERS][chapter] = (
            f"its results are not there yet: `make train PROFILE={name} EXPERIMENTS={shlex.quote(' '.join(lacking))}` "
            "computes them, and `make book PROFILE=quick` has shorter trainings"
        )
    used = {asked.get("data") for asked in settings["experiments"].values()}
    used |= {data for asked in settings["chapters"].values() for data in (asked or {}).get("data", [])}
    settings["data"] = {data: one for data, one in settings["data"].items() if data in used}
    settings[UNMADE] = sorted([*unmade, *in_part])


def _remove(settings: dict[str, Any], experiments: Container[str]) -> dict[str, list[str]]:
    """Take experiments out of a profile and its chapters; returns the chapters that go with them, and for which."""
    settings["experiments"] = {name: one for name, one in settings["experiments"].items() if name not in experiments}
    gone = {}
    for name, asked in list(settings["chapters"].items()):
        if lacking := [one for one in (asked or {}).get("only_with", []) if one in experiments]:
            gone[name] = lacking
            del settings["chapters"][name]
        elif asked and "experiments" in asked:
            asked["experiments"] = [one for one in asked["experiments"] if one not in experiments]
    return gone


def run_name(method: str, variant: str, seed: int, fold: int = 0) -> str:
    """The folder of a run with one variant and one seed: `shaspec-paper-s0`, `zero-fill-s0`, `zero-fill-s0-fold1`."""
    parts = [method, *([] if variant == STANDARD else [variant]), f"s{seed}", *([f"fold{fold}"] if fold else [])]
    return "-".join(parts)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `make_data` noted beside a folder of data: settings, stand_in, fingerprint; empty where it made none.

    One that is damaged is none: the data are made anew.
    """
    path = folder.with_name(folder.name + ".json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _settings(group: dict[str, Any]) -> list[dict[str, float]]:
    """Every combination of the values in an entry's `grid`, a run of its own each; without a grid one, of nothing."""
    grid = group.get("grid", {})
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def _listed(
    settings: dict[str, Any], profile_name: str, experiment: str
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every run of an experiment: its name, its parameters, and the entry of the profile that it comes from."""
    asked = settings["experiments"][experiment]
    cases, data = {}, {}
    if "data" in asked:  # else its notebook draws its own cases
        data = settings["data"][asked["data"]]
        place = f"build/data/{profile_name}/{asked['data']}"
        folder = data.get("folder", data.get(PUBLISHED_AS, ""))
        cases = {"root": folder or (place if "phantom" in data else "")}
    if "data" in asked and data["layout"] not in SPLIT_WITHIN:
        cases = {"data": folder or place, "split": data.get("split", f"{place}.csv")}
        cases |= {"cases_train": data["train"], "cases_test": data["test"]}
    for group, setting in ((one, setting) for one in asked["runs"] for setting in _settings(one)):
        filed = {"profile": profile_name, "experiment": experiment, "results": RESULTS}
        own = {key: value for key, value in group.items() if key not in ABOUT_A_GROUP}
        given = {**asked["common"], **own, **setting}
        if "phantom" in data:
            _check_made(data, given, f"profiles/{profile_name}.yaml: {experiment}, {group['method']}", asked["data"])
        ending = "".join(f"-{key}={value:g}" for key, value in setting.items())
        variants = group.get("variants", [STANDARD])
        if asked.get("one_run_per_entry"):  # short trainings: one run holds all variants and seeds of its entry
            members = {"variants": variants, "seeds": group["seeds"]}
            name = group.get("name", group["method"]) + ending
            yield name, {**filed, "run": name, **cases, **members, **given}, group
            continue
        folds = range(1, data["folds"] + 1) if "folds" in data else [0]  # 0: one split, no cross-validation
        for variant, seed, fold in product(variants, group["seeds"], folds):
            name = run_name(group["method"], variant, seed, fold) + ending
            taught = {"teacher": given["teacher"].format(seed=seed)} if "teacher" in given else {}
            if fold:
                taught |= {"fold": fold, "split": f"{place}-fold{fold}.csv"}
            if ending:
                taught |= {"run": name}
            yield name, {**filed, "variant": variant, "seed": seed, **cases, **given, **taught}, group


def _check_made(data: Mapping[str, Any], given: Mapping[str, Any], where: str, name: str) -> None:
    """Raise a ValueError if a run takes more cases of a phantom than the profile has made."""
    for part in ("train", "valid", "test"):
        if 0 < data[part] < (most := given.get(f"cases_{part}", 0)):
            raise ValueError(
                f"{where}: cases_{part} is {most}, and data {name} has {part}: {data[part]}; change either"
            )


def list_runs(profile_name: str, experiment: str, settings: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """List the runs of an experiment: name -> parameters of its training notebook: plain values and lists of them.

    Args:
        profile_name: see `profiles/`.
        experiment: of the profile.
        settings: the profile as read, for who asks many times.

    Raises:
        ValueError: as `profile`; if a run takes more cases of a phantom than the profile has made.
    """
    listed = _listed(settings or profile(profile_name), profile_name, experiment)
    return {name: parameters for name, parameters, _ in listed}


def groups(profile_name: str, experiment: str, settings: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Run name -> the entry of the profile it comes from: its method, its `minutes` on one core; see `list_runs`."""
    return {name: group for name, _, group in _listed(settings or profile(profile_name), profile_name, experiment)}


def asked_runs(profile_name: str, chapter: str) -> dict[str, list[str]]:
    """Experiment -> names of the runs that a profile asks for, of the experiments that a chapter reads."""
    settings = profile(profile_name)
    experiments = (settings["chapters"].get(chapter) or {}).get("experiments", [])
    return {name: list(list_runs(profile_name, name, settings)) for name in experiments}
