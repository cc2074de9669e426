"""ICE: its objective against NumPy, its logarithm, its score, and whole runs with it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from oodserve.errors import RecipeError
from tests.by_hand import CLASSES, FEATURES, Array, Case, Net, draw, hard, network
from tests.training import write_recipe, write_tree
from train.fit import fit
from train.methods.ice import Ice, IceSettings
from train.methods.method import Embedded, TrainingBatch
from train.methods.passes import first_statistics
from train.methods.stable import CLOSEST, log_one_minus_exp
from train.networks.classifier import Classifier
from train.networks.gaussian import Covariance, GaussianHead
from train.recipes import load_recipe
from train.run import load_run
from train.scorers.ice import Ice as IceScore
from train.scorers.registry import build_scorer
from train.scorers.scorer import FitData

QUIET = Console(quiet=True)


def ice_network(covariance: Covariance = "full", *, zscore: bool = False) -> Classifier:
    """Return the network by hand, with a Gaussian head, started from a batch of its own."""
    model, case = network(zscore=zscore), Case.draw(3)
    method = Ice(IceSettings(covariance=covariance, ridge=0.3))
    method.attach(model)
    model.double()
    method.initialise(model, lambda: embedded(model, case))
    return model


def embedded(model: Classifier, case: Case) -> Embedded:
    with torch.no_grad():
        features = model.features(torch.from_numpy(case.images))
    labels = torch.arange(len(case.labels)) % 2  # class 2 stays empty
    return Embedded(features, torch.zeros(len(labels), CLASSES), labels)


def distances(net: Net, images: Array) -> Array:
    """Return h of a joint pass in train mode, by the inverse of the covariance."""
    features = np.tanh(net.normed(images, train=True))
    if net.zscore:
        deviation = np.sqrt(features.var(axis=1, ddof=1, keepdims=True) + 1e-6)
        features = 0.5 * (features - features.mean(axis=1, keepdims=True)) / deviation
    v = net.values
    factor = np.diag(np.exp(v["head.log_diagonal"]))
    if "head.lower" in v:
        factor = factor + np.tril(v["head.lower"], -1)
    precision = np.linalg.inv(factor @ factor.T)
    difference = features[:, None, :] - v["head.means"]
    return -np.asarray(np.einsum("nkd,de,nke->nk", difference, precision, difference))


def by_hand(net: Net, case: Case, weight: float) -> float:
    h = distances(net, np.concatenate([case.images, case.outliers]))
    inside, outside = np.split(h, 2)
    own = np.array([row[label] for row, label in zip(inside, case.labels, strict=True)])
    nearest = outside[:, net.values["head.populated"].astype(bool)].max(axis=1)
    pushed = -np.log(1 - np.exp(nearest))
    return hard(inside, case.labels) + weight * float(-own.mean() + pushed.mean())


@pytest.mark.parametrize("zscore", [False, True])
@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_the_objective_equals_its_derivation_in_value_and_slope(
    covariance: Covariance, zscore: bool
) -> None:
    model, case = ice_network(covariance, zscore=zscore), Case.draw()
    net = Net.of(model)
    terms = Ice(IceSettings(weight=0.7)).objective(model, case.batch(), draw())
    assert float(terms["loss"].detach()) == pytest.approx(by_hand(net, case, 0.7), rel=1e-9)
    rng = np.random.default_rng(5)
    directions = {
        name: rng.normal(size=tuple(value.shape)) for name, value in model.named_parameters()
    }
    gradients = torch.autograd.grad(terms["loss"], list(model.parameters()))
    slope = sum(
        float((gradient * torch.from_numpy(direction)).sum())
        for gradient, direction in zip(gradients, directions.values(), strict=True)
    )
    ahead, behind = (
        by_hand(
            replace(
                net,
                values=net.values
                | {name: net.values[name] + side * 1e-6 * directions[name] for name in directions},
            ),
            case,
            0.7,
        )
        for side in (1, -1)
    )
    assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-6)


def test_the_logged_terms_are_what_they_say() -> None:
    model, case = ice_network(), Case.draw()
    h = distances(Net.of(model), np.concatenate([case.images, case.outliers]))
    terms = Ice(IceSettings(weight=0.5)).objective(model, case.batch(), draw())
    own = h[np.arange(len(case.labels)), case.labels]
    assert float(terms["confidence"]) == pytest.approx(np.exp(own).mean())
    outside = h[len(case.labels) :, :2].max(axis=1)
    assert float(terms["outlier_confidence"]) == pytest.approx(np.exp(outside).mean())
    scale = np.exp(Net.of(model).values["head.log_diagonal"]).mean()
    assert float(terms["scale"]) == pytest.approx(scale)
    torch.testing.assert_close(
        terms["loss"], terms["cross_entropy"] + 0.5 * (terms["inside"] + terms["outside"])
    )


def test_the_first_step_starts_at_a_distance_of_one() -> None:
    # Without BatchNorm between, the features of the first step are those of the start.
    model, case = network(zscore=False).eval(), Case.draw()
    images, labels = case.tensors()
    method = Ice(IceSettings())
    method.attach(model)
    model.double()
    with torch.no_grad():
        features = model.features(images)
    method.initialise(model, lambda: Embedded(features, torch.zeros(len(labels), CLASSES), labels))
    terms = method.objective(model, case.batch(), draw())
    assert float(terms["inside"].detach()) == pytest.approx(1, abs=1e-6)
    assert not model.head.training


def test_outliers_move_the_nearest_class_alone() -> None:
    model, case = ice_network(), Case.draw()
    assert isinstance(model.head, GaussianHead)
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    model.head.register_forward_hook(keep)
    terms = Ice(IceSettings()).objective(model, case.batch(), draw())
    torch.autograd.backward(terms["outside"])
    gradient = seen[0].grad
    assert gradient is not None
    assert torch.equal(
        gradient[: len(case.labels)], torch.zeros(len(case.labels), CLASSES).double()
    )
    nearest = seen[0][len(case.labels) :, :2].argmax(dim=1)
    moved = gradient[len(case.labels) :] != 0
    assert moved.sum(dim=1).tolist() == [1] * len(case.labels)
    assert torch.equal(moved.int().argmax(dim=1), nearest)
    # A smaller h, farther away, lowers the loss.
    assert float(gradient.min()) == 0


def test_training_without_outliers_is_refused() -> None:
    batch = Case.draw().batch()
    with pytest.raises(RecipeError, match=r"method `ice` needs outlier images .* `data.outliers`"):
        Ice(IceSettings()).objective(
            ice_network(), TrainingBatch(batch.images, batch.labels), draw()
        )


def test_half_precision_training_gives_the_head_full_precision() -> None:
    model, case = ice_network().float(), Case.draw()
    batch = case.batch()
    single = TrainingBatch(batch.images.float(), batch.labels, outliers=batch.outliers.float())  # type: ignore[union-attr]
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    wrapped = fabric.setup_module(model)
    seen: list[torch.dtype] = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    terms = Ice(IceSettings()).objective(wrapped, single, draw())
    fabric.backward(terms["loss"])
    assert seen == [torch.float32]
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


# log(1 - exp(h)).


@pytest.mark.parametrize("h", [1e-4, 0.0, -1e-8, -1e-5, -1e-3, -math.log(2), -1.0, -20.0, -110.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_logarithm_is_right_and_finite_with_its_gradient(h: float, dtype: torch.dtype) -> None:
    value = torch.tensor(h, dtype=dtype, requires_grad=True)
    logarithm = log_one_minus_exp(value)
    (gradient,) = torch.autograd.grad(logarithm, value)
    clamped = np.longdouble(min(h, -CLOSEST))
    # In extended precision, each by the form that does not cancel there; its derivative is
    # -e^h / (1 - e^h).
    expected = np.log(-np.expm1(clamped)) if h > -1 else np.log1p(-np.exp(clamped))
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert float(logarithm.detach()) == pytest.approx(float(expected), rel=tolerance, abs=1e-44)
    slope = float(np.exp(clamped) / np.expm1(clamped)) if h <= -CLOSEST else 0.0
    assert float(gradient) == pytest.approx(slope, rel=1e-4 if dtype == torch.float32 else 1e-10)
    assert abs(float(gradient)) <= 1e4
    assert -9.22 < float(logarithm.detach()) <= 0


def test_the_logarithm_computes_in_full_precision() -> None:
    values = torch.tensor([-0.001, -3.0], dtype=torch.float16)
    assert log_one_minus_exp(values).dtype == torch.float32
    torch.testing.assert_close(log_one_minus_exp(values), log_one_minus_exp(values.float()))


# The score.


def fit_data(model: Classifier) -> FitData:
    none = Embedded(torch.empty(0), torch.empty(0, CLASSES), torch.empty(0, dtype=torch.int64))
    return FitData(model, none, none, lambda: iter(()), lambda: iter(()), seed=0)


def test_the_score_is_the_largest_logit_of_a_class_that_had_images() -> None:
    model = ice_network().eval()
    scorer = build_scorer("ice")
    scorer.fit(fit_data(model))
    logits = torch.tensor([[-3.0, -2.0, -1.0], [-900.0, -1200.0, -1.0]])
    assert scorer(torch.empty(2, FEATURES), logits).tolist() == [-2.0, -900.0]
    again = build_scorer("ice")
    again.load_state_dict(scorer.state_dict())
    assert torch.equal(again(torch.empty(2, FEATURES), logits), torch.tensor([-2.0, -900.0]))


def test_the_score_refuses_another_head() -> None:
    with pytest.raises(
        RecipeError, match=r"score `ice` needs the Gaussian head of method `ice`.* a `Linear`"
    ):
        IceScore().fit(fit_data(network(zscore=False)))


# Networks that have seen no batch.


def test_unseen_batch_norm_gets_the_mean_of_the_batches_statistics() -> None:
    seen, unseen = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2, momentum=0.3)
    model = torch.nn.Sequential(seen, unseen)
    seen(torch.randn(8, 2))
    before = {name: value.clone() for name, value in seen.state_dict().items()}
    batches = [torch.randn(5, 2), 3 + torch.randn(4, 2), torch.randn(1, 2)]
    with torch.no_grad(), first_statistics(model) as found:
        assert found
        model.eval()
        inputs = [seen(batch) for batch in batches]
        for batch in batches:
            model(batch)
        model.train()
    assert all(torch.equal(before[name], value) for name, value in seen.state_dict().items())
    means = np.stack([batch.numpy().mean(axis=0) for batch in inputs[:2]])
    variances = np.stack([batch.numpy().var(axis=0, ddof=1) for batch in inputs[:2]])
    assert unseen.running_mean is not None
    assert unseen.running_var is not None
    np.testing.assert_allclose(unseen.running_mean, means.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(unseen.running_var, variances.mean(axis=0), rtol=1e-5)
    assert unseen.momentum == 0.3
    assert unseen.training
    with first_statistics(model) as again:
        assert not again
    model.eval()(batches[1])
    assert not unseen.training


# A whole run.


@pytest.mark.parametrize("pretrain", [0, 1])
def test_a_run_trains_from_features_and_is_read_again(tmp_path: Path, pretrain: int) -> None:
    recipe_path = write_recipe(tmp_path / "tiny.toml", write_tree(tmp_path / "data", train=4))
    recipe = load_recipe(
        recipe_path,
        [
            'method={name = "ice", covariance = "diag"}',
            f"pretrain.epochs={pretrain}",
            "finetune.epochs=1",
            "finetune.gradient_clip_norm=5",
            'scores=["ice"]',
            "default_score=ice",
        ],
    )
    fit(recipe, tmp_path / "run", console=QUIET)
    line = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    # From features by statistics that no batch has set, h is about -1e5 and its exponential 0. So
    # it is after the single step of pretraining here, which sets a tenth of them.
    logged = json.loads(line)
    assert (logged["confidence"] > 0.01 and logged["inside"] < 10) == (pretrain == 0)
    run = load_run(tmp_path / "run")
    assert isinstance(run.model.head, GaussianHead)
    assert not run.model.head.training
    with torch.no_grad():
        features, logits = run.model.outputs(torch.randn(2, 3, 16, 16))
    score = run.scorers(["ice"])["ice"](features, logits)
    assert torch.equal(score, logits.amax(dim=1))
    assert float(score.max()) <= 0
