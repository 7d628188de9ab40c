"""U-HVED: the product of experts and its divergences by hand, and what a missing modality may change."""

import itertools

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmlib.methods.uhved import UHVED, Gaussian, divergence_loss, product_of_experts, recipe, uhved_loss
from mmlib.modalities import MRI, combinations, mask

WIDTHS = (8, 16, 24)
ALL = torch.ones(1, 4, dtype=torch.bool)


def encoding_of(means, variances):
    """One case, one element: (1, M, 2, 1, 1, 1)."""
    return torch.tensor([means, torch.tensor(variances).log().tolist()], dtype=torch.float64).T.reshape(
        1, -1, 2, 1, 1, 1
    )


def batch_of(available, side=16):
    images = torch.randn(*available.shape, side, side, side) * available[..., None, None, None]
    return {"images": images, "available": available, "regions": torch.rand(len(available), 3, side, side, side) > 0.8}


def test_golden_product_and_divergence_from_the_prior():
    fused = product_of_experts(encoding_of([1.0, 3.0], [1.0, 2.0]), torch.tensor([[True, True]]))
    assert fused.mean.item() == pytest.approx(1.0, abs=1e-6)
    assert 1 / fused.precision.item() == pytest.approx(0.4, abs=1e-6)
    prior = Gaussian(torch.zeros(()), torch.ones(()))
    assert Gaussian(torch.tensor(1.0), torch.tensor(2.5)).divergence(prior).item() == pytest.approx(0.6581453, abs=1e-6)


def test_no_modality_leaves_the_prior():
    fused = product_of_experts(encoding_of([1.0, 3.0], [1.0, 2.0]), torch.tensor([[False, False]]))
    assert (fused.mean.item(), fused.precision.item()) == (0, 1)


def test_log_variances_are_clipped():
    encoding = torch.tensor([0.0, 900.0, 2.0, -900.0]).view(1, 2, 2, 1, 1, 1)
    fused = product_of_experts(encoding, torch.tensor([[True, False], [False, True]]))
    assert fused.precision.flatten().tolist() == [1, pytest.approx(1e7, rel=1e-6)]
    assert fused.mean.flatten().tolist() == [0, pytest.approx(2)]


def test_order_of_modalities_does_not_matter():
    encoding, order = torch.randn(2, 4, 6, 3, 3, 3), torch.tensor([3, 0, 1, 2])
    available = torch.tensor([[True, False, True, True], [False, True, False, False]])
    here, there = product_of_experts(encoding, available), product_of_experts(encoding[:, order], available[:, order])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(here, there, strict=True))
    losses = divergence_loss([encoding], available), divergence_loss([encoding[:, order]], available[:, order])
    assert torch.allclose(*losses, atol=1e-5)


def test_one_case_in_many_combinations_equals_many_cases():
    encoding = torch.randn(1, 4, 6, 3, 3, 3)
    available = torch.stack([mask(one, MRI) for one in combinations(MRI)])
    once = product_of_experts(encoding, available)
    each = product_of_experts(encoding.expand(15, -1, -1, -1, -1, -1), available)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(once, each, strict=True))


def reference(level, available):
    """The divergence of one scale, subset by subset, by torch's own formula; divisors 14 and 15 for four modalities."""
    total = 0.0
    for case, row in enumerate(available):
        mean, log_variance = level[case].chunk(2, dim=1)

        def q(subset, mean=mean, log_variance=log_variance):
            precision = 1 + sum(1 / (log_variance[m].exp() + 1e-7) for m in subset)
            return Normal(sum(mean[m] / (log_variance[m].exp() + 1e-7) for m in subset) / precision, precision**-0.5)

        there = row.nonzero().flatten().tolist()
        subsets = [one for size in range(1, len(there) + 1) for one in itertools.combinations(there, size)]
        apart = sum(kl_divergence(q(there), q(one)).mean() for one in subsets)
        prior = sum(kl_divergence(q(one), Normal(0.0, 1.0)).mean() for one in subsets)
        total = total + apart / max(1, len(subsets) - 1) + prior / len(subsets)
    return total / len(available)


def test_divergence_equals_the_sum_over_subsets():
    available = torch.tensor([[True, True, True, True], [False, True, False, True], [False, False, True, False]])
    levels = [torch.randn(3, 4, 2 * c, s, s, s, dtype=torch.float64) for c, s in ((2, 4), (5, 2))]
    expected = sum(reference(level, available) for level in levels) / 2
    assert divergence_loss(levels, available).item() == pytest.approx(expected.item(), rel=1e-9)


def test_experts_that_know_nothing_diverge_from_nothing():
    level = torch.cat([torch.zeros(1, 4, 3, 2, 2, 2), torch.full((1, 4, 3, 2, 2, 2), 50.0)], dim=2)
    assert divergence_loss([level], ALL).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("content", [1e3, float("nan")])
