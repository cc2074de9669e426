"""Drawings of lines that are no digits: scribbles, zigzags, letters, doodles.

A drawing is a list of polylines in the unit square, x to the right and y down. What could be read
as a digit is left out by construction: there are no lone lines, no plain loops, no letters such as
B, O, S or Z, and what is random has so many turns or parts that it is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Polyline = NDArray[np.float64]
"""(P, 2) points (x, y)."""
Drawing = list[Polyline]

_OVERSAMPLING = 4
_THINNEST_PEN = 0.04


def scribble(rng: np.random.Generator) -> Drawing:
    """One smooth line through nine to sixteen random points."""
    return [_smooth(rng.random((int(rng.integers(9, 17)), 2)))]


def zigzag(rng: np.random.Generator) -> Drawing:
    """Six to eleven teeth, across or down."""
    teeth = int(rng.integers(6, 12))
    along = np.linspace(0, 1, teeth + 1)
    down = rng.random() < 0.4
    # A low one that runs down would be a rough 1.
    height = rng.uniform(0.5 if down else 0.25, 1.0)
    across = 0.5 + height * (np.arange(teeth + 1) % 2 - 0.5)
    across = across + rng.normal(0, 0.06, teeth + 1)
    points = np.stack([along, across], axis=1)
    return [points[:, ::-1] if down else points]


def wave(rng: np.random.Generator) -> Drawing:
    """Three to seven periods of a sine, across."""
    along = np.linspace(0, 1, 100)
    phase = 2 * np.pi * (rng.random() + rng.integers(3, 8) * along)
    return [np.stack([along, 0.5 + rng.uniform(0.1, 0.4) * np.sin(phase)], axis=1)]


def loops(rng: np.random.Generator) -> Drawing:
    """Three to six loops in a row, as in practising handwriting."""
    turns = int(rng.integers(3, 7))
    angle = np.linspace(0, 2 * np.pi * turns, 24 * turns)
    radius = rng.uniform(0.12, 0.3)
    x = 0.12 + 0.76 * angle / angle[-1] + radius / 2 * np.cos(angle)
    return [np.stack([x, 0.5 + rng.uniform(1, 1.6) * radius * np.sin(angle)], axis=1)]


def spiral(rng: np.random.Generator) -> Drawing:
    """Two and a half to four and a half turns."""
    turns = rng.uniform(2.5, 4.5)
    share = np.linspace(0.03, 1, 120)
    angle = 2 * np.pi * (turns * share * rng.choice([-1, 1]) + rng.random())
    radius = 0.5 * share
    return [np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], axis=1)]


def crossing_lines(rng: np.random.Generator) -> Drawing:
    """Four to eight chords of a circle, none of them short."""
    count = int(rng.integers(4, 9))
    starts = rng.uniform(0, 2 * np.pi, count)
    angles = np.stack([starts, starts + rng.uniform(0.6, 1.4, count) * np.pi], axis=1)
    return list(0.5 + 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=-1))


def hatching(rng: np.random.Generator) -> Drawing:
    """Four to eight parallel lines, crossed by as many in half of the drawings."""
    count = int(rng.integers(4, 9))
    slant = rng.uniform(-0.5, 0.5)
    lines = [np.array([[0.0, y - slant / 2], [1.0, y + slant / 2]]) for y in _spaced(count)]
    if rng.random() < 0.5:
        lines = [line[:, ::-1] for line in lines]
    if rng.random() < 0.5:
        lines += [line[:, ::-1] for line in lines]
    return lines


def burst(rng: np.random.Generator) -> Drawing:
    """Five to ten rays from about the centre."""
    count = int(rng.integers(5, 11))
    angles = 2 * np.pi * (rng.random() + np.arange(count) / count) + rng.normal(0, 0.1, count)
    centre = rng.uniform(0.4, 0.6, 2)
    lengths = rng.uniform(0.3, 0.5, count)
    tips = centre + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [np.array([centre, tip]) for tip in tips]


def arcs(rng: np.random.Generator) -> Drawing:
    """Six to ten arcs anywhere."""
    drawing = []
    for _ in range(int(rng.integers(6, 11))):
        start, extent = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 4.0)
        x, y = rng.uniform(0.15, 0.85, 2).tolist()
        drawing.append(_arc(x, y, rng.uniform(0.08, 0.3), start, extent))
    return drawing


def dots(rng: np.random.Generator) -> Drawing:
    """Eight to thirty short dashes anywhere."""
    starts = rng.random((int(rng.integers(8, 31)), 2))
    return [np.stack([start, start + rng.uniform(-0.04, 0.04, 2)]) for start in starts]


def letter(rng: np.random.Generator) -> Drawing:
    """One of `LETTERS`, its corners moved a little and its width varied."""
    return _by_hand(LETTERS[int(rng.integers(len(LETTERS)))], rng)


def letters(rng: np.random.Generator) -> Drawing:
    """Two or three of `LETTERS` side by side."""
    count = int(rng.integers(2, 4))
    return [
        np.stack([(line[:, 0] * 0.8 + place) / count, line[:, 1] * 0.6 + 0.2], axis=1)
        for place in range(count)
        for line in letter(rng)
    ]


def doodle(rng: np.random.Generator) -> Drawing:
    """One of `DOODLES`, its corners moved a little."""
    return _by_hand(DOODLES[int(rng.integers(len(DOODLES)))], rng)


def render(drawing: Drawing, *, size: int, pen: float) -> NDArray[np.float32]:
    """Draw with a round pen, antialiased.

    Parameters
    ----------
    drawing : list of (P, 2) float64
        In the unit square, which becomes the picture.
    size : int
        Side of the picture, in pixels.
    pen : float
        Width of the lines, in sides of the picture.

    Returns
    -------
    (size, size) float32
        1 where there is ink, 0 where there is none.
    """
    side = size * _OVERSAMPLING
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    width = max(1, round(pen * side))
    for line in drawing:
        points = [(float(x), float(y)) for x, y in line * side]
        draw.line(points, fill=255, width=width, joint="curve")
        for x, y in (points[0], points[-1]):
            radius = width / 2
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / np.float32(255)


def stroke_picture(kind: str, rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Draw one of `STROKES`, half to almost as large as the picture, anywhere inside it.

    Returns
    -------
    (size, size) float32
        1 where there is ink, 0 where there is none.
    """
    stroke = STROKES[kind]
    scale = rng.uniform(0.5, 0.95)
    corner = rng.uniform(0.02, 0.98 - scale, 2)
    drawing = [line * scale + corner for line in stroke.draw(rng)]
    thinnest, thickest = _THINNEST_PEN, max(_THINNEST_PEN, stroke.pen * scale)
    pen = thinnest * (thickest / thinnest) ** rng.random()
    return render(drawing, size=size, pen=pen)


