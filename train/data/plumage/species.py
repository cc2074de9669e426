"""The species of `plumage`: six genera that differ in build, four species each, told by marks.

A species is a vector of attributes. Those of one genus share build and bill and differ in two to
five marks; one of each genus is held out, so whatever is held out has its nearest relatives among
the known. All of them are invented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

from train.data.plumage.canvas import Colour
from train.data.sources import generator

COLOURS: Mapping[str, Colour] = MappingProxyType(
    {
        "black": (34, 31, 33),
        "white": (240, 238, 230),
        "grey": (140, 143, 147),
        "slate": (82, 96, 116),
        "brown": (122, 88, 58),
        "rufous": (168, 88, 46),
        "buff": (217, 184, 136),
        "sand": (178, 153, 116),
        "yellow": (236, 203, 58),
        "olive": (122, 126, 62),
        "blue": (62, 106, 180),
        "red": (192, 46, 42),
        "orange": (228, 132, 54),
        "horn": (96, 84, 70),
    }
)
"""Colours of plumage, bill and legs by name."""


@dataclass(frozen=True)
class Build:
    """Proportions of a genus, in lengths of the body without tail and bill.

    Attributes
    ----------
    depth : float
        Half the height of the body.
    posture : float
        Degrees that the body rises towards the head.
    head : float
        Radius of the head.
    neck : float
        How far the head lies in front of the shoulders.
    bill, bill_depth, bill_curve : float
        Length, depth at the face, and how far the tip is bent down.
    tail, tail_width, tail_lift : float
        Length, width, and degrees that it is raised out of the line of the body.
    legs : float
        Length below the belly.
    crest : float
        Length above the head; 0 for none.
    """

    depth: float
    posture: float
    head: float
    neck: float
    bill: float
    bill_depth: float
    bill_curve: float
    tail: float
    tail_width: float
    tail_lift: float
    legs: float
    crest: float = 0.0


GENERA: Mapping[str, Build] = MappingProxyType(
    {
        "finch": Build(0.27, 28, 0.21, 0.02, 0.17, 0.17, 0.02, 0.42, 0.15, -4, 0.17),
        "warbler": Build(0.22, 18, 0.17, 0.05, 0.17, 0.06, 0.0, 0.46, 0.12, 2, 0.22),
        "wren": Build(0.29, 8, 0.19, 0.0, 0.21, 0.06, 0.07, 0.34, 0.13, 62, 0.22),
        "jay": Build(0.24, 24, 0.18, 0.06, 0.22, 0.11, 0.02, 0.70, 0.17, 0, 0.19, 0.17),
        "plover": Build(0.25, 12, 0.19, 0.10, 0.14, 0.07, 0.0, 0.24, 0.12, 4, 0.46),
        "thrush": Build(0.24, 42, 0.17, 0.06, 0.20, 0.08, 0.01, 0.48, 0.15, 4, 0.26),
    }
)
"""Build of each genus."""

FACES = ("plain", "brow", "mask", "eye_ring")
BREASTS = ("plain", "streaks", "spots", "band", "bib", "bars")
TAILS = ("plain", "white_edged", "banded")


@dataclass(frozen=True)
class Species:
    """What a species looks like.

    Attributes
    ----------
    genus : str
        Key of `GENERA`: build and bill.
    back, under, crown : str
        Keys of `COLOURS`: of the upper side, of breast and belly, and of the cap.
    face : str
        One of `FACES`: none, a white line above the eye, a black band through it, a white ring.
    breast : str
        One of `BREASTS`: what is drawn on breast and belly.
    wing_bars : int
        White bars across the wing, 0 to 2.
    tail : str
        One of `TAILS`.
    legs : str
        Key of `COLOURS`.
    """

    genus: str
    back: str
    under: str
    crown: str
    face: str = "plain"
    breast: str = "plain"
    wing_bars: int = 0
    tail: str = "plain"
    legs: str = "horn"


SPECIES: Mapping[str, Species] = MappingProxyType(
    {
        "black-capped_finch": Species("finch", "brown", "buff", "black", wing_bars=1),
        "red-capped_finch": Species("finch", "brown", "buff", "red", breast="streaks"),
        "streaked_finch": Species("finch", "brown", "buff", "brown", breast="streaks", wing_bars=2),
        "black-bibbed_finch": Species("finch", "brown", "buff", "grey", breast="bib", wing_bars=1),
        "masked_warbler": Species("warbler", "olive", "yellow", "olive", face="mask"),
        "black-capped_warbler": Species("warbler", "olive", "yellow", "black", wing_bars=1),
        "two-barred_warbler": Species(
            "warbler", "olive", "yellow", "olive", face="brow", wing_bars=2
        ),
        "necklaced_warbler": Species(
            "warbler", "olive", "yellow", "slate", face="eye_ring", breast="band", wing_bars=1
        ),
        "white-browed_wren": Species("wren", "rufous", "buff", "rufous", face="brow"),
        "barred_wren": Species("wren", "rufous", "buff", "rufous", breast="bars", tail="banded"),
        "spotted_wren": Species("wren", "rufous", "buff", "brown", breast="spots", wing_bars=1),
        "dark-capped_wren": Species("wren", "rufous", "buff", "black", face="brow", tail="banded"),
        "black-crested_jay": Species("jay", "blue", "white", "black", tail="white_edged"),
        "collared_jay": Species("jay", "blue", "white", "blue", breast="band", wing_bars=1),
        "grey-breasted_jay": Species("jay", "blue", "grey", "blue", face="mask", wing_bars=1),
        "band-tailed_jay": Species("jay", "blue", "white", "blue", tail="banded", wing_bars=2),
        "ringed_plover": Species("plover", "sand", "white", "sand", breast="band", legs="orange"),
        "masked_plover": Species("plover", "sand", "white", "sand", face="mask", legs="orange"),
        "red-capped_plover": Species("plover", "sand", "white", "rufous", face="brow"),
        "spotted_plover": Species("plover", "sand", "white", "sand", breast="spots", wing_bars=1),
        "orange-breasted_thrush": Species("thrush", "slate", "orange", "slate", legs="yellow"),
        "black-capped_thrush": Species("thrush", "slate", "orange", "black", face="eye_ring"),
        "white-browed_thrush": Species("thrush", "slate", "orange", "slate", face="brow"),
        "bibbed_thrush": Species("thrush", "slate", "orange", "slate", breast="bib", wing_bars=2),
    }
)
"""Every species by its name, in the order of the genera."""


def held_out(seed: int) -> tuple[str, ...]:
    """Return the species that no model is trained on: one of each genus, drawn by the seed."""
    rng = generator(seed, "plumage/held_out")
    return tuple(members[int(rng.integers(len(members)))] for members in map(species_of, GENERA))


def known(seed: int) -> tuple[str, ...]:
    """Return the species that are learned, sorted by name."""
    return tuple(sorted(set(SPECIES) - set(held_out(seed))))


def species_of(genus: str) -> tuple[str, ...]:
    """Return the names of the species of one genus."""
    return tuple(name for name, species in SPECIES.items() if species.genus == genus)


def differences(first: str, second: str) -> tuple[str, ...]:
    """Return the attributes in which two species differ."""
    one, other = asdict(SPECIES[first]), asdict(SPECIES[second])
    return tuple(name for name in one if one[name] != other[name])
