"""What figures ask of a model, against the model's own answers and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from oodserve.bundle import InputSpec
from oodserve.images import Preprocessing
from train.data.loading import normalise
from train.evaluation import probes
from train.figures.images import class_activation
from train.methods.synthesis.settings import SynthesisSettings
from train.models import build_classifier
from train.networks.classifier import Classifier
from train.recipes import ModelRecipe

SIDE = 16
SPEC = InputSpec(
    preprocessing=Preprocessing(
        height=SIDE, width=SIDE, resize="exact", resize_height=SIDE, resize_width=SIDE,
        interpolation="bilinear",
    ),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
)  # fmt: skip


class Drawn:
    """Pictures of one colour each, the index in the red channel."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, /) -> Image.Image:
        return Image.new("RGB", (SIDE, SIDE), (index, 2 * index, 0))


def network(feature_norm: str = "none") -> Classifier:
    torch.manual_seed(0)
    recipe = ModelRecipe.model_validate(
        {"architecture": "resnet18", "stem": "small", "feature_norm": feature_norm}
    )
    return build_classifier(recipe, 4)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def test_confidence_between_two_pictures() -> None:
    model, inside, outside = network(), images(5), images(5, seed=1)
    found = probes.interpolated_confidences(model, inside, outside, lambdas=(1.0, 0.6, 0.0))
    assert model.training  # left as it was
    model.eval()
    for lam, values in found.items():
        with torch.no_grad():
            logits = model(lam * inside + (1 - lam) * outside).double().numpy()
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = shares.max(axis=1) / shares.sum(axis=1)
        assert values == pytest.approx(expected, abs=1e-6)
        assert values.max() <= 1
    assert list(found) == [1.0, 0.6, 0.0]


def test_mixing_normalised_pictures_is_mixing_pixels() -> None:
    pixels = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8)
    mean, std = torch.tensor(SPEC.mean), torch.tensor(SPEC.std)
    first, second = normalise(pixels, mean=mean, std=std)
    mixed = probes.to_pictures((0.3 * first + 0.7 * second)[None], SPEC)[0]
    plain = pixels.double().numpy() / 255
    assert mixed == pytest.approx(0.3 * plain[0] + 0.7 * plain[1], abs=1e-6)


def test_logits_of_the_mix_and_the_mix_of_logits() -> None:
    model, inside, outside = network().eval(), images(1)[0], images(1, seed=1)[0]
    rows = probes.mixed_logits(model, inside, outside, lam=0.25)
    known, unknown, mixed, of_logits = rows.values()
    assert of_logits == pytest.approx(0.25 * known + 0.75 * unknown, abs=1e-6)
    with torch.no_grad():
        expected = model((0.25 * inside + 0.75 * outside)[None])[0].numpy()
    assert mixed == pytest.approx(expected, abs=1e-4)
    assert list(rows)[2:] == ["mixed images, λ = 0.25", "mixed logits, λ = 0.25"]


@pytest.mark.parametrize("norm", ["none", "zscore", "l2"])
def test_activations_add_up_to_the_logit_but_for_a_positive_factor(norm: str) -> None:
    model, given = network(norm).eval(), images(6)
    seen = probes.activations(model, given, SPEC)
    assert seen is not None
    with torch.no_grad():
        logits = model(given).double().numpy()
        features = model.features(given).double().numpy()
    assert seen.predicted.tolist() == logits.argmax(axis=1).tolist()
    head = model.head
    assert isinstance(head, nn.Linear)
    rows = np.arange(6)
    wanted = logits[rows, seen.predicted] - head.bias.detach().numpy()[seen.predicted]
    sums = class_activation(seen.maps, seen.weights, seen.predicted).mean(axis=(1, 2))
    factor = {
        "none": np.ones(6),
        "zscore": model.sigma / np.sqrt(features.var(axis=1, ddof=1) + 1e-6),
        "l2": model.sigma / np.sqrt((features**2).sum(axis=1) / (features.shape[1] - 1) + 1e-6),
    }[norm]
    assert sums * factor == pytest.approx(wanted, abs=1e-4)


def test_where_nothing_shows_where_the_model_looks() -> None:
    model = network()
    # Four halvings leave one place of 8 pixels.
    assert probes.activations(model, images(2)[:, :, :8, :8], SPEC) is None
    model.head = nn.Sequential(nn.Linear(512, 4))
    assert probes.activations(model, images(2), SPEC) is None


def test_outliers_are_those_of_the_last_epoch() -> None:
    model, given = network(), images(3)
    labels = torch.tensor([0, 1, 2])
    settings = SynthesisSettings(alpha_max=100.0, alpha_min=10.0, p_inv=0.2)
    made = probes.outliers_of(model, given, labels, settings, seed=1)
    assert model.training
    last = SynthesisSettings(alpha_max=10.0, alpha_min=10.0, p_inv=0.2)
    assert torch.equal(made, probes.outliers_of(model, given, labels, last, seed=1))
    assert not torch.equal(made, given)
    assert not made.requires_grad


def test_choices_are_distinct_and_repeat() -> None:
    made = probes.choose(50, 10, seed=3, stream="x")
    assert made == probes.choose(50, 10, seed=3, stream="x")
    assert made != probes.choose(50, 10, seed=4, stream="x")
    assert len(set(made)) == 10
    assert list(made) == sorted(made)
    assert probes.choose(3, 10, seed=0, stream="x") == (0, 1, 2)


def test_pairs_are_as_many_as_the_smaller_set() -> None:
    sets = {"near": Drawn(9), "far": Drawn(4)}
    known, unknown, name = probes.pairs(Drawn(20), sets, most=6, seed=0)
    assert (len(known), len(unknown), name) == (4, 4, "far")
    loaded = probes.load(known, SPEC, device=torch.device("cpu"))
    red = probes.to_pictures(loaded, SPEC)[:, 0, 0, 0] * 255
    assert red == pytest.approx(np.array(known.indices), abs=1e-3)
