"""The console's canvas: what is drawn is what is sent."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.e2e.conftest import OpenConsole
from tests.e2e.console_page import ConsolePage
from tests.e2e.strokes import PEN_PX, variants
from tests.server_process import ServerProcess

pytestmark = pytest.mark.e2e


def saved_image(console: ConsolePage) -> Image.Image:
    """Return the image that was sent last, in grey, through the page's own button."""
    with console.page.expect_download() as download:
        console.locate("save-image").click()
    return Image.open(download.value.path()).convert("L")


def test_a_drawing_is_sent_as_it_is_seen(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url, device_scale_factor=2)
    stroke = variants("1")[0]
    with console.answering():
        console.draw(stroke)
    image = saved_image(console)
    pixels = np.asarray(image)
    assert image.size == (280, 280)
    assert pixels[140, 20] == 0, "black paper"
    assert pixels[140, 140] == 255, "white ink"
    assert (pixels[140] > 127).sum() == pytest.approx(PEN_PX, abs=2)
    rows = np.flatnonzero((pixels > 127).any(axis=1))
    # Round ends reach half a pen beyond the points.
    top, bottom = stroke[0][0][1], stroke[0][-1][1]
    assert rows[0] == pytest.approx(top - PEN_PX / 2, abs=2), (
        "a round end, half a pen beyond the point"
    )
    assert rows[-1] == pytest.approx(bottom + PEN_PX / 2, abs=2)


def test_a_press_without_a_movement_is_a_dot(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url)
    with console.answering():
        console.draw([[(60.0, 200.0)]])
    rows, columns = np.nonzero(np.asarray(saved_image(console)) > 127)
    assert (columns.mean(), rows.mean()) == pytest.approx((60, 200), abs=1)
    assert np.ptp(columns) + 1 == pytest.approx(PEN_PX, abs=2)


def test_a_finger_draws_and_does_not_scroll(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    viewport = {"width": 390, "height": 844}
    console = open_console(tiny_server.base_url, viewport=viewport, has_touch=True, is_mobile=True)
    box = console.locate("pad").bounding_box()
    assert box is not None
    touch = console.page.context.new_cdp_session(console.page)
    with console.answering():
        for kind, y in (("touchStart", 40), *(("touchMove", y) for y in range(50, 240, 10))):
            point = {"x": box["x"] + 140, "y": box["y"] + y}
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert console.page.evaluate("() => scrollY") == 0
    rows = np.flatnonzero((np.asarray(saved_image(console)) > 127).any(axis=1))
    assert rows[0] == pytest.approx(40 - PEN_PX / 2, abs=3)
    assert rows[-1] == pytest.approx(230 + PEN_PX / 2, abs=3)


def test_undo_clear_and_swap_change_what_is_sent(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url)
    down = variants("1")[0]
    with console.answering():
        console.draw(down)
    first = np.asarray(saved_image(console), dtype=int)
    with console.answering():
        console.draw([[(y, x) for x, y in stroke] for stroke in down])
    assert np.abs(np.asarray(saved_image(console)) - first).max() == 255
    with console.answering():
        console.page.keyboard.press("Control+z")
    assert np.array_equal(np.asarray(saved_image(console)), first)
    with console.answering():
        console.locate("pad-swap").click()
    # Antialiased edges are blended the other way round, and rounded once more.
    assert np.abs(255 - np.asarray(saved_image(console)) - first).max() <= 2
    console.locate("pad-clear").click()
    expect(console.locate("pad-send")).to_be_disabled()
    expect(console.locate("history").locator("button")).to_have_count(1)
