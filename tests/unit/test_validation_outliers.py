from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oodserve.errors import DataError
from oodserve.folders import list_images
from tests.published import write_image
from train.data.sources import ImageFiles, generator
from train.data.validation_outliers import (
    KINDS,
    ValidationOutliers,
    write_validation_outliers,
)

Array = NDArray[np.float64]


def source(folder: Path, count: int = 4, size: tuple[int, int] = (60, 40)) -> ImageFiles:
    paths = [write_image(folder / f"{k}.png", seed=k, size=size) for k in range(count)]
    return ImageFiles(tuple(paths), (255, 255, 255))


def pixels(outliers: ValidationOutliers | ImageFiles, index: int) -> Array:
    image = outliers.read(index)
    assert image.mode == "RGB"
    return np.asarray(image, dtype=np.float64)


def test_the_eight_kinds() -> None:
    assert list(KINDS) == [
        "gaussian", "rademacher", "blobs", "arithmetic_mean", "geometric_mean", "speckle",
        "inverted", "pixelated",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_outliers_are_a_function_of_seed_kind_and_index(tmp_path: Path, kind: str) -> None:
    images = source(tmp_path)
    first, again = ValidationOutliers(images, kind, 3), ValidationOutliers(images, kind, 3)
    assert len(first) == 4
    backwards = [again.read(index) for index in (3, 2, 1, 0)][::-1]
    for index in range(4):
        assert first.read(index).tobytes() == backwards[index].tobytes()
        assert first.read(index).size == (60, 40)
    drawn = kind not in ("inverted", "pixelated")
    other = ValidationOutliers(images, kind, 4)
    changed = [first.read(k).tobytes() != other.read(k).tobytes() for k in range(4)]
    assert any(changed) == drawn
    assert first.read(0).tobytes() != first.read(1).tobytes()


def test_gaussian_noise(tmp_path: Path) -> None:
    found = pixels(ValidationOutliers(source(tmp_path, 2, (200, 200)), "gaussian", 0), 0)
    # Of N(0, 1/2) clipped to [-1, 1]: each end holds P(Z > 2) = 0.02275.
    z = np.random.default_rng(9).normal(scale=0.5, size=10**6)
    expected = 127.5 * (1 + np.clip(z, -1, 1))
    assert found.mean() == pytest.approx(127.5, abs=1)
    assert found.std() == pytest.approx(expected.std(), rel=0.01)
    assert (found == 0).mean() == pytest.approx(0.02275, abs=0.002)
    assert (found == 255).mean() == pytest.approx(0.02275, abs=0.002)
    assert abs(np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1]) < 0.02


