"""Do the published results come out here? Data, networks and first losses, beside what `results/` holds.

Nothing of it needs code of its own in a training notebook. Its cells are executed as they are, in a process in which
`open_run` and `fit` are watched: they stop after the data are known or after some losses, or weights are loaded where
`fit` would train. The tolerances are below; on the machine that made a result every difference is zero.
"""

from __future__ import annotations

import io
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmlib import records
from pipeline import own
from pipeline.frame import changed_runs, notebook_of
from pipeline.profiles import FOLDERS, project_root
from pipeline.sources import cells, parameters_of
from pipeline.store import STORE, WEIGHTS, restore

VERIFIED = "build/verified.json"  # what the last call found, profile by profile
LOSSES = 20  # that are compared, of the first training of a run, where they are published
ENOUGH = 2  # published losses: what is compared then is a step from the initialisation and one after some updates
CASES = 3  # drawn for each network that is rescored
NETWORKS = 3  # drawn of the published ones
# The largest difference of a score, in the unit of its metric, whole or of a region (psnr-et); a metric that is not
# named has that of "other". Weights are published in 16 bits: that alone moves psnr by 0.15 dB, mae by 0.17 % and
# shares of a small region (et-core) by 0.07.
SCORES = {"dice": 0.02, "hd95": 4.0, "psnr": 0.25, "mae": 0.3, "ssim": 0.015, "et": 0.1, "other": 0.02}
SAMPLED = ("m2dn",)  # methods that draw noise: another draw, so means over the drawn cases are compared,
SAMPLED_TIMES = 3  # and may differ by so many times as much
# The largest difference of a loss, as a share of the largest published one: on a processor, or GPU, as the published
# run had, in its precision; and where one was made on a GPU and the other was not.
SAME_KIND = {"float32": 1e-3, "bfloat16": 0.02}
OTHER_KIND = 0.03  # measured: up to 2.2 % after 20 steps in 16 bit
WORDS = {True: "ok", False: "FAILED", None: "open"}
SCORE_KEYS = ("variant", "seed", "case", "available", "target", "metric")


@dataclass(frozen=True)
class Outcome:
    """What one check found.

    Attributes:
        kind: data, scores, losses, or stale: published runs whose code changed and that no check vouches for.
        run: `<experiment>/<run>` that was looked at.
        notebook, method: of the run.
        passed: whether it is as published, within the tolerance; None: it was not compared, the text says why.
        text: what was compared and how far apart it is.
        seconds: that it took.
    """

    kind: str
    run: str
    notebook: str
    method: str
    passed: bool | None
    text: str
    seconds: float = 0.0

    def __str__(self) -> str:
        about = f"{self.notebook} {self.method}" if self.kind in ("losses", "stale") else self.run
        return f"{WORDS[self.passed]:6} {self.kind:6} {about}: {self.text} ({self.seconds:.0f} s)"


class _EnoughError(Exception):
    """Ends a notebook when what was looked for is known."""


# ---------------------------------------------------------------------------- in a process where notebooks are watched
_watched: dict[str, Callable[..., Any]] = {}  # name of a function -> what is called in its place, given it first


def _call(name: str, function: Callable[..., Any], /, *arguments: Any, **settings: Any) -> Any:
    instead = _watched.get(name)
    return instead(function, *arguments, **settings) if instead else function(*arguments, **settings)


def _watch() -> None:
    """Whatever this process imports from now on takes `open_run` and `fit` by way of `_call`."""
    import pipeline
    from mmlib import training

    training.fit = partial(_call, "fit", training.fit)
    pipeline.open_run = partial(_call, "open_run", pipeline.open_run)
    warnings.simplefilter("ignore")


def _execute(notebook: str, parameters: Mapping[str, Any], folder: Path, **watched: Callable[..., Any]) -> Any:
    """Execute the cells of a notebook until one of the watched functions has enough, or the record is written.

    Returns:
        What the watched function gave; None where the record was written.
    """
    path = project_root() / "notebooks" / f"{notebook}.md"
    cell = {"__name__": "__main__", **parameters_of(notebook), **parameters}
    _watched.update(watched)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            for is_parameters, code in cells(path):
                if not is_parameters:
                    exec(compile(code, str(path), "exec"), cell)
                if (folder / "record.json").is_file():
                    return None
    except _EnoughError as known:
        return known.args[0]
    finally:
        _watched.clear()
    raise RuntimeError(f"{path} ended without what was looked for")


