"""Scores of a training run: what is refused before it begins, and what they are fitted on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from oodserve.errors import DataError, RecipeError
from tests.training import write_recipe, write_tree
from train.data.folders import open_splits
from train.fit import fit
from train.models import build_classifier
from train.networks.classifier import Classifier
from train.preparing import prepare
from train.recipes import load_recipe
from train.run import SCORERS_STATE, bare_model, load_run
from train.scorers.fitting import fitted_scorers, state_of
from train.scorers.knn import Knn
from train.scorers.scorer import FitData

QUIET = Console(quiet=True)
STANDARD = 'method={name="standard"}'
ICE = 'method={name="ice"}'


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    return write_recipe(folder / "tiny.toml", write_tree(folder / "data"))


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        ([STANDARD, 'scores=["ice"]'], RecipeError, "`ice` needs the Gaussian head of method `ice"),
        ([ICE, 'scores=["vim"]'], RecipeError, "`vim` needs a linear head, but .* `GaussianHead`"),
        ([ICE, 'scores=["odin"]'], RecipeError, "needs a linear head, but .* `GaussianHead`"),
        ([STANDARD, 'scores=["rotation"]'], RecipeError, "needs the rotation head of method"),
        ([STANDARD, 'scores=["knn"]', "scorers.knn.k=37"], RecipeError, "among 36 images"),
        ([STANDARD, 'scores=["vim"]', "scorers.vim.dim=512"], RecipeError, "leaves nothing of 512"),
        ([STANDARD, 'scores=["vim"]'], DataError, "36 training images fill no more .* = 256 dim"),
    ],
)
def test_a_score_that_does_not_fit_is_refused_before_there_is_a_run(
    recipe_path: Path, tmp_path: Path, overrides: list[str], error: type[Exception], text: str
) -> None:
    score = overrides[1].split('"')[1]
    recipe = load_recipe(recipe_path, [*overrides, f"default_score={score}"])
    with pytest.raises(error, match=text):
        fit(recipe, tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("method", "score"), [("ice", "ice"), ("rotation", "rotation")])
def test_a_score_may_need_what_its_method_attaches(
    recipe_path: Path, tmp_path: Path, method: str, score: str
) -> None:
    overrides = [f'method={{name="{method}"}}', f'scores=["{score}"]', f"default_score={score}"]
    training, _ = prepare(load_recipe(recipe_path, overrides), tmp_path / "run")
    assert isinstance(training.model.head, nn.Linear)  # the check had a model of its own
    assert len(training.model.auxiliary) == 0


def test_looking_at_the_scores_draws_nothing(recipe_path: Path) -> None:
    recipe = load_recipe(recipe_path, [ICE])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    bare_model(recipe, n_classes=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_scores_are_fitted_on_the_finished_model_as_it_will_be_read(
    recipe_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Knn.fit
    seen: list[Classifier] = []

    def for_many_processes(*arguments: object) -> nn.Module:
        model = build_classifier(*arguments)  # type: ignore[arg-type]
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted

    def watched(scorer: Knn, data: FitData) -> None:
        seen.append(data.model)
        learn(scorer, data)

    monkeypatch.setattr("train.preparing.build_classifier", for_many_processes)
    monkeypatch.setattr(Knn, "fit", watched)
    overrides = [STANDARD, 'scores=["knn", "odin"]', "default_score=knn", "scorers.knn.k=5",
                 "pretrain.epochs=0", "finetune.epochs=1"]  # fmt: skip
    recipe = load_recipe(recipe_path, overrides)
    fit(recipe, tmp_path / "run", console=QUIET)

    (model,) = seen
    assert not any(module.training for module in model.modules())
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    run = load_run(tmp_path / "run")
    assert (tmp_path / "run" / SCORERS_STATE).exists()
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    stored, splits = run.scorers(["knn", "odin"]), open_splits(recipe.data, recipe.input)
    again = state_of(
        fitted_scorers(
            ["knn", "odin"], recipe.scorers, run.model, lambda: splits, run.input, seed=recipe.seed
        )
    )
    kept = state_of(stored)
    assert kept.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in kept.items())
