"""The real server: what cannot be answered is refused with the right status, and why."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import struct
import zlib
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from oodserve.images import decode
from oodserve.predictor import Predictor
from server.answers import ErrorAnswer
from tests.server_process import ServerProcess, running_server
from tests.tiny import TinyBundle, black_png, id_png, make_bundle, ood_png

PNG = {"Content-Type": "image/png"}
MIB = 2**20
MAX_BODY_BYTES = 2 * MIB
MAX_IMAGE_BYTES = MIB


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """The model `tiny`, next to `nan`, whose scores are NaN for a black image."""
    repository = tmp_path_factory.mktemp("bad") / "models"
    make_bundle(repository, "nan", nan_on_black=True)
    return make_bundle(repository)


@pytest.fixture(scope="module")
def server(tiny: TinyBundle) -> Iterator[ServerProcess]:
    flags = {
        "--default-model": "tiny",
        "--max-body-bytes": MAX_BODY_BYTES,
        "--max-image-bytes": MAX_IMAGE_BYTES,
        "--max-images-per-request": 4,
        "--body-timeout-s": 0.5,
    }
    words = [str(word) for pair in flags.items() for word in pair]
    with running_server(tiny.repository, *words) as server:
        yield server


@pytest.fixture(scope="module")
def patient(tiny: TinyBundle) -> Iterator[ServerProcess]:
    """A server that waits for a second only for a request to begin, and for its head to end."""
    with running_server(
        tiny.repository, "--default-model", "tiny", "--keep-alive-s", "1"
    ) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, timeout=30) as client:
        yield client


def sample(client: httpx.Client, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    found = [
        one.value for family in families for one in family.samples
        if one.name == name and one.labels == labels
    ]  # fmt: skip
    assert len(found) == 1, f"{name}{labels}: {found}"
    return found[0]


def rejected(client: httpx.Client, reason: str) -> float:
    return sample(client, "oodserve_rejected_requests_total", reason=reason)


def jpeg(size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 80).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def bomb(side: int = 19_000) -> bytes:
    """Return a PNG of about 44 kB whose pixels would take gigabytes in RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


def in_json(*images: object) -> bytes:
    return json.dumps({"images": images}).encode()


JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=edge"}

