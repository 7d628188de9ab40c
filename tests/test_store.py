"""Published results come back byte for byte, what was made here is never replaced, and damage is named."""

import io
import shutil
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from mmlib import records
from mmlib.published import MANIFEST, StoreError, from_columns, read_manifest
from pipeline import frame, store
from pipeline.frame import code_changed, stale_because
from pipeline.sources import parameters_of

ABOUT = {"commit": "c0ffee", "day": "2026-11-27"}


def finish(root, name="shaspec-paper-s0", seed=0, value=0.5, parameters=None):
    """A finished run with weights, arrays and a long history."""
    parameters = parameters or {"method": "shaspec", "variant": "paper", "seed": seed}
    run = records.open_run(root, "book", "segmentation", name, parameters)
    run.clear()
    save_file({"weight": np.linspace(0, 1, 2000, dtype=np.float32)}, run.folder / "fit.safetensors")
    np.savez(run.folder / "features.npz", shared=np.arange(30.0) / 3, labels=np.arange(30))
    history = pd.DataFrame({"step": np.arange(1000), "loss": 1 / (1 + np.arange(1000.0)), "score": np.nan})
    history.loc[[333, 777], "score"] = 0.1 + 0.2
    scores = pd.DataFrame([("a", "t1", "wt", "dice", value), ("b", "t1", "wt", "hd95", np.nan)])
    scores.columns = records.SCORE_COLUMNS
    run.save(history, scores, **dict.fromkeys(records.FACTS, "-"))
    return run.folder


def restored(root):
    return root / "back" / "book" / "segmentation" / "shaspec-paper-s0"


def test_a_run_comes_back_with_equal_scores_and_arrays_and_without_weights(tmp_path):
    folder = finish(tmp_path / "made")
    assert store.publish(tmp_path / "store", [folder], ABOUT) == ["book/segmentation/shaspec-paper-s0"]
    done = store.restore(tmp_path / "store", "book", tmp_path / "back")
    assert done == {"restored": ["segmentation/shaspec-paper-s0"], "there": [], "kept": []}
    assert (restored(tmp_path) / "scores.csv").read_bytes() == (folder / "scores.csv").read_bytes()
    before, after = records.read_record(folder), records.read_record(restored(tmp_path))
    assert after["published"] == ABOUT and "fit.safetensors" not in after["files"]
    assert after["left_out"] == {
        name: before["files"][name] for name in ("features.npz", "fit.safetensors", "history.csv")
    }
    same = before.keys() - {"files", "left_out", "published"}
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert store.restore(tmp_path / "store", "book", tmp_path / "back")["there"] == done["restored"]
    assert store.restore(tmp_path / "store", "quick", tmp_path / "other") == {"restored": [], "there": [], "kept": []}


def test_weights_that_are_asked_for_are_kept_and_arrays_that_no_chapter_draws_are_not(tmp_path):
    folders = [finish(tmp_path / "made", f"shaspec-paper-s{seed}", seed) for seed in range(2)]
    store.publish(tmp_path / "store", folders, ABOUT, ["book/segmentation/*-s0/*"], ["*-s[1-9]*/*features.npz"])
    store.restore(tmp_path / "store", "book", tmp_path / "back")
    back = restored(tmp_path)
    whole, half = (load_file(folder / "fit.safetensors")["weight"] for folder in (folders[0], back))
    assert half.dtype == np.float16 and np.abs(half - whole).max() < 2**-11
    assert not (back.with_name("shaspec-paper-s1") / "fit.safetensors").exists()
    assert (back / "features.npz").exists() and not (back.with_name("shaspec-paper-s1") / "features.npz").exists()
    kept = tmp_path / "store" / "book" / "segmentation" / "shaspec-paper-s0" / "fit.safetensors"
    kept.write_bytes(b"x" + kept.read_bytes()[1:])
    with pytest.raises(StoreError, match="s0/fit.safetensors is not the file that manifest.json lists"):
        store.restore(tmp_path / "store", "book", tmp_path / "back")
    store.publish(tmp_path / "other", folders[:1], ABOUT, ["*"])
    store.publish(tmp_path / "other", folders[:1], ABOUT)
    assert not list((tmp_path / "other").rglob("*.safetensors")) and len(read_manifest(tmp_path / "other")) == 1


