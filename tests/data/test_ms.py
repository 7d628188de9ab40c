import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import AFFINE, SHAPE, save
from typer.testing import CliRunner

from mmlib.__main__ import app
from mmlib.data import doctor, ms
from mmlib.data.cases import raw_labels, tensors
from mmlib.data.nifti import write_segmentation
from mmlib.data.resample import resample
from mmlib.data.splits import make_folds
from mmlib.modalities import MRI

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "open_ms"
TAIL = "_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz"
NAMES = {"t1": "T1", "t1ce": "T1POST", "t2": "T2", "flair": "FLAIR", "seg": "GOLD_STANDARD"}


def write_patient(folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A tiny patient in the layout of the data set; returns its volumes by place."""
    rng = np.random.default_rng(seed)
    brain = np.zeros(SHAPE, bool)
    brain[1:-1, 1:-1, 1:-1] = True
    volumes = {name: np.where(brain, rng.uniform(1, 9, SHAPE), 0).astype(np.float32) for name in MRI}
    volumes["seg"] = np.zeros(SHAPE, np.float32)
    volumes["seg"][2, 2, 2:4] = 1
    folder.mkdir(parents=True)
    for place, volume in volumes.items():
        save(folder / f"{NAMES[place]}{TAIL}", volume)
    return volumes


# --- layout ----------------------------------------------------------------------------------------------------


def test_files_are_read_by_modality_and_t1_after_contrast_is_t1ce(tmp_path: Path) -> None:
    volumes = write_patient(tmp_path / "patient07")
    case = ms.load_case(tmp_path / "patient07")
    assert case.name == "patient07" and tuple(case.images) == MRI
    for name in MRI:
        np.testing.assert_array_equal(case.images[name], volumes[name])
    np.testing.assert_array_equal(case.labels, volumes["seg"])
    np.testing.assert_array_equal(case.affine, AFFINE)


def test_the_one_region_is_the_lesion(tmp_path: Path) -> None:
    volumes = write_patient(tmp_path / "patient07")
    case = ms.load_case(tmp_path / "patient07")
    assert case.targets == ("lesion",)
    np.testing.assert_array_equal(case.regions, volumes["seg"][None] > 0)
    sample, frame = tensors(case, MRI)
    assert sample["regions"].shape == (1, *sample["images"].shape[1:]) and int(sample["regions"].sum()) == 2
    np.testing.assert_array_equal(frame.to_native(sample["regions"].numpy()), case.regions)
    assert resample(case, 2.0).targets == ("lesion",), "another grid changes nothing about it"
    written = write_segmentation(tmp_path / "out.nii.gz", case.regions, case)
    assert written.is_file() and raw_labels(case.regions).sum() == 2


def test_a_missing_file_is_a_modality_that_is_not_available(tmp_path: Path) -> None:
    write_patient(tmp_path / "patient07")
    (tmp_path / "patient07" / f"T1POST{TAIL}").unlink()
    cases = ms.MsFolder(tmp_path)
    assert cases["patient07"].available == {"t1": True, "t1ce": False, "t2": True, "flair": True}


def test_cases_lie_at_any_depth_and_are_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b/patient26", "a/patient30"):
        write_patient(tmp_path / name)
    cases = ms.MsFolder(tmp_path)
    assert list(cases) == ["patient26", "patient30"] and cases.subject("patient26") == "patient26"


def test_what_is_no_such_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no patient found; expected .*T1POST.*mmlib fetch open-ms"):
        ms.MsFolder(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        ms.load_case(tmp_path / "patient99")
    with pytest.raises(ValueError, match="no file is named as in this data set"):
        ms.load_case(tmp_path)


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    write_patient(tmp_path / "patient07")
    save(tmp_path / "patient07" / "T2_again.nii.gz", np.ones(SHAPE, np.float32))
    with pytest.raises(ValueError, match="patient07: T2_again.nii.gz beside another file"):
        ms.load_case(tmp_path / "patient07")


def test_the_doctor_knows_the_layout(tmp_path: Path) -> None:
    write_patient(tmp_path / "patient07")
    assert not doctor.faults(doctor.examine("ms", tmp_path))
    save(tmp_path / "patient07" / "PD_x.nii.gz", np.ones(SHAPE, np.float32))
    (finding,) = doctor.faults(doctor.examine("ms", tmp_path))
    assert finding.severity == "warning" and "GOLD_STANDARD" in finding.remedy


# --- folds -----------------------------------------------------------------------------------------------------


def test_as_many_folds_as_patients_leave_one_out(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_patient(tmp_path / f"patient0{number}", number)
    cases = ms.MsFolder(tmp_path)
    folds = make_folds(cases, 3, seed=0)
    assert sorted(name for fold in folds for name in fold.test) == list(cases)
    assert all(len(fold.train) == 2 and fold.valid == () for fold in folds)
    assert all(set(fold.train) | set(fold.test) == set(cases) for fold in folds)
    assert [fold.test for fold in make_folds(cases, 3, seed=0)] == [fold.test for fold in folds]
    with pytest.raises(ValueError, match="holds 3 subjects: 4 folds need at least that many"):
        make_folds(cases, 4, seed=0)


# --- download --------------------------------------------------------------------------------------------------


def test_the_id_of_a_file_is_that_of_git(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    assert ms.git_blob(path) == "ce013625030ba8dba906f756967f9e9ca394464a", "echo hello | git hash-object --stdin"


def test_the_committed_list_has_five_files_of_each_of_thirty_patients() -> None:
    listed = pd.read_csv(ms.PUBLISHED)
    folders = listed["file"].str.split("/").str[0]
    assert len(listed) == 150 and (folders.value_counts() == 5).all() and folders.nunique() == 30
    assert listed["git_blob"].str.fullmatch("[0-9a-f]{40}").all() and listed["git_blob"].is_unique
    assert all(ms.NAMED.fullmatch(name.split("/")[1]) for name in listed["file"])


@pytest.fixture
def server(tmp_path: Path):
    """Serves two files on this machine: its address, the list of the files, and the paths asked for so far."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    site = tmp_path / "site"
    contents = {"patient01/T1_x.nii.gz": b"one" * 1000, "patient02/T1_x.nii.gz": b"two" * 1000}
    rows = []
    for name, content in contents.items():
        (site / name).parent.mkdir(parents=True)
        (site / name).write_bytes(content)
        rows.append((name, hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()))
    listed = tmp_path / "files.csv"
    pd.DataFrame(rows, columns=["file", "git_blob"]).to_csv(listed, index=False)
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=site))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", listed, asked
    http.shutdown()
    http.server_close()


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_download_is_complete_and_a_second_call_asks_for_nothing(server, tmp_path: Path) -> None:
    address, listed, asked = server
    fetched = ms.fetch(tmp_path / "data", address, listed, retries=0)
    assert [path.parent.name for path in fetched] == ["patient01", "patient02"]
    assert fetched[1].read_bytes() == b"two" * 1000
    asked.clear()
    assert ms.fetch(tmp_path / "data", address, listed, retries=0) == [] and asked == []


