"""Parity: whether the exported file, on its runtime, says what the trained model says.

PyTorch's exporter has produced files that load, run and classify wrongly (pytorch issues 166797 and
169178), so every export is compared with its source on real images before it is published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from export.graph import FEATURES, LOGITS
from oodserve.bundle import InputSpec, Parity
from oodserve.engines import Engine, Outputs
from oodserve.errors import ParityError
from oodserve.images import preprocess, stack
from oodserve.predictor import relative_error
from train.data.loading import normalise
from train.data.sources import ImageSource
from train.networks.classifier import Classifier
from train.scorers.apply import Scoring
from train.scorers.scorer import Scorer

MAX_ERROR = 1e-4
"""Bound on max|a-b| / max(1, max|a|) between PyTorch and ONNX Runtime, both in fp32."""

PROVISIONAL_PERCENT = 5
"""Share of the images that the provisional threshold rejects, in percent."""


@dataclass(frozen=True)
class FlagComparison:
    """In/out flags of one score at a provisional threshold."""

    threshold: float
    """The 5 % order statistic of the source's scores: it stands in for tau, which comes later."""
    flips: int
    """Images that are in on one side and out on the other, those `near` left out."""
    near: int
    """Images whose score lies within the bound of the threshold, where a flip means nothing."""


@dataclass(frozen=True)
class Comparison:
    """The source's outputs against the artefact's, on the same images."""

    images: int
    bound: float
    errors: Mapping[str, float]
    """Output name to max|a-b| / max(1, max|a|); infinite where there is NaN or a wrong shape."""
    label_flips: int
    """Images whose largest logit is another."""
    flags: Mapping[str, FlagComparison]
    """By score."""

    @property
    def max_error(self) -> float:
        """The largest error of all outputs."""
        return max(self.errors.values())

    def require_equal(self) -> None:
        """Pass if the two say the same.

        Raises
        ------
        ParityError
            An output differs by more than the bound, a label differs, or a flag differs where the
            score is not within the bound of the threshold. The message holds every figure.
        """
        faults = [
            f"`{name}` differs by {error:.3g} (at most {self.bound:g})"
            for name, error in self.errors.items()
            if not error <= self.bound
        ]
        if self.label_flips:
            faults.append(f"{self.label_flips} labels differ (none may)")
        faults += [
            f"{flag.flips} flags by `{name}` differ away from the threshold (none may)"
            for name, flag in self.flags.items()
            if flag.flips
        ]
        if faults:
            raise ParityError(
                f"the exported graph does not equal the trained model on {self.images} images: "
                f"{'; '.join(faults)}; nothing was published, try another `--opset`"
            )

    def to_parity(self, *, default_score: str) -> Parity:
        """Return what the manifest records."""
        flag = self.flags[default_score]
        return Parity(
            images=self.images,
            max_error=self.max_error,
            bound=self.bound,
            label_flips=self.label_flips,
            flag_flips=flag.flips,
            near_threshold=flag.near,
            provisional_threshold=flag.threshold,
        )


class SourceModel:
    """The trained model with its scores, run by PyTorch as training's evaluation runs it.

    Parameters
    ----------
    model : Classifier
        In eval mode, on the CPU.
    scorers : mapping of str to Scorer
        Output name to scorer.
    spec : InputSpec
        What to normalise by.
    features : bool
        Whether to return the features, too.
    """

    def __init__(
        self,
        model: Classifier,
        scorers: Mapping[str, Scorer],
        spec: InputSpec,
        *,
        features: bool,
    ) -> None:
        self.scorers = scorers
        self.scoring = Scoring(model, scorers).eval()
        self.mean = torch.tensor(spec.mean)
        self.std = torch.tensor(spec.std)
        self.with_features = features

    @torch.no_grad()
    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Return every output for (N, H, W, 3) uint8 images, as an engine does."""
        pixels = normalise(torch.from_numpy(images), mean=self.mean, std=self.std)
        features, logits, scores = self.scoring(pixels)
        outputs = {LOGITS: logits} | scores
        if self.with_features:
            outputs[FEATURES] = features
        return {name: tensor.float().numpy() for name, tensor in outputs.items()}


def measure(
    source: SourceModel,
    engine: Engine,
    images: Iterator[NDArray[np.uint8]],
    *,
    bound: float = MAX_ERROR,
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Run both on batches of images and compare.

    Parameters
    ----------
    source : SourceModel
        What was exported.
    engine : Engine
        The exported file on a runtime.
    images : iterator of (n, H, W, 3) uint8
        At least one batch; only one is in memory at a time.
    bound : float
        Largest error that passes.
    progress : callable
        Called with the number of images done so far.
    """
    expected: list[Outputs] = []
    got: list[Outputs] = []
    done = 0
    for batch in images:
        expected.append(source.infer(batch))
        got.append(engine.infer(batch))
        done += len(batch)
        progress(done)
    return compare(_join(expected), _join(got), scores=list(source.scorers), bound=bound)


