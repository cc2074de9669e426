"""Outliers made from training images by adding what the model finds typical of their class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.methods.passes import evaluating, unwrapped


def gradient_outliers(
    model: nn.Module, images: Tensor, labels: Tensor, *, strength: float, share: float
) -> Tensor:
    r"""Return :math:`x' = x + \alpha\, G \odot M`, G the gradient of the true class's logit.

    M keeps, of each image, the entries of largest magnitude. The gradient is neither normalised nor
    clipped, and neither is the result: it may leave the range of valid pixels.

    Parameters
    ----------
    model : nn.Module
        (N, 3, H, W) to (N, K). Its parameters, their gradients, BatchNorm's running statistics and
        its mode are left as they are.
    images : (B, C, H, W) float
        Normalised.
    labels : (B,) int64
    strength : float
        Alpha, in units of a normalised intensity per unit of gradient.
    share : float
        Part of the C * H * W intensities that are changed, in (0, 1]; truncated to a whole number.

    Returns
    -------
    (B, C, H, W) float
        Detached from the graph.

    Raises
    ------
    RecipeError
        `share` of one image's intensities is less than one.

    Notes
    -----
    The gradient is taken in eval mode. In train mode BatchNorm would leak each image's gradient
    into its neighbours.

    References
    ----------
    ASCOOD (arXiv 2411.10794), section 3.1, equation 2.
    """
    gradient = true_class_gradient(model, images, labels)
    return images.detach() + strength * gradient * largest_entries(gradient, share=share)


def true_class_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return d logit_y / d image for each image, (B, C, H, W), in eval mode and detached.

    In full precision even where training is not, so that small entries do not vanish.
    """
    inputs = images.detach().requires_grad_()
    plain = unwrapped(model)
    with evaluating(plain), torch.enable_grad():
        logits: Tensor = plain(inputs)
        # In eval mode no image touches another's logits, so the sum's gradient is each one's own.
        total = logits.gather(1, labels.unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(total, inputs)
    return gradient


def largest_entries(values: Tensor, *, share: float) -> Tensor:
    """Return the mask, of the same shape, of each row's int(share * size) largest magnitudes.

    Raises
    ------
    RecipeError
        That number is 0.
    """
    flat = values.flatten(1)
    kept = int(flat.shape[1] * share)
    if kept == 0:
        raise RecipeError(
            f"`p_inv` = {share} keeps none of an image's {flat.shape[1]} intensities; "
            f"it must be at least {1 / flat.shape[1]:.2g}"
        )
    mask = torch.zeros_like(flat)
    mask.scatter_(1, flat.abs().topk(kept, dim=1).indices, 1.0)
    return mask.reshape(values.shape)
