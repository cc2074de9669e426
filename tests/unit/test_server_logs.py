"""One JSON object for each line."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from server.logs import JsonFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("server", logging.WARNING, __file__, 1, message, (), None)
    made.created = 1_769_860_800.25
    vars(made).update(extra)
    return made


def test_a_record_becomes_one_line_with_its_fields() -> None:
    fields = {"status": 503, "error": 'a "b"\nc', "path": Path("m")}

    line = JsonFormatter().format(record("request", fields=fields))

    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-01-31T12:00:00.250Z",
        "level": "warning",
        "event": "request",
        "status": 503,
        "error": 'a "b"\nc',
        "path": "m",
    }


def test_a_traceback_stays_in_the_line() -> None:
    made = record("unexpected error")
    try:
        raise KeyError("here")
    except KeyError:
        made.exc_info = sys.exc_info()

    line = json.loads(JsonFormatter().format(made))

    assert "KeyError: 'here'" in line["traceback"]
