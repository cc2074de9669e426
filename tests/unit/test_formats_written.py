from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oodserve.errors import DataError
from oodserve.folders import fingerprint, list_images
from oodserve.images import Preprocessing
from tests import published
from tests.published import LABELLED, write_image
from train.cli import main
from train.data.folders import open_splits
from train.data.formats.registry import open_format
from train.data.formats.tree import ImageFile, Item, Pixels, Tree
from train.data.importing import CLASSES, SOURCE, import_flat, import_tree
from train.data.placing import WORTH_PROCESSES, Placing, shrink, write_images
from train.recipes import DataRecipe

INPUT = Preprocessing(
    height=8, width=8, resize="exact", resize_height=8, resize_width=8, interpolation="nearest"
)


def run(*words: object) -> int:
    return main(["data", *map(str, words)])


def record(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    published.write_cub(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.mark.parametrize("name", LABELLED)
def test_training_reads_what_is_written(tmp_path: Path, name: str) -> None:
    LABELLED[name](tmp_path / "raw")
    to = tmp_path / "tree"
    assert run(name, "--from", tmp_path / "raw", "--to", to, "--allow-empty") == 0
    recipe = DataRecipe(root=str(to), validation_fraction=0.3, calibration_fraction=0.0)
    known = record(to / CLASSES)["known"]
    if name in ("aircraft", "butterfly200", "cub"):
        splits = open_splits(recipe, INPUT)
        assert splits.classes == tuple(sorted(known))
        assert splits.train.source.read(0).mode == "RGB"
    counts = record(to / CLASSES)["counts"]
    for split, count in counts.items():
        assert len(list_images(to / split)) == count
        assert sorted(entry.name for entry in (to / split).iterdir()) == sorted(known)


def test_held_out_classes_are_only_tested(cub: Path, tmp_path: Path) -> None:
    to = tmp_path / "tree"
    assert run("cub", "--from", cub, "--to", to, "--known", "random:0:2") == 0
    chosen = np.sort(np.random.RandomState(0).choice(3, 2, replace=False))
    known = [published.CUB_CLASSES[number] for number in chosen]
    (held_out,) = set(published.CUB_CLASSES) - set(known)
    for split in ("train", "test"):
        assert sorted(path.name for path in (to / split).iterdir()) == known
    assert sorted(path.name for path in (to / "ood" / "held_out" / held_out).iterdir()) == [
        f"{held_out[4:]}_000{number}.jpg" for number in (2, 3)
    ]
    assert record(to / CLASSES) == {
        "format_version": 1,
        "format": "cub",
        "options": {},
        "chosen_by": "random:0:2",
        "known": known,
        "held_out": [held_out],
        "unused": [],
        "empty": [],
        "counts": {"train": 4, "test": 4, "ood/held_out": 2},
    }


def test_a_tree_with_held_out_classes_is_read(cub: Path, tmp_path: Path) -> None:
    to = tmp_path / "tree"
    assert run("cub", "--from", cub, "--to", to, "--known", "random:1:2") == 0
    recipe = DataRecipe(root=str(to), validation_fraction=0.4, calibration_fraction=0)
    splits = open_splits(recipe, INPUT)
    facts = record(to / CLASSES)
    assert splits.classes == tuple(facts["known"])
    assert splits.held_out == tuple(facts["held_out"])
    assert len(splits.ood["held_out"]) == 2


def test_classes_without_images_are_refused_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write_butterfly200(tmp_path / "raw")
    common = ("butterfly200", "--from", tmp_path / "raw", "--to", tmp_path / "tree",
              "--option", "numbering=published", "--known", "random:0:2:3")  # fmt: skip
    chosen = {str(number) for number in np.random.RandomState(0).choice(3, 2, replace=False)}
    assert run(*common) == 1
    assert "1 of the chosen classes lack images for training or test, the first is `0`" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "tree").exists()
    assert run(*common, "--allow-empty") == 0
    facts = record(tmp_path / "tree" / CLASSES)
    assert facts["empty"] == ["0"]
    assert facts["unused"] == ["3"]
    assert set(facts["known"]) == chosen - {"0"}
    assert set(facts["held_out"]) == {"1", "2"} - chosen


def test_a_known_class_needs_training_images(cub: Path, tmp_path: Path) -> None:
    tree = open_format("cub", cub)
    label = published.CUB_CLASSES[0]
    train = {name: items for name, items in tree.splits["train"].items() if name != label}
    lacking = Tree(tree.classes, {**tree.splits, "train": train})
    with pytest.raises(DataError, match=f"the first is `{label}`"):
        import_tree(lacking, tmp_path / "a", facts={}, placing=Placing())
    (tmp_path / "known.txt").write_text("\n".join(published.CUB_CLASSES[1:]))
    rule = f"list:{tmp_path / 'known.txt'}"
    counts = import_tree(lacking, tmp_path / "b", facts={}, known=rule, placing=Placing())
    assert counts == {"train": 4, "test": 4, "ood/held_out": 2}


def test_symlinks_are_absolute_and_lead_to_the_published_files(cub: Path, tmp_path: Path) -> None:
    assert run("cub", "--from", os.path.relpath(cub), "--to", tmp_path / "tree") == 0
    links = list_images(tmp_path / "tree")
    assert len(links) == 12
    for link in links:
        assert link.is_symlink()
        assert link.readlink().is_absolute()
        assert link.resolve().is_relative_to(cub.resolve())


def test_hard_links_and_copies(cub: Path, tmp_path: Path) -> None:
    for how, links in (("hardlink", 2), ("copy", 1)):
        assert run("cub", "--from", cub, "--to", tmp_path / how, "--link", how) == 0
        for path in list_images(tmp_path / how):
            assert not path.is_symlink()
            assert path.stat().st_nlink == links
        if how == "hardlink":
            shutil.rmtree(tmp_path / how)
    original = next(path for path in list_images(cub) if path.name.startswith("Black"))
    copied = next((tmp_path / "copy").rglob(original.name))
    assert copied.read_bytes() == original.read_bytes()


def test_hard_links_across_file_systems(
    cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(DataError, match=r"cannot be hard-linked .*use `--link symlink`"):
        import_tree(open_format("cub", cub), tmp_path / "t", facts={},
                    placing=Placing(link="hardlink"))  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_resized_copies(cub: Path, tmp_path: Path) -> None:
    for number, size in ((0, (80, 40)), (1, (30, 90)), (2, (16, 12))):
        label = published.CUB_CLASSES[0]
        name = f"{label}/{label[4:]}_{number:04d}.jpg"
        write_image(cub / "CUB_200_2011" / "images" / name, number, size)
    to = tmp_path / "tree"
    assert run("cub", "--from", cub, "--to", to, "--side", 20, "--processes", 1) == 0
    sizes = {}
    for path in list_images(to):
        assert not path.is_symlink()
        with Image.open(path) as image:
            assert image.format == "JPEG"
            sizes[path.name] = image.size
    assert sizes["Black_footed_Albatross_0000.jpg"] == (40, 20)
    assert sizes["Black_footed_Albatross_0001.jpg"] == (20, 60)
    assert sizes["Black_footed_Albatross_0002.jpg"] == (16, 12)
    assert sizes["Laysan_Albatross_0000.jpg"] == (9, 7)


def test_copies_do_not_depend_on_the_processes(tmp_path: Path) -> None:
    path = write_image(tmp_path / "raw" / "a.jpg", 0, (12, 9))
    rng = np.random.default_rng(1)
    items: list[Item] = [ImageFile(f"{number}.jpg", path) for number in range(WORTH_PROCESSES)]
    items += [
        Pixels(f"{number}.png", rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
        for number in range(5)
    ]
    tree = Tree(flat=tuple(items))
    for side in (5, None):
        found = []
        for count in (1, 2):
            to = tmp_path / f"{side}-{count}"
            placing = Placing(side=side, processes=count)
            assert import_flat(tree, to, facts={}, placing=placing) == len(items)
            found.append(fingerprint(list_images(to), to))
        assert found[0] == found[1]


def test_an_error_in_another_process_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "raw" / "a.jpg"
    path.parent.mkdir()
    path.write_text("no image")
    files = tuple(ImageFile(f"{number}.jpg", path) for number in range(WORTH_PROCESSES))
    with pytest.raises(DataError, match=r"a.jpg`: .*; replace or remove the file"):
        import_flat(Tree(flat=files), tmp_path / "out", facts={},
                    placing=Placing(side=5, processes=2))  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_shrinking_keeps_proportions_and_never_enlarges() -> None:
    assert shrink(Image.new("RGB", (101, 33)), 10).size == (31, 10)
    assert shrink(Image.new("RGB", (7, 700)), 5).size == (5, 500)
    image = Image.new("RGB", (9, 5))
    assert shrink(image, 5) is image


def test_resized_copies_of_other_formats_are_png(tmp_path: Path) -> None:
    plan = []
    for name in ("a.webp", "a.png", "b.JPG"):
        path = write_image(tmp_path / "raw" / name, 1, (30, 20))
        plan.append((Path(name), ImageFile(name, path)))
    write_images(plan, tmp_path / "out", {}, Placing(side=10), None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.png", "a.webp.png", "b.JPG",
    ]  # fmt: skip
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            assert image.size == (15, 10)


def test_images_without_files_are_written_as_png(tmp_path: Path) -> None:
    records = published.write_cifar10(tmp_path / "raw")
    assert run("cifar10", "--from", tmp_path / "raw", "--to", tmp_path / "t", "--allow-empty") == 0
    with Image.open(tmp_path / "t" / "test" / "airplane" / "00000.png") as image:
        pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels, records[10, 1:].reshape(3, 32, 32).transpose(1, 2, 0))


def test_outliers_and_ood_sets_join_a_tree(cub: Path, tmp_path: Path) -> None:
    to = tmp_path / "tree"
    assert run("cub", "--from", cub, "--to", to) == 0
    textures = tmp_path / "dtd"
    for number in range(5):
        write_image(textures / "images" / "banded" / f"{number}.jpg", 100 + number)
    published.write_webvision(tmp_path / "web")
    assert run("textures", "--from", textures, "--to", to, "--as", "ood:textures") == 0
    assert run("webvision", "--from", tmp_path / "web", "--to", to, "--as", "outliers",
               "--sample", 7, "--seed", 3) == 0  # fmt: skip
    assert len(list_images(to / "ood" / "textures" / "banded")) == 5
    facts = record(to / "outliers" / SOURCE)
    assert (facts["count"], facts["sample"], facts["seed"]) == (7, 7, 3)
    assert len(facts["removed_synsets"]) > 200
    recipe = DataRecipe(root=str(to), validation_fraction=0.4, calibration_fraction=0,
                        outliers=str(to / "outliers"))  # fmt: skip
    splits = open_splits(recipe, INPUT)
    assert splits.outliers is not None
    assert len(splits.outliers) == 7
    assert len(splits.ood["textures"]) == 5


def test_a_labelled_set_as_ood_set_gives_its_test_images(cub: Path, tmp_path: Path) -> None:
    published.write_aircraft(tmp_path / "planes")
    to = tmp_path / "tree"
    assert run("cub", "--from", cub, "--to", to) == 0
    assert run("aircraft", "--from", tmp_path / "planes", "--to", to, "--as", "ood:aircraft") == 0
    assert run("aircraft", "--from", tmp_path / "planes", "--to", to, "--as", "outliers") == 0
    assert sorted(path.name for path in list_images(to / "ood" / "aircraft")) == [
        f"{number:07d}.jpg" for number in (200, 201, 202)
    ]
    assert sorted(path.name for path in list_images(to / "outliers")) == [
        f"{number:07d}.jpg" for number in (0, 1, 2)
    ]


def test_samples_depend_on_the_seed(tmp_path: Path) -> None:
    files = [write_image(tmp_path / "raw" / f"{number}.png", number) for number in range(12)]
    tree = Tree(flat=tuple(ImageFile(path.name, path) for path in files))
    found = []
    for place, seed in enumerate((0, 0, 1)):
        to = tmp_path / f"out{place}"
        assert import_flat(tree, to, facts={}, sample=5, seed=seed, placing=Placing()) == 5
        found.append({path.name for path in list_images(to)})
    assert found[0] == found[1] != found[2]


def test_a_set_without_classes_becomes_a_plain_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "images" / "x" / "1.jpg")
    assert run("textures", "--from", tmp_path / "raw", "--to", tmp_path / "out") == 0
    assert list_images(tmp_path / "out") == [tmp_path / "out" / "x" / "1.jpg"]
    assert record(tmp_path / "out" / SOURCE)["format"] == "textures"


def test_outliers_for_validation_by_command(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / "val" / "a" / f"{number}.png", number)
    assert run("validation_outliers", "--from", tmp_path / "val", "--to", tmp_path / "out") == 0
    assert len(list_images(tmp_path / "out" / "blobs")) == 3


FLAGS = ("--from", "raw", "--to", "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cub", "--to", "out"), "`cub` is read from a folder; give it with `--from DIR`"),
        (("cub", *FLAGS, "--option", "level"), "option `level` is not of the form KEY=VALUE"),
        (("cub", *FLAGS, "--side", "0"), "`--side 0` is below 1"),
        (("cub", *FLAGS, "--processes", "-1"), "`--processes -1` is below 1"),
        (("cub", *FLAGS, "--as", "train"), "`--as train`: expected `outliers`, `ood:NAME`"),
        (("cub", *FLAGS, "--as", "ood:.."), "`--as ood:..`: expected `outliers`, `ood:NAME`"),
        (("cub", *FLAGS, "--as", "ood:a/b"), "`--as ood:a/b`: expected `outliers`, `ood:NAME`"),
        (("cub", *FLAGS, "--as", "outliers"), "`out` is no tree with train, validation"),
        (("cub", *FLAGS, "--sample", "3"), "`--sample` draws from images of no class"),
        (("cub", *FLAGS, "--as", "folder", "--known", "random:0:2"), "leave them out"),
        (("cub", *FLAGS, "--as", "folder", "--sample", "99"), "cannot draw 99 of 6 images"),
        (("cub", *FLAGS, "--known", "random:0:9"), "draws 9 of 3 classes"),
        (("digits", *FLAGS), "`digits` is built in and takes no `--from`"),
        (("digits", "--to", "out", "--known", "random:0:2"), "takes no `--known`"),
        (("digits", "--to", "out", "--side", "20"), "takes no `--side`"),
    ],
)
def test_arguments_that_do_not_fit(
    cub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 1
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def listed(tmp_path: Path, *names: str) -> Tree:
    return Tree(flat=tuple(ImageFile(name, tmp_path / "raw" / name) for name in names))


def flat(tmp_path: Path, tree: Tree) -> Callable[[], object]:
    return lambda: import_flat(tree, tmp_path / "out", facts={}, placing=Placing(side=4))


def test_images_that_cannot_be_written(tmp_path: Path) -> None:
    good = write_image(tmp_path / "raw" / "a.png")
    (tmp_path / "raw" / "b.png").write_text("no image")
    for names, message in (
        (("a.png", "a.png"), "the set has two images `a.png`"),
        (("a.png", "gone.png"), "lists `.*gone.png`, which does not exist"),
        (("a.tar",), "lists `a.tar`, which is no image by its name"),
        (("a.png", "b.png"), r"b.png`: .*; replace or remove the file"),
        ((), "no images of the split `test`"),
    ):
        with pytest.raises(DataError, match=message):
            flat(tmp_path, listed(tmp_path, *names))()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
    assert good.is_file()


def test_trees_that_cannot_be_written(cub: Path, tmp_path: Path) -> None:
    tree = open_format("cub", cub)
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match=r"`.*there` exists already and is not overwritten"):
        import_tree(tree, tmp_path / "there", facts={}, placing=Placing())
    flat_tree = Tree(flat=(ImageFile("a.png", tmp_path / "a.png"),))
    with pytest.raises(DataError, match="the set has no classes; write it as outliers"):
        import_tree(flat_tree, tmp_path / "t", facts={}, placing=Placing())
    only_train = Tree(tree.classes, {"train": tree.splits["train"]})
    with pytest.raises(DataError, match="no training or no test images of known classes"):
        import_tree(only_train, tmp_path / "t", facts={}, allow_empty=True, placing=Placing())
