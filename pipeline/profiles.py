"""What a profile asks for: data sets, experiments (many runs of one training notebook) and chapters.

A profile is a file `profiles/<name>.yaml`. A run is one execution of its training notebook and leaves one record.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

OWN = "-own"  # ends the name of a profile whose data set is a folder of the reader's
RESULTS = "build/results"
ABOUT_A_GROUP = ("name", "variants", "seeds", "minutes")  # the rest of an entry is parameters
STANDARD = "standard"  # the variant of a method that has only one
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
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _written(name: str) -> dict[str, Any]:
    """A profile as its file has it."""
    path = project_root() / "profiles" / f"{name}.yaml"
    if not path.is_file():
        known = sorted(other.stem for other in path.parent.glob("*.yaml"))
        raise ValueError(f"there is no profile {name!r}; choose one of {', '.join(known)}")
    return copy.deepcopy(_parsed(path, path.stat().st_mtime_ns))


def results_profile(name: str) -> str:
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

    Data that are `optional` and whose variable names no folder are left out, with the experiments on them.

    Raises:
        ValueError: if there is no such profile, or it needs a folder of data and the variable for it names none.
    """
    base = name.removesuffix(OWN)
    settings = _written(base)
    _leave_out(settings)
    variables = [data["replaced_by"] for data in settings["data"].values() if "replaced_by" in data]
    none_given = not any(os.environ.get(variable) for variable in variables)
    for data in settings["data"].values():
        variable = data.pop("replaced_by", "")  # a phantom without it is never replaced
        given = os.environ.get(variable, "")
        if _has_default(data) and (name == base or not variable or not (given or none_given)):
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


def experiments_of(profile_name: str, chapter: str) -> list[str]:
    """The experiments that a chapter reads: those that the profile names, without those on data that are not there."""
    return (profile(profile_name)["chapters"][chapter] or {}).get("experiments", [])


def _leave_out(settings: dict[str, Any]) -> None:
    """Take out optional data that no variable names, the experiments on them, and what chapters say of these."""
    for name, data in list(settings["data"].items()):
        if data.pop("optional", False) and not os.environ.get(data["replaced_by"]):
            del settings["data"][name]
            gone = {key for key, asked in settings["experiments"].items() if asked.get("data") == name}
            settings["experiments"] = {key: one for key, one in settings["experiments"].items() if key not in gone}
            for asked in filter(None, (settings["chapters"] or {}).values()):
                asked["experiments"] = [one for one in asked.get("experiments", []) if one not in gone]


def run_name(method: str, variant: str, seed: int) -> str:
    """The folder of a run with one variant and one seed: `shaspec-paper-s0`, `zero-fill-s0`."""
    return "-".join([method, *([] if variant == STANDARD else [variant]), f"s{seed}"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `make_data` noted beside a folder of data: settings, stand_in, fingerprint; empty where it made none."""
    path = folder.with_name(folder.name + ".json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _listed(profile_name: str, experiment: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every run of an experiment: its name, its parameters, and the entry of the profile that it comes from."""
    settings = profile(profile_name)
    asked = settings["experiments"][experiment]
    cases = {}
    if "data" in asked:  # else its notebook draws its own cases
        data = settings["data"][asked["data"]]
        place = f"build/data/{profile_name}/{asked['data']}"
        cases = {"root": data.get("folder", place if "phantom" in data else "")}
    if "data" in asked and data["layout"] not in SPLIT_WITHIN:
        cases = {"data": data.get("folder", place), "split": data.get("split", f"{place}.csv")}
        cases |= {"cases_train": data["train"], "cases_test": data["test"]}
    for group in asked["runs"]:
        filed = {"profile": profile_name, "experiment": experiment, "results": RESULTS}
        given = {**asked["common"], **{key: value for key, value in group.items() if key not in ABOUT_A_GROUP}}
        variants = group.get("variants", [STANDARD])
        if asked.get("one_run_per_entry"):  # short trainings: one run holds all variants and seeds of its entry
            members = {"variants": variants, "seeds": group["seeds"]}
            name = group.get("name", group["method"])
            yield name, {**filed, "run": name, **cases, **members, **given}, group
            continue
        for variant, seed in product(variants, group["seeds"]):
            name = run_name(group["method"], variant, seed)
            taught = {"teacher": given["teacher"].format(seed=seed)} if "teacher" in given else {}
            yield name, {**filed, "variant": variant, "seed": seed, **cases, **given, **taught}, group


def list_runs(profile_name: str, experiment: str) -> dict[str, dict[str, Any]]:
    """List the runs of an experiment: name -> parameters of its training notebook: plain values and lists of them.

    Raises:
        ValueError: as `profile`.
    """
    return {name: parameters for name, parameters, _ in _listed(profile_name, experiment)}


def groups(profile_name: str, experiment: str) -> dict[str, dict[str, Any]]:
    """Run name -> the entry of the profile that it comes from: its method, its `minutes` on one core."""
    return {name: group for name, _, group in _listed(profile_name, experiment)}
