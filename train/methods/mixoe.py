"""MixOE: soft cross-entropy on images mixed with outliers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from train.methods.losses import (
    consistency,
    cross_entropy,
    soft_cross_entropy,
    uniform_cross_entropy,
)
from train.methods.method import Draw, Method, TrainingBatch, outliers_of
from train.methods.mixing import (
    CoefficientSettings,
    MixingSettings,
    Mixture,
    mix_images,
    mix_rows,
    mixture_for,
    soft_targets,
)
from train.methods.oe import ForwardMode
from train.methods.pairing import Pairs, pairs_for
from train.methods.passes import joint_logits, separate_logits


class MixoeSettings(MixingSettings):
    """MixOE: soft labels on images mixed with outliers; the defaults are its authors' code's."""

    source: ClassVar[str] = "Zhang et al., 2021 (arXiv 2106.03917)"

    name: Literal["mixoe"] = "mixoe"
    forward_mode: ForwardMode = "separate"
    """Whether clean and mixed images pass the model one after the other, or as one batch.
    With a consistency term only ``joint`` makes sense, and is then the default."""
    pair_weight: float = Field(default=0.0, ge=0)
    """Weight of the cross-entropy on images mixed with each other (the preprint's beta_in-in). A
    term of weight 0, whichever of the three, is left out and costs no pass of the model."""
    pair_alpha: float = Field(default=1.0, gt=0)
    """Both parameters of the Beta distribution by which images are mixed with each other (the
    preprint's alpha_in-in)."""
    outlier_weight: float = Field(default=0.0, ge=0)
    """Weight of the outliers' own cross-entropy to the uniform distribution (the preprint's
    beta_out)."""

    @property
    def pair_settings(self) -> CoefficientSettings:
        """How images are mixed with each other."""
        return CoefficientSettings(
            mix_alpha=self.pair_alpha, operation=self.operation, lam_per=self.lam_per
        )

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
    r"""MixOE: cross-entropy on images, and on images mixed with outliers, whose labels fade.

    :math:`CE(f(x), y) + \beta\, CE(f(\tilde x), \tilde y)` with
    :math:`\tilde x = \lambda x + (1 - \lambda) x_{out}` and
    :math:`\tilde y = \lambda y + (1 - \lambda) / K`. The preprint's full objective has two more
    terms, each with its weight and off by default: mixup of the images with each other, and the
    cross-entropy of unmixed outliers to the uniform distribution.

    Notes
    -----
    The outliers themselves pass the model only where their own term is on, or where a consistency
    term, added as in Logit MixOE, needs their logits. In the preprint's Table 2 the objective
    without the two further terms did about as well on held-out classes as any, and the outliers'
    own term did harm there.

    References
    ----------
    MixOE (arXiv 2106.03917), equation 3, and 2 with all four terms; with consistency: Logit MixOE
    (arXiv 2509.11892), equations 12 and 15.
    """

    def __init__(self, settings: MixoeSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy`` and each further term that is on.

        These are ``mixed``, ``pairs``, ``uniform`` and ``consistency``.
        """
        mixture = mixture_for(batch.images, draw, settings=self.settings)
        pairs = None
        if self.settings.pair_weight > 0:
            pairs = pairs_for(batch, draw, settings=self.settings.pair_settings)
        return self.terms(model, batch, mixture, pairs)

    def terms(
        self, model: nn.Module, batch: TrainingBatch, mixture: Mixture, pairs: Pairs | None = None
    ) -> dict[str, Tensor]:
        """Return the terms of `objective` for a given mixture and, with `pair_weight`, pairs."""
        settings = self.settings
        logits = self._logits(model, batch, mixture, pairs)
        labels, inside = batch.labels, logits["images"]
        terms = {"cross_entropy": cross_entropy(inside, labels)}
        weights = {}
        if settings.mix_weight > 0:
            targets = soft_targets(labels, mixture, like=logits["mixed"])
            terms["mixed"] = soft_cross_entropy(logits["mixed"], targets)
            weights["mixed"] = settings.mix_weight
        if pairs is not None:
            targets = pairs.targets(labels, like=logits["pairs"])
            terms["pairs"] = soft_cross_entropy(logits["pairs"], targets)
            weights["pairs"] = settings.pair_weight
        if settings.outlier_weight > 0:
            terms["uniform"] = uniform_cross_entropy(logits["outliers"]).mean()
            weights["uniform"] = settings.outlier_weight
        if settings.consistency != "none":
            between = mix_rows(inside, logits["outliers"], mixture)
            kind = settings.consistency
            terms["consistency"] = consistency(between, logits["mixed"], distance=kind)
            weights["consistency"] = settings.consistency_weight
        loss = terms["cross_entropy"]
        for name, weight in weights.items():
            loss = loss + weight * terms[name]
        return {"loss": loss, **terms}

    def _logits(
        self, model: nn.Module, batch: TrainingBatch, mixture: Mixture, pairs: Pairs | None
    ) -> dict[str, Tensor]:
        """Return the logits of whatever the settings' terms need, by name."""
        settings = self.settings
        outliers = outliers_of(batch, settings=settings)
        consistent = settings.consistency != "none"
        groups = {"images": batch.images}
        if settings.outlier_weight > 0 or consistent:
            groups["outliers"] = outliers
        if settings.mix_weight > 0 or consistent:
            groups["mixed"] = mix_images(batch.images, outliers, mixture)
        if pairs is not None:
            groups["pairs"] = pairs.mixed(batch.images)
        passes = joint_logits if settings.forward_mode == "joint" else separate_logits
        return dict(zip(groups, passes(model, *groups.values()), strict=True))
