"""What a folder of the reader's cases allows: said before anything is trained, and nothing else is begun."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pipelines import ROOT, name_cases, snakemake

from pipeline import list_runs, make, own, profile, profiles
from pipeline.make import describe_own_data, write_absent_chapters


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Give a number of cases, some of which lack files, as DATA."""
    for name in own.VARIABLES.values():
        monkeypatch.delenv(name, raising=False)

    def give(count: int, lacking: dict[int, tuple[str, ...]] | None = None) -> Path:
        folder = tmp_path / f"cases-{count}"
        name_cases(folder, count, lacking)
        monkeypatch.setenv("DATA", str(folder))
        return folder

    return give


def test_two_complete_cases_allow_segmentation_only_and_nothing_is_trained(given) -> None:
    folder = given(4, {0: ("t1ce",), 1: ("seg",)})
    with pytest.raises(ValueError, match=r"4 cases, 2 complete \(t1, t1ce, t2, flair and a segmentation\)") as refused:
        describe_own_data("smoke", 2)
    assert "at least 3 subjects. It allows segmentation only; nothing is trained" in str(refused.value)
    assert f"-p data {folder} -p layout brats" in str(refused.value)


def test_a_case_whose_name_holds_control_characters_is_refused_before_anything_is_made(given) -> None:
    folder = given(3)
    (folder / "case-00").rename(folder / "\x1b[31mred\n")
    with pytest.raises(SystemExit) as ended:
        make.make_book([])
    assert "holds a line break or another control character; rename" in str(ended.value.code)
    assert "\x1b" not in str(ended.value.code)


def test_three_cases_are_tested_in_three_folds_and_tell_no_methods_apart(given) -> None:
    given(3)
    said = describe_own_data("smoke", 1)
    assert "It allows training. 3 subjects are tested; to tell methods apart takes 6 or more." in said
    names = list(list_runs("smoke-own", "segmentation"))
    assert [name for name in names if name.startswith("u-hemis")] == [f"u-hemis-s0-fold{fold}" for fold in (1, 2, 3)]
    # per fold: two seeds of shaspec at 0.5 minutes, one of released at 0.5, five others at 0.4
    told = re.search(r"(\d+) runs are to be made, about (\d+) minutes on 1 cores by the profile", said)
    assert told and int(told[1]) == len(names) and abs(int(told[2]) - 3 * (1.5 + 5 * 0.4)) <= 0.5


def test_what_does_not_read_folds_is_left_out_and_said_to_be(given) -> None:
    given(6)
    said = describe_own_data("smoke", 2)
    assert "It allows training, and comparison with intervals: 6 subjects are tested." in said
    assert "Chapters: 01_shaspec_segmentation, 02_your_data." in said and "Left out are 00_phantom, 03_" in said
    settings = profile("smoke-own")
    assert list(settings["experiments"]) == ["segmentation"] and list(settings["data"]) == ["brats"]
    shown = settings["chapters"]["01_shaspec_segmentation"]["parameters"]["run"]
    assert shown in list_runs("smoke-own", "segmentation")


def test_nobody_is_left_to_validate_on_in_folds_so_the_number_of_steps_is_fixed(given) -> None:
    given(6)
    runs = list_runs("quick-own", "segmentation").values()
    assert {run["patience"] for run in runs} == {0.0} and {run.get("cases_valid", 0) for run in runs} == {0}


def test_incomplete_cases_train_in_every_fold_and_are_tested_in_none(given) -> None:
    folder = given(12, {2: ("t2",), 5: ("t1", "flair"), 9: ("seg",)})
    said = describe_own_data("smoke", 2)
    assert "12 cases, 9 complete" in said and "2 incomplete cases: trained on, not tested" in said
    assert "1 case without a segmentation: not used." in said
    assert not [name for name in list_runs("smoke-own", "segmentation") if name.startswith("dedicated")]
    splits = own.make_splits("brats", str(folder), 3)
    assert list(splits) == ["-fold1", "-fold2", "-fold3"]
    tested = sorted(name for split in splits.values() for name in split.test)
    assert tested == [f"case-{number:02d}" for number in (0, 1, 3, 4, 6, 7, 8, 10, 11)]
    for split in splits.values():
        assert {"case-02", "case-05"} <= set(split.train) and "case-09" not in split.subjects
        assert len(split.train) == 6 + 2 and not split.valid


def test_many_cases_have_one_split_and_the_whole_book(given) -> None:
    folder = given(31, {3: ("t2",)})
    said = describe_own_data("smoke", 2)
    assert "comparison with intervals: 6 subjects are tested" in said and "07_deep_guidance" in said
    assert "Left out" not in said
    splits = own.make_splits("brats", str(folder))
    assert "case-03" in splits[""].train and "case-03" not in splits["-complete"].train
    assert splits[""].test == splits["-complete"].test and len(splits[""].test) == 6
    assert list_runs("smoke-own", "segmentation")["dedicated-t1ce-s0"]["split"].endswith("brats-complete.csv")
    assert list_runs("smoke-own", "segmentation")["shaspec-paper-s0"]["split"].endswith("brats.csv")
    assert {run["split"][-12:] for run in list_runs("smoke-own", "distillation").values()} == {"complete.csv"}


