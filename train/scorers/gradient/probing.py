"""A classifier as something to differentiate: the gradient at its logits, pulled back to images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.networks.classifier import Classifier
from train.networks.norms import FeatureNorm
from train.precision import full_precision
from train.scorers.gradient.reverse import Reverse


@dataclass(frozen=True)
class Probe:
    """One pass of a classifier over images, and the way back.

    Attributes
    ----------
    features : (N, D) float
    logits : (N, K) float
    pull_back : callable
        Gradients with respect to the logits, (N, K), to gradients with respect to the normalised
        images, (N, 3, H, W); each row its own.
    """

    features: Tensor
    logits: Tensor
    pull_back: Callable[[Tensor], Tensor]


class Probing:
    """A classifier that can be probed. It holds the model, does not copy it and adds no weights.

    Parameters
    ----------
    model : Classifier
        In eval mode whenever it is probed.

    Raises
    ------
    RecipeError
        The model has a part through which the gradient cannot be written out.
    """

    def __init__(self, model: Classifier) -> None:
        if not isinstance(model.head, nn.Linear):
            raise RecipeError(
                "a score that follows the gradient to the image needs a linear head, but the model "
                f"has a `{type(model.head).__name__}`; choose another score"
            )
        self._model, self._head = model, model.head
        self._reverse = Reverse(model.backbone)

    def probe(self, images: Tensor) -> Probe:
        """Run the classifier on normalised images, (N, 3, H, W)."""
        passed, model = self._reverse.run(images), self._model
        features = passed.output

        def pull_back(gradient: Tensor) -> Tensor:
            inner = gradient @ self._head.weight
            return passed.pull_back(
                before_norm(inner, features, model.feature_norm, sigma=model.sigma)
            )

        return Probe(features, model.logits_from(features), pull_back)


def before_norm(gradient: Tensor, features: Tensor, norm: FeatureNorm, *, sigma: float) -> Tensor:
    r"""Return the gradient with respect to the features, from that after their normalisation.

    With c the features, less their mean for ``zscore``, and
    :math:`\tau = \sqrt{\|c\|^2 / (D - 1) + 10^{-6}}`, the normalised features are
    :math:`\sigma c / \tau` and a gradient g becomes
    :math:`\frac{\sigma}{\tau} \left(g - c \frac{g \cdot c}{(D - 1) \tau^2}\right)`, less its mean
    for ``zscore``.

    Parameters
    ----------
    gradient, features : (N, D) float
        After and before `train.networks.norms.normalise_features`.
    norm, sigma
        As there.
    """
    if norm == "none":
        return gradient
    values, outer = full_precision(features), full_precision(gradient)
    if norm == "zscore":
        values = values - values.mean(dim=1, keepdim=True)
    last = values.shape[1] - 1
    variance = values.square().sum(dim=1, keepdim=True) / last + 1e-6
    along = (outer * values).sum(dim=1, keepdim=True) / (last * variance)
    inner = sigma / variance.sqrt() * (outer - values * along)
    if norm == "zscore":
        inner = inner - inner.mean(dim=1, keepdim=True)
    return inner
