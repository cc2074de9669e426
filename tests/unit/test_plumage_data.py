from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import chi2_contingency

from oodserve.errors import DataError
from oodserve.folders import fingerprint, list_images
from train.cli import main
from train.commands.plumage import counts_of
from train.data.folders import open_splits
from train.data.plumage.habitats import HABITATS
from train.data.plumage.objects import OBJECTS
from train.data.plumage.outliers import OUTLIERS
from train.data.plumage.scenes import bird_scene, draw_habitat, home
from train.data.plumage.sheet import contact_sheet
from train.data.plumage.species import held_out, known
from train.data.plumage.writing import (
    SPLITS,
    Task,
    draw,
    plan,
    scaled_counts,
    write_plumage,
)
from train.data.sources import generator
from train.recipes import load_recipe

ROOT = Path(__file__).parents[2]
FEW = {"train": 2, "validation": 1, "calibration": 1, "test": 2}


@pytest.fixture(scope="module")
def plumage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built_in") / "plumage"
    write_plumage(folder, side=32, counts=FEW, processes=1)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def mark(folder: Path) -> str:
    return fingerprint(list_images(folder), folder)


def test_the_tree(plumage: Path) -> None:
    assert names(plumage) == [
        "calibration", "data.json", "ood", "outliers", "test", "train", "validation",
    ]  # fmt: skip
    for split, count in FEW.items():
        assert names(plumage / split) == list(known(0))
        assert {len(names(folder)) for folder in (plumage / split).iterdir()} == {count}
    assert names(plumage / "ood") == ["background", "held_out", "objects"]
    assert names(plumage / "ood" / "held_out") == sorted(held_out(0))
    assert names(plumage / "outliers") == sorted(OUTLIERS)


def test_data_json_counts_what_is_there(plumage: Path) -> None:
    facts = json.loads((plumage / "data.json").read_text())
    assert facts["format_version"] == 1
    assert (facts["seed"], facts["size"], facts["correlation"]) == (0, 32, 0.0)
    assert facts["classes"] == list(known(0))
    assert facts["held_out"] == sorted(held_out(0))
    assert facts["counts"] == {
        "train": 36, "validation": 18, "calibration": 18, "test": 36,
        "ood/held_out": 12, "ood/background": 12, "ood/objects": 12, "outliers": 36,
    }  # fmt: skip
    for name, count in facts["counts"].items():
        assert len(list_images(plumage / name)) == count
    assert facts["species"]["masked_warbler"]["face"] == "mask"
    assert facts["species"]["masked_warbler"]["home"] == home("masked_warbler")


def test_no_two_images_are_equal(plumage: Path) -> None:
    contents = Counter(path.read_bytes() for path in list_images(plumage))
    assert set(contents.values()) == {1}


def test_training_takes_the_tree_and_its_outliers(plumage: Path) -> None:
    recipe = load_recipe(
        ROOT / "train" / "presets" / "plumage.toml",
        [f"data.root={plumage}", f"data.outliers={plumage / 'outliers'}"],
    )
    splits = open_splits(recipe.data, recipe.input)
    assert splits.classes == known(0)
    assert splits.held_out == tuple(sorted(held_out(0)))
    assert set(splits.ood) == {"held_out", "background", "objects"}
    assert splits.outliers is not None
    assert len(splits.outliers) == len(splits.train) == 36


def test_by_default_there_are_a_thousand_to_calibrate_and_to_test_on() -> None:
    counts = Counter(task.split for task in plan(0, SPLITS))
    assert counts == {
        "train": 1800, "validation": 270, "calibration": 1080, "test": 1080,
        "ood/held_out": 360, "ood/background": 360, "ood/objects": 360, "outliers": 1800,
    }  # fmt: skip
    assert len(set(plan(0, SPLITS))) == sum(counts.values())


# Determinism.


def test_equal_seeds_write_equal_files_in_any_number_of_processes(
    plumage: Path, tmp_path: Path
) -> None:
    write_plumage(tmp_path / "again", side=32, counts=FEW, processes=2)
    assert mark(tmp_path / "again") == mark(plumage)
    assert (tmp_path / "again" / "data.json").read_text() == (plumage / "data.json").read_text()
    write_plumage(tmp_path / "other", seed=1, side=32, counts=FEW, processes=1)
    assert mark(tmp_path / "other") != mark(plumage)
    assert names(tmp_path / "other" / "train") == list(known(1)) != list(known(0))


def test_larger_counts_add_images_and_change_none(plumage: Path, tmp_path: Path) -> None:
    write_plumage(tmp_path / "more", side=32, counts=FEW | {"validation": 3}, processes=1)
    old = {path.relative_to(plumage) for path in list_images(plumage)}
    new = {path.relative_to(tmp_path / "more") for path in list_images(tmp_path / "more")}
    assert old < new
    assert len(new - old) == 2 * 18
    for path in old:
        assert (plumage / path).read_bytes() == (tmp_path / "more" / path).read_bytes()


@pytest.mark.parametrize("side", [32, 64, 224])
def test_images_have_the_side_asked_for(side: int) -> None:
    for task in (
        Task("train", "grey-breasted_jay", 0),
        Task("ood/background", "", 0),
        Task("ood/objects", "cup", 0),
        Task("outliers", "fish", 0),
    ):
        image, _ = draw(task, seed=0, side=side, correlation=0.0)
        assert image.size == (side, side)
        assert image.mode == "RGB"
        assert np.asarray(image).std() > 5


# What is in the sets.


