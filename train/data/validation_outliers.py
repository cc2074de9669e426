"""Outliers made of the in-distribution images themselves, to choose hyper-parameters with.

The eight kinds of Appendix D.3 of the MixOE preprint (arXiv 2106.03917): three of noise, five of
corrupted images. The paper names them and gives no constants; those below are ours, in the manner
of Outlier Exposure (arXiv 1812.04606), which it follows there. Nothing here looks at a test set,
neither of known classes nor of out-of-distribution images, so choosing by them leaks nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy.ndimage import gaussian_filter

from oodserve.errors import DataError
from train.data.placing import new_folder
from train.data.sources import ImageSource, generator

Pixels = NDArray[np.float64]
"""(H, W, 3) from 0 to 255."""

GAUSSIAN_SCALE = 0.5
"""Standard deviation of Gaussian noise, of half the range of values."""
BLOB_SHARE = 0.7
"""Share of ones before blurring."""
BLOB_SIGMA = 1.5 / 32
"""Standard deviation of the blur in shares of the shorter side."""
BLOB_EDGE = 0.75
"""Blurred values below become black; about a third of the picture is left."""
SPECKLE_SCALE = 1.0
"""Standard deviation of the multiplicative noise."""
PIXELATE_SHARE = 0.2
"""Side of a pixelated picture before it is enlarged again, as a share."""


@dataclass(frozen=True)
class ValidationOutliers:
    """As many outliers of one kind as there are images, each a function of seed, kind and index.

    Attributes
    ----------
    source : ImageSource
        In-distribution images, at least 2: the validation split. An outlier has the size of the
        image of its index.
    kind : str
        One of `KINDS`.
    seed : int
        Non-negative.

    Raises
    ------
    DataError
        The kind is unknown or there are fewer than 2 images.
    """

    source: ImageSource
    kind: str
    seed: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(
                f"the kind `{self.kind}` of outliers is unknown; known: {', '.join(KINDS)}"
            )
        if len(self.source) < 2:
            raise DataError(
                f"there are {len(self.source)} images to make outliers of; at least 2 are needed"
            )

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, /) -> Image.Image:
        """Return the outlier of this index, in mode RGB."""
        if not 0 <= index < len(self.source):
            raise IndexError(f"no outlier {index}: there are {len(self.source)}")
        rng = generator(self.seed, f"validation_outliers/{self.kind}", index)
        image = self.source.read(index)

        def partner() -> Pixels:
            other = int(rng.integers(len(self.source) - 1))
            # Any image but this one.
            picture = self.source.read(other + (other >= index))
            if picture.size != image.size:
                picture = picture.resize(image.size, Image.Resampling.BILINEAR)
            return np.asarray(picture, dtype=np.float64)

        pixels = KINDS[self.kind](np.asarray(image, dtype=np.float64), rng, partner)
        return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


Partner = Callable[[], Pixels]
"""Draws another image, scaled to the size of the first."""


def _gaussian(image: Pixels, rng: np.random.Generator, partner: Partner) -> Pixels:
    noise = rng.normal(scale=GAUSSIAN_SCALE, size=image.shape)
    return 127.5 * (1 + np.clip(noise, -1, 1))


def _rademacher(image: Pixels, rng: np.random.Generator, partner: Partner) -> Pixels:
    return 255 * rng.integers(2, size=image.shape).astype(np.float64)


def _blobs(image: Pixels, rng: np.random.Generator, partner: Partner) -> Pixels:
    field = (rng.random(image.shape) < BLOB_SHARE).astype(np.float64)
    sigma = max(0.5, BLOB_SIGMA * min(image.shape[:2]))
    # Across the three channels as well, so that a blob is of nearly one shape in all of them.
    blurred = gaussian_filter(field, (sigma, sigma, 1.5))
    return 255.0 * np.where(blurred < BLOB_EDGE, 0.0, blurred)


def _arithmetic_mean(image: Pixels, rng: np.random.Generator, partner: Partner) -> Pixels:
    return (image + partner()) / 2


def _geometric_mean(image: Pixels, rng: np.random.Generator, partner: Partner) -> Pixels:
    return np.asarray(np.sqrt(image * partner()), dtype=np.float64)


def _speckle(image: Pixels, rng: np.random.Generator, partner: Partner) -> Pixels:
    return image + image * rng.normal(scale=SPECKLE_SCALE, size=image.shape)


def _inverted(image: Pixels, rng: np.random.Generator, partner: Partner) -> Pixels:
    return 255 - image


def _pixelated(image: Pixels, rng: np.random.Generator, partner: Partner) -> Pixels:
    height, width = image.shape[:2]
    small = (max(1, int(width * PIXELATE_SHARE)), max(1, int(height * PIXELATE_SHARE)))
    coarse = Image.fromarray(image.astype(np.uint8)).resize(small, Image.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST), dtype=np.float64)


KINDS: dict[str, Callable[[Pixels, np.random.Generator, Partner], Pixels]] = {
    "gaussian": _gaussian,
    "rademacher": _rademacher,
    "blobs": _blobs,
    "arithmetic_mean": _arithmetic_mean,
    "geometric_mean": _geometric_mean,
    "speckle": _speckle,
    "inverted": _inverted,
    "pixelated": _pixelated,
}
"""How the outliers of each kind are made, from an image, a generator and a way to another image."""


def write_validation_outliers(
    source: ImageSource, to: Path, *, seed: int, console: Console | None = None
) -> int:
    """Write the outliers of all kinds as ``to/KIND/NUMBER.png`` and return how many there are.

    Parameters
    ----------
    source : ImageSource
        In-distribution images, at least 2.
    to : Path
        Must not exist; appears whole or not at all.
    seed : int
        Of the outliers.
    console : Console, optional
        Where progress is shown, if it is a terminal.

    Raises
    ------
    DataError
        `to` exists, or there are fewer than 2 images.
    """
    sets = {kind: ValidationOutliers(source, kind, seed) for kind in KINDS}
    places = [(kind, number) for kind in KINDS for number in range(len(source))]
    shown = console is not None and console.is_terminal
    with new_folder(to) as staging:
        for kind in KINDS:
            (staging / kind).mkdir()
        for kind, number in track(
            places, description=str(to), console=console, disable=not shown, transient=True
        ):
            sets[kind].read(number).save(staging / kind / f"{number:06d}.png")
    return len(places)
