"""The real server: answers, their form, and that each request gets its own."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from oodserve.predictor import Predictor
from server.answers import ModelAnswer, ModelsAnswer, PredictAnswer
from server.models import VERSIONS_SERVED
from tests.server_process import ServerProcess, running_server
from tests.tiny import TinyBundle, encode, id_images, id_png, make_bundle, ood_images, ood_png

PNG = {"Content-Type": "image/png"}
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[int, TinyBundle]:
    """Three versions of `tiny`, by number, and one of `other`, in one repository."""
    repository = tmp_path_factory.mktemp("predict") / "models"
    make_bundle(repository, "other", seed=9)
    return {number: make_bundle(repository, seed=number) for number in (1, 2, 3)}


@pytest.fixture(scope="module")
def server(bundles: dict[int, TinyBundle]) -> Iterator[ServerProcess]:
    with running_server(bundles[3].repository, "--default-model", "tiny") as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def predictor(bundles: dict[int, TinyBundle]) -> Predictor:
    return Predictor.load(bundles[3].path)


def ask_raw(client: httpx.Client, images: list[bytes], **query: Any) -> httpx.Response:
    assert len(images) == 1
    return client.post("/v1/predict", content=images[0], headers=PNG, params=query)


def ask_octets(client: httpx.Client, images: list[bytes], **query: Any) -> httpx.Response:
    assert len(images) == 1
    headers = {"Content-Type": "application/octet-stream"}
    return client.post("/v1/predict", content=images[0], headers=headers, params=query)


def ask_multipart(client: httpx.Client, images: list[bytes], **query: Any) -> httpx.Response:
    files = [("image", (f"{place}.png", data)) for place, data in enumerate(images)]
    return client.post("/v1/predict", files=files, params=query)


def ask_base64(client: httpx.Client, images: list[bytes], **query: Any) -> httpx.Response:
    document = {"images": [base64.b64encode(data).decode() for data in images]}
    return client.post("/v1/predict", json=document, params=query)


ROUTES = (ask_raw, ask_octets, ask_multipart, ask_base64)


@pytest.mark.parametrize("ask", ROUTES, ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("query", [{}, {"top_k": 3}, {"score_name": "msp"}], ids=str)
def test_the_same_image_gives_the_same_answer_through_every_door(
    client: httpx.Client, predictor: Predictor, ask: Any, query: dict[str, Any]
) -> None:
    for image in (id_png(seed=11), ood_png(seed=12)):
        expected = predictor.predict([image], **query)[0].to_dict()

        answer = ask(client, [image], **query)

        assert answer.status_code == 200
        assert answer.json()["predictions"] == [expected]


@pytest.mark.parametrize("ask", [ask_multipart, ask_base64], ids=lambda ask: ask.__name__)
def test_several_images_are_answered_in_their_order(
    client: httpx.Client, predictor: Predictor, ask: Any
) -> None:
    images = [id_png(seed=1), ood_png(seed=2), encode(id_images(3, seed=3)[2])]
    expected = [prediction.to_dict() for prediction in predictor.predict(images)]

    assert ask(client, images).json()["predictions"] == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_every_image_format_is_read(client: httpx.Client, predictor: Predictor, kind: str) -> None:
    image = encode(id_images(1, seed=5)[0], kind=kind)

    answer = client.post(
        "/v1/predict", content=image, headers={"Content-Type": f"image/{kind.lower()}"}
    )

    assert answer.json()["predictions"] == [predictor.predict([image])[0].to_dict()]


def test_many_concurrent_requests_each_get_their_own_answer(
    client: httpx.Client, predictor: Predictor
) -> None:
    arrays = [*id_images(36, seed=21), *ood_images(12, seed=22)]
    images = [encode(array) for array in arrays]
    expected = [predictor.predict([image])[0].to_dict() for image in images]
    assert len({answer["score"] for answer in expected}) == len(images)

    with ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(lambda image: ask_raw(client, [image]), images))

    assert [answer.json()["predictions"] for answer in answers] == [[one] for one in expected]


def test_an_answer_has_the_form_that_the_reference_describes(
    client: httpx.Client, bundles: dict[int, TinyBundle]
) -> None:
    images = [id_png(seed=1), b"no image", ood_png(seed=2)]

    answer = ask_multipart(client, images, top_k=2).json()

    checked = PredictAnswer.model_validate(answer)
    assert (checked.model, checked.version) == ("tiny", "3")
    assert checked.calibration == bundles[3].calibration_id
    inside, failed, outside = answer["predictions"]
    assert failed["status"] == 415
    assert failed["error"].startswith("not an image that is read here")
    for prediction in (inside, outside):
        assert prediction["ood"] == (prediction["score"] < prediction["threshold"])
        assert len(prediction["top_k"]) == 2
        assert prediction["top_k"][0]["label"] == prediction["label"]
    assert (inside["ood"], outside["ood"]) == (False, True)
    assert bundles[3].calibration is not None
    assert inside["threshold"] == bundles[3].calibration.scores["energy"].tau


def test_numbers_are_not_rounded(client: httpx.Client, predictor: Predictor) -> None:
    image = id_png(seed=4)
    expected = predictor.predict([image])[0]

    text = ask_raw(client, [image]).text

    assert json.dumps(expected.probability) in text
    assert json.dumps(expected.score) in text
    assert json.dumps(expected.p_value) in text


def test_a_model_and_a_version_can_be_named(
    client: httpx.Client, bundles: dict[int, TinyBundle]
) -> None:
    image = id_png(seed=4)

    def ask(path: str) -> dict[str, Any]:
        answer = client.post(path, content=image, headers=PNG)
        assert answer.status_code == 200
        document: dict[str, Any] = answer.json()
        return document

    newest = ask("/v1/models/tiny/predict")
    older = ask("/v1/models/tiny/versions/2/predict")
    other = ask("/v1/models/other/predict")

    assert (newest["model"], newest["version"]) == ("tiny", "3")
    assert (older["model"], older["version"]) == ("tiny", "2")
    assert (other["model"], other["version"]) == ("other", "1")
    assert older["calibration"] == bundles[2].calibration_id
    scores = {one["predictions"][0]["score"] for one in (newest, older, other)}
    assert len(scores) == 3
    assert older["predictions"][0] == Predictor.load(bundles[2].path).predict([image])[0].to_dict()


def test_models_are_described(client: httpx.Client, bundles: dict[int, TinyBundle]) -> None:
    document = client.get("/v1/models").json()
    tiny = client.get("/v1/models/tiny").json()

    checked = ModelsAnswer.model_validate(document)
    ModelAnswer.model_validate(tiny)
    assert [model.name for model in checked.models] == ["other", "tiny"]
    assert checked.default_model == "tiny"
    assert document["models"][1] == tiny
    assert (tiny["state"], tiny["reason"], tiny["active"]) == ("ready", None, "3")
    # Of the three there are, the two newest.
    assert [version["version"] for version in tiny["versions"]] == ["3", "2"]
    assert len(tiny["versions"]) == VERSIONS_SERVED
    assert tiny["versions"][0]["sha256"] == bundles[3].bundle.manifest.model.sha256
    assert tiny["versions"][1]["calibration"] == bundles[2].calibration_id
    assert tiny["classes"] == ["red", "green", "blue", "yellow"]
    assert tiny["scores"] == ["energy", "msp", "max_logit"]
    assert tiny["default_score"] == "energy"
    assert tiny["input"] == {"height": 16, "width": 16}
    calibration = bundles[3].calibration
    assert calibration is not None
    assert tiny["calibration"]["id"] == bundles[3].calibration_id
    assert tiny["calibration"]["created"] == calibration.created
    for name, score in calibration.scores.items():
        shown = tiny["calibration"]["scores"][name]
        assert shown == {key: getattr(score, key) for key in shown}
        assert {"rule", "target_tpr", "confidence", "n", "k", "tau"} <= set(shown)


def test_the_calibration_in_force_can_be_read_and_cached(
    client: httpx.Client, bundles: dict[int, TinyBundle]
) -> None:
    answer = client.get("/v1/models/tiny/calibration")
    tag = answer.headers["ETag"]

    assert tag == f'"{bundles[3].calibration_id}"'
    assert answer.content == (bundles[3].path / "calibration.json").read_bytes()
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = client.get("/v1/models/tiny/calibration", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    stale = client.get("/v1/models/tiny/calibration", headers={"If-None-Match": '"x"'})
    assert stale.status_code == 200


def test_a_request_id_is_taken_over_returned_and_logged(
    client: httpx.Client, server: ServerProcess
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {**PNG, "X-Request-ID": "order-66/a", "traceparent": trace}

    answer = client.post("/v1/predict", content=ood_png(seed=1), headers=headers)

    assert answer.json()["request_id"] == "order-66/a"
    assert answer.headers["X-Request-ID"] == "order-66/a"
    assert answer.headers["traceparent"] == trace
    line = server.wait_for_line(request_id="order-66/a")
    assert line["traceparent"] == trace
    assert (line["event"], line["level"], line["method"]) == ("request", "info", "POST")
    assert (line["endpoint"], line["status"]) == ("/v1/predict", 200)
    assert (line["model"], line["version"]) == ("tiny", "3")
    assert (line["images"], line["failed"], line["ood"]) == (1, 0, 1)
    assert line["duration_ms"] > 0


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "tab\there"])
def test_an_unusable_request_id_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/v1/models", headers={"X-Request-ID": given, "traceparent": "nonsense"})

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert "traceparent" not in answer.headers


def test_a_line_per_request_and_none_for_probes(
    client: httpx.Client, server: ServerProcess
) -> None:
    client.get("/v1/models", headers={"X-Request-ID": "first"})
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
        assert client.get(path).status_code == 200
    client.get("/v1/models", headers={"X-Request-ID": "second"})
    server.wait_for_line(request_id="second")

    identities = [line.get("request_id") for line in server.log()]
    assert identities.index("second") - identities.index("first") == 1


def test_the_log_holds_no_image_content(client: httpx.Client, server: ServerProcess) -> None:
    image = id_png(seed=77)

    for ask in ROUTES:
        assert ask(client, [image]).status_code == 200

    text = Path(server.log_path).read_bytes()
    assert image[40:60] not in text
    assert base64.b64encode(image)[40:60] not in text


def test_every_answer_carries_the_security_headers(client: httpx.Client) -> None:
    for path in ("/", "/v1/models", "/nowhere", "/docs", "/metrics"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_effective_settings_are_logged_at_start(server: ServerProcess) -> None:
    first = server.log()[0]

    assert first["event"] == "starting"
    assert first["settings"]["default_model"] == "tiny"
    assert first["settings"]["max_body_bytes"] == 64 * 2**20
