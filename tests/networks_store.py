"""A store of published networks, small and untrained, and cases for them; for the tests of loading and predicting."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from mmlib import records
from mmlib.methods import baselines, m2dn, translation
from mmlib.modalities import MRI
from mmlib.tasks.distillation import CombinationVNet
from pipeline.networks import publish_networks
from pipeline.store import publish

NAMES = {
    "tiny-segmenter": "segmentation/dropout-unet-s0/fit.safetensors",
    "tiny-student": "distillation/protokd-s0/t1.safetensors",
    "tiny-translator": "synthesis/regression/standard-s0/fit.safetensors",
    "tiny-diffusion": "synthesis/m2dn-unet/unet-s1/fit.safetensors",
    "not-there-yet": "synthesis/mm-gan/standard-s0/fit.safetensors",
}
# voxels of 1.5 x 1.5 x 2 mm; the first axis grows to the left, the other two are tilted by 6 degrees
TILT = np.deg2rad(6)
AFFINE = np.array(
    [
        [-1.5, 0, 0, 20],
        [0, 1.5 * np.cos(TILT), -2 * np.sin(TILT), -30],
        [0, 1.5 * np.sin(TILT), 2 * np.cos(TILT), 5],
        [0, 0, 0, 1.0],
    ]
)
SHAPE = (26, 30, 18)


def write_case(folder: Path, seed: int = 0, kinds: tuple[str, ...] = MRI) -> Path:
    """A brain in the shape of an egg, in the layout of BraTS, without a segmentation."""
    generator = np.random.default_rng(seed)
    x, y, z = np.indices(SHAPE)
    brain = ((x - 13) / 10) ** 2 + ((y - 15) / 12) ** 2 + ((z - 9) / 7) ** 2 < 1
    folder.mkdir(parents=True)
    for kind in MRI:
        image = np.where(brain, generator.uniform(100, 200, SHAPE), 0).astype(np.float32)
        if kind in kinds:
            nibabel.save(nibabel.Nifti1Image(image, AFFINE), folder / f"{folder.name}_{kind}.nii.gz")
    return folder


def _finish(root: Path, place: str, task: str, network: torch.nn.Module, parameters: dict, rows: list, **more) -> Path:
    experiment, run, *below = place.split("/")
    made = records.open_run(root, "book", experiment, run, {"split": "brats-phantom", "steps": 5, **parameters})
    path = made.folder.joinpath(*below)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), path)
    facts = dict.fromkeys(records.FACTS, "-") | {"stand_in": True, "parameter_count": 7, "seconds": {"train": 1.0}}
    facts |= {"exposure": {"fit": {"a": ["t1"], "b": ["t1"]}}, "modalities": MRI, "task": task, **more}
    columns = [*records.SCORE_COLUMNS, "variant", "seed"][: len(rows[0])]
    made.save(pd.DataFrame({"step": [0]}), pd.DataFrame(rows, columns=columns), **facts)
    return made.folder


def make_store(folder: Path) -> Path:
    """Publish four networks: a segmenter, a student of t1, a translator and a diffusion model."""
    torch.manual_seed(0)
    every = "+".join(MRI)
    volumes = {"targets": ["wt", "tc", "et"], "spacing": 3.0, "axes": "RAS"}
    dice = [(case, given, "wt", "dice", value) for case, value in (("a", 0.5), ("b", 0.7)) for given in (every, "t1")]
    psnr = [(case, "one missing", "all", "psnr-mean", 20.0 + seed, variant, seed)
            for case in "ab" for variant, seed in (("standard", 0), ("unet", 0), ("unet", 1))]  # fmt: skip
    asked = {"method": "dropout-unet", "variant": "standard", "seed": 0, "widths": [4, 8], "crop": 16}
    student = {"method": "protokd", "variant": "standard", "seed": 0, "width": 2, "crop": 16}
    slices = {"size": [32, 32], "widths": [8, 16], "sampling_steps": 2}
    translator = {**slices, "method": "regression", "variant": "standard", "seed": 0}
    diffusion = {**slices, "method": "m2dn", "variant": "unet", "seed": "0 1"}
    segmenter = baselines.recipe("dropout-unet", "standard", MRI, [4, 8], 3).network
    runs = [
        _finish(folder / "made", NAMES["tiny-segmenter"], "segmentation", segmenter, asked, dice, **volumes),
        _finish(
            folder / "made", NAMES["tiny-student"], "distillation", CombinationVNet(MRI, ["t1"], 2), student,
            [row for row in dice if row[1] == "t1"], **volumes,
        ),
        _finish(
            folder / "made", NAMES["tiny-translator"], "synthesis",
            translation.recipe("regression", "standard", MRI, [8, 16]).network, translator, psnr,
        ),
        _finish(
            folder / "made", NAMES["tiny-diffusion"], "synthesis", m2dn.recipe("m2dn", "unet", MRI, [8, 16]).network,
            diffusion, psnr,
        ),
    ]  # fmt: skip
    about = {"commit": "c0ffee", "day": "2026-11-27"}
    publish(folder / "store", runs, about, [f"book/{place}" for place in NAMES.values()])
    publish_networks(folder / "store", "book", NAMES, {"synthesis": 3.0})
    return folder / "store"