def compare(
    expected: Outputs, got: Outputs, *, scores: list[str], bound: float = MAX_ERROR
) -> Comparison:
    """Compare two sets of outputs for the same images.

    Parameters
    ----------
    expected, got : Outputs
        The source's and the artefact's: ``logits`` (N, K) and (N,) for each score at least.
    scores : list of str
        Which outputs are scores.
    bound : float
        Largest max|a-b| / max(1, max|a|) that passes.

    Raises
    ------
    ParityError
        The artefact has not the same outputs, or one has another shape.
    """
    shapes = [{name: array.shape for name, array in side.items()} for side in (expected, got)]
    if shapes[0] != shapes[1]:
        raise ParityError(
            f"the exported graph returns {shapes[1]}, the trained model {shapes[0]}; "
            "nothing was published"
        )
    labels = [side[LOGITS].argmax(axis=1) for side in (expected, got)]
    return Comparison(
        images=len(expected[LOGITS]),
        bound=bound,
        errors={name: relative_error(array, got[name]) for name, array in expected.items()},
        label_flips=int(np.count_nonzero(labels[0] != labels[1])),
        flags={name: _compare_flags(expected[name], got[name], bound=bound) for name in scores},
    )


def provisional_threshold(scores: NDArray[np.float32]) -> float:
    """Return the 5 % order statistic of (N,) scores: the ceil(N / 20)-th smallest.

    It only places a threshold where one will later be. The one that decides comes from calibration,
    on other images and on the runtime that serves.
    """
    rank = -(-len(scores) * PROVISIONAL_PERCENT // 100)
    return float(np.sort(scores)[rank - 1])


def read_batches(
    source: ImageSource, spec: InputSpec, *, indices: list[int], batch_size: int = 32
) -> Iterator[NDArray[np.uint8]]:
    """Yield some of a source's images, preprocessed as in serving, as (n, H, W, 3) uint8.

    Raises
    ------
    DataError
        An image cannot be read; the message names the file.
    """
    for start in range(0, len(indices), batch_size):
        yield stack(
            preprocess(source.read(index), spec.preprocessing)
            for index in indices[start : start + batch_size]
        )


def spread(count: int, *, most: int) -> list[int]:
    """Return at most `most` of the indices below `count`, evenly spread, ascending.

    Image lists are sorted by class, so the first ones alone would be of one class.
    """
    return [count * place // min(count, most) for place in range(min(count, most))]


def _compare_flags(
    expected: NDArray[np.float32], got: NDArray[np.float32], *, bound: float
) -> FlagComparison:
    threshold = provisional_threshold(expected)
    reference = expected.astype(np.float64)
    reach = bound * max(1.0, float(np.max(np.abs(reference))))
    near = np.abs(reference - threshold) <= reach
    flips = ((expected < threshold) != (got < threshold)) & ~near
    return FlagComparison(
        threshold=threshold,
        flips=int(np.count_nonzero(flips)),
        near=int(np.count_nonzero(near)),
    )


def _join(parts: list[Outputs]) -> Outputs:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
