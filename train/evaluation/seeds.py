"""Figures of several runs: mean, spread and interval over seeds, and means over sets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from oodserve.errors import DataError
from train.evaluation.document import Evaluation


@dataclass(frozen=True)
class Summary:
    """A figure over repetitions.

    Attributes
    ----------
    mean : float
    sd : float or None
        Standard deviation with `ddof` in its divisor n - ddof; None where that is 0.
    interval : tuple of float, or None
        Student's interval of the mean, mean -/+ t s / sqrt(n) with s of ddof 1 and n - 1 degrees
        of freedom; None for one value. With three seeds t is 4.30: it is wide, and rightly so. It
        assumes values that are normal over seeds and may pass 1.
    n : int
        Number of values.
    ddof : int
        1 (sample, the default here) or 0 (population, as OpenOOD reports).
    """

    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    n: int
    ddof: int


def summarise(values: Sequence[float], *, ddof: int = 1, confidence: float = 0.95) -> Summary:
    """Return mean, standard deviation and interval of the values of several seeds.

    Parameters
    ----------
    values : sequence of float
        One for each seed, at least one, all finite.
    ddof : int
        0 or 1; see `Summary`. The interval does not depend on it.
    confidence : float
        Of the interval, two-sided, in (0, 1).

    Raises
    ------
    ValueError
        No value, one that is not finite, or `ddof` or `confidence` out of range.

    Examples
    --------
    >>> made = summarise([0.90, 0.92, 0.97])
    >>> round(made.mean, 4), round(made.sd, 4), [round(end, 4) for end in made.interval]
    (0.93, 0.0361, [0.8404, 1.0196])
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or given.size == 0 or not np.isfinite(given).all():
        raise ValueError(f"`values` = {list(values)!r}; expected one finite number or more")
    if ddof not in (0, 1) or not 0.0 < confidence < 1.0:
        raise ValueError(
            f"`ddof` = {ddof}, `confidence` = {confidence}; expected 0 or 1, and 0 < confidence < 1"
        )
    n, mean = given.size, float(given.mean())
    sd = float(given.std(ddof=ddof)) if n > ddof else None
    interval = None
    if n > 1:
        quantile = float(student.ppf((1.0 + confidence) / 2.0, n - 1))
        half = quantile * float(given.std(ddof=1)) / math.sqrt(n)
        interval = (mean - half, mean + half)
    return Summary(mean=mean, sd=sd, interval=interval, n=n, ddof=ddof)


def figures_of(evaluation: Evaluation, *, score: str, ood_sets: Iterable[str]) -> dict[str, float]:
    """Return one run's figures under one score, each the plain mean over the sets.

    Parameters
    ----------
    evaluation : Evaluation
    score : str
    ood_sets : iterable of str
        One set or several; those of a group, say. A figure that a set lacks is left out.

    Returns
    -------
    dict of str to float
        The names of `Detection.figures`, and ``accuracy``, ``aurc`` and, where there is a tau,
        ``false_alarms`` and ``coverage``, which are of the test images.

    Raises
    ------
    DataError
        A set or the score was not evaluated, or `ood_sets` is empty.
    """
    each = [evaluation.detection(name, score).figures() for name in ood_sets]
    if not each:
        raise DataError("there is no set to take the mean over; name one or more")
    shared = [name for name in each[0] if all(name in figures for figures in each)]
    found = {name: float(np.mean([figures[name] for figures in each])) for name in shared}
    (own,) = [item for item in evaluation.selective if item.score == score]
    found |= {"accuracy": evaluation.accuracy, "aurc": own.aurc}
    if own.at_tau is not None:
        for name in ("false_alarms", "coverage"):
            value = getattr(own.at_tau, name).value
            if value is not None:
                found[name] = value
    return found


def over_seeds(
    evaluations: Sequence[Evaluation], *, score: str, ood_sets: Sequence[str], ddof: int = 1
) -> dict[str, Summary]:
    """Return each figure over runs that differ in their seed.

    The mean over the sets is taken first, within each run, then mean and spread over the runs.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        One for each seed.
    score, ood_sets
        See `figures_of`.
    ddof : int
        See `Summary`.

    Raises
    ------
    DataError
        There is none, two have the same seed, their classes differ, or see `figures_of`.
    """
    seeds = [item.run.seed for item in evaluations]
    if not seeds or len(set(seeds)) != len(seeds):
        raise DataError(
            f"evaluations of the seeds {seeds} are no repetitions; expected one or more, each of "
            "another seed"
        )
    if len({item.run.classes for item in evaluations}) != 1:
        raise DataError(
            "the evaluations are of models with different classes; compare like with like"
        )
    each = [figures_of(item, score=score, ood_sets=ood_sets) for item in evaluations]
    shared = [name for name in each[0] if all(name in figures for figures in each)]
    return {name: summarise([figures[name] for figures in each], ddof=ddof) for name in shared}
