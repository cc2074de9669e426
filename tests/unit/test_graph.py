"""The exported graph: what it takes and gives, that it is right, and that it is always the same."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from export.graph import (
    IR_VERSION,
    OPSETS,
    ExportedGraph,
    TensorSpec,
    export_graph,
    strip,
)
from oodserve.bundle import InputSpec
from oodserve.errors import ConfigurationError
from oodserve.images import Preprocessing
from train.networks.classifier import Classifier
from train.scorers.registry import build_scorer
from train.scorers.scorer import Scorer

HEIGHT, WIDTH, N_CLASSES, N_FEATURES = 12, 10, 5, 8

# Channels differ in both, so that a swap of channels shows.
MEAN, STD = (0.1, 0.4, 0.7), (0.2, 0.3, 0.5)


def input_spec() -> InputSpec:
    return InputSpec(
        preprocessing=Preprocessing(
            height=HEIGHT,
            width=WIDTH,
            resize="exact",
            resize_height=HEIGHT,
            resize_width=WIDTH,
            interpolation="bilinear",
        ),
        mean=MEAN,
        std=STD,
    )


def small_classifier() -> Classifier:
    """Two convolutions with batch normalisation whose statistics are far from 0 and 1."""
    torch.manual_seed(7)
    backbone = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, N_FEATURES, 3, bias=True),
        nn.BatchNorm2d(N_FEATURES),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    for layer in backbone:
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.weight, layer.bias):
                assert tensor is not None
                nn.init.normal_(tensor, std=2.0)
            assert layer.running_var is not None
            nn.init.uniform_(layer.running_var, 0.05, 9.0)
    return Classifier(backbone, N_FEATURES, N_CLASSES, feature_norm="zscore").eval()


def scorers(*names: str) -> dict[str, Scorer]:
    return {name: build_scorer(name) for name in names}


def pictures(count: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def graph() -> ExportedGraph:
    return export_graph(
        small_classifier(), scorers("msp", "energy", "max_logit"), input_spec(), features=True
    )


def session(graph: ExportedGraph, level: str = "ORT_ENABLE_ALL") -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    return ort.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])


def without_weights(graph: ExportedGraph) -> str:
    """Everything in the file that a person could read."""
    model = onnx.load_from_string(graph.content)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    return str(model)


@torch.no_grad()
def by_hand(model: Classifier, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """The same outputs from the definitions, in float64 and without the graph's own module."""
    model = copy.deepcopy(model).double().eval()
    pixels = (images.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    features = model.features(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    logits = model.logits_from(features).numpy()
    exponentials = np.exp(logits)
    return {
        "logits": logits,
        "features": features.numpy(),
        "msp": (exponentials / exponentials.sum(axis=1, keepdims=True)).max(axis=1),
        "energy": np.log(exponentials.sum(axis=1)),
        "max_logit": logits.max(axis=1),
    }


def test_it_takes_uint8_images_of_one_size_and_any_number(graph: ExportedGraph) -> None:
    assert graph.inputs == (TensorSpec("image", "UINT8", (HEIGHT, WIDTH, 3)),)
    (image,) = session(graph).get_inputs()
    assert (image.name, image.type) == ("image", "tensor(uint8)")
    assert image.shape == ["batch", HEIGHT, WIDTH, 3]


def test_it_gives_logits_then_each_score_then_features(graph: ExportedGraph) -> None:
    assert graph.outputs == (
        TensorSpec("logits", "FP32", (-1,)),
        TensorSpec("msp", "FP32", ()),
        TensorSpec("energy", "FP32", ()),
        TensorSpec("max_logit", "FP32", ()),
        TensorSpec("features", "FP32", (N_FEATURES,)),
    )


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_the_runtime_reports_the_number_of_classes_as_open(
    graph: ExportedGraph, level: str
) -> None:
    # What Triton compares with `dims: [ -1 ]`; declaring it in the file alone does not do.
    shapes = {output.name: output.shape for output in session(graph, level).get_outputs()}
    assert shapes["logits"] == ["batch", "classes"]
    assert shapes["energy"] == ["batch"]
    assert shapes["features"] == ["batch", N_FEATURES]


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_it_computes_what_the_definitions_say(graph: ExportedGraph, rows: int) -> None:
    images = pictures(rows)
    expected = by_hand(small_classifier(), images)
    running = session(graph)
    names = [output.name for output in running.get_outputs()]
    got = dict(zip(names, running.run(names, {"image": images}), strict=True))
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-4)


def test_batch_normalisation_is_folded_into_the_convolutions(graph: ExportedGraph) -> None:
    operators = [node.op_type for node in onnx.load_from_string(graph.content).graph.node]
    assert "Conv" in operators
    assert "BatchNormalization" not in operators


def test_a_model_in_train_mode_is_exported_in_eval_mode_and_stays_in_train_mode(
    graph: ExportedGraph,
) -> None:
    model = small_classifier().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = export_graph(model, scorers("msp", "energy", "max_logit"), input_spec(), features=True)
    assert again.content == graph.content
    assert model.training
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_another_weight_makes_another_file(graph: ExportedGraph) -> None:
    model = small_classifier()
    with torch.no_grad():
        model.head.get_parameter("bias")[0] += 1e-3
    again = export_graph(model, scorers("msp", "energy", "max_logit"), input_spec(), features=True)
    assert again.content != graph.content


def test_only_what_was_asked_for_is_in_the_graph() -> None:
    lean = export_graph(small_classifier(), scorers("max_logit"), input_spec())
    assert [output.name for output in lean.outputs] == ["logits", "max_logit"]
    operators = {node.op_type for node in onnx.load_from_string(lean.content).graph.node}
    assert "Softmax" not in operators
    assert "Exp" not in operators


def test_nothing_in_the_file_names_the_machine(graph: ExportedGraph) -> None:
    text = without_weights(graph)
    for trace in ("/", "\\\\", ".py", "line ", "torch", "aten", "metadata", "doc_string"):
        assert trace not in text


def test_names_tell_operators_and_weights(graph: ExportedGraph) -> None:
    model = onnx.load_from_string(graph.content)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert [name for name in names if name.startswith("Conv_")]
    weights = {tensor.name for tensor in model.graph.initializer}
    assert {"scoring.model.head.weight", "scoring.model.head.bias", "mean", "std"} <= weights


def test_the_weights_are_inside_the_file(graph: ExportedGraph) -> None:
    model = onnx.load_from_string(graph.content)
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert model.ir_version == IR_VERSION


def test_the_last_operator_set_works_as_well() -> None:
    images = pictures(2)
    last = export_graph(small_classifier(), scorers("energy"), input_spec(), opset=OPSETS[-1])
    assert onnx.load_from_string(last.content).opset_import[0].version == OPSETS[-1] == last.opset
    (energy,) = session(last).run(["energy"], {"image": images})
    np.testing.assert_allclose(energy, by_hand(small_classifier(), images)["energy"], rtol=1e-4)


@pytest.mark.parametrize("opset", [17, 23])
def test_an_operator_set_that_cannot_be_written_is_refused(opset: int) -> None:
    with pytest.raises(ConfigurationError, match=f"`opset` = {opset} .* choose 18 to 22"):
        export_graph(small_classifier(), scorers("energy"), input_spec(), opset=opset)


def test_weights_that_do_not_fit_one_file_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"weights have \d+ bytes; .* holds at most 1000"):
        export_graph(small_classifier(), scorers("energy"), input_spec(), max_bytes=1000)


