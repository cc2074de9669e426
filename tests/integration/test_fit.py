"""Training runs: what they leave behind, and that an interrupted one equals a whole one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from oodserve.errors import DataError, RecipeError
from tests.training import CLASSES, write_recipe, write_tree
from train.data.folders import open_splits
from train.evaluate import accuracy_on, evaluate, write_evaluation
from train.figures import draw_evaluation
from train.fit import Interrupted, fit, resume
from train.recipes import Recipe, load_recipe
from train.run import CARD, CHECKPOINTS, METRICS, PRETRAINED, RECIPE, WEIGHTS, load_run
from train.schedule import cosine

QUIET = Console(quiet=True)
STEPS = 4  # 36 images in batches of 8


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    return write_recipe(folder / "tiny.toml", write_tree(folder / "data"))


@pytest.fixture(scope="module")
def recipe(recipe_path: Path) -> Recipe:
    return load_recipe(recipe_path)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    fit(recipe, folder, console=QUIET)
    return folder


def after(steps: int) -> Callable[[], bool]:
    """Stop once so many steps were made."""
    made = 0

    def stop() -> bool:
        nonlocal made
        made += 1
        return made == steps

    return stop


def lines(folder: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    for line in found:
        assert line.pop("seconds") >= 0
    return found


def assert_same_run(folder: Path, whole: Path) -> None:
    """Weights, metrics and card are the same to the last bit."""
    assert (folder / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert (folder / PRETRAINED).read_bytes() == (whole / PRETRAINED).read_bytes()
    assert lines(folder) == lines(whole)
    assert (folder / CARD).read_bytes() == (whole / CARD).read_bytes()


def test_a_run_leaves_recipe_metrics_weights_and_card(whole: Path, recipe: Recipe) -> None:
    assert load_recipe(whole / RECIPE) == recipe
    logged = lines(whole)
    assert [(line["stage"], line["epoch"]) for line in logged] == [
        ("pretrain", 1),
        ("pretrain", 2),
        ("finetune", 1),
        ("finetune", 2),
    ]
    assert {"loss", "cross_entropy", "mixed", "consistency"} <= set(logged[-1])
    run = load_run(whole)
    assert run.classes == CLASSES
    assert not run.model.training
    assert run.quality["validation"]["accuracy"] == logged[-1]["validation_accuracy"]
    splits = open_splits(recipe.data, recipe.input)
    assert (
        accuracy_on(run.model, splits.validation, run.input)
        == (run.quality["validation"]["accuracy"])
    )


def test_the_logged_rate_is_the_cosine_of_the_stage(whole: Path, recipe: Recipe) -> None:
    expected = [
        cosine(epoch * STEPS - 1, steps=2 * STEPS, highest=stage.learning_rate, lowest=1e-6)
        for stage in (recipe.pretrain, recipe.finetune)
        for epoch in (1, 2)
    ]
    assert [line["learning_rate"] for line in lines(whole)] == expected


def test_training_twice_gives_the_same_bits(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    fit(recipe, tmp_path / "again", console=QUIET)
    assert_same_run(tmp_path / "again", whole)


@pytest.mark.parametrize("steps", [1, STEPS, STEPS + 2, 2 * STEPS, 2 * STEPS + 3, 4 * STEPS])
def test_an_interrupted_run_equals_a_whole_one(
    recipe: Recipe, whole: Path, tmp_path: Path, steps: int
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        fit(recipe, folder, console=QUIET, stop=after(steps))
    assert not (folder / CARD).exists()
    torch.manual_seed(999)  # a new process does not have the old one's state
    resume(folder, console=QUIET)
    assert_same_run(folder, whole)


def test_a_run_may_be_interrupted_after_every_step(
    recipe: Recipe, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        fit(recipe, folder, console=QUIET, stop=after(1))
    for _ in range(4 * STEPS - 1):
        with pytest.raises(Interrupted):
            resume(folder, console=QUIET, stop=after(1))
    resume(folder, console=QUIET)
    assert_same_run(folder, whole)


def train(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "train", *map(str, arguments)]


def test_ctrl_c_leaves_a_run_that_the_command_resumes(
    recipe_path: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        train("fit", recipe_path, "--to", folder), stderr=subprocess.PIPE, text=True
    )
    _await(lambda: (folder / METRICS).exists())
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"interrupted; go on with `python -m train resume {folder}`" in messages
    done = subprocess.run(train("resume", folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_run(folder, whole)


def test_a_killed_process_loses_no_more_than_its_epoch(
    recipe_path: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(train("fit", recipe_path, "--to", folder), stderr=subprocess.PIPE)
    _await(lambda: (folder / CHECKPOINTS / "last.json").exists())
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (folder / CARD).exists()
    resume(folder, console=QUIET)
    assert_same_run(folder, whole)


def test_shared_pretraining_gives_the_same_model(
    recipe: Recipe, whole: Path, tmp_path: Path
) -> None:
    pretrain = recipe.pretrain.model_copy(update={"from_run": str(whole)})
    fit(recipe.model_copy(update={"pretrain": pretrain}), tmp_path / "run", console=QUIET)
    expected, got = load_file(whole / WEIGHTS), load_file(tmp_path / "run" / WEIGHTS)
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name


def test_ascood_trains_without_outliers(recipe_path: Path, tmp_path: Path) -> None:
    overrides = ['method={name="ascood"}', "model.feature_norm=zscore", "data.outliers=''"]
    fit(load_recipe(recipe_path, overrides), tmp_path / "run", console=QUIET)
    assert {"uniform", "perturbation_mean"} <= set(lines(tmp_path / "run")[-1])


def test_evaluation_measures_test_images_against_each_ood_set(whole: Path, tmp_path: Path) -> None:
    evaluation = evaluate(load_run(whole), resamples=50)
    assert evaluation.test_images == 18
    found = {(item.ood_set, item.score, item.images) for item in evaluation.detections}
    assert found == {("squares", "msp", 8), ("squares", "energy", 8)}
    for item in evaluation.detections:
        low, high = item.auroc_interval
        assert 0 <= low <= item.metrics.auroc <= high <= 1
    write_evaluation(evaluation, tmp_path)
    document = json.loads((tmp_path / "evaluation.json").read_text())
    assert {"auroc", "fpr@95tpr_ood", "ood_miss@95id"} <= set(document["detections"][0])
    assert draw_evaluation(evaluation, tmp_path).read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_started_or_resumed_says_why(
    recipe: Recipe, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="holds a run already; go on with"):
        fit(recipe, whole, console=QUIET)
    with pytest.raises(DataError, match="is finished already"):
        resume(whole, console=QUIET)
    with pytest.raises(DataError, match=r"is not a run \(no `recipe.toml`\)"):
        resume(tmp_path, console=QUIET)
    with pytest.raises(DataError, match="is not a run"):
        load_run(tmp_path)
    large = recipe.pretrain.model_copy(update={"batch_size": 64})
    with pytest.raises(DataError, match="36 images make no batch of 64"):
        fit(recipe.model_copy(update={"pretrain": large}), tmp_path / "large", console=QUIET)
    later = recipe.finetune.model_copy(update={"batch_size": 64})
    with pytest.raises(DataError, match=r"lower `finetune\.batch_size`"):
        fit(recipe.model_copy(update={"finetune": later}), tmp_path / "large", console=QUIET)
    assert not (tmp_path / "large").exists()  # refused before there is a run
    lost = recipe.pretrain.model_copy(update={"from_run": str(tmp_path / "none")})
    with pytest.raises(RecipeError, match=r"`pretrain.from_run` = .* has no `pretrained"):
        fit(recipe.model_copy(update={"pretrain": lost}), tmp_path / "lost", console=QUIET)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / PRETRAINED).write_bytes((whole / PRETRAINED).read_bytes()[:1000])
    with pytest.raises(RecipeError, match="does not fit this model"):
        fit(recipe.model_copy(update={"pretrain": lost}), tmp_path / "lost", console=QUIET)


def test_a_diverging_loss_stops_and_names_the_rate(recipe: Recipe, tmp_path: Path) -> None:
    wild = recipe.pretrain.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(RecipeError, match=r"the loss became .* lower `pretrain.learning_rate`"):
        fit(recipe.model_copy(update={"pretrain": wild}), tmp_path / "run", console=QUIET)


def test_changed_data_are_noticed_on_resuming(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data")
    recipe = load_recipe(write_recipe(tmp_path / "tiny.toml", root))
    with pytest.raises(Interrupted):
        fit(recipe, tmp_path / "run", console=QUIET, stop=after(2))
    with pytest.raises(DataError, match=r"is not finished; go on with `python -m train resume"):
        load_run(tmp_path / "run")
    moved = root / "train" / "discs" / "000.png"
    moved.rename(moved.with_name("renamed.png"))
    with pytest.raises(DataError, match="changed since the run was interrupted"):
        resume(tmp_path / "run", console=QUIET)


def test_damaged_weights_are_named(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    (copy / WEIGHTS).write_bytes((whole / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(DataError, match=r"is damaged .* train again"):
        load_run(copy)


def test_a_line_logged_without_a_checkpoint_is_not_logged_twice(
    recipe: Recipe, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / RECIPE).write_text((whole / RECIPE).read_text())
    (folder / METRICS).write_text((whole / METRICS).read_text().splitlines(keepends=True)[0])
    resume(folder, console=QUIET)
    assert_same_run(folder, whole)


def test_a_damaged_checkpoint_is_named(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(recipe, tmp_path / "run", console=QUIET, stop=after(2))
    state = next((tmp_path / "run" / CHECKPOINTS).glob("state-*.safetensors"))
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(DataError, match=r"the checkpoint .* is damaged"):
        resume(tmp_path / "run", console=QUIET)


def _await(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)
