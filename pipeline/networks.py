"""Networks that are published under a name: an index, a record beside the weights, and a card made from the record."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmlib import records
from mmlib.analysis.statistics import by_seed_and_case, mean_interval
from mmlib.modalities import label
from mmlib.prediction import warning_of
from mmlib.published import INDEX, open_experiment, read_file, read_manifest, size_and_sum
from pipeline.store import change_store

DOES = {
    "segmentation": "outlines tumours in volumes, from any of its modalities that a case has",
    "distillation": "outlines tumours in volumes, from the modalities it reads, which a case must have",
    "synthesis": "makes the images that a case lacks from those it has, axial slice by slice",
}
Row = dict[str, Any]


def publish_networks(store: Path, profile: str, names: Mapping[str, str], spacings: Mapping[str, float]) -> list[str]:
    """Write the record beside the weights of each network that has a name, the index and the cards.

    Args:
        store: the folder `results`.
        profile: whose networks they are; those of other profiles stay.
        names: name -> `<experiment>/<run>/<file>`; one whose weights are not in the store yet is left out.
        spacings: experiment -> side of its voxels, mm, where its records do not say it.

    Returns:
        The names in the index.

    Raises:
        StoreError: if a file of the store is damaged.
    """
    sums = read_manifest(store)
    index = json.loads(read_file(store, INDEX, sums)) if INDEX in sums else {}
    index = {name: facts for name, facts in index.items() if not facts["file"].startswith(f"{profile}/")}
    written: dict[str, bytes] = {}
    for name, place in names.items():
        experiment, run, *below = place.split("/")
        file = f"{profile}/{place}"
        if file not in sums:
            continue
        files = open_experiment(store, f"{profile}/{experiment}", sums)[run]
        record = json.loads(files["record.json"])
        record.pop("sha256")
        scores = pd.read_csv(io.BytesIO(files["scores.csv"]), dtype={"available": str, "target": str})
        known = {one: files[one] for one in files if one.endswith(".safetensors")}
        beside = {**record, "files": {one: size_and_sum(content) for one, content in sorted(known.items())}}
        spacing = record.get("spacing") or spacings.get(experiment, 0.0)
        index[name] = facts(record, scores, file, spacing)
        written[f"{profile}/{experiment}/{run}/record.json"] = records.signed(beside).encode()
        written[f"networks/{name}.md"] = card(name, index[name], record, len(files["/".join(below)])).encode()
    written[INDEX] = (records.to_json(index, INDEX) + "\n").encode()
    cards = {f"networks/{name}.md" for name in index}
    for gone in [file for file in sums if file.startswith("networks/") and file not in {INDEX, *cards}]:
        del sums[gone]
    change_store(store, written, sums)
    return sorted(index)


def facts(record: Mapping[str, Any], scores: pd.DataFrame, file: str, spacing: float) -> Row:
    """What the index says of a network; see `mmlib.published.networks`."""
    stage = file.rpartition("/")[2].removesuffix(".safetensors")
    reads = stage.split("+") if record["task"] == "distillation" else list(record["modalities"])
    member = file.split("/")[3:-1]
    if member and {"variant", "seed"} <= set(scores.columns):
        variant, _, seed = member[0].rpartition("-s")
        scores = scores[scores["variant"].eq(variant) & scores["seed"].astype(str).eq(seed)]
    return {
        "file": file,
        "task": record["task"],
        "method": record["method"],
        "modalities": reads,
        "spacing": spacing,
        "axes": record.get("axes", "RAS"),
        "warning": warning_of(record),
        "scores": _scores(record, scores, reads),
    }


def _scores(record: Mapping[str, Any], scores: pd.DataFrame, reads: Sequence[str]) -> list[Row]:
    rows = []
    every = label(reads, record["modalities"])
    if record["task"] == "synthesis":
        asked = [("psnr-mean", "dB", 1.0), ("ssim-mean", "", 1.0)]
        for metric, unit, factor in asked:
            for given in ("one missing", "several missing"):
                rows.append(_row(scores, metric, "all", given, {given}, unit, factor))
        return [one for one in rows if one]
    combinations = set(scores.loc[scores["metric"].eq("dice"), "available"])
    for target in record.get("targets", ("wt", "tc", "et")):
        rows.append(_row(scores, "dice", target, every, {every}, "%", 100.0))
        if record["task"] == "segmentation" and len(combinations) > 1:
            text = f"mean of {len(combinations)} combinations"
            rows.append(_row(scores, "dice", target, text, combinations, "%", 100.0))
    return [one for one in rows if one]


def _row(
    scores: pd.DataFrame, metric: str, target: str, text: str, available: set[str], unit: str, factor: float
) -> Row:
    chosen = scores["metric"].eq(metric) & scores["target"].eq(target) & scores["available"].isin(available)
    if not chosen.any():
        return {}
    table = by_seed_and_case(scores[chosen])
    mean, low, high = (None if value != value else round(factor * value, 3) for value in mean_interval(table))
    found = {"metric": metric, "target": target, "available": text, "mean": mean, "low": low, "high": high}
    return {**found, "unit": unit, "cases": table.shape[1]}


def card(name: str, about: Row, record: Mapping[str, Any], size: int) -> str:
    """The card of a network, Markdown: what it does, what it saw, how well it did it, and what it is not for.

    Args:
        name: of the network.
        about: of `facts`.
        record: of its run.
        size: of its weights, bytes.
    """
    asked, verb = record["parameters"], "complete" if record["task"] == "synthesis" else "segment"
    stages = {stage: len(cases) for stage, cases in record["exposure"].items()}
    seen = ", ".join(f"{cases} cases ({stage})" for stage, cases in stages.items())
    data = "Phantoms: simulated images of the MNI152 template" if record["stand_in"] else "Patients"
    named = ("steps", "optimizer", "learning_rate", "weight_decay", "batch_size", "crop", "size", "widths", "width")
    settings = ", ".join(f"{key} {asked[key]}" for key in named if key in asked)
    rows = [
        f"| {one['metric']} | {one['target']} | {one['available']} | {_number(one, 'mean')}{one['unit'] and ' '}"
        f"{one['unit']} | {_number(one, 'low')} to {_number(one, 'high')} | {one['cases']} |"
        for one in about["scores"]
    ]
    voxels = f"{about['spacing']:g} mm" if about["spacing"] else "of unknown size"
    return "\n".join(
        [
            f"# {name}",
            "",
            f"**Warning: {about['warning']}.** It shows that the path from file to file works, and no more than that.",
            "",
            f"**Task.** {record['task'].capitalize()}: it {DOES[record['task']]}. Modalities: "
            f"{', '.join(about['modalities'])}.",
            "",
            f"**Data.** {data}; layout {asked.get('layout', 'brats')}, voxels {voxels}, axes "
            f"{about['axes']}; trained on {seen}, split `{asked['split']}` ({record['split_hash']}), fingerprint "
            f"{record['data_fingerprint']}.",
            "",
            f"**Training.** Method {record['method']}, {record['parameter_count']:,} weights, {settings}; availability "
            f"{record['availability_sampler']}; {record['precision']} on {record['device']}, "
            f"{record['seconds']['train']:.0f} s; run `{'/'.join(record[part] for part in records.PLACE)}` at commit "
            f"{record['git_commit'][:10]}.",
            "",
            "**Scores** on test cases that took no part in training; 95 % intervals over cases, not over trainings.",
            "",
            "| metric | target | available | mean | 95 % interval | cases |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "**Limits.** Images must be registered to each other and skull-stripped. What is smaller than a voxel of",
            "training is lost. One training, one seed; what it does on data of another kind was not measured. The less",
            "a case has, the more is guessed, and the result does not say which part.",
            "",
            f"**Licence.** Weights ({size / 1e6:.1f} MB, safetensors): Apache-2.0, as the code; this card: CC BY 4.0.",
            "",
            "**Use.**",
            "",
            "```python",
            "import mmlib",
            f'network = mmlib.load("{name}")',
            f"found = network.{verb}(case)  # a mmlib.data.cases.Case, such as mmlib.data.brats.load_case(folder)",
            "```",
            "",
            "```text",
            f"python -m mmlib {verb} CASE... --network {name} --output DIR",
            "```",
            "",
        ]
    )


def _number(row: Row, key: str) -> str:
    digits = 1 if row["unit"] else 3
    return "-" if row[key] is None else f"{row[key]:.{digits}f}"
