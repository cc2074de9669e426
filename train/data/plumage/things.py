"""What is no bird: outliers to train with, and objects that are only ever evaluated on.

The two have no kind in common and are drawn differently. Outliers are animals, vehicles, plants
and shapes without outlines, placed over the habitats like birds, in the colours of birds. Objects
are household things with a dark outline on a studio's ground.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from train.data.plumage.canvas import Colour
from train.data.plumage.habitats import HABITATS, Ground
from train.data.plumage.objects import OBJECTS
from train.data.plumage.outliers import OUTLIERS
from train.data.plumage.parts import draw_parts
from train.data.plumage.scenes import develop, draw_light, draw_placement, draw_shade, lit
from train.data.plumage.species import COLOURS

OUTLIER_SCALES = (0.45, 0.75)
OBJECT_SCALES = (0.55, 0.85)
_OUTLINE = 0.035
_PLAIN: tuple[str, ...] = tuple(COLOURS)


def outlier_scene(kind: str, habitat: str, rng: np.random.Generator, *, side: int) -> Image.Image:
    """Draw one of `OUTLIERS` in one of the habitats; (side, side), mode RGB."""
    ground = HABITATS[habitat](rng, side)
    light = draw_light(rng)
    placement = draw_placement(rng, OUTLIER_SCALES)
    layer = draw_parts(OUTLIERS[kind](rng), placement, _bird_colours(rng), side=side, outline=0.0)
    return develop(lit(layer, draw_shade(rng)).over(ground), light, rng)


def object_scene(kind: str, rng: np.random.Generator, *, side: int) -> Image.Image:
    """Draw one of `OBJECTS` before a studio's ground; (side, side), mode RGB."""
    ground = studio(rng, side)
    light = draw_light(rng)
    placement = draw_placement(rng, OBJECT_SCALES)
    layer = draw_parts(
        OBJECTS[kind](rng), placement, _paint_colours(rng), side=side, outline=_OUTLINE
    )
    return develop(layer.over(ground), light, rng)


def studio(rng: np.random.Generator, side: int) -> Ground:
    """Draw a wall above a table, both plain; (side, side, 3) from 0 to 1."""
    wall, table = rng.uniform(0.25, 0.95, (2, 3)).astype(np.float32)
    y = ((np.arange(side) + 0.5) / side).astype(np.float32)[:, None, None]
    shade = 1 - rng.uniform(0.0, 0.4) * y
    below = np.clip((y - rng.uniform(0.55, 0.85)) * side, 0, 1)
    ground: Ground = np.broadcast_to((wall * (1 - below) + table * below) * shade, (side, side, 3))
    return ground.astype(np.float32)


def _bird_colours(rng: np.random.Generator) -> dict[str, Colour]:
    """Draw colours from plumages, so that colour does not tell an outlier from a bird."""
    main, second = rng.choice(len(_PLAIN), 2, replace=False).tolist()
    return {"main": COLOURS[_PLAIN[main]], "second": COLOURS[_PLAIN[second]], "dark": (30, 28, 30)}


def _paint_colours(rng: np.random.Generator) -> dict[str, Colour]:
    red, green, blue = rng.integers(40, 256, (3, 2)).tolist()
    return {
        "main": (red[0], green[0], blue[0]),
        "second": (red[1], green[1], blue[1]),
        "dark": (48, 46, 52),
    }
