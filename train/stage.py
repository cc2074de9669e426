"""One stage of training: its loaders, its optimizer, its steps and its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from train import checkpoint
from train.data.augment import build_augmentation
from train.data.folders import Splits
from train.data.loading import BatchLoader, EndlessLoader, Share
from train.distributed import Group, freeze_batch_norm, norm_statistics
from train.divergence import Diverged, are_finite
from train.draw import Draw
from train.methods.method import Method, TrainingBatch
from train.methods.synthesis.batches import with_outliers
from train.microbatches import add_terms, micro_batches
from train.networks.classifier import Classifier
from train.optimisation import parameter_groups
from train.recipes import Recipe, StageRecipe
from train.run import CHECKPOINTS, METRICS, RECIPE
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
    group: Group
    model: Classifier
    position: Position
    rng: np.random.Generator
    """For single numbers: mixing coefficients, boxes."""
    torch_generator: torch.Generator
    """For tensors; on the CPU."""


FORWARDS = ("outputs", "features", "stage_maps", "logits_from")
"""Ways through a `Classifier` beside calling it."""


class StageWork:
    """The loaders and the optimizer of one stage, and the steps they make."""

    def __init__(self, training: Training, stage: Stage) -> None:
        self.training = training
        self.stage = stage
        self.waited_s = 0.0
        """Seconds spent waiting for images since the epoch began, or went on."""
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
        # Passed by these, a model in several processes would not average its gradients otherwise.
        for name in FORWARDS:
            self.model.mark_forward_method(name)
        self._statistics = norm_statistics(model) if settings.batch_norm == "train" else []

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
        self.waited_s = 0.0
        self.model.train()
        if self.stage.settings.batch_norm == "frozen":
            freeze_batch_norm(self.model)
        for batch in self._batches(epoch, position.step):
            for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
                group["lr"] = factor * self.rate(self.steps_done)
            terms = self._step(batch)
            for name, value in terms.items():
                position.sums[name] = position.sums.get(name, 0.0) + value
            position.step += 1
            yield terms["loss"]

    def save(self) -> None:
        """Write the checkpoint that resuming goes on from.

        Raises
        ------
        Diverged
            The weights, or BatchNorm's statistics, are no longer finite.
        """
        training = self.training
        states = training.model.state_dict()
        if not are_finite(states):
            raise self._diverged("a weight or a statistic is no longer finite before")
        if not training.group.is_main:
            return
        momentum = checkpoint.momentum_tensors(self.optimizer, self.names)
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
                    "scaler": training.fabric.strategy.precision.state_dict(),
                    "metrics_bytes": metrics.stat().st_size if metrics.exists() else 0,
                },
            ),
        )

    def restore(self, found: checkpoint.Checkpoint | None) -> None:
        """Take up the momentum, the loss scale and the outlier stream of a checkpoint."""
        if found is None:
            return
        momentum = part_of(found.tensors, "momentum.")
        checkpoint.restore_momentum(self.optimizer, self.names, momentum)
        if found.facts.get("scaler"):
            self.training.fabric.strategy.precision.load_state_dict(found.facts["scaler"])
        if self.outliers and found.facts["outliers"] is not None:
            self.outliers.restore(found.facts["outliers"])

    def close(self) -> None:
        """End the processes that read images."""
        self.images.close()
        if self.outliers:
            self.outliers.close()

    def _step(self, batch: TrainingBatch) -> dict[str, float]:
        """Take one step on this process's rows of a batch; return the terms of the whole batch."""
        training, stage, count = self.training, self.stage, self.stage.settings.accumulate
        parts = micro_batches(
            batch,
            count=count,
            group=training.group,
            rng=training.rng,
            torch_generator=training.torch_generator,
            make_draw=self._draw,
        )
        self.optimizer.zero_grad()
        found: dict[str, Tensor] = {}
        for number, (part, draw) in enumerate(parts, start=1):
            # Processes exchange gradients once, with the last part.
            alone = training.group.processes > 1 and number < count
            with training.fabric.no_backward_sync(self.model, enabled=alone):
                complete, watched = self._complete(part, draw)
                terms = stage.method.objective(self.model, complete, draw)
                training.fabric.backward(terms["loss"] / count)
            add_terms(found, watched | terms, share=1 / count)
        whole = training.group.combine(found)
        if not np.isfinite(whole["loss"]):
            raise self._diverged(f"the loss became {whole['loss']} in")
        if stage.settings.gradient_clip_norm:
            training.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=stage.settings.gradient_clip_norm
            )
        self.optimizer.step()
        training.group.average(self._statistics)
        return whole

    def _draw(self, rank: int, slices: int, gather: Callable[[Tensor], Tensor]) -> Draw:
        training = self.training
        return Draw(
            rng=training.rng,
            torch_generator=training.torch_generator,
            epoch=training.position.epoch + 1,
            epochs=self.stage.settings.epochs,
            rank=rank,
            processes=slices,
            gather=gather,
        )

    def _complete(self, part: TrainingBatch, draw: Draw) -> tuple[TrainingBatch, dict[str, Tensor]]:
        """Return the batch with outliers made from it, where the recipe says so, and terms."""
        if self.outliers or not self.stage.method.needs_outliers:
            return part, {}
        return with_outliers(self.model, part, settings=self.training.recipe.synthesis, draw=draw)

    def _batches(self, epoch: int, start_step: int) -> Iterator[TrainingBatch]:
        """Yield this process's rows of each batch on the device, timing the wait for them."""
        images = self.images.epoch(epoch, start_step)
        while True:
            started = time.perf_counter()
            batch = next(images, None)
            if batch is None:
                return
            outliers = self.outliers.next() if self.outliers else None
            self.waited_s += time.perf_counter() - started
            yield TrainingBatch(
                images=_channels_last(batch.images),
                labels=batch.labels,
                outliers=None if outliers is None else _channels_last(outliers),
            )

    def _diverged(self, what: str) -> Diverged:
        training, stage = self.training, self.stage
        position, settings = training.position, stage.settings
        kept = checkpoint.state_file(training.folder / CHECKPOINTS)
        last = f"the last good checkpoint is `{kept}`" if kept else "there is no checkpoint yet"
        return Diverged(
            f"{what} {stage.name} epoch {position.epoch + 1}, step {position.step + 1} of "
            f"{self.steps_per_epoch}, with the recipe `{training.folder / RECIPE}`; {last}; lower "
            f"`{stage.name}.learning_rate` ({settings.learning_rate:g}) or set "
            f"`{stage.name}.gradient_clip_norm`, and start a new run"
        )

    def _loading(self, what: str) -> dict[str, Any]:
        recipe, group = self.training.recipe, self.training.group
        return {
            "input": recipe.input.spec(),
            "augmentation": build_augmentation(recipe.augment, recipe.input),
            "seed": recipe.seed,
            "stream": f"{self.stage.name}.{what}",
            "workers": recipe.data.workers,
            "share": Share(group.rank, group.processes),
            "device": self.training.fabric.device,
        }


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
