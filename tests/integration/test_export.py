"""`python -m export bundle`: from a finished run to a version that serves, or to a refusal."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from export.cli import main
from export.graph import ExportedGraph
from export.publication import (
    Destination,
    ExportSettings,
    choose_scores,
    export_run,
    parity_images,
    portable_recipe,
    publish,
)
from oodserve.bundle import Bundle, open_bundle
from oodserve.errors import BundleError, ConfigurationError, DataError, ParityError
from oodserve.predictor import Predictor, relative_error
from tests.training import CLASSES, write_recipe, write_tree
from train.checkpoint import save_tensors
from train.data.loading import normalise
from train.models import build_classifier
from train.networks.classifier import Classifier
from train.recipes import load_recipe, to_toml
from train.run import CARD, RECIPE, WEIGHTS, ModelCard, TrainedRun, load_run

ROOT = Path(__file__).parents[2]
VALIDATION_IMAGES = 18  # 6 of each of 3 classes


def classifier(recipe_path: Path) -> Classifier:
    """A network whose batch normalisation has seen data, as after training."""
    torch.manual_seed(3)
    model = build_classifier(load_recipe(recipe_path).model, len(CLASSES))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.3, 3.0)
    # So far apart that no label hangs by a thread.
    assert isinstance(model.head, nn.Linear)
    nn.init.normal_(model.head.weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with the files that training leaves."""
    folder = tmp_path_factory.mktemp("export")
    source = write_recipe(folder / "tiny.toml", write_tree(folder / "data"))
    run = folder / "runs" / "tiny"
    run.mkdir(parents=True)
    (run / RECIPE).write_text(to_toml(load_recipe(source)))
    save_tensors(classifier(source).state_dict(), run / WEIGHTS)
    card = ModelCard(
        classes=CLASSES,
        held_out=("squares",),
        data_fingerprint="0" * 64,
        quality={"validation": {"accuracy": 0.75}},
    )
    (run / CARD).write_text(card.to_json())
    return run


@pytest.fixture(scope="module")
def run(run_folder: Path) -> TrainedRun:
    return load_run(run_folder)


SETTINGS = ExportSettings(scores=("msp", "energy"), default_score="energy")


@pytest.fixture(scope="module")
def graph(run: TrainedRun) -> ExportedGraph:
    return export_run(run, SETTINGS)


def elsewhere(*arguments: object, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in another process, with another order of hashes, from another folder."""
    return subprocess.run(
        [sys.executable, "-m", "export", "bundle", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "12345"},
    )


@dataclass(frozen=True)
class Exported:
    """What the command made and said."""

    bundle: Bundle
    said: str


@pytest.fixture(scope="module")
def first(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The run, exported by the command."""
    models = tmp_path_factory.mktemp("first") / "models"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["bundle", str(run_folder), "--to", str(models / "tiny")]) == 0
    return Exported(open_bundle(models / "tiny"), said.getvalue())


# --- what is published ---------------------------------------------------------------------------


def test_the_version_holds_everything_that_serving_needs(
    first: Exported,
) -> None:
    bundle = first.bundle
    names = {path.name for path in bundle.path.iterdir()}
    assert names == {"model.onnx", "bundle.json", "golden.npz"}
    assert {path.name for path in bundle.path.parent.iterdir()} == {"1", "config.pbtxt"}
    predictor = Predictor.load(bundle.path, require_calibration=False, threads=1)
    assert predictor.verify_golden() <= 1e-6
    assert len(bundle.read_golden().images) == 4


def test_the_manifest_says_what_was_measured(first: Exported, run: TrainedRun) -> None:
    manifest = first.bundle.manifest
    assert manifest.classes == CLASSES
    assert [(output.name, output.kind) for output in manifest.outputs] == [
        ("logits", "logits"),
        ("msp", "score"),
        ("energy", "score"),
    ]
    assert manifest.default_score == "energy"
    assert manifest.quality == {"validation": {"accuracy": 0.75}}
    assert manifest.input == run.input
    assert manifest.model.producers["torch"] == str(torch.__version__)
    assert manifest.parity is not None
    assert manifest.parity.images == VALIDATION_IMAGES
    assert 0 <= manifest.parity.max_error < 1e-5
    assert (manifest.parity.label_flips, manifest.parity.flag_flips) == (0, 0)
    assert manifest.parity.near_threshold >= 1  # the threshold is the score of an image
    assert manifest.parity.bound == 1e-4
    assert manifest.training is not None
    assert manifest.training.method == "logit_mixoe"
    assert manifest.training.held_out_classes == ("squares",)
    assert manifest.training.data_fingerprint == "0" * 64


