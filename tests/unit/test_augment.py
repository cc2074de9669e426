from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from oodserve.images import Preprocessing
from train.data.augment import (
    Augmentation,
    DeviceAugmentation,
    build_augmentation,
    draw_seed,
)
from train.data.digits import enlarge
from train.data.ink import Pixels, redraw, trace, warp, wear
from train.recipes import AscoodAugment, AugmentRecipe, DigitsAugment, MixoeAugment, NoAugment

STILL = DigitsAugment(
    rotation_degrees=0,
    scale=(1, 1),
    aspect=1,
    shear_degrees=0,
    overhang=0,
    warp=0,
    pen_probability=0,
    ink_probability=0,
    thickness=(0, 0),
    blur_probability=0,
    noise=0,
)
"""Every knob at rest."""


def square(side: int) -> Preprocessing:
    return Preprocessing(
        height=side,
        width=side,
        resize="exact",
        resize_height=side,
        resize_width=side,
        interpolation="bilinear",
    )


def digit(index: int) -> Image.Image:
    return enlarge(load_digits().images[index]).convert("RGB")


def build(recipe: AugmentRecipe, side: int = 32) -> Augmentation:
    augmentation = build_augmentation(recipe, square(side))
    assert augmentation is not None
    assert not isinstance(augmentation, DeviceAugmentation)
    return augmentation


PRESETS: list[AugmentRecipe] = [DigitsAugment(), MixoeAugment(resize=64), AscoodAugment()]


@pytest.mark.parametrize("recipe", PRESETS, ids=lambda recipe: recipe.preset)
class TestEveryPreset:
    def test_equal_generators_give_equal_pixels(self, recipe: AugmentRecipe) -> None:
        augmentation, image = build(recipe), digit(3)
        first, again, other = (
            augmentation(image, np.random.default_rng(seed)).tobytes() for seed in (0, 0, 1)
        )
        assert first == again
        assert first != other

    def test_the_result_has_the_models_size(self, recipe: AugmentRecipe) -> None:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), np.uint8))
        augmented = build(recipe, 24)(image, np.random.default_rng(0))
        assert (augmented.mode, augmented.size) == ("RGB", (24, 24))

    def test_the_picture_and_the_global_generators_are_left_alone(
        self, recipe: AugmentRecipe
    ) -> None:
        image = digit(5)
        before, torch_state = image.tobytes(), torch.get_rng_state()
        build(recipe)(image, np.random.default_rng(0))
        assert image.tobytes() == before
        assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("preset", [MixoeAugment, AscoodAugment])
def test_the_device_augments_by_the_draws_of_the_host(
    preset: type[MixoeAugment] | type[AscoodAugment],
) -> None:
    sizes, size = [(50, 80), (64, 41), (90, 90)], 32
    # Smooth pictures: what differs between two ways of resizing is then a level or two.
    pictures = [
        np.stack([np.add.outer(np.arange(h), np.arange(w)) * c % 200 for c in (1, 0.5, 0.7)], -1)
        for h, w in sizes
    ]
    arrays = [np.asarray(picture, dtype=np.uint8) for picture in pictures]
    on_device = build_augmentation(preset(where="device"), square(size))
    assert isinstance(on_device, DeviceAugmentation)
    before = torch.get_rng_state()
    found = on_device(
        torch.from_numpy(np.concatenate([array.ravel() for array in arrays])),
        torch.tensor(sizes),
        torch.tensor([draw_seed(np.random.default_rng(seed)) for seed in range(3)]),
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert (found.shape, found.dtype) == ((3, size, size, 3), torch.uint8)
    for seed, (array, got) in enumerate(zip(arrays, found.numpy(), strict=True)):
        expected = np.asarray(
            build(preset(), size)(Image.fromarray(array), np.random.default_rng(seed))
        )
        difference = np.abs(expected.astype(int) - got.astype(int))
        assert np.median(difference) <= 1
        assert np.quantile(difference, 0.9) <= 3


def test_none_is_none() -> None:
    assert build_augmentation(NoAugment(), square(8)) is None


def test_mixoe_jitters_and_mirrors_a_crop() -> None:
    left_to_right = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    image = Image.fromarray(np.stack([left_to_right] * 3, axis=-1))
    augmentation = build(MixoeAugment(resize=64, brightness=0, saturation=0), 48)
    rises = []
    for seed in range(30):
        pixels = np.asarray(augmentation(image, np.random.default_rng(seed)), dtype=int)
        steps = np.diff(pixels[0, :, 0])
        assert set(np.abs(steps)) == {3}
        rises.append(steps[0] > 0)
    assert 5 < sum(rises) < 25


def test_ascood_takes_a_part() -> None:
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).resize((64, 64))
    ranges = [
        int(np.ptp(np.asarray(build(AscoodAugment())(image.convert("RGB"), rng))))
        for rng in map(np.random.default_rng, range(20))
    ]
    assert min(ranges) < 150 < 200 < max(ranges)


