"""Writing the data set `plumage` as folders.

    DIR/train/SPECIES/*          and validation, calibration, test: the known species
    DIR/ood/held_out/SPECIES/*   near: species that are never trained on
    DIR/ood/background/*         spurious: habitats without a bird
    DIR/ood/objects/*            far: household things in a studio
    DIR/outliers/KIND/*          to train with: other animals, vehicles, plants, shapes
    DIR/data.json                what was written

A file is named `NUMBER-HABITAT.png`; that of an object, `NUMBER-KIND.png`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from oodserve.errors import DataError
from train.data.plumage.habitats import HABITATS
from train.data.plumage.objects import OBJECTS
from train.data.plumage.outliers import OUTLIERS
from train.data.plumage.scenes import bird_scene, draw_habitat, home
from train.data.plumage.species import SPECIES, held_out, known
from train.data.plumage.things import object_scene, outlier_scene
from train.data.sources import generator

SPLITS = {"train": 100, "validation": 15, "calibration": 60, "test": 60}
"""Images of each known species in each split."""

SIDES = (16, 1024)
"""Smallest and largest side of the images, in pixels."""

_BATCH = 32
_FEWEST_FOR_PROCESSES = 1024

Advance = Callable[[int, int], object]
"""Called with the images written so far and the images in all."""


@dataclass(frozen=True)
class Task:
    """One image to draw: its set, what is on it (a species, a kind, or nothing) and its number."""

    split: str
    label: str
    number: int


@dataclass(frozen=True)
class _Order:
    """What all images have in common."""

    folder: Path
    seed: int
    side: int
    correlation: float


def write_plumage(
    to: Path,
    *,
    seed: int = 0,
    side: int = 64,
    counts: Mapping[str, int] = SPLITS,
    correlation: float = 0.0,
    processes: int | None = None,
    advance: Advance | None = None,
) -> None:
    """Write the data set below a new folder.

    Equal arguments write equal files, whatever `processes` is. An image depends on seed, side,
    correlation, set, species and number alone: larger `counts` add images and change none.

    Parameters
    ----------
    to : Path
        Must not exist; appears whole or not at all.
    seed : int
        Of all images, and of which species are held out; at least 0.
    side : int
        Of the images, in pixels, within `SIDES`.
    counts : mapping of str to int
        Images of each species by split, each at least 1; what is missing is as in `SPLITS`. The
        out-of-distribution sets follow ``test`` and the outliers ``train``.
    correlation : float
        From 0, habitats independent of species, to 1, each species in its own habitat.
    processes : int or None
        How many draw; None for as many as there are processors.
    advance : callable or None
        Told the progress.

    Raises
    ------
    DataError
        `to` exists already, or an argument is out of its range.
    """
    counts = {**SPLITS, **counts}
    _refuse(to, seed, side, counts, correlation)
    if processes is not None and processes < 1:
        raise DataError(f"`{processes}` processes cannot draw; give 1 or more")
    tasks = plan(seed, counts)
    to.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        for folder in {_folder(staging, task) for task in tasks}:
            folder.mkdir(parents=True)
        _draw_all(tasks, _Order(staging, seed, side, correlation), processes, advance)
        document = json.dumps(_facts(tasks, seed, side, correlation), indent=1)
        (staging / "data.json").write_text(document + "\n", encoding="utf-8")
        staging.chmod(0o755)
        staging.rename(to)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def scaled_counts(per_class: int) -> dict[str, int]:
    """Return `SPLITS` in proportion, with `per_class` images of each species to train on."""
    return {
        name: max(1, round(count * per_class / SPLITS["train"])) for name, count in SPLITS.items()
    }


def plan(seed: int, counts: Mapping[str, int]) -> list[Task]:
    """List every image of the data set.

    The out-of-distribution sets are as large as ``test`` is for the held-out species, and there
    are as many outliers as images to train with.
    """
    learned, left_out = known(seed), held_out(seed)
    tasks = [
        Task(split, name, number)
        for split in SPLITS
        for name in learned
        for number in range(counts[split])
    ]
    tasks += [
        Task("ood/held_out", name, number) for name in left_out for number in range(counts["test"])
    ]
    outside = counts["test"] * len(left_out)
    tasks += [Task("ood/background", "", number) for number in range(outside)]
    kinds = list(OBJECTS)
    tasks += [Task("ood/objects", kinds[number % len(kinds)], number) for number in range(outside)]
    kinds = list(OUTLIERS)
    return tasks + [
        Task("outliers", kinds[number % len(kinds)], number)
        for number in range(counts["train"] * len(learned))
    ]


def draw(task: Task, *, seed: int, side: int, correlation: float) -> tuple[Image.Image, str]:
    """Draw one image of the data set.

    Returns
    -------
    PIL.Image.Image
        `side` x `side` pixels, mode RGB.
    str
        The habitat, or of an object its kind.
    """
    rng = generator(seed, f"plumage/{task.split}/{task.label}", task.number)
    if task.split == "ood/objects":
        return object_scene(task.label, rng, side=side), task.label
    name = task.label if task.label in SPECIES else None
    habitat = draw_habitat(name, correlation, rng)
    if task.split == "outliers":
        return outlier_scene(task.label, habitat, rng, side=side), habitat
    return bird_scene(name, habitat, rng, side=side), habitat


def _draw_all(
    tasks: Sequence[Task], order: _Order, processes: int | None, advance: Advance | None
) -> None:
    workers = processes or _processors()
    if processes is None and len(tasks) < _FEWEST_FOR_PROCESSES:
        workers = 1
    batches = [tasks[start : start + _BATCH] for start in range(0, len(tasks), _BATCH)]
    done = 0
    for written in _written(batches, order, min(workers, len(batches))):
        done += written
        if advance:
            advance(done, len(tasks))


def _written(batches: Sequence[Sequence[Task]], order: _Order, workers: int) -> Iterator[int]:
    """Yield the number of images of each batch as it is finished."""
    if workers == 1:
        for batch in batches:
            yield _draw(batch, order)
        return
    # Not forked: the parent may have threads, of the progress bar or of torch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_to_parent) as pool:
        try:
            yield from pool.map(_draw, batches, [order] * len(batches))
        finally:
            pool.shutdown(cancel_futures=True)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _leave_to_parent() -> None:
    """Let Ctrl-C end the parent, which then ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw(batch: Sequence[Task], order: _Order) -> int:
    for task in batch:
        image, tag = draw(task, seed=order.seed, side=order.side, correlation=order.correlation)
        image.save(_folder(order.folder, task) / f"{task.number:04d}-{tag}.png", compress_level=3)
    return len(batch)


