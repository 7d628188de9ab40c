"""What is published comes out again in a small project, and a change is noticed; runs are trained again beside it."""

import json

import pandas as pd
import pytest
from pipelines import HEAD, python, write_small_project

from mmlib import records
from pipeline import store
from pipeline.verify import (
    LOSSES,
    SCORE_KEYS,
    Outcome,
    _check_losses,
    _check_scores,
    chosen,
    compare_losses,
    compare_scores,
    of_cases,
    unverified,
)
from pipeline.verify import verify as pipeline_verify

TRAINING = (
    HEAD
    + """```{code-cell} ipython3
:tags: [parameters]

method = profile = experiment = run = results = ""
variant = "paper"
root = "cases"
seed = 0
steps = 40
force = False
```

```{code-cell} ipython3
import pandas as pd
import torch

from mmlib.training import fit
from pipeline import open_run, project_root

filed = open_run(globals(), "train_segmentation", data=project_root() / root)


class Batches(torch.utils.data.Dataset):
    def __getitem__(self, step):
        return {"x": torch.randn(4, 2, generator=torch.Generator().manual_seed(step))}


def loss(model, batch):
    return (model(batch["x"]) - batch["x"].sum(1, keepdim=True)).square().mean(), {}
```

```{code-cell} ipython3
if not filed.reuse:
    filed.begin()
    torch.manual_seed(seed)
    model = torch.nn.Linear(2, 1)
    settings = {"precision": "float32", "device": "cpu", "identity": filed.fingerprint}
    history = fit(model, Batches(), loss, steps=steps, lr=0.01, seed=seed, folder=filed.folder, **settings)
    value = float(model.weight.sum().sigmoid())
    scores = pd.DataFrame([["a", "t1", "wt", "dice", value]])
    scores.columns = ["case", "available", "target", "metric", "value"]
    filed.save(history, scores, seconds={}, parameter_count=3, availability_sampler="fixed", exposure={})
```
"""
)

TRAIN = """
from pipeline.verify import _execute
from pipeline import project_root
results = "build/results"
for seed in (0, 1):
    given = {"profile": "quick", "experiment": "segmentation", "method": "shaspec", "seed": seed, "results": results}
    folder = project_root() / results / "quick" / "segmentation" / f"shaspec-paper-s{seed}"
    _execute("train_segmentation", {**given, "run": folder.name}, folder)
"""

CHECK = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from pipeline import verify
verify._watch()
found = [asdict(verify._check(kind, Path(sys.argv[1]).resolve(), 0)) for kind in ("data", "scores", "losses")]
print(json.dumps({one["kind"]: one for one in found}))
"""


def called(project, *arguments, ends_with=0):
    done = python(project, *arguments, PYTHONPATH=str(project))
    assert done.returncode == ends_with, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two runs of one experiment, trained; the first is published with its weights."""
    folder = tmp_path_factory.mktemp("verified") / "project"
    folder.mkdir()
    write_small_project(folder)
    (folder / "notebooks" / "train_segmentation.md").write_text(TRAINING)
    (folder / "cases").mkdir()
    (folder / "cases" / "a.txt").write_text("data")
    (folder / "trains.py").write_text(TRAIN)
    (folder / "checks.py").write_text(CHECK)
    called(folder, "trains")
    made = sorted((folder / "build" / "results" / "quick" / "segmentation").iterdir())
    store.publish(folder / "results", made, {"commit": "c0ffee", "day": "2026-11-28"}, ["*-s0/*"])
    return folder


def published(project, tmp_path):
    """The first run, restored where it may be edited."""
    store.restore(project / "results", "quick", tmp_path)
    return tmp_path / "quick" / "segmentation" / "shaspec-paper-s0"


def edited(folder, **facts):
    """Sign a record anew, as it would be had the run left these files and facts."""
    record = json.loads((folder / "record.json").read_text()) | facts
    del record["sha256"]
    for name in record["files"]:
        content = (folder / name).read_bytes()
        record["files"][name] = {"bytes": len(content), "sha256": records.digest(content)}
    (folder / "record.json").write_text(records.signed(record))


def checked(project, folder):
    return json.loads(called(project, "checks", str(folder)).splitlines()[-1])


def test_data_scores_and_losses_come_out_and_nothing_is_left_behind(project, tmp_path):
    folder = published(project, tmp_path)
    before = sorted(folder.parent.iterdir())
    found = checked(project, folder)
    assert {kind: one["passed"] for kind, one in found.items()} == dict.fromkeys(("data", "scores", "losses"), True)
    assert f"first {LOSSES} losses {LOSSES} are published; the largest difference is 0.00%" in found["losses"]["text"]
    assert "dice 0.0000" in found["scores"]["text"]
    assert sorted(folder.parent.iterdir()) == before