@dataclass(frozen=True)
class Stroke:
    """A kind of drawing."""

    draw: Callable[[np.random.Generator], Drawing]
    pen: float
    """Thickest line, in sides of the drawing, that does not turn it into a blot."""


STROKES: Mapping[str, Stroke] = MappingProxyType(
    {
        "scribble": Stroke(scribble, 0.09),
        "zigzag": Stroke(zigzag, 0.1),
        "wave": Stroke(wave, 0.08),
        "loops": Stroke(loops, 0.08),
        "spiral": Stroke(spiral, 0.08),
        "crossing_lines": Stroke(crossing_lines, 0.12),
        "hatching": Stroke(hatching, 0.09),
        "burst": Stroke(burst, 0.13),
        "arcs": Stroke(arcs, 0.08),
        "dots": Stroke(dots, 0.12),
        "letter": Stroke(letter, 0.2),
        "letters": Stroke(letters, 0.1),
        "doodle": Stroke(doodle, 0.1),
    }
)
"""Every kind of drawing by its name."""


def _line(*numbers: float) -> Polyline:
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def _arc(x: float, y: float, radius: float, start: float, extent: float) -> Polyline:
    angle = np.linspace(start, start + extent, 24)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def _ring(x: float, y: float, radius: float) -> Polyline:
    return _arc(x, y, radius, 0.0, 2 * math.pi)


