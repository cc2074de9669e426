"""Logging: one JSON object for each line on standard error, and no image content in any."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime

FIELDS = "fields"
"""Key of ``extra`` under which a record carries its structured fields."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, then the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Send everything from `level` up to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # These speak of connections and of every malformed body; what matters is in our own lines.
    for name in ("uvicorn", "python_multipart", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    # Pillow warns of what it overlooks in a file: a line for each image that anybody sends.
    warnings.filterwarnings("ignore", module=r"PIL\.")
