"""Comparing methods over seeds, and the `python -m train` command around it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from oodserve.errors import DataError, RecipeError
from tests.training import write_recipe, write_tree
from train.compare import Row, compare, load_comparison, to_markdown
from train.fit import Interrupted
from train.recipes import load_recipe
from train.run import RECIPE

QUIET = Console(quiet=True)
COMPARISON = """
recipe = "tiny.toml"
seeds = [0, 1]
ood_set = "squares"

[[variants]]
title = "Standard"
set = ['method={name = "standard"}', "pretrain.epochs=1", "finetune.epochs=1"]

[[variants]]
title = "MixOE + l_sim"
set = ['method={name = "mixoe", consistency = "l2"}', "pretrain.epochs=1", "finetune.epochs=1"]
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    write_recipe(folder / "tiny.toml", write_tree(folder / "data"))
    (folder / "methods.toml").write_text(COMPARISON)
    return folder / "methods.toml"


@pytest.fixture(scope="module")
def done(path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """A comparison that was interrupted once on its way."""
    folder = tmp_path_factory.mktemp("runs") / "compared"
    steps = iter([False] * 9 + [True])
    with pytest.raises(Interrupted):
        compare(path, folder, console=QUIET, stop=lambda: next(steps))
    return folder, compare(path, folder, console=QUIET, stop=lambda: False)


def test_each_variant_has_a_row_per_score_with_a_value_per_seed(
    done: tuple[Path, list[Row]],
) -> None:
    folder, rows = done
    assert [(row.title, row.score) for row in rows] == [
        ("Standard", "msp"),
        ("Standard", "energy"),
        ("MixOE + l_sim", "msp"),
        ("MixOE + l_sim", "energy"),
    ]
    for row in rows:
        slug = {"Standard": "standard", "MixOE + l_sim": "mixoe-l-sim"}[row.title]
        for seed, value in enumerate(row.values["auroc"]):
            document = json.loads((folder / f"seed-{seed}" / slug / "evaluation.json").read_text())
            found = [item for item in document["detections"] if item["score"] == row.score]
            assert found[0]["auroc"] == value
            assert row.values["accuracy"][seed] == document["accuracy"]
    written = json.loads((folder / "comparison.json").read_text())
    assert written["rows"][0]["values"]["auroc"] == list(rows[0].values["auroc"])


def test_the_table_shows_mean_and_sample_deviation_in_percent(
    path: Path, done: tuple[Path, list[Row]]
) -> None:
    folder, rows = done
    comparison, _ = load_comparison(path)
    table = to_markdown(rows, comparison)
    assert (folder / "comparison.md").read_text() == table
    values = 100 * np.array(rows[0].values["auroc"])
    spread = np.sqrt(np.sum((values - values.mean()) ** 2))  # n - 1 = 1
    assert f"{values.mean():.2f} ± {spread:.2f}" in table.splitlines()[2]
    assert "seeds 0, 1" in table


def test_variants_share_the_pretraining_of_their_seed(done: tuple[Path, list[Row]]) -> None:
    folder, _ = done
    for seed in (0, 1):
        runs = folder / f"seed-{seed}"
        assert load_recipe(runs / "standard" / RECIPE).pretrain.from_run == ""
        assert load_recipe(runs / "mixoe-l-sim" / RECIPE).pretrain.from_run == str(
            runs / "standard"
        )


def test_finished_runs_are_not_trained_again(path: Path, done: tuple[Path, list[Row]]) -> None:
    folder, rows = done

    def never() -> bool:
        raise AssertionError("a step was made")

    assert compare(path, folder, console=QUIET, stop=never) == rows


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (('title = "MixOE + l_sim"', 'title = "standard"'), "repeats a title"),
        (("seeds = [0, 1]", "seeds = []"), "`seeds`"),
        (('ood_set = "squares"', 'odd_set = "squares"'), "unknown key `odd_set`"),
        (("pretrain.epochs=1", "pretrain.epoch=1"), "did you mean `epochs`"),
        (('recipe = "tiny.toml"', 'recipe = "none.toml"'), "cannot read the recipe"),
        (('recipe = "tiny.toml"', "recipe = tiny"), "is not TOML"),
    ],
)
def test_a_comparison_with_faults_is_refused(
    path: Path, change: tuple[str, str], text: str
) -> None:
    faulty = path.with_name("faulty.toml")
    faulty.write_text(COMPARISON.replace(*change))
    with pytest.raises(RecipeError, match=text):
        load_comparison(faulty)


def test_runs_of_another_recipe_are_not_passed_off_as_this_ones(
    path: Path, done: tuple[Path, list[Row]]
) -> None:
    changed = path.with_name("changed.toml")
    changed.write_text(COMPARISON.replace("finetune.epochs=1", "finetune.epochs=2"))
    with pytest.raises(DataError, match="was made with another recipe than the comparison now"):
        compare(changed, done[0], console=QUIET, stop=lambda: False)


def test_an_unknown_ood_set_lists_the_known(path: Path, done: tuple[Path, list[Row]]) -> None:
    other = path.with_name("other.toml")
    other.write_text(COMPARISON.replace('"squares"', '"textures"'))
    with pytest.raises(DataError, match=r"no out-of-distribution set `textures`.*\['squares'\]"):
        compare(other, done[0], console=QUIET, stop=lambda: False)


def train(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "train", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fit", "none.toml"), "cannot read the recipe `none.toml`"),
        (
            ("fit", "train/presets/digits.toml", "--set", "finetune.epoch=1"),
            "unknown key `finetune.epoch`, did you mean `epochs`?",
        ),
        (("fit", "train/presets/digits.toml", "--set", "seed"), "not of the form `key.path=value`"),
        (
            ("fit", "train/presets/digits.toml", "--to", "no-run", "--set", "data.root=nowhere"),
            "there is no folder `nowhere`",
        ),
        (("evaluate", "nowhere"), "`nowhere` is not a run"),
        (("resume", "nowhere"), "`nowhere` is not a run"),
        (("data", "digits", "--to", "train"), "exists already and is not overwritten"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: tuple[str, ...], text: str) -> None:
    done = train(*arguments)
    assert done.returncode == 1
    assert text in done.stderr
    assert done.stderr.startswith("train: ")
    assert "Traceback" not in done.stderr


def test_evaluate_prints_a_table_and_writes_figure_and_figures(
    done: tuple[Path, list[Row]],
) -> None:
    run = done[0] / "seed-0" / "standard"
    (run / "evaluation.json").unlink()
    (run / "scores.png").unlink()
    shown = train("evaluate", run)
    assert shown.returncode == 0, shown.stderr
    assert "squares" in shown.stdout
    assert (run / "evaluation.json").exists()
    assert (run / "scores.png").exists()
