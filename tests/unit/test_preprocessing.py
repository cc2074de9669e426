"""Resizing and cropping, equal to torchvision's, and the specifications that cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from oodserve.errors import ImageTooLarge
from oodserve.images import (
    MAX_RESIZED_PIXELS,
    ImageLimits,
    Preprocessing,
    decode,
    load,
    preprocess,
    stack,
)
from tests.image_bytes import encode

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 17, 3), dtype=np.uint8)


def spec(height: int, width: int, **changes: Any) -> Preprocessing:
    values = {
        "height": height,
        "width": width,
        "resize": "exact",
        "resize_height": height,
        "resize_width": width,
        "interpolation": "bilinear",
    }
    return Preprocessing(**values | changes)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(24, 17), (17, 24), (100, 301), (301, 100), (64, 64), (5, 7)])
def test_resize_and_crop_equal_torchvision(interpolation: str, size: tuple[int, int]) -> None:
    pytest.importorskip("torch")
    from train.vision import transforms

    image = Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    filters = transforms.InterpolationMode
    mode = filters[interpolation.upper()]
    for short, height, width in [(64, 64, 64), (64, 57, 33), (32, 28, 31), (9, 9, 8)]:
        ours = preprocess(
            image,
            spec(
                height,
                width,
                resize="shorter_side",
                resize_height=short,
                resize_width=short,
                interpolation=interpolation,
            ),
        )
        theirs = transforms.Compose(
            [transforms.Resize(short, mode), transforms.CenterCrop((height, width))]
        )(image)
        np.testing.assert_array_equal(ours, np.asarray(theirs))
        exact = preprocess(image, spec(height, width, interpolation=interpolation))
        stretched = transforms.Resize((height, width), mode)(image)
        np.testing.assert_array_equal(exact, np.asarray(stretched))


def test_shrinking_by_hand() -> None:
    # Bilinear by 2 weighs 1 3 3 1 (a triangle of half-width 2), cut and renormalised at the edge:
    # (3*0 + 3*80 + 1*160) / 7 = 57.14, (1*80 + 3*160 + 3*240) / 7 = 182.86.
    row = np.array([0, 80, 160, 240], dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(row[None, :, None], (2, 4, 3)).copy())
    assert preprocess(image, spec(2, 2))[0, :, 0].tolist() == [57, 183]


def test_crop_is_central() -> None:
    grid = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7, 1).repeat(3, axis=2)
    out = preprocess(Image.fromarray(grid), spec(3, 3, resize_height=5, resize_width=7))
    np.testing.assert_array_equal(out, grid[1:4, 2:5])


def test_an_image_of_the_right_size_is_untouched() -> None:
    out = preprocess(Image.fromarray(NOISE), spec(24, 17))
    np.testing.assert_array_equal(out, NOISE)
    assert out.dtype == np.uint8
    assert out.flags["C_CONTIGUOUS"]
    assert out.flags["WRITEABLE"]


def test_load_composites_on_the_background_of_the_specification() -> None:
    data = encode(Image.new("RGBA", (6, 6), (0, 0, 0, 0)), "PNG")
    assert np.unique(load(data, spec(4, 4, background=(9, 9, 9)))).tolist() == [9]
    assert np.unique(load(data, spec(4, 4))).tolist() == [255]


def test_load_is_decode_and_preprocess_under_the_limits() -> None:
    data = encode(Image.fromarray(NOISE), "JPEG")
    expected = preprocess(decode(data), spec(8, 8))
    np.testing.assert_array_equal(load(data, spec(8, 8)), expected)
    with pytest.raises(ImageTooLarge, match="408 pixels; at most 10 are allowed"):
        load(data, spec(8, 8), limits=ImageLimits(max_pixels=10))


def test_a_long_thin_image_does_not_become_huge() -> None:
    thin = Image.new("RGB", (1, 1_000_000))
    wanted = spec(224, 224, resize="shorter_side")
    # 224 x 224 000 000.
    with pytest.raises(
        ImageTooLarge,
        match="the image is 1 x 1000000; with its shorter side scaled to 224 it has 50176000000 "
        "pixels, at most 50000000 are allowed",
    ) as caught:
        preprocess(thin, wanted)
    assert (caught.value.unit, caught.value.got) == ("pixels", 50_176_000_000)
    assert caught.value.limit == MAX_RESIZED_PIXELS
    assert preprocess(Image.new("RGB", (4, 400)), wanted).shape == (224, 224, 3)
    assert preprocess(thin, spec(224, 224)).shape == (224, 224, 3)


def test_stack() -> None:
    batch = stack([np.zeros((4, 5, 3), np.uint8), np.ones((4, 5, 3), np.uint8)])
    assert batch.shape == (2, 4, 5, 3)
    assert batch.dtype == np.uint8
    assert batch.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"resize_height": 7}, r"the resized image \(7 x 8\) is smaller than the crop \(8 x 8\)"),
        ({"resize_width": 7}, r"the resized image \(8 x 7\) is smaller than the crop \(8 x 8\)"),
        (
            {"resize": "shorter_side", "resize_height": 9, "resize_width": 10},
            "`shorter_side` needs `resize_height` equal to `resize_width`",
        ),
        ({"interpolation": "box"}, "Input should be 'nearest', 'bilinear', 'bicubic' or 'lanczos'"),
        ({"background": (0, 0, 256)}, "less than or equal to 255"),
        ({"resize_height": 8193}, "less than or equal to 8192"),
        ({"mean": (0, 0, 0)}, "Extra inputs are not permitted"),
    ],
)
def test_preprocessing_that_cannot_be(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        spec(8, 8, **changes)
