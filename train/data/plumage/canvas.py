"""Drawing on a transparent layer in coordinates that know neither size nor pose.

Shapes are polygons in the frame of what is drawn, x forwards and y down, about one unit long; a
`Placement` says where that frame lies in the picture. Everything is drawn larger than it is needed
and reduced, so that edges are smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

Points = NDArray[np.float64]
"""(P, 2) points (x, y)."""
Colour = tuple[int, int, int]
"""RGB from 0 to 255."""

_SMALL_SIDE = 96


@dataclass(frozen=True)
class Placement:
    """Where a drawing lies in the picture.

    Attributes
    ----------
    x, y : float
        Place of the drawing's origin, in sides of the picture from its upper left corner.
    scale : float
        Length of the drawing's unit, in sides of the picture.
    degrees : float
        Turn about the origin; positive lowers what points forwards.
    mirrored : bool
        Whether forwards is to the left.
    """

    x: float
    y: float
    scale: float
    degrees: float = 0.0
    mirrored: bool = False

    def apply(self, points: Points) -> Points:
        """Return (P, 2) points of the drawing in sides of the picture."""
        angle = np.deg2rad(self.degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned: Points = points @ turn.T * self.scale
        if self.mirrored:
            turned = turned * (-1.0, 1.0)
        turned += (self.x, self.y)
        return turned


@dataclass(frozen=True)
class Layer:
    """What was drawn, at the picture's size.

    Attributes
    ----------
    colour : (S, S, 3) float32
        From 0 to 1, already multiplied by `alpha`.
    alpha : (S, S, 1) float32
        1 where the drawing hides what is behind, 0 where there is nothing.
    """

    colour: NDArray[np.float32]
    alpha: NDArray[np.float32]

    def over(self, ground: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a (S, S, 3) ground with the layer in front."""
        return ground * (1 - self.alpha) + self.colour


class Canvas:
    """An empty layer to draw on.

    Parameters
    ----------
    side : int
        Of the finished layer, in pixels.
    placement : Placement
        Where the drawing lies in it.
    """

    def __init__(self, side: int, placement: Placement) -> None:
        self.oversampling = 4 if side <= _SMALL_SIDE else 2
        self._side = side * self.oversampling
        self._placement = placement
        self._colour = Image.new("RGB", (self._side, self._side))
        self._alpha = Image.new("L", (self._side, self._side))

    def area(self, *polygons: Points) -> Image.Image:
        """Return the mask of all points inside one of the polygons."""
        mask = Image.new("L", (self._side, self._side))
        draw = ImageDraw.Draw(mask)
        for polygon in polygons:
            draw.polygon(self._pixels(polygon), fill=255)
        return mask

    def stroke(self, *lines: Points, width: float) -> Image.Image:
        """Return the mask of lines of a width in the drawing's units, at least one pixel."""
        mask = Image.new("L", (self._side, self._side))
        draw = ImageDraw.Draw(mask)
        pixels = max(1, round(width * self._placement.scale * self._side))
        for line in lines:
            draw.line(self._pixels(line), fill=255, width=pixels, joint="curve")
        return mask

    def paint(self, mask: Image.Image, colour: Colour, within: Image.Image | None = None) -> None:
        """Colour a mask; with `within`, only the part of it inside that other mask."""
        if within is not None:
            mask = ImageChops.darker(mask, within)
        box = mask.getbbox()
        if box is None:
            return
        # Most marks are small: pasting the part that has any saves most of the time.
        part = mask.crop(box)
        self._colour.paste(colour, box, part)
        self._alpha.paste(255, box, part)

    def layer(self) -> Layer:
        """Return what was drawn."""
        colour, alpha = (
            np.asarray(image.reduce(self.oversampling), np.float32) / np.float32(255)
            for image in (self._colour, self._alpha)
        )
        return Layer(colour, alpha[..., None])

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in self._placement.apply(points) * self._side]


def points(*numbers: float) -> Points:
    """Return x, y, x, y, ... as (P, 2) points."""
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def ellipse(
    x: float, y: float, width: float, height: float | None = None, *, degrees: float = 0.0
) -> Points:
    """Return an ellipse of these half axes, turned clockwise; a circle without `height`."""
    return arc(x, y, width, height, degrees=degrees, start=0.0, end=360.0)


def arc(
    x: float,
    y: float,
    width: float,
    height: float | None = None,
    *,
    degrees: float = 0.0,
    start: float,
    end: float,
) -> Points:
    """Return the part of an `ellipse` between two angles, clockwise from forwards."""
    angle = np.deg2rad(np.linspace(start, end, 33))
    height = width if height is None else height
    flat = np.stack([width * np.cos(angle), height * np.sin(angle)], axis=1)
    turn = np.deg2rad(degrees)
    cos, sin = np.cos(turn), np.sin(turn)
    turned: Points = flat @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    return turned


def smooth(corners: Points, *, closed: bool = True) -> Points:
    """Return a Catmull-Rom curve through the corners, six pieces between two of them."""
    if closed:
        before, end, after = (np.roll(corners, shift, axis=0) for shift in (1, -1, -2))
        start = corners
    else:
        padded = np.concatenate([corners[:1], corners, corners[-1:]])
        before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, 6, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    ordered: Points = curve.transpose(1, 0, 2).reshape(-1, 2)
    return ordered if closed else np.concatenate([ordered, corners[-1:]])
