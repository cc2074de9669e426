from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from oodserve.bundle import GOLDEN, attach_calibration, open_bundle
from oodserve.engines.onnxruntime import OnnxRuntimeEngine, usable_cpus
from oodserve.errors import (
    BundleError,
    CalibrationMismatch,
    EngineError,
    InvalidRequest,
    NonFiniteScore,
    NotCalibrated,
    UndecodableImage,
)
from oodserve.predictor import Predictor, relative_error
from oodserve.store import CalibrationStore
from tests.tiny import (
    COLOURS,
    TinyBundle,
    black_png,
    id_images,
    id_png,
    make_bundle,
    ood_png,
)


@pytest.fixture(scope="module")
def predictor(tiny_bundle: TinyBundle) -> Predictor:
    return Predictor.load(tiny_bundle.path)


def test_known_is_in_and_grey_is_out(predictor: Predictor) -> None:
    known, grey = predictor.predict([id_png(seed=1), ood_png(seed=1)], top_k=4)
    assert (known.label, known.index, known.ood) == ("red", 0, False)
    assert grey.ood
    for answer in (known, grey):
        assert answer.ood == (answer.score < answer.threshold)
        assert sum(item.probability for item in answer.top_k) == pytest.approx(1)
        assert answer.top_k[0].label == answer.label
        assert 0 < answer.p_value <= 1


def test_the_answer_is_recomputable_from_the_pixels(predictor: Predictor) -> None:
    # The graph is an inner product with the colours, up to a small random part.
    image = id_images(1, seed=5)[0]
    pixels = image.mean(axis=(0, 1)) / 255
    expected = 6.0 * ((pixels - 0.5) / 0.25) @ ((COLOURS - 0.5) / 0.25).T / 3
    outputs = predictor.infer(image[np.newaxis])
    assert np.allclose(outputs["logits"][0], expected, atol=0.6)
    decided = predictor.decide(outputs, 0, score_name="max_logit")
    assert decided.score == float(outputs["logits"][0].max())
    assert decided.score_name == "max_logit"


def test_files_and_bytes_alone_and_in_a_batch_get_the_same_answer(
    predictor: Predictor, tmp_path: Path
) -> None:
    encoded = [id_png(seed=seed) for seed in range(5)]
    file = tmp_path / "image.png"
    file.write_bytes(encoded[3])
    batch = predictor.predict(encoded)
    assert predictor.predict([file])[0] == batch[3]
    assert [predictor.predict([data])[0] for data in encoded] == batch
    assert predictor.predict([]) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top_k": 0}, "`top_k` = 0 is not between 1 and 4"),
        ({"top_k": 5}, "`top_k` = 5 is not between 1 and 4"),
        ({"score_name": "entropy"}, r"'entropy' is not calibrated; choose one of \['energy'"),
    ],
)
def test_a_value_that_cannot_be_right_is_named(
    predictor: Predictor, options: dict[str, object], text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        predictor.predict([id_png(seed=0)], **options)  # type: ignore[arg-type]


def test_one_bad_image_is_an_error_and_nothing_is_skipped(predictor: Predictor) -> None:
    with pytest.raises(UndecodableImage):
        predictor.predict([id_png(seed=0), id_png(seed=1)[:60]])


def test_nan_is_refused_and_its_neighbour_is_not_harmed(tmp_path: Path) -> None:
    predictor = Predictor.load(make_bundle(tmp_path / "models", nan_on_black=True).path)
    images = np.stack([predictor.prepare(black_png()), predictor.prepare(id_png(seed=1))])
    outputs = predictor.infer(images)
    with pytest.raises(NonFiniteScore, match=r"image 0 \(`energy` = nan\)"):
        predictor.decide(outputs, 0)
    assert not predictor.decide(outputs, 1).ood


def test_without_a_calibration_a_predictor_infers_but_does_not_decide(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "models", calibrated=False)
    with pytest.raises(NotCalibrated, match="oodserve calibrate"):
        Predictor.load(made.path)
    predictor = Predictor.load(made.path, require_calibration=False)
    outputs = predictor.infer(id_images(1, seed=0))
    with pytest.raises(NotCalibrated, match="no calibration to decide against"):
        predictor.decide(outputs, 0)


def test_the_stores_current_calibration_counts_before_the_bundles_own(
    tiny_models: TinyBundle, tmp_path: Path
) -> None:
    assert tiny_models.calibration is not None
    store = CalibrationStore(tmp_path / "calibrations")
    refreshed = tiny_models.calibration.model_copy(update={"created": "2026-03-01T00:00:00Z"})
    published = store.publish("tiny", 1, refreshed)
    predictor = Predictor.load(tiny_models.path, calibrations=store.root)
    assert predictor.active is not None
    assert predictor.active.id == published.id
    assert Predictor.load(tiny_models.path).active != predictor.active


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_sha256": "0" * 64}, "was made for another model"),
        ({"input_sha256": "0" * 64}, "was made with another preprocessing"),
        (
            {"runtime": {"library": "onnxruntime", "provider": "cpu", "precision": "int8"}},
            "was made on onnxruntime/cpu/int8, this runtime is onnxruntime/cpu/fp32",
        ),
    ],
)
def test_a_calibration_of_another_model_input_or_runtime_is_refused(
    tmp_path: Path, tiny_bundle: TinyBundle, change: dict[str, object], text: str
) -> None:
    made = make_bundle(tmp_path / "models", calibrated=False)
    own = make_bundle(tmp_path / "same")
    assert own.calibration is not None
    calibration = type(own.calibration).model_validate(own.calibration.model_dump() | change)
    attach_calibration(made.bundle, calibration)
    with pytest.raises(CalibrationMismatch, match=text):
        Predictor.load(made.path)
    if "runtime" in change:
        Predictor.load(made.path, accept_runtime_mismatch=True)


