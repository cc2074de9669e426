"""One process's share of a step's batch in equal parts, each with its slice of the step's draws.

With A parts on each of R processes, part m of process r is slice r A + m of R A equal slices of the
whole batch. Each part draws for the whole batch from the same state of the generators and keeps
its own slice, so that the parts together draw what one process draws for the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from oodserve.errors import RecipeError
from train.distributed import Group, is_maximum
from train.draw import Draw
from train.methods.method import TrainingBatch

MakeDraw = Callable[[int, int, Callable[[Tensor], Tensor]], Draw]
"""Rank, number of slices and gathering function to a step's `Draw`."""


def micro_batches(
    batch: TrainingBatch,
    *,
    count: int,
    group: Group,
    rng: np.random.Generator,
    torch_generator: torch.Generator,
    make_draw: MakeDraw,
) -> Iterator[tuple[TrainingBatch, Draw]]:
    """Yield the parts of a batch, each with the randomness of its place.

    Afterwards the generators are where one part's draws left them.

    Parameters
    ----------
    batch : TrainingBatch
        This process's rows, a multiple of `count` of each kind.
    count : int
        How many parts.
    group : Group
    rng : numpy.random.Generator
    torch_generator : torch.Generator
        Both in the same state on every process.
    make_draw : callable
        Makes the step's `Draw` on these generators.
    """
    if count == 1:
        yield batch, make_draw(group.rank, group.processes, group.gather)
        return
    numbers, tensors = rng.bit_generator.state, torch_generator.get_state()
    for place in range(count):
        rng.bit_generator.state = numbers
        torch_generator.set_state(tensors)
        part = TrainingBatch(
            images=_slice(batch.images, place, count),
            labels=_slice(batch.labels, place, count),
            outliers=None if batch.outliers is None else _slice(batch.outliers, place, count),
        )
        gather = _Gather(group, batch, part, count)
        yield part, make_draw(group.rank * count + place, group.processes * count, gather)


def add_terms(sums: dict[str, Tensor], terms: Mapping[str, Tensor], *, share: float) -> None:
    """Add one part's terms to those of the parts before it; in the end they are the batch's.

    Parameters
    ----------
    sums : dict of str to () float
        Changed in place; empty before the first part.
    terms : mapping of str to () float
        Means over the part, or maxima; see `train.distributed.is_maximum`.
    share : float
        Of the batch that the part is.
    """
    for name, value in terms.items():
        part = value.detach()
        if is_maximum(name):
            sums[name] = torch.maximum(sums.get(name, part), part)
        else:
            sums[name] = sums.get(name, 0.0) + share * part


def _slice(rows: Tensor, place: int, count: int) -> Tensor:
    size = len(rows) // count
    return rows[place * size : (place + 1) * size]


class _Gather:
    """Gathers the whole batch's rows of what a part has; what is computed, it cannot know."""

    def __init__(self, group: Group, whole: TrainingBatch, part: TrainingBatch, count: int) -> None:
        self._group = group
        self._known = [
            (part.images, whole.images),
            (part.labels, whole.labels),
            (part.outliers, whole.outliers),
        ]
        self._count = count

    def __call__(self, rows: Tensor) -> Tensor:
        for mine, all_mine in self._known:
            if rows is mine and all_mine is not None:
                return self._group.gather(all_mine)
        raise RecipeError(
            f"`accumulate` = {self._count} divides the batch, but the method compares values that "
            "it computes across the whole of it; set `accumulate` to 1, or start more processes"
        )
