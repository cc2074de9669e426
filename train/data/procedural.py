"""Generated pictures of nothing in particular, to train with as outliers.

None of them is a digit. They teach a model what lies outside; made by rules, they say nothing about
how well it recognises what people will send, so no figure is measured on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.data.sources import generator
from train.data.strokes import STROKES, stroke_picture
from train.data.textures import TEXTURES

STROKE_SHARE = 0.65
"""Share of the pictures that are drawings of lines: they are the hard ones."""
SCREEN_SHARE = 0.6
"""Share of the pictures that are bright on black, as digits are."""
INVERTED_SHARE = 0.15
"""Share that are dark on bright; the rest has two colours."""


@dataclass(frozen=True)
class ProceduralOutliers:
    """A fixed number of pictures, each a function of the seed and its index.

    Attributes
    ----------
    count : int
        How many there are.
    seed : int
        Another seed gives other pictures.
    size : int
        Side in pixels.
    """

    count: int
    seed: int
    size: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, /) -> Image.Image:
        """Return the picture of this index, in mode RGB."""
        if not 0 <= index < self.count:
            raise IndexError(f"no picture {index}: there are {self.count}")
        return picture(generator(self.seed, "procedural", index), size=self.size)


def picture(rng: np.random.Generator, *, size: int) -> Image.Image:
    """Draw one picture of any kind, in mode RGB, `size` pixels square."""
    if rng.random() < STROKE_SHARE:
        kind = list(STROKES)[int(rng.integers(len(STROKES)))]
        coverage = stroke_picture(kind, rng, size)
    else:
        kind = list(TEXTURES)[int(rng.integers(len(TEXTURES)))]
        coverage = TEXTURES[kind](rng, size)
    if coverage.ndim == 2:
        coverage = colour(coverage, rng)
    return Image.fromarray(np.round(255 * coverage).astype(np.uint8))


def colour(coverage: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Give ink and ground their colours.

    Parameters
    ----------
    coverage : (H, W) float32
        1 for ink, 0 for ground.
    rng : numpy.random.Generator
        Where the draws come from.

    Returns
    -------
    (H, W, 3) float32
        From 0 to 1.
    """
    draw = rng.random()
    if draw < SCREEN_SHARE:
        ground, ink = np.zeros(3), np.full(3, rng.uniform(0.75, 1.0))
    elif draw < SCREEN_SHARE + INVERTED_SHARE:
        ground, ink = np.full(3, rng.uniform(0.8, 1.0)), np.full(3, rng.uniform(0.0, 0.25))
    else:
        ground, ink = rng.random(3), rng.random(3)
    mixed = ground + coverage[..., None] * (ink - ground)
    return mixed.astype(np.float32)
