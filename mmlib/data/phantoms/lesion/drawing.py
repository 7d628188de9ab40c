"""How the lesion phantom is drawn: skin, the signs of a lesion on it, and what each camera makes of them.

`photograph` knows nothing of a case but its number and the signs to show. Shape, colours, hairs and light come from the
number alone, each from a generator of its own: a sign that is there moves nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

# Colours as RGB in [0, 1]; a stain multiplies what is below it, a cover hides it.
TAN, BROWN, DARK = (0.86, 0.74, 0.66), (0.62, 0.46, 0.36), (0.30, 0.20, 0.18)
GLOBULE, BLOOD, HAIR = (0.42, 0.27, 0.20), (0.80, 0.10, 0.14), (0.30, 0.25, 0.22)
VEIL, SCAR, PEPPER, BLACK, WHITE = (
    (0.47, 0.54, 0.68),
    (0.97, 0.90, 0.88),
    (0.45, 0.45, 0.52),
    (0.10, 0.07, 0.07),
    (1, 1, 1),
)
STREAMS = ("shape", "PIG", "RS", "PN", "STR", "DaG", "BWV", "VS", "skin", "clinic", "derm")


def _soft(distance: np.ndarray, width: float) -> np.ndarray:
    """1 where `distance` is well below 0, 0 well above, a ramp of `width` between."""
    return np.clip(0.5 - distance / width, 0, 1)


def _near(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest of some points, (P, 2)."""
    points = points.astype(np.float32)
    return np.sqrt(((x - points[:, 0, None, None]) ** 2 + (y - points[:, 1, None, None]) ** 2).min(axis=0))


