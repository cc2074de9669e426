"""Logits and scores of lists of images, as arrays: what every figure is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodserve.errors import DataError, NonFiniteScore


@dataclass(frozen=True, eq=False)
class ScoredSource:
    """A model's logits and scores on a list of images, in their order."""

    logits: NDArray[np.float32]
    """(N, K)."""
    scores: dict[str, NDArray[np.float32]]
    """Score name to (N,); larger = more in-distribution."""


@dataclass(frozen=True, eq=False)
class ScoredSets:
    """The sets of one evaluation."""

    test: ScoredSource
    labels: NDArray[np.int64]
    """(N,) classes of the test images."""
    ood: Mapping[str, ScoredSource]
    """Out-of-distribution sets by name."""
    calibration: ScoredSource | None
    """None where the data keep no such split."""

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(N,) bool: whether the prediction of each test image is wrong."""
        return np.asarray(self.test.logits.argmax(axis=1) != self.labels)

    def check(self, scores: tuple[str, ...]) -> None:
        """Refuse sets without images, and scores that are not finite.

        Raises
        ------
        DataError
            A set has no images, or there is no out-of-distribution set.
        NonFiniteScore
            A score of a set has NaN or infinity; the message names both.
        """
        if not self.ood:
            raise DataError("there is no out-of-distribution set to evaluate on; add `ood/NAME/*`")
        calibration = {} if self.calibration is None else {"calibration": self.calibration}
        for name, scored in {"test": self.test, **calibration, **self.ood}.items():
            if len(scored.logits) == 0:
                raise DataError(f"the set `{name}` has no images; put some there or leave it out")
            for score in scores:
                _refuse_non_finite(scored.scores[score], score=score, where=name)


def _refuse_non_finite(values: NDArray[np.float32], *, score: str, where: str) -> None:
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise NonFiniteScore(
            f"the score `{score}` is NaN or infinite on {bad} of {values.size} images of the set "
            f"`{where}`; expected finite numbers: check the images and the weights"
        )
