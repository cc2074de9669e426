"""Bytes to the uint8 array that the model takes: the one preprocessing used everywhere.

Evaluation, calibration, embedded serving and the gateway in front of Triton all call this module,
so an image gets the same pixels wherever it is scored. Normalisation is not here: it is part of the
exported graph.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from pydantic import Field, model_validator

from oodserve.errors import EmptyImage, ImageTooLarge, UndecodableImage, UnsupportedImage
from oodserve.schema import Document

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Image formats that are read, by Pillow's names; anything else is `UnsupportedImage`."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""File name endings of those formats, lower case."""

MAX_RESIZED_PIXELS = 50_000_000
"""Pixels after resizing and before the crop: bounds what a very long, thin image can cost."""

Byte = Annotated[int, Field(ge=0, le=255)]
Size = Annotated[int, Field(ge=1, le=8192)]

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# `Image.open` would do, but it checks sizes after its own limit and with global warning filters,
# and calls a PNG with a corrupt header the same as a text file.
_READERS: tuple[tuple[tuple[bytes, ...], Callable[[IO[bytes]], ImageFile.ImageFile]], ...] = (
    ((b"\xff\xd8\xff",), JpegImagePlugin.jpeg_factory),
    ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ((b"RIFF????WEBP",), WebPImagePlugin.WebPImageFile),
    ((b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ((b"BM",), BmpImagePlugin.BmpImageFile),
    (
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        TiffImagePlugin.TiffImageFile,
    ),
)

# What Pillow raises on bytes that are not what their header says: valid images, mutated at random,
# raised most of these.
_CORRUPT = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)

# By EXIF orientation, 2 to 8: what makes the stored pixels upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Preprocessing(Document):
    """How a decoded image becomes the (height, width, 3) uint8 array of one model."""

    height: Size
    """Rows of the model's input, in pixels."""
    width: Size
    """Columns of the model's input, in pixels."""
    resize: Literal["exact", "shorter_side"]
    """``exact`` scales to `resize_height` x `resize_width` whatever the aspect ratio;
    ``shorter_side`` scales the shorter side to `resize_height` (= `resize_width`)."""
    resize_height: Size
    """Rows after resizing, before the centre crop, in pixels."""
    resize_width: Size
    """Columns after resizing, before the centre crop, in pixels."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    """Pillow's resampling filter; all but ``nearest`` are antialiased when shrinking."""
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """RGB colour that shows through transparent pixels."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Preprocessing:
        if self.resize_height < self.height or self.resize_width < self.width:
            raise ValueError(
                f"the resized image ({self.resize_height} x {self.resize_width}) is smaller than "
                f"the crop ({self.height} x {self.width})"
            )
        if self.resize == "shorter_side" and self.resize_height != self.resize_width:
            raise ValueError("`shorter_side` needs `resize_height` equal to `resize_width`")
        return self


@dataclass(frozen=True)
class ImageLimits:
    """What an encoded image may cost before it is refused."""

    max_bytes: int = 20 * 2**20
    """Encoded size, in bytes."""
    max_pixels: int = 50_000_000
    """Width times height as the header states them; checked before any pixel is decoded."""


def check_header(data: bytes, *, limits: ImageLimits = ImageLimits()) -> tuple[str, int, int]:
    """Return (format, width, height) as the header states them, without decoding a pixel.

    Parameters
    ----------
    data : bytes
        The encoded image.
    limits : ImageLimits
        Bounds on bytes and pixels.

    Raises
    ------
    EmptyImage, ImageTooLarge, UnsupportedImage, UndecodableImage
        In that order of checking.
    """
    with _open(data, limits) as image:
        return str(image.format), image.width, image.height


def decode(
    data: bytes,
    *,
    limits: ImageLimits = ImageLimits(),
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """Decode an image to RGB, upright.

    The first frame of an animation is taken; EXIF orientation is applied, and unreadable EXIF is
    none; palettes are looked up; transparency is composited on `background`; CMYK is converted;
    16-bit grey is scaled to 8 bits by its full range. Metadata is dropped.

    Parameters
    ----------
    data : bytes
        JPEG, PNG, WebP, GIF, BMP or TIFF; the content decides, not a name.
    limits : ImageLimits
        Bounds on bytes and pixels.
    background : tuple of int
        RGB, 0 to 255.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    EmptyImage, ImageTooLarge, UnsupportedImage, UndecodableImage
        See `oodserve.errors`.
    """
    with _open(data, limits) as image:
        try:
            image.load()
            rgb = to_rgb(_upright(image), background=background)
        except Image.DecompressionBombError as error:
            raise _too_many_pixels(image, limits) from error
        except _CORRUPT as error:
            raise UndecodableImage(
                f"the {image.format} image is truncated or corrupt ({error}); send it again whole"
            ) from error
    rgb.info.clear()
    return rgb


def to_rgb(image: Image.Image, *, background: tuple[int, int, int]) -> Image.Image:
    """Return the image in mode RGB; transparent pixels show `background`.

    Raises
    ------
    ValueError
        A pixel is not a number.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (*background, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image.convert("RGB")


def preprocess(image: Image.Image, spec: Preprocessing) -> NDArray[np.uint8]:
    """Resize and centre-crop a decoded image.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode; converted to RGB on the spec's background.
    spec : Preprocessing
        The model's input.

    Returns
    -------
    (height, width, 3) uint8
        RGB, rows from the top.

    Raises
    ------
    ImageTooLarge
        The image is so long and thin that it would be huge once its shorter side is scaled up.
    """
    rgb = to_rgb(image, background=spec.background)
    width, height = _resized(rgb.size, spec)
    if (width, height) != rgb.size:
        rgb = rgb.resize((width, height), _RESAMPLING[spec.interpolation])
    left = round((width - spec.width) / 2)
    top = round((height - spec.height) / 2)
    if (left, top, width, height) != (0, 0, spec.width, spec.height):
        rgb = rgb.crop((left, top, left + spec.width, top + spec.height))
    return np.array(rgb, dtype=np.uint8)


def load(
    data: bytes, spec: Preprocessing, *, limits: ImageLimits = ImageLimits()
) -> NDArray[np.uint8]:
    """Decode and preprocess: bytes to (height, width, 3) uint8. Raises as `decode` does."""
    return preprocess(decode(data, limits=limits, background=spec.background), spec)


def stack(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Stack preprocessed images to the (N, H, W, 3) uint8 batch that an engine takes."""
    return np.ascontiguousarray(np.stack(list(images)), dtype=np.uint8)


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    """Read the header only, under the limits."""
    if not data:
        raise EmptyImage("the image is empty (0 bytes); send the bytes of an image file")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"the image has {len(data)} bytes; at most {limits.max_bytes} are allowed",
            unit="bytes",
            got=len(data),
            limit=limits.max_bytes,
        )
    reader = _find_reader(data)
    if reader is None:
        raise UnsupportedImage(f"not an image that is read here; send one of {', '.join(FORMATS)}")
    try:
        image = reader(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        # From the readers that check by themselves, at a far larger size.
        least = 2 * (Image.MAX_IMAGE_PIXELS or limits.max_pixels) + 1
        raise ImageTooLarge(
            f"the image has {least} pixels or more; at most {limits.max_pixels} are allowed",
            unit="pixels",
            got=least,
            limit=limits.max_pixels,
        ) from error
    except _CORRUPT as error:
        raise UndecodableImage(
            f"the image header is corrupt ({error}); send the image again whole"
        ) from error
    if image.width * image.height > limits.max_pixels:
        raise _too_many_pixels(image, limits)
    return image


def _find_reader(data: bytes) -> Callable[[IO[bytes]], ImageFile.ImageFile] | None:
    # The four bytes after RIFF are a length.
    start = data[:4] + b"????" + data[8:12] if data.startswith(b"RIFF") else data[:12]
    for magics, reader in _READERS:
        if start.startswith(magics):
            return reader
    return None


def _too_many_pixels(image: Image.Image, limits: ImageLimits) -> ImageTooLarge:
    pixels = image.width * image.height
    return ImageTooLarge(
        f"the image is {image.width} x {image.height} = {pixels} pixels; "
        f"at most {limits.max_pixels} are allowed",
        unit="pixels",
        got=pixels,
        limit=limits.max_pixels,
    )


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; as viewers do, take unreadable EXIF for none."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _CORRUPT:
        return image
    # Any other value, of whatever type, is not an orientation.
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _resized(size: tuple[int, int], spec: Preprocessing) -> tuple[int, int]:
    """Return (width, height) after resizing and before the crop."""
    if spec.resize == "exact":
        return spec.resize_width, spec.resize_height
    # The longer side is truncated, as torchvision's Resize does.
    width, height = (spec.resize_height * side // min(size) for side in size)
    if width * height > MAX_RESIZED_PIXELS:
        raise ImageTooLarge(
            f"the image is {size[0]} x {size[1]}; with its shorter side scaled to "
            f"{spec.resize_height} it has {width * height} pixels, at most {MAX_RESIZED_PIXELS} "
            "are allowed",
            unit="pixels",
            got=width * height,
            limit=MAX_RESIZED_PIXELS,
        )
    return width, height


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit integer grey by its full range, and float grey from [0, 1], to mode L."""
    values = np.asarray(image)
    if image.mode == "F":
        if np.isnan(values).any():
            raise ValueError("a pixel is not a number")
        return Image.fromarray(np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8))
    # A table of round(v / 257), as a quotient would take eight bytes for each pixel.
    table = ((np.arange(65_536) + 128) // 257).astype(np.uint8)
    return Image.fromarray(table[np.clip(values, 0, 65_535)])
