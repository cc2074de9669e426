"""Outliers that are noise."""

from __future__ import annotations

from torch import Tensor

from train.draw import Draw


def gaussian_outliers(images: Tensor, *, strength: float, draw: Draw) -> Tensor:
    r"""Return :math:`x' = \alpha\, n`, n standard normal: nothing of the images but their shape.

    Parameters
    ----------
    images : (B, C, H, W) float
    strength : float
        Alpha, the standard deviation in units of a normalised intensity.
    draw : Draw

    References
    ----------
    ASCOOD (arXiv 2411.10794), its authors' setting for CelebA.
    """
    return strength * draw.normal(images.detach())
