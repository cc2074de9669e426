"""Augmentation: a picture and a generator in, a picture of the model's size out.

The pixels depend on nothing but the picture and the generator's state; neither the picture that
comes in nor any global generator is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from oodserve.images import Preprocessing, preprocess
from train.data.ink import redraw, warp, wear
from train.recipes import AscoodAugment, AugmentRecipe, DigitsAugment, MixoeAugment
from train.vision import transforms

Augmentation = Callable[[Image.Image, np.random.Generator], Image.Image]
"""RGB picture of any size to RGB picture of the model's height and width."""


@dataclass(frozen=True)
class InkAugmentation:
    """Redraw a picture's ink, warp and wear it, then preprocess it as for serving."""

    settings: DigitsAugment
    preprocessing: Preprocessing

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the augmented picture."""
        # Ink before the warp, so that strokes are as thick as their picture is large.
        inked = redraw(np.asarray(image), rng, settings=self.settings)
        warped = warp(Image.fromarray(inked), rng, settings=self.settings)
        worn = wear(warped, rng, settings=self.settings)
        return Image.fromarray(preprocess(Image.fromarray(worn), self.preprocessing))


@dataclass(frozen=True)
class TorchvisionAugmentation:
    """A torchvision transform, which draws from torch's global generator, seeded for one call."""

    transform: transforms.Transform

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the augmented picture; torch's generator is as it was."""
        with _seeded(draw_seed(rng)):
            augmented: Image.Image = self.transform(image)
        return augmented


@dataclass(frozen=True)
class DeviceAugmentation:
    """The same transform on tensors, wherever they lie; its draws are those of the other.

    The numbers are drawn on the CPU from each picture's own seed, so neither the device nor how a
    batch is divided changes them. Pixels may differ by a level or two, since tensors are resized
    and coloured in another arithmetic than Pillow's.
    """

    transform: transforms.Transform

    def __call__(self, pixels: Tensor, sizes: Tensor, seeds: Tensor) -> Tensor:
        """Return the augmented pictures, (B, height, width, 3) uint8.

        Torch's generator is afterwards as it was.

        Parameters
        ----------
        pixels : (n,) uint8
            All pictures, one after the other, each (H, W, 3).
        sizes : (B, 2) int64
            Their H and W; on the CPU.
        seeds : (B,) int64
            From `draw_seed`; on the CPU.
        """
        rows = []
        shapes = sizes.tolist()
        parts = torch.split(pixels, [3 * height * width for height, width in shapes])
        for part, (height, width), seed in zip(parts, shapes, seeds.tolist(), strict=True):
            with _seeded(seed):
                rows.append(self.transform(part.reshape(height, width, 3).permute(2, 0, 1)))
        return torch.stack(rows).permute(0, 2, 3, 1)


def draw_seed(rng: np.random.Generator) -> int:
    """Return the seed of one picture's augmentation by torchvision."""
    return int(rng.integers(2**63))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator on the CPU for a moment; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would reseed the GPUs' generators as well.
        torch.default_generator.manual_seed(seed)
        yield


def build_augmentation(
    recipe: AugmentRecipe, preprocessing: Preprocessing
) -> Augmentation | DeviceAugmentation | None:
    """Return the augmentation that a recipe describes, or None for none.

    Parameters
    ----------
    recipe : AugmentRecipe
        The preset and its knobs.
    preprocessing : Preprocessing
        The model's input. ``digits`` ends with it; the papers' presets take only height and width
        from it, since their random crop stands in for it.
    """
    size = (preprocessing.height, preprocessing.width)
    if isinstance(recipe, DigitsAugment):
        return InkAugmentation(recipe, preprocessing)
    if isinstance(recipe, MixoeAugment):
        transform = _mixoe(recipe, size)
    elif isinstance(recipe, AscoodAugment):
        transform = _ascood(recipe, size)
    else:
        return None
    if recipe.where == "device":
        return DeviceAugmentation(transform)
    return TorchvisionAugmentation(transform)


def _mixoe(recipe: MixoeAugment, size: tuple[int, int]) -> transforms.Transform:
    return transforms.Compose(
        [
            transforms.Resize((recipe.resize, recipe.resize)),
            transforms.RandomCrop(size),
            transforms.RandomHorizontalFlip(recipe.flip_probability),
            transforms.ColorJitter(brightness=recipe.brightness, saturation=recipe.saturation),
        ]
    )


def _ascood(recipe: AscoodAugment, size: tuple[int, int]) -> transforms.Transform:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=recipe.area, ratio=recipe.aspect),
            transforms.RandomHorizontalFlip(recipe.flip_probability),
        ]
    )
