from __future__ import annotations

from pathlib import Path

import pytest

from oodserve.errors import DataError
from tests.published import write_image, write_lines, write_webvision
from train.data.formats.imagenet_groups import (
    AIRCRAFT_PUBLISHED,
    BIRDS_LEFT_IN,
    DEFAULT,
    GROUPS,
    PARTS,
)
from train.data.formats.registry import FORMATS, open_format
from train.data.formats.tree import ImageFile, Tree
from train.vision import models


def names(tree: Tree) -> list[str]:
    return [item.name for item in tree.flat]


FLAT: dict[str, tuple[str, dict[str, str]]] = {
    "places365": ("val_256/Places365_val_00000001.jpg", {}),
    "lsun": ("a/b/0123abc.webp", {}),
    "textures": ("dtd/images/banded/banded_0002.jpg", {}),
    "inaturalist": ("2021_valid/00000_Animalia/x.jpg", {}),
    "sun": ("SUN397/a/abbey/sun_aaalbzqrimafwbiv.jpg", {}),
    "ninco": ("NINCO/NINCO_OOD_classes/cup/c_0.jpg", {}),
    "openimage_o": ("images/0a0b.jpg", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAT)
def test_flat_sets(tmp_path: Path, name: str) -> None:
    file, options = FLAT[name]
    path = write_image(tmp_path / file)
    write_lines(path.parent / "README.txt", ["no image"])
    (item,) = open_format(name, tmp_path, options).flat
    assert isinstance(item, ImageFile)
    assert item.path == path
    assert file.endswith(item.name)


@pytest.mark.parametrize("name", [name for name in FLAT if name != "lsun"])
def test_a_flat_set_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        open_format(name, tmp_path)
    assert str(caught.value).startswith(f"there is no `{tmp_path}/")
    assert FORMATS[name].layout in str(caught.value)


def test_parts_of_places(tmp_path: Path) -> None:
    write_image(tmp_path / "val_large" / "v.jpg")
    write_image(tmp_path / "data_256" / "a" / "airfield" / "t.jpg")
    assert names(open_format("places365", tmp_path)) == ["v.jpg"]
    tree = open_format("places365", tmp_path, {"part": "train"})
    assert names(tree) == ["a/airfield/t.jpg"]


def test_lsun_data_bases_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "bedroom_val_lmdb").mkdir()
    (tmp_path / "bedroom_val_lmdb" / "data.mdb").touch()
    with pytest.raises(DataError, match="is an LMDB data base, which is not read here; export"):
        open_format("lsun", tmp_path)


@pytest.mark.parametrize(
    ("group", "first", "last"),
    [
        ("dogs", "Chihuahua", "African hunting dog"),
        ("birds", "cock", "albatross"),
        ("butterflies", "admiral", "lycaenid"),
        ("aircraft", "airliner", "wing"),
        ("vehicles", "ambulance", "unicycle"),
    ],
)
def test_groups_begin_and_end_with_their_classes(group: str, first: str, last: str) -> None:
    categories = models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert categories[min(GROUPS[group])] == first
    assert categories[max(GROUPS[group])] == last


def test_groups_name_what_they_say() -> None:
    categories = models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert {categories[index] for index in BIRDS_LEFT_IN} == {
        "black grouse", "ptarmigan", "ruffed grouse", "prairie chicken", "peacock", "quail",
        "partridge",
    }  # fmt: skip
    assert {categories[index] for index in AIRCRAFT_PUBLISHED} == {"airliner", "airship", "balloon"}
    assert {categories[index] for index in PARTS} == {"car wheel", "grille", "wing"}
    vehicles = {categories[index] for index in GROUPS["vehicles"]}
    assert {"cab", "jeep", "Model T", "pickup", "sports car", "trolleybus", "tank"} < vehicles
    assert not {"container ship", "canoe", "crane", "unicorn", "gondola"} & vehicles
    butterflies = {categories[index] for index in GROUPS["butterflies"]}
    assert {"monarch", "ringlet", "sulphur butterfly"} < butterflies
    assert {"dingo", "dhole"} < {categories[index] for index in GROUPS["dogs"]}


def test_sizes_of_the_published_filter_that_are_known() -> None:
    assert len(GROUPS["birds"]) == 59
    assert len(GROUPS["birds_published"]) == 52
    assert len(GROUPS["butterflies"]) == 6
    assert len(GROUPS["aircraft_published"]) == 3
    assert len(GROUPS["dogs"]) == 118 + 3
    # Ours covers what the published filter leaves in.
    everything = frozenset().union(*(GROUPS[name] for name in DEFAULT))
    assert everything >= PARTS | BIRDS_LEFT_IN
    assert GROUPS["aircraft_published"] < GROUPS["aircraft"]


def test_webvision_removes_by_query(tmp_path: Path) -> None:
    synsets = write_webvision(tmp_path)
    lines = (tmp_path / "info" / "synsets.txt").read_text().splitlines()
    listed = [line.split()[0] for line in lines]
    tree = open_format("webvision", tmp_path, {"remove": "dogs"})
    everything = open_format("webvision", tmp_path, {"remove": "none"})
    dogs = {synsets[index] for index in GROUPS["dogs"]}
    assert tree.facts["removed_synsets"] == sorted(dogs)
    assert tree.facts["removed_queries"] == 2 * len(dogs)
    expected = []
    for name in names(everything):
        query = int(Path(name).parent.name[1:])
        if listed[(query - 1) % 1000] not in dogs:
            expected.append(name)
    assert names(tree) == expected
    assert 0 < len(expected) < len(everything.flat)
    assert everything.facts["removed_queries"] == 0
    assert names(everything)[0].startswith("google/q0001/x y_")


