"""Every error that oodserve raises on purpose, by who has to act on it.

    OodserveError
    ├── ImageError                 who sent the image
    │   ├── EmptyImage             nothing arrived
    │   ├── UnsupportedImage       not a format that is read here
    │   ├── ImageTooLarge          more bytes or pixels than allowed
    │   └── UndecodableImage       truncated or corrupt
    ├── RequestError               who made the call
    │   ├── InvalidRequest         a value that cannot be right
    │   ├── RequestTooLarge        more bytes or images in one request than allowed
    │   ├── UnsupportedMediaType   a body of a kind that is not understood
    │   └── UnknownModel           no such model or version
    ├── Unavailable                nobody: try again later
    │   ├── NotReady               a model is not (yet) able to answer
    │   ├── Overloaded             the queue is full
    │   ├── Draining               the process is shutting down
    │   └── DeadlineExceeded       the answer would come too late
    ├── ArtifactError              who operates the server: a file must be replaced
    │   ├── BundleError            a bundle that is missing, half-written, corrupt or too new
    │   └── CalibrationError       a calibration that cannot be used
    │       ├── TooFewSamples      more held-out images are needed
    │       ├── NotCalibrated      there is none yet
    │       └── CalibrationMismatch  made for another model, input or runtime
    ├── EngineError                the runtime failed
    │   └── NonFiniteScore         the model returned NaN or an infinity
    └── ConfigurationError         who wrote the settings, the recipe or the command
        ├── RecipeError            a training recipe
        ├── DataError              a folder of training or evaluation images
        ├── WeightsUnavailable     pretrained weights that cannot be had
        └── ParityError            the exported artefact does not equal its source

An error carries its facts as attributes and knows nothing of HTTP: the server holds the one table
from these classes to status codes.
"""

from __future__ import annotations

from pathlib import Path


class OodserveError(Exception):
    """Base of all errors below; ``str(error)`` is fit to be shown to whoever has to act."""


class ImageError(OodserveError):
    """An image cannot be used; its sender must send another one."""


class EmptyImage(ImageError):
    """There is no image: zero bytes arrived."""


class UnsupportedImage(ImageError):
    """The bytes are not an image of a format that is read here."""


class ImageTooLarge(ImageError):
    """The image exceeds a limit.

    Attributes
    ----------
    unit : str
        ``"bytes"`` or ``"pixels"``.
    got, limit : int
        What arrived and what is allowed, in that unit.
    """

    def __init__(self, message: str, *, unit: str, got: int, limit: int) -> None:
        super().__init__(message)
        self.unit = unit
        self.got = got
        self.limit = limit


class UndecodableImage(ImageError):
    """The header is that of a known format, but the content is truncated or corrupt."""


class RequestError(OodserveError):
    """A call cannot be answered as it stands; the caller must change it."""


class InvalidRequest(RequestError):
    """A value in the call cannot be right; the message names it and what was expected."""


class RequestTooLarge(RequestError):
    """One request carries more than is allowed."""


class UnsupportedMediaType(RequestError):
    """The body is of a media type that is not understood."""


class UnknownModel(RequestError):
    """No model, or no version of it, has this name."""


class Unavailable(OodserveError):
    """No answer now, through no fault of the caller.

    Attributes
    ----------
    retry_after_s : float
        Seconds after which it is worth trying again.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(Unavailable):
    """The model is not able to answer: still loading, broken, or without a calibration."""


class Overloaded(Unavailable):
    """The bounded queue is full."""


class Draining(Unavailable):
    """The process is shutting down and takes no new work."""


class DeadlineExceeded(Unavailable):
    """The request waited longer than its deadline allows."""


class ArtifactError(OodserveError):
    """A file that the operator provided cannot be used.

    Attributes
    ----------
    path : Path or None
        The file or folder at fault.
    """

    def __init__(self, message: str, *, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class BundleError(ArtifactError):
    """A bundle is missing, half-written, corrupt, or written by a newer format."""


class CalibrationError(ArtifactError):
    """A calibration cannot be made or used."""


class TooFewSamples(CalibrationError):
    """The calibration set is too small for the guarantee that was asked for.

    Attributes
    ----------
    got, needed : int
        Number of images there are, and the least number that suffices.
    """

    def __init__(self, message: str, *, got: int, needed: int) -> None:
        super().__init__(message)
        self.got = got
        self.needed = needed


class NotCalibrated(CalibrationError):
    """The bundle has no calibration yet, so there is no threshold to decide against."""


class CalibrationMismatch(CalibrationError):
    """The calibration was made for another model, input or runtime."""


class EngineError(OodserveError):
    """The inference runtime failed or is not what was asked for."""


class NonFiniteScore(EngineError):
    """The model returned NaN or an infinity, so no decision can be made."""


class ConfigurationError(OodserveError):
    """Settings, arguments or inputs of a program that its user must change."""


class RecipeError(ConfigurationError):
    """A training recipe has an unknown key or a value out of range."""


class DataError(ConfigurationError):
    """A folder of images is not what the command needs."""


class WeightsUnavailable(ConfigurationError):
    """Pretrained weights were asked for and cannot be had."""


class ParityError(ConfigurationError):
    """The exported artefact's outputs differ from the source model's by more than the bound."""
