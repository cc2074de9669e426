"""How sure a model is of an image's class, and of which way up it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oodserve.errors import RecipeError
from train.methods.rotation import HEAD
from train.networks.classifier import Classifier
from train.scorers.scorer import FitData, Scorer


class Rotation(Scorer):
    r""":math:`KL(U \| p) - \frac14 \sum_r -\log q_r(R_r x)`; larger = more in-distribution.

    p are the classes' probabilities of the upright image, :math:`q_r(R_r x)` is the probability
    that the rotation head gives to the right answer r for the image turned by r quarters. Both
    terms in nats. Takes the features (N, D) of the four rotations, and logits (N, K) of the upright
    image; returns (N,) float32. Costs four passes of the network.

    Says little where objects have no upright pose, as flowers seen from above.

    References
    ----------
    Hendrycks et al., 2019 (arXiv 1906.12340), section 4.
    """

    takes = "rotations"
    needs_fit = True
    source = "Hendrycks et al., 2019 (arXiv 1906.12340)"

    weight: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("weight", "bias")

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse a model without a rotation head."""
        _rotation_head(model)

    def fit(self, data: FitData) -> None:
        """Copy the model's rotation head.

        Raises
        ------
        RecipeError
            It has none.
        """
        head = _rotation_head(data.model)
        self.weight = head.weight.detach().cpu().clone()
        self.bias = head.bias.detach().cpu().clone()

    def forward(self, rotations: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        """Return the score of each row."""
        log_p = torch.log_softmax(logits.float(), dim=1)
        # Counted, not taken from the shape, which is symbolic in an exported graph.
        classes = torch.ones_like(log_p).sum(dim=1)
        score = -torch.log(classes) - log_p.mean(dim=1)
        for turns, features in enumerate(rotations):
            guesses = features.float() @ self.weight.T + self.bias
            score = score + torch.log_softmax(guesses, dim=1)[:, turns] / len(rotations)
        return score


def _rotation_head(model: Classifier) -> nn.Linear:
    head = dict(model.auxiliary.items()).get(HEAD)
    if not isinstance(head, nn.Linear):
        raise RecipeError(
            "score `rotation` needs the rotation head of method `rotation`, which the model "
            "does not have; choose another score or set `method.name` to 'rotation'"
        )
    return head
