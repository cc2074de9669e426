from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oodserve.errors import DataError
from oodserve.images import Preprocessing
from train.data.folders import draw_splits, open_splits
from train.data.procedural import ProceduralOutliers
from train.data.sources import ImageFiles, ImageSource, LabelledImages
from train.data.splitting import write_split
from train.recipes import DataRecipe

INPUT = Preprocessing(
    height=8, width=8, resize="exact", resize_height=8, resize_width=8, interpolation="nearest"
)


def write_images(folder: Path, count: int, *, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def plain_tree(root: Path, classes: Sequence[str] = ("ant", "bee", "cat"), count: int = 20) -> Path:
    for number, label in enumerate(classes):
        write_images(root / label, count, seed=number)
    return root


def split_tree(root: Path, splits: Sequence[str] = ("train", "test")) -> Path:
    for number, split in enumerate(splits):
        for place, label in enumerate(("ant", "bee", "cat")):
            write_images(root / split / label, 10, seed=10 * number + place)
    return root


def paths_of(images: ImageSource | LabelledImages | None) -> tuple[Path, ...]:
    source = images.source if isinstance(images, LabelledImages) else images
    assert isinstance(source, ImageFiles)
    return source.paths


def recipe(root: Path, **keys: object) -> DataRecipe:
    return DataRecipe.model_validate({"root": str(root), **keys})


def test_a_split_tree_is_taken_as_it_is(tmp_path: Path) -> None:
    root = split_tree(tmp_path, ("train", "validation", "calibration", "test"))
    write_images(root / "ood" / "noise", 4, seed=99)
    splits = open_splits(recipe(root), INPUT)
    assert splits.classes == ("ant", "bee", "cat")
    assert splits.held_out == ()
    for images in (splits.train, splits.validation, splits.calibration, splits.test):
        assert images is not None
        assert images.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
        assert {path.relative_to(root).parts[0] for path in paths_of(images)} == {images.name}
    assert len(splits.ood["noise"]) == 4
    assert splits.outliers is None


def test_labels_are_those_of_the_folders(tmp_path: Path) -> None:
    splits = open_splits(recipe(plain_tree(tmp_path)), INPUT)
    for images in (splits.train, splits.test):
        found = [path.parent.name for path in paths_of(images)]
        assert [images.classes[label] for label in images.labels] == found


def test_splits_that_are_missing_come_from_train(tmp_path: Path) -> None:
    root = split_tree(tmp_path)
    splits = open_splits(recipe(root, validation_fraction=0.2, calibration_fraction=0.3), INPUT)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (15, 6, 30)
    assert splits.calibration is not None
    assert len(splits.calibration) == 9
    drawn = [*paths_of(splits.train), *paths_of(splits.validation), *paths_of(splits.calibration)]
    assert sorted(drawn) == sorted((root / "train").rglob("*.png"))


def test_no_calibration_split_on_request(tmp_path: Path) -> None:
    assert (
        open_splits(recipe(split_tree(tmp_path), calibration_fraction=0), INPUT).calibration is None
    )


def test_a_plain_tree_is_divided_within_each_class(tmp_path: Path) -> None:
    root = plain_tree(tmp_path)
    splits = open_splits(recipe(root), INPUT)
    assert splits.calibration is not None
    parts = [splits.train, splits.validation, splits.calibration, splits.test]
    assert [np.bincount(part.labels).tolist() for part in parts] == [
        [10] * 3,
        [2] * 3,
        [4] * 3,
        [4] * 3,
    ]
    everything = [path for part in parts for path in paths_of(part)]
    assert sorted(everything) == sorted(root.rglob("*.png"))


def test_the_division_depends_on_the_seed_and_not_on_other_classes(tmp_path: Path) -> None:
    root = plain_tree(tmp_path)
    first = open_splits(recipe(root), INPUT)
    assert paths_of(open_splits(recipe(root), INPUT).test) == paths_of(first.test)
    assert paths_of(open_splits(recipe(root, seed=1), INPUT).test) != paths_of(first.test)
    write_images(root / "dog", 20, seed=50)
    more = open_splits(recipe(root), INPUT)
    assert set(paths_of(first.test)) < set(paths_of(more.test))


def test_held_out_classes_leave_every_split(tmp_path: Path) -> None:
    root = split_tree(tmp_path)
    splits = open_splits(recipe(root, held_out=["bee"]), INPUT)
    assert splits.classes == ("ant", "cat")
    assert splits.held_out == ("bee",)
    assert set(splits.train.labels) == {0, 1}
    assert not any("bee" in path.parts for path in paths_of(splits.train))
    assert paths_of(splits.ood["held_out"]) == tuple(sorted((root / "test" / "bee").iterdir()))


def test_held_out_classes_of_a_plain_tree_are_evaluated_on_test_images(tmp_path: Path) -> None:
    root = plain_tree(tmp_path)
    whole = open_splits(recipe(root), INPUT)
    splits = open_splits(recipe(root, held_out=["cat"]), INPUT)
    assert paths_of(splits.ood["held_out"]) == tuple(
        path for path in paths_of(whole.test) if path.parent.name == "cat"
    )


def test_a_tree_may_have_held_out_classes_of_its_own(tmp_path: Path) -> None:
    root = split_tree(tmp_path)
    write_images(root / "ood" / "held_out" / "wasp", 3, seed=70)
    write_images(root / "ood" / "held_out" / "fly", 3, seed=71)
    assert open_splits(recipe(root), INPUT).held_out == ("fly", "wasp")
    with pytest.raises(DataError, match=r"`data\.held_out` names classes, but `.*held_out` exists"):
        open_splits(recipe(root, held_out=["bee"]), INPUT)


def test_the_fingerprint_is_of_the_images_learned(tmp_path: Path) -> None:
    root = split_tree(tmp_path / "here")
    first = open_splits(recipe(root), INPUT).fingerprint
    moved = Path(shutil.copytree(root, tmp_path / "there"))
    assert open_splits(recipe(moved), INPUT).fingerprint == first
    assert open_splits(recipe(root, held_out=["bee"]), INPUT).fingerprint != first
    (moved / "train" / "ant" / "000.png").write_bytes(b"other")
    assert open_splits(recipe(moved), INPUT).fingerprint != first


def test_procedural_outliers_are_as_large_as_the_resized_image(tmp_path: Path) -> None:
    root = split_tree(tmp_path)
    data = recipe(root, outliers="procedural", outlier_count=5)
    outliers = open_splits(data, INPUT).outliers
    assert outliers is not None
    assert len(outliers) == 5
    assert outliers.read(4).size == (32, 32)
    large = INPUT.model_copy(update={"resize_height": 48, "resize_width": 40})
    drawn = open_splits(data, large).outliers
    assert drawn is not None
    assert drawn.read(0).size == (48, 48)


def test_an_outlier_folder(tmp_path: Path) -> None:
    root = split_tree(tmp_path / "data")
    write_images(tmp_path / "outliers" / "things", 7, seed=40)
    outliers = open_splits(recipe(root, outliers=str(tmp_path / "outliers")), INPUT).outliers
    assert outliers is not None
    assert len(outliers) == 7


def test_transparency_shows_the_background_of_the_input(tmp_path: Path) -> None:
    root = split_tree(tmp_path)
    Image.new("RGBA", (6, 6), (9, 9, 9, 0)).save(root / "test" / "ant" / "000.png")
    black = INPUT.model_copy(update={"background": (0, 0, 0)})
    for preprocessing, seen in ((INPUT, (255, 255, 255)), (black, (0, 0, 0))):
        splits = open_splits(recipe(root), preprocessing)
        assert splits.test.source.read(0).getpixel((0, 0)) == seen


def test_validation_is_never_empty(tmp_path: Path) -> None:
    files = {"ant": [tmp_path / f"{number}.png" for number in range(3)]}
    drawn = draw_splits(files, {"validation": 0.1, "test": 0.1}, seed=0)
    assert {name: len(part["ant"]) for name, part in drawn.items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }


def test_a_class_too_small_to_divide_is_named(tmp_path: Path) -> None:
    root = plain_tree(tmp_path)
    write_images(root / "rare", 3, seed=5)
    with pytest.raises(
        DataError,
        match=r"class `rare` has 3 images, too few to divide among train, validation, calibration,",
    ):
        open_splits(recipe(root), INPUT)


def test_a_class_folder_with_no_images_is_named(tmp_path: Path) -> None:
    root = split_tree(tmp_path)
    (root / "train" / "dodo").mkdir()
    with pytest.raises(DataError, match=r"no image in `.*/train/dodo`; files ending in \.jpg"):
        open_splits(recipe(root), INPUT)


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder `.*absent`; set `data\.root`"):
        open_splits(recipe(tmp_path / "absent"), INPUT)


def test_a_root_without_class_folders_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"` has no class folders; put images into `.*/CLASS/`"):
        open_splits(recipe(tmp_path), INPUT)


