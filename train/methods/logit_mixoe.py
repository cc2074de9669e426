"""Logit MixOE: soft cross-entropy on logits mixed with outliers' logits, kept consistent."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from train.methods.losses import consistency, cross_entropy, soft_cross_entropy
from train.methods.method import Draw, Method, TrainingBatch, outliers_of
from train.methods.mixing import (
    Consistency,
    MixingSettings,
    Mixture,
    mix_images,
    mix_rows,
    mixture_for,
    soft_targets,
)
from train.methods.passes import joint_logits


class LogitMixoeSettings(MixingSettings):
    """Logit MixOE: soft labels on logits mixed with outliers' logits, kept consistent."""

    source: ClassVar[str] = "Shinohara, Fukuda and Aizawa, 2025 (arXiv 2509.11892)"

    name: Literal["logit_mixoe"] = "logit_mixoe"
    consistency: Consistency = "l2"
    """Distance between mixed logits and logits of mixed images, added to the loss."""


class LogitMixoe(Method):
    r"""Logit MixOE: as MixOE, with logits mixed after the network and kept consistent.

    :math:`CE(f(x), y) + \beta\, CE(\tilde f, \tilde y) + \ell_{sim}` with
    :math:`\tilde f = \lambda f(x) + (1 - \lambda) f(x_{out})`,
    :math:`\tilde y = \lambda y + (1 - \lambda) / K` and
    :math:`\ell_{sim} = \| \tilde f - f(\lambda x + (1 - \lambda) x_{out}) \|_2`.

    Notes
    -----
    The paper leaves open, and this class decides:

    - One lambda serves images, logits and labels. Two independent ones could only agree by making
      the logits of outliers equal to those of the classes.
    - Clean images, outliers and mixed images pass the model as one batch. In passes of their own
      BatchNorm would normalise them differently, an inconsistency that no weights remove. They do
      so with `consistency` off as well, so that switching it changes the loss and nothing else.
    - No side of the consistency term is held constant.

    References
    ----------
    Logit MixOE (arXiv 2509.11892), equations 10, 11 and 13 to 16.
    """

    def __init__(self, settings: LogitMixoeSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy``, ``mixed`` and, if it is on, ``consistency``."""
        mixture = mixture_for(batch.images, draw, settings=self.settings)
        return self.terms(model, batch, mixture)

    def terms(self, model: nn.Module, batch: TrainingBatch, mixture: Mixture) -> dict[str, Tensor]:
        """Return the terms of `objective` for a given mixture."""
        outliers = outliers_of(batch, settings=self.settings)
        mixed = mix_images(batch.images, outliers, mixture)
        inside, outside, after = joint_logits(model, batch.images, outliers, mixed)
        between = mix_rows(inside, outside, mixture)
        clean = cross_entropy(inside, batch.labels)
        soft = soft_cross_entropy(between, soft_targets(batch.labels, mixture, like=between))
        loss = clean + self.settings.mix_weight * soft
        terms = {"loss": loss, "cross_entropy": clean, "mixed": soft}
        if self.settings.consistency == "none":
            return terms
        similarity = consistency(between, after, distance=self.settings.consistency)
        loss = loss + self.settings.consistency_weight * similarity
        return {**terms, "loss": loss, "consistency": similarity}
