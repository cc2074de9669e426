"""Pictures of ink, deformed and redrawn: from a scanned digit to one drawn on a screen.

Ink is bright and its ground is dark, as in the digits that come with scikit-learn. Lengths in the
settings are shares of the picture's side. A 32 x 32 picture takes about a fifth of a millisecond.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.recipes import DigitsAugment

Pixels = NDArray[np.uint8]

_TRACED_GAIN = 2.5
"""Contrast before tracing: soft, so that lines have no gaps."""


def warp(image: Image.Image, rng: np.random.Generator, *, settings: DigitsAugment) -> Pixels:
    """Rotate, scale, slant, shift and bend a picture.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB.
    rng : numpy.random.Generator
        Where the draws come from.
    settings : DigitsAugment
        How much of each.

    Returns
    -------
    (H, W, 3) uint8
        As large as the picture. What comes from beyond its border has the colour of its corners.
    """
    source = _grid_source(image.width, image.height, rng, settings)
    half = (image.width // 2, image.height // 2)
    lefts, tops = (0, half[0], image.width), (0, half[1], image.height)
    mesh = [
        (
            (lefts[column], tops[row], lefts[column + 1], tops[row + 1]),
            # North-west, south-west, south-east, north-east.
            (
                *source[row][column],
                *source[row + 1][column],
                *source[row + 1][column + 1],
                *source[row][column + 1],
            ),
        )
        for row in range(2)
        for column in range(2)
    ]
    warped = image.transform(
        image.size,
        Image.Transform.MESH,
        mesh,
        resample=Image.Resampling.BILINEAR,
        fillcolor=_corner_colour(image),
    )
    return np.asarray(warped)


def redraw(pixels: Pixels, rng: np.random.Generator, *, settings: DigitsAugment) -> Pixels:
    """Trace strokes with a pen, or vary where their edge lies, how sharp it is, how thick they are.

    Parameters
    ----------
    pixels : (H, W, 3) uint8
        The picture; not changed.
    rng : numpy.random.Generator
        Where the draws come from.
    settings : DigitsAugment
        How much of each.

    Returns
    -------
    (H, W, 3) uint8
    """
    traced, redrawn, level, gain, growth = rng.random(5).tolist()
    # One channel does for a grey picture, in a third of the time.
    grey = bool((pixels[..., :2] == pixels[..., 1:]).all())
    channels = pixels[..., :1] if grey else pixels
    if traced < settings.pen_probability:
        channels = trace(_edge(_between(settings.ink_level, level), _TRACED_GAIN)[channels])
        growth = _between(settings.pen, growth)
    else:
        if redrawn < settings.ink_probability:
            channels = _contrast(settings, level, gain)[channels]
        growth = _between(settings.thickness, growth)
    channels = _grow(channels, growth * pixels.shape[1])
    return np.repeat(channels, 3, axis=2) if grey else channels


def trace(pixels: Pixels) -> Pixels:
    """Reduce strokes of any thickness to lines about two pixels wide, along their middle.

    Parameters
    ----------
    pixels : (H, W, C) uint8
        Bright ink; each channel is taken by itself.

    Returns
    -------
    (H, W, C) uint8

    Notes
    -----
    Lantuejoul's skeleton, in greys: what an opening takes away, collected over successive erosions,
    and what the last of them leaves. The neighbourhood is by turns a cross and a square, which
    together come near a disc. Lines may have small gaps and end in small forks.
    """
    lines = np.zeros_like(pixels)
    for turn in range(max(1, pixels.shape[1] // 6)):
        neighbourhood = _square if turn % 2 else _cross
        eroded = neighbourhood(pixels, np.minimum)
        taken = pixels - neighbourhood(eroded, np.maximum)
        # None of the first 8 levels, which are noise; full strength from 39 on.
        lines = np.maximum(lines, np.minimum(8 * (np.clip(taken, 8, 39) - 8), pixels))
        pixels = eroded
        if not pixels.any():
            break
    smooth = _blur(np.maximum(lines, pixels))
    return np.minimum(smooth, 127) * 2


def wear(pixels: Pixels, rng: np.random.Generator, *, settings: DigitsAugment) -> Pixels:
    """Blur a share of the pictures by a pixel, and add grey noise.

    Parameters and result are those of `redraw`.
    """
    blurred, noise = rng.random(2).tolist()
    if blurred < settings.blur_probability:
        pixels = _blur(pixels)
    if settings.noise > 0:
        spread = 255.0 * settings.noise * noise
        speckle = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32)
        pixels = np.clip(pixels + spread * speckle, 0, 255).astype(np.uint8)
    return pixels


def _grid_source(
    width: int, height: int, rng: np.random.Generator, settings: DigitsAugment
) -> list[list[tuple[float, float]]]:
    """Return where a 3 x 3 grid over the result lies in the original, in pixels."""
    turn, size, stretch, slant, across, down = rng.random(6).tolist()
    scale = _between(settings.scale, size)
    root = settings.aspect ** (stretch - 0.5)
    scale_x, scale_y = scale * root, scale / root
    angle = math.radians(settings.rotation_degrees) * (2 * turn - 1)
    shear = math.tan(math.radians(settings.shear_degrees) * (2 * slant - 1))
    shift_x = _shift(across, scale_x, settings.overhang)
    shift_y = _shift(down, scale_y, settings.overhang)
    cos, sin = math.cos(angle), math.sin(angle)
    bend = (settings.warp * rng.standard_normal((3, 3, 2))).tolist()
    rows = []
    for row in range(3):
        points = []
        for column in range(3):
            # Undo shift, rotation, slant and scale, about the centre, in sides of the picture.
            x, y = column / 2 - 0.5 - shift_x, row / 2 - 0.5 - shift_y
            upright_x, upright_y = cos * x + sin * y, cos * y - sin * x
            x = (upright_x - shear * upright_y) / scale_x + 0.5 + bend[row][column][0]
            y = upright_y / scale_y + 0.5 + bend[row][column][1]
            points.append((x * width, y * height))
        rows.append(points)
    return rows


def _shift(draw: float, scale: float, overhang: float) -> float:
    """Return a shift that keeps a picture of this scale inside the border, but for `overhang`."""
    return (2 * draw - 1) * (max(0.0, (1 - scale) / 2) + overhang)


def _corner_colour(image: Image.Image) -> tuple[int, ...]:
    """Return the mean of the middle two of the four corners, so that ink in one does not count."""
    right, bottom = image.width - 1, image.height - 1
    corners = [image.getpixel(at) for at in ((0, 0), (right, 0), (0, bottom), (right, bottom))]
    return tuple(sum(sorted(channel)[1:3]) // 2 for channel in zip(*corners, strict=True))


def _between(bounds: tuple[float, float], draw: float) -> float:
    return bounds[0] + draw * (bounds[1] - bounds[0])


def _contrast(settings: DigitsAugment, level_draw: float, gain_draw: float) -> Pixels:
    """Return the (256,) table of an edge drawn from the settings."""
    level = _between(settings.ink_level, level_draw)
    # Below this slope black would turn grey, or full ink would fade.
    softest = max(settings.ink_gain[0], 0.5 / min(level, 1 - level))
    sharpest = max(settings.ink_gain[1], softest)
    return _edge(level, softest * (sharpest / softest) ** gain_draw)


def _edge(level: float, gain: float) -> Pixels:
    """Return the (256,) table that turns brightness `level` into an edge of slope `gain`."""
    values = (np.arange(256) / 255 - level) * gain + 0.5
    table: Pixels = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return table


def _cross(pixels: Pixels, extreme: np.ufunc) -> Pixels:
    """Return the extreme of each pixel and its four neighbours."""
    result = pixels.copy()
    extreme(result[1:], pixels[:-1], out=result[1:])
    extreme(result[:-1], pixels[1:], out=result[:-1])
    extreme(result[:, 1:], pixels[:, :-1], out=result[:, 1:])
    extreme(result[:, :-1], pixels[:, 1:], out=result[:, :-1])
    return result


def _square(pixels: Pixels, extreme: np.ufunc) -> Pixels:
    """Return the extreme of each pixel and its eight neighbours."""
    wide = pixels.copy()
    extreme(wide[:, 1:], pixels[:, :-1], out=wide[:, 1:])
    extreme(wide[:, :-1], pixels[:, 1:], out=wide[:, :-1])
    result = wide.copy()
    extreme(result[1:], wide[:-1], out=result[1:])
    extreme(result[:-1], wide[1:], out=result[:-1])
    return result


def _grow(pixels: Pixels, amount: float) -> Pixels:
    """Move the border of bright areas outwards by `amount` pixels, inwards if it is negative."""
    extreme = np.maximum if amount > 0 else np.minimum
    left = abs(amount)
    while left > 0.02:
        grown = _square(pixels, extreme)
        pixels = grown if left >= 1 else _blend(pixels, grown, left)
        left -= 1
    return pixels


def _blend(first: Pixels, second: Pixels, share: float) -> Pixels:
    weight = round(256 * share)
    mixed = first.astype(np.uint16) * (256 - weight) + second.astype(np.uint16) * weight
    return (mixed >> 8).astype(np.uint8)


def _blur(pixels: Pixels) -> Pixels:
    """Smooth with the binomial filter 1-2-1 in both directions; border pixels lose the border."""
    wide = pixels.astype(np.uint16)
    across = 2 * wide
    across[:, 1:] += wide[:, :-1]
    across[:, :-1] += wide[:, 1:]
    down = 2 * across
    down[1:] += across[:-1]
    down[:-1] += across[1:]
    return (down >> 4).astype(np.uint8)
