"""mmFormer: where tokens go, what attention sees, and what a missing modality may change."""

import math

import pytest
import torch

from mmlib.methods.mmformer import VARIANTS, MmFormer, Transformer, mmformer_loss, recipe
from mmlib.modalities import MRI, combinations, mask

WIDTHS = (8, 16)
ALL = torch.ones(1, 4, dtype=torch.bool)


class Untouched(torch.nn.Module):
    """A layer of attention that gives its tokens back."""

    def forward(self, tokens, src_key_padding_mask=None):
        self.mask = src_key_padding_mask
        return tokens


def batch_of(available, side=16):
    images = torch.randn(*available.shape, side, side, side) * available[..., None, None, None]
    return {"images": images, "available": available, "regions": torch.rand(len(available), 3, side, side, side) > 0.8}


def test_tokens_return_to_their_place_in_the_order_of_modalities():
    model = MmFormer(MRI, WIDTHS)
    model.inter.layer = Untouched()
    local = torch.randn(2, 4, 16, 2, 3, 4)
    assert torch.equal(model.fuse(local, ALL.expand(2, 4)), local.flatten(1, 2))


def test_the_released_code_mixes_places():
    """Place 2 of 8 gets tokens 8 to 11 of the list of 4 x 8: the first four places of the second modality."""
    model = MmFormer(MRI, WIDTHS, variant=VARIANTS["released"])
    model.inter.layer = Untouched()
    local = torch.arange(32.0).view(1, 4, 1, 2, 2, 2).expand(1, 4, 16, 2, 2, 2)  # a token holds its number in the list
    found = model.fuse(local, ALL).flatten(2)[0].unflatten(0, (4, 16))  # M C places
    assert found[:, 0, 2].tolist() == [8, 9, 10, 11]
    assert found[:, 0].T.flatten().tolist() == list(range(32))


def test_missing_tokens_are_zeros_with_a_position_or_hidden():
    model = MmFormer(MRI, WIDTHS)
    torch.nn.init.constant_(model.inter.positions, 0.5)
    model.inter.layer = Untouched()
    available = torch.tensor([[True, False, True, True]])
    fused = model.fuse(torch.ones(1, 4, 16, 1, 1, 2), available).unflatten(1, (4, 16))
    assert fused[0, :, 0, 0, 0, 0].tolist() == [1.5, 0.5, 1.5, 1.5] and model.inter.layer.mask is None
    hiding = MmFormer(MRI, WIDTHS, variant=VARIANTS["masked"])
    hiding.inter.layer = Untouched()
    hiding.fuse(torch.ones(1, 4, 16, 1, 1, 2), available)
    assert hiding.inter.layer.mask.tolist() == [[False, False, True, True, False, False, False, False]]


def test_hidden_modalities_change_no_other_token_and_shown_ones_do():
    torch.manual_seed(0)
    attention = Transformer(4, 16).eval()
    x, hidden = torch.randn(1, 4, 16, 2, 2, 2), torch.tensor([[False, True, False, False]])
    other = x.clone()
    other[:, 1] = torch.randn(16, 2, 2, 2)
    kept = [0, 2, 3]
    with torch.no_grad():
        assert torch.allclose(attention(x, hidden)[:, kept], attention(other, hidden)[:, kept], atol=1e-6)
        assert not torch.allclose(attention(x)[:, kept], attention(other)[:, kept], atol=1e-3)


def test_positions_tell_modalities_and_places_apart_on_any_grid():
    torch.manual_seed(0)
    attention = Transformer(2, 16).eval()
    same = torch.ones(1, 2, 16, 3, 2, 5)
    with torch.no_grad():
        assert torch.allclose(attention(same)[0, 0, 0], attention(same)[0, 1, -1], atol=1e-5)
        torch.nn.init.normal_(attention.positions)
        tokens = attention(same)
    assert tokens.shape == (1, 2, 30, 16)
    assert not torch.allclose(tokens[0, 0, 0], tokens[0, 1, 0], atol=1e-3)
    assert not torch.allclose(tokens[0, 0, 0], tokens[0, 0, -1], atol=1e-3)


