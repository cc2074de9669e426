"""The networks, their features and where their weights come from."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from oodserve.errors import WeightsUnavailable
from train.models import ARCHITECTURES, build_classifier
from train.networks.classifier import Classifier
from train.networks.norms import FeatureNorm, normalise_features, scale_to_length, standardise
from train.recipes import ModelRecipe

SMALL = ModelRecipe(architecture="resnet18", stem="small")


@pytest.fixture(scope="module")
def small() -> Classifier:
    torch.manual_seed(0)
    return build_classifier(SMALL, 7).eval()


@pytest.mark.parametrize(
    ("architecture", "n_features"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)]
)
def test_features_and_logits_have_the_architectures_shapes(
    architecture: Literal["resnet18", "resnet34", "resnet50"], n_features: int
) -> None:
    model = build_classifier(ModelRecipe(architecture=architecture), 7).eval()
    images = torch.randn(2, 3, 32, 32)
    features = model.features(images)
    assert features.shape == (2, n_features)
    assert model.logits_from(features).shape == (2, 7)
    torch.testing.assert_close(model(images), model.logits_from(features))


def test_every_architecture_of_recipes_can_be_built() -> None:
    annotation = ModelRecipe.model_fields["architecture"].annotation
    assert annotation is not None
    assert set(annotation.__args__) == set(ARCHITECTURES)


# Strides: 1, 1, 2, 2, 2 of the small stem; 2 * 2, 1, 2, 2, 2 of ImageNet's.
@pytest.mark.parametrize(
    ("stem", "side", "first", "last"),
    [("small", 32, 32, 4), ("imagenet", 32, 8, 1), ("imagenet", 224, 56, 7)],
)
def test_the_stem_decides_how_much_resolution_is_left(
    stem: Literal["imagenet", "small"], side: int, first: int, last: int
) -> None:
    model = build_classifier(ModelRecipe(architecture="resnet18", stem=stem), 2).eval()
    sizes: list[tuple[int, ...]] = []
    for name in ("layer1", "layer4"):
        model.backbone.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: sizes.append(tuple(output.shape[2:]))
        )
    model(torch.zeros(1, 3, side, side))
    assert sizes == [(first, first), (last, last)]


def test_the_same_seed_gives_the_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_classifier(SMALL, 7).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_zscore_changes_the_logits_and_not_the_features(small: Classifier) -> None:
    torch.manual_seed(0)
    normed = build_classifier(SMALL.model_copy(update={"feature_norm": "zscore"}), 7).eval()
    images = torch.randn(2, 3, 32, 32)
    features = normed.features(images)
    torch.testing.assert_close(features, small.features(images))
    expected = small.head(standardise(features, sigma=0.5))
    torch.testing.assert_close(normed(images), expected)


@pytest.mark.parametrize(("n_features", "norm"), [(2048, 22.62), (512, 11.30)])
def test_standardised_features_all_have_the_same_norm(n_features: int, norm: float) -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.gamma(0.5, 10, size=(6, n_features)))
    norms = torch.linalg.vector_norm(standardise(features, sigma=0.5), dim=1)
    expected = torch.full((6,), 0.5 * np.sqrt(n_features - 1), dtype=torch.float64)
    torch.testing.assert_close(norms, expected, rtol=1e-6, atol=0)
    assert float(norms[0]) == pytest.approx(norm, abs=0.005)


def test_standardising_equals_its_formula_in_numpy() -> None:
    features = np.random.default_rng(1).normal(3, 2, size=(5, 11))
    centred = features - features.mean(axis=1, keepdims=True)
    expected = 0.7 * centred / np.sqrt(features.var(axis=1, ddof=1, keepdims=True) + 1e-6)
    actual = standardise(torch.from_numpy(features), sigma=0.7)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_standardising_equals_layer_norm_but_for_the_divisor() -> None:
    features = torch.randn(5, 16, dtype=torch.float64)
    # Layer norm divides by the biased deviation, which is sqrt((D - 1) / D) of the unbiased one.
    expected = 0.5 * np.sqrt(15 / 16) * nn.functional.layer_norm(features, (16,), eps=0)
    torch.testing.assert_close(standardise(features, sigma=0.5), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_features", [512, 2048])
def test_scaled_features_have_the_length_of_standardised_ones(n_features: int) -> None:
    features = torch.from_numpy(np.random.default_rng(0).gamma(0.5, 10, size=(6, n_features)))
    lengths = [
        torch.linalg.vector_norm(norm(features, sigma=0.5), dim=1)
        for norm in (scale_to_length, standardise)
    ]
    expected = torch.full((6,), 0.5 * np.sqrt(n_features - 1), dtype=torch.float64)
    torch.testing.assert_close(lengths[0], expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(*lengths, rtol=1e-6, atol=0)


def test_scaling_keeps_the_direction_and_the_mean() -> None:
    features = np.random.default_rng(1).normal(3, 2, size=(5, 11))
    actual = scale_to_length(torch.from_numpy(features), sigma=0.7).numpy()
    lengths = np.sqrt((features**2).sum(axis=1, keepdims=True) / 10 + 1e-6)
    np.testing.assert_allclose(actual, 0.7 * features / lengths, rtol=1e-12)
    assert bool((np.abs(actual.mean(axis=1)) > 0.1).all())
    again = scale_to_length(torch.from_numpy(100 * features), sigma=0.7).numpy()
    np.testing.assert_allclose(again, actual, rtol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "zscore"])
def test_features_of_zero_stay_zero_with_a_finite_gradient(norm: FeatureNorm) -> None:
    features = torch.zeros(2, 8, requires_grad=True)
    normed = normalise_features(features, norm, sigma=0.5)
    torch.autograd.backward(normed[:, 0].sum())
    assert torch.equal(normed.detach(), torch.zeros(2, 8))
    assert features.grad is not None
    assert 0 < float(features.grad.abs().max()) <= 1000 * 0.5


@pytest.mark.parametrize("norm", ["none", "l2", "zscore"])
def test_the_model_normalises_by_the_norm_that_it_is_told(norm: FeatureNorm) -> None:
    recipe = SMALL.model_copy(update={"feature_norm": norm, "sigma": 2.0})
    model = build_classifier(recipe, 7).eval()
    features = torch.randn(3, 512) + 1
    normed = {
        "none": features,
        "l2": scale_to_length(features, sigma=2.0),
        "zscore": standardise(features, sigma=2.0),
    }[norm]
    torch.testing.assert_close(model.logits_from(features), model.head(normed))


def test_equal_features_have_a_finite_gradient() -> None:
    features = torch.full((2, 8), 3.0, requires_grad=True)
    standardised = standardise(features, sigma=0.5)
    torch.autograd.backward(standardised[:, 0].sum())
    assert torch.equal(standardised.detach(), torch.zeros(2, 8))
    assert features.grad is not None
    assert float(features.grad.abs().max()) <= 1000 * 0.5


def test_half_precision_features_are_standardised_in_single() -> None:
    # The squares of these exceed float16's largest number.
    features = torch.tensor([[1000.0, -1000.0, 500.0, 0.0]], dtype=torch.float16)
    standardised = standardise(features, sigma=1.0)
    assert standardised.dtype == torch.float32
    assert float(torch.linalg.vector_norm(standardised)) == pytest.approx(np.sqrt(3), rel=1e-6)


# Weights


def with_weights(path: Path) -> ModelRecipe:
    return SMALL.model_copy(update={"weights": str(path)})


def torchvision_names(model: Classifier, n_classes: int) -> dict[str, Tensor]:
    """Return the state as a torchvision model of so many classes would have it."""
    state = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    return state | {"fc.weight": torch.zeros(n_classes, 512), "fc.bias": torch.zeros(n_classes)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("layout", ["torchvision", "own"])
def test_a_local_file_gives_the_backbone_and_leaves_the_classifier_new(
    small: Classifier, tmp_path: Path, suffix: str, layout: str
) -> None:
    state = torchvision_names(small, 1000) if layout == "torchvision" else small.state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(dict(state), path) if suffix == ".safetensors" else torch.save(state, path)
    torch.manual_seed(9)
    model = build_classifier(with_weights(path), 4)
    for name, tensor in small.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], tensor), name
    weight = model.get_parameter("head.weight").detach()
    assert weight.shape == (4, 512)
    assert float(weight.abs().max()) > 0


def test_old_files_without_batch_counters_are_read(small: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    state = torchvision_names(small, 1000)
    torch.save({k: v for k, v in state.items() if "num_batches_tracked" not in k}, path)
    model = build_classifier(with_weights(path), 4)
    torch.testing.assert_close(
        model.backbone.get_parameter("conv1.weight"), small.backbone.get_parameter("conv1.weight")
    )


def test_a_tensor_of_another_shape_is_named(small: Classifier, tmp_path: Path) -> None:
    state = torchvision_names(small, 1000) | {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    torch.save(state, tmp_path / "imagenet.pth")
    with pytest.raises(
        WeightsUnavailable,
        match=r"imagenet.pth` do not fit the model: `conv1.weight` is \(64, 3, 7, 7\), "
        r"the model's is \(64, 3, 3, 3\); set `model.architecture` and `model.stem`",
    ):
        build_classifier(with_weights(tmp_path / "imagenet.pth"), 4)


def test_missing_and_unknown_tensors_are_named(small: Classifier, tmp_path: Path) -> None:
    state = torchvision_names(small, 1000)
    state["transformer.weight"] = state.pop("bn1.weight")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(
        WeightsUnavailable, match=r"`bn1.weight` is missing; `transformer.weight` is unknown"
    ):
        build_classifier(with_weights(tmp_path / "other.pth"), 4)


def test_many_misfits_are_counted_and_not_all_listed(small: Classifier, tmp_path: Path) -> None:
    torch.save(torchvision_names(small, 1000), tmp_path / "resnet18.pth")
    recipe = with_weights(tmp_path / "resnet18.pth").model_copy(update={"architecture": "resnet34"})
    with pytest.raises(WeightsUnavailable, match=r"is missing and \d+ more; set"):
        build_classifier(recipe, 4)


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsUnavailable, match=rf"no weights file at `.*{name}`; correct"):
        build_classifier(with_weights(tmp_path / name), 4)


@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsUnavailable, match=rf"{name}` cannot be read as \."):
        build_classifier(with_weights(tmp_path / name), 4)


def test_a_pickle_that_would_run_code_is_refused(small: Classifier, tmp_path: Path) -> None:
    torch.save(small, tmp_path / "model.pth")
    with pytest.raises(WeightsUnavailable, match=r"cannot be read as \.pth weights"):
        build_classifier(with_weights(tmp_path / "model.pth"), 4)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "else.pth")
    with pytest.raises(WeightsUnavailable, match="is no flat mapping from names to tensors"):
        build_classifier(with_weights(tmp_path / "else.pth"), 4)


def test_an_unknown_name_lists_the_known_ones() -> None:
    recipe = ModelRecipe(architecture="resnet50", weights="IMAGENET21K")
    with pytest.raises(
        WeightsUnavailable,
        match="'IMAGENET21K' is unknown; use `none`, one of IMAGENET1K_V1, IMAGENET1K_V2, or a",
    ):
        build_classifier(recipe, 4)


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send every download through a proxy that does not listen, with an empty cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    closed = urllib.request.ProxyHandler({"https": "http://127.0.0.1:1"})
    urllib.request.install_opener(urllib.request.build_opener(closed))
    yield
    urllib.request.install_opener(urllib.request.build_opener())


@pytest.mark.usefixtures("no_network")
def test_a_download_that_fails_says_what_to_do() -> None:
    recipe = ModelRecipe(architecture="resnet18", weights="IMAGENET1K_V1")
    with pytest.raises(
        WeightsUnavailable,
        match=r"IMAGENET1K_V1 can be neither read from `.*` nor downloaded from https://.*resnet18"
        r".*give the file, or set `model.weights` to `none`",
    ):
        build_classifier(recipe, 4)


@pytest.mark.usefixtures("no_network")
def test_cached_weights_need_no_network(small: Classifier, tmp_path: Path) -> None:
    imagenet = build_classifier(ModelRecipe(architecture="resnet18"), 2)
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    url = ARCHITECTURES["resnet18"].weights["IMAGENET1K_V1"].url
    torch.save(torchvision_names(imagenet, 1000), cache / url.rpartition("/")[2])
    model = build_classifier(ModelRecipe(architecture="resnet18", weights="IMAGENET1K_V1"), 4)
    torch.testing.assert_close(model.features(torch.ones(2, 3, 32, 32)).shape, (2, 512))
    assert torch.equal(
        model.backbone.get_parameter("layer4.1.conv2.weight"),
        imagenet.backbone.get_parameter("layer4.1.conv2.weight"),
    )
