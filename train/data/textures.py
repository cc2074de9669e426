"""Pictures without lines of ink: waves, noise, mosaics, shapes, plain grounds.

Each kind maps (generator, size) to (size, size) float32 from 0 to 1, to be coloured, or to
(size, size, 3), which has its colours already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Texture = NDArray[np.float32]


def grating(rng: np.random.Generator, size: int) -> Texture:
    """Parallel waves or stripes at any angle, two to ten of them."""
    wave = np.sin(2 * np.pi * (rng.uniform(2, 10) * _tilted(rng, size) + rng.random()))
    if rng.random() < 0.4:
        wave = np.sign(wave)
    return _unit(wave)


def checkerboard(rng: np.random.Generator, size: int) -> Texture:
    """Board of three to ten fields across, straight or tilted."""
    fields = rng.uniform(3, 10)
    angle = rng.choice([0.0, rng.uniform(0, np.pi)])
    x, y = _turned(angle, size)
    odd = (np.floor(fields * x + rng.random()) + np.floor(fields * y + rng.random())) % 2
    return odd.astype(np.float32)


def gradient(rng: np.random.Generator, size: int) -> Texture:
    """Brightness that rises along one direction, or from one point outwards."""
    if rng.random() < 0.5:
        return _unit(_tilted(rng, size))
    x, y = _turned(0.0, size)
    left, top = rng.uniform(-0.5, 0.5, 2)
    return _unit(np.hypot(x - left, y - top))


def rings(rng: np.random.Generator, size: int) -> Texture:
    """Three to seven rings around one point."""
    x, y = _turned(0.0, size)
    left, top = rng.uniform(-0.3, 0.3, 2)
    return _unit(np.sin(2 * np.pi * rng.uniform(4, 10) * np.hypot(x - left, y - top)))


def noise(rng: np.random.Generator, size: int) -> Texture:
    """Independent pixels: even, normal or a few bright ones; grey or coloured."""
    shape = (size, size, 3) if rng.random() < 0.4 else (size, size)
    kind = rng.integers(3)
    if kind == 0:
        return rng.random(shape, dtype=np.float32)
    if kind == 1:
        values = 0.5 + rng.uniform(0.1, 0.4) * rng.standard_normal(shape)
        return np.clip(values, 0, 1).astype(np.float32)
    few: Texture = (rng.random(shape) < rng.uniform(0.05, 0.5)).astype(np.float32)
    return few


def clouds(rng: np.random.Generator, size: int) -> Texture:
    """Smooth noise of several scales, in colour: what an unsharp photograph looks like."""
    common = _octaves(rng, size)
    channels = [0.6 * common + 0.4 * _octaves(rng, size) for _ in range(3)]
    return np.stack([_unit(channel) for channel in channels], axis=-1)


def blobs(rng: np.random.Generator, size: int) -> Texture:
    """Smooth noise with its upper part in ink."""
    height = _unit(_smooth_noise(rng, size, int(rng.integers(4, 8))))
    above: Texture = (height - np.float32(rng.uniform(0.4, 0.6))) * 12
    return above.clip(0, 1)


def mosaic(rng: np.random.Generator, size: int) -> Texture:
    """Tiles, three to eight across, grey or coloured."""
    count = int(rng.integers(3, 9))
    tiles = rng.random((count, count, 3) if rng.random() < 0.6 else (count, count))
    at = np.arange(size) * count // size
    return tiles[np.ix_(at, at)].astype(np.float32)


def polygons(rng: np.random.Generator, size: int) -> Texture:
    """Two to six filled shapes of three to six corners, each with its own colour."""
    canvas = Image.new("RGB", (4 * size, 4 * size), _colour(rng))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(2, 7))):
        corners = int(rng.integers(3, 7))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        centre, radius = rng.uniform(0.1, 0.9, 2), rng.uniform(0.15, 0.5)
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        draw.polygon([(float(x), float(y)) for x, y in points * 4 * size], fill=_colour(rng))
    return _of(canvas)


def discs(rng: np.random.Generator, size: int) -> Texture:
    """Three to twelve filled discs."""
    canvas = Image.new("L", (4 * size, 4 * size))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(3, 13))):
        x, y = rng.uniform(0, 4 * size, 2).tolist()
        radius = 4 * size * rng.uniform(0.05, 0.25)
        shade = int(rng.integers(120, 256))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade)
    return _of(canvas)


def plain(rng: np.random.Generator, size: int) -> Texture:
    """One colour; black, white and grey are frequent."""
    if rng.random() < 0.5:
        return np.full((size, size, 3), rng.choice([0.0, 1.0, rng.random()]), dtype=np.float32)
    return np.broadcast_to(rng.random(3, dtype=np.float32), (size, size, 3))


TEXTURES: Mapping[str, Callable[[np.random.Generator, int], Texture]] = MappingProxyType(
    {
        "grating": grating,
        "checkerboard": checkerboard,
        "gradient": gradient,
        "rings": rings,
        "noise": noise,
        "clouds": clouds,
        "blobs": blobs,
        "mosaic": mosaic,
        "polygons": polygons,
        "discs": discs,
        "plain": plain,
    }
)
"""Every kind of texture by its name."""


def _turned(angle: float, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both coordinates of the pixels, from -1/2 to 1/2 before the turn."""
    at = (np.arange(size) + 0.5) / size - 0.5
    x, y = at[None, :], at[:, None]
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _tilted(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    return _turned(rng.uniform(0, 2 * np.pi), size)[0]


def _unit(values: NDArray[np.floating]) -> Texture:
    low, high = values.min(), values.max()
    scaled: Texture = ((values - low) / max(high - low, 1e-9)).astype(np.float32)
    return scaled


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Texture:
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _octaves(rng: np.random.Generator, size: int) -> Texture:
    parts = [_smooth_noise(rng, size, cells) / cells for cells in (2, 4, 8, 16)]
    total: Texture = np.sum(parts, axis=0, dtype=np.float32)
    return total


def _of(canvas: Image.Image) -> Texture:
    """Reduce a canvas that was drawn four times as large."""
    return np.asarray(canvas.reduce(4), dtype=np.float32) / np.float32(255)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue
