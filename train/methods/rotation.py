"""Rotation prediction as a second task."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.methods.losses import cross_entropy
from train.methods.method import Draw, Method, Settings, TrainingBatch
from train.methods.passes import joint_outputs, unwrapped
from train.networks.classifier import Classifier

HEAD = "rotation"
"""Name of the rotation head among the model's auxiliary ones."""

TURNS = 4
"""Rotations by 0, 90, 180 and 270 degrees, counter-clockwise."""


class RotationSettings(Settings):
    """Cross-entropy, and telling by how many quarters an image was turned; see score `rotation`."""

    source: ClassVar[str] = "Hendrycks et al., 2019 (arXiv 1906.12340)"

    name: Literal["rotation"] = "rotation"
    weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy on the rotation."""


class Rotation(Method):
    r"""Rotation: :math:`CE(f(x), y) + w\, \frac14 \sum_r CE(g(R_r x), r)`, g a second head.

    All four rotations of the batch pass the model as one batch of 4 B. The classes are learned from
    the upright images alone; the rotation head sees the features before any normalisation.

    References
    ----------
    Hendrycks et al., 2019 (arXiv 1906.12340), section 4.
    """

    def __init__(self, settings: RotationSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def attach(self, model: Classifier) -> None:
        """Add the rotation head."""
        model.auxiliary[HEAD] = nn.Linear(model.n_features, TURNS)

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy``, ``rotation`` and the share of rotations told right.

        Raises
        ------
        RecipeError
            The images are not square.
        """
        turned = rotations(batch.images)
        outputs = joint_outputs(model, *turned)
        clean = cross_entropy(outputs[0][1], batch.labels)
        features = torch.cat([features for features, _ in outputs])
        truth = torch.arange(TURNS, device=features.device).repeat_interleave(len(batch.images))
        guesses = unwrapped(model).auxiliary[HEAD](features)
        rotation = cross_entropy(guesses, truth)
        return {
            "loss": clean + self.settings.weight * rotation,
            "cross_entropy": clean,
            "rotation": rotation,
            "rotation_accuracy": (guesses.argmax(dim=1) == truth).to(rotation.dtype).mean(),
        }


def rotations(images: Tensor) -> list[Tensor]:
    """Return the images, (N, C, H, H), turned by 0, 90, 180 and 270 degrees counter-clockwise.

    Raises
    ------
    RecipeError
        They are not square.
    """
    height, width = images.shape[2:]
    if height != width:
        raise RecipeError(
            f"method `rotation` turns images by 90 degrees, but they are `{height}` x `{width}`; "
            "set `input.height` and `input.width` to the same number"
        )
    return [torch.rot90(images, turns, dims=(2, 3)) for turns in range(TURNS)]
