"""The pipeline as tests call it, and a small project of stub notebooks for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline import warm

ROOT = Path(__file__).parents[1]

CALLERS = ("PROFILE", "HTML", "DATA", "IXI", "AVMNIST", "DERM7PT", "RADPATH", "MS", "TCGA")
GIVEN = {"PROFILE": "quick"}
PROFILE = """
data:
  brats: {layout: brats, replaced_by: DATA, phantom: {spacing: 8.0}, split: brats-phantom, train: 1, valid: 0, test: 1}
  ixi: {layout: ixi, replaced_by: IXI, phantom: {spacing: 8.0}, split: ixi-phantom, train: 1, valid: 0, test: 1}
experiments:
  segmentation:
    notebook: train_segmentation
    data: brats
    common: {steps: 3, device: auto}
    runs:
      - {method: shaspec, variants: [paper], seeds: [0], minutes: 2}
      - {method: zero-fill, seeds: [0, 1], minutes: 1}
chapters:
  00_phantom:
  01_methods: {experiments: [segmentation]}
"""

HEAD = """---
jupytext:
  text_representation: {extension: .md, format_name: myst, format_version: 0.13}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A notebook

"""

TRAINING = (
    HEAD
    + """```{code-cell} ipython3
:tags: [parameters]

method, variant, seed, steps, device = "", "standard", 0, 0, "auto"
data = split = teacher = profile = experiment = results = ""
cases_train, cases_test, force = 0, 0, False
```

```{code-cell} ipython3
import pandas as pd
from ipykernel.connect import get_connection_info

from mmlib.modalities import MRI
from pipeline import open_run, project_root

run = open_run(globals(), "train_segmentation", data=project_root() / data)
if (project_root() / f"{run.folder.name}.broken").exists():
    raise RuntimeError("told to fail")
if not run.reuse:
    run.begin()
    transport = get_connection_info(unpack=True)["transport"]
    scores = pd.DataFrame([["a", "t1", "wt", "dice", 1.0]], columns=["case", "available", "target", "metric", "value"])
    run.save(
        pd.DataFrame(), scores, seconds={}, parameter_count=0, availability_sampler="fixed", exposure={},
        transport=transport,
    )
```
"""
)

CHAPTER = (
    HEAD
    + """```{code-cell} ipython3
:tags: [parameters]

profile = "quick"
```

```{code-cell} ipython3
from mmlib.data.phantoms.brain import make_subject

print(profile)
```
"""
)


def serve() -> None:
    """Have a server for what is called from here: Python that has loaded what the pipeline loads, but for itself."""
    warm.start("snakemake.cli")


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call `python -m ARGUMENTS` in a folder, by way of the server."""
    serve()
    command = [sys.executable, "-S", "-E", warm.__file__, "-m", *arguments]
    given = {**os.environ, warm.THREADS: "1", **environment}
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True)


def caller() -> dict[str, str]:
    """The environment in which the pipeline is called; no setting of the caller's shell reaches it."""
    return {name: value for name, value in os.environ.items() if name not in CALLERS} | GIVEN


def snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call the pipeline of a project as the Makefile does; but UMAP of a few rows is made sooner than compiled.

    Not for the tests themselves: where nothing compiles, librosa does not read recordings.
    """
    serve()
    command = [sys.executable, "-S", "-E", warm.__file__, "-m", "pipeline", "book"]
    return subprocess.run(
        [*command, "--cores", str(os.cpu_count() or 1), *arguments],
        cwd=folder,
        env={**caller(), warm.THREADS: "1", "NUMBA_DISABLE_JIT": "1", **environment},
        capture_output=True,
        text=True,
    )


MAKE_RECORDS = """
import sys
import pandas as pd
from pipeline import list_runs, open_run
scores = pd.DataFrame([["a", "t1", "wt", "dice", 1.0]], columns=["case", "available", "target", "metric", "value"])
for place in sys.argv[1:]:
    experiment, name = place.split("/")
    given = list_runs("quick", experiment)[name]
    cell = {"variant": "standard", "teacher": "", "force": True, **given}
    run = open_run(cell, "train_segmentation", data="none")
    run.begin()
    run.save(pd.DataFrame(), scores, seconds={}, parameter_count=0, availability_sampler="fixed", exposure={})
"""


def write_records(folder: Path, *places: str) -> None:
    """Write the records of runs (`<experiment>/<run>` of the profile quick) as if their notebooks had run just now."""
    (folder / "make_records.py").write_text(MAKE_RECORDS)
    made = python(folder, "make_records", *places)
    assert made.returncode == 0, made.stderr


def what_failed(folder: Path, done: subprocess.CompletedProcess[str]) -> str:
    """How a pipeline ended, and at the end, where a cut report still shows it, the logs of the jobs that failed."""
    said = done.stdout + done.stderr
    logs = dict.fromkeys(re.findall(r"^ +log: (\S+) \(check log file", said, flags=re.MULTILINE))
    ends = [f"--- {log}\n{(folder / log).read_text()[-1500:]}" for log in logs if (folder / log).exists()]
    return "\n".join([said[-3000:], *ends])


def write_small_project(folder: Path) -> None:
    """A project with the real Snakefile, pipeline and mmlib, and with notebooks that train nothing."""
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("mmlib", "pipeline", "book"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "_config.yml").touch()
    (folder / "profiles").mkdir()
    (folder / "notebooks").mkdir()
    (folder / "profiles" / "quick.yaml").write_text(PROFILE)
    (folder / "notebooks" / "train_segmentation.md").write_text(TRAINING)
    for chapter in ("00_phantom", "01_methods"):
        (folder / "notebooks" / f"{chapter}.md").write_text(CHAPTER)


def name_cases(folder: Path, count: int, lacking: dict[int, tuple[str, ...]] | None = None) -> None:
    """Cases in the layout of BraTS by their names alone: empty files.

    Args:
        lacking: number of a case -> the files that it has not.
    """
    for number in range(count):
        name = f"case-{number:02d}"
        (folder / name).mkdir(parents=True)
        for kind in {"t1", "t1ce", "t2", "flair", "seg"}.difference((lacking or {}).get(number, ())):
            (folder / name / f"{name}_{kind}.nii.gz").touch()