# path and query, headers, body, status, text
REFUSED: dict[str, tuple[str, dict[str, str], bytes, int, str]] = {
    "empty body": ("", PNG, b"", 400, "the image is empty (0 bytes)"),
    "empty file in a form": (
        "",
        FORM,
        b'--edge\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n\r\n--edge--\r\n',
        400,
        "the image is empty (0 bytes)",
    ),
    "empty string in JSON": ("", JSON, in_json(""), 400, "the image is empty (0 bytes)"),
    "form without a file": ("", FORM, b"--edge--\r\n", 400, "has no file, so there is no image"),
    "form with a field only": (
        "",
        FORM,
        b'--edge\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n--edge--\r\n',
        400,
        "the form field 'top_k' is not a file",
    ),
    "form that is cut off": (
        "",
        FORM,
        b'--edge\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nabc',
        400,
        "before its closing boundary",
    ),
    "form that is none": ("", FORM, b"hello", 400, "the multipart body is malformed"),
    "form without boundary": (
        "",
        {"Content-Type": "multipart/form-data"},
        b"hello",
        400,
        "has no `boundary`",
    ),
    "empty list in JSON": ("", JSON, in_json(), 400, "`images` is empty, so there is no image"),
    "JSON that is none": ("", JSON, b"{", 400, "the body is not JSON"),
    "JSON nested deeply": ("", JSON, b"[" * 200_000, 400, "the body is not JSON"),
    "JSON of another form": ("", JSON, b'{"img": 1}', 400, "not of the right form (got ['img'])"),
    "bad base64": ("", JSON, in_json("@@@"), 400, "the image is not base64"),
    "a data URL": (
        "",
        JSON,
        in_json("data:image/png;base64,AA=="),
        400,
        "without a `data:` prefix",
    ),
    "no image": ("", PNG, b"<html>", 415, "not an image that is read here; send one of JPEG"),
    "an SVG": ("", {"Content-Type": "image/svg+xml"}, b"<svg/>", 415, "send one of JPEG, PNG,"),
    "truncated JPEG": ("", PNG, jpeg()[:-200], 422, "the JPEG image is truncated or corrupt"),
    "truncated PNG": ("", PNG, id_png(seed=1)[:-40], 422, "the PNG image is truncated or corrupt"),
    "too many pixels": ("", PNG, bomb(8_000), 413, "8000 x 8000 = 64000000 pixels; at most"),
    "too many bytes in an image": (
        "",
        PNG,
        bytes(MAX_IMAGE_BYTES + 1),
        413,
        f"the image has {MAX_IMAGE_BYTES + 1} bytes; at most {MAX_IMAGE_BYTES} are allowed",
    ),
    "too many bytes in the body": (
        "",
        PNG,
        bytes(MAX_BODY_BYTES + 1),
        413,
        f"the body has {MAX_BODY_BYTES + 1} bytes; at most {MAX_BODY_BYTES} are allowed",
    ),
    "too many images": ("", JSON, in_json(*["AA=="] * 5), 413, "more than 4 images"),
    "another media type": (
        "",
        {"Content-Type": "text/plain"},
        b"hello",
        415,
        "`Content-Type: text/plain` is not understood; send an image as `image/*`",
    ),
    "no media type": ("", {}, id_png(seed=1), 415, "`Content-Type: ` is not understood"),
    "a compressed body": (
        "",
        {**PNG, "Content-Encoding": "gzip"},
        b"\x1f\x8b",
        415,
        "`Content-Encoding: gzip` is not understood",
    ),
    "unknown query name": ("?topk=1", PNG, b"", 400, "unknown query parameter `topk`; see /docs"),
    "query given twice": ("?top_k=1&top_k=2", PNG, b"", 400, "`top_k` is given more than once"),
    "top_k of 0": ("?top_k=0", PNG, b"", 400, "`top_k` = '0': input should be greater than"),
    "top_k that is none": ("?top_k=all", PNG, b"", 400, "`top_k` = 'all': input should be a valid"),
    "top_k left empty": ("?top_k=", PNG, b"", 400, "`top_k` = '': input should be a valid"),
    "top_k above the classes": ("?top_k=5", PNG, b"", 400, "`top_k` = 5 is not between 1 and 4"),
    "unknown score": (
        "?score_name=odin",
        PNG,
        b"",
        400,
        "`score_name` = 'odin' is not calibrated; choose one of ['energy', 'max_logit', 'msp']",
    ),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.replace(" ", "-"))
def test_a_bad_request_is_refused_and_says_why(client: httpx.Client, case: str) -> None:
    query, headers, body, status, text = REFUSED[case]

    answer = client.post(f"/v1/predict{query}", content=body, headers=headers)

    assert answer.status_code == status
    assert text in ErrorAnswer.model_validate(answer.json()).error
    assert client.post("/v1/predict", content=id_png(seed=1), headers=PNG).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "/v1/models/nope/predict", 404, "there is no model 'nope'; served are `nan`, `ti"),
        (
            "POST",
            "/v1/models/tiny/versions/7/predict",
            404,
            "has no version '7' here; served are `1`",
        ),
        (
            "POST",
            "/v1/models/tiny/versions/01/predict",
            404,
            "model `tiny` has no version '01' her",
        ),
        ("GET", "/v1/models/nope", 404, "there is no model 'nope'"),
        ("GET", "/v1/models/nope/calibration", 404, "there is no model 'nope'"),
        ("GET", "/nowhere", 404, "there is nothing at `/nowhere`; see /docs"),
        ("GET", "/v1/models/", 404, "there is nothing at `/v1/models/`"),
        ("GET", "/static/nothing.js", 404, "there is nothing at `/static/nothing.js`"),
        ("GET", "/static/../settings.py", 404, "there is nothing at"),
        ("GET", "/static/%2e%2e/settings.py", 404, "there is nothing at"),
        ("GET", "/static/%2fetc/passwd", 404, "there is nothing at"),
        ("GET", "/v1/predict", 405, "`GET` is not allowed here"),
        ("DELETE", "/v1/models/tiny", 405, "`DELETE` is not allowed here"),
    ],
)
def test_what_is_not_there_is_said_in_the_same_form(
    client: httpx.Client, method: str, path: str, status: int, text: str
) -> None:
    answer = client.request(method, path, content=id_png(seed=1) if method == "POST" else None)

    assert answer.status_code == status
    assert text in ErrorAnswer.model_validate(answer.json()).error
    assert answer.headers["content-type"] == "application/json"
    if status == 405:
        assert answer.headers["allow"]


