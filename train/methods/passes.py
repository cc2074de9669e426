"""How batches go through the model: several as one, or in eval mode for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import is_wrapped
from torch import Tensor, nn

from train.networks.classifier import Classifier
from train.precision import full_precision


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


def joint_outputs(model: nn.Module, *batches: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return features and logits of each batch from one pass over all of them.

    Parameters
    ----------
    model : nn.Module
        A `train.networks.classifier.Classifier`, which Fabric may have wrapped.
    *batches : (N_i, 3, H, W) float

    Returns
    -------
    list of ((N_i, D) float, (N_i, K) float)
        In float32 or better.
    """
    features, logits = model.outputs(torch.cat(batches))
    sizes = [len(batch) for batch in batches]
    return list(
        zip(
            torch.split(full_precision(features), sizes),
            torch.split(full_precision(logits), sizes),
            strict=True,
        )
    )


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


def unwrapped(model: nn.Module) -> Classifier:
    """Return the model itself, in full precision, without what Fabric put around it.

    A wrapped model under mixed precision refuses any gradient but that of the final loss.
    """
    inner = model.module if is_wrapped(model) else model
    assert isinstance(inner, Classifier)
    return inner
