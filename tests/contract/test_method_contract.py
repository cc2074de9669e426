"""What holds for every training method that is registered, and for its main variants.

A new method is covered by being registered.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from pydantic import TypeAdapter
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.methods.method import Draw, Embedded, Method, Settings, TrainingBatch
from train.methods.registry import METHODS, MethodSettings, build_method
from train.networks.classifier import Classifier

Table = dict[str, Any]
"""A recipe's ``[method]`` table."""

VARIANTS: list[Table] = [
    {"name": "oe", "mining": 0.5, "forward_mode": "separate"},
    {"name": "energy_oe", "m_in": -1.5, "m_out": -1.2, "weight": 1.0},
    {"name": "mixup", "operation": "cutmix", "lam_per": "sample"},
    {"name": "logit_mixing", "operation": "cutmix", "lam_per": "sample", "consistency": "l2"},
    {"name": "mixoe", "pair_weight": 0.5, "outlier_weight": 0.5, "lam_rule": "min"},
    {"name": "mixoe", "operation": "cutmix", "lam_per": "sample", "consistency": "mse"},
    {"name": "ascood", "kind": "shuffle"},
    {"name": "ascood", "kind": "gaussian"},
    {"name": "ascood", "loss": "energy"},
    {"name": "ascood", "direction": "subtract"},
    {"name": "ascood", "share_forward": True},
    {"name": "ice", "covariance": "diag"},
    {"name": "logit_mixoe", "operation": "cutmix", "lam_per": "sample", "consistency": "none"},
]


def described(table: Table) -> str:
    return "-".join(str(value) for value in table.values())


every_method = pytest.mark.parametrize(
    "table",
    [*({"name": name} for name in sorted(METHODS)), *VARIANTS],
    ids=described,
)

PASSES = {
    "mixoe": 2,
    "mixoe-0.5-0.5-min": 4,
    "oe-0.5-separate": 2,
}
"""How many batches BatchNorm sees in a step, where it is not one, by the values of the table."""

SETTINGS: TypeAdapter[Settings] = TypeAdapter(MethodSettings)

FEATURES, CLASSES, SIDE = 24, 3, 8

Normalisation = Callable[[], nn.Module]


def batch_norm() -> nn.Module:
    return nn.BatchNorm2d(6)


def group_norm() -> nn.Module:
    """Return a normalisation by which no image touches another."""
    return nn.GroupNorm(2, 6)


def method_of(table: Table) -> Method:
    return build_method(SETTINGS.validate_python(table))


def bare_model(seed: int = 0, *, norm: Normalisation = batch_norm) -> Classifier:
    torch.manual_seed(seed)
    backbone = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        norm(),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )
    return Classifier(backbone, FEATURES, CLASSES).train()


def model_for(table: Table, *, norm: Normalisation = batch_norm) -> Classifier:
    """Return a model that the method has attached its parts to and set them."""
    model, method = bare_model(norm=norm), method_of(table)
    plain = copy.deepcopy(model).eval()
    method.attach(model)

    def embed() -> Embedded:
        batch = batch_of(60, seed=9)
        with torch.no_grad():
            features, logits = plain.outputs(batch.images)
        return Embedded(features=features, logits=logits, labels=batch.labels)

    method.initialise(model, embed)
    return model.train()


def batch_of(size: int = 6, *, seed: int = 0, outliers: int | None = None) -> TrainingBatch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % CLASSES
    shape = (3, SIDE, SIDE)
    # Colour tells the classes apart; outliers are noise.
    images = 0.3 * torch.randn(size, *shape, generator=generator)
    images[torch.arange(size), labels] += 1
    noise = torch.randn(size if outliers is None else outliers, *shape, generator=generator)
    return TrainingBatch(images, labels, outliers=noise)


def draw_of(seed: int = 0, *, epoch: int = 1) -> Draw:
    return Draw(
        rng=np.random.default_rng(seed),
        torch_generator=torch.Generator().manual_seed(seed),
        epoch=epoch,
        epochs=3,
    )


