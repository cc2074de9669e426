"""The page: one file, its policy, its words, nothing unescaped."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from tests.reported import make_evaluation
from train.report.page import Picture, html_report

VOID = {"meta", "link", "img", "br"}


def picture(**changes: object) -> Picture:
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    words: dict[str, object] = {
        "name": "line", "title": "A line", "caption": "It rises.", "alternative": "A line, rising.",
        "figure": figure,
    }  # fmt: skip
    return Picture(**(words | changes))  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Collects elements, and fails on one that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return html_report(make_evaluation(), [picture(), picture(name="pixels", kind="pictures")])


def test_elements_are_closed_and_named_once(page: str) -> None:
    read = Reader(page)
    names = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(set(names)) == len(names)
    targets = [link["href"][1:] for link in read.all("a")]
    assert targets
    assert set(targets) <= set(names)
    assert read.all("html")[0]["lang"] == "en"


def test_nothing_comes_from_elsewhere(page: str) -> None:
    read = Reader(page)
    for _, attributes in read.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name, "#")
            assert value.startswith(("data:", "#")), value
    outside_of_figures = re.sub(r'src="data:[^"]*"', "", page)
    assert "http:" not in outside_of_figures
    assert "https:" not in outside_of_figures
    assert "url(" not in outside_of_figures
    assert not any(name.startswith("on") for _, found in read.elements for name in found)
    assert not any("style" in found for _, found in read.elements)


def test_the_policy_names_style_and_script_by_hash(page: str) -> None:
    policies = [m["content"] for m in Reader(page).all("meta") if "http-equiv" in m]
    (policy,) = policies
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_figures_are_inlined_with_words(page: str) -> None:
    chart, pixels = Reader(page).all("img")
    assert chart["src"].startswith("data:image/svg+xml;base64,")
    assert b"<svg" in base64.b64decode(chart["src"].partition(",")[2])
    assert pixels["src"].startswith("data:image/png;base64,")
    assert base64.b64decode(pixels["src"].partition(",")[2]).startswith(b"\x89PNG")
    for image in (chart, pixels):
        assert image["alt"] == "A line, rising."
        assert (image["width"], image["height"]) == ("192", "96")


def test_words_are_escaped() -> None:
    nasty = "<script>alert(1)</script>\"'&"
    evaluation = make_evaluation(name=nasty, sets=(nasty,))
    words = {"title": nasty, "caption": nasty, "alternative": nasty, "name": nasty}
    page = html_report(evaluation, [picture(**words)])
    assert "<script>alert" not in page
    read = Reader(page)
    assert len(read.all("script")) == 1
    assert read.all("img")[0]["alt"] == nasty


def test_cells_sort_by_what_they_print(page: str) -> None:
    cells = Reader(page).all("td")
    numbers = [cell["data-value"] for cell in cells if cell.get("class") == "number"]
    assert numbers
    assert all(value == "" or float(value) >= 0 for value in numbers)
    item = make_evaluation().detection("near", "energy")
    assert repr(round(100 * item.auroc, 2)) in numbers


def test_it_is_the_same_each_time(page: str) -> None:
    again = html_report(make_evaluation(), [picture(), picture(name="pixels", kind="pictures")])
    assert again == page


def test_notes_are_shown() -> None:
    page = html_report(make_evaluation(calibration=10), [])
    assert '<p class="note">no figures at tau' in page
    assert "False alarms" not in page
