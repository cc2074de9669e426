"""The real server: readiness with each kind of broken model, and liveness through all of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.answers import ModelsAnswer, NotReadyAnswer, ReadyAnswer
from tests.conftest import StartServer
from tests.server_process import ROOT, ServerProcess, running_server
from tests.tiny import TinyBundle, id_png, make_bundle

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sound model and five that cannot be served, each for a reason of its own."""
    repository = tmp_path_factory.mktemp("health") / "models"
    sound = make_bundle(repository, "sound")
    corrupt = make_bundle(repository, "corrupt", seed=1)
    half = make_bundle(repository, "half-written", seed=2)
    make_bundle(repository, "uncalibrated", seed=3, calibrated=False)
    foreign = make_bundle(repository, "foreign", seed=4, calibrated=False)
    make_bundle(repository, "worse-now", seed=5)
    worse = make_bundle(repository, "worse-now", seed=6)

    content = (corrupt.path / "model.onnx").read_bytes()
    (corrupt.path / "model.onnx").write_bytes(content[:-1] + b"?")
    (half.path / "bundle.json").unlink()
    shutil.copy(sound.path / "calibration.json", foreign.path)
    (worse.path / "bundle.json").write_text("{")
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    with running_server(repository, ready=False) as server:
        server.wait_loaded()
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, timeout=30) as client:
        yield client


def test_readiness_names_every_model_that_is_not_ready_and_why(
    client: httpx.Client, repository: Path
) -> None:
    answer = client.get("/v2/health/ready")

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    reasons = NotReadyAnswer.model_validate(answer.json()).reasons
    expected = {
        "corrupt": "the bundle is corrupt or half-written, export it again",
        "half-written": "is half-written: `bundle.json` is missing; export again",
        "uncalibrated": f"`oodserve calibrate {repository / 'uncalibrated' / '1'} --images FOLDER`",
        "foreign": "was made for another model",
        "worse-now": "is not a valid manifest",
    }
    assert set(reasons) == set(expected)
    for name, text in expected.items():
        assert text in reasons[name]


def test_liveness_does_not_depend_on_models(client: httpx.Client) -> None:
    answer = client.get("/v2/health/live")

    assert (answer.status_code, answer.json()) == (200, {"live": True})


def test_a_broken_neighbour_does_not_keep_a_sound_model_from_answering(
    client: httpx.Client,
) -> None:
    answer = client.post("/v1/models/sound/predict", content=id_png(seed=1), headers=PNG)

    assert answer.status_code == 200


def test_a_model_that_is_not_ready_says_why_and_when_to_come_back(client: httpx.Client) -> None:
    for path in ("/v1/models/uncalibrated/predict", "/v1/models/uncalibrated/versions/1/predict"):
        answer = client.post(path, content=id_png(seed=1), headers=PNG)
        assert answer.status_code == 503
        assert "`uncalibrated` version 1 is not ready" in answer.json()["error"]
        assert "oodserve calibrate" in answer.json()["error"]
        assert int(answer.headers["Retry-After"]) >= 1
    assert client.get("/v1/models/foreign/calibration").status_code == 503


def test_an_older_sound_version_can_be_asked_for_by_number(client: httpx.Client) -> None:
    image = id_png(seed=1)

    newest = client.post("/v1/models/worse-now/predict", content=image, headers=PNG)
    older = client.post("/v1/models/worse-now/versions/1/predict", content=image, headers=PNG)

    assert (newest.status_code, older.status_code) == (503, 200)


def test_all_models_are_described_ready_or_not(client: httpx.Client) -> None:
    answer = ModelsAnswer.model_validate(client.get("/v1/models").json())

    states = {model.name: model.state for model in answer.models}
    assert states.pop("sound") == "ready"
    assert set(states.values()) == {"failed"}
    assert answer.default_model is None
    assert all(model.reason for model in answer.models if model.state == "failed")


def test_a_request_must_name_a_model_where_there_are_several(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", content=id_png(seed=1), headers=PNG)

    assert answer.status_code == 400
    assert "6 models are served (`corrupt`, `foreign`," in answer.json()["error"]


def test_failures_are_logged_with_their_reason(server: ServerProcess) -> None:
    line = server.wait_for_line(event="model_failed", model="uncalibrated")

    assert line["level"] == "error"
    assert "oodserve calibrate" in line["reason"]


def test_a_calibrated_model_is_ready(tiny_bundle: TinyBundle, server_process: StartServer) -> None:
    server = server_process(tiny_bundle.repository)

    answer = httpx.get(f"{server.base_url}/v2/health/ready")

    assert answer.status_code == 200
    assert ReadyAnswer.model_validate(answer.json()).ready


def test_no_models_is_not_ready(tmp_path: Path, server_process: StartServer) -> None:
    (tmp_path / "models").mkdir()
    server = server_process(tmp_path / "models", ready=False)

    answer = httpx.get(f"{server.base_url}/v2/health/ready")

    assert answer.status_code == 503
    reasons = {"repository": f"there is no model in `{tmp_path / 'models'}`"}
    assert answer.json() == {"ready": False, "reasons": reasons}
    assert httpx.get(f"{server.base_url}/v2/health/live").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--models", "/nowhere"], "the model repository `/nowhere` is not a folder"),
        (["--default-model", "x"], "`--default-model` = `x` is not in"),
        (["--host", "203.0.113.1"], "cannot listen on `203.0.113.1` port"),
    ],
)
def test_what_cannot_start_says_why_and_ends_with_1(
    tiny_bundle: TinyBundle, arguments: list[str], text: str
) -> None:
    command = [sys.executable, "-m", "server", "--models", str(tiny_bundle.repository)]
    run = subprocess.run(
        [*command, "--port", "0", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert run.returncode == 1
    assert "cannot start" in run.stderr
    assert text in run.stderr
