"""A reader's own network in the table of the published ones: every combination, the same cases, paired."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from mmlib import published
from mmlib.analysis.statistics import by_seed_and_case, cell_means, paired_effects
from mmlib.analysis.wording import format_interval
from mmlib.data.brats import BratsFolder
from mmlib.data.cases import Case
from mmlib.data.nifti import Cases
from mmlib.data.splits import read_split
from mmlib.figures.results import arm_of, arm_style, combination_heatmap
from mmlib.modalities import MRI, combinations, label
from mmlib.records import write_whole
from mmlib.tasks.segmentation import dice, evaluate_combinations

EXPERIMENTS = ("book/segmentation", "book/subsets")  # networks for any combination of the phantom's modalities
SPACING, TESTED = 4.0, 40  # mm; of the phantom's test cases, those that are published
FILES = ("scores.csv", "means.csv", "comparison.md", "comparison.png")


def read_network(place: str) -> Any:
    """What a function of the reader's returns, or the network itself; the working directory is searched too.

    Args:
        place: `module:name`, such as `my_networks:build`.

    Raises:
        ValueError: if there is no such module or name, or what it gives is no network; says which.
    """
    module, _, name = place.partition(":")
    if not module or not name:
        raise ValueError(f"--network {place}: expected module:function, such as my_networks:build")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] and error.name != module:
            raise  # the module is there; what it imports is not
        raise ValueError(f"--network {place}: no module {module} in {os.getcwd()} or on the path of Python") from None
    if not hasattr(found, name):
        known = [key for key, one in vars(found).items() if callable(one) and not key.startswith("_")]
        raise ValueError(f"--network {place}: {module} has no {name}; it has {', '.join(known) or 'nothing to call'}")
    made = getattr(found, name)
    network = made if isinstance(made, nn.Module) else made()
    if not isinstance(network, nn.Module):
        raise ValueError(f"--network {place}: expected a torch.nn.Module, got {type(network).__name__}")
    return network


def phantom_cases(folder: Path, count: int = TESTED) -> Cases:
    """The test cases on which the published networks were scored; made where they are not there yet.

    Raises:
        ValueError: if the packages that the phantom stands on are missing; names the extra.
    """
    try:
        from mmlib.data.phantoms.brain import write_brats
    except ModuleNotFoundError as error:
        raise ValueError(f"the phantom needs {error.name}: pip install 'mmlib[phantoms]', or give --data") from None
    names = read_split("brats-phantom").test[:count]
    write_brats(folder, [int(name.rpartition("-")[2]) for name in names], SPACING)
    return BratsFolder(folder)[list(names)]


def published_on_phantoms(cases: Sequence[str]) -> pd.DataFrame:
    """Published Dice of the networks for any combination, on these phantoms.

    Returns:
        Tidy, as `mmlib.published.scores`.

    Raises:
        StoreError: as `mmlib.published.scores`.
    """
    rows = pd.concat([published.scores(one) for one in EXPERIMENTS], ignore_index=True)
    rows = rows[rows["metric"].eq("dice") & rows["case"].isin(cases) & rows["method"].ne("dedicated")]
    return rows.drop(columns="run")


def published_on(cases: Mapping[str, Case]) -> pd.DataFrame:
    """Dice of every published network of segmentation on other cases, on their own grids.

    Returns:
        Tidy: method (the network's name), variant, seed, case, available, target, metric, value.

    Raises:
        StoreError: as `mmlib.published.load`.
    """
    rows = []
    for name, facts in published.networks().items():
        if facts["task"] != "segmentation":
            continue
        network = published.load(name)
        for case in tqdm([cases[one] for one in cases], desc=name, mininterval=10):
            truth = torch.from_numpy(case.regions)
            for one in combinations(network.modalities):
                if all(kind in case.images for kind in one):
                    found = network.segment(replace(case, images={kind: case.images[kind] for kind in one}))
                    values = dice(torch.from_numpy(found)[None], truth)[0].tolist()
                    shown = label(one, case.modalities)
                    rows += [(name, "", 0, case.name, shown, *pair) for pair in zip(case.targets, values, strict=True)]
    table = pd.DataFrame(rows, columns=["method", "variant", "seed", "case", "available", "target", "value"])
    return table.assign(metric="dice")


def compare(network: Any, cases: Mapping[str, Case], beside: pd.DataFrame, name: str = "yours") -> pd.DataFrame:
    """Dice of the reader's network and of the published ones on the same cases and combinations.

    Args:
        network: see `mmlib.tasks.segmentation.evaluate_combinations`.
        cases: with labels.
        beside: as `published_on_phantoms` or `published_on`.
        name: of the network in the table.

    Returns:
        Tidy: method, variant, seed, case, available, target, metric, value, arm (see `mmlib.figures.results.arm_of`);
        the reader's network first.

    Raises:
        ValueError: as `evaluate_combinations`, or if the name is one of the published.
    """
    known = sorted(set(arm_of(beside)))
    if name in known:
        raise ValueError(f"--name {name} is a published method ({', '.join(known)}): choose another name")
    own = evaluate_combinations(network, cases, hausdorff=False).assign(method=name, variant="", seed=0)
    beside = beside[beside["available"].isin(own["available"]) & beside["target"].isin(own["target"])]
    scores = pd.concat([own, beside], ignore_index=True)
    return scores.assign(arm=arm_of(scores), value=scores["value"].astype(float))


def means(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice in percent of every network, combination and region with its 95 % interval, see `cell_means`.

    A combination "mean" is the mean over all of them.
    """
    percent = scores.assign(value=100 * scores["value"])
    keys = ["arm", "target", "seed", "case"]
    whole = percent.groupby(keys, sort=False)["value"].mean().reset_index().assign(available="mean")
    return cell_means(pd.concat([percent, whole], ignore_index=True))


def differences(scores: pd.DataFrame, name: str) -> pd.DataFrame:
    """The reader's network minus each other one, mean over combinations and regions, points of Dice, paired by case.

    Returns:
        One row per other network: effect, low, high (95 %), n, seeds.
    """
    rows = (
        scores.groupby(["arm", "seed", "case"], sort=False)["value"].mean().reset_index()
    )  # cases may lack modalities
    tables = {arm: by_seed_and_case(part) for arm, part in rows.groupby("arm", sort=False)}
    others = [arm for arm in tables if arm != name]
    effects = paired_effects([(100 * tables[name], 100 * tables[arm]) for arm in others]) if others else []
    found = [(arm, e.effect, e.low, e.high, e.n, e.seeds) for arm, e in zip(others, effects, strict=True)]
    return pd.DataFrame(found, columns=["arm", "effect", "low", "high", "n", "seeds"])


def _markdown(rows: list[list[str]]) -> list[str]:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [head, f"|{' --- |' * len(rows[0])}", *body, ""]


def _cell(means: pd.DataFrame, available: str, arm: str) -> str:
    if (available, arm) not in means.index:
        return ""
    one = means.loc[(available, arm)]
    return f"{one['mean']:.1f} ({format_interval(one['low'], one['high'])})"


def page(scores: pd.DataFrame, name: str, about: str, leaks: Sequence[str] = ()) -> str:
    """The comparison as Markdown: what is suspicious, differences, then a table for each region.

    Args:
        scores: of `compare`.
        name: of the reader's network.
        about: what the cases are.
        leaks: what `mmlib.analysis.leaks` found.
    """
    found, apart = means(scores), differences(scores, name)
    arms, count = list(dict.fromkeys(scores["arm"])), scores["case"].nunique()
    lines = [f"# {name} beside the published networks", "", f"{about}; n = {count} cases. Dice in percent, mean and "]
    lines[-1] += "95 % interval over cases, and over seeds where there are several: of your network one was given."
    lines += ["", *(f"- **Suspicious:** {one}" for one in leaks)]
    lines += ["", "![Dice of every combination](comparison.png)", "", f"## {name} minus each, all combinations", ""]
    shown = [
        [arm_style(row.arm)[2], f"{row.effect:+.1f} ({format_interval(row.low, row.high, sign='+')})"]
        for row in apart.itertuples()
    ]
    lines += _markdown([["network", "points"], *shown]) if shown else ["Nothing is published for such cases.", ""]
    for target in dict.fromkeys(scores["target"]):
        part = found[found["target"].eq(target)].set_index(["available", "arm"])
        rows = [["available", *(arm_style(arm)[2] for arm in arms)]]
        for available in dict.fromkeys(found["available"]):
            rows.append([available, *(_cell(part, available, arm) for arm in arms)])
        lines += [f"## {target.upper()}", "", *_markdown(rows)]
    return "\n".join(lines)


def write(
    scores: pd.DataFrame,
    name: str,
    about: str,
    output: Path,
    leaks: Sequence[str] = (),
    modalities: Sequence[str] = MRI,
) -> list[Path]:
    """Scores and means as CSV, the page, and the figure of all combinations.

    Args:
        scores, name, about, leaks: as `page`.
        output: folder; made where it is not there.
        modalities: of the cases.

    Returns:
        The files, in the order of `FILES`.
    """
    output.mkdir(parents=True, exist_ok=True)
    targets, arms = list(dict.fromkeys(scores["target"])), list(dict.fromkeys(scores["arm"]))
    plain = scores.drop(columns="arm")
    figure = combination_heatmap(plain, arms, targets, modalities)
    contents: tuple[Callable[[Path], object], ...] = (
        lambda path: plain.to_csv(path, index=False),
        lambda path: means(scores).to_csv(path, index=False),
        lambda path: path.write_text(page(scores, name, about, leaks), encoding="utf-8"),
        lambda path: figure.savefig(path, dpi=150, format="png"),
    )
    for file, content in zip(FILES, contents, strict=True):
        write_whole(output / file, content)
    return [output / file for file in FILES]
