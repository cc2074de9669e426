"""`oodserve predict`: class, score and in/out flag of images."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from oodserve.commands.runtime import add_accept_mismatch, add_bundle
from oodserve.errors import DataError, ImageError, InvalidRequest
from oodserve.folders import list_images
from oodserve.predictor import Prediction, Predictor


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "predict",
        help="class, score and in/out flag of images",
        description="Classify images in this process, exactly as the server would.",
    )
    add_bundle(parser)
    add_accept_mismatch(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="file or folder")
    parser.add_argument("--top-k", type=int, default=1, metavar="K", help="classes to list (1)")
    parser.add_argument("--score-name", metavar="NAME", help="decide by this score (the default)")
    parser.add_argument("--json", action="store_true", help="one JSON object per image")
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    predictor = Predictor.load(
        arguments.bundle,
        calibrations=arguments.calibrations,
        provider=arguments.provider,
        threads=arguments.threads,
        accept_runtime_mismatch=arguments.accept_runtime_mismatch,
    )
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
        except ImageError as error:
            raise DataError(f"`{path}`: {error}") from error
        if arguments.json:
            sys.stdout.write(json.dumps({"image": str(path)} | prediction.to_dict()) + "\n")
        else:
            table.add_row(escape(str(path)), *_cells(prediction))
    if not arguments.json:
        Console().print(table)
    return 0


def _cells(prediction: Prediction) -> list[str]:
    return [
        escape(prediction.label),
        f"{prediction.probability:.4f}",
        "OUT" if prediction.ood else "in",
        f"{prediction.score:.4f}",
        f"{prediction.threshold:.4f}",
        f"{prediction.p_value:.4f}",
    ]
