"""Comparing methods: several variants of one recipe, several seeds, one table.

    recipe = "digits.toml"              # beside this file
    seeds = [0, 1, 2]
    ood_set = "held_out"

    [[variants]]
    title = "MixOE"
    set = ['method={name = "mixoe"}']

Variants that share model, data, pretraining and seed share the pretrained weights. Finished runs
are kept, so an interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError
from rich.console import Console

from oodserve.errors import DataError, RecipeError
from oodserve.schema import Document, explain
from train.checkpoint import replace_text
from train.evaluate import EVALUATION, evaluate, write_evaluation
from train.figures import draw_evaluation
from train.fit import Stop, fit, resume
from train.recipes import Recipe, load_recipe
from train.run import CARD, RECIPE, load_run

COLUMNS = ("auroc", "fpr@95tpr_ood", "ood_miss@95id")
"""Figures of a detection that the table shows, beside accuracy."""


class Variant(Document):
    """One row of the table for each score."""

    title: Annotated[str, Field(min_length=1)]
    set: tuple[str, ...] = ()
    """Overrides of the recipe, as `python -m train fit --set` takes them."""


class Comparison(Document):
    """A comparison file."""

    recipe: str
    """Path of the recipe, relative to the comparison file."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    ood_set: str
    """The out-of-distribution set of the table."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Row:
    """One line of the table: a variant under one score, over the seeds."""

    title: str
    score: str
    values: dict[str, tuple[float, ...]]
    """Column to one value per seed."""


def load_comparison(path: Path) -> tuple[Comparison, list[tuple[Variant, int, Recipe]]]:
    """Read a comparison file and the recipe of each variant and seed.

    Raises
    ------
    RecipeError
        The file, the recipe or an override has faults, or two variants share a title.
    """
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
    base = path.parent / comparison.recipe
    plan = [
        (variant, seed, load_recipe(base, [*variant.set, f"seed={seed}"]))
        for seed in comparison.seeds
        for variant in comparison.variants
    ]
    return comparison, plan


def compare(path: Path, folder: Path, *, console: Console, stop: Stop) -> list[Row]:
    """Train and evaluate what is missing, and return the rows of the table.

    Writes `comparison.json` and `comparison.md` into `folder`, beside one run folder per variant
    and seed.

    Raises
    ------
    RecipeError, DataError
        See `load_comparison` and `train.fit`.
    train.fit.Interrupted
        `stop` said so; calling again goes on.
    """
    comparison, plan = load_comparison(path)
    pretrained: dict[str, Path] = {}
    for number, (variant, seed, planned) in enumerate(plan, start=1):
        run = folder / f"seed-{seed}" / _slug(variant.title)
        key = _pretraining_key(planned)
        recipe = planned
        if key in pretrained:
            pretrain = planned.pretrain.model_copy(update={"from_run": str(pretrained[key])})
            recipe = planned.model_copy(update={"pretrain": pretrain})
        pretrained.setdefault(key, run)
        _refuse_other_recipe(recipe, run)
        if not (run / EVALUATION).exists():
            console.rule(f"{number} of {len(plan)}: {variant.title}, seed {seed}")
            _train(recipe, run, console=console, stop=stop)
            evaluation = evaluate(load_run(run))
            draw_evaluation(evaluation, run)
            write_evaluation(evaluation, run)
    rows = _collect(comparison, folder)
    replace_text(folder / "comparison.md", to_markdown(rows, comparison))
    replace_text(folder / "comparison.json", to_json(rows, comparison))
    return rows


def to_markdown(rows: list[Row], comparison: Comparison) -> str:
    """Return the table as Markdown: mean +- sample standard deviation over the seeds."""
    header = ("method", "score", "accuracy", *COLUMNS)
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for row in rows:
        cells = [_spread(row.values[column]) for column in ("accuracy", *COLUMNS)]
        lines.append(f"| {' | '.join([row.title, row.score, *cells])} |")
    seeds = ", ".join(str(seed) for seed in comparison.seeds)
    lines += ["", f"OOD set: `{comparison.ood_set}`; mean ± standard deviation over seeds {seeds}."]
    return "\n".join(lines) + "\n"


def to_json(rows: list[Row], comparison: Comparison) -> str:
    """Return the table's values, one per seed, as JSON."""
    document = {
        "format_version": 1,
        "ood_set": comparison.ood_set,
        "seeds": list(comparison.seeds),
        "rows": [{"method": row.title, "score": row.score, "values": row.values} for row in rows],
    }
    return json.dumps(document, indent=1) + "\n"


def _refuse_other_recipe(recipe: Recipe, run: Path) -> None:
    """Raise where a run folder was made by another recipe than the comparison now says."""
    if (run / RECIPE).exists() and load_recipe(run / RECIPE) != recipe:
        raise DataError(
            f"`{run}` was made with another recipe than the comparison now says; "
            "remove it or give another folder with `--to`"
        )


def _train(recipe: Recipe, run: Path, *, console: Console, stop: Stop) -> None:
    if (run / CARD).exists():
        return
    if (run / RECIPE).exists():
        resume(run, console=console, stop=stop)
    else:
        fit(recipe, run, console=console, stop=stop)


def _pretraining_key(recipe: Recipe) -> str:
    """Return what decides the pretrained weights."""
    parts = ("seed", "precision", "data", "input", "augment", "model", "pretrain")
    return json.dumps(recipe.model_dump(mode="json", include=set(parts)), sort_keys=True)


def _collect(comparison: Comparison, folder: Path) -> list[Row]:
    rows = []
    for variant in comparison.variants:
        documents = [
            json.loads((folder / f"seed-{seed}" / _slug(variant.title) / EVALUATION).read_text())
            for seed in comparison.seeds
        ]
        scores = dict.fromkeys(item["score"] for item in documents[0]["detections"])
        for score in scores:
            found = [_detection(document, comparison.ood_set, score) for document in documents]
            values = {column: tuple(item[column] for item in found) for column in COLUMNS}
            values["accuracy"] = tuple(document["accuracy"] for document in documents)
            rows.append(Row(title=variant.title, score=score, values=values))
    return rows


def _detection(document: dict[str, Any], ood_set: str, score: str) -> dict[str, float]:
    for item in document["detections"]:
        if item["ood_set"] == ood_set and item["score"] == score:
            return dict(item)
    known = sorted({item["ood_set"] for item in document["detections"]})
    raise DataError(f"there is no out-of-distribution set `{ood_set}`; the data have {known}")


def _spread(values: tuple[float, ...]) -> str:
    mean = f"{100 * np.mean(values):.2f}"
    return f"{mean} ± {100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else mean


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
