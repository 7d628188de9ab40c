"""The contract of a text notebook: parameters that papermill can set, headings a reader can jump to, nothing executed.

That every notebook runs is the pipeline's test: test_book.py looks at what the smoke profile made of them.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jupytext.cli
import nbformat
import pytest
import yaml
from papermill.inspection import _infer_parameters
from pipelines import ROOT

from pipeline import list_runs, profile

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.md"))
CHAPTERS = [path for path in NOTEBOOKS if path.stem[0].isdigit()]
METHODS = [path for path in CHAPTERS if path.stem[:2] not in ("00", "02", "08", "09") and not path.stem.startswith("9")]
HEADINGS = [  # of a chapter about a method, in this order
    "What the paper says",
    "Data",
    "Model",
    "Train",
    "Evaluate",
    "Compare with the paper",
    "Ablation",
    "Take-away",
    "Limitations and differences",
    "Exercises",
]
MACHINE_PATHS = re.compile(r"(?<![\w.])/(home|root|Users|work|tmp|mnt|opt|scratch)/[\w-]|[A-Z]:\\\\?Users")

named = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in jupytext.read(path).cells if cell.cell_type == kind]


def parameters(path: Path) -> dict[str, Any]:
    """The values of the parameters cell, which holds plain assignments, with types or without, and nothing else."""
    (cell,) = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    values = {}
    for statement in ast.parse(cell.source).body:
        line = f"line {statement.lineno} of the parameters is no plain assignment"
        assert isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None, line
        (target,) = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        assert isinstance(target, ast.Name)
        values[target.id] = ast.literal_eval(statement.value)
    return values


def test_there_are_notebooks_of_both_kinds() -> None:
    assert CHAPTERS and [path for path in NOTEBOOKS if path.stem.startswith("train_")]
    assert all(path in CHAPTERS or path.stem.startswith(("train_", "evaluate_")) for path in NOTEBOOKS)


@named
def test_parameters_are_plain_values(path: Path) -> None:
    values = parameters(path)
    assert "profile" in values
    parts = list(values.values())
    while any(isinstance(part, list) for part in parts):
        parts = [one for part in parts for one in (part if isinstance(part, list) else [part])]
    assert all(isinstance(part, str | int | float | bool) for part in parts), "plain values or lists of them"


@named
def test_each_parameter_says_its_unit_or_reason(path: Path) -> None:
    (cell,) = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    bare = [line for line in cell.source.splitlines() if re.match(r"\w+(: [\w\[\]]+)? = ", line) and "  # " not in line]
    assert bare == []


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path not in CHAPTERS], ids=lambda path: path.stem)
def test_papermill_s_help_knows_type_and_meaning_of_every_parameter(path: Path) -> None:
    notebook = jupytext.read(path)
    for cell in notebook.cells:
        cell.metadata.setdefault("tags", [])
    shown = {one.name: one for one in _infer_parameters(notebook)}
    values = parameters(path)
    assert list(shown) == list(values)
    for name, value in values.items():
        assert shown[name].inferred_type_name.split("[")[0] == type(value).__name__, name
        assert len(shown[name].help) > 3, name


def test_the_documented_command_shows_the_help_of_a_notebook() -> None:
    (line,) = re.findall(r"^jupytext .*--help-notebook.*$", (ROOT / "book" / "start.md").read_text(), re.MULTILINE)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(line, shell=True, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"  learning_rate: float \(default 8e-3\)\n +peak", done.stdout), done.stdout
    assert "Unknown type" not in done.stdout


@named
def test_the_kernel_is_the_one_of_the_environment(path: Path) -> None:
    assert jupytext.read(path).metadata["kernelspec"]["name"] == "python3"
    assert jupytext.read(path).metadata["jupytext"]["text_representation"]["format_name"] == "myst"


HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---
"""


@named
def test_the_header_is_as_jupyter_writes_it(path: Path) -> None:
    assert path.read_text().startswith(HEADER)


def test_saving_in_jupyterlab_keeps_outputs_in_a_copy_and_leaves_the_text_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    text = HEADER + "\n# A\n\n```{code-cell} ipython3\n1 + 1\n```\n"
    path = tmp_path / "notebooks" / "a.md"
    path.write_text(text)
    shutil.copy(ROOT / "jupytext.toml", tmp_path)
    command = [sys.executable, "-m", "jupytext", "--quiet", "--sync", str(path)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert path.read_text() == text
    assert (tmp_path / "build" / "lab" / "a.ipynb").is_file()


@named
def test_no_path_of_one_machine(path: Path) -> None:
    found = [line for line in path.read_text().splitlines() if MACHINE_PATHS.search(line.replace("/path/to/", ""))]
    assert found == []


@named
def test_the_text_survives_the_way_to_ipynb_and_back(path: Path) -> None:
    assert jupytext.cli.jupytext(["--quiet", "--to", "ipynb", "--test", str(path)]) == 0  # notebooks that differ


@named
def test_the_first_line_of_text_is_the_title(path: Path) -> None:
    first = cells(path, "markdown")[0].source
    assert re.match(r"# \S", first)
    titles = [line for cell in cells(path, "markdown") for line in cell.source.splitlines() if line.startswith("# ")]
    assert len(titles) == 1


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_chapter_about_a_method_has_the_headings_of_every_other(path: Path) -> None:
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    found = re.findall(r"^## (.*?)\s*$", text, flags=re.MULTILINE)
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS
    assert re.search(r"\*\*Claim", text), "the claim stands at the top"


def test_every_chapter_is_in_the_table_of_contents() -> None:
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert sorted(file for file in files if file.startswith("chapters/")) == [f"chapters/{p.stem}" for p in CHAPTERS]
    pages = {toc["root"], *(file for file in files if not file.startswith("chapters/"))}
    assert pages == {path.stem for path in (ROOT / "book").glob("*.md")}


def test_the_pipeline_sets_no_parameter_that_a_training_notebook_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN", "1")
    for name in ("smoke", "quick", "book", "full"):
        for experiment, asked in profile(name)["experiments"].items():
            known = parameters(ROOT / "notebooks" / f"{asked['notebook']}.md")
            for given in list_runs(name, experiment).values():
                assert set(given) <= set(known)


def solutions(path: Path) -> list[str]:
    """The code in the folded solutions of a chapter's exercises."""
    text = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    folded = re.findall(r"^ *```\{dropdown\} Solution\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    blocks = [re.findall(r"(?:^    .*\n|^\n)+", textwrap.dedent(one), flags=re.MULTILINE) for one in folded]
    return [code for found in blocks for block in found if (code := textwrap.dedent(block).strip())]


@pytest.mark.parametrize("path", [path for path in CHAPTERS if solutions(path)], ids=lambda path: path.stem)
def test_solutions_of_exercises_run_after_the_imports_of_their_chapter(path: Path) -> None:
    tree = ast.parse("\n".join(re.sub(r"(?m)^[%!].*$", "", cell.source) for cell in cells(path, "code")))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), path.name, "exec"), namespace)
    for code in solutions(path):
        exec(compile(code, f"a solution of {path.name}", "exec"), namespace)
