from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from oodserve.errors import DataError
from tests import published
from tests.published import LABELLED, write_image, write_lines
from train.data.formats.registry import FORMATS, open_format
from train.data.formats.tree import ImageFile, Pixels, Tree
from train.vision import import_torchvision

import_torchvision()
datasets: Any = importlib.import_module("torchvision.datasets")


def opened(name: str, root: Path, **options: str) -> Tree:
    LABELLED[name](root)
    return open_format(name, root, options)


def names(tree: Tree, split: str) -> dict[str, list[str]]:
    return {label: [item.name for item in items] for label, items in tree.splits[split].items()}


def paths(tree: Tree, split: str) -> list[tuple[Path, int]]:
    """Files with their labels, in the order of the paths."""
    found = []
    for label, items in tree.splits[split].items():
        for item in items:
            assert isinstance(item, ImageFile)
            found.append((item.path, tree.classes.index(label)))
    return sorted(found)


def test_cub(tmp_path: Path) -> None:
    tree = opened("cub", tmp_path)
    assert tree.classes == published.CUB_CLASSES
    for split, numbers in (("train", (0, 1)), ("test", (2, 3))):
        assert names(tree, split) == {
            label: [f"{label[4:]}_{number:04d}.jpg" for number in numbers]
            for label in published.CUB_CLASSES
        }
    assert all(path.is_file() for path, _ in paths(tree, "train"))


def test_nabirds_has_the_classes_with_images(tmp_path: Path) -> None:
    tree = opened("nabirds", tmp_path)
    assert tree.classes == ("0295.Common_Eider_(Adult_male)", "1010.Oak_Titmouse")
    assert names(tree, "train") == {tree.classes[0]: ["a-1.jpg"], tree.classes[1]: ["b-1.jpg"]}
    assert names(tree, "test")[tree.classes[1]] == ["b-2.jpg", "b-3.jpg"]


@pytest.mark.parametrize("level", ["variant", "family", "manufacturer"])
def test_aircraft_is_as_torchvision_reads_it(tmp_path: Path, level: str) -> None:
    tree = opened("aircraft", tmp_path, level=level)
    for part, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        oracle = datasets.FGVCAircraft(str(tmp_path), part, annotation_level=level)
        expected = sorted(zip(map(Path, oracle._image_files), oracle._labels, strict=True))
        assert paths(tree, split) == expected
        assert [label.replace("/", "-") for label in oracle.classes] == list(tree.classes)
    if level == "variant":
        assert tree.classes == ("707-320", "Boeing 717", "F-A-18")


def test_cars_are_as_torchvision_reads_them(tmp_path: Path) -> None:
    tree = opened("cars", tmp_path)
    assert tree.classes == ("AM General Hummer SUV 2000", "Ram C-V Cargo Van")
    for split in ("train", "test"):
        oracle = datasets.StanfordCars(str(tmp_path), split)
        assert paths(tree, split) == sorted((Path(file), label) for file, label in oracle._samples)


def test_cars_need_labels_of_the_test_images(tmp_path: Path) -> None:
    published.write_cars(tmp_path, labels=False)
    with pytest.raises(DataError, match=r"images without classes; take the annotations with"):
        open_format("cars", tmp_path)


def test_flowers_are_as_torchvision_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would insist on the checksums of the published files.
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)
    tree = opened("flowers", tmp_path)
    assert tree.classes == ("001", "002")
    for part, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        oracle = datasets.Flowers102(str(tmp_path), part)
        expected = sorted(zip(map(Path, oracle._image_files), oracle._labels, strict=True))
        assert [(path, int(label)) for path, label in expected] == paths(tree, split)


def test_thudogs_and_their_byte_order_mark(tmp_path: Path) -> None:
    tree = opened("thudogs", tmp_path)
    assert tree.classes == ("1043-n000001-Shiba_Dog", "200-n000008-Airedale")
    assert names(tree, "train") == {tree.classes[1]: ["n1.jpg"], tree.classes[0]: ["n2.jpg"]}
    assert names(tree, "test")[tree.classes[0]] == ["n2x.jpg"]
    with pytest.raises(DataError, match=r"there is no `.*high-resolution`"):
        open_format("thudogs", tmp_path, {"resolution": "high-resolution"})


