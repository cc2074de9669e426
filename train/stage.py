"""One stage of training: its loaders, its optimizer, its steps and its checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train import checkpoint
from train.data.augment import build_augmentation
from train.data.folders import Splits
from train.data.loading import Batch, BatchLoader, EndlessLoader
from train.draw import Draw
from train.methods.method import Method, TrainingBatch
from train.methods.synthesis.settings import synthesise
from train.networks.classifier import Classifier
from train.recipes import Recipe, StageRecipe
from train.run import CHECKPOINTS, METRICS
from train.schedule import cosine


@dataclass(frozen=True)
class Stage:
    """One of the two parts of training."""

    name: str
    settings: StageRecipe
    method: Method


@dataclass
class Position:
    """How far training is; everything random is a function of this, the recipe and saved states."""

    stage: int = 0
    epoch: int = 0
    """Whole epochs done in this stage."""
    step: int = 0
    """Steps done in this epoch."""
    sums: dict[str, float] = field(default_factory=dict)
    """Loss terms summed over this epoch's steps."""


@dataclass
class Training:
    """Everything of a run that changes as it goes on, and what it goes on with."""

    recipe: Recipe
    folder: Path
    splits: Splits
    fabric: Fabric
    model: Classifier
    position: Position
    rng: np.random.Generator
    """For single numbers: mixing coefficients, boxes."""
    torch_generator: torch.Generator
    """For tensors; on the CPU."""


