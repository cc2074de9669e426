"""The store of refreshed calibrations: writable, outside the model repository, shared by replicas.

    calibrations/
      <name>/<version>/000001.json   immutable, by ordinal
                       000002.json
                       current       text: the ordinal in force

A new calibration is created exclusively under the next ordinal, so of two publishers one wins;
`current` is replaced by one rename, so a reader sees the old or the new, never half of one.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from oodserve.bundle import create_exclusively, read_calibration
from oodserve.calibration import Calibration
from oodserve.errors import CalibrationError

CURRENT = "current"


@dataclass(frozen=True)
class Published:
    """A calibration in the store."""

    ordinal: int
    id: str
    calibration: Calibration


@dataclass(frozen=True)
class CalibrationStore:
    """A folder of calibrations, by model name and version."""

    root: Path

    def ordinals(self, name: str, version: int) -> list[int]:
        """Return the ordinals there are for a model version, ascending."""
        folder = self._folder(name, version)
        if not folder.is_dir():
            return []
        return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())

    def read(self, name: str, version: int, ordinal: int) -> Published:
        """Return one calibration.

        Raises
        ------
        CalibrationError
            There is none with this ordinal, or the file has faults.
        """
        calibration, identity = read_calibration(self._file(name, version, ordinal))
        return Published(ordinal=ordinal, id=identity, calibration=calibration)

    def current(self, name: str, version: int) -> Published | None:
        """Return the calibration in force, or None if none was ever published.

        Raises
        ------
        CalibrationError
            `current` is not a number, or what it names cannot be read.
        """
        pointer = self._folder(name, version) / CURRENT
        try:
            text = pointer.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CalibrationError(f"cannot read `{pointer}` ({error})", path=pointer) from error
        if not text.isdecimal():
            raise CalibrationError(
                f"`{pointer}` holds {text[:40]!r}, not the ordinal of a calibration", path=pointer
            )
        return self.read(name, version, int(text))

    def publish(self, name: str, version: int, calibration: Calibration) -> Published:
        """Add a calibration under the next ordinal and put it in force.

        Raises
        ------
        CalibrationError
            The store cannot be written, or another publisher took the ordinal first.
        """
        folder = self._folder(name, version)
        ordinal = (self.ordinals(name, version) or [0])[-1] + 1
        path = self._file(name, version, ordinal)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            created = create_exclusively(path, calibration.to_json().encode(), staging=folder)
        except OSError as error:
            raise CalibrationError(
                f"cannot write to the calibration store `{self.root}` ({error})", path=folder
            ) from error
        if not created:
            raise CalibrationError(
                f"another publisher took ordinal {ordinal} of `{name}` version {version} first; "
                "look at what it published, then run this again",
                path=path,
            )
        self.activate(name, version, ordinal)
        return self.read(name, version, ordinal)

    def activate(self, name: str, version: int, ordinal: int) -> None:
        """Put a calibration that is in the store in force, by one rename.

        Raises
        ------
        CalibrationError
            There is none with this ordinal, it has faults, or the store cannot be written.
        """
        self.read(name, version, ordinal)
        folder = self._folder(name, version)
        try:
            handle, temporary = tempfile.mkstemp(prefix=".current-", dir=folder)
            with os.fdopen(handle, "w") as file:
                file.write(f"{ordinal:06d}\n")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).rename(folder / CURRENT)
        except OSError as error:
            raise CalibrationError(
                f"cannot write to the calibration store `{self.root}` ({error})", path=folder
            ) from error

    def _folder(self, name: str, version: int) -> Path:
        return self.root / name / str(version)

    def _file(self, name: str, version: int, ordinal: int) -> Path:
        return self._folder(name, version) / f"{ordinal:06d}.json"
