"""The doctor on layouts of pairs: sound folders are clean, each fault is one finding, and nothing makes it raise."""

import gzip
import hashlib
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_avmnist import idx, wav, write_mnist, write_recordings
from test_derm7pt import change
from test_derm7pt import write as write_derm7pt
from test_radpath import save_volume
from test_radpath import write as write_radpath
from typer.testing import CliRunner

from mmlib.__main__ import app
from mmlib.data import avmnist, checkups, doctor

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def faults(layout: str, root: Path) -> list[tuple[str, str, str, str]]:
    """Severity, case, file and what, of errors and warnings."""
    found = doctor.faults(doctor.examine(layout, root))
    assert all(one.remedy and "\n" not in one.what and str(root) not in one.what for one in found)
    return [(one.severity, one.case, one.file, one.what) for one in found]


# --- Derm7pt ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lesions(tmp_path) -> Path:
    """Fifteen pairs, no two images alike."""
    write_derm7pt(tmp_path)
    for place, path in enumerate(sorted((tmp_path / "images" / "NEL").iterdir())):
        Image.fromarray(np.full((6, 8, 3), 5 * place, np.uint8)).save(path)
    return tmp_path


def test_a_sound_release_of_lesions_is_clean(lesions):
    assert faults("derm7pt", lesions) == []
    result = CliRunner().invoke(app, ["doctor", "derm7pt", str(lesions)])
    assert result.exit_code == 0 and "clean: 0 errors, 0 warnings, 3 notes" in result.output


def test_every_fault_of_a_release_of_lesions_is_a_finding(lesions):
    images = lesions / "images" / "NEL"
    (images / "c0.jpg").unlink()
    (images / "d1.jpg").write_bytes((images / "d1.jpg").read_bytes()[:-2])
    (images / "c2.jpg").write_bytes((images / "d3.jpg").read_bytes())
    change(lesions, 5, "streaks", "sometimes")
    change(lesions, 6, "clinic", "NEL/d6.jpg")
    change(lesions, 7, "derm", "")
    assert [one[:3] for one in faults("derm7pt", lesions)] == [
        ("error", "1", "c0.jpg"),
        ("error", "2", "d1.jpg"),
        ("error", "6", "meta.csv"),
        ("error", "8", "meta.csv"),
        ("warning", "4", "d3.jpg"),
    ]
    what = {one.case: one.what for one in doctor.examine("derm7pt", lesions)}
    assert what["1"] == "images/NEL/c0.jpg is missing" and "cut off" in what["2"]
    assert what["6"] == ("meta/meta.csv: case 6 has the streaks 'sometimes', known are absent, regular, irregular")
    assert what["4"] == "the same as c2.jpg of case 3"
    assert what["7"] == "photograph and dermoscopic image are one file, d6.jpg: the pair is refused"
    assert what["8"] == "meta/meta.csv: case 8: its derm image is not named"


def test_lists_of_lesions_that_cannot_be_read_or_lack_a_class(lesions):
    (lesions / "meta" / "test_indexes.csv").write_text("indexes\n10\n11\n12\n13\n")
    (one,) = faults("derm7pt", lesions)
    assert one == ("warning", "", "test_indexes.csv", "the part test has no case of DIAG SK")
    meta = lesions / "meta" / "meta.csv"
    meta.write_bytes(meta.read_bytes() + b'"')
    ((severity, _, _, what),) = faults("derm7pt", lesions)
    assert severity == "error" and what.startswith("meta/meta.csv: is not a CSV, row 17: a quotation mark stays open")
    meta.unlink()
    assert "meta/meta.csv: no such file" in faults("derm7pt", lesions)[0][3]


def test_a_case_number_that_occurs_twice_in_a_part(lesions):
    table = pd.read_csv(lesions / "meta" / "meta.csv")
    table.loc[1, "case_num"] = 1
    table.to_csv(lesions / "meta" / "meta.csv", index=False)
    assert faults("derm7pt", lesions) == [("warning", "1", "meta.csv", "2 rows of the part train have this case_num")]


