"""What the figures need of the model itself: answers to mixed pictures, outliers, activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from oodserve.bundle import InputSpec
from train.data.loading import evaluation_batches
from train.data.sources import ImageSource, generator
from train.draw import Draw
from train.embedding import EVALUATION_BATCH
from train.methods.passes import evaluating
from train.methods.synthesis.settings import SynthesisSettings, synthesise
from train.networks.classifier import Classifier
from train.precision import full_precision

LAMBDAS = (1.0, 0.7, 0.6, 0.5, 0.0)
"""Weights of the known image: those of MixOE's figure 4, and both ends."""


@dataclass(frozen=True, eq=False)
class Activations:
    """What `train.figures.images.saliency_overlays` takes.

    Attributes
    ----------
    images : (N, H, W, 3) float32
        RGB in [0, 1].
    maps : (N, D, h, w) float32
        The last residual stage, before it is averaged over places.
    weights : (K, D) float32
        What the logits make of those maps, up to a positive factor for each image.
    predicted : (N,) int64
    """

    images: NDArray[np.float32]
    maps: NDArray[np.float32]
    weights: NDArray[np.float32]
    predicted: NDArray[np.int64]


@dataclass(frozen=True)
class Chosen:
    """Some pictures of a source, in the order of their indices."""

    source: ImageSource
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, /) -> Image.Image:
        """Return the picture at a place among the chosen ones."""
        return self.source.read(self.indices[index])


def choose(count: int, most: int, *, seed: int, stream: str) -> tuple[int, ...]:
    """Return up to `most` different indices below `count`, ascending, drawn at random."""
    drawn = generator(seed, stream).permutation(count)[:most]
    return tuple(sorted(drawn.tolist()))


def load(source: ImageSource, spec: InputSpec, *, device: torch.device) -> Tensor:
    """Return all pictures of a source, (N, 3, H, W) float32, preprocessed and normalised."""
    batches = evaluation_batches(source, input=spec, batch_size=EVALUATION_BATCH)
    return torch.cat([batch.images for batch in batches]).to(device)


def to_pictures(images: Tensor, spec: InputSpec) -> NDArray[np.float32]:
    """Return normalised images, (N, 3, H, W), as RGB, (N, H, W, 3) float32; 0 to 1 if valid."""
    mean = torch.tensor(spec.mean).view(3, 1, 1)
    std = torch.tensor(spec.std).view(3, 1, 1)
    pictures = images.detach().cpu() * std + mean
    return pictures.permute(0, 2, 3, 1).contiguous().numpy()


@torch.no_grad()
def interpolated_confidences(
    model: Classifier, inside: Tensor, outside: Tensor, *, lambdas: Sequence[float] = LAMBDAS
) -> dict[float, NDArray[np.float32]]:
    """Return the largest softmax probability on lambda x_ID + (1 - lambda) x_OOD.

    Parameters
    ----------
    model : Classifier
        Left in the mode it is in.
    inside, outside : (N, 3, H, W) float
        Normalised; the i-th meets the i-th. Mixing before normalisation would give the same.
    lambdas : sequence of float
        In [0, 1].

    Returns
    -------
    dict of float to (N,) float32
        For each lambda, in [0, 1].

    References
    ----------
    MixOE (arXiv 2106.03917), section 3.3.
    """
    found = {}
    with evaluating(model):
        for lam in lambdas:
            mixed = torch.split(lam * inside + (1 - lam) * outside, EVALUATION_BATCH)
            logits = torch.cat([full_precision(model(part)) for part in mixed])
            confidence = logits.softmax(dim=1).amax(dim=1)
            # Rounding may pass 1 by one unit in the last place.
            found[lam] = confidence.clamp(0, 1).cpu().numpy()
    return found


@torch.no_grad()
def mixed_logits(
    model: Classifier, inside: Tensor, outside: Tensor, *, lam: float = 0.5
) -> dict[str, NDArray[np.float32]]:
    """Return the logits of a known image, an unknown one, their mix, and the mix of their logits.

    Parameters
    ----------
    model : Classifier
        Left in the mode it is in.
    inside, outside : (3, H, W) float
        Normalised.
    lam : float
        Weight of the known image, in [0, 1].

    Returns
    -------
    dict of str to (K,) float32
        Titles to logits.

    References
    ----------
    Logit MixOE (arXiv 2509.11892), figures 5 and 6; equations 10 and 13.
    """
    mixed = lam * inside + (1 - lam) * outside
    with evaluating(model):
        known, unknown, of_mixed = full_precision(model(torch.stack([inside, outside, mixed])))
    rows = {
        "known image": known,
        "unknown image": unknown,
        f"mixed images, λ = {lam:g}": of_mixed,
        f"mixed logits, λ = {lam:g}": lam * known + (1 - lam) * unknown,
    }
    return {title: values.cpu().numpy() for title, values in rows.items()}


def outliers_of(
    model: Classifier, images: Tensor, labels: Tensor, settings: SynthesisSettings, *, seed: int
) -> Tensor:
    """Return what the last epoch's synthesis makes of images, (N, 3, H, W), normalised.

    Parameters
    ----------
    model : Classifier
        Left as it is.
    images : (N, 3, H, W) float
        Normalised.
    labels : (N,) int64
    settings : SynthesisSettings
    seed : int
        Of what the synthesis draws.
    """
    draw = Draw(
        rng=generator(seed, "report/synthesis"),
        torch_generator=torch.Generator().manual_seed(seed),
        epoch=1,
        epochs=1,
    )
    with evaluating(model):
        return synthesise(model, images, labels, settings=settings, draw=draw)


@torch.no_grad()
def activations(model: Classifier, images: Tensor, spec: InputSpec) -> Activations | None:
    """Return what shows where the model looks, or None where nothing does.

    That is where the head is not linear, or the last stage has one place only.

    Parameters
    ----------
    model : Classifier
        Left in the mode it is in.
    images : (N, 3, H, W) float
        Normalised.
    spec : InputSpec
        To show them.

    Notes
    -----
    A plain head sees the mean h of the maps over places, so w_c . maps adds up to the logit. With
    ``zscore`` it sees sigma (h - mean h) / sd, linear in the maps but for the factor sigma / sd > 0
    of each image: w_c . (h - mean h) = (w_c - mean w_c) . h, so centred weights take the place of
    w. With ``l2`` only a positive factor is left out.
    """
    if not isinstance(model.head, nn.Linear):
        return None
    with evaluating(model):
        stages, features = model.stage_maps(images)
        if stages[-1].shape[2:].numel() == 1:
            return None
        predicted = model.logits_from(features).argmax(dim=1)
    weights = full_precision(model.head.weight)
    if model.feature_norm == "zscore":
        weights = weights - weights.mean(dim=1, keepdim=True)
    return Activations(
        images=to_pictures(images, spec),
        maps=full_precision(stages[-1]).cpu().numpy(),
        weights=weights.cpu().numpy(),
        predicted=predicted.cpu().numpy(),
    )


def pairs(
    inside: ImageSource, sets: Mapping[str, ImageSource], *, most: int, seed: int
) -> tuple[Chosen, Chosen, str]:
    """Return equally many known and unknown pictures, and the set that the latter come from.

    The set is the last one of `sets`: a mapping has no order of distance of its own.
    """
    name = list(sets)[-1]
    count = min(most, len(inside), len(sets[name]))
    known = choose(len(inside), count, seed=seed, stream="report/known")
    unknown = choose(len(sets[name]), count, seed=seed, stream=f"report/unknown/{name}")
    return Chosen(inside, known), Chosen(sets[name], unknown), name
