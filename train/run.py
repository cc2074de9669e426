"""The run folder: what training leaves behind and what export and evaluation read.

runs/NAME/
  recipe.toml                the effective recipe, every default written out
  metrics.jsonl              one line per epoch
  checkpoints/               where an interrupted run goes on (`train.checkpoint`)
  pretrained.safetensors     weights after the first stage
  model.safetensors          the finished weights
  model.json                 classes, data fingerprint, measured quality; appears last
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from oodserve.bundle import InputSpec
from oodserve.errors import DataError
from oodserve.schema import Document, Sha256, explain
from train.models import Classifier, build_classifier
from train.recipes import Recipe, load_recipe

RECIPE, METRICS, CHECKPOINTS = "recipe.toml", "metrics.jsonl", "checkpoints"
PRETRAINED, WEIGHTS, CARD = "pretrained.safetensors", "model.safetensors", "model.json"


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
    # Only the shape is needed: the weights follow from the run itself.
    bare = recipe.model.model_copy(update={"weights": "none"})
    model = build_classifier(bare, len(card.classes))
    try:
        model.load_state_dict(load_file(path / WEIGHTS))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise DataError(f"`{path / WEIGHTS}` is damaged ({error}); train again") from error
    return TrainedRun(path=path, recipe=recipe, card=card, model=model.eval())
