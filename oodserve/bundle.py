"""The bundle: one immutable model version, read by the embedded engine and by Triton alike.

    models/                     a model repository
      <name>/
        config.pbtxt            Triton's view of the model
        1/                      a version; never changed after it appears
          model.onnx
          bundle.json           the manifest below
          golden.npz            uint8 inputs with the outputs expected of this runtime
          calibration.json      the first calibration; may be added once, later

Nothing is written or staged inside a repository: a version is made in a sibling of the repository
and appears by one rename, so a server that polls the repository never sees half a version.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, ValidationError, model_validator

from oodserve.calibration import Calibration
from oodserve.errors import BundleError, CalibrationError, NotCalibrated
from oodserve.images import Preprocessing
from oodserve.schema import Document, Sha256, explain

FORMAT_VERSION = 1
MANIFEST, CALIBRATION, GOLDEN, CONFIG = (
    "bundle.json",
    "calibration.json",
    "golden.npz",
    "config.pbtxt",
)

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class InputSpec(Document):
    """What the model takes: the pixels, and what the graph does to them first."""

    preprocessing: Preprocessing
    """From encoded bytes to (height, width, 3) uint8; done by `oodserve.images`."""
    mean: tuple[float, float, float]
    """RGB mean of pixel values in [0, 1]; subtracted inside the graph."""
    std: tuple[
        Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]
    ]
    """RGB standard deviation in [0, 1]; divided by inside the graph."""


class ModelFile(Document):
    """The model file of a version."""

    file: Literal["model.onnx", "model.plan"]
    sha256: Sha256
    precision: Literal["fp32", "fp16", "int8"]
    """Precision of the backbone; score heads are always fp32."""
    opset: Annotated[int, Field(ge=1)]
    """ONNX operator set."""
    producers: dict[str, str]
    """Library name to version, of what made the file."""


class Output(Document):
    """One output of the graph."""

    name: Name
    kind: Literal["logits", "score", "features", "cam"]
    description: str
    """What the numbers mean. A score is larger for more in-distribution input."""


class Training(Document):
    """Where the weights come from."""

    method: str
    hyperparameters: dict[str, JsonValue]
    """The effective recipe."""
    seed: int
    data_fingerprint: Sha256
    held_out_classes: tuple[str, ...]


class Parity(Document):
    """How far the artefact on its runtime is from the model it was made from, on real images."""

    images: Annotated[int, Field(ge=1)]
    """Number of images compared."""
    max_error: Annotated[float, Field(ge=0)]
    """Largest max|a-b| / max(1, max|a|) over all outputs."""
    bound: Annotated[float, Field(gt=0)]
    """What `max_error` may be at most."""
    label_flips: Annotated[int, Field(ge=0)]
    """Images whose predicted class differs."""
    flag_flips: Annotated[int, Field(ge=0)]
    """Images away from the provisional threshold whose in/out flag differs all the same."""
    near_threshold: Annotated[int, Field(ge=0)]
    """Images whose score lies within the error bound of the provisional threshold."""
    provisional_threshold: float
    """Threshold on the default score at which flags were compared."""


class Manifest(Document):
    """`bundle.json`: everything a runtime needs to know of a version."""

    format_version: Literal[1] = 1
    created: str
    """UTC time of the export, ISO 8601."""
    model: ModelFile
    input: InputSpec
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    """Class names in the order of the logits."""
    outputs: Annotated[tuple[Output, ...], Field(min_length=2)]
    default_score: Name
    training: Training | None = None
    quality: dict[str, dict[str, float]] = Field(default={})
    """Measured figures: data set name to metric name to value."""
    parity: Parity | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [output.name for output in self.outputs]
        if len(set(names)) != len(names):
            raise ValueError(f"output names repeat: {names}")
        if [output.name for output in self.outputs if output.kind == "logits"] != ["logits"]:
            raise ValueError("exactly one output of kind `logits`, named `logits`, is needed")
        if self.default_score not in self.scores:
            raise ValueError(
                f"`default_score` = {self.default_score!r} is none of the scores {self.scores}"
            )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("class names repeat")
        return self

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the score outputs, in the order of the graph."""
        return tuple(output.name for output in self.outputs if output.kind == "score")

    @property
    def input_sha256(self) -> str:
        """Digest of the input specification, to which a calibration is bound."""
        return self.input.digest()


