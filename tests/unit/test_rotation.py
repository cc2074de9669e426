"""Rotation prediction: the objective and the score against NumPy, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from scipy.special import log_softmax as scipy_log_softmax
from scipy.stats import entropy
from torch import Tensor, nn

from oodserve.errors import RecipeError
from tests.by_hand import Array, draw
from train.methods.method import Embedded, TrainingBatch
from train.methods.rotation import Rotation, RotationSettings, rotations
from train.networks.classifier import Classifier
from train.scorers.apply import Scoring
from train.scorers.registry import build_scorer
from train.scorers.rotation import Rotation as RotationScore
from train.scorers.scorer import FitData

BATCH, SIDE, N_FEATURES, N_CLASSES = 5, 4, 6, 3
PIXELS = 3 * SIDE * SIDE


def rotating(*, attach: bool = True, zscore: bool = False) -> Classifier:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(N_FEATURES)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, N_FEATURES), norm, nn.Tanh())
    model = Classifier(
        backbone, N_FEATURES, N_CLASSES, feature_norm="zscore" if zscore else "none", sigma=0.5
    )
    if attach:
        Rotation(RotationSettings()).attach(model)
    return model.double().train()


def batch_of(seed: int = 0) -> TrainingBatch:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(size=(BATCH, 3, SIDE, SIDE)))
    return TrainingBatch(images, torch.from_numpy(rng.integers(N_CLASSES, size=BATCH)))


def features_by_hand(values: dict[str, Array], images: Array) -> Array:
    hidden = images.reshape(len(images), -1) @ values["backbone.1.weight"].T
    hidden = hidden + values["backbone.1.bias"]
    normed = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    return np.asarray(np.tanh(normed * values["backbone.2.weight"] + values["backbone.2.bias"]))


def objective_by_hand(values: dict[str, Array], batch: TrainingBatch, weight: float) -> float:
    images, labels = batch.images.numpy(), batch.labels.numpy()
    # A quarter counter-clockwise moves what is at (row, column) to (S - 1 - column, row).
    turned = [images]
    for _ in range(3):
        before, after = turned[-1], np.empty_like(images)
        for row in range(SIDE):
            for column in range(SIDE):
                after[:, :, SIDE - 1 - column, row] = before[:, :, row, column]
        turned.append(after)
    features = features_by_hand(values, np.concatenate(turned))
    logits = features[:BATCH] @ values["head.weight"].T + values["head.bias"]
    guesses = features @ values["auxiliary.rotation.weight"].T + values["auxiliary.rotation.bias"]
    truth = np.repeat(np.arange(4), BATCH)
    clean = -scipy_log_softmax(logits, axis=1)[np.arange(BATCH), labels].mean()
    return float(
        clean - weight * scipy_log_softmax(guesses, axis=1)[np.arange(4 * BATCH), truth].mean()
    )


def values_of(model: Classifier) -> dict[str, Array]:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_objective_equals_its_derivation_in_value_and_slope(weight: float) -> None:
    model, batch = rotating(), batch_of()
    values = values_of(model)
    terms = Rotation(RotationSettings(weight=weight)).objective(model, batch, draw())
    expected = objective_by_hand(values, batch, weight)
    assert float(terms["loss"].detach()) == pytest.approx(expected, rel=1e-9)
    rng = np.random.default_rng(1)
    directions = {n: rng.normal(size=tuple(p.shape)) for n, p in model.named_parameters()}
    gradients = torch.autograd.grad(terms["loss"], list(model.parameters()))
    slope = sum(
        float((gradient * torch.from_numpy(direction)).sum())
        for gradient, direction in zip(gradients, directions.values(), strict=True)
    )
    ahead, behind = (
        objective_by_hand(
            values | {name: values[name] + side * 1e-6 * directions[name] for name in directions},
            batch,
            weight,
        )
        for side in (1, -1)
    )
    assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-7)


def test_batch_norm_sees_all_rotations_as_one_batch() -> None:
    model, sizes = rotating(), list[int]()
    model.backbone.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    Rotation(RotationSettings()).objective(model, batch_of(), draw())
    assert sizes == [4 * BATCH]
    assert int(model.get_buffer("backbone.2.num_batches_tracked")) == 1


def test_the_rotation_head_sees_features_before_normalisation() -> None:
    terms = [
        Rotation(RotationSettings()).objective(rotating(zscore=zscore), batch_of(), draw())
        for zscore in (False, True)
    ]
    assert torch.equal(terms[0]["rotation"], terms[1]["rotation"])
    assert not torch.equal(terms[0]["cross_entropy"], terms[1]["cross_entropy"])


def test_the_accuracy_is_that_of_the_rotations() -> None:
    model = rotating()
    with torch.no_grad():
        model.get_parameter("auxiliary.rotation.weight").zero_()
        model.get_parameter("auxiliary.rotation.bias").copy_(torch.tensor([0.0, 5.0, 0.0, 0.0]))
    terms = Rotation(RotationSettings()).objective(model, batch_of(), draw())
    assert float(terms["rotation_accuracy"]) == 0.25


def test_works_under_mixed_precision() -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = rotating().float()
    wrapped = fabric.setup_module(model)
    wrapped.mark_forward_method("outputs")
    batch = batch_of()
    single = TrainingBatch(batch.images.float(), batch.labels)
    terms = Rotation(RotationSettings()).objective(wrapped, single, draw())
    fabric.backward(terms["loss"])
    assert terms["loss"].dtype == torch.float32
    gradient = model.get_parameter("auxiliary.rotation.weight").grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"by 90 degrees, but they are `4` x `6`; set `input.h"):
        rotations(torch.zeros(2, 3, 4, 6))


# The score.


def fit_data(model: Classifier) -> FitData:
    none = Embedded(torch.empty(0), torch.empty(0, N_CLASSES), torch.empty(0, dtype=torch.int64))
    return FitData(model, none, none, lambda: iter(()), lambda: iter(()), seed=0)


def fitted(model: Classifier) -> RotationScore:
    scorer = build_scorer("rotation")
    assert isinstance(scorer, RotationScore)
    scorer.fit(fit_data(model))
    return scorer


@pytest.mark.parametrize("n_classes", [1, 3, 10])
def test_the_score_equals_its_formula(n_classes: int) -> None:
    model = rotating().float().eval()
    rng = np.random.default_rng(0)
    features = rng.normal(0, 4, size=(4, 7, N_FEATURES)).astype(np.float32)
    logits = rng.normal(0, 5, size=(7, n_classes)).astype(np.float32)
    given = tuple(torch.from_numpy(part) for part in features)
    actual = fitted(model)(given, torch.from_numpy(logits)).detach().numpy()
    p = np.exp(scipy_log_softmax(logits.astype(np.float64), axis=1))
    divergence = entropy(np.full_like(p, 1 / n_classes), p, axis=1)
    values = values_of(model)
    guesses = features @ values["auxiliary.rotation.weight"].T + values["auxiliary.rotation.bias"]
    log_q = scipy_log_softmax(guesses.astype(np.float64), axis=2)
    wrong = -np.mean([log_q[turn, :, turn] for turn in range(4)], axis=0)
    np.testing.assert_allclose(actual, divergence - wrong, rtol=1e-5, atol=1e-5)


def test_the_network_turns_images_as_training_did() -> None:
    model, batch = rotating().float().eval(), batch_of()
    images = batch.images.float()
    scorer = fitted(model)
    _, logits, scores = Scoring(model, {"rotation": scorer}).eval()(images)
    with torch.no_grad():
        given = tuple(model.features(turned) for turned in rotations(images))
    torch.testing.assert_close(scores["rotation"], scorer(given, logits))


def test_the_score_keeps_a_copy_of_the_head() -> None:
    model = rotating().float().eval()
    scorer = fitted(model)
    before = {name: value.clone() for name, value in scorer.state_dict().items()}
    with torch.no_grad():
        model.get_parameter("auxiliary.rotation.weight").zero_()
    assert torch.equal(scorer.weight, before["weight"])
    again: dict[str, Tensor] = build_scorer("rotation").state_dict()
    assert again["weight"].shape == (0,)


def test_the_score_needs_the_methods_head() -> None:
    with pytest.raises(RecipeError, match="score `rotation` needs the rotation head of method"):
        RotationScore().fit(fit_data(rotating(attach=False)))
