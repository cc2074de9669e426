"""Float32 where half precision would lose what counts."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """Return float16 and bfloat16 values as float32, wider ones as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
