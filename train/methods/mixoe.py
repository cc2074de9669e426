"""MixOE: soft cross-entropy on images mixed with outliers."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator
from torch import Tensor, nn

from train.methods.losses import consistency, cross_entropy, soft_cross_entropy
from train.methods.method import Draw, Method, TrainingBatch, outliers_of
from train.methods.mixing import (
    MixingSettings,
    Mixture,
    mix_images,
    mix_rows,
    mixture_for,
    soft_targets,
)
from train.methods.passes import joint_logits, separate_logits


class MixoeSettings(MixingSettings):
    """MixOE's knobs; the defaults are those of its authors' code."""

    name: Literal["mixoe"] = "mixoe"
    forward_mode: Literal["separate", "joint"] = "separate"
    """Whether clean and mixed images pass the model one after the other, or as one batch.
    With a consistency term only ``joint`` makes sense, and is then the default."""

    @model_validator(mode="before")
    @classmethod
    def _join_for_consistency(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("consistency", "none") != "none":
            return {"forward_mode": "joint", **data}
        return data

    @model_validator(mode="after")
    def _consistency_is_joint(self) -> Self:
        if self.consistency != "none" and self.forward_mode == "separate":
            raise ValueError(
                f'`consistency = "{self.consistency}"` compares logits, which BatchNorm must have '
                'normalised alike; set `forward_mode = "joint"`'
            )
        return self


class Mixoe(Method):
    r"""MixOE: :math:`CE(f(x), y) + \beta\, CE(f(\tilde x), \tilde y)`.

    With :math:`\tilde x = \lambda x + (1 - \lambda) x_{out}` and
    :math:`\tilde y = \lambda y + (1 - \lambda) / K`. The outliers themselves never pass the model,
    unless a consistency term needs their logits; then clean images, outliers and mixed images pass
    as one batch, and the term is added as in Logit MixOE.

    References
    ----------
    MixOE (arXiv 2106.03917), equation 3; with consistency: Logit MixOE (arXiv 2509.11892),
    equations 12 and 15.
    """

    def __init__(self, settings: MixoeSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.forwards = 2 if settings.forward_mode == "separate" else 1

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy``, ``mixed`` and, if it is on, ``consistency``."""
        mixture = mixture_for(batch.images, draw, settings=self.settings)
        return self.terms(model, batch, mixture)

    def terms(self, model: nn.Module, batch: TrainingBatch, mixture: Mixture) -> dict[str, Tensor]:
        """Return the terms of `objective` for a given mixture."""
        outliers = outliers_of(batch, settings=self.settings)
        mixed = mix_images(batch.images, outliers, mixture)
        if self.settings.consistency != "none":
            inside, outside, after = joint_logits(model, batch.images, outliers, mixed)
            similarity = consistency(
                mix_rows(inside, outside, mixture), after, distance=self.settings.consistency
            )
            terms = self._classification(inside, after, batch.labels, mixture)
            loss = terms["loss"] + self.settings.consistency_weight * similarity
            return {**terms, "loss": loss, "consistency": similarity}
        passes = joint_logits if self.settings.forward_mode == "joint" else separate_logits
        inside, after = passes(model, batch.images, mixed)
        return self._classification(inside, after, batch.labels, mixture)

    def _classification(
        self, inside: Tensor, after: Tensor, labels: Tensor, mixture: Mixture
    ) -> dict[str, Tensor]:
        clean = cross_entropy(inside, labels)
        soft = soft_cross_entropy(after, soft_targets(labels, mixture, like=after))
        loss = clean + self.settings.mix_weight * soft
        return {"loss": loss, "cross_entropy": clean, "mixed": soft}
