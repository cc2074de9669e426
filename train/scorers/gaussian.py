"""Class means and one covariance for all classes: what the Mahalanobis scores are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from oodserve.errors import DataError
from train.scorers.scorer import ScorerSettings

LEAST_VARIANCE = 1e-10
"""Directions with less than this share of the largest variance are left out: single precision
cannot tell their variance from rounding."""


class GaussianSettings(ScorerSettings):
    """Knobs of the scores that invert a covariance."""

    shrinkage: float = Field(default=1e-4, ge=0, le=1)
    """How far the covariance is drawn towards a multiple of the identity with the same trace. 0
    for the pseudo-inverse of the plain covariance, which needs many more images than features."""


@dataclass(frozen=True)
class Gaussian:
    r"""Class means with one covariance, in coordinates in which that is the identity.

    The squared Mahalanobis distance between f and mean k is then
    :math:`\|(f - c) W - m_k\|^2`.

    Attributes
    ----------
    centre : (D,) float32
        c, the mean of all samples: differences from it lose fewer digits.
    whitening : (D, R) float32
        W; R is the number of directions kept.
    means : (P, R) float32
        m_k, one for each class that has a sample.
    """

    centre: Tensor
    whitening: Tensor
    means: Tensor


def fit_gaussian(features: Tensor, labels: Tensor, *, shrinkage: float, score: str) -> Gaussian:
    r"""Fit class means and the covariance around them, in float64.

    :math:`\hat\Sigma = \frac{1}{N} \sum_i (f_i - \mu_{y_i})(f_i - \mu_{y_i})^\top`, then
    :math:`(1 - s) \hat\Sigma + s \frac{\operatorname{tr} \hat\Sigma}{D} I`. A class without a
    sample has no mean and takes no part.

    Parameters
    ----------
    features : (N, D) float
    labels : (N,) int64
        All equal for one mean and the total covariance.
    shrinkage : float
        s, in [0, 1].
    score : str
        Who asks, for the message.

    Raises
    ------
    DataError
        The features do not vary within the classes.
    """
    values = features.double()
    present, members = torch.unique(labels, return_inverse=True)
    sums = torch.zeros(len(present), values.shape[1], dtype=torch.float64)
    means = sums.index_add(0, members, values) / torch.bincount(members).unsqueeze(1)
    centred = values - means[members]
    covariance = centred.T @ centred / len(values)
    size = covariance.shape[0]
    level = covariance.diagonal().sum() / size
    drawn = (1 - shrinkage) * covariance + shrinkage * level * torch.eye(size, dtype=torch.float64)
    variances, directions = torch.linalg.eigh(drawn)
    kept = variances > LEAST_VARIANCE * variances[-1]
    if not level > 0:
        raise DataError(
            f"score `{score}` cannot be fitted on {len(values)} images: their features do not vary "
            "within a class; give more training images"
        )
    whitening = directions[:, kept] / variances[kept].sqrt()
    centre = values.mean(dim=0)
    return Gaussian(
        centre=centre.float(),
        whitening=whitening.float(),
        means=((means - centre) @ whitening).float(),
    )


def nearest_distance(features: Tensor, gaussian: Gaussian) -> Tensor:
    r"""Return each row's squared Mahalanobis distance to the class mean nearest to it: (N,).

    Which mean is nearest is found by a product, :math:`\arg\max_k w \cdot m_k - \|m_k\|^2 / 2`;
    the distance to that one is then summed from differences, which keeps the digits that
    :math:`\|w\|^2 - 2 w \cdot m + \|m\|^2` cancels, in N R numbers rather than N P R.

    Parameters
    ----------
    features : (N, D) float
    gaussian : Gaussian
    """
    white = (features.float() - gaussian.centre) @ gaussian.whitening  # (N, R)
    nearness = white @ gaussian.means.T - gaussian.means.square().sum(dim=1) / 2  # (N, P)
    nearest = gaussian.means[nearness.argmax(dim=1)]
    return (white - nearest).square().sum(dim=1)
