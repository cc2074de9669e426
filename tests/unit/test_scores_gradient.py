"""The written-out gradient and the scores that use one, against automatic differentiation."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.graph import export_graph
from oodserve.bundle import InputSpec
from oodserve.errors import RecipeError
from oodserve.images import Preprocessing
from train.methods.method import Embedded
from train.networks.classifier import Classifier
from train.networks.norms import FeatureNorm
from train.scorers.apply import Scoring
from train.scorers.gradient.gradnorm import GradNorm, GradNormSettings
from train.scorers.gradient.iodin import IOdin, IOdinSettings
from train.scorers.gradient.odin import Odin, OdinSettings
from train.scorers.gradient.probing import Probing
from train.scorers.gradient.reverse import Reverse
from train.scorers.registry import build_scorer
from train.scorers.scorer import FitData, Scorer
from train.vision import models

# isort: split
from pytorch_ood import detector as detectors

K, STD = 5, (0.2, 0.25, 0.4)
NORMS: tuple[FeatureNorm, ...] = ("none", "l2", "zscore")


def network(
    architecture: str = "resnet18", *, stem: str = "imagenet", norm: FeatureNorm = "none"
) -> Classifier:
    """A residual network whose batch normalisation does something."""
    torch.manual_seed(0)
    backbone: Any = (
        models.resnet.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1])
        if architecture == "shallow"
        else getattr(models, architecture)()
    )
    if stem == "small":
        backbone.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    n_features: int = backbone.fc.in_features
    backbone.fc = nn.Identity()
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    model = Classifier(backbone, n_features, K, feature_norm=norm, sigma=0.7)
    return model.eval().requires_grad_(requires_grad=False)


def small_network(norm: FeatureNorm = "none") -> Classifier:
    torch.manual_seed(1)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    model = Classifier(backbone, 12, K, feature_norm=norm, sigma=0.7)
    return model.eval().requires_grad_(requires_grad=False)


def images(count: int = 3, *, height: int = 21, width: int = 18, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def automatic(model: nn.Module, pixels: Tensor, outer: Tensor) -> Tensor:
    """The gradient of sum(outer * model(pixels)), by PyTorch."""
    with torch.enable_grad():
        leaf = pixels.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((model(leaf) * outer).sum(), leaf)
    return gradient


def fit_data(model: Classifier, *, std: tuple[float, float, float] = STD) -> FitData:
    nothing = Embedded(torch.zeros(0), torch.zeros(0, K), torch.zeros(0))
    return FitData(model, nothing, nothing, lambda: iter(()), lambda: iter(()), seed=0, std=std)


def fitted(scorer: Scorer, model: Classifier) -> Scorer:
    scorer.fit(fit_data(model))
    return scorer.eval()


@torch.no_grad()
def score(scorer: Scorer, model: Classifier, pixels: Tensor) -> Tensor:
    values: Tensor = Scoring(model, {"score": scorer})(pixels)[2]["score"]
    return values


# --- the gradient, written out -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "stem", "size"),
    [
        ("resnet18", "imagenet", (33, 45)),
        ("resnet18", "small", (17, 16)),
        ("resnet34", "imagenet", (32, 32)),
        ("resnet50", "imagenet", (40, 33)),
    ],
)
def test_every_backbones_gradient_is_that_of_autograd(
    architecture: str, stem: str, size: tuple[int, int]
) -> None:
    backbone = network(architecture, stem=stem).backbone
    pixels = images(2, height=size[0], width=size[1])
    passed = Reverse(backbone).run(pixels)
    torch.testing.assert_close(passed.output, backbone(pixels))
    outer = torch.randn(passed.output.shape, generator=torch.Generator().manual_seed(3))
    expected = automatic(backbone, pixels, outer)
    error = (passed.pull_back(outer) - expected).abs().max() / expected.abs().max()
    assert float(error) < 1e-5


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.Conv2d(3, 6, (3, 5), stride=(2, 3), padding=(0, 2), groups=3),
        nn.Conv2d(3, 4, 3, stride=2, dilation=2, bias=False),
        nn.Conv2d(3, 4, 1, stride=3),
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 1, 1),
        nn.MaxPool2d(2, 3),
        nn.ReLU(),
        nn.Identity(),
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, affine=False),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(9, 9), (10, 13), (12, 11)])
def test_each_layers_rule_is_that_of_autograd(layer: nn.Module, size: tuple[int, int]) -> None:
    net = nn.Sequential(layer.double().eval(), nn.Flatten())
    # Whole numbers of both signs: many windows have several largest entries.
    pixels = torch.randint(
        -2, 3, (2, 3, *size), generator=torch.Generator().manual_seed(5)
    ).double()
    passed = Reverse(net).run(pixels)
    outer = torch.randn(passed.output.shape, dtype=torch.float64)
    torch.testing.assert_close(passed.pull_back(outer), automatic(net, pixels, outer))


class Branches(nn.Module):
    """Uses one value three times, and linear layers, dropout and both kinds of sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.dropout = nn.Dropout(0.5)

    def forward(self, values: Tensor) -> Tensor:
        flat = torch.flatten(values, 1)
        total = torch.add(flat, self.first(flat))
        total = total + self.dropout(flat)
        total += self.first(flat)
        result: Tensor = total
        return result


