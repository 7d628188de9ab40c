"""Processes killed at a random time, and started again until they end: the files must be those of a clean run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pipelines import caller, serve, write_small_project
from safetensors.torch import save_file

from mmlib import records
from mmlib.data.phantoms.lesion.model import write_derm7pt
from mmlib.training import fit
from pipeline import store

BAD = ("differs", "failed")
STEPS = 60
LEFT = (".checkpoint.pt", ".ipynb", ".log", "error.txt")  # what need not be the same
CHANGING = ("written", "peak_memory_mib", "seconds", "transport")  # facts of a record that differ from run to run


class _Points(torch.utils.data.Dataset):
    """Batches of a line with noise, a function of the step."""

    def __getitem__(self, step: int) -> dict:
        x = torch.randn(32, 4, generator=torch.Generator().manual_seed(step))
        return {"x": x, "y": x.sum(1, keepdim=True), "case": []}


def _train(folder: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1))

    def loss(network: torch.nn.Module, batch: dict) -> tuple[torch.Tensor, dict]:
        return (network(batch["x"]) - batch["y"]).square().mean(), {}

    settings = {"steps": STEPS, "lr": 1e-2, "seed": 0, "checkpoint_every": 2, "precision": "float32", "device": "cpu"}
    history = fit(model, _Points(), loss, folder=folder, identity="kills", **settings)
    records.write_whole(folder / "history.csv", lambda path: history.drop(columns="seconds").to_csv(path, index=False))


def _record(folder: Path) -> None:
    run = records.open_run(folder, "smoke", "kills", "fit-s0", {"method": "fit", "variant": "standard", "seed": 0})
    run.clear()
    records.write_whole(run.folder / "fit.safetensors", lambda path: path.write_bytes(bytes(1 << 20)))
    rows = [(f"c{k}", "t1", "et", "dice", k / 5000) for k in range(5000)]
    facts = dict.fromkeys(records.FACTS, "-")
    run.save(pd.DataFrame({"loss": np.arange(5000.0)}), pd.DataFrame(rows, columns=records.SCORE_COLUMNS), **facts)


def _data(folder: Path) -> None:
    write_derm7pt(folder / "lesions", train=12, valid=4, test=4, size=24)


def _publish(folder: Path) -> None:
    """First two runs with their weights, then all three without: files come, change and go."""
    source = folder.parent / "finished"
    if not source.exists():
        for seed in range(3):
            facts = {"method": "fit", "variant": "standard", "seed": seed}
            run = records.open_run(folder.parent / "finishing", "smoke", "kills", f"fit-s{seed}", facts)
            run.clear()
            save_file({"weight": torch.full((1 << 18,), float(seed))}, run.folder / "fit.safetensors")
            rows = [(f"c{k}", "t1", "et", "dice", k / 500) for k in range(500)]
            scores = pd.DataFrame(rows, columns=records.SCORE_COLUMNS)
            run.save(pd.DataFrame({"loss": np.arange(500.0)}), scores, **dict.fromkeys(records.FACTS, "-"))
        (folder.parent / "finishing").rename(source)
    runs = sorted((source / "smoke" / "kills").iterdir())
    for these, weights in ((runs[:2], ["*"]), (runs, [])):
        store.publish(folder / "results", these, {"commit": "-", "day": "-"}, weights)


def _pipeline(folder: Path) -> None:
    if not (folder / "Snakefile").exists():
        write_small_project(folder)
    runs = [f"build/results/quick/segmentation/{name}/record.json" for name in ("shaspec-paper-s0", "zero-fill-s0")]
    command = [sys.executable, "-m", "pipeline", "book", "--cores", str(os.cpu_count() or 1), "--quiet", "all", "--"]
    done = subprocess.run([*command, *runs], cwd=folder, env=caller(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-1000:] + done.stderr[-1000:])


WORK: dict[str, Callable[[Path], None]] = {
    "fit": _train,
    "record": _record,
    "publish": _publish,
    "data": _data,
    "pipeline": _pipeline,
}
TURNS = ("fit", "record", "publish") * 4 + ("data", "data", "pipeline")  # the last takes half a minute


def _start(work: Callable[[Path], None], folder: Path) -> int:
    child = os.fork()
    if child == 0:
        os.setsid()  # what it starts is killed with it
        code = 1
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
            try:
                work(folder)
                code = 0
            except BaseException:
                traceback.print_exc()
        if code:
            (folder / "error.txt").write_text(said.getvalue())
        os._exit(code)
    return child


def _files(folder: Path) -> dict[str, str]:
    """What is left, by content; of a record what does not tell the time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        made = "build/results" in str(path) if (folder / "Snakefile").exists() else True
        if made and path.is_file() and not path.name.startswith(".") and not path.name.endswith(LEFT):
            if path.name == "record.json":
                record = records.read_record(path.parent)
                content = repr({key: value for key, value in record.items() if key not in CHANGING})
            else:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = content
    return found


def run(folder: Path, count: int, seed: int) -> Iterator[dict[str, str]]:
    """Kill `count` processes, each kind of work in turn; the work is started again, and killed at most five times.

    Yields:
        where (the work), outcome of the work that was killed, when it was killed, what was said.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    clean: dict[str, dict[str, str]] = {}
    lasts: dict[str, float] = {}
    killed = 0
    for name in cycle(TURNS):
        if killed >= count:
            return
        work = WORK[name]
        if name == "pipeline":
            serve()  # not begun by what is killed, so not killed with it
        if name not in clean:
            began = time.monotonic()
            (folder / f"{name}-clean").mkdir(parents=True)
            os.waitpid(_start(work, folder / f"{name}-clean"), 0)
            lasts[name] = time.monotonic() - began
            clean[name] = _files(folder / f"{name}-clean")
        place = folder / f"{name}-{killed}"
        place.mkdir()
        times: list[str] = []
        most = min(5, count - killed)
        while True:
            child = _start(work, place)
            if len(times) < most:
                after = float(rng.uniform(0, lasts[name]))
                time.sleep(after)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                times.append(f"{after:.2f}")
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                break
        killed += len(times)
        failed = os.WEXITSTATUS(status) != 0
        outcome = "failed" if failed else "same" if _files(place) == clean[name] else "differs"
        said = (place / "error.txt").read_text()[-300:] if failed else ""
        for when in times:
            yield {"where": name, "outcome": outcome, "killed after / s": when, "said": said}
        shutil.rmtree(place)
