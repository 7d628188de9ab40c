"""What is not available reaches no output, and an encoder without input costs next to nothing."""

import math

import pytest
import torch

from mmlib.methods.baselines import EarlyFusionUNet, UHeMIS
from mmlib.methods.m3ae import M3AE
from mmlib.methods.mmformer import MmFormer
from mmlib.methods.rfnet import RFNet
from mmlib.methods.shaspec import ShaSpecSegmenter
from mmlib.methods.shaspec.segmentation import VARIANTS, Encoding
from mmlib.methods.simmlm import SimMLM
from mmlib.methods.uhved import UHVED
from mmlib.modalities import MRI
from mmlib.networks.unet import Encoder, available_mean, encode_rows

NETWORKS = {
    "early": lambda: EarlyFusionUNet(MRI, (8, 16)),
    "u-hemis": lambda: UHeMIS(MRI, (8, 16)),
    "u-hved": lambda: UHVED(MRI, (8, 16)),
    "rfnet": lambda: RFNet(MRI, (8, 16)),
    "simmlm": lambda: SimMLM(MRI, (8, 16)),
    "m3ae": lambda: M3AE(MRI, (8, 16)),
    "mmformer": lambda: MmFormer(MRI, (8, 16)),
    "shaspec": lambda: ShaSpecSegmenter(MRI, (8, 16)),
    "mean-skips": lambda: ShaSpecSegmenter(MRI, (8, 16), variant=VARIANTS["mean-skips"]),
    "released": lambda: ShaSpecSegmenter(MRI, (8, 16), variant=VARIANTS["released"]),
}


@pytest.mark.parametrize("content", [math.nan, math.inf, 1e9])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_encoded_but_excluded_does_not_reach_the_output(name, content):
    torch.manual_seed(0)
    model, images = NETWORKS[name]().eval(), torch.randn(1, 4, 16, 16, 16)
    spoilt = images.clone()
    spoilt[:, 3] = content
    every = torch.ones(1, 4, dtype=torch.bool)
    chosen = torch.tensor([[True, False, False, False], [True, True, True, False]])
    with torch.no_grad():
        one, other = (model.decode(model.encode(given, every), chosen) for given in (images, spoilt))
    assert one.isfinite().all() and torch.equal(one, other)


def test_the_mean_of_the_available_by_hand():
    features = torch.tensor([[[1.0], [5.0], [math.nan]]])  # 1 M c
    available = torch.tensor([[True, True, False], [False, True, False]])
    assert available_mean(features, available).flatten().tolist() == [3, 5]
    assert available_mean(features, torch.tensor([[True, False, True]])).isnan().all()  # an available one is not hidden


def test_an_encoder_without_input_runs_on_few_voxels_and_has_zero_gradients():
    torch.manual_seed(0)
    encoder, sizes = Encoder(1, (8, 16)), []
    encoder.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape)))
    volumes = torch.randn(1, 16, 24, 32)
    there, none = (encode_rows(encoder, volumes, torch.tensor([one])) for one in (True, False))
    assert sizes == [(1, 1, 16, 24, 32), (1, 1, 16, 16, 16)]
    for full, empty in zip(
        (*there.skips, there.bottleneck, there.pooled), (*none.skips, none.bottleneck, none.pooled), strict=True
    ):
        assert full.shape == empty.shape and not empty.any()
    (none.bottleneck.sum() + none.pooled.sum()).backward()
    assert all(weights.grad is not None and not weights.grad.any() for weights in encoder.parameters())


def test_the_first_available_is_found_on_any_device():
    model = ShaSpecSegmenter(MRI, (8, 16), variant=VARIANTS["first-available"]).to("meta")
    maps = torch.zeros(1, 4, 16, 2, 2, 2, device="meta")
    images = torch.zeros(1, 4, 16, 16, 16, device="meta")
    encoding = Encoding(maps, maps, (), maps[..., 0, 0, 0], (), images)
    assert model.fuse(encoding, torch.ones(3, 4, dtype=torch.bool, device="meta")).shape == (3, 4, 16, 2, 2, 2)