def test_a_split_tree_needs_a_test_set(tmp_path: Path) -> None:
    root = split_tree(tmp_path, ("train",))
    with pytest.raises(DataError, match=r"has a folder `train` but no `test`; add `test/CLASS/\*`"):
        open_splits(recipe(root), INPUT)


def test_splits_must_have_the_same_classes(tmp_path: Path) -> None:
    root = split_tree(tmp_path)
    shutil.rmtree(root / "test" / "bee")
    write_images(root / "test" / "eel", 2, seed=3)
    with pytest.raises(
        DataError, match=r"do not have the same classes; only one of them has `bee`, `eel`"
    ):
        open_splits(recipe(root), INPUT)


def test_an_unknown_held_out_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"names `wasp`, which has no test images in `.*`; classes: ant, bee, cat"
    ):
        open_splits(recipe(split_tree(tmp_path), held_out=["bee", "wasp"]), INPUT)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 1 class to learn \(cat\); a classifier needs at"):
        open_splits(recipe(split_tree(tmp_path), held_out=["ant", "bee"]), INPUT)


def test_a_missing_outlier_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no outlier folder `absent`; set `data\."):
        open_splits(recipe(split_tree(tmp_path), outliers="absent"), INPUT)


@pytest.mark.parametrize(("label", "folder"), [("bee", "Bee"), ("cat", "cat")])
def test_outliers_named_like_a_class_are_refused(tmp_path: Path, label: str, folder: str) -> None:
    root = split_tree(tmp_path / "data")
    write_images(tmp_path / "outliers" / "deep" / folder, 2, seed=40)
    data = recipe(root, outliers=str(tmp_path / "outliers"), held_out=["cat"])
    message = f"holds a folder `{folder}`, named like the class `{label}`; outliers must be none"
    with pytest.raises(DataError, match=re.escape(message)):
        open_splits(data, INPUT)


@pytest.mark.parametrize(
    ("source", "use"),
    [
        ("train/ant/003.png", "classified"),
        ("test/bee/001.png", "classified"),
        ("test/cat/000.png", "evaluated on"),
        ("ood/noise/000.png", "evaluated on"),
    ],
)
def test_outliers_that_are_used_elsewhere_are_refused(
    tmp_path: Path, source: str, use: str
) -> None:
    root = split_tree(tmp_path / "data")
    write_images(root / "ood" / "noise", 2, seed=60)
    write_images(tmp_path / "outliers", 3, seed=40)
    shutil.copy(root / source, tmp_path / "outliers" / "copy.png")
    data = recipe(root, outliers=str(tmp_path / "outliers"), held_out=["cat"])
    pattern = rf"outlier `.*copy\.png` has the content of `.*{re.escape(source)}`, which is {use};"
    with pytest.raises(DataError, match=pattern):
        open_splits(data, INPUT)


def test_a_broken_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    root = split_tree(tmp_path)
    broken = root / "test" / "ant" / "000.png"
    broken.write_bytes(broken.read_bytes()[:60])
    splits = open_splits(recipe(root), INPUT)
    with pytest.raises(DataError, match=r"test/ant/000\.png`: .*replace or remove the file"):
        splits.test.source.read(0)
    broken.unlink()
    with pytest.raises(DataError, match=r"cannot read `.*000\.png` \(.*\); restore or remove it"):
        splits.test.source.read(0)