def test_a_body_without_a_length_is_refused_where_it_passes_the_limit(
    client: httpx.Client, server: ServerProcess
) -> None:
    before = server.rss_bytes()

    answer = client.post(
        "/v1/predict", content=(bytes(256 * 1024) for _ in range(256)), headers=PNG
    )

    assert answer.status_code == 413
    assert f"the body has more than {MAX_BODY_BYTES} bytes" in answer.json()["error"]
    assert server.rss_bytes() - before < 32 * MIB


def test_a_form_of_too_many_bytes_is_refused_too(client: httpx.Client) -> None:
    files = [("a", ("a.png", bytes(MAX_BODY_BYTES)))]

    answer = client.post("/v1/predict", files=files)

    assert answer.status_code == 413
    assert "at most" in answer.json()["error"]


def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    client: httpx.Client, server: ServerProcess
) -> None:
    data = bomb()
    assert 40_000 < len(data) < 50_000
    before, counted = server.rss_bytes(), rejected(client, "pixels")

    for headers in (PNG, {"Content-Type": "image/jpeg"}, {"Content-Type": "image/x"}):
        answer = client.post("/v1/predict", content=data, headers=headers)
        assert answer.status_code == 413
        assert "pixels" in answer.json()["error"]
    text = base64.b64encode(data).decode()
    assert client.post("/v1/predict", json={"images": [text] * 4}).status_code == 413

    assert server.rss_bytes() - before < 32 * MIB
    assert rejected(client, "pixels") - counted == 7


@pytest.mark.parametrize(
    ("reason", "body", "count"),
    [
        ("unsupported", in_json("AAAA", "AAAA"), 2),
        ("decode", in_json(""), 1),
        ("too_large", in_json(*["AA=="] * 5), 1),
    ],
)
def test_every_rejection_is_counted_by_reason(
    client: httpx.Client, reason: str, body: bytes, count: int
) -> None:
    before = rejected(client, reason)

    assert client.post("/v1/predict", content=body, headers=JSON).status_code >= 400

    assert rejected(client, reason) - before == count


def test_what_is_overlooked_in_an_image_fills_no_log(
    client: httpx.Client, server: ServerProcess
) -> None:
    buffer = io.BytesIO()
    picture = Image.effect_noise((16, 16), 80).convert("RGB")
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09"
    picture.save(buffer, "JPEG", exif=exif)
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        decode(buffer.getvalue())

    for _ in range(3):
        assert client.post("/v1/predict", content=buffer.getvalue(), headers=PNG).is_success

    lines = server.log_path.read_text().splitlines()
    assert [line for line in lines if not line.startswith("{")] == []
    assert "Corrupt EXIF" not in server.log_path.read_text()


def test_one_bad_image_of_several_harms_nobody(client: httpx.Client, tiny: TinyBundle) -> None:
    good = [id_png(seed=1), ood_png(seed=2)]
    files = [("a", ("a", data)) for data in (jpeg()[:-200], good[0], b"x", good[1])]

    answer = client.post("/v1/predict", files=files)

    assert answer.status_code == 200
    truncated, first, unread, second = answer.json()["predictions"]
    assert (truncated["status"], unread["status"]) == (422, 415)
    assert "truncated or corrupt" in truncated["error"]
    expected = [prediction.to_dict() for prediction in Predictor.load(tiny.path).predict(good)]
    assert [first, second] == expected


