"""Inputs that are not as they should be: each is read as the book would read it, and shown to the doctor.

A mutation is either certain to change what is read, or to be told by a check sum, a declared length or a rule of the
layout: then it must be refused, or what is read must be the same. Or it makes other valid data: then anything but a raw
error is right.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import struct
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from faults.isolated import call
from PIL import Image
from scipy.io import wavfile

from mmlib.data import avmnist, derm7pt, doctor, radpath
from mmlib.data.brats import BratsFolder
from mmlib.data.cases import tensors
from mmlib.data.ixi import IxiFolder
from mmlib.data.nifti import Cases
from mmlib.data.phantoms.brain import write_brats, write_ixi
from mmlib.data.phantoms.glioma.model import write_radpath
from mmlib.data.phantoms.lesion.model import write_derm7pt
from mmlib.data.splits import read_split
from mmlib.data.table import TableCases

BAD = ("silent", "raw", "hang", "memory", "died")
PROJECT = str(Path(doctor.__file__).resolve().parents[1])
Mutation = Callable[[Path, np.random.Generator], None]


# ---------------------------------------------------------------------------------------------------------- layouts
@dataclass(frozen=True)
class Layout:
    """One kind of input.

    Attributes:
        write: makes a sound one below a folder.
        read: reads all of it; what it returns changes where a value changes.
        doctor: what the doctor calls it; empty: it has none.
        path: what the doctor is given, below the folder.
    """

    write: Callable[[Path], Any]
    read: Callable[[Path], str]
    doctor: str = ""
    path: str = ""


def _digest(*parts: Any) -> str:
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = part.numpy()
        total.update(part.tobytes() if isinstance(part, np.ndarray) else str(part).encode())
    return total.hexdigest()


def _cases(folder: Cases) -> str:
    parts: list[Any] = []
    for name in folder:
        case = folder[name]
        sample, _ = tensors(case, tuple(case.images))  # as a network is given it
        parts += [name, *case.images, *case.images.values(), np.asarray(case.affine), case.labels, sample["images"]]
    return _digest(*parts)


def _write_table(root: Path) -> None:
    write_brats(root / "data", range(3), 4.0)
    columns = {"t1": "t1", "flair": "flair", "seg": "seg"}
    rows = [
        ",".join(
            [f"phantom-{k:04d}", *(f"data/phantom-{k:04d}/phantom-{k:04d}_{end}.nii.gz" for end in columns.values())]
        )
        for k in range(3)
    ]
    (root / "cases.csv").write_text("\n".join([",".join(["case", *columns]), *rows]) + "\n")


def _write_digits(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28)).astype(np.uint8)
    header = b"".join(number.to_bytes(4, "big") for number in (2051, *images.shape))
    (root / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    (root / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes(), mtime=0))
    tone = (9000 * np.sin(np.arange(1600) / 9)).astype(np.int16)
    for name in ("0_jackson_0.wav", "1_theo_3.wav"):
        wavfile.write(root / name, 8000, tone)


def _read_digits(root: Path) -> str:
    images = [avmnist.read_idx(path)[0] for path in sorted(root.glob("*-ubyte*"))]
    return _digest(*images, *(avmnist._cepstrum(path, "paper") for path in sorted(root.glob("*.wav"))))


def _read_lesions(root: Path) -> str:
    data = derm7pt.load(root, size=16)
    parts = (data.train, data.valid, data.test)
    return _digest(*(value for part in parts for value in (part.labels, *part.inputs.values())))


def _read_tumours(root: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small parts lack a class
        data = radpath.load(root, modality="t1ce", patches=4)
    parts = (data.train, data.valid, data.test)
    batches = [part[list(range(len(part)))] for part in parts]
    return _digest(*(value for one in batches for value in (one["label"], *one["inputs"].values())))


LAYOUTS = {
    "brats": Layout(lambda root: write_brats(root, range(3), 4.0), lambda root: _cases(BratsFolder(root)), "brats"),
    "ixi": Layout(lambda root: write_ixi(root, range(3), 4.0), lambda root: _cases(IxiFolder(root)), "ixi"),
    "table": Layout(_write_table, lambda root: _cases(TableCases(root / "cases.csv")), "table", "cases.csv"),
    "split": Layout(
        lambda root: (root / "split.csv").write_text(
            "case,subject,part\n"
            + "".join(f"c{k},s{k},{part}\n" for k, part in enumerate(["train", "valid", "test"] * 3))
        ),
        lambda root: _digest(read_split(root / "split.csv")),
    ),
    "derm7pt": Layout(partial(write_derm7pt, train=120, valid=60, test=60, size=16), _read_lesions, "derm7pt"),
    "radpath": Layout(
        partial(write_radpath, train=24, valid=9, test=9, modalities=["t1ce"], count=3, size=8),
        _read_tumours,
        "radpath",
    ),
    "digits": Layout(_write_digits, _read_digits),
}


# -------------------------------------------------------------------------------------------------------- mutations
def _cut(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(1, len(content)))])


def _flip(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def _fill(make: Callable[[np.random.Generator], bytes]) -> Mutation:
    return lambda path, rng: _put(path, make(rng))


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _folder(path: Path, _) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path, _) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _loop(path: Path, _) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _longer(path: Path, _) -> None:
    path.write_bytes(path.read_bytes() + b"x" * 37)


def _upper(path: Path, _) -> None:
    path.rename(path.with_name(path.name[:-7] + path.name[-7:].upper()))


def _nifti(change: Callable[[bytearray, np.random.Generator], None]) -> Mutation:
    """Change the bytes of a header (348 bytes, then the voxels)."""

    def mutate(path: Path, rng: np.random.Generator) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        change(content, rng)
        path.write_bytes(gzip.compress(bytes(content), 1, mtime=0))

    return mutate


def _field(offset: int, kind: str, *values: Any) -> Mutation:
    def change(content: bytearray, rng: np.random.Generator) -> None:
        value = values[int(rng.integers(len(values)))]
        struct.pack_into("<" + kind, content, offset, *(value if isinstance(value, tuple) else (value,)))

    return _nifti(change)


def _voxels(
    make: Callable[[np.ndarray], np.ndarray], affine: Callable[[np.ndarray], np.ndarray] = lambda a: a
) -> Mutation:
    def mutate(path: Path, _) -> None:
        image = nibabel.load(path)
        array = make(np.asarray(image.dataobj))
        new = nibabel.Nifti1Image(array, affine(image.affine))
        nibabel.save(new, path)

    return mutate


def _colours(array: np.ndarray) -> np.ndarray:
    return np.zeros(array.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])


def _one(value: float, kind: Any = np.float32) -> Callable[[np.ndarray], np.ndarray]:
    def make(array: np.ndarray) -> np.ndarray:
        changed = array.astype(kind)
        changed.flat[array.size // 2] = value
        return changed

    return make


def _text(change: Callable[[str, np.random.Generator], bytes | str]) -> Mutation:
    def mutate(path: Path, rng: np.random.Generator) -> None:
        changed = change(path.read_text(encoding="utf-8"), rng)
        path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())

    return mutate


def _line(change: Callable[[str], str]) -> Mutation:
    """Change one line of a table, not the first."""

    def edit(text: str, rng: np.random.Generator) -> str:
        lines = text.splitlines()
        number = int(rng.integers(1, len(lines)))
        lines[number] = change(lines[number])
        return "\n".join(lines) + "\n"

    return _text(edit)


def _picture(mode: str) -> Mutation:
    def mutate(path: Path, _) -> None:
        image = Image.open(path).convert("L")
        sides = image.size
        pixels = np.asarray(image)
        new = Image.fromarray(pixels.astype(np.uint16) * 200) if mode == "I;16" else image.convert(mode)
        buffer = io.BytesIO()
        new.resize(sides).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())

    return mutate


def _bomb(path: Path, _) -> None:
    """A PNG of a few hundred bytes that declares 144 million pixels."""
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def _int_at(offset: int, order: str, *values: int) -> Mutation:
    def mutate(path: Path, rng: np.random.Generator) -> None:
        content = bytearray(path.read_bytes())
        struct.pack_into(f"{order}I", content, offset, values[int(rng.integers(len(values)))])
        path.write_bytes(content)

    return mutate


ANY = {  # of any file: name -> (mutation, whether it must be noticed)
    "empty": (_fill(lambda rng: b""), True),
    "random bytes": (_fill(lambda rng: rng.bytes(int(rng.integers(1, 5000)))), True),
    "zeros": (_fill(lambda rng: bytes(4096)), True),
    "text": (_fill(lambda rng: b"Not Found\n"), True),
    "a folder in its place": (_folder, True),
    "a link to nothing": (_dangling, True),
    "a link to itself": (_loop, True),
}
KINDS: dict[str, dict[str, tuple[Mutation, bool]]] = {
    ".nii.gz": {
        "cut": (_cut, True),
        "one bit": (_flip, True),
        "longer": (_longer, True),
        "upper case": (_upper, True),
        "dim": (
            _field(
                40,
                "8h",
                (3, 32767, 32767, 32767, 1, 1, 1, 1),
                (3, 2000, 2000, 2000, 1, 1, 1, 1),
                (3, 0, 5, 5, 1, 1, 1, 1),
                (3, -4, 5, 5, 1, 1, 1, 1),
                (7, 2, 2, 2, 2, 2, 2, 2),
                (0,) * 8,
                (-1,) * 8,
            ),
            True,
        ),
        "datatype": (_field(70, "h", 0, 1, 32, 128, 1536, 1792, 2048, 2304, 999, -5), True),
        "bitpix": (_field(72, "h", 0, 1, 128, -8), False),
        "vox_offset": (_field(108, "f", np.inf, -np.inf, np.nan, 1e9, -300.0, 1e30), True),
        "slope": (_field(112, "f", np.nan, np.inf, 0.0, 1e38), False),
        "intercept": (_field(116, "f", np.nan, np.inf, -1e38), False),
        "pixdim": (_field(80, "3f", (0.0, 0.0, 0.0), (np.nan,) * 3, (-1.0, 1.0, 1.0), (np.inf,) * 3), False),
        "magic": (_field(344, "4s", b"n+2\0", b"ni1\0", b"xxxx", b"\0\0\0\0"), False),
        "size of header": (_field(0, "i", 0, 540, -1, 2**30), True),
        "affine of zeros": (_field(280, "12f", (0.0,) * 12), True),
        "affine of NaN": (_field(280, "12f", (np.nan,) * 12), True),
        "affine mirrored": (_voxels(lambda a: a, lambda affine: affine @ np.diag([-1, 1, 1, 1])), False),
        "NaN inside": (_voxels(_one(np.nan)), True),
        "infinity inside": (_voxels(_one(np.inf)), True),
        "77 inside": (_voxels(_one(77)), False),
        "65537 inside": (_voxels(_one(65537, np.int32)), False),
        "complex": (_voxels(lambda a: (a + 1j).astype(np.complex64)), True),
        "colours": (_voxels(_colours), True),
        "four axes": (_voxels(lambda a: np.stack([a, a], -1)), True),
        "another shape": (_voxels(lambda a: a[:-1]), True),
        "constant": (_voxels(np.zeros_like), False),
    },
    ".csv": {
        "cut": (_cut, False),
        "one bit": (_flip, False),
        "UTF-8 with a mark": (_text(lambda text, _: b"\xef\xbb\xbf" + text.encode()), True),
        "UTF-16": (_text(lambda text, _: text.encode("utf-16")), True),
        "Latin-1": (_text(lambda text, _: text.encode() + "é,é,é\n".encode("latin-1")), True),
        "semicolons": (_text(lambda text, _: text.replace(",", ";")), True),
        "Windows lines": (_text(lambda text, _: text.replace("\n", "\r\n")), True),
        "tabs": (_text(lambda text, _: text.replace(",", "\t")), True),
        "header alone": (_text(lambda text, _: text.splitlines()[0] + "\n"), True),
        "no header": (_text(lambda text, _: "".join(text.splitlines(keepends=True)[1:])), True),
        "an open quote": (_line(lambda line: '"' + line), True),
        "a field more": (_line(lambda line: line + ",more,more"), True),
        "a field less": (_line(lambda line: line.split(",")[0]), False),
        "a byte of zero": (_line(lambda line: line + "\0"), False),
        "a name of 300": (_line(lambda line: "n" * 300 + line), False),
        "a name of 5,000": (_line(lambda line: "n" * 5000 + line), False),
        "a path upwards": (_line(lambda line: "../../" + line), False),
        "a formula": (_line(lambda line: "=cmd()" + line), False),
        "a line twice": (_line(lambda line: line + "\n" + line), False),
        "an empty line": (_line(lambda line: "\n" + line), False),
    },
    ".png": {
        "cut": (_cut, True),
        "one bit": (_flip, True),
        "a bomb": (_bomb, True),
        "grey": (_picture("L"), False),
        "16 bits": (_picture("I;16"), True),
        "palette": (_picture("P"), False),
        "transparent": (_picture("RGBA"), False),
        "one bit a pixel": (_picture("1"), False),
    },
    ".jpg": {
        "cut": (_cut, True),
        "one bit": (_flip, False),
        "a bomb": (_bomb, True),
        "16 bits": (_picture("I;16"), True),
        "grey": (_picture("L"), False),
    },
    ".wav": {
        "cut": (_cut, True),
        "one bit": (_flip, False),
        "rate": (_int_at(24, "<", 0, 1, 44_100, 2**31), True),
        "channels": (_int_at(22, "<", 0, 7 + (8000 << 16)), True),
        "length of data": (_int_at(40, "<", 0, 2**32 - 1, 10**6), True),
        "length of the file": (_int_at(4, "<", 0, 2**32 - 1), False),
        "longer": (_longer, False),
    },
    "-ubyte": {
        "cut": (_cut, True),
        "one bit": (_flip, False),
        "longer": (_longer, True),
        "magic": (_int_at(0, ">", 0, 2049, 2**32 - 1), True),
        "count": (_int_at(4, ">", 0, 39, 10**6, 2**32 - 1), True),
        "side": (_int_at(8, ">", 0, 27, 2**31), True),
    },
    "-ubyte.gz": {"cut": (_cut, True), "one bit": (_flip, True), "longer": (_longer, True)},
}


# --------------------------------------------------------------------------------------------------------- campaign
def _ending(path: Path) -> str:
    return next((end for end in sorted(KINDS, key=len, reverse=True) if path.name.lower().endswith(end)), "")


def _raised(work: Callable[[], Any]) -> tuple[str, Any]:
    """("value", what work returns), or ("refused" or "raw", the error's text): refused is what mmlib itself raises."""
    try:
        return "value", work()
    except MemoryError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        meant = frame.filename.startswith(PROJECT) and isinstance(error, ValueError | OSError)
        return "refused" if meant else "raw", f"{type(error).__name__}: {error}"


def _look(layout: Layout, folder: Path, sound: str, must: bool, changed: Path) -> tuple[str, str]:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        kind, told = _raised(lambda: layout.read(folder))
        findings: Any = []
        if layout.doctor in doctor.LAYOUTS:
            examined, findings = _raised(lambda: doctor.examine(layout.doctor, folder / layout.path))
            if examined == "raw" or (examined == "refused" and kind == "value"):
                return "raw", f"the doctor: {findings}"
    if kind == "value":
        if told == sound:
            return "same", ""
        return ("silent", "read, with other values") if must else ("other data", "")
    if kind == "refused":
        stem = changed.name.split(".")[0]
        named = any(
            part in told
            for part in (changed.name, stem, stem.split("_")[0], stem.rpartition("-")[0] or stem, changed.parent.name)
        )
        return ("refused", told) if named else ("raw", f"names no file: {told}")
    return kind, told


def run(folder: Path, count: int, seed: int) -> Iterator[dict[str, str]]:
    """Mutate `count` inputs, all layouts in turn.

    Yields:
        where (the layout), mutation, file, outcome, what was said.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    sound, values = {}, {}
    for name, layout in LAYOUTS.items():
        sound[name] = folder / name
        sound[name].mkdir(parents=True)
        with contextlib.redirect_stderr(io.StringIO()):
            layout.write(sound[name])
            values[name] = layout.read(sound[name])
    for number in range(count):
        name = list(LAYOUTS)[number % len(LAYOUTS)]
        trial = folder / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(sound[name], trial)
        files = [path for path in sorted(trial.rglob("*")) if path.is_file() and _ending(path)]
        endings = sorted({_ending(path) for path in files})
        ending = endings[int(rng.integers(len(endings)))]
        files = [path for path in files if _ending(path) == ending]
        path = files[int(rng.integers(len(files)))]
        known = {**ANY, **KINDS[ending]}
        mutation = list(known)[int(rng.integers(len(known)))]
        change, must = known[mutation]
        change(path, rng)
        how, found = call(partial(_look, LAYOUTS[name], trial, values[name], must, path))
        outcome, said = found if how == "ended" else (how, str(found or ""))
        yield {
            "where": name,
            "mutation": mutation,
            "file": os.path.relpath(path, trial),
            "outcome": outcome,
            "said": said.replace(str(trial), "...")[:300],
        }
