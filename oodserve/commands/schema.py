"""`oodserve schema`: the JSON Schema of a file format."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from oodserve.bundle import Manifest
from oodserve.calibration import Calibration
from oodserve.schema import Document

FORMATS: Mapping[str, type[Document]] = MappingProxyType(
    {"bundle": Manifest, "calibration": Calibration}
)
"""File formats that other programs may read, by the name of their file."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "schema",
        help="the JSON Schema of bundle.json or calibration.json",
        description=(
            "Print the JSON Schema of a file format. It says what keys and values there may be; "
            "conditions between several values are checked on reading, beyond it."
        ),
    )
    parser.add_argument(
        "format", choices=tuple(FORMATS), metavar="FORMAT", help=" or ".join(FORMATS)
    )
    parser.set_defaults(run=_schema)


def json_schema(name: str) -> str:
    """Return the JSON Schema of a format of `FORMATS`, as indented JSON with a final newline."""
    schema = FORMATS[name].model_json_schema(schema_generator=_Plain)
    for part in (schema, *schema["$defs"].values()):
        # The first paragraph; what follows is for readers of the code.
        if "description" in part:
            part["description"] = part["description"].partition("\n\n")[0]
    return json.dumps({"$schema": DIALECT, **schema}, indent=2, ensure_ascii=False) + "\n"


class _Plain(GenerateJsonSchema):
    """Without the titles that pydantic makes by capitalising keys."""

    def field_title_should_be_set(self, schema: CoreSchema | Any) -> bool:
        """Return False: the key is the title."""
        return False


def _schema(arguments: argparse.Namespace) -> int:
    sys.stdout.write(json_schema(arguments.format))
    return 0