def test_where_all_images_fail_the_status_says_so(client: httpx.Client) -> None:
    files = [("a", ("a", data)) for data in (b"", b"x", jpeg()[:-200])]

    answer = client.post("/v1/predict", files=files)

    assert answer.status_code == 422
    text = answer.json()["error"]
    assert text.startswith("none of 3 images could be answered: image 0: the image is empty")
    assert "; image 1: not an image that is read here" in text
    assert "; image 2: the JPEG image is truncated" in text


def test_a_score_that_is_not_a_number_is_an_error_and_counted(
    client: httpx.Client, tiny: TinyBundle
) -> None:
    def nonfinite() -> float:
        return sample(client, "oodserve_nonfinite_scores_total", model="nan")

    before = nonfinite()
    alone = client.post("/v1/models/nan/predict", content=black_png(), headers=PNG)

    assert alone.status_code == 500
    assert "the model returned a non-finite value" in alone.json()["error"]
    assert nonfinite() - before == 1

    good = id_png(seed=1)
    files = [("a", ("a", data)) for data in (black_png(), good)]
    both = client.post("/v1/models/nan/predict", files=files)

    assert both.status_code == 200
    failed, neighbour = both.json()["predictions"]
    assert failed["status"] == 500
    assert nonfinite() - before == 2
    predictor = Predictor.load(tiny.repository / "nan")
    assert neighbour == predictor.predict([good])[0].to_dict()


def _exchange(server: ServerProcess, *pieces: bytes) -> bytes:
    """Send raw bytes, and return all that comes back until the server closes."""
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def test_bytes_that_are_not_http_are_refused_in_the_same_form(server: ServerProcess) -> None:
    head, _, body = _exchange(server, b"hello\r\n\r\n").partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body) == {"error": "invalid http request received"}


def test_many_bytes_that_are_not_http_are_refused_once(server: ServerProcess) -> None:
    assert _exchange(server, b"hello " * 20_000).count(b"HTTP/1.1 ") == 1


def test_a_head_that_does_not_end_is_refused(server: ServerProcess) -> None:
    received = _exchange(server, b"GET / HTTP/1.1\r\n", *[b"a: " + b"x" * 8000 + b"\r\n"] * 60)

    assert received.startswith(b"HTTP/1.1 431 ")
    assert b"the request's head has more than 65536 bytes" in received


def test_a_trailer_that_does_not_end_is_refused_and_not_kept(server: ServerProcess) -> None:
    host, port = server.base_url.removeprefix("http://").split(":")
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    )
    fields = b"a: " + b"x" * 8000 + b"\r\n"
    before, sent = server.rss_bytes(), 0

    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head)
        with contextlib.suppress(ConnectionError):
            while sent < 256 * MIB:
                connection.sendall(fields * 16)
                sent += 16 * len(fields)

    assert sent < 256 * MIB
    assert server.rss_bytes() - before < 32 * MIB


def test_fields_of_a_trailer_are_dropped(server: ServerProcess) -> None:
    image = id_png(seed=1)
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    body = b"%x\r\n%s\r\n0\r\nContent-Encoding: gzip\r\n\r\n" % (len(image), image)

    assert _exchange(server, head + body).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_whole_head_is_closed(patient: ServerProcess, start: bytes) -> None:
    assert _exchange(patient, start) == b""


def test_a_body_that_stalls_is_refused(server: ServerProcess) -> None:
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        b"Content-Length: 100\r\nConnection: close\r\n\r\n"
    )

    received = _exchange(server, head, b"abc")

    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"the body did not arrive within 0.5 s (3 bytes did)" in received


def test_a_client_that_leaves_in_the_middle_is_logged_and_forgotten(
    server: ServerProcess, client: httpx.Client
) -> None:
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"X-Request-ID: leaver\r\nContent-Length: 100\r\n\r\nabc"
        )

    assert server.wait_for_line(request_id="leaver")["status"] == 499
    assert sample(client, "oodserve_inflight_requests") == 0
