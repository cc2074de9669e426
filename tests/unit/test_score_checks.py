"""What a score asks of a model and of its images before anything is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from oodserve.errors import DataError, RecipeError
from tests.separable import N_CLASSES, N_FEATURES, Backbone
from train.networks.classifier import Classifier
from train.networks.gaussian import GaussianHead
from train.scorers.fitting import check_scorers
from train.scorers.registry import SCORERS, build_scorer

LINEAR = ("react", "ash_b", "ash_s", "scale", "dice", "fdbd", "nci", "vim", "gradnorm")
MANY = 10_000


def network() -> Classifier:
    return Classifier(Backbone(), N_FEATURES, N_CLASSES)


@pytest.mark.parametrize("name", sorted(set(SCORERS) - {"ice", "rotation"}))
def test_an_untrained_linear_classifier_suits_most_and_stays_as_it_is(name: str) -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    build_scorer(name).check(model, MANY)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", LINEAR)
def test_a_gaussian_head_is_refused_by_what_copies_a_linear_one(name: str) -> None:
    model = network()
    model.head = GaussianHead(N_FEATURES, N_CLASSES)
    with pytest.raises(RecipeError, match=f"score `{name}` needs a linear head, .* `GaussianHead`"):
        build_scorer(name).check(model, MANY)


@pytest.mark.parametrize("name", ["odin", "iodin"])
def test_gradients_need_a_linear_head_and_layers_with_a_rule(name: str) -> None:
    model = network()
    model.head = GaussianHead(N_FEATURES, N_CLASSES)
    with pytest.raises(RecipeError, match="needs a linear head, but the model has a `GaussianHead"):
        build_scorer(name).check(model, MANY)
    odd = Classifier(nn.Sequential(nn.Flatten(), nn.LazyLinear(N_FEATURES), nn.GELU()), 1, 2)
    with pytest.raises(RecipeError, match="has no rule for the gradient"):
        build_scorer(name).check(odd, MANY)


def test_ice_needs_a_gaussian_head() -> None:
    model = network()
    with pytest.raises(RecipeError, match=r"`ice` needs the Gaussian head .* has a `Linear`"):
        build_scorer("ice").check(model, MANY)
    model.head = GaussianHead(N_FEATURES, N_CLASSES)
    build_scorer("ice").check(model, MANY)


def test_rotation_needs_its_head() -> None:
    model = network()
    with pytest.raises(RecipeError, match="`rotation` needs the rotation head of method"):
        build_scorer("rotation").check(model, MANY)
    model.auxiliary["rotation"] = nn.Linear(N_FEATURES, 4)
    build_scorer("rotation").check(model, MANY)


def test_knn_needs_as_many_images_as_neighbours() -> None:
    build_scorer("knn", {"k": 20}).check(network(), 20)
    with pytest.raises(RecipeError, match=r"`scorers.knn.k` = 20 neighbours .* among 19 images"):
        build_scorer("knn", {"k": 20}).check(network(), 19)
    with pytest.raises(RecipeError, match="among 10 images"):
        build_scorer("knn", {"k": 20, "bank_size": 10}).check(network(), MANY)


def test_vim_needs_more_features_and_images_than_dimensions() -> None:
    build_scorer("vim", {"dim": N_FEATURES - 1}).check(network(), N_FEATURES)
    with pytest.raises(RecipeError, match=rf"= {N_FEATURES} leaves nothing of {N_FEATURES} feat"):
        build_scorer("vim", {"dim": N_FEATURES}).check(network(), MANY)
    with pytest.raises(DataError, match=r"features of 7 training images fill no more than .* = 7"):
        build_scorer("vim", {"dim": 7}).check(network(), 7)


def test_all_scores_of_a_recipe_are_checked_with_their_knobs() -> None:
    check_scorers(["msp", "knn"], {"knn": {"k": 5}}, network(), n_train=5)
    with pytest.raises(RecipeError, match="among 5 images"):
        check_scorers(["msp", "knn"], {"knn": {"k": 6}}, network(), n_train=5)
    with pytest.raises(RecipeError, match="unknown score `sharpness`; known: "):
        check_scorers(["msp", "sharpness"], {}, network(), n_train=5)