def _turn(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * x + sine * y, cosine * y - sine * x


def _waves(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, frequency: float, number: int = 6) -> np.ndarray:
    """A smooth random field of mean 0 and variance 1: plane waves of all directions and near frequencies."""
    directions, phases = rng.uniform(0, 2 * np.pi, (2, number)).astype(np.float32)
    lengths = (frequency * rng.uniform(0.6, 1.4, number)).astype(np.float32)
    across, down = lengths * np.cos(directions), lengths * np.sin(directions)
    return np.cos(x[..., None] * across + y[..., None] * down + phases).sum(axis=-1) / np.float32(np.sqrt(number / 2))


def _stain(image: np.ndarray, colour: tuple[float, ...], share: np.ndarray) -> np.ndarray:
    return image * (1 + share[..., None] * (np.array(colour, dtype=np.float32) - 1))


def _cover(image: np.ndarray, colour: tuple[float, ...], share: np.ndarray) -> np.ndarray:
    return image + share[..., None] * (np.array(colour, dtype=np.float32) - image)


def _scattered(rng: np.random.Generator, number: int, reach: float, centre: np.ndarray | float = 0.0) -> np.ndarray:
    """Points in a disc, (number, 2)."""
    angle, radius = rng.uniform(0, 2 * np.pi, number), reach * np.sqrt(rng.random(number))
    return centre + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _curve(rng: np.random.Generator, start: np.ndarray, length: float, bend: float, points: int) -> np.ndarray:
    """A line that turns by `bend` radians on the way, (points, 2)."""
    angle = rng.uniform(0, 2 * np.pi) + bend * np.linspace(-0.5, 0.5, points)
    return start + np.stack([np.cos(angle), np.sin(angle)], axis=1).cumsum(axis=0) * (length / points)


def _lesion(
    rngs: dict[str, np.random.Generator], signs: Mapping[str, int], image: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Paint a lesion on skin; x and y in radii of the lesion."""
    rng = rngs["shape"]
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    sizes, phases = rng.normal(0, (0.08, 0.05, 0.03, 0.03)), rng.uniform(0, 2 * np.pi, 4)
    bumps = [size * np.cos(k * angle + phase) for k, size, phase in zip((2, 3, 4, 5), sizes, phases, strict=True)]
    inner = (radius / (1 + np.sum(bumps, axis=0))).astype(np.float32)  # 1 at the edge
    inside = _soft(inner - 1, 0.2)
    image = _stain(image, TAN, inside * (0.9 + 0.15 * _waves(rng, x, y, 4)))

    rng = rngs["PIG"]
    if signs["PIG"] == 1:  # one brown, paler towards the edge
        image = _stain(image, BROWN, inside * _soft(inner - 0.85, 0.6) * (0.95 + 0.07 * _waves(rng, x, y, 8)))
    elif signs["PIG"] == 2:  # blotches off the centre
        place = rng.uniform(0, 2 * np.pi) + np.array([0, 0.9, 2.4])
        blots = np.stack([np.cos(place), np.sin(place)], axis=1) * np.array([[0.5], [0.65], [0.35]])
        image = _stain(image, DARK, inside * _soft(_near(x, y, blots) - 0.3 + 0.08 * _waves(rng, x, y, 9), 0.18))

    rng = rngs["RS"]
    if signs["RS"]:  # a scar, peppered with grey
        place = _scattered(rng, 1, 0.45)
        scar = inside * _soft(_near(x, y, place) - 0.48 + 0.07 * _waves(rng, x, y, 7), 0.2)
        image = _cover(image, SCAR, 0.8 * scar)
        image = _cover(image, PEPPER, 0.8 * scar * _soft(_near(x, y, _scattered(rng, 16, 0.4, place)) - 0.03, 0.04))

    rng = rngs["PN"]
    if signs["PN"]:
        bend, k = ((0, 0), (0.015, 17.0), (0.10, 12.0))[signs["PN"]]
        u, v = _turn(x + bend * _waves(rng, x, y, 5), y + bend * _waves(rng, x, y, 5), rng.uniform(0, np.pi))
        comb = np.sum([np.cos(k * _turn(u, v, turn)[0]) for turn in (0, np.pi / 3, 2 * np.pi / 3)], axis=0)
        if signs["PN"] == 1:  # fine lines, fading outwards
            image = _stain(image, BROWN, 0.85 * inside * _soft(inner - 0.95, 0.4) * _soft(comb + 0.35, 0.8))
        else:  # broad dark lines, in patches, ending abruptly
            patch = _soft(-_waves(rng, x, y, 3) - 0.5, 0.5)
            image = _stain(image, DARK, 0.85 * inside * patch * _soft(comb + 0.2, 0.8))

    rng = rngs["STR"]
    if signs["STR"]:  # pointed spokes at the edge: all around and alike; or on one side and of many lengths
        side, bent = rng.uniform(0, 2 * np.pi), angle + 0.06 * _waves(rng, x, y, 5)
        away = np.abs(np.angle(np.exp(1j * (angle - side)))).astype(np.float32)
        count, length = ((0, 0), (20, 0.36), (15, 0.40 + 0.12 * _waves(rng, x, y, 6).clip(-2, 2)))[signs["STR"]]
        along = (inner - 0.86) / length  # 0 at the root, 1 at the point
        spokes = _soft(np.cos(count * bent) - 0.35 + 1.1 * along, 0.7) * _soft(-along, 0.2)
        image = _stain(image, DARK, 0.85 * spokes * (1 if signs["STR"] == 1 else _soft(away - 0.95, 0.3)))

    rng = rngs["DaG"]
    if signs["DaG"] == 1:  # of one size, evenly spread
        row = np.arange(-0.8, 0.81, 0.32)
        grid = np.stack(np.meshgrid(row, row), axis=-1).reshape(-1, 2) + rng.uniform(-0.05, 0.05, (len(row) ** 2, 2))
        image = _stain(image, GLOBULE, inside * _soft(_near(x, y, grid[np.hypot(*grid.T) < 0.85]) - 0.07, 0.05))
    elif signs["DaG"] == 2:  # of many sizes, crowded on one side, some outside
        heap = _scattered(rng, 1, 0.5)
        for extent, reach, number in ((0.13, 0.5, 4), (0.08, 0.6, 6), (0.045, 0.7, 10)):
            image = _cover(image, BLACK, _soft(_near(x, y, _scattered(rng, number, reach, heap)) - extent, 0.05))

    rng = rngs["BWV"]
    if signs["BWV"]:  # without structure; paler in places
        place = _scattered(rng, 1, 0.35)
        veil = inside * _soft(_near(x, y, place) - 0.55 + 0.08 * _waves(rng, x, y, 6), 0.3)
        image = _cover(image, VEIL, 0.75 * veil)
        image = _cover(image, WHITE, np.clip(0.12 + 0.08 * _waves(rng, x, y, 5), 0, 1) * veil)

    rng = rngs["VS"]
    if signs["VS"] == 1:  # long and smoothly bent, with branches
        trunks = [_curve(rng, start, 1.1, 1.2, 28) for start in _scattered(rng, 4, 0.6)]
        twigs = [_curve(rng, trunk[k], 0.45, 0.8, 12) for trunk in trunks for k in (7, 18)]
        red = np.maximum(
            _soft(_near(x, y, np.concatenate(trunks)) - 0.035, 0.04),
            0.8 * _soft(_near(x, y, np.concatenate(twigs)) - 0.02, 0.04),
        )
        image = _cover(image, BLOOD, 0.9 * red * _soft(inner - 1.1, 0.1))
    elif signs["VS"] == 2:  # red points and short strokes
        strokes = [_curve(rng, start, 0.22, 0.0, 6) for start in _scattered(rng, 7, 0.8)]
        red = np.maximum(
            _soft(_near(x, y, _scattered(rng, 22, 0.9)) - 0.045, 0.05),
            _soft(_near(x, y, np.concatenate(strokes)) - 0.03, 0.04),
        )
        image = _cover(image, BLOOD, 0.95 * red * _soft(inner - 1, 0.1))
    return image


def _dome(image: np.ndarray, height: int, x: np.ndarray, y: np.ndarray, light: float) -> np.ndarray:
    """Shade a lesion that is raised: bright towards the light, dark away from it, and a shadow beyond."""
    strength, top = (0.0, 0.22, 0.5)[height], _soft(np.hypot(x, y) - 1.05, 0.2)
    towards = _turn(x, y, light)[0]
    shadow = _soft(np.hypot(x + 0.35 * np.cos(light), y + 0.35 * np.sin(light)) - 1.05, 0.3) * (1 - top)
    return image * (1 + strength * towards * top - 0.6 * strength * shadow)[..., None]


def photograph(number: int, signs: Mapping[str, int], modality: str, size: int) -> np.ndarray:
    """Draw a lesion.

    Args:
        number: of the case, at least 0; both images of a case show one lesion, in different positions.
        signs: PN, BWV, VS, PIG, STR, DaG, RS and elevation -> class id, 0 where there is nothing to draw.
        modality: "derm", from near, through a lens with a dark rim, flat; or "clinic", from farther away, blurred, with
            uneven coloured light, glare and more hairs.
        size: sides of the image, pixels.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    rngs = {name: np.random.default_rng((number, 2, k)) for k, name in enumerate(STREAMS)}
    rng, near = rngs[modality], modality == "derm"
    line = np.linspace(-1, 1, size, dtype=np.float32)
    across, down = np.meshgrid(line, line)
    extent = rng.uniform(0.60, 0.68) if near else rng.uniform(0.40, 0.48)  # of the lesion, in half widths of the image
    left, top = (rng.uniform(-0.06, 0.06, 2) if near else rng.uniform(-0.2, 0.2, 2)).tolist()
    x, y = _turn((across - left) / float(extent), (down - top) / float(extent), rng.uniform(0, 2 * np.pi))
    skin = rngs["skin"]
    tone = np.array([0.90, 0.74, 0.65]) * skin.uniform(0.85, 1.05) * skin.normal(1, 0.03, 3)
    image = tone.astype(np.float32) * (1 + 0.02 * _waves(skin, x, y, 4) + 0.015 * _waves(skin, x, y, 11))[..., None]
    image = _lesion(rngs, signs, image, x, y)
    hairs = [
        _curve(rng, rng.uniform(-1, 1, 2), 1.6, rng.normal(0, 0.6), 60) for _ in range(rng.integers(3 if near else 6))
    ]
    if near:
        image = image * (0.45 + 0.55 * _soft(np.hypot(across, down) - 1.12, 0.25))[..., None]
    else:
        image = _dome(image, signs["elevation"], x, y, rng.uniform(0, 2 * np.pi))
        image = ndimage.gaussian_filter(image, (0.015 * size, 0.015 * size, 0))
        slope = rng.uniform(0.1, 0.3) * _turn(across, down, rng.uniform(0, 2 * np.pi))[0]
        image = image * (1 + slope)[..., None] * rng.normal(1, 0.04, 3).astype(np.float32)
        for a, b in rng.uniform(-0.8, 0.8, (rng.integers(3), 2)).tolist():
            spot = np.exp(-((across - a) ** 2 + (down - b) ** 2) / rng.uniform(0.05, 0.12) ** 2)
            image = _cover(image, WHITE, 0.85 * spot)
    if hairs:
        image = _stain(image, HAIR, 0.8 * _soft(_near(across, down, np.concatenate(hairs)) - 0.008, 0.03))
    image = image + (0.015 if near else 0.025) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(255 * image, 0, 255).astype(np.uint8)
