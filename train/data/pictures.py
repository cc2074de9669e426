"""Pictures by their places in passes over a source, read by this process or by workers.

The order of a pass and the draws of each augmentation come from a generator of their own, seeded by
(seed, stream, pass) and (seed, stream, pass, position). So the number of worker processes, how a
batch is divided, a stop and the point of resuming change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from oodserve.bundle import InputSpec
from oodserve.errors import DataError
from oodserve.images import preprocess
from train.data.augment import Augmentation, DeviceAugmentation, draw_seed
from train.data.sources import ImageSource, LabelledImages, generator, shuffled

UNLABELLED = -1
"""Label of pictures that have none."""

Place = tuple[int, int, int]
"""Number of the pass, position in it, index of the picture."""


class Arrays(NamedTuple):
    """What is read for one batch.

    Attributes
    ----------
    pixels : (B, H, W, 3) uint8, or (n,) uint8
        Of the model's size; or, where the device augments, one picture after the other, as they
        were decoded.
    labels : (B,) int64
    sizes : (B, 2) int64 or None
        Rows and columns of each picture in the second form.
    seeds : (B,) int64 or None
        Of each picture's augmentation in the second form.
    """

    pixels: Tensor
    labels: Tensor
    sizes: Tensor | None = None
    seeds: Tensor | None = None


class Pictures(Dataset[Arrays]):
    """Pictures with their labels, by batches of places.

    Parameters
    ----------
    images : LabelledImages or ImageSource
    spec : InputSpec
        What the model takes.
    augmentation : Augmentation, DeviceAugmentation or None
        None for plain preprocessing.
    seed : int
        Of the run.
    stream : str
        Pictures of different streams are ordered and augmented independently.
    """

    def __init__(
        self,
        images: LabelledImages | ImageSource,
        spec: InputSpec,
        augmentation: Augmentation | DeviceAugmentation | None,
        *,
        seed: int,
        stream: str,
    ) -> None:
        self._labels = images.labels if isinstance(images, LabelledImages) else None
        self._source = images.source if isinstance(images, LabelledImages) else images
        self._preprocessing = spec.preprocessing
        self._augmentation = augmentation
        self._seed = seed
        self._stream = stream

    def __len__(self) -> int:
        return len(self._source)

    def order(self, number: int) -> Sequence[int]:
        """Return the indices in the order of one pass."""
        return shuffled(len(self), seed=self._seed, stream=self._stream, number=number)

    def batch(self, places: Sequence[Place]) -> Arrays:
        """Return the pictures and labels of these places."""
        if self._labels is None:
            labels = np.full(len(places), UNLABELLED, dtype=np.int64)
        else:
            labels = self._labels[[index for _, _, index in places]]
        if isinstance(self._augmentation, DeviceAugmentation):
            return self._decoded(places, torch.from_numpy(labels))
        pixels = np.stack([self._pixels(place) for place in places])
        return Arrays(torch.from_numpy(pixels), torch.from_numpy(labels))

    def __getitems__(self, places: Sequence[Place]) -> Arrays | DataError:
        """Return `batch`, or the error: raised, a worker would bury it in its own traceback."""
        try:
            return self.batch(places)
        except DataError as error:
            return error

    def _pixels(self, place: Place) -> NDArray[np.uint8]:
        image = self._source.read(place[2])
        if self._augmentation is None:
            return preprocess(image, self._preprocessing)
        assert not isinstance(self._augmentation, DeviceAugmentation)
        return np.array(self._augmentation(image, self._rng(place)), dtype=np.uint8)

    def _decoded(self, places: Sequence[Place], labels: Tensor) -> Arrays:
        arrays = [np.asarray(self._source.read(place[2]), dtype=np.uint8) for place in places]
        return Arrays(
            pixels=torch.from_numpy(np.concatenate([array.ravel() for array in arrays])),
            labels=labels,
            sizes=torch.tensor([array.shape[:2] for array in arrays]),
            seeds=torch.tensor([draw_seed(self._rng(place)) for place in places]),
        )

    def _rng(self, place: Place) -> np.random.Generator:
        return generator(self._seed, f"{self._stream}/augment", *place[:2])


def read(
    pictures: Pictures, batches: Iterable[list[Place]], *, workers: int, pin: bool = False
) -> Iterator[Arrays]:
    """Yield the arrays of each batch of places, in order, read by `workers` processes.

    With `pin` they lie in memory that a GPU copies from directly.
    """
    if workers == 0:
        yield from map(pictures.batch, batches)
        return
    loader: DataLoader[Arrays] = DataLoader(
        pictures,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=pin,
        # One of its own: it draws a seed for the workers, which nothing here uses.
        generator=torch.Generator(),
    )
    for arrays in loader:
        if isinstance(arrays, DataError):
            raise arrays
        yield arrays


def _as_is(arrays: Any) -> Any:
    return arrays
