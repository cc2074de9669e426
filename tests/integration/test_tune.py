from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from oodserve.errors import DataError, RecipeError
from oodserve.folders import list_images
from oodserve.metrics import auroc
from tests.training import write_recipe, write_tree
from train.cli import main
from train.data.folders import draw_splits, open_splits
from train.data.sources import ImageFiles
from train.data.validation_outliers import KINDS, ValidationOutliers
from train.evaluation.scoring import score_source
from train.fit import Interrupted, fit
from train.recipes import load_recipe
from train.run import load_run
from train.tune import SETTINGS, measure_run, tune
from train.tuning.outcomes import BEST, RESULTS, Outcome, Result, Tuning
from train.tuning.search import Dimension, load_search
from train.tuning.tree import training_tree

QUIET = Console(quiet=True)
SHORT = ("pretrain.epochs=1", "finetune.epochs=1")
SPACE = (Dimension("method.mix_weight", "log:0.1:10"),)


def never() -> bool:
    return False


def tuning(recipe: Path, **settings: Any) -> Tuning:
    chosen: dict[str, Any] = {"space": SPACE, "accuracy_floor": -1.0} | settings
    return Tuning(recipe, SHORT, **chosen)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe on a tree whose test images and out-of-distribution sets are gone."""
    folder = tmp_path_factory.mktemp("tuned")
    root = write_tree(folder / "data")
    for name in ("test", "ood", "calibration"):
        shutil.rmtree(root / name)
    return write_recipe(folder / "recipe.toml", root)


@pytest.fixture(scope="module")
def done(recipe: Path) -> Path:
    """A search of three trials, by the command."""
    folder = recipe.parent / "search"
    words = ["tune", str(recipe), "--to", str(folder), "--trials", "3", "--accuracy-floor", "-1",
             "--search", "method.mix_weight=log:0.1:10"]  # fmt: skip
    for override in SHORT:
        words += ["--set", override]
    assert main(words) == 0
    return folder


def results(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / RESULTS).read_text())
    return loaded


def test_a_search_without_test_images(done: Path, recipe: Path) -> None:
    found = results(done)
    assert len(found["trials"]) == 3
    weights = [trial["values"]["method.mix_weight"] for trial in found["trials"]]
    assert len(set(weights)) == 3
    assert all(0.1 <= weight <= 10 for weight in weights)
    for trial in found["trials"]:
        assert list(trial["by_kind"]) == list(KINDS)
        assert trial["auroc"] == pytest.approx(np.mean(list(trial["by_kind"].values())))
        assert trial["feasible"]
    best = max(found["trials"], key=lambda trial: trial["auroc"])
    assert found["best"] == best["number"]
    chosen = load_recipe(done / BEST)
    expected = load_recipe(recipe, [*SHORT, f"method.mix_weight={weights[best['number']]}"])
    assert chosen == expected
    assert not list((done / "trials").iterdir())


def test_a_finished_search_is_read_again(
    done: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(done)
    again = tune(tuning(recipe), done, trials=3, console=QUIET, stop=never)
    assert [outcome.number for outcome in again.outcomes] == [0, 1, 2]
    assert results(done) == before


def test_an_interrupted_search_ends_as_an_uninterrupted_one(done: Path, recipe: Path) -> None:
    folder = recipe.parent / "interrupted"
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 7

    # 36 images make 4 steps of 8: 4 of pretraining, 4 of each trial.
    with pytest.raises(Interrupted):
        tune(tuning(recipe), folder, trials=3, console=QUIET, stop=stop)
    tune(tuning(recipe), folder, trials=2, console=QUIET, stop=never)
    tune(tuning(recipe), folder, trials=3, console=QUIET, stop=never)
    assert results(folder) == results(done)


def test_another_seed_searches_elsewhere(done: Path, recipe: Path) -> None:
    folder = recipe.parent / "other"
    found = tune(tuning(recipe, seed=1), folder, trials=1, console=QUIET, stop=never)
    first = results(done)["trials"][0]
    assert found.outcomes[0].values != first["values"]


def test_a_measured_run_against_its_parts(recipe: Path) -> None:
    data = training_tree(load_recipe(recipe).data, recipe.parent / "measured-data")
    folder = recipe.parent / "measured"
    changed = load_recipe(recipe, SHORT).model_copy(update={"data": data})
    fit(changed, folder, console=QUIET, stop=never)
    run = load_run(folder)
    reached, by_kind = measure_run(run, seed=3)
    images = open_splits(run.recipe.data, run.recipe.input).validation
    scorers = run.scorers(["energy"])
    inside = score_source(run.model, images.source, run.input, scorers=scorers)
    assert reached == (inside.logits.argmax(axis=1) == images.labels).mean()
    outliers = ValidationOutliers(images.source, "inverted", 3)
    outside = score_source(run.model, outliers, run.input, scorers=scorers)
    assert by_kind["inverted"] == auroc(inside.scores["energy"], outside.scores["energy"])
    energies = np.log(np.exp(outside.logits.astype(np.float64)).sum(axis=1))
    np.testing.assert_allclose(outside.scores["energy"], energies, rtol=1e-4)


def test_the_tree_has_the_training_and_validation_images_of_the_recipe(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data")
    path = write_recipe(tmp_path / "recipe.toml", root)
    settings = load_recipe(path, ['data.held_out=["rings"]'])
    data = training_tree(settings.data, tmp_path / "view")
    view = open_splits(data, settings.input)
    whole = open_splits(settings.data, settings.input)
    assert view.classes == whole.classes == ("bars", "discs")
    for name in ("train", "validation"):
        ours, theirs = getattr(view, name), getattr(whole, name)
        assert isinstance(ours.source, ImageFiles)
        assert [file.resolve() for file in ours.source.paths] == list(theirs.source.paths)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert not view.ood
    assert view.calibration is None
    test = {path.resolve() for path in list_images(root / "test")}
    assert not test & {path.resolve() for path in list_images(tmp_path / "view")}


def test_test_images_of_a_plain_tree_are_not_opened(tmp_path: Path) -> None:
    write_tree(tmp_path / "whole", train=20)
    root = tmp_path / "whole" / "train"
    path = write_recipe(tmp_path / "recipe.toml", root)
    settings = load_recipe(path, SHORT)
    files = {label.name: list_images(label) for label in sorted(root.iterdir())}
    shares = {"validation": 0.1, "calibration": 0.2, "test": 0.2}
    drawn = draw_splits(files, shares, seed=settings.data.seed)
    for paths in (*drawn["test"].values(), *drawn["calibration"].values()):
        for file in paths:
            file.write_bytes(b"no image")
    found = tune(tuning(path), tmp_path / "search", trials=1, console=QUIET, stop=never)
    assert found.outcomes[0].by_kind
    linked = {file.resolve() for file in list_images(tmp_path / "search" / "data")}
    expected = [file for split in ("train", "validation") for paths in drawn[split].values()
                for file in paths]  # fmt: skip
    assert linked == set(expected)


def test_a_search_from_an_earlier_run(done: Path, recipe: Path) -> None:
    start = (*SHORT, "pretrain.epochs=0", f"pretrain.from_run={done / 'pretrained'}")
    made = Tuning(recipe, start, SPACE, accuracy_floor=-1.0)
    found = tune(made, recipe.parent / "from-run", trials=1, console=QUIET, stop=never)
    first = results(done)["trials"][0]
    assert found.baseline == results(done)["baseline_accuracy"]
    assert found.outcomes[0].auroc == first["auroc"]


def test_a_floor_that_no_trial_reaches(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = recipe.parent / "unreachable"
    words = ["tune", str(recipe), "--to", str(folder), "--trials", "1", "--accuracy-floor", "2",
             "--search", "method.mix_weight=log:0.1:10"]  # fmt: skip
    for override in SHORT:
        words += ["--set", override]
    assert main(words) == 1
    assert "none of 1 trials keeps the validation accuracy of" in capsys.readouterr().err
    assert results(folder)["best"] is None
    assert not (folder / BEST).exists()


def test_a_trial_that_diverges_counts_and_is_infeasible(recipe: Path) -> None:
    space = (Dimension("finetune.learning_rate", "choice:1e20"),)
    folder = recipe.parent / "diverged"
    found = tune(tuning(recipe, space=space), folder, trials=1, console=QUIET, stop=never)
    (outcome,) = found.outcomes
    assert not outcome.feasible
    assert "finite" in outcome.diverged or "became" in outcome.diverged
    assert found.best is None


def test_a_value_that_training_refuses_is_no_divergence(recipe: Path) -> None:
    """It is found in the first step: none of the 768 intensities would be changed."""
    overrides = (*SHORT, 'method={name="ascood"}', "data.outliers=")
    made = Tuning(recipe, overrides, (Dimension("method.p_inv", "choice:1e-4"),))
    folder = recipe.parent / "refused"
    with pytest.raises(RecipeError, match=r"`p_inv` = 0\.0001 keeps none of an image's 768 inten"):
        tune(made, folder, trials=1, console=QUIET, stop=never)
    assert not (folder / RESULTS).exists()


def test_the_best_is_feasible_and_the_first_of_equals() -> None:
    def outcome(number: int, auroc: float, feasible: bool) -> Outcome:
        return Outcome(number, {}, auroc, {}, 0.5, feasible)

    outcomes = (outcome(0, 0.7, True), outcome(1, 0.9, False), outcome(2, 0.8, True),
                outcome(3, 0.8, True))  # fmt: skip
    best = Result(0.5, outcomes).best
    assert best is not None
    assert best.number == 2


def test_folders_of_other_searches_are_refused(done: Path, recipe: Path, tmp_path: Path) -> None:
    for changed in ({"seed": 4}, {"accuracy_floor": -0.5},
                    {"space": (Dimension("method.mix_weight", "log:1:2"),)}):  # fmt: skip
        with pytest.raises(DataError, match="is of a search with another recipe, space, floor"):
            tune(tuning(recipe, **changed), done, trials=3, console=QUIET, stop=never)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="holds something else already"):
        tune(tuning(recipe), tmp_path, trials=1, console=QUIET, stop=never)
    assert not (tmp_path / SETTINGS).exists()


def test_changed_data_are_noticed(recipe: Path, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data")
    path = write_recipe(tmp_path / "recipe.toml", root)
    tune(tuning(path), tmp_path / "search", trials=1, console=QUIET, stop=never)
    first, *_, last = list_images(root / "train")
    first.write_bytes(last.read_bytes())
    with pytest.raises(DataError, match="changed during the search; start a new one"):
        tune(tuning(path), tmp_path / "search", trials=2, console=QUIET, stop=never)


@pytest.mark.parametrize(
    ("settings", "trials", "message"),
    [
        ({}, 0, r"`--trials 0` is below 1"),
        ({"overrides": (*SHORT, "finetune.epochs=0")}, 1, "`finetune.epochs` is 0, so that noth"),
        ({"overrides": (*SHORT, "pretrain.epochs=0")}, 1, "is no pretrained model to start from"),
        ({"space": (Dimension("method.mix_wieght", "log:1:2"),)}, 1, "did you mean `mix_weight`"),
    ],
)
def test_searches_that_cannot_be(
    recipe: Path, tmp_path: Path, settings: dict[str, Any], trials: int, message: str
) -> None:
    made = Tuning(recipe, **({"overrides": SHORT, "space": SPACE} | settings))
    with pytest.raises(RecipeError, match=message):
        tune(made, tmp_path / "search", trials=trials, console=QUIET, stop=never)


def test_missing_images(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.toml", tmp_path / "gone")
    with pytest.raises(DataError, match=r"there is no folder `.*gone`; set `data.root`"):
        tune(tuning(path), tmp_path / "search", trials=1, console=QUIET, stop=never)


def test_a_search_space_from_a_file_and_from_words(tmp_path: Path) -> None:
    path = tmp_path / "search.toml"
    path.write_text(
        '[method]\nmix_weight = "log:0.1:10"\nmix_alpha = "uniform:0.5:2"\n'
        '[finetune]\nepochs = "integer:1:4"\n'
    )
    space = load_search(path, ["method.mix_alpha=choice: 1.0, 2.0"])
    assert [(item.key, item.rule) for item in space] == [
        ("finetune.epochs", "integer:1:4"),
        ("method.mix_alpha", "choice: 1.0, 2.0"),
        ("method.mix_weight", "log:0.1:10"),
    ]
    integer, choice, log = (item.distribution() for item in space)
    assert vars(integer) | {"low": 1, "high": 4} == vars(integer)
    assert choice.to_internal_repr("2.0") == 1
    assert vars(log) | {"low": 0.1, "high": 10.0, "log": True} == vars(log)
    assert tomllib.loads(path.read_text())["method"]["mix_weight"] == "log:0.1:10"


@pytest.mark.parametrize(
    "rule", ["1", "log:0:1", "log:1", "uniform:2:1", "uniform:a:b", "integer:1.5:3", "choice:",
             "uniform:0:inf", "normal:0:1"],
)  # fmt: skip
def test_rules_that_are_none(rule: str) -> None:
    with pytest.raises(RecipeError, match=r"is no range; expected uniform:LOW:HIGH"):
        load_search(None, [f"method.mix_weight={rule}"])


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        (None, [], "there is nothing to search"),
        (None, ["method.mix_weight"], "is not of the form KEY.PATH=RULE"),
        (None, ["data.root=choice:a,b"], "`data.root` cannot be searched: all trials share data"),
        (None, ["pretrain.epochs=integer:1:2"], "`pretrain.epochs` cannot be searched"),
        (None, ["method=choice:a,b"], "`method` cannot be searched"),
        ("[method]\nmix_weight = 3", [], "`method.mix_weight` = 3 is no range"),
        ("[method", [], "is not TOML"),
    ],
)
def test_search_spaces_with_faults(
    tmp_path: Path, text: str | None, given: list[str], message: str
) -> None:
    path = None
    if text is not None:
        path = tmp_path / "search.toml"
        path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_search(path, given)
    with pytest.raises(RecipeError, match=r"cannot read the search space `gone.toml`"):
        load_search(Path("gone.toml"))
