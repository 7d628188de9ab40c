"""Another processor gives nearly the same: phantoms, a forward pass, losses and Dice without the widest instructions.

Libraries choose their instructions when they are loaded, so the other way of computing has a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SSE = {  # the instructions that torch, oneDNN, MKL, OpenBLAS and numpy may use
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
}
# Measured between AVX-512 and SSE: 1 unit in 5 voxels of a million, 4e-4, 2e-5, 2e-4.
MOST = {"voxels that differ": 1e-4, "forward pass": 4e-3, "losses": 1e-3, "Dice": 0.02}
COMPUTE = """
import sys
from pathlib import Path
import numpy as np, torch
from mmlib.data.cases import regions, zscore
from mmlib.data.phantoms.brain import make_subject
from mmlib.methods.shaspec.segmentation import recipe
from mmlib.modalities import MRI
from mmlib.tasks.segmentation import dice, probabilities
from mmlib.training import fit

subject = make_subject(0, 4.0)
brain = np.any([image > 0 for image in subject.images.values()], axis=0)
middle = tuple(slice((side - 16) // 2, (side - 16) // 2 + 16) for side in brain.shape)
images = torch.stack([torch.from_numpy(zscore(image, brain)[middle]) for image in subject.images.values()])
truth = torch.from_numpy(regions(np.asarray(subject.labels)[middle])).bool()
everything, lacks = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[True, False, True, True]])
torch.manual_seed(0)
shaspec = recipe("shaspec", "paper", MRI, [8, 16])
with torch.inference_mode():
    untrained = probabilities(shaspec.network.eval(), images, everything).numpy()
batch = {"images": images[None] * lacks[..., None, None, None], "available": lacks, "regions": truth[None].float()}
history = fit(
    shaspec.network.train(), [batch | {"case": ["a"]}] * 5, shaspec.loss, folder=Path(sys.argv[1]),
    steps=5, lr=1e-3, seed=0, precision="float32", device="cpu",
)
with torch.inference_mode():
    found = dice(probabilities(shaspec.network.eval(), images, everything) > 0.5, truth).numpy()
voxels = np.stack([subject.images[name] for name in MRI])
np.savez(
    Path(sys.argv[1]) / "found.npz", voxels=voxels, untrained=untrained, losses=history["loss"], dice=found,
)
"""


def compute(folder: Path, **instructions: str) -> dict[str, np.ndarray]:
    """What this process computes from the same seeds, or a new one with other instructions."""
    folder.mkdir()
    if instructions:
        given = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **instructions}
        done = subprocess.run([sys.executable, "-c", COMPUTE, str(folder)], env=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    else:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "argv", ["-c", str(folder)])
            exec(COMPUTE, {})
    with np.load(folder / "found.npz") as stored:
        return dict(stored)


def test_the_instructions_of_a_processor_change_no_number_beyond_rounding(tmp_path: Path) -> None:
    known = Path("/proc/cpuinfo")
    if not known.is_file() or "avx2" not in known.read_text():
        pytest.skip("this processor has no wider instructions to do without")
    usual, other = compute(tmp_path / "usual"), compute(tmp_path / "sse", **SSE)
    apart = {name: np.abs(values.astype(float) - other[name]) for name, values in usual.items()}
    found = {
        "voxels that differ": (apart["voxels"] > 0).mean(),
        "forward pass": apart["untrained"].max(),
        "losses": (apart["losses"] / usual["losses"]).max(),
        "Dice": apart["dice"].max(),
    }
    assert not {name: value for name, value in found.items() if value > MOST[name]}
    assert apart["voxels"].max() <= 1 and apart["untrained"].max() > 0, "other instructions were in use"