def test_butterflies_by_level_and_numbering(tmp_path: Path) -> None:
    tree = opened("butterfly200", tmp_path)
    assert tree.classes == published.BUTTERFLIES
    assert {split: len(tree.splits[split]) for split in tree.splits} == {
        "train": 3, "validation": 3, "test": 3,
    }  # fmt: skip
    genera = open_format("butterfly200", tmp_path, {"level": "genus"})
    assert genera.classes == ("001", "002")
    assert len(genera.images("train", "001")) == 2
    numbers = open_format("butterfly200", tmp_path, {"numbering": "published"})
    assert numbers.classes == ("0", "1", "2", "3")
    assert [len(numbers.images("train", label)) for label in numbers.classes] == [0, 1, 1, 1]


def test_waterbirds_keep_their_groups(tmp_path: Path) -> None:
    tree = opened("waterbirds", tmp_path)
    assert tree.classes == ("landbird", "waterbird")
    assert names(tree, "validation") == {
        "landbird": ["on_land/000.Bird__bird_100.jpg", "on_water/000.Bird__bird_101.jpg"],
        "waterbird": ["on_land/001.Bird__bird_110.jpg", "on_water/001.Bird__bird_111.jpg"],
    }
    assert all(path.is_file() for path, _ in paths(tree, "test"))


def test_celeba_by_attribute_and_group(tmp_path: Path) -> None:
    tree = opened("celeba", tmp_path)
    assert tree.classes == ("not_Blond_Hair", "Blond_Hair")
    assert names(tree, "train") == {
        "Blond_Hair": ["not_Male/000001.jpg"], "not_Blond_Hair": ["Male/000002.jpg"],
    }  # fmt: skip
    assert names(tree, "validation") == {
        "Blond_Hair": ["Male/000003.jpg"], "not_Blond_Hair": ["not_Male/000004.jpg"],
    }  # fmt: skip
    swapped = open_format("celeba", tmp_path, {"attribute": "Male", "group": "Blond_Hair"})
    assert names(swapped, "train")["Male"] == ["not_Blond_Hair/000002.jpg"]
    with pytest.raises(DataError, match=r"`Hat` is none of the attributes in .*Bald, Blond_Hair"):
        open_format("celeba", tmp_path, {"attribute": "Hat"})


def test_cifar10_records(tmp_path: Path) -> None:
    records = published.write_cifar10(tmp_path)
    tree = open_format("cifar10", tmp_path)
    assert tree.classes[:2] == ("airplane", "automobile")
    assert sum(len(items) for items in tree.splits["train"].values()) == 10
    (first,) = tree.splits["test"]["airplane"]
    assert isinstance(first, Pixels)
    for row in (0, 31):
        for column in (0, 17):
            for channel in range(3):
                place = 1 + channel * 1024 + row * 32 + column
                assert first.pixels[row, column, channel] == records[10, place]


def test_cifar100_fine_and_coarse(tmp_path: Path) -> None:
    records = published.write_cifar100(tmp_path)
    fine = open_format("cifar100", tmp_path)
    coarse = open_format("cifar100", tmp_path, {"level": "coarse"})
    assert list(names(fine, "train")) == ["fine_50", "fine_60"]
    assert list(names(coarse, "train")) == ["coarse_1", "coarse_2"]
    item = fine.images("test", "fine_60")[0]
    assert isinstance(item, Pixels)
    np.testing.assert_array_equal(item.pixels[0, :, 2], records[3, 2 + 2048 : 2 + 2048 + 32])


def test_cifar_pickles_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match="version for Python, whose pickles are not opened"):
        open_format("cifar10", tmp_path)


def test_truncated_records_are_refused(tmp_path: Path) -> None:
    published.write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="6145 bytes, which is no multiple of the 3073"):
        open_format("cifar10", tmp_path)