@dataclass(frozen=True)
class Golden:
    """Inputs with the outputs that the runtime is expected to reproduce."""

    images: NDArray[np.uint8]
    """(N, H, W, 3)."""
    outputs: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Bundle:
    """A version on disk whose manifest has been read and whose model file has been verified."""

    path: Path
    name: str
    version: int
    manifest: Manifest

    def read_model(self) -> bytes:
        """Return the model file's bytes, verified against the manifest.

        Raises
        ------
        BundleError
            The file is missing or its SHA-256 is not the manifest's.
        """
        path = self.path / self.manifest.model.file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"cannot read the model file `{path}` ({error})", path=path
            ) from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.manifest.model.sha256:
            raise BundleError(
                f"`{path}` has sha256 {digest[:12]}..., but {MANIFEST} says "
                f"{self.manifest.model.sha256[:12]}...; the bundle is corrupt or half-written, "
                "export it again",
                path=path,
            )
        return content

    def read_golden(self) -> Golden:
        """Return the golden inputs and outputs.

        Raises
        ------
        BundleError
            The file is missing, unreadable, or does not fit the manifest.
        """
        path = self.path / GOLDEN
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                contents = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise BundleError(f"cannot read `{path}` ({error}); export again", path=path) from error
        images = contents.pop("image", None)
        expected = {output.name for output in self.manifest.outputs}
        usable = images is not None and images.dtype == np.uint8 and images.ndim == 4
        if images is None or not usable or len(images) == 0 or set(contents) != expected:
            raise BundleError(
                f"`{path}` does not hold at least one input `image` and exactly the outputs of the "
                f"model ({', '.join(sorted(expected))}; found {', '.join(sorted(contents))}); "
                "export again",
                path=path,
            )
        return Golden(images=images, outputs=contents)

    def read_calibration(self) -> tuple[Calibration, str]:
        """Return the bundle's own calibration and its id.

        Raises
        ------
        NotCalibrated
            There is none yet.
        CalibrationError
            The file cannot be read or has faults.
        """
        path = self.path / CALIBRATION
        if not path.exists():
            raise NotCalibrated(
                f"model `{self.name}` version {self.version} has no calibration; make one with "
                f"`oodserve calibrate {self.path} --images FOLDER`",
                path=path,
            )
        return read_calibration(path)


def open_bundle(path: Path) -> Bundle:
    """Open the bundle at `models/NAME/VERSION`, or the newest version at `models/NAME`.

    The manifest is validated; the model file is verified when it is read.

    Raises
    ------
    BundleError
        No bundle is there, a file is missing, or the manifest has faults.
    """
    # Not resolved: a link's own name is the model's name, whatever it points to.
    path = Path(os.path.abspath(path))  # noqa: PTH100
    if not path.is_dir():
        raise BundleError(
            f"no bundle at `{path}`; give models/NAME or models/NAME/VERSION", path=path
        )
    if not path.name.isdecimal() and not (path / MANIFEST).exists():
        versions = list_versions(path)
        if not versions:
            raise BundleError(
                f"`{path}` holds no version (a folder named by a positive number)", path=path
            )
        path = path / str(versions[-1])
    if not path.name.isdecimal():
        raise BundleError(
            f"`{path}` is not models/NAME/VERSION: the version folder must be a number", path=path
        )
    manifest = _read_manifest(path)
    for file in (manifest.model.file, GOLDEN):
        if not (path / file).is_file():
            raise BundleError(
                f"`{path}` is half-written: `{file}` is missing; export again", path=path
            )
    return Bundle(path=path, name=path.parent.name, version=int(path.name), manifest=manifest)


def list_versions(model: Path) -> list[int]:
    """Return the version numbers below `models/NAME`, ascending."""
    if not model.is_dir():
        return []
    numbers = (
        int(entry.name)
        for entry in model.iterdir()
        if entry.name.isdecimal() and not entry.name.startswith("0") and entry.is_dir()
    )
    return sorted(numbers)


