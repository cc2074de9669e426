"""The numbers printed in docstrings are those that come out."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "binomial",
    "calibration",
    "metrics.bootstrap",
    "metrics.detection",
    "metrics.selective",
    "ranks",
    "scores",
)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"oodserve.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
