"""Putting images into a new folder: links or copies, whole or resized.

The folder appears whole or not at all, with the same bytes whatever the number of processes.
"""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image
from rich.console import Console
from rich.progress import track

from oodserve.errors import DataError, ImageError
from oodserve.images import SUFFIXES, decode
from train.data.formats.tree import ImageFile, Item

Link = Literal["symlink", "hardlink", "copy"]
LINKS: tuple[Link, ...] = ("symlink", "hardlink", "copy")
"""How a file gets into a tree."""

WORTH_PROCESSES = 64
"""Fewer images are written in this process, as others take a second to start."""

JPEG_QUALITY = 95
"""Of resized copies of JPEG files; those of others are PNG."""


@dataclass(frozen=True)
class Placing:
    """How images are written.

    Attributes
    ----------
    link : str
        One of `LINKS`; images without a file of their own are always written as PNG.
    side : int or None
        Write copies whose shorter side has so many pixels instead; smaller images keep their size.
    processes : int
        Processes that encode images where any are to be; 1 does so in this one.
    """

    link: Link = "symlink"
    side: int | None = None
    processes: int = 1


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes `to` by one rename unless an error is raised.

    Raises
    ------
    DataError
        `to` exists already.
    """
    if to.exists() or to.is_symlink():
        raise DataError(
            f"`{to}` exists already and is not overwritten; remove it or give another folder"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        yield staging
        staging.chmod(0o755)
        staging.rename(to)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_images(
    plan: Sequence[tuple[Path, Item]],
    to: Path,
    records: Mapping[str, object],
    placing: Placing,
    console: Console | None,
) -> None:
    """Write images and records into a new folder.

    Parameters
    ----------
    plan : sequence of (Path, Item)
        Relative path in the folder and what to put there.
    to : Path
        The folder; must not exist.
    records : mapping of str to object
        JSON files to write beside them, by name.
    placing : Placing
        How images are written.
    console : Console or None
        Where progress is shown, if it is a terminal.

    Raises
    ------
    DataError
        `to` exists, two images have one path, a file is missing or no image by its name, or it
        cannot be linked or read.
    """
    plan = [(_written_as(path, item, placing), item) for path, item in plan]
    _refuse_doubles(plan)
    for _, item in plan:
        if isinstance(item, ImageFile) and not item.path.is_file():
            raise DataError(f"the set lists `{item.path}`, which does not exist; restore it")
    with new_folder(to) as staging:
        for folder in sorted({path.parent for path, _ in plan}):
            (staging / folder).mkdir(parents=True, exist_ok=True)
        work = [(staging / path, item) for path, item in plan]
        shown = console is not None and console.is_terminal
        for _ in track(
            _placed(work, placing), total=len(work), description=str(to), console=console,
            disable=not shown, transient=True,
        ):  # fmt: skip
            pass
        for name, record in records.items():
            text = json.dumps(record, indent=1, ensure_ascii=False)
            (staging / name).write_text(text + "\n", encoding="utf-8")


def _written_as(path: Path, item: Item, placing: Placing) -> Path:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"the set lists `{item.name}`, which is no image by its name; files ending in "
            f"{', '.join(SUFFIXES)} are read"
        )
    if placing.side is None or not isinstance(item, ImageFile) or suffix in (".jpg", ".jpeg"):
        return path
    # `a.png` and `a.webp` are two images.
    return path if suffix == ".png" else path.with_name(f"{path.name}.png")


def _refuse_doubles(plan: Sequence[tuple[Path, Item]]) -> None:
    seen: set[Path] = set()
    for path, _ in plan:
        if path in seen:
            raise DataError(f"the set has two images `{path}`; restore its lists")
        seen.add(path)


def _placed(work: Sequence[tuple[Path, Item]], placing: Placing) -> Iterator[None]:
    place = partial(_place, link=placing.link, side=placing.side)
    encoded = placing.side is not None or any(not isinstance(item, ImageFile) for _, item in work)
    if not encoded or placing.processes <= 1 or len(work) < WORTH_PROCESSES:
        yield from map(place, work)
        return
    # Spawned: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(placing.processes, mp_context=context) as pool:
        yield from pool.map(place, work, chunksize=16)


def _place(job: tuple[Path, Item], *, link: Link, side: int | None) -> None:
    path, item = job
    if not isinstance(item, ImageFile):
        image = Image.fromarray(item.pixels)
        (image if side is None else shrink(image, side)).save(path)
    elif side is not None:
        path.write_bytes(_shrunk(item.path, side))
    else:
        _link(item.path.resolve(), path, link)


def _link(source: Path, path: Path, link: Link) -> None:
    if link == "symlink":
        path.symlink_to(source)
    elif link == "copy":
        shutil.copyfile(source, path)
    else:
        try:
            os.link(source, path)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            raise DataError(
                f"`{source}` cannot be hard-linked to where the tree is written ({error.strerror}"
                "); use `--link symlink` or `--link copy`"
            ) from error


def shrink(image: Image.Image, side: int) -> Image.Image:
    """Return an image whose shorter side has `side` pixels, or the image itself if it is smaller.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    side : int
        Pixels; the longer side is rounded to the nearest.
    """
    shorter = min(image.size)
    if shorter <= side:
        return image
    size = tuple(max(1, round(length * side / shorter)) for length in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def _shrunk(path: Path, side: int) -> bytes:
    try:
        image = shrink(decode(path.read_bytes()), side)
    except (ImageError, OSError) as error:
        raise DataError(f"`{path}`: {error}; replace or remove the file") from error
    buffer = io.BytesIO()
    if path.suffix.lower() in (".jpg", ".jpeg"):
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()