def step(model: Classifier, method: Method, *, number: int) -> dict[str, Tensor]:
    """Make one step of clipped gradient descent; return its terms."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.zero_grad()
    terms = method.objective(model, batch_of(seed=number), draw_of(number))
    torch.autograd.backward(terms["loss"])
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {name: term.detach() for name, term in terms.items()}


@every_method
def test_settings_are_complete_documents(table: Table) -> None:
    settings = SETTINGS.validate_python(table)
    assert type(settings) is METHODS[table["name"]].settings
    assert settings.method_name == table["name"]
    assert SETTINGS.validate_json(settings.to_json()) == settings
    method = method_of(table)
    assert method.needs_outliers == settings.needs_outliers
    assert type(method).__doc__
    assert type(settings).__doc__
    for key, field in type(settings).model_fields.items():
        assert field.description or key == "name", key


@every_method
def test_terms_are_finite_scalars_and_the_loss_reaches_every_parameter(table: Table) -> None:
    model = model_for(table)
    terms = method_of(table).objective(model, batch_of(), draw_of())
    assert "loss" in terms
    for name, term in terms.items():
        assert term.shape == (), name
        assert term.dtype == torch.float32, name
        assert bool(torch.isfinite(term)), name
    torch.autograd.backward(terms["loss"])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        # BatchNorm takes away whatever is added before it.
        assert float(parameter.grad.abs().sum()) > 0 or name == "backbone.0.bias", name


@every_method
def test_the_same_draws_give_the_same_bits(table: Table) -> None:
    runs = [method_of(table).objective(model_for(table), batch_of(), draw_of(7)) for _ in range(2)]
    assert runs[0].keys() == runs[1].keys()
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@every_method
def test_nothing_is_left_behind_but_batch_statistics(table: Table) -> None:
    model, method, batch = model_for(table), method_of(table), batch_of()
    held, before = copy.deepcopy(vars(method)), copy.deepcopy(model.state_dict())
    randomness = torch.get_rng_state()
    method.objective(model, batch, draw_of())
    assert vars(method) == held
    assert torch.equal(torch.get_rng_state(), randomness)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    after = model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name.startswith("backbone.1.") for name in changed), changed
    fresh = batch_of()
    assert batch.outliers is not None
    assert fresh.outliers is not None
    for ours, theirs in (
        (batch.images, fresh.images),
        (batch.labels, fresh.labels),
        (batch.outliers, fresh.outliers),
    ):
        assert torch.equal(ours, theirs)
        assert not ours.requires_grad


@every_method
def test_training_goes_on_where_it_was_from_the_weights_alone(table: Table) -> None:
    model, method = model_for(table), method_of(table)
    for number in range(2):
        step(model, method, number=number)
    again, other = bare_model(seed=5), method_of(table)
    other.attach(again)
    again.load_state_dict(model.state_dict())
    expected = step(model, method, number=2)
    assert bool(torch.isfinite(expected["loss"]))
    actual = step(again.train(), other, number=2)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@every_method
def test_batch_norm_sees_as_many_batches_as_there_are_passes(table: Table) -> None:
    model, method = model_for(table), method_of(table)
    method.objective(model, batch_of(), draw_of())
    seen = int(model.get_buffer("backbone.1.num_batches_tracked"))
    assert seen == PASSES.get(described(table), 1)


@every_method
def test_outliers_that_are_not_needed_are_not_looked_at(table: Table) -> None:
    method, batch = method_of(table), batch_of()
    if method.needs_outliers:
        other = replace(batch, outliers=torch.ones(6, 3, SIDE, SIDE))
    else:
        other = replace(batch, outliers=None)
    losses = [
        method.objective(model_for(table), either, draw_of())["loss"] for either in (batch, other)
    ]
    assert torch.equal(losses[0], losses[1]) != method.needs_outliers


@every_method
def test_there_may_be_more_outliers_than_images_unless_they_are_paired(table: Table) -> None:
    settings, method = SETTINGS.validate_python(table), method_of(table)
    if not settings.needs_outliers:
        assert not settings.pairs_outliers
        return
    batch, model = batch_of(outliers=11), model_for(table)
    if settings.pairs_outliers:
        with pytest.raises(RecipeError, match="the batch has 6 images and 11 outliers"):
            method.objective(model, batch, draw_of())
    else:
        loss = method.objective(model, batch, draw_of())["loss"]
        assert bool(torch.isfinite(loss))


@every_method
def test_training_by_it_lowers_the_loss_and_learns_the_classes(table: Table) -> None:
    model, method, batch = model_for(table, norm=group_norm), method_of(table), batch_of()
    # Adam, since the methods' gradients differ in scale by orders of magnitude.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = method.objective(model, batch, draw_of(99))["loss"]
    for number in range(120):
        terms = method.objective(model, batch, draw_of(number, epoch=1 + number // 40))
        optimizer.zero_grad()
        torch.autograd.backward(terms["loss"])
        optimizer.step()
    assert torch.equal(model(batch.images).argmax(dim=1), batch.labels)
    after = method.objective(model, batch, draw_of(99))["loss"]
    assert float(after.detach()) < 0.95 * float(before.detach())


@every_method
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_works_on_a_model_that_fabric_wraps(
    table: Table, precision: Literal["32-true", "bf16-mixed"]
) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    wrapped = fabric.setup_module(model_for(table))
    wrapped.mark_forward_method("outputs")
    if table.get("share_forward") and precision != "32-true":
        with pytest.raises(RecipeError, match=r"mixed precision refuses; set `precision` to"):
            method_of(table).objective(wrapped, batch_of(), draw_of())
        return
    terms = method_of(table).objective(wrapped, batch_of(), draw_of())
    assert terms["loss"].dtype == torch.float32
    expected = method_of(table).objective(model_for(table), batch_of(), draw_of())["loss"]
    tolerance = 1e-6 if precision == "32-true" else 0.05
    torch.testing.assert_close(terms["loss"], expected, rtol=tolerance, atol=tolerance)
    fabric.backward(terms["loss"])
    assert wrapped.training


@dataclass(frozen=True)
class Outcome:
    """What one process makes of one step."""

    loss: Tensor
    gradients: dict[str, Tensor]
    randomness: tuple[object, list[int]]


class Meeting:
    """Threads that stand for processes, and hand each other their rows."""

    def __init__(self, processes: int) -> None:
        self._barrier = threading.Barrier(processes, timeout=30)
        self._rows: list[Tensor | None] = [None] * processes

    def gather(self, rank: int, rows: Tensor) -> Tensor:
        self._rows[rank] = rows.detach()
        self._barrier.wait()
        everyone = torch.cat([rows for rows in self._rows if rows is not None])
        self._barrier.wait()
        return everyone

    def leave(self) -> None:
        self._barrier.abort()


def outcome_of(
    table: Table, model: Classifier, batch: TrainingBatch, *, rank: int, meeting: Meeting, of: int
) -> Outcome:
    draw = replace(
        draw_of(3), rank=rank, processes=of, gather=lambda rows: meeting.gather(rank, rows)
    )
    try:
        terms = method_of(table).objective(model, batch, draw)
    except BaseException:
        meeting.leave()
        raise
    torch.autograd.backward(terms["loss"])
    gradients = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        gradients[name] = parameter.grad
    states = draw.rng.bit_generator.state, draw.torch_generator.get_state().tolist()
    return Outcome(terms["loss"].detach(), gradients, states)


def part_of(batch: TrainingBatch, rank: int, *, of: int) -> TrainingBatch:
    def mine(rows: Tensor) -> Tensor:
        return rows.chunk(of)[rank]

    assert batch.outliers is not None
    return TrainingBatch(mine(batch.images), mine(batch.labels), outliers=mine(batch.outliers))


@every_method
def test_two_processes_do_together_what_one_does(table: Table) -> None:
    """Without batch statistics the mean of their gradients is that of the global batch."""
    settings = SETTINGS.validate_python(table)
    whole = batch_of(8, outliers=8 if settings.pairs_outliers else 12)
    model = model_for(table, norm=group_norm)
    alone = outcome_of(table, copy.deepcopy(model), whole, rank=0, meeting=Meeting(1), of=1)
    meeting = Meeting(2)
    with ThreadPoolExecutor(max_workers=2) as threads:
        started = [
            threads.submit(
                outcome_of,
                table,
                copy.deepcopy(model),
                part_of(whole, rank, of=2),
                rank=rank,
                meeting=meeting,
                of=2,
            )
            for rank in range(2)
        ]
        both = [future.result() for future in started]
    torch.testing.assert_close((both[0].loss + both[1].loss) / 2, alone.loss, rtol=1e-5, atol=1e-6)
    for name, expected in alone.gradients.items():
        mean = (both[0].gradients[name] + both[1].gradients[name]) / 2
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert both[0].randomness == both[1].randomness == alone.randomness
