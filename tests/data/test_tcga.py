"""Tables of breast tumours: what is read, what is refused with which remedy; the real tables where they are at hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmlib.data import tcga

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "tcga_breast"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six training and three test samples; of the tables, one is packed."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3)):
        subtypes = pd.DataFrame({"subtype": list(tcga.SUBTYPES) * (count // 3)})
        subtypes.to_csv(tmp_path / f"{part}_subtype.csv", index=False)
        for name, width, ending in (("mirna", 4, ".csv.gz"), ("mrna", 5, ".csv")):
            table = pd.DataFrame(generator.normal(size=(count, width))).add_prefix(name)
            table.to_csv(tmp_path / f"{part}_{name}{ending}", index=False)
    return tmp_path


def test_both_parts_are_read_packed_or_not(folder):
    train, test = tcga.load(folder)
    assert (train.inferior.shape, train.superior.shape, len(test)) == ((6, 4), (6, 5), 3)
    assert train.subtype.tolist() == [0, 1, 2, 0, 1, 2]
    swapped, _ = tcga.load(folder, "mrna", "mirna")
    assert np.array_equal(swapped.inferior, train.superior)


def test_parts_are_pooled_in_order_and_indexed_by_sample(folder):
    train, test = tcga.load(folder)
    both = tcga.pooled(train, test)
    assert len(both) == 9 and np.array_equal(both[6:].superior, test.superior)
    assert np.array_equal(both[[0, 2]].inferior, train.inferior[[0, 2]])


def test_a_missing_table_says_how_to_write_it(folder):
    (folder / "test_mrna.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_mrna.csv: no such file, nor with .gz; .*mixOmics"):
        tcga.load(folder)


def test_tables_of_another_length_a_gap_or_names_of_rows_are_refused(folder):
    path = folder / "train_mrna.csv"
    table = pd.read_csv(path)
    table.iloc[:5].to_csv(path, index=False)
    with pytest.raises(ValueError, match="train_mrna.csv: 5 samples, but 6 subtypes"):
        tcga.load(folder)
    table.assign(mrna2=[0, 1, np.nan, 3, 4, 5]).to_csv(path, index=False)
    with pytest.raises(ValueError, match="row 4, column 'mrna2' holds no finite number"):
        tcga.load(folder)
    table.set_axis([f"A{row}" for row in range(6)]).to_csv(path)
    with pytest.raises(ValueError, match="row 2, column '' holds no finite number but 'A0'"):
        tcga.load(folder)


@pytest.mark.parametrize("content", [b"", b"a,b\n1\n", "ä\n1\n".encode("latin-1"), b'a,"b\n1,2\n', b"a,a\n1,2\n"])
def test_a_table_that_is_damaged_is_named(folder, content):
    (folder / "train_mrna.csv").write_bytes(content)
    with pytest.raises(ValueError, match="train_mrna.csv: .*; "):
        tcga.load(folder)
    (folder / "test_mirna.csv.gz").write_bytes((folder / "test_mirna.csv.gz").read_bytes()[:-5])
    with pytest.raises(ValueError, match="test_mirna.csv.gz: cannot be read .*; copy it again"):
        tcga._part(folder, "test", "mirna", "mrna")


def test_an_unknown_subtype_or_column_is_named(folder):
    path = folder / "train_subtype.csv"
    pd.DataFrame({"subtype": ["LumB"] * 6}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="unknown subtype 'LumB'; known are Basal, Her2, LumA"):
        tcga.load(folder)
    pd.DataFrame({"x": ["Basal"] * 6}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="has no column subtype but 'x'"):
        tcga.load(folder)


@pytest.mark.skipif(not REAL.is_dir(), reason="the tables of TCGA are not at hand")
def test_the_real_tables_have_the_published_sizes():
    train, test = tcga.load(REAL)
    assert (train.inferior.shape, train.superior.shape) == ((150, 184), (150, 200))
    assert np.bincount(train.subtype).tolist() == [45, 30, 75] and np.bincount(test.subtype).tolist() == [21, 14, 35]
