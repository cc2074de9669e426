"""Batches of normalised tensors whose bits depend on the recipe and the position alone.

See `train.data.pictures` for why. A batch is that of all processes together; each loader yields the
rows of its own, a contiguous slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from oodserve.bundle import InputSpec
from oodserve.errors import DataError
from train.data.augment import Augmentation, DeviceAugmentation
from train.data.contents import content_fingerprint
from train.data.finishing import Batch, Finish, normalise
from train.data.pictures import UNLABELLED, Arrays, Pictures, Place, read
from train.data.sources import CachedImages, ImageSource, LabelledImages

__all__ = [
    "UNLABELLED",
    "WHOLE",
    "Batch",
    "BatchLoader",
    "EndlessLoader",
    "Share",
    "evaluation_batches",
    "normalise",
]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Share:
    """Which rows of each batch a process takes: the `rank`-th of `processes` equal slices."""

    rank: int = 0
    processes: int = 1

    def of(self, rows: int) -> range:
        """Return the places of this process's rows in a batch of `rows`, a multiple of them."""
        mine = rows // self.processes
        return range(self.rank * mine, (self.rank + 1) * mine)


WHOLE = Share()
"""All rows: there is one process."""


class BatchLoader:
    """Passes over a set in random order, augmented: what training takes.

    Worker processes read on beyond the end of an epoch, so that the next one does not wait.

    Parameters
    ----------
    images : LabelledImages or ImageSource
        N pictures.
    input : InputSpec
        What the model takes.
    augmentation : Augmentation, DeviceAugmentation or None
        None for plain preprocessing.
    batch_size : int
        Pictures in a batch, over all processes.
    seed : int
        Of the run.
    stream : str
        Loaders of different streams are independent of each other.
    workers : int
        Processes that read ahead; 0 for none.
    drop_last : bool
        Whether an incomplete last batch is left out; only whole batches can be shared.
    share : Share
        This process's rows of each batch.
    device : torch.device
        Where pictures are normalised, and augmented if the augmentation says so.

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
        augmentation: Augmentation | DeviceAugmentation | None,
        batch_size: int,
        seed: int,
        stream: str,
        workers: int = 0,
        drop_last: bool = True,
        share: Share = WHOLE,
        device: torch.device = _CPU,
    ) -> None:
        self._pictures = Pictures(_cached(images), input, augmentation, seed=seed, stream=stream)
        self._finish = Finish(input, augmentation, device)
        self._batch_size = batch_size
        self._workers = workers
        self._share = share
        self._ahead: Iterator[Arrays] | None = None
        self._next = (0, 0)
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
        for step in range(start_step, self.steps_per_epoch):
            yield self._finish(self._read(epoch, step))

    def close(self) -> None:
        """End the worker processes; reading again starts new ones."""
        self._ahead = None

    def _read(self, epoch: int, step: int) -> Arrays:
        ahead = self._ahead
        if ahead is None or self._next != (epoch, step):
            places = _batches_of_epochs(
                self._pictures, (epoch, step), self._batch_size, self.steps_per_epoch, self._share
            )
            ahead = read(
                self._pictures, places, workers=self._workers, pin=self._finish.copies_to_gpu
            )
        # Not kept if it raises: what raised yields no more.
        self._ahead = None
        arrays = next(ahead)
        self._ahead = ahead
        last = step + 1 == self.steps_per_epoch
        self._next = (epoch + 1, 0) if last else (epoch, step + 1)
        return arrays


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
        augmentation: Augmentation | DeviceAugmentation | None,
        batch_size: int,
        seed: int,
        stream: str,
        workers: int = 0,
        share: Share = WHOLE,
        device: torch.device = _CPU,
    ) -> None:
        if len(source) == 0:
            raise DataError("there are no outlier images to draw from; set `data.outliers`")
        self._source = source
        self._pictures = Pictures(
            CachedImages(source), input, augmentation, seed=seed, stream=stream
        )
        self._finish = Finish(input, augmentation, device)
        self._batch_size = batch_size
        self._workers = workers
        self._share = share
        self._position = 0
        self._ahead: Iterator[Arrays] | None = None
        self._fingerprint: str | None = None

    def next(self) -> Tensor:
        """Return the next batch, (B, 3, H, W) float32, normalised."""
        if self._ahead is None:
            self._ahead = read(
                self._pictures,
                _batches_of_passes(self._pictures, self._position, self._batch_size, self._share),
                workers=self._workers,
                pin=self._finish.copies_to_gpu,
            )
        arrays = next(self._ahead)
        self._position += self._batch_size
        return self._finish(arrays).images

    def close(self) -> None:
        """End the worker processes; reading again starts new ones."""
        self._ahead = None

    def state(self) -> dict[str, Any]:
        """Return where the stream stands: pictures handed out so far, and what it is drawn from."""
        return {
            "position": self._position,
            "source_size": len(self._pictures),
            "fingerprint": self.fingerprint(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken; what comes next is what came next then.

        Raises
        ------
        DataError
            The source is not what it was.
        """
        if state["source_size"] != len(self._pictures):
            raise DataError(
                f"the outlier set has {len(self._pictures)} images, but had "
                f"{state['source_size']} when the checkpoint was written; restore it"
            )
        # Checkpoints of earlier versions know the size alone.
        if state.get("fingerprint", self.fingerprint()) != self.fingerprint():
            raise DataError(
                "the outlier set has other images than when the checkpoint was written, though as "
                "many; restore it or start a new run"
            )
        self._position = state["position"]
        self._ahead = None

    def fingerprint(self) -> str:
        """Return what tells the source from others; see `content_fingerprint`."""
        if self._fingerprint is None:
            self._fingerprint = content_fingerprint(self._source)
        return self._fingerprint


