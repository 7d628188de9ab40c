"""Tables that somebody else wrote: what is read whatever program saved it, and one sentence for each damage."""

import gzip

import pytest

from mmlib.data import csv_files
from mmlib.data.csv_files import read_csv, read_rows
from mmlib.data.splits import read_split

PLAIN = "case,part\nä 1,train\nb,test\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.removesuffix("\n").encode(),
        PLAIN.replace("\n", ",,\n").encode(),
        PLAIN.replace(",", " , ").encode(),
        '"case","part"\n"ä 1","train"\n"b","test"\n'.encode(),
    ],
    ids=["plain", "mark", "semicolons", "tabs", "crlf", "cr", "no end", "separators behind", "blanks", "quoted"],
)
def test_what_programs_save_is_read_alike(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    table = read_csv(path, ["case", "part"], filled=["case", "part"])
    assert table.to_dict("index") == {2: {"case": "ä 1", "part": "train"}, 3: {"case": "b", "part": "test"}}


def test_rows_keep_their_number_in_the_file_and_text_is_not_interpreted(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('\ncase,note\n\n001,"a, b"\nNA,\n')
    columns, rows = read_rows(path, "a CSV")
    assert columns == ["case", "note"] and rows == [(4, ["001", "a, b"]), (5, ["NA", ""])]
    with gzip.open(tmp_path / "table.csv.gz", "wt") as stream:
        stream.write("x\n1\n")
    assert read_csv(tmp_path / "table.csv.gz")["x"].tolist() == ["1"]


DAMAGE = {
    "empty": (b"", "is empty, expected a CSV in UTF-8 that has case, part in its header; save the table again as CSV"),
    "blank": (b" \n\n", "is empty, expected"),
    "utf-16": (PLAIN.encode("utf-16"), "is text in UTF-16, expected a CSV in UTF-8 .*; save the table again"),
    "utf-16 without mark": (
        "case,part\nb,test\n".encode("utf-16-le"),
        "is text in UTF-16, or no text at all, expected",
    ),
    "latin-1": (PLAIN.encode("latin-1"), r"is not text in UTF-8 \(byte 0xe4 in row 2, as in Latin-1\), expected"),
    "binary": (bytes(range(256)), "is text in UTF-16, or no text at all|is not text in UTF-8"),
    "workbook": (b"PK\x03\x04\x14\x00", "is a workbook or an archive, expected"),
    "gzip": (gzip.compress(PLAIN.encode()), "is packed by gzip, expected"),
    "short row": (b"case,part\na,train\nb\n", "row 3 has 1 cell, but there are 2 columns; complete the row"),
    "long row": (b"case,part\na,train,x\n", "row 2 has 3 cells, but there are 2 columns; "),
    "open quote": (
        b'case,part\na,train\n"b,test\nc,test\n',
        "is not a CSV, row 3: a quotation mark stays open, expected",
    ),
    "text behind quote": (b'case,part\n"a"b,train\n', "is not a CSV, row 2: .*, expected .*; correct the row, or save"),
    "endless cell": (b'case,part\n"' + b"a" * 200_000, "is not a CSV, row 2: field larger than"),
    "no column": (b"case,fold\na,1\n", "has no column 'part' but 'case', 'fold', expected .*; correct the header"),
    "column twice": (b"case,part,case\na,train,a\n", "the column 'case' occurs twice; name every column once"),
    "empty cell": (b"case,part\n,train\n", "row 2, column case: the cell is empty; correct the cell"),
    "name of 300": (
        b"case,part\n" + b"a" * 300 + b",x\n",
        "row 2, column case: 300 characters, but a name has at most 255",
    ),
    "name of 5000": (
        b"case,part\nb," + b"a" * 5000 + b"\n",
        "row 2, column part: 5,000 characters, but .*: 'a+...a+'; cor",
    ),
    "line break": (b'case,part\n"a\nb",x\n', r"row 3, column case: 'a\\nb' holds a line break or another control char"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_table_is_told_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: ({message})") as caught:
        read_csv(path, ["case", "part"], filled=["case", "part"])
    assert len(str(caught.value)) < 400 + len(str(path)) and "\n" not in str(caught.value)


def test_a_table_that_is_too_large_unreadable_or_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "BYTES", 20)
    path = tmp_path / "table.csv"
    path.write_text(PLAIN)
    with pytest.raises(
        ValueError, match="table.csv: holds more than 20 bytes, expected a CSV in UTF-8; give the right file"
    ):
        read_csv(path)
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory\), expected a CSV in UTF-8; copy it again"):
        read_csv(tmp_path)
    packed = tmp_path / "table.csv.gz"
    packed.write_bytes(gzip.compress(b"x\n1\n")[:-4])
    with pytest.raises(ValueError, match=r"table.csv.gz: cannot be read \(Compressed file ended.*\), expected a CSV"):
        read_csv(packed)


@pytest.mark.parametrize("content", [content for content, _ in DAMAGE.values()], ids=DAMAGE)
def test_no_damage_of_a_split_escapes_as_another_error(tmp_path, content):
    path = tmp_path / "split.csv"
    path.write_bytes(content.replace(b"case,part", b"case,subject,part"))
    with pytest.raises(ValueError, match=r"split.csv: .*; "):
        read_split(path)


def test_a_split_of_a_spreadsheet_is_the_split(tmp_path):
    text = "case,subject,part\na-1,a,train\nb,b,test\n"
    (tmp_path / "one.csv").write_text(text)
    (tmp_path / "other.csv").write_bytes(b"\xef\xbb\xbf" + text.replace(",", ";").replace("\n", "\r\n").encode())
    assert read_split(tmp_path / "one.csv").hash == read_split(tmp_path / "other.csv").hash
