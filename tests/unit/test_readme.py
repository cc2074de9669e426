"""The README says what is so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from demo.steps import DATA, data_step, model_steps

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def summary(name: str) -> str:
    """Return the first tables of a benchmark's results: AUROC by two scores."""
    text = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    return text.partition("**auroc on")[0].strip()


@pytest.mark.parametrize("name", ["plumage_methods", "digits_methods"])
def test_the_tables_are_those_of_the_benchmarks(name: str) -> None:
    assert summary(name).count("\n| ") == 2 * 12  # two scores: a header, a rule, ten methods
    assert summary(name) in README


@pytest.mark.parametrize("name", ["plumage_methods", "digits_methods"])
def test_the_tables_are_the_means_of_the_values_per_seed(name: str) -> None:
    document = json.loads((RESULTS / f"{name}.json").read_text())
    assert len(document["seeds"]) >= 3
    sections = summary(name).split("**AUROC by ")[1:]
    for section in sections:
        score = section.partition("**")[0]
        lines = section.replace("**", "").splitlines()
        for method in document["methods"]:
            title = f"| {method['method']} |"
            (line,) = [line for line in lines if line.startswith(title)]
            rows = [row for row in method["detections"] if row["score"] == score]
            columns = [method["accuracy"], *(row["auroc"] for row in rows)]
            for values in (100 * np.array(column) for column in columns):
                assert f" {values.mean():.2f} ± {values.std(ddof=1):.2f} " in line


def test_the_tour_is_the_demos_commands() -> None:
    for step in [data_step(), *model_steps()]:
        command = " ".join(("python", *step.command)).replace("python -m oodserve", "oodserve")
        if " resume " not in command:
            assert command in README, command
    assert str(DATA) in README
