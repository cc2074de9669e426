"""The models that are served: found at start, loaded and warmed up in the background.

The two newest versions of each model are served, and the newest is the active one. A version is
ready once it has reproduced its golden outputs on this machine and has a valid calibration; one
that cannot be is failed, for a reason that is shown to whoever asks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oodserve.bundle import Bundle, list_models, list_versions, open_bundle
from oodserve.errors import (
    ConfigurationError,
    InvalidRequest,
    NotReady,
    OodserveError,
    UnknownModel,
)
from oodserve.images import ImageLimits
from oodserve.predictor import ActiveCalibration, Predictor
from server.inference import InferenceLane, Lane
from server.metrics import DecisionSeries, Metrics
from server.settings import Settings

VERSIONS_SERVED = 2
"""How many versions of a model are served, newest first; as Triton's version policy has it."""

RETRY_LOADING_S = 2.0
"""When to come back to a model that is still loading, in seconds."""

RETRY_FAILED_S = 30.0
"""When to come back to a model that somebody must repair, in seconds."""

State = Literal["loading", "ready", "failed"]

LOG = logging.getLogger("server.models")


@dataclass(frozen=True)
class InForce:
    """A calibration and the series it is counted in: replaced as one reference."""

    active: ActiveCalibration
    series: DecisionSeries


@dataclass(frozen=True)
class Ready:
    """What is there to answer with, once a version is ready."""

    predictor: Predictor
    lane: Lane
    in_force: InForce

    @property
    def bundle(self) -> Bundle:
        """The version's files."""
        return self.predictor.bundle


class ServedVersion:
    """One version of a model, from loading to ready or failed."""

    def __init__(self, model: str, number: int, path: Path) -> None:
        self.model = model
        self.number = number
        self.path = path
        self.reason: str | None = "the version is still loading"
        self.bundle: Bundle | None = None
        """Set as soon as the manifest has been read, also if the version fails later."""
        self.ready: Ready | None = None
        self._failed = False

    @property
    def state(self) -> State:
        """Where the version stands."""
        if self.ready is not None:
            return "ready"
        return "failed" if self._failed else "loading"

    def become_ready(self, ready: Ready) -> None:
        """Start answering: one assignment, so a request sees all of it or nothing."""
        # In this order: without a reason and not ready yet, it would count as ready already.
        self.ready = ready
        self.reason = None

    def fail(self, reason: str) -> None:
        """Stay out of service, and say why."""
        self.reason = reason
        self._failed = True

    def require_ready(self) -> Ready:
        """Return what answers, or raise `NotReady` with the reason."""
        if self.ready is None:
            raise NotReady(
                f"model `{self.model}` version {self.number} is not ready: {self.reason}",
                retry_after_s=RETRY_FAILED_S if self._failed else RETRY_LOADING_S,
            )
        return self.ready


class ServedModel:
    """A model and its served versions."""

    def __init__(self, name: str, versions: Sequence[ServedVersion], path: Path) -> None:
        self.name = name
        self.versions = {version.number: version for version in versions}
        self._path = path

    @property
    def active(self) -> ServedVersion | None:
        """The version that answers unless a request names another; None where there is none."""
        return self.versions[max(self.versions)] if self.versions else None

    @property
    def state(self) -> State:
        """Where the active version stands."""
        return self.active.state if self.active else "failed"

    @property
    def reason(self) -> str | None:
        """Why the model is not ready; None if it is."""
        if self.active is None:
            return f"`{self._path}` holds no version (a folder named by a positive number)"
        return self.active.reason


