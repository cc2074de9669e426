"""Pictures: synthesised outliers beside their sources, and where the model looks."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

COLOUR_MAP = "inferno"
"""Even in lightness, so it reads in grey and under every kind of colour vision."""

_SIDE_INCHES = 1.25


def synthesised_outliers(
    sources: ArrayLike, outliers: ArrayLike, *, titles: Sequence[str] = ()
) -> Figure:
    """Draw images, below each the outlier made from it, and below that what was changed.

    Parameters
    ----------
    sources : (N, H, W, 3) float
        RGB in [0, 1].
    outliers : (N, H, W, 3) float
        Likewise, but they may leave [0, 1], where they are cut off to be shown.
    titles : sequence of str
        One for each image, such as its class; or none.

    Raises
    ------
    ValueError
        The shapes are not those, or differ.

    References
    ----------
    ASCOOD (arXiv 2411.10794), figure 3.
    """
    before, after = _pictures("sources", sources), _pictures("outliers", outliers)
    if before.shape != after.shape or (titles and len(titles) != len(before)):
        raise ValueError(
            f"`sources` has shape {before.shape}, `outliers` {after.shape}, and there are "
            f"{len(titles)} titles; expected as many of each"
        )
    change = np.abs(after - before).mean(axis=3)
    top = float(change.max()) or 1.0
    figure, panels = _grid(rows=3, columns=len(before))
    for column in range(len(before)):
        panels[0][column].imshow(before[column].clip(0, 1))
        panels[1][column].imshow(after[column].clip(0, 1))
        shown = panels[2][column].imshow(change[column], cmap=COLOUR_MAP, vmin=0, vmax=top)
        if titles:
            panels[0][column].set_title(titles[column], fontsize=9)
    for row, name in enumerate(("image", "outlier", "change")):
        panels[row][0].set_ylabel(name, fontsize=9)
    bar = figure.colorbar(shown, ax=panels[2], fraction=0.05, pad=0.02)
    bar.set_label("mean |Δ|,\nintensity of 1", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def class_activation(
    maps: ArrayLike, weights: ArrayLike, classes: ArrayLike
) -> NDArray[np.float64]:
    """Return each image's class activation map, sum over d of w_(c, d) maps_d.

    Parameters
    ----------
    maps : (N, D, h, w) float
        Features before they are averaged over places.
    weights : (K, D) float
        Of the linear classifier.
    classes : (N,) int
        The class c of each image, usually the predicted one.

    Returns
    -------
    (N, h, w) float64
        Its mean over places is the class's logit without the bias, where the classifier takes the
        plain average of the maps.

    Raises
    ------
    ValueError
        The shapes do not go together, or a class is not in 0..K-1.

    References
    ----------
    B. Zhou et al., "Learning Deep Features for Discriminative Localization", 2016, equation 2.
    """
    places, head = np.asarray(maps, np.float64), np.asarray(weights, np.float64)
    chosen = np.asarray(classes)
    if (
        places.ndim != 4
        or head.ndim != 2
        or head.shape[1] != places.shape[1]
        or chosen.shape != places.shape[:1]
    ):
        raise ValueError(
            f"`maps` has shape {places.shape}, `weights` {head.shape}, `classes` {chosen.shape}; "
            "expected (N, D, h, w), (K, D) and (N,)"
        )
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(head)):
        raise ValueError(f"`classes` go from {chosen.min()} to {chosen.max()}; {len(head)} exist")
    activation: NDArray[np.float64] = np.einsum("ndhw,nd->nhw", places, head[chosen])
    return activation


def saliency_overlays(
    images: ArrayLike,
    maps: ArrayLike,
    weights: ArrayLike,
    classes: ArrayLike,
    *,
    titles: Sequence[str],
    strength: float = 0.5,
) -> Figure:
    """Draw images, below each its class activation laid over it.

    Each map goes from its own least to its own largest value, so colours of two images do not
    compare; it is interpolated bilinearly to the size of the image.

    Parameters
    ----------
    images : (N, H, W, 3) float
        RGB in [0, 1].
    maps, weights, classes
        See `class_activation`.
    titles : sequence of str
        One for each image: what it is and what it was taken for.
    strength : float
        Share of the map in the overlay, in [0, 1].

    Raises
    ------
    ValueError
        The shapes do not go together, or `strength` is out of range.

    References
    ----------
    MixOE (arXiv 2106.03917), figure 7.
    """
    pictures = _pictures("images", images)
    activation = class_activation(maps, weights, classes)
    if len(activation) != len(pictures) or len(titles) != len(pictures):
        raise ValueError(
            f"there are {len(pictures)} images, {len(activation)} maps and {len(titles)} titles; "
            "expected as many of each"
        )
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"`strength` = {strength} is not in [0, 1]")
    figure, panels = _grid(rows=2, columns=len(pictures))
    colours = mpl.colormaps[COLOUR_MAP]
    for column, (picture, values) in enumerate(zip(pictures, activation, strict=True)):
        heat = colours(_scaled(values, picture.shape[0], picture.shape[1]))[..., :3]
        panels[0][column].imshow(picture.clip(0, 1))
        panels[1][column].imshow((1 - strength) * picture.clip(0, 1) + strength * heat)
        panels[0][column].set_title(titles[column], fontsize=7)
    for row, name in enumerate(("image", "activation")):
        panels[row][0].set_ylabel(name, fontsize=9)
    return figure


def _scaled(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return a map in [0, 1] at the size of its image; a flat one is 0 everywhere."""
    low, high = float(values.min()), float(values.max())
    unit = (values - low) / (high - low) if high > low else np.zeros_like(values)
    small = Image.fromarray(unit.astype(np.float32))
    large = small.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(large, dtype=np.float64).clip(0, 1)


def _grid(*, rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    size = (_SIDE_INCHES * columns + 0.6, (_SIDE_INCHES + 0.12) * rows + 0.3)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    return figure, [list(row) for row in panels]


def _pictures(name: str, pictures: ArrayLike) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(pictures, dtype=np.float64)
    if values.ndim != 4 or values.shape[3] != 3 or len(values) == 0:
        raise ValueError(f"`{name}` has shape {values.shape}; expected (N, H, W, 3), N >= 1")
    return values
