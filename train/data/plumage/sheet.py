"""A page of examples: two birds of each species, and some of every other set."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from train.data.plumage.objects import OBJECTS
from train.data.plumage.outliers import OUTLIERS
from train.data.plumage.species import GENERA, held_out, species_of
from train.data.plumage.writing import Task, draw

_SIDE, _GAP, _TEXT = 96, 8, 18
_SPECIES_ACROSS, _THINGS_ACROSS = 4, 7
_WIDTH = _GAP + _SPECIES_ACROSS * (2 * _SIDE + _GAP)
_ROW = _SIDE + _TEXT + _GAP


def contact_sheet(seed: int) -> Image.Image:
    """Draw the first images of the data set of a seed, a genus in each row; mode RGB.

    Held-out species are marked by an asterisk. Below them are scenes without a bird, objects and
    outliers to train with.
    """
    things = _things()
    sheet = Image.new("RGB", (_WIDTH, _GAP + (len(GENERA) + len(things)) * _ROW), (255, 255, 255))
    for row, genus in enumerate(GENERA):
        for column, name in enumerate(species_of(genus)):
            left, top = _GAP + column * (2 * _SIDE + _GAP), _GAP + row * _ROW
            out = name in held_out(seed)
            split = "ood/held_out" if out else "train"
            for number in range(2):
                _paste(sheet, Task(split, name, number), seed, left + number * _SIDE, top)
            _write(sheet, f"{name} *" if out else name, left, top + _SIDE)
    for row, (title, tasks) in enumerate(things.items(), start=len(GENERA)):
        top = _GAP + row * _ROW
        for column, task in enumerate(tasks):
            step = (_WIDTH - 2 * _GAP - _SIDE) // (_THINGS_ACROSS - 1)
            _paste(sheet, task, seed, _GAP + column * step, top)
        _write(sheet, title, _GAP, top + _SIDE)
    return sheet


def _things() -> dict[str, list[Task]]:
    objects, outliers = list(OBJECTS)[:_THINGS_ACROSS], list(OUTLIERS)
    titled = {
        "ood/background": [Task("ood/background", "", number) for number in range(_THINGS_ACROSS)],
        "ood/objects": [Task("ood/objects", kind, at) for at, kind in enumerate(objects)],
    }
    rows = [outliers[:_THINGS_ACROSS], outliers[_THINGS_ACROSS:]]
    for start, kinds in enumerate(rows):
        tasks = [
            Task("outliers", kind, start * _THINGS_ACROSS + at) for at, kind in enumerate(kinds)
        ]
        titled["outliers" if start == 0 else "outliers, continued"] = tasks
    return titled


def _paste(sheet: Image.Image, task: Task, seed: int, left: int, top: int) -> None:
    image, _ = draw(task, seed=seed, side=_SIDE, correlation=0.0)
    sheet.paste(image, (left, top))


def _write(sheet: Image.Image, text: str, left: int, top: int) -> None:
    font = ImageFont.load_default(size=13)
    ImageDraw.Draw(sheet).text((left, top + 1), text, fill=(40, 40, 44), font=font)
