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
from train.comparison import running, tables
from train.comparison.plan import load_plan
from train.comparison.tables import Compared
from train.fit import Interrupted, Stop
from train.recipes import load_recipe
from train.run import PRETRAINED, RECIPE

QUIET = Console(quiet=True)
COMPARISON = """
recipe = "tiny.toml"
seeds = [0, 1]
ood_sets = ["squares"]

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


def compare(path: Path, folder: Path, *, stop: Stop, jobs: int = 1) -> Compared:
    plan = load_plan(path, folder)
    running.make_all(plan, path, jobs=jobs, console=QUIET, stop=stop)
    compared = tables.collect(plan)
    tables.write(compared, folder)
    return compared


@pytest.fixture(scope="module")
def done(path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Compared]:
    """A comparison that was interrupted once on its way."""
    folder = tmp_path_factory.mktemp("runs") / "compared"
    steps = iter([False] * 9 + [True])
    with pytest.raises(Interrupted):
        compare(path, folder, stop=lambda: next(steps))
    return folder, compare(path, folder, stop=lambda: False)


def test_each_method_has_a_value_per_seed_for_each_score_and_set(
    done: tuple[Path, Compared],
) -> None:
    folder, compared = done
    assert list(compared.evaluations) == ["Standard", "MixOE + l_sim"]
    assert (compared.scores, compared.seeds) == (("msp", "energy"), (0, 1))
    written = json.loads((folder / "comparison.json").read_text())
    for method in written["methods"]:
        slug = {"Standard": "standard", "MixOE + l_sim": "mixoe-l-sim"}[method["method"]]
        for seed in (0, 1):
            document = json.loads((folder / f"seed-{seed}" / slug / "evaluation.json").read_text())
            assert method["accuracy"][seed] == document["accuracy"]
            for row in method["detections"]:
                (found,) = [
                    item
                    for item in document["detections"]
                    if (item["ood_set"], item["score"]) == (row["ood_set"], row["score"])
                ]
                assert row["auroc"][seed] == found["auroc"]
                assert row["fpr@95tpr_ood"][seed] == found["fpr@95tpr_ood"]


def test_the_tables_show_mean_and_sample_deviation_in_percent(done: tuple[Path, Compared]) -> None:
    folder, compared = done
    table = (folder / "comparison.md").read_text()
    assert table == tables.as_markdown(compared)
    values = [
        100 * item.detection("squares", "msp").auroc for item in compared.evaluations["Standard"]
    ]
    mean, spread = np.mean(values), abs(values[0] - values[1]) / np.sqrt(2)  # n - 1 = 1
    row = next(line for line in table.splitlines() if line.startswith("| Standard"))
    assert f"{mean:.2f} ± {spread:.2f}" in row
    assert "seeds 0, 1" in table
    assert r"\toprule" in (folder / "comparison.tex").read_text()


def test_variants_share_the_pretraining_of_their_seed(done: tuple[Path, Compared]) -> None:
    folder, _ = done
    for seed in (0, 1):
        runs = folder / f"seed-{seed}"
        (shared,) = runs.glob("pretraining-*/")
        assert (shared / PRETRAINED).is_file()
        for variant in ("standard", "mixoe-l-sim"):
            assert load_recipe(runs / variant / RECIPE).pretrain.from_run == str(shared)


@pytest.mark.timeout(400)
def test_processes_at_a_time_go_on_after_an_interruption_and_make_the_same_tables(
    path: Path, done: tuple[Path, Compared], tmp_path: Path
) -> None:
    again = tmp_path / "again"
    asked = iter([False] * 15 + [True])
    with pytest.raises(Interrupted):
        compare(path, again, jobs=2, stop=lambda: next(asked))
    compare(path, again, jobs=2, stop=lambda: False)
    for name in ("comparison.md", "comparison.json", "comparison.tex"):
        assert (again / name).read_text() == (done[0] / name).read_text()


@pytest.mark.timeout(300)
def test_a_run_that_fails_is_named_with_its_reason(path: Path, done: tuple[Path, Compared]) -> None:
    faulty = path.with_name("unscorable.toml")
    faulty.write_text(COMPARISON.replace("ood_sets", 'scores = ["rotation"]\nood_sets'))
    message = r"the run `seed-\d/[a-z-]+` ended with 1: train: .*rotation.*; all it printed is in"
    with pytest.raises(running.RunFailed, match=message):
        compare(faulty, done[0], jobs=2, stop=lambda: False)


def test_runs_are_compared_by_name_method_and_seed(
    done: tuple[Path, Compared], tmp_path: Path
) -> None:
    folder, compared = done
    runs = sorted(folder.glob("seed-*/standard")) + sorted(folder.glob("seed-*/mixoe*/"))
    shown = train("compare", *runs, "--to", tmp_path / "tables")
    assert shown.returncode == 0, shown.stderr
    _, table = shown.stdout.split("**AUROC by energy**")
    row = next(line for line in table.splitlines() if line.startswith("| tiny: mixoe"))
    expected = compared.figures("MixOE + l_sim", "energy", "squares")["auroc"]
    assert f"{100 * expected.mean:.2f} ± " in row
    assert (tmp_path / "tables" / "comparison.tex").exists()


def test_finished_runs_are_not_trained_again(path: Path, done: tuple[Path, Compared]) -> None:
    folder, compared = done

    def never() -> bool:
        raise AssertionError("a step was made")

    assert compare(path, folder, stop=never) == compared


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (('title = "MixOE + l_sim"', 'title = "standard"'), "repeats a title"),
        (("seeds = [0, 1]", "seeds = []"), "`seeds`"),
        (('ood_sets = ["squares"]', 'odd_sets = ["squares"]'), "unknown key `odd_sets`"),
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
        load_plan(faulty, faulty.parent)


def test_runs_of_another_recipe_are_not_passed_off_as_this_ones(
    path: Path, done: tuple[Path, Compared]
) -> None:
    changed = path.with_name("changed.toml")
    changed.write_text(COMPARISON.replace("finetune.epochs=1", "finetune.epochs=2"))
    with pytest.raises(DataError, match="was made with another recipe than the comparison now"):
        compare(changed, done[0], stop=lambda: False)


def test_an_unknown_ood_set_lists_the_known(path: Path, done: tuple[Path, Compared]) -> None:
    other = path.with_name("other.toml")
    other.write_text(COMPARISON.replace('"squares"', '"textures"'))
    with pytest.raises(DataError, match=r"no out-of-distribution set `textures`.*squares"):
        compare(other, done[0], stop=lambda: False)


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
    done: tuple[Path, Compared],
) -> None:
    run = done[0] / "seed-0" / "standard"
    (run / "evaluation.json").unlink()
    (run / "scores.png").unlink()
    shown = train("evaluate", run)
    assert shown.returncode == 0, shown.stderr
    assert "squares" in shown.stdout
    assert (run / "evaluation.json").exists()
    assert (run / "scores.png").exists()
