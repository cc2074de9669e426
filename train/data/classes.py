"""Which classes of a data set are known and which are held out as out of distribution.

    random:SEED:COUNT[:OF]   COUNT known classes, drawn from all or from the first OF
    ranked:FILE:COUNT        the COUNT classes that a classifier of all classes knows best
    list:FILE                the known classes, one name a line

Ranking follows Appendix A of the MixOE preprint (arXiv 2106.03917): it looks at test images, so
the known classes' accuracy is an optimistic figure. The random draw is that of the benchmark with
the published MixOE code; equal seeds, counts and numbers of classes give its splits.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oodserve.errors import DataError

RANKING_COLUMNS = ("class", "accuracy", "mean_entropy")
"""Columns of a file of statistics for ``ranked``."""


@dataclass(frozen=True)
class ClassSplit:
    """Classes by what becomes of them, each in the published order.

    Attributes
    ----------
    known : tuple of str
        To be learned.
    held_out : tuple of str
        Never trained on; their test images are out of distribution.
    unused : tuple of str
        Neither: outside of what ``random:SEED:COUNT:OF`` draws from.
    how : str
        The rule as it was given.
    """

    known: tuple[str, ...]
    held_out: tuple[str, ...]
    unused: tuple[str, ...]
    how: str


def choose_classes(rule: str, classes: Sequence[str]) -> ClassSplit:
    """Divide classes by a rule.

    Parameters
    ----------
    rule : str
        One of the forms above, or ``all``.
    classes : sequence of str
        All classes in the published order.

    Raises
    ------
    DataError
        The rule has another form, a count is impossible, a file is missing or malformed, or names a
        class that does not exist.
    """
    kind, _, rest = rule.partition(":")
    if rule == "all":
        return ClassSplit(tuple(classes), (), (), rule)
    if kind == "random" and rest:
        numbers = [int(part) if part.isdecimal() else -1 for part in rest.split(":")]
        if len(numbers) in (2, 3) and min(numbers) >= 0:
            pool = numbers[2] if len(numbers) == 3 else len(classes)
            return _random(rule, classes, seed=numbers[0], count=numbers[1], pool=pool)
    if kind == "ranked" and rest:
        file, _, count = rest.rpartition(":")
        if file and count.isdecimal():
            chosen = _best(read_ranking(Path(file)), classes, int(count), Path(file))
            return _divide(rule, classes, chosen)
    if kind == "list" and rest:
        return _divide(rule, classes, _listed(Path(rest), classes))
    raise DataError(
        f"`{rule}` is no rule for the known classes; expected random:SEED:COUNT, "
        "random:SEED:COUNT:OF, ranked:FILE:COUNT, list:FILE or all"
    )


def random_classes(pool: int, count: int, *, seed: int) -> NDArray[np.int64]:
    """Draw class numbers without replacement.

    NumPy's legacy generator, whose stream is frozen, is used because published splits were drawn
    with it.

    Parameters
    ----------
    pool : int
        Numbers from 0 to `pool` - 1 are drawn from.
    count : int
        How many, at most `pool`.
    seed : int
        0 to 2**32 - 1.

    Returns
    -------
    (count,) int64
        Ascending.
    """
    chosen = np.random.RandomState(seed).choice(range(pool), count, replace=False)
    return np.sort(chosen).astype(np.int64)


def class_statistics(
    logits: NDArray[np.floating], labels: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each class's accuracy and mean entropy on test images.

    Parameters
    ----------
    logits : (N, K) float
        Of a classifier of all K classes.
    labels : (N,) int
        True classes.

    Returns
    -------
    accuracy : (K,) float64
        Share of the images of a class that are given to it.
    mean_entropy : (K,) float64
        Mean entropy of the softmax over the images of a class, in nats.

    Raises
    ------
    DataError
        The shapes do not fit, a logit is not finite, or a class has no image.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise DataError(
            f"logits of shape {logits.shape} and labels of shape {labels.shape} do not fit; "
            "expected (N, K) and (N,)"
        )
    if not np.isfinite(logits).all():
        raise DataError("there are logits that are not finite; no entropy can be computed")
    values = logits.astype(np.float64)
    if labels.size and not (labels.min() >= 0 and labels.max() < values.shape[1]):
        raise DataError(f"there is a label outside of 0 to {values.shape[1] - 1}")
    counts = np.bincount(labels, minlength=values.shape[1])
    if not counts.all():
        raise DataError(
            f"class {int(np.argmin(counts > 0))} has no test image, so it cannot be ranked; "
            "leave it out or add images"
        )
    shifted = values - values.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    log_p = shifted - log_sum
    # p log p tends to 0 where p underflows.
    entropy = -(np.exp(log_p) * log_p).sum(axis=1)
    correct = values.argmax(axis=1) == labels
    return (
        np.bincount(labels, weights=correct, minlength=len(counts)) / counts,
        np.bincount(labels, weights=entropy, minlength=len(counts)) / counts,
    )


def class_scores(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return S(c) = accuracy - mean entropy for each class (MixOE, Appendix A).

    Parameters
    ----------
    logits, labels
        As for `class_statistics`.

    Returns
    -------
    (K,) float64
        Larger for classes that are known better.

    Raises
    ------
    DataError
        As for `class_statistics`.
    """
    accuracy, mean_entropy = class_statistics(logits, labels)
    return accuracy - mean_entropy


