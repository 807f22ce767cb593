"""Makes a set of synthetic images in the folder layout of ImageNette, for where the photographs are not at hand.

Each class is an object of two colours, drawn after what the class shows: a golf ball is a disc with dimples, a French horn rings.
Place, size, angle and colours vary, and so do the background, the light, the noise and the shape of the image. Hues of neighbouring
classes overlap, so colour alone does not tell them apart.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from files import written_beside
from PIL import Image


Array = np.ndarray
#: Takes coordinates u (rightward) and v (downward), each about -1 to 1 on the object, and returns two masks: the object, and on it
#: the parts in its second colour.
Shape = Callable[[Array, Array], tuple[Array, Array]]


def _disc(u: Array, v: Array, radius: float, centre: tuple[float, float] = (0.0, 0.0)) -> Array:
    return (u - centre[0]) ** 2 + (v - centre[1]) ** 2 < radius**2


def _box(u: Array, v: Array, half_width: float, top: float, bottom: float) -> Array:
    return (np.abs(u) < half_width) & (v > top) & (v < bottom)


def _tench(u: Array, v: Array) -> tuple[Array, Array]:
    body = (u + 0.15) ** 2 / 0.72 + v**2 / 0.16 < 1
    tail = (u > 0.5) & (u < 1) & (np.abs(v) < u - 0.45)
    return body | tail, np.sin(12 * u) > 0.4


def _springer(u: Array, v: Array) -> tuple[Array, Array]:
    return _disc(u, v, 0.9), np.sin(5 * u + 2 * np.sin(3 * v)) * np.sin(5 * v + 2 * np.sin(4 * u)) > 0.1


def _cassette_player(u: Array, v: Array) -> tuple[Array, Array]:
    return _box(u, v, 1.0, -0.55, 0.55), _disc(u, v, 0.32, (-0.5, 0.0)) | _disc(u, v, 0.32, (0.5, 0.0))


def _chain_saw(u: Array, v: Array) -> tuple[Array, Array]:
    teeth = 0.18 + 0.14 * np.abs((4 * u) % 2 - 1)
    blade = (np.abs(u + 0.2) < 0.8) & (np.abs(v) < teeth)
    handle = (np.abs(u - 0.75) < 0.25) & (np.abs(v) < 0.45)
    return blade | handle, handle


def _church(u: Array, v: Array) -> tuple[Array, Array]:
    gable = (v > -1) & (v <= 0) & (np.abs(u) < 0.65 * (v + 1))
    return gable | _box(u, v, 0.55, 0.0, 1.0), _box(u, v, 0.16, 0.45, 1.0) | gable


def _french_horn(u: Array, v: Array) -> tuple[Array, Array]:
    radius = np.hypot(u, v)
    return radius < 0.95, np.sin(16 * radius) > 0


def _garbage_truck(u: Array, v: Array) -> tuple[Array, Array]:
    wheels = _disc(u, v, 0.26, (-0.55, 0.5)) | _disc(u, v, 0.26, (0.55, 0.5))
    return _box(u, v, 1.0, -0.65, 0.45) | wheels, wheels | ((u > 0.5) & (v < -0.1))


def _gas_pump(u: Array, v: Array) -> tuple[Array, Array]:
    return _box(u, v, 0.5, -1.0, 1.0), _box(u, v, 0.34, -0.8, -0.25)


def _golf_ball(u: Array, v: Array) -> tuple[Array, Array]:
    return _disc(u, v, 0.9), np.cos(14 * u) + np.cos(14 * v) > 0.9


def _parachute(u: Array, v: Array) -> tuple[Array, Array]:
    canopy = _disc(u, v, 0.95) & (v < 0)
    lines = (v >= 0) & (v < 0.95) & ((np.abs(np.abs(u) + v - 0.9) < 0.06) | (np.abs(u) < 0.03))
    return canopy | lines, (np.sin(9 * np.arctan2(u, 0.05 - v)) > 0) | lines


SHAPES: dict[str, Shape] = {
    "n01440764": _tench,
    "n02102040": _springer,
    "n02979186": _cassette_player,
    "n03000684": _chain_saw,
    "n03028079": _church,
    "n03394916": _french_horn,
    "n03417042": _garbage_truck,
    "n03425413": _gas_pump,
    "n03445777": _golf_ball,
    "n03888257": _parachute,
}

MARKER = "synthetic.txt"  # so that the folder is never taken for ImageNette
ASPECT_RATIOS = (4 / 3, 4 / 3, 4 / 3, 3 / 2, 3 / 2, 1.0, 3 / 4, 2 / 3)


def write(folder: Path, shorter_side: int | None, images: dict[str, int], seed: int) -> None:
    """Writes ``folder``/SPLIT/WNID/*.JPEG for each split with that many images for each of the ten classes. Raises Error.

    ``shorter_side``: of every image, in pixels; None lets it vary, from 200 to 500. The same seed gives the same files.
    """
    with written_beside(folder) as partial:
        for split_number, (split, count) in enumerate(images.items()):
            for class_number, wnid in enumerate(SHAPES):
                directory = partial / split / wnid
                directory.mkdir(parents=True)
                for number in range(count):
                    random = np.random.default_rng([seed, split_number, class_number, number])
                    image = draw(class_number, shorter_side, random)
                    jpeg = io.BytesIO()  # Pillow itself writes half a file on a full disk, and may say nothing
                    image.save(jpeg, format="JPEG", quality=int(random.integers(75, 96)))
                    (directory / f"{wnid}_{number:05d}.JPEG").write_bytes(jpeg.getvalue())
        (partial / MARKER).write_text("These images are drawn. They are not those of ImageNette.\n")


def draw(class_number: int, shorter_side: int | None, random: np.random.Generator) -> Image.Image:
    """One RGB image of a class, in the order of SHAPES."""
    height, width = _image_shape(shorter_side, random)
    pixels = _background(height, width, random)
    u, v = _coordinates(height, width, random, half_size=(0.3, 0.48), margin=0.35)
    mask, second = list(SHAPES.values())[class_number](u, v)
    hue = class_number / len(SHAPES) + random.normal(0, 0.07)
    pixels[mask] = _colour(hue, random.uniform(0.5, 1.0), random.uniform(0.55, 1.0))
    pixels[mask & second] = _colour(hue + random.normal(0.0, 0.1), random.uniform(0.0, 0.5), random.uniform(0.05, 0.4))
    pixels *= _light(width, random)
    pixels += random.uniform(0.02, 0.1) * random.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8))


def _image_shape(shorter_side: int | None, random: np.random.Generator) -> tuple[int, int]:
    ratio = random.choice(ASPECT_RATIOS) * random.uniform(0.95, 1.05)
    short = shorter_side or int(random.choice([375, 375, 333, random.integers(200, 501)]))
    return (short, round(short * ratio)) if ratio >= 1 else (round(short / ratio), short)


def _background(height: int, width: int, random: np.random.Generator) -> Array:
    """Clouds of colour, and in front of them discs and boxes that belong to no class. [height, width, 3], from 0 to 1."""
    grey, tint = random.uniform(0.15, 0.85, (4, 5, 1)), random.uniform(-0.2, 0.2, (4, 5, 3))
    clouds = Image.fromarray((255 * (grey + tint).clip(0, 1)).astype(np.uint8))
    pixels = np.asarray(clouds.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    for _ in range(random.integers(2, 7)):
        u, v = _coordinates(height, width, random, half_size=(0.05, 0.25), margin=0.0)
        mask = _disc(u, v, 1.0) if random.random() < 0.5 else _box(u, v, 1.0, -0.7, 0.7)
        pixels[mask] = _colour(random.random(), random.uniform(0.1, 0.9), random.uniform(0.2, 0.9))
    return pixels


def _coordinates(
    height: int, width: int, random: np.random.Generator, half_size: tuple[float, float], margin: float
) -> tuple[Array, Array]:
    """The coordinates u and v that every pixel has on an object with a random place, angle and size.

    ``half_size``: its range, in shorter sides of the image. ``margin``: what the centre of the object keeps to the borders.
    """
    size = random.uniform(*half_size) * min(height, width)
    row, column = random.uniform(margin, 1 - margin) * height, random.uniform(margin, 1 - margin) * width
    angle = random.uniform(-0.4, 0.4)
    down = (np.arange(height, dtype=np.float32)[:, None] - row) / size
    right = (np.arange(width, dtype=np.float32)[None, :] - column) / size
    return right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)


def _colour(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def _light(width: int, random: np.random.Generator) -> Array:
    """A gradient of brightness across the image. [1, width, 1]"""
    first, last = random.uniform(0.6, 1.2, 2)
    return np.linspace(first, last, width, dtype=np.float32)[None, :, None]
