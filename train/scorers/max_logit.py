"""The largest logit."""

from __future__ import annotations

from torch import Tensor

from train.scorers.scorer import Scorer


class MaxLogit(Scorer):
    r"""The largest logit, :math:`\max_k z_k`; larger = more in-distribution.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32. Equals
    `Energy` up to :math:`\ln C` at most.

    References
    ----------
    Hendrycks et al., 2022 (arXiv 1911.11132), section 3.
    """

    source = "Hendrycks et al., 2022 (arXiv 1911.11132)"

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return logits.float().amax(dim=1)
