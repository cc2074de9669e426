"""Processes that train one model together: how many there are, and what they tell each other.

`torchrun` starts them; without it there is one. Each holds the whole model and takes its slice of
every batch, and the gradients are averaged, so what a step does is what one process does with the
whole batch. Process 0 alone writes and shows progress.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from oodserve.errors import RecipeError

Accelerator = Literal["auto", "cpu", "gpu"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others. Process 0 alone reads all images for a method's start,
for validation and for fitting the scores, which may take longer than the usual half an hour."""


@dataclass(frozen=True)
class Launch:
    """What the launcher said of this process.

    Attributes
    ----------
    rank : int
        Which process this is, from 0.
    processes : int
        How many there are, on all machines.
    local_processes : int
        How many of them are on this machine.
    """

    rank: int = 0
    processes: int = 1
    local_processes: int = 1


def launched() -> Launch:
    """Return what `torchrun` said, or that this process is alone."""
    if not torch.distributed.is_torchelastic_launched():
        return Launch()
    return Launch(
        rank=int(os.environ["RANK"]),
        processes=int(os.environ["WORLD_SIZE"]),
        local_processes=int(os.environ["LOCAL_WORLD_SIZE"]),
    )


def start_fabric(*, accelerator: Accelerator, precision: Precision) -> Fabric:
    """Return a Fabric for as many processes as were launched, connected to each other.

    Parameters
    ----------
    accelerator : "auto", "cpu" or "gpu"
        Processes on GPUs talk by NCCL, those on CPUs by Gloo.
    precision : "32-true", "bf16-mixed" or "16-mixed"

    Raises
    ------
    RecipeError
        There are fewer GPUs than processes.
    """
    launch = launched()
    if launch.processes == 1:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)
    gpus = torch.cuda.device_count()
    on_gpus = accelerator == "gpu" or (accelerator == "auto" and gpus > 0)
    if on_gpus and gpus < launch.local_processes:
        raise RecipeError(
            f"{launch.local_processes} processes were started for {gpus} GPUs; give torchrun "
            f'`--nproc-per-node {max(1, gpus)}`, or set `accelerator = "cpu"`'
        )
    fabric = Fabric(
        accelerator="gpu" if on_gpus else "cpu",
        devices=launch.local_processes,
        num_nodes=launch.processes // launch.local_processes,
        # Buffers are averaged after each step instead (`Group.average`): replacing them between
        # two passes of one step would break the backward pass of the first.
        strategy=DDPStrategy(timeout=PATIENCE, **_kept_buffers()),
        precision=precision,
    )
    # Otherwise each process announces itself.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric.launch()
    return fabric


def leave() -> None:
    """Take this process out of its group, if it is in one.

    A process that ends with its group in place can be aborted while the group's threads are taken
    down ("terminate called without an active exception"), and the launcher then reports a failure
    after everything went well.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _kept_buffers() -> dict[str, Any]:
    """Return the option not to replace buffers before each pass; its older name is deprecated."""
    known = inspect.signature(DistributedDataParallel).parameters
    newer = "forward_sync_buffers"
    return {newer if newer in known else "broadcast_buffers": False}


class Group:
    """The processes of one run.

    Parameters
    ----------
    fabric : Fabric
        As `start_fabric` returned it.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.rank = fabric.global_rank
        self.processes = fabric.world_size

    @property
    def is_main(self) -> bool:
        """Whether this process writes and shows progress."""
        return self.rank == 0

    def gather(self, rows: Tensor) -> Tensor:
        """Return the (B, ...) rows of all processes as (R B, ...), in the order of the ranks.

        No gradient flows through it.
        """
        if self.processes == 1:
            return rows
        everyone = self._fabric.all_gather(rows.detach())
        assert isinstance(everyone, Tensor)
        return everyone.flatten(0, 1)

    def any(self, flag: bool) -> bool:
        """Return whether a process says so."""
        if self.processes == 1:
            return flag
        votes = torch.tensor(float(flag), device=self._fabric.device)
        return float(self._reduced(votes, "sum")) > 0

    def combine(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Return scalar terms of the whole batch: the mean over the processes, or see `is_maximum`.

        Parameters
        ----------
        terms : mapping of str to () float
            Of this process; the others have the same names.
        """
        stacked = torch.stack([value.detach().float() for value in terms.values()])
        combined = stacked
        if self.processes > 1:
            largest = torch.tensor([is_maximum(name) for name in terms], device=stacked.device)
            means = self._reduced(stacked.clone(), "mean")
            combined = torch.where(largest, self._reduced(stacked, "max"), means)
        return dict(zip(terms, combined.tolist(), strict=True))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over the processes into each of the float tensors."""
        if self.processes == 1 or not tensors:
            return
        flat = self._reduced(torch.cat([tensor.flatten() for tensor in tensors]), "mean")
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].reshape(tensor.shape))
            start += tensor.numel()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.processes > 1:
            self._fabric.barrier()

    def _reduced(self, values: Tensor, how: str) -> Tensor:
        reduced = self._fabric.all_reduce(values, reduce_op=how)
        assert isinstance(reduced, Tensor)
        return reduced


def is_maximum(term: str) -> bool:
    """Return whether a term of a loss is a maximum over the batch, which ``_max`` ends its name."""
    return term.endswith("_max")


def refuse_uneven(key: str, batch_size: int, *, processes: int, accumulate: int) -> None:
    """Raise where a batch cannot be divided into equal parts.

    Parameters
    ----------
    key : str
        Of the recipe, for the message.
    batch_size : int
        Rows of the whole batch.
    processes, accumulate : int
        How many processes share it, and in how many parts each of them takes its rows.

    Raises
    ------
    RecipeError
        `batch_size` is no multiple of their product.
    """
    parts = processes * accumulate
    if batch_size % parts:
        below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
        raise RecipeError(
            f"`{key}` = {batch_size} cannot be divided among {processes} processes x "
            f"{accumulate} micro-batches; take a multiple of {parts}, such as {below or above}"
        )


def norm_statistics(model: nn.Module) -> list[Tensor]:
    """Return the running means and variances that each process keeps for itself."""
    return [
        statistic
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and not isinstance(module, nn.SyncBatchNorm)
        for statistic in (module.running_mean, module.running_var)
        if statistic is not None
    ]


def freeze_batch_norm(model: nn.Module) -> None:
    """Put batch normalisation into eval mode: it uses its running statistics and keeps them.

    Its scale and shift still learn.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
