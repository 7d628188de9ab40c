import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from mmlib import records
from mmlib.analysis.results import read_runs
from mmlib.records import (
    RecordError,
    data_fingerprint,
    fingerprint,
    git_state,
    kept_file,
    leave_out,
    open_run,
    read_record,
)

SCORES = pd.DataFrame(
    [("a", "t1", "wt", "dice", 0.1 + 0.2), ("a", "t1", "wt", "hd95", np.nan), ("b", "t1+flair", "et", "dice", 1.0)],
    columns=["case", "available", "target", "metric", "value"],
)
HISTORY = pd.DataFrame({"step": [1, 2], "loss": [1.5, 1.25]})
FACTS = {
    "device": "cpu",
    "threads": 1,
    "precision": "float32",
    "seconds": {"train": 2.5, "evaluate": 1.0},
    "parameter_count": 10,
    "stand_in": True,
    "data_fingerprint": "d",
    "split_hash": "s",
    "availability_sampler": "uniform-subsets",
    "exposure": {"train": {"a": ["t1"]}},
    "fingerprint": "f0",
}


def make(root, name="shaspec-paper-s0", experiment="segmentation", seed=0, scores=SCORES, **facts):
    parameters = {"method": "shaspec", "variant": "paper", "seed": seed, "steps": 2, "force": False}
    run = open_run(root, "quick", experiment, name, parameters)
    run.save(HISTORY, scores, **{**FACTS, **facts})
    return run


def test_what_is_saved_is_what_is_read(tmp_path):
    run = make(tmp_path)
    make(tmp_path, "shaspec-paper-s1", seed=1)
    assert run.folder == tmp_path / "quick" / "segmentation" / "shaspec-paper-s0"
    assert sorted(path.name for path in run.folder.iterdir()) == ["history.csv", "record.json", "scores.csv"]
    runs = read_runs(tmp_path, "quick")
    assert len(runs) == 2
    assert runs.records["run"].tolist() == ["shaspec-paper-s0", "shaspec-paper-s1"]
    first = runs.records.iloc[0]
    assert (first["parameters.steps"], first["seconds.train"], first["stand_in"]) == (2, 2.5, True)
    assert first["exposure"] == {"train": {"a": ["t1"]}}
    assert first["versions.torch"].startswith("2") and first["peak_memory_mib"] > 10
    one = runs.scores[runs.scores["run"] == "shaspec-paper-s1"]
    assert one["value"].iloc[0] == 0.1 + 0.2  # to the last bit
    assert np.isnan(one["value"].iloc[1])
    assert one["seed"].eq(1).all() and one["variant"].eq("paper").all()
    pd.testing.assert_frame_equal(runs.history("shaspec-paper-s0"), HISTORY)
    alone = records.read_run(run.folder)
    assert alone.record["seed"] == 0 and alone.history.equals(HISTORY)
    assert alone.scores["value"].tolist()[0] == 0.1 + 0.2 and alone.scores["value"].isna().sum() == 1
    assert runs.folder("shaspec-paper-s0") == run.folder


def test_a_record_is_strict_json_with_the_required_keys(tmp_path):
    text = (make(tmp_path).folder / "record.json").read_text()
    record = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in the record"))
    assert set(records.FACTS) <= set(record)
    assert record["schema_version"] == records.SCHEMA and len(record["git_commit"]) in (7, 40)


def test_unfinished_runs_are_passed_over(tmp_path):
    make(tmp_path)
    unfinished = open_run(tmp_path, "quick", "segmentation", "shaspec-paper-s9", {})
    (unfinished.folder / "scores.csv").write_text("case\n")
    (unfinished.folder / ".record.json-abc.tmp").write_text('{"half": ')
    assert read_runs(tmp_path, "quick").records["run"].tolist() == ["shaspec-paper-s0"]
    with pytest.raises(FileNotFoundError, match="not finished"):
        read_record(unfinished.folder)


def test_nothing_run_yet_is_empty_with_the_same_columns(tmp_path):
    runs = read_runs(tmp_path, "quick")
    assert len(runs) == 0 and "value" in runs.scores and "method" in runs.records


def test_experiments_are_kept_apart(tmp_path):
    make(tmp_path)
    make(tmp_path, experiment="ablation")
    assert len(read_runs(tmp_path, "quick")) == 2
    assert read_runs(tmp_path, "quick", "ablation").scores["experiment"].eq("ablation").all()
    with pytest.raises(KeyError, match="2 runs are called"):
        read_runs(tmp_path, "quick").history("shaspec-paper-s0")
    assert len(read_runs(tmp_path, "quick").history("shaspec-paper-s0", "ablation")) == 2


