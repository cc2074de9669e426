"""What an export is asked for: destinations and settings that can and cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from export.publication import Destination, ExportSettings
from oodserve.errors import ConfigurationError


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("tiny", "`tiny` is not of the form models/NAME"),
        ("./tiny", "`./tiny` is not of the form models/NAME"),
        ("/tiny", "`/tiny` is not of the form models/NAME"),
        ("models/..", "`models/..` is not of the form models/NAME"),
        ("models/a b", "`a b` cannot be a model's name: begin with a letter or digit"),
        ("models/.hidden", "`.hidden` cannot be a model's name"),
        ("models/tiny/2", "`2` cannot be a model's name: a number is a version"),
    ],
)
def test_a_destination_that_cannot_be_is_refused(to: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(reason)}"):
        Destination.parse(to)


def test_a_destination_is_a_repository_and_a_name() -> None:
    assert Destination.parse("models/tiny") == Destination(Path("models"), "tiny")
    assert Destination.parse("/srv/models/tiny/") == Destination(Path("/srv/models"), "tiny")


@pytest.mark.parametrize("bound", [0.0, -1e-4, 1.0, float("nan")])
def test_a_bound_that_bounds_nothing_is_refused(bound: float) -> None:
    with pytest.raises(ConfigurationError, match=r"`max_error` = .* is no bound"):
        ExportSettings(scores=("msp",), default_score="msp", max_error=bound)


def test_comparing_on_no_image_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="`max_images` = 0; compare on 1 or more"):
        ExportSettings(scores=("msp",), default_score="msp", max_images=0)