def test_runs_that_are_withdrawn_leave_nothing_behind_and_the_others_stay_as_they_are(tmp_path):
    folders = [finish(tmp_path / "made", f"shaspec-paper-s{seed}", seed) for seed in range(3)]
    place = tmp_path / "store"
    store.publish(place, folders[:2], ABOUT, ["*"])
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    store.publish(place, folders[2:], ABOUT, ["*"])
    with pytest.raises(ValueError, match="not published in .*segmentation: rfnet-s0; shaspec-paper-s0, "):
        store.withdraw(place, "book/segmentation", ["shaspec-paper-s2", "rfnet-s0"])
    assert store.withdraw(place, "book/segmentation", ["shaspec-paper-s2"]) == ["shaspec-paper-s2"]
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert store.withdraw(place, "book/segmentation") == ["shaspec-paper-s0", "shaspec-paper-s1"]
    assert read_manifest(place) == {} and [path.name for path in place.rglob("*") if path.is_file()] == [MANIFEST]
    with pytest.raises(ValueError, match="no run"):
        store.withdraw(place, "book/segmentation")


def test_scores_are_published_to_seven_digits_and_the_record_says_so(tmp_path):
    folder = finish(tmp_path / "made", value=2 / 3)
    store.publish(tmp_path / "store", [folder], ABOUT)
    store.restore(tmp_path / "store", "book", tmp_path / "back")
    values = records.read_scores(restored(tmp_path))["value"].tolist()
    assert values[0] == 0.6666667 and np.isnan(values[1])
    before, after = records.read_record(folder), records.read_record(restored(tmp_path))
    assert after["left_out"]["scores.csv"] == before["files"]["scores.csv"] != after["files"]["scores.csv"]
    text = (restored(tmp_path) / "scores.csv").read_bytes()
    assert store.rounded(text) == text
    rows = b"variant,metric,value\na,dice,0.5\na,far,1.0\nb,dice,0.25\n"
    assert store.rounded(rows, ["far", "b/dice"]) == b"variant,metric,value\na,dice,0.5\n"


@pytest.mark.parametrize(
    "table",
    [
        b"case,value\na,0.5\nb,\na,0.5\n,\n",
        "case,value\n\u00e4 b,-1e-09\n".encode(),
        b"case,value\n" + b"".join(b"%d,%d\n" % (row % 7, row) for row in range(70_000)),  # more than 16 bits count
    ],
)
def test_a_table_by_columns_comes_back_byte_for_byte(table):
    columns = store.by_columns(table)
    assert columns and from_columns(columns) == table


@pytest.mark.parametrize("table", [b"", b"case,value\n", b"case\na", b'case,value\n"a,b",1\n', b"case,value\na\n"])
def test_what_is_no_plain_table_stays_as_it_is(table):
    assert store.by_columns(table) is None


def test_arrays_are_published_in_16_bits_where_they_fit(tmp_path):
    made = {"x": np.float32([0.1, np.nan]), "far": np.array([1e5]), "y": np.arange(3), "who": np.array(["a"])}
    np.savez_compressed(tmp_path / "made.npz", **made)
    once = store.half_arrays((tmp_path / "made.npz").read_bytes())
    with np.load(io.BytesIO(once)) as half:
        assert half["x"].dtype == np.float16 and half["x"][0] == np.float16(0.1) and np.isnan(half["x"][1])
        for name in ("far", "y", "who"):
            assert half[name].dtype == made[name].dtype and (half[name] == made[name]).all()
    assert store.half_arrays(once) == once


def test_a_change_of_the_store_that_was_cut_off_is_ended_or_forgotten(tmp_path, monkeypatch):
    folders = [finish(tmp_path / "made", f"shaspec-paper-s{seed}", seed) for seed in range(2)]
    place = tmp_path / "store"

    def content():
        return {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}

    store.publish(place, folders[:1], ABOUT, ["*"])
    before = content()
    store.publish(place, folders, ABOUT)
    after = content()
    replace = store.os.replace
    for cut in range(3):  # weights go: the archive is moved, then the manifest
        shutil.rmtree(place)
        for name, text in before.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(text)
        moved = []

        def stop(source, target, moved=moved, cut=cut):
            if ".staged" in str(source) and ".staged" not in str(target):
                if len(moved) == cut:
                    raise KeyboardInterrupt
                moved.append(target)
            replace(source, target)

        monkeypatch.setattr(store.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt) if cut < 2 else nullcontext():
            store.publish(place, folders, ABOUT)
        monkeypatch.setattr(store.os, "replace", replace)
        store.settle(place)
        assert content() == after
    shutil.rmtree(place)
    store.publish(place, folders[:1], ABOUT, ["*"])
    staged = place / store.STAGED
    staged.mkdir()
    (staged / "book").mkdir()
    (staged / "book" / "segmentation.tar.xz").write_bytes(b"of half a change")
    store.settle(place)
    assert content() == before
    staged.mkdir()
    (staged / MANIFEST).write_bytes(
        (place / MANIFEST).read_bytes().replace(b"bytes", b"BYTES")
    )  # of files that are gone
    store.settle(place)
    assert content() == before