def test_held_out_classes_of_a_divided_tree_are_needed_in_test_alone(tmp_path: Path) -> None:
    root = split_tree(tmp_path, ("train", "validation", "calibration", "test"))
    write_images(root / "test" / "eel", 2, seed=9)
    splits = open_splits(recipe(root, held_out=("eel",)), INPUT)
    assert "eel" not in splits.classes
    assert {path.parent.name for path in paths_of(splits.ood["held_out"])} == {"eel"}
    shutil.rmtree(root / "test" / "eel")
    write_images(root / "train" / "eel", 2, seed=9)
    with pytest.raises(DataError, match="`eel`, which has no test images"):
        open_splits(recipe(root, held_out=("eel",)), INPUT)


def test_a_split_is_written_as_folders(tmp_path: Path) -> None:
    root = plain_tree(tmp_path / "plain")
    kept = open_splits(recipe(root), INPUT).calibration
    assert kept is not None
    assert write_split(kept, tmp_path / "calibration") == len(kept)
    written = sorted((tmp_path / "calibration").rglob("*.png"))
    expected = sorted((path.parent.name, path.read_bytes()) for path in paths_of(kept))
    assert sorted((path.parent.name, path.read_bytes()) for path in written) == expected
    with pytest.raises(DataError, match="exists already and is not overwritten"):
        write_split(kept, tmp_path / "calibration")
    drawn = LabelledImages(
        "drawn", ProceduralOutliers(count=2, seed=0, size=32), np.zeros(2, np.int64), ("a", "b")
    )
    with pytest.raises(DataError, match="`drawn` is not made of files"):
        write_split(drawn, tmp_path / "other")
