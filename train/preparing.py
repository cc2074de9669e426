"""What a run begins with: images, processes, stages and the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from oodserve.errors import DataError, RecipeError
from train.compiling import compile_backbone
from train.data.contents import refuse_unreadable
from train.data.folders import Splits, open_splits
from train.distributed import Group, refuse_uneven, start_fabric
from train.methods.registry import build_method
from train.methods.standard import Standard, StandardSettings
from train.models import build_classifier
from train.networks.classifier import Classifier
from train.recipes import Recipe
from train.run import PRETRAINED, bare_model
from train.scorers.fitting import check_scorers
from train.stage import Position, Stage, Training


def prepare(recipe: Recipe, folder: Path) -> tuple[Training, list[Stage]]:
    """Open the data and build the model: everything that can be refused before a run exists.

    Raises
    ------
    DataError
        The data are not what the recipe needs.
    RecipeError
        A score does not fit the model, a batch cannot be divided, a run to start from has no
        weights, or nothing can be compiled.
    """
    splits = open_splits(recipe.data, recipe.input)
    stages = _stages(recipe)
    _refuse_large_batches(stages, len(splits.train))
    check_scorers(
        recipe.scores,
        recipe.scorers,
        bare_model(recipe, n_classes=len(splits.classes)),
        n_train=len(splits.train),
    )
    refuse_unreadable([splits.validation, splits.test])
    fabric = start_fabric(accelerator=recipe.accelerator, precision=recipe.precision)
    group = Group(fabric)
    _refuse_uneven_batches(stages, group.processes)
    training = Training(
        recipe=recipe,
        folder=folder,
        splits=splits,
        fabric=fabric,
        group=group,
        model=_build(recipe, splits, fabric.device, group.processes),
        position=Position(),
        rng=np.random.default_rng([recipe.seed, 1]),
        torch_generator=torch.Generator().manual_seed(recipe.seed),
    )
    return training, stages


def _build(recipe: Recipe, splits: Splits, device: torch.device, processes: int) -> Classifier:
    """Return the model as it starts, its random weights the same in every process."""
    torch.manual_seed(recipe.seed)
    model = build_classifier(recipe.model, len(splits.classes))
    if recipe.pretrain.from_run:
        _load_pretrained(model, recipe.pretrain.from_run)
    if processes > 1 and device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    # Already here, as a method may run the model over all images before its first step.
    model.to(device)
    if recipe.compile:
        compile_backbone(model)
    return model


def _stages(recipe: Recipe) -> list[Stage]:
    pretrain = recipe.pretrain
    if pretrain.from_run:
        pretrain = pretrain.model_copy(update={"epochs": 0})
    return [
        Stage("pretrain", pretrain, Standard(StandardSettings())),
        Stage("finetune", recipe.finetune, build_method(recipe.method)),
    ]


def _refuse_large_batches(stages: list[Stage], images: int) -> None:
    """Raise before anything is trained where a later stage could not make a step."""
    for stage in stages:
        if stage.settings.epochs > 0 and images < stage.settings.batch_size:
            raise DataError(
                f"{images} images make no batch of {stage.settings.batch_size}; lower "
                f"`{stage.name}.batch_size` or add images"
            )


def _refuse_uneven_batches(stages: list[Stage], processes: int) -> None:
    """Raise where a batch, of images or of outliers, cannot be divided among the processes."""
    for stage in stages:
        if stage.settings.epochs > 0:
            for key in ("batch_size", "outlier_batch_size"):
                refuse_uneven(
                    f"{stage.name}.{key}",
                    getattr(stage.settings, key),
                    processes=processes,
                    accumulate=stage.settings.accumulate,
                )


def _load_pretrained(model: Classifier, from_run: str) -> None:
    path = Path(from_run) / PRETRAINED
    if not path.is_file():
        raise RecipeError(
            f"`pretrain.from_run` = {from_run!r} has no `{PRETRAINED}`; "
            "give the folder of a run whose first stage is done"
        )
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise RecipeError(f"`{path}` does not fit this model ({error})") from error
