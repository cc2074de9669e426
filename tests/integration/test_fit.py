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
from train import checkpoint
from train.data.folders import open_splits
from train.evaluation.document import read_evaluation
from train.evaluation.run import evaluate_run
from train.evaluation.scoring import accuracy_on
from train.evaluation.settings import EvaluationSettings
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
        assert line.pop("seconds") >= line.pop("data_seconds") >= 0
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
    done = evaluate_run(load_run(whole), tmp_path, settings=EvaluationSettings(resamples=50))
    evaluation = done.evaluation
    assert evaluation.test_images == 18
    found = {(item.ood_set, item.score, item.images) for item in evaluation.detections}
    assert found == {("squares", "msp", 8), ("squares", "energy", 8)}
    for item in evaluation.detections:
        low, high = item.intervals["auroc"]
        assert 0 <= low <= item.auroc <= high <= 1
    assert read_evaluation(tmp_path) == evaluation
    document = json.loads((tmp_path / "evaluation.json").read_text())
    assert {"auroc", "fpr@95tpr_ood", "ood_miss@95id"} <= set(document["detections"][0])
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


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


def test_a_diverging_loss_stops_and_says_where_and_what_to_do(
    recipe: Recipe, tmp_path: Path
) -> None:
    wild = recipe.pretrain.model_copy(update={"learning_rate": 1e30})
    folder = tmp_path / "run"
    expected = (
        rf"^the loss became (nan|inf) in pretrain epoch 1, step [23] of {STEPS}, with the recipe "
        rf"`{folder}/recipe\.toml`; there is no checkpoint yet; lower `pretrain\.learning_rate` "
        r"\(1e\+30\) or set `pretrain\.gradient_clip_norm`, and start a new run$"
    )
    with pytest.raises(RecipeError, match=expected):
        fit(recipe.model_copy(update={"pretrain": wild}), folder, console=QUIET)


def test_a_diverging_loss_names_the_last_good_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    wild = recipe.finetune.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(RecipeError, match=r"in finetune epoch 1, step [23] of") as caught:
        fit(recipe.model_copy(update={"finetune": wild}), tmp_path / "run", console=QUIET)
    kept = checkpoint.state_file(tmp_path / "run" / CHECKPOINTS)
    assert kept is not None
    assert f"; the last good checkpoint is `{kept}`; lower `finetune.learn" in str(caught.value)
    assert all(bool(value.float().isfinite().all()) for value in load_file(kept).values())


def test_an_unreadable_test_image_is_found_before_training(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data")
    recipe = load_recipe(write_recipe(tmp_path / "tiny.toml", root))
    bad = root / "test" / "rings" / "000.png"
    bad.write_bytes(b"no image at all")
    with pytest.raises(DataError, match=rf"`{bad}` of the test images: not an image .* replace or"):
        fit(recipe, tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


def test_compiling_that_is_not_possible_says_so(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(function: object) -> object:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    message = r"`compile` = true, but torch cannot compile for `cpu` here \(No working C\+\+ comp"
    with pytest.raises(RecipeError, match=message):
        fit(recipe.model_copy(update={"compile": True}), tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


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


def _await(condition: Callable[[], bool], timeout_s: float = 100) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)
