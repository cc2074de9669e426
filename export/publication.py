"""From a finished run to a published version: export, compare on real images, write once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import onnx
import onnxscript
import torch
from pydantic import TypeAdapter, ValidationError

from export.graph import FEATURES, LOGITS, OPSETS, ExportedGraph, export_graph
from export.parity import MAX_ERROR, Comparison, SourceModel, measure, read_batches, spread
from export.triton import TritonSettings, config_pbtxt
from oodserve import __version__
from oodserve.bundle import (
    CONFIG,
    Golden,
    Manifest,
    ModelFile,
    Name,
    Output,
    Training,
    write_version,
)
from oodserve.engines.onnxruntime import OnnxRuntimeEngine
from oodserve.errors import ConfigurationError, DataError
from oodserve.folders import list_images
from train.data.folders import open_splits
from train.data.sources import ImageFiles, ImageSource
from train.recipes import Recipe
from train.run import TrainedRun
from train.scorers.registry import SCORERS

GOLDEN_IMAGES = 4
"""How many of the compared images become the version's golden inputs."""

MAX_SCORES = 4
"""Scores in one bundle: as many as one calibration holds."""

_MEANING = {
    LOGITS: "unnormalised class scores, in the order of `classes`",
    FEATURES: "what the last layer classifies, before any standardisation",
}


