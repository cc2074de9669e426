"""Augmentation: a picture and a generator in, a picture of the model's size out.

The pixels depend on nothing but the picture and the generator's state; neither the picture that
comes in nor any global generator is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

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
        seed = int(rng.integers(2**63))
        with torch.random.fork_rng(devices=[]):
            # Not `torch.manual_seed`, which would reseed the GPUs' generators as well.
            torch.default_generator.manual_seed(seed)
            augmented: Image.Image = self.transform(image)
        return augmented


def build_augmentation(recipe: AugmentRecipe, preprocessing: Preprocessing) -> Augmentation | None:
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
        return TorchvisionAugmentation(_mixoe(recipe, size))
    if isinstance(recipe, AscoodAugment):
        return TorchvisionAugmentation(_ascood(recipe, size))
    return None


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
