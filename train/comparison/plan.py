"""What a comparison consists of: several variants of one recipe, several seeds.

    recipe = "digits.toml"              # beside this file
    seeds = [0, 1, 2]
    ood_sets = ["held_out"]

    [[variants]]
    title = "MixOE"
    set = ['method={name = "mixoe"}']

Variants that agree in model, data and pretraining share the pretrained weights of their seed, which
are a run of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from oodserve.errors import RecipeError
from oodserve.schema import Document, explain
from train.pretraining import pretraining_alone
from train.recipes import Recipe, load_recipe


class Variant(Document):
    """A method with its settings: a row of the tables."""

    title: Annotated[str, Field(min_length=1)]
    set: tuple[str, ...] = ()
    """Overrides of the recipe, as `python -m train fit --set` takes them."""
    scores: tuple[str, ...] = ()
    """Scores to evaluate instead of the comparison's; a method with a head of its own may not have
    all of them."""


class Comparison(Document):
    """A comparison file."""

    recipe: str
    """Path of the recipe, relative to the comparison file."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    ood_sets: Annotated[tuple[str, ...], Field(min_length=1)]
    """The out-of-distribution sets of the tables, in their order."""
    set: tuple[str, ...] = ()
    """Overrides of the recipe for every variant, before its own."""
    scores: tuple[str, ...] = ()
    """Scores to evaluate, any number of them; empty for those of the recipe."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Task:
    """One run of a comparison."""

    name: str
    """``seed-SEED/TITLE``: its folder within the comparison's."""
    recipe: Recipe
    scores: tuple[str, ...]
    """What to evaluate it by."""
    needs: str | None = None
    """Name of the task whose pretrained weights it starts from."""


@dataclass(frozen=True)
class Plan:
    """A comparison and the runs that it takes."""

    comparison: Comparison
    folder: Path
    pretrainings: tuple[Task, ...]
    runs: tuple[Task, ...]
    """Seed by seed, the variants in their order."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All of them, each after the one that it needs."""
        return (*self.pretrainings, *self.runs)

    @property
    def scores(self) -> tuple[str, ...]:
        """All scores that any of the runs is evaluated by."""
        return tuple(dict.fromkeys(score for task in self.runs for score in task.scores))

    def folder_of(self, variant: Variant, seed: int) -> Path:
        """Return the run folder of a variant."""
        return self.folder / _name(variant, seed)


def load_plan(path: Path, folder: Path) -> Plan:
    """Read a comparison file and the recipe of each variant and seed.

    Parameters
    ----------
    path : Path
        The comparison file.
    folder : Path
        Where its runs are or will be.

    Raises
    ------
    RecipeError
        The file, the recipe or an override has faults, or two variants share a title.
    """
    comparison = read_comparison(path)
    base = path.parent / comparison.recipe
    pretrainings: dict[str, Task] = {}
    runs = []
    for seed in comparison.seeds:
        for variant in comparison.variants:
            recipe = load_recipe(base, [*comparison.set, *variant.set, f"seed={seed}"])
            needs = None
            if recipe.pretrain.epochs and not recipe.pretrain.from_run:
                pretraining = _pretraining(recipe, seed)
                needs = pretraining.name
                pretrainings.setdefault(needs, pretraining)
                start = recipe.pretrain.model_copy(update={"from_run": str(folder / needs)})
                recipe = recipe.model_copy(update={"pretrain": start})
            scores = variant.scores or comparison.scores or recipe.scores
            runs.append(Task(_name(variant, seed), recipe, scores, needs))
    return Plan(comparison, folder, tuple(pretrainings.values()), tuple(runs))


def read_comparison(path: Path) -> Comparison:
    """Read a comparison file; raises as `load_plan` does."""
    try:
        comparison = Comparison.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecipeError(f"cannot read the comparison `{path}` ({error})") from error
    except ValidationError as error:
        raise RecipeError(f"the comparison `{path}` has faults: {explain(error)}") from error
    except ValueError as error:
        raise RecipeError(f"the comparison `{path}` is not TOML: {error}") from error
    titles = [variant.title for variant in comparison.variants]
    if len({_slug(title) for title in titles}) != len(titles):
        raise RecipeError(f"the comparison `{path}` repeats a title: {titles}")
    return comparison


def _pretraining(recipe: Recipe, seed: int) -> Task:
    """Return the run that makes the weights which a recipe's second stage starts from."""
    alone = pretraining_alone(recipe, name=f"{recipe.name} pretraining")
    # What the first stage depends on. Keys at their defaults are left out, so that a key which a
    # later version adds does not make all that was trained before useless.
    unlooked = {"name", "finetune", "method", "synthesis", "scores", "default_score", "scorers"}
    parts = alone.model_dump(mode="json", exclude=unlooked, exclude_defaults=True)
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    return Task(f"seed-{seed}/pretraining-{key}", alone, scores=())


def _name(variant: Variant, seed: int) -> str:
    return f"seed-{seed}/{_slug(variant.title)}"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
