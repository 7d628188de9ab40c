"""SimMLM: weights, ranking and pairs of sets, and what a missing modality may change."""

import math

import pytest
import torch

from mmlib.data.batches import Crops
from mmlib.methods.simmlm import VARIANTS, Nested, SimMLM, apart_loss, costs, pretrain, recipe, simmlm_loss
from mmlib.modalities import MRI, combinations, mask
from mmlib.tasks.segmentation import segmentation_loss
from mmlib.training import fit

WIDTHS = (8, 16)
ALL = torch.ones(1, 4, dtype=torch.bool)


class Listed(list):
    modalities = MRI


def crops_of(available=(True, True, True, True)):
    regions = torch.zeros(3, 16, 16, 16, dtype=torch.bool)
    regions[:, 4:12, 4:12, 4:12] = True
    images = [torch.randn(4, 16, 16, 16) + 2.0 * regions[:1] for _ in range(2)]
    known = {"available": torch.tensor(available), "regions": regions}
    samples = Listed({"images": image, "case": str(number), **known} for number, image in enumerate(images))
    return Crops(samples, size=16, batch_size=2, availability="uniform-subsets", seed=0)


def batch_of(available, side=16):
    images = torch.randn(*available.shape, side, side, side) * available[..., None, None, None]
    return {"images": images, "available": available, "regions": torch.rand(len(available), 3, side, side, side) > 0.8}


def test_costs_by_hand_and_together_they_are_the_loss_of_the_task():
    p = torch.tensor([0.8, 0.4]).logit().view(1, 1, 1, 1, 2)
    dice, entropy = costs(p, torch.tensor([1.0, 0.0]).view(1, 1, 1, 1, 2))
    assert dice.item() == pytest.approx(1 - 2 * 0.8 / (1.2 + 1 + 1), abs=1e-6)
    assert entropy.item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2, abs=1e-6)
    logits, regions = torch.randn(3, 3, 4, 4, 4), torch.rand(3, 3, 4, 4, 4) > 0.7
    assert torch.allclose(sum(costs(logits, regions)).mean(), segmentation_loss(logits, regions), atol=1e-5)


def test_weights_sum_to_one_over_the_available_by_hand():
    gate = SimMLM(MRI, WIDTHS).gate
    torch.nn.init.zeros_(gate.out.weight)
    with torch.no_grad():
        gate.out.bias[:] = torch.tensor([[0.0], [math.log(3)], [50.0], [0.0]]).expand(4, 3).flatten()
        found = gate(
            torch.randn(2, 4, 16, 16, 16), torch.tensor([[True, True, False, False], [False, False, True, False]])
        )
    assert torch.allclose(found[0], torch.tensor([[0.25], [0.75], [0.0], [0.0]]).expand(4, 3))
    assert torch.equal(found[1], torch.tensor([[0.0], [0.0], [1.0], [0.0]]).expand(4, 3))


def test_an_expert_that_no_case_needs_has_zero_gradients_and_no_grid_of_two_voxels():
    """On such grids gradients in bfloat16 may be made of memory that nobody wrote; see `encode_rows`."""
    torch.manual_seed(0)
    model, sides = SimMLM(MRI, WIDTHS), []
    for layer in model.experts[0].modules():
        if isinstance(layer, torch.nn.Conv3d) and layer.kernel_size == (3, 3, 3):
            layer.register_forward_hook(lambda _, given, made: sides.extend([*given[0].shape[2:], *made.shape[2:]]))
    batch = batch_of(torch.tensor([[False, True, True, True]]), side=32)
    loss, _ = simmlm_loss(model, batch)
    loss.backward()
    assert sides and min(sides) >= 4
    assert all(weights.grad is not None and not weights.grad.any() for weights in model.experts[0].parameters())


def test_a_mixture_is_the_weighted_sum_and_one_modality_is_its_expert():
    torch.manual_seed(0)
    model, images = SimMLM(MRI, WIDTHS).eval(), torch.randn(2, 4, 16, 16, 16)
    available = torch.tensor([[True, False, True, True], [False, True, False, False]])
    with torch.no_grad():
        output = model(images, available)
        alone = model.experts[1](images[1:, 1:2])
    mixed = (output.weights[..., None, None, None] * output.experts).sum(dim=1)
    assert torch.allclose(output.logits, mixed, atol=1e-5)
    assert torch.allclose(output.logits[1:], alone, atol=1e-5) and not output.experts[~available].any()


def test_ranking_by_hand():
    """The larger set costs more in one region only; what it saves elsewhere does not count."""
    regions = torch.zeros(1, 2, 4, 4, 4, dtype=torch.bool)
    certain = torch.full((1, 2, 4, 4, 4), -20.0)
    worse, better = certain.clone(), certain.clone()
    worse[:, 0] = 0.0  # p = 1/2 everywhere
    better[:, 1] = 0.0

    class Given(torch.nn.Module):
        variant = VARIANTS["standard"]

        def encode(self, images, available):
            return None

        def decode(self, encoding, available):
            return worse if available.all() else better

    batch = {"images": None, "available": ALL, "fewer": ~ALL, "regions": regions}
    total, parts = simmlm_loss(Given(), batch)
    dice, entropy = 1.0 - 1.0, 2 * math.log(2)  # an empty region costs 1 whatever is predicted
    assert parts["ranking"].item() == pytest.approx((dice + entropy) / 2, abs=1e-4)
    assert total.item() == pytest.approx(parts["task"].item() + 0.1 * parts["ranking"].item(), abs=1e-5)


