"""How batches go through the model: several as one, or in eval mode for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    joined: Any = model  # whose `outputs` a wrapper passes on
    features, logits = joined.outputs(torch.cat(batches))
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


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keep BatchNorm from updating its running statistics and from counting the batch.

    Modules in train mode still normalise by the batch's statistics, those in eval mode by the
    running ones.
    """
    tracking = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    for module in tracking:
        # With a momentum of 0 instead, infinite batch statistics would still reach the running
        # ones, and the batch would be counted.
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


@contextmanager
def first_statistics(model: nn.Module) -> Iterator[bool]:
    """Let BatchNorm that has seen no batch yet average the statistics of those that pass now.

    Its running statistics are still a mean of 0 and a variance of 1, by which eval mode would give
    features that have nothing to do with those of train mode. Whatever mode the model is put in
    meanwhile, such modules normalise by each batch's statistics. Yields whether there are any.
    """
    unseen = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and _is_unseen(module)
    ]
    before = [(module.momentum, module.training) for module in unseen]
    handles = []
    for module in unseen:
        module.momentum = None  # the mean over all batches
        handles.append(module.register_forward_pre_hook(_train_where_possible))
        handles.append(module.register_forward_hook(_evaluate))
    try:
        yield bool(unseen)
    finally:
        for handle in handles:
            handle.remove()
        for module, (momentum, training) in zip(unseen, before, strict=True):
            module.momentum, module.training = momentum, training


def _is_unseen(module: nn.modules.batchnorm._BatchNorm) -> bool:
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        return False
    return bool((mean == 0).all() and (variance == 1).all())


def _train_where_possible(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    (values,) = inputs
    # The variance of a single value per channel is not defined.
    module.training = values.numel() > values.shape[1]


def _evaluate(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    module.training = False
