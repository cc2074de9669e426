"""What may be done to each sample's features before the head sees them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from train.precision import full_precision

FeatureNorm = Literal["none", "l2", "zscore"]


def normalise_features(features: Tensor, norm: FeatureNorm, *, sigma: float) -> Tensor:
    """Return (N, D) features as they are, `scale_to_length`-ed, or `standardise`-d."""
    if norm == "zscore":
        return standardise(features, sigma=sigma)
    if norm == "l2":
        return scale_to_length(features, sigma=sigma)
    return features


def standardise(features: Tensor, *, sigma: float) -> Tensor:
    r"""Return each sample's features with mean 0 and standard deviation sigma.

    :math:`\tilde h = \sigma (h - \bar h) / \sqrt{s^2 + 10^{-6}}`, with :math:`s^2` the unbiased
    variance over the D features of the sample. So :math:`\|\tilde h\| = \sigma \sqrt{D - 1}` for
    every sample whose features differ at all.

    Parameters
    ----------
    features : (N, D) float
    sigma : float

    Returns
    -------
    (N, D) float
        In float32 or better.

    Notes
    -----
    The constant is under the root, where the authors add it to the root: at equal features the
    gradient is then at most 1000 sigma, not a million.

    References
    ----------
    ASCOOD (arXiv 2411.10794), proposition 2.
    """
    values = full_precision(features)
    centred = values - values.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (values.shape[1] - 1)
    return sigma * centred / torch.sqrt(variance + 1e-6)


def scale_to_length(features: Tensor, *, sigma: float) -> Tensor:
    r"""Return each sample's features scaled to length :math:`\sigma \sqrt{D - 1}`.

    The length is that of `standardise`, so that the two differ in the removal of the mean alone.

    Parameters
    ----------
    features : (N, D) float
    sigma : float

    Returns
    -------
    (N, D) float
        In float32 or better; zero where the features are zero.
    """
    values = full_precision(features)
    size = values.shape[1]
    # The constant is that of `standardise`: it bounds the gradient where all features are zero.
    length = torch.sqrt(values.square().sum(dim=1, keepdim=True) / (size - 1) + 1e-6)
    return sigma * values / length