def _folder(root: Path, task: Task) -> Path:
    return root / task.split / ("" if task.split == "ood/objects" else task.label)


def _facts(tasks: Sequence[Task], seed: int, side: int, correlation: float) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for task in tasks:
        counts[task.split] = counts.get(task.split, 0) + 1
    return {
        "format_version": 1,
        "name": "plumage",
        "source": "drawn by train.data.plumage",
        "seed": seed,
        "size": side,
        "correlation": correlation,
        "classes": list(known(seed)),
        "held_out": sorted(held_out(seed)),
        "counts": counts,
        "habitats": list(HABITATS),
        "species": {
            name: {**asdict(species), "home": home(name)} for name, species in SPECIES.items()
        },
    }


def _refuse(to: Path, seed: int, side: int, counts: Mapping[str, int], correlation: float) -> None:
    if to.exists():
        raise DataError(
            f"`{to}` exists already and is not overwritten; remove it or give another folder"
        )
    if seed < 0:
        raise DataError(f"the seed is `{seed}`; give 0 or a larger whole number")
    if not SIDES[0] <= side <= SIDES[1]:
        raise DataError(f"the side is `{side}` pixels; give one from {SIDES[0]} to {SIDES[1]}")
    for name, count in counts.items():
        if name not in SPLITS:
            raise DataError(f"there is no split `{name}`; splits: {', '.join(SPLITS)}")
        if count < 1:
            raise DataError(f"`{name}` is to have `{count}` images of each species; give 1 or more")
    if not 0 <= correlation <= 1:
        raise DataError(f"the correlation is `{correlation}`; give a number from 0 to 1")
