"""Pictures, JPEG and PNG: read whole, to the check sum where the format has one, and no larger than a stated limit.

Pillow decodes. What is added: the size is compared with a limit before anything is decoded; the check sums of a PNG's
pixels are compared, which Pillow skips as it decodes; a JPEG must reach its end marker; and what does not fit in 8-bit
RGB without loss is refused. A JPEG has no check sum: a wrong byte that leaves it decodable cannot be noticed.
"""

from __future__ import annotations

import stat
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

PIXELS = 1 << 26  # 8,192 x 8,192, more than any camera's picture of a lesion; Pillow takes 4 bytes for each
BYTES = 1 << 28
FORMATS = ("JPEG", "PNG")
PLAIN = ("1", "L", "P", "RGB", "RGBA", "LA", "PA")  # modes that 8-bit RGB can hold, if nothing is transparent


def read_rgb(path: Path, side: int | None = None, pixels: int = PIXELS) -> np.ndarray:
    """Read a picture as RGB.

    Args:
        path: a JPEG or PNG file: grey, with a palette or with colours, 8 bits a channel, nothing transparent.
        side: squeeze it to a square of so many pixels; None: as it is.
        pixels: the most it may have; a larger one is not decoded.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if the file cannot be read, is no JPEG or PNG, is damaged or cut off, has too many pixels, more than
            8 bits a channel, transparent pixels, or colours that are not RGB.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading from a pipe would never end
            raise ValueError(f"{path}: is no file, expected a picture; give the right file")
        if found.st_size > BYTES:
            raise ValueError(f"{path}: has more than {BYTES:,} bytes, expected a picture; give the right file")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}), expected a picture; copy it again") from None
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):  # the limit here is lower
        image = _decoded(path, content, pixels)
    if image.format == "PNG" and content[24] > 8:
        raise ValueError(f"{path}: has {content[24]} bits a channel, expected 8; scale it to 8 bits and write it again")
    if image.mode not in PLAIN:
        raise ValueError(
            f"{path}: has the mode {image.mode}, expected grey or RGB; convert it to RGB and write it again"
        )
    if image.has_transparency_data and np.asarray(image.convert("RGBA").getchannel("A")).min() < 255:
        raise ValueError(f"{path}: has transparent pixels, expected none; put it on a background and write it again")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image if side is None else image.resize((side, side)))


def _decoded(path: Path, content: bytes, pixels: int) -> Image.Image:
    damaged = f"{path} cannot be decoded"
    again = "copy or unpack it again"
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        too_large = image.width * image.height > pixels
    except Image.DecompressionBombError:
        too_large = True
    except Exception as error:  # Pillow's readers raise what they meet: SyntaxError, struct.error, KeyError, ...
        raise ValueError(f"{damaged} ({_reason(error)}), expected a whole JPEG or PNG; {again}") from error
    if too_large:
        raise ValueError(f"{path}: has more than {pixels:,} pixels; make it smaller, nothing of it was decoded")
    if image.format == "JPEG" and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ValueError(f"{damaged} (cut off: its end marker is missing); {again}")
    try:
        if image.format == "PNG":
            Image.open(BytesIO(content), formats=FORMATS).verify()
        image.load()
    except Exception as error:
        raise ValueError(f"{damaged} ({_reason(error)}); {again}") from error
    return image


def _reason(error: Exception) -> str:
    reason = "unknown format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
    return " ".join(reason.replace(";", ",").split())[:120] or type(error).__name__
