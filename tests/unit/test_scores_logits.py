"""The scores that need logits alone, against float64 definitions and second implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import spearmanr
from torch import Tensor

import train.vision  # noqa: F401 (makes torchvision importable, which pytorch-ood needs)
from train.methods.method import Embedded
from train.networks.classifier import Classifier
from train.scorers.registry import build_scorer
from train.scorers.scorer import FitData, Scorer
from train.scorers.temperature import LARGEST, SMALLEST, best_temperature

# isort: split
from pytorch_ood.detector import GEN, Entropy, KLMatching

Logits = NDArray[np.float64]

NO_FEATURES = torch.zeros(1, 0)


def random_logits(rows: int = 200, classes: int = 12, *, spread: float = 4.0) -> Logits:
    # Rounded to float32, so that the definition and the score see the same numbers.
    logits = np.random.default_rng(3).normal(0, spread, (rows, classes))
    return logits.astype(np.float32).astype(np.float64)


def score(scorer: Scorer, logits: Logits) -> Logits:
    values: Tensor = scorer(NO_FEATURES, torch.from_numpy(logits).float())
    return values.double().numpy()


def data_of(logits: Logits, labels: NDArray[np.int64]) -> FitData:
    """Return what scores are fitted on, with these validation logits and no other images."""
    nothing = Embedded(torch.zeros(0, 1), torch.zeros(0, logits.shape[1]), torch.zeros(0).long())
    validation = Embedded(
        torch.zeros(len(logits), 1), torch.from_numpy(logits).float(), torch.from_numpy(labels)
    )
    return FitData(
        model=Classifier(torch.nn.Identity(), 1, logits.shape[1]),
        train=nothing,
        validation=validation,
        train_maps=lambda: iter(()),
        validation_maps=lambda: iter(()),
        seed=0,
    )


# --- without fitting -----------------------------------------------------------------------------


def test_hand_computed_scores() -> None:
    # Probabilities 1/4, 1/4, 1/2.
    logits = np.array([[0.0, 0.0, math.log(2)]])
    entropy = 0.5 * math.log(4) + 0.5 * math.log(2)
    assert score(build_scorer("entropy"), logits) == pytest.approx(-entropy, abs=1e-6)
    # sqrt(3/16) twice, sqrt(1/4).
    half = build_scorer("gen", {"gamma": 0.5})
    assert score(half, logits) == pytest.approx(-(math.sqrt(3) / 2 + 0.5), abs=1e-6)
    first = build_scorer("gen", {"gamma": 0.5, "top": 1})
    assert score(first, logits) == pytest.approx(-0.5, abs=1e-6)
    # 3-4-5
    norm = score(build_scorer("logit_norm"), np.array([[3.0, 0.0, -4.0]]))
    assert norm == pytest.approx(5.0, abs=1e-6)
    # At T = 1/2 the probabilities are 1/6, 1/6, 4/6.
    warm = build_scorer("odin_temperature", {"temperature": 0.5})
    assert score(warm, logits) == pytest.approx(4 / 6, abs=1e-6)


@pytest.mark.parametrize("spread", [0.1, 4.0, 60.0])
def test_scores_equal_their_definitions(spread: float) -> None:
    logits = random_logits(spread=spread)
    p = softmax(logits, axis=1)
    entropy = (p * log_softmax(logits, axis=1)).sum(axis=1)
    np.testing.assert_allclose(score(build_scorer("entropy"), logits), entropy, atol=2e-6)
    norm = np.linalg.norm(logits, axis=1)
    np.testing.assert_allclose(score(build_scorer("logit_norm"), logits), norm, rtol=1e-6)
    flat = softmax(logits / 1000, axis=1).max(axis=1)
    np.testing.assert_allclose(score(build_scorer("odin_temperature"), logits), flat, rtol=1e-6)


def generalised_entropy(logits: Logits, gamma: float, top: int) -> Logits:
    """From its definition; 1 - p is the sum of the other probabilities, which does not cancel."""
    rows = []
    for row in logits:
        log_p = np.sort(row - logsumexp(row))[::-1]
        others = [logsumexp(np.delete(log_p, k)) for k in range(len(log_p))]
        rows.append(np.exp(gamma * (log_p + np.array(others)))[:top].sum())
    return -np.array(rows)


@pytest.mark.parametrize("spread", [0.1, 4.0, 60.0])
@pytest.mark.parametrize(("gamma", "top"), [(0.1, 100), (0.1, 5), (1.0, 12), (0.02, 2)])
def test_gen_equals_its_definition(spread: float, gamma: float, top: int) -> None:
    logits = random_logits(spread=spread)
    actual = score(build_scorer("gen", {"gamma": gamma, "top": top}), logits)
    np.testing.assert_allclose(
        actual, generalised_entropy(logits, gamma, top), rtol=2e-5, atol=1e-30
    )


def test_gen_sees_what_float32_probabilities_round_away() -> None:
    # 1 - p is 4e-9 and 9e-14: in float32 both are 0.
    logits = np.array([[20.0, 0.0, 0.0], [30.0, 0.0, 0.0]])
    actual = score(build_scorer("gen"), logits)
    np.testing.assert_allclose(actual, generalised_entropy(logits, 0.1, 100), rtol=1e-5)
    assert actual[0] < actual[1] < -0.04


def test_gen_of_equal_logits_and_of_one_class() -> None:
    # Ties at the top: 4 classes of 1/4.
    equal = score(build_scorer("gen"), np.full((1, 4), 7.0))
    assert equal == pytest.approx(-4 * (0.25 * 0.75) ** 0.1, abs=1e-6)
    assert score(build_scorer("gen"), np.array([[2.0]])) == pytest.approx(0.0)


def test_scores_rank_as_another_library_does() -> None:
    logits = random_logits(spread=1.5)
    given = torch.from_numpy(logits).float()
    entropy = score(build_scorer("entropy"), logits)
    np.testing.assert_allclose(entropy, -Entropy.score(given).numpy(), atol=1e-5)
    # It clamps probabilities and takes the mean, so ranks are compared.
    other = GEN.score(given, gamma=0.1, M=10).numpy()
    ours = score(build_scorer("gen", {"top": 10}), logits)
    assert spearmanr(ours, -other).statistic > 0.999


def test_odin_at_a_high_temperature_is_the_lead_on_the_mean() -> None:
    logits = random_logits()
    lead = logits.max(axis=1) - logits.mean(axis=1)
    actual = score(build_scorer("odin_temperature", {"temperature": 1e4}), logits)
    np.testing.assert_allclose((actual * 12 - 1) * 1e4, lead, rtol=5e-3, atol=5e-3)


def test_permuting_classes_changes_nothing() -> None:
    logits = random_logits()
    for name in ("entropy", "logit_norm", "gen", "odin_temperature"):
        scorer = build_scorer(name)
        np.testing.assert_allclose(score(scorer, logits[:, ::-1].copy()), score(scorer, logits),
                                   rtol=1e-5, atol=1e-6)  # fmt: skip


# --- temperature ---------------------------------------------------------------------------------


def sampled_labels(logits: Logits, *, temperature: float) -> NDArray[np.int64]:
    """Return labels that a network with these logits, at this temperature, would be right about."""
    rng = np.random.default_rng(8)
    p = softmax(logits / temperature, axis=1)
    return np.array([rng.choice(len(row), p=row) for row in p])


def negative_log_likelihood(logits: Logits, labels: NDArray[np.int64], log_t: float) -> float:
    log_p = log_softmax(logits / math.exp(log_t), axis=1)
    return float(-log_p[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 10.0])
def test_the_temperature_is_the_exact_optimum(scale: float) -> None:
    logits = random_logits(800, 6, spread=2.0)
    labels = sampled_labels(logits, temperature=1.3)
    scaled = scale * logits
    oracle = minimize_scalar(
        lambda log_t: negative_log_likelihood(scaled, labels, log_t),
        bounds=(math.log(SMALLEST), math.log(LARGEST)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    best = best_temperature(torch.from_numpy(scaled), torch.from_numpy(labels))
    assert best == pytest.approx(math.exp(oracle.x), rel=1e-5)
    # Scaled logits are calibrated by a scaled temperature, so it is near 1.3 times the scale.
    assert best == pytest.approx(1.3 * scale, rel=0.1)


def test_the_score_is_the_softmax_at_the_fitted_temperature() -> None:
    logits = random_logits(300, 6, spread=2.0)
    labels = sampled_labels(logits, temperature=2.0)
    scorer = build_scorer("temperature")
    scorer.fit(data_of(logits, labels))
    best = best_temperature(torch.from_numpy(logits), torch.from_numpy(labels))
    expected = softmax(logits / best, axis=1).max(axis=1)
    np.testing.assert_allclose(score(scorer, logits), expected, rtol=1e-5)


def test_a_temperature_without_an_optimum_is_bounded() -> None:
    logits = random_logits(50, 4)
    right, wrong = logits.argmax(axis=1), logits.argmin(axis=1)
    given = torch.from_numpy(logits)
    assert best_temperature(given, torch.from_numpy(right)) == pytest.approx(SMALLEST)
    assert best_temperature(given, torch.from_numpy(wrong)) == pytest.approx(LARGEST)


# --- KL matching ---------------------------------------------------------------------------------


def matching(logits: Logits, validation: Logits) -> Logits:
    p, known = softmax(logits, axis=1), softmax(validation, axis=1)
    predicted = known.argmax(axis=1)
    templates = [known[predicted == k].mean(axis=0) for k in np.unique(predicted)]
    divergences = [(p * (np.log(p) - np.log(template))).sum(axis=1) for template in templates]
    nearest: Logits = np.array(divergences).min(axis=0)
    return -nearest


@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_kl_matching_equals_its_definition_and_another_library(spread: float) -> None:
    logits, validation = random_logits(), random_logits(90, spread=spread)[::-1].copy()
    scorer = build_scorer("kl_matching")
    scorer.fit(data_of(validation, validation.argmax(axis=1)))
    actual = score(scorer, logits)
    np.testing.assert_allclose(actual, matching(logits, validation), rtol=1e-5, atol=1e-5)
    other = KLMatching(None).fit_logits(torch.from_numpy(validation).float())
    theirs = -other.predict_logits(torch.from_numpy(logits).float()).numpy()
    np.testing.assert_allclose(actual, theirs, rtol=1e-4, atol=1e-4)


def test_kl_matching_leaves_out_a_class_that_is_never_predicted() -> None:
    validation = random_logits(90, 5)
    validation[:, 2] = -9.0
    labels = np.full(90, 2)
    scorer = build_scorer("kl_matching")
    scorer.fit(data_of(validation, labels))
    assert scorer.get_buffer("log_templates").shape == (4, 5)
    logits = random_logits(40, 5)
    actual = score(scorer, logits)
    np.testing.assert_allclose(actual, matching(logits, validation), rtol=1e-5, atol=1e-5)


def test_kl_matching_is_finite_for_templates_without_doubt() -> None:
    # exp(-500) is 0 in float64, too; its logarithm is not.
    validation = 500.0 * np.eye(3)
    scorer = build_scorer("kl_matching")
    scorer.fit(data_of(validation, np.arange(3)))
    actual = score(scorer, np.array([[500.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    # Uniform p: KL = mean of 0, 500 and 500, less ln 3.
    np.testing.assert_allclose(actual, [0.0, -(1000 / 3 - math.log(3))], atol=1e-4)
