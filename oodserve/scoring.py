"""Scoring a folder of images with a predictor, in bounded memory: what calibration is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oodserve.errors import DataError, ImageError
from oodserve.images import stack
from oodserve.predictor import Predictor


@dataclass(frozen=True)
class ScoredImages:
    """Model outputs for a list of files, in their order."""

    paths: tuple[Path, ...]
    scores: dict[str, NDArray[np.float32]]
    """Score name to (N,)."""
    predicted: NDArray[np.int64]
    """(N,) index of the predicted class."""


def score_files(
    predictor: Predictor,
    paths: Sequence[Path],
    *,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> ScoredImages:
    """Score files in batches; only one batch of pixels is in memory.

    Parameters
    ----------
    predictor : Predictor
        The artefact on the runtime that is to serve.
    paths : sequence of Path
        At least one image file.
    batch_size : int
        Images per inference.
    progress : callable
        Called with the number of images done so far.

    Raises
    ------
    DataError
        A file is not an image that can be used; nothing is skipped, the message names it.
    EngineError
        The runtime failed.
    """
    names = predictor.bundle.manifest.scores
    scores: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    predicted: list[NDArray[np.int64]] = []
    for start in range(0, len(paths), batch_size):
        part = paths[start : start + batch_size]
        outputs = predictor.infer(stack(_prepare(predictor, path) for path in part))
        predicted.append(outputs["logits"].argmax(axis=1))
        for name in names:
            scores[name].append(outputs[name])
        progress(start + len(part))
    return ScoredImages(
        paths=tuple(paths),
        scores={name: np.concatenate(parts) for name, parts in scores.items()},
        predicted=np.concatenate(predicted),
    )


def label_accuracy(scored: ScoredImages, root: Path, classes: Sequence[str]) -> float | None:
    """Return the share of correct predictions where the files lie in folders named by class.

    None when any file lies outside such a folder: then there are no labels to compare with.
    """
    index = {name: number for number, name in enumerate(classes)}
    labels = [index.get(path.relative_to(root).parts[0], -1) for path in scored.paths]
    if -1 in labels:
        return None
    return float(np.mean(scored.predicted == np.array(labels)))


def _prepare(predictor: Predictor, path: Path) -> NDArray[np.uint8]:
    try:
        return predictor.prepare(path.read_bytes())
    except ImageError as error:
        raise DataError(f"`{path}` cannot be used: {error}; repair or remove the file") from error
    except OSError as error:
        raise DataError(f"cannot read `{path}` ({error})") from error
