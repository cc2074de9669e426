"""ASCOOD: uncertainty on outliers that are made from the training images themselves."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.methods.losses import cross_entropy, uniform_divergence
from train.methods.method import Draw, Method, Settings, TrainingBatch
from train.methods.passes import frozen_statistics, joint_logits, separate_logits, unwrapped
from train.methods.synthesis.batches import perturbation
from train.methods.synthesis.gradient import true_class
from train.methods.synthesis.settings import SynthesisSettings, outliers_by_gradient, synthesise
from train.networks.classifier import Classifier

ENERGY = "energy"
"""Name, among the model's auxiliary heads, of the one that tells energies apart."""

ENERGY_UNITS = 512
"""Width of that head's hidden layer."""


class AscoodSettings(Settings, SynthesisSettings):
    """Uncertainty on outliers made from the training images; the defaults are for aircraft."""

    source: ClassVar[str] = "Regmi, 2024 (arXiv 2411.10794)"

    name: Literal["ascood"] = "ascood"
    weight: float = Field(default=1.0, ge=0)
    """Weight of the outliers' term (the paper's lambda)."""
    loss: Literal["kl", "energy"] = "kl"
    """The outliers' term: ``kl`` is the divergence of their probabilities from uniform; ``energy``
    the cross-entropy of telling images from outliers by their energy, through a small network."""
    share_forward: bool = False
    """Whether the images' pass for the loss also gives the gradient that outliers are made by. The
    gradient is then that of ``gradient_mode = "train"``, and images and outliers no longer pass as
    one batch. It is one pass less but hardly faster: on a CPU (ResNet-18, 64 pixels, 32 images) a
    step costs about 2.5 plain ones either way. Not under mixed precision, and not for
    ``kind = "gaussian"``, which takes no gradient."""

    @model_validator(mode="before")
    @classmethod
    def _a_shared_pass_is_in_train_mode(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("share_forward") is True:
            return {"gradient_mode": "train", **data}
        return data

    @model_validator(mode="after")
    def _a_pass_can_be_shared(self) -> Self:
        if self.share_forward and self.gradient_mode == "eval":
            raise ValueError(
                "`share_forward` takes the gradient of a pass in train mode; set "
                '`gradient_mode = "train"` or leave it out'
            )
        if self.share_forward and self.kind == "gaussian":
            raise ValueError(
                '`share_forward` shares a gradient, and `kind = "gaussian"` takes none; '
                "set `share_forward = false`"
            )
        return self


class Ascood(Method):
    r"""ASCOOD: :math:`CE(f(x), y) + w\, KL(U \| p(x'))`, x' made from x by its gradient.

    Images and outliers pass the model as one batch. With ``share_forward`` the images pass alone,
    in train mode, and the outliers after them: BatchNorm normalises each by its own statistics, and
    its running ones are those of the images, since the outliers' pass does not update them.

    The authors standardise the features (``model.feature_norm = "zscore"``), which bounds their
    norm and with it the confidence.

    References
    ----------
    ASCOOD (arXiv 2411.10794), section 3, equation 5; see `uniform_divergence` for the direction of
    the divergence. The energy loss is that of its ablation.
    """

    def __init__(self, settings: AscoodSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def attach(self, model: Classifier) -> None:
        """Add the head that tells energies apart, where the loss needs it."""
        if self.settings.loss == "energy":
            model.auxiliary[ENERGY] = nn.Sequential(
                nn.Linear(1, ENERGY_UNITS), nn.ReLU(), nn.Linear(ENERGY_UNITS, 2)
            )

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy``, the outliers' term and how large the change was.

        That term is ``uniform`` or ``energy``; for the change, see `perturbation`.

        Raises
        ------
        RecipeError
            The pass is to be shared under mixed precision, or `p_inv` is too little.
        """
        settings = self.settings
        if settings.share_forward:
            inside, outside, outliers = self._shared(model, batch, draw)
        else:
            outliers = synthesise(model, batch.images, batch.labels, settings=settings, draw=draw)
            inside, outside = joint_logits(model, batch.images, outliers)
        clean = cross_entropy(inside, batch.labels)
        if settings.loss == "energy":
            name, term = "energy", energy_loss(unwrapped(model).auxiliary[ENERGY], inside, outside)
        else:
            name, term = "uniform", uniform_divergence(outside)
        return {
            "loss": clean + settings.weight * term,
            "cross_entropy": clean,
            name: term,
            **perturbation(batch.images, outliers, settings=settings),
        }

    def _shared(
        self, model: nn.Module, batch: TrainingBatch, draw: Draw
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the images' logits, the outliers', and the outliers, from two passes."""
        images = batch.images.detach().requires_grad_()
        (inside,) = separate_logits(model, images)
        target = true_class(inside, batch.labels, target=self.settings.target)
        try:
            (gradient,) = torch.autograd.grad(target, images, retain_graph=True)
        except RuntimeError as error:
            if "fabric.backward" not in str(error):
                raise
            raise RecipeError(
                "`method.share_forward` = true takes a gradient within the step, which mixed "
                'precision refuses; set `precision` to "32-true" or `method.share_forward` to false'
            ) from error
        outliers = outliers_by_gradient(batch.images, gradient, settings=self.settings, draw=draw)
        with frozen_statistics(model):
            (outside,) = separate_logits(model, outliers)
        return inside, outside, outliers


def energy_loss(head: nn.Module, inside: Tensor, outside: Tensor) -> Tensor:
    r"""Return the cross-entropy of telling images (1) from outliers (0) by :math:`\log\sum e^z`.

    Parameters
    ----------
    head : nn.Module
        (N, 1) to (N, 2).
    inside, outside : (B, K), (B', K) float
        Logits of images and of outliers.

    Returns
    -------
    () float
        The mean over all B + B'.
    """
    energies = torch.logsumexp(torch.cat([inside, outside]), dim=1, keepdim=True)
    truth = torch.zeros(len(energies), dtype=torch.int64, device=energies.device)
    truth[: len(inside)] = 1
    return cross_entropy(head(energies), truth)