def test_imagenet_and_its_subsets(tmp_path: Path) -> None:
    tree = opened("imagenet", tmp_path)
    assert tree.classes == ("n01440764", "n01443537", "n02102040")
    assert {split: len(tree.images(split, "n02102040")) for split in ("train", "test")} == {
        "train": 2, "test": 1,
    }  # fmt: skip
    write_lines(tmp_path / "few.txt", ["n02102040 springer", "n01440764"])
    few = open_format("imagenet", tmp_path, {"classes": str(tmp_path / "few.txt")})
    assert few.classes == ("n02102040", "n01440764")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["n99999999"], "`n99999999` has no folder in"),
        (["n01440764", "n01440764"], "names `n01440764` twice"),
    ],
)
def test_wrong_lists_of_synsets(tmp_path: Path, lines: list[str], message: str) -> None:
    LABELLED["imagenet"](tmp_path)
    write_lines(tmp_path / "few.txt", lines)
    with pytest.raises(DataError, match=message):
        open_format("imagenet", tmp_path, {"classes": str(tmp_path / "few.txt")})
    with pytest.raises(DataError, match=r"no file `gone.txt` to read synsets from"):
        open_format("imagenet", tmp_path, {"classes": "gone.txt"})


def test_unsorted_validation_images(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "n01440764" / "a.JPEG")
    write_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataError, match="no class folders; sort its images into"):
        open_format("imagenet", tmp_path)


FILES = {
    "aircraft": ("fgvc-aircraft-2013b/data/variants.txt",
                 "fgvc-aircraft-2013b/data/images_variant_val.txt"),
    "butterfly200": ("Butterfly200/Butterfly200_test_release.txt",),
    "cars": ("stanford_cars/devkit/cars_meta.mat", "stanford_cars/devkit/cars_train_annos.mat",
             "stanford_cars/cars_test_annos_withlabels.mat"),
    "celeba": ("celeba/list_attr_celeba.txt", "celeba/list_eval_partition.txt"),
    "cifar10": ("cifar-10-batches-bin/batches.meta.txt", "cifar-10-batches-bin/data_batch_3.bin"),
    "cifar100": ("cifar-100-binary/fine_label_names.txt", "cifar-100-binary/test.bin"),
    "cub": ("CUB_200_2011/classes.txt", "CUB_200_2011/images.txt",
            "CUB_200_2011/image_class_labels.txt", "CUB_200_2011/train_test_split.txt"),
    "flowers": ("flowers-102/setid.mat", "flowers-102/imagelabels.mat"),
    "nabirds": ("nabirds/classes.txt", "nabirds/images.txt"),
    "thudogs": ("TrainAndValList/train.lst", "TrainAndValList/validation.lst"),
    "waterbirds": ("waterbird_complete95_forest2water2/metadata.csv",),
}  # fmt: skip


