"""The command `python -m export`: a finished run becomes a version in a model repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from export.graph import OPSETS
from export.parity import MAX_ERROR
from export.publication import (
    Destination,
    ExportSettings,
    Published,
    choose_scores,
    export_run,
    parity_images,
    publish,
)
from export.triton import TritonSettings
from oodserve.errors import OodserveError
from train.run import TrainedRun, load_run
from train.scorers.registry import SCORERS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 refused with a reason, 2 usage."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except OodserveError as error:
        sys.stderr.write(f"export: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export", description="Turn trained models into bundles that can be served."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_bundle(commands)
    return parser


def _add_bundle(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    defaults = TritonSettings()
    parser = commands.add_parser(
        "bundle",
        help="a finished run as the next version of a model",
        description=(
            "Export a finished run as one ONNX file, compare it with the trained model on real "
            "images, and publish it as the next version of a model that ONNX Runtime and Triton "
            "serve alike. Nothing is published unless the two agree."
        ),
        epilog="Data goes to stdout, everything else to stderr.",
    )
    parser.add_argument("path", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--to", required=True, metavar="models/NAME", help="where it goes")
    parser.add_argument(
        "--score", action="append", default=[], metavar="NAME", dest="scores",
        help=f"put this score into the graph; repeatable; {', '.join(SCORERS)} (the recipe's)",
    )  # fmt: skip
    parser.add_argument(
        "--default-score", metavar="NAME", help="score to decide by (the recipe's, else the first)"
    )
    parser.add_argument(
        "--features", action="store_true", help="make the features an output of the graph as well"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER",
        help="real images to compare on (the run's validation split)",
    )  # fmt: skip
    parser.add_argument(
        "--max-images", type=int, default=512, metavar="N",
        help="compare on at most so many of them, evenly chosen (512)",
    )  # fmt: skip
    parser.add_argument(
        "--max-error", type=float, default=MAX_ERROR, metavar="E",
        help=f"largest max|a-b| / max(1, max|a|) of an output that passes ({MAX_ERROR:g})",
    )  # fmt: skip
    parser.add_argument(
        "--opset", type=int, default=OPSETS.start, metavar="N",
        help=f"ONNX operator set, {OPSETS.start} to {OPSETS.stop - 1} ({OPSETS.start})",
    )  # fmt: skip
    parser.add_argument(
        "--triton-device", choices=("cpu", "gpu"), default=defaults.device,
        help=f"where Triton runs the model ({defaults.device})",
    )  # fmt: skip
    parser.add_argument(
        "--max-batch-size", type=int, default=defaults.max_batch_size, metavar="N",
        help=f"most images in one of Triton's batches ({defaults.max_batch_size})",
    )  # fmt: skip
    parser.set_defaults(run=_bundle)


def _bundle(arguments: argparse.Namespace) -> int:
    destination = Destination.parse(arguments.to)
    run = load_run(arguments.path)
    scores, default_score = choose_scores(
        run.recipe, tuple(arguments.scores), arguments.default_score
    )
    settings = ExportSettings(
        scores=scores,
        default_score=default_score,
        features=arguments.features,
        opset=arguments.opset,
        max_error=arguments.max_error,
        max_images=arguments.max_images,
        triton=TritonSettings(
            device=arguments.triton_device, max_batch_size=arguments.max_batch_size
        ),
    )
    images = parity_images(run, arguments.images)
    with _progress() as progress:
        exporting = progress.add_task("exporting the graph", total=None)
        graph = export_run(run, settings)
        progress.remove_task(exporting)
        comparing = progress.add_task(
            "comparing on images", total=min(len(images), settings.max_images)
        )
        published = publish(
            run,
            graph,
            images,
            settings,
            destination,
            progress=lambda done: progress.update(comparing, completed=done),
        )
    _print_summary(published, run)
    return 0


def _print_summary(published: Published, run: TrainedRun) -> None:
    manifest, comparison = published.manifest, published.comparison
    flag = comparison.flags[manifest.default_score]
    errors = ", ".join(f"{name} {error:.2g}" for name, error in comparison.errors.items())
    quality = [
        f"{split} {', '.join(f'{name} {value:.4f}' for name, value in figures.items())}"
        for split, figures in manifest.quality.items()
    ]
    lines = [
        f"published {published.path}",
        f"  model    {published.model_bytes / 2**20:.1f} MiB, opset {manifest.model.opset}, "
        f"sha256 {manifest.model.sha256}",
        f"  scores   {', '.join(manifest.scores)} (default {manifest.default_score})",
        *(f"  quality  {line}" for line in quality),
        f"  parity   {comparison.images} images: {errors} (at most {comparison.bound:g})",
        f"           {comparison.label_flips} labels and {flag.flips} flags differ, with "
        f"{flag.near} too close to the provisional threshold {flag.threshold:.6g} to tell",
        f"next: oodserve calibrate {published.path} --images {_calibration_images(run)}",
    ]
    Console().print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _calibration_images(run: TrainedRun) -> str:
    folder = Path(run.recipe.data.root) / "calibration"
    return str(folder) if folder.is_dir() else "FOLDER"


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
    )
