"""The console as a person uses it: what can be done on the page, and what can be read from it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from playwright.sync_api import (
    ConsoleMessage,
    FilePayload,
    JSHandle,
    Locator,
    Page,
    Request,
    expect,
)

from tests.e2e.strokes import CANVAS_PX, Drawing
from tests.tiny import id_png, ood_png

ANSWERED = "body:not([data-busy]) #verdict-card:is([data-verdict=in], [data-verdict=out])"

_DATA_TRANSFER = """
([files, text]) => {
  const transfer = new DataTransfer();
  for (const [name, type, encoded] of files) {
    const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  if (text) transfer.setData("text/plain", text);
  return transfer;
}
"""


@dataclass(frozen=True)
class Upload:
    """A file that is given to the page."""

    name: str
    content: bytes
    media_type: str = "image/png"


KNOWN = Upload("known.png", id_png(seed=5))
"""In distribution for the tiny model, of class red."""
STRANGE = Upload("strange.png", ood_png(seed=5))
"""Out of distribution for the tiny model."""


@dataclass
class ConsolePage:
    """One open page, watched from before its first request."""

    page: Page
    base_url: str
    messages: list[str] = field(default_factory=list)
    """Errors and warnings of the browser's console, and uncaught exceptions."""
    urls: list[str] = field(default_factory=list)
    """Everything that was requested."""

    def __post_init__(self) -> None:
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.messages.append(f"uncaught: {error}"))
        self.page.on("request", self._note_request)

    def open(self) -> None:
        """Load the page and wait until it knows whether the server is ready."""
        self.page.goto(f"{self.base_url}/")
        expect(self.locate("status")).not_to_have_text("Checking")

    def locate(self, element_id: str) -> Locator:
        """Return the element with this id."""
        return self.page.locator(f"#{element_id}")

    def text(self, element_id: str) -> str:
        """Return the text of an element, as it is shown."""
        return self.locate(element_id).inner_text()

    def value(self, element_id: str) -> float:
        """Return the exact number that an element shows rounded."""
        value = self.locate(element_id).get_attribute("data-value")
        assert value is not None, f"#{element_id} has no value"
        return float(value)

    @property
    def verdict(self) -> str:
        """``none``, ``in`` or ``out``."""
        return self.locate("verdict-card").get_attribute("data-verdict") or ""

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Wait, after what is done in the block, for an answer that was not there before."""
        before = self.text("request-id")
        yield
        expect(self.locate("request-id")).not_to_have_text(before)
        self.page.wait_for_selector(ANSWERED)

    def choose(self, *files: Upload) -> None:
        """Give files to the file picker."""
        self.locate("file-input").set_input_files(
            [
                FilePayload(name=file.name, mimeType=file.media_type, buffer=file.content)
                for file in files
            ]
        )

    def drop(self, *files: Upload, text: str = "") -> None:
        """Drop files, or text, on the drop zone."""
        zone, transfer = self.locate("drop-zone"), self._data_transfer(files, text)
        for event in ("dragenter", "dragover", "drop"):
            zone.dispatch_event(event, {"dataTransfer": transfer})

    def paste(self, *files: Upload, text: str = "") -> None:
        """Paste files, or text, into the page."""
        self.page.evaluate(
            "(clipboardData) => document.body.dispatchEvent("
            "new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))",
            self._data_transfer(files, text),
        )

    def draw(self, drawing: Drawing) -> None:
        """Draw with the mouse, stroke by stroke."""
        self.locate("pad").scroll_into_view_if_needed()
        box = self.locate("pad").bounding_box()
        assert box is not None
        scale, mouse = box["width"] / CANVAS_PX, self.page.mouse
        for stroke in drawing:
            placed = [(box["x"] + x * scale, box["y"] + y * scale) for x, y in stroke]
            mouse.move(*placed[0])
            mouse.down()
            for point in placed[1:]:
                mouse.move(*point)
            mouse.up()

    def tab_to(self, element_id: str, *, most: int = 40) -> None:
        """Press Tab until an element has the focus."""
        target = self.locate(element_id)
        for _ in range(most):
            self.page.keyboard.press("Tab")
            if target.evaluate("(node) => node === document.activeElement"):
                return
        raise AssertionError(f"#{element_id} is not reached within {most} presses of Tab")

    def foreign_urls(self) -> list[str]:
        """Return what was requested from anywhere but the server."""
        return [url for url in self.urls if not url.startswith((f"{self.base_url}/", "blob:"))]

    def _data_transfer(self, files: tuple[Upload, ...], text: str) -> JSHandle:
        encoded = [
            [file.name, file.media_type, base64.b64encode(file.content).decode()] for file in files
        ]
        return self.page.evaluate_handle(_DATA_TRANSFER, [encoded, text])

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.messages.append(f"{message.type}: {message.text}")

    def _note_request(self, request: Request) -> None:
        self.urls.append(request.url)