def test_rademacher_noise(tmp_path: Path) -> None:
    found = pixels(ValidationOutliers(source(tmp_path, 2, (200, 200)), "rademacher", 0), 1)
    assert set(np.unique(found)) == {0.0, 255.0}
    assert found.mean() == pytest.approx(127.5, abs=1.5)
    neighbours = np.corrcoef(found[:, 1:].ravel(), found[:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.02


def gaussian_kernel(sigma: float) -> Array:
    radius = int(4 * sigma + 0.5)
    weights: Array = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    return weights


def test_blobs_against_a_convolution_by_hand(tmp_path: Path) -> None:
    images = source(tmp_path, 2, (64, 64))
    found = pixels(ValidationOutliers(images, "blobs", 7), 1)
    rng = generator(7, "validation_outliers/blobs", 1)
    field = (rng.random((64, 64, 3)) < 0.7).astype(np.float64)
    for axis, sigma in enumerate((3.0, 3.0, 1.5)):
        kernel = gaussian_kernel(sigma)
        radius = len(kernel) // 2
        # Mirrored at the border, the outermost value twice.
        padding = [(radius, radius) if place == axis else (0, 0) for place in range(3)]
        padded = np.pad(field, padding, mode="symmetric")
        field = np.apply_along_axis(np.convolve, axis, padded, kernel, mode="valid")
    np.testing.assert_allclose(found, np.where(field < 0.75, 0, np.rint(255 * field)), atol=1)
    assert 0.02 < (found > 0).mean() < 0.6
    assert found[found > 0].min() >= np.floor(255 * 0.75)


@pytest.mark.parametrize(
    ("kind", "mean"),
    [
        ("arithmetic_mean", lambda a, b: (a + b) / 2),
        ("geometric_mean", lambda a, b: np.sqrt(a * b)),
    ],
)
def test_means_of_pairs(tmp_path: Path, kind: str, mean: Callable[[Array, Array], Array]) -> None:
    images = source(tmp_path, 5)
    partners = set()
    for seed in range(12):
        found = pixels(ValidationOutliers(images, kind, seed), 2)
        fits = [
            other
            for other in range(5)
            if np.array_equal(found, np.rint(mean(pixels(images, 2), pixels(images, other))))
        ]
        assert len(fits) == 1
        partners.update(fits)
    assert partners == {0, 1, 3, 4}


def test_partners_are_scaled_to_the_image(tmp_path: Path) -> None:
    first = write_image(tmp_path / "a.png", 0, (30, 20))
    second = write_image(tmp_path / "b.png", 1, (50, 70))
    images = ImageFiles((first, second), (255, 255, 255))
    found = pixels(ValidationOutliers(images, "arithmetic_mean", 0), 0)
    scaled = Image.open(second).resize((30, 20), Image.Resampling.BILINEAR)
    expected = (pixels(images, 0) + np.asarray(scaled, dtype=np.float64)) / 2
    np.testing.assert_array_equal(found, np.rint(expected))


def test_speckle(tmp_path: Path) -> None:
    images = source(tmp_path, 2, (100, 100))
    found = pixels(ValidationOutliers(images, "speckle", 5), 0)
    image = pixels(images, 0)
    rng = generator(5, "validation_outliers/speckle", 0)
    expected = np.clip(image * (1 + rng.standard_normal(image.shape)), 0, 255)
    np.testing.assert_allclose(found, np.rint(expected), atol=1)
    assert (found[image == 0] == 0).all()
    # x (1 + n) is negative, and so clipped to 0, where n < -1: P(Z < -1) = 0.1587.
    assert (found[image > 60] == 0).mean() == pytest.approx(0.1587, abs=0.02)


def test_inverted(tmp_path: Path) -> None:
    images = source(tmp_path)
    for index in range(4):
        found = pixels(ValidationOutliers(images, "inverted", 0), index)
        np.testing.assert_array_equal(found, 255 - pixels(images, index))


def test_pixelated(tmp_path: Path) -> None:
    images = source(tmp_path)
    found = pixels(ValidationOutliers(images, "pixelated", 0), 1)
    # 60 x 40 becomes 12 x 8 and again 60 x 40: blocks of 5 x 5 that hold their mean.
    # Pillow averages rows and then columns and rounds both times: at most 1/2 twice.
    blocks = pixels(images, 1).reshape(8, 5, 12, 5, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(found[::5, ::5], blocks, atol=1.0)
    np.testing.assert_array_equal(found, np.repeat(np.repeat(found[::5, ::5], 5, 0), 5, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_pixel_is_enough(tmp_path: Path, kind: str) -> None:
    assert ValidationOutliers(source(tmp_path, 2, (1, 1)), kind, 0).read(1).size == (1, 1)


def test_what_is_refused(tmp_path: Path) -> None:
    images = source(tmp_path, 2)
    with pytest.raises(DataError, match="the kind `noise` of outliers is unknown; known: gauss"):
        ValidationOutliers(images, "noise", 0)
    with pytest.raises(DataError, match="there are 1 images to make outliers of; at least 2"):
        ValidationOutliers(ImageFiles(images.paths[:1], (0, 0, 0)), "gaussian", 0)
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"no outlier {index}: there are 2"):
            ValidationOutliers(images, "gaussian", 0).read(index)


def test_written_outliers_are_those_that_are_read(tmp_path: Path) -> None:
    images = source(tmp_path / "images", 3)
    assert write_validation_outliers(images, tmp_path / "out", seed=2) == 24
    assert len(list_images(tmp_path / "out")) == 24
    for kind in KINDS:
        outliers = ValidationOutliers(images, kind, 2)
        for index in range(3):
            with Image.open(tmp_path / "out" / kind / f"{index:06d}.png") as written:
                assert written.tobytes() == outliers.read(index).tobytes()
    with pytest.raises(DataError, match="exists already and is not overwritten"):
        write_validation_outliers(images, tmp_path / "out", seed=2)
