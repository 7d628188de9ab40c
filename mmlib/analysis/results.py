"""The complete runs of a profile as tables: one row per run, one row per score."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mmlib.records import SCORE_COLUMNS, read_history, read_record, read_scores


@dataclass(frozen=True)
class Results:
    """The complete runs of a profile.

    Attributes:
        records: one row per run; nested facts are flattened with a dot (`parameters.steps`, `seconds.train`);
            `exposure` stays a dict, `folder` is the path of the run.
        scores: experiment, run, method, variant, seed, case, available, target, metric, value; one row per value.
    """

    records: pd.DataFrame
    scores: pd.DataFrame

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def _parts(self) -> dict[tuple[str, str], pd.DataFrame]:
        """(method, experiment) -> its scores: a search in one is quicker than in millions of rows."""
        groups = self.scores.groupby(["method", "experiment"], sort=False, observed=True)
        return {(str(method), str(experiment)): rows for (method, experiment), rows in groups}

    def of_method(self, method: str, experiment: str | None = None) -> pd.DataFrame:
        """The scores of a method, in one experiment or in all; empty where it was not run."""
        found = [rows for (one, where), rows in self._parts.items() if one == method and experiment in (None, where)]
        return pd.concat(found) if len(found) > 1 else found[0] if found else self.scores.iloc[:0]

    def folder(self, run: str, experiment: str | None = None) -> Path:
        """The folder of a run, where its weights and its executed notebook lie.

        Raises:
            KeyError: if there is no such run, or two experiments have one of that name and none is named.
        """
        found = self.records[self.records["run"] == run]
        if experiment is not None:
            found = found[found["experiment"] == experiment]
        if len(found) != 1:
            known = [f"{row.experiment}/{row.run}" for row in self.records.itertuples()]
            raise KeyError(f"{len(found)} runs are called {run!r} (experiment {experiment}); there are {known}")
        return Path(found["folder"].iloc[0])

    def history(self, run: str, experiment: str | None = None) -> pd.DataFrame:
        """The training history of a run, one row per step; empty for a method that does not train.

        Raises:
            KeyError: as `folder`.
        """
        return read_history(self.folder(run, experiment))


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` that a run left, by name; numbers of 16 bits, as they are published, in 32."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return {name: one.astype(np.float32) if one.dtype == np.float16 else one for name, one in arrays.items()}


def read_runs(
    root: str | Path,
    profile: str,
    experiment: str | None = None,
    asked: Mapping[str, Collection[str]] | None = None,
) -> Results:
    """Read the complete runs of a profile; folders without a record (unfinished runs) are passed over.

    Args:
        root: of the results.
        profile: its name.
        experiment: read this one alone.
        asked: experiment -> its runs, such as `pipeline.asked_runs` gives: what else lies in the folders, of an earlier
            profile or a trial, is passed over. None: everything counts.

    Returns:
        The runs, sorted by experiment and name; empty where nothing has run yet.

    Raises:
        RecordError: if a record is damaged or of another schema.
    """
    paths = sorted((Path(root) / profile).glob(f"{experiment or '*'}/*/record.json"))
    if asked is not None:
        paths = [path for path in paths if path.parent.name in asked.get(path.parts[-3], ())]
    rows, tables = [], []
    for path in paths:
        record = read_record(path.parent)
        exposure = record.pop("exposure")
        row = pd.json_normalize(record).iloc[0].to_dict()
        rows.append({**row, "exposure": exposure, "folder": str(path.parent)})
        table = read_scores(path.parent)
        table.insert(0, "run", record["run"])
        table.insert(0, "experiment", record["experiment"])
        tables.append(table)
    columns = ["experiment", "run", "method", "variant", "seed", *SCORE_COLUMNS]
    scores = pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    leading = ["experiment", "run", "method", "variant", "seed", "profile", "folder", "stand_in"]
    records = pd.DataFrame(rows)
    rest = [name for name in records.columns if name not in leading]
    return Results(records.reindex(columns=leading + rest), scores)


def read_results(
    root: str | Path = "build/results", profile: str = "quick", experiment: str | None = None
) -> pd.DataFrame:
    """Every complete run of a profile as one tidy table of mean scores, for one's own comparisons.

    Args:
        root: of the results.
        profile: its name, with `-own` at the end where own data took the place of the phantom.
        experiment: read this one alone.

    Returns:
        One row per experiment, method, variant, available, target and metric: mean (of the means of seeds), sd (between
        the means of seeds; NaN of one), seeds, cases (at most; undefined values count in no mean).

    Raises:
        FileNotFoundError: if there is no complete run; names what there is.
        RecordError: as `read_runs`.
    """
    runs = read_runs(root, profile, experiment)
    if not len(runs):
        there = sorted({"/".join(path.parts[-4:-2]) for path in Path(root).glob("*/*/*/record.json")})
        asked = f"{profile}/{experiment}" if experiment else profile
        raise FileNotFoundError(f"no complete run of {asked} in {root}; there are {', '.join(there) or 'none at all'}")
    cell = ["experiment", "method", "variant", "available", "target", "metric"]
    seeds = runs.scores.groupby([*cell, "seed"], sort=False)["value"].agg(["mean", "size"]).reset_index()
    table = seeds.groupby(cell, sort=False).agg(
        mean=("mean", "mean"), sd=("mean", "std"), seeds=("seed", "nunique"), cases=("size", "max")
    )
    return table.reset_index()


COLUMNS = {  # of `run_table`, as they are printed
    "experiment": "experiment",
    "run": "run",
    "seed": "seed",
    "parameters.variants": "variants",
    "parameters.seeds": "seeds",
    "git_commit": "commit",
    "fingerprint": "fingerprint",
    "device": "device",
    "threads": "threads",
    "precision": "precision",
    "seconds.train": "training / s",
    "seconds.evaluate": "evaluation / s",
}


def run_table(records: pd.DataFrame) -> pd.DataFrame:
    """The runs that a chapter reads, with commit, fingerprint, machine and seconds; what all of them lack is left out.

    Args:
        records: as `Results.records`.
    """
    rows = records.reindex(columns=list(COLUMNS)).dropna(axis="columns", how="all").rename(columns=COLUMNS)
    return rows.assign(commit=rows["commit"].str[:10])
