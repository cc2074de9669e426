"""A head whose logits are distances: one Gaussian per class, all of them of one shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.precision import full_precision

Covariance = Literal["full", "diag"]
"""Whether the classes' common shape has correlations, or one deviation per feature."""

_MARGIN = 1e4
"""Least distance of a class without images below the others: e to minus that is 0."""


class GaussianHead(nn.Module):
    r"""Logits :math:`h_i(z) = -(z - m_i)^T (L L^T)^{-1} (z - m_i)`, never above 0.

    :math:`e^{h_i}` in (0, 1] is the confidence that z is of class i. The means m_i and the lower
    triangular L are trained; L's diagonal is stored as its logarithm and so stays positive.

    Parameters
    ----------
    n_features, n_classes : int
        D and K.
    covariance : "full" or "diag"
        ``full`` costs D^2 numbers of memory and D^2 (N + K) operations.

    Attributes
    ----------
    means : (K, D) float
    log_diagonal : (D,) float
        Of L.
    lower : (D, D) float, with ``full`` only
        L below its diagonal; what is on and above it is ignored.
    populated : (K,) bool
        Which classes had images when `start_from` was called; the means of the others mean
        nothing, so that in evaluation no logit, probability or energy may come from them.

    Notes
    -----
    In training and evaluation :math:`L^{-1} z` is a triangular solve. ONNX has none, so an exported
    graph multiplies by :math:`L^{-1}`, computed in float64 by `eval` from the parameters as they
    are then. Both subtract before they square: expanded, :math:`\|u\|^2 - 2 u v + \|v\|^2` would
    be off by about 4e-4 at D = 512, and not always on the same side of 0. That makes the head hold
    N x K x D numbers at once.

    References
    ----------
    Wu et al., 2023 (arXiv 2208.13433), section "Method".
    """

    decays = False
    """Weight decay would shrink L, and so blow up all distances."""

    populated: Tensor
    inverse: Tensor
    origin: Tensor

    def __init__(self, n_features: int, n_classes: int, *, covariance: Covariance = "full") -> None:
        super().__init__()
        self.covariance: Covariance = covariance
        self.means = nn.Parameter(0.01 * torch.randn(n_classes, n_features))
        # L = sqrt(D) I: features of variance 1 around their class's mean have E[h_y] = -1.
        self.log_diagonal = nn.Parameter(torch.full((n_features,), 0.5 * math.log(n_features)))
        if covariance == "full":
            self.lower = nn.Parameter(torch.zeros(n_features, n_features))
        self.register_buffer("populated", torch.ones(n_classes, dtype=torch.bool))
        self.register_buffer("inverse", torch.empty(0), persistent=False)
        self.register_buffer("origin", torch.empty(0), persistent=False)

    def factor(self) -> Tensor:
        """Return L: (D, D), or with ``diag`` its diagonal, (D,)."""
        diagonal = self.log_diagonal.exp()
        if self.covariance == "diag":
            return diagonal
        return self.lower.tril(-1) + torch.diag(diagonal)

    def forward(self, features: Tensor) -> Tensor:
        """Return h, (N, K), of features (N, D), in float32 or better even under autocast.

        In eval mode the classes that had no images are `_below` all others.
        """
        values = full_precision(features)
        if torch.compiler.is_exporting():
            # Without autocast's context, which the ONNX exporter does not know.
            h = _distances(self._by_inverse(values), self._by_inverse(self.means))
            return _below(h, self.populated)
        with torch.autocast(values.device.type, enabled=False):
            whitened = self._by_solving(torch.cat([values, self.means]) - self._origin())
            h = _distances(whitened[: len(values)], whitened[len(values) :])
            return h if self.training else _below(h, self.populated)

    @torch.no_grad()
    def start_from(self, features: Tensor, labels: Tensor, *, ridge: float) -> None:
        r"""Set means and L to those of features, so that the mean of h_y over them is -1.

        See `tied_gaussians`. From the identity, or from the covariance itself, h would be
        about -D: :math:`e^h` underflows, and with it the gradient that outliers should give.
        """
        tied = tied_gaussians(
            features, labels, len(self.means), covariance=self.covariance, ridge=ridge
        )
        self.means.copy_(tied.means)
        self.populated.copy_(tied.populated)
        if self.covariance == "full":
            self.log_diagonal.copy_(tied.factor.diagonal().log())
            self.lower.copy_(tied.factor.tril(-1))
        else:
            self.log_diagonal.copy_(tied.factor.log())

    @torch.no_grad()
    def train(self, mode: bool = True) -> GaussianHead:
        """Set the mode; leaving training computes what an exported graph multiplies by."""
        super().train(mode)
        nothing = self.means.new_empty(0)
        self.origin = nothing if mode else self._origin()
        self.inverse = nothing if mode else self._inverse()
        return self

    def _origin(self) -> Tensor:
        # Distances do not depend on it, but what rounding takes from them does.
        return self.means.detach().mean(dim=0)

    def _inverse(self) -> Tensor:
        factor = self.factor().double()
        if self.covariance == "diag":
            return (1 / factor).to(self.means.dtype)
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
        return inverse.to(self.means.dtype)

    def _by_inverse(self, rows: Tensor) -> Tensor:
        moved = rows - self.origin
        return moved * self.inverse if self.covariance == "diag" else moved @ self.inverse.T

    def _by_solving(self, moved: Tensor) -> Tensor:
        factor = self.factor()
        if self.covariance == "diag":
            return moved / factor
        solved: Tensor = torch.linalg.solve_triangular(factor, moved.T, upper=False)
        return solved.T


