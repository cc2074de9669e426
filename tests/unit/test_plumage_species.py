from __future__ import annotations

from itertools import combinations

import pytest

from train.data.plumage.habitats import HABITATS
from train.data.plumage.objects import OBJECTS
from train.data.plumage.outliers import OUTLIERS
from train.data.plumage.scenes import home
from train.data.plumage.species import (
    BREASTS,
    COLOURS,
    FACES,
    GENERA,
    SPECIES,
    TAILS,
    differences,
    held_out,
    known,
    species_of,
)


def test_there_are_four_species_in_each_of_six_genera() -> None:
    assert len(SPECIES) == 24
    assert [len(species_of(genus)) for genus in GENERA] == [4] * 6


@pytest.mark.parametrize("genus", GENERA)
def test_relatives_differ_in_two_to_five_marks_and_not_in_build(genus: str) -> None:
    for first, second in combinations(species_of(genus), 2):
        marks = differences(first, second)
        assert 2 <= len(marks) <= 5, (first, second, marks)
        assert "genus" not in marks


def test_species_of_different_genera_differ_in_build() -> None:
    for first, second in combinations(SPECIES, 2):
        same = SPECIES[first].genus == SPECIES[second].genus
        assert ("genus" in differences(first, second)) is not same


def test_every_attribute_is_one_that_is_drawn() -> None:
    for species in SPECIES.values():
        assert species.genus in GENERA
        assert {species.back, species.under, species.crown, species.legs} <= set(COLOURS)
        assert species.face in FACES
        assert species.breast in BREASTS
        assert species.tail in TAILS
        assert species.wing_bars in (0, 1, 2)


@pytest.mark.parametrize("values", [("face", FACES), ("breast", BREASTS), ("tail", TAILS)])
def test_every_mark_is_some_species(values: tuple[str, tuple[str, ...]]) -> None:
    name, marks = values
    assert {getattr(species, name) for species in SPECIES.values()} == set(marks)


def test_names_end_in_the_genus_and_can_be_folders() -> None:
    for name, species in SPECIES.items():
        assert name.endswith(f"_{species.genus}")
        assert name.replace("-", "").replace("_", "").isalpha()
        assert name == name.lower()


@pytest.mark.parametrize("seed", range(8))
def test_one_species_of_each_genus_is_held_out(seed: int) -> None:
    out = held_out(seed)
    assert [SPECIES[name].genus for name in out] == list(GENERA)
    assert len(known(seed)) == 18
    assert sorted((*out, *known(seed))) == sorted(SPECIES)


def test_the_seed_decides_which() -> None:
    assert held_out(3) == held_out(3)
    assert len({held_out(seed) for seed in range(20)}) > 10


def test_relatives_have_different_homes() -> None:
    for genus in GENERA:
        assert len({home(name) for name in species_of(genus)}) == 4
    assert {home(name) for name in SPECIES} == set(HABITATS)


def test_outliers_objects_and_birds_have_no_name_in_common() -> None:
    names = [*OUTLIERS, *OBJECTS, *HABITATS, *GENERA, *SPECIES]
    assert len(names) == len(set(names))
