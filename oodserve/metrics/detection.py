"""How well a score separates in-distribution from out-of-distribution images.

Scores are larger for more in-distribution input. Equal scores are one group: no threshold splits
them, so no metric depends on the order of the rows. Nothing is interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from oodserve.metrics.arrays import ascending


@dataclass(frozen=True)
class OodMetrics:
    """The figures of one score on one set of outliers, each in [0, 1]."""

    auroc: float
    aupr_ood: float
    """Average precision with outliers as positives."""
    aupr_id: float
    """Average precision with in-distribution images as positives."""
    fpr95_ood: float
    """Share of in-distribution images flagged when >= 95 % of the outliers are caught."""
    miss95_id: float
    """Share of outliers accepted when >= 95 % of in-distribution images are accepted."""

    def report(self) -> dict[str, float]:
        """Return the figures under the names that reports use."""
        return {
            "auroc": self.auroc,
            "aupr_ood": self.aupr_ood,
            "aupr_id": self.aupr_id,
            "fpr@95tpr_ood": self.fpr95_ood,
            "ood_miss@95id": self.miss95_id,
        }


def accuracy(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of predictions that equal their label.

    Parameters
    ----------
    predicted, labels : (N,) int
        Class indices.

    Raises
    ------
    ValueError
        Shapes differ, are not one-dimensional, or N is 0.

    Examples
    --------
    >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
    0.75
    """
    given, wanted = np.asarray(predicted), np.asarray(labels)
    if given.shape != wanted.shape or given.ndim != 1 or given.size == 0:
        raise ValueError(
            f"`predicted` has shape {given.shape}, `labels` {wanted.shape}; expected the same (N,) "
            "with N >= 1"
        )
    return float(np.mean(given == wanted))


def auroc(in_scores: ArrayLike, out_scores: ArrayLike) -> float:
    """Return P(in > out) + P(in = out) / 2 for one random score of each kind.

    Parameters
    ----------
    in_scores : (N,) float
        Of in-distribution images.
    out_scores : (M,) float
        Of out-of-distribution images.

    Returns
    -------
    float
        1 is perfect, 0.5 is chance. The area under the ROC curve, whichever kind is positive.

    Raises
    ------
    ValueError
        Not one-dimensional, or empty.
    NonFiniteScore
        A score is NaN or infinite.

    Notes
    -----
    O((N + M) log(N + M)): by ranks, not by pairs.

    References
    ----------
    J. Hanley, B. McNeil, "The Meaning and Use of the Area under a Receiver Operating
    Characteristic (ROC) Curve", Radiology 1982.

    Examples
    --------
    >>> auroc([1, 2, 3], [0, 1, 2])  # 6 pairs won, 2 tied, of 9
    0.7777777777777778
    """
    inside, outside = ascending("in_scores", in_scores), ascending("out_scores", out_scores)
    won = np.searchsorted(outside, inside, side="left").sum(dtype=np.int64)
    won_or_tied = np.searchsorted(outside, inside, side="right").sum(dtype=np.int64)
    return float(won + won_or_tied) / (2.0 * inside.size * outside.size)


def aupr(
    in_scores: ArrayLike,
    out_scores: ArrayLike,
    *,
    positive: Literal["ood", "id"],
    base_rate: float | None = None,
) -> float:
    """Return the average precision, sum over thresholds of (R_i - R_(i-1)) P_i.

    Parameters
    ----------
    in_scores : (N,) float
        Of in-distribution images.
    out_scores : (M,) float
        Of out-of-distribution images.
    positive : {"ood", "id"}
        Which kind is to be found: outliers by low scores, or in-distribution images by high ones.
    base_rate : float or None
        In-distribution images for each outlier in the stream that is asked about, such as 5 for the
        5:1 of the literature on outlier exposure. None: N / M, the rate of the arrays.

    Returns
    -------
    float
        In [0, 1]; chance is the share of positives.

    Raises
    ------
    ValueError
        Not one-dimensional, or empty; `positive` unknown; `base_rate` not above 0 and finite.
    NonFiniteScore
        A score is NaN or infinite.

    Notes
    -----
    A step sum, as scikit-learn's ``average_precision_score``. The trapezoid under the same points,
    which some libraries report, is larger under ties.

    A base rate weighs the images of one kind: every in-distribution image counts
    ``base_rate * M / N`` times. That is the value that drawing subsets of that rate tends to, with
    every image used and nothing left to chance.

    Examples
    --------
    >>> round(aupr([1, 2, 3], [0, 1, 2], positive="ood"), 4)
    0.7556
    >>> round(aupr([1, 2, 3], [0, 1, 2], positive="ood", base_rate=5), 4)
    0.5055
    """
    inside, outside = ascending("in_scores", in_scores), ascending("out_scores", out_scores)
    weight = 1.0 if base_rate is None else _rate(base_rate) * outside.size / inside.size
    if positive == "id":
        wanted, other, relative = inside, outside, 1.0 / weight
    elif positive == "ood":
        wanted, other, relative = -outside[::-1], -inside[::-1], weight
    else:
        raise ValueError(f"`positive` = {positive!r} is unknown; choose `ood` or `id`")
    thresholds = np.unique(wanted)[::-1]
    found = wanted.size - np.searchsorted(wanted, thresholds)
    false = other.size - np.searchsorted(other, thresholds)
    gained = np.diff(found, prepend=0)
    return float(np.sum(gained * (found / (found + relative * false))) / wanted.size)