def _inputs(open_run: Callable[..., Any], *arguments: Any, **settings: Any) -> None:
    raise _EnoughError(open_run(*arguments, **settings).inputs)


def _first_losses(fit: Callable, model: Any, batches: Any, loss: Callable, **settings: Any) -> None:
    seen: list[float] = []

    def watched(model: Any, batch: Any) -> Any:
        if len(seen) == LOSSES:
            raise _EnoughError(seen)
        total, parts = loss(model, batch)
        seen.append(total.item())
        return total, parts

    fit(model, batches, watched, **settings)
    raise _EnoughError(seen)


def _load(
    published: Path,
    folder_now: Path,
    fit: Callable,
    model: Any,
    batches: Any,
    loss: Callable,
    *,
    folder: Path,
    name: str = "fit",
    **settings: Any,
) -> pd.DataFrame:
    """In place of `fit`: the published weights, and a history of one row."""
    from safetensors.torch import load_file

    path = published / Path(folder).relative_to(folder_now) / f"{name}{WEIGHTS}"
    model.load_state_dict(load_file(path))
    model.eval()
    return pd.DataFrame([{"step": 0, "loss": 0.0, "lr": 0.0, "seconds": 0.0}])


def _check(kind: str, published: Path, seed: int) -> Outcome:
    """One check of a published run, which lies restored in a folder of results."""
    record = records.read_record(published)
    notebook, began = notebook_of(record), time.perf_counter()
    root, filed = published.parents[2], published.with_name(f"{kind}-{published.name}")  # beside its teacher
    again = {**record["parameters"], "run": filed.name, "results": str(root), "force": True}
    again = {name: value for name, value in again.items() if name in parameters_of(notebook)}
    again |= {"device": "cpu"} if record["device"] == "cpu" and "device" in again else {}
    again |= {"precision": record["precision"]} if "precision" in again else {}
    try:
        make_data(record)
        passed, text = CHECKS[kind](published, record, notebook, again, filed, seed)
    except Exception as error:  # whatever a notebook raises
        passed, text = False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        shutil.rmtree(filed, ignore_errors=True)
    run = f"{record['experiment']}/{record['run']}"
    return Outcome(kind, run, notebook, record["method"], passed, text, time.perf_counter() - began)


def data_of(record: Mapping[str, Any]) -> str:
    """The folder of a run's data as its record names it; one of `FOLDERS` where they are a reader's."""
    return record["parameters"].get("data") or record["parameters"].get("root") or "none"


def make_data(record: Mapping[str, Any]) -> None:
    """Make the phantom that a run was trained on, where it is not there."""
    from pipeline.make import data_folder

    place = Path(data_of(record))
    if place.parent == Path("build", "data", record["profile"]):
        data_folder(record["profile"], place.name)


def _check_data(
    published: Path, record: Mapping[str, Any], notebook: str, again: dict[str, Any], filed: Path, seed: int
) -> tuple[bool, str]:
    found = _execute(notebook, again, filed, open_run=_inputs)
    there = {"data": record["data_fingerprint"], "split": record["split_hash"]}
    differing = [
        f"{name} {there[name]} as published, {found[name]} here" for name in there if there[name] != found[name]
    ]
    if differing:
        return False, (
            f"{'; '.join(differing)}: they differ, and by how much cannot be said, for only their hash is published"
        )
    return True, f"the fingerprint of the data, {there['data']}, and that of the split are as published"


def _check_losses(
    published: Path, record: Mapping[str, Any], notebook: str, again: dict[str, Any], filed: Path, seed: int
) -> tuple[bool | None, str]:
    from mmlib.training import precision_here

    if record["method"] == "cost":
        return None, "not compared: it measured times of the machine that made it"
    for network in record["inputs"].get("networks", {}):
        if not any((published.parents[1] / network).rglob(f"*{WEIGHTS}")):
            return None, f"not compared: the weights of {network}, which it takes, are not published"
    history = records.read_history(published)
    if history.empty:  # trains nothing: its scores tell
        return _check_scores(published, record, notebook, again, filed, seed)
    allowed, where = _allowed(record)
    try:
        found = _execute(notebook, again, filed, fit=_first_losses)
    except FloatingPointError:  # some CPUs that imitate bfloat16 get infinite gradients by that, of a V-Net
        if record["precision"] != "bfloat16" or precision_here() != "float32":
            raise
        found = _execute(notebook, again | {"precision": "float32"}, filed, fit=_first_losses)
        where += " there, float32 here"
    return compare_losses(history, found, allowed, where)


