"""What all figures share: colours, lines and hatches that are told apart without colour, files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
# The palette of M. Okabe and K. Ito, "Color Universal Design", 2008. Yellow comes last: as a line
# on white it is hardly seen.

DPI = 150

LONGEST_NAME = 32
"""Characters of a set's name that a legend has room for."""

_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    (0, (7, 2, 1, 2, 1, 2)),
)
_COLOURS = (VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
_HATCHES = ("\\\\\\", "...", "xxx", "---", "ooo", "+++", "|||")
_MARKERS = ("^", "s", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Look:
    """How one series is drawn; two of one figure differ in every part."""

    colour: str
    line: str | tuple[int, tuple[int, ...]]
    hatch: str
    marker: str


INSIDE = Look(colour=BLUE, line="-", hatch="///", marker="o")
"""Of in-distribution images, in every figure."""


def outside(number: int) -> Look:
    """Return the look of the out-of-distribution set of that number, from 0; it repeats after 7."""
    return Look(
        colour=_COLOURS[number % len(_COLOURS)],
        line=_DASHES[number % len(_DASHES)],
        hatch=_HATCHES[number % len(_HATCHES)],
        marker=_MARKERS[number % len(_MARKERS)],
    )


def new_axes(*, width: float = 5.2, height: float = 3.5) -> tuple[Figure, Axes]:
    """Return a figure of that size, in inches, with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    tidy(axes)
    return figure, axes


def tidy(axes: Axes) -> None:
    """Leave out the frame's upper and right side, and lay a faint grid below the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#d9d9d9", linewidth=0.6)
    axes.set_axisbelow(True)


def legend(axes: Axes) -> None:
    """Put the legend above the axes, where it hides nothing."""
    widest = max(map(len, axes.get_legend_handles_labels()[1]))
    columns = 3 if widest <= 14 else 2 if widest <= 24 else 1
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=2.6,
    )


def fill_shares(
    axes: Axes, shares: NDArray[np.float64], edges: NDArray[np.float64], *, look: Look, label: str
) -> None:
    """Draw one histogram, (B,) shares between (B + 1,) edges: tinted, hatched and outlined."""
    # Tint and hatch apart: SVG would give the hatch the tint's opacity.
    axes.stairs(shares, edges, fill=True, facecolor=(look.colour, 0.2), edgecolor="none")
    axes.stairs(
        shares,
        edges,
        fill=True,
        facecolor="none",
        edgecolor=(look.colour, 0.5),
        hatch=look.hatch,
        linewidth=0,
    )
    axes.stairs(
        shares,
        edges,
        color=look.colour,
        linestyle=look.line,
        linewidth=1.5,
        baseline=None,
        label=label,
    )


def counted(name: str, count: int) -> str:
    """Return the label of a series of `count` images; a long name is cut."""
    return f"{shortened(name)} ({count})"


def shortened(name: str) -> str:
    """Return a name with an ellipsis for what a legend has no room for."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def to_svg(figure: Figure) -> bytes:
    """Return a figure as SVG; one drawn anew from the same arrays gives the same bytes."""
    stream = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "oodserve", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, dpi=DPI)
    return stream.getvalue()


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG; one drawn anew from the same arrays gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return the path."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(to_png(figure))
    temporary.rename(path)
    return path