def fpr_at_95_tpr_ood(in_scores: ArrayLike, out_scores: ArrayLike, *, level: float = 0.95) -> float:
    """Return the share of in-distribution images flagged when enough outliers are caught.

    Flagged is a score <= t, with t the least outlier score at which >= `level` of the outliers are
    flagged. Reports call it ``fpr@95tpr_ood``. OpenOOD's convention with outliers as positives;
    papers on ODIN and energy report `ood_miss_at_95_id` under the same name, "FPR95".

    Parameters
    ----------
    in_scores : (N,) float
        Of in-distribution images.
    out_scores : (M,) float
        Of out-of-distribution images.
    level : float
        Share of outliers to catch, above 0 and at most 1.

    Returns
    -------
    float
        In [0, 1]; smaller is better.

    Raises
    ------
    ValueError
        Not one-dimensional, or empty; `level` out of range.
    NonFiniteScore
        A score is NaN or infinite.

    Examples
    --------
    >>> fpr_at_95_tpr_ood([1, 2, 3, 4], [0, 1, 2], level=0.6)  # t = 1
    0.25
    """
    inside, outside = ascending("in_scores", in_scores), ascending("out_scores", out_scores)
    threshold = outside[_least_count(level, outside.size) - 1]
    return float(np.mean(inside <= threshold))


def ood_miss_at_95_id(in_scores: ArrayLike, out_scores: ArrayLike, *, level: float = 0.95) -> float:
    """Return the share of outliers accepted when enough in-distribution images are accepted.

    Accepted is a score >= t, with t the largest in-distribution score at which >= `level` of the
    in-distribution images are accepted. Reports call it ``ood_miss@95id``. It is what an operator
    sees: t can be had without any outlier.

    Parameters
    ----------
    in_scores : (N,) float
        Of in-distribution images.
    out_scores : (M,) float
        Of out-of-distribution images.
    level : float
        Share of in-distribution images to accept, above 0 and at most 1.

    Returns
    -------
    float
        In [0, 1]; smaller is better.

    Raises
    ------
    ValueError
        Not one-dimensional, or empty; `level` out of range.
    NonFiniteScore
        A score is NaN or infinite.

    Examples
    --------
    >>> round(ood_miss_at_95_id([1, 2, 3, 4], [0, 1, 2], level=0.75), 4)  # t = 2
    0.3333
    """
    inside, outside = ascending("in_scores", in_scores), ascending("out_scores", out_scores)
    threshold = inside[-_least_count(level, inside.size)]
    return float(np.mean(outside >= threshold))


def evaluate_ood(in_scores: ArrayLike, out_scores: ArrayLike) -> OodMetrics:
    """Return every figure of one score on one set of outliers.

    Parameters
    ----------
    in_scores : (N,) float
        Of in-distribution images.
    out_scores : (M,) float
        Of out-of-distribution images.

    Raises
    ------
    ValueError
        Not one-dimensional, or empty.
    NonFiniteScore
        A score is NaN or infinite.

    Examples
    --------
    >>> evaluate_ood([3, 4, 5], [0, 1, 2]).report()["ood_miss@95id"]
    0.0
    """
    return OodMetrics(
        auroc=auroc(in_scores, out_scores),
        aupr_ood=aupr(in_scores, out_scores, positive="ood"),
        aupr_id=aupr(in_scores, out_scores, positive="id"),
        fpr95_ood=fpr_at_95_tpr_ood(in_scores, out_scores),
        miss95_id=ood_miss_at_95_id(in_scores, out_scores),
    )


def _least_count(level: float, total: int) -> int:
    """Return the least c with c / total >= level, by the very division that a curve would make."""
    if not 0.0 < level <= 1.0:
        raise ValueError(f"`level` = {level!r} is not above 0 and at most 1")
    count = max(1, math.floor(level * total))
    return count if count / total >= level else count + 1


def _rate(base_rate: float) -> float:
    if not 0.0 < base_rate < math.inf:
        raise ValueError(f"`base_rate` = {base_rate!r} is not above 0 and finite")
    return base_rate
