"""The built-in data set `digits`: real handwriting that comes with scikit-learn, as folders.

1,797 digits by 13 people, 8 x 8 pixels of 17 greys, white ink on black, each filling its box. They
are written at 32 x 32. Three of the ten digits are held out: no model is trained on them, and they
are the near out-of-distribution set. Crops of scikit-learn's two sample photographs are the far
one.

The test part of the original collection is what scikit-learn has, without its writers: digits of
one person may be in several splits.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from oodserve.errors import DataError
from train.data.sources import generator

HELD_OUT = (2, 5, 8)
"""Digits that are out of distribution; fixed before any model was trained."""

SIZE = 32
"""Side of the written images, in pixels."""

SPLITS = {"train": 0.5, "validation": 0.1, "calibration": 0.2, "test": 0.2}
"""Share of each class that goes to each split."""

PHOTOS = ("china.jpg", "flower.jpg")
CROPS_PER_PHOTO = 100
CROP_SIDES = (48, 320)
"""Smallest and largest side of a crop, in pixels of the photograph."""


def write_digits(to: Path, *, seed: int = 0) -> None:
    """Write the data set below a new folder.

    ``train``, ``validation``, ``calibration`` and ``test`` hold a folder for each class, split at
    random within the class; ``ood/held_out/DIGIT`` and ``ood/photos`` are out of distribution;
    ``data.json`` counts them. Equal seeds write equal files.

    Parameters
    ----------
    to : Path
        Must not exist; appears whole or not at all.
    seed : int
        Of the splits and the crops.

    Raises
    ------
    DataError
        `to` exists already.
    """
    if to.exists():
        raise DataError(
            f"`{to}` exists already and is not overwritten; remove it or give another folder"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        counts = _write_handwriting(staging, seed) | _write_photos(staging, seed)
        facts = {
            "format_version": 1,
            "name": "digits",
            "source": "scikit-learn's load_digits and load_sample_image",
            "seed": seed,
            "size": SIZE,
            "classes": [str(digit) for digit in range(10) if digit not in HELD_OUT],
            "held_out": [str(digit) for digit in HELD_OUT],
            "counts": counts,
        }
        (staging / "data.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        staging.chmod(0o755)
        staging.rename(to)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def split_positions(count: int, *, rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Divide the positions below `count` among `SPLITS`, at random.

    Each split gets its share rounded to the nearest, cumulatively, so that none is lost.
    """
    order = rng.permutation(count)
    ends = np.round(np.cumsum(list(SPLITS.values())) * count).astype(np.int64)
    parts = np.split(order, ends[:-1])
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True)}


def enlarge(cells: NDArray[np.float64]) -> Image.Image:
    """Turn (8, 8) values from 0 to 16 into a grey picture of `SIZE` x `SIZE`, bicubic."""
    grey = Image.fromarray(np.round(cells * (255 / 16)).astype(np.uint8))
    return grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def _write_handwriting(root: Path, seed: int) -> dict[str, int]:
    bunch: Any = load_digits()
    counts: dict[str, int] = {}
    for digit in range(10):
        positions = np.flatnonzero(bunch.target == digit)
        if digit in HELD_OUT:
            parts = {"ood/held_out": np.arange(len(positions))}
        else:
            rng = generator(seed, "digits/split", digit)
            parts = split_positions(len(positions), rng=rng)
        for split, members in parts.items():
            folder = root / split / str(digit)
            folder.mkdir(parents=True)
            for position in positions[members]:
                enlarge(bunch.images[position]).save(folder / f"{position:04d}.png")
            counts[split] = counts.get(split, 0) + len(members)
    return counts


def _write_photos(root: Path, seed: int) -> dict[str, int]:
    folder = root / "ood" / "photos"
    folder.mkdir(parents=True)
    rng = generator(seed, "digits/photos")
    for name in PHOTOS:
        photo = Image.fromarray(load_sample_image(name))
        for number in range(CROPS_PER_PHOTO):
            side = int(rng.integers(CROP_SIDES[0], CROP_SIDES[1], endpoint=True))
            left = int(rng.integers(photo.width - side, endpoint=True))
            top = int(rng.integers(photo.height - side, endpoint=True))
            crop = photo.resize(
                (SIZE, SIZE),
                Image.Resampling.BICUBIC,
                box=(left, top, left + side, top + side),
            )
            crop.save(folder / f"{Path(name).stem}-{number:03d}.png")
    return {"ood/photos": CROPS_PER_PHOTO * len(PHOTOS)}
