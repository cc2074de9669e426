"""Images that are refused: empty, foreign, corrupt, truncated, too large, and mutated at random."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oodserve.errors import (
    EmptyImage,
    ImageError,
    ImageTooLarge,
    UndecodableImage,
    UnsupportedImage,
)
from oodserve.images import FORMATS, ImageLimits, check_header, decode
from tests.image_bytes import encode, png

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 17, 3), dtype=np.uint8)


def test_nothing() -> None:
    for refuse in (decode, check_header):
        with pytest.raises(EmptyImage, match=r"the image is empty \(0 bytes\); send the bytes of"):
            refuse(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"hello",
        b"\x00",
        b"%PDF-1.7\n",
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        encode(Image.fromarray(NOISE), "PPM"),
        encode(Image.fromarray(NOISE), "ICO"),
    ],
)
def test_other_formats(data: bytes) -> None:
    for refuse in (decode, check_header):
        with pytest.raises(UnsupportedImage, match="not an image that is read here") as caught:
            refuse(data)
        # What was sent may be private; the message ends up in logs.
        assert repr(data[:8]) not in str(caught.value)
        assert ", ".join(FORMATS) in str(caught.value)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + b"garbage, not chunks",
        b"\xff\xd8\xff" + b"\x00" * 40,
        b"GIF89a" + b"\x00",
        b"BM" + b"\x00" * 40,
        b"II*\x00" + b"\xff" * 40,
        b"RIFF\x24\x00\x00\x00WEBPVP8 ",
        png(0, 5, depth=8, colour=2, rows=[]),
    ],
    ids=["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "no width"],
)
def test_a_corrupt_header_is_not_an_unknown_format(data: bytes) -> None:
    for refuse in (decode, check_header):
        with pytest.raises(
            UndecodableImage, match=r"the image header is corrupt .*; send the imag"
        ):
            refuse(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated(kind: str, kept: float) -> None:
    large = Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8))
    data = encode(large, kind)
    with pytest.raises(UndecodableImage, match=r"truncated or corrupt|header is corrupt"):
        decode(data[: int(len(data) * kept)])


def test_a_truncated_jpeg_still_has_a_header() -> None:
    data = encode(Image.fromarray(NOISE), "JPEG")[:-40]
    assert check_header(data) == ("JPEG", 17, 24)
    with pytest.raises(
        UndecodableImage,
        match=r"the JPEG image is truncated or corrupt \(.*\); send it again whole",
    ):
        decode(data)


def test_too_many_bytes() -> None:
    data = encode(Image.fromarray(NOISE), "PNG")
    limits = ImageLimits(max_bytes=len(data) - 1)
    with pytest.raises(
        ImageTooLarge, match=rf"the image has {len(data)} bytes; at most {len(data) - 1} are allow"
    ) as caught:
        decode(data, limits=limits)
    assert (caught.value.unit, caught.value.got) == ("bytes", len(data))
    assert caught.value.limit == len(data) - 1
    assert decode(data, limits=ImageLimits(max_bytes=len(data))).size == (17, 24)


def test_too_many_pixels() -> None:
    data = encode(Image.fromarray(NOISE), "PNG")
    for refuse in (decode, check_header):
        with pytest.raises(
            ImageTooLarge, match="the image is 17 x 24 = 408 pixels; at most 407 are allowed"
        ) as caught:
            refuse(data, limits=ImageLimits(max_pixels=407))
        assert (caught.value.unit, caught.value.got, caught.value.limit) == ("pixels", 408, 407)
    assert decode(data, limits=ImageLimits(max_pixels=408)).size == (17, 24)


def bomb(side: int) -> bytes:
    row = bytes(-(-side // 8))
    return png(side, side, depth=1, colour=0, rows=(row for _ in range(side)), level=9)


@pytest.fixture(scope="module")
def large_bomb() -> bytes:
    return bomb(19_000)


def test_a_decompression_bomb_is_refused_by_its_header(large_bomb: bytes) -> None:
    assert len(large_bomb) < 50_000
    tracemalloc.start()
    with pytest.raises(
        ImageTooLarge, match="the image is 19000 x 19000 = 361000000 pixels; at most 50000000 are"
    ) as caught:
        decode(large_bomb)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.got == 361_000_000
    assert peak_bytes < 2**20


# VmHWM, as the peak in getrusage would be that of the process which started this one.
MEASURE = """
import sys
from pathlib import Path
from oodserve.errors import ImageTooLarge
from oodserve.images import decode

def peak_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

data = sys.stdin.buffer.read()
before = peak_kib()
try:
    decode(data)
except ImageTooLarge:
    sys.stdout.write("refused ")
sys.stdout.write(str((peak_kib() - before) // 1024))
"""


def memory_mib(data: bytes) -> str:
    """Decode in a process of its own and return the growth of its resident memory in MiB."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], input=data, capture_output=True, check=True, cwd=root
    )
    return done.stdout.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_decompression_bomb_leaves_memory_flat(large_bomb: bytes) -> None:
    # 6000 x 6000 is within the limit: it shows that the measurement sees a decoded image.
    assert int(memory_mib(bomb(6_000))) > 30
    verdict, growth = memory_mib(large_bomb).split()
    assert verdict == "refused"
    assert int(growth) < 4


def test_a_bomb_that_a_reader_refuses_by_itself() -> None:
    # The canvas of an extended WebP, 16384 x 16384, is checked before the decoder is made.
    side = struct.pack("<I", 16_383)[:3]
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + side + side
    data = b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
    with pytest.raises(ImageTooLarge, match=r"pixels.* at most 50000000 are allowed") as caught:
        decode(data)
    assert caught.value.got > 50_000_000


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "TIFF LZW", "MPO"])
def test_mutated_bytes_raise_image_errors_only(name: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "an image"
    kind, _, packed = name.partition(" ")
    options: dict[str, Any] = {} if kind in ("BMP", "GIF", "MPO") else {"exif": exif}
    options |= {"compression": "tiff_lzw"} if packed else {}
    data = encode(Image.fromarray(NOISE), kind, **options)
    chance = random.Random(name)
    limits, outcomes = ImageLimits(max_pixels=100_000), set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(400):
            mutated = bytearray(data)
            for _ in range(chance.choice([1, 1, 2, 4])):
                place = chance.randrange(min(len(data), chance.choice([30, 120, len(data)])))
                mutated[place] = chance.choice([0, 1, 127, 255, chance.randrange(256)])
            try:
                assert decode(bytes(mutated), limits=limits).mode == "RGB"
            except ImageError as error:
                outcomes.add(type(error))
    assert UndecodableImage in outcomes