def test_what_is_used_more_than_once_adds_up() -> None:
    net, values = Branches().eval(), torch.randn(4, 1, 2, 3)
    passed = Reverse(net).run(values)
    outer = torch.randn(4, 6)
    torch.testing.assert_close(passed.pull_back(outer), automatic(net, values, outer))


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.GELU(), "GELU"),
        (nn.MaxPool2d(2, ceil_mode=True), "MaxPool2d"),
        (nn.AdaptiveAvgPool2d(2), "AdaptiveAvgPool2d"),
        (nn.Conv2d(3, 3, 3, padding="same"), "Conv2d"),
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "Conv2d"),
    ],
)
def test_a_layer_without_a_rule_is_refused(layer: nn.Module, name: str) -> None:
    with pytest.raises(RecipeError, match=rf"part `_?0` \(`{name}`\) has no rule"):
        Reverse(nn.Sequential(layer))


def test_a_function_without_a_rule_is_refused() -> None:
    class Doubled(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            doubled: Tensor = values * 2
            return doubled

    with pytest.raises(RecipeError, match=r"part `mul` .* has no rule for the gradient"):
        Reverse(Doubled())


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_passes_through_the_heads_normalisation(norm: FeatureNorm) -> None:
    model, pixels = small_network(norm), images()
    probe = Probing(model).probe(pixels)
    torch.testing.assert_close(probe.logits, model(pixels))
    outer = torch.randn(3, K)
    expected = automatic(model, pixels, outer)
    torch.testing.assert_close(probe.pull_back(outer), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["odin", "iodin", "gradnorm"])
def test_a_head_that_is_not_linear_is_refused(name: str) -> None:
    model = small_network()
    model.head = nn.Sequential(nn.Linear(12, K))
    with pytest.raises(RecipeError, match="needs a linear head, but the model has a `Sequential`"):
        build_scorer(name).fit(fit_data(model))


# --- ODIN ----------------------------------------------------------------------------------------


def loss_gradient(model: nn.Module, pixels: Tensor, temperature: float) -> Tensor:
    with torch.enable_grad():
        leaf = pixels.clone().requires_grad_()
        scaled = model(leaf) / temperature
        loss = functional.cross_entropy(scaled, scaled.argmax(dim=1), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def confidence(model: nn.Module, pixels: Tensor, temperature: float) -> Tensor:
    with torch.no_grad():
        return torch.softmax(model(pixels).double() / temperature, dim=1).amax(dim=1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_odin_equals_its_definition_and_pytorch_ood(norm: FeatureNorm, temperature: float) -> None:
    model, pixels = small_network(norm), images(16)
    scorer = fitted(Odin(OdinSettings(temperature=temperature, epsilon=0.01)), model)
    step = (
        0.01 * loss_gradient(model, pixels, temperature).sign() / torch.tensor(STD).reshape(3, 1, 1)
    )
    actual = score(scorer, model, pixels).double()
    torch.testing.assert_close(
        actual, confidence(model, pixels - step, temperature), rtol=1e-5, atol=0
    )
    other = detectors.ODIN(model, eps=0.01, temperature=temperature, norm_std=list(STD))
    theirs = -other.predict(pixels).double()
    torch.testing.assert_close(actual, theirs, rtol=1e-5, atol=0)


def test_the_step_makes_an_image_more_certain() -> None:
    model, pixels = small_network(), images(32)
    moved = fitted(Odin(OdinSettings(temperature=1, epsilon=0.01)), model)
    still = fitted(Odin(OdinSettings(temperature=1, epsilon=0)), model)
    assert bool((score(moved, model, pixels) > score(still, model, pixels)).all())


@pytest.mark.parametrize("name", ["odin", "iodin"])
@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_without_a_step_it_is_the_softmax_at_that_temperature(
    name: str, temperature: float
) -> None:
    model, pixels = small_network(), images(8)
    scorer = fitted(build_scorer(name, {"temperature": temperature, "epsilon": 0}), model)
    expected = torch.softmax(model(pixels) / temperature, dim=1).amax(dim=1)
    torch.testing.assert_close(score(scorer, model, pixels), expected)


def test_no_gradient_counts_as_positive() -> None:
    gradient = torch.tensor([[[[0.0, -0.0, -1e-30, 1e-30]]]])
    assert Odin().direction(gradient).flatten().tolist() == [1, 1, -1, 1]


def test_a_gradient_is_left_where_the_softmax_rounds_to_one() -> None:
    model = small_network()
    assert isinstance(model.head, nn.Linear)
    model.head.bias[2] = 25.0
    pixels = images(2)
    assert (torch.softmax(model(pixels), dim=1)[:, 2] == 1).all()
    scorer = fitted(Odin(OdinSettings(temperature=1)), model)
    assert isinstance(scorer, Odin)
    probe = Probing(model).probe(pixels)
    step = (pixels - scorer.moved(pixels, probe)).sign()
    exact = copy.deepcopy(model).double()
    truth = loss_gradient(exact, pixels.double(), 1.0).sign()
    there = truth != 0
    assert float((step == truth)[there].float().mean()) > 0.99
    rounded = loss_gradient(model, pixels, 1.0).sign()
    assert float((rounded == truth)[there].float().mean()) < 0.9


@pytest.mark.parametrize("entries", [1, 7])
@pytest.mark.parametrize("norm", NORMS)
def test_iodin_moves_the_entries_of_largest_gradient_alone(norm: FeatureNorm, entries: int) -> None:
    model, pixels = small_network(norm), images(8)
    scorer = fitted(IOdin(IOdinSettings(entries=entries, epsilon=0.01)), model)
    assert isinstance(scorer, IOdin)
    change = scorer.moved(pixels, Probing(model).probe(pixels)) - pixels
    gradient = loss_gradient(model, pixels, 1000.0)
    for row in range(len(pixels)):
        flat = change[row].flatten()
        (places,) = torch.nonzero(flat, as_tuple=True)
        largest = gradient[row].flatten().abs().topk(entries).indices
        assert sorted(places.tolist()) == sorted(largest.tolist())
        channels = places // (21 * 18)
        expected = -0.01 * gradient[row].flatten()[places].sign() / torch.tensor(STD)[channels]
        torch.testing.assert_close(flat[places], expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["odin", "iodin"])
def test_an_images_score_does_not_depend_on_its_batch(name: str) -> None:
    model, pixels = small_network(), images(6)
    scorer = fitted(build_scorer(name, {"temperature": 1, "epsilon": 0.01}), model)
    whole = score(scorer, model, pixels)
    alone = torch.cat([score(scorer, model, pixels[row : row + 1]) for row in range(6)])
    torch.testing.assert_close(alone, whole)


@pytest.mark.parametrize("name", ["odin", "iodin"])
def test_scoring_needs_no_autograd_and_leaves_the_model_as_it_was(name: str) -> None:
    model = small_network()
    model.head.requires_grad_(requires_grad=True)
    before = copy.deepcopy(model.state_dict())
    scorer = fitted(build_scorer(name), model)
    with torch.inference_mode():
        first = Scoring(model, {name: scorer})(images())[2][name]
    torch.testing.assert_close(first.clone(), score(scorer, model, images()))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.head.weight.requires_grad
    assert scorer.state_dict().keys() == {"std"}


@pytest.mark.parametrize(
    ("name", "knob", "value"),
    [
        ("odin", "temperature", 0),
        ("odin", "epsilon", -0.001),
        ("odin", "epsilon", 0.3),
        ("iodin", "entries", 0),
        ("gradnorm", "temperature", -1),
    ],
)
def test_impossible_knobs_are_refused(name: str, knob: str, value: float) -> None:
    with pytest.raises(RecipeError, match=rf"knobs of score `{name}` have faults: `{knob}` = "):
        build_scorer(name, {knob: value})


# --- GradNorm ------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradnorm_equals_the_norm_of_the_gradient(norm: FeatureNorm, temperature: float) -> None:
    model, pixels = small_network(norm), images(6)
    scorer = fitted(GradNorm(GradNormSettings(temperature=temperature)), model)
    actual = score(scorer, model, pixels)
    assert isinstance(model.head, nn.Linear)
    weight = model.head.weight
    expected = []
    with torch.enable_grad():
        weight.requires_grad = True
        for row in range(6):
            log_p = torch.log_softmax(model(pixels[row : row + 1]) / temperature, dim=1)
            # KL(u || p) without the entropy of u, which is a constant.
            (gradient,) = torch.autograd.grad(-log_p.mean(), weight)
            expected.append(gradient.abs().sum())
        weight.requires_grad = False
    torch.testing.assert_close(actual, torch.stack(expected))
    other = detectors.GradNorm(
        model, param_filter=lambda name: name == "head.weight", temperature=temperature
    )
    torch.testing.assert_close(actual, -other.predict(pixels))


# --- in the exported graph -----------------------------------------------------------------------

SIDE = 40
SPEC = InputSpec(
    preprocessing=Preprocessing(
        height=SIDE, width=SIDE, resize="exact", resize_height=SIDE, resize_width=SIDE,
        interpolation="bilinear",
    ),
    mean=(0.5, 0.4, 0.6),
    std=STD,
)  # fmt: skip


def session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class ChangeAlone(nn.Module):
    """Returns the gradient and the moved image, which the scores keep to themselves."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.scorer = fitted(IOdin(), model)
        self.probing = Probing(model)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.scorer, IOdin)
        probe = self.probing.probe(pixels)
        outer = functional.softmax(probe.logits, dim=1)
        return probe.pull_back(outer), self.scorer.moved(pixels, probe)


# torch.export touches a class that its own pytree module has deprecated.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")
def test_the_exported_gradient_is_that_of_autograd() -> None:
    model, pixels = network("shallow"), images(4, height=SIDE, width=SIDE)
    program = torch.onnx.export(
        ChangeAlone(model).eval(), (pixels[:2],), dynamo=True, verbose=False, opset_version=18,
        dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
        input_names=["pixels"], output_names=["gradient", "moved"],
    )  # fmt: skip
    assert program is not None
    runtime = session(program.model_proto.SerializeToString())
    gradient, moved = runtime.run(None, {"pixels": pixels.numpy()})
    with torch.no_grad():
        outer = torch.softmax(model(pixels), dim=1)
    expected = automatic(model, pixels, outer).numpy()
    assert np.abs(gradient - expected).max() < 1e-5 * np.abs(expected).max()
    truth = loss_gradient(model, pixels, 1000.0).flatten(1).abs().argmax(dim=1)
    changed = np.abs(moved - pixels.numpy()).reshape(4, -1) > 0
    assert changed.sum(axis=1).tolist() == [1, 1, 1, 1]
    assert changed.argmax(axis=1).tolist() == truth.tolist()


@pytest.mark.parametrize("norm", ["none", "zscore"])
def test_the_exported_scores_equal_pytorchs_by_autograd(norm: FeatureNorm) -> None:
    model = small_network(norm)
    knobs = {"temperature": 1.0, "epsilon": 0.01}
    scorers = {name: fitted(build_scorer(name, knobs), model) for name in ("odin", "iodin")}
    scorers["gradnorm"] = fitted(build_scorer("gradnorm"), model)
    graph = export_graph(model, scorers, SPEC)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
    outputs = session(graph.content).run(["odin", "iodin", "gradnorm"], {"image": pictures})
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (SPEC.mean, SPEC.std))
    pixels = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - mean) / std
    gradient = loss_gradient(model, pixels, 1.0)
    odin = confidence(model, pixels - 0.01 * gradient.sign() / std, 1.0)
    flat = gradient.flatten(1)
    mask = functional.one_hot(flat.abs().argmax(dim=1), flat.shape[1]).reshape(gradient.shape)
    iodin = confidence(model, pixels - 0.01 * gradient.sign() * mask / std, 1.0)
    np.testing.assert_allclose(outputs[0], odin.numpy(), rtol=1e-4)
    np.testing.assert_allclose(outputs[1], iodin.numpy(), rtol=1e-4)
    with torch.no_grad():
        expected = scorers["gradnorm"](*model.outputs(pixels))
    np.testing.assert_allclose(outputs[2], expected.numpy(), rtol=1e-4)