def test_nothing_is_unpacked_where_nothing_changed_and_what_is_gone_comes_back(tmp_path, monkeypatch):
    store.publish(tmp_path / "store", [finish(tmp_path / "made")], ABOUT)
    first = store.restore(tmp_path / "store", "book", tmp_path / "back")
    unpack = store.open_experiment
    monkeypatch.setattr(store, "open_experiment", lambda *_: pytest.fail("unpacked"))
    assert store.restore(tmp_path / "store", "book", tmp_path / "back") == {
        "restored": [],
        "there": first["restored"],
        "kept": [],
    }
    monkeypatch.setattr(store, "open_experiment", unpack)
    (restored(tmp_path) / "record.json").unlink()
    assert store.restore(tmp_path / "store", "book", tmp_path / "back") == first
    made_here = finish(tmp_path / "back")
    kept = {"restored": [], "there": [], "kept": first["restored"]}
    assert [store.restore(tmp_path / "store", "book", tmp_path / "back") for _ in range(2)] == [kept, kept]
    shutil.rmtree(made_here)
    assert store.restore(tmp_path / "store", "book", tmp_path / "back") == first


def test_what_an_earlier_restoration_left_goes(tmp_path):
    folder = finish(tmp_path / "made")
    store.publish(tmp_path / "store", [folder], ABOUT)
    store.restore(tmp_path / "store", "book", tmp_path / "back")
    store.publish(tmp_path / "store", [folder], ABOUT, undrawn=["*features.npz"])
    store.restore(tmp_path / "store", "book", tmp_path / "back")
    assert not (restored(tmp_path) / "features.npz").exists() and (restored(tmp_path) / "scores.csv").exists()


def test_metrics_that_no_chapter_reads_are_left_out_where_the_profile_says_so(tmp_path):
    folder = finish(tmp_path / "made")
    for pattern, published in (("book/segment*", ["hd95"]), ("book/other-*", ["dice", "hd95"])):
        store.publish(tmp_path / "store", [folder], ABOUT, unread={pattern: ["dice"]})
        store.restore(tmp_path / "store", "book", tmp_path / "back")
        assert sorted(records.read_scores(restored(tmp_path))["metric"].unique()) == published


def test_a_history_of_many_trainings_has_fewer_rows_of_each(monkeypatch):
    monkeypatch.setattr(store, "MOST", 30)
    text = "step,loss,seed\n" + "".join(f"{step},0.5,{seed}\n" for seed in range(3) for step in range(50))
    table = pd.read_csv(io.BytesIO(store.thinned(text.encode())))
    assert table.groupby("seed")["step"].agg(["min", "max", "size"]).values.tolist() == [[0, 49, 11]] * 3


def test_a_history_is_thinned_and_keeps_its_ends_and_what_was_scored():
    rows = [f"{step},{1 / (step + 1)},{0.3 if step in (33, 77) else ''}\n" for step in range(1000)]
    text = "step,loss,score\n" + "".join(rows)
    kept = pd.read_csv(io.BytesIO(store.thinned(text.encode(), 10)))
    assert kept["step"].tolist() == sorted({*range(0, 1000, 100), 33, 77, 999})
    assert kept.loc[1, "loss"] == 0.0294118 and kept.loc[1, "score"] == 0.3 and np.isnan(kept.loc[0, "score"])
    two = "step,loss,seed\n" + "".join(f"{step},0.5,{seed}\n" for seed in (0, 1) for step in range(50))
    table = pd.read_csv(io.BytesIO(store.thinned(two.encode(), 5)))
    assert table.groupby("seed")["step"].agg(["min", "max", "size"]).values.tolist() == [[0, 49, 6]] * 2
    assert store.thinned(b"\n") == b"\n" and store.thinned(b"step\n1\n") == b"step\n1\n"


