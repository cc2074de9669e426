"""Batches of normalised tensors whose bits depend on the recipe and the position alone.

The order of a pass and the draws of each augmentation come from a generator of their own, seeded by
(seed, stream, pass) and (seed, stream, pass, position). So the number of worker processes, a stop
and the point of resuming change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from oodserve.bundle import InputSpec
from oodserve.errors import DataError
from oodserve.images import preprocess
from train.data.augment import Augmentation
from train.data.sources import CachedImages, ImageSource, LabelledImages, generator, shuffled

UNLABELLED = -1
"""Label of pictures that have none."""

Place = tuple[int, int, int]
"""Number of the pass, position in it, index of the picture."""
_Arrays = tuple[Tensor, Tensor]
"""(B, H, W, 3) uint8 and (B,) int64."""


@dataclass(frozen=True)
class Batch:
    """What a loader yields.

    Attributes
    ----------
    images : (B, 3, H, W) float32
        Normalised.
    labels : (B,) int64
        Classes, or `UNLABELLED`.
    """

    images: Tensor
    labels: Tensor


def normalise(pixels: Tensor, *, mean: Tensor, std: Tensor) -> Tensor:
    """Return (pixels / 255 - mean) / std, channels first; the exported graph does the same.

    Parameters
    ----------
    pixels : (N, H, W, 3) uint8
        As preprocessing returns them.
    mean, std : (3,) float32
        Of RGB values in [0, 1].

    Returns
    -------
    (N, 3, H, W) float32
        Contiguous.
    """
    scaled = (pixels.to(torch.float32) / 255 - mean) / std
    return scaled.permute(0, 3, 1, 2).contiguous()


class BatchLoader:
    """Passes over a set in random order, augmented: what training takes.

    Parameters
    ----------
    images : LabelledImages or ImageSource
        N pictures.
    input : InputSpec
        What the model takes.
    augmentation : Augmentation or None
        None for plain preprocessing.
    batch_size : int
        Pictures in a batch.
    seed : int
        Of the run.
    stream : str
        Loaders of different streams are independent of each other.
    workers : int
        Processes that read ahead; 0 for none.
    drop_last : bool
        Whether an incomplete last batch is left out.

    Raises
    ------
    DataError
        An epoch would have no batch.
    """

    def __init__(
        self,
        images: LabelledImages | ImageSource,
        *,
        input: InputSpec,
        augmentation: Augmentation | None,
        batch_size: int,
        seed: int,
        stream: str,
        workers: int = 0,
        drop_last: bool = True,
    ) -> None:
        self._pictures = _Pictures(_cached(images), input, augmentation, seed=seed, stream=stream)
        self._normalise = _Normaliser(input)
        self._batch_size = batch_size
        self._workers = workers
        self.steps_per_epoch = len(self._pictures) // batch_size
        if not drop_last and len(self._pictures) % batch_size:
            self.steps_per_epoch += 1
        if self.steps_per_epoch == 0:
            raise DataError(
                f"{len(self._pictures)} images make no batch of {batch_size}; "
                "lower the batch size or add images"
            )

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch from a step on; both are counted from 0."""
        order = self._pictures.order(epoch)
        places = [
            [
                (epoch, position, order[position])
                for position in range(
                    step * self._batch_size,
                    min((step + 1) * self._batch_size, len(order)),
                )
            ]
            for step in range(start_step, self.steps_per_epoch)
        ]
        for arrays in _read(self._pictures, places, workers=self._workers):
            yield self._normalise(arrays)


class EndlessLoader:
    """One pass after the other over a source, without end: what outliers come from.

    Parameters are those of `BatchLoader`. A batch may hold the end of one pass and the start of the
    next, so each is full whatever the size of the source.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        input: InputSpec,
        augmentation: Augmentation | None,
        batch_size: int,
        seed: int,
        stream: str,
        workers: int = 0,
    ) -> None:
        if len(source) == 0:
            raise DataError("there are no outlier images to draw from; set `data.outliers`")
        self._pictures = _Pictures(
            CachedImages(source), input, augmentation, seed=seed, stream=stream
        )
        self._normalise = _Normaliser(input)
        self._batch_size = batch_size
        self._workers = workers
        self._position = 0
        self._ahead: Iterator[_Arrays] | None = None

    def next(self) -> Tensor:
        """Return the next batch, (B, 3, H, W) float32, normalised."""
        if self._ahead is None:
            places = _EndlessPlaces(self._pictures, self._position, self._batch_size)
            self._ahead = _read(self._pictures, places, workers=self._workers)
        arrays = next(self._ahead)
        self._position += self._batch_size
        return self._normalise(arrays).images

    def state(self) -> dict[str, int]:
        """Return where the stream stands: pictures handed out so far, and size of the source."""
        return {"position": self._position, "source_size": len(self._pictures)}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go to where `state` was taken; what comes next is what came next then.

        Raises
        ------
        DataError
            The source has another size than it had.
        """
        if state["source_size"] != len(self._pictures):
            raise DataError(
                f"the outlier set has {len(self._pictures)} images, but had "
                f"{state['source_size']} when the checkpoint was written; restore it"
            )
        self._position = state["position"]
        self._ahead = None


