"""Features and a fixed linear head for the tests of scores: what they are fitted on and give."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor, nn

from train.methods.method import Embedded
from train.networks.classifier import Classifier
from train.networks.norms import FeatureNorm
from train.scorers.registry import build_scorer
from train.scorers.scorer import FitData, Scorer

Array = NDArray[np.float64]

N, D, K = 120, 20, 5


def head_weights() -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return rounded(rng.normal(0, 0.7, (K, D))), rounded(rng.normal(0, 0.3, K))


def rounded(values: Array) -> Array:
    """Return what float32 can hold, so that a definition and a score see the same numbers."""
    return values.astype(np.float32).astype(np.float64)


def features_of(rows: int, *, seed: int) -> Array:
    """Return features as after a ReLU: most positive, some 0."""
    return rounded(np.maximum(np.random.default_rng(seed).normal(0.6, 1, (rows, D)), 0))


def head() -> nn.Linear:
    weight, bias = head_weights()
    linear = nn.Linear(D, K)
    linear.load_state_dict(
        {"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()}
    )
    return linear.requires_grad_(requires_grad=False)


def logits_of(features: Array) -> Array:
    weight, bias = head_weights()
    return rounded(features @ weight.T + bias)


def data_of(features: Array, *, norm: FeatureNorm = "none", labels: Any = None) -> FitData:
    model = Classifier(nn.Identity(), D, K, feature_norm=norm).eval()
    model.head = head()
    given = torch.from_numpy(features).float()
    logits = model.logits_from(given)
    truth = logits.argmax(dim=1) if labels is None else torch.from_numpy(labels)
    embedded = Embedded(given, logits, truth)
    return FitData(
        model=model,
        train=embedded,
        validation=embedded,
        train_maps=lambda: iter(()),
        validation_maps=lambda: iter(()),
        seed=3,
    )


def fitted(name: str, data: FitData, **knobs: Any) -> Scorer:
    scorer = build_scorer(name, knobs)
    scorer.fit(data)
    return scorer


def score(scorer: Scorer, features: Array, logits: Array | None = None) -> Array:
    logits = logits_of(features) if logits is None else logits
    values: Tensor = scorer(torch.from_numpy(features).float(), torch.from_numpy(logits).float())
    return values.double().numpy()


def energy(features: Array, weight: Array | None = None) -> Array:
    own, bias = head_weights()
    values: Array = logsumexp(features @ (own if weight is None else weight).T + bias, axis=1)
    return values
