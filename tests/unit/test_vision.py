from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from train.vision import import_torchvision, models, transforms

TORCHVISION = """
import os

if os.environ["FAILURE"] == "other":
    raise RuntimeError("the disk is on fire")
if os.environ["FAILURE"] == "operators":
    import torch

    @torch.library.register_fake("torchvision::nms")
    def nms(dets, scores, iou_threshold): ...

    @torch.library.register_fake("torchvision::qnms")
    def qnms(dets, scores, iou_threshold): ...
"""

PROGRAM = """
import gc, os, sys
import torch

os.environ["FAILURE"] = "other"
try:
    import train.vision
except RuntimeError as error:
    print(error)
os.environ["FAILURE"] = "operators"
import train.vision
gc.collect()
print(torch.ops.torchvision.nms.default, torch.ops.torchvision.qnms.default)
del sys.modules["torchvision"]
os.environ["FAILURE"] = "none"
print(train.vision.import_torchvision())
"""


def test_models_and_transforms_work() -> None:
    model = models.resnet18(num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert transforms.CenterCrop(4)(torch.zeros(3, 8, 8)).shape == (3, 4, 4)


def test_a_second_import_declares_nothing() -> None:
    assert import_torchvision() is None


def test_only_missing_operators_are_declared(tmp_path: Path) -> None:
    for name, text in {
        "__init__.py": TORCHVISION,
        "models.py": "",
        "transforms/__init__.py": "",
        "transforms/v2.py": "",
    }.items():
        path = tmp_path / "torchvision" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.stdout.splitlines() == [
        "the disk is on fire",
        "torchvision.nms.default torchvision.qnms.default",
        "None",
    ], result.stderr
