"""`oodserve inspect`: what a bundle is, and whether it is whole."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console

from oodserve.bundle import Manifest
from oodserve.commands.runtime import add_accept_mismatch, add_bundle
from oodserve.commands.tables import calibration_table
from oodserve.errors import NotCalibrated
from oodserve.predictor import Predictor


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "inspect",
        help="what a bundle is, and whether it is whole",
        description="Print a bundle's manifest and calibration, and verify that it is servable.",
    )
    add_bundle(parser)
    add_accept_mismatch(parser)
    parser.add_argument("--json", action="store_true", help="manifest and calibration as JSON")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    predictor = Predictor.load(
        arguments.bundle,
        calibrations=arguments.calibrations,
        provider=arguments.provider,
        threads=arguments.threads,
        accept_runtime_mismatch=arguments.accept_runtime_mismatch,
        require_calibration=False,
    )
    error = predictor.verify_golden()
    if arguments.json:
        sys.stdout.write(json.dumps(_document(predictor)) + "\n")
    else:
        _print(predictor, error)
    if predictor.active is None:
        # Not fit to serve: say so in the exit status too.
        predictor.bundle.read_calibration()
        raise NotCalibrated("there is no calibration")
    return 0


def _document(predictor: Predictor) -> dict[str, object]:
    bundle, active = predictor.bundle, predictor.active
    return {
        "name": bundle.name,
        "version": bundle.version,
        "manifest": bundle.manifest.model_dump(mode="json"),
        "calibration_id": active.id if active else None,
        "calibration": active.calibration.model_dump(mode="json") if active else None,
    }


def _print(predictor: Predictor, golden_error: float) -> None:
    bundle, active = predictor.bundle, predictor.active
    lines = [
        f"{bundle.name} version {bundle.version}  {bundle.path}",
        *_manifest_lines(bundle.manifest),
        f"  golden outputs reproduced within {golden_error:.2g}",
    ]
    if active:
        lines.append(f"  calibration {active.id}, made {active.calibration.created}")
    console = Console()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if active:
        console.print(calibration_table(active.calibration))


def _manifest_lines(manifest: Manifest) -> list[str]:
    model, size = manifest.model, manifest.input.preprocessing
    lines = [
        f"  model    {model.file}, {model.precision}, sha256 {model.sha256[:12]}, "
        f"made {manifest.created}",
        f"  input    {size.height} x {size.width}, {size.resize}",
        f"  classes  {len(manifest.classes)}: {_shorten(manifest.classes)}",
        f"  scores   {', '.join(manifest.scores)} (default {manifest.default_score})",
    ]
    for name, figures in manifest.quality.items():
        text = ", ".join(f"{key} {value:.4f}" for key, value in figures.items())
        lines.append(f"  {name}: {text}")
    return lines


def _shorten(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
