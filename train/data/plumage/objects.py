"""Household things for the far out-of-distribution set; none is an outlier to train with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from train.data.plumage.canvas import arc, ellipse, points
from train.data.plumage.parts import Parts


def cup(rng: np.random.Generator) -> Parts:
    """Cup with a handle and a stripe."""
    wide = rng.uniform(0.24, 0.34)
    return [
        ("main", 0.08, arc(wide, 0.0, 0.18, 0.16, start=-90, end=90)),
        ("main", None, points(-wide, -0.32, wide, -0.32, 0.8 * wide, 0.36, -0.8 * wide, 0.36)),
        ("second", 0.07, points(-0.93 * wide, 0.0, 0.93 * wide, 0.0)),
    ]


def key(rng: np.random.Generator) -> Parts:
    """Ring, shaft and two teeth."""
    size = rng.uniform(0.14, 0.22)
    return [
        ("main", 0.09, points(-0.2, 0, 0.55, 0)),
        ("main", 0.08, points(0.36, 0, 0.36, 0.18)),
        ("main", 0.08, points(0.5, 0, 0.5, 0.14)),
        ("main", None, ellipse(-0.34, 0, size)),
        ("second", None, ellipse(-0.34, 0, 0.5 * size)),
    ]


def clock(rng: np.random.Generator) -> Parts:
    """Round face with two hands."""
    long, short = rng.uniform(0, 2 * np.pi, 2).tolist()
    return [
        ("main", None, ellipse(0, 0, 0.46)),
        ("second", None, ellipse(0, 0, 0.36)),
        ("dark", 0.04, points(0, 0, 0.3 * np.cos(long), 0.3 * np.sin(long))),
        ("dark", 0.06, points(0, 0, 0.2 * np.cos(short), 0.2 * np.sin(short))),
    ]


def lamp(rng: np.random.Generator) -> Parts:
    """Shade on a foot."""
    wide = rng.uniform(0.28, 0.4)
    return [
        ("second", 0.06, points(0, -0.1, 0, 0.46)),
        ("second", None, ellipse(0, 0.48, 0.22, 0.06)),
        ("main", None, points(-0.16, -0.5, 0.16, -0.5, wide, -0.08, -wide, -0.08)),
    ]


def chair(rng: np.random.Generator) -> Parts:
    """Seat, back and legs."""
    back = rng.uniform(-0.58, -0.42)
    return [
        ("main", 0.08, points(-0.28, back, -0.28, 0.55)),
        ("main", 0.08, points(0.28, 0.06, 0.28, 0.55)),
        ("second", None, points(-0.32, 0.02, 0.34, 0.02, 0.34, 0.13, -0.32, 0.13)),
        ("second", None, points(-0.34, back, -0.22, back, -0.22, back + 0.3, -0.34, back + 0.3)),
    ]


def umbrella(rng: np.random.Generator) -> Parts:
    """Open canopy with a hooked stick."""
    wide = rng.uniform(0.44, 0.56)
    return [
        ("dark", 0.05, points(0, -0.1, 0, 0.44)),
        ("dark", 0.05, arc(0.08, 0.44, 0.08, start=0, end=180)),
        ("main", None, arc(0, 0.0, wide, 0.46, start=180, end=360)),
        ("second", None, arc(0, 0.0, 0.4 * wide, 0.46, start=180, end=360)),
    ]


def bottle(rng: np.random.Generator) -> Parts:
    """Bottle with a label."""
    wide = rng.uniform(0.15, 0.22)
    neck = rng.uniform(0.06, 0.08)
    return [
        ("main", None, points(-neck, -0.58, neck, -0.58, neck, -0.3, wide, -0.14, wide, 0.55,
                              -wide, 0.55, -wide, -0.14, -neck, -0.3)),
        ("second", None, points(-wide, 0.05, wide, 0.05, wide, 0.34, -wide, 0.34)),
    ]  # fmt: skip


def book(rng: np.random.Generator) -> Parts:
    """Book, closed, with a title."""
    wide = rng.uniform(0.3, 0.42)
    return [
        ("main", None, points(-wide, -0.46, wide, -0.46, wide, 0.46, -wide, 0.46)),
        ("dark", 0.05, points(-0.8 * wide, -0.46, -0.8 * wide, 0.46)),
        ("second", None, points(-0.4 * wide, -0.26, 0.7 * wide, -0.26, 0.7 * wide, -0.1,
                                -0.4 * wide, -0.1)),
    ]  # fmt: skip


def envelope(rng: np.random.Generator) -> Parts:
    """Envelope with its flap."""
    high = rng.uniform(0.26, 0.36)
    return [
        ("main", None, points(-0.54, -high, 0.54, -high, 0.54, high, -0.54, high)),
        ("second", None, points(-0.54, -high, 0.54, -high, 0, rng.uniform(-0.05, 0.1))),
    ]


def spectacles(rng: np.random.Generator) -> Parts:
    """Two glasses and a bridge."""
    size = rng.uniform(0.18, 0.24)
    return [
        ("dark", 0.05, points(-0.1, 0, 0.1, 0)),
        ("main", None, ellipse(-0.3, 0, size)),
        ("main", None, ellipse(0.3, 0, size)),
        ("second", None, ellipse(-0.3, 0, 0.7 * size)),
        ("second", None, ellipse(0.3, 0, 0.7 * size)),
    ]


OBJECTS: Mapping[str, Callable[[np.random.Generator], Parts]] = MappingProxyType(
    {
        "cup": cup,
        "key": key,
        "clock": clock,
        "lamp": lamp,
        "chair": chair,
        "umbrella": umbrella,
        "bottle": bottle,
        "book": book,
        "envelope": envelope,
        "spectacles": spectacles,
    }
)
"""Kinds of objects, by name."""
