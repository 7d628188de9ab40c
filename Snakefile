"""The pipeline: data -> runs -> chapters -> book. `make book` calls it; profiles/slurm sends it to a cluster.

What there is to run stands in profiles/<PROFILE>.yaml. A run or a chapter is made anew when its notebook, a file of
mmlib that it imports, its parameters or its data changed, and only then.
"""

import os
import shutil
import sys
import time
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir)))
from mmlib.records import folders_below
from pipeline import make, profiles, warm
from pipeline.frame import stale_runs
from pipeline.sources import book_files, sources

PROFILE = profiles.results_profile(profiles.asked_profile())
SETTINGS = profiles.profile(PROFILE)
HTML = os.environ.get("HTML") or "build/html"
CHAPTERS = list(SETTINGS["chapters"])
EXPERIMENTS = {
    name: (profiles.list_runs(PROFILE, name, SETTINGS), profiles.groups(PROFILE, name, SETTINGS))
    for name in SETTINGS["experiments"]
}
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# Runs whose minutes are those of a GPU ask for one, where there are any: here, or on the nodes (profiles/slurm says so).
GPUS = bool(config.get("gpus")) or shutil.which("nvidia-smi") is not None
LONGEST = int(config.get("longest", 2880))  # minutes that a job may ask for; a retry takes up from the last checkpoint
SHORT = 15  # minutes; a cluster gets several runs of at most so many as one job


def request(experiment, run):
    """A file that is newer than the record of a run while that is not current (parameters, code, data, networks)."""
    return f"build/logs/{PROFILE}/asked/{experiment}-{run}"


if workflow.is_main_process:
    for experiment, (asked, _) in EXPERIMENTS.items():
        stale = stale_runs(PROFILE, experiment, asked, SETTINGS["experiments"][experiment]["notebook"])
        for run in asked:
            path = Path(request(experiment, run))
            known = path.is_file()
            if run in stale or not known:
                path.parent.mkdir(parents=True, exist_ok=True)
                # The time, too: Snakemake passes over a small file that is newer but holds the same as at the last run.
                path.write_text(f"{stale.get(run, '')} {time.time_ns()}\n")
                if run not in stale:
                    os.utime(path, (0, 0))  # the record is current, wherever it came from


@cache
def is_published(experiment, run):
    """Whether a run was restored from results/: then it stays, whatever is made anew around it."""
    path = Path(f"build/results/{PROFILE}/{experiment}/{run}/record.json")
    # of the outermost level; `stale_runs` has read and checked all of it, and 48 MB of JSON take a second
    return path.is_file() and '\n "published": ' in path.read_text()


def data_of_run(wildcards):
    if is_published(wildcards.experiment, wildcards.run):
        return []
    data = SETTINGS["experiments"][wildcards.experiment].get("data")
    return f"build/data/{PROFILE}/{data}.json" if data else []  # a notebook may draw its own cases


def teacher_of_run(wildcards):
    """The record of the run whose network teaches this one, where there is one."""
    teacher = EXPERIMENTS[wildcards.experiment][0][wildcards.run].get("teacher")
    if is_published(wildcards.experiment, wildcards.run):
        return []
    return f"build/results/{PROFILE}/{wildcards.experiment}/{teacher}/record.json" if teacher else []


def records_of(experiment):
    return [f"build/results/{PROFILE}/{experiment}/{run}/record.json" for run in EXPERIMENTS[experiment][0]]


def networks_of_run(wildcards):
    """The records of the experiments whose networks this one takes and does not train."""
    published = is_published(wildcards.experiment, wildcards.run)
    needed = [] if published else SETTINGS["experiments"][wildcards.experiment].get("needs", [])
    return [record for name in needed for record in records_of(name)]


def minutes(wildcards):
    return EXPERIMENTS[wildcards.experiment][1][wildcards.run]["minutes"]


def asks(experiment):
    """What a run of an experiment asks a machine for beside one core: gpu, mem_mb."""
    return {"gpu": 0, "mem_mb": 4000, **(SETTINGS["experiments"][experiment].get("resources", {}) if GPUS else {})}


def is_trained(experiment):
    """Whether a run of an experiment is made here, or was."""
    return not all(is_published(experiment, run) for run in EXPERIMENTS[experiment][0])


def is_needed(data):
    """Whether a data set is to be made: not where all that was trained on it is published, and no chapter opens it."""
    behind = [name for name, asked in SETTINGS["experiments"].items() if asked.get("data") == data]
    opened = any(data in data_of_chapter(chapter) for chapter in CHAPTERS)
    return opened or not behind or any(map(is_trained, behind))


def data_of_chapter(chapter):
    """Names of the data sets that a chapter needs: those it opens, and those of experiments that are made here."""
    asked = SETTINGS["chapters"][chapter] or {}
    made = [name for name in asked.get("experiments", []) if is_trained(name)]
    behind = [SETTINGS["experiments"][name].get("data") for name in made]
    return list(dict.fromkeys(name for name in [*asked.get("data", []), *behind] if name))


def needs_of_chapter(wildcards):
    """The chapter, what it imports, and the records, data and files of the book that it reads."""
    asked = SETTINGS["chapters"][wildcards.chapter] or {}
    records = [record for name in asked.get("experiments", []) for record in records_of(name)]
    data = [f"build/data/{PROFILE}/{name}.json" for name in data_of_chapter(wildcards.chapter)]
    notebook = f"notebooks/{wildcards.chapter}.md"
    others = [file for file in asked.get("reads", []) if Path(file).is_file()]
    return [*sources(notebook), *book_files(notebook), *records, *data, *others]


