"""One bird, seen from the side.

The frame's origin is the middle of the body; forwards is where the bird looks. Every bird is a
little different: `Individual` holds what varies within a species.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from train.data.plumage.canvas import (
    Canvas,
    Colour,
    Layer,
    Placement,
    Points,
    arc,
    ellipse,
    points,
    smooth,
)
from train.data.plumage.species import COLOURS, GENERA, Build, Species

WORN = 0.8
"""How worn a bird may be: what makes the species hard to tell."""

_LENGTH = 0.5
_WHITE, _BLACK = COLOURS["white"], COLOURS["black"]


@dataclass(frozen=True)
class Individual:
    """How one bird deviates from its species.

    Attributes
    ----------
    posture, tail : float
        Degrees added to the rise of the body and of the tail.
    nod, reach : float
        How far the head is lowered and stretched forwards, in body lengths.
    depth : float
        Factor on the depth of the body.
    tint : (3,) tuple of float
        Factors on red, green and blue of all its colours.
    marks : float
        Factor on the width of streaks, bars and bands.
    wear : float
        How far crown and marks have faded into the colour around them: 0 fresh, 1 gone.
    """

    posture: float = 0.0
    tail: float = 0.0
    nod: float = 0.0
    reach: float = 0.0
    depth: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    marks: float = 1.0
    wear: float = 0.0


def draw_individual(rng: np.random.Generator) -> Individual:
    """Draw one at random."""
    red, green, blue = (rng.uniform(0.9, 1.1) * rng.uniform(0.95, 1.05, 3)).tolist()
    return Individual(
        posture=rng.uniform(-10, 10),
        tail=rng.uniform(-10, 10),
        nod=rng.uniform(-0.03, 0.05),
        reach=rng.uniform(-0.03, 0.04),
        depth=rng.uniform(0.92, 1.1),
        tint=(red, green, blue),
        marks=rng.uniform(0.8, 1.25),
        wear=rng.uniform(0.0, WORN),
    )


def draw_bird(
    species: Species, individual: Individual, placement: Placement, *, side: int
) -> Layer:
    """Draw one bird on an empty layer of `side` x `side` pixels."""
    canvas = Canvas(side, placement)
    sketch = _Sketch(canvas, species, individual, GENERA[species.genus])
    sketch.legs()
    sketch.tail()
    sketch.body()
    sketch.wing()
    sketch.head()
    return canvas.layer()


class _Sketch:
    """The parts of one bird, from back to front."""

    def __init__(
        self, canvas: Canvas, species: Species, individual: Individual, build: Build
    ) -> None:
        self.canvas, self.species, self.individual, self.build = canvas, species, individual, build
        self.rise = build.posture + individual.posture
        self.depth = build.depth * individual.depth
        shoulder = self._along(points(0.40 + build.neck + individual.reach, 0.0))[0]
        self.face = shoulder + np.array([0.0, -0.55 * build.head + individual.nod])
        bridge = self._along(
            points(-0.05, -0.95 * self.depth, -0.05, 0.75 * self.depth, 0.32, 0.6 * self.depth)
        )
        jaw_and_nape = self.face + build.head * points(0.3, 0.9, -0.35, -0.8)
        neck = np.concatenate([bridge, jaw_and_nape])
        self.skull = canvas.area(ellipse(self.face[0], self.face[1], build.head))
        self.trunk = canvas.area(
            ellipse(0.0, 0.0, _LENGTH, self.depth, degrees=-self.rise), smooth(neck)
        )

    def legs(self) -> None:
        """Draw two legs with toes."""
        top = self.depth * 0.7
        foot = self.depth + self.build.legs
        lines = [points(x, top, x + 0.03, foot, x + 0.12, foot + 0.015) for x in (-0.06, 0.07)]
        self._paint(self.canvas.stroke(*lines, width=0.035), COLOURS[self.species.legs])

    def tail(self) -> None:
        """Draw a fan out of the rear end, with white edges or dark bands."""
        build = self.build
        root = self._along(points(-0.40, -0.02))[0]
        half = build.tail_width / 2
        fan = points(0.05, -half, -build.tail, -half, -build.tail * 0.97, 0, -build.tail, half)
        fan = np.concatenate([fan, points(0.05, half)])
        lift = self.rise - (build.tail_lift + self.individual.tail)
        feathers = self.canvas.area(_turned(fan, -lift) + root)
        dark = _shade(COLOURS[self.species.back], 0.72)
        self._paint(feathers, dark)
        if self.species.tail == "white_edged":
            for y in (-half, half):
                edge = _turned(points(0.0, y, -build.tail, y), -lift) + root
                self._mark(self.canvas.stroke(edge, width=0.07), _WHITE, dark, feathers)
        if self.species.tail == "banded":
            for at in np.linspace(0.3, 0.92, 4):
                x = -build.tail * at
                band = _turned(points(x, -half, x, half), -lift) + root
                width = 0.16 * build.tail * self.individual.marks
                self._mark(self.canvas.stroke(band, width=0.6 * width), _BLACK, dark, feathers)

    def body(self) -> None:
        """Draw back, under parts and what is on them."""
        self._paint(self.trunk, COLOURS[self.species.back])
        x, y = self.face
        belly = self.canvas.area(
            ellipse(0.13, 0.62 * self.depth, 0.62, 0.78 * self.depth, degrees=-self.rise),
            ellipse(x + 0.06, y + 1.25 * self.build.head, 0.9 * self.build.head),
        )
        belly = ImageChops.darker(belly, self.trunk)
        self._paint(belly, COLOURS[self.species.under])
        self._breast(belly)

    def _breast(self, belly: Image.Image) -> None:
        kind, wide = self.species.breast, self.individual.marks
        x, y = self.face
        under = COLOURS[self.species.under]
        if kind == "band":
            collar = y + 1.3 * self.build.head - 0.12
            band = arc(x - 0.05, collar, 0.36, 0.16, degrees=-0.3 * self.rise, start=-15, end=165)
            self._mark(self.canvas.stroke(band, width=0.1 * wide), _BLACK, under, self.trunk)
        elif kind == "bib":
            bib = ellipse(x + 0.09, y + self.build.head, 0.17 * wide, 0.2 * wide)
            around = ImageChops.lighter(self.trunk, self.skull)
            self._mark(self.canvas.area(bib), _BLACK, under, around)
        elif kind == "streaks":
            lines = [
                self._along(points(x + 0.02, y, x - 0.08, y + 0.02)) for x, y in self._grid(7, 4)
            ]
            self._mark(self.canvas.stroke(*lines, width=0.035 * wide), _BROWN, under, belly)
        elif kind == "spots":
            dots = [self._along(ellipse(x, y, 0.034 * wide)) for x, y in self._grid(7, 4)]
            self._mark(self.canvas.area(*dots), _BLACK, under, belly)
        elif kind == "bars":
            lines = [
                self._along(points(x, -self.depth, x + 0.05, 1.1 * self.depth))
                for x in np.linspace(-0.42, 0.45, 9)
            ]
            self._mark(self.canvas.stroke(*lines, width=0.035 * wide), _BROWN, under, belly)

    def wing(self) -> None:
        """Draw the folded wing with its bars."""
        depth = self.depth
        outline = points(
            0.24, -0.35 * depth, 0.05, -0.62 * depth, -0.3, -0.45 * depth, -0.66, -0.02 * depth,
            -0.3, 0.36 * depth, 0.06, 0.36 * depth,
        )  # fmt: skip
        wing = self.canvas.area(smooth(self._along(outline)))
        back = COLOURS[self.species.back]
        folded = _shade(back, 0.8)
        self._paint(wing, folded)
        tip = self.canvas.area(self._along(points(-0.34, -1, -0.34, 1, -1, 1, -1, -1)))
        self._paint(tip, _shade(back, 0.52), within=wing)
        for x in (0.04, -0.17)[: self.species.wing_bars]:
            bar = self._along(points(x + 0.03, -depth, x - 0.06, depth))
            width = 0.07 * self.individual.marks
            self._mark(self.canvas.stroke(bar, width=width), _WHITE, folded, wing)

    def head(self) -> None:
        """Draw bill, crest, skull, cap, face and eye."""
        build, (x, y), radius = self.build, self.face, self.build.head
        half = build.bill_depth / 2
        tip = (x + 0.85 * radius + build.bill, y + 0.05 + build.bill_curve)
        bend = (x + 0.85 * radius + 0.5 * build.bill, y + 0.05 - half * 0.65)
        bill = points(x + 0.8 * radius, y + 0.04 - half, *bend, *tip,
                      x + 0.8 * radius, y + 0.04 + half)  # fmt: skip
        self._paint(self.canvas.area(bill), COLOURS["horn"])
        back = COLOURS[self.species.back]
        crown = _mixed(COLOURS[self.species.crown], back, self.individual.wear)
        if build.crest:
            plume = points(x + 0.55 * radius, y - 0.75 * radius, x - 0.5 * radius,
                           y - radius - build.crest, x - 0.35 * radius, y - 0.6 * radius,
                           x - radius, y - 0.2 * radius)  # fmt: skip
            self._paint(self.canvas.area(plume), crown)
        self._paint(self.skull, back)
        cheek = ellipse(x + 0.25 * radius, y + 0.85 * radius, 0.95 * radius, 0.75 * radius)
        self._paint(self.canvas.area(cheek), COLOURS[self.species.under], within=self.skull)
        if self.species.breast == "bib":
            chin = ellipse(x + 0.5 * radius, y + 0.95 * radius, 0.75 * radius)
            under = COLOURS[self.species.under]
            self._mark(self.canvas.area(chin), _BLACK, under, self.skull)
        cap = points(x - 2 * radius, y - 0.1 * radius, x + 2 * radius, y - 0.28 * radius,
                     x + 2 * radius, y - 3 * radius, x - 2 * radius, y - 3 * radius)  # fmt: skip
        self._paint(self.canvas.area(cap), crown, within=self.skull)
        self._face(x, y, radius)

    def _face(self, x: float, y: float, radius: float) -> None:
        wide, face = self.individual.marks, self.species.face
        around = COLOURS[self.species.back]
        eye = (x + 0.32 * radius, y - 0.08 * radius)
        if face == "mask":
            band = points(x - radius, y + 0.12 * radius, *eye, x + 1.1 * radius, y + 0.12 * radius)
            mask = self.canvas.stroke(band, width=0.52 * radius * wide)
            self._mark(mask, _BLACK, around, self.skull)
        elif face == "brow":
            brow = points(x - radius, y - 0.2 * radius, *eye, x + radius, y - 0.2 * radius)
            brow = brow - (0.0, 0.28 * radius)
            stripe = self.canvas.stroke(brow, width=0.3 * radius * wide)
            self._mark(stripe, _WHITE, around, self.skull)
        elif face == "eye_ring":
            ring = self.canvas.area(ellipse(*eye, 0.4 * radius))
            self._mark(ring, _WHITE, around, self.skull)
        self._paint(self.canvas.area(ellipse(*eye, 0.2 * radius)), (12, 10, 12))
        glint = ellipse(eye[0] + 0.07 * radius, eye[1] - 0.08 * radius, 0.06 * radius)
        self._paint(self.canvas.area(glint), (250, 250, 250))

    def _grid(self, columns: int, rows: int) -> Points:
        x, y = np.meshgrid(np.linspace(-0.35, 0.5, columns), np.linspace(0.05, 0.95, rows))
        x = x + 0.06 * (np.arange(rows) % 2)[:, None]
        return np.stack([x.ravel(), self.depth * y.ravel()], axis=1)

    def _along(self, shape: Points) -> Points:
        """Turn a shape in line with the body."""
        return _turned(shape, -self.rise)

    def _mark(self, mask: Image.Image, colour: Colour, around: Colour, within: Image.Image) -> None:
        """Paint a mark, as worn as the bird is; `around` is the colour that it fades into."""
        self._paint(mask, _mixed(colour, around, self.individual.wear), within=within)

    def _paint(
        self, mask: Image.Image, colour: Colour, *, within: Image.Image | None = None
    ) -> None:
        red, green, blue = (
            min(255, round(channel * factor))
            for channel, factor in zip(colour, self.individual.tint, strict=True)
        )
        self.canvas.paint(mask, (red, green, blue), within)


_BROWN = (78, 54, 38)


def _turned(shape: Points, degrees: float) -> Points:
    return Placement(0.0, 0.0, 1.0, degrees).apply(shape)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (round(channel * factor) for channel in colour)
    return red, green, blue


def _mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Return the first colour with a share of the second."""
    red, green, blue = (
        round(one + share * (other - one)) for one, other in zip(first, second, strict=True)
    )
    return red, green, blue
