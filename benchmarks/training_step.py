"""What a training step of each method costs, and how long a real loop waits for its images.

    python -m benchmarks.training_step [--rounds 7] [--side 64] [--batch 32] [--threads 1] [--write]

Every method and plain cross-entropy take a step in turn, on the same network and batch, so that a
machine that is slow for a while is so for all of them. A method's cost is the median, over the
rounds, of its time divided by that of the cross-entropy step of the same round. The second table
trains on JPEG files that are already about as small as the network's input. `--write` replaces
`benchmarks/results/training_step.md`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter
from rich.console import Console

from benchmarks.machine import describe
from train.data.folders import open_splits
from train.distributed import Group, start_fabric
from train.draw import Draw
from train.methods.method import TrainingBatch
from train.methods.registry import METHODS, MethodSettings, build_method
from train.models import build_classifier
from train.recipes import ModelRecipe, Recipe
from train.stage import Position, Stage, StageWork, Training

RESULT = Path(__file__).parent / "results" / "training_step.md"
SETTINGS: TypeAdapter[MethodSettings] = TypeAdapter(MethodSettings)
CLASSES = 10
WAIT_STEPS = 60
"""Steps over which waiting for images is measured."""

WAITS = ((0, "host"), (1, "host"), (2, "host"), (1, "device"))
"""`data.workers` and `augment.where` with which it is."""


@dataclass(frozen=True)
class Contender:
    """A method as it is measured, and the most that a step of it should cost."""

    title: str
    settings: Mapping[str, Any]
    goal: float | None = None
    """In cross-entropy steps."""


NAMED = (
    Contender("MixOE", {"name": "mixoe"}, 2.1),
    Contender("Logit MixOE + l_sim", {"name": "logit_mixoe"}, 3.2),
    Contender("ASCOOD", {"name": "ascood"}, 3.1),
    Contender("ASCOOD, shared forward", {"name": "ascood", "share_forward": True}, 2.5),
)
CONTENDERS = NAMED + tuple(
    Contender(name, {"name": name})
    for name in METHODS
    if name not in {"standard", *(one.settings["name"] for one in NAMED)}
)


def make_step(settings: Mapping[str, Any], *, side: int, batch: int) -> Callable[[], None]:
    """Return one training step of a method: objective, gradients, update."""
    torch.manual_seed(0)
    recipe = ModelRecipe(architecture="resnet18", feature_norm="zscore")
    model = build_classifier(recipe, CLASSES)
    method = build_method(SETTINGS.validate_python(dict(settings)))
    method.attach(model)
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    # So small a rate leaves the weights where they are: each step has the same work.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    images, outliers = (
        torch.randn(batch, 3, side, side, generator=generator).contiguous(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    )
    given = TrainingBatch(images, torch.arange(batch) % CLASSES, outliers)
    rng = np.random.default_rng(0)

    def step() -> None:
        draw = Draw(rng=rng, torch_generator=generator, epoch=1, epochs=2)
        optimizer.zero_grad()
        torch.autograd.backward(method.objective(model, given, draw)["loss"])
        optimizer.step()

    return step


def costs(*, rounds: int, side: int, batch: int) -> tuple[float, dict[str, list[float]]]:
    """Return the seconds of a cross-entropy step, and each method's ratios to it by round."""
    plain = make_step({"name": "standard"}, side=side, batch=batch)
    steps = {one.title: make_step(one.settings, side=side, batch=batch) for one in CONTENDERS}
    for step in (plain, *steps.values()):
        step()
    seconds, ratios = list[float](), {title: list[float]() for title in steps}
    for _ in range(rounds):
        for title, step in steps.items():
            # Before and after, so that a drift of the machine's speed cancels.
            before, own, after = _seconds(plain), _seconds(step), _seconds(plain)
            seconds += [before, after]
            ratios[title].append(2 * own / (before + after))
    return statistics.median(seconds), ratios


def _seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def write_images(root: Path, *, side: int, batch: int, steps: int) -> None:
    """Write a divided tree of JPEG files, and outliers, of `side` pixels."""
    rng = np.random.default_rng(0)
    for index in range(2 * batch * steps + 8):
        split = "test" if index < 4 else "validation" if index < 8 else "train"
        folder = root / "data" / split / "ab"[index % 2]
        if index >= 8 + batch * steps:
            folder = root / "outliers"
        folder.mkdir(parents=True, exist_ok=True)
        # As rough as a photograph is, so that a file has about its size.
        coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        picture = coarse.resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"{index:06d}.jpg", quality=90)


