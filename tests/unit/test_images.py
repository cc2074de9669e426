"""Decoding: every format, mode, palette, transparency and orientation."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oodserve.errors import UndecodableImage
from oodserve.images import check_header, decode, to_rgb
from tests.image_bytes import encode, png

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 17, 3), dtype=np.uint8)
# Rows 0..1, columns 0..2, all six different: any flip or turn shows.
CORNERS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [255, 0, 255]]],
    dtype=np.uint8,
)
WHITE = (255, 255, 255)


def pixels(data: bytes, **options: Any) -> NDArray[np.uint8]:
    image = decode(data, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(NOISE), kind, **options)
    np.testing.assert_array_equal(pixels(data), NOISE)
    assert check_header(data) == (kind, 17, 24)


def test_jpeg_is_what_pillow_decodes() -> None:
    data = encode(Image.fromarray(NOISE), "JPEG", quality=90)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))
    assert check_header(data) == ("JPEG", 17, 24)


def test_a_multi_picture_jpeg_is_its_first_picture() -> None:
    first, second = Image.new("RGB", (16, 16), (200, 30, 30)), Image.new("RGB", (16, 16))
    data = encode(first, "MPO", save_all=True, append_images=[second])
    assert data.startswith(b"\xff\xd8\xff")
    assert np.abs(pixels(data).astype(int) - (200, 30, 30)).max() <= 3


def upright(stored: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """EXIF 2.32, table 8: where the 0th row and the 0th column of the stored pixels belong."""
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored.transpose(1, 0, 2)[:, ::-1],
        7: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: stored.transpose(1, 0, 2)[::-1],
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(CORNERS), kind, exif=exif, **options)
    np.testing.assert_array_equal(pixels(data), upright(CORNERS, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg(orientation: int) -> None:
    blocks = CORNERS.repeat(16, axis=0).repeat(16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(blocks), "JPEG", exif=exif, quality=95, subsampling=0)
    expected = upright(blocks, orientation).astype(int)
    assert np.abs(pixels(data).astype(int) - expected).max() <= 8


@pytest.mark.parametrize(
    ("kind", "value"),
    [(3, b"\0\0\0\0"), (3, b"\x09\0\0\0"), (3, b"\xff\xff\0\0"), (2, b"six\0")],
)
def test_an_orientation_that_does_not_exist_is_none(kind: int, value: bytes) -> None:
    # One tag, 0x0112, as a number (3) or as text (2).
    count = 4 if kind == 2 else 1
    entry = struct.pack("<HHHI4sI", 1, 0x0112, kind, count, value, 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + entry
    data = encode(Image.fromarray(CORNERS), "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(data), CORNERS)


def test_unreadable_exif_is_none() -> None:
    data = encode(Image.fromarray(CORNERS), "PNG", exif=b"Exif\0\0not a TIFF header")
    np.testing.assert_array_equal(pixels(data), CORNERS)


def test_metadata_is_dropped_so_that_nothing_is_turned_twice() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode(encode(Image.fromarray(CORNERS), "PNG", exif=exif, dpi=(300, 300)))
    assert image.info == {}
    assert dict(image.getexif()) == {}
    assert image.size == (2, 3)


def palette_image() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image


def test_palette() -> None:
    data = encode(palette_image(), "PNG")
    assert pixels(data).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 20, 30)])
def test_a_transparent_palette_entry_shows_the_background(
    background: tuple[int, int, int],
) -> None:
    data = encode(palette_image(), "PNG", transparency=1)
    expected = [[[255, 0, 0], list(background), [0, 0, 255]]]
    assert pixels(data, background=background).tolist() == expected


def test_a_palette_with_partial_transparency() -> None:
    data = encode(palette_image(), "PNG", transparency=bytes([255, 128, 0]))
    # 128/255 of (0, 255, 0) over black.
    expected = [[[255, 0, 0], [0, 128, 0], [0, 0, 0]]]
    assert pixels(data, background=(0, 0, 0)).tolist() == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("alpha", "expected"), [(0, 200), (255, 100), (51, 180)])
def test_alpha_is_composited_on_the_background(mode: str, alpha: int, expected: int) -> None:
    # 51/255 = 0.2: 0.2 * 100 + 0.8 * 200 = 180.
    values = (100, 100, 100, alpha) if mode == "RGBA" else (100, alpha)
    data = encode(Image.new(mode, (2, 2), values), "PNG")
    assert np.unique(pixels(data, background=(200, 200, 200))).tolist() == [expected]


def test_alpha_of_a_webp() -> None:
    data = encode(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "WEBP", lossless=True)
    assert np.unique(pixels(data, background=(200, 200, 200))).tolist() == [200]


def test_one_colour_of_an_rgb_png_can_be_transparent() -> None:
    data = encode(Image.fromarray(CORNERS), "PNG", transparency=(0, 255, 0))
    expected = CORNERS.copy()
    expected[0, 1] = (7, 8, 9)
    np.testing.assert_array_equal(pixels(data, background=(7, 8, 9)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    # No ink is white; full cyan and magenta is blue; black ink is black.
    image = Image.new("CMYK", (48, 16))
    for column, ink in enumerate([(0, 0, 0, 0), (255, 255, 0, 0), (0, 0, 0, 255)]):
        image.paste(ink, (16 * column, 0, 16 * (column + 1), 16))
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    got = pixels(encode(image, kind, **options))[8, [8, 24, 40]].astype(int)
    assert np.abs(got - [[255, 255, 255], [0, 0, 255], [0, 0, 0]]).max() <= 6


def test_16_bit_grey_is_scaled_by_its_full_range() -> None:
    values = np.array([0, 128, 129, 257, 32768, 65406, 65407, 65535])
    data = png(8, 1, depth=16, colour=0, rows=[values.astype(">u2").tobytes()])
    # round(v / 257): 128 / 257 = 0.498, 129 / 257 = 0.502; 65406 / 257 = 254.498.
    expected = [0, 0, 1, 1, 128, 254, 255, 255]
    assert pixels(data)[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_grey_tiff_of_either_byte_order(order: str) -> None:
    grey = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    mode = "I;16" if order == "<u2" else "I;16B"
    image = Image.frombytes(mode, (16, 16), grey.astype(order).tobytes())
    expected = np.arange(256).reshape(16, 16, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(pixels(encode(image, "TIFF")), expected)


def test_32_bit_grey_is_clipped_to_16_bits() -> None:
    image = Image.new("I", (3, 1))
    image.putdata([-5, 65535, 2**31 - 1])
    assert pixels(encode(image, "TIFF"))[0, :, 0].tolist() == [0, 255, 255]


def test_float_grey_is_in_0_to_1() -> None:
    image = Image.fromarray(np.array([[-1.0, 0.0, 0.5, 1.0, 7.0, np.inf]], dtype=np.float32))
    assert pixels(encode(image, "TIFF"))[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


def test_a_pixel_that_is_not_a_number_is_refused() -> None:
    image = Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32))
    with pytest.raises(UndecodableImage, match=r"TIFF image is .* \(a pixel is not a number\)"):
        decode(encode(image, "TIFF"))


def test_lab() -> None:
    # L* = 100 and 0 without colour.
    image = Image.new("LAB", (2, 1))
    image.putdata([(255, 128, 128), (0, 128, 128)])
    got = pixels(encode(image, "TIFF"))[0].astype(int)
    assert np.abs(got - [[255] * 3, [0] * 3]).max() <= 1


def test_1_bit() -> None:
    data = png(10, 1, depth=1, colour=0, rows=[bytes([0b10101010, 0b11000000])])
    expected = [255, 0, 255, 0, 255, 0, 255, 0, 255, 255]
    assert pixels(data)[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [Image.new("RGB", (5, 4), colour) for colour in colours]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert pixels(data).shape == (4, 5, 3)
    assert np.unique(pixels(data).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_a_transparent_gif() -> None:
    data = encode(palette_image(), "GIF", transparency=1)
    assert pixels(data, background=(1, 2, 3)).tolist() == [[[255, 0, 0], [1, 2, 3], [0, 0, 255]]]


def test_to_rgb_leaves_rgb_alone() -> None:
    image = Image.fromarray(NOISE)
    assert to_rgb(image, background=WHITE) is image
