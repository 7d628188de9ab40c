"""Pictures: kinds that are read alike, kinds that are refused, and damage that Pillow alone takes without a word."""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmlib.data import pictures
from mmlib.data.pictures import read_rgb

GREY = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int = 8, kind: int = 2, content: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "picture.png"


def refused(path: Path, content: bytes, message: str, **options) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}:? {message}") as caught:
        read_rgb(path, **options)
    assert str(caught.value).count("; ") == 1  # the remedy is behind it


def test_what_is_not_rgb_but_fits_in_it_is_read(path):
    colours = Image.fromarray(RGB)
    palette = colours.quantize(16)
    opaque = colours.copy()
    opaque.putalpha(255)
    for image, expected in (
        (colours, RGB),
        (opaque, RGB),
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=-1)),
        (Image.fromarray(GREY > 99), np.stack([255 * (GREY > 99)] * 3, axis=-1)),
        (palette, np.array(palette.convert("RGB"))),
    ):
        path.write_bytes(encoded(image))
        read = read_rgb(path)
        assert read.shape == (24, 32, 3) and read.dtype == np.uint8 and np.array_equal(read, expected)


def test_a_picture_is_squeezed_to_a_square(path):
    path.write_bytes(encoded(Image.fromarray(RGB), "JPEG"))
    assert np.array_equal(read_rgb(path, side=8), np.array(Image.open(path).resize((8, 8))))


def test_what_does_not_fit_in_rgb_is_refused(path):
    see_through = Image.fromarray(RGB)
    see_through.putalpha(Image.fromarray(GREY))
    refused(path, encoded(see_through), "has transparent pixels, expected none; put it on a background")
    refused(path, encoded(Image.fromarray(RGB).quantize(8), transparency=0), "has transparent pixels, expected none")
    refused(path, encoded(Image.fromarray(GREY.astype(np.uint16) * 200)), "has 16 bits a channel, expected 8; scale it")
    wide = b"".join(b"\x00" + bytes(12) for _ in range(2))
    refused(path, png(2, 2, depth=16, content=wide), "has 16 bits a channel, expected 8; scale it")
    cmyk = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG")
    refused(path, cmyk, "has the mode CMYK, expected grey or RGB; convert it to RGB")
    refused(
        path, encoded(Image.fromarray(RGB), "BMP"), r"cannot be decoded \(unknown format\), expected a whole JPEG or"
    )
    refused(path, b"", r"cannot be decoded \(unknown format\)")


def test_every_wrong_bit_of_a_png_is_noticed(path):
    sound = encoded(Image.fromarray(RGB))
    for place in np.random.default_rng(2).choice(len(sound) - 4, 150, replace=False):  # the end's own sum says nothing
        content = bytearray(sound)
        content[place] ^= 1 << int(place) % 8
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{path}"):
            read_rgb(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_that_was_cut_off_is_noticed(path, kind):
    sound = encoded(Image.fromarray(RGB), kind)
    for length in (*range(0, len(sound) - 12, 97), len(sound) - 13, *([len(sound) - 2] if kind == "JPEG" else [])):
        refused(path, sound[:length], "cannot be decoded")


def test_a_jpeg_may_have_something_behind_its_end(path):
    path.write_bytes(encoded(Image.fromarray(RGB), "JPEG") + b"a camera's own")
    assert read_rgb(path).shape == (24, 32, 3)


def test_a_bomb_is_refused_before_it_is_decoded(path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    message = "has more than 67,108,864 pixels; make it smaller"
    for side in (8193, 12000, 50_000):  # Pillow warns above 89 million pixels and raises above 179 million
        refused(path, png(side, side), message)
    refused(path, png(8, 8), "has more than 63 pixels; make it smaller", pixels=63)


def test_a_file_that_is_too_large_or_cannot_be_read(path, monkeypatch):
    monkeypatch.setattr(pictures, "BYTES", 1000)
    refused(path, encoded(Image.fromarray(RGB)), "has more than 1,000 bytes, expected a picture; give the right file")
    monkeypatch.undo()
    os.mkfifo(path.with_name("pipe.png"))
    for other in (path.parent, path.with_name("pipe.png")):
        with pytest.raises(ValueError, match=f"{other}: is no file, expected a picture; give the right file"):
            read_rgb(other)
    with pytest.raises(ValueError, match=r"cannot be read \(File name too long\), expected"):
        read_rgb(path.with_name("a" * 300))