def _allowed(record: Mapping[str, Any]) -> tuple[float, str]:
    import torch

    made, here = record["device"], "cuda" if torch.cuda.is_available() and record["device"] != "cpu" else "cpu"
    allowed = SAME_KIND.get(record["precision"], SAME_KIND["float32"]) if made == here else OTHER_KIND
    return allowed, f"{made} there, {here} here, {record['precision']}"


def compare_losses(history: pd.DataFrame, found: list[float] | None, allowed: float, where: str) -> tuple[bool, str]:
    """The first losses of a run beside those of its published history, which has some of the steps.

    Args:
        history: as published; its first training counts.
        found: the losses here, from step 0 on.
        allowed: largest difference, as a share of the largest published loss.
        where: said in the text.
    """
    if not found:
        return False, "no loss came out"
    first = history.iloc[: next((row for row in range(1, len(history)) if history["step"][row] == 0), len(history))]
    first = first[first["step"] < len(found)]
    there, here = first["loss"].to_numpy(float), np.array([found[step] for step in first["step"]])
    difference = float(np.max(np.abs(there - here)) / np.max(np.abs(there)))
    return difference <= allowed, (
        f"of the first {len(found)} losses {len(first)} are published; the largest difference is {difference:.2%}, "
        f"allowed {allowed:.1%} ({where})"
    )


def _check_scores(
    published: Path, record: Mapping[str, Any], notebook: str, again: dict[str, Any], filed: Path, seed: int
) -> tuple[bool, str]:
    there = records.read_scores(published)
    weights = [name for name in record["files"] if name.endswith(WEIGHTS)]
    if "seeds" in again and weights:
        again["seeds"] = [one for one in again["seeds"] if any(f"-s{one}/" in name for name in weights)]
    if "students" in again and weights:
        from mmlib.modalities import MRI, label  # which imports torch

        named = {one: label(MRI, MRI) if one == "all" else one for one in again["students"]}  # as their files are
        again["students"] = [one for one, name in named.items() if f"{name}{WEIGHTS}" in weights]
    if "split" in again:
        from mmlib.data.splits import read_split, write_split

        parts = read_split(project_root() / again["split"] if again["split"].endswith(".csv") else again["split"])
        known = sorted(name for name in parts.test if len(of_cases(there, [name])))
        drawn = tuple(sorted(random.Random(seed).sample(known, min(CASES, len(known)))))
        path = filed.with_name(f"{filed.name}.csv")
        write_split(replace(parts, test=drawn), path)
        again |= {"split": str(path), "cases_test": 0}
        again |= {"cases_valid": 0} if "cases_valid" in again else {}
        there = of_cases(there, drawn)
    if weights:
        _execute(notebook, again, filed, fit=partial(_load, published, filed))
    else:  # its networks are so small that it keeps none: the first are trained again
        again |= {name: again[name][:1] for name in ("seeds", "settings") if again.get(name)}
        _execute(notebook, again, filed)
    return compare_scores(there, records.read_scores(filed), record["method"] in SAMPLED)


