"""Outliers to train with: animals, vehicles, plants and shapes; no birds, none of the objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from train.data.plumage.canvas import arc, ellipse, points, smooth
from train.data.plumage.parts import Parts


def fish(rng: np.random.Generator) -> Parts:
    """Side view with tail fin."""
    deep = rng.uniform(0.16, 0.3)
    return [
        ("second", None, points(-0.3, 0, -0.62, -0.22, -0.54, 0, -0.62, 0.22)),
        ("second", None, points(0.1, -deep * 0.8, -0.2, -deep - 0.14, -0.22, -deep * 0.6)),
        ("main", None, ellipse(0, 0, 0.45, deep)),
        ("second", 0.04, arc(0.18, 0, 0.08, deep * 0.8, start=-80, end=80)),
        ("dark", None, ellipse(0.32, -0.05, 0.035)),
    ]


def butterfly(rng: np.random.Generator) -> Parts:
    """Four open wings from above."""
    wide = rng.uniform(0.2, 0.3)
    wings: Parts = []
    for sign in (-1, 1):
        upper = ellipse(sign * wide, -0.18, wide, 0.2, degrees=-35 * sign)
        lower = ellipse(sign * wide * 0.8, 0.2, wide * 0.75, 0.16, degrees=40 * sign)
        wings += [("main", None, upper), ("second", None, lower)]
        wings += [("dark", None, ellipse(sign * wide * 1.2, -0.22, 0.05))]
    return [*wings, ("dark", 0.06, points(0, -0.3, 0, 0.3))]


def snail(rng: np.random.Generator) -> Parts:
    """Shell with a spiral on a long foot."""
    turn = np.linspace(0, rng.uniform(4, 5.5) * np.pi, 60)
    radius = 0.26 * (1 - turn / turn[-1])
    coil = np.stack([-0.08 + radius * np.cos(turn), -0.06 + radius * np.sin(turn)], axis=1)
    return [
        ("second", None, smooth(points(-0.6, 0.3, -0.2, 0.16, 0.4, 0.1, 0.55, -0.1, 0.62, 0.3))),
        ("second", 0.03, points(0.54, -0.06, 0.62, -0.32)),
        ("main", None, ellipse(-0.08, -0.06, 0.3)),
        ("dark", 0.04, coil),
    ]


def cat(rng: np.random.Generator) -> Parts:
    """Four-legged animal with ears and a raised tail."""
    legs: Parts = [
        ("main", 0.09, points(x, 0.1, x + rng.uniform(-0.05, 0.05), 0.5))
        for x in (-0.34, -0.22, 0.2, 0.32)
    ]
    tail = smooth(points(-0.4, 0, -0.6, -0.1, -0.55, -0.35, -0.68, -0.5), closed=False)
    return [
        ("main", 0.07, tail),
        *legs,
        ("main", None, ellipse(-0.02, 0.02, 0.42, 0.17)),
        ("main", None, points(0.3, -0.3, 0.33, -0.48, 0.42, -0.36, 0.52, -0.48, 0.54, -0.28)),
        ("main", None, ellipse(0.42, -0.2, 0.15)),
        ("second", None, ellipse(0.47, -0.15, 0.06)),
    ]


def turtle(rng: np.random.Generator) -> Parts:
    """Domed shell on four feet."""
    high = rng.uniform(0.3, 0.42)
    feet: Parts = [("second", 0.12, points(x, 0.1, x, 0.32)) for x in (-0.3, 0.28)]
    ribs: Parts = [("dark", 0.03, points(x, 0.1, x * 0.6, 0.12 - high)) for x in (-0.25, 0, 0.25)]
    return [
        *feet,
        ("second", None, ellipse(0.55, 0.02, 0.14, 0.11)),
        ("main", None, arc(0, 0.14, 0.45, high, start=180, end=360)),
        *ribs,
    ]


def beetle(rng: np.random.Generator) -> Parts:
    """Six legs and two wing cases from above."""
    legs: Parts = [
        ("dark", 0.035, points(0, y, sign * 0.3, y + lift, sign * 0.4, y + 2.2 * lift))
        for sign in (-1, 1)
        for y, lift in ((-0.1, -0.1), (0.08, 0.02), (0.22, 0.1))
    ]
    return [
        *legs,
        ("second", None, ellipse(0, -0.32, 0.16, 0.13)),
        ("main", None, ellipse(0, 0.05, rng.uniform(0.2, 0.28), 0.34)),
        ("dark", 0.03, points(0, -0.26, 0, 0.38)),
    ]


def car(rng: np.random.Generator) -> Parts:
    """Side view on two wheels."""
    roof = rng.uniform(-0.34, -0.22)
    return [
        ("main", None, points(-0.34, -0.04, -0.2, roof, 0.16, roof, 0.34, -0.04)),
        ("second", None, points(-0.22, -0.06, -0.14, roof + 0.06, 0.1, roof + 0.06, 0.2, -0.06)),
        ("main", None, points(-0.58, -0.06, 0.5, -0.06, 0.6, 0.06, 0.6, 0.2, -0.6, 0.2)),
        ("dark", None, ellipse(-0.34, 0.22, 0.13)),
        ("dark", None, ellipse(0.34, 0.22, 0.13)),
    ]


def sailboat(rng: np.random.Generator) -> Parts:
    """Hull, mast and two sails."""
    mast = rng.uniform(-0.06, 0.08)
    return [
        ("main", None, points(-0.5, 0.22, 0.55, 0.22, 0.36, 0.46, -0.36, 0.46)),
        ("dark", 0.03, points(mast, 0.22, mast, -0.58)),
        ("second", None, points(mast + 0.04, -0.52, mast + 0.44, 0.14, mast + 0.04, 0.14)),
        ("second", None, points(mast - 0.04, -0.4, mast - 0.36, 0.14, mast - 0.04, 0.14)),
    ]


def balloon(rng: np.random.Generator) -> Parts:
    """Hot-air balloon with its basket."""
    wide = rng.uniform(0.32, 0.4)
    return [
        ("main", None, ellipse(0, -0.16, wide, 0.4)),
        ("second", None, ellipse(0, -0.16, wide * 0.4, 0.4)),
        ("dark", 0.02, points(-0.14, 0.2, -0.08, 0.42)),
        ("dark", 0.02, points(0.14, 0.2, 0.08, 0.42)),
        ("dark", None, points(-0.1, 0.42, 0.1, 0.42, 0.08, 0.56, -0.08, 0.56)),
    ]


def house(rng: np.random.Generator) -> Parts:
    """Gable, door and window."""
    ridge = rng.uniform(-0.56, -0.4)
    return [
        ("main", None, points(-0.4, -0.08, 0.4, -0.08, 0.4, 0.48, -0.4, 0.48)),
        ("second", None, points(-0.52, -0.06, 0, ridge, 0.52, -0.06)),
        ("dark", None, points(-0.1, 0.48, -0.1, 0.16, 0.1, 0.16, 0.1, 0.48)),
        ("second", None, points(0.18, 0.06, 0.32, 0.06, 0.32, 0.2, 0.18, 0.2)),
    ]


def mushroom(rng: np.random.Generator) -> Parts:
    """Spotted cap on a stem."""
    wide = rng.uniform(0.38, 0.5)
    spots: Parts = [
        ("second", None, ellipse(x * wide, y, 0.055))
        for x, y in ((-0.5, -0.2), (0, -0.3), (0.5, -0.18))
    ]
    return [
        ("second", None, points(-0.12, -0.1, 0.12, -0.1, 0.16, 0.5, -0.16, 0.5)),
        ("main", None, arc(0, -0.02, wide, 0.42, start=180, end=360)),
        *spots,
    ]


def flower(rng: np.random.Generator) -> Parts:
    """Petals round a disc, on a stalk."""
    count = int(rng.integers(5, 10))
    petals: Parts = []
    for angle in 360 * np.arange(count) / count:
        away = 0.26 * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
        petal = ellipse(float(away[0]), float(away[1]) - 0.15, 0.2, 0.1, degrees=float(angle))
        petals.append(("main", None, petal))
    return [("dark", 0.05, points(0, 0, 0.04, 0.65)), *petals,
            ("second", None, ellipse(0, -0.15, 0.14))]  # fmt: skip


def shards(rng: np.random.Generator) -> Parts:
    """Three to six polygons anywhere."""
    parts: Parts = []
    for number in range(int(rng.integers(3, 7))):
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 6))))
        around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        corners = rng.uniform(-0.35, 0.35, 2) + rng.uniform(0.12, 0.35) * around
        parts.append((("main", "second", "dark")[number % 3], None, corners))
    return parts


def ribbons(rng: np.random.Generator) -> Parts:
    """Two to four broad curves."""
    return [
        (
            ("main", "second", "dark")[number % 3],
            rng.uniform(0.05, 0.14),
            smooth(rng.uniform(-0.55, 0.55, (5, 2)), closed=False),
        )
        for number in range(int(rng.integers(2, 5)))
    ]


OUTLIERS: Mapping[str, Callable[[np.random.Generator], Parts]] = MappingProxyType(
    {
        "fish": fish,
        "butterfly": butterfly,
        "snail": snail,
        "cat": cat,
        "turtle": turtle,
        "beetle": beetle,
        "car": car,
        "sailboat": sailboat,
        "balloon": balloon,
        "house": house,
        "mushroom": mushroom,
        "flower": flower,
        "shards": shards,
        "ribbons": ribbons,
    }
)
"""Kinds of outliers to train with, by name."""
