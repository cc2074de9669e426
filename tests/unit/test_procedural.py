from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from train.data.procedural import ProceduralOutliers, colour, picture
from train.data.strokes import STROKES, render, stroke_picture
from train.data.textures import TEXTURES


def test_a_picture_is_a_function_of_seed_and_index() -> None:
    first = ProceduralOutliers(count=50, seed=3, size=32)
    again = ProceduralOutliers(count=9, seed=3, size=32)
    other = ProceduralOutliers(count=50, seed=4, size=32)
    assert first.read(7).tobytes() == again.read(7).tobytes()
    assert first.read(7).tobytes() != other.read(7).tobytes()
    assert len({first.read(index).tobytes() for index in range(50)}) == 50


@pytest.mark.parametrize("size", [16, 32, 96])
def test_pictures_are_rgb_of_the_size_asked_for(size: int) -> None:
    for index in range(30):
        image = ProceduralOutliers(count=30, seed=0, size=size).read(index)
        assert (image.mode, image.size) == ("RGB", (size, size))


def test_there_are_only_as_many_as_were_asked_for() -> None:
    outliers = ProceduralOutliers(count=5, seed=0, size=16)
    assert len(outliers) == 5
    for index in (5, -1):
        with pytest.raises(IndexError, match=rf"no picture {index}: there are 5"):
            outliers.read(index)


@pytest.mark.parametrize("kind", STROKES)
def test_every_drawing_has_ink_and_ground(kind: str) -> None:
    for seed in range(20):
        coverage = stroke_picture(kind, np.random.default_rng(seed), 32)
        assert coverage.shape == (32, 32)
        assert coverage.dtype == np.float32
        assert coverage.min() == 0
        assert coverage.max() > 0.8
        assert 0.02 < coverage.mean() < 0.75, seed


@pytest.mark.parametrize("kind", TEXTURES)
def test_every_texture_is_within_range(kind: str) -> None:
    for seed in range(20):
        texture = TEXTURES[kind](np.random.default_rng(seed), 24)
        assert texture.shape in {(24, 24), (24, 24, 3)}
        assert texture.dtype == np.float32
        assert 0 <= texture.min() <= texture.max() <= 1
        assert kind == "plain" or texture.std() > 0.01


def test_a_line_is_as_thick_as_the_pen() -> None:
    drawing = [np.array([[0.1, 0.5], [0.9, 0.5]])]
    coverage = render(drawing, size=40, pen=0.1)
    assert coverage[:, 20].sum() == pytest.approx(4, abs=0.5)
    assert coverage[20, :].sum() == pytest.approx(0.8 * 40 + 4, abs=1)


def test_ground_and_ink_get_a_colour_each() -> None:
    coverage = np.array([[0.0, 1.0]], dtype=np.float32)
    found: Counter[str] = Counter()
    for seed in range(300):
        ground, ink = colour(coverage, np.random.default_rng(seed))[0]
        if not ground.any():
            found["screen"] += 1
            assert ink.min() >= 0.75
        elif len(set(ground.tolist())) == 1:
            found["inverted"] += 1
            assert ground.min() > 0.7 > 0.3 > ink.max()
        else:
            found["coloured"] += 1
    assert found["screen"] > found["coloured"] > found["inverted"] > 20


def boxed(image: Image.Image) -> NDArray[np.float64] | None:
    """Cut the ink out and scale it to 8 x 8, as the digits are; None where there is none."""
    grey = np.asarray(image.convert("L"), dtype=np.float64) / 255
    if grey[[0, 0, -1, -1], [0, -1, 0, -1]].mean() > 0.5:
        grey = 1 - grey
    rows, columns = np.nonzero(grey > 0.4)
    if len(rows) < 8:
        return None
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    spare = max(0, (bottom - top) - (right - left))
    ink = Image.fromarray(np.round(grey * 255).astype(np.uint8)).crop(
        (int(left - spare // 2), int(top), int(right + spare // 2), int(bottom))
    )
    return np.asarray(ink.resize((8, 8), Image.Resampling.BOX), dtype=np.float64).ravel() / 255


def test_no_picture_is_near_a_digit() -> None:
    digits = load_digits().data / 16
    neighbours = NearestNeighbors(n_neighbors=2).fit(digits)
    between_digits = neighbours.kneighbors(digits)[0][:, 1]
    rng = np.random.default_rng(0)
    found = [boxed(picture(rng, size=32)) for _ in range(1500)]
    pictures = np.stack([cells for cells in found if cells is not None])
    distances = neighbours.kneighbors(pictures)[0][:, 0]
    # The typical digit has a digit nearer than any picture's nearest; and next to no picture is as
    # near as all but the oddest digits are.
    assert distances.min() > np.median(between_digits)
    assert np.mean(distances < np.quantile(between_digits, 0.99)) < 0.01