def of_cases(scores: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """The scores of some cases, under their names or their subjects' (IXI0120 of IXI0120-Phantom-0120).

    What was measured over all cases together, such as a probe of features, is of none of them.
    """
    return scores[scores["case"].isin({own for name in names for own in (name, name.partition("-")[0])})]


def compare_scores(there: pd.DataFrame, here: pd.DataFrame, sampled: bool = False) -> tuple[bool, str]:
    """Published scores beside those of the same cases here, metric by metric.

    Args:
        there, here: as `mmlib.records.read_scores`.
        sampled: whether the method draws noise; then means of a metric are compared.
    """
    keys = [key for key in SCORE_KEYS if key in there and key in here]
    both = there.astype({key: str for key in keys}).merge(here.astype({key: str for key in keys}), "inner", keys)
    if both.empty:
        return False, "no score of these cases is published"
    passed, said = True, []
    for metric, rows in both.groupby("metric", sort=True):
        old, new = (rows[f"value_{one}"] for one in "xy")
        allowed = SCORES.get(str(metric).partition("-")[0], SCORES["other"]) * (SAMPLED_TIMES if sampled else 1)
        apart = abs(old.mean() - new.mean()) if sampled else (old - new).abs().where(old.notna() | new.notna(), 0).max()
        lost = not sampled and bool((old.isna() != new.isna()).any())
        passed &= not lost and bool(apart <= allowed)
        said.append(f"{metric} {apart:.4f}{' and one is undefined' if lost else ''}, allowed {allowed:g}")
    cases = both["case"].nunique()
    return passed, f"{len(both)} scores of {cases} drawn cases; largest difference: {'; '.join(said)}"


CHECKS = {"data": _check_data, "scores": _check_scores, "losses": _check_losses}


# --------------------------------------------------------------------------------------------------------- the command
def chosen(runs: Mapping[Path, Mapping[str, Any]], seed: int, sets: int = 0) -> list[tuple[str, Path]]:
    """What is checked: (kind, folder of a run).

    Data, for each experiment and split; losses, of one run for each notebook and for each method that has a run whose
    code changed; scores, of some networks.

    Args:
        runs: folder -> record.
        seed: of the draw of networks and data sets.
        sets: beside the data sets that losses and scores need, so many others are made and compared; 0: all.
    """

    def cost(folder: Path) -> tuple[Any, ...]:
        """The first is taken: one that can be trained, on a CPU, with enough losses published, on shared data, soon."""
        record = runs[folder]
        lacks = any(
            not any((folder.parents[1] / one).rglob(f"*{WEIGHTS}")) for one in record["inputs"].get("networks", {})
        )
        known = (records.read_history(folder).get("step", pd.Series(dtype=int)) < LOSSES).sum()
        shared = len(methods_on[record["data_fingerprint"]])
        seconds = record["seconds"].get("train", 0.0)
        return lacks, record["device"] != "cpu", -min(known, ENOUGH), -shared, seconds, folder.name

    data: dict[tuple[str, ...], Path] = {}
    groups: dict[tuple[str, str], list[Path]] = {}
    methods_on: dict[str, set[tuple[str, str]]] = {}  # a data set
    changed, other = set(), changed_runs(runs)
    for folder, record in runs.items():
        data.setdefault((record["experiment"], record["data_fingerprint"], record["split_hash"]), folder)
        group = notebook_of(record), record["method"]
        groups.setdefault(group, []).append(folder)
        methods_on.setdefault(record["data_fingerprint"], set()).add(group)
        if other[folder]:
            changed.add(group)
    losses = {group: min(folders, key=cost) for group, folders in groups.items() if group in changed}
    for notebook in {notebook for notebook, _ in groups} - {notebook for notebook, _ in losses}:
        folder = min((one for group, folders in groups.items() if group[0] == notebook for one in folders), key=cost)
        losses[notebook, runs[folder]["method"]] = folder
    with_weights = sorted(
        folder for folder, record in runs.items() if any(n.endswith(WEIGHTS) for n in record["files"])
    )
    scores = random.Random(seed).sample(with_weights, min(NETWORKS, len(with_weights)))
    if sets:
        needed = {runs[folder]["data_fingerprint"] for folder in [*losses.values(), *scores]}
        others = sorted({fingerprint for _, fingerprint, _ in data} - needed)
        needed |= set(random.Random(seed).sample(others, min(sets, len(others))))
        data = {asked: folder for asked, folder in data.items() if asked[1] in needed}
    made: dict[str, Path] = {}  # data set -> the run by whose check it is made
    for asked, folder in data.items():
        made.setdefault(asked[1], folder)
    known = [folder for folder in data.values() if folder not in made.values()]
    return [  # two that make the same data wait for each other, and what takes long is not left to the end
        *(("data", folder) for folder in made.values()),
        *(("losses", folder) for folder in losses.values()),
        *(("scores", folder) for folder in scores),
        *(("data", folder) for folder in known),
    ]


def unverified(runs: Mapping[Path, Mapping[str, Any]], outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Published runs whose code changed and whose notebook and method no check of losses vouches for."""
    found = {(one.notebook, one.method): one.passed for one in outcomes if one.kind == "losses"}
    lacking: dict[tuple[str, str], list[str]] = {}
    changed = changed_runs(runs)
    for folder, record in runs.items():
        notebook = notebook_of(record)
        if not found.get((notebook, record["method"])) and changed[folder]:
            lacking.setdefault((notebook, record["method"]), []).append(f"{record['experiment']}/{record['run']}")
    return [
        Outcome(
            "stale",
            names[0],
            *group,
            found.get(group, False),
            f"code changed since {len(names)} published runs, and no check vouches for them",
        )
        for group, names in lacking.items()
    ]


def machine() -> str:
    """Processor and number of cores, for the page on provenance."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def verify(profile: str, experiments: Iterable[str] = (), seed: int = 0, jobs: int = 0, sets: int = 0) -> bool:
    """Check what is published of a profile, print a line for each check, and write `build/verified.json`.

    Args:
        profile: its name.
        experiments: of these; of all, where none is named.
        seed: of the draw of networks and cases.
        jobs: processes side by side; 0: one for each core.
        sets: data sets that are made only to be compared; 0: all.

    Returns:
        Whether none failed.

    Raises:
        ValueError: if an experiment is not published.
        StoreError: if a published file is missing or damaged.
    """
    root, began = project_root(), time.perf_counter()
    wanted = set(experiments)
    for variable in own.VARIABLES.values():  # what is published was made from the phantoms
        os.environ.pop(variable, None)
    os.environ["OMP_NUM_THREADS"] = "1"  # as the pipeline trains
    (root / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / "build", prefix="verify-") as place:
        restore(root / STORE, profile, Path(place))
        folders = sorted(path.parent for path in Path(place).glob("*/*/*/record.json"))
        runs = {folder: records.read_record(folder) for folder in folders}
        if runs and (unknown := wanted - {record["experiment"] for record in runs.values()}):
            raise ValueError(f"{', '.join(sorted(unknown))}: not published, see {STORE}/{profile}")
        runs = {folder: one for folder, one in runs.items() if not wanted or one["experiment"] in wanted}
        if not runs:
            print(f"nothing of the profile {profile} is published: there is nothing to verify")
            return True
        outcomes = []
        workers = jobs or os.cpu_count() or 1
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_watch) as pool:
            here = {folder: one for folder, one in runs.items() if data_of(one) not in FOLDERS}
            asked = [pool.submit(_check, kind, folder, seed) for kind, folder in chosen(here, seed, sets)]
            print(f"{len(asked)} checks of {len(runs)} published runs, {workers} side by side", flush=True)
            for done in as_completed(asked):
                outcomes.append(done.result())
                print(outcomes[-1], flush=True)
        for one in unverified(runs, outcomes):
            outcomes.append(one)
            print(one, flush=True)
    commit, dirty = records.git_state(root)
    seconds, failed = time.perf_counter() - began, sum(one.passed is False for one in outcomes)
    passed, left = (sum(one.passed is word for one in outcomes) for word in (True, None))
    known = read_verified(root)
    known[profile] = {
        "day": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "dirty": dirty,
        "machine": machine(),
        "seconds": round(seconds, 1),
        "experiments": sorted(wanted),
        "outcomes": [asdict(one) for one in outcomes],
    }
    text = records.to_json(known, VERIFIED) + "\n"
    records.write_whole(root / VERIFIED, lambda path: path.write_text(text, encoding="utf-8"))
    print(
        f"{passed} of {len(outcomes)} checks passed, {failed} failed and {left} were left open, in {seconds:.0f} s; "
        f"{VERIFIED} has them"
    )
    return not failed


def read_verified(root: Path) -> dict[str, Any]:
    """What the last calls found: profile -> day, commit, machine, outcomes; empty where nothing was verified here."""
    try:
        return json.loads((root / VERIFIED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def main(profile: str, experiments: Iterable[str], seed: int, jobs: int, sets: int) -> None:
    """The command: ends with 1 where something is not as published."""
    sys.exit(not verify(profile, experiments, seed, jobs, sets))
