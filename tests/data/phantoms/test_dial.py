"""Latents with a dial: what labels and superior latents say of the state, and what the theory expects of them."""

import math

import pytest
import torch

from mmlib.data.phantoms import latents as phantom


def agreement(first, second):
    return (first == second).double().mean().item()


def by_superior(cases):
    """The state that the superior latents show: along the difference of the means of their two kinds."""
    first = cases.superior[cases.state == 1].mean(dim=0) - cases.superior[cases.state == 0].mean(dim=0)
    score = cases.superior @ first
    return (score > score.median()).long()


def test_labels_are_wrong_in_the_share_that_was_asked_for():
    cases = phantom.draw(20_000, 0.3, True, seed=0)
    assert agreement(cases.label, cases.state) == pytest.approx(0.7, abs=0.01)
    assert agreement(cases.state, torch.ones(20_000)) == pytest.approx(0.5, abs=0.015)
    right = phantom.draw(500, 0.0, False, seed=0)
    assert torch.equal(right.label, right.state)


@pytest.mark.parametrize("coupled", [True, False])
def test_superior_latents_witness_the_state_as_well_as_the_formula_says(coupled):
    cases = phantom.draw(20_000, 0.2, coupled, seed=1)
    s = 2 * agreement(by_superior(cases), cases.state) - 1
    assert s == pytest.approx(phantom.witness(0.2, coupled), abs=0.03)


def test_coupled_and_decoupled_superior_latents_say_the_same_about_labels():
    shares = []
    for coupled in (True, False):
        cases = phantom.draw(20_000, 0.3, coupled, seed=2)
        shares.append(agreement(by_superior(cases), cases.label))
        assert cases.superior.shape == (20_000, 32) and (cases.superior >= 0).all()
    assert shares[0] == pytest.approx(0.7, abs=0.02) and shares[1] == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(("noise", "cases"), [(0.3, 300), (0.3, 100), (0.0, 25), (0.15, 600)])
def test_the_mean_of_labelled_latents_classifies_as_the_theory_expects(noise, cases):
    found = []
    for seed in range(60):
        train = phantom.draw(cases, noise, True, seed)
        test = phantom.draw(1000, noise, True, seed, "test")
        direction = ((2 * train.label - 1)[:, None] * train.inferior).mean(dim=0)
        found.append(agreement((test.inferior @ direction > 0).long(), test.state))
    expected = phantom.expected_accuracy(phantom.witness(noise), cases)
    assert sum(found) / len(found) == pytest.approx(expected, abs=0.02)


def test_values_of_the_formula_by_hand():
    assert phantom.expected_accuracy(1, math.inf) == pytest.approx(0.9332, abs=1e-4)  # Phi(1.5)
    # s m^2 = 0.9, s^2 m^2 = 0.36, 128 / 300 = 0.42667: Phi(0.9 / 0.88694) = Phi(1.01473)
    assert phantom.expected_accuracy(0.4, 300) == pytest.approx(0.84488, abs=1e-5)
    assert phantom.expected_accuracy(0, 300) == 0.5
    assert phantom.expected_gain(0.0, False, 300, 300) == 0
    assert phantom.expected_gain(0.3, True, 300, 300) == pytest.approx(7.06, abs=0.01)
    assert phantom.expected_gain(0.3, False, 300, 300) < -10


def test_parts_of_a_seed_share_directions_and_no_case():
    train, test = (phantom.draw(4000, 0.0, True, 3, part) for part in ("train", "test"))
    means = [(part.inferior * (2 * part.state - 1)[:, None]).mean(dim=0) for part in (train, test)]
    assert torch.nn.functional.cosine_similarity(*means, dim=0) > 0.95
    assert not torch.equal(train.inferior[0], test.inferior[0])
    again = phantom.draw(4000, 0.0, True, 3)
    assert torch.equal(train.superior, again.superior)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"in \[0, 0.5\]; got 0.6"):
        phantom.draw(10, 0.6, True, 0)
    with pytest.raises(ValueError, match="at least one case"):
        phantom.draw(0, 0.1, True, 0)
    with pytest.raises(ValueError, match="unknown part 'valid'; choose train or test"):
        phantom.draw(10, 0.1, True, 0, "valid")