def test_a_calibrated_score_that_the_model_lacks_is_refused(
    tmp_path: Path, tiny_bundle: TinyBundle
) -> None:
    own = make_bundle(tmp_path / "same").calibration
    assert own is not None
    document = own.model_dump()
    document["scores"]["vim"] = document["scores"]["msp"]
    del document["scores"]["max_logit"]
    made = make_bundle(tmp_path / "models", calibrated=False)
    attach_calibration(made.bundle, type(own).model_validate(document))
    with pytest.raises(CalibrationMismatch, match=r"thresholds for \['vim'\]"):
        Predictor.load(made.path)


def test_golden_outputs_are_reproduced_and_a_difference_is_refused(tiny_models: TinyBundle) -> None:
    predictor = Predictor.load(tiny_models.path)
    assert predictor.verify_golden() <= 1e-6
    golden = predictor.bundle.read_golden()
    outputs = {name: array.copy() for name, array in golden.outputs.items()}
    outputs["msp"][2] += 0.01
    arrays: dict[str, NDArray[np.generic]] = {"image": golden.images, **outputs}
    np.savez(tiny_models.path / GOLDEN, allow_pickle=False, **arrays)
    with pytest.raises(BundleError, match=r"`msp` differs by 0\.01"):
        predictor.verify_golden()


def test_relative_error_is_absolute_below_one_and_infinite_for_nan() -> None:
    small, large = np.array([0.1], np.float32), np.array([100.0, 50.0], np.float32)
    assert relative_error(small, small + np.float32(0.01)) == pytest.approx(0.01, rel=1e-5)
    assert relative_error(large, large + 1) == pytest.approx(0.01)
    assert relative_error(large, np.array([np.nan, 50], np.float32)) == float("inf")
    assert relative_error(large, small) == float("inf")


def test_the_engine_refuses_what_it_cannot_run(tiny_bundle: TinyBundle) -> None:
    with pytest.raises(EngineError, match="cannot load the model"):
        OnnxRuntimeEngine(b"no model", precision="fp32")
    with pytest.raises(EngineError, match="provider 'cuda' is not in this build"):
        OnnxRuntimeEngine(tiny_bundle.bundle.read_model(), precision="fp32", provider="cuda")
    with pytest.raises(EngineError, match="provider 'tpu' is unknown"):
        OnnxRuntimeEngine(b"", precision="fp32", provider="tpu")  # type: ignore[arg-type]


def test_the_engine_names_a_wrong_input_and_a_closed_session(tiny_bundle: TinyBundle) -> None:
    engine = OnnxRuntimeEngine(tiny_bundle.bundle.read_model(), precision="fp32")
    with pytest.raises(EngineError, match=r"failed on input \(1, 8, 8, 3\)"):
        engine.infer(np.zeros((1, 8, 8, 3), np.uint8))
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.infer(id_images(1, seed=0))


def test_a_plan_needs_triton(tiny_models: TinyBundle) -> None:
    path = tiny_models.path / "bundle.json"
    path.write_text(path.read_text().replace("model.onnx", "model.plan"))
    (tiny_models.path / "model.onnx").rename(tiny_models.path / "model.plan")
    assert open_bundle(tiny_models.path).manifest.model.file == "model.plan"
    with pytest.raises(BundleError, match="serve it with Triton"):
        Predictor.load(tiny_models.path)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({}, None),
    ],
)
def test_threads_follow_the_cgroup_quota(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    unlimited = usable_cpus(tmp_path / "none")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    expected = unlimited if limit is None else min(limit, unlimited)
    assert usable_cpus(tmp_path) == expected >= 1


@given(seed=st.integers(0, 10_000))
def test_the_flag_is_the_comparison_and_p_follows_the_score(
    predictor: Predictor, seed: int
) -> None:
    first, second = predictor.predict([id_png(seed=seed), ood_png(seed=seed)])
    assert first.ood == (first.score < first.threshold)
    assert (first.p_value - second.p_value) * (first.score - second.score) >= 0
