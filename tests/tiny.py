"""A tiny but real bundle, made without torch: a colour classifier on 16 x 16 pixels.

Four classes are colours. Logits are the scaled inner products of the pooled, normalised pixels
with the colours, so an image of a class colour has high scores, and grey, which is no class, has
low ones.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx import __version__ as onnx_version
from PIL import Image

from oodserve.bundle import (
    Bundle,
    Golden,
    InputSpec,
    Manifest,
    ModelFile,
    Output,
    attach_calibration,
    open_bundle,
    write_version,
)
from oodserve.calibration import Calibration, calibrate
from oodserve.engines.onnxruntime import OnnxRuntimeEngine
from oodserve.images import Preprocessing

SIDE = 16
"""Rows and columns of the model's input, in pixels."""
CLASSES = ("red", "green", "blue", "yellow")
SCORES = ("energy", "msp", "max_logit")
COLOURS = np.array(
    [[0.75, 0.25, 0.25], [0.25, 0.75, 0.25], [0.25, 0.25, 0.75], [0.75, 0.75, 0.25]],
    dtype=np.float32,
)
"""(4, 3) RGB in [0, 1], one row for each class."""
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CREATED = "2026-01-31T12:00:00Z"
POOL = 8
LOGIT_SCALE = 6.0
CONFIG_PBTXT = """backend: "onnxruntime"
max_batch_size: 64
input { name: "image" data_type: TYPE_UINT8 dims: [16, 16, 3] }
output { name: "logits" data_type: TYPE_FP32 dims: [-1] }
output { name: "energy" data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }
output { name: "msp" data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }
output { name: "max_logit" data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }
version_policy { latest { num_versions: 2 } }
"""


@dataclass(frozen=True)
class TinyBundle:
    """Where a tiny bundle lies, and what is in it."""

    repository: Path
    """The model repository: what a server is given."""
    name: str
    path: Path
    """models/NAME/VERSION."""
    bundle: Bundle
    calibration: Calibration | None
    calibration_id: str | None


def make_bundle(
    repository: Path,
    name: str = "tiny",
    *,
    seed: int = 0,
    calibrated: bool = True,
    nan_on_black: bool = False,
    work: int = 0,
    calibration_images: int = 400,
    classes: tuple[str, ...] = CLASSES,
) -> TinyBundle:
    """Write the next version of a tiny model into a repository.

    Parameters
    ----------
    repository : Path
        Created when it is not there.
    name : str
        Model name.
    seed : int
        Of the weights' small random part and of the calibration images: another seed, another
        model with other scores.
    calibrated : bool
        Whether the bundle gets its own calibration.
    nan_on_black : bool
        Make the logits, and so all scores, NaN for an image that is black everywhere.
    work : int
        Matrix products of 640 x 640 that each inference does besides, to be slow (about 10 ms
        each on one core).
    calibration_images : int
        How many images the calibration is made from.
    classes : tuple of str
        Names of the four classes.
    """
    model = make_graph(seed=seed, nan_on_black=nan_on_black, work=work)
    engine = OnnxRuntimeEngine(model, precision="fp32", threads=1)
    images = id_images(8, seed=seed + 1)
    manifest = make_manifest(model, classes=classes)
    path = write_version(
        repository,
        name,
        manifest=manifest,
        model=model,
        golden=Golden(images=images, outputs=engine.infer(images)),
        config_pbtxt=CONFIG_PBTXT,
    )
    bundle = open_bundle(path)
    calibration, identity = None, None
    if calibrated:
        calibration = make_calibration(bundle, engine, count=calibration_images, seed=seed + 2)
        identity = attach_calibration(bundle, calibration)
    engine.close()
    return TinyBundle(
        repository=repository,
        name=name,
        path=path,
        bundle=bundle,
        calibration=calibration,
        calibration_id=identity,
    )


def make_calibration(
    bundle: Bundle, engine: OnnxRuntimeEngine, *, count: int = 400, seed: int = 2
) -> Calibration:
    """Calibrate a tiny bundle on `count` in-distribution images; PAC, 95 % with 95 %."""
    images = id_images(count, seed=seed)
    outputs: dict[str, list[NDArray[np.float32]]] = {}
    # Batches of 20, so that a slow graph (`work`) stays bearable and memory small.
    for start in range(0, count, 20):
        for name, array in engine.infer(images[start : start + 20]).items():
            outputs.setdefault(name, []).append(array)
    arrays = {name: np.concatenate(parts) for name, parts in outputs.items()}
    return calibrate(
        {name: arrays[name] for name in SCORES},
        arrays["logits"].argmax(axis=1),
        n_classes=len(bundle.manifest.classes),
        rule="pac",
        target_tpr=0.95,
        confidence=0.95,
        model_sha256=bundle.manifest.model.sha256,
        input_sha256=bundle.manifest.input_sha256,
        runtime=engine.runtime,
        data_fingerprint=hashlib.sha256(images.tobytes()).hexdigest(),
        default_score="energy",
        created=CREATED,
    )


def id_images(count: int, *, seed: int) -> NDArray[np.uint8]:
    """Return (count, 16, 16, 3) uint8 images of class colours, of varying strength, with noise.

    Image i is of class i mod 4.
    """
    rng = np.random.default_rng(seed)
    colours = COLOURS[np.arange(count) % len(COLOURS)][:, np.newaxis, np.newaxis, :]
    strength = rng.uniform(0.6, 1.0, size=(count, 1, 1, 1))
    noise = rng.normal(0.0, 0.06, size=(count, SIDE, SIDE, 3))
    return _to_uint8(0.5 + strength * (colours - 0.5) + noise)