def _smooth(points: Polyline) -> Polyline:
    """Return a Catmull-Rom curve through the points, eight pieces for each."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    return np.concatenate([curve.swapaxes(0, 1).reshape(-1, 2), points[-1:]])


def _spaced(count: int) -> NDArray[np.float64]:
    return (np.arange(count) + 0.5) / count


def _by_hand(drawing: Drawing, rng: np.random.Generator) -> Drawing:
    """Stretch, and move each corner; a curve moves as a whole, so that it stays smooth."""
    stretch = np.array([rng.uniform(0.65, 1.0), 1.0])
    hand = []
    for line in drawing:
        moves = rng.normal(0, 0.03, (len(line) if len(line) < 10 else 1, 2))
        hand.append((line + moves - 0.5) * stretch + 0.5)
    return hand


_UPRIGHTS = [_line(0.1, 0, 0.1, 1), _line(0.9, 0, 0.9, 1)]

LETTERS: tuple[Drawing, ...] = (
    # A E F H K M N R W X, then Pi, Psi, Zhe, and #.
    [_line(0.05, 1, 0.5, 0, 0.95, 1), _line(0.25, 0.6, 0.75, 0.6)],
    [_line(0.9, 0, 0.1, 0, 0.1, 1, 0.9, 1), _line(0.1, 0.5, 0.75, 0.5)],
    [_line(0.95, 0, 0.1, 0, 0.1, 1), _line(0.1, 0.5, 0.75, 0.5)],
    [*_UPRIGHTS, _line(0.1, 0.5, 0.9, 0.5)],
    [_line(0.1, 0, 0.1, 1), _line(0.9, 0, 0.1, 0.55), _line(0.3, 0.45, 0.95, 1)],
    [_line(0.05, 1, 0.1, 0, 0.5, 0.7, 0.9, 0, 0.95, 1)],
    [_line(0.1, 1, 0.1, 0, 0.9, 1, 0.9, 0)],
    [_line(0.1, 1, 0.1, 0, 0.6, 0, 0.85, 0.25, 0.6, 0.5, 0.1, 0.5), _line(0.4, 0.5, 0.9, 1)],
    [_line(0, 0, 0.25, 1, 0.5, 0.3, 0.75, 1, 1, 0)],
    [_line(0.05, 0, 0.95, 1), _line(0.95, 0, 0.05, 1)],
    [_line(0, 0, 1, 0), _line(0.2, 0, 0.2, 1), _line(0.8, 0, 0.8, 1)],
    [_arc(0.5, 0.1, 0.45, 0.0, math.pi), _line(0.5, 0, 0.5, 1)],
    [_line(0, 0, 1, 1), _line(1, 0, 0, 1), _line(0.5, 0, 0.5, 1)],
    [
        *(_line(x, 0, x - 0.1, 1) for x in (0.35, 0.75)),
        *(_line(0, y, 1, y) for y in (0.3, 0.7)),
    ],
)
"""Letters and signs that no digit looks like."""

_FIVE = np.arange(6) * 0.8 * np.pi
_HEART = np.linspace(0, 2 * np.pi, 48)

DOODLES: tuple[Drawing, ...] = (
    # Star, heart, house, face, arrow, tree, envelope, cube, figure, flower, target, fish, cup.
    [0.5 + 0.5 * np.stack([np.sin(_FIVE), -np.cos(_FIVE)], axis=1)],
    [
        np.stack(
            [
                0.5 + 0.5 * np.sin(_HEART) ** 3,
                0.45 - (13 * np.cos(_HEART) - 5 * np.cos(2 * _HEART) - 2 * np.cos(3 * _HEART)) / 32,
            ],
            axis=1,
        )
    ],
    [_line(0.1, 1, 0.1, 0.45, 0.5, 0, 0.9, 0.45, 0.9, 1, 0.1, 1), _line(0.1, 0.45, 0.9, 0.45)],
    [
        _ring(0.5, 0.5, 0.5),
        _ring(0.32, 0.38, 0.04),
        _ring(0.68, 0.38, 0.04),
        _arc(0.5, 0.52, 0.28, 0.4, 2.3),
    ],
    [_line(0, 0.5, 1, 0.5), _line(0.65, 0.15, 1, 0.5, 0.65, 0.85)],
    [
        _line(0.5, 1, 0.5, 0.75),
        _line(0.5, 0, 0.9, 0.4, 0.1, 0.4, 0.5, 0),
        _line(0.5, 0.3, 1, 0.75, 0, 0.75, 0.5, 0.3),
    ],
    [_line(0, 0.2, 1, 0.2, 1, 0.85, 0, 0.85, 0, 0.2), _line(0, 0.2, 0.5, 0.6, 1, 0.2)],
    [
        _line(0, 0.3, 0.7, 0.3, 0.7, 1, 0, 1, 0, 0.3),
        _line(0, 0.3, 0.3, 0, 1, 0, 0.7, 0.3),
        _line(1, 0, 1, 0.7, 0.7, 1),
    ],
    [
        _ring(0.5, 0.15, 0.15),
        _line(0.5, 0.3, 0.5, 0.65),
        _line(0.1, 0.45, 0.9, 0.45),
        _line(0.15, 1, 0.5, 0.65, 0.85, 1),
    ],
    [
        *(_ring(0.5 + 0.3 * math.cos(a), 0.5 + 0.3 * math.sin(a), 0.18) for a in range(6)),
        _ring(0.5, 0.5, 0.12),
    ],
    [_ring(0.5, 0.5, 0.5), _ring(0.5, 0.5, 0.28), _ring(0.5, 0.5, 0.05)],
    [
        _line(0.75, 0.5, 0.5, 0.2, 0.15, 0.4, 0, 0.5, 0.15, 0.6, 0.5, 0.8, 0.75, 0.5, 1, 0.2),
        _line(0.75, 0.5, 1, 0.8, 1, 0.2),
        _ring(0.2, 0.45, 0.03),
    ],
    [
        _line(0, 0.2, 0.1, 0.9, 0.6, 0.9, 0.7, 0.2, 0, 0.2),
        _arc(0.7, 0.5, 0.25, -1.3, 2.6),
    ],
)
"""Small pictures of things."""
