"""One step's randomness, the same however many processes share the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def alone(rows: Tensor) -> Tensor:
    """Return the rows of all processes where there is only this one."""
    return rows


@dataclass(frozen=True)
class Draw:
    """Where one step's randomness comes from, and how far training is.

    Every process draws for the whole (global) batch and takes its own rows, so the same step on one
    process and on several draws the same. What is drawn here is in the order of the global batch:
    process r of R holds rows r B to (r + 1) B, B being its own number of rows.

    Attributes
    ----------
    rng : numpy.random.Generator
        For single numbers: mixing coefficients, boxes. In the same state on every process.
    torch_generator : torch.Generator
        For tensors: noise, permutations. On the CPU, in the same state on every process.
    epoch, epochs : int
        The current epoch, counted from 1, and how many there are.
    rank, processes : int
        Which process this is, from 0, and how many there are.
    gather : callable
        (B, ...) of this process to (R B, ...) of all of them, in the order of the ranks. No
        gradient flows through it.
    """

    rng: np.random.Generator
    torch_generator: torch.Generator
    epoch: int
    epochs: int
    rank: int = 0
    processes: int = 1
    gather: Callable[[Tensor], Tensor] = alone

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers of the shape, dtype and device of this process's rows."""
        shape = (len(like) * self.processes, *like.shape[1:])
        numbers = torch.randn(shape, generator=self.torch_generator)
        return numbers[self._mine(len(like))].to(like)

    def uniform(self, like: Tensor) -> Tensor:
        """Return numbers uniform in [0, 1), as `normal` does."""
        shape = (len(like) * self.processes, *like.shape[1:])
        numbers = torch.rand(shape, generator=self.torch_generator)
        return numbers[self._mine(len(like))].to(like)

    def permutation(self, rows: int) -> Tensor:
        """Return, for each of this process's rows, the global row that is its partner: (rows,).

        Over all processes these are a permutation of the rows of the global batch.
        """
        order = torch.randperm(rows * self.processes, generator=self.torch_generator)
        return order[self._mine(rows)]

    def partners(self, values: Tensor, permutation: Tensor) -> Tensor:
        """Return the partners' values, wherever they are, for what `permutation` returned.

        Parameters
        ----------
        values : (B, ...)
            Of this process; images or labels, through which no gradient is wanted.
        permutation : (B,) int64
        """
        everyone = self.gather(values)
        return everyone[permutation.to(everyone.device)]

    def _mine(self, rows: int) -> slice:
        return slice(self.rank * rows, (self.rank + 1) * rows)