def test_slices_of_any_size_find_room_on_the_canvas_and_the_plan_takes_longer(given) -> None:
    folder = given(31)
    asked = list_runs("smoke-own", "synthesis")["mm-gan"]
    minutes = profiles.groups("smoke-own", "synthesis")["mm-gan"]["minutes"]
    assert asked["size"] == [32, 24]  # of the profile: no file here has a header
    turned = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])  # first axis to the front
    for name, shape, affine in (("case-01", (20, 41, 9), np.eye(4)), ("case-02", (30, 50, 9), turned)):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), affine), folder / name / f"{name}_t1.nii.gz")
    own.widest.cache_clear()
    assert list_runs("smoke-own", "synthesis")["mm-gan"]["size"] == [48, 56]  # 41 to the front, 50 to the right
    assert list_runs("smoke-own", "synthesis-steps")["mm-gan"]["size"] == [48, 56]
    longer = profiles.groups("smoke-own", "synthesis")["mm-gan"]["minutes"]
    assert longer == pytest.approx(minutes * 48 * 56 / (32 * 24))


def test_the_number_of_test_subjects_that_is_said_is_that_of_the_split(given) -> None:
    for count in (28, 29, 33, 40, 57):
        found = own.look("brats", str(given(count)))
        assert not found.in_folds
        assert found.tested == len(own.make_splits("brats", found.folder)[""].test)


def test_a_table_can_be_segmented_and_is_not_trained_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "my cases.csv"
    table.write_text("case,t1\na,a.nii\n")
    monkeypatch.setenv("DATA", str(table))
    with pytest.raises(
        ValueError, match="cases of a table can be segmented, and nothing is trained on them"
    ) as refused:
        describe_own_data("smoke", 2)
    assert f"-p data '{table}' -p layout table" in str(refused.value)


def test_patients_are_counted_and_compared_as_their_chapter_does(given, monkeypatch, tmp_path: Path) -> None:
    given(6)
    folder = tmp_path / "patients"
    for number in range(6):
        (folder / f"patient{number:02d}").mkdir(parents=True)
        (folder / f"patient{number:02d}" / "T1_x.nii.gz").touch()
    monkeypatch.setenv("MS", str(folder))
    said = describe_own_data("smoke", 2)
    assert "6 cases of 6 subjects.\n  It allows training. 6 subjects are tested; to tell methods apart takes 10" in said
    assert "Chapters: 01_shaspec_segmentation, 02_your_data, 08_real_patients." in said
    assert {run["split"][-9:] for run in list_runs("smoke-own", "patients").values()} == {
        f"fold{fold}.csv" for fold in (1, 2, 3)
    }


def test_one_test_subject_of_slices_gives_no_interval(given, monkeypatch, tmp_path: Path) -> None:
    given(6)
    monkeypatch.delenv("DATA")
    folder = tmp_path / "ixi"
    folder.mkdir()
    for number in range(3):
        for kind in ("T1", "T2", "PD"):
            (folder / f"IXI00{number}-Guys-0{number}-{kind}.nii.gz").touch()
    monkeypatch.setenv("IXI", str(folder))
    said = describe_own_data("smoke", 2)
    assert "IXI=" in said and "1 subject is tested: no interval; to tell methods apart takes 6 or more" in said
    assert "06_m2dn" in said and "Left out" not in said


def test_without_own_data_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in own.VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    assert describe_own_data("smoke", 2) == ""


def test_the_pipeline_ends_before_it_begins_where_nothing_can_be_trained(given, tmp_path: Path) -> None:
    done = snakemake(ROOT, PROFILE="smoke", DATA=str(given(2)), HTML=str(tmp_path / "html"))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("DATA=") and "Traceback" not in done.stderr


def test_a_chapter_that_is_left_out_has_a_page_that_says_why(given, tmp_path: Path) -> None:
    given(6)
    book = tmp_path / "book"
    (book / "chapters").mkdir(parents=True)
    shutil.copy(ROOT / "book" / "_toc.yml", book)
    (book / "chapters" / "01_shaspec_segmentation.ipynb").write_text("made")
    write_absent_chapters("smoke-own", book)
    pages = sorted(path.stem for path in (book / "chapters").iterdir())
    assert pages == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.md"))
    assert (book / "chapters" / "01_shaspec_segmentation.ipynb").read_text() == "made"
    (cell,) = json.loads((book / "chapters" / "05_protokd.ipynb").read_text())["cells"]
    assert cell["source"].startswith("# ") and "Left out: the folder has few subjects" in cell["source"]


def test_the_plan_of_a_folder_is_its_own_in_make_too(given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(3)
    (tmp_path / "profiles").mkdir()
    shutil.copy(ROOT / "profiles" / "smoke.yaml", tmp_path / "profiles")
    for module in (profiles, make):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setattr(make, "_check_own", lambda data: None)  # the files are empty
    make.make_data("smoke-own", "brats")
    made = sorted(path.name for path in (tmp_path / "build" / "data" / "smoke-own").glob("[!.]*"))
    assert made == ["brats-fold1.csv", "brats-fold2.csv", "brats-fold3.csv", "brats.json"]
