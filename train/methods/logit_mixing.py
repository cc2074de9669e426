"""Logit mixing: mixup whose logits must equal the mixed logits of its two images."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from train.methods.losses import Distance, consistency, cross_entropy, soft_cross_entropy
from train.methods.method import Draw, Method, TrainingBatch
from train.methods.mixing import CoefficientSettings, mix_rows
from train.methods.pairing import Pairs, pairs_for
from train.methods.passes import joint_logits


class LogitMixingSettings(CoefficientSettings):
    """Logit mixing training: mixup with consistent logits, without outliers."""

    source: ClassVar[str] = "Bang et al., 2022 (IJCAI 2022, pages 2812 to 2819)"

    name: Literal["logit_mixing"] = "logit_mixing"
    mix_alpha: float = Field(default=3.0, gt=0)
    """Both parameters of the Beta distribution of the mixing coefficient; the first one where
    `mix_beta_shape` is stated."""
    mix_weight: float = Field(default=1.0, ge=0)
    """Weight of the soft cross-entropy on mixed images."""
    clean_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy on the images themselves."""
    consistency: Distance = "mse"
    """Distance between mixed logits and logits of mixed images: ``mse`` is the mean square over
    batch and classes, ``l2`` the mean over the batch of the norm."""
    consistency_weight: float = Field(default=1.0, ge=0)
    """Weight of that distance; the authors take 0.1 with ``cutmix``."""


class LogitMixing(Method):
    r"""Logit mixing: mixup, and the mixed images' logits must be the mixed logits.

    :math:`CE(f(\tilde x), \tilde y) + CE(f(x), y) + \ell_{sim}`, each with its weight, and
    :math:`\tilde x`, :math:`\tilde y` as in mixup and :math:`\ell_{sim}` the distance between
    :math:`\lambda f(x_i) + (1 - \lambda) f(x_j)` and :math:`f(\tilde x)`.

    Notes
    -----
    One lambda serves images, labels and logits, and no side of the distance is held constant.
    Images and mixed images pass the model as one batch. On several processes the partners' logits
    must be of this one, for gradients to reach them, so that the partners pass as well: 3 B images
    there, where one process needs 2 B. The objective is the same, but BatchNorm sees other batches.

    References
    ----------
    Bang et al., Logit Mixing Training for More Reliable and Accurate Prediction, IJCAI 2022; the
    distance is called an L2 norm there and is a mean square in the authors' code.
    """

    def __init__(self, settings: LogitMixingSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy``, ``mixed`` and ``consistency``."""
        pairs = pairs_for(batch, draw, settings=self.settings)
        return self.terms(model, batch, pairs, elsewhere=draw.processes > 1)

    def terms(
        self, model: nn.Module, batch: TrainingBatch, pairs: Pairs, *, elsewhere: bool = False
    ) -> dict[str, Tensor]:
        """Return the terms of `objective` for given pairs; `elsewhere`: partners may be, too."""
        mixed = pairs.mixed(batch.images)
        if elsewhere:
            own, other, after = joint_logits(model, batch.images, pairs.images, mixed)
        else:
            own, after = joint_logits(model, batch.images, mixed)
            other = own[pairs.permutation.to(own.device)]
        between = mix_rows(own, other, pairs.mixture)
        clean = cross_entropy(own, batch.labels)
        soft = soft_cross_entropy(after, pairs.targets(batch.labels, like=after))
        similarity = consistency(between, after, distance=self.settings.consistency)
        loss = self.settings.clean_weight * clean + self.settings.mix_weight * soft
        return {
            "loss": loss + self.settings.consistency_weight * similarity,
            "cross_entropy": clean,
            "mixed": soft,
            "consistency": similarity,
        }
