"""What the server can be told: one frozen dataclass, the one home of every default.

A value comes from its flag, else from its environment variable ``OODSERVE_<UPPER_NAME>``, else from
the default here. Anything that is not understood is refused at start.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oodserve.errors import ConfigurationError

PREFIX = "OODSERVE_"
MIB = 2**20

# Kubernetes puts the address of a Service named `oodserve` into OODSERVE_PORT,
# OODSERVE_SERVICE_HOST, OODSERVE_PORT_8000_TCP_ADDR and the like of every pod.
_SERVICE_LINK = re.compile(
    r"OODSERVE_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP)(_[A-Z]+)?)?)"
)


def _about(unit: str, text: str, *, low: float | None = None) -> Mapping[str, Any]:
    """Describe a setting: its unit (or kind of value), what it does, its least value."""
    return {"unit": unit, "help": text, "low": low}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Effective settings of one server process."""

    models: Path = field(
        default=Path("models"), metadata=_about("DIR", "model repository to serve all models of")
    )
    calibrations: Path | None = field(
        default=None,
        metadata=_about(
            "DIR", "store of refreshed calibrations; without one the bundles' own count"
        ),
    )
    default_model: str | None = field(
        default=None,
        metadata=_about("NAME", "model that /v1/predict means where there are several"),
    )
    host: str = field(default="127.0.0.1", metadata=_about("ADDRESS", "address to listen on"))
    port: int = field(
        default=8000,
        metadata=_about("PORT", "port to listen on; 0 takes a free one and logs it", low=0),
    )
    provider: Literal["cpu", "cuda"] = field(
        default="cpu", metadata=_about("NAME", "execution provider; no fallback")
    )
    threads: int | None = field(
        default=None,
        metadata=_about("THREADS", "threads of one inference; none means all usable CPUs", low=1),
    )
    accept_runtime_mismatch: bool = field(
        default=False,
        metadata=_about("BOOL", "serve with a calibration that was made on another runtime"),
    )
    max_body_bytes: int = field(
        default=64 * MIB, metadata=_about("BYTES", "largest request body", low=1)
    )
    max_image_bytes: int = field(
        default=20 * MIB, metadata=_about("BYTES", "largest encoded image", low=1)
    )
    max_image_pixels: int = field(
        default=50_000_000,
        metadata=_about("PIXELS", "largest width x height, checked before decoding", low=1),
    )
    max_images_per_request: int = field(
        default=32, metadata=_about("IMAGES", "most images in one request", low=1)
    )
    max_queue_images: int = field(
        default=256,
        metadata=_about(
            "IMAGES", "most images admitted and not answered yet, over all requests", low=1
        ),
    )
    max_queue_bytes: int = field(
        default=256 * MIB,
        metadata=_about("BYTES", "most bytes of bodies admitted and not answered yet", low=1),
    )
    decode_threads: int | None = field(
        default=None,
        metadata=_about(
            "THREADS", "threads that decode images; none means the usable CPUs, at most 4", low=1
        ),
    )
    deadline_s: float = field(
        default=10.0,
        metadata=_about(
            "SECONDS", "time from a complete body to its answer, after which it is 504", low=0.001
        ),
    )
    body_timeout_s: float = field(
        default=30.0, metadata=_about("SECONDS", "time a client may take to send a body", low=0.001)
    )
    drain_delay_s: float = field(
        default=5.0,
        metadata=_about(
            "SECONDS",
            "time to keep accepting after SIGTERM, until load balancers have seen not-ready; "
            "0 on a laptop, and none after Ctrl-C",
            low=0,
        ),
    )
    drain_timeout_s: float = field(
        default=30.0,
        metadata=_about("SECONDS", "time to finish accepted requests after that", low=0.001),
    )
    keep_alive_s: float = field(
        default=75.0,
        metadata=_about(
            "SECONDS", "time an idle connection is kept; longer than the proxy's in front", low=1
        ),
    )
    backlog: int = field(
        default=2048,
        metadata=_about(
            "CONNECTIONS", "connections the kernel holds until they are accepted", low=1
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata=_about("LEVEL", "least severity to log")
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, low = getattr(self, item.name), item.metadata["low"]
            if low is not None and value is not None and not low <= value < float("inf"):
                raise ConfigurationError(
                    f"`{flag(item.name)}` = {value} is out of range; expected at least {low:g}"
                )
        if self.port > 65535:
            raise ConfigurationError(f"`--port` = {self.port} is out of range; expected 0 to 65535")
        for small, large in _ORDERED:
            if getattr(self, small) > getattr(self, large):
                raise ConfigurationError(
                    f"`{flag(small)}` = {getattr(self, small)} is larger than `{flag(large)}` = "
                    f"{getattr(self, large)}, so such a request could never be served; "
                    "raise the latter or lower the former"
                )

    def describe(self) -> dict[str, object]:
        """Return the effective values as JSON can hold them; nothing in them is secret."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in values.items()
        }


_ORDERED = (
    ("max_image_bytes", "max_body_bytes"),
    ("max_body_bytes", "max_queue_bytes"),
    ("max_images_per_request", "max_queue_images"),
)


def flag(name: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings that flags and environment ask for.

    Raises
    ------
    ConfigurationError
        A variable, or the value of a flag or variable, is not understood, or values do not go
        together. An unknown flag, and ``--help``, end the program as `argparse` does.
    """
    given = vars(_parser().parse_args(argv))
    values: dict[str, object] = {}
    for name, text in _variables(environ).items():
        values[name] = _read(name, text, origin=variable(name))
    for name, text in given.items():
        values[name] = _read(name, text, origin=flag(name))
    return Settings(**values)  # type: ignore[arg-type]


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    names = {variable(item.name): item.name for item in dataclasses.fields(Settings)}
    found: dict[str, str] = {}
    for key, text in environ.items():
        if not key.startswith(PREFIX):
            continue
        if _SERVICE_LINK.fullmatch(key) and (key not in names or "://" in text):
            continue
        if key not in names:
            known = [name.removeprefix(PREFIX) for name in names]
            close = difflib.get_close_matches(key.removeprefix(PREFIX), known, n=1)
            hint = (
                f"did you mean `{PREFIX}{close[0]}`?" if close else "see `python -m server --help`"
            )
            raise ConfigurationError(f"`{key}` in the environment is no setting; {hint}")
        found[names[key]] = text
    return found


def _read(name: str, text: str, *, origin: str) -> object:
    kinds = _kinds(name)
    for kind in kinds:
        if kind in _READERS:
            expected, read = _READERS[kind]
            try:
                return read(text)
            except (ValueError, KeyError):
                raise ConfigurationError(
                    f"`{origin}` = {text!r} is not {expected}; see `python -m server --help`"
                ) from None
    if text not in kinds:
        raise ConfigurationError(
            f"`{origin}` = {text!r} is not one of {', '.join(map(str, kinds))}"
        )
    return text


def _kinds(name: str) -> tuple[object, ...]:
    """Types a setting may have, or the words it may be."""
    hint = typing.get_type_hints(Settings)[name]
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return tuple(kind for kind in typing.get_args(hint) if kind is not type(None))
    return (hint,)


def _text(value: str) -> str:
    if not value:
        raise ValueError(value)
    return value


_READERS: Mapping[object, tuple[str, Callable[[str], object]]] = {
    # Not bool(text): that makes "false" true.
    bool: (
        "`true`, `false`, `1` or `0`",
        lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
    ),
    int: ("a whole number", int),
    float: ("a number", float),
    Path: ("a path", lambda text: Path(_text(text))),
    str: ("a non-empty text", _text),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Serve image classifiers that say which images are out of distribution.",
        epilog=f"Each flag can be given as {PREFIX}<NAME> in the environment, for example "
        f"{variable('max_body_bytes')}; a flag counts before a variable.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for item in dataclasses.fields(Settings):
        kinds = _kinds(item.name)
        words = "" if kinds[0] in _READERS else f"one of {', '.join(map(str, kinds))}; "
        default = "none" if item.default is None else str(item.default).lower()
        # Values are read by `_read`, so that flags and variables are understood alike.
        argument = parser.add_argument(
            flag(item.name),
            metavar=item.metadata["unit"],
            help=f"{item.metadata['help']} ({words}default {default})".replace("%", "%%"),
        )
        if kinds == (bool,):
            argument.nargs, argument.const = "?", "true"
    return parser
