"""The console for every reader: keyboard, names, contrast, any window, and nothing that moves."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import OpenConsole
from tests.e2e.console_page import KNOWN, STRANGE, Upload
from tests.e2e.strokes import variants
from tests.server_process import ServerProcess

pytestmark = pytest.mark.e2e


def test_the_keyboard_alone_is_enough(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url)
    page = console.page
    console.tab_to("drop-zone")
    outline = "(node) => parseFloat(getComputedStyle(node).outlineWidth)"
    with console.answering():
        with page.expect_file_chooser() as chooser:
            assert console.locate("drop-zone").evaluate(outline) >= 2, "the focus is seen"
            page.keyboard.press("Enter")
        chooser.value.set_files(
            {"name": STRANGE.name, "mimeType": "image/png", "buffer": STRANGE.content}
        )
    expect(console.locate("verdict")).to_have_text("OUT of distribution")
    with console.answering():
        console.tab_to("score-name")
        page.keyboard.press("ArrowDown")
    expect(console.locate("score-name")).to_have_value("msp")
    console.tab_to("curl-copy")


def test_every_control_has_a_name(tiny_server: ServerProcess, open_console: OpenConsole) -> None:
    console = open_console(tiny_server.base_url)
    with console.answering():
        console.drop(KNOWN)
    controls = console.page.locator("button, select, input, [role=img], a")
    nameless = controls.evaluate_all(
        """(nodes) => nodes.filter((node) => !(node.getAttribute("aria-label")
             || node.textContent.trim() || node.labels?.length)).map((node) => node.outerHTML)"""
    )
    assert nameless == []


def test_nothing_moves_when_an_answer_or_an_error_comes(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url)
    cards = ("pad", "drop-zone", "p-value", "chart", "request-id", "curl")

    def places() -> list[tuple[int, int]]:
        boxes = [console.locate(card).bounding_box() for card in cards]
        return [(round(box["x"]), round(box["y"])) for box in boxes if box is not None]

    expect(console.page.get_by_test_id("tau-line")).to_have_count(1)
    empty = places()
    assert len(empty) == len(cards)
    for upload in (KNOWN, STRANGE):
        with console.answering():
            console.drop(upload)
        assert places() == empty
    console.drop(Upload("notes.txt", b"words", "text/plain"))
    expect(console.locate("error")).to_be_visible()
    assert places() == empty


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_fits_its_window(
    tiny_server: ServerProcess, open_console: OpenConsole, width: int
) -> None:
    console = open_console(tiny_server.base_url, viewport={"width": width, "height": 800})
    with console.answering():
        console.draw(variants("7")[0])
    assert console.page.evaluate("() => document.documentElement.scrollWidth") <= width
    verdict = console.locate("verdict").bounding_box()
    assert verdict is not None
    assert verdict["y"] < 400, "the verdict is seen beside or above the pad"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(
    tiny_server: ServerProcess, open_console: OpenConsole, scheme: str
) -> None:
    console = open_console(tiny_server.base_url, color_scheme=scheme, reduced_motion="reduce")
    faint: list[str] = console.page.evaluate(CONTRAST)
    for upload in (KNOWN, STRANGE):
        with console.answering():
            console.drop(upload)
        faint += console.page.evaluate(CONTRAST)
    console.drop(text="no file")
    faint += console.page.evaluate(CONTRAST)
    assert faint == []


CONTRAST = """
() => {
  // Contrast ratio of WCAG 2: (L1 + 0.05) / (L2 + 0.05) of relative luminances.
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const linear = channels(colour).slice(0, 3).map((c) =>
      c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const node of document.querySelectorAll("body *:not(svg *, script, noscript, option)")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility({ visibilityProperty: true })) continue;
    if (node.closest("[aria-hidden=true], :disabled")) continue;
    const [a, b] = [luminance(getComputedStyle(node).color), luminance(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(`${node.tagName}#${node.id} ${node.textContent} ${ratio}`);
  }
  return faint;
}
"""