def test_runs_that_nobody_asked_for_are_passed_over(tmp_path):
    for name, experiment in (("a-s0", "segmentation"), ("a-s1", "segmentation"), ("a-s0", "trial")):
        make(tmp_path, name, experiment)
    found = read_runs(tmp_path, "quick", asked={"segmentation": ["a-s1", "a-s2"]})
    assert found.records[["experiment", "run"]].to_numpy().tolist() == [["segmentation", "a-s1"]]
    assert set(found.scores["run"]) == {"a-s1"}


def test_a_method_without_training_has_an_empty_history(tmp_path):
    run = open_run(tmp_path, "quick", "x", "mean-of-atlas-s0", {"method": "atlas", "variant": "", "seed": 0})
    run.save(pd.DataFrame(), SCORES, **FACTS)
    assert read_runs(tmp_path, "quick").scores["variant"].eq("").all()  # empty text stays text
    assert read_runs(tmp_path, "quick").history("mean-of-atlas-s0").empty


def test_is_current_only_for_the_same_fingerprint_and_an_intact_record(tmp_path):
    run = open_run(tmp_path, "quick", "segmentation", "shaspec-paper-s0", {})
    assert not run.is_current("f0")
    run = make(tmp_path)
    assert run.is_current("f0") and not run.is_current("f1")
    (run.folder / "scores.csv").write_text("changed")
    assert not run.is_current("f0")


def test_clear_withdraws_the_record(tmp_path):
    run = make(tmp_path)
    run.clear()
    run.clear()
    assert not run.is_current("f0") and len(read_runs(tmp_path, "quick")) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"half": ', "damaged"),
        ('{"a": NaN}', "NaN is not JSON"),
        ("[]", "schema version None"),
        ('{"schema_version": 0}', "schema version 0, this version of mmlib reads 2"),
        ('{"schema_version": 2}', "lacks"),
    ],
)
def test_a_damaged_or_old_record_is_named_with_the_remedy(tmp_path, content, message):
    run = make(tmp_path)
    (run.folder / "record.json").write_text(content)
    with pytest.raises(RecordError, match=message) as error:
        read_runs(tmp_path, "quick")
    assert "shaspec-paper-s0" in str(error.value) and "run it again" in str(error.value)
    assert not run.is_current("f0")


def with_weights(root):
    """A record with weights and arrays beside its tables."""
    run = open_run(
        root, "quick", "segmentation", "shaspec-paper-s0", {"method": "shaspec", "variant": "paper", "seed": 0}
    )
    (run.folder / "s0").mkdir()
    (run.folder / "fit.safetensors").write_bytes(bytes(range(256)) * 8)
    (run.folder / "s0" / "features.npz").write_bytes(bytes(range(256)))
    for name in ("run.log", "train_segmentation.ipynb", "fit.checkpoint.pt"):  # these may change
        (run.folder / name).write_text("x")
    run.save(HISTORY, SCORES, **FACTS)
    return run.folder


def test_a_record_lists_every_file_that_a_reader_may_load(tmp_path):
    files = read_record(with_weights(tmp_path))["files"]
    assert list(files) == ["fit.safetensors", "history.csv", "s0/features.npz", "scores.csv"]
    assert files["fit.safetensors"]["bytes"] == 2048 and len(files["fit.safetensors"]["sha256"]) == 64


def test_what_is_left_out_stays_in_the_record_and_cannot_come_back_changed(tmp_path):
    folder = with_weights(tmp_path)
    there = read_record(folder)["files"]
    assert leave_out(folder, "*.safetensors", "none.*") == ["fit.safetensors"] and leave_out(folder, "none.*") == []
    record = read_record(folder)
    assert not (folder / "fit.safetensors").exists() and "fit.safetensors" not in record["files"]
    assert record["left_out"] == {"fit.safetensors": there["fit.safetensors"]}
    with pytest.raises(FileNotFoundError, match="fit.safetensors does not exist: .* keeps no such file; run it again"):
        kept_file(folder, "fit.safetensors")


