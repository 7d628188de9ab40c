"""The U-Net of diffusion models: shapes, what reaches the outputs, the errors it documents."""

from __future__ import annotations

import pytest
import torch

from mmlib.networks.diffusion_unet import Attention, DiffusionUNet


def unet() -> DiffusionUNet:
    """With random last layers in place of the zeros that MONAI's blocks begin with."""
    torch.manual_seed(0)
    net = DiffusionUNet(3, 2, (8, 16, 16)).eval()
    for weights in net.parameters():
        if not weights.any():
            torch.nn.init.normal_(weights, std=0.1)
    return net


def test_the_output_has_the_grid_of_the_input_and_its_own_channels() -> None:
    found = unet()(torch.randn(2, 3, 12, 20), torch.tensor([1, 1000]))
    assert found.shape == (2, 2, 12, 20) and found.dtype == torch.float32


def test_single_pixels_reach_the_output_and_far_ones_do_through_the_attention() -> None:
    net, x = unet(), torch.zeros(1, 3, 64, 64)
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1  # vanishes at half the resolution
    t = torch.tensor([3])
    with torch.no_grad():
        plain, checked = net(x, t), net(x + 0.1 * board, t)
        corner = x.clone()
        corner[..., :4, :4] = 5.0
        far = (net(corner, t) - plain)[..., -4:, -4:].abs().max()
    detail = (checked - plain)[0, 0]
    assert (detail * board)[8:-8, 8:-8].mean().abs() > 1e-4 and far > 0


def test_attention_mixes_all_pixels_and_keeps_their_order() -> None:
    torch.manual_seed(0)
    attend, x = Attention(8).eval(), torch.randn(1, 8, 3, 5)
    turned = attend(x.flip(2, 3))
    assert torch.allclose(attend(x).flip(2, 3), turned, atol=1e-6) and not torch.allclose(attend(x), x)


def test_the_time_changes_the_output() -> None:
    net, x = unet(), torch.randn(1, 3, 8, 8)
    assert not torch.allclose(net(x, torch.tensor([1])), net(x, torch.tensor([2])))


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match=r"every width must be a multiple of 8; got \[8, 12\]"):
        DiffusionUNet(1, 1, (8, 12))
    with pytest.raises(ValueError, match=r"the grid \(10, 8\) is not divisible by 4: pad it to \(12, 8\)"):
        unet()(torch.zeros(1, 3, 10, 8), torch.tensor([1]))
