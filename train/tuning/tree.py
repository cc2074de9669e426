"""A tree of the training and validation images alone, for trials to train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodserve.errors import DataError
from oodserve.folders import list_images
from train.data.folders import draw_splits
from train.data.formats.tree import ImageFile
from train.data.placing import Placing, write_images
from train.recipes import DataRecipe


def training_tree(data: DataRecipe, to: Path) -> DataRecipe:
    """Link the training and validation images into a tree of their own, once.

    The validation images stand in for test images, which a tree must have. Neither test images nor
    out-of-distribution sets are opened; of a plain tree their names are listed.

    Parameters
    ----------
    data : DataRecipe
        The images of the recipe.
    to : Path
        The tree; kept if it exists.

    Returns
    -------
    DataRecipe
        The same, with the new tree.

    Raises
    ------
    DataError
        The images are missing, or too few to divide.
    """
    if not to.exists():
        plan = [
            (Path(split, label, f"{number:06d}-{path.name}"), ImageFile(path.name, path))
            for source, splits in (("train", ("train",)), ("validation", ("validation", "test")))
            for label, paths in _training_files(data)[source].items()
            for split in splits
            for number, path in enumerate(paths)
        ]
        write_images(plan, to, {}, Placing(link="symlink"), None)
    return data.model_copy(update={"root": str(to), "held_out": (), "calibration_fraction": 0.0})


def _training_files(data: DataRecipe) -> dict[str, dict[str, list[Path]]]:
    """Divide the images as `open_splits` does; test images need not be there."""
    root = Path(data.root)
    divided = (root / "train").is_dir()
    files = _files(root / "train" if divided else root, leave_out=() if divided else ("ood",))
    shares = {"validation": data.validation_fraction, "calibration": data.calibration_fraction}
    if divided:
        there = [name for name in shares if (root / name).is_dir()]
    else:
        there, shares = [], shares | {"test": data.test_fraction}
    missing = {name: share for name, share in shares.items() if name not in there}
    found = draw_splits(files, missing, seed=data.seed)
    if "validation" in there:
        found["validation"] = _files(root / "validation")
    return {
        split: {label: paths for label, paths in found[split].items() if label not in data.held_out}
        for split in ("train", "validation")
    }


def _files(folder: Path, *, leave_out: Sequence[str] = ()) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DataError(f"there is no folder `{folder}`; set `data.root` to the images")
    labels = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in leave_out
    )
    return {label: list_images(folder / label) for label in labels}
