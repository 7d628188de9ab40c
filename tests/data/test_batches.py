"""Crops: a pure function of seed and step, every case in turn, cases' own gaps respected."""

import pytest
import torch

from mmlib.data.batches import Crops, Minibatches, Samples
from mmlib.modalities import MRI


class Made(Samples):
    """Samples without files: voxel values are 100 * modality + depth, region et is one voxel; case 2 lacks t2."""

    def _prepare(self, name):
        index = int(name)
        images = 100 * torch.arange(4.0).view(4, 1, 1, 1) + torch.arange(20.0).view(1, 20, 1, 1).expand(4, 20, 24, 12)
        regions = torch.zeros(3, 20, 24, 12, dtype=torch.bool)
        regions[:, 3, 20, 5] = True
        available = torch.tensor([True, True, index != 2, True])
        return {
            "images": images * available[:, None, None, None],
            "available": available,
            "regions": regions,
            "case": name,
        }


def crops(**changed) -> Crops:
    settings = {"size": 8, "batch_size": 2, "availability": "uniform-subsets", "seed": 5, **changed}
    return Crops(Made(None, "01234", MRI), **settings)


def test_a_batch_depends_on_seed_and_step_alone():
    one, other = crops(), crops()
    for step in (7, 0, 7):
        first, second = one[step], other[step]
        assert first["case"] == second["case"]
        assert all(torch.equal(first[key], second[key]) for key in ("images", "regions", "available"))
    assert not torch.equal(one[0]["images"], crops(seed=6)[0]["images"])


def test_batches_keep_the_contract():
    batch = crops()[0]
    assert batch["images"].shape == (2, 4, 8, 8, 8) and batch["regions"].shape == (2, 3, 8, 8, 8)
    assert batch["images"].dtype == torch.float32 and batch["regions"].dtype == batch["available"].dtype == torch.bool
    assert batch["available"].any(dim=1).all()
    hidden = ~batch["available"]
    assert batch["images"][hidden].abs().sum() == 0


def test_every_case_is_used_once_before_any_is_used_again():
    batches = crops(batch_size=1)
    for epoch in range(3):
        assert sorted(batches[5 * epoch + step]["case"][0] for step in range(5)) == list("01234")


def test_crops_centred_on_the_tumour_hold_it_and_others_need_not():
    held = [crops(foreground=1.0)[step]["regions"].flatten(1).any(dim=1).all() for step in range(10)]
    free = [crops(foreground=0.0)[step]["regions"].flatten(1).any(dim=1).all() for step in range(10)]
    assert all(held) and not all(free)


def test_a_volume_smaller_than_the_crop_is_padded_with_zeros():
    batch = crops(size=16, foreground=0.0, availability="fixed", fixed=torch.tensor([True, True, False, True]))[0]
    filled = (batch["images"][:, 1] != 0).flatten(2).any(dim=1)
    assert filled.sum(dim=1).tolist() == [16 * 12, 16 * 12]  # 12 of 16 columns of the last axis


def test_a_crop_may_have_three_sides():
    assert crops(size=(4, 8, 12))[0]["images"].shape == (2, 4, 4, 8, 12)


def test_what_a_case_lacks_is_never_drawn():
    for step in range(20):
        batch = crops()[step]
        for name, row in zip(batch["case"], batch["available"], strict=True):
            assert name != "2" or not row[MRI.index("t2")]


def test_the_first_steps_may_hide_nothing_and_crop_alike():
    plain, staged = crops(), crops(complete_steps=4)
    for step in range(8):
        first, second = plain[step], staged[step]
        assert torch.equal(first["regions"], second["regions"])
        if step < 4:
            lacking = torch.tensor([[name == "2" and m == 2 for m in range(4)] for name in second["case"]])
            assert torch.equal(second["available"], ~lacking)  # case 2 has no t2
        else:
            assert torch.equal(first["images"], second["images"])
    assert not all(plain[step]["available"].all() for step in range(4))
    with pytest.raises(ValueError, match="got 3 with the sampler 'fixed'"):
        crops(complete_steps=3, availability="fixed", fixed=torch.ones(4, dtype=torch.bool))


def test_exposure_lists_what_the_batches_show():
    batches, seen = crops(availability="bernoulli", rate=0.7), {}
    for step in range(6):
        batch = batches[step]
        for name, row in zip(batch["case"], batch["available"], strict=True):
            seen.setdefault(name, set()).update(MRI[m] for m in row.nonzero().flatten())
    found = batches.exposure(6)
    assert {name: set(names) for name, names in found.items()} == seen
    assert list(found) == sorted(found)


def test_errors():
    with pytest.raises(ValueError, match="no training cases"):
        Crops(Made(None, "", MRI), size=8, batch_size=1, availability="bernoulli", seed=0)

    class Unlabelled(Made):
        def _prepare(self, name):
            sample = super()._prepare(name)
            del sample["regions"]
            return sample

    with pytest.raises(ValueError, match="case 1 has no segmentation: it cannot be trained on"):
        Crops(Unlabelled(None, "1", MRI), size=8, batch_size=1, availability="bernoulli", seed=0)[0]


class Numbers:
    """Eleven items; a batch is their positions."""

    def __len__(self):
        return 11

    def __getitem__(self, indices):
        return {"case": list(indices)}


def test_minibatches_depend_on_seed_and_step_alone_and_use_every_item_in_turn():
    one, other = Minibatches(Numbers(), 4, seed=5), Minibatches(Numbers(), 4, seed=5)
    assert [one[step] for step in (7, 0, 7)] == [other[step] for step in (7, 0, 7)]
    assert one[0] != Minibatches(Numbers(), 4, seed=6)[0]
    assert one.per_epoch == 3
    items = [item for step in range(11) for item in one[step]["case"]]
    assert len(items) == 44 and all(sorted(items[e * 11 : (e + 1) * 11]) == list(range(11)) for e in range(4))
    assert len({tuple(items[e * 11 : (e + 1) * 11]) for e in range(4)}) == 4


def test_a_minibatch_may_be_larger_than_the_data():
    assert sorted(Minibatches(Numbers(), 22, seed=0)[3]["case"]) == sorted([*range(11), *range(11)])


def test_minibatches_of_nothing():
    with pytest.raises(ValueError, match="no training pairs"):
        Minibatches([], 4, seed=0)
