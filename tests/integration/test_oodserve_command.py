"""The command `oodserve`, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oodserve.bundle import CALIBRATION, open_bundle
from oodserve.predictor import Predictor
from oodserve.store import CalibrationStore
from tests.tiny import CLASSES, TinyBundle, encode, id_images, id_png, make_bundle, ood_png


def oodserve(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oodserve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 known images in folders named by class."""
    root = tmp_path_factory.mktemp("images")
    for number, image in enumerate(id_images(400, seed=77)):
        path = root / CLASSES[number % 4] / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(image))
    return root


@pytest.fixture
def bare(tmp_path: Path) -> TinyBundle:
    """A bundle without a calibration."""
    return make_bundle(tmp_path / "models", calibrated=False)


def test_calibrate_makes_the_bundle_servable(bare: TinyBundle, folder: Path) -> None:
    done = oodserve("calibrate", bare.path, "--images", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "accuracy on these images: 1.0000" in done.stderr
    assert "warning: " in done.stderr  # 400 images: fewer than 1,000
    calibration, identity = bare.bundle.read_calibration()
    assert identity in done.stderr
    assert set(calibration.scores) == {"energy", "msp", "max_logit"}
    energy = calibration.scores["energy"]
    # PAC at n = 400: the largest k with BinomCDF(k - 1; 400, 0.05) <= 0.05 is 13.
    assert (energy.rule, energy.n, energy.k, energy.confidence) == ("pac", 400, 13, 0.95)
    rejected = sum(
        answer.ood for answer in Predictor.load(bare.path).predict(sorted(folder.rglob("*.png")))
    )
    assert rejected == energy.k - 1  # all scores differ, and the k-th itself is accepted


def test_a_second_calibration_goes_to_a_store(
    bare: TinyBundle, folder: Path, tmp_path: Path
) -> None:
    assert oodserve("calibrate", bare.path, "--images", folder).returncode == 0
    refused = oodserve("calibrate", bare.path, "--images", folder)
    assert refused.returncode == 1
    assert "has its calibration already and a bundle is never changed" in refused.stderr
    store = tmp_path / "calibrations"
    options = ("--calibrations", store, "--rule", "marginal", "--target-tpr", "0.9")
    done = oodserve("calibrate", bare.path, "--images", folder, *options, "--score", "msp")
    assert done.returncode == 0, done.stderr
    current = CalibrationStore(store).current("tiny", 1)
    assert current is not None
    assert list(current.calibration.scores) == ["msp"]
    assert current.calibration.default_score == "msp"
    assert (current.calibration.scores["msp"].rule, current.calibration.scores["msp"].k) == (
        "marginal",
        40,
    )
    assert "ordinal 1" in done.stderr


def test_too_few_images_says_how_many_are_needed(bare: TinyBundle, tmp_path: Path) -> None:
    for number, image in enumerate(id_images(58, seed=1)):
        (tmp_path / f"{number}.png").write_bytes(encode(image))
    done = oodserve("calibrate", bare.path, "--images", tmp_path)
    assert done.returncode == 1
    assert "58" in done.stderr
    assert "59" in done.stderr
    assert not (bare.path / CALIBRATION).exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--score", "entropy"), "the model has no score `entropy`; it has energy, msp, max_logit"),
        (("--score", "msp", "--default-score", "energy"), "is not among the calibrated scores"),
        (("--target-tpr", "1.5"), "1.5"),
        (("--confidence", "0"), "0"),
        (("--rule", "marginal", "--confidence", "0.9"), "`--confidence 0.9` belongs to the rule"),
    ],
)
def test_calibrate_refuses_what_cannot_be_right(
    bare: TinyBundle, folder: Path, options: tuple[str, ...], text: str
) -> None:
    done = oodserve("calibrate", bare.path, "--images", folder, *options)
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (bare.path / CALIBRATION).exists()


