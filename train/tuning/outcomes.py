"""What is searched for, what the trials gave, and the files that say so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from train import checkpoint
from train.recipes import Recipe, load_recipe, to_toml
from train.tuning.search import Dimension

RESULTS, BEST = "trials.json", "best.toml"


@dataclass(frozen=True)
class Tuning:
    """A search.

    Attributes
    ----------
    path : Path
        The recipe that is varied.
    overrides : tuple of str
        Applied to it first, each ``KEY.PATH=VALUE``.
    space : tuple of Dimension
        What is varied.
    accuracy_floor : float
        Least validation accuracy, less that of the pretrained model: -0.01 allows one point.
    seed : int
        Of the search and of the outliers; the recipe's own seed stays.
    """

    path: Path
    overrides: tuple[str, ...]
    space: tuple[Dimension, ...]
    accuracy_floor: float = -0.01
    seed: int = 0

    def recipe(self, values: Mapping[str, object] | None = None) -> Recipe:
        """Return the recipe with values, by key, for the search space.

        Raises
        ------
        RecipeError
            The recipe has faults, or a value is none that its key may have.
        """
        # What a choice names is taken as TOML where it is, and as text otherwise.
        chosen = [f"{key}={value}" for key, value in (values or {}).items()]
        return load_recipe(self.path, [*self.overrides, *chosen])


@dataclass(frozen=True)
class Outcome:
    """What one trial gave.

    Attributes
    ----------
    number : int
        From 0, in the order of the search.
    values : dict of str to (float, int or str)
        What the search chose, by key.
    auroc : float
        Mean over the kinds of outliers; 0 where training diverged.
    by_kind : dict of str to float
        AUROC by kind; empty where training diverged.
    accuracy : float
        On the validation images; 0 where training diverged.
    feasible : bool
        Whether the accuracy is above the floor.
    diverged : str
        What happened, or empty.
    """

    number: int
    values: dict[str, Any]
    auroc: float
    by_kind: dict[str, float]
    accuracy: float
    feasible: bool
    diverged: str = ""


@dataclass(frozen=True)
class Result:
    """A whole search: accuracy before it, all outcomes, and the best feasible one if any is."""

    baseline: float
    outcomes: tuple[Outcome, ...]

    @property
    def best(self) -> Outcome | None:
        """The feasible outcome with the largest mean AUROC; of equal ones the first."""
        feasible = [outcome for outcome in self.outcomes if outcome.feasible]
        return max(feasible, key=lambda outcome: outcome.auroc, default=None)


def describe(outcome: Outcome) -> str:
    """Return a line about a trial."""
    values = ", ".join(f"{key} = {value}" for key, value in outcome.values.items())
    if outcome.diverged:
        return f"{values}: diverged ({outcome.diverged})"
    told = "" if outcome.feasible else ", below the floor"
    return f"{values}: AUROC {outcome.auroc:.4f}, accuracy {outcome.accuracy:.4f}{told}"


def write_results(folder: Path, tuning: Tuning, result: Result) -> None:
    """Write the trials, and the recipe of the best one if there is one."""
    best = result.best
    document = {
        "format_version": 1,
        "baseline_accuracy": result.baseline,
        "accuracy_floor": tuning.accuracy_floor,
        "best": None if best is None else best.number,
        "trials": [asdict(outcome) for outcome in result.outcomes],
    }
    checkpoint.replace_text(folder / RESULTS, json.dumps(document, indent=1) + "\n")
    if best is not None:
        checkpoint.replace_text(folder / BEST, to_toml(tuning.recipe(best.values)))