def test_webvision_by_source_index_synset_and_file(tmp_path: Path) -> None:
    synsets = write_webvision(tmp_path)
    google = open_format("webvision", tmp_path, {"remove": "none", "sources": "google"})
    assert {name.split("/")[0] for name in names(google)} == {"google"}
    write_lines(tmp_path / "more.txt", ["butterflies", f"{synsets[7]} cock"])
    remove = f"404, {synsets[9]},@{tmp_path / 'more.txt'}"
    tree = open_format("webvision", tmp_path, {"remove": remove})
    indices = [7, 9, 321, 322, 323, 324, 325, 326, 404]
    assert tree.facts["removed_synsets"] == [synsets[index] for index in indices]


def test_webvision_removes_all_groups_by_default(tmp_path: Path) -> None:
    synsets = write_webvision(tmp_path)
    tree = open_format("webvision", tmp_path)
    everything = frozenset().union(*(GROUPS[name] for name in DEFAULT))
    assert tree.facts["removed_synsets"] == sorted(synsets[index] for index in everything)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remove": "cats"}, "`cats` is neither a group, an index nor a synset"),
        ({"remove": "1000"}, "there is no ImageNet class `1000`"),
        ({"remove": "@gone.txt"}, "there is no file `gone.txt` to read classes to remove from"),
        ({"sources": "bing"}, "the source `bing` is unknown; known: google, flickr"),
    ],
)
def test_wrong_webvision_options(tmp_path: Path, options: dict[str, str], message: str) -> None:
    write_webvision(tmp_path)
    with pytest.raises(DataError, match=message):
        open_format("webvision", tmp_path, options)


def test_webvision_files_that_do_not_fit(tmp_path: Path) -> None:
    write_webvision(tmp_path, synsets=20)
    with pytest.raises(DataError, match="lists 20 synsets, but `dogs` counts among the 1000"):
        open_format("webvision", tmp_path, {"remove": "dogs"})
    info = tmp_path / "info"
    with (info / "train_filelist_google.txt").open("a") as stream:
        stream.write("google/q9999/a.jpg 0\n")
    with pytest.raises(DataError, match="has no query `q9999`"):
        open_format("webvision", tmp_path, {"remove": "none"})
    write_lines(info / "queries_synsets_map.txt", ["1 21"])
    with pytest.raises(DataError, match=r"gives query 1 the synset 21, but .* has 20"):
        open_format("webvision", tmp_path, {"remove": "none"})
    (info / "queries_synsets_map.txt").unlink()
    with pytest.raises(DataError, match=r"there is no `.*queries_synsets_map.txt`; WebVision 1.0"):
        open_format("webvision", tmp_path, {"remove": "none"})


def test_image_lists(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.txt", ["set/train/a b.png 0", "set/train/c.png 11"])
    write_lines(tmp_path / "test.txt", ["set/test/d.png 11"])
    options = {split: str(tmp_path / f"{split}.txt") for split in ("train", "test")}
    tree = open_format("openood", tmp_path, options)
    assert len(tree.classes) == 12
    assert tree.classes[11] == "11"
    assert tree.classes[1] == "01"
    (item,) = tree.images("train", "00")
    assert item == ImageFile("set/train/a b.png", tmp_path / "set/train/a b.png")
    assert [item.name for item in tree.images("test", "11")] == ["set/test/d.png"]
    write_lines(tmp_path / "names.txt", [f"class {number}" for number in range(12)])
    named = open_format("openood", tmp_path, options | {"names": str(tmp_path / "names.txt")})
    assert named.classes[11] == "class 11"


def test_a_flat_image_list(tmp_path: Path) -> None:
    write_lines(tmp_path / "ood.txt", ["set/a.png -1", "set/b.png -1"])
    tree = open_format("openood", tmp_path, {"flat": str(tmp_path / "ood.txt")})
    assert names(tree) == ["set/a.png", "set/b.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "or one list `flat` of images of no class"),
        ({"flat": "ood.txt", "train": "ood.txt"}, "or one list `flat` of images of no class"),
        ({"train": "gone.txt"}, "there is no image list `gone.txt`"),
        ({"train": "ood.txt"}, "gives `a.png` the label -1; images of no class"),
        ({"flat": "up.txt"}, "names `../a.png`, which lies outside"),
        ({"train": "two.txt", "names": "gone.txt"}, "no file `gone.txt` to read class names"),
        ({"train": "two.txt", "names": "one.txt"}, "class number 1 .* but there are 1 classes"),
    ],
)
def test_wrong_image_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(Path("ood.txt"), ["a.png -1"])
    write_lines(Path("up.txt"), ["../a.png -1"])
    write_lines(Path("two.txt"), ["a.png 0", "b.png 1"])
    write_lines(Path("one.txt"), ["a"])
    with pytest.raises(DataError, match=message):
        open_format("openood", tmp_path, options)


def test_every_format_says_what_it_reads() -> None:
    for name, published in FORMATS.items():
        assert published.title, name
        assert published.layout.startswith("    "), name
        for option in published.options.values():
            assert option.about, name
            assert not option.choices or option.default in option.choices, name
