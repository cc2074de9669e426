"""The first stage of a recipe as a run of its own, for runs that share its weights."""

from __future__ import annotations

from train.methods.standard import StandardSettings
from train.recipes import Recipe


def pretraining_alone(recipe: Recipe, *, name: str) -> Recipe:
    """Return the recipe of the run that makes the weights which the second stage starts from.

    What only the second stage or the scores look at is at its default, so that recipes which
    differ in nothing else give the same.

    Parameters
    ----------
    recipe : Recipe
    name : str
        Of the run.
    """
    return recipe.model_copy(
        update={
            "name": name,
            "finetune": recipe.finetune.model_copy(update={"epochs": 0}),
            "method": StandardSettings(),
            "scores": ("msp",),
            "default_score": "msp",
            "scorers": {},
            "data": recipe.data.model_copy(update={"outliers": ""}),
            "synthesis": Recipe.model_fields["synthesis"].default,
        }
    )
