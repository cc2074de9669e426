"""Outliers made from training images by adding what the model finds typical of their class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.methods.passes import evaluating, frozen_statistics, unwrapped

Target = Literal["logit", "softmax"]
"""What of the true class is differentiated."""

GradientMode = Literal["eval", "train"]
"""By which statistics BatchNorm normalises while it is; see `true_class_gradient`."""


def gradient_outliers(images: Tensor, gradient: Tensor, *, strength: float, share: float) -> Tensor:
    r"""Return :math:`x' = x + \alpha\, G \odot M`, G the gradient of the true class.

    M keeps, of each image, the entries of largest magnitude. The gradient is neither normalised nor
    clipped, and neither is the result: it may leave the range of valid pixels.

    Parameters
    ----------
    images : (B, C, H, W) float
        Normalised.
    gradient : (B, C, H, W) float
        See `true_class_gradient`.
    strength : float
        Alpha, in units of a normalised intensity per unit of gradient; negative to subtract.
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

    References
    ----------
    ASCOOD (arXiv 2411.10794), section 3.1, equation 2.
    """
    return images.detach() + strength * gradient * largest_entries(gradient, share=share)


def true_class_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    target: Target = "logit",
    mode: GradientMode = "eval",
) -> Tensor:
    """Return the gradient of the true class's logit or probability with respect to each image.

    In full precision even where training is not, so that small entries do not vanish.

    Parameters
    ----------
    model : nn.Module
        (N, 3, H, W) to (N, K). Its parameters, their gradients, BatchNorm's running statistics and
        its mode are left as they are.
    images : (B, C, H, W) float
        Normalised.
    labels : (B,) int64
    target : "logit" or "softmax"
    mode : "eval" or "train"
        In ``eval`` BatchNorm uses its running statistics, and each image's gradient is its own. In
        ``train`` it uses the batch's, and each image's gradient is also that of its neighbours.

    Returns
    -------
    (B, C, H, W) float
        Detached from the graph.
    """
    inputs = images.detach().requires_grad_()
    plain = unwrapped(model)
    around = evaluating(plain) if mode == "eval" else frozen_statistics(plain)
    with around, torch.enable_grad():
        (gradient,) = torch.autograd.grad(true_class(plain(inputs), labels, target=target), inputs)
    return gradient


def true_class(logits: Tensor, labels: Tensor, *, target: Target) -> Tensor:
    """Return the sum over the batch of the true classes' logits or probabilities, ().

    Where no image touches another's logits, its gradient with respect to all images at once is
    each one's own.
    """
    values = torch.softmax(logits, dim=1) if target == "softmax" else logits
    return values.gather(1, labels.unsqueeze(1)).sum()


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
    if kept == flat.shape[1]:
        return torch.ones_like(values)
    mask = torch.zeros_like(flat)
    mask.scatter_(1, flat.abs().topk(kept, dim=1).indices, 1.0)
    return mask.reshape(values.shape)
