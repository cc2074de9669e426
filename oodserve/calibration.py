"""From held-out in-distribution scores to a threshold tau that keeps what it promises.

An image is *in* when its score >= tau and *out* when its score < tau. With alpha = 1 - target TPR
and the n calibration scores sorted ascending, both rules take tau = s_(k), the k-th smallest:

- ``pac``: the largest k with P(Binomial(n, alpha) <= k - 1) <= delta. With probability
  >= 1 - delta over calibration sets, the share of in-distribution images accepted is >= 1 - alpha.
- ``marginal``: k = floor(alpha (n + 1)), split conformal prediction. That share is >= 1 - alpha on
  average over calibration sets, and below it for almost half of them.

Both are distribution-free, for images exchangeable with the calibration images; ties only make
them more cautious. With several scores each threshold keeps its promise by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AfterValidator, Field, ValidationError, model_validator

from oodserve.binomial import binomial_cdf as binomial_cdf
from oodserve.binomial import clopper_pearson_interval as clopper_pearson_interval
from oodserve.binomial import clopper_pearson_lower as clopper_pearson_lower
from oodserve.binomial import clopper_pearson_upper as clopper_pearson_upper
from oodserve.errors import CalibrationError, InvalidRequest, NonFiniteScore
from oodserve.ranks import conformal_rank
from oodserve.ranks import marginal_rank as marginal_rank
from oodserve.ranks import marginal_samples_needed as marginal_samples_needed
from oodserve.ranks import pac_rank as pac_rank
from oodserve.ranks import pac_samples_needed as pac_samples_needed
from oodserve.schema import Document, Sha256, explain

Rule = Literal["pac", "marginal"]
"""How the rank k is chosen; see the module's description."""

MAX_PAIRS = 10_000
"""Distinct scores up to which a calibration keeps all of them."""

EXACT_TAIL = 1_000
"""Lowest calibration scores that are never thinned, nor are those up to tau."""

ADVISED_SAMPLES = 1_000
"""Calibration images below which `small_sample_warning` speaks."""

MARGINAL_CONFIDENCE = 0.95
"""Confidence of `tpr_lower` and `rejection_upper` under the rule ``marginal``."""

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
ScoreName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
ClassIndex = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1, le=10**9)]


def _check_utc(text: str) -> str:
    if not text.endswith("Z"):
        raise ValueError("expected an ISO 8601 time in UTC such as 2026-01-31T12:00:00Z")
    datetime.fromisoformat(text)
    return text


UtcTime = Annotated[str, AfterValidator(_check_utc)]


class Runtime(Document):
    """What computed the scores: another one moves them, so it needs a calibration of its own."""

    library: Annotated[str, Field(min_length=1)]
    """``onnxruntime``, also where Triton runs it: embedded or remote is only transport."""
    provider: Literal["cpu", "cuda", "tensorrt"]
    precision: Literal["fp32", "fp16", "int8"]