def write_ranking(
    path: Path,
    classes: Sequence[str],
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
) -> None:
    """Write the statistics of each class as the CSV file that ``ranked:FILE:COUNT`` reads.

    Parameters
    ----------
    path : Path
        Is overwritten.
    classes : sequence of str
        Names in the order of the logits.
    logits, labels
        As for `class_statistics`.

    Raises
    ------
    DataError
        As for `class_statistics`, or there is not one name for each logit.
    """
    accuracy, mean_entropy = class_statistics(logits, labels)
    if len(classes) != len(accuracy):
        raise DataError(f"{len(classes)} class names for {len(accuracy)} logits; give one for each")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(RANKING_COLUMNS)
        for row in zip(classes, accuracy.tolist(), mean_entropy.tolist(), strict=True):
            writer.writerow(row)


def read_ranking(path: Path) -> dict[str, float]:
    """Return S(c) by class from a file of statistics.

    Raises
    ------
    DataError
        The file is missing, lacks a column, has a value that is no number, or a class twice.
    """
    if not path.is_file():
        raise DataError(f"there is no file `{path}` of class statistics; write it first")
    scores: dict[str, float] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        table = csv.DictReader(stream)
        missing = [name for name in RANKING_COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise DataError(
                f"`{path}` has no column `{missing[0]}`; expected {', '.join(RANKING_COLUMNS)}"
            )
        for row in table:
            try:
                score = float(row["accuracy"]) - float(row["mean_entropy"])
            except (TypeError, ValueError):
                score = float("nan")
            if not np.isfinite(score) or row["class"] in scores:
                raise DataError(
                    f"line {table.line_num} of `{path}` has a value that is no number, or a class "
                    "a second time; expected one line of finite numbers for each class"
                )
            scores[row["class"]] = score
    return scores


def _random(rule: str, classes: Sequence[str], *, seed: int, count: int, pool: int) -> ClassSplit:
    if not 1 <= count <= pool <= len(classes) or seed >= 2**32:
        raise DataError(
            f"`{rule}` draws {count} of {pool} classes with seed {seed}, but there are "
            f"{len(classes)} classes; expected 1 <= COUNT <= OF <= {len(classes)} and a seed below "
            "2**32"
        )
    chosen = {classes[number] for number in random_classes(pool, count, seed=seed)}
    return _divide(rule, classes[:pool], chosen, unused=classes[pool:])


def _best(scores: dict[str, float], classes: Sequence[str], count: int, path: Path) -> set[str]:
    odd = sorted(set(scores) ^ set(classes))
    if odd:
        raise DataError(
            f"`{path}` and the data set do not have the same classes; only one of them has "
            f"`{odd[0]}`"
        )
    if not 1 <= count <= len(classes):
        raise DataError(f"cannot take the best {count} of {len(classes)} classes")
    # A stable sort: of equal classes the first ones in the published order are taken.
    return set(sorted(classes, key=lambda label: -scores[label])[:count])


def _listed(path: Path, classes: Sequence[str]) -> set[str]:
    if not path.is_file():
        raise DataError(f"there is no file `{path}` of known classes; give one name a line")
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = {name for name in names if name}
    unknown = sorted(chosen - set(classes))
    if unknown:
        raise DataError(f"`{path}` names the class `{unknown[0]}`, which the data set lacks")
    if not chosen:
        raise DataError(f"`{path}` names no class; give one name a line")
    return chosen


def _divide(
    rule: str, classes: Sequence[str], chosen: set[str], unused: Sequence[str] = ()
) -> ClassSplit:
    return ClassSplit(
        known=tuple(label for label in classes if label in chosen),
        held_out=tuple(label for label in classes if label not in chosen),
        unused=tuple(unused),
        how=rule,
    )
