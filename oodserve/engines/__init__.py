"""What runs a bundle's model: one small interface, one module per runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oodserve.calibration import Runtime

Outputs = Mapping[str, NDArray[np.float32]]
"""Output name to array: ``logits`` (N, C), and (N,) for each score."""


class Engine(Protocol):
    """Runs one model version. Calls from several threads at once are allowed."""

    @property
    def runtime(self) -> Runtime:
        """Library, provider and precision: what a calibration is valid for."""

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the graph on a batch.

        Parameters
        ----------
        images : (N, H, W, 3) uint8
            Preprocessed by `oodserve.images`; N >= 1.

        Returns
        -------
        Outputs
            Every output of the graph, float32.

        Raises
        ------
        EngineError
            The runtime failed; the message says how.
        """

    def close(self) -> None:
        """Release the runtime's memory; the engine cannot be used afterwards."""
