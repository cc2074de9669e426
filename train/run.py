"""The run folder: what training leaves behind and what export and evaluation read.

runs/NAME/
  recipe.toml                the effective recipe, every default written out
  metrics.jsonl              one line per epoch
  checkpoints/               where an interrupted run goes on (`train.checkpoint`)
  pretrained.safetensors     weights after the first stage
  model.safetensors          the finished weights
  scorers.safetensors        what the recipe's scores learned from the training images, if any did
  model.json                 classes, data fingerprint, measured quality; appears last
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from oodserve.bundle import InputSpec
from oodserve.errors import DataError
from oodserve.schema import Document, Sha256, explain
from train.data.folders import open_splits
from train.methods.registry import build_method
from train.models import build_classifier
from train.networks.classifier import Classifier
from train.recipes import Recipe, load_recipe
from train.scorers.fitting import fitted_scorers, read_scorers
from train.scorers.scorer import Scorer

RECIPE, METRICS, CHECKPOINTS = "recipe.toml", "metrics.jsonl", "checkpoints"
PRETRAINED, WEIGHTS, CARD = "pretrained.safetensors", "model.safetensors", "model.json"
SCORERS_STATE = "scorers.safetensors"


class ModelCard(Document):
    """`model.json`: what is known of a finished model beside its weights and recipe."""

    format_version: Literal[1] = 1
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    held_out: tuple[str, ...]
    """Classes that were kept out of training and serve as out-of-distribution images."""
    data_fingerprint: Sha256
    quality: dict[str, dict[str, float]]
    """Split name to metric name to value."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: the model in eval mode on the CPU, and what belongs to it."""

    path: Path
    recipe: Recipe
    card: ModelCard
    model: Classifier
    _fitted: dict[str, Scorer] = field(default_factory=dict, repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.card.classes

    @property
    def held_out(self) -> tuple[str, ...]:
        """Names of the held-out classes."""
        return self.card.held_out

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the training data."""
        return self.card.data_fingerprint

    @property
    def quality(self) -> dict[str, dict[str, float]]:
        """Measured figures by split."""
        return self.card.quality

    @property
    def input(self) -> InputSpec:
        """What the model takes."""
        return self.recipe.input.spec()

    def scorers(self, names: Sequence[str]) -> dict[str, Scorer]:
        """Return scorers of this model: the recipe's as they were fitted, others fitted now.

        Raises
        ------
        DataError
            What was stored is damaged, or the training images that others need are not there.
        RecipeError
            A score is unknown or does not fit the model.
        """
        recipe, found = self.recipe, self._fitted
        missing = [name for name in names if name not in found]
        stored = [name for name in missing if name in recipe.scores]
        found |= read_scorers(stored, recipe.scorers, self.path / SCORERS_STATE)
        found |= fitted_scorers(
            [name for name in missing if name not in stored],
            recipe.scorers,
            self.model,
            lambda: open_splits(recipe.data, recipe.input),
            self.input,
            seed=recipe.seed,
        )
        return {name: found[name] for name in names}


def load_run(path: Path) -> TrainedRun:
    """Read a finished run.

    Raises
    ------
    DataError
        `path` is not a run, or the run was not finished.
    RecipeError
        Its recipe has faults.
    """
    if not (path / RECIPE).is_file():
        raise DataError(
            f"`{path}` is not a run (no `{RECIPE}`); make one with "
            "`python -m train fit RECIPE.toml`"
        )
    if not (path / CARD).is_file() or not (path / WEIGHTS).is_file():
        raise DataError(
            f"the run `{path}` is not finished; go on with `python -m train resume {path}`"
        )
    recipe = load_recipe(path / RECIPE)
    try:
        card = ModelCard.model_validate_json((path / CARD).read_bytes())
    except ValidationError as error:
        raise DataError(f"`{path / CARD}` is damaged: {explain(error)}") from error
    model = read_model(path, recipe, n_classes=len(card.classes))
    return TrainedRun(path=path, recipe=recipe, card=card, model=model)


def bare_model(recipe: Recipe, *, n_classes: int) -> Classifier:
    """Return the model of a recipe as it is after training, but for its weights.

    In train mode, on the CPU, with what the method attaches. Its weights are random; torch's
    global generator is left as it was.

    Raises
    ------
    RecipeError
        The method's settings do not fit the model.
    """
    # Only the shape is needed: the weights follow from the run itself.
    bare = recipe.model.model_copy(update={"weights": "none"})
    with torch.random.fork_rng(devices=[]):
        model = build_classifier(bare, n_classes)
        build_method(recipe.method).attach(model)
    return model


def read_model(path: Path, recipe: Recipe, *, n_classes: int) -> Classifier:
    """Return the model of a run folder's finished weights, in eval mode on the CPU.

    Raises
    ------
    DataError
        The weights are damaged.
    """
    model = bare_model(recipe, n_classes=n_classes)
    try:
        model.load_state_dict(load_file(path / WEIGHTS))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise DataError(f"`{path / WEIGHTS}` is damaged ({error}); train again") from error
    return model.eval()
