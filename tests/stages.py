"""A stage of training on a tiny network: what its steps do, however their batches are divided.

By itself, and as each of several processes that `torchrun` starts:

    torchrun --nproc-per-node 2 -m tests.stages FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor, nn

from oodserve.schema import Document
from tests.training import write_recipe
from train.data.folders import Splits
from train.data.procedural import ProceduralOutliers
from train.data.sources import LabelledImages
from train.distributed import PATIENCE, Group, Precision, leave, start_fabric
from train.embedding import embed
from train.methods.registry import METHODS, MethodSettings, build_method
from train.networks.classifier import Classifier
from train.recipes import Recipe, StageRecipe, load_recipe
from train.stage import Position, Stage, StageWork, Training

SETTINGS: TypeAdapter[MethodSettings] = TypeAdapter(MethodSettings)
BATCH = 8
STEPS = 3

CASES: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in sorted(METHODS)},
    "mixoe, lambda per sample": {"name": "mixoe", "lam_per": "sample"},
    "mixoe, cutmix": {"name": "mixoe", "operation": "cutmix"},
    "mixoe, cutmix per sample": {"name": "mixoe", "operation": "cutmix", "lam_per": "sample"},
    "mixoe, consistent": {"name": "mixoe", "consistency": "l2"},
    "mixoe, synthesised": {"name": "mixoe"},
    "mixoe, synthesised, permuted": {"name": "mixoe"},
    "logit_mixing, cutmix": {"name": "logit_mixing", "operation": "cutmix", "consistency": "l2"},
    "oe, mining": {"name": "oe", "mining": 0.5},
    "ascood, one pass for both": {"name": "ascood", "share_forward": True},
    "ascood, energy": {"name": "ascood", "loss": "energy"},
    "ice, diagonal": {"name": "ice", "covariance": "diag"},
}
"""Title to settings of a method; "synthesised" in it has the outliers made from the images, and
"permuted" each from another image than it goes with."""

WHOLE = {"oe, mining"}
"""Cases that compare what they compute across the batch, which therefore is not taken in parts."""

CLIPPED = {"ice": 5.0}
"""Norms to which the gradients of methods are clipped that need it."""

RATES = {"ice": 5e-3}
"""Learning rates of cases other than 0.05. With fewer images than features, this one makes what is
rounded otherwise in one step ten times as large in the next."""


class Run(Document):
    """How a case is trained."""

    accumulate: int = 1
    batch_norm: Literal["train", "frozen"] = "frozen"
    precision: Precision = "32-true"
    learning_rate: float | None = None
    """None for one that suits the case."""


def network(n_classes: int = 3) -> Classifier:
    """Return a small classifier with batch normalisation whose statistics are not the initial."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )
    model = Classifier(backbone, 48, n_classes, feature_norm="zscore").train()
    model(torch.randn(16, 3, 16, 16))
    return model


def training(title: str, folder: Path, run: Run | None = None) -> StageWork:
    """Return the work of a stage of a case, for as many processes as there are."""
    run = run or Run()
    stage = _stage(title, run)
    recipe = _recipe(folder, partner="permuted" if "permuted" in title else "self")
    fabric = start_fabric(accelerator="cpu", precision=run.precision)
    splits, model = _splits(with_outliers="synthesised" not in title), network()
    stage.method.attach(model)
    stage.method.initialise(model, lambda: embed(model, splits.train, recipe.input.spec()))
    work = Training(
        recipe=recipe,
        folder=folder,
        splits=splits,
        fabric=fabric,
        group=Group(fabric),
        model=model,
        position=Position(),
        rng=np.random.default_rng(1),
        torch_generator=torch.Generator().manual_seed(1),
    )
    return StageWork(work, stage)


def start(title: str, folder: Path) -> dict[str, Tensor]:
    """Return the weights of a case before its first step."""
    states = training(title, folder).training.model.state_dict()
    return {name: value.clone() for name, value in states.items()}


def weights(title: str, folder: Path, run: Run | None = None) -> dict[str, Tensor]:
    """Return the weights, and the logged terms, after a few steps of a case."""
    work = training(title, folder, run)
    for _ in zip(range(STEPS), work.steps(0), strict=False):
        pass
    terms = {
        f"term.{name}": torch.tensor(value) for name, value in work.training.position.sums.items()
    }
    states = work.training.model.state_dict().items()
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in states} | (
        terms
    )


def main(folder: Path) -> None:
    """Train every case in this process and its like; the first one writes what came out."""
    group = Group(start_fabric(accelerator="cpu", precision="32-true"))
    process_group = torch.distributed.distributed_c10d._get_default_group()
    waits = process_group._get_backend(torch.device("cpu")).options._timeout
    assert waits == PATIENCE, waits
    cases = {title: Run() for title in CASES}
    cases |= {"standard, train": Run(batch_norm="train"), "mixup, parts": Run(accumulate=2)}
    for title, run in cases.items():
        found = weights(title, folder, run)
        for name, value in found.items():
            both = group.gather(value.reshape(1, -1))
            assert torch.equal(both[0], both[-1]), f"{title}: {name} differs between processes"
        if group.is_main:
            save_file(found, folder / f"{title}.safetensors")


def _stage(title: str, run: Run) -> Stage:
    name = title.partition(",")[0]
    settings = SETTINGS.validate_python(CASES.get(title, {"name": name}))
    recipe = StageRecipe(
        epochs=1,
        batch_size=BATCH,
        learning_rate=run.learning_rate or RATES.get(title, 0.05),
        min_learning_rate=0.0,
        weight_decay=5e-4,
        gradient_clip_norm=CLIPPED.get(name),
        accumulate=run.accumulate,
        batch_norm=run.batch_norm,
    )
    return Stage("finetune", recipe, build_method(settings))


def _recipe(folder: Path, *, partner: str) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    group_rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    path = write_recipe(folder / f"recipe-{group_rank}.toml", folder)
    return load_recipe(path, ['augment={preset="none"}', f"synthesis.partner={partner}"])


def _splits(*, with_outliers: bool) -> Splits:
    labels = np.arange(BATCH * STEPS, dtype=np.int64) % 3
    images = LabelledImages(
        "train", ProceduralOutliers(count=len(labels), seed=3, size=16), labels, ("a", "b", "c")
    )
    return Splits(
        train=images,
        validation=images,
        calibration=None,
        test=images,
        ood={},
        outliers=ProceduralOutliers(count=20, seed=4, size=16) if with_outliers else None,
        classes=images.classes,
        held_out=(),
        fingerprint="0" * 64,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave()
