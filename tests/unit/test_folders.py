from __future__ import annotations

from pathlib import Path

import pytest

from oodserve.errors import DataError
from oodserve.folders import fingerprint, list_images


def test_images_are_listed_by_path_and_hidden_or_other_files_left_out(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a/3.webp", "a/notes.txt", "a/.4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a/3.webp", "b/1.png", "b/2.JPG"]


def test_a_folder_without_images_or_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image in"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        list_images(tmp_path / "none")


def test_the_fingerprint_follows_names_and_contents_but_not_the_place(tmp_path: Path) -> None:
    def made(place: str, files: dict[str, bytes]) -> str:
        root = tmp_path / place
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return fingerprint(list_images(root), root)

    files = {"a/1.png": b"one", "b/2.png": b"two"}
    base = made("here", files)
    assert made("there", files) == base
    assert made("changed", files | {"a/1.png": b"One"}) != base
    assert made("renamed", {"a/9.png": b"one", "b/2.png": b"two"}) != base
    assert made("more", files | {"c/3.png": b"three"}) != base
    assert made("swapped", {"a/1.png": b"two", "b/2.png": b"one"}) != base
