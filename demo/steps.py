"""The way from nothing to a served bundle, by the commands a user would type."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

DATA, RUN = Path("data/digits"), Path("runs/digits")
MODELS, NAME = Path("models"), "digits"
RECIPE = Path("train/presets/digits.toml")
BUNDLE = MODELS / NAME

READY_TIMEOUT_S = 60.0


class StepFailed(Exception):
    """A command of the demo ended with an error; its own output says why."""


@dataclass(frozen=True)
class Step:
    """A command and what it leaves behind."""

    title: str
    command: tuple[str, ...]
    """Arguments to this Python."""
    makes: Path
    """Exists once the step is done; a step that is done is not repeated."""


def data_step() -> Step:
    """Return the step that writes the digits as folders."""
    command = ("-m", "train", "data", "digits", "--to", str(DATA))
    return Step("write the images", command, DATA)


def model_steps() -> list[Step]:
    """Return the steps from images to a calibrated bundle."""
    fit: tuple[str, ...] = ("-m", "train", "fit", str(RECIPE), "--to", str(RUN))
    if (RUN / "recipe.toml").exists():
        fit = ("-m", "train", "resume", str(RUN))
    images = ("--images", str(DATA / "calibration"))
    # A bundle that is there is reused, whether or not the run it was made from still is.
    trained = BUNDLE if BUNDLE.exists() else RUN / "model.json"
    return [
        Step("train", fit, trained),
        Step("export", ("-m", "export", "bundle", str(RUN), "--to", str(BUNDLE)), BUNDLE),
        Step(
            "calibrate",
            ("-m", "oodserve", "calibrate", str(BUNDLE), *images),
            BUNDLE / "1" / "calibration.json",
        ),
    ]


def run(step: Step, console: Console) -> None:
    """Run a step, unless what it makes is there.

    Raises
    ------
    StepFailed
        The command's exit status was not 0.
    """
    shown = " ".join(["python", *step.command])
    if step.makes.exists():
        console.print(f"[dim]{step.title}: {step.makes} is there[/dim]", highlight=False)
        return
    console.print(f"[bold]{step.title}[/bold]  $ {shown}", highlight=False, soft_wrap=True)
    started = time.perf_counter()
    status = subprocess.run([sys.executable, *step.command], check=False).returncode
    if status != 0:
        raise StepFailed(f"`{shown}` ended with status {status}")
    console.print(
        f"[dim]{step.title}: {time.perf_counter() - started:.1f} s[/dim]", highlight=False
    )


@contextmanager
def serving(port: int, console: Console) -> Iterator[str]:
    """Serve the models on 127.0.0.1 until the block ends; yields the base URL.

    Raises
    ------
    StepFailed
        The server did not become ready.
    """
    command = (
        *("-m", "server", "--models", str(MODELS), "--default-model", NAME),
        *("--port", str(port), "--drain-delay-s", "0", "--log-level", "warning"),
    )
    refuse_taken(port)
    console.print(
        f"[bold]serve[/bold]  $ {' '.join(['python', *command])}", highlight=False, soft_wrap=True
    )
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _await_ready(process, url)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def refuse_taken(port: int) -> None:
    """Raise where something listens already: it would be asked instead of our server.

    Raises
    ------
    StepFailed
        The port of 127.0.0.1 is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StepFailed(
                f"port {port} of 127.0.0.1 is taken ({error.strerror}); "
                "choose another with PORT=8001"
            ) from error


def _await_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline, reasons = time.monotonic() + READY_TIMEOUT_S, ""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StepFailed(
                f"the server ended with status {process.returncode}; its log above says why"
            )
        try:
            with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5) as response:
                if response.status == 200:
                    return
        except urllib.error.HTTPError as error:
            reasons = error.read().decode(errors="replace")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.1)
    raise StepFailed(f"the server at {url} was not ready within {READY_TIMEOUT_S:g} s: {reasons}")