@pytest.mark.parametrize("option", ["--batch-size", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_counts_below_one_are_usage_errors(
    bare: TinyBundle, folder: Path, option: str, value: str
) -> None:
    done = oodserve("calibrate", bare.path, "--images", folder, option, value)
    assert done.returncode == 2
    assert f"argument {option}: '{value}' is not a whole number above 0" in done.stderr


def test_an_image_that_cannot_be_decoded_is_named_and_nothing_is_written(
    bare: TinyBundle, tmp_path: Path
) -> None:
    for number, image in enumerate(id_images(60, seed=1)):
        (tmp_path / f"{number:02d}.png").write_bytes(encode(image))
    (tmp_path / "30.png").write_bytes(id_png(seed=1)[:70])
    done = oodserve("calibrate", bare.path, "--images", tmp_path)
    assert done.returncode == 1
    assert "30.png` cannot be used" in done.stderr
    assert not (bare.path / CALIBRATION).exists()


def test_predict_prints_a_table_or_json(tiny_bundle: TinyBundle, tmp_path: Path) -> None:
    known, grey = tmp_path / "known.png", tmp_path / "grey.png"
    known.write_bytes(id_png(seed=1))
    grey.write_bytes(ood_png(seed=1))
    done = oodserve("predict", tiny_bundle.path, known, grey, "--json", "--top-k", "2")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    expected = Predictor.load(tiny_bundle.path).predict([known, grey], top_k=2)
    assert answers == [
        {"image": str(path)} | prediction.to_dict()
        for path, prediction in zip((known, grey), expected, strict=True)
    ]
    table = oodserve("predict", tiny_bundle.path, tmp_path)
    assert table.returncode == 0
    assert "OUT" in table.stdout
    assert "red" in table.stdout


def test_predict_names_a_file_that_is_not_there(tiny_bundle: TinyBundle, tmp_path: Path) -> None:
    done = oodserve("predict", tiny_bundle.path, tmp_path / "none.png")
    assert done.returncode == 1
    assert "none.png` (No such file or directory)" in done.stderr


def test_predict_names_a_file_that_is_no_image(tiny_bundle: TinyBundle, tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_text("hello")
    done = oodserve("predict", tiny_bundle.path, tmp_path)
    assert done.returncode == 1
    assert "fake.png`: not an image that is read here" in done.stderr


def test_a_store_that_is_not_there_is_not_taken_for_an_empty_one(
    tiny_bundle: TinyBundle, tmp_path: Path
) -> None:
    image = tmp_path / "known.png"
    image.write_bytes(id_png(seed=1))
    done = oodserve("predict", tiny_bundle.path, image, "--calibrations", tmp_path / "nope")
    assert done.returncode == 1
    assert "nope` is not a folder; make it, or leave `--calibrations` out" in done.stderr


def test_inspect_verifies_and_describes(tiny_bundle: TinyBundle) -> None:
    done = oodserve("inspect", tiny_bundle.path)
    assert done.returncode == 0, done.stderr
    for text in ("tiny version 1", "red, green, blue, yellow", "golden outputs reproduced"):
        assert text in done.stdout
    document = json.loads(oodserve("inspect", tiny_bundle.path, "--json").stdout)
    assert document["calibration_id"] == tiny_bundle.calibration_id
    assert document["manifest"]["model"]["precision"] == "fp32"


def test_inspect_fails_on_what_cannot_be_served(bare: TinyBundle) -> None:
    done = oodserve("inspect", bare.path)
    assert done.returncode == 1
    assert f"oodserve calibrate {open_bundle(bare.path).path} --images FOLDER" in done.stderr
    (bare.path / "model.onnx").write_bytes(b"half")
    done = oodserve("inspect", bare.path)
    assert done.returncode == 1
    assert "corrupt or half-written" in done.stderr


def test_the_library_and_the_server_need_no_torch(tiny_bundle: TinyBundle) -> None:
    """Both work where importing torch, scipy, scikit-learn or matplotlib fails."""
    code = (
        "import sys\n"
        "class Forbid:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in "
        "{'torch', 'torchvision', 'scipy', 'sklearn', 'matplotlib', 'lightning_fabric', 'onnx'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Forbid())\n"
        "from oodserve.predictor import Predictor\n"
        "import oodserve.cli, server.__main__ as entry, server.app\n"
        f"predictor = Predictor.load({str(tiny_bundle.path)!r})\n"
        f"print(predictor.predict([{id_png(seed=1)!r}])[0].label)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "red\n"
