"""RFNet: fusion and losses by hand, and what a missing modality may change."""

import math

import pytest
import torch
from golden import waves

from mmlib.methods.rfnet import VARIANTS, RegionAwareFusion, RFNet, class_loss, classes_of, recipe, rfnet_loss
from mmlib.modalities import MRI, combinations, mask

WIDTHS = (8, 16, 24)
ALL = torch.ones(1, 4, dtype=torch.bool)


def batch_of(available, side=16):
    images = torch.randn(*available.shape, side, side, side) * available[..., None, None, None]
    nested = torch.rand(len(available), 3, side, side, side).gt(0.6).long().cumprod(dim=1).bool()
    return {"images": images, "available": available, "regions": nested}


def test_classes_of_nested_regions():
    regions = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]).view(1, 3, 1, 1, 4).bool()
    assert torch.equal(classes_of(regions)[0, :, 0, 0], torch.eye(4))


def test_class_loss_by_hand():
    target = torch.tensor([[1.0, 1, 1, 0], [0, 0, 0, 1]]).view(1, 2, 1, 1, 4)
    maps = torch.tensor([[0.8, 0.8, 0.8, 0.4], [0.2, 0.2, 0.2, 0.6]]).view(1, 2, 1, 1, 4)
    cross_entropy = -(0.25 * 3 * math.log(0.8) + 0.75 * math.log(0.6)) / 4
    dice = (2 * 2.4 / (2.8 + 3) + 2 * 0.6 / (1.2 + 1)) / 2
    assert class_loss(maps, target).item() == pytest.approx(cross_entropy + 1 - dice, abs=1e-6)


def test_golden_class_loss():
    """The sum of both losses of the released code, at 2 x 4^3 voxels of four classes."""
    index = torch.arange(128)
    labels = ((7 * index + index // 5) % 4).view(2, 4, 4, 4)
    target = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).double()
    found = class_loss(waves((2, 4, 4, 4, 4), 0.37, 3, 0).softmax(dim=1), target)
    assert found.item() == pytest.approx(2.0113824088 + 0.7487101006, abs=1e-6)


def test_class_loss_of_certain_errors_is_bounded_and_of_coarse_maps_is_defined():
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 2, 1, 1).expand(1, 2, 2, 2, 2)
    wrong = class_loss(1 - target, target)
    assert wrong.item() == pytest.approx(1 - 0.5 * math.log(0.005), rel=1e-5)
    assert class_loss(torch.full((1, 2, 1, 1, 1), 0.5), target) < wrong


@pytest.mark.parametrize("normalised", [False, True])
def test_weights_by_hand(normalised):
    fusion = RegionAwareFusion(2, 4, 2, above=False, normalised=normalised)
    for net in fusion.weighers:
        for weights in net.parameters():
            torch.nn.init.zeros_(weights)
    torch.nn.init.constant_(fusion.weighers[0][2].bias, math.log(3))  # sigmoid 0.75
    features, maps = torch.randn(2, 2, 4, 2, 2, 2), torch.full((2, 2, 2, 2, 2), 0.5)
    found = fusion.weigh(features, maps, torch.tensor([[True, True], [False, True]]))
    free = [[[0.75, 0.75], [0.5, 0.5]], [[0, 0.75], [0, 0.5]]]
    assert torch.allclose(found, torch.tensor([[[0.5, 0.5]] * 2, [[0.0, 1.0]] * 2] if normalised else free))


def test_a_region_is_described_by_its_own_mean_and_size():
    fusion = RegionAwareFusion(1, 4, 2, above=False)
    seen = []
    fusion.weighers[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    features = torch.arange(8.0).view(1, 1, 1, 2, 2, 2).expand(1, 1, 4, 2, 2, 2)
    second = torch.zeros(2, 2, 2)
    second[0, 0] = 1  # the voxels that hold 0 and 1
    fusion.weigh(features, torch.stack([1 - second, second])[None], ALL[:, :1])
    assert torch.allclose(seen[0], torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.25]]), atol=1e-5)


@pytest.mark.parametrize("content", [1e3, math.nan, math.inf])
@pytest.mark.parametrize("variant", VARIANTS)
def test_content_of_a_missing_modality_changes_nothing(content, variant):
    torch.manual_seed(0)
    model = RFNet(MRI, WIDTHS, variant=VARIANTS[variant])
    available = torch.tensor([[True, False, True, False], [False, True, False, False]])
    batch = batch_of(available)
    spoilt = {**batch, "images": torch.where(available[..., None, None, None], batch["images"], content)}
    with torch.no_grad():
        here, there = (model(one["images"], available) for one in (batch, spoilt))
        losses = [rfnet_loss(model, one)[0] for one in (batch, spoilt)]
    assert torch.equal(here.logits, there.logits) and torch.equal(here.alone, there.alone)
    assert all(torch.equal(one, other) for one, other in zip(here.maps, there.maps, strict=True))
    assert losses[0].isfinite() and torch.equal(*losses)


