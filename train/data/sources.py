"""Where pictures come from: anything with a length that can be read by index."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodserve.errors import DataError, ImageError
from oodserve.images import decode


class ImageSource(Protocol):
    """A sequence of pictures. Reading the same index twice gives the same pixels."""

    def __len__(self) -> int:
        """Return the number of pictures."""

    def read(self, index: int, /) -> Image.Image:
        """Return a picture, upright, in mode RGB. The caller must not change it in place.

        Raises
        ------
        DataError
            It cannot be read; the message names the file.
        """


@dataclass(frozen=True)
class ImageFiles:
    """Files, decoded by `oodserve.images` as the server does.

    Attributes
    ----------
    paths : tuple of Path
        In the order of the indices.
    background : tuple of int
        RGB colour, 0 to 255, that shows through transparent pixels.
    """

    paths: tuple[Path, ...]
    background: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, /) -> Image.Image:
        """Return the decoded file."""
        path = self.paths[index]
        try:
            return decode(path.read_bytes(), background=self.background)
        except OSError as error:
            raise DataError(f"cannot read `{path}` ({error}); restore or remove it") from error
        except ImageError as error:
            raise DataError(f"`{path}`: {error}; replace or remove the file") from error


class CachedImages:
    """Another source, with what it returned kept in memory until a budget is spent.

    Parameters
    ----------
    source : ImageSource
        What is asked the first time.
    budget_bytes : int
        Pixels that may be kept, 3 bytes each; what comes later is read anew every time.
    """

    def __init__(self, source: ImageSource, *, budget_bytes: int = 256 * 2**20) -> None:
        self._source = source
        self._left_bytes = budget_bytes
        self._kept: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int, /) -> Image.Image:
        """Return the picture from memory, or read it."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        image = self._source.read(index)
        size = 3 * image.width * image.height
        if size <= self._left_bytes:
            self._kept[index] = image
            self._left_bytes -= size
        return image


@dataclass(frozen=True)
class LabelledImages:
    """Pictures with their classes.

    Attributes
    ----------
    name : str
        What the set is for: ``train``, ``validation``, ``calibration`` or ``test``.
    source : ImageSource
        N pictures.
    labels : (N,) int64
        Indices into `classes`.
    classes : tuple of str
        Class names in the order of the model's logits.
    """

    name: str
    source: ImageSource
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.source),) or self.labels.dtype != np.int64:
            raise ValueError(
                f"{self.name}: `labels` is {self.labels.dtype} {self.labels.shape}, "
                f"expected int64 ({len(self.source)},)"
            )

    def __len__(self) -> int:
        return len(self.source)


def seed_sequence(seed: int, stream: str, *numbers: int) -> np.random.SeedSequence:
    """Return the seeds of one named stream at one place.

    Streams of different names are independent for the same seed, and so are places in a stream;
    equal arguments give equal bits on every machine and in every process.

    Parameters
    ----------
    seed : int
        Non-negative; of the run or of the data set.
    stream : str
        What the numbers are for.
    numbers : int
        The place in the stream, each non-negative: pass, position, index.
    """
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    return np.random.SeedSequence([seed, name, *numbers])


def generator(seed: int, stream: str, *numbers: int) -> np.random.Generator:
    """Return a generator on `seed_sequence`."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, stream, *numbers)))


def shuffled(count: int, *, seed: int, stream: str, number: int) -> Sequence[int]:
    """Return the indices below `count` in the order of one pass over a stream."""
    order: list[int] = generator(seed, f"{stream}/order", number).permutation(count).tolist()
    return order