def test_a_changed_score_loss_and_fingerprint_are_each_noticed(project, tmp_path):
    folder = published(project, tmp_path)
    scores = pd.read_csv(folder / "scores.csv")
    scores["value"] -= 0.03
    scores.to_csv(folder / "scores.csv", index=False)
    history = pd.read_csv(folder / "history.csv")
    history.loc[7, "loss"] *= 1.05
    history.to_csv(folder / "history.csv", index=False)
    edited(folder, data_fingerprint="0123456789abcdef")
    found = checked(project, folder)
    assert not any(one["passed"] for one in found.values())
    assert "0123456789abcdef as published" in found["data"]["text"] and "only their hash" in found["data"]["text"]
    assert "dice 0.0300, allowed 0.02" in found["scores"]["text"]


def verify(project, ends_with=0):
    return called(project, "pipeline", "verify", "quick", "--jobs", "1", ends_with=ends_with)


def test_runs_stay_where_the_same_losses_come_out_of_other_code_and_the_command_fails_where_not(project):
    notebook, case = project / "notebooks" / "train_segmentation.md", project / "cases" / "a.txt"
    text = notebook.read_text()
    try:
        notebook.write_text(text.replace("seed(step)", "seed(int(step))"))
        said = verify(project)
        assert said.count("\nok ") == 3 and "3 of 3 checks passed, 0 failed and 0 were left open" in said
        known = json.loads((project / "build" / "verified.json").read_text())["quick"]
        assert [one["passed"] for one in known["outcomes"]] == [True] * 3 and known["machine"] and known["day"]
        notebook.write_text(text.replace("seed(step)", "seed(step + 1)"))
        case.write_text("other")
        said = verify(project, ends_with=1)
    finally:
        notebook.write_text(text)
        case.write_text("data")
    assert "FAILED data   segmentation/shaspec-paper-s0" in said
    assert "FAILED losses train_segmentation shaspec" in said
    assert "FAILED stale  train_segmentation shaspec: code changed since 2 published runs" in said
    assert "1 of 4 checks passed, 3 failed" in said and not list((project / "build").glob("verify-*"))


