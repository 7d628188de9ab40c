"""What depends on the processor, and by how much: `python tests/processors.py` measures it under other instructions.

One process for each way of computing, for libraries choose their instructions when they are loaded. Each makes the same
small phantoms, digits, trainings and scores, from the same seeds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

AVX2 = {  # instructions of torch, oneDNN, MKL, OpenBLAS and numpy
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
SSE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
}
WAYS = {  # name -> environment, precision of training
    "as it is": ({}, "float32"),
    "once more": ({}, "float32"),
    "two threads": ({"OMP_NUM_THREADS": "2"}, "float32"),
    "AVX2": (AVX2, "float32"),
    "SSE": (SSE, "float32"),
    "bfloat16": ({}, "bfloat16"),
    "bfloat16, AVX2": (AVX2, "bfloat16"),
}
STEPS = 20
FILES = ("brats", "ixi", "lesions")  # compared byte for byte; the rest by value


def compute(folder: Path, precision: str) -> dict[str, np.ndarray]:
    """Phantoms, digits, the answer of a network, the losses of two short trainings and the scores after them."""
    import torch

    from mmlib.data import avmnist
    from mmlib.data.cases import regions, zscore
    from mmlib.data.phantoms.brain import make_subject, write_brats, write_ixi
    from mmlib.data.phantoms.lesion.model import write_derm7pt
    from mmlib.methods import m2dn
    from mmlib.methods.shaspec.segmentation import recipe
    from mmlib.modalities import MRI
    from mmlib.tasks.segmentation import dice, probabilities
    from mmlib.tasks.synthesis import psnr
    from mmlib.training import fit

    found: dict[str, np.ndarray] = {}
    write_brats(folder / "brats", range(1), 4.0)
    write_ixi(folder / "ixi", range(1), 4.0)
    write_derm7pt(folder / "lesions", train=3, valid=3, test=3, size=32)
    for name in FILES:
        files = sorted(path for path in (folder / name).rglob("*") if path.is_file())
        found[name] = np.frombuffer(b"".join(path.read_bytes() for path in files), np.uint8)
    digits = avmnist.load().train
    found["digits"] = np.concatenate([digits.images.numpy().ravel(), digits.audio.numpy().ravel()])

    subject = make_subject(0, 4.0)
    brain = np.any([image > 0 for image in subject.images.values()], axis=0)
    middle = tuple(slice((side - 24) // 2, (side - 24) // 2 + 24) for side in brain.shape)
    images = torch.stack([torch.from_numpy(zscore(image, brain)[middle]) for image in subject.images.values()])
    truth = torch.from_numpy(regions(np.asarray(subject.labels)[middle])).bool()
    everything, one_lacks = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[True, False, True, True]])
    settings = {"steps": STEPS, "lr": 1e-3, "seed": 0, "precision": precision, "device": "cpu"}

    torch.manual_seed(0)
    shaspec = recipe("shaspec", "paper", MRI, [8, 16])
    batch = {"images": images[None], "available": one_lacks, "regions": truth[None].float(), "case": ["a"]}
    batch["images"] = images[None] * one_lacks[..., None, None, None]
    with torch.inference_mode():
        found["forward pass"] = probabilities(shaspec.network.eval(), images, everything).numpy()
    shaspec.network.train()
    history = fit(shaspec.network, [batch] * STEPS, shaspec.loss, folder=folder / "shaspec", **settings)
    found["losses of ShaSpec"] = history["loss"].to_numpy()
    with torch.inference_mode():
        predicted = probabilities(shaspec.network.eval(), images, everything)
    found["trained forward pass"] = predicted.numpy()
    found["Dice"] = dice(predicted > 0.5, truth).numpy()

    flat = (images[:, :, :, ::4] / 4).clamp(-1, 1).permute(3, 0, 1, 2)[:, :2]  # M D H W -> W M D H, two modalities
    lacks = torch.tensor([[True, False]]).expand(len(flat), 2)
    torch.manual_seed(0)
    diffusion = m2dn.recipe("m2dn", "paper", MRI[:2], [16, 16])
    slices = [{"images": flat, "available": lacks, "case": ["a"] * len(flat)}] * STEPS
    batches = diffusion.batches(slices, 0)
    history = fit(diffusion.network, batches, diffusion.loss, folder=folder / "m2dn", **settings)
    found["losses of M2DN"] = history["loss"].to_numpy()
    start = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        made = m2dn.sample(diffusion.network.eval(), flat, lacks, steps=5, generator=start)
    found["synthesised images"] = made.numpy()
    found["PSNR, dB"] = psnr(made[:, 1], flat[:, 1]).numpy()
    return found


def under(way: str) -> dict[str, np.ndarray]:
    """What a new process computes in one of `WAYS`."""
    changes, precision = WAYS[way]
    given = {name: value for name, value in os.environ.items() if name not in AVX2}
    given |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **changes}
    with tempfile.TemporaryDirectory() as folder:
        asked = [sys.executable, __file__, folder, precision]
        done = subprocess.run(asked, env=given, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        with np.load(Path(folder) / "found.npz") as stored:
            return dict(stored)


def differences(found: dict[str, np.ndarray], usual: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest absolute difference of each quantity; of losses relative; of files 1 if a byte differs."""
    largest = {}
    for name, values in usual.items():
        if name in FILES:
            largest[name] = float(not np.array_equal(found[name], values))
        else:
            apart = np.abs(found[name].astype(float) - values)
            largest[name] = float((apart / np.abs(values) if name.startswith("losses") else apart).max())
    return largest


if __name__ == "__main__":
    if len(sys.argv) == 3:
        np.savez(Path(sys.argv[1]) / "found.npz", **compute(Path(sys.argv[1]), sys.argv[2]))
    else:
        usual = under("as it is")
        table = {}
        for way in list(WAYS)[1:]:
            table[way] = differences(under(way), usual)
            print(pd.DataFrame(table).to_string(float_format="{:.1e}".format), flush=True)
