"""The loss terms that methods are built from: pure functions of logits, in float32 or better."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from train.precision import full_precision

Distance = Literal["l2", "mse"]
"""How two sets of logits are compared; see `consistency`."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the mean of :math:`-\log p_y`.

    Parameters
    ----------
    logits : (N, K) float, unnormalised
    labels : (N,) int64

    Returns
    -------
    () float
    """
    return torch.nn.functional.cross_entropy(full_precision(logits), labels)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Return the mean over the batch of :math:`-\sum_k y_k \log p_k`.

    Parameters
    ----------
    logits : (N, K) float, unnormalised
    targets : (N, K) float
        Rows sum to 1.

    Returns
    -------
    () float
    """
    log_p = torch.log_softmax(full_precision(logits), dim=1)
    return -(targets * log_p).sum(dim=1).mean()


def uniform_divergence(logits: Tensor) -> Tensor:
    r"""Return the mean over the batch of :math:`KL(U \| p) = -\ln K - \frac1K \sum_k \log p_k`.

    Its gradient with respect to one sample's logits is :math:`p_k - 1/K`. Outlier exposure's
    cross-entropy to the uniform distribution is this plus :math:`\ln K`.

    Parameters
    ----------
    logits : (N, K) float, unnormalised

    Returns
    -------
    () float
        Not negative; 0 where all logits are equal.

    References
    ----------
    ASCOOD (arXiv 2411.10794), proposition 1. The paper prints KL(p || U), but the gradient that it
    states, and its authors' code, belong to KL(U || p), which is what this is.
    """
    values = full_precision(logits)
    divergence = torch.logsumexp(values, dim=1) - values.mean(dim=1) - math.log(values.shape[1])
    return divergence.mean()


def consistency(mixed_logits: Tensor, logits_of_mixed: Tensor, *, distance: Distance) -> Tensor:
    r"""Return how far logits mixed after the network are from logits of images mixed before it.

    ``l2``: the mean over the batch of :math:`\| \tilde f - f(\tilde x) \|_2` per sample.
    ``mse``: the mean over batch and classes of the squared difference. Both sides receive gradient.

    Parameters
    ----------
    mixed_logits, logits_of_mixed : (N, K) float
    distance : "l2" or "mse"

    Returns
    -------
    () float

    Notes
    -----
    The gradient of ``l2`` at a zero difference is 0, not NaN: mixing coefficients of exactly 0 or 1
    make that difference happen.

    References
    ----------
    Logit MixOE (arXiv 2509.11892), equation 15, which names no reduction over the batch. The mean
    of norms, unlike the norm of the whole batch, does not tie the term's weight to the batch size.
    """
    difference = full_precision(mixed_logits) - full_precision(logits_of_mixed)
    if distance == "mse":
        return difference.square().mean()
    norms: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return norms.mean()