@dataclass(frozen=True)
class Destination:
    """Where a version goes: a model's folder in a model repository."""

    repository: Path
    name: str

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read ``models/NAME``.

        Raises
        ------
        ConfigurationError
            There is no repository in it, the name cannot be a model's, or the repository is itself
            a model.
        """
        path = Path(text)
        if len(path.parts) < 2 or path.name in ("", "..") or path.parent == Path(path.anchor):
            raise ConfigurationError(
                f"`{text}` is not of the form models/NAME: give the model repository and the "
                "model's name in it"
            )
        try:
            name = TypeAdapter(Name).validate_python(path.name)
        except ValidationError as error:
            raise ConfigurationError(
                f"`{path.name}` cannot be a model's name: begin with a letter or digit and use "
                "letters, digits, `.`, `_` and `-` only, at most 128"
            ) from error
        if name.isdecimal():
            raise ConfigurationError(
                f"`{name}` cannot be a model's name: a number is a version; give models/NAME, the "
                "version is counted up by itself"
            )
        if (path.parent / CONFIG).exists():
            raise ConfigurationError(
                f"`{path.parent}` is a model, not a model repository; give models/NAME"
            )
        return cls(repository=path.parent, name=name)


@dataclass(frozen=True)
class ExportSettings:
    """What is exported and how closely it must agree.

    Raises
    ------
    ConfigurationError
        A bound or a number cannot be.
    """

    scores: tuple[str, ...]
    default_score: str
    features: bool = False
    opset: int = OPSETS.start
    max_error: float = MAX_ERROR
    """Bound of the parity gate; see `export.parity`."""
    max_images: int = 512
    """Most images to compare on; more are thinned evenly."""
    triton: TritonSettings = field(default_factory=TritonSettings)

    def __post_init__(self) -> None:
        if not 0 < self.max_error < 1:
            raise ConfigurationError(
                f"`max_error` = {self.max_error:g} is no bound; give a number between 0 and 1, "
                f"such as {MAX_ERROR:g}"
            )
        if self.max_images < 1:
            raise ConfigurationError(f"`max_images` = {self.max_images}; compare on 1 or more")


@dataclass(frozen=True)
class Published:
    """A version that is now in the repository."""

    path: Path
    manifest: Manifest
    comparison: Comparison
    model_bytes: int


def choose_scores(
    recipe: Recipe, wanted: tuple[str, ...], default: str | None
) -> tuple[tuple[str, ...], str]:
    """Return the scores to export and the one that decides.

    Parameters
    ----------
    recipe : Recipe
        Of the run: its scores where none are wanted, its default where that is among them.
    wanted : tuple of str
        Names asked for; repeats count once.
    default : str, optional
        The score that is to decide.

    Raises
    ------
    ConfigurationError
        A name is unknown, there are too many, or the default is not among them.
    """
    names = tuple(dict.fromkeys(wanted or recipe.scores))
    if len(names) > MAX_SCORES:
        raise ConfigurationError(
            f"{len(names)} scores are too many for one bundle; choose at most {MAX_SCORES} with "
            "`--score NAME`"
        )
    for name in (*names, *([default] if default else [])):
        if name not in SCORERS:
            raise ConfigurationError(f"unknown score `{name}`; known: {', '.join(SCORERS)}")
    if default is None:
        default = recipe.default_score if recipe.default_score in names else names[0]
    if default not in names:
        raise ConfigurationError(
            f"the default score `{default}` is not exported; choose one of {', '.join(names)}"
        )
    return names, default


def parity_images(run: TrainedRun, folder: Path | None) -> ImageSource:
    """Return the images to compare on: a folder's, or the run's validation split.

    Raises
    ------
    DataError
        The folder holds no image, or the run's data cannot be opened.
    """
    if folder is not None:
        background = run.input.preprocessing.background
        return ImageFiles(tuple(list_images(folder)), background)
    try:
        return open_splits(run.recipe.data, run.input.preprocessing).validation.source
    except DataError as error:
        raise DataError(
            f"the run's validation images cannot be read: {error}; or compare on other real "
            "images with `--images FOLDER`"
        ) from error


def export_run(run: TrainedRun, settings: ExportSettings) -> ExportedGraph:
    """Return the graph of a run. Raises as `export.graph.export_graph` does."""
    return export_graph(
        run.model,
        run.scorers(settings.scores),
        run.input,
        features=settings.features,
        opset=settings.opset,
    )


def publish(
    run: TrainedRun,
    graph: ExportedGraph,
    images: ImageSource,
    settings: ExportSettings,
    destination: Destination,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Published:
    """Compare a graph with the run it came from and, if they agree, write a version.

    Parameters
    ----------
    run : TrainedRun
        The source.
    graph : ExportedGraph
        Of `export_run` with the same settings.
    images : ImageSource
        Real images to compare on.
    settings : ExportSettings
        The bound, among others.
    destination : Destination
        Where the version goes; its number is one above the highest there is.
    progress : callable
        Called with the number of images compared so far.

    Raises
    ------
    ParityError
        They do not agree. Nothing is written.
    DataError
        An image cannot be read.
    BundleError
        The version cannot be written.
    """
    indices = spread(len(images), most=settings.max_images)
    engine = OnnxRuntimeEngine(graph.content, precision="fp32")
    source = SourceModel(
        run.model, run.scorers(settings.scores), run.input, features=settings.features
    )
    comparison = measure(
        source,
        engine,
        read_batches(images, run.input, indices=indices),
        bound=settings.max_error,
        progress=progress,
    )
    comparison.require_equal()
    chosen = [indices[place] for place in spread(len(indices), most=GOLDEN_IMAGES)]
    pixels = np.concatenate(list(read_batches(images, run.input, indices=chosen)))
    manifest = _manifest(run, graph, settings, comparison)
    path = write_version(
        destination.repository,
        destination.name,
        manifest=manifest,
        model=graph.content,
        golden=Golden(images=pixels, outputs=engine.infer(pixels)),
        config_pbtxt=config_pbtxt(graph.inputs, graph.outputs, settings.triton),
    )
    return Published(path, manifest, comparison, model_bytes=len(graph.content))


def portable_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the effective recipe as JSON, with folders and files of this machine by name only."""
    values = recipe.model_dump(mode="json")
    for table, key in (
        ("data", "root"),
        ("data", "outliers"),
        ("model", "weights"),
        ("pretrain", "from_run"),
    ):
        values[table][key] = PurePath(values[table][key]).name
    return values


def _manifest(
    run: TrainedRun, graph: ExportedGraph, settings: ExportSettings, comparison: Comparison
) -> Manifest:
    return Manifest(
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        model=ModelFile(
            file="model.onnx",
            sha256=hashlib.sha256(graph.content).hexdigest(),
            precision="fp32",
            opset=graph.opset,
            producers={
                "oodserve": __version__,
                "torch": str(torch.__version__),
                "onnx": onnx.__version__,
                "onnxscript": onnxscript.__version__,
            },
        ),
        input=run.input,
        classes=run.classes,
        outputs=tuple(_output(tensor.name) for tensor in graph.outputs),
        default_score=settings.default_score,
        training=Training(
            method=run.recipe.method.method_name,
            hyperparameters=portable_recipe(run.recipe),
            seed=run.recipe.seed,
            data_fingerprint=run.fingerprint,
            held_out_classes=run.held_out,
        ),
        quality=run.quality,
        parity=comparison.to_parity(default_score=settings.default_score),
    )


def _output(name: str) -> Output:
    if name == LOGITS:
        return Output(name=name, kind="logits", description=_MEANING[name])
    if name == FEATURES:
        return Output(name=name, kind="features", description=_MEANING[name])
    return Output(name=name, kind="score", description="larger = more in-distribution")
