"""`python -m train evaluate`: what it writes, prints and refuses, on a run trained here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from tests.training import write_recipe, write_tree
from train import cli
from train.evaluation.document import read_evaluation
from train.fit import fit
from train.recipes import load_recipe

QUIET = Console(quiet=True)
FAST = ("--resamples", "20")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("evaluated") / "data")


@pytest.fixture(scope="module")
def run(tree: Path) -> Path:
    recipe = load_recipe(
        write_recipe(tree.parent / "tiny.toml", tree),
        ['method={name="ascood", alpha_max=30, alpha_min=10}', "model.feature_norm=zscore",
         "data.outliers=''", "model.stem=small", "pretrain.epochs=1", "finetune.epochs=1"],
    )  # fmt: skip
    fit(recipe, tree.parent / "run", console=QUIET)
    return tree.parent / "run"


def discs(folder: Path) -> Path:
    """Write outliers that no set of the run has: its own squares, turned to another size."""
    other = write_tree(folder.parent / f"{folder.name}-tree", seed=9)
    shutil.copytree(other / "ood" / "squares", folder)
    return folder


def options(run: Path, given: Path, to: Path) -> list[str]:
    return ["evaluate", str(run), "--ood", f"extra={given}", "--score", "max_logit",
            "--score", "msp", "--base-rate", "5:1", "--base-rate", "1:1",
            "--group", "near=squares,extra", "--to", str(to), *FAST]  # fmt: skip


def test_it_writes_the_document_tables_page_and_figure(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, to = discs(tmp_path / "extra"), tmp_path / "there" / "report"
    assert cli.main(options(run, given, to)) == 0
    assert sorted(path.name for path in to.iterdir()) == [
        "evaluation.json", "evaluation.md", "evaluation.tex", "report.html", "scores.png",
    ]  # fmt: skip
    made = read_evaluation(to)
    assert made is not None
    assert made.ood_sets == ("squares", "extra")
    assert made.scores == ("max_logit", "msp")
    assert set(made.detections[0].base_rates) == {"5:1", "1:1"}
    assert [item.group for item in made.groups] == ["near", "near"]
    assert made.selective[0].at_tau is not None
    assert made.selective[0].at_tau.n == 180
    page = (to / "report.html").read_text()
    for name in ("scores-msp", "roc-max_logit", "risk-coverage", "confidence", "interpolation",
                 "logit-norms", "logit-plane", "sample-logits", "synthesised-outliers",
                 "saliency"):  # fmt: skip
        assert f'id="{name}"' in page, name
    printed = capsys.readouterr()
    assert "at tau" in printed.out
    assert str(to / "report.html") in printed.err.replace("\n", "")
    assert read_evaluation(run) is None  # written where it was told

    # Again: an older document is replaced, and every file is the same to the last bit.
    again = tmp_path / "again"
    again.mkdir()
    (again / "evaluation.json").write_text(json.dumps({"format_version": 1}))
    assert cli.main(options(run, given, again)) == 0
    for path in to.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_an_image_of_the_run_among_the_outliers_is_named(
    run: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = discs(tmp_path / "extra")
    for split in ("train", "calibration", "test"):
        shutil.copy(tree / split / "discs" / "000.png", given / f"stray-{split}.png")
    assert cli.main(["evaluate", str(run), "--ood", f"extra={given}", *FAST]) == 1
    said = capsys.readouterr().err
    assert "the out-of-distribution set `extra` holds images of the run itself" in said
    for split in ("train", "calibration", "test"):
        stray, source = given / f"stray-{split}.png", tree / split / "discs" / "000.png"
        assert f"`{stray}` is `{source}` ({split})" in said
    assert f"remove them from `{given}`" in said


def test_many_overlaps_are_counted(
    run: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tree / "validation", tmp_path / "given")
    assert cli.main(["evaluate", str(run), "--ood", f"x={tmp_path / 'given'}", *FAST]) == 1
    assert "(validation) and 13 more; remove them" in capsys.readouterr().err  # 18 - 5


def test_outliers_that_were_trained_with_are_named(
    run: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = discs(tmp_path / "extra")
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    recipe = (copy / "recipe.toml").read_text()
    assert 'outliers = ""' in recipe
    (copy / "recipe.toml").write_text(recipe.replace('outliers = ""', f'outliers = "{given}"'))
    assert cli.main(["evaluate", str(copy), "--ood", f"extra={given}", *FAST]) == 1
    assert "000.png` (outliers)" in capsys.readouterr().err


def test_an_image_of_the_run_in_its_own_outlier_set_is_named(
    run: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, moved = tmp_path / "tree", tmp_path / "run"
    shutil.copytree(tree, copy)
    shutil.copytree(run, moved)
    recipe = (moved / "recipe.toml").read_text()
    (moved / "recipe.toml").write_text(recipe.replace(str(tree), str(copy)))
    strays = {split: copy / "ood" / "squares" / f"stray-{split}.png" for split in ("train", "test")}
    for split, stray in strays.items():
        shutil.copy(copy / split / "rings" / "001.png", stray)
    to = tmp_path / "report"
    assert cli.main(["evaluate", str(moved), "--to", str(to), *FAST]) == 1
    said = capsys.readouterr().err
    assert "the out-of-distribution set `squares` holds images of the run itself" in said
    for split, stray in strays.items():
        assert f"`{stray}` is `{copy / split / 'rings' / '001.png'}` ({split})" in said
    assert f"remove them from `{copy / 'ood' / 'squares'}`" in said
    assert not to.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--ood", "squares={tree}/ood/squares"], "have an out-of-distribution set `squares` alre"),
        (["--ood", "x={tree}/none"], "none` is not a folder; give a folder of images"),
        (["--ood", "folder"], "the out-of-distribution set `folder` is not NAME=FOLDER"),
        (["--base-rate", "5"], "the base rate `5` is not ID:OOD"),
        (["--group", "near=held_out"], "the group `near` names the set `held_out`, which is not"),
        (["--group", "near"], "the group `near` is not GROUP=SET[,SET...]"),
        (["--score", "sharpness"], "unknown score `sharpness`; known: msp,"),
        (["--score", "ice"], "score `ice` needs the Gaussian head of method `ice`"),
        (["--resamples", "0"], "`resamples` = 0"),
        (["--target-tpr", "95"], "`target_tpr` = 95.0 is not strictly between 0 and 1"),
    ],
)
def test_what_cannot_be_evaluated_says_why(
    run: Path, tree: Path, tmp_path: Path, arguments: list[str], text: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def score(*arguments: object, **options: object) -> None:
        pytest.fail("an image was scored before the arguments were looked at")

    monkeypatch.setattr("train.evaluation.run.score_source", score)
    monkeypatch.setattr("train.scorers.fitting.embed", score)
    given = [argument.replace("{tree}", str(tree)) for argument in arguments]
    to = tmp_path / "report"
    assert cli.main(["evaluate", str(run), *given, "--to", str(to)]) == 1
    assert text in capsys.readouterr().err
    assert not to.exists()


def test_without_outliers_it_says_how_to_give_some(
    run: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    shutil.rmtree(copy / "ood")
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    recipe = (moved / "recipe.toml").read_text()
    (moved / "recipe.toml").write_text(recipe.replace(str(tree), str(copy)))
    assert cli.main(["evaluate", str(moved), *FAST]) == 1
    assert "has no out-of-distribution images" in capsys.readouterr().err
    given = discs(tmp_path / "extra")
    assert cli.main(["evaluate", str(moved), "--ood", f"extra={given}", *FAST]) == 0
    made = read_evaluation(moved)
    assert made is not None
    assert made.ood_sets == ("extra",)
