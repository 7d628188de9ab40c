"""What the chapter on digits draws, from made-up pairs."""

from types import SimpleNamespace

import torch

from mmlib.studies.digits import portraits


def test_portraits_show_an_image_and_two_sounds_of_every_digit() -> None:
    labels = torch.arange(10).repeat(2)
    sounds = torch.arange(20.0).view(20, 1, 1, 1).expand(20, 1, 20, 20)
    figure = portraits(SimpleNamespace(labels=labels, images=torch.zeros(20, 1, 28, 28), audio=sounds))
    axes = figure.axes
    assert [axis.get_title(loc="left") for axis in axes[:10]] == [str(digit) for digit in range(10)]
    assert axes[13].images[0].get_array().shape == (13, 20)
    assert axes[13].images[0].get_array().max() == 3
    assert axes[23].images[0].get_array().max() == 13