class Centroids(Scorer):
    """A fitted score: its statistics are weights of the graph."""

    centroids: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.arange(16.0).reshape(2, N_FEATURES))

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        distances = (features.unsqueeze(1) - self.centroids).square().sum(dim=2)
        return -distances.amin(dim=1)


def test_a_fitted_score_carries_its_statistics() -> None:
    images = pictures(3)
    fitted = export_graph(small_classifier(), {"centroids": Centroids()}, input_spec())
    (got,) = session(fitted).run(["centroids"], {"image": images})
    features = by_hand(small_classifier(), images)["features"]
    centroids = np.arange(16.0).reshape(2, N_FEATURES)
    expected = [-min(((row - centre) ** 2).sum() for centre in centroids) for row in features]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_traces_inside_a_branch_are_removed_as_well() -> None:
    value = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
    constant = helper.make_node(
        "Constant", [], ["out"], value_float=1.0, doc_string='File "/home/someone/model.py"'
    )
    branch = helper.make_graph([constant], "branch", [], [value], doc_string="/home/someone")
    condition = helper.make_tensor_value_info("condition", TensorProto.BOOL, [1])
    choice = helper.make_node("If", ["condition"], ["out"], then_branch=branch, else_branch=branch)
    model = helper.make_model(
        helper.make_graph([choice], "main", [condition], [value]), producer_name="/home/someone"
    )
    assert "someone" in str(model)
    strip(model)
    assert "someone" not in str(model)
