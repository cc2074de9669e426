"""Compiling a network's backbone with `torch.compile`, or saying why that is not possible."""

from __future__ import annotations

import torch

from oodserve.errors import RecipeError
from train.networks.classifier import Classifier


def compile_backbone(model: Classifier) -> None:
    """Compile the backbone in place; names, weights and results stay, up to rounding.

    The first pass of each kind (training, evaluation, another batch size) compiles and takes a
    minute or so. The head is left alone: methods put their own there.

    Raises
    ------
    RecipeError
        Nothing can be compiled for the model's device, usually for want of a compiler.
    """
    device = next(model.parameters()).device
    try:
        torch.compile(_probe)(torch.zeros(8, device=device))
    except Exception as error:  # compilers fail in ways of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RecipeError(
            f"`compile` = true, but torch cannot compile for `{device.type}` here ({reason}); "
            "install a C++ compiler such as g++ (for a GPU: Triton), or set `compile = false`"
        ) from error
    model.backbone.compile()


def _probe(values: torch.Tensor) -> torch.Tensor:
    return torch.sin(values) + 1
