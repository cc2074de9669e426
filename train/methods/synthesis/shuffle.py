"""Outliers made from training images by shuffling the pixels that are typical of their class."""

from __future__ import annotations

import torch
from torch import Tensor

from oodserve.errors import RecipeError
from train.draw import Draw


def shuffled_outliers(images: Tensor, gradient: Tensor, *, share: float, draw: Draw) -> Tensor:
    r"""Return the images with their most salient pixels permuted among themselves.

    The saliency of a pixel is :math:`\sum_c e^{G_c}` over its channels: unlike a magnitude, it
    prefers pixels that speak for the true class. Whole pixels move, all channels together, by one
    uniformly random permutation for each image; some may stay where they are.

    Parameters
    ----------
    images : (B, C, H, W) float
    gradient : (B, C, H, W) float
        See `train.methods.synthesis.gradient.true_class_gradient`.
    share : float
        Part of the H * W pixels that are permuted, in (0, 1]; truncated to a whole number.
    draw : Draw

    Returns
    -------
    (B, C, H, W) float
        Detached from the graph.

    Raises
    ------
    RecipeError
        `share` of one image's pixels is less than two.

    References
    ----------
    ASCOOD (arXiv 2411.10794), its authors' invariant pixel shuffling.
    """
    pixels = images.detach().flatten(2)  # (B, C, H W)
    chosen = salient_pixels(gradient, share=share)
    order = draw.uniform(chosen.to(images.dtype)).argsort(dim=1, stable=True)
    channels = pixels.shape[1]
    places = chosen.unsqueeze(1).expand(-1, channels, -1)
    origins = chosen.gather(1, order).unsqueeze(1).expand(-1, channels, -1)
    return pixels.scatter(2, places, pixels.gather(2, origins)).reshape(images.shape)


def salient_pixels(gradient: Tensor, *, share: float) -> Tensor:
    """Return, for each image, the indices into H * W of its int(share * H * W) salient pixels.

    Raises
    ------
    RecipeError
        That number is below 2, so that there is nothing to permute.
    """
    # The logarithm of the saliency: it has the same order and does not overflow.
    saliency = torch.logsumexp(gradient.flatten(2), dim=1)
    pixels = saliency.shape[1]
    kept = int(pixels * share)
    if kept < 2:
        raise RecipeError(
            f"`p_inv` = {share} keeps `{kept}` of an image's {pixels} pixels, which cannot be "
            f"shuffled; it must be at least {2 / pixels:.2g}"
        )
    return saliency.topk(kept, dim=1).indices