def test_digits_at_rest_change_nothing() -> None:
    image = digit(0)
    assert build(STILL)(image, np.random.default_rng(0)).tobytes() == image.tobytes()


def moved(image: Image.Image, seed: int = 0, **knobs: object) -> Pixels:
    settings = STILL.model_copy(update=knobs)
    return warp(image, np.random.default_rng(seed), settings=settings)


def test_scale_is_about_the_centre_and_shift_stays_inside() -> None:
    dot = Image.new("RGB", (40, 40))
    dot.paste((255, 255, 255), (10, 10, 30, 30))
    for seed in range(20):
        rows, columns = np.nonzero(moved(dot, seed, scale=(0.5, 0.5))[..., 0] > 127)
        assert np.ptp(rows) == pytest.approx(9, abs=1)
        # The picture is half as large and may lie anywhere, so its middle may move by a quarter.
        assert 5 <= rows.min() <= rows.max() <= 34
        assert 5 <= columns.min() <= columns.max() <= 34


def test_rotation_turns_by_at_most_its_angle() -> None:
    bar = Image.new("RGB", (64, 64))
    bar.paste((255, 255, 255), (4, 30, 60, 34))
    angles = []
    for seed in range(30):
        pixels = moved(bar, seed, rotation_degrees=20.0)[..., 0]
        rows, columns = np.nonzero(pixels > 127)
        angles.append(np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0])))
    assert max(np.abs(angles)) < 22
    assert min(angles) < -10
    assert max(angles) > 10


def test_the_border_is_continued_in_the_colour_of_the_corners() -> None:
    image = Image.new("RGB", (20, 20), (10, 20, 30))
    image.putpixel((0, 0), (255, 255, 255))
    image.paste((200, 0, 0), (8, 8, 12, 12))
    pixels = moved(image, scale=(0.5, 0.5))
    assert pixels[-1, -1].tolist() == [10, 20, 30]
    assert pixels[0, 0].tolist() == [10, 20, 30]


def stroke_width(pixels: Pixels) -> float:
    return float(pixels[16, :, 0].astype(float).sum() / 255)


@pytest.mark.parametrize(("share", "width"), [(-2 / 32, 2), (-0.5 / 32, 5), (0, 6), (1 / 32, 8)])
def test_thickness_moves_both_edges(share: float, width: float) -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:, 10:16] = 255
    settings = STILL.model_copy(update={"thickness": (share, share)})
    redrawn = redraw(image, np.random.default_rng(0), settings=settings)
    assert stroke_width(redrawn) == pytest.approx(width, abs=0.1)


@pytest.mark.parametrize("thickness", [3, 6, 12])
def test_tracing_keeps_the_middle_of_a_stroke(thickness: int) -> None:
    image = np.zeros((32, 32, 1), dtype=np.uint8)
    image[:, 10 : 10 + thickness] = 255
    traced = trace(image)
    middle = traced[12:20, :, 0].astype(float)
    assert 1 <= middle.sum(axis=1).max() / 255 <= 3.1
    centre = (middle * np.arange(32)).sum() / middle.sum()
    assert centre == pytest.approx(10 + (thickness - 1) / 2, abs=0.6)