def ood_images(count: int, *, seed: int) -> NDArray[np.uint8]:
    """Return (count, 16, 16, 3) uint8 images of grey noise: no class, low scores."""
    rng = np.random.default_rng(seed)
    return _to_uint8(0.5 + rng.normal(0.0, 0.06, size=(count, SIDE, SIDE, 3)))


def encode(image: NDArray[np.uint8], *, kind: str = "PNG") -> bytes:
    """Return one (H, W, 3) uint8 image as an encoded file; PNG keeps every pixel."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind)
    return buffer.getvalue()


def id_png(*, seed: int) -> bytes:
    """Return one in-distribution image (class red) as a PNG file."""
    return encode(id_images(1, seed=seed)[0])


def ood_png(*, seed: int) -> bytes:
    """Return one out-of-distribution image as a PNG file."""
    return encode(ood_images(1, seed=seed)[0])


def black_png() -> bytes:
    """Return the image for which a `nan_on_black` model yields NaN."""
    return encode(np.zeros((SIDE, SIDE, 3), dtype=np.uint8))


def make_manifest(model: bytes, *, classes: tuple[str, ...] = CLASSES) -> Manifest:
    """Return the manifest of a tiny model file."""
    preprocessing = Preprocessing(
        height=SIDE,
        width=SIDE,
        resize="exact",
        resize_height=SIDE,
        resize_width=SIDE,
        interpolation="bilinear",
    )
    meanings = {
        "energy": "log-sum-exp of the logits",
        "msp": "largest softmax probability",
        "max_logit": "largest logit",
    }
    return Manifest(
        created=CREATED,
        model=ModelFile(
            file="model.onnx",
            sha256=hashlib.sha256(model).hexdigest(),
            precision="fp32",
            opset=20,
            producers={"onnx": onnx_version},
        ),
        input=InputSpec(preprocessing=preprocessing, mean=MEAN, std=STD),
        classes=classes,
        outputs=(
            Output(name="logits", kind="logits", description="class scores before softmax"),
            *(Output(name=name, kind="score", description=meanings[name]) for name in SCORES),
        ),
        default_score="energy",
        quality={"test": {"accuracy": 1.0}},
    )


def make_graph(*, seed: int = 0, nan_on_black: bool = False, work: int = 0) -> bytes:
    """Return the ONNX file: uint8 (batch, 16, 16, 3) to logits (batch, 4) and scores (batch,)."""
    rng = np.random.default_rng(seed)
    directions = (COLOURS - 0.5) / 0.25  # (4, 3)
    patches = (SIDE // POOL) ** 2
    # Flattened NCHW pooling: channel-major, so each colour component repeats over the patches.
    weight = np.repeat(directions, patches, axis=1) * LOGIT_SCALE / (3 * patches)  # (4, 12)
    weight = weight + rng.normal(0.0, 0.02, size=weight.shape)
    constants: Mapping[str, NDArray[np.generic]] = {
        "mean": np.array(MEAN, dtype=np.float32) * 255.0,
        "std": np.array(STD, dtype=np.float32) * 255.0,
        "weight": weight.T.astype(np.float32),
        "bias": rng.normal(0.0, 0.05, size=len(COLOURS)).astype(np.float32),
        "class_axis": np.array([1], dtype=np.int64),
        "zero": np.array(0.0, dtype=np.float32),
        "square": np.array([640, 640], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("Transpose", ["normalised"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["nchw"], ["pooled"], kernel_shape=[POOL, POOL], strides=[POOL, POOL]
        ),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["gemm"]),
    ]
    last = "gemm"
    if nan_on_black:
        # 0 * log(0) is NaN; 0 * log of any other mean is 0.
        nodes += [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("ReduceMean", ["flat", "class_axis"], ["brightness"], keepdims=1),
            helper.make_node("Log", ["brightness"], ["log_brightness"]),
            helper.make_node("Mul", ["log_brightness", "zero"], ["zero_or_nan"]),
            helper.make_node("Add", [last, "zero_or_nan"], ["with_nan"]),
        ]
        last = "with_nan"
    if work:
        nodes += _busy_nodes(last, work)
        last = "with_work"
    nodes += [
        helper.make_node("Identity", [last], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ReduceMax", ["probabilities", "class_axis"], ["msp"], keepdims=0),
        helper.make_node("ReduceMax", ["logits", "class_axis"], ["max_logit"], keepdims=0),
        helper.make_node("ReduceLogSumExp", ["logits", "class_axis"], ["energy"], keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "classes"]),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in SCORES),
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def _busy_nodes(last: str, work: int) -> list[NodeProto]:
    """Matrix products that depend on the input, so that no optimiser folds them away."""
    fill = numpy_helper.from_array(np.array([1.0 / 640], dtype=np.float32), "fill")
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["level"], keepdims=0),
        helper.make_node("Sigmoid", ["level"], ["factor"]),
        helper.make_node("ConstantOfShape", ["square"], ["ones"], value=fill),
        helper.make_node("Mul", ["ones", "factor"], ["busy_0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"busy_{i}", "busy_0"], [f"busy_{i + 1}"]) for i in range(work)
    ]
    nodes += [
        helper.make_node("ReduceMax", [f"busy_{work}"], ["busy_max"], keepdims=0),
        helper.make_node("Mul", ["busy_max", "zero"], ["nothing"]),
        helper.make_node("Add", [last, "nothing"], ["with_work"]),
    ]
    return nodes


def _to_uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
    return pixels
