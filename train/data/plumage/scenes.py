"""Pictures: a habitat, a perch, a bird or something else, and the light of the moment.

Each picture is a function of the seed, the name of its set and its number, at any size. A picture
without a bird is drawn by the same function with the bird left out.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from train.data.plumage.birds import draw_bird, draw_individual
from train.data.plumage.canvas import Canvas, Layer, Placement, points
from train.data.plumage.habitats import HABITATS, Ground
from train.data.plumage.species import GENERA, SPECIES, species_of

SCALES = (0.46, 0.62)
"""Smallest and largest body of a bird, in sides of the picture."""

_FOOTING = ("forest", "sky", "reeds")
"""Habitats in which there is a twig to sit on."""


def home(name: str) -> str:
    """Return the habitat that a species keeps to as far as the set is correlated.

    The species of one genus have different homes, so build and habitat together say which it is.
    """
    genus = SPECIES[name].genus
    place = species_of(genus).index(name)
    return list(HABITATS)[(2 * place + 3 * list(GENERA).index(genus)) % len(HABITATS)]


def draw_habitat(name: str | None, correlation: float, rng: np.random.Generator) -> str:
    """Draw where a picture is taken.

    Parameters
    ----------
    name : str or None
        Species in the picture, None for none.
    correlation : float
        Share of the pictures, from 0 to 1, that are taken at the species' home; the others are
        anywhere, each habitat alike.
    rng : numpy.random.Generator
        Where the draws come from.
    """
    at_home, anywhere = rng.random(), list(HABITATS)[int(rng.integers(len(HABITATS)))]
    return home(name) if name is not None and at_home < correlation else anywhere


def bird_scene(
    name: str | None, habitat: str, rng: np.random.Generator, *, side: int
) -> Image.Image:
    """Draw a bird of this species in a habitat, or the habitat alone.

    Parameters
    ----------
    name : str or None
        Key of `SPECIES`; None leaves the bird out and everything else as it is.
    habitat : str
        Key of `HABITATS`.
    rng : numpy.random.Generator
        Where the draws come from.
    side : int
        Of the picture, in pixels.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.
    """
    ground = HABITATS[habitat](rng, side)
    placement = draw_placement(rng, SCALES)
    individual = draw_individual(rng)
    if habitat in _FOOTING:
        ground = _twig(placement, rng, side).over(ground)
    light, shade = draw_light(rng), draw_shade(rng)
    if name is not None:
        bird = draw_bird(SPECIES[name], individual, placement, side=side)
        ground = lit(bird, shade).over(ground)
    return develop(ground, light, rng)


def draw_placement(rng: np.random.Generator, scales: tuple[float, float]) -> Placement:
    """Draw where something stands: near the middle, turned a little, looking either way."""
    x, y = rng.uniform(0.42, 0.58, 2).tolist()
    return Placement(
        x=x,
        y=y,
        scale=rng.uniform(*scales),
        degrees=rng.uniform(-8, 8),
        mirrored=bool(rng.random() < 0.5),
    )


def lit(layer: Layer, shade: float) -> Layer:
    """Light a layer from above: its upper part brighter, its lower part darker by `shade`."""
    rows = np.flatnonzero(layer.alpha.max(axis=(1, 2)) > 0)
    if len(rows) == 0:
        return layer
    height = (np.arange(len(layer.alpha)) - rows[0]) / max(1, rows[-1] - rows[0])
    gain = (1 + shade * (0.4 - np.clip(height, 0, 1)))[:, None, None].astype(np.float32)
    return Layer(np.minimum(layer.colour * gain, layer.alpha), layer.alpha)


def draw_light(rng: np.random.Generator) -> Ground:
    """Draw brightness and tint of the light, as (3,) factors on the channels."""
    light: Ground = (rng.uniform(0.75, 1.15) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    return light


def draw_shade(rng: np.random.Generator) -> float:
    """Draw by how much brightness falls from the top of something to its foot."""
    return float(rng.uniform(0.1, 0.4))


def develop(ground: Ground, light: Ground, rng: np.random.Generator) -> Image.Image:
    """Turn (S, S, 3) reflectances under a light into a picture with a little grain."""
    grain = rng.uniform(0.005, 0.025) * rng.standard_normal(ground.shape, dtype=np.float32)
    levels = np.clip(ground * light + grain, 0, 1)
    return Image.fromarray(np.round(255 * levels).astype(np.uint8))


def _twig(placement: Placement, rng: np.random.Generator, side: int) -> Layer:
    canvas = Canvas(side, Placement(placement.x, placement.y, placement.scale))
    below, lean, bow = rng.uniform(0.38, 0.6), rng.uniform(-0.15, 0.15), rng.uniform(-0.05, 0.05)
    line = points(-2, below + lean, 0, below + bow, 2, below - lean)
    canvas.paint(canvas.stroke(line, width=rng.uniform(0.06, 0.11)), (84, 62, 44))
    return canvas.layer()