def list_models(repository: Path) -> list[str]:
    """Return the names of the models in a repository, sorted.

    Raises
    ------
    BundleError
        The repository is not a folder.
    """
    if not repository.is_dir():
        raise BundleError(
            f"the model repository `{repository}` is not a folder; "
            "make one with `python -m export bundle RUN --to models/NAME`",
            path=repository,
        )
    return sorted(
        entry.name
        for entry in repository.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def write_version(
    repository: Path,
    name: str,
    *,
    manifest: Manifest,
    model: bytes,
    golden: Golden,
    config_pbtxt: str,
) -> Path:
    """Add a version to a repository, atomically, and return its folder.

    The number is one above the highest there is. The first version brings `config.pbtxt`; later
    ones must agree with the one that is there.

    Raises
    ------
    BundleError
        The name cannot be a model's, the model's hash is not the manifest's, an existing
        `config.pbtxt` says otherwise, or the rename was lost to another writer.
    """
    repository = repository.resolve()
    if not re.fullmatch(NAME_PATTERN, name) or name.isdecimal():
        raise BundleError(
            f"{name!r} cannot name a model; use letters, digits, `.`, `_` and `-`, not digits alone"
        )
    if hashlib.sha256(model).hexdigest() != manifest.model.sha256:
        raise BundleError("the manifest's sha256 is not that of the model file")
    config = repository / name / CONFIG
    if config.exists() and config.read_text() != config_pbtxt:
        raise BundleError(
            f"`{config}` describes another input or other outputs than this version has; "
            "export under another model name",
            path=config,
        )
    version = (list_versions(repository / name) or [0])[-1] + 1
    try:
        repository.mkdir(parents=True, exist_ok=True)
        prefix = f"{repository.name}.staging-"
        staging = Path(tempfile.mkdtemp(prefix=prefix, dir=repository.parent))
    except OSError as error:
        raise BundleError(
            f"cannot make the repository `{repository}` or a folder beside it ({error}); "
            f"`{repository.parent}` must be writable",
            path=repository,
        ) from error
    try:
        folder = staging / name / str(version)
        folder.mkdir(parents=True)
        _write(folder / manifest.model.file, model)
        with (folder / GOLDEN).open("wb") as file:
            arrays: dict[str, NDArray[np.generic]] = {"image": golden.images, **golden.outputs}
            np.savez(file, allow_pickle=False, **arrays)
        _write(folder / MANIFEST, manifest.to_json().encode())
        _write(staging / name / CONFIG, config_pbtxt.encode())
        return _publish(staging / name, repository / name, version)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def attach_calibration(bundle: Bundle, calibration: Calibration) -> str:
    """Add the first calibration to a bundle and return its id.

    Raises
    ------
    CalibrationError
        There is one already: a bundle is never changed.
    """
    path = bundle.path / CALIBRATION
    content = calibration.to_json().encode()
    repository = bundle.path.parent.parent
    try:
        created = create_exclusively(path, content, staging=repository.parent)
    except OSError as error:
        raise CalibrationError(
            f"cannot write `{path}` ({error.strerror}); the folder above the repository "
            f"(`{repository.parent}`) must be writable and on the same file system, so mount that "
            "one, or publish with `--calibrations DIR`",
            path=path,
        ) from error
    if not created:
        raise CalibrationError(
            f"`{path}` exists already and a bundle is never changed; "
            "publish a refreshed calibration with `--calibrations DIR`",
            path=path,
        )
    return calibration_id(content)


def read_calibration(path: Path) -> tuple[Calibration, str]:
    """Return the calibration in a file and its id.

    Raises
    ------
    CalibrationError
        The file cannot be read or has faults; the message names them.
    """
    try:
        content = path.read_bytes()
        return Calibration.model_validate_json(content), calibration_id(content)
    except OSError as error:
        raise CalibrationError(
            f"cannot read the calibration `{path}` ({error})", path=path
        ) from error
    except ValidationError as error:
        raise CalibrationError(
            f"`{path}` is not a valid calibration: {explain(error)}", path=path
        ) from error


def calibration_id(content: bytes) -> str:
    """Return the id of a calibration file: the first 12 hex digits of its SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]


def create_exclusively(path: Path, content: bytes, *, staging: Path) -> bool:
    """Create `path` with `content`, whole or not at all; False if it exists already.

    Written and synced in `staging` (same file system), then linked: of two writers, one wins.
    """
    handle, name = tempfile.mkstemp(prefix=".oodserve-", dir=staging)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        os.link(name, path)
    except FileExistsError:
        return False
    finally:
        Path(name).unlink(missing_ok=True)
    return True


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(
            f"`{path}` is half-written: `{MANIFEST}` is missing; export again", path=path
        )
    try:
        content = file.read_bytes()
        return Manifest.model_validate_json(content)
    except OSError as error:
        raise BundleError(f"cannot read `{file}` ({error})", path=file) from error
    except ValidationError as error:
        newer = [
            item["input"]
            for item in error.errors()
            if item["loc"] == ("format_version",) and isinstance(item["input"], int)
        ]
        if newer and newer[0] > FORMAT_VERSION:
            raise BundleError(
                f"`{file}` has format version {newer[0]}; this oodserve reads up to "
                f"{FORMAT_VERSION}, install a newer one",
                path=file,
            ) from error
        raise BundleError(
            f"`{file}` is not a valid manifest: {explain(error)}", path=file
        ) from error


def _publish(staged: Path, model: Path, version: int) -> Path:
    """Move a staged model (or its one version) into the repository by a single rename."""
    source, target = (
        (staged / str(version), model / str(version)) if model.exists() else (staged, model)
    )
    try:
        source.rename(target)
    except OSError as error:
        raise BundleError(
            f"could not publish `{target}` ({error}); if another export won the race, run this "
            "one again",
            path=target,
        ) from error
    return model / str(version)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
