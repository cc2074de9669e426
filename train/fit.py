"""Fitting a recipe: pretrain, fine-tune, checkpoint after every epoch, resume bit for bit."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oodserve.errors import DataError
from train import checkpoint
from train.embedding import embed
from train.evaluation.scoring import accuracy_on
from train.preparing import prepare
from train.recipes import Recipe, load_recipe, to_toml
from train.run import (
    CARD,
    CHECKPOINTS,
    METRICS,
    PRETRAINED,
    RECIPE,
    SCORERS_STATE,
    WEIGHTS,
    ModelCard,
    read_model,
)
from train.scorers.fitting import fitted_scorers, state_of
from train.stage import Position, Stage, StageWork, Training, part_of

Stop = Callable[[], bool]
"""Asked after every step; True ends the run there, with a checkpoint."""


class Interrupted(Exception):
    """Training was asked to stop; the checkpoint of the last whole step is on disk."""


def fit(recipe: Recipe, folder: Path, *, console: Console, stop: Stop | None = None) -> None:
    """Train from the start into a new run folder.

    Under `torchrun` each process calls this, and process 0 writes and shows progress.

    Raises
    ------
    DataError
        The folder holds a run already, or the data are not what the recipe needs.
    Interrupted
        `stop` said so.
    """
    if (folder / RECIPE).exists():
        raise DataError(
            f"`{folder}` holds a run already; go on with `python -m train resume {folder}` or "
            "choose another folder with `--to`"
        )
    training, stages = prepare(recipe, folder)
    # Until here, each process has seen that there is no run.
    training.group.barrier()
    if training.group.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.replace_text(folder / RECIPE, to_toml(recipe))
    _run(training, stages, None, console=console, stop=stop or _never)


def resume(folder: Path, *, console: Console, stop: Stop | None = None) -> None:
    """Go on with an interrupted run; equal to one that was never interrupted.

    Raises
    ------
    DataError
        There is no run, the run is finished, its checkpoint is damaged, or the data changed.
    """
    if not (folder / RECIPE).is_file():
        raise DataError(f"`{folder}` is not a run (no `{RECIPE}`)")
    if (folder / CARD).exists():
        raise DataError(f"the run `{folder}` is finished already")
    training, stages = prepare(load_recipe(folder / RECIPE), folder)
    found = _restore(training, stages)
    _run(training, stages, found, console=console, stop=stop or _never)


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one acts at once."""
    asked = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for kind, handler in previous.items():
            signal.signal(kind, handler)

    previous = {kind: signal.signal(kind, remember) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def _never() -> bool:
    return False


def _restore(training: Training, stages: list[Stage]) -> checkpoint.Checkpoint | None:
    """Take up the run folder's checkpoint, if there is one, and drop what was logged after it."""
    found = checkpoint.load(training.folder / CHECKPOINTS)
    # Before a process goes on and writes, each has read the same checkpoint.
    training.group.barrier()
    metrics = training.folder / METRICS
    if found is None:
        if training.group.is_main:
            metrics.unlink(missing_ok=True)
        return None
    if found.facts["data_fingerprint"] != training.splits.fingerprint:
        raise DataError(
            f"the data in `{training.recipe.data.root}` changed since the run was interrupted; "
            "restore them or start a new run"
        )
    training.position = Position(**found.facts["position"])
    if training.position.stage < len(stages):
        _attach(stages[training.position.stage], training)
    training.model.load_state_dict(part_of(found.tensors, "model."))
    training.rng.bit_generator.state = found.facts["rng"]
    training.torch_generator.set_state(found.tensors["torch_generator"])
    torch.set_rng_state(found.tensors["torch_rng"])
    if training.group.is_main and metrics.exists():
        os.truncate(metrics, found.facts["metrics_bytes"])
    return found


def _run(
    training: Training,
    stages: list[Stage],
    found: checkpoint.Checkpoint | None,
    *,
    console: Console,
    stop: Stop,
) -> None:
    """Run what is left of the stages, then write the finished model."""
    if not training.group.is_main:
        console = Console(quiet=True)
    while training.position.stage < len(stages):
        stage = stages[training.position.stage]
        if found is None:
            _begin(training, stage)
        work = StageWork(training, stage)
        if found is not None:
            work.restore(found)
            found = None
        _run_stage(work, console=console, stop=stop)
        work.close()
        if training.position.stage == 0 and training.group.is_main:
            checkpoint.save_tensors(training.model.state_dict(), training.folder / PRETRAINED)
        training.position = Position(stage=training.position.stage + 1)
    if training.group.is_main:
        _finish(training)
    # What comes after reads what was written.
    training.group.barrier()


def _begin(training: Training, stage: Stage) -> None:
    """Give the model what the stage's method trains beside the network, and set it."""
    model, splits = training.model, training.splits
    before = copy.copy(model)
    before._modules = dict(model._modules)
    _attach(stage, training)
    stage.method.initialise(
        model, lambda: embed(before, splits.train, training.recipe.input.spec())
    )


def _attach(stage: Stage, training: Training) -> None:
    """Attach what the method needs, its weights drawn from the run's seed and nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(training.recipe.seed)
        stage.method.attach(training.model)


def _run_stage(work: StageWork, *, console: Console, stop: Stop) -> None:
    training, stage = work.training, work.stage
    with _progress(console) as progress:
        task = progress.add_task(stage.name, total=work.total_steps, loss="")
        for epoch in range(training.position.epoch, stage.settings.epochs):
            started = time.perf_counter()
            for loss in work.steps(epoch):
                progress.update(task, completed=work.steps_done, loss=f"loss {loss:.3f}")
                if training.group.any(stop()):
                    work.save()
                    raise Interrupted
            _end_epoch(work, time.perf_counter() - started, console=console)
            work.save()


def _end_epoch(work: StageWork, seconds: float, *, console: Console) -> None:
    """Validate and log one line in the main process, and move to the next epoch."""
    position = work.training.position
    if work.training.group.is_main:
        _log(work, seconds, console=console)
    work.training.position = Position(stage=position.stage, epoch=position.epoch + 1)


def _log(work: StageWork, seconds: float, *, console: Console) -> None:
    training, stage, position = work.training, work.stage, work.training.position
    spec = training.recipe.input.spec()
    accuracy = accuracy_on(training.model, training.splits.validation, spec)
    line = {
        "stage": stage.name,
        "epoch": position.epoch + 1,
        "epochs": stage.settings.epochs,
        "learning_rate": work.rate(work.steps_done - 1),
        **{name: value / work.steps_per_epoch for name, value in position.sums.items()},
        "validation_accuracy": accuracy,
        "seconds": round(seconds, 3),
        "data_seconds": round(work.waited_s, 3),
    }
    with (training.folder / METRICS).open("a") as file:
        file.write(json.dumps(line) + "\n")
    console.print(
        f"{stage.name} {line['epoch']}/{stage.settings.epochs}  loss {line['loss']:.4f}  "
        f"validation accuracy {accuracy:.4f}  {seconds:.1f} s",
        highlight=False,
    )


def _finish(training: Training) -> None:
    spec, splits = training.recipe.input.spec(), training.splits
    accuracy = accuracy_on(training.model, splits.validation, spec)
    checkpoint.save_tensors(training.model.state_dict(), training.folder / WEIGHTS)
    recipe = training.recipe
    # Not on the model that was trained, which may be on a GPU, compiled or made for many processes.
    model = read_model(training.folder, recipe, n_classes=len(splits.classes))
    scorers = fitted_scorers(
        recipe.scores, recipe.scorers, model, lambda: splits, spec, seed=recipe.seed
    )
    state = state_of(scorers)
    if state:
        checkpoint.save_tensors(state, training.folder / SCORERS_STATE)
    card = ModelCard(
        classes=splits.classes,
        held_out=splits.held_out,
        data_fingerprint=splits.fingerprint,
        quality={"validation": {"accuracy": accuracy}},
    )
    checkpoint.replace_text(training.folder / CARD, card.to_json())


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