@pytest.mark.parametrize(
    "acquired", [(True, True, True, True), (True, False, False, True), (False, True, False, False)]
)
def test_of_a_pair_one_set_holds_the_other_and_pairs_repeat(acquired):
    batches = Nested(crops_of(acquired), seed=3)
    drawn = [batches[step] for step in range(40)]
    for batch in drawn:
        more, fewer = batch["available"], batch["fewer"]
        assert fewer.any(dim=1).all() and not (fewer & ~more).any() and not (more & ~torch.tensor(acquired)).any()
        assert (more.sum(dim=1) > fewer.sum(dim=1)).all() or sum(acquired) == 1
    assert all(torch.equal(batches[7][name], drawn[7][name]) for name in ("images", "available", "fewer"))
    names = [name for name, has in zip(MRI, acquired, strict=True) if has]
    assert batches.exposure(3) == {"0": names, "1": names}


@pytest.mark.parametrize("content", [1e3, math.nan, math.inf])
def test_content_of_a_missing_modality_changes_nothing(content):
    torch.manual_seed(0)
    model = SimMLM(MRI, WIDTHS)
    available = torch.tensor([[True, False, True, False], [False, True, True, False]])
    batch = {**batch_of(available), "fewer": available & torch.tensor([False, False, True, True])}
    spoilt = {**batch, "images": torch.where(available[..., None, None, None], batch["images"], content)}
    found = []
    for one in (batch, spoilt):
        model.zero_grad()
        total, _ = simmlm_loss(model, one)
        (total + apart_loss(model, one)[0]).backward()
        found.append((total, model(one["images"], available).logits, [w.grad for w in model.parameters()]))
    (loss, here, slopes), (other, there, others) = found
    assert loss.isfinite() and loss == other and torch.equal(here, there)
    assert all(one.isfinite().all() and torch.equal(one, two) for one, two in zip(slopes, others, strict=True))


def test_one_encoding_serves_every_combination():
    torch.manual_seed(0)
    model, images = SimMLM(MRI, WIDTHS).eval(), torch.randn(1, 4, 16, 16, 16)
    available = torch.stack([mask(one, MRI) for one in combinations(MRI)])
    with torch.no_grad():
        together = model.decode(model.encode(images, ALL), available)
        apart = torch.cat([model(images, row[None]).logits for row in available])
    assert torch.allclose(together, apart, atol=1e-4)


def test_gradients_reach_what_is_there_and_every_weight_has_one():
    torch.manual_seed(0)
    model = SimMLM(MRI, WIDTHS)
    available = torch.tensor([[True, False, True, True], [True, False, False, True]])
    batch = {**batch_of(available), "fewer": torch.tensor([[True, False, False, False], [False, False, False, True]])}
    simmlm_loss(model, batch)[0].backward()
    assert all(weights.grad is not None for weights in model.parameters())
    reached = [any(weights.grad.any() for weights in net.parameters()) for net in (*model.experts, model.gate)]
    assert reached == [True, False, True, True, True]
    model.zero_grad()
    total, parts = apart_loss(model, batch)
    total.backward()
    assert {name for name, one in model.named_parameters() if one.grad is None} == {
        name for name, _ in model.named_parameters() if name.startswith("gate")
    }
    assert list(parts) == list(MRI) and parts["t1ce"] == 0
    assert total.item() == pytest.approx(sum(part.item() for part in parts.values()), abs=1e-5)


def test_both_stages_learn(tmp_path):
    torch.manual_seed(0)
    made = recipe("simmlm", "standard", MRI, WIDTHS)
    settings = {"steps": 10, "lr": 1e-2, "folder": tmp_path, "precision": "float32", "device": "cpu"}
    crops = crops_of()
    apart = made.before(made.network, crops, seed=0, **settings)
    assert apart["loss"].iloc[-3:].mean() < 0.9 * apart["loss"].iloc[0]
    assert (tmp_path / "pretraining.safetensors").is_file() and made.network.gate.out.weight.requires_grad
    mixed = fit(made.network, made.batches(crops, 0), made.loss, seed=0, **settings)
    assert mixed["task"].iloc[0] < 0.5 * apart["loss"].iloc[0], "it goes on from there"
    assert mixed["task"].iloc[-3:].mean() < 0.9 * mixed["task"].iloc[0]


def test_recipe_builds_what_it_says_and_refuses_the_rest():
    made = recipe("simmlm", "from-scratch", MRI, [8, 16, 24])
    model = made.network
    assert isinstance(model, SimMLM) and made.loss is simmlm_loss and made.overrides == {} and made.before is None
    assert recipe("simmlm", "unranked", MRI, [8, 16]).before is pretrain
    assert model.modalities == MRI and model.stride == (8, 8, 8)
    assert set(simmlm_loss(model, batch_of(ALL))[1]) == {"task"}
    with pytest.raises(ValueError, match="standard, unranked, from-scratch; got u-hemis, standard"):
        recipe("u-hemis", "standard", MRI, [8, 16])
    with pytest.raises(ValueError, match="pad it to"):
        model(torch.zeros(1, 4, 9, 16, 16), ALL)
    with pytest.raises(ValueError, match="no modality is available"):
        model(torch.zeros(1, 4, 16, 16, 16), ~ALL)
