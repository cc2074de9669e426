"""Calibrating: what stands in its way and what does not; odd names print as they are."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from oodserve.bundle import CALIBRATION, Training, attach_calibration, open_bundle, write_version
from oodserve.calibration import Calibration
from oodserve.cli import main
from oodserve.store import CalibrationStore
from tests.tiny import CONFIG_PBTXT, TinyBundle, encode, id_images, id_png, make_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 known images."""
    root = tmp_path_factory.mktemp("images")
    for number, image in enumerate(id_images(60, seed=5)):
        (root / f"{number:02d}.png").write_bytes(encode(image))
    return root


def _changed(calibration: Calibration | None, change: dict[str, object]) -> Calibration:
    assert calibration is not None
    return Calibration.model_validate(calibration.model_dump() | change)


def test_a_calibration_of_another_runtime_does_not_prevent_one_for_this(
    tiny_bundle: TinyBundle, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_bundle(tmp_path / "models", calibrated=False)
    runtime = {"library": "onnxruntime", "provider": "cuda", "precision": "fp32"}
    attach_calibration(made.bundle, _changed(tiny_bundle.calibration, {"runtime": runtime}))
    assert main(["predict", str(made.path), str(folder)]) == 1
    assert "made on onnxruntime/cuda/fp32" in capsys.readouterr().err
    store = tmp_path / "calibrations"
    arguments = ["calibrate", str(made.path), "--images", str(folder), "--calibrations", str(store)]
    assert main(arguments) == 0
    assert main(["predict", str(made.path), str(folder), "--calibrations", str(store)]) == 0


@pytest.mark.parametrize("fault", ["another model", "damaged"])
def test_a_store_whose_current_calibration_cannot_be_used_takes_the_next(
    tiny_models: TinyBundle, folder: Path, tmp_path: Path, fault: str
) -> None:
    store = CalibrationStore(tmp_path / "calibrations")
    store.publish("tiny", 1, _changed(tiny_models.calibration, {"model_sha256": "0" * 64}))
    if fault == "damaged":
        (store.root / "tiny" / "1" / "000001.json").write_text("{")
    arguments = ["calibrate", str(tiny_models.path), "--images", str(folder)]
    assert main([*arguments, "--calibrations", str(store.root)]) == 0
    current = store.current("tiny", 1)
    assert current is not None
    assert current.ordinal == 2
    assert current.calibration.model_sha256 == tiny_models.bundle.manifest.model.sha256


def test_a_folder_of_a_held_out_class_is_refused(
    tiny_bundle: TinyBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny_bundle.bundle
    training = Training(
        method="standard",
        hyperparameters={},
        seed=0,
        data_fingerprint="0" * 64,
        held_out_classes=("violet",),
    )
    path = write_version(
        tmp_path / "models",
        "tiny",
        manifest=source.manifest.model_copy(update={"training": training}),
        model=source.read_model(),
        golden=source.read_golden(),
        config_pbtxt=CONFIG_PBTXT,
    )
    images = tmp_path / "images"
    for number, image in enumerate(id_images(60, seed=5)):
        file = images / ("violet" if number == 7 else "red") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(image))
    arguments = ["calibrate", str(path), "--images", str(images)]
    assert main(arguments) == 1
    assert "violet` is named like a class that was held out" in capsys.readouterr().err
    assert not (open_bundle(path).path / CALIBRATION).exists()
    (images / "violet").rename(images / "red" / "more")
    assert main(arguments) == 0


def test_brackets_in_names_are_printed_as_they_are(
    tiny_bundle: TinyBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rich would take `[/]` for the end of a style and fail.
    image = Path("a[/].png")
    monkeypatch.chdir(tmp_path)
    image.parent.mkdir()
    image.write_bytes(id_png(seed=1))
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(["predict", str(tiny_bundle.path), str(image)]) == 0
    assert "a[/].png" in output.getvalue()
