from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from train.data.plumage.birds import Individual, draw_bird, draw_individual
from train.data.plumage.canvas import Canvas, Layer, Placement, arc, ellipse, points, smooth
from train.data.plumage.habitats import HABITATS
from train.data.plumage.objects import OBJECTS
from train.data.plumage.outliers import OUTLIERS
from train.data.plumage.parts import draw_parts
from train.data.plumage.scenes import bird_scene, draw_habitat, home, lit
from train.data.plumage.species import SPECIES, species_of
from train.data.plumage.things import object_scene, outlier_scene, studio
from train.data.sources import generator

MIDDLE = Placement(0.5, 0.5, 0.55)
COLOURS = {"main": (200, 60, 60), "second": (60, 200, 60), "dark": (60, 60, 200)}


def pixels(name: str | None, habitat: str, number: int, side: int = 64) -> NDArray[np.float64]:
    rng = generator(0, "test", number)
    return np.asarray(bird_scene(name, habitat, rng, side=side), dtype=np.float64)


def bird(name: str, side: int = 64, placement: Placement = MIDDLE) -> Layer:
    return draw_bird(SPECIES[name], Individual(), placement, side=side)


# The canvas.


def test_a_placement_turns_scales_mirrors_and_moves() -> None:
    # One unit forwards, turned by 90 degrees, points down.
    down = Placement(0.5, 0.25, 0.2, 90.0).apply(points(1, 0))
    assert down == pytest.approx(np.array([[0.5, 0.45]]))
    left = Placement(0.5, 0.25, 0.2, 0.0, mirrored=True).apply(points(1, 0.5))
    assert left == pytest.approx(np.array([[0.3, 0.35]]))


@pytest.mark.parametrize("side", [32, 64, 224])
def test_areas_are_as_large_as_they_should_be(side: int) -> None:
    canvas = Canvas(side, Placement(0.5, 0.5, 0.8))
    canvas.paint(canvas.area(ellipse(0.0, 0.0, 0.5, 0.25, degrees=30)), (255, 0, 128))
    layer = canvas.layer()
    share = float(layer.alpha.mean())
    assert share == pytest.approx(math.pi * 0.5 * 0.25 * 0.8**2, rel=0.08)
    # The colour is multiplied by the alpha, to the rounding of 8 bits.
    assert layer.colour[..., :1] == pytest.approx(layer.alpha, abs=1 / 255)
    assert layer.colour[..., 1].max() == 0


def test_a_mark_stays_within_its_area() -> None:
    canvas = Canvas(64, MIDDLE)
    disc = canvas.area(ellipse(0, 0, 0.3))
    canvas.paint(disc, (0, 0, 0))
    before = canvas.layer().alpha
    canvas.paint(canvas.stroke(points(-2, 0, 2, 0), width=0.1), (255, 255, 255), disc)
    after = canvas.layer()
    assert np.array_equal(before, after.alpha)
    assert after.colour.max() == 1
    canvas.paint(canvas.area(ellipse(5, 5, 0.1)), (255, 255, 255))
    assert np.array_equal(canvas.layer().colour, after.colour)


def test_layers_cover_what_is_behind() -> None:
    alpha = np.array([[[1.0], [0.25]]], np.float32)
    layer = Layer(np.array([0.5, 0.0, 1.0], np.float32) * alpha, alpha)
    ground = np.full((1, 2, 3), 0.8, np.float32)
    expected = [[[0.5, 0.0, 1.0], [0.125 + 0.6, 0.6, 0.25 + 0.6]]]
    assert layer.over(ground) == pytest.approx(np.array(expected))


def test_curves_pass_through_their_corners() -> None:
    corners = points(0, 0, 1, 0, 1, 1, 0, 2)
    assert smooth(corners)[::6] == pytest.approx(corners)
    opened = smooth(corners, closed=False)
    assert opened[::6] == pytest.approx(corners)
    half = arc(1, 2, 3, start=0, end=180)
    assert half[[0, 16, -1]] == pytest.approx(points(4, 2, 1, 5, -2, 2))


# Birds.


def test_all_birds_are_drawn_differently() -> None:
    drawn = {name: bird(name).colour for name in SPECIES}
    for first, one in drawn.items():
        for second, other in drawn.items():
            if first < second:
                changed = np.abs(one - other).max(axis=2) > 0.15
                assert changed.sum() >= 8, (first, second)


@pytest.mark.parametrize("name", SPECIES)
def test_relatives_have_one_outline(name: str) -> None:
    first = species_of(SPECIES[name].genus)[0]
    assert bird(name).alpha == pytest.approx(bird(first).alpha)


def test_a_bird_is_mirrored_as_a_whole() -> None:
    right = bird("collared_jay", side=128)
    left = bird("collared_jay", 128, replace(MIDDLE, mirrored=True))
    assert np.abs(right.colour[:, ::-1] - left.colour).mean() < 0.01


def test_a_bird_is_the_same_at_every_size() -> None:
    small, large = bird("ringed_plover", 64), bird("ringed_plover", 256)
    reduced = large.colour.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - small.colour).mean() < 0.01


