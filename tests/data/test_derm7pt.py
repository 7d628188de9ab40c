"""Derm7pt: grouping of labels, pairs that are no pairs, the checklist, and folders that are not what they should be."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmlib.data.batches import Minibatches
from mmlib.data.derm7pt import LABELS, TASKS, is_melanoma, load, seven_point_score

COLUMNS = [column for column, _ in LABELS.values()]
EVERY = [  # DIAG, PN, BWV, VS, PIG, STR, DaG, RS: each class of each task at least once
    ("basal cell carcinoma", "absent", "absent", "absent", "absent", "absent", "absent", "absent"),
    ("blue nevus", "typical", "absent", "hairpin", "diffuse regular", "regular", "regular", "absent"),
    ("melanoma (in situ)", "atypical", "present", "dotted", "localized irregular", *2 * ["irregular"], "blue areas"),
    ("vascular lesion", "absent", "absent", "wreath", "localized regular", "absent", "absent", "combinations"),
    ("seborrheic keratosis", "typical", "absent", "linear irregular", "absent", "absent", "regular", "white areas"),
]  # fmt: skip


def write(root: Path, texts: list[tuple[str, ...]] = EVERY, parts: tuple = ()) -> pd.DataFrame:
    """A release of tiny images: case k has the red level 10 k in the photograph, the green one in dermoscopy."""
    (root / "meta").mkdir(parents=True)
    (root / "images" / "NEL").mkdir(parents=True)
    rows = []
    for k, row in enumerate([*texts] * 3):
        names = {"clinic": f"NEL/c{k}.jpg", "derm": f"NEL/d{k}.jpg"}
        for channel, name in enumerate(names.values()):
            pixels = np.zeros((6, 8, 3), np.uint8)
            pixels[..., channel] = 10 * k
            Image.fromarray(pixels).save(root / "images" / name, quality=100)
        rows.append({"case_num": k + 1, **dict(zip(COLUMNS, row, strict=True)), "notes": None, **names})
    count = len(texts)
    for part, rows_of_part in zip(
        ("train", "valid", "test"), parts or [range(k * count, (k + 1) * count) for k in range(3)], strict=True
    ):
        pd.DataFrame({"indexes": list(rows_of_part)}).to_csv(root / "meta" / f"{part}_indexes.csv", index=False)
    meta = pd.DataFrame(rows)
    meta.to_csv(root / "meta" / "meta.csv", index=False)
    return meta


def change(root: Path, row: int, column: str, value: str) -> None:
    meta = pd.read_csv(root / "meta" / "meta.csv")
    meta.loc[row, column] = value
    meta.to_csv(root / "meta" / "meta.csv", index=False)


def test_ids_follow_the_order_of_the_classes_and_labels_are_grouped(tmp_path: Path) -> None:
    write(tmp_path)
    data = load(tmp_path, size=8)
    assert data.train.labels.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 1, 1, 0],
        [2, 2, 1, 2, 2, 2, 2, 1],
        [3, 0, 0, 1, 1, 0, 0, 1],
        [4, 1, 0, 2, 0, 0, 1, 1],
    ]
    assert TASKS["DIAG"] == ("BCC", "NEV", "MEL", "MISC", "SK")
    assert [len(names) for names in TASKS.values()] == [5, 3, 2, 3, 3, 3, 3, 2]


def test_every_label_of_the_release_has_one_class() -> None:
    texts = {column: [text for group in classes.values() for text in group] for column, classes in LABELS.values()}
    assert all(len(set(group)) == len(group) for group in texts.values())
    assert len(texts["diagnosis"]) == 20
    diagnoses = LABELS["DIAG"][1]
    assert "reed or spitz nevus" in diagnoses["NEV"] and "melanoma metastasis" in diagnoses["MEL"]
    assert {"dermatofibroma", "lentigo", "melanosis", "miscellaneous", "vascular lesion"} == set(diagnoses["MISC"])


def test_each_image_stays_with_its_case(tmp_path: Path) -> None:
    write(tmp_path, parts=(range(5), [9, 8, 7, 6, 5], range(10, 15)))
    valid = load(tmp_path, size=4).valid
    assert valid.case == ("10", "9", "8", "7", "6")
    assert valid.labels[:, 0].tolist() == [4, 3, 2, 1, 0]
    for name, channel in (("clinic", 0), ("derm", 1)):
        images = valid.inputs[name]
        assert images.shape == (5, 3, 4, 4) and images.dtype == torch.uint8
        level = images.float().mean(dim=(2, 3))
        assert level[:, channel] == pytest.approx([90, 80, 70, 60, 50], abs=3)
        assert level[:, 2].max() < 6
    assert valid.available.all() and valid.available.shape == (5, 2)


def test_batches_hold_to_the_contract(tmp_path: Path) -> None:
    write(tmp_path)
    train = load(tmp_path, size=4).train
    batch = Minibatches(train, 4, seed=0)[0]
    assert set(batch) == {"inputs", "available", "labels", "case"}
    assert batch["inputs"]["clinic"].shape == (4, 3, 4, 4) and batch["inputs"]["clinic"].dtype == torch.float32
    rows = [train.case.index(name) for name in batch["case"]]
    assert torch.equal(batch["labels"], train.labels[rows])
    assert torch.equal(batch["inputs"]["derm"] * 255, train.inputs["derm"][rows].float())
    assert train[torch.tensor([True, False, False, False, True])]["case"] == ["1", "5"]


def test_a_pair_of_one_file_is_refused_by_its_paths_wherever_it_stands(tmp_path: Path) -> None:
    write(tmp_path, [*EVERY, EVERY[1]])
    change(tmp_path, 5, "clinic", "NEL/d5.jpg")  # case 6; case 5, the row before in number, is sound
    change(tmp_path, 13, "derm", "NEL/c13.jpg")
    with pytest.warns(UserWarning, match="the part test has no case"):
        change(tmp_path, 14, "clinic", "NEL/d14.jpg")
        data = load(tmp_path, size=4)
    assert data.refused == {"train": ("6",), "valid": (), "test": ("14", "15")}
    assert data.train.case == ("1", "2", "3", "4", "5")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [5, 6, 4]
    assert str(data).splitlines()[2] == "test: 4 pairs; 2 refused, being one file twice"


def test_index_files_may_lie_in_the_root(tmp_path: Path) -> None:
    write(tmp_path)
    for part in ("train", "valid", "test"):
        (tmp_path / "meta" / f"{part}_indexes.csv").rename(tmp_path / f"{part}_indexes.csv")
    assert load(tmp_path, size=4).test.case == ("11", "12", "13", "14", "15")


def test_the_score_counts_major_criteria_twice() -> None:
    labels = torch.tensor(
        [
            [0, 0, 0, 0, 0, 0, 0, 0],
            [1, 1, 0, 1, 1, 1, 1, 0],  # typical and regular: nothing
            [2, 2, 0, 0, 0, 0, 0, 0],
            [2, 0, 1, 0, 0, 0, 0, 0],
            [2, 0, 0, 2, 0, 0, 0, 0],
            [1, 0, 0, 0, 2, 2, 2, 1],
            [2, 2, 1, 2, 2, 2, 2, 1],
        ]
    )
    assert seven_point_score(labels).tolist() == [0, 0, 2, 2, 2, 4, 10]
    assert is_melanoma(labels).tolist() == [False, False, True, True, True, False, True]


def test_the_soft_score_is_the_expected_score_and_agrees_with_certain_labels() -> None:
    labels = torch.stack([torch.randint(len(names), (20,)) for names in TASKS.values()], dim=1)
    certain = {
        task: torch.nn.functional.one_hot(labels[:, k], len(names)).float()
        for k, (task, names) in enumerate(TASKS.items())
    }
    assert torch.equal(seven_point_score(certain), seven_point_score(labels).float())
    halves = {task: torch.full((1, len(names)), 1 / len(names)) for task, names in TASKS.items()}
    assert seven_point_score(halves).item() == pytest.approx(
        2 * (1 / 3 + 1 / 2 + 1 / 3) + 1 / 3 + 1 / 3 + 1 / 3 + 1 / 2
    )


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images" / "NEL" / "c7.jpg").unlink()
    with pytest.raises(ValueError, match="case 8: .*c7.jpg is missing; unpack the release again"):
        load(tmp_path, size=4)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images" / "NEL" / "d0.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="case 1: .*d0.jpg cannot be decoded"):
        load(tmp_path, size=4)


@pytest.mark.parametrize("index", ["15", "-1", "1.5"])
def test_an_index_out_of_range_is_named(tmp_path: Path, index: str) -> None:
    write(tmp_path)
    (tmp_path / "meta" / "test_indexes.csv").write_text(f"indexes\n10\n{index}\n")
    with pytest.raises(ValueError, match=f"test_indexes.csv: index {index} is no row of meta.csv, .* rows 0 to 14"):
        load(tmp_path, size=4)


def test_a_part_without_a_case_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "meta" / "test_indexes.csv").write_text("indexes\n")
    with pytest.raises(ValueError, match="test_indexes.csv lists no case"):
        load(tmp_path, size=4)


def test_a_case_in_two_parts_is_refused(tmp_path: Path) -> None:
    write(tmp_path, parts=(range(5), range(5, 10), [4, 11]))
    with pytest.raises(
        ValueError, match="test_indexes.csv: index 4 is also in .*train_indexes.csv; list every case once"
    ):
        load(tmp_path, size=4)


def test_an_unknown_label_is_named_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path)
    change(tmp_path, 6, "streaks", "sometimes")
    with pytest.raises(ValueError, match="case 7 has the streaks 'sometimes', known are absent, regular, irregular"):
        load(tmp_path, size=4)


def test_a_class_absent_from_training_is_an_error_and_from_testing_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "train", parts=([0, 1, 3, 4], range(5, 10), range(10, 15)))
    with pytest.raises(ValueError, match="no training case of DIAG MEL, PN ATP, BWV PRS, PIG IR, STR IR, DaG IR"):
        load(tmp_path / "train", size=4)
    write(tmp_path / "test", parts=(range(5), range(5, 10), [11, 12, 13, 14]))
    with pytest.warns(UserWarning, match="the part test has no case of DIAG BCC, VS ABS; balanced accuracy there"):
        load(tmp_path / "test", size=4)


def test_a_folder_that_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="meta.csv: no such file; expected meta/meta.csv"):
        load(tmp_path)
    write(tmp_path)
    meta = pd.read_csv(tmp_path / "meta" / "meta.csv").drop(columns="streaks")
    meta.to_csv(tmp_path / "meta" / "meta.csv", index=False)
    with pytest.raises(ValueError, match="meta.csv: has no column 'streaks'"):
        load(tmp_path)


DAMAGE = {
    "empty": lambda old: b"",
    "utf-16": lambda old: old.decode().encode("utf-16"),
    "latin-1": lambda old: old.replace(b"case_num", "c\xe4se".encode("latin-1")).replace(b"indexes", b"\xe4"),
    "binary": lambda old: bytes(range(256)) * 9,
    "open quote": lambda old: old + b'"',
    "cut in a row": lambda old: old[:-20],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_meta_file_is_named(tmp_path: Path, damage) -> None:
    write(tmp_path)
    path = tmp_path / "meta" / "meta.csv"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="meta.csv: .*; "):
        load(tmp_path, size=4)


@pytest.mark.parametrize("damage", [*DAMAGE.values()][:-1], ids=[*DAMAGE][:-1])
def test_a_damaged_index_file_is_named(tmp_path: Path, damage) -> None:
    write(tmp_path)
    path = tmp_path / "meta" / "valid_indexes.csv"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="valid_indexes.csv: .*; "):
        load(tmp_path, size=4)


def test_tables_of_a_spreadsheet_are_read_as_the_release(tmp_path: Path) -> None:
    write(tmp_path)
    before = load(tmp_path, size=4)
    for path in (tmp_path / "meta").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b",", b";").replace(b"\n", b"\r\n"))
    after = load(tmp_path, size=4)
    assert after.test.case == before.test.case and torch.equal(after.train.labels, before.train.labels)
    assert torch.equal(after.valid.inputs["derm"], before.valid.inputs["derm"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "meta.csv: case 3: its derm image is not named; correct the row"),
        (
            "../meta/meta.csv",
            "meta.csv: case 3: its derm image is '../meta/meta.csv', expected a path below images/; cor",
        ),
        ("/etc/passwd", "meta.csv: case 3: its derm image is '/etc/passwd', expected a path below images/; correct"),
        ("x" * 300, "meta.csv: row 4, column derm: 300 characters, but a name has at most 255 bytes"),
        ("x/" * 2500, "meta.csv: row 4, column derm: 5,000 characters, but a name has at most 255 bytes, a path 4,000"),
        (3995 // 5 * "abcd/", "case 3: .*abcd is missing; unpack the release again"),  # the path above it is too long
    ],
)
def test_the_name_of_an_image_that_can_be_none(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path)
    change(tmp_path, 2, "derm", name)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, size=4)


def test_a_picture_with_a_wrong_bit_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    change(tmp_path, 0, "derm", "NEL/d0.png")
    path = tmp_path / "images" / "NEL" / "d0.png"
    Image.fromarray(np.full((6, 8, 3), 77, np.uint8)).save(path)
    sound = path.read_bytes()
    path.write_bytes(sound[:-20] + bytes([sound[-20] ^ 4]) + sound[-19:])
    with pytest.raises(ValueError, match="case 1: .*d0.png cannot be decoded .*; copy or unpack it again"):
        load(tmp_path, size=4)


def test_an_image_of_two_cases_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path)
    change(tmp_path, 11, "derm", "NEL/d1.jpg")
    with pytest.warns(UserWarning, match="d1.jpg is an image of case 2 and of case 12; take one of them out"):
        load(tmp_path, size=4)
