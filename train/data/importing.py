"""Published data sets as trees of folders: which class goes where, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from oodserve.errors import DataError
from train.data.classes import ClassSplit, choose_classes
from train.data.formats.tree import SPLITS, Item, Tree
from train.data.placing import Placing, write_images
from train.data.sources import generator

CLASSES = "classes.json"
"""Name of the record that is stored with a tree: classes, how they were chosen, counts."""
SOURCE = "source.json"
"""The same of an unlabelled set."""


def import_tree(
    tree: Tree,
    to: Path,
    *,
    facts: Mapping[str, object],
    known: str = "all",
    allow_empty: bool = False,
    placing: Placing,
    console: Console | None = None,
) -> dict[str, int]:
    """Write a labelled set as a split tree.

    ``SPLIT/CLASS`` holds the known classes and ``ood/held_out/CLASS`` the test images of the
    others; their other images are left out. `CLASSES` records the classes, the rule and the counts.

    Parameters
    ----------
    tree : Tree
        With classes.
    to : Path
        Must not exist.
    facts : mapping of str to object
        Stored with it: name and options of the format.
    known : str
        Rule of `train.data.classes`.
    allow_empty : bool
        Leave classes without images out, instead of refusing them.
    placing : Placing
        How images are written.
    console : Console, optional
        Where progress is shown.

    Returns
    -------
    dict of str to int
        Number of images by split, and of ``ood/held_out``.

    Raises
    ------
    DataError
        `to` exists, the set has no classes, no training or no test images, a class is without
        images, the rule is wrong, or a file is missing or cannot be linked or read.
    """
    if not tree.classes:
        raise DataError(
            "the set has no classes; write it as outliers or as an out-of-distribution set of a "
            "tree (`--as`), or into a plain folder"
        )
    split = choose_classes(known, tree.classes)
    empty = _empty_classes(tree, split)
    if empty and not allow_empty:
        raise DataError(
            f"{len(empty)} of the chosen classes lack images for training or test, the first is "
            f"`{empty[0]}`; choose others, or leave them out with `--allow-empty`"
        )
    plan = _plan(tree, split, set(empty))
    counts = _count(plan)
    if not counts.get("train") or not counts.get("test"):
        raise DataError("there are no training or no test images of known classes; a tree has both")
    record = {
        "format_version": 1,
        **facts,
        **tree.facts,
        "chosen_by": split.how,
        "known": [label for label in split.known if label not in empty],
        "held_out": [label for label in split.held_out if label not in empty],
        "unused": list(split.unused),
        "empty": empty,
        "counts": counts,
    }
    write_images(plan, to, {CLASSES: record}, placing, console)
    return counts


def import_flat(
    tree: Tree,
    to: Path,
    *,
    facts: Mapping[str, object],
    split: str = "test",
    sample: int | None = None,
    seed: int = 0,
    placing: Placing,
    console: Console | None = None,
) -> int:
    """Write a set as one folder of images of no class, and return how many there are.

    Parameters
    ----------
    tree : Tree
        Unlabelled; or labelled, of which one split is taken, with folders for its classes.
    to : Path
        Must not exist.
    facts : mapping of str to object
        Stored with it in `SOURCE`.
    split : str
        Which split of a labelled set.
    sample : int, optional
        Take so many at random.
    seed : int
        Of that draw.
    placing, console
        As for `import_tree`.

    Raises
    ------
    DataError
        `to` exists, there are no images or fewer than `sample`, or a file is missing or cannot be
        linked or read.
    """
    plan = [(Path(item.name), item) for item in tree.flat]
    for label, items in tree.splits.get(split, {}).items():
        plan += [(Path(label, item.name), item) for item in items]
    if not plan:
        raise DataError(f"the set has no images of the split `{split}`; nothing is written")
    if sample is not None:
        if not 1 <= sample <= len(plan):
            raise DataError(f"cannot draw {sample} of {len(plan)} images; ask for fewer")
        order = generator(seed, "import/sample").permutation(len(plan))[:sample]
        plan = [plan[place] for place in sorted(order.tolist())]
    record = {
        "format_version": 1,
        **facts,
        **tree.facts,
        "sample": sample,
        "seed": None if sample is None else seed,
        "count": len(plan),
    }
    write_images(plan, to, {SOURCE: record}, placing, console)
    return len(plan)


def _empty_classes(tree: Tree, split: ClassSplit) -> list[str]:
    """Return the chosen classes without images: known ones need both splits, others test images."""
    learned = set(split.known)
    return [
        label
        for label in (*split.known, *split.held_out)
        if not tree.images("test", label) or (label in learned and not tree.images("train", label))
    ]


def _plan(tree: Tree, split: ClassSplit, empty: set[str]) -> list[tuple[Path, Item]]:
    places = [
        (name, label, Path(name, label))
        for name in SPLITS
        for label in split.known
        if name in tree.splits
    ]
    places += [("test", label, Path("ood", "held_out", label)) for label in split.held_out]
    return [
        (folder / item.name, item)
        for name, label, folder in places
        if label not in empty
        for item in tree.images(name, label)
    ]


def _count(plan: Sequence[tuple[Path, Item]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for path, _ in plan:
        name = "ood/held_out" if path.parts[0] == "ood" else path.parts[0]
        counts[name] = counts.get(name, 0) + 1
    return counts