def test_the_background_set_is_drawn_without_birds(plumage: Path) -> None:
    for path in list_images(plumage / "ood" / "background"):
        rng = generator(0, "plumage/ood/background/", int(path.stem.split("-")[0]))
        habitat = draw_habitat(None, 0.0, rng)
        assert path.stem.endswith(f"-{habitat}")
        with Image.open(path) as written:
            empty = bird_scene(None, habitat, rng, side=32)
            assert np.array_equal(np.asarray(written), np.asarray(empty))


def test_file_names_say_where_or_what(plumage: Path) -> None:
    for path in list_images(plumage):
        known_tags = OBJECTS if path.parent.name == "objects" else HABITATS
        match = re.fullmatch(r"\d{4}-(\w+)\.png", path.name)
        assert match is not None
        assert match[1] in known_tags


def table(correlation: float, images: int) -> NDArray[np.int64]:
    """Count the known species (rows) in the habitats (columns)."""
    habitats = list(HABITATS)
    counts = np.zeros((18, len(habitats)), np.int64)
    for row, name in enumerate(known(0)):
        for number in range(images):
            task = Task("train", name, number)
            _, habitat = draw(task, seed=0, side=16, correlation=correlation)
            counts[row, habitats.index(habitat)] += 1
    return counts


def share_at_home(counts: NDArray[np.int64]) -> float:
    habitats = list(HABITATS)
    at_home = [row[habitats.index(home(name))] for row, name in zip(counts, known(0), strict=True)]
    return float(np.sum(at_home) / counts.sum())


def test_without_correlation_habitat_and_species_are_independent() -> None:
    counts = table(0.0, images=24)
    assert chi2_contingency(counts).pvalue > 0.01
    assert share_at_home(counts) == pytest.approx(1 / 8, abs=0.05)


def test_with_full_correlation_each_species_stays_at_home() -> None:
    counts = table(1.0, images=5)
    assert share_at_home(counts) == 1.0
    assert np.count_nonzero(counts, axis=1).tolist() == [1] * 18


def test_half_of_the_correlation_is_between() -> None:
    counts = table(0.5, images=12)
    assert chi2_contingency(counts).pvalue < 1e-9
    assert share_at_home(counts) == pytest.approx(0.5 + 0.5 / 8, abs=0.1)


# Refusals.


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match=r"mine` exists already and is not overwritten; remove it"):
        write_plumage(tmp_path / "mine")
    assert names(tmp_path) == ["mine"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert 0 < done < total
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_plumage(tmp_path / "new", side=16, counts=FEW, processes=1, advance=interrupt)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"the seed is `-1`; give 0 or a larger"),
        ({"side": 15}, r"the side is `15` pixels; give one from 16 to 1024"),
        ({"side": 2000}, r"the side is `2000` pixels"),
        ({"counts": {"trial": 3}}, r"there is no split `trial`; splits: train, validation"),
        ({"counts": {"test": 0}}, r"`test` is to have `0` images of each species; give 1"),
        ({"correlation": 1.5}, r"the correlation is `1.5`; give a number from 0 to 1"),
        ({"correlation": float("nan")}, r"the correlation is `nan`"),
        ({"processes": 0}, r"`0` processes cannot draw; give 1 or more"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        write_plumage(tmp_path / "new", **arguments)  # type: ignore[arg-type]
    assert names(tmp_path) == []


# The command.


def test_counts_are_in_proportion_or_for_one_split() -> None:
    assert counts_of([]) == SPLITS
    assert counts_of(["200"]) == {
        "train": 200, "validation": 30, "calibration": 120, "test": 120,
    }  # fmt: skip
    assert counts_of(["10", "test=125"]) == scaled_counts(10) | {"test": 125}
    assert scaled_counts(1) == {"train": 1, "validation": 1, "calibration": 1, "test": 1}


@pytest.mark.parametrize("text", ["many", "test=", "=3", "test=-1", "1.5", ""])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"is neither a whole number nor `SPLIT=N`; splits: train"):
        counts_of([text])


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"`--per-class 0` leaves nothing to train on"):
        counts_of(["0"])


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "birds"
    arguments = ["--per-class", "1", "--per-class", "test=2", "--side", "32", "--seed", "3"]
    assert main(["data", "plumage", "--to", str(to), *arguments, "--correlation", "1"]) == 0
    assert "wrote plumage to" in capsys.readouterr().err
    facts = json.loads((to / "data.json").read_text())
    assert (facts["seed"], facts["size"], facts["correlation"]) == (3, 32, 1.0)
    assert facts["counts"]["train"] == 18
    assert facts["counts"]["test"] == 36
    for path in list_images(to / "test"):
        assert path.stem.endswith(f"-{home(path.parent.name)}")


@pytest.mark.parametrize("flag", [("--per-class", "3"), ("--correlation", "0")])
def test_other_sets_take_none_of_its_flags(
    flag: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "digits", "--to", str(tmp_path / "new"), *flag]) == 1
    message = rf"`digits` takes no `{flag[0]}`, which is for `plumage`; leave it out"
    assert re.search(message, capsys.readouterr().err)


# The page of examples.


def test_the_picture_in_the_documentation_shows_these_birds() -> None:
    drawn = np.asarray(contact_sheet(0), dtype=np.float64)
    with Image.open(ROOT / "docs" / "images" / "plumage.png") as image:
        shown = np.asarray(image.convert("RGB"), dtype=np.float64)
    assert shown.shape == drawn.shape
    # Its colours are reduced to a palette.
    assert np.abs(shown - drawn).mean() < 8