@dataclass(frozen=True)
class TiedGaussians:
    """Gaussians of one shape, as `tied_gaussians` fits them.

    Attributes
    ----------
    means : (K, D) float64
    factor : (D, D) or (D,) float64
        L, lower triangular, or its diagonal.
    populated : (K,) bool
        Which classes have features at all.
    """

    means: Tensor
    factor: Tensor
    populated: Tensor


def tied_gaussians(
    features: Tensor, labels: Tensor, n_classes: int, *, covariance: Covariance, ridge: float
) -> TiedGaussians:
    r"""Return the classes' means, and L such that the mean of -h_y over these features is 1.

    :math:`L L^T = c^2 (S + \epsilon I)`, with S the covariance within classes,
    :math:`\epsilon` = `ridge` * trace(S) / D, and :math:`c^2 = tr((S + \epsilon I)^{-1} S)`. With
    many more features than D that is the :math:`\sqrt D\, chol(S)` of a well-conditioned S; with
    fewer, S has fewer than D directions, which c takes into account.

    Parameters
    ----------
    features : (N, D) float
    labels : (N,) int64
    n_classes : int
        K. A class without features gets the mean of all of them.
    covariance : "full" or "diag"
        ``diag`` takes the diagonal of S for S.
    ridge : float
        Above 0.

    Raises
    ------
    RecipeError
        The features do not vary within the classes, or are not finite.
    """
    values, labels = features.detach().cpu().double(), labels.cpu()
    counts = torch.bincount(labels, minlength=n_classes)
    sums = values.new_zeros(n_classes, values.shape[1]).index_add_(0, labels, values)
    means = sums / counts.clamp(min=1).unsqueeze(1)
    means[counts == 0] = values.mean(dim=0)
    within = _within(values, labels, means, covariance=covariance)
    trace = within.sum() if covariance == "diag" else within.trace()
    if not (torch.isfinite(trace) and trace > 0):
        raise RecipeError(
            f"the variance of the features within the classes is `{float(trace)}`, so no Gaussian "
            "head can start from them; give each class several different images, or pretrain "
            "longer"
        )
    epsilon = ridge * trace / values.shape[1]
    if covariance == "diag":
        variance = within + epsilon
        factor = torch.sqrt((within / variance).sum() * variance)
    else:
        root = torch.linalg.cholesky(within + epsilon * torch.eye(len(within), dtype=torch.float64))
        factor = torch.sqrt(torch.cholesky_solve(within, root).trace()) * root
    return TiedGaussians(means, factor, counts > 0)


def _within(values: Tensor, labels: Tensor, means: Tensor, *, covariance: Covariance) -> Tensor:
    """Return the covariance within classes, (D, D), or its diagonal, (D,)."""
    size = values.shape[1]
    total = values.new_zeros(size if covariance == "diag" else (size, size))
    # In parts, so that the differences of a large data set are never all in memory.
    for rows, classes in zip(torch.split(values, 4096), torch.split(labels, 4096), strict=True):
        centred = rows - means[classes]
        total += centred.square().sum(dim=0) if covariance == "diag" else centred.T @ centred
    return total / len(values)


def _distances(rows: Tensor, means: Tensor) -> Tensor:
    """Return minus the squared distances, (N, K), of whitened rows (N, D) to means (K, D)."""
    return -(rows.unsqueeze(1) - means).square().sum(dim=2)


def _below(h: Tensor, populated: Tensor) -> Tensor:
    """Return h, (N, K), with the columns of classes without images far below all others.

    No constant alone would do, since an image may be any distance away from all classes.
    """
    lowest = 2 * h.amin(dim=1, keepdim=True) - _MARGIN
    return torch.where(populated, h, lowest)
