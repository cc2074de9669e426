"""The README says what is so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from demo.steps import DATA, data_step, model_steps

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def test_the_table_is_that_of_the_benchmark() -> None:
    rows = [
        line
        for line in (RESULTS / "digits_methods.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    assert len(rows) == 2 + 6 * 2  # six methods, each by two scores
    assert "\n".join(rows) in README


def test_the_table_is_the_mean_of_the_values_per_seed() -> None:
    document = json.loads((RESULTS / "digits_methods.json").read_text())
    assert len(document["seeds"]) >= 3
    for row in document["rows"]:
        line = next(
            text for text in README.splitlines()
            if text.startswith(f"| {row['method']} | {row['score']} |")
        )  # fmt: skip
        for column in ("accuracy", "auroc", "fpr@95tpr_ood", "ood_miss@95id"):
            values = 100 * np.array(row["values"][column])
            assert f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" in line


def test_the_tour_is_the_demos_commands() -> None:
    for step in [data_step(), *model_steps()]:
        command = " ".join(("python", *step.command)).replace("python -m oodserve", "oodserve")
        if " resume " not in command:
            assert command in README, command
    assert str(DATA) in README