def test_no_folder_of_this_machine_is_published(first: Exported, run_folder: Path) -> None:
    bundle = first.bundle
    traces = [str(run_folder.parents[1]), str(ROOT), str(Path.home())]
    model = onnx.load(bundle.path / "model.onnx")
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    for text in (str(model), (bundle.path / "bundle.json").read_text()):
        assert not [trace for trace in traces if trace in text]
    assert bundle.manifest.training is not None
    data = bundle.manifest.training.hyperparameters["data"]
    assert isinstance(data, dict)
    assert data["root"] == "data"


def test_the_command_tells_what_it_did_and_what_comes_next(
    first: Exported, run: TrainedRun
) -> None:
    bundle, said = first.bundle, first.said
    content = (bundle.path / "model.onnx").read_bytes()
    assert f"published {bundle.path}" in said
    assert f"{len(content) / 2**20:.1f} MiB" in said
    assert f"sha256 {hashlib.sha256(content).hexdigest()}" in said
    assert f"parity   {VALIDATION_IMAGES} images: logits " in said
    assert "0 labels and 0 flags differ" in said
    assert "quality  validation accuracy 0.7500" in said
    calibration = Path(run.recipe.data.root) / "calibration"
    assert f"next: oodserve calibrate {bundle.path} --images {calibration}\n" in said


def test_predictions_equal_the_trained_model(first: Exported, run: TrainedRun) -> None:
    predictor = Predictor.load(first.bundle.path, require_calibration=False, threads=1)
    files = sorted((Path(run.recipe.data.root) / "test").rglob("*.png"))
    pixels = np.stack([predictor.prepare(file.read_bytes()) for file in files])
    outputs = predictor.infer(pixels)
    spec = run.input
    with torch.no_grad():
        logits = run.model(
            normalise(
                torch.from_numpy(pixels), mean=torch.tensor(spec.mean), std=torch.tensor(spec.std)
            )
        )
    assert relative_error(logits.numpy(), outputs["logits"]) <= 1e-5
    np.testing.assert_array_equal(outputs["logits"].argmax(axis=1), logits.argmax(dim=1).numpy())
    energy = torch.logsumexp(logits.double(), dim=1).numpy()
    np.testing.assert_allclose(outputs["energy"], energy, rtol=1e-5, atol=1e-5)