# --- RadPath ---------------------------------------------------------------------------------------------------


def test_a_sound_folder_of_scans_and_slides_is_clean(tmp_path):
    write_radpath(tmp_path)
    assert faults("radpath", tmp_path) == []
    (note,) = doctor.examine("radpath", tmp_path)
    assert note.what == "9 cases; an experiment can take t1 or t1ce, which all of them have"


def test_every_fault_of_scans_and_slides_is_a_finding(tmp_path):
    mri, patches = write_radpath(tmp_path) / "mri", tmp_path / "patches"
    scan = mri / "case-0" / "case-0_t1.nii.gz"
    scan.write_bytes(scan.read_bytes()[:-40])
    (mri / "case-1" / "case-1_t1.nii.gz").write_bytes((mri / "case-2" / "case-2_t1.nii.gz").read_bytes())
    save_volume(mri / "case-3" / "case-3_t1.nii", 77)
    save_volume(mri / "more" / "case-8" / "case-8_t1.nii.gz", 78)
    for path in (mri / "case-4").iterdir():
        path.unlink()
    for path in (patches / "case-5").iterdir():
        path.unlink()
    (patches / "case-6" / "00.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(patches / "case-7" / "03.png")
    classes = tmp_path / "classes.csv"
    classes.write_text(classes.read_text().replace("case-8,A\n", ""))
    assert [one[:3] for one in faults("radpath", tmp_path)] == [
        ("error", "", "mri"),
        ("error", "case-0", "case-0_t1.nii.gz"),
        ("error", "case-3", "case-3_t1.nii.gz"),
        ("error", "case-4", ""),
        ("error", "case-5", "patches"),
        ("error", "case-6", "00.png"),
        ("error", "case-7", "03.png"),
        ("error", "case-8", ""),
        ("error", "case-8", "classes.csv"),
        ("warning", "", "split.csv"),
        ("warning", "case-2", "case-2_t1.nii.gz"),
    ]


def test_lists_of_scans_and_slides_that_cannot_be_read(tmp_path):
    split = write_radpath(tmp_path) / "split.csv"
    split.write_bytes(split.read_text().encode("utf-16"))
    ((severity, _, _, what),) = faults("radpath", tmp_path)
    assert severity == "error" and what.startswith("split.csv: is text in UTF-16")
    split.unlink()
    assert "split.csv: no such file" in faults("radpath", tmp_path)[0][3]


def test_sizes_that_make_no_batch(tmp_path):
    write_radpath(tmp_path)
    other = nibabel.Nifti1Image(np.random.default_rng(0).random((3, 4, 6)), np.eye(4))
    nibabel.save(other, tmp_path / "mri" / "case-1" / "case-1_t1ce.nii.gz")
    for path in (tmp_path / "patches" / "case-2").iterdir():
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    assert [one[1:] for one in faults("radpath", tmp_path)] == [
        ("case-1", "case-1_t1ce.nii.gz", "the shape (6, 4, 3), but (5, 4, 3) in most volumes of t1ce"),
        ("case-2", "patches", "the shape (9, 9, 3), but (6, 7, 3) in most slides"),
    ]


# --- avMNIST ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("fsdd") / "recordings")


@pytest.fixture
def digits(recordings, tmp_path, monkeypatch) -> Path:
    """Made-up digits that count as MNIST's and FSDD's."""
    write_mnist(tmp_path)
    (tmp_path / "recordings").mkdir()
    for path in recordings.iterdir():
        (tmp_path / "recordings" / path.name).symlink_to(path)
    for name in avmnist.MNIST_MD5:
        path = avmnist.find_idx(tmp_path, name)
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        monkeypatch.setitem(avmnist.MNIST_UNPACKED_MD5, name, hashlib.md5(content).hexdigest())
    found, _ = avmnist.find_recordings(tmp_path)
    monkeypatch.setattr(avmnist, "FSDD_SHA256", avmnist.recordings_hash(found.values()))
    return tmp_path


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # a link to what other tests use
    path.write_bytes(content)


def test_sound_digits_are_clean(digits):
    assert faults("avmnist", digits) == []
    (note,) = doctor.examine("avmnist", digits)
    assert note.what == (
        "train-images-idx3-ubyte 1100, train-labels-idx1-ubyte 1100, t10k-images-idx3-ubyte 500, "
        "t10k-labels-idx1-ubyte 500, recordings 1500"
    )


def test_every_fault_of_digits_is_a_finding(digits):
    (digits / "train-labels-idx1-ubyte").unlink()
    (digits / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(499) % 10, 2049))
    images = digits / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-3])
    replace(digits / "recordings" / "0_jackson_0.wav", wav()[:-100])
    replace(digits / "recordings" / "1_theo_1.wav", wav(rate=44100))
    (digits / "recordings" / "2_theo_3.wav").rename(digits / "recordings" / "2_theo_03.wav")
    assert [(one[0], one[2], one[3][:60]) for one in faults("avmnist", digits)] == [
        ("error", "", "recordings/2_theo_03.wav: is not named as a recording of FSDD"[:60]),
        ("error", "", "recordings: digit 2 of theo has 49 recordings, expected the i"[:60]),
        ("error", "0_jackson_0.wav", "recordings/0_jackson_0.wav: cannot be read as WAV, its header"[:60]),
        ("error", "1_theo_1.wav", "recordings/1_theo_1.wav: format 1, 16 bits, 44100 Hz, 1 channel"[:60]),
        ("error", "t10k-images-idx3-ubyte", "500 images, but 499 labels"),
        ("error", "train-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz: is cut off or damaged (Compressed"[:60]),
        ("error", "train-labels-idx1-ubyte", "it is missing (or train-labels-idx1-ubyte.gz), in the folder"[:60]),
        ("warning", "", "t10k-labels-idx1-ubyte: not byte for byte those of MNIST and FSDD"[:60]),
    ]