class ModelRepository:
    """All models of the repository that this process was started with.

    Parameters
    ----------
    settings : Settings
        Where the models are, and what to run them on.
    metrics : Metrics
        Told what is loaded.

    Raises
    ------
    BundleError
        The repository is not a folder.
    ConfigurationError
        It has too many models, or lacks the default model.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._is_closed = False
        names = list_models(settings.models)
        metrics.expect_models(names)
        self.models = {name: self._find(name) for name in names}
        if settings.default_model is not None and settings.default_model not in self.models:
            raise ConfigurationError(
                f"`--default-model` = `{settings.default_model}` is not in `{settings.models}`; "
                f"it has {_listed(names)}"
            )

    def load_all(self) -> None:
        """Load every version, active ones first; runs in a thread of its own."""
        for version in self._in_loading_order():
            if self._is_closed:
                return
            try:
                self._load(version)
            except OodserveError as error:
                version.fail(str(error))
            except Exception as error:
                # Whatever it is must not leave the version `loading` for ever.
                version.fail(f"unexpected {type(error).__name__}: {error}")
                LOG.exception("unexpected error", extra={"fields": {"model": version.model}})
            LOG.log(
                logging.ERROR if version.reason else logging.INFO,
                "model_failed" if version.reason else "model_ready",
                extra={"fields": _identity(version)},
            )

    def resolve(self, model: str | None = None, version: str | None = None) -> ServedVersion:
        """Return the version that a request means.

        Parameters
        ----------
        model : str, optional
            Name; without one the only model, or the default.
        version : str, optional
            Number; without one the active version.

        Raises
        ------
        InvalidRequest
            No model was named and there are several.
        UnknownModel
            There is no such model or version.
        NotReady
            The model has no version at all.
        """
        found = self.model(model if model is not None else self.default_name())
        if version is not None:
            numbers = {str(number): served for number, served in found.versions.items()}
            if version not in numbers:
                raise UnknownModel(
                    f"model `{found.name}` has no version {version[:40]!r} here; "
                    f"served are {_listed(sorted(numbers, key=int))}"
                )
            return numbers[version]
        if found.active is None:
            raise NotReady(
                f"model `{found.name}` is not ready: {found.reason}", retry_after_s=RETRY_FAILED_S
            )
        return found.active

    def model(self, name: str) -> ServedModel:
        """Return a model by name, or raise `UnknownModel`."""
        if name not in self.models:
            raise UnknownModel(
                f"there is no model {name[:128]!r}; served are {_listed(list(self.models))}"
            )
        return self.models[name]

    def default_name(self) -> str:
        """Return the model that a request means which names none, or raise `InvalidRequest`."""
        if self._settings.default_model is not None:
            return self._settings.default_model
        if len(self.models) != 1:
            raise InvalidRequest(
                f"{len(self.models)} models are served ({_listed(list(self.models))}), so name one "
                "in the path: /v1/models/NAME/predict"
            )
        return next(iter(self.models))

    def unready(self) -> dict[str, str]:
        """Return why this process cannot serve, by model; empty when every model is ready."""
        if not self.models:
            return {"repository": f"there is no model in `{self._settings.models}`"}
        return {
            name: model.reason
            for name, model in self.models.items()
            if model.state != "ready" and model.reason is not None
        }

    def close(self) -> None:
        """Stop loading, and release all engines."""
        self._is_closed = True
        for model in self.models.values():
            for version in model.versions.values():
                if version.ready is not None:
                    version.ready.lane.close()
                    version.ready.predictor.close()

    def _find(self, name: str) -> ServedModel:
        folder = self._settings.models / name
        numbers = list_versions(folder)[-VERSIONS_SERVED:]
        versions = [ServedVersion(name, number, folder / str(number)) for number in numbers]
        return ServedModel(name, versions, folder)

    def _in_loading_order(self) -> Iterator[ServedVersion]:
        versions = [version for m in self.models.values() for version in m.versions.values()]
        return iter(sorted(versions, key=lambda v: self.models[v.model].active is not v))

    def _load(self, version: ServedVersion) -> None:
        settings = self._settings
        version.bundle = open_bundle(version.path)
        predictor = Predictor.load(
            version.path,
            calibrations=settings.calibrations,
            provider=settings.provider,
            threads=settings.threads,
            limits=ImageLimits(
                max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels
            ),
            accept_runtime_mismatch=settings.accept_runtime_mismatch,
        )
        predictor.verify_golden()
        active = predictor.active
        assert active is not None, "a predictor is not loaded without a calibration"
        series = DecisionSeries(self._metrics, predictor.bundle, active)
        lane = InferenceLane(predictor.infer, model=version.model, metrics=self._metrics)
        # Series before readiness, so that no decision is made before its series begin at 0.
        if self.models[version.model].active is version:
            self._metrics.show_active(predictor.bundle, active)
        version.become_ready(Ready(predictor, lane, InForce(active, series)))


def _identity(version: ServedVersion) -> dict[str, object]:
    identity: dict[str, object] = {"model": version.model, "version": str(version.number)}
    if version.ready is not None:
        identity["calibration"] = version.ready.in_force.active.id
    if version.reason is not None:
        identity["reason"] = version.reason
    return identity


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
