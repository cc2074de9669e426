"""What holds for every scorer that is registered, fitted on a problem that is easy to solve.

A new score is covered by being registered; one that needs another method's network says so in
`METHOD_OF`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from export.graph import export_graph
from export.parity import SourceModel
from oodserve import scores
from oodserve.bundle import InputSpec
from oodserve.engines import Outputs
from oodserve.engines.onnxruntime import OnnxRuntimeEngine
from oodserve.images import Preprocessing
from tests.separable import SIDE, Problem, known, solve, unknown
from train.scorers.apply import Scoring
from train.scorers.registry import SCORERS, build_scorer, knobs_of
from train.scorers.scorer import Given, Scorer

METHOD_OF = {"ice": "ice"}
"""The method that trains the network that a score needs, if not `USUAL`."""

USUAL = "rotation"
"""The other scores' method: a linear classifier, and the head that score `rotation` needs."""

MEAN, STD = 0.5, 0.1
"""The toy images lie within 5 of 0, so that these bring them into [0, 1]."""

CHANGES_IMAGES = frozenset({"moved", "rotations"})
"""What a scorer takes if more than the image as it is passes the network."""

STRONG = {"temperature": 10.0, "epsilon": 0.1, "entries": 200}
"""Knobs by which a change of the image counts; by default it moves scores by less than 1e-5."""

EXTREME = torch.tensor(
    [[1e4, -1e4, 0, 1e4], [-1e4, -1e4, -1e4, -1e4], [1e4, 1e4, 1e4, 1e4], [0, 0, 0, 1e-30]]
)

every_scorer = pytest.mark.parametrize("name", sorted(SCORERS))


@functools.cache
def problem(method: str) -> Problem:
    return solve(method)


def problem_of(name: str) -> Problem:
    return problem(METHOD_OF.get(name, USUAL))


@functools.cache
def fitted(name: str) -> Scorer:
    return fit(name, {})


@functools.cache
def strong(name: str) -> Scorer:
    return fit(name, {knob: STRONG[knob] for knob in knobs_of(name) if knob in STRONG})


def fit(name: str, knobs: Mapping[str, float]) -> Scorer:
    scorer = build_scorer(name, knobs)
    if scorer.needs_fit:
        scorer.fit(problem_of(name).data)
    return scorer


@torch.no_grad()
def given_to(name: str, images: Tensor) -> tuple[Given, Tensor]:
    """Return what the scorer gets to see of normalised images."""
    seen: list[Any] = []
    scorer = fitted(name)
    hook = scorer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    Scoring(problem_of(name).model, {name: scorer}).eval()(images)
    hook.remove()
    ((given, logits),) = seen
    return given, logits


def mapped(given: Given, change: Callable[[Tensor], Tensor]) -> Given:
    return change(given) if isinstance(given, Tensor) else tuple(change(part) for part in given)


@torch.no_grad()
def score(name: str, images: Tensor, scorer: Scorer | None = None) -> Tensor:
    scorers = {name: scorer or fitted(name)}
    values: Tensor = Scoring(problem_of(name).model, scorers).eval()(images)[2][name]
    return values


