"""ShaSpec: golden values G1-G3, what a missing modality may change, and where gradients go."""

import math

import pytest
import torch

from mmlib.methods.shaspec import (
    VARIANTS,
    ShaSpecSegmenter,
    Variant,
    alignment_loss,
    domain_loss,
    recipe,
    shaspec_loss,
    variant_of,
)
from mmlib.methods.shaspec.losses import LOW, alignment_head
from mmlib.modalities import MRI, combinations, mask
from mmlib.networks.unet import ResNetDecoder, ResNetEncoder, StandardisedConv3d
from mmlib.tasks.segmentation import segmentation_loss
from mmlib.training import learning_rate

WIDTHS = (8, 16, 24)


def sines(*shape: int) -> torch.Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float64).sin().view(shape)


def cosines(*shape: int) -> torch.Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float64).cos().view(shape)


def parameters(module: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


def net(variant: str = "paper", seed: int = 0) -> ShaSpecSegmenter:
    torch.manual_seed(seed)
    return ShaSpecSegmenter(MRI, WIDTHS, variant=variant_of(variant))


def batch(cases: int = 2, size: int = 16, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(cases, 4, size, size, size, generator=generator)
    available = torch.tensor([[True, False, True, False], [False, False, False, True]])[:cases]
    regions = torch.rand(cases, 3, size, size, size, generator=generator) < 0.2
    return {"images": images, "available": available, "regions": regions, "case": ["a", "b"][:cases]}


# ------------------------------------------------------------------------------------------------------ golden values
def test_losses_equal_the_golden_values_g1():
    logits = sines(2, 3, 4, 4, 4)
    regions = (torch.arange(logits.numel()) % 3 == 0).view(logits.shape)
    shared = sines(8, 4, 2, 2, 2).view(2, 4, 4, 2, 2, 2)
    every = torch.ones(2, 4, dtype=torch.bool)
    domain = sines(8, 4).view(2, 4, 4)
    assert segmentation_loss(logits, regions).item() == pytest.approx(0.60784078 + 2.26315400, abs=2e-8)
    assert alignment_loss(shared, every, pairs="ring").item() == pytest.approx(2.09247686, abs=1e-8)
    assert alignment_loss(shared, every, pairs="all").item() == pytest.approx(3.50579081, abs=1e-8)
    assert alignment_loss(shared, every, kind="mse", pairs="ring").item() == pytest.approx(1.69582175, abs=1e-8)
    assert domain_loss(domain, every).item() == pytest.approx(1.54818289, abs=1e-8)
    total = segmentation_loss(logits, regions) + 0.1 * alignment_loss(shared, every, pairs="ring")
    assert (total + 0.02 * domain_loss(domain, every)).item() == pytest.approx(3.11120612, abs=2e-8)


def test_weight_standardisation_equals_the_golden_values_g2():
    conv = StandardisedConv3d(3, 2, 3).double()
    conv.weight.data = sines(2, 3, 3, 3, 3)
    out = conv(cosines(1, 3, 3, 3, 3))
    assert out.sum().item() == pytest.approx(-1.71946128, abs=1e-8)
    assert out.abs().sum().item() == pytest.approx(858.49736955, abs=1e-8)
    assert out[0, :, 1, 1, 1].tolist() == pytest.approx([0.52729610, -35.64570217], abs=1e-8)
    ones = conv(torch.ones(1, 3, 3, 3, 3, dtype=torch.float64))
    assert ones[0, :, 1, 1, 1].abs().max() < 1e-12


def test_released_topology_has_the_counted_parameters_g3():
    with torch.device("meta"):  # shapes alone: no need for 700 MB of weights
        model = ShaSpecSegmenter(MRI, topology="released")
        encoder, decoder = ResNetEncoder(), ResNetDecoder(4)
    assert parameters(model) == 187_708_132
    assert parameters(encoder) == parameters(model.shared) == 35_127_872
    assert parameters(decoder) == parameters(model.decoder) == 8_528_800
    assert tuple(model.projection.weight.shape) == (256, 512, 3, 3, 3)
    assert parameters(model.domain_head) == 1_028


def test_released_encoder_maps_and_its_zero_volume_g3():
    torch.manual_seed(0)
    encoder = ResNetEncoder()
    with torch.no_grad():
        features = encoder(torch.randn(1, 1, 32, 64, 64))
        blank = encoder(torch.zeros(1, 1, 32, 64, 64))
    sizes = [(64, 32), (256, 16), (512, 8), (1024, 4)]
    assert [tuple(skip.shape) for skip in features.skips] == [(1, c, n, n, n) for c, n in sizes]
    assert tuple(features.bottleneck.shape) == (1, 256, 2, 2, 2)
    assert tuple(features.pooled.shape) == (1, 256)
    assert blank.bottleneck.abs().max() == 0
    assert all(skip.abs().max() == 0 for skip in blank.skips)


def test_released_net_segments_the_smallest_legal_grid():
    torch.manual_seed(0)
    model = ShaSpecSegmenter(MRI, topology="released", variant=VARIANTS["released"])
    with torch.no_grad():
        output = model(torch.randn(1, 4, 16, 32, 32), torch.tensor([[True, False, True, False]]))
    assert tuple(output.logits.shape) == (1, 3, 16, 32, 32)
    assert tuple(output.domain_logits.shape) == (1, 4, 4)
    assert torch.isfinite(output.logits).all()


def test_poly_schedule_equals_the_golden_values_g3():
    assert 1e-2 * learning_rate(79_999, 180_000, "poly") == pytest.approx(0.0058919446, abs=5e-11)
    assert 1e-2 * learning_rate(90_000, 180_000, "poly") == pytest.approx(0.0053588673, abs=5e-11)


# --------------------------------------------------------------------------------------------------- missing modalities
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("content", [1e3, float("nan")])
def test_content_of_a_missing_modality_changes_nothing(variant, content):
    model, given = net(variant), batch()
    spoilt = torch.where(given["available"][..., None, None, None], given["images"], content)
    with torch.no_grad():
        expected, found = model(given["images"], given["available"]), model(spoilt, given["available"])
    for name, one, other in zip(expected._fields, expected, found, strict=True):
        assert torch.equal(one, other), name
    assert torch.equal(
        shaspec_loss(model, given)[0].detach(), shaspec_loss(model, {**given, "images": spoilt})[0].detach()
    )


def test_missing_slot_holds_the_mean_of_the_available_shared_features():  # Eq. (4)
    model, given = net(), batch()
    with torch.no_grad():
        output = model(given["images"], given["available"])
    mean = output.shared[0, [0, 2]].mean(dim=0)
    assert torch.allclose(output.fused[0, 1], mean, atol=1e-6)
    assert torch.equal(output.fused[0, 1], output.fused[0, 3])
    assert torch.equal(output.fused[1, 0], output.shared[1, 3])  # one available: the mean is that one
    assert not torch.allclose(output.fused[0, 0], output.shared[0, 0])  # an available slot has its residual


def test_first_available_fills_in_the_released_order():
    model, given = net("first-available"), batch()
    given["available"] = torch.tensor([[True, True, False, False], [True, False, True, True]])
    with torch.no_grad():
        output = model(given["images"], given["available"])
    assert torch.equal(output.fused[0, 3], output.shared[0, MRI.index("t1")])
    assert torch.equal(output.fused[1, 1], output.shared[1, MRI.index("flair")])


def test_every_switch_changes_the_loss_or_the_output():
    given = batch()
    with torch.no_grad():
        outputs = {name: net(name)(given["images"], given["available"]).logits for name in VARIANTS}
        losses = {name: shaspec_loss(net(name), given)[0].item() for name in VARIANTS}
    for name in ("first-available", "blank-skips", "mean-skips", "released"):
        assert not torch.allclose(outputs[name], outputs["paper"], atol=1e-3), name
    for name in ("ring", "unmasked", "poly"):
        assert torch.allclose(outputs[name], outputs["paper"], atol=1e-5), name
    assert losses["unmasked"] != losses["paper"]
    assert losses["ring"] != losses["paper"]  # t1 and t2 are no neighbours in the ring
    assert recipe("shaspec", "poly", MRI, [8, 16]).overrides == {"schedule": "poly"}


def test_unmasked_losses_count_missing_modalities():
    shared, available = sines(1, 4, 2, 1, 1, 1), torch.tensor([[True, False, False, False]])
    assert alignment_loss(shared, available).item() == 0
    assert alignment_loss(shared, torch.ones_like(available)).item() > 0


@pytest.mark.parametrize("variant", ["paper", "released", "mean-skips"])
def test_one_encoding_serves_every_combination(variant):
    model, given = net(variant).eval(), batch(1)
    available = torch.stack([mask(one, MRI) for one in combinations(MRI)])
    with torch.no_grad():
        encoding = model.encode(given["images"], torch.ones(1, 4, dtype=torch.bool))
        together = model.decode(encoding, available)
        apart = torch.cat([model(given["images"], row[None]).logits for row in available])
    assert torch.allclose(together, apart, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- losses
def test_alignment_by_hand():
    shared = torch.tensor([[[1.0, 3.0], [2.0, 5.0], [0.0, 0.0]]])[..., None, None, None]  # (1, 3, 2, 1, 1, 1)
    pair = torch.tensor([[True, True, False]])
    assert alignment_loss(shared, pair).item() == pytest.approx((1 + 2) / 2)
    assert alignment_loss(shared, pair, kind="mse").item() == pytest.approx((1 + 4) / 2)
    p, q = torch.softmax(torch.tensor([1.0, 3.0]), 0), torch.softmax(torch.tensor([2.0, 5.0]), 0)
    divergence = ((p - q) * (p.log() - q.log())).sum().item()
    assert alignment_loss(shared, pair, kind="kl").item() == pytest.approx(divergence, rel=1e-5)
    uniform = torch.zeros(1, 3, 2, 1, 1, 1)
    assert alignment_loss(uniform, pair, kind="ce").item() == pytest.approx(math.log(2))


def test_alignment_averages_over_cases():
    shared = sines(1, 4, 3, 2, 2, 2)
    every = torch.ones(1, 4, dtype=torch.bool)
    one = alignment_loss(shared, every).item()
    assert alignment_loss(shared.repeat(3, 1, 1, 1, 1, 1), every.repeat(3, 1)).item() == pytest.approx(one)


def test_domain_loss_leaves_missing_modalities_out():
    logits = sines(1, 4, 4)
    available = torch.tensor([[True, False, True, False]])
    expected = -(logits[0, 0].log_softmax(0)[0] + logits[0, 2].log_softmax(0)[2]) / 2
    assert domain_loss(logits, available).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse-0.1", Variant(kind="mse", alpha=0.1)),
        ("kl-1", Variant(kind="kl", alpha=1)),
        ("l1-0.1", Variant()),
        ("ce-10", Variant(kind="ce", alpha=10)),
        ("alpha-0.1-beta-0.5", Variant(alpha=0.1, beta=0.5)),
        ("alpha-0-beta-0.02", VARIANTS["alpha-0"]),
        ("alpha-0.1-beta-0", VARIANTS["beta-0"]),
        ("alpha-1-beta-1", VARIANTS["alpha-1-beta-1"]),
        ("only-t1+flair", VARIANTS["paper"]),
    ],
)
def test_names_of_variants(name, expected):
    assert variant_of(name) == expected


def test_a_net_for_one_combination_says_which():
    assert recipe("shaspec", "only-t1+flair", MRI, [8, 16]).combination == ("t1", "flair")
    assert recipe("shaspec", "paper", MRI, [8, 16]).combination is None


def test_only_kl_and_ce_have_a_head_and_other_weights_do_not_notice():
    plain = net()
    assert plain.alignment_head is None and net("mse-1").alignment_head is None
    for name, outputs in (("kl-1", LOW), ("ce-1", 4)):
        model = net(name)
        assert parameters(model) == parameters(plain) + outputs * (WIDTHS[-1] + 1)
        assert model.alignment_head.out_features == outputs
        others = model.state_dict()
        assert all(torch.equal(weights, others[key]) for key, weights in plain.state_dict().items())


@pytest.mark.parametrize("name", ["mse-0.5", "kl-0.5", "ce-0.5"])
def test_the_alignment_loss_of_a_variant_is_used_and_reaches_the_shared_encoder(name):
    model, given = net(name), batch()
    total, parts = shaspec_loss(model, given)
    output = model(given["images"], given["available"])
    kind = variant_of(name).kind
    alignment = alignment_loss(output.shared, given["available"], kind, head=model.alignment_head)
    assert parts["alignment"].item() == pytest.approx(alignment.item())
    assert total.item() == pytest.approx((parts["task"] + 0.5 * alignment + 0.02 * parts["domain"]).item())
    assert torch.autograd.grad(alignment, output.shared)[0].abs().max() > 0


def test_a_head_of_zeros_reaches_the_least_kl_and_ce():
    shared, every = sines(2, 4, 8, 1, 1, 1).float(), torch.ones(2, 4, dtype=torch.bool)
    for kind, least in (("kl", 0), ("ce", math.log(4))):
        head = alignment_head(kind, 8, 4)
        assert alignment_loss(shared, every, kind, head=head).item() > least
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        assert alignment_loss(shared, every, kind, head=head).item() == pytest.approx(least)


# ---------------------------------------------------------------------------------------------------------- gradients
def test_gradients_reach_the_encoders_of_available_modalities_only():
    model, given = net(), batch(1)
    shaspec_loss(model, given)[0].backward()

    def moved(module: torch.nn.Module) -> bool:
        return any(weights.grad is not None and weights.grad.abs().max() > 0 for weights in module.parameters())

    assert moved(model.shared) and moved(model.projection) and moved(model.decoder) and moved(model.domain_head)
    assert [moved(encoder) for encoder in model.specific] == [True, False, True, False]


def test_two_cases_can_be_learnt_by_heart():
    generator = torch.Generator().manual_seed(1)
    regions = torch.zeros(2, 3, 16, 16, 16, dtype=torch.bool)
    regions[0, :, 2:10, 3:9, 4:12], regions[1, :, 6:14, 5:13, 2:8] = True, True
    images = torch.randn(2, 4, 16, 16, 16, generator=generator) * 0.3 + regions[:, :1]
    given = {"images": images, "available": torch.ones(2, 4, dtype=torch.bool), "regions": regions}
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        shaspec_loss(model, given)[0].backward()
        optimizer.step()
    with torch.no_grad():
        predicted = model(images, given["available"]).logits > 0
    assert 2 * (predicted & regions).sum() / (predicted.sum() + regions.sum()) > 0.95


# ------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("size", "available", "message"),
    [
        ((15, 16, 16), [[True] * 4], r"not divisible by \(8, 8, 8\): pad it to \(16, 16, 16\)"),
        ((16, 16, 16), [[False] * 4], "no modality is available in batch positions"),
        ((16, 16, 16), [[True] * 3], "available has 3 columns but there are 4 modalities"),
    ],
)
def test_bad_input_is_refused(size, available, message):
    with pytest.raises(ValueError, match=message):
        net()(torch.zeros(1, 4, *size), torch.tensor(available))


