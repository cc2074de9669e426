"""One pass of the network, and every score of it: what evaluation runs and what is exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from train.networks.classifier import Classifier
from train.scorers.gradient.probing import Probing
from train.scorers.scorer import Given, Scorer


class Scoring(nn.Module):
    """A network with its scores.

    Parameters
    ----------
    model : Classifier
    scorers : mapping of str to Scorer
        Score name to scorer, fitted where it needs to be.

    Raises
    ------
    RecipeError
        A score follows the gradient to the image, and the model has a part where it cannot.
    """

    def __init__(self, model: Classifier, scorers: Mapping[str, Scorer]) -> None:
        super().__init__()
        self.model = model
        self.scorers = nn.ModuleDict(dict(scorers))
        self.wanted = {scorer.takes for scorer in scorers.values()}
        self.probing = Probing(model) if "moved" in self.wanted else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return features (N, D), logits (N, K) and the scores, each (N,) float32, by name.

        Parameters
        ----------
        images : (N, 3, H, W) float
            Normalised.
        """
        given: dict[str, Given] = {}
        probe = self.probing.probe(images) if self.probing else None
        if "maps" in self.wanted:
            given["maps"], features = self.model.stage_maps(images)
        else:
            features = probe.features if probe else self.model.features(images)
        given["features"] = features
        if "rotations" in self.wanted:
            turned = [torch.rot90(images, turns, dims=(2, 3)) for turns in (1, 2, 3)]
            given["rotations"] = (features, *(self.model.features(image) for image in turned))
        logits = self.model.logits_from(features)
        scores = {}
        for name, module in self.scorers.items():
            scorer: Any = module
            seen: Given
            if scorer.takes == "moved":
                seen = self.model(scorer.moved(images, probe))
            else:
                seen = given[scorer.takes]
            scores[name] = scorer(seen, logits)
        return features, logits, scores