@pytest.mark.parametrize("sample", [False, True])
def test_content_of_a_missing_modality_changes_nothing(content, sample):
    torch.manual_seed(0)
    model = UHVED(MRI, WIDTHS)
    available = torch.tensor([[True, False, True, False], [False, True, False, False]])
    batch = batch_of(available)
    spoilt = {**batch, "images": torch.where(available[..., None, None, None], batch["images"], content)}
    found = []
    for one in (batch, spoilt):
        torch.manual_seed(1)
        with torch.no_grad():
            found.append((model(one["images"], available, sample), uhved_loss(model, one)[0]))
    (here, loss), (there, other) = found
    assert torch.equal(here.logits, there.logits) and torch.equal(here.reconstructions, there.reconstructions)
    assert loss == other
    assert here.reconstructions[~available].abs().max() == 0


def test_one_encoding_serves_every_combination():
    torch.manual_seed(0)
    model, images = UHVED(MRI, WIDTHS).eval(), torch.randn(1, 4, 16, 16, 16)
    available = torch.stack([mask(one, MRI) for one in combinations(MRI)])
    with torch.no_grad():
        together = model.decode(model.encode(images, ALL), available)
        apart = torch.cat([model(images, row[None]).logits for row in available])
    assert torch.allclose(together, apart, atol=1e-5)


def test_training_draws_and_prediction_does_not():
    torch.manual_seed(0)
    model, images = UHVED(MRI, WIDTHS), torch.randn(1, 4, 16, 16, 16)
    with torch.no_grad():
        state = torch.get_rng_state()
        means = [model(images, ALL).logits for _ in range(2)]
        assert torch.equal(torch.get_rng_state(), state)
        draws = [model(images, ALL, sample=True).logits for _ in range(2)]
    assert torch.equal(*means) and not torch.equal(*draws)


def test_draws_have_the_moments_they_should():
    torch.manual_seed(0)
    drawn = Gaussian(torch.full((200_000,), 3.0), torch.full((200_000,), 4.0)).draw()
    assert drawn.mean().item() == pytest.approx(3, abs=0.01) and drawn.std().item() == pytest.approx(0.5, abs=0.01)


def test_every_weight_has_a_gradient_even_where_nobody_has_a_modality():
    torch.manual_seed(0)
    model = UHVED(MRI, WIDTHS)
    total, parts = uhved_loss(model, batch_of(torch.tensor([[True, False, True, True], [True, False, False, True]])))
    total.backward()
    assert all(weights.grad is not None for weights in model.parameters())
    reached = {m: any(w.grad.abs().max() > 0 for w in net.parameters()) for m, net in enumerate(model.image_decoders)}
    assert reached == {0: True, 1: False, 2: True, 3: True}
    weighted = parts["task"] + 0.1 * parts["divergence"] + 0.1 * parts["reconstruction"]
    assert torch.allclose(total, weighted) and not any(part.requires_grad for part in parts.values())


def test_two_cases_are_learnt():
    torch.manual_seed(0)
    available = torch.tensor([[True, True, True, True], [True, False, True, False]])
    regions = torch.zeros(2, 3, 16, 16, 16, dtype=torch.bool)
    regions[0, :, 2:9, 4:12, 4:12] = regions[1, :, 6:14, 3:11, 5:13] = True
    bright = (2.0 * regions[:, :1] + 0.3 * torch.randn(2, 4, 16, 16, 16)) * available[..., None, None, None]
    batch = {"images": bright, "available": available, "regions": regions}
    model = UHVED(MRI, (8, 16))
    stepper = torch.optim.Adam(model.parameters(), 1e-2)
    logged = []
    for _ in range(50):
        total, parts = uhved_loss(model, batch)
        stepper.zero_grad()
        total.backward()
        stepper.step()
        logged.append(parts)
    assert logged[-1]["task"] < 0.5 * logged[0]["task"]
    assert logged[-1]["reconstruction"] < 0.5 * logged[0]["reconstruction"]


def test_recipe_builds_what_it_says_and_refuses_the_rest():
    made = recipe("u-hved", "standard", MRI, [8, 16, 24])
    model = made.network
    assert isinstance(model, UHVED) and made.loss is uhved_loss and made.overrides == {}
    assert model.modalities == MRI and model.stride == (8, 8, 8)
    with pytest.raises(ValueError, match="has the method u-hved with the variant standard; got u-hemis"):
        recipe("u-hemis", "standard", MRI, [8, 16])
    with pytest.raises(ValueError, match="pad it to"):
        model(torch.zeros(1, 4, 9, 16, 16), ALL)
    with pytest.raises(ValueError, match="no modality is available"):
        model(torch.zeros(1, 4, 16, 16, 16), ~ALL)
