"""Train published runs again, beside the published ones, and write a page on how far apart they are.

`make reproduce` calls it. What is made lies in `build/reproduced`; neither the store nor `build/results` is touched.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from mmlib import records
from pipeline import own
from pipeline.frame import notebook_of
from pipeline.make import execute
from pipeline.profiles import profile as settings_of
from pipeline.profiles import project_root
from pipeline.store import STORE, restore, unread_of
from pipeline.verify import machine, make_data

FOLDER = "build/reproduced"
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{font: 1rem/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem}}
td, th {{padding: 0.2rem 0.6rem; text-align: right}} table {{border-collapse: collapse}}</style></head>
<body><h1>{title}</h1><p><strong>{sentence}</strong></p>
<p>Runs: {runs}. Published from commit {published}; made anew at commit {commit} on {machine}.</p>
{figure}
<h2>Arm by arm</h2>
<p>Means over cases. The spread is the standard deviation of published means between seeds; - where there is one.</p>
{table}</body></html>
"""


def reproduce(profile: str, experiment: str, names: Iterable[str] = ()) -> Path:
    """Train published runs of an experiment again and compare their scores.

    Args:
        profile: whose results are published.
        experiment: of the profile.
        names: of runs; all of the experiment where none is named. A run that teaches one of them is made too.

    Returns:
        The page.

    Raises:
        ValueError: if a run is not published, or takes networks of another experiment.
        StoreError: if a published file is missing or damaged.
    """
    from mmlib.figures.style import show
    from mmlib.studies import provenance

    root = project_root()
    for variable in own.VARIABLES.values():  # what is published was made from the phantoms
        os.environ.pop(variable, None)
    os.environ["OMP_NUM_THREADS"] = "1"  # as the pipeline trains
    results = root / FOLDER / "results"
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / FOLDER, prefix=".published-") as place:
        restore(root / STORE, profile, Path(place))
        published = {path.parent.name: path.parent for path in Path(place, profile, experiment).glob("*/record.json")}
        known = {name: records.read_record(folder) for name, folder in published.items()}
        every = _scores(published)
    wanted = list(names) or sorted(known)
    if unknown := [name for name in wanted if name not in known] or ([] if wanted else [experiment]):
        raise ValueError(f"{', '.join(unknown)}: not published in {STORE}/{profile}/{experiment}")
    made = {}
    for name in _with_teachers(experiment, wanted, known):
        notebook, made[name] = notebook_of(known[name]), results / profile / experiment / name
        print(f"{experiment}/{name}: {sum(known[name]['seconds'].values()):.0f} s as published", flush=True)
        make_data(known[name])
        settings = {**known[name]["parameters"], "results": str(results.relative_to(root))}
        execute(root / "notebooks" / f"{notebook}.md", made[name] / f"{notebook}.ipynb", settings)
    unread = settings_of(profile).get("unread", {})  # as they are published
    left_out = {name: unread_of(f"{profile}/{experiment}/{name}/", unread) for name in made}
    again = _scores(made)
    variants = again.get("variant", again["metric"])  # a run of one network does not name it with each score
    asked = zip(again["run"], variants, again["metric"], strict=True)
    again = again[[not {metric, f"{variant}/{metric}"}.intersection(left_out[run]) for run, variant, metric in asked]]
    scores = provenance.beside(every, again)
    table = provenance.arms(scores, every)
    sentence = provenance.verdict(experiment, scores, table)
    figure = show(provenance.scatter(scores), alt=f"Published scores against those made anew. {sentence}")
    commit, dirty = records.git_state(root)
    page = root / FOLDER / f"{profile}-{experiment}.html"
    text = PAGE.format(
        title=f"{escape(experiment)} made anew",
        sentence=escape(sentence),
        runs=escape(", ".join(made)),
        published=", ".join(sorted({str(known[name].get("git_commit"))[:10] for name in made})),
        commit=commit[:10] + (" with changes" if dirty else ""),
        machine=escape(machine()),
        figure=figure.html,
        table=table.to_html(index=False, na_rep="-", float_format=lambda value: f"{value:.5g}"),
    )
    records.write_whole(page, lambda path: path.write_text(text, encoding="utf-8"))
    print(sentence)
    print(f"{page.relative_to(root)} has the page")
    return page


def _with_teachers(experiment: str, wanted: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The runs in an order in which each finds its teacher made."""
    ordered: list[str] = []
    for name in wanted:
        for network in known[name]["inputs"].get("networks", {}):
            needed, _, teacher = network.partition("/")
            if needed != experiment or teacher not in known:
                raise ValueError(f"{experiment}/{name} takes the network of {network}: make that first, by make book")
            ordered.append(teacher)
        ordered.append(name)
    return list(dict.fromkeys(ordered))


def _scores(folders: Mapping[str, Path]) -> pd.DataFrame:
    tables = [records.read_scores(folder).assign(run=name) for name, folder in folders.items()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