def test_tracing_keeps_a_ring_whole() -> None:
    rows, columns = np.mgrid[:32, :32] - 15.5
    ring = (np.abs(np.hypot(rows, columns) - 9) < 3).astype(np.uint8) * 255
    traced = trace(ring[..., None])[..., 0]
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    along = [
        traced[round(15.5 + 9 * np.sin(a)) - 1 :, round(15.5 + 9 * np.cos(a)) - 1 :][:3, :3].max()
        for a in angles
    ]
    assert min(along) > 127
    assert traced[15, 15] == 0
    assert (traced > 127).sum() < 0.5 * (ring > 127).sum()


def test_tracing_ends_for_a_picture_without_ground() -> None:
    assert trace(np.full((16, 16, 1), 255, dtype=np.uint8)).min() > 200


@pytest.mark.parametrize("pen", [0.0, 1.0])
def test_channels_are_redrawn_each_by_itself(pen: float) -> None:
    settings = DigitsAugment(pen_probability=pen)
    grey = np.asarray(digit(4))
    coloured = np.stack([grey[..., 0], np.asarray(digit(7))[..., 0], grey[..., 0]], axis=-1)
    first, second = (
        redraw(pixels, np.random.default_rng(0), settings=settings) for pixels in (grey, coloured)
    )
    assert first.shape == second.shape == (32, 32, 3)
    assert np.array_equal(first[..., 0], second[..., 0])
    assert not np.array_equal(second[..., 0], second[..., 1])


def test_the_ink_level_sets_the_edge_and_keeps_black_black() -> None:
    image = np.asarray(digit(0))
    means = []
    for level in (0.3, 0.5, 0.7):
        settings = STILL.model_copy(
            update={"ink_probability": 1.0, "ink_level": (level, level), "ink_gain": (8.0, 8.0)}
        )
        redrawn = redraw(image, np.random.default_rng(0), settings=settings)
        assert (redrawn.min(), redrawn.max()) == (0, 255)
        means.append(redrawn.mean())
    assert means[0] > means[1] > means[2]


def test_the_softest_edge_neither_greys_the_ground_nor_fades_the_ink() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.stack([ramp] * 3, axis=-1)
    for level in (0.2, 0.8):
        settings = STILL.model_copy(
            update={"ink_probability": 1.0, "ink_level": (level, level), "ink_gain": (0.1, 0.1)}
        )
        redrawn = redraw(image, np.random.default_rng(0), settings=settings)
        assert redrawn.flat[0] == 0
        assert redrawn.flat[-1] == 255


def test_blur_keeps_the_amount_of_ink() -> None:
    image = np.zeros((9, 9, 3), dtype=np.uint8)
    image[4, 4] = 160
    settings = STILL.model_copy(update={"blur_probability": 1.0})
    worn = wear(image, np.random.default_rng(0), settings=settings)
    assert worn[3:6, 3:6, 0].tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
    assert worn.sum() == image.sum()


def test_noise_is_grey_and_bounded() -> None:
    image = np.full((32, 32, 3), 128, dtype=np.uint8)
    spreads = []
    for seed in range(20):
        settings = STILL.model_copy(update={"noise": 0.05})
        worn = wear(image, np.random.default_rng(seed), settings=settings)
        assert np.array_equal(worn[..., 0], worn[..., 2])
        spreads.append(worn[..., 0].std())
    assert max(spreads) < 0.05 * 255 * 1.1
    assert max(spreads) > 6 > 3 > min(spreads)


def test_augmented_digits_keep_their_ink_and_cover_what_is_drawn() -> None:
    augmentation = build(DigitsAugment())
    heights, widths = [], []
    for index in range(200):
        pixels = np.asarray(augmentation(digit(index), np.random.default_rng(index)))
        rows = np.nonzero(pixels[..., 0] > 100)[0]
        assert len(rows) > 15, index
        heights.append(np.ptp(rows) + 1)
        widths.append(np.median((pixels[..., 0] > 100).sum(axis=1)[rows.min() : rows.max() + 1]))
    assert min(heights) < 20
    assert max(heights) == 32
    # A pen of 20 pixels on a canvas of 280 is 2.3 of 32 wide, and a row crosses one stroke or two;
    # the scans have about three times as much ink.
    assert np.quantile(widths, 0.1) <= 4 < 9 < np.quantile(widths, 0.9)
