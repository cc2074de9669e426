"""The command `oodserve`: predict, calibrate and inspect, without torch and without a server."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from oodserve import __version__
from oodserve.bundle import CALIBRATION, attach_calibration
from oodserve.calibration import Calibration, calibrate, small_sample_warning
from oodserve.errors import CalibrationError, InvalidRequest, NotCalibrated, OodserveError
from oodserve.folders import fingerprint, list_images
from oodserve.predictor import Prediction, Predictor
from oodserve.scoring import label_accuracy, score_files
from oodserve.store import CalibrationStore

MAX_SCORES = 4
"""Scores in one calibration: each is a set of metric series."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 refused with a reason, 2 usage."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except OodserveError as error:
        sys.stderr.write(f"oodserve: {error}\n")
        return 1
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oodserve",
        description="Classify images and say which are out of distribution.",
        epilog="Data goes to stdout, everything else to stderr.",
    )
    parser.add_argument("--version", action="version", version=f"oodserve {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_calibrate(commands)
    _add_inspect(commands)
    return parser


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "predict",
        help="class, score and in/out flag of images",
        description="Classify images in this process, exactly as the server would.",
    )
    _add_runtime(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="file or folder")
    parser.add_argument("--top-k", type=int, default=1, metavar="K", help="classes to list (1)")
    parser.add_argument("--score-name", metavar="NAME", help="decide by this score (the default)")
    parser.add_argument("--json", action="store_true", help="one JSON object per image")
    parser.set_defaults(run=_predict)


def _add_calibrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "calibrate",
        help="make the threshold from held-out images",
        description=(
            "Score held-out in-distribution images with the exported artefact on this runtime and "
            "write the threshold tau with its guarantee. Without --calibrations the calibration "
            "becomes the bundle's own, once; with it, the store's next and current one."
        ),
    )
    _add_runtime(parser)
    parser.add_argument(
        "--images",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="in-distribution images that were used neither for training nor for model selection",
    )
    parser.add_argument(
        "--target-tpr",
        type=float,
        default=0.95,
        metavar="P",
        help="share of in-distribution images to accept (0.95)",
    )
    parser.add_argument(
        "--rule",
        choices=("pac", "marginal"),
        default="pac",
        help="pac: at least P with --confidence; marginal: at least P on average (pac)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.95,
        metavar="P",
        help="probability over calibration sets that the target is met; rule pac (0.95)",
    )
    parser.add_argument(
        "--score",
        action="append",
        metavar="NAME",
        dest="scores",
        help=f"calibrate this score; repeatable, at most {MAX_SCORES} (all that the model has)",
    )
    parser.add_argument(
        "--default-score", metavar="NAME", help="score to decide by (the bundle's default)"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images (32)")
    parser.set_defaults(run=_calibrate)


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "inspect",
        help="what a bundle is, and whether it is whole",
        description="Print a bundle's manifest and calibration, and verify that it is servable.",
    )
    _add_runtime(parser)
    parser.add_argument("--json", action="store_true", help="manifest and calibration as JSON")
    parser.set_defaults(run=_inspect)


def _add_runtime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="models/NAME[/VERSION]")
    parser.add_argument(
        "--calibrations", type=Path, metavar="DIR", help="store of refreshed calibrations"
    )
    parser.add_argument(
        "--provider", default="cpu", choices=("cpu", "cuda"), help="execution provider (cpu)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of one inference (all usable CPUs)"
    )
    parser.add_argument(
        "--accept-runtime-mismatch",
        action="store_true",
        help="use a calibration that was made on another runtime",
    )


