"""Making the runs of a comparison: what is finished is kept, what was interrupted goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from oodserve.errors import DataError, OodserveError, RecipeError
from train.comparison.plan import Plan, Task
from train.evaluation.document import read_evaluation
from train.evaluation.run import evaluate_run
from train.evaluation.settings import EvaluationSettings
from train.fit import Interrupted, Stop, fit, resume
from train.recipes import load_recipe
from train.run import CARD, RECIPE, load_run

LOG = "log.txt"
"""What a run that was made by a process of its own printed; in the run folder's parent."""

RESAMPLES = 200
"""Of each run's bootstrap intervals: the tables show the spread over seeds instead."""

_POLL_SECONDS = 0.2


def make(plan: Plan, task: Task, *, console: Console, stop: Stop) -> None:
    """Train and evaluate one run, as far as it is not done.

    Raises
    ------
    DataError
        The run folder holds a run of another recipe, or the data are at fault.
    RecipeError
        What the task needs is not there.
    train.fit.Interrupted
        `stop` said so; calling again goes on.
    """
    run = plan.folder / task.name
    _refuse_other_recipe(plan, task)
    if not (run / CARD).exists():
        if (run / RECIPE).exists():
            resume(run, console=console, stop=stop)
        else:
            fit(task.recipe, run, console=console, stop=stop)
    if task in plan.runs and not _is_evaluated(run, task.scores):
        settings = EvaluationSettings(scores=task.scores, resamples=RESAMPLES)
        evaluate_run(load_run(run), run, settings=settings)


def is_done(plan: Plan, task: Task) -> bool:
    """Return whether nothing is left to do for a task."""
    run = plan.folder / task.name
    if task in plan.pretrainings:
        return (run / CARD).exists()
    return _is_evaluated(run, task.scores)


def make_all(plan: Plan, path: Path, *, jobs: int, console: Console, stop: Stop) -> None:
    """Make every run of a comparison.

    Parameters
    ----------
    plan : Plan
    path : Path
        The comparison file that the plan was read from.
    jobs : int
        Runs at a time. With more than one each is a process of its own with its share of the cores;
        what it prints goes to ``seed-SEED/TITLE.log``.
    console : Console
    stop : callable

    Raises
    ------
    As `make` does.
    """
    for task in plan.tasks:
        _refuse_other_recipe(plan, task)
    if jobs == 1:
        for number, task in enumerate(plan.tasks, start=1):
            if not is_done(plan, task):
                console.rule(f"{number} of {len(plan.tasks)}: {task.name}")
                make(plan, task, console=console, stop=stop)
        return
    _make_in_processes(plan, path, jobs=jobs, console=console, stop=stop)


def _refuse_other_recipe(plan: Plan, task: Task) -> None:
    run = plan.folder / task.name
    if (run / RECIPE).exists() and load_recipe(run / RECIPE) != task.recipe:
        raise DataError(
            f"`{run}` was made with another recipe than the comparison now says; "
            "remove it or give another folder with `--to`"
        )


@dataclass
class _Child:
    task: Task
    process: subprocess.Popen[bytes]
    started: float
    log: Path


def _make_in_processes(plan: Plan, path: Path, *, jobs: int, console: Console, stop: Stop) -> None:
    waiting = [task for task in plan.tasks if not is_done(plan, task)]
    total, finished = len(waiting), 0
    running: list[_Child] = []
    try:
        while waiting or running:
            while len(running) < jobs and (task := _next(plan, waiting)) is not None:
                waiting.remove(task)
                running.append(_start(plan, path, task, jobs=jobs))
            time.sleep(_POLL_SECONDS)
            if stop():
                raise Interrupted
            for child in [item for item in running if item.process.poll() is not None]:
                running.remove(child)
                _require_success(child)
                finished += 1
                console.print(
                    f"{finished} of {total}: {child.task.name}, "
                    f"{time.monotonic() - child.started:.0f} s",
                    highlight=False,
                )
    finally:
        for child in running:
            child.process.send_signal(signal.SIGINT)
        for child in running:
            child.process.wait()


def _next(plan: Plan, waiting: list[Task]) -> Task | None:
    """Return the first task that can start: whose pretraining is finished."""
    finished = {task.name for task in plan.pretrainings if is_done(plan, task)}
    ready = (task for task in waiting if task.needs is None or task.needs in finished)
    return next(ready, None)


def _start(plan: Plan, path: Path, task: Task, *, jobs: int) -> _Child:
    log = plan.folder / f"{task.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // jobs)
    command = [
        sys.executable, "-m", "train", "compare", str(path),
        "--to", str(plan.folder), "--only", task.name,
    ]  # fmt: skip
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            # A Ctrl-C is for this process alone, which then tells the others.
            start_new_session=True,
        )
    return _Child(task, process, time.monotonic(), log)


def _require_success(child: _Child) -> None:
    code = child.process.returncode
    if code == 0:
        return
    last = child.log.read_text(errors="replace").strip().splitlines()[-1:]
    raise RunFailed(
        f"the run `{child.task.name}` ended with {code}: {''.join(last)}; "
        f"all it printed is in `{child.log}`"
    )


class RunFailed(OodserveError):
    """A run of a comparison ended with an error."""


def _is_evaluated(run: Path, scores: tuple[str, ...]) -> bool:
    document = read_evaluation(run)
    return document is not None and set(scores) <= set(document.scores)


def task_named(plan: Plan, name: str) -> Task:
    """Return a task of the plan.

    Raises
    ------
    RecipeError
        There is none of this name; the message lists those there are.
    """
    for task in plan.tasks:
        if task.name == name:
            return task
    known = ", ".join(task.name for task in plan.tasks)
    raise RecipeError(f"the comparison has no run `{name}`; its runs: {known}")
