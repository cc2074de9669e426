"""From a request body to encoded images: raw, multipart and JSON with base64.

Reading is separate from splitting. `read_body` runs on the event loop and enforces limits while the
bytes arrive, whatever Content-Length says; `split_body` is a pure function that runs in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from oodserve.errors import (
    InvalidRequest,
    OodserveError,
    RequestTooLarge,
    UnsupportedMediaType,
)
from server.admission import Ticket

Item = bytes | OodserveError
"""An encoded image, or why there is none at this place of the request."""

ACCEPTED = (
    "send an image as `image/*` or `application/octet-stream`, files as `multipart/form-data`, "
    'or `application/json` with {"images": ["<base64>"]}'
)


@dataclass(frozen=True)
class MediaType:
    """The kind of a body."""

    name: str
    """Lower case, without parameters; for example ``image/png``."""
    boundary: bytes | None = None
    """What separates the parts of ``multipart/form-data``."""

    @property
    def is_one_image(self) -> bool:
        """Whether the body is the image itself."""
        return self.boundary is None and self.name != "application/json"


def media_type(request: Request) -> MediaType:
    """Return the kind of a request's body, as its headers state it.

    Raises
    ------
    UnsupportedMediaType
        It is not one that is understood, or it is compressed.
    InvalidRequest
        It is multipart without a boundary.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMediaType(
            f"`Content-Encoding: {coding[:40]}` is not understood; send the body uncompressed"
        )
    given = request.headers.get("content-type", "")
    parsed, options = parse_options_header(given)
    name = parsed.decode("latin-1").strip().lower()
    if name == "multipart/form-data":
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidRequest("`Content-Type: multipart/form-data` has no `boundary`")
        return MediaType(name, boundary)
    if name.startswith("image/") or name in ("application/octet-stream", "application/json"):
        return MediaType(name)
    raise UnsupportedMediaType(f"`Content-Type: {given[:80]}` is not understood; {ACCEPTED}")


async def read_body(request: Request, *, max_bytes: int, timeout_s: float, ticket: Ticket) -> bytes:
    """Return the whole body.

    Parameters
    ----------
    request : Request
        Not read yet.
    max_bytes : int
        Largest body.
    timeout_s : float
        Time within which it must have arrived.
    ticket : Ticket
        Takes the bytes as they arrive. What is announced costs nothing yet, or a few clients that
        send slowly could hold the whole budget.

    Raises
    ------
    Overloaded
        The bytes do not fit into what the server may hold.
    RequestTooLarge
        More than `max_bytes`, be it announced or found while reading.
    InvalidRequest
        The body did not arrive in time.
    """
    announced = int(request.headers.get("content-length", 0))
    if announced > max_bytes:
        raise RequestTooLarge(
            f"the body has {announced} bytes; at most {max_bytes} are allowed, send fewer images"
        )
    ticket.check_bytes(announced)
    chunks: list[bytes] = []
    got = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                got += len(chunk)
                if got > max_bytes:
                    raise RequestTooLarge(
                        f"the body has more than {max_bytes} bytes, which is the most allowed; "
                        "send fewer images"
                    )
                ticket.take_bytes(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise InvalidRequest(
            f"the body did not arrive within {timeout_s:g} s ({got} bytes did); send it faster"
        ) from None
    return b"".join(chunks)


def split_body(body: bytes, kind: MediaType, *, max_images: int) -> Sequence[Item]:
    """Return the images that a body carries, in order; at least one.

    An item that cannot be taken out of the body is an error in its place, so that it does not harm
    its neighbours.

    Raises
    ------
    InvalidRequest
        The body is malformed or carries no image.
    RequestTooLarge
        It carries more than `max_images`.
    """
    if kind.is_one_image:
        return [body]
    if kind.boundary is not None:
        return _from_multipart(body, kind.boundary, max_images)
    return _from_json(body, max_images)


def _too_many(max_images: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"the request has more than {max_images} images, which is the most allowed; send several "
        "requests"
    )


def _from_json(body: bytes, max_images: int) -> list[Item]:
    wanted = 'expected {"images": ["<base64>", ...]}'
    # Parsed, a few bytes of "[]," are an object of a hundred: look before parsing. Base64 holds no
    # comma, and the beginning of a `data:` URL one.
    if body.count(b",") > 2 * max_images:
        raise RequestTooLarge(
            f"the JSON body has more elements than {max_images} images, which is the most allowed; "
            f"{wanted}"
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON ({error}); {wanted}") from None
    if not isinstance(document, dict) or set(document) != {"images"}:
        is_object = isinstance(document, dict)
        got = [key[:40] for key in sorted(document)[:5]] if is_object else type(document).__name__
        raise InvalidRequest(f"the JSON body is not of the right form (got {got}); {wanted}")
    images = document["images"]
    if not isinstance(images, list) or not all(isinstance(item, str) for item in images):
        raise InvalidRequest(f"`images` is not a list of strings; {wanted}")
    if not images:
        raise InvalidRequest(f"`images` is empty, so there is no image; {wanted}")
    if len(images) > max_images:
        raise _too_many(max_images)
    return [_from_base64(text) for text in images]


def _from_base64(text: str) -> Item:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return InvalidRequest(
            f"the image is not base64 ({error}); send the standard "
            "alphabet with padding, without line breaks and without a `data:` prefix"
        )


@dataclass
class _Parts:
    """Collects the files of a multipart body from the parser's callbacks."""

    max_images: int
    files: list[bytes] = field(default_factory=list)
    is_complete: bool = False
    _name: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""
    _content: list[bytes] = field(default_factory=list)

    def on_part_begin(self) -> None:
        self._disposition = b""
        self._content = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            name = options.get(b"name", b"").decode("utf-8", "replace")
            raise InvalidRequest(
                f"the form field {name[:40]!r} is not a file; send images as files, and options "
                "in the query string"
            )
        if len(self.files) == self.max_images:
            raise _too_many(self.max_images)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def on_part_end(self) -> None:
        self.files.append(b"".join(self._content))

    def on_end(self) -> None:
        self.is_complete = True


def _from_multipart(body: bytes, boundary: bytes, max_images: int) -> list[Item]:
    parts = _Parts(max_images)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.on_part_begin,
                "on_part_data": parts.on_part_data,
                "on_part_end": parts.on_part_end,
                "on_header_field": parts.on_header_field,
                "on_header_value": parts.on_header_value,
                "on_header_end": parts.on_header_end,
                "on_headers_finished": parts.on_headers_finished,
                "on_end": parts.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest(
            f"the multipart body is malformed ({error}); send files as `multipart/form-data`"
        ) from None
    if not parts.is_complete:
        raise InvalidRequest(
            f"the multipart body ends after {len(parts.files)} whole files, before its closing "
            "boundary; send it whole"
        )
    if not parts.files:
        raise InvalidRequest("the multipart body has no file, so there is no image")
    return list(parts.files)