def test_other_recordings_than_the_known_ones_are_a_warning(digits):
    replace(digits / "recordings" / "0_jackson_0.wav", wav())
    ((severity, _, _, what),) = faults("avmnist", digits)
    assert severity == "warning" and what.startswith("recordings: not byte for byte those of MNIST and FSDD")


@pytest.mark.skipif(not (SHARED / "fsdd").is_dir(), reason="the recordings of shared/data/fsdd are not here")
def test_the_real_recordings_and_test_images_are_sound():
    assert [(severity, file) for severity, _, file, _ in faults("avmnist", SHARED)] == [
        ("error", "train-images-idx3-ubyte"),
        ("error", "train-labels-idx1-ubyte"),
    ]


# --- whatever lies in a folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", checkups.CHECKUPS)
def test_folders_of_another_kind_are_not_clean_and_nothing_is_raised(tmp_path, layout):
    (tmp_path / "file").write_bytes(bytes(99))
    (tmp_path / "meta" / "meta.csv").mkdir(parents=True)
    (tmp_path / "classes.csv").mkdir()
    (tmp_path / "recordings").write_text("a file")
    for path in (tmp_path, tmp_path / "file"):
        assert CliRunner().invoke(app, ["doctor", layout, str(path)]).exit_code == 1
    assert CliRunner().invoke(app, ["doctor", layout, str(tmp_path / "none")]).exit_code == 2


def test_an_error_that_nobody_thought_of_is_a_finding_and_the_rest_is_looked_at(lesions, monkeypatch):
    read = checkups.derm7pt.read_image

    def failing(path, size):
        if path.name == "c4.jpg":
            raise MemoryError("no memory\nleft")
        return read(path, size)

    monkeypatch.setattr(checkups.derm7pt, "read_image", failing)
    (lesions / "images" / "NEL" / "c9.jpg").unlink()
    first, second = faults("derm7pt", lesions)
    assert second == ("error", "5", "c4.jpg", "cannot be checked (MemoryError: no memory left)") and first[1] == "10"
