"""Which lesions are shown, and what the page says of them."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_explorer import KNOWN, answers, lesion_scores
from PIL import Image

from mmlib.analysis.results import Results
from mmlib.data.derm7pt import POINTS, TASKS
from mmlib.data.phantoms.lesion.drawing import photograph
from mmlib.data.phantoms.lesion.model import FIRST, draw
from mmlib.studies import lesions


def test_every_lesion_is_of_one_kind_by_who_is_right() -> None:
    found = lesions.kinds(answers())
    right = ["".join(one) for one in zip(*KNOWN.values(), strict=True)]
    assert right == ["111", "101", "011", "001", "110", "111", "000"]
    assert found.tolist() == [
        "all right",
        "guidance harms",
        "guidance helps",
        "dermoscopy helps",
        "dermoscopy harms",
        "all right",
        "all wrong",
    ]


def test_the_first_by_name_of_each_kind_is_shown_whatever_the_order() -> None:
    found = lesions.kinds(answers())
    chosen = lesions.choose(found.sample(frac=1, random_state=1))
    assert list(chosen) == list(lesions.KINDS) and chosen["all right"] == "200000"
    assert lesions.choose(found.iloc[:2]) == {"guidance harms": "200001", "all right": "200000"}


def test_the_page_has_the_truth_the_probabilities_and_the_counts() -> None:
    made = answers()
    packed = lesions.pack(made, lesion_scores())
    assert sum(kind["count"] for kind in packed["kinds"]) == packed["n"] == 7 and packed["seeds"] == 2
    assert {one["name"]: one["count"] for one in packed["kinds"]}["all right"] == 2
    assert packed["networks"][0]["means"] == [55.0] * 8
    helped = packed["cases"][0]
    place = made.case.index(helped["name"])
    assert helped["kind"] == "guidance helps" and helped["truth"] == made.labels[place].tolist()
    for row, said in helped["said"].items():
        assert [len(task) for task in said] == [len(classes) for classes in TASKS.values()]
        assert all(sum(task) == pytest.approx(1, abs=1e-3) for task in said)
        assert [int(np.argmax(task)) for task in said] == helped["answers"][row]
    lesion = draw(int(helped["name"]))
    for modality, shows in helped["shows"].items():
        assert set(shows) == {sign for sign, how in lesion.shown(modality).items() if how}
        assert set(helped["places"][modality]) == set(shows) - {"elevation"}
    picture = Image.open(io.BytesIO(base64.b64decode(helped["images"]["derm"].split(",")[1])))
    assert picture.size == (lesions.SIZE, lesions.SIZE)


def test_a_sign_is_pointed_at_where_the_picture_would_differ_without_it() -> None:
    found = 0
    for lesion in map(draw, range(FIRST["test"], FIRST["test"] + 12)):
        shown, places = lesion.shown("derm"), lesions.find_signs(lesion, "derm")
        assert list(places) == [sign for sign in POINTS if shown[sign]]
        whole = photograph(lesion.number, shown, "derm", 80).astype(int)
        for sign, (x, y) in places.items():
            changed = np.abs(whole - photograph(lesion.number, {**shown, sign: 0}, "derm", 80)).max(axis=-1) > 20
            down, across = np.argwhere(changed).T
            assert np.hypot(across + 0.5 - 80 * x, down + 0.5 - 80 * y).min() < 4, (lesion.number, sign)
            found += 1
        points = np.array(list(places.values()))
        assert all(
            np.hypot(*(one - other)) >= lesions.APART - 0.01 for k, one in enumerate(points) for other in points[:k]
        )
    assert found > 20


def test_the_atlas_names_every_class_of_the_criteria_with_its_points() -> None:
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in lesions.atlas().axes]
    assert len(set(titles)) == 12 and "blue-whitish veil 2 points" in titles
    assert "typical pigment network 0 points" in titles and "irregular streaks 1 point" in titles


def test_lesions_of_another_phantom_are_refused() -> None:
    made = answers()
    with pytest.raises(ValueError, match="has other labels than the phantom's of this number"):
        lesions.pack(replace(made, labels=made.labels[::-1]), lesion_scores())


def stored(folder: Path, run: str, stand_in: bool, kept: bool) -> dict[str, object]:
    made, place = answers(), folder / run
    place.mkdir()
    arrays = {f"predicted_{row}": one.astype(np.int8) for row, one in made.predicted.items()}
    if kept:
        arrays |= {f"probabilities_{row}": one.astype(np.float16) for row, one in made.probabilities.items()}
    np.savez(place / "latents-s4.npz", case=np.array(made.case), labels=made.labels, **arrays)
    return {"run": run, "folder": str(place), "stand_in": stand_in}


def test_answers_are_those_of_the_first_run_that_kept_them_and_never_of_patients(tmp_path: Path) -> None:
    rows = [stored(tmp_path, *asked) for asked in (("s0", True, False), ("s1", False, True), ("s2", True, True))]
    read = lesions.read_answers(Results(pd.DataFrame(rows), lesion_scores()))
    assert read is not None and read.run == "s2, seed 4" and set(read.predicted) == set(KNOWN)
    assert read.probabilities["both"] == pytest.approx(answers().probabilities["both"], abs=1e-3)
    assert lesions.read_answers(Results(pd.DataFrame(rows[:2]), lesion_scores())) is None
    assert lesions.read_answers(Results(pd.DataFrame(), lesion_scores())) is None
