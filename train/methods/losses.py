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


def divergence_from_uniform(logits: Tensor) -> Tensor:
    r"""Return each sample's :math:`KL(U \| p) = -\ln K - \frac1K \sum_k \log p_k`.

    Parameters
    ----------
    logits : (N, K) float, unnormalised

    Returns
    -------
    (N,) float
        Not negative; 0 where all logits are equal.
    """
    values = full_precision(logits)
    return torch.logsumexp(values, dim=1) - values.mean(dim=1) - math.log(values.shape[1])


def uniform_divergence(logits: Tensor) -> Tensor:
    r"""Return the mean over the batch of `divergence_from_uniform`.

    Its gradient with respect to one sample's logits is :math:`p_k - 1/K`, over the batch size.

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
    return divergence_from_uniform(logits).mean()


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    r"""Return each sample's :math:`H(U, p) = -\frac1K \sum_k \log p_k`.

    This is `divergence_from_uniform` plus :math:`\ln K`, with the same gradient
    :math:`p_k - 1/K`.

    Parameters
    ----------
    logits : (N, K) float, unnormalised

    Returns
    -------
    (N,) float
        At least :math:`\ln K`, which it is where all logits are equal.

    References
    ----------
    Outlier exposure (arXiv 1812.04606), section 4.3.
    """
    return divergence_from_uniform(logits) + math.log(logits.shape[1])


def energy(logits: Tensor) -> Tensor:
    r"""Return each sample's energy, :math:`E = -\log \sum_k e^{z_k}`.

    Parameters
    ----------
    logits : (N, K) float, unnormalised

    Returns
    -------
    (N,) float
        Lower for more in-distribution input: the score ``energy`` is its negative. Equal to
        :math:`-\ln K` where all logits are 0.

    References
    ----------
    Energy-based detection (arXiv 2010.03759), section 2, at temperature 1.
    """
    return -torch.logsumexp(full_precision(logits), dim=1)


def hinge_above(values: Tensor, *, margin: float) -> Tensor:
    r"""Return the mean of :math:`\max(0, v - m)^2`: what lies above the margin is penalised.

    Parameters
    ----------
    values : (N,) float
    margin : float
        m.

    Returns
    -------
    () float

    References
    ----------
    Energy-based detection (arXiv 2010.03759), section 3.3: the two terms of its loss are this of
    the energies of images and `hinge_below` of those of outliers.
    """
    return torch.relu(full_precision(values) - margin).square().mean()


def hinge_below(values: Tensor, *, margin: float) -> Tensor:
    r"""Return the mean of :math:`\max(0, m - v)^2`: what lies below the margin is penalised.

    As `hinge_above`, the other way round.
    """
    return torch.relu(margin - full_precision(values)).square().mean()


def normalised_cross_entropy(logits: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    r"""Return the mean cross-entropy of :math:`z / (\|z\|_2 + 10^{-7}) / T`.

    Parameters
    ----------
    logits : (N, K) float, unnormalised
    labels : (N,) int64
    temperature : float
        T, above 0. No logit is then above 1/T, so that the loss of a sample is at least
        :math:`\log(1 + (K - 1) e^{-\sqrt{K / (K - 1)} / T})`.

    Returns
    -------
    () float

    References
    ----------
    LogitNorm (arXiv 2205.09310), section 3.2; the constant is the authors' code's.
    """
    values = full_precision(logits)
    length = torch.linalg.vector_norm(values, dim=1, keepdim=True) + 1e-7
    return cross_entropy(values / length / temperature, labels)


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
