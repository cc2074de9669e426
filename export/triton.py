"""Triton's view of a bundle: the text of `config.pbtxt`.

Field names and meanings: triton-inference-server/common, protobuf/model_config.proto, and
triton-inference-server/server, docs/user_guide/model_configuration.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from export.graph import TensorSpec
from oodserve.errors import ConfigurationError


@dataclass(frozen=True)
class TritonSettings:
    """What the graph does not determine.

    Raises
    ------
    ConfigurationError
        A number is below 1.
    """

    device: Literal["cpu", "gpu"] = "cpu"
    """Where Triton runs the model. Never left to Triton: a calibration holds for one provider."""
    max_batch_size: int = 32
    """Most images in one inference."""
    max_queue_delay_us: int = 5000
    """Longest wait for a fuller batch, in microseconds. Triton's batcher can miss a wake-up and
    sleep for half a second when this is 0 or 1000; at 5000 that was not seen."""
    max_queue_size: int = 128
    """Requests that may wait; one more is refused at once."""

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_queue_delay_us", "max_queue_size"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"`{name}` = {getattr(self, name)} cannot be; give 1 or more"
                )


def config_pbtxt(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], settings: TritonSettings
) -> str:
    """Return the model configuration for Triton's ONNX Runtime backend, in protobuf text format.

    It has no `name`, so the folder's name counts and the text is the same for every model of the
    same shape. The batch dimension is left out of `dims`, as Triton wants it.

    Parameters
    ----------
    inputs, outputs : sequence of TensorSpec
        Of the graph; Triton compares them with what the file says.
    settings : TritonSettings
        The rest.
    """
    return "\n".join(
        [
            'backend: "onnxruntime"',
            f"max_batch_size: {settings.max_batch_size}",
            *(_tensor("input", tensor) for tensor in inputs),
            *(_tensor("output", tensor) for tensor in outputs),
            "version_policy { latest { num_versions: 2 } }",
            f"instance_group {{ count: 1 kind: KIND_{settings.device.upper()} }}",
            "dynamic_batching {",
            f"  max_queue_delay_microseconds: {settings.max_queue_delay_us}",
            "  default_queue_policy {",
            "    timeout_action: REJECT",
            f"    max_queue_size: {settings.max_queue_size}",
            "  }",
            "}",
            # Triton reports a model ready only after these ran.
            *(_warmup(inputs, rows) for rows in sorted({1, settings.max_batch_size})),
            "",
        ]
    )


def _tensor(field: str, tensor: TensorSpec) -> str:
    # An empty shape is not allowed: what is (N,) in the graph is (N, 1) for Triton's clients, and
    # `reshape` tells Triton which is which.
    shape = _dims(tensor.dims) if tensor.dims else "[ 1 ]\n  reshape { shape: [ ] }"
    return (
        f'{field} {{\n  name: "{tensor.name}"\n  data_type: TYPE_{tensor.dtype}\n'
        f"  dims: {shape}\n}}"
    )


def _warmup(inputs: Sequence[TensorSpec], rows: int) -> str:
    zeros = "\n".join(
        f'  inputs {{\n    key: "{tensor.name}"\n    value {{ data_type: TYPE_{tensor.dtype} '
        f"dims: {_dims(tensor.dims)} zero_data: true }}\n  }}"
        for tensor in inputs
    )
    return f'model_warmup {{\n  name: "batch of {rows}"\n  batch_size: {rows}\n{zeros}\n}}'


def _dims(dims: Sequence[int]) -> str:
    return f"[ {', '.join(str(size) for size in dims)} ]"
