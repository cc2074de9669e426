"""The console in a real browser, on the real server with the tiny model: what an answer shows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.conftest import MakeBundle, StartServer
from tests.e2e.conftest import OpenConsole
from tests.e2e.console_page import KNOWN, STRANGE, Upload
from tests.e2e.strokes import variants
from tests.server_process import ServerProcess
from tests.tiny import TinyBundle

pytestmark = pytest.mark.e2e


def ask(server: ServerProcess, upload: Upload, **query: object) -> dict[str, Any]:
    """Return the prediction for a file, asked for without a browser."""
    answer = httpx.post(
        f"{server.base_url}/v1/predict",
        content=upload.content,
        headers={"Content-Type": upload.media_type},
        params={key: str(value) for key, value in query.items()},
    )
    prediction: dict[str, Any] = answer.raise_for_status().json()["predictions"][0]
    return prediction


def test_the_page_loads_without_a_complaint_and_from_one_host(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url)
    expect(console.locate("status")).to_have_text("Ready")
    expect(console.page.get_by_test_id("tau-line")).to_have_count(1)
    with console.answering():
        console.draw(variants("7")[0])
    assert console.messages == []
    assert console.foreign_urls() == []
    policy = httpx.get(tiny_server.base_url).headers["Content-Security-Policy"]
    assert "unsafe" not in policy


def test_an_empty_page_says_what_to_do_and_what_the_model_knows(
    tiny_server: ServerProcess, tiny_bundle: TinyBundle, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url)
    expect(console.locate("verdict")).to_have_text("No image yet")
    expect(console.locate("verdict-note")).to_contain_text("Draw something or send a picture")
    expect(console.locate("top-k").locator("li")).to_have_text(["red", "green", "blue", "yellow"])
    expect(console.locate("calibration-id")).to_have_text(str(tiny_bundle.calibration_id))
    for control in ("pad-send", "pad-undo", "pad-clear", "curl-copy", "save-image"):
        expect(console.locate(control)).to_be_disabled()


@pytest.mark.parametrize(
    ("p_value", "known", "sentence"),
    [
        (0.41, 999, "An image like this or stranger: 41 in 100 of the known images."),
        (0.003, 999, "An image like this or stranger: 3 in 1,000 of the known images."),
        (0.0004, 9999, "An image like this or stranger: 4 in 10,000 of the known images."),
        (0.001, 999, "Stranger than every one of the 999 known images."),
    ],
)
def test_a_p_value_is_a_plain_sentence(
    tiny_server: ServerProcess,
    open_console: OpenConsole,
    p_value: float,
    known: int,
    sentence: str,
) -> None:
    page = open_console(tiny_server.base_url).page
    script = "async ([p, n]) => (await import('/static/format.js')).pValueSentence(p, n)"
    assert page.evaluate(script, [p_value, known]) == sentence


@pytest.mark.parametrize(
    ("values", "tau", "score", "beyond"),
    [
        ([[2.0, 500]], 2.0, 2.0, "false"),
        ([[1.0, 1], [1.5, 900], [2.0, 20_000]], 1.0, 1.7, "false"),
        ([[1.0, 1], [2.0, 2]], 1.0, -1e9, "true"),
        ([[1.0, 1], [2.0, 2]], 1.0, 1e9, "true"),
        ([[-3e-9, 1], [2e-9, 2]], -1e-9, 0.0, "false"),
    ],
    ids=["all equal", "thinned", "far below", "far above", "tiny"],
)
def test_the_chart_takes_any_calibration_and_any_score(
    tiny_server: ServerProcess,
    open_console: OpenConsole,
    values: list[list[float]],
    tau: float,
    score: float,
    beyond: str,
) -> None:
    console = open_console(tiny_server.base_url)
    chart: dict[str, Any] = console.page.evaluate(
        """async ([values, tau, score]) => {
          const { distributionChart } = await import("/static/chart.js");
          const svg = distributionChart({ values, tau, score, scoreName: "energy", width: 600 });
          const at = (id) => Number(svg.querySelector(`[data-testid=${id}]`).getAttribute("x1"));
          return {
            markup: svg.outerHTML,
            beyond: svg.querySelector("[data-testid=marker]").dataset.offScale,
            marker: at("marker-line"),
            tau: at("tau-line"),
          };
        }""",
        [values, tau, score],
    )
    assert "NaN" not in chart["markup"]
    assert "Infinity" not in chart["markup"]
    assert chart["beyond"] == beyond
    assert 0 < chart["marker"] < 600
    assert (chart["marker"] < chart["tau"]) == (score < tau)
    assert console.messages == []


@pytest.mark.parametrize("upload", [KNOWN, STRANGE], ids=["in", "out"])
def test_a_dropped_file_gets_the_answer_of_the_api(
    tiny_server: ServerProcess,
    tiny_bundle: TinyBundle,
    open_console: OpenConsole,
    upload: Upload,
) -> None:
    expected = ask(tiny_server, upload, top_k=4)
    assert tiny_bundle.calibration is not None
    calibrated = tiny_bundle.calibration.scores["energy"]
    console = open_console(tiny_server.base_url)
    with console.answering():
        console.drop(upload)
    expect(console.locate("label")).to_have_text(expected["label"])
    shown = {"score": "score", "threshold": "threshold", "p-value": "p_value"}
    for element_id, key in shown.items():
        assert console.value(element_id) == expected[key]
    assert console.value("probability") == expected["probability"]
    bars = console.locate("top-k").locator("li").all()
    assert [
        (bar.get_attribute("data-label"), float(bar.get_attribute("data-value") or "nan"))
        for bar in bars
    ] == [(item["label"], item["probability"]) for item in expected["top_k"]]
    expect(console.locate("calibration-id")).to_have_text(str(tiny_bundle.calibration_id))
    expect(console.locate("calibration-rule")).to_have_text("pac")
    expect(console.locate("calibration-target")).to_have_text(
        "accepts at least 95 % of known images, with 95 % confidence"
    )
    assert console.value("calibration-n") == calibrated.n
    assert console.text("served-by") == "tiny, 1"
    assert console.value("latency") > 0
    expect(console.locate("sent-name")).to_have_text(upload.name)


def test_the_verdict_is_in_words_for_eyes_and_ears(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url)
    with console.answering():
        console.drop(KNOWN)
    expect(console.locate("verdict")).to_have_text("IN distribution")
    expect(console.locate("relation")).to_have_text("reaches")
    expect(console.locate("announcement")).to_contain_text("IN distribution. Class red")
    with console.answering():
        console.drop(STRANGE)
    expect(console.locate("verdict")).to_have_text("OUT of distribution")
    expect(console.locate("relation")).to_have_text("is below")
    expect(console.locate("announcement")).to_contain_text("OUT of distribution. Class")
    expect(console.locate("p-value-text")).to_have_text(
        "Stranger than every one of the 400 known images."
    )


def test_the_chart_shows_the_image_on_its_side_of_the_threshold(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url)

    def place(test_id: str) -> float:
        box = console.page.get_by_test_id(test_id).bounding_box()
        assert box is not None
        return box["x"]

    for upload, side in ((KNOWN, "right"), (STRANGE, "left")):
        with console.answering():
            console.drop(upload)
        chart = console.locate("chart").bounding_box()
        assert chart is not None
        assert chart["x"] < place("marker-line") < chart["x"] + chart["width"]
        assert (place("marker-line") > place("tau-line")) == (side == "right")
    description = console.locate("chart").locator("svg > title").text_content()
    assert "energy score of 400 known images" in str(description)
    assert "below the threshold, OUT" in str(description)


def test_paste_and_picker_are_ways_in_and_several_files_are_answered_in_turn(
    tiny_server: ServerProcess, open_console: OpenConsole
) -> None:
    console = open_console(tiny_server.base_url)
    with console.answering():
        console.paste(KNOWN)
    assert console.verdict == "in"
    console.choose(STRANGE, KNOWN, STRANGE)
    past = console.locate("history").locator("button")
    expect(past).to_have_count(4)
    assert [item.get_attribute("data-verdict") for item in past.all()] == ["out", "in", "out", "in"]
    console.page.wait_for_selector("body:not([data-busy])")
    requests = len(console.urls)
    past.nth(1).click()
    expect(console.locate("verdict")).to_have_text("IN distribution")
    expect(past.nth(1)).to_have_attribute("aria-current", "true")
    assert len(console.urls) == requests, "an answer that is there is not asked for again"


def test_the_score_selector_decides_by_another_score(
    tiny_server: ServerProcess, tiny_bundle: TinyBundle, open_console: OpenConsole
) -> None:
    calibration = tiny_bundle.calibration
    assert calibration is not None
    console = open_console(tiny_server.base_url)
    options = console.locate("score-name").locator("option")
    expect(options).to_have_count(len(calibration.scores))
    assert [item.get_attribute("value") for item in options.all()] == list(calibration.scores)
    expect(console.locate("score-name")).to_have_value("energy")
    with console.answering():
        console.drop(STRANGE)
    for name in ("msp", "max_logit"):
        expected = ask(tiny_server, STRANGE, score_name=name)
        with console.answering():
            console.locate("score-name").select_option(name)
        assert console.value("score") == expected["score"]
        assert console.value("threshold") == calibration.scores[name].tau
        assert console.value("p-value") == expected["p_value"]
        assert console.verdict == ("out" if expected["ood"] else "in")
        expect(console.locate("chart")).to_contain_text(f"{name} score")
    expect(console.locate("history").locator("button")).to_have_count(1)


def test_the_model_selector_asks_another_model(
    bundle_maker: MakeBundle, server_process: StartServer, open_console: OpenConsole
) -> None:
    first, second = bundle_maker("alpha"), bundle_maker("beta", seed=7)
    server = server_process(first.repository)
    console = open_console(server.base_url)
    with console.answering():
        console.drop(KNOWN)
    expect(console.locate("calibration-id")).to_have_text(str(first.calibration_id))
    with console.answering():
        console.locate("model").select_option("beta")
    assert console.text("served-by") == "beta, 1"
    expect(console.locate("calibration-id")).to_have_text(str(second.calibration_id))
    console.locate("history").locator("button").nth(1).click()
    assert console.text("served-by") == "alpha, 1"
    expect(console.locate("model")).to_have_value("alpha")


@pytest.mark.skipif(
    shutil.which("curl") is None and os.environ.get("CI") != "true",
    reason="no curl on this machine",
)
def test_the_curl_line_repeats_the_call(
    tiny_server: ServerProcess, open_console: OpenConsole, tmp_path: Path
) -> None:
    upload = Upload("a friend's picture $HOME.png", STRANGE.content)
    (tmp_path / upload.name).write_bytes(upload.content)
    console = open_console(tiny_server.base_url)
    with console.answering():
        console.choose(upload)
    ran = subprocess.run(
        ["sh", "-c", console.text("curl")], cwd=tmp_path, capture_output=True, check=True
    )
    prediction = json.loads(ran.stdout)["predictions"][0]
    assert prediction["score"] == console.value("score")
    assert len(prediction["top_k"]) == console.locate("top-k").locator("li").count()