def test_the_same_runs_give_the_same_bytes_in_any_order_and_seeds_are_added(tmp_path):
    folders = [finish(tmp_path / "made", f"shaspec-paper-s{seed}", seed) for seed in range(3)]
    store.publish(tmp_path / "a", folders, ABOUT)
    for folder in reversed(folders):
        store.publish(tmp_path / "b", [folder], ABOUT)
    for name in ("book/segmentation.tar.xz", MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_was_made_here_is_kept_and_what_was_restored_is_renewed(tmp_path):
    store.publish(tmp_path / "store", [finish(tmp_path / "made", value=0.5)], ABOUT)
    own = finish(tmp_path / "back", value=0.25)
    before = (own / "record.json").read_bytes()
    assert store.restore(tmp_path / "store", "book", tmp_path / "back")["kept"] == ["segmentation/shaspec-paper-s0"]
    assert (own / "record.json").read_bytes() == before
    (own / "scores.csv").write_text("damaged")
    assert store.restore(tmp_path / "store", "book", tmp_path / "back")["restored"]
    assert records.read_scores(own)["value"].iloc[0] == 0.5
    store.publish(tmp_path / "store", [finish(tmp_path / "made", value=0.75)], ABOUT)
    assert store.restore(tmp_path / "store", "book", tmp_path / "back")["restored"]
    assert records.read_scores(own)["value"].iloc[0] == 0.75


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 12))
def test_a_damaged_file_is_named_and_nothing_of_it_is_read(tmp_path, share):
    store.publish(tmp_path / "store", [finish(tmp_path / "made")], ABOUT)
    path = tmp_path / "store" / "book" / "segmentation.tar.xz"
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="segmentation.tar.xz is not the file that .*: git checkout -- "):
        store.restore(tmp_path / "store", "book", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    path.unlink()
    with pytest.raises(StoreError, match="segmentation.tar.xz cannot be read"):
        store.restore(tmp_path / "store", "book", tmp_path / "back")
    (tmp_path / "store" / MANIFEST).write_text("{")
    with pytest.raises(StoreError, match="manifest.json is damaged"):
        store.restore(tmp_path / "store", "book", tmp_path / "back")


def test_a_published_record_stays_though_its_code_changed_but_not_with_other_parameters(tmp_path, monkeypatch):
    parameters = {"method": "shaspec", "variant": "paper", "seed": 0}
    whole = {**parameters_of("train_segmentation"), **parameters}
    whole = {key: value for key, value in whole.items() if key not in records.NOT_INPUTS}
    folder = finish(tmp_path / "made", parameters=whole)
    store.publish(tmp_path / "store", [folder], ABOUT)
    store.restore(tmp_path / "store", "book", tmp_path / "back")
    asked = {**parameters, "data": "build/data/none"}
    assert stale_because(folder, "train_segmentation", parameters) == "code changed"
    assert stale_because(restored(tmp_path), "train_segmentation", parameters) == ""
    assert stale_because(restored(tmp_path), "train_segmentation", asked).startswith("parameters differ: data is")
    # what the notebook has learned to ask since the record was written had the value of its cell
    monkeypatch.setattr(frame, "parameters_of", lambda notebook: {**parameters_of(notebook), "new": 0})
    assert stale_because(restored(tmp_path), "train_segmentation", parameters) == ""
    assert "new is 0 there, 1 here" in stale_because(restored(tmp_path), "train_segmentation", {**parameters, "new": 1})
    assert code_changed(records.read_record(restored(tmp_path)), "train_segmentation")


def test_a_run_that_is_published_no_more_goes_away_and_one_made_here_stays(tmp_path):
    folder, made = finish(tmp_path / "made"), finish(tmp_path / "back", name="zero-fill-s0")
    store.publish(tmp_path / "store", [folder], ABOUT)
    store.restore(tmp_path / "store", "book", tmp_path / "back")
    store.publish(tmp_path / "other", [finish(tmp_path / "new", name="u-hemis-s0")], ABOUT)
    store.restore(tmp_path / "other", "book", tmp_path / "back")
    assert not restored(tmp_path).exists() and (made / "record.json").is_file()
    assert sorted(path.name for path in restored(tmp_path).parent.iterdir()) == ["u-hemis-s0", "zero-fill-s0"]
