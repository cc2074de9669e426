"""Energy-bounded exposure: low energies on images, high ones on outliers, between two margins."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.methods.losses import cross_entropy, energy, hinge_above, hinge_below
from train.methods.method import Draw, Method, TrainingBatch
from train.methods.oe import ExposureSettings, exposed_logits
from train.networks.classifier import Classifier

PUBLISHED_M_OUT = -5.0
"""The margin of outliers in most published settings, all with fewer than 149 classes."""


class EnergyOeSettings(ExposureSettings):
    """Energy-bounded exposure: squared hinges on the energies of images and outliers."""

    source: ClassVar[str] = "Liu et al., 2020 (arXiv 2010.03759)"

    name: Literal["energy_oe"] = "energy_oe"
    weight: float = Field(default=0.1, ge=0)
    """Weight of the two hinges (the paper's lambda)."""
    m_in: float = -15.0
    """Energy above which images are penalised. Set it a little below the mean energy of images in
    the pretrained model (minus the ``energy`` score, logged as ``energy_in``): margins far from
    there cost accuracy. Published: -15 on fine-grained classes, -13 on cars, -23 on CIFAR-10, -27
    on CIFAR-100 and ImageNet subsets."""
    m_out: float | None = None
    """Energy below which outliers are penalised: above `m_in`, and at most minus the logarithm of
    the number of classes, the energy of logits that are all 0. Without this key the lower of -5,
    which most published settings have, and that logarithm."""

    @model_validator(mode="after")
    def _margins_are_apart(self) -> Self:
        if self.m_out is not None and self.m_in >= self.m_out:
            raise ValueError(
                f"`m_in` = {self.m_in:g} is not below `m_out` = {self.m_out:g}; "
                "images must get the lower energies"
            )
        return self


class EnergyOe(Method):
    r"""Energy-bounded exposure: low energies on images, high ones on outliers.

    :math:`CE(f(x), y) + w\,(h_{in} + h_{out})` with the energy
    :math:`E(x) = -\log \sum_k e^{f_k(x)}`,
    :math:`h_{in}` the mean over images of :math:`\max(0, E(x) - m_{in})^2` and
    :math:`h_{out}` the mean over outliers of :math:`\max(0, m_{out} - E(x_{out}))^2`.

    Notes
    -----
    Logits that are all 0 have energy :math:`-\ln K`: -4.61 for 100 classes, -5.30 for 200. A margin
    `m_out` above that penalises an outlier even where the model knows nothing and says so, until
    all its logits are negative. Such a margin is refused when the number of classes is known, and
    the default lies no higher.

    References
    ----------
    Energy-based detection (arXiv 2010.03759), section 3.3. Its text exchanges the ranges of
    the two margins; its code, and this, have `m_in` below `m_out`.
    """

    def __init__(self, settings: EnergyOeSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def attach(self, model: Classifier) -> None:
        """Check the margins against the number of classes; nothing is added to the model.

        Raises
        ------
        RecipeError
            `m_out` is above the energy of zero logits, or `m_in` is not below `m_out`.
        """
        flat, m_in = -math.log(model.n_classes), self.settings.m_in
        m_out = self.outlier_margin(model.n_classes)
        if m_out > flat:
            raise RecipeError(
                f"`method.m_out` = {m_out:g} is above {flat:.4g}, the energy of {model.n_classes} "
                "logits that are all 0, so that even they would be penalised; "
                f"set it to {math.floor(10 * flat) / 10:g} or less, or leave it out"
            )
        if m_in >= m_out:
            raise RecipeError(
                f"`method.m_in` = {m_in:g} is not below the margin of outliers, {m_out:g}; "
                "set a lower `method.m_in`"
            )

    def outlier_margin(self, n_classes: int) -> float:
        """Return `m_out`, or what stands for it with so many classes."""
        if self.settings.m_out is not None:
            return self.settings.m_out
        return min(PUBLISHED_M_OUT, -math.log(n_classes))

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy``, the two hinges, and the mean energies."""
        settings = self.settings
        inside, outside = exposed_logits(model, batch, settings=settings)
        energy_in, energy_out = energy(inside), energy(outside)
        clean = cross_entropy(inside, batch.labels)
        hinge_in = hinge_above(energy_in, margin=settings.m_in)
        hinge_out = hinge_below(energy_out, margin=self.outlier_margin(outside.shape[1]))
        return {
            "loss": clean + settings.weight * (hinge_in + hinge_out),
            "cross_entropy": clean,
            "hinge_in": hinge_in,
            "hinge_out": hinge_out,
            "energy_in": energy_in.mean(),
            "energy_out": energy_out.mean(),
        }
