"""What training cases lack: once for each case, by the mechanism asked for, and never opened."""

import numpy as np
import pytest
import torch
from conftest import CLASSIC, save, tiny_volumes

from mmlib.data.batches import Crops, Samples
from mmlib.data.brats import BratsFolder
from mmlib.data.missingness import (
    complete_in,
    draw_hospitals,
    draw_lacking,
    lacking,
    share_missing,
    suspected,
)
from mmlib.modalities import MRI

CONTRAST = MRI.index("t1ce")
EVERY = torch.ones(200, 4, dtype=torch.bool)


@pytest.fixture
def cases(tmp_path, write_case):
    for seed in range(6):
        write_case(tmp_path / f"case-{seed}", seed)
    return BratsFolder(tmp_path)


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.6, 0.9])
def test_a_share_is_missing_and_each_case_keeps_a_modality(chance):
    kept = draw_lacking(EVERY, chance, seed=1)
    assert kept.any(dim=1).all() and kept.any(dim=0).all()
    assert 1 - kept.float().mean() == pytest.approx(share_missing(chance, 4), abs=0.05)
    assert torch.equal(kept, draw_lacking(EVERY, chance, seed=1))
    assert torch.equal(kept[:12], draw_lacking(EVERY[:12], chance, seed=1)), "more cases, other gaps in the first"
    assert chance == 0 or not torch.equal(kept, draw_lacking(EVERY, chance, seed=2))


def test_the_share_by_hand():
    # four coins of 0.5: of 15 draws that keep something, 4 * 3 + 6 * 2 + 4 * 1 lack a modality, out of 60
    assert share_missing(0.5, 4) == pytest.approx(28 / 60)


def test_what_a_case_never_had_it_does_not_get():
    has = EVERY.clone()
    has[::2, 3] = False
    assert not (draw_lacking(has, 0.6, seed=0) & ~has).any()


def test_every_modality_is_kept_by_a_case():
    for seed in range(50):
        assert draw_lacking(EVERY[:3], 0.9, seed).any(dim=0).all()
        assert draw_lacking(EVERY[:4], 0.9, seed, hospitals=[0, 0, 2, 2]).any(dim=0).all()


def test_a_hospital_lacks_a_sequence_in_all_its_cases():
    hospitals = [number % 6 for number in range(200)]
    kept = draw_lacking(EVERY, 0.6, seed=3, hospitals=hospitals)
    for number in range(6):
        assert len(kept[number::6].unique(dim=0)) == 1
    assert len(kept.unique(dim=0)) > 1
    poor = EVERY.clone()
    poor[0] = ~kept[0] if not kept[0].all() else poor[0]
    assert draw_lacking(poor, 0.6, seed=3, hospitals=hospitals)[0].any(), "a case without what its hospital has"


def test_the_cases_of_a_subject_are_of_one_hospital():
    drawn = draw_hospitals(["a", "b", "a", "c", "b"], 100, seed=0)
    assert drawn[0] == drawn[2] and drawn[1] == drawn[4] and len(set(drawn)) == 3


def test_with_the_disease_the_smallest_tumours_lack_contrast_and_no_more_do_than_at_random():
    sizes = [number % 7 for number in range(200)]
    random, disease = draw_lacking(EVERY, 0.6, 0), draw_lacking(EVERY, 0.6, 0, sizes=sizes)
    assert disease.any(dim=1).all() and disease[:, CONTRAST].sum() == random[:, CONTRAST].sum()
    given = disease[:, CONTRAST].numpy()
    assert np.array(sizes)[given].min() >= np.array(sizes)[~given].max()
    others = [0, 2, 3]
    changed = (random[:, others] != disease[:, others]).any(dim=1)
    assert not (changed & disease[:, CONTRAST]).any() and disease[changed][:, others].sum(dim=1).eq(1).all()


def test_the_size_of_what_is_suspected_is_that_of_the_last_region(cases):
    assert suspected(cases.files["case-0"]) == 2 * 2.0  # two voxels of 1 x 1 x 2 mm


@pytest.mark.parametrize("mechanism", ["random", "hospital", "disease"])
def test_files_of_what_is_missing_are_never_opened(cases, mechanism):
    names = list(cases)[:4]
    hospitals = draw_hospitals(names, 3, 0) if mechanism == "hospital" else None
    found = lacking(cases, names, MRI, 0.6, mechanism, seed=0, hospitals=hospitals)
    settings = {"size": 8, "batch_size": 4, "availability": "uniform-subsets", "seed": 0}
    before = Crops(Samples(found.__getitem__, names, MRI), **settings)[0]
    gone = [(name, kind) for name in names for kind in MRI if kind not in found.files[name].images]
    assert gone and all(set(found.files[name].images) == set(MRI) for name in list(cases)[4:])
    for place, (name, kind) in enumerate(gone):
        path = cases.files[name].images[kind]
        if place % 2:
            path.write_bytes(b"nothing that can be read")
        else:
            save(path, np.full_like(tiny_volumes()[kind], np.nan, np.float32))
    again = lacking(cases, names, MRI, 0.6, mechanism, seed=0, hospitals=hospitals)
    after = Crops(Samples(again.__getitem__, names, MRI), **settings)
    assert torch.equal(before["images"], after[0]["images"]) and after[0]["images"].isfinite().all()
    seen = after.exposure(50)
    assert all(kind not in seen[name] for name, kind in gone)


def test_nothing_missing_changes_nothing(cases):
    assert lacking(cases, list(cases), MRI, 0.0, seed=0) is cases


def test_a_network_for_one_combination_takes_the_cases_that_have_it(tmp_path, write_case):
    for seed, without in enumerate([(), ("t1",), ("t2",), ("t1", "t2")]):
        write_case(tmp_path / f"case-{seed}", seed, CLASSIC, without=without)
    cases = BratsFolder(tmp_path)
    assert complete_in(cases, list(cases), ["t1"]) == ["case-0", "case-2"]
    with pytest.raises(ValueError, match="none of 2 training cases has t1.t2: a network for it cannot be trained"):
        complete_in(cases, ["case-1", "case-3"], ["t1", "t2"])


def test_errors(cases):
    with pytest.raises(ValueError, match="missing is one of .* got 'chance'"):
        lacking(cases, list(cases), MRI, 0.5, "chance", seed=0)
    with pytest.raises(ValueError, match="takes the hospital of each case"):
        lacking(cases, list(cases), MRI, 0.5, "hospital", seed=0)
    with pytest.raises(ValueError, match="must lie in"):
        lacking(cases, list(cases), MRI, 1.0, seed=0)
