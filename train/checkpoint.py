"""Checkpoints: tensors as safetensors, everything else as JSON, replaced by one rename.

    checkpoints/
      last.json                  names the state file below; replaced atomically
      state-<ordinal>.safetensors

Nothing is pickled. A crash between the two files leaves the previous checkpoint in force. What a
name points to is on the disk before the name is, so a loss of power does not leave half of it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from oodserve.errors import DataError

POINTER = "last.json"


@dataclass(frozen=True)
class Checkpoint:
    """A point of training to go on from."""

    tensors: dict[str, Tensor]
    """Flat names to tensors: model, momentum buffers, generator states."""
    facts: dict[str, Any]
    """What JSON can hold: position, sums, stream states."""


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and drop the one before it."""
    folder.mkdir(parents=True, exist_ok=True)
    ordinal = 1 + max((_ordinal(path) for path in folder.glob("state-*.safetensors")), default=0)
    state = folder / f"state-{ordinal:08d}.safetensors"
    save_tensors(checkpoint.tensors, state)
    replace_text(folder / POINTER, json.dumps({"state": state.name} | checkpoint.facts, indent=1))
    for old in folder.glob("state-*.safetensors"):
        if old != state:
            old.unlink()


def load(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in force, or None if there is none.

    Raises
    ------
    DataError
        The checkpoint is damaged.
    """
    pointer = folder / POINTER
    if not pointer.exists():
        return None
    try:
        facts = json.loads(pointer.read_text())
        tensors = load_file(folder / facts.pop("state"))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            f"the checkpoint `{pointer}` is damaged ({error}); start a new run"
        ) from error
    return Checkpoint(tensors=tensors, facts=facts)


def state_file(folder: Path) -> Path | None:
    """Return the state file of the checkpoint in force, or None if there is none."""
    pointer = folder / POINTER
    if not pointer.exists():
        return None
    return folder / str(json.loads(pointer.read_text())["state"])


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary
    )
    _put(temporary, path)


def replace_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    _put(temporary, path)


def momentum_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return SGD's momentum buffers by parameter name; none before the first step."""
    state = optimizer.state_dict()["state"]
    return {
        names[index]: entry["momentum_buffer"]
        for index, entry in state.items()
        if entry.get("momentum_buffer") is not None
    }


def restore_momentum(
    optimizer: torch.optim.Optimizer, names: list[str], buffers: dict[str, Tensor]
) -> None:
    """Put back what `momentum_tensors` returned."""
    document = optimizer.state_dict()
    document["state"] = {
        index: {"momentum_buffer": buffers[name]}
        for index, name in enumerate(names)
        if name in buffers
    }
    optimizer.load_state_dict(document)


def _put(temporary: Path, path: Path) -> None:
    """Rename a finished file, contents first and then the name flushed to the disk."""
    _flush(temporary)
    temporary.rename(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ordinal(path: Path) -> int:
    return int(path.stem.partition("-")[2])
