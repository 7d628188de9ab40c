"""Latents with other partners: the control that takes from pairs what they say beyond the class."""

import torch

from mmlib.tasks.latents import Latents, other_partners


def numbered(count: int, classes: int) -> Latents:
    """Cases whose two latents are their number."""
    number = torch.arange(count).float()[:, None]
    labels = torch.arange(count)[:, None] % classes
    known = torch.ones(count, 2, dtype=torch.bool)
    return Latents({"inferior": number, "superior": number}, known, labels, tuple(map(str, range(count))))


def test_no_case_keeps_its_partner_and_none_is_lost():
    given = numbered(50, 2)
    moved = other_partners(given, "superior", seed=0)
    assert (moved.inputs["superior"] != given.inputs["superior"]).all()
    assert torch.equal(moved.inputs["superior"].sort(dim=0).values, given.inputs["superior"])
    assert torch.equal(moved.inputs["inferior"], given.inputs["inferior"]), "the other modality stays"


def test_partners_of_the_same_class_stay_in_it():
    given = numbered(51, 3)
    moved = other_partners(given, "superior", 0, given.labels[:, 0])
    partners = moved.inputs["superior"][:, 0].long()
    assert torch.equal(partners % 3, given.labels[:, 0]) and (partners != torch.arange(51)).all()


def test_a_class_of_one_keeps_its_own():
    given = numbered(4, 4)
    assert torch.equal(
        other_partners(given, "superior", 0, given.labels[:, 0]).inputs["superior"], given.inputs["superior"]
    )


def test_the_seed_decides_the_order():
    given = numbered(30, 2)
    first, again, other = (other_partners(given, "superior", seed).inputs["superior"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