def test_worn_marks_are_paler_and_build_is_as_it_was() -> None:
    species = SPECIES["black-capped_warbler"]
    fresh, worn = (
        draw_bird(species, Individual(wear=wear), MIDDLE, side=64) for wear in (0.0, 0.8)
    )
    plain = draw_bird(replace(species, crown="olive", wing_bars=0), Individual(), MIDDLE, side=64)
    assert np.array_equal(fresh.alpha, worn.alpha)
    assert (
        np.abs(worn.colour - plain.colour).sum() < 0.5 * np.abs(fresh.colour - plain.colour).sum()
    )


def test_individuals_vary() -> None:
    drawn = [draw_individual(generator(0, "individual", number)) for number in range(300)]
    assert len(set(drawn)) == 300
    assert np.mean([one.posture for one in drawn]) == pytest.approx(0, abs=1.5)


def test_light_from_above_keeps_the_outline_and_stays_in_range() -> None:
    layer = bird("two-barred_warbler")
    brighter = lit(layer, 0.4)
    assert np.array_equal(layer.alpha, brighter.alpha)
    assert np.all(brighter.colour <= brighter.alpha)
    rows = np.flatnonzero(layer.alpha.max(axis=(1, 2)))
    ratio = brighter.colour.sum(axis=(1, 2)) / np.maximum(layer.colour.sum(axis=(1, 2)), 1e-6)
    assert ratio[rows[2]] > 1 > ratio[rows[-2]]
    empty = Layer(np.zeros_like(layer.colour), np.zeros_like(layer.alpha))
    assert lit(empty, 0.4) is empty


# Scenes.


@pytest.mark.parametrize("habitat", HABITATS)
def test_without_its_bird_a_scene_is_the_same_place(habitat: str) -> None:
    differing = pixels("orange-breasted_thrush", habitat, 3) != pixels(None, habitat, 3)
    share = differing.any(axis=2).mean()
    # The bird covers a part of the picture; nothing outside of it is touched.
    assert 0.05 < share < 0.4
    assert not differing[0].any()


@pytest.mark.parametrize("habitat", HABITATS)
@pytest.mark.parametrize("side", [32, 64, 224])
def test_habitats_are_textured_pictures(habitat: str, side: int) -> None:
    ground = HABITATS[habitat](np.random.default_rng(1), side)
    assert ground.shape == (side, side, 3)
    assert ground.dtype == np.float32
    assert 0 <= ground.min() <= ground.max() < 1.2
    assert ground.std(axis=(0, 1)).max() > 0.02


def test_a_place_is_the_same_at_every_size() -> None:
    for draw in HABITATS.values():
        small, large = (draw(np.random.default_rng(2), side) for side in (64, 256))
        reduced = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
        assert np.abs(reduced - small).mean() < 0.06


@pytest.mark.parametrize("correlation", [0.0, 0.6, 1.0])
def test_the_correlation_is_the_share_at_home(correlation: float) -> None:
    rng = np.random.default_rng(0)
    draws = [draw_habitat("masked_warbler", correlation, rng) for _ in range(2000)]
    at_home = np.mean([habitat == home("masked_warbler") for habitat in draws])
    # Those that are anywhere are at home by chance in one of eight.
    assert at_home == pytest.approx(correlation + (1 - correlation) / 8, abs=0.03)


def test_scenes_without_a_bird_have_no_home() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_habitat(None, 1.0, rng) for _ in range(1600)]
    assert {draws.count(name) for name in HABITATS} <= set(range(150, 250))


# Things.


@pytest.mark.parametrize("kind", [*OUTLIERS, *OBJECTS])
def test_every_kind_of_thing_is_drawn_in_the_frame(kind: str) -> None:
    draw = {**OUTLIERS, **OBJECTS}[kind]
    for number in range(3):
        parts = draw(generator(0, kind, number))
        assert max(np.abs(shape).max() for _, _, shape in parts) < 1
        layer = draw_parts(parts, MIDDLE, COLOURS, side=64, outline=0.0)
        assert 0.02 < layer.alpha.mean() < 0.5
        outlined = draw_parts(parts, MIDDLE, COLOURS, side=64, outline=0.05)
        assert outlined.alpha.mean() > layer.alpha.mean()


@pytest.mark.parametrize("side", [32, 64, 224])
def test_things_have_the_size_asked_for(side: int) -> None:
    for image in (
        outlier_scene("fish", "water", np.random.default_rng(0), side=side),
        object_scene("key", np.random.default_rng(0), side=side),
        bird_scene("spotted_wren", "reeds", np.random.default_rng(0), side=side),
    ):
        assert image.size == (side, side)
        assert image.mode == "RGB"


def test_the_studio_is_wall_and_table() -> None:
    ground = studio(np.random.default_rng(0), 64)
    assert ground.shape == (64, 64, 3)
    steps = np.abs(np.diff(ground[:, 0], axis=0)).max(axis=1)
    assert np.count_nonzero(steps > 0.05) <= 2
    assert np.array_equal(ground[:, 0], ground[:, -1])
