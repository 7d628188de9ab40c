from pathlib import Path

import numpy as np
import pytest
from conftest import AFFINE, SHAPE, save, tiny_volumes

from mmlib.data.table import TableCases, read_table
from mmlib.modalities import IXI

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "brats13"


@pytest.fixture
def files(tmp_path):
    """Images of two cases under names of one's own, background -3 as in images normalised by others."""
    volumes = tiny_volumes()
    brain = (volumes["t1"] > 0).astype(np.float64) * 0.99999997
    for case in "ab":
        for name in ("t1ce", "flair"):
            save(tmp_path / case / f"{name.upper()}_norm.nii.gz", np.where(brain > 0, volumes[name] / 500, -3.0))
        save(tmp_path / case / "truth.nii.gz", volumes["seg"].astype(np.float32))
        save(tmp_path / case / "brain.nii.gz", brain)
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_names_the_files_and_an_empty_cell_means_missing(files):
    path = write(
        files,
        "case,t1,flair,t1ce,seg,brain,subject,enhancing_label",
        "a,,a/FLAIR_norm.nii.gz,a/T1CE_norm.nii.gz,a/truth.nii.gz,a/brain.nii.gz,P1,4",
        f"b, ,{files}/b/FLAIR_norm.nii.gz,,,,,",
        "",
    )
    cases = TableCases(path)
    assert list(cases) == ["a", "b"] and cases.subject("a") == "P1" and cases.subject("b") == "b"
    one, other = cases["a"], cases["b"]
    assert one.available == {"t1": False, "t1ce": True, "t2": False, "flair": True}
    assert list(one.images) == ["t1ce", "flair"]
    assert one.enhancing_label == 4 and other.enhancing_label is None
    assert one.brain.sum() == 4 * 6 * 8 and one.brain.dtype == bool
    assert one.images["flair"].dtype == np.float32 and one.images["flair"][0, 0, 0] == -3
    np.testing.assert_array_equal(one.labels, tiny_volumes()["seg"])
    assert list(other.images) == ["flair"] and other.labels is None and other.brain is None


def test_other_modalities_can_be_asked_for(files):
    path = write(files, "case,pd", "a,a/FLAIR_norm.nii.gz")
    assert TableCases(path, modalities=IXI)["a"].available == {"t1": False, "t2": False, "pd": True}
    with pytest.raises(ValueError, match="unknown column 'pd'; columns are case, t1, t1ce, t2, flair, seg, brain"):
        TableCases(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["case,t1,T2", "a,x,y"], "unknown column 'T2'"),
        (["t1", "x"], "needs the column case"),
        (["case,seg", "a,x"], "at least one of t1, t1ce, t2, flair"),
        (["case,flair", "a,a/FLAIR_norm.nii.gz", "a,b/FLAIR_norm.nii.gz"], "row 3: case a is in row 2 too"),
        (["case,flair", "", "a,nowhere.nii.gz"], r"row 3: case a, flair: file not found: .*nowhere.nii.gz; correct"),
        (["case,flair,seg", "a,a/FLAIR_norm.nii.gz,no.nii"], "row 2: case a, seg: file not found"),
        (["case,flair,seg", "a,,a/truth.nii.gz"], "row 2: case a has no modality at all; fill one of t1, t1ce"),
        (["case,flair", ",a/FLAIR_norm.nii.gz"], "row 2: the case has no name"),
        (["case,flair,enhancing_label", "a,a/FLAIR_norm.nii.gz,2"], "row 2: .*enhancing_label must be 3, 4 or empty"),
        (["case,flair"], "the table has no row"),
        (["case,flair", "a,b,c,d"], "row 2: 4 cells, but there are 2 columns; quote commas"),
        (["case,flair,flair", "a,b,c"], "the column 'flair' occurs twice; name every column once"),
        (
            ["case,flair", '"a,b'],
            r"table.csv: is not a CSV, row 2: a quotation mark stays open, expected .*flair; correct",
        ),
        ([""], "table.csv: is empty, expected a CSV with the columns case and t1, t1ce, t2, flair; save"),
        (["case,flair", "../../x,a/FLAIR_norm.nii.gz"], "row 2: the case is called '../../x', but no /"),
        (["case,flair", "a" * 300 + ",a/FLAIR_norm.nii.gz"], "row 2: column case: 300 characters, but .* 255 bytes"),
        (
            ["case,flair", "a,b/" + 5000 * "c"],
            "row 2: column flair: 5,002 characters, but .* 255 bytes, a path 4,000: 'b/ccc",
        ),
        (["case,flair", "a," + 900 * "abcdefgh/"], "row 2: column flair: 8,100 characters, but .* 255 bytes"),
    ],
)
def test_faults_are_named_with_their_row(files, lines, message):
    with pytest.raises(ValueError, match=message):
        TableCases(write(files, *lines))


def test_all_faults_come_at_once_and_the_rest_can_be_used(files):
    path = write(files, "case,flair", "a,no.nii", "b,b/FLAIR_norm.nii.gz", "b,b/FLAIR_norm.nii.gz")
    usable, problems = read_table(path)
    assert [one.name for one in usable] == ["b"] and len(problems) == 2
    with pytest.raises(ValueError, match=r"row 2: (.|\n)*row 4: "):
        TableCases(path)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"none.csv: no such file; expected a CSV with the columns case and t1"):
        TableCases(tmp_path / "none.csv")


def test_images_of_a_row_must_share_a_grid(files):
    save(files / "a" / "other.nii.gz", np.ones(SHAPE, np.float32), 2 * AFFINE)
    path = write(files, "case,t1,flair", "a,a/other.nii.gz,a/FLAIR_norm.nii.gz")
    with pytest.raises(ValueError, match="FLAIR_norm.nii.gz: affine.*but.*in other.nii.gz; resample"):
        TableCases(path)["a"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real scans of shared/data/brats13 are not here")
def test_real_scans_with_two_modalities_missing(tmp_path):
    name = "brats_2013_pat0004_1"
    row = ",".join(
        str(REAL / name / f"{stem}.nii.gz")
        for stem in ("T1c_subtrMeanDivStd", "Flair_subtrMeanDivStd", "OTMultiClass", "brainmask")
    )
    case = TableCases(write(tmp_path, "case,t1ce,flair,seg,brain,enhancing_label", f"{name},{row},4"))[name]
    assert case.available == {"t1": False, "t1ce": True, "t2": False, "flair": True}
    assert case.brain_mask.sum() == 1245191 and set(np.unique(case.labels)) == {0, 1, 2, 3, 4}
    assert abs(case.images["flair"][case.brain_mask].mean()) < 0.05