def test_an_empty_store_and_an_unknown_experiment_are_said(project, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.verify.project_root", lambda: project)
    assert pipeline_verify("smoke")
    assert "nothing of the profile smoke is published" in capsys.readouterr().out
    with pytest.raises(ValueError, match="nothing: not published, see results/quick"):
        pipeline_verify("quick", ["nothing"])


def test_a_run_made_anew_is_equal_and_touches_no_other_results(project):
    before = {path: path.stat().st_mtime_ns for path in (project / "build" / "results").rglob("*")}
    before |= {path: path.stat().st_mtime_ns for path in (project / "results").rglob("*")}
    said = called(project, "pipeline", "reproduce", "quick", "segmentation", "shaspec-paper-s1")
    assert (
        "segmentation, 1 run made anew: all 1 scores are equal to the published ones, the difference is zero." in said
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    page = (project / "build" / "reproduced" / "quick-segmentation.html").read_text()
    assert "the difference is zero" in page and "<figure" in page and "shaspec-paper" in page


def test_only_published_steps_of_the_first_training_are_compared():
    history = pd.DataFrame({"step": [0, 2, 4, 0, 2], "loss": [2.0, 1.0, 0.5, 9.0, 9.0]})
    assert compare_losses(history, [2.0, 7.0, 1.0], 1e-3, "")[0]  # steps 0 and 2
    passed, text = compare_losses(history, [2.0, 7.0, 1.1], 0.01, "")
    assert not passed and "difference is 5.00%" in text  # 0.1 of 2.0
    assert compare_losses(history, [2.0, 7.0, 1.1], 0.06, "")[0]
    assert compare_losses(history, [], 0.01, "") == (False, "no loss came out")


def test_what_cannot_be_compared_is_left_open_and_fails_nothing(monkeypatch, tmp_path):
    run = tmp_path / "book" / "hallucination-images" / "images"
    given = {"method": "cost", "inputs": {"networks": {}}}
    assert _check_losses(run, given, "", {}, run, 0)[0] is None
    passed, text = _check_losses(run, {"method": "images", "inputs": {"networks": {"a/b": "f"}}}, "", {}, run, 0)
    assert passed is None and "weights of a/b, which it takes, are not published" in text
    record = {"experiment": "e", "run": "r", "task": "evaluate_x", "method": "images"}
    left = Outcome("losses", "e/r", "evaluate_x", "images", None, text)
    monkeypatch.setattr("pipeline.verify.changed_runs", lambda runs: dict.fromkeys(runs, True))
    (stale,) = unverified({run: record}, [left])
    assert stale.passed is None and str(left).startswith("open   losses evaluate_x images: not compared")
    assert unverified({run: record}, [])[0].passed is False


def test_a_processor_on_which_bfloat16_fails_is_asked_in_float32(monkeypatch, tmp_path):
    record = {"method": "protokd", "inputs": {}, "device": "cpu", "precision": "bfloat16"}
    losses = [2.0, 1.0]
    monkeypatch.setattr(records, "read_history", lambda folder: pd.DataFrame({"step": [0, 1], "loss": losses}))

    def execute(notebook, again, filed, fit):
        if again["precision"] == "bfloat16":
            raise FloatingPointError("the norm of the gradient is inf")
        return losses

    monkeypatch.setattr("pipeline.verify._execute", execute)
    asked = (tmp_path, record, "", {"precision": "bfloat16"}, tmp_path, 0)
    monkeypatch.setattr("mmlib.training.precision_here", lambda: "float32")
    passed, text = _check_losses(*asked)
    assert passed and "bfloat16 there, float32 here" in text
    monkeypatch.setattr("mmlib.training.precision_here", lambda: "bfloat16")  # with AMX it is a fault
    with pytest.raises(FloatingPointError):
        _check_losses(*asked)


def test_the_teacher_of_all_images_is_rescored_by_its_weights(monkeypatch, tmp_path):
    scores = pd.DataFrame([("standard", 0, "c", "t1", "et", "dice", 0.5)], columns=[*SCORE_KEYS, "value"])
    monkeypatch.setattr(records, "read_scores", lambda folder: scores)
    asked = {}
    monkeypatch.setattr("pipeline.verify._execute", lambda notebook, again, filed, fit: asked.update(again))
    record = {"method": "teacher", "files": {"t1+t1ce+t2+flair.safetensors": "", "scores.csv": ""}}
    assert _check_scores(tmp_path, record, "", {"students": ["all", "t1"]}, tmp_path, 0)[0]
    assert asked["students"] == ["all"]


def test_of_the_data_sets_that_nothing_else_needs_some_are_drawn(monkeypatch, tmp_path):
    facts = {
        "method": "shaspec",
        "task": "x",
        "device": "cpu",
        "seconds": {},
        "inputs": {},
        "files": {},
        "split_hash": "s",
    }
    runs = {
        tmp_path / f"e{k}" / "r": {**facts, "experiment": f"e{k}", "data_fingerprint": f"d{k % 5}"} for k in range(9)
    }
    monkeypatch.setattr("pipeline.verify.changed_runs", lambda runs: dict.fromkeys(runs, False))
    monkeypatch.setattr(records, "read_history", lambda folder: pd.DataFrame({"step": [0]}))
    of_all = [one for one in chosen(runs, 0) if one[0] == "data"]
    few = [one for one in chosen(runs, 0, sets=2) if one[0] == "data"]
    assert len(of_all) == 9 and len({runs[folder]["data_fingerprint"] for _, folder in few}) == 3
    (losses,) = [folder for kind, folder in chosen(runs, 0, sets=2) if kind == "losses"]
    assert runs[losses]["data_fingerprint"] in {runs[folder]["data_fingerprint"] for _, folder in few}
    kinds, sets = zip(*((kind, runs[folder]["data_fingerprint"]) for kind, folder in chosen(runs, 0)), strict=True)
    assert len(set(sets[:5])) == 5 and kinds == ("data",) * 5 + ("losses",) + ("data",) * 4, "none waits for another's"


def test_what_was_measured_over_all_cases_is_not_compared_with_that_of_those_drawn():
    scores = pd.DataFrame({"case": ["IXI0120", "phantom-0121", "phantom-0122", "all"]})
    assert list(of_cases(scores, ["phantom-0121"])["case"]) == ["phantom-0121"]
    assert list(of_cases(scores, ["IXI0120-Phantom-0120"])["case"]) == ["IXI0120"]


def test_a_score_of_a_region_has_the_tolerance_of_its_metric():
    there = pd.DataFrame([("a", "t1", "t2", "psnr-et", 20.0)], columns=records.SCORE_COLUMNS).assign(
        variant="u", seed=0
    )
    assert compare_scores(there, there.assign(value=20.2))[0] and not compare_scores(there, there.assign(value=20.3))[0]


def test_scores_are_compared_case_by_case_and_of_a_sampling_method_by_their_mean():
    rows = [(case, "t1", "wt", "dice", value) for case, value in (("a", 0.5), ("b", 0.7))]
    there = pd.DataFrame(rows, columns=records.SCORE_COLUMNS).assign(variant="paper", seed=0)
    here = there.assign(value=[0.55, 0.65])
    assert compare_scores(there, there)[0]
    assert not compare_scores(there, here)[0]
    assert compare_scores(there, here, sampled=True)[0]
    assert not compare_scores(there, there.assign(value=[0.5, float("nan")]))[0]
    assert compare_scores(there, there.assign(case="c")) == (False, "no score of these cases is published")