def evaluation_batches(
    images: LabelledImages | ImageSource,
    *,
    input: InputSpec,
    batch_size: int,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield all pictures in order, preprocessed as for serving and not augmented."""
    pictures = _Pictures(images, input, None, seed=0, stream="evaluation")
    normaliser = _Normaliser(input)
    places = [
        [(0, index, index) for index in range(start, min(start + batch_size, len(pictures)))]
        for start in range(0, len(pictures), batch_size)
    ]
    for arrays in _read(pictures, places, workers=workers):
        yield normaliser(arrays)


def _cached(images: LabelledImages | ImageSource) -> LabelledImages | ImageSource:
    if isinstance(images, LabelledImages):
        return replace(images, source=CachedImages(images.source))
    return CachedImages(images)


class _Pictures(Dataset[_Arrays]):
    """Pictures of the model's size with their labels, by batches of places."""

    def __init__(
        self,
        images: LabelledImages | ImageSource,
        spec: InputSpec,
        augmentation: Augmentation | None,
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

    def batch(self, places: Sequence[Place]) -> _Arrays:
        """Return the pictures and labels of these places."""
        pixels = np.stack([self._pixels(place) for place in places])
        if self._labels is None:
            labels = np.full(len(places), UNLABELLED, dtype=np.int64)
        else:
            labels = self._labels[[index for _, _, index in places]]
        return torch.from_numpy(pixels), torch.from_numpy(labels)

    def __getitems__(self, places: Sequence[Place]) -> _Arrays | DataError:
        """Return `batch`, or the error: raised, a worker would bury it in its own traceback."""
        try:
            return self.batch(places)
        except DataError as error:
            return error

    def _pixels(self, place: Place) -> NDArray[np.uint8]:
        number, position, index = place
        image = self._source.read(index)
        if self._augmentation is None:
            return preprocess(image, self._preprocessing)
        rng = generator(self._seed, f"{self._stream}/augment", number, position)
        return np.array(self._augmentation(image, rng), dtype=np.uint8)


@dataclass(frozen=True)
class _EndlessPlaces:
    """Batches of places, pass after pass, from a position on."""

    pictures: _Pictures
    position: int
    batch_size: int

    def __iter__(self) -> Iterator[list[Place]]:
        position, number, order = self.position, -1, self.pictures.order(0)
        while True:
            places = []
            for _ in range(self.batch_size):
                if position // len(order) != number:
                    number = position // len(order)
                    order = self.pictures.order(number)
                at = position % len(order)
                places.append((number, at, order[at]))
                position += 1
            yield places


class _Normaliser:
    """Turns arrays into a batch."""

    def __init__(self, spec: InputSpec) -> None:
        self._mean = torch.tensor(spec.mean, dtype=torch.float32)
        self._std = torch.tensor(spec.std, dtype=torch.float32)

    def __call__(self, arrays: _Arrays) -> Batch:
        pixels, labels = arrays
        return Batch(normalise(pixels, mean=self._mean, std=self._std), labels)


def _read(
    pictures: _Pictures, batches: Iterable[list[Place]], *, workers: int
) -> Iterator[_Arrays]:
    """Yield the arrays of each batch of places, in order, read by `workers` processes."""
    if workers == 0:
        yield from map(pictures.batch, batches)
        return
    loader: DataLoader[_Arrays] = DataLoader(
        pictures,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_is,
        # One of its own: it draws a seed for the workers, which nothing here uses.
        generator=torch.Generator(),
    )
    for arrays in loader:
        if isinstance(arrays, DataError):
            raise arrays
        yield arrays


def _as_is(arrays: Any) -> Any:
    return arrays
