"""Pretrained weights of a backbone: by torchvision's name, or from a local file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from oodserve.errors import WeightsUnavailable

SUFFIXES = (".safetensors", ".pth")
"""Endings that mark a value of `model.weights` as a file."""

_CLASSIFIER_LAYERS = ("fc.weight", "fc.bias")


def is_file(weights: str) -> bool:
    """Return whether the value names a file rather than weights that torchvision knows."""
    return weights.endswith(SUFFIXES)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a flat mapping from names to tensors; nothing in the file is executed.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or ``.pth`` as ``torch.save`` writes a state dictionary.

    Raises
    ------
    WeightsUnavailable
        The file is missing, damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise WeightsUnavailable(
            f"no weights file at `{path.absolute()}`; correct `model.weights`, or put it there"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsUnavailable(
            f"`{path}` cannot be read as {path.suffix} weights ({reason}); "
            "save the model's state dictionary, and nothing else, again"
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise WeightsUnavailable(
            f"`{path}` holds a {type(content).__name__} that is no flat mapping from names to "
            "tensors; save the model's state dictionary, and nothing else"
        )
    return dict(content)


def download_weights(name: str, *, known: Any) -> dict[str, Tensor]:
    """Return weights that torchvision publishes, from its cache if they are there.

    Parameters
    ----------
    name : str
        Such as ``IMAGENET1K_V1``.
    known : type of torchvision.models.WeightsEnum
        The architecture's.

    Raises
    ------
    WeightsUnavailable
        There are none of this name, or they can be neither found in the cache nor downloaded.
    """
    entries = {entry.name: entry for entry in known}
    if name not in entries:
        raise WeightsUnavailable(
            f"`model.weights` = {name!r} is unknown; use `none`, one of {', '.join(entries)}, "
            f"or a file ending in {' or '.join(SUFFIXES)}"
        )
    url: str = entries[name].url
    try:
        state: dict[str, Tensor] = entries[name].get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, HTTPException, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsUnavailable(
            f"{name} can be neither read from `{torch.hub.get_dir()}` nor downloaded from {url} "
            f"({error}); download it elsewhere and give the file, or set `model.weights` to `none`"
        ) from error
    return state


def load_backbone(backbone: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights into a backbone; the classifier layer among them, if there is one, is left out.

    Parameters
    ----------
    backbone : nn.Module
        Changed in place.
    state : mapping from names to tensors
        Of a torchvision model, or of a `Classifier`.
    source : str
        For messages: where the weights are from.

    Raises
    ------
    WeightsUnavailable
        A tensor is missing, unknown, or of another shape; the message names it.
    """
    given = _backbone_part(state)
    wanted = backbone.state_dict()
    faults = [
        f"`{name}` is {tuple(given[name].shape)}, the model's is {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    # Files from before torch 0.4.1 do not count batches, and nothing here reads the count.
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    faults += [f"`{name}` is missing" for name in wanted.keys() - given.keys() - counters]
    faults += [f"`{name}` is unknown" for name in given.keys() - wanted.keys()]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsUnavailable(
            f"the weights of {source} do not fit the model: {'; '.join(sorted(faults)[:3])}{more}; "
            "set `model.architecture` and `model.stem` to those they were made for"
        )
    backbone.load_state_dict(given, strict=False)


def _backbone_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = {
        name.removeprefix("backbone."): tensor
        for name, tensor in state.items()
        if name.startswith("backbone.")
    }
    return own or {name: value for name, value in state.items() if name not in _CLASSIFIER_LAYERS}
