"""What all file formats have in common."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from oodserve.schema import Document, Sha256, explain


class Part(Document):
    """A nested document."""

    width: float


class File(Document):
    """A document with every kind of field the formats use."""

    name: str = "ä"
    digest_of_model: Sha256 = "0" * 64
    parts: tuple[Part, ...] = ()
    pairs: tuple[tuple[float, int], ...] = ()
    shares: Annotated[dict[str, float], Field(default_factory=dict)]


WHOLE = File(
    parts=(Part(width=0.1), Part(width=1e-300)),
    pairs=((1 / 3, 1), (-0.0, 2), (5e-324, 3), (1.7976931348623157e308, 4)),
    shares={"b": 0.1 + 0.2, "a": 1.0},
)


def why(content: object) -> str:
    with pytest.raises(ValidationError) as caught:
        File.model_validate(content)
    return explain(caught.value)


def test_json_reads_back_equal_to_the_bit() -> None:
    text = WHOLE.to_json()
    read = File.model_validate_json(text)
    assert read == WHOLE
    assert math.copysign(1.0, read.pairs[1][0]) == -1.0
    assert read.to_json() == text
    assert text.endswith("}\n")
    assert "ä" in text


def test_digest_is_of_the_canonical_form() -> None:
    content = json.dumps(json.loads(WHOLE.to_json()), sort_keys=True, separators=(",", ":"))
    assert WHOLE.digest() == hashlib.sha256(content.encode()).hexdigest()
    turned = WHOLE.model_copy(update={"shares": {"a": 1.0, "b": 0.1 + 0.2}})
    assert turned.digest() == WHOLE.digest()
    assert WHOLE.model_copy(update={"name": "a"}).digest() != WHOLE.digest()


def test_documents_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        WHOLE.name = "other"  # type: ignore[misc]


def test_explain_names_each_key_at_fault() -> None:
    assert why({"colour": 1}) == "unknown key `colour`"
    assert why({"parts": [{}]}) == "missing key `parts.0.width`"
    assert why({"parts": [{"width": "wide"}]}).startswith("`parts.0.width` = 'wide': input should")
    assert why([]).startswith("`document` = []: input should be")
    both = why({"colour": 1, "name": 3})
    assert both == "`name` = 3: input should be a valid string; unknown key `colour`"


def test_explain_cuts_long_values() -> None:
    text = why({"digest_of_model": "x" * 10_000})
    assert text.startswith("`digest_of_model` = 'xxx")
    assert len(text) < 200


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value: float) -> None:
    assert "finite number" in why({"shares": {"a": value}})


@pytest.mark.parametrize("value", ["0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n"])
def test_a_digest_is_64_lower_case_hex_digits(value: str) -> None:
    assert "string should match pattern" in why({"digest_of_model": value})
