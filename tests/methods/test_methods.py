"""Which module holds a method, and the way to a trained network."""

import importlib

import pytest

from mmlib.methods import MODULES, load, module_of


@pytest.mark.parametrize("task", MODULES)
def test_every_method_is_where_the_list_says(task):
    entry = {"classification": "train", "distillation": "teaching", "guidance": "train_unimodal"}.get(task, "recipe")
    for method in MODULES[task]:
        held = importlib.import_module(module_of(task, method))
        assert hasattr(held, entry) or method == "floors", f"{method} of {task}"


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(ValueError, match="segmentation has no method 'unet'; choose one of shaspec, u-hved, zero-fill"):
        module_of("segmentation", "unet")


def test_an_unfinished_run_cannot_be_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="the run is not finished; run it again"):
        load(tmp_path)
