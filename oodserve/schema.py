"""What every file format of oodserve has in common: strict, frozen, canonical JSON."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hex."""

# No string in JSON holds a raw line break, so this finds lists of numbers and nothing else.
_NUMBERS = re.compile(r"\[\n\s*([-+0-9.eE,\s]+?)\s*\]")


class Document(BaseModel):
    """A part of a file we write: unknown keys are errors, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    def to_json(self) -> str:
        """Return the document as indented JSON that reads back equal, with a final newline.

        Lists of numbers stay on one line: a calibration has thousands of pairs.
        """
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False)
        return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

    def digest(self) -> str:
        """Return the SHA-256 of the canonical form: keys sorted, no white space."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


def explain(error: ValidationError) -> str:
    """Return one line a person can act on: each key at fault, its value and what was expected."""
    parts = []
    for item in error.errors(include_url=False):
        key = ".".join(str(piece) for piece in item["loc"]) or "document"
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key `{key}`")
        elif item["type"] == "missing":
            parts.append(f"missing key `{key}`")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            parts.append(f"`{key}` = {item['input']!r:.80}: {message}")
    return "; ".join(parts)