@pytest.mark.parametrize("content", [1e3, math.nan, math.inf])
@pytest.mark.parametrize("variant", VARIANTS)
def test_content_of_a_missing_modality_changes_nothing(content, variant):
    torch.manual_seed(0)
    model = MmFormer(MRI, WIDTHS, variant=VARIANTS[variant])
    available = torch.tensor([[True, False, True, False], [False, True, False, False]])
    batch = batch_of(available)
    spoilt = {**batch, "images": torch.where(available[..., None, None, None], batch["images"], content)}
    found = []
    for one in (batch, spoilt):
        torch.manual_seed(1)  # of dropout
        with torch.no_grad():
            found.append((model(one["images"], available), mmformer_loss(model, one)[0]))
    (here, loss), (there, other) = found
    assert torch.equal(here.logits, there.logits) and torch.equal(here.alone, there.alone)
    assert loss.isfinite() and loss == other


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_encoding_serves_every_combination(variant):
    torch.manual_seed(0)
    model, images = MmFormer(MRI, WIDTHS, variant=VARIANTS[variant]).eval(), torch.randn(1, 4, 16, 16, 16)
    available = torch.stack([mask(one, MRI) for one in combinations(MRI)])
    with torch.no_grad():
        together = model.decode(model.encode(images, ALL), available)
        output = [model(images, row[None]) for row in available]
    assert torch.allclose(together, torch.cat([one.logits for one in output]), atol=1e-4)
    assert not output[0].deep and len(output[0].alone) == 0


def test_auxiliary_logits_of_scales_and_of_each_available_modality():
    torch.manual_seed(0)
    model = MmFormer(MRI, WIDTHS)
    available = torch.tensor([[True, False, True, True], [False, False, False, True]])
    output = model(batch_of(available)["images"], available)
    assert [one.shape[2] for one in output.deep] == [4, 8] and output.alone.shape == (4, 3, 16, 16, 16)


def test_gradients_reach_every_branch_and_every_weight_has_one():
    torch.manual_seed(0)
    model = MmFormer(MRI, WIDTHS)
    total, parts = mmformer_loss(model, batch_of(torch.tensor([[True, False, True, True], [True, False, False, True]])))
    total.backward()
    assert all(weights.grad is not None for weights in model.parameters())
    for part in ("convolutions", "intra"):
        reached = [any(w.grad.any() for w in getattr(net, part).parameters()) for net in model.encoders]
        assert reached == [True, False, True, True]
    for net in (model.inter, model.decoder, model.shared_decoder, *model.deep):
        assert any(weights.grad.any() for weights in net.parameters())
    assert torch.allclose(total, parts["task"] + parts["alone"] + parts["deep"])
    assert not any(part.requires_grad for part in parts.values())


def test_two_cases_are_learnt():
    torch.manual_seed(0)
    available = torch.tensor([[True, True, True, True], [True, False, True, False]])
    regions = torch.zeros(2, 3, 16, 16, 16, dtype=torch.bool)
    regions[0, :, 2:9, 4:12, 4:12] = regions[1, :, 6:14, 3:11, 5:13] = True
    bright = (2.0 * regions[:, :1] + 0.3 * torch.randn(2, 4, 16, 16, 16)) * available[..., None, None, None]
    batch = {"images": bright, "available": available, "regions": regions}
    model = MmFormer(MRI, WIDTHS)
    stepper = torch.optim.Adam(model.parameters(), 1e-2)
    logged = []
    for _ in range(25):
        total, parts = mmformer_loss(model, batch)
        stepper.zero_grad()
        total.backward()
        stepper.step()
        logged.append(parts)
    assert all(logged[-1][name] < 0.6 * logged[0][name] for name in ("task", "alone", "deep"))


def test_recipe_builds_what_it_says_and_refuses_the_rest():
    made = recipe("mmformer", "unregularised", MRI, [8, 16, 24])
    model = made.network
    assert isinstance(model, MmFormer) and made.loss is mmformer_loss and made.overrides == {}
    assert model.modalities == MRI and model.stride == (8, 8, 8)
    parts = mmformer_loss(model, batch_of(ALL))[1]
    assert parts["alone"] == parts["deep"] == 0
    with pytest.raises(ValueError, match="masked, convolutional, unregularised; got u-hemis, standard"):
        recipe("u-hemis", "standard", MRI, [8, 16])
    with pytest.raises(ValueError, match="got mmformer, foo"):
        recipe("mmformer", "foo", MRI, [8, 16])
    with pytest.raises(ValueError, match="pad it to"):
        model(torch.zeros(1, 4, 9, 16, 16), ALL)
    with pytest.raises(ValueError, match="no modality is available"):
        model(torch.zeros(1, 4, 16, 16, 16), ~ALL)
