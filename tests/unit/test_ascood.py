"""ASCOOD's options: the shared pass, the energy loss, and every feature normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch import Tensor

from oodserve.errors import RecipeError
from tests.by_hand import BATCH, CLASSES, Array, Case, Net, draw, hard, log_softmax, network
from train.methods.ascood import Ascood, AscoodSettings, energy_loss
from train.methods.method import TrainingBatch
from train.methods.synthesis.settings import synthesise
from train.networks.classifier import Classifier


def prepared(settings: AscoodSettings, *, zscore: bool = True) -> tuple[Classifier, Ascood]:
    model, method = network(zscore=zscore), Ascood(settings)
    method.attach(model)
    return model.double(), method


def divergence(logits: Array) -> float:
    return float((-np.log(CLASSES) - log_softmax(logits).mean(axis=1)).mean())


def energy_by_hand(values: dict[str, Array], inside: Array, outside: Array) -> float:
    logits = np.concatenate([inside, outside])
    energies = np.log(np.exp(logits).sum(axis=1, keepdims=True))
    hidden = energies @ values["auxiliary.energy.0.weight"].T + values["auxiliary.energy.0.bias"]
    scores = np.maximum(hidden, 0) @ values["auxiliary.energy.2.weight"].T
    truth = np.array([1] * len(inside) + [0] * len(outside))
    return hard(scores + values["auxiliary.energy.2.bias"], truth)


# The shared pass.


@pytest.mark.parametrize("kind", ["gradient", "shuffle"])
@pytest.mark.parametrize("target", ["logit", "softmax"])
@pytest.mark.parametrize("loss", ["kl", "energy"])
def test_a_shared_pass_equals_its_derivation(kind: Any, target: Any, loss: Any) -> None:
    knobs: dict[str, Any] = {
        "kind": kind, "target": target, "p_inv": 0.3, "alpha_max": 4.0, "alpha_min": 4.0,
    }  # fmt: skip
    settings = AscoodSettings(share_forward=True, loss=loss, weight=1.3, **knobs)
    model, method = prepared(settings)
    twin = network(zscore=True)
    case, net = Case.draw(), Net.of(model)
    separate = AscoodSettings(gradient_mode="train", **knobs)
    outliers = synthesise(twin, *case.tensors(), settings=separate, draw=draw())
    terms = method.objective(model, case.batch(), draw())
    inside, outside = net.logits(case.images), net.logits(outliers.numpy())
    term = divergence(outside) if loss == "kl" else energy_by_hand(net.values, inside, outside)
    assert float(terms["uniform" if loss == "kl" else "energy"].detach()) == pytest.approx(term)
    expected = hard(inside, case.labels) + 1.3 * term
    assert float(terms["loss"].detach()) == pytest.approx(expected, rel=1e-9)


def test_a_shared_pass_has_the_gradient_of_two_plain_ones() -> None:
    settings = AscoodSettings(share_forward=True, alpha_max=4.0, alpha_min=4.0, weight=0.7)
    model, method = prepared(settings)
    twin, case = network(zscore=True), Case.draw()
    outliers = synthesise(twin, *case.tensors(), settings=settings, draw=draw())
    images, labels = case.tensors()
    clean = torch.nn.functional.cross_entropy(twin(images), labels)
    outside = torch.log_softmax(twin(outliers), dim=1).mean()
    torch.autograd.backward(clean - 0.7 * outside)
    torch.autograd.backward(method.objective(model, case.batch(), draw())["loss"])
    for (name, actual), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, msg=name)


def test_a_shared_pass_runs_the_network_twice_and_keeps_the_images_statistics() -> None:
    model, method = prepared(AscoodSettings(share_forward=True, alpha_max=9.0, alpha_min=9.0))
    twin, case, sizes = network(zscore=True), Case.draw(), list[int]()
    model.backbone.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    batch = case.batch()
    terms = method.objective(model, batch, draw())
    assert sizes == [BATCH, BATCH]
    twin(case.tensors()[0])
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name))
    torch.autograd.backward(terms["loss"])
    assert not batch.images.requires_grad
    assert batch.images.grad is None
    assert all(module.training for module in model.modules())


def test_a_wrapped_model_shares_its_pass_in_single_precision_only() -> None:
    settings = AscoodSettings(share_forward=True, alpha_max=4.0, alpha_min=4.0)
    batch = Case.draw().batch()
    single = TrainingBatch(batch.images.float(), batch.labels)
    losses: list[Tensor] = []
    for wrap in (False, True):
        model, method = prepared(settings)
        model.float()
        fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
        wrapped = fabric.setup_module(model) if wrap else model
        terms = method.objective(wrapped, single, draw())
        fabric.backward(terms["loss"])
        losses.append(terms["loss"].detach())
    torch.testing.assert_close(losses[0], losses[1])
    mixed = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model, method = prepared(settings)
    with pytest.raises(
        RecipeError, match=r"`method.share_forward` = true .* mixed precision refuses.*\"32-true\""
    ):
        method.objective(mixed.setup_module(model.float()), single, draw())


def test_other_errors_of_the_shared_pass_are_not_taken_for_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object, **knobs: object) -> None:
        raise RuntimeError("out of memory")

    model, method = prepared(AscoodSettings(share_forward=True))
    monkeypatch.setattr(torch.autograd, "grad", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        method.objective(model, Case.draw().batch(), draw())


# The energy loss.


def test_the_energy_loss_equals_its_derivation_in_a_joint_pass() -> None:
    model, method = prepared(AscoodSettings(loss="energy", weight=0.4), zscore=False)
    twin, case, net = network(zscore=False), Case.draw(), Net.of(model)
    outliers = synthesise(twin, *case.tensors(), settings=AscoodSettings(), draw=draw())
    logits = net.logits(np.concatenate([case.images, outliers.numpy()]))
    inside, outside = np.split(logits, 2)
    term = energy_by_hand(net.values, inside, outside)
    terms = method.objective(model, case.batch(), draw())
    assert float(terms["energy"].detach()) == pytest.approx(term, rel=1e-9)
    expected = hard(inside, case.labels) + 0.4 * term
    assert float(terms["loss"].detach()) == pytest.approx(expected, rel=1e-9)
    assert "uniform" not in terms


def test_the_energy_loss_is_low_where_the_head_tells_them_apart() -> None:
    head = torch.nn.Linear(1, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [1.0]]))
        head.bias.copy_(torch.tensor([0.0, -6.0]))
    high, low = torch.full((4, 3), 20.0), torch.full((2, 3), -20.0)
    assert float(energy_loss(head, high, low).detach()) < 1e-3
    assert float(energy_loss(head, low, high).detach()) > 10


def test_only_the_energy_loss_adds_a_head() -> None:
    assert list(prepared(AscoodSettings())[0].auxiliary) == []
    model, _ = prepared(AscoodSettings(loss="energy"))
    assert list(model.auxiliary) == ["energy"]
    shapes = {name: tuple(p.shape) for name, p in model.auxiliary.named_parameters()}
    assert shapes == {
        "energy.0.weight": (512, 1),
        "energy.0.bias": (512,),
        "energy.2.weight": (2, 512),
        "energy.2.bias": (2,),
    }


# Features.


@pytest.mark.parametrize("norm", ["none", "l2", "zscore"])
@pytest.mark.parametrize("share", [False, True])
def test_every_feature_normalisation_trains(norm: Any, share: bool) -> None:
    model, method = prepared(AscoodSettings(alpha_max=20, alpha_min=20, share_forward=share))
    model.feature_norm = norm
    case = Case.draw()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        terms = method.objective(model, case.batch(), draw())
        optimizer.zero_grad()
        torch.autograd.backward(terms["loss"])
        optimizer.step()
        losses.append(float(terms["loss"].detach()))
    assert losses[-1] < 0.9 * losses[0]


# Settings.


def test_a_shared_pass_takes_the_gradient_in_train_mode() -> None:
    settings = AscoodSettings(share_forward=True)
    assert settings.gradient_mode == "train"
    assert AscoodSettings.model_validate(settings.model_dump()) == settings
    assert AscoodSettings().gradient_mode == "eval"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"gradient_mode": "eval"}, r'pass in train mode; set `gradient_mode = "train"`'),
        ({"kind": "gaussian"}, r'`kind = "gaussian"` takes none; set `share_forward = false`'),
    ],
)
def test_what_cannot_share_a_pass_is_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AscoodSettings(share_forward=True, **knobs)
