"""The numbers printed in the docstrings of evaluation and report are those that come out."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("train.evaluation.seeds", "train.evaluation.settings", "train.report.tables")


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
