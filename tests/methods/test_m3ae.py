"""M3AE: what is masked, what stands for it, and the two situations of a case."""

import math

import numpy as np
import pytest
import torch

from mmlib.data.batches import Crops
from mmlib.methods.m3ae import (
    M3AE,
    VARIANTS,
    MaskedPatches,
    Situations,
    m3ae_loss,
    painting_loss,
    patches_shown,
    pretrain,
    recipe,
)
from mmlib.modalities import MRI, combinations, mask
from mmlib.training import fit

WIDTHS = (8, 16)
ALL = torch.ones(1, 4, dtype=torch.bool)


def crops_of(cases=2, available=(True, True, True, True), **settings):
    regions = torch.zeros(3, 16, 16, 16, dtype=torch.bool)
    regions[:, 4:12, 4:12, 4:12] = True
    samples = [
        {
            "images": torch.randn(4, 16, 16, 16) + 2.0 * regions[:1],
            "available": torch.tensor(available),
            "regions": regions,
            "case": str(number),
        }
        for number in range(cases)
    ]

    class Listed(list):
        modalities = MRI

    return Crops(
        Listed(samples), size=16, **{"batch_size": 2, "availability": "uniform-subsets", "seed": 0, **settings}
    )


def test_an_eighth_of_the_patches_is_shown_and_none_of_a_missing_modality():
    generator = torch.Generator().manual_seed(0)
    acquired = torch.tensor([True, True, False, True])
    drawn = torch.stack([patches_shown(acquired, (4, 4, 2), generator) for _ in range(300)])
    assert (drawn.sum(dim=(1, 2, 3, 4)) == 3 * 32 // 8).all() and not drawn[:, 2].any()
    kept = drawn.flatten(2).any(dim=2).sum(dim=1)
    assert sorted(set(kept.tolist())) == [1, 2, 3], "none, one or two of three are left out"
    assert drawn.float().mean(dim=0)[acquired].std() < 0.05, "every patch as often"


def test_one_modality_is_never_left_out():
    drawn = patches_shown(torch.tensor([False, True]), (4, 4, 4), torch.Generator().manual_seed(0))
    assert drawn[1].sum() == 8 and not drawn[0].any()


def test_batches_of_the_first_stage_hold_everything_and_hide_whole_patches():
    batches = MaskedPatches(crops_of(), seed=1)
    batch = batches[3]
    assert batch["available"].all() and batch["images"].abs().amin(dim=(2, 3, 4)).ge(0).all()
    shown = batch["shown"]
    assert shown.shape == batch["images"].shape and shown.float().mean() == pytest.approx(1 / 8)
    blocks = shown.unfold(2, 4, 4).unfold(3, 4, 4).unfold(4, 4, 4).float().mean(dim=(5, 6, 7))
    assert set(blocks.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(batches[3]["shown"], shown) and not torch.equal(batches[4]["shown"], shown)


def test_two_situations_of_a_case_are_subsets_of_what_it_has_and_repeat():
    batches = Situations(crops_of(available=(True, True, False, True)), seed=1)
    drawn = [batches[step] for step in range(40)]
    for batch in drawn:
        for name in ("available", "other"):
            assert batch[name].any(dim=1).all() and not batch[name][:, 2].any()
    assert any(not torch.equal(one["available"], one["other"]) for one in drawn)
    assert all(torch.equal(batches[7][name], drawn[7][name]) for name in ("images", "available", "other"))
    assert batches.exposure(5) == {"0": ["t1", "t1ce", "flair"], "1": ["t1", "t1ce", "flair"]}


def test_the_learnt_patch_is_repeated_where_nothing_is_shown():
    model = M3AE(MRI, WIDTHS)
    torch.nn.init.normal_(model.substitute)
    images, available = torch.full((1, 4, 8, 8, 8), math.nan), torch.tensor([[False, True, True, True]])
    images[:, 1:] = 5.0
    filled = model.fill(images, available[..., None, None, None])[0]
    assert (filled[1:] == 5).all()
    for corner in ((0, 0, 0), (4, 0, 4)):
        d, h, w = corner
        assert torch.equal(filled[0, d : d + 4, h : h + 4, w : w + 4], model.substitute[0])


def test_painting_loss_by_hand():
    model = M3AE(MRI, WIDTHS)
    for weights in model.painter.parameters():
        torch.nn.init.zeros_(weights)
    with torch.no_grad():
        model.substitute[1, 0] = 1.0  # mean 1/4: 16 deviations of 3/4 and 48 of 1/4
    available = torch.tensor([[True, False, True, True]])
    images = torch.full((1, 4, 8, 8, 8), 3.0)
    batch = {"images": images, "available": available, "shown": torch.zeros(1, 4, 8, 8, 8, dtype=torch.bool)}
    total, parts = painting_loss(model, batch)
    assert parts["painting"].item() == pytest.approx(9)
    assert total.item() == pytest.approx(9 + 0.005 * math.sqrt(16 * 9 / 16 + 48 / 16), abs=1e-5)


def test_gradients_of_the_first_stage_reach_the_substitute_and_those_of_the_second_do_not():
    torch.manual_seed(0)
    model = M3AE(MRI, WIDTHS)
    model.take_stage(painting=True)
    painting_loss(model, MaskedPatches(crops_of(), seed=0)[0])[0].backward()
    idle = {name for name, weights in model.named_parameters() if weights.grad is None}
    assert idle == {"decoder.out.weight", "decoder.out.bias"} and model.substitute.grad.any()
    model.zero_grad()
    model.take_stage(painting=False)
    total, parts = m3ae_loss(model, Situations(crops_of(), seed=0)[0])
    total.backward()
    idle = {name for name, weights in model.named_parameters() if weights.grad is None}
    assert idle == {"painter.weight", "painter.bias", "substitute"}
    assert torch.allclose(total, parts["task"] + 0.1 * parts["apart"]) and parts["apart"] > 0


@pytest.mark.parametrize("read", ["bottleneck", "logits"])
def test_equal_situations_have_nothing_to_teach(read):
    torch.manual_seed(0)
    model = M3AE(MRI, WIDTHS, variant=VARIANTS["standard" if read == "bottleneck" else "logits"])
    batch = Situations(crops_of(), seed=0)[0]
    same = m3ae_loss(model, {**batch, "other": batch["available"]})
    alone = m3ae_loss(model, {name: value for name, value in batch.items() if name != "other"})
    assert same[1]["apart"].item() == pytest.approx(0, abs=1e-8)
    assert same[0].item() == pytest.approx(alone[0].item(), abs=1e-5) and set(alone[1]) == {"task"}


@pytest.mark.parametrize("content", [1e3, math.nan, math.inf])
def test_content_that_is_not_shown_changes_nothing(content):
    torch.manual_seed(0)
    model = M3AE(MRI, WIDTHS)
    torch.nn.init.normal_(model.substitute)
    batch = Situations(crops_of(), seed=0)[0]
    batch["available"] = torch.tensor([[True, False, False, False], [False, False, True, False]])
    batch["other"] = torch.tensor([[True, True, False, False], [False, False, True, True]])
    unseen = ~(batch["available"] | batch["other"])[..., None, None, None]
    spoilt = {**batch, "images": batch["images"].masked_fill(unseen, content)}
    with torch.no_grad():
        losses = [m3ae_loss(model, one)[0] for one in (batch, spoilt)]
        logits = [model(one["images"], batch["available"]).logits for one in (batch, spoilt)]
    assert losses[0].isfinite() and torch.equal(*losses) and torch.equal(*logits)


def test_one_encoding_serves_every_combination():
    torch.manual_seed(0)
    model, images = M3AE(MRI, WIDTHS).eval(), torch.randn(1, 4, 16, 16, 16)
    torch.nn.init.normal_(model.substitute)
    available = torch.stack([mask(one, MRI) for one in combinations(MRI)])
    with torch.no_grad():
        together = model.decode(model.encode(images, ALL), available)
        apart = torch.cat([model(images, row[None]).logits for row in available])
    assert torch.allclose(together, apart, atol=1e-4)


def test_both_stages_learn_and_the_second_goes_on_from_the_first(tmp_path):
    torch.manual_seed(0)
    made = recipe("m3ae", "standard", MRI, WIDTHS)
    settings = {"steps": 15, "lr": 1e-2, "folder": tmp_path, "precision": "float32", "device": "cpu"}
    crops = crops_of()
    painted = made.before(made.network, crops, seed=0, **settings)
    assert painted["painting"].iloc[-5:].mean() < 0.9 * painted["painting"].iloc[0]
    held = made.network.substitute.detach().clone()
    assert not made.network.substitute.requires_grad and made.network.decoder.out.weight.requires_grad
    assert held.any() and (tmp_path / "pretraining.safetensors").is_file()
    learnt = fit(made.network, made.batches(crops, 0), made.loss, seed=0, **settings)
    assert learnt["task"].iloc[-5:].mean() < 0.8 * learnt["task"].iloc[0]
    assert torch.equal(made.network.substitute, held)
    assert np.isfinite(learnt["apart"]).all()


def test_recipe_builds_what_it_says_and_refuses_the_rest():
    made = recipe("m3ae", "from-scratch", MRI, [8, 16, 24])
    model = made.network
    assert isinstance(model, M3AE) and made.loss is m3ae_loss and made.overrides == {} and made.before is None
    assert recipe("m3ae", "undistilled", MRI, [8, 16]).before is pretrain
    assert model.modalities == MRI and model.stride == (8, 8, 8)
    with pytest.raises(ValueError, match="standard, logits, undistilled, from-scratch; got u-hemis, standard"):
        recipe("u-hemis", "standard", MRI, [8, 16])
    with pytest.raises(ValueError, match="pad it to"):
        model(torch.zeros(1, 4, 9, 16, 16), ALL)
    with pytest.raises(ValueError, match="no modality is available"):
        model(torch.zeros(1, 4, 16, 16, 16), ~ALL)
