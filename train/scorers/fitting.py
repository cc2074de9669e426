"""Fitting the scores of a run on its in-distribution images, and keeping what they learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from oodserve.bundle import InputSpec
from oodserve.errors import DataError
from train.data.folders import Splits
from train.data.sources import LabelledImages
from train.embedding import embed, eval_batches
from train.networks.classifier import Classifier
from train.scorers.registry import build_scorer
from train.scorers.scorer import FitData, MapsBatch, Scorer

OpenSplits = Callable[[], Splits]
"""Called only where something is to be fitted."""


def check_scorers(
    names: Sequence[str],
    tables: Mapping[str, Mapping[str, Any]],
    model: Classifier,
    *,
    n_train: int,
) -> None:
    """Refuse scores that cannot be fitted to a model, without running it.

    Parameters
    ----------
    names, tables
        As `fitted_scorers` takes them.
    model : Classifier
        With what its method attaches, on the CPU; its weights do not matter.
    n_train : int
        Number of training images.

    Raises
    ------
    DataError
        There are too few images for a score.
    RecipeError
        A score is unknown or does not fit the model.
    """
    for name in names:
        build_scorer(name, tables.get(name)).check(model, n_train)


def fitted_scorers(
    names: Sequence[str],
    tables: Mapping[str, Mapping[str, Any]],
    model: Classifier,
    splits: OpenSplits,
    spec: InputSpec,
    *,
    seed: int,
) -> dict[str, Scorer]:
    """Return scorers, those that need it fitted on the training images.

    Parameters
    ----------
    names : sequence of str
        Scores; see `train.scorers.registry`.
    tables : mapping of str to knobs
        A recipe's ``[scorers]``.
    model : Classifier
        In eval mode, on the CPU, as `train.run.read_model` returns it.
    splits : callable
        Opens the run's data.
    spec : InputSpec
    seed : int

    Raises
    ------
    RecipeError
        A score is unknown or does not fit the model.
    DataError
        The images cannot be read.
    """
    scorers = {name: build_scorer(name, tables.get(name)) for name in names}
    if any(scorer.needs_fit for scorer in scorers.values()):
        data = fit_data(model, splits(), spec, seed=seed)
        for scorer in scorers.values():
            if scorer.needs_fit:
                scorer.fit(data)
    return scorers


def fit_data(model: Classifier, splits: Splits, spec: InputSpec, *, seed: int) -> FitData:
    """Return what scores are fitted on; runs the model over the training and validation images."""
    return FitData(
        model=model,
        train=embed(model, splits.train, spec),
        validation=embed(model, splits.validation, spec),
        train_maps=lambda: _maps(model, splits.train, spec),
        validation_maps=lambda: _maps(model, splits.validation, spec),
        seed=seed,
        std=spec.std,
    )


def state_of(scorers: Mapping[str, Scorer]) -> dict[str, Tensor]:
    """Return what fitted scorers learned, as ``NAME.BUFFER``."""
    return {
        f"{name}.{key}": tensor
        for name, scorer in scorers.items()
        for key, tensor in scorer.state_dict().items()
    }


def read_scorers(
    names: Sequence[str], tables: Mapping[str, Mapping[str, Any]], path: Path
) -> dict[str, Scorer]:
    """Return scorers with what `state_of` returned, from a safetensors file.

    Raises
    ------
    DataError
        The file is damaged or belongs to other scores.
    """
    scorers = {name: build_scorer(name, tables.get(name)) for name in names}
    if not path.exists() and not any(scorer.needs_fit for scorer in scorers.values()):
        return scorers
    try:
        state = load_file(path)
        for name, scorer in scorers.items():
            prefix = f"{name}."
            own = {key.removeprefix(prefix): value for key, value in state.items()
                   if key.startswith(prefix)}  # fmt: skip
            scorer.load_state_dict(own)
    except (RuntimeError, SafetensorError, OSError) as error:
        raise DataError(f"`{path}` is damaged ({error}); train again") from error
    return scorers


@torch.no_grad()
def _maps(model: Classifier, images: LabelledImages, spec: InputSpec) -> Iterator[MapsBatch]:
    for pixels, labels in eval_batches(model, images, spec):
        maps, features = model.stage_maps(pixels)
        yield MapsBatch(
            tuple(part.float().cpu() for part in maps),
            model.logits_from(features).float().cpu(),
            labels,
        )
