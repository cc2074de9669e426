"""Settings: from flags and environment, refused when they cannot be meant."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from oodserve.errors import ConfigurationError
from server.settings import MIB, Settings, flag, parse, variable


def test_defaults_are_those_of_the_dataclass() -> None:
    assert parse([], {}) == Settings()


def test_a_flag_counts_before_a_variable_before_the_default() -> None:
    environ = {"OODSERVE_PORT": "8001", "OODSERVE_DEADLINE_S": "2.5"}

    settings = parse(["--port", "8002"], environ)

    assert (settings.port, settings.deadline_s, settings.host) == (8002, 2.5, "127.0.0.1")


@pytest.mark.parametrize("item", dataclasses.fields(Settings), ids=lambda item: item.name)
def test_every_setting_has_a_flag_and_a_variable(item: dataclasses.Field[object]) -> None:
    examples: dict[str, tuple[str, object]] = {
        "models": ("elsewhere", Path("elsewhere")),
        "calibrations": ("store", Path("store")),
        "default_model": ("digits", "digits"),
        "host": ("0.0.0.0", "0.0.0.0"),
        "provider": ("cuda", "cuda"),
        "accept_runtime_mismatch": ("true", True),
        "max_queue_bytes": ("999000000", 999_000_000),
        "max_image_bytes": ("123", 123),
        "max_images_per_request": ("7", 7),
        "log_level": ("debug", "debug"),
        "deadline_s": ("1.5", 1.5),
        "body_timeout_s": ("1.5", 1.5),
        "drain_delay_s": ("1.5", 1.5),
        "drain_timeout_s": ("1.5", 1.5),
        "keep_alive_s": ("1.5", 1.5),
        "max_body_bytes": ("30000000", 30_000_000),
        "max_queue_images": ("99", 99),
    }
    text, value = examples.get(item.name, ("77", 77))

    assert getattr(parse([flag(item.name), text], {}), item.name) == value
    assert getattr(parse([], {variable(item.name): text}), item.name) == value
    assert value != item.default


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("False", False), ("0", False)]
)
def test_a_switch_reads_words_and_not_truthiness(text: str, value: bool) -> None:
    environ = {"OODSERVE_ACCEPT_RUNTIME_MISMATCH": text}

    assert parse([], environ).accept_runtime_mismatch is value


def test_a_switch_without_a_value_is_on() -> None:
    assert parse(["--accept-runtime-mismatch"], {}).accept_runtime_mismatch is True


@pytest.mark.parametrize(
    ("argv", "environ", "message"),
    [
        (["--port", "http"], {}, r"`--port` = 'http' is not a whole number"),
        ([], {"OODSERVE_PORT": "8.5"}, r"`OODSERVE_PORT` = '8\.5' is not a whole number"),
        (["--deadline-s", "soon"], {}, r"`--deadline-s` = 'soon' is not a number"),
        (["--deadline-s", "nan"], {}, r"`--deadline-s` = nan is out of range"),
        (["--deadline-s", "inf"], {}, r"`--deadline-s` = inf is out of range"),
        (["--deadline-s", "0"], {}, r"`--deadline-s` = 0\.0 is out of range; expected at least"),
        (["--drain-delay-s", "-1"], {}, r"`--drain-delay-s` = -1\.0 is out of range"),
        (["--port", "70000"], {}, r"`--port` = 70000 is out of range; expected 0 to 65535"),
        (["--threads", "0"], {}, r"`--threads` = 0 is out of range; expected at least 1"),
        (["--provider", "tpu"], {}, r"`--provider` = 'tpu' is not one of cpu, cuda"),
        ([], {"OODSERVE_LOG_LEVEL": "loud"}, r"'loud' is not one of debug, info, warning, error"),
        (["--host", ""], {}, r"`--host` = '' is not a non-empty text"),
        (["--models", ""], {}, r"`--models` = '' is not a path"),
        (
            [],
            {"OODSERVE_ACCEPT_RUNTIME_MISMATCH": "yes"},
            r"= 'yes' is not `true`, `false`, `1` or `0`",
        ),
        (
            [],
            {"OODSERVE_MAX_BODY_BYTE": "5"},
            r"`OODSERVE_MAX_BODY_BYTE` in the environment is no setting; did you mean "
            r"`OODSERVE_MAX_BODY_BYTES`\?",
        ),
        ([], {"OODSERVE_XYZ": "5"}, r"`OODSERVE_XYZ` .* is no setting; see `python -m server"),
        (
            ["--max-body-bytes", "1000"],
            {},
            r"`--max-image-bytes` = 20971520 is larger than `--max-body-bytes` = 1000, so such a",
        ),
        (["--max-queue-bytes", "1000"], {}, r"larger than `--max-queue-bytes` = 1000"),
        (["--max-queue-images", "8"], {}, r"larger than `--max-queue-images` = 8"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    argv: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(argv, environ)


def test_addresses_that_kubernetes_injects_for_a_service_of_this_name_are_no_settings() -> None:
    environ = {
        "OODSERVE_PORT": "tcp://10.0.0.7:80",
        "OODSERVE_PORT_80_TCP": "tcp://10.0.0.7:80",
        "OODSERVE_PORT_80_TCP_ADDR": "10.0.0.7",
        "OODSERVE_SERVICE_HOST": "10.0.0.7",
        "OODSERVE_SERVICE_PORT": "80",
        "OODSERVE_SERVICE_PORT_HTTP": "80",
        "OODSERVE_METRICS_SERVICE_HOST": "10.0.0.8",
        "OODSERVE_METRICS_PORT": "tcp://10.0.0.8:80",
    }

    assert parse([], environ) == Settings()


def test_an_unknown_flag_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["--max-bytes", "5"], {})
    assert "--max-bytes" in capsys.readouterr().err


def test_help_names_every_flag_its_unit_and_its_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"], {})
    text = " ".join(capsys.readouterr().out.split())

    for item in dataclasses.fields(Settings):
        default = "none" if item.default is None else str(item.default).lower()
        assert f"{flag(item.name)} {item.metadata['unit']}" in text.replace("[", "").replace(
            "]", ""
        )
        assert f"default {default})" in text


def test_settings_describe_themselves_in_json() -> None:
    description = Settings(models=Path("m"), max_body_bytes=64 * MIB).describe()

    assert description["models"] == "m"
    assert description["max_body_bytes"] == 67_108_864
    assert set(description) == {item.name for item in dataclasses.fields(Settings)}


def test_the_program_says_what_is_wrong_and_ends_with_2() -> None:
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-m", "server", "--port", "x"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 2
    assert run.stderr.startswith("python -m server: `--port` = 'x' is not a whole number")
