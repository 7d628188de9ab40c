"""The pipeline: what is made anew after a change, what a failure leaves behind, and that a second call runs nothing."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import psutil
import pytest
from pipelines import (
    CALLERS,
    HEAD,
    ROOT,
    caller,
    name_cases,
    python,
    snakemake,
    what_failed,
    write_records,
    write_small_project,
)

from mmlib import records
from mmlib.data import derm7pt, radpath
from mmlib.data.brats import BratsFolder
from mmlib.data.phantoms.brain import make_subject, write_brats, write_ixi
from mmlib.data.phantoms.options import read_options
from mmlib.modalities import SAMPLERS
from mmlib.training import OPTIMIZERS
from pipeline import check_parameters, checks, data_folder, frame, list_runs, lock, make, profile, profiles, store, warm
from pipeline.sources import _bare_code, book_files, code_fingerprint, parameters_of, sources
from pipeline.sources import _code as notebook_code

RESULTS = Path("build/results/quick/segmentation")


def planned(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The jobs of a dry run, by the messages of their rules."""
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^ *Job \d+: (.*)$", done.stdout + done.stderr, flags=re.MULTILINE))


@pytest.fixture
def small_project(tmp_path: Path) -> Path:
    """A project whose notebooks train nothing."""
    write_small_project(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project in which everything counts as made."""
    folder = tmp_path_factory.mktemp("template") / "project"
    folder.mkdir()
    write_small_project(folder)
    made = [f"build/notebooks/quick/{name}.ipynb" for name in ("00_phantom", "01_methods")]
    made += ["build/data/quick/brats.json", "build/data/quick/ixi.json", "build/html/index.html"]
    for name in made:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    write_records(folder, *(f"segmentation/{name}" for name in ("shaspec-paper-s0", "zero-fill-s0", "zero-fill-s1")))
    done = snakemake(folder, "--touch")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def finished(template: Path, tmp_path: Path) -> Path:
    """A copy of the template, to be changed."""
    return shutil.copytree(template, tmp_path / "project")


def test_without_a_change_nothing_runs(finished: Path) -> None:
    assert planned(snakemake(finished, "--dry-run")) == set()


def edit(path: Path) -> None:
    """Change what a file does: a module's code, or a text."""
    path.write_text(path.read_text() + "\nCHANGED = True\n")


def test_a_comment_or_a_docstring_outdates_no_run(finished: Path) -> None:
    module = finished / "mmlib" / "methods" / "shaspec" / "segmentation.py"
    module.write_text(module.read_text().replace('"""', '"""Reworded. ', 1) + "\n# a comment\n")
    assert not [job for job in planned(snakemake(finished, "--dry-run")) if job.startswith("run: ")]


def test_a_notebook_saved_in_jupyterlab_outdates_no_run(finished: Path) -> None:
    notebook = finished / "notebooks" / "train_segmentation.md"
    notebook.write_text(notebook.read_text().replace("format_version: 0.13", "format_version: 0.14"))
    assert not [job for job in planned(snakemake(finished, "--dry-run")) if job.startswith("run: ")]
    notebook.write_text(notebook.read_text().replace("    run.begin()", "    print()\n    run.begin()"))
    assert len([job for job in planned(snakemake(finished, "--dry-run")) if job.startswith("run: ")]) == 3


def test_a_record_that_was_edited_is_made_anew(finished: Path) -> None:
    record = finished / RESULTS / "zero-fill-s1" / "record.json"
    record.write_text(record.read_text().replace('"steps": 3', '"steps": 4'))
    assert "run: segmentation zero-fill-s1" in planned(snakemake(finished, "--dry-run"))


def test_a_change_to_a_method_reruns_the_runs_of_that_method_and_their_chapters(finished: Path) -> None:
    edit(finished / "mmlib" / "methods" / "shaspec" / "segmentation.py")
    jobs = planned(snakemake(finished, "--dry-run"))
    assert jobs == {"run: segmentation shaspec-paper-s0", "chapter: 01_methods", "book: build/html"}


def test_a_change_to_what_all_import_reruns_all(finished: Path) -> None:
    edit(finished / "mmlib" / "modalities.py")
    jobs = planned(snakemake(finished, "--dry-run"))
    assert {"data: brats", "chapter: 00_phantom", "chapter: 01_methods"} <= jobs
    assert len([job for job in jobs if job.startswith("run: ")]) == 3
    asked = finished / "build" / "logs" / "quick" / "asked" / "segmentation-zero-fill-s1"
    before = asked.read_text()
    snakemake(finished, "--dry-run")
    assert before.startswith("code changed") and asked.read_text() != before, (
        "what holds the same, Snakemake passes over"
    )


def test_a_change_to_a_chapter_reruns_that_chapter(finished: Path) -> None:
    edit(finished / "notebooks" / "00_phantom.md")
    assert planned(snakemake(finished, "--dry-run")) == {"chapter: 00_phantom", "book: build/html"}


def test_a_change_to_a_layout_or_a_split_remakes_its_data(finished: Path) -> None:
    edit(finished / "mmlib" / "data" / "ixi.py")
    assert planned(snakemake(finished, "--dry-run")) == {"data: ixi", "book: build/html"}
    edit(finished / "mmlib" / "data" / "splits" / "brats-phantom.csv")
    assert {"data: ixi", "data: brats"} <= planned(snakemake(finished, "--dry-run"))


def test_a_run_is_made_anew_with_the_networks_it_takes(finished: Path) -> None:
    settings = finished / "profiles" / "quick.yaml"
    run = "{method: zero-fill, seeds: [5], minutes: 1}"
    later = "  later:\n    notebook: train_segmentation\n    data: brats\n    needs: [segmentation]\n"
    later += f"    common: {{steps: 3, device: auto}}\n    runs:\n      - {run}\n"
    settings.write_text(settings.read_text().replace("chapters:", later + "chapters:"))
    write_records(finished, "later/zero-fill-s5")
    assert snakemake(finished, "--touch").returncode == 0
    assert planned(snakemake(finished, "--dry-run")) == set()
    edit(finished / "mmlib" / "methods" / "shaspec" / "segmentation.py")
    assert {"run: segmentation shaspec-paper-s0", "run: later zero-fill-s5"} <= planned(
        snakemake(finished, "--dry-run")
    )


@pytest.mark.parametrize("name", ["smoke", "quick", "book", "full"])
def test_networks_are_taken_from_experiments_of_the_profile(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TRAIN", "1")
    experiments = profile(name)["experiments"]
    assert all(needed in experiments for asked in experiments.values() for needed in asked.get("needs", []))


def test_a_record_that_was_deleted_is_made_again(finished: Path) -> None:
    (finished / RESULTS / "zero-fill-s1" / "record.json").unlink()
    assert "run: segmentation zero-fill-s1" in planned(snakemake(finished, "--dry-run"))


def test_a_change_to_a_page_rebuilds_the_book_alone(finished: Path) -> None:
    edit(finished / "book" / "index.md")
    assert planned(snakemake(finished, "--dry-run")) == {"book: build/html"}


TAUGHT = """\
      - {method: dropout-unet, variants: [standard, half], seeds: [0], minutes: 1}
      - {method: u-hved, teacher: "dropout-unet-s{seed}", seeds: [0], minutes: 2}
"""


def test_a_student_depends_on_the_record_of_its_teacher(small_project: Path) -> None:
    settings = small_project / "profiles" / "quick.yaml"
    before, chapters = settings.read_text().split("chapters:\n")
    settings.write_text(re.sub(r"(?<=runs:\n)(      - .*\n)+", TAUGHT, before) + "chapters: {}\n")
    teacher, student, other = (
        small_project / RESULTS / f"{name}-s0" / "record.json"
        for name in ("dropout-unet", "u-hved", "dropout-unet-half")
    )
    only_the_student = planned(snakemake(small_project, "--dry-run", str(student.relative_to(small_project))))
    taught = {"run: segmentation dropout-unet-s0", "run: segmentation u-hved-s0"}
    assert only_the_student == {*taught, "data: brats"}, "its own teacher comes first, and no other"

    data = small_project / "build/data/quick/brats.json"
    targets = [str(path.relative_to(small_project)) for path in (teacher, student, other)]
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text("{}")
    write_records(
        small_project, *(f"segmentation/{name}-s0" for name in ("dropout-unet", "u-hved", "dropout-unet-half"))
    )
    assert snakemake(small_project, "--touch", *targets).returncode == 0
    write_records(small_project, "segmentation/dropout-unet-half-s0")
    assert planned(snakemake(small_project, "--dry-run", *targets)) == set()
    write_records(small_project, "segmentation/dropout-unet-s0")
    assert planned(snakemake(small_project, "--dry-run", *targets)) == {"run: segmentation u-hved-s0"}


@pytest.mark.pipeline
def test_a_failed_run_keeps_its_notebook_and_the_next_call_takes_up_what_is_left(small_project: Path) -> None:
    targets = [f"{RESULTS}/{name}/record.json" for name in ("shaspec-paper-s0", "zero-fill-s0", "zero-fill-s1")]
    (small_project / "zero-fill-s0.broken").touch()
    done = snakemake(small_project, *targets)
    assert done.returncode != 0
    assert "told to fail" in what_failed(small_project, done)[-1500:], "a report ends with the cause"
    records = [(small_project / target).exists() for target in targets]
    assert records == [True, False, True], "the others go on"
    assert json.loads((small_project / targets[0]).read_text())["transport"] == "ipc", "kernels compete for no TCP port"
    left = small_project / RESULTS / "zero-fill-s0"
    assert "told to fail" in (left / "train_segmentation.ipynb").read_text()
    assert "told to fail" in (left / "run.log").read_text()

    (small_project / "zero-fill-s0.broken").unlink()
    locks = small_project / ".snakemake" / "locks"  # as a power cut leaves them
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text(f"{targets[1]}\n")
    assert planned(snakemake(small_project, "--dry-run", *targets)) == {"run: segmentation zero-fill-s0"}
    assert snakemake(small_project, *targets).returncode == 0
    (small_project / "mmlib" / "modalities.py").touch()
    again = snakemake(small_project, *targets)
    assert "Nothing to be done" in again.stdout + again.stderr, "a new date is no change"

    settings = small_project / "profiles" / "quick.yaml"
    settings.write_text(settings.read_text().replace("seeds: [0], minutes: 2", "seeds: [0], steps: 4, minutes: 2"))
    jobs = planned(snakemake(small_project, "--dry-run", *targets))
    assert jobs == {"run: segmentation shaspec-paper-s0"}, "other parameters, another run"


@pytest.mark.pipeline
def test_a_chapter_opened_alone_makes_the_records_it_lacks(small_project: Path) -> None:
    notebooks = small_project / "notebooks"
    (notebooks / "opened.py").write_text("from pipeline import require_runs; require_runs('quick', 'segmentation')")
    first = python(notebooks, "opened")
    assert first.returncode == 0, first.stderr
    assert "zero-fill-s1: there is no record" in first.stdout and "3 runs are made" in first.stdout
    record = small_project / RESULTS / "zero-fill-s1" / "record.json"
    made = json.loads(record.read_text())["parameters"]
    assert (made["method"], made["seed"], made["steps"]) == ("zero-fill", 1, 3)
    second = python(notebooks, "opened")
    assert second.returncode == 0 and not second.stdout, "all are current"
    record.unlink()
    (small_project / "zero-fill-s1.broken").touch()
    third = python(notebooks, "opened")
    assert third.returncode != 0
    assert "the executed notebooks show why" in third.stderr and "zero-fill-s1" in third.stderr


def test_a_chapter_of_the_pipeline_does_not_start_another(monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    monkeypatch.setenv(make.IN_PIPELINE, "1")
    edit(finished / "mmlib" / "modalities.py")
    call = "from pipeline import require_runs; require_runs('quick', 'segmentation')"
    done = subprocess.run([sys.executable, "-c", call], cwd=finished, capture_output=True, text=True)
    assert "code or data changed while the pipeline ran, see above; call it again" in done.stderr
    assert "segmentation/zero-fill-s1: code changed" in done.stdout


def test_sources_are_what_a_notebook_imports() -> None:
    shared = sources("notebooks/train_segmentation.md")
    assert Path("mmlib/modalities.py") in shared
    assert not [path for path in shared if path.parent.name == "methods" and path.name != "__init__.py"]
    with_method = sources("notebooks/train_segmentation.md", "mmlib.methods.shaspec")
    assert Path("mmlib/methods/shaspec/segmentation.py") in with_method
    assert Path("mmlib/methods/baselines.py") not in with_method
    assert set(shared) < set(with_method)


def test_files_of_the_book_that_a_chapter_reads_are_known() -> None:
    assert book_files("notebooks/90_claims.md") == [Path("book/claims.yml")]
    assert Path("book/published/shaspec_table4.csv") in book_files("notebooks/04_shaspec_studies.md")
    for chapter in (ROOT / "notebooks").glob("[0-9]*.md"):
        for path in book_files(chapter):
            assert (ROOT / path).is_file(), f"{chapter.name} reads {path}"


@pytest.mark.parametrize("name", ["smoke", "quick", "book", "full"])
def test_every_run_of_a_profile_has_its_own_name_and_parameters(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TRAIN", "1")
    settings = profile(name)
    assert list(settings["chapters"]) == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.md"))
    for experiment, asked in settings["experiments"].items():
        listed = list_runs(name, experiment)
        together = asked.get("one_run_per_entry")  # one run for all members of a group
        sizes = [1 if together else len(group.get("variants", [1])) * len(group["seeds"]) for group in asked["runs"]]
        settings_of = [np.prod([len(values) for values in group.get("grid", {}).values()]) for group in asked["runs"]]
        assert len(listed) == np.dot(sizes, settings_of)
        for parameters in listed.values():
            assert all(isinstance(value, str | int | float | list) for value in parameters.values())
            if parameters.get("layout") in ("latents", "tcga"):
                assert len(parameters["seeds"]) > 1, "chapter 07 has intervals over repeats, one number each"


def test_a_grid_is_a_run_for_every_combination_of_its_values_in_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRAIN", "1")
    listed = list_runs("book", "tuning")
    tried = {name: one for name, one in listed.items() if one["method"] == "shaspec"}
    assert all(one["run"] == name for name, one in tried.items())
    assert {(one["learning_rate"], one["weight_decay"]) for one in tried.values()} == set(
        itertools.product([4e-3, 8e-3, 1.6e-2], [1e-4, 5e-2])
    )
    assert "shaspec-paper-s100-learning_rate=0.004-weight_decay=0.05" in tried


@pytest.mark.parametrize(
    "experiment", ["tuning", "tuning-distillation", "tuning-synthesis", "tuning-digits", "tuning-guidance"]
)
def test_every_method_has_the_same_settings_to_choose_from(monkeypatch: pytest.MonkeyPatch, experiment: str) -> None:
    monkeypatch.setenv("TRAIN", "1")
    asked = profile("book")["experiments"][experiment]["runs"]
    grids = [group["grid"] for group in asked if group["method"] != "teacher"]
    assert all(grid == grids[0] for grid in grids)
    assert np.prod([len(values) for values in grids[0].values()]) >= 6
    assert all(group["seeds"] == [100] for group in asked), "a seed that no result has"


def test_names_of_runs() -> None:
    names = list(list_runs("smoke", "segmentation"))
    assert {"shaspec-paper-s0", "zero-fill-s0", "dedicated-t1ce-s0"} <= set(names)


@pytest.mark.parametrize("name", ["smoke", "quick", "book", "full"])
def test_a_teacher_has_the_seed_of_its_students_and_is_a_run_itself(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TRAIN", "1")
    listed = list_runs(name, "distillation")
    assert listed["protokd-s0"]["teacher"] == "teacher-s0" and "teacher" not in listed["teacher-s0"]
    for run, parameters in listed.items():
        if "teacher" in parameters:
            assert parameters["teacher"].endswith(f"-s{parameters['seed']}"), run
            assert "teacher" not in listed[parameters["teacher"]], "it is not taught itself"


def test_a_run_with_other_parameters_is_not_overwritten(monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    for module in (profiles, frame, make):
        monkeypatch.setattr(module, "project_root", lambda: finished)
    monkeypatch.setattr("pipeline.sources.project_root", lambda: finished)
    given = {**list_runs("quick", "segmentation")["zero-fill-s1"], "teacher": "", "force": False}
    kept = frame.open_run(given, "train_segmentation", data="none")
    assert kept.reuse, kept.stale
    with pytest.raises(ValueError, match="steps is 3 there, 5 here.*-p experiment NAME.*-p force True"):
        frame.open_run({**given, "steps": 5}, "train_segmentation", data="none")
    assert frame.open_run({**given, "steps": 5, "force": True}, "train_segmentation", data="none").stale
    other = frame.open_run({**given, "steps": 5, "experiment": "trial"}, "train_segmentation", data="none")
    assert other.stale == "there is no record"
    assert frame.open_run(given, "train_segmentation", data="other").stale == "data changed"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[te][rv]a*.md")), ids=lambda path: path.stem)
def test_every_parameter_of_a_run_is_in_its_record(path: Path) -> None:
    """The frame takes the parameters cell as it is, so no name can be forgotten."""
    calls = [node for node in ast.walk(ast.parse(notebook_code(path))) if isinstance(node, ast.Call)]
    (opened,) = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "open_run"]
    cell, name = opened.args
    assert ast.unparse(cell) == "globals()" and ast.literal_eval(name) == path.stem
    assert {"profile", "experiment", "results", "force"} <= set(parameters_of(path.stem))


def test_code_counts_and_words_do_not(monkeypatch: pytest.MonkeyPatch, small_project: Path) -> None:
    monkeypatch.setattr("pipeline.sources.project_root", lambda: small_project)
    before = code_fingerprint("train_segmentation", "mmlib.methods.kdnet")
    module = small_project / "mmlib" / "methods" / "kdnet.py"
    module.write_text(module.read_text().replace("-> Teaching:", "-> object:") + "\n# words\n")
    assert code_fingerprint("train_segmentation", "mmlib.methods.kdnet") == before, "annotations and comments"
    module.write_text(module.read_text() + "\nNUMBER = 2\n")
    after = code_fingerprint("train_segmentation", "mmlib.methods.kdnet")
    assert after != before and code_fingerprint("train_segmentation", "mmlib.methods.pmkl") != after


def test_the_hash_of_code_is_the_same_in_every_version_of_python(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import math as m\nclass A(list):\n    pass\n"
        + "def f(a, /, b=1, *c, d: int = 2, **e) -> str:\n    'words'\n    x: int = 3\n    return f'{a!r:>{b}} {x=}'\n"
        + "async def g():\n    try:\n        return [await y async for y in z]\n    except* OSError:\n        pass\n"
        + "match f:\n    case {'a': 1, **rest} | [1, *_]:\n        h = lambda: (yield)\n"
    )
    assert _bare_code(path, 0)[:16] == "24ab5c91eff11671"


def test_own_data_take_the_place_of_the_phantom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name_cases(tmp_path, 30)
    monkeypatch.setenv("DATA", str(tmp_path))
    assert profiles.results_profile("quick") == "quick-own"
    assert profiles.results_profile("paper") == "paper"
    parameters = next(iter(list_runs("quick-own", "segmentation").values()))
    assert parameters["data"] == str(tmp_path)
    assert parameters["split"] == "build/data/quick-own/brats.csv"
    assert parameters["cases_train"] == 0, "all"
    assert next(iter(list_runs("quick", "segmentation").values()))["data"] == "build/data/quick/brats"
    left = list_runs("quick-own", "distillation-maps"), profile("quick-own")["experiments"].keys()
    assert left[0] and "hallucination-0" not in left[1], "nobody knows what of the reader's cases can be known"
    assert {"hallucination-100", "hallucination-100-images"} <= left[1], "phantoms without a folder in their place stay"


def test_without_a_name_the_published_profile_is_shown_and_the_reader_s_data_are_trained_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PROFILE", "DATA", "IXI", "AVMNIST", "DERM7PT", "RADPATH", "MS", "TCGA"):
        monkeypatch.delenv(name, raising=False)
    assert profiles.asked_profile() == "book"
    monkeypatch.setenv("TCGA", str(tmp_path))
    assert profiles.asked_profile() == "book", "a section more, nothing in the place of phantoms"
    monkeypatch.setenv("DATA", str(tmp_path))
    assert profiles.asked_profile() == "quick"
    monkeypatch.setenv("PROFILE", "full")
    assert profiles.asked_profile() == "full"


OPTIONAL = """
data:
  ms: {layout: ms, replaced_by: MS, optional: true, folds: 3}
experiments:
  patients:
    notebook: train_segmentation
    data: ms
    common: {layout: ms, steps: 3}
    runs:
      - {method: zero-fill, seeds: [0, 1], minutes: 1}
chapters:
  08_real_patients: {experiments: [patients]}
"""


@pytest.fixture
def with_patients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A project with a profile of optional data, and nothing else."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "tiny.yaml").write_text(OPTIONAL)
    for module in (profiles, make):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.delenv("MS", raising=False)
    return tmp_path


def test_optional_data_that_are_not_given_are_left_out_with_what_needs_them(with_patients: Path) -> None:
    settings = profile("tiny")
    assert settings["left_out"] == {"patients": "MS"}
    assert settings["data"] == {} and settings["experiments"] == {}
    assert settings["chapters"] == {"08_real_patients": {"experiments": []}}


def test_optional_data_that_are_given_make_a_run_for_each_fold(
    monkeypatch: pytest.MonkeyPatch, with_patients: Path
) -> None:
    folder = with_patients / "open_ms"
    for number in (1, 2, 3):
        (folder / f"patient0{number}").mkdir(parents=True)
        (folder / f"patient0{number}" / "T1_x.nii.gz").touch()
    monkeypatch.setenv("MS", str(folder))
    assert profiles.results_profile("tiny") == "tiny", "no stand-in is replaced, so the other runs stay"
    listed = list_runs("tiny", "patients")
    assert sorted(listed) == [f"zero-fill-s{seed}-fold{fold}" for seed in (0, 1) for fold in (1, 2, 3)]
    run = listed["zero-fill-s1-fold2"]
    assert (run["data"], run["fold"], run["seed"]) == (str(folder), 2, 1)
    assert run["split"] == "build/data/tiny/ms-fold2.csv"
    make.make_data("tiny", "ms")
    tested = [
        line.split(",")[0]
        for fold in (1, 2, 3)
        for line in (with_patients / f"build/data/tiny/ms-fold{fold}.csv").read_text().splitlines()
        if line.endswith(",test")
    ]
    assert sorted(tested) == ["patient01", "patient02", "patient03"]
    assert json.loads((with_patients / "build/data/tiny/ms.json").read_text())["stand_in"] is False


def test_optional_data_given_wrongly_are_an_error(monkeypatch: pytest.MonkeyPatch, with_patients: Path) -> None:
    monkeypatch.setenv("MS", "/no/such/folder")
    with pytest.raises(ValueError, match="'/no/such/folder', which is no folder: make book PROFILE=tiny MS=folder"):
        profile("tiny")


def test_a_folder_too_small_to_test_on_is_refused(monkeypatch: pytest.MonkeyPatch, small_project: Path) -> None:
    folder = small_project / "mine"
    write_brats(folder, [1, 2], spacing=8.0)
    command = ["pipeline", "data", "quick-own", "brats"]
    monkeypatch.setenv("DATA", str(folder))
    refused = python(small_project, *command)
    assert refused.returncode != 0
    assert (
        "mine: 2 cases, 2 complete (t1, t1ce, t2, flair and a segmentation), of 2 subjects: training" in refused.stderr
    )
    write_brats(folder, [1, 2, 3], spacing=8.0)
    assert python(small_project, *command).returncode == 0
    made = small_project / "build" / "data" / "quick-own"
    for fold in (1, 2, 3):
        split = (made / f"brats-fold{fold}.csv").read_text().splitlines()
        assert sorted(line.rsplit(",", 1)[1] for line in split) == ["part", "test", "train", "train"]
    assert json.loads((made / "brats.json").read_text())["settings"]["folds"] == 3


def test_ixi_is_a_phantom_or_the_folder_of_the_reader(monkeypatch: pytest.MonkeyPatch, small_project: Path) -> None:
    monkeypatch.delenv("DATA", raising=False)
    monkeypatch.delenv("IXI", raising=False)
    assert python(small_project, "pipeline", "data", "quick", "ixi").returncode == 0
    made = sorted(path.name for path in (small_project / "build/data/quick/ixi").rglob("*.nii.gz"))
    names = ("IXI0000-Phantom-0000", "IXI0120-Phantom-0120")  # the first of training and of test
    assert made == sorted(f"{name}-{modality}.nii.gz" for name in names for modality in ("T1", "T2", "PD"))
    assert json.loads((small_project / "build/data/quick/ixi.json").read_text())["settings"]["split"] == "ixi-phantom"

    folder = small_project / "mine"
    write_ixi(folder, [1, 2, 3], spacing=8.0)
    monkeypatch.setenv("IXI", str(folder))
    assert python(small_project, "pipeline", "data", "quick-own", "ixi").returncode == 0
    split = (small_project / "build/data/quick-own/ixi.csv").read_text().splitlines()
    assert sorted(line.rsplit(",", 1)[1] for line in split) == ["part", "test", "train", "train"]
    assert split[1].split(",")[0].split("-")[0] == split[1].split(",")[1]
    ask = 'import json; from pipeline import profiles; own = profiles.profile("quick-own")["data"];'
    ask += ' print(json.dumps([profiles.results_profile("quick"), own]))'
    done = subprocess.run([sys.executable, "-c", ask], cwd=small_project / "notebooks", capture_output=True, check=True)
    name, data = json.loads(done.stdout)
    assert name == "quick-own" and data["brats"]["split"] == "brats-phantom", "the phantom stays where it is"
    assert data["ixi"] == {"layout": "ixi", "folder": str(folder), "train": 0, "valid": 0, "test": 0}


def test_the_paper_profile_names_the_folder_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA", raising=False)
    with pytest.raises(ValueError, match="profile 'paper' needs a folder of cases in the brats layout; DATA is ''"):
        profile("paper")
    monkeypatch.setenv("DATA", "/no/such/folder")
    with pytest.raises(ValueError, match="'/no/such/folder', which is no folder: make book PROFILE=paper DATA=folder"):
        profile("paper")


def test_digits_of_the_reader_s_leave_the_phantom_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATA", raising=False)
    monkeypatch.setenv("AVMNIST", str(tmp_path))
    assert profiles.results_profile("quick") == "quick-own"
    assert list_runs("quick-own", "avmnist")["shaspec"]["root"] == str(tmp_path)
    own = next(iter(list_runs("quick-own", "segmentation").values()))
    assert own["data"] == "build/data/quick-own/brats" and own["split"] == "brats-phantom"
    monkeypatch.setenv("AVMNIST", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="AVMNIST is .*nowhere', which is no folder"):
        profile("quick-own")


PAIRED = """
data:
  brats: {layout: brats, replaced_by: DATA, phantom: {spacing: 8.0}, split: brats-phantom, train: 1, valid: 0, test: 1}
  derm7pt: {layout: derm7pt, replaced_by: DERM7PT, phantom: {size: 8}, train: 32, valid: 20, test: 20}
  radpath:
    layout: radpath
    replaced_by: RADPATH
    phantom: {modalities: [t1ce], count: 3, size: 8}
    train: 16
    valid: 16
    test: 16
experiments:
  guidance-derm7pt:
    notebook: train_guidance
    one_run_per_entry: true
    data: derm7pt
    common: {steps: 3}
    runs:
      - {method: guidance, seeds: [0, 1], minutes: 1}
chapters:
"""


EXTRA = """  tumours:
    notebook: evaluate_guidance_dial
    one_run_per_entry: true
    data: tcga
    common: {layout: tcga}
    runs:
      - {method: guidance, seeds: [0], minutes: 1}
  drawn:
    notebook: evaluate_guidance_dial
    one_run_per_entry: true
    common: {layout: latents}
    runs:
      - {method: guidance, seeds: [0], minutes: 1}
chapters:
  07_guidance: {experiments: [guidance-derm7pt, tumours, drawn]}
"""


@pytest.fixture
def paired(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A project with a profile of the two data sets of pairs, and nothing else."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "tiny.yaml").write_text(PAIRED)
    for module in (profiles, make):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    for variable in ("DATA", "DERM7PT", "RADPATH"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.mark.filterwarnings("error:.*has no case of")  # parts as small as these hold every class
def test_phantoms_with_a_split_of_their_own_are_written_and_read(paired: Path) -> None:
    lesions = derm7pt.load(data_folder("tiny", "derm7pt"), size=8)
    assert [len(part) for part in (lesions.train, lesions.valid, lesions.test)] == [32, 20, 20]
    gliomas = radpath.load(data_folder("tiny", "radpath"))
    assert [len(part) for part in (gliomas.train, gliomas.valid, gliomas.test)] == [16, 16, 16]
    assert gliomas.test[[0]]["inputs"]["slide"].shape == (1, 3, 3, 8, 8)
    place = paired / "build" / "data" / "tiny"
    assert json.loads((place / "derm7pt.json").read_text())["settings"]["phantom"] == {"size": 8}
    assert not list(place.glob("*.csv")), "the split lies within"
    made = list_runs("tiny", "guidance-derm7pt")["guidance"]
    assert made["root"] == "build/data/tiny/derm7pt" and made["seeds"] == [0, 1] and "split" not in made


def test_where_little_is_opened_little_is_made(paired: Path) -> None:
    few = data_folder("tiny", "radpath", most=12)
    assert not few.with_suffix(".json").exists(), "what was asked for was not made"
    parts = pd.read_csv(few / "split.csv")
    assert parts.value_counts("part").eq(12).all()
    known = parts.merge(pd.read_csv(few / "classes.csv"))
    whole = pd.read_csv(data_folder("tiny", "radpath") / "split.csv")
    assert whole.value_counts("part").eq(16).all()
    found = known.merge(whole.merge(pd.read_csv(few / "classes.csv")))
    assert sorted(found["case"]) == sorted(known["case"]), "the same cases, of the same class"
    again = pd.read_csv(data_folder("tiny", "radpath", most=12) / "split.csv")
    assert again.equals(whole), "what is there stays"


def test_the_options_of_a_phantom_reach_its_maker_and_the_manifest(paired: Path) -> None:
    settings = {"spacing": 8.0, "preset": "realistic", "shared": 0.5}
    file = paired / "profiles" / "tiny.yaml"
    file.write_text(PAIRED.replace("phantom: {spacing: 8.0}", f"phantom: {settings}", 1))
    folder = data_folder("tiny", "brats")
    assert json.loads(folder.with_suffix(".json").read_text())["settings"]["phantom"] == settings
    case = next(iter(BratsFolder(folder).values()))
    made = make_subject(int(case.name.rsplit("-", 1)[1]), 8.0, options=read_options("realistic", shared=0.5))
    assert np.array_equal(case.images["flair"], made.images["flair"])


def test_what_a_phantom_is_made_with_is_said_by_the_profile(monkeypatch: pytest.MonkeyPatch, paired: Path) -> None:
    assert profiles.phantom_of("tiny", "build/data/tiny/derm7pt") == {"size": 8}
    assert profiles.phantom_of("tiny", "build/data/quick/derm7pt") == {}, "of another profile"
    (paired / "photos").mkdir()
    monkeypatch.setenv("DERM7PT", str(paired / "photos"))
    assert profiles.phantom_of("tiny-own", "build/data/tiny-own/derm7pt") == {}, "the reader's"


@pytest.mark.parametrize("harm", ["damaged", "lost", "added", "manifest"])
def test_made_data_that_are_not_what_was_made_are_made_anew(
    monkeypatch: pytest.MonkeyPatch, paired: Path, harm: str
) -> None:
    folder = data_folder("tiny", "radpath")
    manifest = folder.with_suffix(".json")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {
        manifest: manifest.read_bytes()
    }
    written = manifest.stat().st_mtime_ns
    victim = next(path for path in before if path.suffix == ".png")
    if harm == "damaged":
        victim.write_bytes(b"x" + before[victim][1:])
    elif harm == "lost":
        victim.unlink()
    elif harm == "added":
        victim.with_name("900.png").write_bytes(before[victim])
    else:
        manifest.write_bytes(before[manifest][:40])
    monkeypatch.setattr(frame, "project_root", lambda: paired)
    assert frame.case_folder("tiny", "build/data/tiny/radpath") == folder
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {
        manifest: manifest.read_bytes()
    }
    assert after == before
    assert (manifest.stat().st_mtime_ns == written) == (harm != "manifest"), "nothing seems newer than it is"


def test_of_a_phantom_the_cases_that_a_chapter_opens_are_made_and_all_where_a_run_asks(
    monkeypatch: pytest.MonkeyPatch, paired: Path
) -> None:
    monkeypatch.setattr(frame, "project_root", lambda: paired)
    place = "build/data/tiny/brats"
    opened = frame.case_folder("tiny", place, ["phantom-0007"])
    assert list(BratsFolder(opened)) == ["phantom-0007"] and not opened.with_suffix(".json").exists()
    frame.case_folder("tiny", place, ["phantom-0008"])
    assert list(BratsFolder(opened)) == ["phantom-0007", "phantom-0008"]
    assert {"phantom-0007", "phantom-0008"} < set(BratsFolder(frame.case_folder("tiny", place)))
    assert opened.with_suffix(".json").exists()


def test_made_data_are_not_made_twice(monkeypatch: pytest.MonkeyPatch, paired: Path) -> None:
    data_folder("tiny", "radpath")
    monkeypatch.setattr(make, "_make_data", lambda *_: pytest.fail("made again"))
    data_folder("tiny", "radpath")


def test_own_cases_stored_along_different_axes_are_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, paired: Path
) -> None:
    for number, turn in enumerate(([1, 1, 1], [-1, 1, 1], [1, 1, 1])):
        folder = paired / "own" / f"case-{number}"
        folder.mkdir(parents=True)
        image = nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.diag([*turn, 1.0]))
        for part in ("t1", "t1ce", "t2", "flair", "seg"):
            nibabel.save(image, folder / f"case-{number}_{part}.nii.gz")
    monkeypatch.setenv("DATA", str(paired / "own"))
    with pytest.raises(ValueError, match="case case-1 is stored along LAS, case case-0 along RAS"):
        make.make_data("tiny-own", "brats")


def test_own_pairs_leave_the_other_phantoms_where_they_are(monkeypatch: pytest.MonkeyPatch, paired: Path) -> None:
    (paired / "release").mkdir()
    (paired / "release" / "meta.csv").touch()
    monkeypatch.setenv("DERM7PT", str(paired / "release"))
    assert profiles.results_profile("tiny") == "tiny-own"
    data = profile("tiny-own")["data"]
    assert data["derm7pt"] == {"layout": "derm7pt", "folder": str(paired / "release")}
    assert data["radpath"]["phantom"]["count"] == 3 and data["brats"]["split"] == "brats-phantom"
    assert list_runs("tiny-own", "guidance-derm7pt")["guidance"]["root"] == str(paired / "release")
    assert data_folder("tiny-own", "derm7pt") == paired / "release"
    assert (
        json.loads((paired / "build" / "data" / "tiny-own" / "derm7pt.json").read_text())["settings"] == data["derm7pt"]
    )
    monkeypatch.setenv("RADPATH", str(paired / "nowhere"))
    with pytest.raises(ValueError, match="in the radpath layout; RADPATH is .*nowhere', which is no folder"):
        profile("tiny-own")


def test_optional_data_that_no_variable_names_take_their_experiments_with_them(
    monkeypatch: pytest.MonkeyPatch, paired: Path
) -> None:
    text = PAIRED.replace("experiments:\n", "  tcga: {layout: tcga, replaced_by: TCGA, optional: true}\nexperiments:\n")
    text = text.replace("chapters:\n", EXTRA)
    (paired / "profiles" / "tiny.yaml").write_text(text)
    monkeypatch.delenv("TCGA", raising=False)
    assert profiles.experiments_of("tiny", "07_guidance") == ["guidance-derm7pt", "drawn"]
    assert "tcga" not in profile("tiny")["data"] and "tumours" not in profile("tiny")["experiments"]
    (paired / "tables").mkdir()
    monkeypatch.setenv("TCGA", str(paired / "tables"))
    assert profiles.experiments_of("tiny", "07_guidance") == ["guidance-derm7pt", "tumours", "drawn"]
    assert list_runs("tiny", "tumours")["guidance"]["root"] == str(paired / "tables")
    assert profiles.results_profile("tiny") == "tiny", "they are added, nothing is replaced by them"
    monkeypatch.setenv("TCGA", str(paired / "nowhere"))
    with pytest.raises(ValueError, match="in the tcga layout; TCGA is .*nowhere', which is no folder"):
        profile("tiny")


def test_published_runs_on_a_reader_s_folder_are_shown_without_it(
    monkeypatch: pytest.MonkeyPatch, paired: Path
) -> None:
    text = PAIRED.replace("experiments:\n", "  tcga: {layout: tcga, replaced_by: TCGA, optional: true}\nexperiments:\n")
    text = "published_only: true" + text.replace("chapters:\n", EXTRA)
    (paired / "profiles" / "tiny.yaml").write_text(text)
    for variable in ("TCGA", "TRAIN"):
        monkeypatch.delenv(variable, raising=False)
    assert "tumours" not in profile("tiny")["experiments"] and profile("tiny")["left_out"] == {"tumours": "TCGA"}
    tables = paired / "tables"
    tables.mkdir()
    monkeypatch.setenv("TCGA", str(tables))
    monkeypatch.setenv("TRAIN", "1")
    ((name, parameters),) = list_runs("tiny", "tumours").items()
    assert parameters["root"] == str(tables)
    run = records.open_run(paired / "made", "tiny", "tumours", name, parameters)
    run.clear()
    scores = pd.DataFrame([("a", "t1", "wt", "dice", 0.5)], columns=records.SCORE_COLUMNS)
    run.save(pd.DataFrame(), scores, variant="standard", seed="0", **dict.fromkeys(records.FACTS, "-"))
    store.publish(paired / "results", [run.folder], {"day": "today"}, folders={str(tables): "TCGA"})
    store.restore(paired / "results", "tiny", paired / "build" / "results")
    for variable in ("TCGA", "TRAIN"):
        monkeypatch.delenv(variable)
    restored = paired / "build" / "results" / "tiny" / "tumours" / name
    assert str(paired) not in (restored / "record.json").read_text(), "where the folder lay is not told"
    assert profile("tiny")["left_out"] == {} and profiles.experiments_of("tiny", "07_guidance") == ["tumours"]
    ((name, parameters),) = list_runs("tiny", "tumours").items()
    assert parameters["root"] == "TCGA" == records.read_record(restored)["parameters"]["root"]


def test_a_chapter_without_the_data_that_it_is_about_is_a_page_that_says_so(
    monkeypatch: pytest.MonkeyPatch, paired: Path
) -> None:
    text = PAIRED.replace("experiments:\n", "  tcga: {layout: tcga, replaced_by: TCGA, optional: true}\nexperiments:\n")
    text = text.replace("chapters:\n", EXTRA)
    (paired / "profiles" / "tiny.yaml").write_text(text.replace("drawn]}", "drawn], only_with: [drawn, tumours]}"))
    (paired / "notebooks").mkdir()
    (paired / "notebooks" / "07_guidance.md").write_text(HEAD.replace("A notebook", "Guidance") + "More.\n")
    monkeypatch.delenv("TCGA", raising=False)
    assert profile("tiny")["chapters"] == {} and profiles.experiments_of("tiny", "07_guidance") == []
    (paired / "pages" / "chapters").mkdir(parents=True)
    (paired / "pages" / "_toc.yml").write_text("chapters:\n- file: chapters/07_guidance\n")
    make.write_absent_chapters("tiny", paired / "pages")
    page = json.loads((paired / "pages" / "chapters" / "07_guidance.ipynb").read_text())
    (cell,) = page["cells"]
    said = "".join(cell["source"])
    assert said.startswith("# Guidance\n") and "make book PROFILE=tiny TCGA=folder" in said and "More" not in said
    (paired / "tables").mkdir()
    monkeypatch.setenv("TCGA", str(paired / "tables"))
    assert profiles.experiments_of("tiny", "07_guidance") == ["guidance-derm7pt", "tumours", "drawn"]


def test_it_is_said_how_long_all_takes_and_at_the_end_what_was_verified(
    monkeypatch: pytest.MonkeyPatch, paired: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("TRAIN", "EXPERIMENTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PROFILE", "tiny")
    make.prepare(2)
    runs = sum(len(list_runs("tiny", experiment)) for experiment in profile("tiny")["experiments"])
    said = capsys.readouterr().out
    assert f"on 2 cores about: {runs} runs, " in said and f"{len(profile('tiny')['chapters'])} chapters" in said
    make.say_what_was_verified()
    assert capsys.readouterr().out == "", "nothing is published"
    (paired / "results" / "tiny").mkdir(parents=True)
    (paired / "results" / "tiny" / "drawn.tar.xz").touch()
    make.say_what_was_verified()
    assert "Not verified on this machine" in capsys.readouterr().out
    found = {"day": "2026-11-28", "commit": "c0ffee", "outcomes": [{"passed": True}, {"passed": None}]}
    (paired / "build").mkdir(exist_ok=True)
    (paired / "build" / "verified.json").write_text(json.dumps({"tiny": found}))
    make.say_what_was_verified()
    assert "at commit c0ffee: 1 of 2 checks passed, 0 failed, 1 were left open." in capsys.readouterr().out


def test_a_profile_of_published_results_leaves_out_what_is_not_computed(
    monkeypatch: pytest.MonkeyPatch, paired: Path
) -> None:
    text = EXTRA.replace(
        "tumours, drawn]}", "drawn], only_with: [guidance-derm7pt]}\n  90_claims: {experiments: [drawn]}"
    )
    text = re.sub(r"  tumours:.*?(?=  drawn)", "", text, flags=re.DOTALL)
    (paired / "profiles" / "tiny.yaml").write_text("published_only: true" + PAIRED.replace("chapters:\n", text))
    monkeypatch.delenv("TRAIN", raising=False)
    settings = profile("tiny")
    assert settings["unmade"] == ["drawn", "guidance-derm7pt"] and settings["experiments"] == {}
    assert settings["chapters"] == {"90_claims": {"experiments": []}} and settings["data"] == {}
    assert "make train PROFILE=tiny EXPERIMENTS=guidance-derm7pt" in settings["left_out_chapters"]["07_guidance"]
    (there := paired / "build" / "results" / "tiny" / "drawn" / "guidance").mkdir(parents=True)
    (there / "record.json").touch()
    assert profiles.experiments_of("tiny", "90_claims") == ["drawn"]
    path, entry = paired / "profiles" / "tiny.yaml", "      - {method: guidance, seeds: [0], minutes: 1}\n"
    later = entry.replace("{method: guidance, seeds: [0]", "{optional: true, method: wider, seeds: [0]")
    path.write_text(path.read_text().replace(entry, entry + later))
    settings = profile("tiny")
    assert list(list_runs("tiny", "drawn")) == ["guidance"]
    assert "drawn (1 of 2 runs are there)" in settings["unmade"]
    assert settings["experiments"]["drawn"]["runs"] == [{"method": "guidance", "seeds": [0], "minutes": 1}]
    monkeypatch.setenv("TRAIN", "1")
    assert list(list_runs("tiny", "drawn")) == ["guidance", "wider"], "computed with the rest"
    assert profiles.experiments_of("tiny", "07_guidance") == ["guidance-derm7pt", "drawn"]


def test_an_optional_entry_keeps_the_seeds_that_are_wholly_there(monkeypatch: pytest.MonkeyPatch, paired: Path) -> None:
    entry = "{optional: true, method: guidance, variants: [paper, released], seeds: [0, 1], minutes: 1}"
    text, found = re.subn(r"(?<=      - )\{method: guidance, [^\n]*\}(?=\n)", entry, PAIRED, count=1)
    assert found
    text = text.replace("    one_run_per_entry: true\n", "")
    (paired / "profiles" / "tiny.yaml").write_text("published_only: true" + text)
    monkeypatch.delenv("TRAIN", raising=False)
    results = paired / "build" / "results" / "tiny" / "guidance-derm7pt"
    for run in ("guidance-paper-s0", "guidance-released-s0", "guidance-paper-s1"):
        (results / run).mkdir(parents=True)
        (results / run / "record.json").touch()
    assert list(list_runs("tiny", "guidance-derm7pt")) == ["guidance-paper-s0", "guidance-released-s0"]
    assert "guidance-derm7pt (2 of 4 runs are there)" in profile("tiny")["unmade"]


def test_the_paper_profile_needs_the_folder_of_brats_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in CALLERS:
        monkeypatch.delenv(variable, raising=False)
    name_cases(tmp_path, 40)
    monkeypatch.setenv("DATA", str(tmp_path))
    settings = profile("paper")
    assert settings["left_out"] == {"derm7pt": "DERM7PT", "radpath": "RADPATH", "guidance-tcga": "TCGA"}
    assert "PROFILE=paper DERM7PT=folder RADPATH=folder" in settings["left_out_chapters"]["07_deep_guidance"]
    assert "07_deep_guidance" not in settings["chapters"]
    asked = {name for chapter in settings["chapters"].values() for name in (chapter or {}).get("experiments", [])}
    assert asked <= settings["experiments"].keys()


def test_an_experiment_without_data_draws_its_own(paired: Path) -> None:
    (paired / "profiles" / "tiny.yaml").write_text(PAIRED.replace("chapters:\n", EXTRA.replace("tumours, ", "")))
    made = list_runs("tiny", "drawn")["guidance"]
    assert made["seeds"] == [0] and not {"root", "data", "split"} & set(made)


def test_a_phantom_rests_on_what_writes_it() -> None:
    for layout, drawing in (("derm7pt", "lesion"), ("radpath", "glioma")):
        files = sources(f"mmlib/data/{layout}.py", make.PHANTOMS[layout])
        assert {Path(f"mmlib/data/{layout}.py"), Path(f"mmlib/data/phantoms/{drawing}/drawing.py")} <= set(files)


def test_one_run_holds_all_members_of_a_group_of_digits() -> None:
    made = list_runs("quick", "avmnist")
    assert made["smil"]["variants"] == ["paper", "released"] and made["smil"]["seeds"] == [0]
    assert made["smil"]["audio_rates"][:2] == [5, 20] and made["lower-longer"]["method"] == "lower"
    assert all(name == parameters["run"] for name, parameters in made.items())


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no profile 'fast'; choose one of book, full, paper, quick, smoke"):
        profile("fast")


@pytest.mark.parametrize(
    "typed", ["/a`touch pwned`b", "$(touch pwned)", "/with space/ä", "$x $$y ${z}", '"q" \'s', "a;touch pwned", "#1"]
)
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_what_a_person_types_is_text_for_make_and_for_the_shell(tmp_path: Path, typed: str, way: str) -> None:
    (tmp_path / "makefile").write_text(f"include {ROOT / 'Makefile'}\nshown:\n\t@printenv DATA\n")
    given = {**os.environ, **({"DATA": typed} if way == "environment" else {})}
    typed_argument = [f"DATA={typed}"] if way == "argument" else []
    done = subprocess.run(
        ["make", "--silent", "shown", *typed_argument],
        cwd=tmp_path,
        env=given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == typed + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["makefile"]


def test_snakemake_quotes_everything_that_it_puts_into_a_shell_line() -> None:
    shells = re.findall(r"    shell:\n((?:        .*\n)+)", (ROOT / "Snakefile").read_text())
    assert len(shells) == 4
    for shell in shells:
        names = set(re.findall(r"\{([^}]+)\}", shell)) - {"threads"}
        assert names and all(name.endswith(":q") for name in names), names


HOLD = """
import sys, time
from pathlib import Path
from pipeline.lock import only_pipeline
with only_pipeline(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_pipeline_in_a_folder_names_the_first_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        named = rf"another pipeline works in .*: process {first.pid} on .*; wait"
        with pytest.raises(lock.BusyError, match=named), lock.only_pipeline(tmp_path):
            pass
    finally:
        first.kill()
        first.wait()
    with lock.only_pipeline(tmp_path) as stream:
        assert f"process {os.getpid()} on" in Path(stream.name).read_text()


def test_a_process_that_inherits_the_lock_keeps_it_when_its_parent_is_killed(tmp_path: Path) -> None:
    with lock.only_pipeline(tmp_path) as stream:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[stream.fileno()])
    try:
        with pytest.raises(lock.BusyError), lock.only_pipeline(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()
    with lock.only_pipeline(tmp_path):
        pass


def test_a_failed_build_of_the_pages_leaves_the_last_good_book(finished: Path, tmp_path: Path) -> None:
    page = finished / "build" / "html" / "index.html"
    page.write_text("the last good book")
    (finished / "_config.yml").write_text("title: [")  # no configuration
    done = snakemake(finished, "build/html/index.html")
    assert done.returncode != 0
    assert page.read_text() == "the last good book"


def given(notebook: str, **changed: object) -> dict[str, object]:
    return {**parameters_of(notebook), "In": [""], "get_ipython": print, **changed}


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[te][rv]a*.md")), ids=lambda path: path.stem)
def test_every_training_notebook_checks_its_parameters_before_it_imports_anything_else(path: Path) -> None:
    first = next(line for line in notebook_code(path).splitlines() if line)
    assert first == "from pipeline import check_parameters"
    check_parameters(given(path.stem), path.stem)


def test_a_run_that_takes_more_cases_than_are_made_is_refused_before_anything_runs() -> None:
    settings = profile("smoke")
    settings["experiments"]["synthesis"]["common"]["cases_valid"] = 99
    with pytest.raises(
        ValueError, match=r"smoke.yaml: synthesis, .*: cases_valid is 99, and data brats has valid: \d;"
    ):
        list_runs("smoke", "synthesis", settings)


@pytest.mark.parametrize("name", ["smoke", "quick", "book", "full"])
def test_every_run_of_a_profile_passes_the_check(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TRAIN", "1")
    for experiment, asked in profile(name)["experiments"].items():
        for parameters in list_runs(name, experiment).values():
            check_parameters(given(asked["notebook"], **parameters), asked["notebook"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "foo"}, "method is 'foo'; choose one of shaspec, u-hved, zero-fill"),
        ({"sedd": 9}, r"has no parameter 'sedd' \(given: 9\): did you mean seed"),
        ({"zzz": 9}, "has no parameter 'zzz' .*: it has profile, experiment"),
        ({"steps": "many"}, "steps must be a whole number of at least 0, such as 1000; got 'many'"),
        ({"steps": 10.5}, "steps must be a whole number"),
        ({"steps": -1}, "steps must be a whole number of at least 0"),
        ({"seed": True}, "seed must be a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number of at least 0"),
        ({"hausdorff": 1}, "hausdorff must be True or False"),
        ({"widths": 16}, "widths must be a list"),
        ({"precision": "float16"}, "precision is 'float16'; choose one of auto, bfloat16, float32"),
        ({"availability": "some"}, "availability is 'some'; choose one of uniform-subsets, uniform-size"),
    ],
)
def test_a_wrong_name_or_value_is_refused_with_what_is_possible(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_parameters(given("train_segmentation", **changed), "train_segmentation")


def test_values_of_another_kind_that_a_parameter_may_have_pass() -> None:
    for changed in ({"crop": [80, 160, 160]}, {"widths": "released"}, {"learning_rate": 1}):
        check_parameters(given("train_segmentation", **changed), "train_segmentation")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.checks.shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="device is 'cuda', and this machine shows no NVIDIA GPU"):
        check_parameters(given("train_segmentation", device="cuda"), "train_segmentation")


def test_the_check_knows_what_the_library_takes_and_imports_no_torch() -> None:
    assert set(checks.CHOICES["availability"]) == set(SAMPLERS)
    assert set(checks.CHOICES["optimizer"]) == set(OPTIMIZERS)
    program = "import sys, pipeline; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_chapter_reads_the_runs_of_its_own_experiments() -> None:
    asked = profiles.asked_runs("quick", "05_protokd")
    assert list(asked) == profiles.experiments_of("quick", "05_protokd") and "synthesis" not in asked
    assert asked["segmentation"] == list(list_runs("quick", "segmentation"))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_a_chapter_names_itself_where_it_asks_for_runs(path: Path) -> None:
    code = notebook_code(path)
    assert ("read_runs(" in code) == (f'asked_runs(profile, "{path.stem}")' in code)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Begin the pipeline of a project in a process group of its own, as a shell does."""
    command = [sys.executable, "-m", "pipeline", "book", "--cores", "1", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen(command, cwd=folder, env=caller(), preexec_fn=_listen, **options)


def _listen() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # which these tests may be started to ignore
        signal.signal(number, signal.SIG_DFL)


def until(done: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


WAITING = """from pathlib import Path
import time
Path("../build/results/quick/segmentation/zero-fill-s0/fit.checkpoint.pt").touch()
time.sleep(300)
"""


def test_ctrl_c_stops_all_within_seconds_and_says_how_to_go_on(finished: Path) -> None:
    notebook = finished / "notebooks" / "train_segmentation.md"
    notebook.write_text(notebook.read_text().replace("import pandas as pd\n", WAITING))
    run = finished / RESULTS / "zero-fill-s0"
    process = start(finished, f"{RESULTS}/zero-fill-s0/record.json")
    until((run / "fit.checkpoint.pt").exists)
    started = psutil.Process(process.pid).children(recursive=True)
    assert started, "a notebook with its kernel"
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 130 and said.rstrip().endswith("give the same command again.")
    assert "a run that was under way goes on from its last checkpoint" in said and "Traceback" not in said
    assert not psutil.wait_procs(started, timeout=5)[1], "nothing goes on behind"
    assert (run / "fit.checkpoint.pt").exists(), "kept, to go on from"
    with lock.only_pipeline(finished):
        pass


def test_what_jobs_started_ends_with_them_and_what_does_not_listen_is_killed() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    jobs = f"from pipeline.lock import _end_jobs; import psutil, subprocess, sys; deaf = {deaf!r};"
    jobs += "subprocess.Popen(['sh', '-c', 'sleep 60 & sleep 60']);"
    jobs += "subprocess.Popen([sys.executable, '-c', deaf], stdout=subprocess.PIPE).stdout.readline();"
    jobs += "there = psutil.Process().children(recursive=True); _end_jobs(0.5);"
    jobs += "print(len(there), len(psutil.wait_procs(there, timeout=5)[1]))"
    done = subprocess.run([sys.executable, "-c", jobs], cwd=ROOT, capture_output=True, text=True, timeout=50)
    started, left = map(int, done.stdout.split())
    assert started >= 3 and left == 0, done.stderr


@pytest.mark.parametrize("home", ["/nonexistent/home", "/proc", None], ids=["missing", "read-only", "not set"])
def test_a_home_that_cannot_be_written_is_done_without(finished: Path, home: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in (*CALLERS, "HOME")}
    environment |= {"HOME": home} if home else {}
    ask = "from pipeline.make import use_a_home; use_a_home(); import matplotlib, os; print(matplotlib.get_cachedir())"
    done = subprocess.run([sys.executable, "-c", ask], cwd=finished, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Matplotlib created a temporary" not in done.stderr
    assert Path(done.stdout.strip()).is_relative_to(finished / "build" / "home")


def test_runs_and_pages_are_made_without_a_home(finished: Path) -> None:
    run = finished / RESULTS / "zero-fill-s0"
    (run / "record.json").unlink()
    (finished / "build/data/quick/brats").mkdir()
    (finished / "build/data/quick/brats/a.nii").touch()
    without = {"HOME": "/nonexistent/home", warm.PLACE: ""}  # nor of the server that loads the libraries
    done = snakemake(finished, f"{RESULTS}/zero-fill-s0/record.json", **without)
    assert done.returncode == 0, what_failed(finished, done)
    assert (run / "record.json").is_file() and not Path("/nonexistent").exists()


def test_half_written_files_are_swept_when_a_run_begins(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (profiles, frame):
        monkeypatch.setattr(module, "project_root", lambda: finished)
    folder = finished / RESULTS / "zero-fill-s0"
    (folder / ".fit.checkpoint.pt-abc.tmp").touch()
    run = frame.Frame(records.Run(folder), {}, "code changed", True, "segmentation")
    run.begin()
    assert not list(folder.glob(".*"))


def test_a_full_disk_while_data_are_written_is_one_sentence(small_project: Path) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY));"
    limited += " from pipeline.make import main; main()"
    command = [sys.executable, "-c", limited, "data", "quick", "brats"]
    uncut = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # else Python's own files are cut off too
    done = subprocess.run(command, cwd=small_project, env=uncut, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "build/data/quick/brats" in done.stderr and "no space to write it: it needs" in done.stderr
    again = python(small_project, "pipeline", "data", "quick", "brats")
    assert again.returncode == 0 and (small_project / "build/data/quick/brats.json").is_file()
