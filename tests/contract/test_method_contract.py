"""What holds for every training method that is registered."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from pydantic import TypeAdapter
from torch import Tensor, nn

from train.methods.method import Draw, Method, TrainingBatch
from train.methods.registry import METHODS, MethodSettings, build_method
from train.networks.classifier import Classifier

every_method = pytest.mark.parametrize("name", sorted(METHODS))

SETTINGS: TypeAdapter[MethodSettings] = TypeAdapter(MethodSettings)


def method_of(name: str) -> Method:
    return build_method(SETTINGS.validate_python({"name": name}))


def model_of(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    backbone = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )
    return Classifier(backbone, 24, 3, feature_norm="zscore").train()


def batch_of(seed: int = 0) -> TrainingBatch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (6,), generator=generator)
    # Brightness tells the classes apart; outliers are noise.
    images = labels[:, None, None, None] + 0.3 * torch.randn(6, 3, 8, 8, generator=generator)
    return TrainingBatch(images, labels, outliers=torch.randn(6, 3, 8, 8, generator=generator))


def draw_of(seed: int = 0, *, epoch: int = 1) -> Draw:
    return Draw(
        rng=np.random.default_rng(seed),
        torch_generator=torch.Generator().manual_seed(seed),
        progress=(epoch - 1) / 3,
        epoch=epoch,
        epochs=3,
    )


@every_method
def test_settings_are_complete_documents(name: str) -> None:
    settings = SETTINGS.validate_python({"name": name})
    assert type(settings) is METHODS[name].settings
    assert settings.name == name
    assert SETTINGS.validate_json(settings.to_json()) == settings
    method = method_of(name)
    assert method.needs_outliers == settings.needs_outliers
    assert METHODS[name].settings.__doc__
    assert type(method).__doc__


@every_method
def test_terms_are_finite_scalars_and_the_loss_has_a_gradient(name: str) -> None:
    model = model_of()
    terms = method_of(name).objective(model, batch_of(), draw_of())
    for term in terms.values():
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert bool(torch.isfinite(term))
    torch.autograd.backward(terms["loss"])
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(torch.isfinite(parameter.grad).all()), parameter_name
        assert float(parameter.grad.abs().sum()) > 0 or parameter_name == "backbone.0.bias"


@every_method
def test_the_same_draws_give_the_same_bits(name: str) -> None:
    runs: list[dict[str, Tensor]] = []
    for _ in range(2):
        terms = method_of(name).objective(model_of(), batch_of(), draw_of(7))
        runs.append({key: term.detach() for key, term in terms.items()})
    assert runs[0].keys() == runs[1].keys()
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@every_method
def test_global_generators_are_left_alone(name: str) -> None:
    model = model_of()
    before = torch.get_rng_state()
    method_of(name).objective(model, batch_of(), draw_of())
    assert torch.equal(torch.get_rng_state(), before)


@every_method
def test_the_batch_and_the_models_mode_are_left_alone(name: str) -> None:
    model, batch = model_of(), batch_of()
    method_of(name).objective(model, batch, draw_of())
    fresh = batch_of()
    assert torch.equal(batch.images, fresh.images)
    assert torch.equal(batch.labels, fresh.labels)
    assert batch.outliers is not None
    assert fresh.outliers is not None
    assert torch.equal(batch.outliers, fresh.outliers)
    assert all(module.training for module in model.modules())


@every_method
def test_batch_norm_sees_as_many_batches_as_stated(name: str) -> None:
    model, method = model_of(), method_of(name)
    method.objective(model, batch_of(), draw_of())
    assert int(model.get_buffer("backbone.1.num_batches_tracked")) == method.forwards


@every_method
def test_outliers_that_are_not_needed_are_not_looked_at(name: str) -> None:
    method, batch = method_of(name), batch_of()
    if method.needs_outliers:
        moved = TrainingBatch(batch.images, batch.labels, outliers=torch.ones(6, 3, 8, 8))
    else:
        moved = TrainingBatch(batch.images, batch.labels)
    with_outliers = method.objective(model_of(), batch, draw_of())["loss"]
    other = method.objective(model_of(), moved, draw_of())["loss"]
    assert torch.equal(with_outliers, other) != method.needs_outliers


@every_method
def test_training_by_it_learns_the_classes(name: str) -> None:
    model, method, batch = model_of(), method_of(name), batch_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(40):
        terms = method.objective(model, batch, draw_of(step, epoch=1 + step // 14))
        optimizer.zero_grad()
        torch.autograd.backward(terms["loss"])
        optimizer.step()
    assert torch.equal(model(batch.images).argmax(dim=1), batch.labels)


@every_method
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_works_on_a_model_that_fabric_wraps(
    name: str, precision: Literal["32-true", "bf16-mixed"]
) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    wrapped = fabric.setup_module(model_of())
    terms = method_of(name).objective(wrapped, batch_of(), draw_of())
    assert terms["loss"].dtype == torch.float32
    expected = method_of(name).objective(model_of(), batch_of(), draw_of())["loss"]
    tolerance = 1e-6 if precision == "32-true" else 0.05
    torch.testing.assert_close(terms["loss"], expected, rtol=tolerance, atol=tolerance)
    fabric.backward(terms["loss"])
    assert wrapped.training
