"""The whole way on real images, briefly: digits to run, bundle, threshold, served answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from export.parity import SourceModel, measure, read_batches
from oodserve.predictor import Predictor
from tests.server_process import ROOT, running_server
from train.data.folders import open_splits
from train.run import load_run

BRIEF = ("pretrain.epochs=4", "finetune.epochs=1")
"""Enough to be a trained network; how well it detects is for the demo to show."""

pytestmark = pytest.mark.timeout(600)


def run(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, runs and models, made by the commands of the README."""
    place = tmp_path_factory.mktemp("way")
    data = place / "data"
    run("train", "data", "digits", "--to", data)
    overrides = [f"--set={value}" for value in (*BRIEF, f"data.root={data}")]
    run("train", "fit", "train/presets/digits.toml", "--to", place / "run", *overrides)
    run("export", "bundle", place / "run", "--to", place / "models" / "digits")
    run("oodserve", "calibrate", place / "models" / "digits", "--images", data / "calibration")
    return place


def test_torch_and_the_artefact_are_equal_on_every_test_image(place: Path) -> None:
    trained = load_run(place / "run")
    splits = open_splits(trained.recipe.data, trained.recipe.input)
    predictor = Predictor.load(place / "models" / "digits")
    scorers = trained.scorers(predictor.bundle.manifest.scores)
    source = SourceModel(trained.model, scorers, trained.input, features=False)
    for images in (splits.test.source, *splits.ood.values()):
        batches = read_batches(images, trained.input, indices=list(range(len(images))))
        comparison = measure(source, predictor.engine, batches)
        comparison.require_equal()
        assert comparison.images == len(images)
        print(  # noqa: T201 - images too near to tau to compare are counted and printed
            f"{comparison.images} images, largest error {comparison.max_error:.2g}, near tau: "
            f"{ {name: flag.near for name, flag in comparison.flags.items()} }"
        )


def test_the_manifest_says_where_the_weights_come_from(place: Path) -> None:
    manifest = Predictor.load(place / "models" / "digits").bundle.manifest
    assert manifest.training is not None
    assert manifest.training.method == "logit_mixoe"
    assert manifest.training.held_out_classes == ("2", "5", "8")
    assert manifest.classes == ("0", "1", "3", "4", "6", "7", "9")
    assert manifest.parity is not None
    assert manifest.parity.max_error <= manifest.parity.bound == 1e-4
    assert "/" not in json.dumps(manifest.training.hyperparameters["data"])


def test_the_served_answer_is_the_predictors(place: Path) -> None:
    paths = sorted((place / "data" / "test").rglob("*.png"))[::16]
    predictor = Predictor.load(place / "models" / "digits")
    expected = [predictor.predict([path])[0].to_dict() for path in paths]
    with running_server(place / "models") as server:
        answers = [
            httpx.post(
                f"{server.base_url}/v1/predict",
                content=path.read_bytes(),
                headers={"Content-Type": "image/png"},
            ).json()["predictions"][0]
            for path in paths
        ]
    assert answers == expected
    assert all(answer["ood"] == (answer["score"] < answer["threshold"]) for answer in answers)
