"""The real server as a child process on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

ROOT = Path(__file__).parents[1]
"""Where `python -m server` is run."""
START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class ServerProcess:
    """A server that was started: where it listens, and how to look at it."""

    base_url: str
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def pid(self) -> int:
        """Process id of the server itself."""
        return self.process.pid

    def log(self) -> list[dict[str, Any]]:
        """Return the log so far, one mapping for each line."""
        return _read_log(self.log_path)

    def wait_for_line(self, timeout_s: float = 10.0, **fields: object) -> dict[str, Any]:
        """Return the first line of the log that has these fields; it may be about to be written."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for line in self.log():
                if fields.items() <= line.items():
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no line with {fields} after {timeout_s} s")

    def rss_bytes(self) -> int:
        """Return the resident memory of the server, in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS line: the process has ended")

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once the server says that it is ready."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            answer = httpx.get(f"{self.base_url}/v2/health/ready")
            if answer.status_code == 200:
                return
            time.sleep(0.02)
        raise AssertionError(f"not ready after {timeout_s} s: {answer.text}")

    def wait_loaded(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once no model is loading any more, ready or failed."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            answer = httpx.get(f"{self.base_url}/v1/models").json()
            if all(model["state"] != "loading" for model in answer["models"]):
                return
            time.sleep(0.02)
        raise AssertionError(f"still loading after {timeout_s} s: {answer}")


@contextlib.contextmanager
def running_server(
    models: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    ready: bool = True,
) -> Iterator[ServerProcess]:
    """Start `python -m server` on a free port of this machine, and end it by its process id.

    Parameters
    ----------
    models : Path
        The model repository.
    *arguments : str
        Further flags.
    environment : mapping, optional
        Environment variables to add.
    ready : bool
        Wait until all models are ready; False waits only until the server is alive.
    """
    with tempfile.TemporaryDirectory(prefix="server-") as folder:
        log_path = Path(folder) / "log.jsonl"
        command = [sys.executable, "-m", "server", "--models", str(models), "--port", "0"]
        # A laptop and a test have no load balancer to wait for.
        command += ["--drain-delay-s", "0", *arguments]
        with log_path.open("wb") as log:
            process = _start(command, log, environment or {})
        try:
            server = ServerProcess(_await_address(process, log_path), process, log_path)
            if ready:
                server.wait_ready()
            yield server
        finally:
            _end(process)


def _start(
    command: list[str], log: IO[bytes], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if "OODSERVE" not in name}
    return subprocess.Popen(
        command, cwd=ROOT, stderr=log, stdout=log, env={**inherited, **environment}
    )


def _await_address(process: subprocess.Popen[bytes], log_path: Path) -> str:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        for line in _read_log(log_path):
            if line.get("event") == "listening":
                return f"http://{line['host']}:{line['port']}"
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise AssertionError(
        f"the server did not start (exit {process.poll()}): {log_path.read_text()[-2000:]}"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read_log(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
