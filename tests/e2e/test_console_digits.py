"""Digits and scribbles drawn on the console's canvas, judged by the real digits model."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import OpenConsole
from tests.e2e.console_page import ConsolePage
from tests.e2e.strokes import Drawing, variants
from tests.server_process import ServerProcess

# The first use of the model trains it, where no demo has run before.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ORDINARY = (0, 1, 3, 6, 9)
"""Hands of `strokes.variants` that differ in size, slant and place."""


def judge(console: ConsolePage, drawing: Drawing) -> tuple[str, str]:
    """Draw on a clean canvas; return the class and the verdict."""
    if console.locate("pad-clear").is_enabled():
        console.locate("pad-clear").click()
    with console.answering():
        console.draw(drawing)
    return console.text("label"), console.verdict


@pytest.mark.parametrize("digit", ["0", "1", "7"])
def test_a_drawn_digit_is_recognised_and_known(
    digits_server: ServerProcess, open_console: OpenConsole, digit: str
) -> None:
    console = open_console(digits_server.base_url)
    drawings = variants(digit)
    answers = {hand: judge(console, drawings[hand]) for hand in ORDINARY}
    assert answers == dict.fromkeys(ORDINARY, (digit, "in"))


def test_a_scribble_is_out(digits_server: ServerProcess, open_console: OpenConsole) -> None:
    console = open_console(digits_server.base_url)
    scribbles = variants("scribble")[:5]
    verdicts = [judge(console, scribble)[1] for scribble in scribbles]
    assert verdicts == ["out"] * len(scribbles)
