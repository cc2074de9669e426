"""`oodserve calibrate`: the threshold from held-out images, on the runtime that serves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oodserve.bundle import CALIBRATION, Manifest, attach_calibration
from oodserve.calibration import Calibration, calibrate, small_sample_warning
from oodserve.commands.runtime import add_bundle, positive
from oodserve.commands.tables import calibration_table
from oodserve.errors import CalibrationError, DataError, InvalidRequest
from oodserve.folders import fingerprint, list_images
from oodserve.predictor import Predictor
from oodserve.scoring import ScoredImages, label_accuracy, score_files
from oodserve.store import CalibrationStore

MAX_SCORES = 4
"""Scores in one calibration: each is a set of metric series."""

CONFIDENCE = 0.95
"""Confidence of the rule ``pac`` unless stated."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "calibrate",
        help="make the threshold from held-out images",
        description=(
            "Score held-out in-distribution images with the exported artefact on this runtime and "
            "write the threshold tau with its guarantee. Without --calibrations the calibration "
            "becomes the bundle's own, once; with it, the store's next and current one."
        ),
    )
    add_bundle(parser)
    parser.add_argument(
        "--images", required=True, type=Path, metavar="FOLDER",
        help="in-distribution images that were used neither for training nor for model selection",
    )  # fmt: skip
    parser.add_argument(
        "--target-tpr", type=float, default=0.95, metavar="P",
        help="share of in-distribution images to accept (0.95)",
    )  # fmt: skip
    parser.add_argument(
        "--rule", choices=("pac", "marginal"), default="pac",
        help="pac: at least P with --confidence; marginal: at least P on average (pac)",
    )  # fmt: skip
    parser.add_argument(
        "--confidence", type=float, metavar="P",
        help=f"probability over calibration sets that the target is met; rule pac ({CONFIDENCE})",
    )  # fmt: skip
    parser.add_argument(
        "--score", action="append", metavar="NAME", dest="scores",
        help=f"calibrate this score; repeatable, at most {MAX_SCORES} (all that the model has)",
    )  # fmt: skip
    parser.add_argument(
        "--default-score", metavar="NAME", help="score to decide by (the bundle's default)"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="images at a time (32)"
    )
    parser.set_defaults(run=_calibrate)


def _calibrate(arguments: argparse.Namespace) -> int:
    messages = Console(stderr=True)
    if arguments.rule == "marginal" and arguments.confidence is not None:
        raise InvalidRequest(
            f"`--confidence {arguments.confidence:g}` belongs to the rule `pac`; "
            "`--rule marginal` promises an average and has none"
        )
    # Whatever calibration there is, it is about to be replaced: none is read.
    predictor = Predictor.load(
        arguments.bundle,
        provider=arguments.provider,
        threads=arguments.threads,
        read_calibration=False,
    )
    bundle = predictor.bundle
    if arguments.calibrations is None and (bundle.path / CALIBRATION).exists():
        raise CalibrationError(
            f"`{bundle.path}` has its calibration already and a bundle is never changed; "
            "publish a refreshed one with `--calibrations DIR`"
        )
    names = _scores_to_calibrate(arguments, predictor)
    root = arguments.images.resolve()
    paths = list_images(root)
    _refuse_held_out(paths, root, bundle.manifest)
    scored = _score(predictor, paths, batch_size=arguments.batch_size, console=messages)
    calibration = calibrate(
        {name: scored.scores[name] for name in names},
        scored.predicted,
        n_classes=len(bundle.manifest.classes),
        rule=arguments.rule,
        target_tpr=arguments.target_tpr,
        confidence=CONFIDENCE if arguments.confidence is None else arguments.confidence,
        model_sha256=bundle.manifest.model.sha256,
        input_sha256=bundle.manifest.input_sha256,
        runtime=predictor.engine.runtime,
        data_fingerprint=fingerprint(paths, root),
        default_score=arguments.default_score or _default_score(predictor, names),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    warning = small_sample_warning(len(paths))
    if warning:
        messages.print(f"warning: {warning}", highlight=False)
    accuracy = label_accuracy(scored, root, bundle.manifest.classes)
    if accuracy is not None:
        messages.print(f"accuracy on these images: {accuracy:.4f}", highlight=False)
    _write(arguments.calibrations, predictor, calibration, console=messages)
    return 0


def _refuse_held_out(paths: Sequence[Path], root: Path, manifest: Manifest) -> None:
    """Refuse a folder of a class that training left out: its images are out of distribution."""
    held_out = manifest.training.held_out_classes if manifest.training else ()
    for path in paths:
        above = (root, *(root / part for part in reversed(path.relative_to(root).parents[:-1])))
        folder = next((place for place in above if place.name in held_out), None)
        if folder is not None:
            raise DataError(
                f"`{folder}` is named like a class that was held out of training, so its "
                "images are out of distribution; calibrate on a folder without it"
            )


def _score(
    predictor: Predictor, paths: Sequence[Path], *, batch_size: int, console: Console
) -> ScoredImages:
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("scoring", total=len(paths))
        return score_files(
            predictor,
            paths,
            batch_size=batch_size,
            progress=lambda done: progress.update(task, completed=done),
        )


def _write(
    store: Path | None, predictor: Predictor, calibration: Calibration, *, console: Console
) -> None:
    bundle = predictor.bundle
    if store is None:
        identity = attach_calibration(bundle, calibration)
        where = str(bundle.path / CALIBRATION)
    else:
        published = CalibrationStore(store).publish(bundle.name, bundle.version, calibration)
        identity = published.id
        where = f"{store}, ordinal {published.ordinal}"
    console.print(calibration_table(calibration))
    console.print(
        f"calibration {identity} of `{bundle.name}` version {bundle.version}: {where}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _scores_to_calibrate(arguments: argparse.Namespace, predictor: Predictor) -> list[str]:
    available = predictor.bundle.manifest.scores
    names = list(dict.fromkeys(arguments.scores or available))
    for name in [*names, *([arguments.default_score] if arguments.default_score else [])]:
        if name not in available:
            raise InvalidRequest(f"the model has no score `{name}`; it has {', '.join(available)}")
    if arguments.default_score and arguments.default_score not in names:
        raise InvalidRequest(
            f"`--default-score {arguments.default_score}` is not among the calibrated scores "
            f"({', '.join(names)})"
        )
    if len(names) > MAX_SCORES:
        raise InvalidRequest(
            f"{len(names)} scores are too many for one calibration; choose at most {MAX_SCORES} "
            "with `--score NAME`"
        )
    return names


def _default_score(predictor: Predictor, names: Sequence[str]) -> str:
    default = predictor.bundle.manifest.default_score
    return default if default in names else names[0]
