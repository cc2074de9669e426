"""The configuration for Triton, parsed as protobuf text format against the fields it may hold."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)

from export.graph import TensorSpec
from export.triton import TritonSettings, config_pbtxt
from oodserve.errors import ConfigurationError

IMAGE = TensorSpec("image", "UINT8", (32, 48, 3))
LOGITS = TensorSpec("logits", "FP32", (-1,))
ENERGY = TensorSpec("energy", "FP32", ())
FEATURES = TensorSpec("features", "FP32", (512,))

# The part of Triton's model_config.proto that is written here: message to field to type, `*` for
# repeated. A map is a repeated pair of key and value in text format.
SCHEMA = {
    "ModelConfig": {
        "name": "string",
        "backend": "string",
        "max_batch_size": "int32",
        "input": "ModelInput*",
        "output": "ModelOutput*",
        "version_policy": "ModelVersionPolicy",
        "instance_group": "ModelInstanceGroup*",
        "dynamic_batching": "ModelDynamicBatching",
        "model_warmup": "ModelWarmup*",
    },
    "ModelInput": {"name": "string", "data_type": "DataType", "dims": "int64*"},
    "ModelOutput": {
        "name": "string",
        "data_type": "DataType",
        "dims": "int64*",
        "reshape": "ModelTensorReshape",
    },
    "ModelTensorReshape": {"shape": "int64*"},
    "ModelVersionPolicy": {"latest": "Latest"},
    "Latest": {"num_versions": "uint32"},
    "ModelInstanceGroup": {"count": "int32", "kind": "Kind"},
    "ModelDynamicBatching": {
        "max_queue_delay_microseconds": "uint64",
        "default_queue_policy": "ModelQueuePolicy",
    },
    "ModelQueuePolicy": {"timeout_action": "TimeoutAction", "max_queue_size": "uint32"},
    "ModelWarmup": {"name": "string", "batch_size": "uint32", "inputs": "InputsEntry*"},
    "InputsEntry": {"key": "string", "value": "Input"},
    "Input": {"data_type": "DataType", "dims": "int64*", "zero_data": "bool"},
}
ENUMS = {
    "DataType": ("TYPE_INVALID", "TYPE_UINT8", "TYPE_FP32"),
    "Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU"),
    "TimeoutAction": ("REJECT", "DELAY"),
}


def message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="triton.proto", syntax="proto3")
    for enum, values in ENUMS.items():
        declared = file.enum_type.add(name=enum)
        for number, value in enumerate(values):
            declared.value.add(name=value, number=number)
    for message, fields in SCHEMA.items():
        entry = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), start=1):
            field = entry.field.add(name=name, number=number, label=3 if kind.endswith("*") else 1)
            kind = kind.rstrip("*")
            if kind in SCHEMA or kind in ENUMS:
                field.type_name = kind
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ModelConfig"))


def parse(text: str) -> Any:
    """Read the text; an unknown field, a wrong type or a missing bracket is an error."""
    return text_format.Parse(text, message_class()())


def written(*outputs: TensorSpec, settings: TritonSettings | None = None) -> Any:
    return parse(config_pbtxt([IMAGE], outputs, settings or TritonSettings()))


def test_the_parser_refuses_what_is_no_field() -> None:
    with pytest.raises(text_format.ParseError, match="max_queue_delay"):
        parse("dynamic_batching { max_queue_delay_us: 5000 }")


def test_the_backend_is_named_and_the_model_is_not() -> None:
    config = written(LOGITS, ENERGY)
    assert config.backend == "onnxruntime"
    assert config.name == ""
    assert config.version_policy.latest.num_versions == 2


def test_the_input_is_uint8_without_the_batch_dimension() -> None:
    (image,) = written(LOGITS, ENERGY).input
    assert (image.name, list(image.dims)) == ("image", [32, 48, 3])
    assert ENUMS["DataType"][image.data_type] == "TYPE_UINT8"


def test_the_number_of_classes_is_left_open() -> None:
    logits = written(LOGITS, ENERGY).output[0]
    assert (logits.name, list(logits.dims)) == ("logits", [-1])
    assert ENUMS["DataType"][logits.data_type] == "TYPE_FP32"
    assert not logits.HasField("reshape")


def test_a_score_has_one_column_for_clients_and_none_in_the_graph() -> None:
    energy = written(LOGITS, ENERGY).output[1]
    assert (energy.name, list(energy.dims)) == ("energy", [1])
    assert energy.HasField("reshape")
    assert list(energy.reshape.shape) == []


def test_every_output_is_there_in_the_order_of_the_graph() -> None:
    config = written(LOGITS, ENERGY, FEATURES)
    assert [output.name for output in config.output] == ["logits", "energy", "features"]
    assert list(config.output[2].dims) == [512]


def test_batching_waits_5_ms_and_the_queue_is_bounded() -> None:
    config = written(LOGITS, ENERGY)
    assert config.max_batch_size == 32
    assert config.dynamic_batching.max_queue_delay_microseconds == 5000
    policy = config.dynamic_batching.default_queue_policy
    assert policy.max_queue_size == 128
    assert ENUMS["TimeoutAction"][policy.timeout_action] == "REJECT"


@pytest.mark.parametrize(("device", "kind"), [("cpu", "KIND_CPU"), ("gpu", "KIND_GPU")])
def test_the_device_is_stated(device: Literal["cpu", "gpu"], kind: str) -> None:
    (group,) = written(LOGITS, ENERGY, settings=TritonSettings(device=device)).instance_group
    assert (group.count, ENUMS["Kind"][group.kind]) == (1, kind)


def test_warm_up_runs_the_smallest_and_the_largest_batch() -> None:
    config = written(LOGITS, ENERGY, settings=TritonSettings(max_batch_size=8))
    assert [sample.batch_size for sample in config.model_warmup] == [1, 8]
    for sample in config.model_warmup:
        (entry,) = sample.inputs
        assert (entry.key, list(entry.value.dims)) == ("image", [32, 48, 3])
        assert entry.value.zero_data


def test_a_model_that_takes_single_images_is_warmed_up_once() -> None:
    config = written(LOGITS, ENERGY, settings=TritonSettings(max_batch_size=1))
    assert [sample.batch_size for sample in config.model_warmup] == [1]


@pytest.mark.parametrize("field", ["max_batch_size", "max_queue_delay_us", "max_queue_size"])
def test_numbers_below_1_are_refused(field: str) -> None:
    settings: dict[str, Any] = {field: 0}
    with pytest.raises(ConfigurationError, match=f"`{field}` = 0 cannot be; give 1 or more"):
        TritonSettings(**settings)