# Equality by identity: documents are compared by their fields, not by what they cache.
@dataclass(frozen=True, eq=False)
class _Reference:
    """The pairs of a calibration as arrays; `ranks` has a leading 0."""

    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]

    def counts(self, scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (#{c < score}, #{c <= score}) over calibration scores c, for each score."""
        after = np.searchsorted(self.scores, scores, side="right")
        is_tied = self.scores[np.maximum(after, 1) - 1] == scores
        return self.ranks[after - is_tied], self.ranks[after]


class ScoreCalibration(Document):
    """The threshold of one score, its guarantee, and the reference for p-values.

    Examples
    --------
    >>> twenty = [31, 42, 55, 58, 61, 66, 70, 72, 75, 78, 80, 83, 85, 88, 90, 92, 94, 96, 97, 99]
    >>> made = calibrate_score(twenty, rule="marginal", target_tpr=0.9, confidence=None)
    >>> made.k, made.tau, round(made.tpr_lower, 4)
    (2, 42.0, 0.7839)
    >>> made.is_out(31.0), made.is_out(42.0)
    (True, False)
    >>> round(made.p_value(31.0), 4), round(made.p_value(42.0), 4)
    (0.0952, 0.1429)
    """

    rule: Rule
    target_tpr: Fraction
    """Share of in-distribution images to accept: 1 - alpha."""
    confidence: Fraction | None
    """1 - delta of the rule ``pac``; None under ``marginal``, which has none."""
    n: Count
    """Number of calibration images."""
    k: Count
    """Rank of tau among the calibration scores, 1 = smallest."""
    tau: float
    """Threshold: a score below it is out."""
    tpr_lower: Share
    """Lower bound on the share of in-distribution images accepted, at `confidence` (``marginal``:
    at 0.95): 1 - `rejection_upper`."""
    rejection_upper: Share
    """Upper bound on the share of in-distribution images rejected, BetaInv(confidence; k,
    n - k + 1): what monitoring may call normal."""
    values: Annotated[tuple[tuple[float, Count], ...], Field(min_length=1)]
    """(score, rank) ascending, rank = number of calibration scores <= score. Where scores between
    this pair's and the next one's were left out (only above 10,000 distinct scores, and only above
    tau), the rank counts those too, so that a p-value read from the last pair at or below a score
    is rounded up, by at most 1/10,000."""

    @model_validator(mode="after")
    def _values_are_ranked(self) -> ScoreCalibration:
        scores, ranks = self._reference.scores, self._reference.ranks
        if ranks[-1] != self.n:
            raise ValueError(f"the last rank in `values` is {ranks[-1]}, not `n` = {self.n}")
        if (np.diff(scores) <= 0).any() or (np.diff(ranks) <= 0).any():
            raise ValueError("scores and ranks in `values` must ascend strictly")
        place = int(np.searchsorted(scores, self.tau))
        if place == scores.size or scores[place] != self.tau:
            raise ValueError(f"`tau` = {self.tau!r} is none of the calibration scores in `values`")
        if not ranks[place] < self.k <= ranks[place + 1]:
            raise ValueError(
                f"`tau` = {self.tau!r} has the ranks {ranks[place] + 1} to {ranks[place + 1]}, "
                f"not `k` = {self.k}"
            )
        return self

    @model_validator(mode="after")
    def _guarantee_holds(self) -> ScoreCalibration:
        alpha = 1.0 - self.target_tpr
        if (self.confidence is None) != (self.rule == "marginal"):
            raise ValueError("`confidence` goes with the rule `pac` and is null under `marginal`")
        if self.confidence is None:
            kept = self.k <= conformal_rank(self.n, alpha)
        else:
            delta = 1.0 - self.confidence
            kept = binomial_cdf(self.k - 1, self.n, alpha) <= delta * (1.0 + 1e-9)
        if not kept:
            raise ValueError(f"`k` = {self.k} of `n` = {self.n} is too large for rule {self.rule}")
        miss = binomial_cdf(self.k - 1, self.n, self.rejection_upper)
        delta = 1.0 - (self.confidence or MARGINAL_CONFIDENCE)
        if abs(miss - delta) > 1e-6 or abs(self.tpr_lower + self.rejection_upper - 1.0) > 1e-9:
            raise ValueError("`tpr_lower` and `rejection_upper` do not follow from `n` and `k`")
        return self

    def is_out(self, score: float) -> bool:
        """Return whether a score is out of distribution: score < tau.

        Raises
        ------
        NonFiniteScore
            The score is NaN or infinite.
        """
        if not math.isfinite(score):
            raise NonFiniteScore(f"the score is {score}; expected a finite number, cannot decide")
        return score < self.tau

    def p_value(self, score: float) -> float:
        """Return the conformal p-value of one score; see `p_values`."""
        return float(self.p_values(np.array([score]))[0])

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return (1 + #{calibration scores <= score}) / (n + 1) for each score.

        For an in-distribution image, P(p-value <= a) <= a for every a, ties or not.

        Parameters
        ----------
        scores : (N,) float
            Larger = more in-distribution.

        Returns
        -------
        (N,) float64
            In [1/(n + 1), 1]; small = unusual.

        Raises
        ------
        NonFiniteScore
            A score is NaN or infinite.

        References
        ----------
        S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, "Testing for Outliers with Conformal
        p-values", Annals of Statistics 2023, equation 3.
        """
        _, through = self._reference.counts(_checked(scores))
        return (through.astype(np.float64) + 1.0) / (self.n + 1)

    def smoothed_p_value(self, score: float, u: float) -> float:
        """Return the smoothed p-value of one score; see `smoothed_p_values`."""
        return float(self.smoothed_p_values(np.array([score]), np.array([u]))[0])

    def smoothed_p_values(self, scores: ArrayLike, u: ArrayLike) -> NDArray[np.float64]:
        """Return (#{c < score} + u (1 + #{c = score})) / (n + 1) over calibration scores c.

        Uniform on [0, 1] for in-distribution images and u uniform on [0, 1], also where many
        scores are equal; so a histogram of it needs no reference but the flat one.

        Parameters
        ----------
        scores : (N,) float
            Larger = more in-distribution.
        u : (N,) float
            In [0, 1], independent of the scores.

        Returns
        -------
        (N,) float64
            In [0, 1].

        Raises
        ------
        NonFiniteScore
            A score is NaN or infinite.
        ValueError
            `u` is not in [0, 1], or not one for each score.

        References
        ----------
        V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005, equation
        2.20.
        """
        checked, weights = _checked(scores), np.asarray(u, dtype=np.float64)
        if weights.shape != checked.shape or not ((weights >= 0.0) & (weights <= 1.0)).all():
            raise ValueError(
                f"`u` of shape {weights.shape} for scores of shape {checked.shape}: expected one "
                "number in [0, 1] for each score"
            )
        below, through = self._reference.counts(checked)
        return (below + weights * (1.0 + through - below)) / (self.n + 1.0)

    @cached_property
    def _reference(self) -> _Reference:
        scores, ranks = zip(*self.values, strict=True)
        return _Reference(
            scores=np.array(scores, dtype=np.float64), ranks=np.array([0, *ranks], dtype=np.int64)
        )


class Calibration(Document):
    """The file `calibration.json`: thresholds, and what they were made with."""

    format_version: Literal[1] = 1
    model_sha256: Sha256
    """Digest of the model file that computed the scores."""
    input_sha256: Sha256
    """Digest of the input specification the images went through."""
    runtime: Runtime
    created: UtcTime
    """When, ISO 8601 in UTC, ending in Z."""
    data_fingerprint: Annotated[str, Field(min_length=1)]
    """Digest of the calibration images."""
    default_score: ScoreName
    """The score that decides unless a request names another."""
    scores: Annotated[dict[ScoreName, ScoreCalibration], Field(min_length=1, max_length=4)]
    class_reference: dict[ClassIndex, Share]
    """Class index to the share of the calibration images predicted as it."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Calibration:
        if self.default_score not in self.scores:
            raise ValueError(
                f"`default_score` = {self.default_score!r} is none of the calibrated scores "
                f"{sorted(self.scores)}"
            )
        total = math.fsum(self.class_reference.values())
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the shares in `class_reference` sum to {total:.6g}, not to 1")
        return self


def small_sample_warning(n: int) -> str | None:
    """Return what few calibration images cost drift detection, or None from 1,000 on.

    The distance named is the Kolmogorov-Smirnov distance that the calibration set alone exceeds
    in one case of twenty, 1.358 / sqrt(n).

    Examples
    --------
    >>> small_sample_warning(400)  # doctest: +ELLIPSIS
    'only 400 calibration images: drift below a Kolmogorov-Smirnov distance of 0.068 ...'
    """
    if n >= ADVISED_SAMPLES:
        return None
    return (
        f"only {n} calibration images: drift below a Kolmogorov-Smirnov distance of "
        f"{1.358 / math.sqrt(max(n, 1)):.2g} cannot be told from the chance of having drawn these, "
        f"and no p-value is below {1.0 / (n + 1):.2g}; use {ADVISED_SAMPLES} or more"
    )


def calibrate_score(
    scores: ArrayLike, *, rule: Rule, target_tpr: float, confidence: float | None
) -> ScoreCalibration:
    """Return the threshold of one score from held-out in-distribution images.

    Parameters
    ----------
    scores : (n,) float
        Of images used neither for training nor for model selection; larger = more
        in-distribution; on the runtime that serves.
    rule : {"pac", "marginal"}
        See the module's description.
    target_tpr : float
        Share of in-distribution images to accept, in (0, 1).
    confidence : float or None
        Probability over calibration sets that the target is met, in (0, 1); not used by
        ``marginal``.

    Raises
    ------
    InvalidRequest
        `rule`, `target_tpr` or `confidence` cannot be right.
    TooFewSamples
        The promise needs more images; the message says how many.
    NonFiniteScore
        A score is NaN or infinite.
    ValueError
        `scores` is not one-dimensional.

    Examples
    --------
    >>> made = calibrate_score(range(200), rule="pac", target_tpr=0.95, confidence=0.95)
    >>> made.k, made.tau, round(made.tpr_lower, 4)
    (5, 4.0, 0.9548)
    """
    alpha = 1.0 - _fraction("target_tpr", target_tpr)
    ascending = np.sort(_checked(scores))
    n = ascending.size
    if rule == "pac":
        stated = bound_confidence = _fraction("confidence", confidence)
        k = pac_rank(n, alpha, 1.0 - bound_confidence)
    elif rule == "marginal":
        stated, bound_confidence = None, MARGINAL_CONFIDENCE
        k = marginal_rank(n, alpha)
    else:
        raise InvalidRequest(f"`rule` = {rule!r} is unknown; choose `pac` or `marginal`")
    rejection_upper = clopper_pearson_upper(k - 1, n, bound_confidence)
    return ScoreCalibration(
        rule=rule,
        target_tpr=target_tpr,
        confidence=stated,
        n=n,
        k=k,
        tau=float(ascending[k - 1]),
        tpr_lower=1.0 - rejection_upper,
        rejection_upper=rejection_upper,
        values=_ranked(ascending, k),
    )


def calibrate(
    score_arrays: Mapping[str, ArrayLike],
    predicted: ArrayLike,
    *,
    n_classes: int,
    rule: Rule,
    target_tpr: float,
    confidence: float | None,
    model_sha256: str,
    input_sha256: str,
    runtime: Runtime,
    data_fingerprint: str,
    default_score: str,
    created: str,
) -> Calibration:
    """Return the calibration of a model from held-out in-distribution images.

    Parameters
    ----------
    score_arrays : mapping of str to (n,) float
        One to four scores by name, of the same images in the same order.
    predicted : (n,) int
        Predicted class of each image.
    n_classes : int
        Number of classes of the model.
    rule, target_tpr, confidence
        See `calibrate_score`; the same for every score.
    model_sha256, input_sha256, runtime, data_fingerprint, default_score, created
        See `Calibration`.

    Raises
    ------
    InvalidRequest, TooFewSamples, NonFiniteScore
        See `calibrate_score`.
    CalibrationError
        The remaining values do not make a valid calibration.
    ValueError
        Lengths differ, or a predicted class is not in 0..n_classes - 1.

    Notes
    -----
    Each threshold keeps its promise by itself; that all of m do at once has confidence
    1 - m delta.
    """
    classes = np.asarray(predicted)
    lengths = {name: np.shape(scores) for name, scores in score_arrays.items()}
    if classes.ndim != 1 or any(shape != classes.shape for shape in lengths.values()):
        raise ValueError(f"`predicted` has shape {classes.shape}, the scores {lengths}; not equal")
    outside = (classes < 0) | (classes >= n_classes)
    if outside.any() or (classes.size and classes.dtype.kind not in "iu"):
        raise ValueError(
            f"`predicted` is {classes.dtype} from {classes.min()} to {classes.max()}; "
            f"expected integers from 0 to {n_classes - 1}"
        )
    made = {
        name: calibrate_score(scores, rule=rule, target_tpr=target_tpr, confidence=confidence)
        for name, scores in score_arrays.items()
    }
    counts = np.bincount(classes.astype(np.int64), minlength=n_classes)
    shares = counts / max(1, classes.size)
    try:
        return Calibration(
            model_sha256=model_sha256,
            input_sha256=input_sha256,
            runtime=runtime,
            created=created,
            data_fingerprint=data_fingerprint,
            default_score=default_score,
            scores=made,
            class_reference={str(index): float(share) for index, share in enumerate(shares)},
        )
    except ValidationError as error:
        raise CalibrationError(f"not a valid calibration: {explain(error)}") from error


def _fraction(name: str, value: float | None) -> float:
    if value is None or not 0.0 < value < 1.0:
        raise InvalidRequest(f"`{name}` = {value!r} is not strictly between 0 and 1")
    return value


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores have shape {values.shape}; expected one dimension")
    finite: NDArray[Any] = np.isfinite(values)
    if not finite.all():
        raise NonFiniteScore(
            f"{values.size - int(finite.sum())} of {values.size} scores are NaN or infinite; "
            "expected finite numbers, as only those can be ordered"
        )
    return values


def _ranked(ascending: NDArray[np.float64], k: int) -> tuple[tuple[float, int], ...]:
    """Return the (score, rank) pairs to keep; see `ScoreCalibration.values`."""
    scores, counts = np.unique(ascending, return_counts=True)
    ranks = np.cumsum(counts)
    if scores.size > MAX_PAIRS:
        n = ascending.size
        tail = ascending[max(k, min(EXACT_TAIL, n)) - 1]
        # One more than the tail, so that the rank of its last score is exact.
        kept_tail = np.arange(np.searchsorted(scores, tail, side="right") + 1)
        levels = np.ceil(np.arange(1, MAX_PAIRS + 1) * (n / MAX_PAIRS))
        spread = np.searchsorted(ranks, np.minimum(levels, n))
        kept = np.union1d(kept_tail[kept_tail < scores.size], spread)
        ranks = ranks[np.append(kept[1:] - 1, scores.size - 1)]
        scores = scores[kept]
    return tuple(zip(scores.tolist(), ranks.tolist(), strict=True))