@pytest.mark.parametrize("name", ["fit.safetensors", "s0/features.npz", "scores.csv", "history.csv"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_changed_byte_in_any_of_its_files_is_named(tmp_path, name, share):
    folder = with_weights(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[int(share * len(content))] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(RecordError, match=rf"{name} is not the file .* \(missing or changed\): delete .* run it again"):
        read_record(folder)


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 40))
def test_a_changed_bit_of_the_record_is_noticed(tmp_path, share):
    path = with_weights(tmp_path) / "record.json"
    content, written = bytearray(path.read_bytes()), read_record(path.parent)
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    with contextlib.suppress(RecordError):
        assert read_record(path.parent) == written, "white space may differ, and nothing else"


@pytest.mark.parametrize("key", ["git_commit", "fingerprint", "seed", "stand_in", "parameters", "written"])
def test_an_edited_value_is_noticed(tmp_path, key):
    path = with_weights(tmp_path) / "record.json"
    record = json.loads(path.read_text())
    record[key] = {"steps": 9} if key == "parameters" else 7
    path.write_text(json.dumps(record))
    with pytest.raises(RecordError, match="was changed after it was written"):
        read_record(path.parent)


def test_a_copy_under_another_name_does_not_count_twice(tmp_path):
    folder = with_weights(tmp_path)
    shutil.copytree(folder, folder.with_name("shaspec-paper-s1"))
    with pytest.raises(RecordError, match="is the record of quick/segmentation/shaspec-paper-s0 in another folder"):
        read_runs(tmp_path, "quick")
    shutil.copytree(tmp_path / "quick", tmp_path / "moved" / "quick", ignore=lambda *_: ["shaspec-paper-s1"])
    assert len(read_runs(tmp_path / "moved", "quick")) == 1, "the whole may be moved"


def test_tables_that_do_not_belong_to_the_record_are_refused(tmp_path):
    run = make(tmp_path)
    (run.folder / "history.csv").unlink()
    with pytest.raises(RecordError, match="history.csv is not the file"):
        read_runs(tmp_path, "quick")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (SCORES.drop(columns="case"), r"lack the columns \['case'\]"),
        (SCORES.iloc[:0], "no rows"),
        (pd.concat([SCORES, SCORES]), "a value twice"),
        (SCORES.assign(value=[30.0, np.nan, 1.0]), r"\[0, 1\].*30.0"),
        (SCORES.assign(value=[np.nan, np.nan, 1.0]), r"\[0, 1\]"),
        (SCORES.assign(value=[0.5, np.inf, 1.0]), "infinite"),
        (SCORES.assign(target=[None, "wt", "et"]), "empty cells"),
    ],
)
def test_untidy_scores_are_refused_and_nothing_is_written(tmp_path, scores, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, scores=scores)
    assert not list(tmp_path.rglob("*.*"))


def test_missing_and_unwritable_facts_are_refused(tmp_path):
    run = open_run(tmp_path, "quick", "segmentation", "x-y-s0", {"method": "x", "variant": "y"})
    with pytest.raises(ValueError, match=r"needs \['split_hash', 'seed'\]"):
        run.save(HISTORY, SCORES, **{name: value for name, value in FACTS.items() if name != "split_hash"})
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        run.save(HISTORY, SCORES, **{**FACTS, "seed": 0, "seconds": {"train": float("nan")}})
    assert not list(run.folder.iterdir())
    run.save(HISTORY, SCORES, **{**FACTS, "seed": np.int64(0), "threads": np.int64(1)})
    assert read_record(run.folder)["seed"] == 0


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a\\b"])
def test_names_cannot_leave_the_results_folder(tmp_path, name):
    with pytest.raises(ValueError, match="become folders"):
        open_run(tmp_path, "quick", "segmentation", name, {})


def test_fingerprint_changes_with_parameters_and_sources_only(tmp_path):
    source = tmp_path / "a.py"
    source.write_text("x = 1")
    first = fingerprint({"lr": 0.1, "steps": 2, "force": False}, [source])
    assert first == fingerprint({"steps": 2, "lr": 0.1, "force": True, "results": "elsewhere"}, [source])
    assert first != fingerprint({"lr": 0.2, "steps": 2}, [source])
    assert first != fingerprint({"lr": 0.1, "steps": 2})
    copy = tmp_path / "elsewhere" / "a.py"
    copy.parent.mkdir()
    copy.write_text("x = 1")
    assert first == fingerprint({"lr": 0.1, "steps": 2}, [copy])
    source.write_text("x = 2")
    assert first != fingerprint({"lr": 0.1, "steps": 2}, [source])
    with pytest.raises(FileNotFoundError, match="missing.py"):
        fingerprint({}, [tmp_path / "missing.py"])
    with pytest.raises(ValueError, match="parameters"):
        fingerprint({"lr": float("nan")})


