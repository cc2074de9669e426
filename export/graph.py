"""The graph of a bundle: uint8 images in, logits and scores out, and the same bytes every time.

PyTorch's exporter records where each operation came from (file names, line numbers, stack traces)
and numbers values as it goes. All of that is removed or renamed here, so that a file depends on the
checkpoint and the library versions, and on nothing of the machine, the folder or the process.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from oodserve.bundle import InputSpec
from oodserve.errors import ConfigurationError
from train.networks.classifier import Classifier
from train.scorers.apply import Scoring
from train.scorers.scorer import Scorer

IMAGE, LOGITS, FEATURES = "image", "logits", "features"
"""Names of the input, of the class scores, and of the optional features."""

BATCH, CLASSES = "batch", "classes"
"""Names of the symbolic dimensions."""

OPSETS = range(18, 23)
"""ONNX operator sets that can be asked for: from what the exporter writes natively to the last one
that goes with `IR_VERSION`."""

IR_VERSION = 10
"""ONNX file format version; the one that ONNX Runtime 1.18 was the first to read."""

MAX_MODEL_BYTES = 2**31 - 1
"""Largest model that fits one file: the limit of Protocol Buffers."""

_DTYPES: dict[int, str] = {onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.FLOAT: "FP32"}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    dtype: str
    """``"UINT8"`` or ``"FP32"``."""
    dims: tuple[int, ...]
    """Dimensions after the batch; -1 where symbolic. Empty for a score, which is (N,)."""


@dataclass(frozen=True)
class ExportedGraph:
    """An ONNX file with what it takes and gives."""

    content: bytes
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class ServingGraph(nn.Module):
    """What is exported: normalisation, network and scores as one module.

    Parameters
    ----------
    model : Classifier
        Its features and logits.
    scorers : mapping of str to Scorer
        Output name to a scorer.
    spec : InputSpec
        What to normalise by.
    features : bool
        Whether the features are an output, too.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Classifier,
        scorers: Mapping[str, Scorer],
        spec: InputSpec,
        *,
        features: bool,
    ) -> None:
        super().__init__()
        self.scoring = Scoring(model, scorers)
        self.with_features = features
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).reshape(1, 3, 1, 1))

    @property
    def output_names(self) -> list[str]:
        """Names of what `forward` returns, in order."""
        return [LOGITS, *self.scoring.scorers, *([FEATURES] if self.with_features else [])]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of (N, H, W, 3) uint8 images."""
        # What `train.data.loading.normalise` does, but the layout changes while it is bytes.
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)  # (N, 3, H, W)
        features, logits, scores = self.scoring((pixels / 255 - self.mean) / self.std)
        return (logits, *scores.values(), *([features] if self.with_features else []))


def export_graph(
    model: Classifier,
    scorers: Mapping[str, Scorer],
    spec: InputSpec,
    *,
    features: bool = False,
    opset: int = OPSETS.start,
    max_bytes: int = MAX_MODEL_BYTES,
) -> ExportedGraph:
    """Export a model with its scores; the arguments are not changed.

    Parameters
    ----------
    model : Classifier
        In whatever mode and on whatever device; exported in eval mode.
    scorers : mapping of str to Scorer
        Output name to scorer.
    spec : InputSpec
        Size and normalisation of the input.
    features : bool
        Whether to make the features an output.
    opset : int
        ONNX operator set, one of `OPSETS`.
    max_bytes : int
        Weights above this many bytes are refused.

    Returns
    -------
    ExportedGraph
        Input ``image`` UINT8 [batch, H, W, 3]; outputs ``logits`` FP32 [batch, classes], one FP32
        [batch] for each score, and ``features`` FP32 [batch, D] on request.

    Raises
    ------
    ConfigurationError
        The operator set is not one that can be written, or the weights do not fit one file.
    """
    if opset not in OPSETS:
        raise ConfigurationError(
            f"`opset` = {opset} cannot be exported; choose {OPSETS.start} to {OPSETS.stop - 1}"
        )
    weight_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    if weight_bytes > max_bytes:
        raise ConfigurationError(
            f"the weights have {weight_bytes} bytes; one ONNX file holds at most {max_bytes}, "
            "train a smaller model"
        )
    graph = ServingGraph(
        copy.deepcopy(model), copy.deepcopy(dict(scorers)), spec, features=features
    )
    graph = graph.cpu().float().eval()
    written = _run_exporter(graph, spec, opset=opset)
    strip(written)
    rename(written, keep=graph.state_dict().keys())
    free_classes(written)
    onnx.checker.check_model(written, full_check=True)
    return ExportedGraph(
        content=written.SerializeToString(deterministic=True),
        opset=opset,
        inputs=tuple(_spec(value) for value in written.graph.input),
        outputs=tuple(_spec(value) for value in written.graph.output),
    )


def strip(model: onnx.ModelProto) -> None:
    """Remove, in place, what names the machine or the process that made the model.

    That is: producer, documentation strings, metadata (stack traces with paths among it), and the
    shapes of inner values, which whoever needs them can infer.
    """
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        model.ClearField(field)
    model.ClearField("metadata_props")
    model.ir_version = IR_VERSION
    _strip_graph(model.graph)


def rename(model: onnx.ModelProto, *, keep: Collection[str]) -> None:
    """Name nodes and inner values, in place, by operator and position.

    Parameters
    ----------
    model : onnx.ModelProto
        Without subgraphs, as the networks here give.
    keep : collection of str
        Names that stay: the network's parameters and buffers. Inputs and outputs stay as well.
    """
    graph = model.graph
    kept = {*keep, *(value.name for value in (*graph.input, *graph.output))}
    names = {"": ""}
    for index, tensor in enumerate(graph.initializer):
        names[tensor.name] = tensor.name if tensor.name in kept else f"constant_{index}"
        tensor.name = names[tensor.name]
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
        for position, name in enumerate(node.output):
            if name:
                names[name] = name if name in kept else f"{node.name}_{position}"
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]


def free_classes(model: onnx.ModelProto) -> None:
    """Make the number of classes symbolic, in place, so that versions may differ in it.

    It is not enough to declare it so. ONNX Runtime infers the number from the classifier's weights
    and reports that one, and Triton then refuses a configuration that says -1. So the logits pass
    through a reshape to [rows of the input, rest], which moves no data and which shape inference
    does not see through.
    """
    graph = model.graph
    bound = f"{LOGITS}_bound"
    for node in graph.node:
        node.input[:] = [bound if name == LOGITS else name for name in node.input]
        node.output[:] = [bound if name == LOGITS else name for name in node.output]
    rest = numpy_helper.from_array(np.array([-1], dtype=np.int64), name=f"{LOGITS}_rest")
    graph.initializer.append(rest)
    rows, shape = f"{LOGITS}_rows", f"{LOGITS}_shape"
    make_node = onnx.helper.make_node
    graph.node.extend(
        [
            make_node("Shape", [IMAGE], [rows], name=rows, start=0, end=1),
            make_node("Concat", [rows, rest.name], [shape], name=shape, axis=0),
            make_node("Reshape", [bound, shape], [LOGITS], name=LOGITS),
        ]
    )
    declared = next(value for value in graph.output if value.name == LOGITS)
    dimension = declared.type.tensor_type.shape.dim[1]
    dimension.Clear()
    dimension.dim_param = CLASSES


def _run_exporter(graph: ServingGraph, spec: InputSpec, *, opset: int) -> onnx.ModelProto:
    size = spec.preprocessing
    # Two rows: with one, the exporter would take the batch for a constant.
    example = torch.zeros((2, size.height, size.width, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        # PyTorch 2.13 about itself, while it copies the program.
        warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            input_names=[IMAGE],
            output_names=graph.output_names,
            dynamic_shapes={IMAGE: {0: torch.export.Dim(BATCH)}},
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    written: onnx.ModelProto = program.model_proto
    return written


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.name = "oodserve"
    graph.ClearField("value_info")
    parts: list[Any] = [graph, *graph.node, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.type == onnx.AttributeProto.GRAPH:
                _strip_graph(attribute.g)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    return TensorSpec(
        name=value.name,
        dtype=_DTYPES[tensor.elem_type],
        dims=tuple(
            dimension.dim_value if dimension.HasField("dim_value") else -1
            for dimension in tensor.shape.dim[1:]
        ),
    )