def uncounted(workers: int) -> int:
    """Return how many steps the batches last that workers, two each, read ahead; and two more."""
    return 2 * workers + 2


def wait_share(root: Path, *, side: int, batch: int, workers: int, where: str) -> float:
    """Return the share of its time that MixOE's training loop waits for images.

    The first steps are not counted: the workers start, and have read ahead while the first step
    was made, so that what follows would hardly wait however slow they are.
    """
    stored = side * 8 // 7
    size = {"height": side, "width": side, "resize": "exact", "interpolation": "bilinear"}
    stage = {"batch_size": batch, "learning_rate": 1e-3, "weight_decay": 0.0}
    recipe = Recipe.model_validate(
        {
            "name": "benchmark",
            "accelerator": "cpu",
            "data": {
                "root": str(root / "data"), "outliers": str(root / "outliers"), "workers": workers,
                "calibration_fraction": 0.0,
            },
            "input": size | {"resize_height": side, "resize_width": side},
            "augment": {"preset": "mixoe", "resize": stored, "where": where},
            "model": {"architecture": "resnet18"},
            "pretrain": stage | {"epochs": 0},
            "finetune": stage | {"epochs": 1},
            "method": {"name": "mixoe"},
        }
    )  # fmt: skip
    fabric = start_fabric(accelerator="cpu", precision="32-true")
    splits = open_splits(recipe.data, recipe.input)
    training = Training(
        recipe=recipe,
        folder=root,
        splits=splits,
        fabric=fabric,
        group=Group(fabric),
        model=build_classifier(recipe.model, len(splits.classes)),
        position=Position(),
        rng=np.random.default_rng(0),
        torch_generator=torch.Generator().manual_seed(0),
    )
    work = StageWork(training, Stage("finetune", recipe.finetune, build_method(recipe.method)))
    steps = work.steps(0)
    for _ in range(uncounted(workers)):
        next(steps)
    started, waited = time.perf_counter(), work.waited_s
    for _ in steps:
        pass
    share = (work.waited_s - waited) / (time.perf_counter() - started)
    work.close()
    return share


def to_markdown(options: argparse.Namespace) -> str:
    """Measure, and return the tables."""
    seconds, ratios = costs(rounds=options.rounds, side=options.side, batch=options.batch)
    lines = [
        "# Training step",
        "",
        f"{describe()} {_threads()}. Written by `python -m benchmarks.training_step --write`.",
        "",
        f"ResNet-18, {options.side} x {options.side} pixels, {options.batch} images and as many "
        f"outliers in a step, {options.rounds} rounds. A cross-entropy step takes "
        f"{1000 * seconds:.0f} ms.",
        "",
        "| method | cross-entropy steps | lowest to highest | goal |",
        "|---|---|---|---|",
    ]
    for one in CONTENDERS:
        found = ratios[one.title]
        goal = "" if one.goal is None else f"at most {one.goal}"
        lines.append(
            f"| {one.title} | {statistics.median(found):.2f} | {min(found):.2f} to "
            f"{max(found):.2f} | {goal} |"
        )
    lines += [
        "",
        f"Waiting for images: MixOE with its preset on JPEG files of {options.side * 8 // 7} "
        f"pixels, as a share of the loop's time over {WAIT_STEPS} steps. Goal: at most 5 %.",
        "",
        "| `data.workers` | `augment.where` | waiting |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        root, side = Path(name), options.side
        most = WAIT_STEPS + max(uncounted(workers) for workers, _ in WAITS)
        write_images(root, side=side * 8 // 7, batch=options.batch, steps=most)
        for workers, where in WAITS:
            share = wait_share(root, side=side, batch=options.batch, workers=workers, where=where)
            lines.append(f"| {workers} | {where} | {100 * share:.1f} % |")
    return "\n".join(lines) + "\n"


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each method (7)")
    parser.add_argument("--side", type=int, default=64, help="rows and columns of the input (64)")
    parser.add_argument("--batch", type=int, default=32, help="images in a step (32)")
    parser.add_argument("--threads", type=int, default=0, help="of torch (its own choice)")
    parser.add_argument("--write", action="store_true", help=f"replace {RESULT.name}")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    text = to_markdown(options)
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    if options.write:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
