"""Loading: what makes a version ready, and what it says when it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from oodserve.bundle import Bundle, read_calibration
from oodserve.engines.onnxruntime import OnnxRuntimeEngine
from oodserve.errors import (
    BundleError,
    ConfigurationError,
    InvalidRequest,
    NotReady,
    UnknownModel,
)
from oodserve.predictor import ActiveCalibration
from oodserve.store import CalibrationStore
from server.answers import ModelAnswer, describe_model
from server.metrics import Metrics
from server.models import ModelRepository, Ready, ServedVersion
from server.settings import Settings
from tests.conftest import MakeBundle
from tests.tiny import TinyBundle, make_calibration


class Loaded:
    """A repository after loading, with its registry."""

    def __init__(self, models: Path, **settings: Any) -> None:
        self.registry = CollectorRegistry()
        self.repository = ModelRepository(
            Settings(models=models, threads=1, **settings), Metrics(self.registry)
        )
        self.repository.load_all()

    def reason(self, model: str = "tiny") -> str:
        assert self.registry.get_sample_value("oodserve_model_loaded", {"model": model}) == 0
        return self.repository.unready()[model]


def test_a_whole_calibrated_bundle_becomes_ready(tiny_models: TinyBundle) -> None:
    loaded = Loaded(tiny_models.repository)
    version = loaded.repository.resolve()

    assert loaded.repository.unready() == {}
    assert (version.state, version.reason) == ("ready", None)
    assert version.require_ready().in_force.active.id == tiny_models.calibration_id
    assert loaded.registry.get_sample_value("oodserve_model_loaded", {"model": "tiny"}) == 1
    loaded.repository.close()


def test_a_version_counts_as_ready_only_once_it_can_answer() -> None:
    seen: list[tuple[str, bool]] = []

    class Watched(ServedVersion):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if "_failed" in vars(self):
                seen.append((self.state, self.reason is None))

    Watched("tiny", 1, Path()).become_ready(cast("Ready", object()))

    assert ("loading", True) not in seen
    assert seen[-1] == ("ready", True)


def test_before_it_is_loaded_a_version_says_so(tiny_models: TinyBundle) -> None:
    settings = Settings(models=tiny_models.repository)
    repository = ModelRepository(settings, Metrics(CollectorRegistry()))

    assert repository.unready() == {"tiny": "the version is still loading"}
    assert repository.resolve().state == "loading"
    with pytest.raises(NotReady, match="model `tiny` version 1 is not ready: the version is still"):
        repository.resolve().require_ready()
    ModelAnswer.model_validate(describe_model(repository.model("tiny")))


def test_a_corrupt_model_file(tiny_models: TinyBundle) -> None:
    file = tiny_models.path / "model.onnx"
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)

    assert "the bundle is corrupt or half-written" in Loaded(tiny_models.repository).reason()


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "bundle.json"])
def test_a_missing_file(tiny_models: TinyBundle, name: str) -> None:
    (tiny_models.path / name).unlink()

    assert f"is half-written: `{name}` is missing" in Loaded(tiny_models.repository).reason()


def test_an_empty_golden_file(tiny_models: TinyBundle) -> None:
    (tiny_models.path / "golden.npz").write_bytes(b"")

    assert "golden.npz" in Loaded(tiny_models.repository).reason()


def test_golden_outputs_that_are_not_reproduced(tiny_models: TinyBundle) -> None:
    file = tiny_models.path / "golden.npz"
    with np.load(file) as arrays:
        contents = {name: arrays[name] for name in arrays.files}
    contents["energy"] = contents["energy"] + 0.01
    with file.open("wb") as target:
        np.savez(target, allow_pickle=False, **contents)

    reason = Loaded(tiny_models.repository).reason()

    assert "does not reproduce the golden outputs" in reason
    assert "`energy` differs by" in reason


class BrokenMetrics(Metrics):
    """Fails where nothing is expected to."""

    def show_active(self, bundle: Bundle, active: ActiveCalibration) -> None:
        raise RuntimeError(f"no gauge for {bundle.name} and {active.id}")


def test_an_unexpected_error_is_a_reason_too(
    tiny_models: TinyBundle, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(models=tiny_models.repository, threads=1)
    repository = ModelRepository(settings, BrokenMetrics(CollectorRegistry()))

    repository.load_all()

    reason = repository.unready()["tiny"]
    assert reason.startswith("unexpected RuntimeError: no gauge for tiny and ")
    assert "Traceback" in caplog.text


def test_a_bundle_without_calibration_names_the_command(bundle_maker: MakeBundle) -> None:
    bundle = bundle_maker(calibrated=False)
    loaded = Loaded(bundle.repository)

    assert f"`oodserve calibrate {bundle.path} --images FOLDER`" in loaded.reason()
    description = describe_model(loaded.repository.model("tiny"))
    answer = ModelAnswer.model_validate(description)
    # What the manifest says is known all the same.
    assert answer.classes == ["red", "green", "blue", "yellow"]
    assert answer.default_score == "energy"
    assert (answer.state, answer.calibration) == ("failed", None)


def test_a_calibration_of_another_model(bundle_maker: MakeBundle) -> None:
    other = bundle_maker("other", seed=5)
    bundle = bundle_maker(calibrated=False)
    shutil.copy(other.path / "calibration.json", bundle.path)

    reason = Loaded(bundle.repository).reason()

    assert f"calibration {other.calibration_id} was made for another model" in reason
    assert f"calibrate this one with `oodserve calibrate {bundle.path}" in reason


def test_a_calibration_with_faults(tiny_models: TinyBundle) -> None:
    file = tiny_models.path / "calibration.json"
    document = json.loads(file.read_text())
    document["tau"] = 1
    file.write_text(json.dumps(document))

    assert (
        "is not a valid calibration: unknown key `tau`" in Loaded(tiny_models.repository).reason()
    )


def test_a_calibration_of_another_runtime_is_accepted_only_on_request(
    tiny_models: TinyBundle,
) -> None:
    file = tiny_models.path / "calibration.json"
    document = json.loads(file.read_text())
    document["runtime"]["provider"] = "cuda"
    file.write_text(json.dumps(document))

    assert "was made on onnxruntime/cuda/fp32" in Loaded(tiny_models.repository).reason()
    accepting = Loaded(tiny_models.repository, accept_runtime_mismatch=True)
    assert accepting.repository.unready() == {}


def test_the_store_counts_before_the_bundle(tiny_models: TinyBundle, tmp_path: Path) -> None:
    bundle = tiny_models.bundle
    engine = OnnxRuntimeEngine(bundle.read_model(), precision="fp32", threads=1)
    refreshed = make_calibration(bundle, engine, seed=77)
    published = CalibrationStore(tmp_path / "store").publish("tiny", 1, refreshed)

    loaded = Loaded(tiny_models.repository, calibrations=tmp_path / "store")

    active = loaded.repository.resolve().require_ready().in_force.active
    assert active.id == published.id != tiny_models.calibration_id
    _, own = read_calibration(tiny_models.path / "calibration.json")
    assert own == tiny_models.calibration_id


def test_a_bad_newest_version_at_start_is_not_papered_over(bundle_maker: MakeBundle) -> None:
    bundle_maker(seed=1)
    newest = bundle_maker(seed=2)
    (newest.path / "model.onnx").write_bytes(b"no model")
    loaded = Loaded(newest.repository)

    assert "corrupt" in loaded.reason()
    assert loaded.repository.resolve("tiny", "1").state == "ready"
    with pytest.raises(NotReady, match=r"model `tiny` version 2 is not ready: .* corrupt"):
        loaded.repository.resolve().require_ready()


def test_only_the_newest_versions_are_served(bundle_maker: MakeBundle) -> None:
    for seed in range(3):
        bundle = bundle_maker(seed=seed)
    loaded = Loaded(bundle.repository)

    assert sorted(loaded.repository.model("tiny").versions) == [2, 3]
    with pytest.raises(UnknownModel, match="has no version '1' here; served are `2`, `3`"):
        loaded.repository.resolve("tiny", "1")


def test_a_model_without_versions(tmp_path: Path) -> None:
    (tmp_path / "models" / "hollow").mkdir(parents=True)
    loaded = Loaded(tmp_path / "models")

    assert "holds no version (a folder named by a positive number)" in loaded.reason("hollow")
    with pytest.raises(NotReady, match=r"model `hollow` is not ready: .* holds no version"):
        loaded.repository.resolve("hollow")
    answer = ModelAnswer.model_validate(describe_model(loaded.repository.model("hollow")))
    assert (answer.state, answer.active, answer.versions) == ("failed", None, [])


def test_an_empty_repository_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    loaded = Loaded(tmp_path / "models")

    assert loaded.repository.unready() == {
        "repository": f"there is no model in `{tmp_path / 'models'}`"
    }
    with pytest.raises(InvalidRequest, match=r"0 models are served \(none\)"):
        loaded.repository.resolve()


def test_a_request_must_name_one_of_several_models(bundle_maker: MakeBundle) -> None:
    bundle_maker("a")
    repository = bundle_maker("b").repository

    with pytest.raises(InvalidRequest, match=r"2 models are served \(`a`, `b`\), so name one in"):
        Loaded(repository).repository.resolve()
    assert Loaded(repository, default_model="b").repository.resolve().model == "b"


def test_a_repository_that_is_not_there_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder; make one with `python -m export"):
        Loaded(tmp_path / "nowhere")


def test_an_unknown_default_model_is_refused_at_start(tiny_models: TinyBundle) -> None:
    message = r"`--default-model` = `x` is not in `.*`; it has `tiny`"
    with pytest.raises(ConfigurationError, match=message):
        Loaded(tiny_models.repository, default_model="x")


def test_more_models_than_the_metrics_hold_are_refused_at_start(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / "models" / f"m{number}").mkdir(parents=True)

    with pytest.raises(ConfigurationError, match="9 models are too many for one server"):
        Loaded(tmp_path / "models")
