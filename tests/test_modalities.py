from collections import Counter

import pytest
import torch

from mmlib import modalities
from mmlib.modalities import IXI, MRI, check_available, combinations, draw, label, mask, parse


def test_all_fifteen_combinations_small_first_and_in_order():
    found = combinations(MRI)
    assert len(found) == 15 == len(set(found)) and found[0] == ("t1",) and found[-1] == MRI
    assert [len(one) for one in found] == [1] * 4 + [2] * 6 + [3] * 4 + [4]
    assert combinations(IXI) == [
        ("t1",), ("t2",), ("pd",), ("t1", "t2"), ("t1", "pd"), ("t2", "pd"), ("t1", "t2", "pd"),
    ]  # fmt: skip


@pytest.mark.parametrize("names", [(), ("t1", "t1")])
def test_combinations_need_distinct_names(names):
    with pytest.raises(ValueError, match="distinct names, at least one"):
        combinations(names)


def test_labels_are_canonical_and_can_be_read_again():
    assert label(["flair", "t1"], MRI) == "t1+flair"
    assert parse("flair+t1", MRI) == ("t1", "flair") and parse("all", MRI) == MRI
    for one in combinations(MRI):
        assert parse(label(one, MRI), MRI) == one


@pytest.mark.parametrize("wrong", [[], ["pd"], ["t1", "T2"]])
def test_labels_of_nothing_or_of_strangers_are_refused(wrong):
    with pytest.raises(ValueError, match="a combination needs at least one of"):
        label(wrong, MRI)
    with pytest.raises(ValueError, match="a combination needs at least one of"):
        mask(wrong, MRI)


@pytest.mark.parametrize("text", ["", "t1+", "pd", "t1 + t2"])
def test_texts_that_are_no_combination_are_refused(text):
    with pytest.raises(ValueError, match="a combination needs at least one of"):
        parse(text, MRI)


def test_masks():
    assert mask(("flair", "t1"), MRI).tolist() == [True, False, False, True]
    assert mask(["pd"], IXI).dtype == torch.bool


def test_masks_are_checked():
    check_available(torch.tensor([[True, False]]), ("a", "b"))
    with pytest.raises(ValueError, match=r"must be bool \(B, M\); got torch.float32"):
        check_available(torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"must be bool \(B, M\); got torch.bool \(4,\)"):
        check_available(torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="has 3 columns but there are 4 modalities"):
        check_available(torch.ones(2, 3, dtype=torch.bool), MRI)
    with pytest.raises(ValueError, match=r"no modality is available in batch positions \[1\]"):
        check_available(torch.tensor([[True, False], [False, False]]))


def probabilities(sampler: str, acquired: list[int], draws: int = 6000, **settings) -> dict[tuple[int, ...], float]:
    """How often each subset is drawn from cases that acquired the modalities at these positions."""
    rows = torch.zeros(draws, 4, dtype=torch.bool)
    rows[:, acquired] = True
    drawn = draw(sampler, rows, torch.Generator().manual_seed(0), **settings)
    assert drawn.dtype == torch.bool and drawn.shape == rows.shape
    assert not (drawn & ~rows).any() and drawn.any(1).all()
    counts = Counter(tuple(row.nonzero().flatten().tolist()) for row in drawn)
    return {subset: count / draws for subset, count in counts.items()}


def close(found: dict, expected: dict, draws: int = 6000) -> bool:
    """Within five standard errors of each probability, and no other subset."""
    return found.keys() == expected.keys() and all(
        abs(found[one] - p) < 5 * (p * (1 - p) / draws) ** 0.5 for one, p in expected.items()
    )


SUBSETS = [tuple(MRI.index(name) for name in one) for one in combinations(MRI)]


def test_uniform_subsets_gives_each_of_the_fifteen_the_same_chance():
    assert close(probabilities("uniform-subsets", [0, 1, 2, 3]), dict.fromkeys(SUBSETS, 1 / 15))


def test_uniform_size_gives_each_size_the_same_chance():
    chances = {1: 1 / 16, 2: 1 / 24, 3: 1 / 16, 4: 1 / 4}
    assert close(probabilities("uniform-size", [0, 1, 2, 3]), {one: chances[len(one)] for one in SUBSETS})


def test_bernoulli_keeps_each_and_draws_again_when_none_is_left():
    keep = 0.7
    chances = {one: keep ** len(one) * (1 - keep) ** (4 - len(one)) / (1 - (1 - keep) ** 4) for one in SUBSETS}
    assert close(probabilities("bernoulli", [0, 1, 2, 3], rate=0.3), chances)
    assert probabilities("bernoulli", [0, 1, 2, 3], rate=0) == {(0, 1, 2, 3): 1}


def test_incomplete_cases_are_drawn_from_what_they_have():
    thirds = {(1,): 1 / 3, (3,): 1 / 3, (1, 3): 1 / 3}
    assert close(probabilities("uniform-subsets", [1, 3]), thirds)
    assert close(probabilities("uniform-size", [1, 3]), {(1,): 1 / 4, (3,): 1 / 4, (1, 3): 1 / 2})
    for sampler in ("uniform-subsets", "uniform-size", "bernoulli"):
        assert probabilities(sampler, [2], draws=50) == {(2,): 1}


def test_fixed_is_the_same_for_all_and_needs_one_acquired():
    acquired = torch.tensor([[True, True, True, True], [True, False, True, False]])
    generator = torch.Generator()
    drawn = draw("fixed", acquired, generator, fixed=mask(("t1", "t1ce"), MRI))
    assert drawn.tolist() == [[True, True, False, False], [True, False, False, False]]
    with pytest.raises(ValueError, match=r"batch positions \[1\]"):
        draw("fixed", acquired, generator, fixed=mask(("t1ce",), MRI))
    for wrong in (None, torch.ones(3, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"needs fixed=\(M,\) bool with M = 4"):
            draw("fixed", acquired, generator, fixed=wrong)


@pytest.mark.parametrize("sampler", ["uniform-subsets", "uniform-size", "bernoulli"])
def test_the_seed_decides(sampler):
    acquired = torch.ones(64, 4, dtype=torch.bool)
    one, same, other = (draw(sampler, acquired, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_wrong_draws_are_refused():
    acquired, generator = torch.ones(1, 4, dtype=torch.bool), torch.Generator()
    with pytest.raises(ValueError, match="unknown availability sampler 'curriculum'; choose one of"):
        draw("curriculum", acquired, generator)
    for rate in (1, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
            draw("bernoulli", acquired, generator, rate=rate)
    for sampler in modalities.SAMPLERS:
        with pytest.raises(ValueError, match=r"no modality is available in batch positions \[0\]"):
            draw(sampler, ~acquired, generator, fixed=torch.ones(4, dtype=torch.bool))
