"""torchvision, imported so that a wheel without its compiled operators works as well.

A torchvision built for CUDA beside a CPU torch cannot load its compiled library. It does not say
so: the import fails later, at the first of two operators that it describes but never defined.
Models and transforms need neither operator, so on that failure, and only then, both are declared
and the import is repeated. A healthy installation is left alone: declaring an operator twice is an
error.

Everything in `train` that needs torchvision takes `models` and `transforms` from here.
"""

from __future__ import annotations

import importlib
import sys
import warnings

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def import_torchvision() -> torch.library.Library | None:
    """Import torchvision, declaring its two missing operators if that is why it fails.

    Returns
    -------
    torch.library.Library or None
        What holds the declarations: they vanish once it is collected, so the caller keeps it.
        None where the import just worked.

    Raises
    ------
    ImportError, RuntimeError
        The import failed for another reason.
    """
    with warnings.catch_warnings():
        # The same missing library makes `torchvision.io` warn; images are read with Pillow here.
        warnings.filterwarnings("ignore", message="Failed to load image Python extension")
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "operator torchvision::nms does not exist" not in str(error):
                raise
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            declarations = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for schema in _SCHEMAS:
                declarations.define(schema)  # type: ignore[no-untyped-call]
            importlib.import_module("torchvision")
            return declarations
    return None


_declarations = import_torchvision()

from torchvision import models  # noqa: E402
from torchvision.transforms import v2 as transforms  # noqa: E402

__all__ = ["import_torchvision", "models", "transforms"]