def test_one_encoding_serves_every_combination():
    torch.manual_seed(0)
    model, images = RFNet(MRI, WIDTHS).eval(), torch.randn(1, 4, 16, 16, 16)
    available = torch.stack([mask(one, MRI) for one in combinations(MRI)])
    with torch.no_grad():
        together = model.decode(model.encode(images, ALL), available)
        apart = torch.cat([model(images, row[None]).logits for row in available])
    assert torch.allclose(together, apart, atol=1e-4)


def test_each_available_modality_is_segmented_alone():
    torch.manual_seed(0)
    model = RFNet(MRI, WIDTHS)
    available = torch.tensor([[True, False, True, True], [False, False, False, True]])
    batch = batch_of(available)
    with torch.no_grad():
        alone = model(batch["images"], available).alone
        only = torch.tensor([[False, False, True, False]])
        assert torch.allclose(
            alone[1:2], model(batch["images"][:1] * only[..., None, None, None], only).alone, atol=1e-4
        )
        assert alone.shape == (4, 3, 16, 16, 16)
        assert model.eval()(batch["images"], available).alone.shape[0] == 0


def test_gradients_reach_every_branch_and_every_weight_has_one():
    torch.manual_seed(0)
    model = RFNet(MRI, WIDTHS)
    total, parts = rfnet_loss(model, batch_of(torch.tensor([[True, False, True, True], [True, False, False, True]])))
    total.backward()
    assert all(weights.grad is not None for weights in model.parameters())
    reached = [any(w.grad.abs().max() > 0 for w in net.parameters()) for net in model.encoders]
    assert reached == [True, False, True, True]
    for net in (model.decoder, model.shared_decoder, *model.fusions, *(fusion.weighers for fusion in model.fusions)):
        assert any(w.grad.abs().max() > 0 for w in net.parameters())
    assert torch.allclose(total, parts["task"] + parts["alone"] + parts["maps"])
    assert not any(part.requires_grad for part in parts.values())


def test_the_fusion_does_not_teach_the_maps():
    torch.manual_seed(0)
    model = RFNet(MRI, WIDTHS)
    batch = batch_of(ALL)
    model(batch["images"], ALL).logits.sum().backward()
    assert all(weights.grad is None for fusion in model.fusions for weights in fusion.classifier.parameters())


def test_two_cases_are_learnt():
    torch.manual_seed(0)
    available = torch.tensor([[True, True, True, True], [True, False, True, False]])
    regions = torch.zeros(2, 3, 16, 16, 16, dtype=torch.bool)
    regions[0, :, 2:9, 4:12, 4:12] = regions[1, :, 6:14, 3:11, 5:13] = True
    bright = (2.0 * regions[:, :1] + 0.3 * torch.randn(2, 4, 16, 16, 16)) * available[..., None, None, None]
    batch = {"images": bright, "available": available, "regions": regions}
    model = RFNet(MRI, (8, 16))
    stepper = torch.optim.Adam(model.parameters(), 1e-2)
    logged = []
    for _ in range(25):
        total, parts = rfnet_loss(model, batch)
        stepper.zero_grad()
        total.backward()
        stepper.step()
        logged.append(parts)
    first, last = logged[0], logged[-1]
    assert last["task"] < 0.5 * first["task"] and last["alone"] < 0.5 * first["alone"]
    assert last["maps"] < 0.7 * first["maps"]  # two of the four classes are empty, and cost half of the Dice term


def test_recipe_builds_what_it_says_and_refuses_the_rest():
    made = recipe("rfnet", "unregularised", MRI, [8, 16, 24])
    model = made.network
    assert isinstance(model, RFNet) and made.loss is rfnet_loss and made.overrides == {}
    assert model.modalities == MRI and model.stride == (8, 8, 8) and model.shared_decoder is None
    assert rfnet_loss(model, batch_of(ALL))[1]["alone"] == 0
    with pytest.raises(ValueError, match="variants standard, normalised, unregularised; got u-hemis, standard"):
        recipe("u-hemis", "standard", MRI, [8, 16])
    with pytest.raises(ValueError, match="got rfnet, foo"):
        recipe("rfnet", "foo", MRI, [8, 16])
    with pytest.raises(ValueError, match="pad it to"):
        model(torch.zeros(1, 4, 9, 16, 16), ALL)
    with pytest.raises(ValueError, match="no modality is available"):
        model(torch.zeros(1, 4, 16, 16, 16), ~ALL)
