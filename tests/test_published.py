"""A published network has a name, is loaded by it from anywhere, and nothing damaged is loaded."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks_store import NAMES, make_store
from safetensors.torch import load_file
from typer.testing import CliRunner

import mmlib
from mmlib import published, records
from mmlib.__main__ import app
from mmlib.published import StoreError, read_manifest
from pipeline import store as stores
from pipeline.networks import publish_networks

ROOT = Path(__file__).resolve().parents[1]
THERE = sorted(NAMES.keys() - {"not-there-yet"})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("published"))


@pytest.fixture
def store(made, tmp_path, monkeypatch):
    """A copy of the store that may be spoilt; the working directory has none."""
    shutil.copytree(made, tmp_path / "elsewhere" / "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(published.VARIABLE, str(tmp_path / "elsewhere" / "results"))
    return tmp_path / "elsewhere" / "results"


def test_a_network_is_loaded_by_its_name_through_the_variable(store):
    network = mmlib.load("tiny-segmenter")
    weights = load_file(store / "book" / NAMES["tiny-segmenter"])
    assert not network.model.training
    assert all(torch.equal(weights[key], value) for key, value in network.model.state_dict().items())
    assert network.modalities == ("t1", "t1ce", "t2", "flair") and (network.spacing, network.axes) == (3.0, "RAS")
    assert network.model.window == 16 and network.warning == "trained on phantoms: not for patients"
    assert mmlib.load("tiny-student").modalities == ("t1",)
    assert mmlib.load("tiny-diffusion").spacing == 3.0  # of the profile, for its record does not say it


def test_networks_are_listed_with_their_scores_and_one_that_is_not_published_yet_is_not(store):
    known = published.networks()
    assert sorted(known) == THERE
    (row, mean) = known["tiny-segmenter"]["scores"]
    # cases 50 and 70: mean 60, sd 14.14 / sqrt(2) = 10, t(0.975, 1) = 12.706
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((60, 60 - 127.06, 60 + 127.06), abs=0.01)
    assert row["cases"] == 2 and mean["available"] == "mean of 2 combinations"
    assert [row["mean"] for row in known["tiny-diffusion"]["scores"]] == [21.0]  # of its own seed
    said = CliRunner().invoke(app, ["networks"])
    assert (
        said.exit_code == 0 and "tiny-student\n    distillation, t1, voxels of 3 mm; trained on phantoms" in said.output
    )
    assert "dice wt, t1+t1ce+t2+flair: 60.0 % (-67.1 to 187.1, 2 cases)" in said.output


def test_a_wrong_name_is_answered_by_the_right_ones(store):
    with pytest.raises(ValueError, match=f"is called 'shaspec'; there are {', '.join(THERE)}"):
        mmlib.load("shaspec")


def test_without_a_store_the_variable_is_named(store, tmp_path, monkeypatch):
    monkeypatch.setenv(published.VARIABLE, str(tmp_path))
    with pytest.raises(StoreError, match=f"MMLIB_RESULTS={tmp_path}: there is no manifest.json in it"):
        mmlib.load("tiny-segmenter")
    monkeypatch.delenv(published.VARIABLE)
    monkeypatch.setattr(published, "__file__", str(tmp_path / "site-packages" / "mmlib" / "published.py"))
    with pytest.raises(StoreError, match="no published results found in .*site-packages.*MMLIB_RESULTS"):
        mmlib.load("tiny-segmenter")
    said = CliRunner().invoke(app, ["networks"])
    assert said.exit_code == 1 and "set the environment variable MMLIB_RESULTS" in said.stderr
    monkeypatch.chdir(store.parent)
    assert published.find_store() == store


@pytest.mark.parametrize(
    "file", ["book/segmentation/dropout-unet-s0/fit.safetensors", "book/segmentation/dropout-unet-s0/record.json",
             "networks/index.json"],
)  # fmt: skip
def test_a_damaged_file_is_named_and_not_loaded(store, file):
    content = bytearray((store / file).read_bytes())
    content[len(content) // 2] ^= 1
    (store / file).write_bytes(content)
    with pytest.raises(StoreError, match=f"{file} is not the file that manifest.json lists .*: git checkout -- "):
        mmlib.load("tiny-segmenter")
    (store / file).unlink()
    with pytest.raises(StoreError, match=f"{file} cannot be read"):
        mmlib.load("tiny-segmenter")


def test_a_card_says_what_it_is_not_for_and_how_to_load_it(store):
    card = published.card("tiny-translator")
    assert "**Warning: trained on phantoms: not for patients.**" in card
    assert 'network = mmlib.load("tiny-translator")' in card and "network.complete(case)" in card
    assert "trained on 2 cases (fit)" in card and "| psnr-mean | all | one missing | 20.0 dB |" in card
    (store / "networks" / "tiny-translator.md").write_text(card.replace("not for", "for"))
    with pytest.raises(StoreError, match="tiny-translator.md is not the file"):
        published.card("tiny-translator")


def test_publishing_again_gives_the_same_bytes_and_a_name_that_is_gone_takes_its_card_along(store):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    publish_networks(store, "book", dict(reversed(NAMES.items())), {"synthesis": 3.0})
    assert before == {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    left = {"tiny-student": NAMES["tiny-student"]}
    assert publish_networks(store, "book", left, {}) == ["tiny-student"]
    assert [path.name for path in (store / "networks").glob("*.md")] == ["tiny-student.md"]
    assert "networks/tiny-segmenter.md" not in read_manifest(store)
    assert publish_networks(store, "quick", {}, {}) == ["tiny-student"]  # of another profile: it stays


def test_a_run_whose_network_has_a_name_is_restored_with_its_own_record(store, tmp_path):
    done = stores.restore(store, "book", tmp_path / "back")
    assert "segmentation/dropout-unet-s0" in done["restored"]
    record = records.read_record(tmp_path / "back" / "book" / "segmentation" / "dropout-unet-s0")
    assert {"scores.csv", "fit.safetensors"} <= set(record["files"])


def test_the_package_and_its_store_are_found_without_importing_torch():
    code = "import sys, mmlib; from mmlib import published; print('torch' in sys.modules, hasattr(mmlib, 'nothing'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_network_that_the_repository_publishes_can_be_loaded(monkeypatch):
    monkeypatch.delenv(published.VARIABLE, raising=False)
    store = ROOT / "results"
    names = published.networks(store) if store.is_dir() else {}
    if not names:
        pytest.skip("no network is published in results/")
    for name, facts in names.items():
        network = mmlib.load(name, store)
        assert list(network.modalities) == facts["modalities"] and network.warning == facts["warning"]
        assert facts["warning"] in published.card(name, store)
