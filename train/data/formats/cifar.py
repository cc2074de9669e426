"""CIFAR-10 and CIFAR-100 in their binary version.

The version for Python is pickles, which run code when they are opened; they are not opened here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from oodserve.errors import DataError
from train.data.formats.tree import Format, Item, Option, Pixels, Tree, inside, labelled, need

_PIXELS = 3 * 32 * 32
_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")


def read_cifar10(root: Path, options: Mapping[str, str]) -> Tree:
    """Read the five training batches and the test batch; a record is a label and 3,072 pixels.

    Raises
    ------
    DataError
        It is the version for Python, or a file is truncated.
    Incomplete
        A file is missing.
    """
    root = inside(
        _refuse_pickles(root, "cifar-10-batches-py", "data_batch_1"), "cifar-10-batches-bin"
    )
    names = _names(root / "batches.meta.txt")
    files = [("train", root / f"{name}.bin") for name in _BATCHES]
    files.append(("test", root / "test_batch.bin"))
    return labelled(names, _records(files, labels=1, column=0))


def read_cifar100(root: Path, options: Mapping[str, str]) -> Tree:
    """Read 100 fine or 20 coarse classes; a record is the coarse label, the fine one and pixels.

    Raises
    ------
    DataError
        It is the version for Python, or a file is truncated.
    Incomplete
        A file is missing.
    """
    root = inside(_refuse_pickles(root, "cifar-100-python", "meta"), "cifar-100-binary")
    level = options["level"]
    files = [(split, root / f"{split}.bin") for split in ("train", "test")]
    names = _names(root / f"{level}_label_names.txt")
    return labelled(names, _records(files, labels=2, column=("coarse", "fine").index(level)))


def _refuse_pickles(root: Path, folder: str, file: str) -> Path:
    for path in (root / folder, root / file):
        if path.exists():
            raise DataError(
                f"`{path}` is the version for Python, whose pickles are not opened; take the "
                "binary version"
            )
    return root


def _names(path: Path) -> list[str]:
    return need(path).read_text(encoding="utf-8").split()


def _records(
    files: list[tuple[str, Path]], *, labels: int, column: int
) -> Iterator[tuple[str, int, Item]]:
    counts: dict[str, int] = {}
    for split, path in files:
        content = np.fromfile(need(path), dtype=np.uint8)
        if not content.size or content.size % (labels + _PIXELS):
            raise DataError(
                f"`{path}` has {content.size} bytes, which is no multiple of the "
                f"{labels + _PIXELS} of a record; restore the file"
            )
        table = content.reshape(-1, labels + _PIXELS)
        # A record holds the three planes one after the other.
        images = table[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for label, pixels in zip(table[:, column].tolist(), images, strict=True):
            number = counts.get(split, 0)
            counts[split] = number + 1
            yield split, label, Pixels(f"{number:05d}.png", pixels)


CIFAR10 = Format(
    "CIFAR-10, binary version",
    """\
    cifar-10-batches-bin/batches.meta.txt
    cifar-10-batches-bin/data_batch_1.bin to data_batch_5.bin, test_batch.bin""",
    read_cifar10,
)
CIFAR100 = Format(
    "CIFAR-100, binary version",
    """\
    cifar-100-binary/fine_label_names.txt (coarse_label_names.txt)
    cifar-100-binary/train.bin, test.bin""",
    read_cifar100,
    {"level": Option("fine", "100 fine or 20 coarse classes", ("fine", "coarse"))},
)