# Not methods: a loader that its own iterator refers to would be a cycle, which the garbage
# collector takes apart in an order that leaves worker processes waiting for five seconds each.
def _batches_of_epochs(
    pictures: Pictures, start: tuple[int, int], batch_size: int, steps: int, share: Share
) -> Iterator[list[Place]]:
    """Yield the places of each batch from (epoch, step) on, without end."""
    epoch, step = start
    while True:
        order = pictures.order(epoch)
        for first in range(step * batch_size, len(order), batch_size):
            rows = min(batch_size, len(order) - first)
            if first // batch_size < steps:
                yield [(epoch, first + row, order[first + row]) for row in share.of(rows)]
        epoch, step = epoch + 1, 0


def _batches_of_passes(
    pictures: Pictures, position: int, batch_size: int, share: Share
) -> Iterator[list[Place]]:
    """Yield the places of each batch, pass after pass, from a position on."""
    number, order = -1, pictures.order(0)
    while True:
        places = []
        for row in share.of(batch_size):
            if (position + row) // len(order) != number:
                number = (position + row) // len(order)
                order = pictures.order(number)
            at = (position + row) % len(order)
            places.append((number, at, order[at]))
        position += batch_size
        yield places


def evaluation_batches(
    images: LabelledImages | ImageSource,
    *,
    input: InputSpec,
    batch_size: int,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield all pictures in order, preprocessed as for serving and not augmented."""
    pictures = Pictures(images, input, None, seed=0, stream="evaluation")
    finish = Finish(input, None, _CPU)
    places = [
        [(0, index, index) for index in range(start, min(start + batch_size, len(pictures)))]
        for start in range(0, len(pictures), batch_size)
    ]
    for arrays in read(pictures, places, workers=workers):
        yield finish(arrays)


def _cached(images: LabelledImages | ImageSource) -> LabelledImages | ImageSource:
    if isinstance(images, LabelledImages):
        return replace(images, source=CachedImages(images.source))
    return CachedImages(images)
