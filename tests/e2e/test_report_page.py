"""The report in a browser, from the disk: no request, no error, readable, sortable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.reported import make_evaluation
from train.figures.curves import roc
from train.figures.scores import score_histogram
from train.report.page import Picture, html_report

pytestmark = pytest.mark.e2e

OpenReport = Callable[..., Page]
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inside, sets = [3.0, 2.0, 4.0, 2.5], {"near": [1.0, 2.2], "far": [0.0, 0.3, 1.0]}
    pictures = [
        Picture("scores", "Scores", "Where they lie.", "Histograms of a score.",
                score_histogram(inside, sets, score="energy", tau=1.5)),
        Picture("roc", "ROC", "Every threshold.", "Two curves.",
                roc(inside, sets, score="energy"), kind="pictures"),
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html_report(make_evaluation(), pictures), encoding="utf-8")
    return path


@pytest.fixture
def open_report(browser: Browser, report: Path) -> Iterator[OpenReport]:
    """Open the page: `open_report(**context_options)`; whatever a test does, it asks nobody."""
    opened: list[Page] = []
    seen: list[str] = []

    def open_page(**options: object) -> Page:
        page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(report.as_uri())
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        page.context.close()
    assert [text for text in seen if not text.startswith("data:")] == [
        report.as_uri() for _ in opened
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 900}])
def test_it_fits_the_window_and_shows_its_figures(
    open_report: OpenReport, scheme: str, size: dict[str, int]
) -> None:
    page = open_report(color_scheme=scheme, viewport=size)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= size["width"]
    broken = page.evaluate(
        "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    )
    assert broken == 0
    assert page.locator("img").count() == 2
    for image in page.locator("img").all():
        box = image.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]


CONTRAST = """() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll("h1, p, td, td span, td strong, figcaption, a, dt, dd")]
    .map((element) => light(getComputedStyle(element).color))
    .map((ink) => (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_ground(open_report: OpenReport, scheme: str) -> None:
    ratios = open_report(color_scheme=scheme).evaluate(CONTRAST)
    assert len(ratios) > 50
    assert min(ratios) >= 4.5  # WCAG 2.1, level AA


def test_dark_is_dark(open_report: OpenReport) -> None:
    colours = [
        open_report(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 26)"]


def test_headings_sort_by_number_and_by_name(open_report: OpenReport) -> None:
    page = open_report()
    table = page.locator("table").first
    head = table.locator("th", has_text="auroc")
    column = table.locator("tbody tr td:nth-child(4)")

    def values() -> list[float]:
        return [float(cell.get_attribute("data-value") or "nan") for cell in column.all()]

    before = values()
    head.get_by_role("button").click()
    assert values() == sorted(before, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").press("Enter")
    assert values() == sorted(before)
    assert head.get_attribute("aria-sort") == "ascending"
    table.locator("th", has_text="OOD set").get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert table.locator("tbody tr td:first-child").all_inner_texts() == ["near"] * 2 + ["far"] * 2


def test_it_can_be_read_without_a_script(open_report: OpenReport) -> None:
    page = open_report(java_script_enabled=False)
    assert page.locator("table").count() == 6
    assert page.locator("th", has_text="auroc").first.is_visible()


def test_wide_tables_are_reached_by_keyboard(open_report: OpenReport) -> None:
    page = open_report(viewport=PHONE)
    region = page.get_by_role("region").first
    region.focus()
    scrolled = "document.querySelector('.scroll').scrollLeft"
    for _ in range(50):
        # A key that comes before the page is laid out scrolls nothing.
        page.keyboard.press("ArrowRight")
        if page.evaluate(scrolled) > 0:
            break
        page.wait_for_timeout(100)
    assert page.evaluate(scrolled) > 0
