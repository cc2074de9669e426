"""Mixup: soft cross-entropy on images that are mixed with each other."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from train.methods.losses import soft_cross_entropy
from train.methods.method import Draw, Method, TrainingBatch
from train.methods.mixing import CoefficientSettings
from train.methods.pairing import Pairs, pairs_for
from train.precision import full_precision


class MixupSettings(CoefficientSettings):
    """Mixup or CutMix of training images with each other, without outliers."""

    source: ClassVar[str] = "Zhang et al., 2018 (arXiv 1710.09412)"

    name: Literal["mixup"] = "mixup"


class Mixup(Method):
    r"""Mixup: cross-entropy on images that are mixed with each other, and so are their labels.

    :math:`CE(f(\tilde x), \tilde y)` with :math:`\tilde x = \lambda x_i + (1 - \lambda) x_j` and
    :math:`\tilde y = \lambda y_i + (1 - \lambda) y_j`, j a random permutation of the batch. As
    cross-entropy is linear in its target, this is the sum of the two labels' losses, weighted by
    lambda and 1 - lambda. The unmixed images do not pass the model.

    References
    ----------
    Mixup (arXiv 1710.09412), section 2: Beta(1, 1) on CIFAR, 0.1 to 0.4 on ImageNet. With
    ``cutmix``: CutMix (arXiv 1905.04899), section 3.1.
    """

    def __init__(self, settings: MixupSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``."""
        return self.terms(model, batch, pairs_for(batch, draw, settings=self.settings))

    def terms(self, model: nn.Module, batch: TrainingBatch, pairs: Pairs) -> dict[str, Tensor]:
        """Return the terms of `objective` for given pairs."""
        logits = full_precision(model(pairs.mixed(batch.images)))
        return {"loss": soft_cross_entropy(logits, pairs.targets(batch.labels, like=logits))}
