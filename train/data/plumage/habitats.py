"""What is behind a bird: eight kinds of landscape, each with its own colours and texture.

A habitat maps (generator, side) to (side, side, 3) float32 from 0 to 1. All lengths are shares of
the side, so that one generator draws the same place at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Ground = NDArray[np.float32]
"""(S, S, 3) from 0 to 1."""

_OVERSAMPLING = 2


def forest(rng: np.random.Generator, side: int) -> Ground:
    """Dim foliage with trunks."""
    ground = _mix((0.07, 0.17, 0.09), (0.32, 0.46, 0.2), _noise(rng, side, (4, 9, 18)))

    def trunks(draw: ImageDraw.ImageDraw, length: float) -> None:
        for _ in range(int(rng.integers(3, 7))):
            x, width, lean = rng.random(), rng.uniform(0.02, 0.09), rng.uniform(-0.08, 0.08)
            shade = rng.uniform(0.5, 1.1)
            corners = [(x, -0.1), (x + width, -0.1), (x + width + lean, 1.1), (x + lean, 1.1)]
            draw.polygon(_scaled(corners, length), fill=_rgb((0.24, 0.17, 0.11), shade))

    return _drawn(ground, trunks)


def meadow(rng: np.random.Generator, side: int) -> Ground:
    """Bright grass with flowers."""
    ground = _mix((0.34, 0.52, 0.16), (0.66, 0.76, 0.34), _noise(rng, side, (3, 8, 16)))
    flower = ((0.95, 0.9, 0.4), (0.95, 0.95, 0.95), (0.85, 0.35, 0.6))[int(rng.integers(3))]

    def blades(draw: ImageDraw.ImageDraw, length: float) -> None:
        for x, y, lean, tall, shade in rng.random((60, 5)).tolist():
            line = [(x, y + 0.15), (x + 0.12 * (lean - 0.5), y - 0.05 - 0.12 * tall)]
            colour = _rgb((0.35, 0.6, 0.18), 0.6 + 0.7 * shade)
            draw.line(_scaled(line, length), fill=colour, width=max(1, round(0.012 * length)))
        for x, y, size in rng.random((14, 3)).tolist():
            _dot(draw, x, y, 0.008 + 0.014 * size, length, _rgb(flower, 1.0))

    return _drawn(ground, blades)


def water(rng: np.random.Generator, side: int) -> Ground:
    """Rippled water."""
    _, y = _coordinates(side)
    bent = y + 0.05 * _noise(rng, side, (3, 5))
    waves = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(7, 12) * bent**0.7 + rng.random()))
    light = 0.6 * waves + 0.4 * _noise(rng, side, (4, 12))
    tint = rng.uniform(-0.06, 0.06)
    return _mix((0.1 + tint, 0.27, 0.4), (0.45 + tint, 0.64, 0.76), light)


def sky(rng: np.random.Generator, side: int) -> Ground:
    """Blue with clouds."""
    _, y = _coordinates(side)
    blue = _mix((0.3, 0.52, 0.85), (0.72, 0.85, 0.97), y)
    cloud = _noise(rng, side, (2, 4, 9))
    cover = np.clip((cloud - rng.uniform(0.45, 0.7)) * 4, 0, 1)[..., None]
    covered: Ground = blue * (1 - cover) + np.float32(0.96) * cover
    return covered


def rock(rng: np.random.Generator, side: int) -> Ground:
    """Grey slabs with cracks."""
    ground = _mix((0.36, 0.34, 0.33), (0.62, 0.6, 0.58), _noise(rng, side, (5, 12, 24)))

    def slabs(draw: ImageDraw.ImageDraw, length: float) -> None:
        for _ in range(9):
            centre, size, shade = rng.random(2), rng.uniform(0.1, 0.3), rng.uniform(0.55, 1.15)
            angles = np.sort(rng.uniform(0, 2 * np.pi, 6))
            corners = centre + size * np.stack([np.cos(angles), 0.6 * np.sin(angles)], axis=1)
            draw.polygon(
                _scaled(corners.tolist(), length),
                fill=_rgb((0.54, 0.51, 0.49), shade),
                outline=_rgb((0.22, 0.2, 0.2), 1.0),
            )

    drawn = _drawn(ground, slabs)
    return drawn * (0.85 + 0.3 * _noise(rng, side, (12, 24)))[..., None]


def snow(rng: np.random.Generator, side: int) -> Ground:
    """Drifts under falling flakes."""
    x, y = _coordinates(side)
    drift = np.sin(2 * np.pi * (rng.uniform(0.6, 1.4) * x + rng.random())) * 0.06
    above = np.clip((rng.uniform(0.25, 0.55) + drift - y) * 12, 0, 1)
    light = (1 - 0.45 * above) * (0.86 + 0.14 * _noise(rng, side, (3, 7)))
    ground = _mix((0.45, 0.5, 0.6), (0.95, 0.96, 0.99), light)

    def flakes(draw: ImageDraw.ImageDraw, length: float) -> None:
        for left, top, size in rng.random((30, 3)).tolist():
            _dot(draw, left, top, 0.006 + 0.012 * size, length, (255, 255, 255))

    return _drawn(ground, flakes)


def dunes(rng: np.random.Generator, side: int) -> Ground:
    """Sand in ripples."""
    x, y = _coordinates(side)
    slope = rng.uniform(-0.6, 0.6)
    bent = y + slope * x + 0.12 * _noise(rng, side, (2, 4))
    ripples = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(5, 10) * bent + rng.random()))
    light = 0.45 * ripples + 0.55 * _noise(rng, side, (3, 10, 24))
    return _mix((0.62, 0.45, 0.26), (0.93, 0.8, 0.56), light)


def reeds(rng: np.random.Generator, side: int) -> Ground:
    """Dry stems before still water."""
    ground = _mix((0.28, 0.33, 0.3), (0.5, 0.54, 0.45), _noise(rng, side, (2, 6)))

    def stems(draw: ImageDraw.ImageDraw, length: float) -> None:
        for x, lean, width, shade, top in rng.random((26, 5)).tolist():
            line = [(x, 1.1), (x + 0.25 * (lean - 0.5), -0.1 + 0.5 * top)]
            colour = _rgb((0.72, 0.6, 0.32), 0.55 + 0.6 * shade)
            thick = max(1, round((0.008 + 0.016 * width) * length))
            draw.line(_scaled(line, length), fill=colour, width=thick)

    return _drawn(ground, stems)


HABITATS: Mapping[str, Callable[[np.random.Generator, int], Ground]] = MappingProxyType(
    {
        "forest": forest,
        "meadow": meadow,
        "water": water,
        "sky": sky,
        "rock": rock,
        "snow": snow,
        "dunes": dunes,
        "reeds": reeds,
    }
)
"""Every habitat by its name."""


def _coordinates(side: int) -> tuple[Ground, Ground]:
    """Return x and y of the pixels, (S, S) from 0 to 1."""
    at = ((np.arange(side) + 0.5) / side).astype(np.float32)
    x, y = np.meshgrid(at, at)
    return x, y


def _noise(rng: np.random.Generator, side: int, cells: tuple[int, ...]) -> Ground:
    """Return (S, S) smooth noise of several scales from 0 to 1; coarse scales count more."""
    total = np.zeros((side, side), np.float32)
    for number, count in enumerate(cells):
        coarse = Image.fromarray(rng.random((count, count), dtype=np.float32))
        fine = coarse.resize((side, side), Image.Resampling.BICUBIC)
        total += np.asarray(fine) / np.float32(1 + number)
    low, high = total.min(), total.max()
    scaled: Ground = (total - low) / (high - low)
    return scaled


def _mix(dark: tuple[float, ...], bright: tuple[float, ...], share: Ground) -> Ground:
    first, second = np.array(dark, np.float32), np.array(bright, np.float32)
    mixed: Ground = first + np.clip(share, 0, 1)[..., None].astype(np.float32) * (second - first)
    return mixed


def _drawn(ground: Ground, draw: Callable[[ImageDraw.ImageDraw, float], None]) -> Ground:
    """Draw on a ground, antialiased; the function takes the pen and the side of its paper."""
    side = len(ground) * _OVERSAMPLING
    paper = Image.fromarray(np.round(255 * np.clip(ground, 0, 1)).astype(np.uint8))
    paper = paper.resize((side, side), Image.Resampling.NEAREST)
    draw(ImageDraw.Draw(paper), float(side))
    return np.asarray(paper.reduce(_OVERSAMPLING), np.float32) / np.float32(255)


def _scaled(corners: list[tuple[float, float]], length: float) -> list[tuple[float, float]]:
    return [(x * length, y * length) for x, y in corners]


def _dot(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    radius: float,
    length: float,
    colour: tuple[int, int, int],
) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse(tuple(value * length for value in box), fill=colour)


def _rgb(colour: tuple[float, float, float], factor: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, round(255 * channel * factor)) for channel in colour)
    return red, green, blue
