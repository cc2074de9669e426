"""The parity gate: its figures on arrays worked out by hand, and on a small exported model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from torch import nn

from export.graph import ExportedGraph, export_graph
from export.parity import (
    Comparison,
    SourceModel,
    compare,
    measure,
    provisional_threshold,
    read_batches,
    spread,
)
from oodserve.bundle import InputSpec
from oodserve.engines import Outputs
from oodserve.engines.onnxruntime import OnnxRuntimeEngine
from oodserve.errors import DataError, ParityError
from oodserve.images import Preprocessing
from train.data.sources import ImageFiles
from train.networks.classifier import Classifier
from train.scorers.registry import build_scorer

SIDE, N_CLASSES = 8, 4
SPEC = InputSpec(
    preprocessing=Preprocessing(
        height=SIDE,
        width=SIDE,
        resize="exact",
        resize_height=SIDE,
        resize_width=SIDE,
        interpolation="bilinear",
    ),
    mean=(0.2, 0.5, 0.6),
    std=(0.3, 0.2, 0.4),
)


def float32(values: object) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def outputs(scores: list[float], *, logits: list[list[float]] | None = None) -> Outputs:
    rows = logits if logits is not None else [[1.0, 0.0]] * len(scores)
    return {"logits": float32(rows), "energy": float32(scores)}


def compared(expected: Outputs, got: Outputs, *, bound: float = 1e-4) -> Comparison:
    return compare(expected, got, scores=["energy"], bound=bound)


# --- the figures ---------------------------------------------------------------------------------


def test_equal_outputs_have_no_error() -> None:
    same = outputs([float(value) for value in range(1, 41)])
    comparison = compared(same, same)
    comparison.require_equal()
    assert comparison.images == 40
    assert comparison.errors == {"logits": 0.0, "energy": 0.0}
    assert (comparison.label_flips, comparison.flags["energy"].flips) == (0, 0)


def test_the_error_is_relative_to_the_largest_value_and_at_least_to_1() -> None:
    expected = outputs([8.0, -16.0], logits=[[0.5, 0.0], [0.25, 0.0]])
    got = outputs([8.0, -15.0], logits=[[0.5, 0.0], [0.375, 0.0]])
    # energy: |-16 + 15| / max(1, 16) = 1/16; logits: |0.25 - 0.375| / max(1, 0.5) = 1/8
    assert compared(expected, got).errors == {"logits": 0.125, "energy": 0.0625}
    assert compared(expected, got).max_error == 0.125


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (19, 1), (20, 1), (21, 2), (100, 5), (101, 6)])
def test_the_provisional_threshold_is_the_5_percent_order_statistic(count: int, rank: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, count + 1)).astype(np.float32)
    assert provisional_threshold(scores) == rank


def test_flags_that_flip_are_counted_near_the_threshold_and_away_from_it() -> None:
    # 20 scores: tau is the smallest, 0. With bound 0.1 and a largest score of 10, all scores
    # within 1 are near: 0 and 0.5.
    scores = [0.0, 0.5, 5.0] + [10.0] * 17
    moved = [-0.5, 0.5, -1.0] + [10.0] * 17
    flag = compared(outputs(scores), outputs(moved), bound=0.1).flags["energy"]
    assert (flag.threshold, flag.flips, flag.near) == (0.0, 1, 2)


def test_a_score_at_the_threshold_is_in() -> None:
    scores = [3.0] * 20
    flag = compared(outputs(scores), outputs(scores)).flags["energy"]
    assert (flag.threshold, flag.flips, flag.near) == (3.0, 0, 20)


def test_labels_that_differ_are_counted() -> None:
    expected = outputs([1.0] * 3, logits=[[2.0, 1.0], [1.0, 2.0], [0.0, 1.0]])
    got = outputs([1.0] * 3, logits=[[1.0, 2.0], [1.0, 2.0], [1.0, 0.0]])
    assert compared(expected, got).label_flips == 2


@pytest.mark.parametrize(("count", "most", "chosen"), [
    (3, 8, [0, 1, 2]),
    (8, 4, [0, 2, 4, 6]),
    (10, 3, [0, 3, 6]),
    (5, 5, [0, 1, 2, 3, 4]),
])  # fmt: skip
def test_images_are_thinned_evenly(count: int, most: int, chosen: list[int]) -> None:
    assert spread(count, most=most) == chosen


def test_the_manifest_gets_the_figures_of_the_default_score() -> None:
    scores = [0.0, 5e-4] + [10.0] * 18
    moved = [-5e-4, 5e-4] + [10.0] * 18
    parity = compared(outputs(scores), outputs(moved)).to_parity(default_score="energy")
    assert parity.images == 20
    assert parity.max_error == pytest.approx(5e-5)
    assert (parity.bound, parity.label_flips, parity.flag_flips) == (1e-4, 0, 0)
    assert (parity.near_threshold, parity.provisional_threshold) == (2, 0.0)


# --- the gate ------------------------------------------------------------------------------------


def test_the_bound_itself_passes_and_more_does_not() -> None:
    expected = outputs([1.0, 1.0])
    compared(expected, outputs([1.0, 1.25]), bound=0.25).require_equal()
    with pytest.raises(ParityError, match=r"`energy` differs by 0\.25 \(at most 0\.2\); nothing"):
        compared(expected, outputs([1.0, 1.25]), bound=0.2).require_equal()


def test_a_flipped_label_is_refused_however_small_the_error() -> None:
    expected = outputs([1.0], logits=[[1.0, 1.00001]])
    got = outputs([1.0], logits=[[1.00001, 1.0]])
    with pytest.raises(ParityError, match=r"on 1 images: 1 labels differ \(none may\)"):
        compared(expected, got).require_equal()


def test_a_flag_that_flips_away_from_the_threshold_is_refused() -> None:
    scores, moved = [0.0, 5.0] + [10.0] * 18, [0.0, -1.0] + [10.0] * 18
    with pytest.raises(ParityError, match="1 flags by `energy` differ away from the threshold"):
        compared(outputs(scores), outputs(moved)).require_equal()


def test_a_flag_that_flips_at_the_threshold_passes() -> None:
    comparison = compared(outputs([0.0] + [10.0] * 19), outputs([-5e-4] + [10.0] * 19))
    comparison.require_equal()
    flag = comparison.flags["energy"]
    assert (flag.flips, flag.near) == (0, 1)


def test_nan_is_refused() -> None:
    with pytest.raises(ParityError, match="`energy` differs by inf"):
        compared(outputs([1.0, 2.0]), outputs([1.0, float("nan")])).require_equal()


def test_an_output_that_is_missing_or_of_another_shape_is_refused() -> None:
    expected = outputs([1.0, 2.0])
    with pytest.raises(ParityError, match=r"returns .*, the trained model .*'energy': \(2,\)"):
        compared(expected, {"logits": expected["logits"]})
    with pytest.raises(ParityError, match=r"'energy': \(2, 1\)"):
        compared(expected, {**expected, "energy": expected["energy"][:, np.newaxis]})


# --- on a model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(1)
    backbone = nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten()
    )
    normalisation = backbone[1]
    assert isinstance(normalisation, nn.BatchNorm2d)
    assert normalisation.running_mean is not None
    nn.init.normal_(normalisation.running_mean)
    return Classifier(backbone, 5 * (SIDE - 2) ** 2, N_CLASSES).eval()


@pytest.fixture(scope="module")
def source(model: Classifier) -> SourceModel:
    return SourceModel(
        model, {name: build_scorer(name) for name in ("msp", "energy")}, SPEC, features=True
    )


@pytest.fixture(scope="module")
def graph(model: Classifier, source: SourceModel) -> ExportedGraph:
    return export_graph(model, source.scorers, SPEC, features=True)


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    rng = np.random.default_rng(5)
    paths = []
    for index in range(10):
        path = tmp_path / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (14, 11, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return ImageFiles(tuple(paths), (255, 255, 255))


def batches(files: ImageFiles) -> Iterator[NDArray[np.uint8]]:
    return read_batches(files, SPEC, indices=list(range(len(files))), batch_size=4)


def engine(content: bytes) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(content, precision="fp32", threads=1)


def tampered(graph: ExportedGraph, name: str, *, change: float) -> ExportedGraph:
    """Return the graph with one weight moved."""
    model = onnx.load_from_string(graph.content)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weights = numpy_helper.to_array(tensor).copy()
    weights.flat[0] += change
    tensor.CopyFrom(numpy_helper.from_array(weights, name=name))
    return dataclasses.replace(graph, content=model.SerializeToString())


def test_images_are_read_in_order_and_preprocessed(files: ImageFiles) -> None:
    read = list(read_batches(files, SPEC, indices=[9, 0, 3], batch_size=2))
    assert [batch.shape for batch in read] == [(2, SIDE, SIDE, 3), (1, SIDE, SIDE, 3)]
    in_order = np.concatenate(list(batches(files)))
    np.testing.assert_array_equal(np.concatenate(read), in_order[[9, 0, 3]])


def test_an_image_that_cannot_be_read_is_named(files: ImageFiles) -> None:
    files.paths[2].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png"):
        list(batches(files))


def test_an_exported_model_equals_its_source(
    source: SourceModel, graph: ExportedGraph, files: ImageFiles
) -> None:
    seen: list[int] = []
    comparison = measure(source, engine(graph.content), batches(files), progress=seen.append)
    comparison.require_equal()
    assert set(comparison.errors) == {"logits", "msp", "energy", "features"}
    assert comparison.max_error < 1e-5
    assert seen == [4, 8, 10]


@pytest.mark.parametrize(
    "name", ["scoring.model.backbone.0.weight", "scoring.model.head.bias", "mean"]
)
def test_a_tampered_weight_is_noticed(
    source: SourceModel, graph: ExportedGraph, files: ImageFiles, name: str
) -> None:
    other = tampered(graph, name, change=0.01)
    with pytest.raises(ParityError, match=r"does not equal the trained model on 10 images: `"):
        measure(source, engine(other.content), batches(files)).require_equal()
