"""What the server's process loads: no training library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_server_loads_no_training_library() -> None:
    program = "import json, sys, server.__main__; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.split(".")[0] for name in json.loads(run.stdout)}

    assert {"fastapi", "onnxruntime", "oodserve"} <= loaded
    assert not loaded & {
        "torch",
        "torchvision",
        "scipy",
        "sklearn",
        "matplotlib",
        "train",
        "export",
    }
