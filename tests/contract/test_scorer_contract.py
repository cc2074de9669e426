"""What holds for every scorer that is registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from oodserve import scores
from train.scorers.registry import SCORERS, build_scorer

Session = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]

EXTREME = np.array(
    [[1e4, -1e4, 0, 1e4], [-1e4, -1e4, -1e4, -1e4], [1e4, 1e4, 1e4, 1e4], [0, 0, 0, 1e-30]],
    dtype=np.float32,
)

every_scorer = pytest.mark.parametrize("name", sorted(SCORERS))


def batch(n: int, *, n_classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 6)).astype(np.float32)
    logits = rng.normal(0, 8, size=(n, n_classes)).astype(np.float32)
    return torch.from_numpy(features), torch.from_numpy(logits)


def assert_equal_within(actual: NDArray[Any], expected: NDArray[Any], bound: float) -> None:
    """Assert that max |a - b| / max(1, max |b|) is at most the bound."""
    difference = float(np.abs(actual.astype(np.float64) - expected).max())
    assert difference <= bound * max(1.0, float(np.abs(expected).max()))


@pytest.fixture(scope="module")
def sessions() -> dict[str, Session]:
    return {name: as_session(build_scorer(name)) for name in sorted(SCORERS)}


def as_session(scorer: nn.Module) -> Session:
    """Export the scorer alone, both dimensions symbolic, and open it in onnxruntime."""
    features, logits = batch(2)
    program = torch.onnx.export(
        scorer,
        (features, logits),
        input_names=["features", "logits"],
        output_names=["score"],
        dynamo=True,
        dynamic_shapes=({0: "batch"}, {0: "batch", 1: "classes"}),
        verbose=False,
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    assert session.get_outputs()[0].type == "tensor(float)"

    def run(features: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs = session.run(["score"], {"features": features, "logits": logits})
        return np.asarray(outputs[0])

    return run


@every_scorer
def test_returns_one_float32_per_row(name: str) -> None:
    for n in (1, 5):
        actual = build_scorer(name)(*batch(n))
        assert actual.shape == (n,)
        assert actual.dtype == torch.float32


@every_scorer
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_computes_in_float32_whatever_comes_in(name: str, dtype: torch.dtype) -> None:
    features, logits = batch(5)
    rounded = logits.to(dtype)
    actual = build_scorer(name)(features.to(dtype), rounded)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, build_scorer(name)(features, rounded.float()))


@every_scorer
@pytest.mark.parametrize("n_classes", [1, 2, 200])
def test_equals_the_librarys_definition(name: str, n_classes: int) -> None:
    features, logits = batch(64, n_classes=n_classes)
    expected = scores.SCORES[name](logits.numpy())
    assert_equal_within(build_scorer(name)(features, logits).numpy(), expected, 1e-6)


@every_scorer
def test_is_finite_and_right_at_extreme_logits(name: str) -> None:
    actual = build_scorer(name)(torch.zeros(4, 6), torch.from_numpy(EXTREME))
    assert bool(torch.isfinite(actual).all())
    assert_equal_within(actual.numpy(), scores.SCORES[name](EXTREME), 1e-6)


@every_scorer
def test_permuting_rows_permutes_scores_and_permuting_classes_changes_none(name: str) -> None:
    features, logits = batch(7)
    scorer = build_scorer(name)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    whole = scorer(features, logits)
    assert torch.equal(scorer(features[order], logits[order]), whole[order])
    torch.testing.assert_close(scorer(features, logits[:, [2, 0, 3, 1]]), whole, rtol=1e-6, atol=0)


@every_scorer
def test_a_rows_score_does_not_depend_on_its_batch(name: str) -> None:
    features, logits = batch(7)
    scorer = build_scorer(name)
    whole = scorer(features, logits)
    alone = torch.cat([scorer(features[i : i + 1], logits[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(alone, whole, rtol=1e-6, atol=0)


@every_scorer
def test_a_more_certain_row_scores_higher(name: str) -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    low, middle, high = build_scorer(name)(torch.zeros(3, 6), logits).tolist()
    assert low < middle < high


@every_scorer
def test_state_survives_a_round_trip(name: str) -> None:
    features, logits = batch(5)
    scorer, again = build_scorer(name), build_scorer(name)
    again.load_state_dict(scorer.state_dict())
    assert torch.equal(again(features, logits), scorer(features, logits))
    assert not scorer.training


# torch.export touches a class that its own pytree module has deprecated.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")
@every_scorer
@pytest.mark.parametrize(("n", "n_classes"), [(1, 4), (9, 7)])
def test_the_exported_scorer_equals_this_one(
    sessions: dict[str, Session], name: str, n: int, n_classes: int
) -> None:
    features, logits = batch(n, n_classes=n_classes, seed=1)
    expected = build_scorer(name)(features, logits).numpy()
    assert_equal_within(sessions[name](features.numpy(), logits.numpy()), expected, 1e-6)


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")
@every_scorer
def test_the_exported_scorer_is_right_at_extreme_logits(
    sessions: dict[str, Session], name: str
) -> None:
    actual = sessions[name](np.zeros((4, 6), np.float32), EXTREME)
    assert_equal_within(actual, scores.SCORES[name](EXTREME), 1e-6)