def test_an_interrupted_download_goes_on_and_leaves_no_half_file(server, tmp_path: Path) -> None:
    address, listed, asked = server
    second = tmp_path / "site" / "patient02" / "T1_x.nii.gz"
    whole = second.read_bytes()
    second.write_bytes(whole[:100])
    with pytest.raises(ValueError, match="patient02/T1_x.nii.gz could not be downloaded .*1 of 2 files"):
        ms.fetch(tmp_path / "data", address, listed, retries=0)
    assert left(tmp_path / "data") == ["patient01/T1_x.nii.gz"]
    second.write_bytes(whole)
    asked.clear()
    assert ms.fetch(tmp_path / "data", address, listed, retries=0) == [tmp_path / "data/patient02/T1_x.nii.gz"]
    assert asked == ["/patient02/T1_x.nii.gz"], "what is there is not asked for again"


def test_a_file_of_the_readers_own_is_not_overwritten(server, tmp_path: Path) -> None:
    address, listed, _ = server
    own = tmp_path / "data" / "patient01" / "T1_x.nii.gz"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(ValueError, match="T1_x.nii.gz is not the published file; move it away"):
        ms.fetch(tmp_path / "data", address, listed, retries=0)
    assert own.read_bytes() == b"mine"


def test_without_a_network_the_command_says_what_to_do(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ms, "fetch", partial(ms.fetch, source="http://127.0.0.1:9", retries=0))
    done = CliRunner().invoke(app, ["fetch", "open-ms", str(tmp_path / "data")])
    assert done.exit_code == 1
    assert "check the network and call again: 0 of 150 files" in done.output and "CC BY" in done.output
    assert left(tmp_path / "data") == []


# --- the real files --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="the three patients of shared/data/open_ms are not here")
def test_real_patients_are_read_and_are_the_published_ones() -> None:
    cases = ms.MsFolder(REAL)
    assert list(cases) == ["patient07", "patient19", "patient26"]
    case = cases["patient07"]
    assert case.labels.shape == (182, 218, 182) and case.axes == "LAS" and int(case.regions.sum()) == 1300
    assert case.spacing == (1, 1, 1) and all(case.available.values())
    blobs = pd.read_csv(ms.PUBLISHED, index_col="file")["git_blob"]
    path = cases.files["patient07"].images["t1ce"]
    assert ms.git_blob(path) == blobs[f"patient07/{path.name}"]
