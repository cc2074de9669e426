"""From bytes that were read to a normalised batch on the device that trains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oodserve.bundle import InputSpec
from train.data.augment import Augmentation, DeviceAugmentation
from train.data.pictures import Arrays


@dataclass(frozen=True)
class Batch:
    """What a loader yields.

    Attributes
    ----------
    images : (B, 3, H, W) float32
        Normalised.
    labels : (B,) int64
        Classes, or `UNLABELLED`.
    """

    images: Tensor
    labels: Tensor


def normalise(pixels: Tensor, *, mean: Tensor, std: Tensor) -> Tensor:
    """Return (pixels / 255 - mean) / std, channels first; the exported graph does the same.

    Parameters
    ----------
    pixels : (N, H, W, 3) uint8
        As preprocessing returns them.
    mean, std : (3,) float32
        Of RGB values in [0, 1].

    Returns
    -------
    (N, 3, H, W) float32
        Contiguous.
    """
    scaled = (pixels.to(torch.float32) / 255 - mean) / std
    return scaled.permute(0, 3, 1, 2).contiguous()


class Finish:
    """Turns what was read into a batch, on the device that trains.

    Parameters
    ----------
    spec : InputSpec
        What the model takes.
    augmentation : Augmentation, DeviceAugmentation or None
        Only the second has something left to do here.
    device : torch.device
    """

    def __init__(
        self,
        spec: InputSpec,
        augmentation: Augmentation | DeviceAugmentation | None,
        device: torch.device,
    ) -> None:
        self._mean = torch.tensor(spec.mean, dtype=torch.float32, device=device)
        self._std = torch.tensor(spec.std, dtype=torch.float32, device=device)
        self._device = device
        self._augmentation = augmentation if isinstance(augmentation, DeviceAugmentation) else None

    @property
    def copies_to_gpu(self) -> bool:
        """Whether what is read had better lie in memory that a GPU copies from directly."""
        return self._device.type == "cuda"

    def __call__(self, arrays: Arrays) -> Batch:
        """Return the batch."""
        pixels = arrays.pixels.to(self._device, non_blocking=True)
        if self._augmentation is not None:
            assert arrays.sizes is not None
            assert arrays.seeds is not None
            pixels = self._augmentation(pixels, arrays.sizes, arrays.seeds)
        images = normalise(pixels, mean=self._mean, std=self._std)
        return Batch(images, arrays.labels.to(self._device, non_blocking=True))
