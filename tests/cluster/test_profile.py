"""What the profile of a cluster and the profile of the paper ask for."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SLURM = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
PAPER = yaml.safe_load((ROOT / "profiles" / "paper.yaml").read_text())
SNAKEFILE = (ROOT / "Snakefile").read_text()


def test_the_queue_works_where_accounting_is_off() -> None:
    assert SLURM["executor"] == "slurm" and SLURM["slurm-status-command"] == "squeue"
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,50}", SLURM["slurm-jobname-prefix"]), "as the executor demands"


def test_groups_of_the_pipeline_are_those_of_the_profile() -> None:
    (short,) = re.findall(r'lambda wildcards: "(\w+)" if minutes\(wildcards\) <= SHORT else None', SNAKEFILE)
    (chapters,) = re.findall(r'group:\n +"(\w+)"', SNAKEFILE)
    assert {one.partition("=")[0] for one in SLURM["group-components"]} == {short, chapters}


def test_retries_are_enough_for_the_longest_run_of_the_paper() -> None:
    longest = max(run["minutes"] for one in PAPER["experiments"].values() for run in one["runs"])
    settings = dict(one.split("=") for one in SLURM["config"])
    assert settings["gpus"] == "true"
    assert (SLURM["retries"] + 1) * int(settings["longest"]) > longest


def test_runs_of_the_paper_that_take_a_day_ask_for_a_gpu() -> None:
    for name, experiment in PAPER["experiments"].items():
        if max(run["minutes"] for run in experiment["runs"]) > 400:
            assert experiment["resources"] == {"gpu": 1, "mem_mb": 32000}, name
        else:
            assert "resources" not in experiment, f"{name} needs no GPU"
