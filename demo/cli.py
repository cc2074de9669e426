"""The digits demo: train, export, calibrate, serve, and ask about three pictures."""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from demo.steps import DATA, NAME, StepFailed, data_step, model_steps, run, serving

SEED = 0
"""Chooses the three pictures, before anything is trained."""
BATCH = 16
"""Images per request when whole folders are scored."""
LEAST_RATIO = 5.0
"""Held-out digits must be flagged at least this many times as often as known ones."""


@dataclass(frozen=True)
class Picture:
    """One of the pictures that the demo asks about."""

    kind: str
    """``known``, ``held_out`` or ``no_digit``."""
    path: Path
    label: str | None
    """The digit, where it is one of the known ones."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0, or 1 where a step failed or `--once` was not satisfied."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1 (8000)")
    parser.add_argument(
        "--once", action="store_true",
        help="print the answers as JSON lines, check them, and exit instead of serving on",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    console = Console(stderr=True)
    try:
        run(data_step(), console)
        pictures = choose_pictures()
        for picture in pictures:
            console.print(f"[dim]will ask about {picture.path}[/dim]", highlight=False)
        for step in model_steps():
            run(step, console)
        with serving(arguments.port, console) as url:
            return _once(url, pictures) if arguments.once else _show(url, pictures)
    except StepFailed as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    except KeyboardInterrupt:
        # Ending the serving is how the demo ends; anything before that was cut short.
        return 130 if arguments.once else 0


def choose_pictures() -> list[Picture]:
    """Choose a known digit, a held-out digit and something that is no digit, by `SEED` alone."""
    rng = random.Random(SEED)
    known = rng.choice(sorted((DATA / "test").rglob("*.png")))
    held_out = rng.choice(sorted((DATA / "ood" / "held_out").rglob("*.png")))
    no_digit = rng.choice(sorted((DATA / "ood" / "photos").rglob("*.png")))
    return [
        Picture("known", known, known.parent.name),
        Picture("held_out", held_out, None),
        Picture("no_digit", no_digit, None),
    ]


def ask(url: str, path: Path) -> dict[str, Any]:
    """Send one image, as its raw bytes, and return the answer."""
    return _post(f"{url}/v1/predict", path.read_bytes(), "image/png")


def flag_rate(url: str, folder: Path) -> tuple[float, int]:
    """Return the share of a folder's images that are flagged, and their number."""
    paths = sorted(folder.rglob("*.png"))
    flagged = 0
    for start in range(0, len(paths), BATCH):
        encoded = [
            base64.b64encode(path.read_bytes()).decode() for path in paths[start : start + BATCH]
        ]
        body = json.dumps({"images": encoded}).encode()
        answer = _post(f"{url}/v1/predict", body, "application/json")
        flagged += sum(bool(item["ood"]) for item in answer["predictions"])
    return flagged / len(paths), len(paths)


def _post(url: str, body: bytes, media_type: str) -> dict[str, Any]:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": media_type})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return dict(json.load(response))
    except urllib.error.HTTPError as error:
        raise StepFailed(f"{url} answered {error.code}: {error.read().decode()}") from error
    except OSError as error:
        raise StepFailed(f"{url} did not answer ({error})") from error


def _once(url: str, pictures: Sequence[Picture]) -> int:
    """Print JSON lines and judge them."""
    faults = []
    for picture in pictures:
        answer = ask(url, picture.path)
        sys.stdout.write(
            json.dumps({"kind": picture.kind, "image": str(picture.path)} | answer) + "\n"
        )
        prediction = answer["predictions"][0]
        if picture.label is not None and prediction["label"] != picture.label:
            faults.append(f"the known digit {picture.label} was labelled {prediction['label']}")
        if picture.kind == "no_digit" and not prediction["ood"]:
            faults.append("what is no digit was not flagged")
    known, known_images = flag_rate(url, DATA / "test")
    held_out, held_out_images = flag_rate(url, DATA / "ood" / "held_out")
    sys.stdout.write(
        json.dumps(
            {
                "kind": "flag_rates",
                "known": known,
                "known_images": known_images,
                "held_out": held_out,
                "held_out_images": held_out_images,
            }
        )
        + "\n"
    )
    if held_out < LEAST_RATIO * known or held_out == 0:
        faults.append(
            f"held-out digits are flagged at a rate of {held_out:.3f}, "
            f"less than {LEAST_RATIO:g} times that of known ones ({known:.3f})"
        )
    for fault in faults:
        sys.stderr.write(f"demo: {fault}\n")
    return 1 if faults else 0


def _show(url: str, pictures: Sequence[Picture]) -> int:
    """Print the answers and the way to repeat them, and serve until interrupted."""
    console = Console()
    table = Table("picture", "class", "probability", "in/out", "score", "tau", "p-value")
    for picture in pictures:
        prediction = ask(url, picture.path)["predictions"][0]
        table.add_row(
            picture.kind.replace("_", " "),
            prediction["label"],
            f"{prediction['probability']:.3f}",
            "OUT" if prediction["ood"] else "in",
            f"{prediction['score']:.3f}",
            f"{prediction['threshold']:.3f}",
            f"{prediction['p_value']:.4f}",
        )
    console.print(table)
    for kind, folder in (("known", DATA / "test"), ("held-out", DATA / "ood" / "held_out")):
        rate, images = flag_rate(url, folder)
        console.print(f"of {images} {kind} digits {100 * rate:.1f} % are flagged", highlight=False)
    for picture in pictures:
        console.print(
            f"curl -s -H 'Content-Type: image/png' --data-binary @{picture.path} {url}/v1/predict",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.print(
        f"\nconsole: {url}/    metrics: {url}/metrics    API: {url}/docs\n"
        f"model `{NAME}` is served until Ctrl-C",
        highlight=False,
        soft_wrap=True,
    )
    while True:
        time.sleep(3600)
