"""Digits and scribbles as a person draws them, in the coordinates of the console's canvas.

A drawing is a list of strokes, a stroke a list of (x, y) points in canvas pixels (0 to 280, y
down). Everything is computed from a seed, so the mouse and any other renderer draw the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

CANVAS_PX = 280
PEN_PX = 28

Point = tuple[float, float]
Stroke = list[Point]
Drawing = list[Stroke]

INK_MARGIN_PX = PEN_PX / 2
"""Ink centres stay this far from the edge, so no stroke is cut off."""


@dataclass(frozen=True)
class Hand:
    """How a shape of the unit square is put on the canvas."""

    centre: Point = (140.0, 140.0)
    width: float = 120.0
    height: float = 190.0
    slant: float = 0.0
    """Pixels to the right per pixel up."""
    turn: float = 0.0
    """Rotation clockwise, in degrees."""
    wobble: float = 1.5
    """Amplitude of the slow sideways error of the hand, in pixels."""
    seed: int = 0

    def place(self, strokes: Drawing) -> Drawing:
        """Map strokes of the unit square to canvas pixels."""
        rng = random.Random(self.seed)
        return [self._place_stroke(stroke, rng) for stroke in strokes]

    def _place_stroke(self, stroke: Stroke, rng: random.Random) -> Stroke:
        phases = [rng.uniform(0, 2 * math.pi) for _ in range(4)]
        placed = []
        for i, (u, v) in enumerate(stroke):
            x, y = (u - 0.5) * self.width, (v - 0.5) * self.height
            x -= self.slant * y
            angle = math.radians(self.turn)
            x, y = (
                x * math.cos(angle) - y * math.sin(angle),
                x * math.sin(angle) + y * math.cos(angle),
            )
            t = i / max(1, len(stroke) - 1)
            x += self.wobble * math.sin(2 * math.pi * 1.3 * t + phases[0])
            x += self.wobble / 2 * math.sin(2 * math.pi * 3.1 * t + phases[1])
            y += self.wobble * math.sin(2 * math.pi * 1.1 * t + phases[2])
            y += self.wobble / 2 * math.sin(2 * math.pi * 2.7 * t + phases[3])
            placed.append((_inside(self.centre[0] + x), _inside(self.centre[1] + y)))
        return placed


def zero(hand: Hand, *, overlap: float = 0.06) -> Drawing:
    """Return a closed oval, counter-clockwise from the top, its end a little past its start."""
    return hand.place([_arc((0.5, 0.5), (0.5, 0.5), -90, -90 - 360 * (1 + overlap), 48)])


def one(hand: Hand, *, flag: float = 0.0) -> Drawing:
    """Return a downstroke; `flag` is the length of the upstroke before it, 0 to 1 of the height."""
    down = _line((0.5, 0.0), (0.5, 1.0), 24)
    if flag == 0.0:
        return hand.place([down])
    return hand.place([_line((0.5 - 1.2 * flag, flag), (0.5, 0.0), 10) + down[1:]])


def two(hand: Hand) -> Drawing:
    """Return an arc over the top, a diagonal down to the left, and a base."""
    top = _arc((0.5, 0.27), (0.46, 0.27), 190, 380, 22)
    return hand.place(
        [top + _line(top[-1], (0.02, 1.0), 18)[1:] + _line((0.02, 1.0), (1.0, 1.0), 14)[1:]]
    )


def three(hand: Hand) -> Drawing:
    """Return two bows, open to the left, in one stroke."""
    upper = _arc((0.42, 0.25), (0.46, 0.25), 205, 445, 24)
    lower = _arc((0.42, 0.74), (0.55, 0.26), 275, 510, 26)
    return hand.place([upper + lower])


def four(hand: Hand) -> Drawing:
    """Return an angle (down to the left, then right) and a second downstroke."""
    angle = _line((0.55, 0.0), (0.0, 0.62), 18) + _line((0.0, 0.62), (1.0, 0.62), 16)[1:]
    return hand.place([angle, _line((0.68, 0.28), (0.66, 1.0), 18)])


def five(hand: Hand) -> Drawing:
    """Return a neck and a bow in one stroke, then the bar on top."""
    neck = _line((0.15, 0.0), (0.08, 0.42), 10)
    bow = _arc((0.4, 0.68), (0.55, 0.32), 215, 500, 28)
    return hand.place([neck + bow, _line((0.15, 0.0), (0.92, 0.02), 14)])


def six(hand: Hand) -> Drawing:
    """Return a long curve down from the right that closes into a loop."""
    back = _arc((0.85, 0.68), (0.83, 0.68), -95, -180, 20)
    loop = _arc((0.5, 0.7), (0.48, 0.3), 180, -190, 32)
    return hand.place([back + loop])


def seven(hand: Hand, *, barred: bool = True) -> Drawing:
    """Return a top, a diagonal down to the left, and the bar that most writers of `digits` make.

    Without the bar it is a seven that the model has hardly seen.
    """
    top = _line((0.0, 0.0), (1.0, 0.0), 16)
    strokes = [top + _line((1.0, 0.0), (0.32, 1.0), 24)[1:]]
    if barred:
        strokes.append(_line((0.3, 0.5), (1.0, 0.5), 14))
    return hand.place(strokes)


def eight(hand: Hand) -> Drawing:
    """Return a figure of eight in one stroke."""
    points = []
    for i in range(49):
        t = 2 * math.pi * i / 48
        size = 0.42 if math.cos(t) > 0 else 0.5
        points.append((0.5 - size * math.sin(2 * t), 0.5 - 0.5 * math.cos(t)))
    return hand.place([points])


def nine(hand: Hand) -> Drawing:
    """Return a loop closed at the upper right, then a downstroke."""
    loop = _arc((0.46, 0.3), (0.46, 0.3), -20, -372, 30)
    return hand.place([loop + _line(loop[-1], (0.78, 1.0), 20)[1:]])


def scribble(seed: int, *, turns: int = 18, reach: float = 115.0) -> Drawing:
    """Return one stroke with many crossing turns over most of the canvas."""
    rng = random.Random(1000 + seed)
    knots = [
        (_inside(140 + rng.uniform(-reach, reach)), _inside(140 + rng.uniform(-reach, reach)))
        for _ in range(turns)
    ]
    return [_through(knots, 8)]


def zigzag(seed: int, *, lines: int = 9) -> Drawing:
    """Return a hatching: back and forth from top to bottom, then once more across it."""
    rng = random.Random(2000 + seed)
    there = [
        (40 + 200 * (i % 2) + rng.uniform(-12, 12), 35 + 210 * i / lines + rng.uniform(-8, 8))
        for i in range(lines + 1)
    ]
    across = [(y, x) for x, y in there]
    return [_through(there, 8), _through(across, 8)]


_HANDS = [
    Hand(),
    Hand(width=140, height=210, seed=1),
    Hand(width=100, height=170, seed=2, wobble=2.5),
    Hand(width=110, height=180, slant=0.15, seed=3, wobble=2.0),
    Hand(width=120, height=190, slant=-0.08, seed=4),
    Hand(width=90, height=150, seed=5, centre=(130, 146)),
    Hand(width=120, height=180, seed=6, centre=(156, 132), wobble=2.5),
    Hand(width=105, height=195, seed=7, turn=6, wobble=2.0),
    Hand(width=125, height=175, seed=8, turn=-6, wobble=3.0),
    Hand(width=150, height=200, seed=9, centre=(138, 150), slant=0.1),
    Hand(width=110, height=160, seed=10, centre=(150, 150), wobble=3.0),
    Hand(width=100, height=200, seed=11, centre=(128, 138), slant=0.2),
    Hand(width=80, height=130, seed=12, centre=(140, 140)),
    Hand(width=70, height=120, seed=13, centre=(110, 120)),
]
"""All but the last two are of ordinary size; those are small, one of them off centre."""

_SHAPES: dict[str, Callable[[Hand], Drawing]] = {
    "0": zero,
    "1": one,
    "2": two,
    "3": three,
    "4": four,
    "5": five,
    "6": six,
    "7": seven,
    "8": eight,
    "9": nine,
}


def variants(name: str) -> list[Drawing]:
    """Return every drawing of a digit "0" to "9", of "scribble" or of "zigzag"."""
    if name == "scribble":
        return [scribble(seed, turns=14 + seed % 4 * 4) for seed in range(12)]
    if name == "zigzag":
        return [zigzag(seed, lines=6 + seed % 4) for seed in range(10)]
    return [_SHAPES[name](hand) for hand in _HANDS]


def flagged_ones() -> list[Drawing]:
    """Return ones with the short upstroke that many hands put before the downstroke."""
    return [one(hand, flag=0.2 + 0.02 * i) for i, hand in enumerate(_HANDS)]


def _inside(value: float) -> float:
    return min(CANVAS_PX - INK_MARGIN_PX, max(INK_MARGIN_PX, value))


def _line(start: Point, end: Point, steps: int) -> Stroke:
    return [
        (start[0] + (end[0] - start[0]) * i / steps, start[1] + (end[1] - start[1]) * i / steps)
        for i in range(steps + 1)
    ]


def _arc(centre: Point, radii: Point, start_deg: float, end_deg: float, steps: int) -> Stroke:
    """Return an elliptic arc; 0 degrees is to the right, angles grow clockwise (y is down)."""
    angles = [math.radians(start_deg + (end_deg - start_deg) * i / steps) for i in range(steps + 1)]
    return [
        (centre[0] + radii[0] * math.cos(angle), centre[1] + radii[1] * math.sin(angle))
        for angle in angles
    ]


def _through(knots: Stroke, steps: int) -> Stroke:
    """Return a Catmull-Rom curve through the knots, `steps` points for each span."""
    padded = [knots[0], *knots, knots[-1]]
    points = [knots[0]]
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for i in range(1, steps + 1):
            t = i / steps
            x, y = (
                0.5
                * (
                    2 * b[k]
                    + (c[k] - a[k]) * t
                    + (2 * a[k] - 5 * b[k] + 4 * c[k] - d[k]) * t**2
                    + (3 * b[k] - a[k] - 3 * c[k] + d[k]) * t**3
                )
                for k in (0, 1)
            )
            points.append((_inside(x), _inside(y)))
    return points
