"""The V-Net of ProtoKD: published sizes, a golden forward pass, and what it refuses."""

import math

import pytest
import torch
from methods.golden import waves

from mmlib.networks.vnet import VNet


def filled(in_channels: int) -> VNet:
    """A network whose every weight is given by its position, in the order of definition."""
    model = VNet(in_channels)
    for k, (name, weight) in enumerate(model.named_parameters()):
        if weight.ndim > 1:
            values = waves(weight.shape, 0.37, 1.5 / math.sqrt(weight.numel() / len(weight)), 0.11 * k)
        elif name.endswith("weight"):
            values = 1 + waves(weight.shape, 0.5, 0.1, k)
        else:
            values = waves(weight.shape, 0.3, 0.05, k)
        weight.data = values
    return model.double().eval()


def test_golden_forward_pass():
    with torch.inference_mode():
        features, logits = filled(4)(waves((1, 4, 16, 16, 16), 0.013, 1, 0))
    assert features.shape == (1, 16, 16, 16, 16) and logits.shape == (1, 4, 16, 16, 16)
    assert features.mean().item() == pytest.approx(1.16990596, abs=1e-8)
    assert logits.mean().item() == pytest.approx(-0.04633215, abs=1e-8)
    expected = [0.06201312, 0.01719871, -0.02803657, -0.06815415]
    assert logits[0, :, 0, 0, 0].tolist() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("in_channels, expected", [(1, 9_446_820), (4, 9_448_116)])
def test_sizes_are_those_of_the_released_networks(in_channels, expected):
    model = VNet(in_channels)
    assert sum(weight.numel() for weight in model.parameters()) == expected
    assert len(list(model.parameters())) == 97
    assert sum(buffer.numel() for buffer in model.buffers()) == 5629


def test_features_are_not_negative_and_the_logits_are_a_linear_map_of_them():
    torch.manual_seed(0)
    model = VNet(2, num_classes=3, width=4)
    features, logits = model(torch.randn(2, 2, 16, 32, 16))
    assert features.shape == (2, 4, 16, 32, 16) and logits.shape == (2, 3, 16, 32, 16)
    assert features.min() == 0 and features.max() > 0
    weight, bias = model.head.weight.flatten(1), model.head.bias
    by_hand = torch.einsum("kc,ncdhw->nkdhw", weight, features) + bias[:, None, None, None]
    assert torch.allclose(logits, by_hand, atol=1e-6)


def test_encoding_and_decoding_is_the_forward_pass():
    torch.manual_seed(0)
    model = VNet(1, width=2).eval()
    images = torch.randn(1, 1, 32, 16, 16)
    maps = model.encode(images)
    assert [tuple(one.shape[1:]) for one in maps] == [
        (2 * 2**level, 32 // 2**level, 16 // 2**level, 16 // 2**level) for level in range(5)
    ]
    assert torch.equal(model.decode(maps).logits, model(images).logits)


def test_every_weight_is_used():
    torch.manual_seed(0)
    model = VNet(1, width=2)
    model(torch.randn(2, 1, 32, 32, 32)).logits.square().sum().backward()
    unused = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not unused


def test_what_does_not_fit_is_refused():
    model = VNet(1, width=2)
    with pytest.raises(ValueError, match=r"images must be \(N, 1, D, H, W\); got \(1, 4, 16, 16, 16\)"):
        model(torch.zeros(1, 4, 16, 16, 16))
    with pytest.raises(ValueError, match=r"images must be \(N, 1, D, H, W\); got \(1, 16, 16, 16\)"):
        model(torch.zeros(1, 16, 16, 16))
    with pytest.raises(ValueError, match=r"the grid \(16, 17, 30\) is not divisible by 16: pad it to \(16, 32, 32\)"):
        model(torch.zeros(1, 1, 16, 17, 30))
