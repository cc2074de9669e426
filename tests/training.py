"""A small image tree and a recipe that trains on it in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RECIPE = """
name = "tiny"
seed = {seed}

[data]
root = "{root}"
outliers = "procedural"
outlier_count = 40

[input]
height = 16
width = 16
resize = "exact"
resize_height = 16
resize_width = 16
interpolation = "bilinear"

[augment]
preset = "digits"

[model]
architecture = "resnet18"
stem = "imagenet"

[pretrain]
epochs = 2
batch_size = 8
learning_rate = 0.05
weight_decay = 5e-4

[finetune]
epochs = 2
batch_size = 8
learning_rate = 0.01
weight_decay = 5e-4

[method]
name = "logit_mixoe"
"""

CLASSES = ("bars", "discs", "rings")


def write_tree(root: Path, *, seed: int = 0, train: int = 12, other: int = 6) -> Path:
    """Write a split tree of three kinds of shapes, and squares as out-of-distribution images."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("validation", other), ("calibration", 60),
                         ("test", other)):  # fmt: skip
        for kind in CLASSES:
            for number in range(count):
                _write(_draw(kind, rng), root / split / kind / f"{number:03d}.png")
    for number in range(8):
        _write(_draw("squares", rng), root / "ood" / "squares" / f"{number:03d}.png")
    return root


def write_recipe(path: Path, root: Path, *, seed: int = 0) -> Path:
    """Write the recipe for such a tree."""
    path.write_text(RECIPE.format(root=root, seed=seed))
    return path


def _draw(kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:16, :16]
    centre = rng.uniform(6, 10, size=2)
    radius = np.hypot(rows - centre[0], columns - centre[1])
    masks = {
        "bars": np.abs(columns - centre[1]) < 1.5,
        "discs": radius < 4,
        "rings": np.abs(radius - 5) < 1,
        "squares": np.maximum(np.abs(rows - centre[0]), np.abs(columns - centre[1])) < 4,
    }
    noise = rng.uniform(0, 30, size=(16, 16))
    pixels: NDArray[np.uint8] = np.clip(masks[kind] * 220 + noise, 0, 255).astype(np.uint8)
    return pixels


def _write(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
