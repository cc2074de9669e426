"""The embedded engine: ONNX Runtime in this process."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from oodserve.calibration import Runtime
from oodserve.engines import Outputs
from oodserve.errors import EngineError

Provider = Literal["cpu", "cuda"]
"""Execution providers by the name a calibration knows them by."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeEngine:
    """Runs a model with ONNX Runtime; `infer` may be called from several threads.

    Parameters
    ----------
    model : bytes
        The ONNX file, weights embedded.
    precision : {"fp32", "fp16", "int8"}
        As the manifest states it; part of what a calibration is valid for.
    provider : {"cpu", "cuda"}
        Execution provider. There is no silent fallback: one that does not start is an error.
    threads : int, optional
        Threads for one inference; by default the CPUs this process may use (affinity and cgroup
        quota), since ONNX Runtime itself would count the host's cores.

    Raises
    ------
    EngineError
        The provider is not there, or the file is not a model that can be loaded.
    """

    def __init__(
        self,
        model: bytes,
        *,
        precision: Literal["fp32", "fp16", "int8"],
        provider: Provider = "cpu",
        threads: int | None = None,
    ) -> None:
        if provider not in _PROVIDERS:
            raise EngineError(f"provider {provider!r} is unknown; choose one of {list(_PROVIDERS)}")
        if _PROVIDERS[provider] not in ort.get_available_providers():
            raise EngineError(
                f"provider {provider!r} is not in this build of ONNX Runtime "
                f"(it has {', '.join(ort.get_available_providers())}); "
                "install `oodserve[gpu]` or choose `cpu`"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_cpus()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                model, options, providers=[_PROVIDERS[provider]]
            )
        except Exception as error:  # the runtime's exceptions share no base of their own
            raise EngineError(f"ONNX Runtime cannot load the model ({error})") from error
        if self._session.get_providers()[0] != _PROVIDERS[provider]:
            raise EngineError(
                f"provider {provider!r} did not start; ONNX Runtime fell back to "
                f"{self._session.get_providers()}"
            )
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.runtime = Runtime(library="onnxruntime", provider=provider, precision=precision)

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the graph on (N, H, W, 3) uint8 images; see `oodserve.engines.Engine`."""
        session = self._session
        if session is None:
            raise EngineError("the engine is closed")
        try:
            arrays = session.run(self._outputs, {"image": images})
        except Exception as error:  # the runtime's exceptions share no base of their own
            raise EngineError(f"ONNX Runtime failed on input {images.shape} ({error})") from error
        return dict(zip(self._outputs, arrays, strict=True))

    def close(self) -> None:
        """Drop the session; its memory is freed once running calls return."""
        self._session = None


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPUs this process may use: affinity, bounded by the cgroup's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(cgroup)
    return max(1, min(cpus, math.ceil(quota))) if quota else cpus


def _cgroup_quota(cgroup: Path) -> float | None:
    """CPUs granted by cgroup v2 or v1, or None where nothing limits them."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)