def test_images_must_have_the_mask_s_shape():
    with pytest.raises(ValueError, match=r"images must be \(B, M, D, H, W\) with \(B, M\) = \(2, 4\)"):
        net()(torch.zeros(1, 4, 16, 16, 16), torch.ones(2, 4, dtype=torch.bool))


def test_unknown_choices_are_refused():
    every = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="kind must be l1, mse, kl or ce"):
        alignment_loss(torch.zeros(1, 2, 3), every, kind="l2")
    with pytest.raises(ValueError, match="pairs all or ring"):
        alignment_loss(torch.zeros(1, 2, 3), every, pairs="star")
    with pytest.raises(ValueError, match="topology must be"):
        ShaSpecSegmenter(MRI, topology="large")
    with pytest.raises(ValueError, match="this file has the method shaspec; got u-net"):
        recipe("u-net", "paper", MRI, [8, 16])
    for name in ("best", "l2-0.1", "mse-", "kl", "alpha-0.1", "alpha-0.1-beta-x", "mse--1"):
        with pytest.raises(
            ValueError, match=rf"no variant '{name}' of ShaSpec: .*released.*<l1\|mse\|kl\|ce>-<weight>"
        ):
            recipe("shaspec", name, MRI, [8, 16])
    with pytest.raises(ValueError, match="a combination needs at least one of"):
        recipe("shaspec", "only-pd", MRI, [8, 16])


def test_the_objective_is_the_sum_of_its_parts():  # Eq. (9)
    for name, alpha, beta in (("paper", 0.1, 0.02), ("alpha-1-beta-1", 1, 1), ("alpha-0", 0, 0.02)):
        total, parts = shaspec_loss(net(name), batch())
        assert set(parts) == {"task", "alignment", "domain"}
        expected = parts["task"] + alpha * parts["alignment"] + beta * parts["domain"]
        assert total.item() == pytest.approx(expected.item()), name