def scored_together(name: str, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what scores the rows of images that it is given, as one batch.

    Where images are changed before the scorer sees anything, by the whole way from them: what one
    image does to another's gradient is in the tensors that the scorer gets.
    """
    if fitted(name).takes in CHANGES_IMAGES:
        return lambda rows: score(name, images[rows], strong(name))
    given, logits = given_to(name, images)
    return lambda rows: fitted(name)(mapped(given, operator.itemgetter(rows)), logits[rows])


def close(actual: Tensor, expected: Tensor, bound: float) -> None:
    """Assert that max |a - b| / max(1, max |b|) is at most the bound."""
    difference = float((actual.double() - expected.double()).abs().max())
    assert difference <= bound * max(1.0, float(expected.abs().max()))


@every_scorer
def test_returns_one_float32_per_row(name: str) -> None:
    for rows in (1, 5):
        actual = score(name, known(rows, seed=3)[0])
        assert actual.shape == (rows,)
        assert actual.dtype == torch.float32


@every_scorer
def test_images_of_the_classes_score_higher_than_others(name: str) -> None:
    inside, outside = score(name, known(64, seed=3)[0]), score(name, unknown(64, seed=4))
    truth = np.repeat([1, 0], 64)
    assert roc_auc_score(truth, torch.cat([inside, outside]).numpy()) >= 0.95


@every_scorer
def test_permuting_rows_permutes_scores(name: str) -> None:
    together = scored_together(name, known(7, seed=3)[0])
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    close(together(order), together(torch.arange(7))[order], 1e-6)


@every_scorer
def test_a_rows_score_does_not_depend_on_its_batch(name: str) -> None:
    together = scored_together(name, torch.cat([known(4, seed=3)[0], unknown(3, seed=4)]))
    alone = [together(torch.tensor([row])) for row in range(7)]
    close(torch.cat(alone), together(torch.arange(7)), 1e-5)


@every_scorer
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_computes_in_float32_whatever_comes_in(name: str, dtype: torch.dtype) -> None:
    given, logits = given_to(name, known(5, seed=3)[0])
    rounded, rounded_logits = mapped(given, lambda part: part.to(dtype)), logits.to(dtype)
    actual = fitted(name)(rounded, rounded_logits)
    assert actual.dtype == torch.float32
    expected = fitted(name)(mapped(rounded, lambda part: part.float()), rounded_logits.float())
    close(actual, expected, 1e-6)


@every_scorer
@pytest.mark.parametrize("factor", [0.0, 1e-4, 1e4])
def test_is_finite_at_extreme_logits_and_features(name: str, factor: float) -> None:
    given, _ = given_to(name, known(4, seed=3)[0])
    actual = fitted(name)(mapped(given, lambda part: part * factor), EXTREME)
    assert bool(torch.isfinite(actual).all()), actual


@every_scorer
def test_state_survives_a_round_trip(name: str) -> None:
    scorer, again = fitted(name), build_scorer(name)
    if scorer.needs_fit:
        assert scorer.state_dict()
        assert all(buffer.numel() == 0 for buffer in again.buffers())
    again.load_state_dict(scorer.state_dict())
    given, logits = given_to(name, known(5, seed=3)[0])
    assert torch.equal(again(given, logits), scorer(given, logits))
    assert not again.training


@every_scorer
def test_fitting_again_gives_the_same_bits_and_leaves_the_model_alone(name: str) -> None:
    model = problem_of(name).model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    again = build_scorer(name)
    if again.needs_fit:
        again.fit(problem_of(name).data)
    state = fitted(name).state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


@every_scorer
def test_it_is_documented(name: str) -> None:
    scorer = build_scorer(name)
    summary = (type(scorer).__doc__ or "").strip().splitlines()[0]
    assert summary.endswith(".")
    assert scorer.source
    assert "larger" in " ".join((type(scorer).__doc__ or "").split())
    for knob, field in SCORERS[name].settings.model_fields.items():
        assert field.description, knob
        assert not field.is_required(), knob
    defaults = {knob: getattr(SCORERS[name].settings(), knob) for knob in knobs_of(name)}
    assert type(build_scorer(name, defaults)) is type(scorer)


@pytest.mark.parametrize("name", sorted(scores.SCORES))
@pytest.mark.parametrize("n_classes", [1, 2, 200])
def test_equals_the_librarys_definition(name: str, n_classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 8, size=(64, n_classes)).astype(np.float32)
    expected = torch.from_numpy(scores.SCORES[name](logits))
    close(build_scorer(name)(torch.zeros(64, 6), torch.from_numpy(logits)), expected, 1e-6)
    extreme = torch.from_numpy(scores.SCORES[name](EXTREME.numpy()))
    close(build_scorer(name)(torch.zeros(4, 6), EXTREME), extreme, 1e-6)


# --- the exported graph --------------------------------------------------------------------------

SPEC = InputSpec(
    preprocessing=Preprocessing(
        height=SIDE,
        width=SIDE,
        resize="exact",
        resize_height=SIDE,
        resize_width=SIDE,
        interpolation="bilinear",
    ),
    mean=(MEAN,) * 3,
    std=(STD,) * 3,
)


def pixels() -> NDArray[np.uint8]:
    """Return 32 images of the classes and 32 others, (64, S, S, 3)."""
    images = torch.cat([known(32, seed=3)[0], unknown(32, seed=4)])
    scaled = ((images * STD + MEAN) * 255).round().clamp(0, 255)
    return scaled.permute(0, 2, 3, 1).to(torch.uint8).numpy()


def group_of(name: str) -> tuple[str, str]:
    """Return which scores share a graph: one for all would be slow, one for each slower still."""
    return METHOD_OF.get(name, USUAL), build_scorer(name).takes


@functools.cache
def sides(group: tuple[str, str]) -> tuple[SourceModel, OnnxRuntimeEngine]:
    """Return the scores of a group, by PyTorch and as exported in one graph."""
    scorers = {name: fitted(name) for name in SCORERS if group_of(name) == group}
    model = problem(group[0]).model
    graph = export_graph(model, scorers, SPEC)
    engine = OnnxRuntimeEngine(graph.content, precision="fp32", threads=1)
    return SourceModel(model, scorers, SPEC, features=False), engine


@functools.cache
def outputs(group: tuple[str, str]) -> tuple[Outputs, Outputs]:
    source, engine = sides(group)
    return source.infer(pixels()), engine.infer(pixels())


slow_where_cores_are_busy = pytest.mark.timeout(300)


@every_scorer
@slow_where_cores_are_busy
def test_the_exported_score_equals_this_one(name: str) -> None:
    source, exported = outputs(group_of(name))
    assert exported[name].dtype == np.float32
    assert exported[name].shape == (64,)
    close(torch.from_numpy(exported[name]), torch.from_numpy(source[name]), 1e-4)


@pytest.mark.parametrize("group", sorted({group_of(name) for name in SCORERS}))
@pytest.mark.parametrize("rows", [1, 5])
@slow_where_cores_are_busy
def test_the_graph_scores_any_number_of_images_and_always_alike(
    group: tuple[str, str], rows: int
) -> None:
    _, engine = sides(group)
    _, whole = outputs(group)
    first, second = engine.infer(pixels()[:rows]), engine.infer(pixels()[:rows])
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
        close(torch.from_numpy(values), torch.from_numpy(whole[name][:rows]), 1e-4)
