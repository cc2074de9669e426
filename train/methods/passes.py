"""How batches go through the model: several as one, or in eval mode for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import is_wrapped
from torch import Tensor, nn

from train.methods.losses import full_precision


def joint_logits(model: nn.Module, *batches: Tensor) -> tuple[Tensor, ...]:
    """Return the logits of each batch from one pass over all of them.

    In train mode BatchNorm then normalises all of them by the same statistics.

    Parameters
    ----------
    model : nn.Module
        (N, 3, H, W) to (N, K).
    *batches : (N_i, 3, H, W) float

    Returns
    -------
    tuple of (N_i, K) float
        In float32 or better.
    """
    logits = full_precision(model(torch.cat(batches)))
    return torch.split(logits, [len(batch) for batch in batches])


def separate_logits(model: nn.Module, *batches: Tensor) -> tuple[Tensor, ...]:
    """Return the logits of each batch from a pass of its own, in the order given."""
    return tuple(full_precision(model(batch)) for batch in batches)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, and afterwards back what was in train mode, module by module."""
    trained = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model itself, in full precision, without what Fabric put around it.

    A wrapped model under mixed precision refuses any gradient but that of the final loss.
    """
    if not is_wrapped(model):
        return model
    inner = model.module
    assert isinstance(inner, nn.Module)
    return inner
