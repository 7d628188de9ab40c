"""A network that a reader wrote stands in the table beside the published ones, and his page's code runs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from networks_store import write_case
from typer.testing import CliRunner

from mmlib import published, records
from mmlib.__main__ import app
from mmlib.data.nifti import save_image
from mmlib.modalities import MRI, combinations, label
from mmlib.studies import own_network
from pipeline.networks import publish_networks
from pipeline.store import publish

PAGE = Path(__file__).parents[1] / "book" / "your-network.md"
OWN = """
from torch import nn

class Bright(nn.Module):
    def forward(self, images, available):
        images = images.where(available[..., None, None, None], 0)
        return images.amax(dim=1, keepdim=True).expand(-1, 3, -1, -1, -1) - 2

class Peeking(nn.Module):
    def forward(self, images, available):
        return images.sum(dim=1, keepdim=True).expand(-1, 3, -1, -1, -1) * available.sum()

def build():
    return Bright()

def peek():
    return Peeking()

def number():
    return 3

whole = Bright()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with one published method, two seeds, on the two first test cases."""
    root = tmp_path_factory.mktemp("own")
    runs = []
    for experiment, method in (("segmentation", "dropout-unet"), ("subsets", "u-hved")):
        for seed in range(2):
            asked = {"method": method, "variant": "standard", "seed": seed}
            run = records.open_run(root / "made", "book", experiment, f"{method}-s{seed}", asked)
            rows = [
                (case, label(one, MRI), target, "dice", 0.5 + 0.1 * place + 0.01 * seed)
                for place, case in enumerate(("phantom-0120", "phantom-0121"))
                for one in combinations(MRI)
                for target in ("wt", "tc", "et")
            ]
            facts = dict.fromkeys(records.FACTS, "-") | {"stand_in": True}
            run.save(pd.DataFrame({"step": [0]}), pd.DataFrame(rows, columns=records.SCORE_COLUMNS), **facts)
            runs.append(run.folder)
    publish(root / "store", runs, {"commit": "c0ffee", "day": "2026-11-29"})
    publish_networks(root / "store", "book", {}, {})
    return root / "store"


@pytest.fixture(autouse=True)
def here(made, monkeypatch, tmp_path):
    monkeypatch.setenv(published.VARIABLE, str(made))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"networks_{tmp_path.name.replace('-', '_')}"  # modules are imported once
    (tmp_path / f"{name}.py").write_text(OWN)
    return name


def compare(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_a_network_of_ones_own_is_in_the_table_beside_the_published(here, tmp_path):
    done = compare("--network", f"{here}:build", "--output", tmp_path / "out", "--name", "mine", "--cases", 2)
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*own_network.FILES, "phantom"}
    means = pd.read_csv(tmp_path / "out" / "means.csv")
    assert set(means["arm"]) == {"mine", "dropout-unet", "u-hved"} and len(means) == 3 * 16 * 3
    published_mean = means[means["arm"].eq("u-hved")]
    assert published_mean["mean"].to_numpy() == pytest.approx(55.5) and (published_mean["seeds"] == 2).all()
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    mine = 100 * scores.loc[scores["method"].eq("mine"), "value"].mean()
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert f"| {mine - 55.5:+.1f} (" in page and "n = 2 cases" in page and "**Suspicious" not in page
    assert page.count("| t1+t1ce+t2+flair |") == 3 and page in done.output


def test_a_network_that_reads_what_is_missing_is_called_suspicious(here, tmp_path):
    done = compare("--network", f"{here}:peek", "--output", tmp_path / "out", "--cases", 2)
    assert "- **Suspicious:** t1: noise in a missing modality changes the output" in done.output


def test_cases_of_ones_own_are_scored_and_those_without_labels_are_refused(here, tmp_path):
    folder = write_case(tmp_path / "cases" / "a", seed=1, kinds=("t1", "flair"))
    done = compare("--network", f"{here}:whole", "--output", tmp_path / "out", "--data", tmp_path / "cases")
    assert done.exit_code == 1 and "segmentation" in done.output + done.stderr
    assert not (tmp_path / "out").exists()
    import nibabel

    image = nibabel.load(folder / "a_t1.nii.gz")
    labels = (np.asarray(image.dataobj) > 180).astype(np.uint8)
    save_image(nibabel.Nifti1Image(labels, image.affine), folder / "a_seg.nii.gz")
    done = compare("--network", f"{here}:whole", "--output", tmp_path / "out", "--data", tmp_path / "cases")
    assert done.exit_code == 0, done.output + done.stderr
    assert set(pd.read_csv(tmp_path / "out" / "scores.csv")["available"]) == {"t1", "flair", "t1+flair"}
    assert "Nothing is published for such cases" in done.output


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        ("nowhere", "yours", "expected module:function"),
        ("nowhere:build", "yours", "no module nowhere in"),
        ("{}:biuld", "yours", "has no biuld; it has .*build"),
        ("{}:number", "yours", r"expected a torch\.nn\.Module, got int"),
        ("{}:build", "u-hved", "--name u-hved is a published method"),
    ],
)
def test_what_is_no_network_is_refused_and_nothing_is_written(here, tmp_path, network, name, message):
    done = compare("--network", network.format(here), "--output", tmp_path / "out", "--name", name, "--cases", 1)
    assert done.exit_code == 1 and re.search(message, done.output + done.stderr)
    assert not list((tmp_path / "out").glob("*.csv"))


def test_the_code_of_the_page_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(blocks) == 5
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
    assert "available" in capsys.readouterr().out