def sources_of_data(wildcards):
    """What a data set is made by."""
    data = SETTINGS["data"][wildcards.name]
    if data["layout"] in profiles.SPLIT_WITHIN:
        phantom = [make.PHANTOMS[data["layout"]]] if "phantom" in data else []
        return sources(f"mmlib/data/{data['layout']}.py", *phantom)
    split = [f"mmlib/data/splits/{data['split']}.csv"] if "split" in data else []
    return [*sources("mmlib/data/phantoms/brain.py", "mmlib.data.brats", f"mmlib.data.{data['layout']}"), *split]


def size_and_age(folder):
    """Tell when the reader's own data change, without reading them."""
    kinds = (".nii", ".gz", ".wav", "-ubyte", ".csv", ".png", ".jpg", ".jpeg")
    below = folders_below(folder, lambda error: None)  # the loader says what cannot be listed
    files = [path / name for path, names in below for name in names if name.lower().endswith(kinds)]
    states = {file: file.stat() for file in sorted(files) if file.is_file()}
    return [f"{file.relative_to(folder)} {state.st_size} {state.st_mtime_ns}" for file, state in states.items()]


onstart:
    warm.start()  # jobs on other machines find no server and need none


wildcard_constraints:
    experiment="[^/]+",
    run="[^/]+",
    chapter="[^/]+",


localrules:
    all,
    train,
    html,


rule all:
    input:
        f"{HTML}/index.html",
        # named here too, so that what someone deletes is made again
        [f"build/data/{PROFILE}/{name}.json" for name in SETTINGS["data"] if is_needed(name)],
        [record for name in EXPERIMENTS for record in records_of(name)],
        [f"build/notebooks/{PROFILE}/{name}.ipynb" for name in CHAPTERS],


rule train:
    input:
        [record for name in os.environ.get("EXPERIMENTS", "").split() or EXPERIMENTS for record in records_of(name)],


rule data:
    message:
        "data: {wildcards.name}"
    input:
        sources_of_data,
    output:
        f"build/data/{PROFILE}/{{name}}.json",
    log:
        f"build/logs/{PROFILE}/data-{{name}}.log",
    params:
        settings=lambda wildcards: SETTINGS["data"][wildcards.name],
        files=lambda wildcards: size_and_age(SETTINGS["data"][wildcards.name].get("folder", "/nowhere")),
    priority: 2000
    shell:
        "python -S -E pipeline/warm.py -m pipeline data {PROFILE:q} {wildcards.name:q} > {log:q} 2>&1"


rule run:
    message:
        "run: {wildcards.experiment} {wildcards.run}"
    input:
        lambda wildcards: request(wildcards.experiment, wildcards.run),
        data_of_run,
        teacher_of_run,
        networks_of_run,
    output:
        # updated, not replaced: the notebook itself sees whether the record is still current
        record=update(f"build/results/{PROFILE}/{{experiment}}/{{run}}/record.json"),
    log:
        f"build/results/{PROFILE}/{{experiment}}/{{run}}/run.log",
    params:
        parameters=lambda wildcards: EXPERIMENTS[wildcards.experiment][0][wildcards.run],
    priority: lambda wildcards: 10 + minutes(wildcards)  # the longest first
    threads: 1
    group:
        lambda wildcards: "short" if minutes(wildcards) <= SHORT else None
    resources:
        gpu=lambda wildcards: asks(wildcards.experiment)["gpu"],
        mem_mb=lambda wildcards: asks(wildcards.experiment)["mem_mb"],
        runtime=lambda wildcards: min(int(30 + 4 * minutes(wildcards)), LONGEST),
    shell:
        "export OMP_NUM_THREADS={threads};"
        " python -S -E pipeline/warm.py -m pipeline run {PROFILE:q} {wildcards.experiment:q} {wildcards.run:q} > {log:q} 2>&1"
        " && touch {output.record:q}"


rule chapter:
    message:
        "chapter: {wildcards.chapter}"
    input:
        needs_of_chapter,
    output:
        f"build/notebooks/{PROFILE}/{{chapter}}.ipynb",
    log:
        f"build/logs/{PROFILE}/{{chapter}}.log",
    params:
        asked=lambda wildcards: SETTINGS["chapters"][wildcards.chapter],
    priority: lambda wildcards: (SETTINGS["chapters"][wildcards.chapter] or {}).get("seconds", 0)  # the longest first
    threads: 1
    group:
        "chapters"
    resources:
        mem_mb=6000,
        runtime=60,
    shell:
        "export OMP_NUM_THREADS={threads};"
        " python -S -E pipeline/warm.py -m pipeline chapter {PROFILE:q} {wildcards.chapter:q} > {log:q} 2>&1"


rule html:
    message:
        f"book: {HTML}"
    input:
        "_config.yml",
        [str(path) for path in sorted(Path("book").rglob("*")) if path.is_file() and "__pycache__" not in path.parts],
        [str(path) for path in sorted(Path("mmlib").rglob("*.py"))],
        chapters=expand("build/notebooks/{profile}/{chapter}.ipynb", profile=PROFILE, chapter=CHAPTERS),
    output:
        update(f"{HTML}/index.html"),  # put back if the build fails
    log:
        f"build/logs/{PROFILE}/html.log",
    params:
        profile=PROFILE,  # pages say so; another profile's book is another book
        book=f"{HTML}-source",
        html=HTML,
    shell:
        # the book's source is put together anew; the last good pages stay until the new ones are complete
        "exec > {log:q} 2>&1; export PROFILE={PROFILE:q} NO_COLOR=1; rm -rf {params.book:q} && mkdir -p {params.book:q}/chapters"
        " && cp -R book/. {params.book:q}/ && cp {input.chapters:q} {params.book:q}/chapters/"
        " && python -S -E pipeline/warm.py -m pipeline pages {PROFILE:q} {params.book:q}"
        " && rm -rf {params.html:q} && mv {params.book:q}/_build/html {params.html:q}"