@pytest.mark.parametrize(("name", "file"), [(n, f) for n, files in FILES.items() for f in files])
def test_a_missing_file_is_named_with_the_layout(tmp_path: Path, name: str, file: str) -> None:
    LABELLED[name](tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(DataError) as caught:
        open_format(name, tmp_path)
    assert str(caught.value).startswith(f"there is no `{tmp_path / file}`; ")
    assert str(caught.value).endswith(FORMATS[name].layout)


def append(file: str, line: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with (root / file).open("a") as stream:
            stream.write(line + "\n")

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cub", append("CUB_200_2011/images.txt", "13"), r"line 13 of .* is `13`; expected 2 val"),
        ("cub", append("CUB_200_2011/images.txt", "13 a.jpg"), "has no entry `13`"),
        ("cub", append("CUB_200_2011/classes.txt", "x y"), "`x` where a whole number is expected"),
        ("cub", append("CUB_200_2011/classes.txt", "4 .hidden"), "cannot be the name of a folder"),
        ("cub", append("CUB_200_2011/image_class_labels.txt", "1 9"), "has class `9` and split"),
        ("cub", append("CUB_200_2011/train_test_split.txt", "1 2"), "and split `2`; expected"),
        ("cub", append("CUB_200_2011/images.txt", "1 ../a.jpg"), "outside of the data set"),
        ("cub", append("CUB_200_2011/classes.txt", "4 001.black_footed_albatross"),
         "would have one folder"),
        ("nabirds", append("nabirds/image_class_labels.txt", "a-1 7"), "no entry `7`, which"),
        ("aircraft", append("fgvc-aircraft-2013b/data/images_variant_test.txt", "1 Cessna"),
         "the variant `Cessna`, which `variants.txt` lacks"),
        ("thudogs", append("TrainAndValList/train.lst", "a.jpg"), "`a.jpg`; expected CLASS/FILE"),
        ("waterbirds", append("waterbird_complete95_forest2water2/metadata.csv", "1,a.jpg,0,7,0,b"),
         "has split `7` and place `0`"),
        ("waterbirds", append("waterbird_complete95_forest2water2/metadata.csv", "1,a.jpg,2,0,0,b"),
         r"class number 2 \(counted from 0\), but there are 2 classes"),
        ("celeba", append("celeba/list_attr_celeba.txt", "000001.jpg 1 1"), "no 1 or -1 for each"),
        ("celeba", append("celeba/list_attr_celeba.txt", "9.jpg 1 1 1"), "has no entry `9.jpg`"),
        ("celeba", append("celeba/list_eval_partition.txt", "000001.jpg 3"), "`3` for `000001"),
    ],
)  # fmt: skip
def test_damaged_lists(
    tmp_path: Path, name: str, change: Callable[[Path], None], message: str
) -> None:
    LABELLED[name](tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        open_format(name, tmp_path)


def test_a_table_without_a_column(tmp_path: Path) -> None:
    write_lines(tmp_path / "metadata.csv", ["img_filename,y,place", "a.jpg,0,0"])
    with pytest.raises(DataError, match="has no column `split`"):
        open_format("waterbirds", tmp_path)


def test_text_that_is_none(tmp_path: Path) -> None:
    LABELLED["cub"](tmp_path)
    (tmp_path / "CUB_200_2011" / "images.txt").write_bytes(b"1 \xff\xfe.jpg\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        open_format("cub", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no matrix at all", "is not a MATLAB file"), (None, "has no variable `trnid`")],
)
def test_damaged_matlab_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    LABELLED["flowers"](tmp_path)
    folder = tmp_path / "flowers-102"
    good = (folder / "imagelabels.mat").read_bytes()
    (folder / "setid.mat").write_bytes(good if content is None else content)
    with pytest.raises(DataError, match=message):
        open_format("flowers", tmp_path)


def test_a_split_with_an_image_that_has_no_label(tmp_path: Path) -> None:
    LABELLED["flowers"](tmp_path)
    savemat(tmp_path / "flowers-102" / "setid.mat", {"trnid": [9], "valid": [1], "tstid": [1]})
    with pytest.raises(DataError, match=r"names image 9, but `imagelabels.mat` has 8 labels"):
        open_format("flowers", tmp_path)


def test_options_and_folders_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a folder; give the folder of FGVC-Aircraft"):
        open_format("aircraft", tmp_path / "gone")
    with pytest.raises(DataError, match="has no option `lvel`; did you mean `level`"):
        open_format("aircraft", tmp_path, {"lvel": "family"})
    with pytest.raises(DataError, match="has no option `x`; known: none"):
        open_format("cub", tmp_path, {"x": "1"})
    with pytest.raises(DataError, match="`level` = 'kind': expected one of variant, family"):
        open_format("aircraft", tmp_path, {"level": "kind"})


def test_lists_without_images(tmp_path: Path) -> None:
    write_lines(tmp_path / "metadata.csv", ["img_filename,y,split,place"])
    with pytest.raises(DataError, match=re.escape(f"`{tmp_path}` lists no image; Waterbirds is")):
        open_format("waterbirds", tmp_path)