def test_the_same_run_gives_the_same_file_in_another_process_and_folder(
    first: Exported, run_folder: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "elsewhere" / "copy"
    shutil.copytree(run_folder, copied)
    done = elsewhere(copied, "--to", "models/other", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    other = open_bundle(tmp_path / "models" / "other")
    assert other.manifest.model.sha256 == first.bundle.manifest.model.sha256
    config = "config.pbtxt"
    assert (other.path.parent / config).read_bytes() == (
        first.bundle.path.parent / config
    ).read_bytes()


def test_the_same_run_gives_the_same_file_in_this_process(
    first: Exported, graph: ExportedGraph
) -> None:
    digest = hashlib.sha256(graph.content).hexdigest()
    assert digest == first.bundle.manifest.model.sha256


def test_a_second_export_is_the_next_version(
    run: TrainedRun, graph: ExportedGraph, tmp_path: Path
) -> None:
    destination = Destination.parse(str(tmp_path / "models" / "tiny"))
    images = parity_images(run, None)
    paths = [publish(run, graph, images, SETTINGS, destination).path for _ in range(2)]
    assert [path.name for path in paths] == ["1", "2"]


def test_a_version_with_other_outputs_needs_another_name(
    run: TrainedRun, graph: ExportedGraph, tmp_path: Path
) -> None:
    destination = Destination.parse(str(tmp_path / "models" / "tiny"))
    images = parity_images(run, None)
    publish(run, graph, images, SETTINGS, destination)
    other = dataclasses.replace(SETTINGS, scores=("energy",), features=True)
    with pytest.raises(BundleError, match="export under another model name"):
        publish(run, export_run(run, other), images, other, destination)


# --- what is not published -----------------------------------------------------------------------


def test_a_tampered_weight_is_never_published(
    run: TrainedRun, graph: ExportedGraph, tmp_path: Path
) -> None:
    model = onnx.load_from_string(graph.content)
    tensor = next(item for item in model.graph.initializer if item.name.endswith("conv1.weight"))
    weights = numpy_helper.to_array(tensor).copy()
    weights[0] *= 1.01
    tensor.CopyFrom(numpy_helper.from_array(weights, name=tensor.name))
    tampered = dataclasses.replace(graph, content=model.SerializeToString())
    destination = Destination.parse(str(tmp_path / "models" / "tiny"))
    with pytest.raises(ParityError, match="nothing was published"):
        publish(run, tampered, parity_images(run, None), SETTINGS, destination)
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_what_exceeds_the_bound(
    run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    to = str(tmp_path / "models" / "tiny")
    assert main(["bundle", str(run_folder), "--to", to, "--max-error", "1e-12"]) == 1
    captured = capfd.readouterr()
    assert "export: the exported graph does not equal the trained model" in captured.err
    assert "(at most 1e-12)" in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_images_of_a_folder_can_be_compared_instead(
    run: TrainedRun, graph: ExportedGraph, tmp_path: Path
) -> None:
    images = parity_images(run, Path(run.recipe.data.root) / "ood")
    destination = Destination.parse(str(tmp_path / "models" / "tiny"))
    settings = dataclasses.replace(SETTINGS, max_images=5)
    seen: list[int] = []
    published = publish(run, graph, images, settings, destination, progress=seen.append)
    assert len(images) == 8
    assert published.comparison.images == 5
    assert seen == [5]


def test_an_image_that_is_none_stops_the_export(
    run: TrainedRun, graph: ExportedGraph, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    destination = Destination.parse(str(tmp_path / "models" / "tiny"))
    with pytest.raises(DataError, match=r"broken\.png"):
        publish(run, graph, parity_images(run, folder), SETTINGS, destination)
    assert not (tmp_path / "models").exists()


def test_a_folder_without_images_is_refused(run: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image in"):
        parity_images(run, tmp_path)


def test_data_that_are_gone_can_be_replaced(run: TrainedRun, tmp_path: Path) -> None:
    data = run.recipe.data.model_copy(update={"root": str(tmp_path / "gone")})
    moved = dataclasses.replace(run, recipe=run.recipe.model_copy(update={"data": data}))
    with pytest.raises(DataError, match=r"cannot be read: .*gone.*; or compare .* `--images FOLD"):
        parity_images(moved, None)


# --- what is asked for ---------------------------------------------------------------------------


def test_a_model_is_not_taken_for_a_repository(
    first: Exported,
) -> None:
    model = first.bundle.path.parent
    with pytest.raises(ConfigurationError, match="is a model, not a model repository"):
        Destination.parse(str(model / "tiny"))


def test_a_destination_without_a_repository_is_refused(
    run_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", str(run_folder), "--to", "tiny"]) == 1
    assert "export: `tiny` is not of the form models/NAME" in capfd.readouterr().err


def test_what_is_no_run_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", str(tmp_path), "--to", "models/tiny"]) == 1
    assert f"export: `{tmp_path}` is not a run" in capfd.readouterr().err


def test_an_unfinished_run_is_refused(
    run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(run_folder / RECIPE, unfinished)
    assert main(["bundle", str(unfinished), "--to", "models/tiny"]) == 1
    error = capfd.readouterr().err
    assert f"`{unfinished}` is not finished; go on with `python -m train resume" in error


def test_scores_are_the_recipes_unless_named(run: TrainedRun) -> None:
    assert choose_scores(run.recipe, (), None) == (("msp", "energy"), "energy")
    assert choose_scores(run.recipe, ("max_logit", "msp", "msp"), None) == (
        ("max_logit", "msp"),
        "max_logit",
    )
    assert choose_scores(run.recipe, ("energy", "msp"), "msp") == (("energy", "msp"), "msp")


def test_an_unknown_score_is_refused_with_those_there_are(
    run_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", str(run_folder), "--to", "models/tiny", "--score", "magic"]) == 1
    error = capfd.readouterr().err
    assert "export: unknown score `magic`; known: msp, energy, max_logit" in error


def test_more_scores_than_a_calibration_holds_are_refused(run: TrainedRun) -> None:
    with pytest.raises(ConfigurationError, match=r"5 scores are too many .* at most 4"):
        choose_scores(run.recipe, ("a", "b", "c", "d", "e"), None)


def test_a_default_score_that_is_not_exported_is_refused(run: TrainedRun) -> None:
    with pytest.raises(ConfigurationError, match="`max_logit` is not exported; choose one of msp"):
        choose_scores(run.recipe, ("msp",), "max_logit")


def test_the_recipe_is_published_without_folders(run: TrainedRun) -> None:
    values = portable_recipe(run.recipe)
    assert json.loads(json.dumps(values)) == values
    assert values["data"] | {"root": run.recipe.data.root} == run.recipe.data.model_dump(
        mode="json"
    )
    assert values["data"]["outliers"] == "procedural"
    assert values["model"]["weights"] == "none"
    assert values["finetune"] == run.recipe.finetune.model_dump(mode="json")