class StageWork:
    """The loaders and the optimizer of one stage, and the steps they make."""

    def __init__(self, training: Training, stage: Stage) -> None:
        self.training = training
        self.stage = stage
        settings, splits = stage.settings, training.splits
        self.images = BatchLoader(
            splits.train, batch_size=settings.batch_size, drop_last=True, **self._loading("images")
        )
        self.steps_per_epoch = self.images.steps_per_epoch
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.outliers: EndlessLoader | None = None
        if stage.method.needs_outliers and splits.outliers is not None:
            size = settings.outlier_batch_size or settings.batch_size
            self.outliers = EndlessLoader(
                splits.outliers, batch_size=size, **self._loading("outliers")
            )
        model = training.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        groups = parameter_groups(model, settings)
        self.names = [name for group in groups for name in group.names]
        optimizer = torch.optim.SGD(
            [{"params": group.parameters, "weight_decay": group.weight_decay} for group in groups],
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
        )
        self.factors = [group.rate_factor for group in groups]
        self.model, self.optimizer = training.fabric.setup(model, optimizer)
        self.model.mark_forward_method("outputs")

    @property
    def steps_done(self) -> int:
        """Steps done in this stage."""
        position = self.training.position
        return position.epoch * self.steps_per_epoch + position.step

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of this stage."""
        settings = self.stage.settings
        return cosine(
            step,
            steps=self.total_steps,
            highest=settings.learning_rate,
            lowest=settings.min_learning_rate,
        )

    def steps(self, epoch: int) -> Iterator[float]:
        """Make what is left of an epoch's steps, yielding the loss of each."""
        position = self.training.position
        self.model.train()
        for batch in self.images.epoch(epoch, start_step=position.step):
            for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
                group["lr"] = factor * self.rate(self.steps_done)
            terms = self._step(batch)
            for name, value in terms.items():
                position.sums[name] = position.sums.get(name, 0.0) + value
            position.step += 1
            yield terms["loss"]

    def save(self) -> None:
        """Write the checkpoint that resuming goes on from."""
        training = self.training
        momentum = checkpoint.momentum_tensors(self.optimizer, self.names)
        states = training.model.state_dict()
        metrics = training.folder / METRICS
        checkpoint.save(
            training.folder / CHECKPOINTS,
            checkpoint.Checkpoint(
                tensors={
                    **{f"model.{name}": value for name, value in states.items()},
                    **{f"momentum.{name}": value for name, value in momentum.items()},
                    "torch_generator": training.torch_generator.get_state(),
                    "torch_rng": torch.get_rng_state(),
                },
                facts={
                    "data_fingerprint": training.splits.fingerprint,
                    "position": vars(training.position),
                    "rng": training.rng.bit_generator.state,
                    "outliers": self.outliers.state() if self.outliers else None,
                    "metrics_bytes": metrics.stat().st_size if metrics.exists() else 0,
                },
            ),
        )

    def restore(self, found: checkpoint.Checkpoint | None) -> None:
        """Take up the momentum and the outlier stream of a checkpoint."""
        if found is None:
            return
        momentum = part_of(found.tensors, "momentum.")
        checkpoint.restore_momentum(self.optimizer, self.names, momentum)
        if self.outliers and found.facts["outliers"] is not None:
            self.outliers.restore(found.facts["outliers"])

    def _step(self, batch: Batch) -> dict[str, float]:
        training, stage = self.training, self.stage
        epoch, epochs = training.position.epoch + 1, stage.settings.epochs
        draw = Draw(
            rng=training.rng,
            torch_generator=training.torch_generator,
            progress=self.steps_done / self.total_steps,
            epoch=epoch,
            epochs=epochs,
        )
        moved = self._batch(batch, draw)
        self.optimizer.zero_grad()
        terms = stage.method.objective(self.model, moved, draw)
        if not torch.isfinite(terms["loss"]):
            raise RecipeError(
                f"the loss became {terms['loss'].item()} in {stage.name} epoch {epoch}; lower "
                f"`{stage.name}.learning_rate` ({stage.settings.learning_rate:g}) or set "
                f"`{stage.name}.gradient_clip_norm`"
            )
        training.fabric.backward(terms["loss"])
        if stage.settings.gradient_clip_norm:
            training.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=stage.settings.gradient_clip_norm
            )
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in terms.items()}

    def _batch(self, batch: Batch, draw: Draw) -> TrainingBatch:
        """Return the step's images on the device, with outliers from wherever the recipe says."""
        images = self._move(batch.images)
        labels = self.training.fabric.to_device(batch.labels)
        outliers = None
        if self.outliers:
            outliers = self._move(self.outliers.next())
        elif self.stage.method.needs_outliers:
            outliers = synthesise(
                self.model, images, labels, settings=self.training.recipe.synthesis, draw=draw
            )
        return TrainingBatch(images=images, labels=labels, outliers=outliers)

    def _move(self, images: Tensor) -> Tensor:
        moved: Tensor = self.training.fabric.to_device(images)
        return moved.contiguous(memory_format=torch.channels_last)

    def _loading(self, what: str) -> dict[str, Any]:
        recipe = self.training.recipe
        return {
            "input": recipe.input.spec(),
            "augmentation": build_augmentation(recipe.augment, recipe.input),
            "seed": recipe.seed,
            "stream": f"{self.stage.name}.{what}",
            "workers": recipe.data.workers,
        }


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are optimised alike."""

    names: list[str]
    parameters: list[nn.Parameter]
    weight_decay: float
    rate_factor: float
    """Their learning rate as a multiple of the schedule's."""


def parameter_groups(model: Classifier, settings: StageRecipe) -> list[ParameterGroup]:
    """Return the model's parameters by how they are optimised, groups without any left out.

    The head has a learning rate of its own, `StageRecipe.head_rate_factor` times the others'. One
    whose `decays` is False is spared weight decay.
    """
    inside, head = list[tuple[str, nn.Parameter]](), list[tuple[str, nn.Parameter]]()
    for name, parameter in model.named_parameters():
        (head if name.startswith("head.") else inside).append((name, parameter))
    decays = getattr(model.head, "decays", True)
    groups = [
        (inside, settings.weight_decay, 1.0),
        (head, settings.weight_decay if decays else 0.0, settings.head_rate_factor),
    ]
    return [
        ParameterGroup([name for name, _ in part], [value for _, value in part], decay, factor)
        for part, decay, factor in groups
        if part
    ]


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