def test_data_fingerprint_follows_names_and_contents(tmp_path):
    data = tmp_path / "data"
    (data / "case").mkdir(parents=True)
    (data / "case" / "small.nii").write_bytes(b"abc")
    (data / "case" / "large.nii").write_bytes(bytes(300_000))
    first = data_fingerprint(data)
    (data / ".DS_Store").write_bytes(b"x")
    assert data_fingerprint(data) == first
    shutil.copytree(data, tmp_path / "copy")
    assert data_fingerprint(tmp_path / "copy") == first
    (data / "case" / "large.nii").write_bytes(bytes(299_999) + b"1")
    changed = data_fingerprint(data)
    assert changed != first
    (data / "case" / "small.nii").rename(data / "case" / "other.nii")
    assert data_fingerprint(data) not in (first, changed)
    assert data_fingerprint(data, [data / "case" / "large.nii"]) != data_fingerprint(data)
    assert data_fingerprint(data / "case" / "large.nii") != data_fingerprint(data / "case" / "other.nii")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        data_fingerprint(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no files"):
        data_fingerprint(tmp_path / "empty")


def test_git_state_outside_git_is_unknown(tmp_path, monkeypatch):
    assert git_state(tmp_path) == ("unknown", None)
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) == ("unknown", None)


def test_git_state_sees_a_change(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "mmlib").mkdir()
    (tmp_path / "results").mkdir()
    for path in (tmp_path / "mmlib" / "b.py", tmp_path / "results" / "manifest.json"):
        path.write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    commit, dirty = git_state(tmp_path)
    assert len(commit) == 40 and dirty is False
    (tmp_path / "results" / "manifest.json").write_text("2")
    assert git_state(tmp_path) == git_state(tmp_path / "mmlib") == (commit, False)
    (tmp_path / "a.py").write_text("2")
    assert git_state(tmp_path) == git_state(tmp_path / "mmlib") == (commit, True)


def test_killed_while_saving_leaves_a_whole_record_or_none(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(os.path.dirname(__file__))!r})
from pathlib import Path
from test_records import make
print("ready", flush=True)
while True:
    make(Path({str(tmp_path)!r}))
"""
    for wait in (0.05, 0.13, 0.21):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert len(read_runs(tmp_path, "quick")) in (0, 1)
    make(tmp_path)
    assert len(read_runs(tmp_path, "quick")) == 1


def test_what_cannot_be_written_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="no space"):
        records.write_whole(path, lambda temporary: (_ for _ in ()).throw(OSError("no space")))
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("iostream error")])
def test_a_full_disk_is_said_with_the_file_and_what_it_needs_and_nothing_is_lost(tmp_path, error):
    path = tmp_path / "scores.csv"
    path.write_bytes(bytes(3 << 20))

    def half(temporary):
        temporary.write_bytes(bytes(1 << 20))
        raise error

    needs = r"scores\.csv: no space to write it: it needs 3\.0 MiB or more, and \d+\.\d MiB are free there"
    with pytest.raises(records.NoSpaceError, match=needs) as caught:
        records.write_whole(path, half)
    assert "nothing that was finished is lost: make room, and the same command goes on" in str(caught.value)
    assert path.stat().st_size == 3 << 20 and [one.name for one in tmp_path.iterdir()] == ["scores.csv"]


def test_other_errors_of_writing_pass_as_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError):
        records.write_whole(tmp_path / "a.txt", lambda temporary: 1 / 0)
    with pytest.raises(PermissionError):
        records.write_whole(tmp_path / "a.txt", lambda temporary: (_ for _ in ()).throw(PermissionError(13, "no")))


def test_a_record_that_finds_no_space_leaves_the_run_unfinished_and_is_written_later(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(records.NoSpaceError, match=r"history\.csv: no space"):
        patched.setattr(os, "fsync", full)
        make(tmp_path)
    assert len(read_runs(tmp_path, "quick")) == 0
    make(tmp_path)
    assert len(read_runs(tmp_path, "quick")) == 1


def test_what_a_killed_process_left_half_written_is_swept(tmp_path):
    (tmp_path / "variant").mkdir()
    left = [tmp_path / ".fit.checkpoint.pt-x1.tmp", tmp_path / "variant" / ".scores.csv-y2.tmp"]
    kept = [tmp_path / "fit.checkpoint.pt", tmp_path / "notes.tmp", tmp_path / ".hidden"]
    for path in left + kept:
        path.touch()
    records.sweep(tmp_path)
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
