"""Faults of a nested settings file, told in the keys of the file, with the nearest known key."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one line that says for each fault which key, what its value was, what was expected.

    Parameters
    ----------
    error : ValidationError
        What validating `model` raised.
    model : type of BaseModel
        The class of the whole file; unions in it must have a discriminator.
    """
    parts = []
    for item in error.errors(include_url=False):
        pieces = [str(piece) for piece in item["loc"]]
        tables = _path(model, pieces)
        key = ".".join(name for name, _ in tables)
        known = tables[-1][1] if tables else ()
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key `{key}`{_nearest(pieces[-1], known)}")
        elif item["type"] == "missing":
            parts.append(f"missing key `{key}`")
        elif item["type"] == "union_tag_not_found":
            tag = item["ctx"]["discriminator"].strip("'")
            parts.append(f"missing key `{key}.{tag}`")
        elif item["type"] == "union_tag_invalid":
            tag = item["ctx"]["discriminator"].strip("'")
            parts.append(
                f"`{key}.{tag}` = {item['ctx']['tag']!r}: expected one of "
                f"{item['ctx']['expected_tags']}"
            )
        elif item["type"] == "value_error":
            parts.append(f"{key + ': ' if key else ''}{item['ctx']['error']}")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            parts.append(f"`{key}` = {item['input']!r:.80}: {message}")
    return "; ".join(parts)


def _path(model: type[BaseModel], pieces: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return each key of a fault's location with the keys its table knows.

    Pydantic puts the chosen member of a union into the location; that is no key of the file.
    """
    path: list[tuple[str, tuple[str, ...]]] = []
    members: Mapping[str, type[BaseModel]] = {}
    known = tuple(model.model_fields)
    current: type[BaseModel] | None = model
    for piece in pieces:
        if piece in members:
            current, members = members[piece], {}
            known = tuple(current.model_fields)
            continue
        path.append((piece, known))
        field = current.model_fields.get(piece) if current is not None else None
        current, members, known = None, {}, ()
        if field is None:
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            current, known = field.annotation, tuple(field.annotation.model_fields)
        elif isinstance(field.discriminator, str):
            members = _members(field.annotation, field.discriminator)
    return path


def _members(union: Any, discriminator: str) -> dict[str, type[BaseModel]]:
    """Return the members of a discriminated union by their tags."""
    assert typing.get_origin(union) in (typing.Union, types.UnionType)
    return {
        tag: member
        for member in typing.get_args(union)
        for tag in typing.get_args(member.model_fields[discriminator].annotation)
    }


def _nearest(key: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(key, known, n=1)
    if matches:
        return f", did you mean `{matches[0]}`?"
    return f"; known: {', '.join(known)}" if known else ""
