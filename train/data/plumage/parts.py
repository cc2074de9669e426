"""Drawings made of parts: coloured areas and lines in one frame, with or without an outline."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from train.data.plumage.canvas import Canvas, Colour, Layer, Placement, Points

Part = tuple[str, float | None, Points]
"""Slot of the colour (``main``, ``second``, ``dark``), width of a line or None for an area, and
the (P, 2) points of either, about from -0.6 to 0.6."""
Parts = list[Part]
"""From back to front."""

_INK = (22, 22, 26)


def draw_parts(
    parts: Parts, placement: Placement, colours: Mapping[str, Colour], *, side: int, outline: float
) -> Layer:
    """Draw parts on an empty layer of `side` x `side` pixels.

    Parameters
    ----------
    parts : list of Part
        What to draw.
    placement : Placement
        Where.
    colours : mapping of str to Colour
        Colour of each slot.
    side : int
        Of the layer, in pixels.
    outline : float
        Width of a dark line round every area, in the drawing's units; 0 for none.
    """
    canvas = Canvas(side, placement)
    if outline:
        for _, width, shape in parts:
            edge = shape if width is not None else _closed(shape)
            canvas.paint(canvas.stroke(edge, width=2 * outline + (width or 0.0)), _INK)
    for slot, width, shape in parts:
        mask = canvas.area(shape) if width is None else canvas.stroke(shape, width=width)
        canvas.paint(mask, colours[slot])
        if outline and width is None:
            canvas.paint(canvas.stroke(_closed(shape), width=outline), _INK)
    return canvas.layer()


def _closed(shape: Points) -> Points:
    return np.concatenate([shape, shape[:2]])
