"""Baselines: moments by hand, and what a missing modality may change."""

import pytest
import torch

from mmlib.methods.baselines import EarlyFusionUNet, UHeMIS, baseline_loss, moments, recipe
from mmlib.modalities import MRI, combinations, mask

WIDTHS = (8, 16, 24)


def test_moments_by_hand():
    features = torch.tensor([1.0, 3.0, 5.0, 100.0]).view(1, 4, 1, 1, 1, 1)
    mean, variance = moments(features, torch.tensor([[True, True, True, False]])).flatten().tolist()
    assert (mean, variance) == (3.0, pytest.approx(8 / 3))


def test_variance_of_one_modality_is_zero():
    features = torch.randn(1, 4, 2, 3, 3, 3)
    found = moments(features, torch.tensor([[False, True, False, False]]))
    assert torch.equal(found[:, 0], features[:, 1])
    assert found[:, 1].abs().max() == 0


def test_order_of_modalities_does_not_matter_to_the_moments():
    features = torch.randn(1, 4, 2, 3, 3, 3)
    available = torch.tensor([[True, False, True, True]])
    order = torch.tensor([3, 0, 1, 2])
    assert torch.allclose(moments(features, available), moments(features[:, order], available[:, order]), atol=1e-6)


@pytest.mark.parametrize("network", [EarlyFusionUNet, UHeMIS])
@pytest.mark.parametrize("content", [1e3, float("nan")])
def test_content_of_a_missing_modality_changes_nothing(network, content):
    torch.manual_seed(0)
    model, images = network(MRI, WIDTHS), torch.randn(2, 4, 16, 16, 16)
    available = torch.tensor([[True, False, True, False], [False, True, False, False]])
    spoilt = torch.where(available[..., None, None, None], images, content)
    with torch.no_grad():
        assert torch.equal(model(images, available).logits, model(spoilt, available).logits)


@pytest.mark.parametrize("network", [EarlyFusionUNet, UHeMIS])
def test_one_encoding_serves_every_combination(network):
    torch.manual_seed(0)
    model, images = network(MRI, WIDTHS).eval(), torch.randn(1, 4, 16, 16, 16)
    available = torch.stack([mask(one, MRI) for one in combinations(MRI)])
    with torch.no_grad():
        together = model.decode(model.encode(images, torch.ones(1, 4, dtype=torch.bool)), available)
        apart = torch.cat([model(images, row[None]).logits for row in available])
    assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("method", ["zero-fill", "dropout-unet", "u-hemis", "dedicated"])
def test_recipes_build_what_they_say(method):
    variant = "t1+flair" if method == "dedicated" else "standard"
    made = recipe(method, variant, MRI, [8, 16, 24])
    model, loss = made.network, made.loss
    expected = {"zero-fill": MRI, "dedicated": ("t1", "flair")}.get(method)
    assert made.combination == expected and made.overrides == {}
    given = {"images": torch.randn(1, 4, 16, 16, 16), "available": torch.ones(1, 4, dtype=torch.bool)}
    total, parts = loss(model, {**given, "regions": torch.zeros(1, 3, 16, 16, 16, dtype=torch.bool)})
    total.backward()
    assert loss is baseline_loss and parts == {}
    assert all(weights.grad is not None for weights in model.parameters())


def test_unknown_methods_and_combinations_are_refused():
    with pytest.raises(ValueError, match="zero-fill, dropout-unet, dedicated, u-hemis"):
        recipe("mmformer", "standard", MRI, [8, 16])
    with pytest.raises(ValueError, match="at least one of"):
        recipe("dedicated", "pd", MRI, [8, 16])
    with pytest.raises(ValueError, match="pad it to"):
        UHeMIS(MRI, WIDTHS)(torch.zeros(1, 4, 9, 16, 16), torch.ones(1, 4, dtype=torch.bool))
