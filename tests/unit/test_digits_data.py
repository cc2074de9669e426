from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from oodserve.errors import DataError
from oodserve.folders import fingerprint, list_images
from train.data.digits import HELD_OUT, enlarge, split_positions, write_digits

LEARNED = ["0", "1", "3", "4", "6", "7", "9"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built_in") / "digits"
    write_digits(folder)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_tree(digits: Path) -> None:
    assert names(digits) == ["calibration", "data.json", "ood", "test", "train", "validation"]
    for split in ("train", "validation", "calibration", "test"):
        assert names(digits / split) == LEARNED
    assert names(digits / "ood" / "held_out") == ["2", "5", "8"]
    assert HELD_OUT == (2, 5, 8)


def test_every_digit_is_written_once_into_its_class(digits: Path) -> None:
    targets = load_digits().target
    found = {}
    for path in list_images(digits):
        if path.parent.name != "photos":
            number = int(path.stem)
            assert number not in found
            found[number] = int(path.parent.name)
    assert found == dict(enumerate(targets.tolist()))


def test_shares_and_counts(digits: Path) -> None:
    facts = json.loads((digits / "data.json").read_text())
    assert facts["classes"] == LEARNED
    assert facts["held_out"] == ["2", "5", "8"]
    for name, count in facts["counts"].items():
        assert len(list_images(digits / name)) == count
    counts = facts["counts"]
    assert counts["ood/held_out"] == 177 + 182 + 174
    inside = sum(counts[name] for name in ("train", "validation", "calibration", "test"))
    assert inside + counts["ood/held_out"] == 1797
    assert counts["train"] == pytest.approx(0.5 * inside, abs=4)
    assert counts["calibration"] == pytest.approx(0.2 * inside, abs=4)


def test_pixels_are_the_originals_enlarged(digits: Path) -> None:
    path = next((digits / "train" / "7").iterdir())
    with Image.open(path) as image:
        assert image.size == (32, 32)
        assert image.mode == "L"
        small = np.asarray(image.resize((8, 8), Image.Resampling.BOX), dtype=np.float64)
    original = load_digits().images[int(path.stem)] * 255 / 16
    assert np.corrcoef(small.ravel(), original.ravel())[0, 1] > 0.97


def test_full_and_no_ink_keep_their_brightness() -> None:
    assert np.asarray(enlarge(np.full((8, 8), 16.0))).min() == 255
    assert np.asarray(enlarge(np.zeros((8, 8)))).max() == 0


def test_photographs_are_in_colour(digits: Path) -> None:
    paths = list_images(digits / "ood" / "photos")
    assert len(paths) == 200
    with Image.open(paths[0]) as image:
        assert image.mode == "RGB"
        assert image.size == (32, 32)
        assert np.asarray(image).std() > 5


def test_equal_seeds_write_equal_files(digits: Path, tmp_path: Path) -> None:
    write_digits(tmp_path / "again")
    write_digits(tmp_path / "other", seed=1)
    first, again, other = (
        fingerprint(list_images(folder), folder)
        for folder in (digits, tmp_path / "again", tmp_path / "other")
    )
    assert first == again
    assert first != other


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match=r"mine` exists already and is not overwritten; remove it"):
        write_digits(tmp_path / "mine")
    assert names(tmp_path) == ["mine"]


@pytest.mark.parametrize("count", [10, 11, 177, 181])
def test_a_split_loses_nothing(count: int) -> None:
    parts = split_positions(count, rng=np.random.default_rng(0))
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(count))
    assert [len(part) / count for part in parts.values()] == pytest.approx(
        [0.5, 0.1, 0.2, 0.2], abs=1 / count
    )