def _predict(arguments: argparse.Namespace) -> int:
    predictor = _load(arguments, require_calibration=True)
    paths = [
        path
        for given in arguments.images
        for path in (list_images(given) if given.is_dir() else [given])
    ]
    table = Table(
        "image", "class", "probability", "in/out", arguments.score_name or "score", "tau", "p"
    )
    for path in paths:
        try:
            prediction = predictor.predict(
                [path], top_k=arguments.top_k, score_name=arguments.score_name
            )[0]
        except OSError as error:
            raise InvalidRequest(f"cannot read `{path}` ({error.strerror})") from error
        if arguments.json:
            sys.stdout.write(json.dumps({"image": str(path)} | prediction.to_dict()) + "\n")
        else:
            table.add_row(str(path), *_cells(prediction))
    if not arguments.json:
        Console().print(table)
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    predictor = _load(arguments, require_calibration=False)
    bundle, messages = predictor.bundle, Console(stderr=True)
    if arguments.calibrations is None and (bundle.path / CALIBRATION).exists():
        raise CalibrationError(
            f"`{bundle.path}` has its calibration already and a bundle is never changed; "
            "publish a refreshed one with `--calibrations DIR`"
        )
    names = _scores_to_calibrate(arguments, predictor)
    root = arguments.images.resolve()
    paths = list_images(root)
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        task = progress.add_task("scoring", total=len(paths))
        scored = score_files(
            predictor,
            paths,
            batch_size=arguments.batch_size,
            progress=lambda done: progress.update(task, completed=done),
        )
    calibration = calibrate(
        {name: scored.scores[name] for name in names},
        scored.predicted,
        n_classes=len(bundle.manifest.classes),
        rule=arguments.rule,
        target_tpr=arguments.target_tpr,
        confidence=arguments.confidence,
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
    _write_calibration(arguments, predictor, calibration, messages)
    return 0


def _write_calibration(
    arguments: argparse.Namespace, predictor: Predictor, calibration: Calibration, messages: Console
) -> None:
    bundle = predictor.bundle
    if arguments.calibrations is None:
        identity = attach_calibration(bundle, calibration)
        where = str(bundle.path / CALIBRATION)
    else:
        published = CalibrationStore(arguments.calibrations).publish(
            bundle.name, bundle.version, calibration
        )
        identity = published.id
        where = f"{arguments.calibrations}, ordinal {published.ordinal}"
    _print_calibration(calibration, messages)
    messages.print(f"calibration {identity} of `{bundle.name}` version {bundle.version}: {where}")


def _inspect(arguments: argparse.Namespace) -> int:
    predictor = _load(arguments, require_calibration=False)
    bundle, manifest, active = predictor.bundle, predictor.bundle.manifest, predictor.active
    error = predictor.verify_golden()
    if arguments.json:
        document = {
            "name": bundle.name,
            "version": bundle.version,
            "manifest": manifest.model_dump(mode="json"),
            "calibration_id": active.id if active else None,
            "calibration": active.calibration.model_dump(mode="json") if active else None,
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        console = Console()
        size = manifest.input.preprocessing
        console.print(f"{bundle.name} version {bundle.version}  {bundle.path}", highlight=False)
        console.print(
            f"  model    {manifest.model.file}, {manifest.model.precision}, sha256 "
            f"{manifest.model.sha256[:12]}, made {manifest.created}",
            highlight=False,
        )
        console.print(f"  input    {size.height} x {size.width}, {size.resize}", highlight=False)
        console.print(
            f"  classes  {len(manifest.classes)}: {_shorten(manifest.classes)}", highlight=False
        )
        console.print(
            f"  scores   {', '.join(manifest.scores)} (default {manifest.default_score})",
            highlight=False,
        )
        for name, figures in manifest.quality.items():
            text = ", ".join(f"{key} {value:.4f}" for key, value in figures.items())
            console.print(f"  {name}: {text}", highlight=False)
        console.print(f"  golden outputs reproduced within {error:.2g}", highlight=False)
        if active:
            console.print(
                f"  calibration {active.id}, made {active.calibration.created}", highlight=False
            )
            _print_calibration(active.calibration, console)
    if active is None:
        # Not fit to serve: say so in the exit status too.
        bundle.read_calibration()
        raise NotCalibrated("there is no calibration")
    return 0


def _load(arguments: argparse.Namespace, *, require_calibration: bool) -> Predictor:
    return Predictor.load(
        arguments.bundle,
        calibrations=arguments.calibrations,
        provider=arguments.provider,
        threads=arguments.threads,
        accept_runtime_mismatch=arguments.accept_runtime_mismatch,
        require_calibration=require_calibration,
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


def _print_calibration(calibration: Calibration, console: Console) -> None:
    table = Table("score", "rule", "tau", "n", "k", "target TPR", "TPR at least", "decides")
    for name, score in calibration.scores.items():
        rule = score.rule if score.confidence is None else f"{score.rule} {score.confidence:g}"
        decides = "yes" if name == calibration.default_score else ""
        table.add_row(
            name, rule, f"{score.tau:.6g}", str(score.n), str(score.k),
            f"{score.target_tpr:g}", f"{score.tpr_lower:.4f}", decides,
        )  # fmt: skip
    console.print(table)


def _cells(prediction: Prediction) -> list[str]:
    return [
        prediction.label,
        f"{prediction.probability:.4f}",
        "OUT" if prediction.ood else "in",
        f"{prediction.score:.4f}",
        f"{prediction.threshold:.4f}",
        f"{prediction.p_value:.4f}",
    ]


def _shorten(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
