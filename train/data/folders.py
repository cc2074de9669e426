"""Folders of images to the sets that training, evaluation and calibration take.

    ROOT/train/CLASS/*           a split tree: `test` is needed; `validation` and `calibration`,
    ROOT/validation/CLASS/*      where they are missing, are drawn from `train`
    ROOT/calibration/CLASS/*
    ROOT/test/CLASS/*
    ROOT/ood/NAME/**             out-of-distribution sets, only ever evaluated on

    ROOT/CLASS/*                 a plain tree: all splits are drawn from it

Drawing is at random within each class and depends on `data.seed` and the file names alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oodserve.errors import DataError
from oodserve.folders import fingerprint, list_images
from oodserve.images import Preprocessing
from train.data.leaks import refuse_leaks
from train.data.procedural import ProceduralOutliers
from train.data.sources import ImageFiles, ImageSource, LabelledImages, generator
from train.recipes import PROCEDURAL, SYNTHESISED, DataRecipe

SPLITS = ("train", "validation", "calibration", "test")
"""In-distribution sets, by the names of their folders."""

HELD_OUT = "held_out"
"""Name of the out-of-distribution set of the classes that were left out."""

_LEAST_PROCEDURAL_SIDE = 32

Files = dict[str, list[Path]]
"""Image files by class, sorted."""


@dataclass(frozen=True)
class Splits:
    """All sets of one recipe.

    Attributes
    ----------
    train, validation, test : LabelledImages
        In-distribution images; no file is in two of them.
    calibration : LabelledImages or None
        None where the tree has no such split and none is to be drawn.
    ood : mapping of str to ImageSource
        Out-of-distribution sets by name, to evaluate on.
    outliers : ImageSource or None
        Images of no class, to train with.
    classes : tuple of str
        Class names in the order of the labels.
    held_out : tuple of str
        Classes left out of training.
    fingerprint : str
        SHA-256 over the names and contents of all in-distribution files.
    """

    train: LabelledImages
    validation: LabelledImages
    calibration: LabelledImages | None
    test: LabelledImages
    ood: Mapping[str, ImageSource]
    outliers: ImageSource | None
    classes: tuple[str, ...]
    held_out: tuple[str, ...]
    fingerprint: str


def open_splits(data: DataRecipe, preprocessing: Preprocessing) -> Splits:
    """Find, divide and check the images of a recipe; none is decoded.

    Parameters
    ----------
    data : DataRecipe
        Where the images are.
    preprocessing : Preprocessing
        The model's input: its background shows through transparent pixels, and procedural pictures
        are drawn at its size before cropping, or at 32 pixels if that is larger.

    Raises
    ------
    DataError
        The root or a split is missing, a class has no images or too few to divide, the splits
        disagree on the classes, a held-out class is unknown, or the outliers hold images that are
        classified or evaluated on.
    """
    root = Path(data.root)
    if not root.is_dir():
        raise DataError(
            f"there is no folder `{root}`; set `data.root`, or write a built-in set with "
            f"`python -m train data digits --to {root}`"
        )
    splits = _split_tree(root, data) if (root / "train").is_dir() else _plain_tree(root, data)
    ood = _ood_folders(root)
    held_out = data.held_out
    if held_out:
        ood = _with_held_out(ood, splits["test"], held_out, root)
    elif HELD_OUT in ood:
        held_out = tuple(_class_folders(root / "ood" / HELD_OUT))
    splits = {
        name: {label: paths for label, paths in files.items() if label not in data.held_out}
        for name, files in splits.items()
    }
    classes = tuple(splits["train"])
    if len(classes) < 2:
        raise DataError(
            f"`{root}` has {len(classes)} class to learn ({', '.join(classes) or 'none'}); "
            "a classifier needs at least 2"
        )
    inside = [path for files in splits.values() for paths in files.values() for path in paths]
    sets = {
        name: _labelled(name, files, classes, preprocessing.background)
        for name, files in splits.items()
    }
    return Splits(
        train=sets["train"],
        validation=sets["validation"],
        calibration=sets.get("calibration"),
        test=sets["test"],
        ood={
            name: ImageFiles(tuple(paths), preprocessing.background) for name, paths in ood.items()
        },
        outliers=_outliers(
            data,
            preprocessing,
            inside=inside,
            outside=[path for paths in ood.values() for path in paths],
            classes=(*classes, *held_out),
        ),
        classes=classes,
        held_out=held_out,
        fingerprint=fingerprint(inside, root),
    )


def _split_tree(root: Path, data: DataRecipe) -> dict[str, Files]:
    if not (root / "test").is_dir():
        raise DataError(
            f"`{root}` has a folder `train` but no `test`; add `test/CLASS/*`, or put the class "
            f"folders directly into `{root}` to have it divided"
        )
    names = [
        name for name in ("train", "validation", "calibration", "test") if (root / name).is_dir()
    ]
    found = {name: _classes(root / name) for name in names}
    for name, files in found.items():
        # Held-out classes are tested on and need to be nowhere else.
        odd = sorted((set(files) ^ set(found["train"])) - set(data.held_out))
        if odd:
            raise DataError(
                f"`{root / name}` and `{root / 'train'}` do not have the same classes; only one of "
                f"them has {', '.join(f'`{label}`' for label in odd)}"
            )
    fractions = {
        "validation": data.validation_fraction,
        "calibration": data.calibration_fraction,
    }
    missing = {name: share for name, share in fractions.items() if name not in found}
    return found | draw_splits(found["train"], missing, seed=data.seed)


def _plain_tree(root: Path, data: DataRecipe) -> dict[str, Files]:
    fractions = {
        "validation": data.validation_fraction,
        "calibration": data.calibration_fraction,
        "test": data.test_fraction,
    }
    return draw_splits(_classes(root, leave_out=("ood",)), fractions, seed=data.seed)


def draw_splits(files: Files, fractions: Mapping[str, float], *, seed: int) -> dict[str, Files]:
    """Divide the files of each class at random.

    Parameters
    ----------
    files : dict of str to list of Path
        Files by class, in a fixed order.
    fractions : mapping of str to float
        Share of each class that a split gets, rounded, but at least one file; a split of share 0 is
        not made. The rest is ``train``.
    seed : int
        Of the draw. Adding a class leaves the others as they were.

    Returns
    -------
    dict of str to Files
        ``train`` first, then the splits in the order given.

    Raises
    ------
    DataError
        Nothing would be left of a class for training.
    """
    wanted = {name: share for name, share in fractions.items() if share > 0}
    drawn: dict[str, Files] = {name: {} for name in ("train", *wanted)}
    for label, paths in files.items():
        order = generator(seed, f"split/{label}").permutation(len(paths)).tolist()
        for name, share in wanted.items():
            count = max(1, round(share * len(paths)))
            drawn[name][label] = sorted(paths[index] for index in order[:count])
            order = order[count:]
        if not order:
            raise DataError(
                f"class `{label}` has {len(paths)} images, too few to divide among "
                f"{', '.join(drawn)}; add images or remove the class"
            )
        drawn["train"][label] = sorted(paths[index] for index in order)
    return drawn


def _class_folders(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _classes(folder: Path, *, leave_out: Sequence[str] = ()) -> Files:
    labels = [label for label in _class_folders(folder) if label not in leave_out]
    if not labels:
        raise DataError(f"`{folder}` has no class folders; put images into `{folder}/CLASS/`")
    return {label: list_images(folder / label) for label in labels}


def _ood_folders(root: Path) -> dict[str, list[Path]]:
    folder = root / "ood"
    names = _class_folders(folder) if folder.is_dir() else []
    return {name: list_images(folder / name) for name in names}


def _with_held_out(
    ood: dict[str, list[Path]], test: Files, held_out: Sequence[str], root: Path
) -> dict[str, list[Path]]:
    unknown = [label for label in held_out if label not in test]
    if unknown:
        raise DataError(
            f"`data.held_out` names `{unknown[0]}`, which has no test images in `{root}`; "
            f"classes: {', '.join(test)}"
        )
    if HELD_OUT in ood:
        raise DataError(
            f"`data.held_out` names classes, but `{root / 'ood' / HELD_OUT}` exists as well; "
            "use one of them"
        )
    return ood | {HELD_OUT: sorted(path for label in held_out for path in test[label])}


def _labelled(
    name: str, files: Files, classes: tuple[str, ...], background: tuple[int, int, int]
) -> LabelledImages:
    paths = tuple(path for label in classes for path in files[label])
    labels = np.repeat(np.arange(len(classes)), [len(files[label]) for label in classes])
    source = ImageFiles(paths, background)
    return LabelledImages(name, source, labels.astype(np.int64), classes)


def _outliers(
    data: DataRecipe,
    preprocessing: Preprocessing,
    *,
    inside: Sequence[Path],
    outside: Sequence[Path],
    classes: Sequence[str],
) -> ImageSource | None:
    if data.outliers in ("", SYNTHESISED):
        return None
    if data.outliers == PROCEDURAL:
        sides = (preprocessing.resize_height, preprocessing.resize_width, _LEAST_PROCEDURAL_SIDE)
        return ProceduralOutliers(count=data.outlier_count, seed=data.seed, size=max(sides))
    folder = Path(data.outliers)
    if not folder.is_dir():
        raise DataError(
            f"there is no outlier folder `{folder}`; set `data.outliers` to a folder, to "
            f"{PROCEDURAL!r}, or to nothing"
        )
    paths = list_images(folder)
    refuse_leaks(paths, folder, inside=inside, outside=outside, classes=classes)
    return ImageFiles(tuple(paths), preprocessing.background)
