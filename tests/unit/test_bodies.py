"""From a body to encoded images, and every way in which it can be wrong."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from oodserve.errors import (
    InvalidRequest,
    OodserveError,
    Overloaded,
    RequestTooLarge,
    UnsupportedMediaType,
)
from server.admission import Admission
from server.bodies import MediaType, media_type, read_body, split_body

RAW = MediaType("image/png")
JSON = MediaType("application/json")
MULTIPART = MediaType("multipart/form-data", b"edge")


def multipart(*parts: tuple[str, str | None, bytes], is_closed: bool = True) -> bytes:
    body = b""
    for name, filename, content in parts:
        disposition = f'form-data; name="{name}"'
        if filename is not None:
            disposition += f'; filename="{filename}"'
        body += b"--edge\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n"
        body += content + b"\r\n"
    return body + (b"--edge--\r\n" if is_closed else b"")


def request_of(
    *chunks: bytes, headers: dict[str, str] | None = None, is_whole: bool = True
) -> Request:
    """A request whose body arrives in the given chunks, and then ends, or stalls."""
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": place < len(chunks) or not is_whole}
        for place, chunk in enumerate(chunks, start=1)
    ]

    async def receive() -> Message:
        if not messages:
            await asyncio.sleep(3600)
        return messages.pop(0)

    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def read(request: Request, *, max_bytes: int = 100, max_held: int = 1000) -> bytes:
    admission = Admission(max_images=1, max_bytes=max_held)

    async def run() -> bytes:
        with admission.ticket() as ticket:
            body = await read_body(request, max_bytes=max_bytes, timeout_s=0.05, ticket=ticket)
            assert admission.bytes == len(body)
            return body

    try:
        return asyncio.run(run())
    finally:
        assert admission.bytes == 0


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("image/png", MediaType("image/png")),
        ("IMAGE/JPEG; q=1", MediaType("image/jpeg")),
        ("application/octet-stream", MediaType("application/octet-stream")),
        ("application/json; charset=utf-8", MediaType("application/json")),
        ('multipart/form-data; boundary="a b"', MediaType("multipart/form-data", b"a b")),
    ],
)
def test_media_types_that_are_understood(header: str, expected: MediaType) -> None:
    assert media_type(request_of(headers={"Content-Type": header})) == expected


@pytest.mark.parametrize(
    ("headers", "kind", "message"),
    [
        ({}, UnsupportedMediaType, "`Content-Type: ` is not understood; send an image as"),
        ({"Content-Type": "text/html"}, UnsupportedMediaType, "`Content-Type: text/html` is not"),
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            UnsupportedMediaType,
            "urlencoded` is not understood",
        ),
        (
            {"Content-Type": "image/png", "Content-Encoding": "gzip"},
            UnsupportedMediaType,
            "`Content-Encoding: gzip` is not understood; send the body uncompressed",
        ),
        (
            {"Content-Type": "multipart/form-data"},
            InvalidRequest,
            "`Content-Type: multipart/form-data` has no `boundary`",
        ),
    ],
)
def test_media_types_that_are_not(
    headers: dict[str, str], kind: type[OodserveError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        media_type(request_of(headers=headers))


def test_identity_is_no_compression() -> None:
    headers = {"Content-Type": "image/png", "Content-Encoding": "Identity"}

    assert media_type(request_of(headers=headers)) == RAW


def test_a_body_in_chunks_is_read_whole() -> None:
    assert read(request_of(b"ab", b"", b"cd")) == b"abcd"


def test_an_announced_body_above_the_limit_is_refused_unread() -> None:
    request = request_of(b"never read", headers={"Content-Length": "101"})

    with pytest.raises(RequestTooLarge, match="the body has 101 bytes; at most 100 are allowed"):
        read(request)
    assert asyncio.run(request.body()) == b"never read"


def test_an_unannounced_body_is_refused_where_it_passes_the_limit() -> None:
    with pytest.raises(RequestTooLarge, match="more than 100 bytes, which is the most allowed"):
        read(request_of(b"x" * 60, b"x" * 41, b"never read"))


def test_a_body_that_does_not_fit_into_what_the_server_holds_is_refused() -> None:
    with pytest.raises(Overloaded, match=r"the queue is full \(6 of 10 bytes"):
        read(request_of(b"x" * 6, b"x" * 6), max_held=10)
    with pytest.raises(Overloaded, match=r"the queue is full \(0 of 10 bytes"):
        read(request_of(b"", headers={"Content-Length": "11"}), max_held=10)


def test_a_body_that_stalls_is_refused() -> None:
    request = request_of(b"ab", b"c", headers={"Content-Length": "10"}, is_whole=False)

    with pytest.raises(InvalidRequest, match=r"did not arrive within 0\.05 s \(3 bytes did\)"):
        read(request)


def test_a_raw_body_is_one_image() -> None:
    assert split_body(b"abc", RAW, max_images=1) == [b"abc"]
    assert split_body(b"", RAW, max_images=1) == [b""]


def test_multipart_files_are_images_in_their_order() -> None:
    body = multipart(("a", "1.png", b"one"), ("b", "", b"\r\n--edg"), ("c", "3.png", b""))

    assert split_body(body, MULTIPART, max_images=3) == [b"one", b"\r\n--edg", b""]


def test_json_strings_are_images_in_their_order() -> None:
    body = json.dumps({"images": [base64.b64encode(x).decode() for x in (b"one", b"", b"\xff")]})

    assert split_body(body.encode(), JSON, max_images=3) == [b"one", b"", b"\xff"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "not base64"),
        ("YQ=\n=", "without line breaks"),
        ("data:image/png;base64,YQ==", "without a `data:` prefix$"),
        ("YQ-_", "standard alphabet"),
    ],
)
def test_bad_base64_is_an_error_in_its_place(text: str, message: str) -> None:
    body = json.dumps({"images": ["b25l", text, "dHdv"]}).encode()

    first, second, third = split_body(body, JSON, max_images=3)

    assert (first, third) == (b"one", b"two")
    assert isinstance(second, InvalidRequest)
    with pytest.raises(InvalidRequest, match=message):
        raise second


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"9" * 10_000, "the body is not JSON"),
        (b"[]", r"not of the right form \(got list\)"),
        (b"{}", r"not of the right form \(got \[\]\)"),
        (b'{"image": "YQ=="}', r"got \['image'\]\); expected {\"images\": \[\"<base64>\""),
        (b'{"images": [], "top_k": 1}', r"got \['images', 'top_k'\]"),
        (b'{"images": "YQ=="}', "`images` is not a list of strings"),
        (b'{"images": [1]}', "`images` is not a list of strings"),
        (b'{"images": []}', "`images` is empty, so there is no image"),
    ],
)
def test_malformed_json_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        split_body(body, JSON, max_images=3)


@pytest.mark.parametrize("element", [b"[]", b"{}", b"1", b'""'])
def test_json_of_many_elements_is_refused_without_being_parsed(
    element: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"images":[' + b",".join([element] * 1000) + b"]}"
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("it was parsed"))

    with pytest.raises(RequestTooLarge, match="more elements than 3 images"):
        split_body(body, JSON, max_images=3)


def test_as_many_data_urls_as_images_are_told_what_is_wrong_with_them() -> None:
    body = json.dumps({"images": ["data:image/png;base64,AA=="] * 3}).encode()

    for item in split_body(body, JSON, max_images=3):
        with pytest.raises(InvalidRequest, match="without a `data:` prefix"):
            raise item  # type: ignore[misc]


def test_an_error_does_not_repeat_a_long_key() -> None:
    body = json.dumps({"k" * 100_000: 1}).encode()

    with pytest.raises(InvalidRequest, match=r"got \['k{40}'\]") as caught:
        split_body(body, JSON, max_images=3)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "ends after 0 whole files, before its closing boundary"),
        (b"hello", "the multipart body is malformed"),
        (b"--edge\r\nbad header\r\n\r\nx\r\n--edge--", "the multipart body is malformed"),
        (multipart(), "the multipart body has no file, so there is no image"),
        (multipart(("top_k", None, b"3")), "the form field 'top_k' is not a file; send images as"),
        (
            multipart(("a", "1.png", b"one"), ("b", "2.png", b"two"), is_closed=False),
            "ends after 1 whole files, before its closing boundary",
        ),
    ],
)
def test_malformed_multipart_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        split_body(body, MULTIPART, max_images=3)


def _many_files(count: int) -> bytes:
    return multipart(*((str(i), "x.png", b"x") for i in range(count)))


def _many_strings(count: int) -> bytes:
    return json.dumps({"images": ["YQ=="] * count}).encode()


@pytest.mark.parametrize(("kind", "make"), [(MULTIPART, _many_files), (JSON, _many_strings)])
def test_too_many_images_are_refused(kind: MediaType, make: Callable[[int], bytes]) -> None:
    assert len(split_body(make(3), kind, max_images=3)) == 3
    with pytest.raises(RequestTooLarge, match="the request has more than 3 images"):
        split_body(make(4), kind, max_images=3)


@given(
    kind=st.sampled_from([MULTIPART, JSON]),
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [
                    b"--edge",
                    b"--",
                    b"\r\n",
                    b'Content-Disposition: form-data; name="a"; filename="a"',
                    b"\r\n\r\n",
                    b'{"images": [',
                    b'"YQ=="',
                    b",",
                    b"]}",
                ]
            ),
        ),
        max_size=12,
    ),
)
def test_no_body_does_anything_but_split_or_be_refused(
    kind: MediaType, pieces: list[bytes]
) -> None:
    try:
        items = split_body(b"".join(pieces), kind, max_images=3)
    except (InvalidRequest, RequestTooLarge):
        return
    assert 1 <= len(items) <= 3
    assert all(isinstance(item, (bytes, InvalidRequest)) for item in items)
