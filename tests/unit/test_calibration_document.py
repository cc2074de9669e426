"""The calibration file: exact round trips, a file of version 1, and everything that is refused."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from pydantic import ValidationError

from oodserve.calibration import (
    Calibration,
    Rule,
    Runtime,
    ScoreCalibration,
    calibrate,
    clopper_pearson_upper,
)
from oodserve.errors import CalibrationError, InvalidRequest, NonFiniteScore, TooFewSamples
from oodserve.schema import explain

# Written by hand: 20 scores, rule marginal at 0.9, k = floor(0.1 * 21) = 2.
VERSION_1 = """
{"format_version": 1,
 "model_sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
 "input_sha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
 "runtime": {"library": "onnxruntime", "provider": "cpu", "precision": "int8"},
 "created": "2026-01-31T12:00:00Z", "data_fingerprint": "cc", "default_score": "energy",
 "scores": {"energy": {"rule": "marginal", "target_tpr": 0.9, "confidence": null, "n": 20, "k": 2,
                       "tau": 0.42, "tpr_lower": 0.7838937968820943,
                       "rejection_upper": 0.21610620311790569,
                       "values": [[0.31, 1], [0.42, 2], [0.55, 13], [0.99, 20]]}},
 "class_reference": {"0": 0.25, "1": 0.75}}
"""


def make(**changes: Any) -> Calibration:
    rng = np.random.default_rng(1)
    arguments: dict[str, Any] = {
        "n_classes": 3,
        "rule": "pac",
        "target_tpr": 0.95,
        "confidence": 0.95,
        "model_sha256": "a" * 64,
        "input_sha256": "b" * 64,
        "runtime": Runtime(library="onnxruntime", provider="cpu", precision="fp32"),
        "data_fingerprint": "c" * 64,
        "default_score": "msp",
        "created": "2026-01-31T12:00:00Z",
    }
    scores: dict[str, ArrayLike] = {
        "msp": rng.random(400).astype(np.float32),
        "energy": rng.normal(0, 1e3, 400),
    }
    predicted = changes.pop("predicted", np.arange(400) % 8 % 3)
    return calibrate(changes.pop("score_arrays", scores), predicted, **arguments | changes)


MADE = make()


def refusal(document: Any, **changes: Any) -> str:
    """Return why the made calibration, with changes at the top level, is not valid."""
    content = json.loads(MADE.to_json()) | changes
    with pytest.raises(ValidationError) as caught:
        Calibration.model_validate(content | (document or {}))
    return explain(caught.value)


def score_refusal(**changes: Any) -> str:
    content = json.loads(MADE.scores["msp"].to_json()) | changes
    with pytest.raises(ValidationError) as caught:
        ScoreCalibration.model_validate(content)
    return explain(caught.value)


def test_round_trip_is_exact() -> None:
    text = MADE.to_json()
    read = Calibration.model_validate_json(text)
    assert read == MADE
    assert read.to_json() == text
    for name, score in MADE.scores.items():
        assert read.scores[name].values == score.values
        assert read.scores[name].tau == score.tau
    # p-values computed from the file are those of the original, bit for bit.
    probes = np.random.default_rng(2).normal(0, 1e3, 1000)
    np.testing.assert_array_equal(
        read.scores["energy"].p_values(probes), MADE.scores["energy"].p_values(probes)
    )


def test_using_a_calibration_changes_neither_equality_nor_what_is_written() -> None:
    fresh = make()
    fresh.scores["msp"].p_value(0.5)
    assert fresh == MADE
    assert fresh.to_json() == MADE.to_json()
    copy = pickle.loads(pickle.dumps(fresh))
    assert copy == fresh
    assert copy.scores["msp"].p_value(0.5) == fresh.scores["msp"].p_value(0.5)


def test_float32_scores_are_kept_to_the_bit() -> None:
    scores = np.random.default_rng(3).random(100).astype(np.float32)
    made = make(score_arrays={"msp": scores}, predicted=np.zeros(100, dtype=np.int64))
    read = Calibration.model_validate_json(made.to_json()).scores["msp"]
    kept = np.array([score for score, _ in read.values], dtype=np.float32)
    np.testing.assert_array_equal(kept, np.unique(scores))
    assert not read.is_out(float(np.float32(read.tau)))


def test_a_file_of_version_1_is_read() -> None:
    calibration = Calibration.model_validate_json(VERSION_1)
    energy = calibration.scores["energy"]
    assert calibration.runtime.precision == "int8"
    assert (energy.k, energy.tau, energy.confidence) == (2, 0.42, None)
    assert energy.p_value(0.42) == 3 / 21
    assert energy.p_value(0.7) == 14 / 21
    assert calibration.class_reference == {"0": 0.25, "1": 0.75}
    assert json.loads(calibration.to_json()) == json.loads(VERSION_1)


def test_class_reference_is_the_share_of_each_class_predicted() -> None:
    predicted = np.array([0] * 100 + [2] * 300, dtype=np.uint8)
    made = make(predicted=predicted, n_classes=4)
    assert made.class_reference == {"0": 0.25, "1": 0.0, "2": 0.75, "3": 0.0}


def test_every_score_gets_the_same_rule() -> None:
    made = make(rule="marginal", confidence=0.95)
    assert {score.rule for score in made.scores.values()} == {"marginal"}
    assert {score.k for score in made.scores.values()} == {20}
    assert {score.confidence for score in made.scores.values()} == {None}


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"`predicted` has shape \(7,\), the scores .*; not equal"):
        make(predicted=np.zeros(7, dtype=np.int64))
    with pytest.raises(ValueError, match=r"`predicted` has shape \(20, 20\)"):
        make(predicted=np.zeros((20, 20), dtype=np.int64))


@pytest.mark.parametrize("bad", [-1, 3])
def test_predicted_classes_must_exist(bad: int) -> None:
    predicted = np.zeros(400, dtype=np.int64)
    predicted[5] = bad
    with pytest.raises(ValueError, match=r"`predicted` is int64 from .*; expected integers from 0"):
        make(predicted=predicted)


def test_predicted_classes_are_integers() -> None:
    with pytest.raises(ValueError, match=r"`predicted` is float64 from 0.0 to 0.0; expected integ"):
        make(predicted=np.zeros(400))


def test_what_calibrate_score_refuses_is_refused() -> None:
    scores = np.random.default_rng(1).random(400)
    scores[3] = np.nan
    with pytest.raises(NonFiniteScore, match="1 of 400 scores are NaN or infinite"):
        make(score_arrays={"msp": scores})
    with pytest.raises(TooFewSamples, match="20 calibration images are too few"):
        make(score_arrays={"msp": scores[10:30]}, predicted=np.zeros(20, dtype=np.int64))
    with pytest.raises(InvalidRequest, match="`target_tpr` = 95"):
        make(target_tpr=95)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"default_score": "energies"}, "`default_score` = 'energies' is none of the calibrated"),
        ({"score_arrays": {}}, "`scores` = "),
        ({"score_arrays": {f"s{i}": np.arange(400) for i in range(5)}}, "`scores` = "),
        ({"model_sha256": "A" * 64}, "`model_sha256` = "),
        ({"created": "2026-01-31 12:00"}, "`created` = "),
        ({"data_fingerprint": ""}, "`data_fingerprint` = "),
    ],
)
def test_values_that_make_no_valid_document(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CalibrationError, match="not a valid calibration: .*" + reason):
        make(**changes)


def test_unknown_and_missing_keys_are_named() -> None:
    assert refusal(None, temperature=1.0) == "unknown key `temperature`"
    content = json.loads(MADE.to_json())
    del content["runtime"]["precision"]
    with pytest.raises(ValidationError) as caught:
        Calibration.model_validate(content)
    assert explain(caught.value) == "missing key `runtime.precision`"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": 2}, "`format_version` = 2: "),
        ({"runtime": {"library": "", "provider": "cpu", "precision": "fp32"}}, "runtime.library"),
        (
            {"runtime": {"library": "onnxruntime", "provider": "tpu", "precision": "fp32"}},
            "`runtime.provider` = 'tpu': ",
        ),
        ({"created": "2026-01-31T12:00:00+01:00"}, "expected an ISO 8601 time in UTC such as 2026"),
        ({"created": "2026-02-31T12:00:00Z"}, "day"),
        ({"class_reference": {"0": 0.5, "1": 0.4}}, "in `class_reference` sum to 0.9, not to 1"),
        ({"class_reference": {"zero": 1.0}}, "`class_reference.zero.[key]` = 'zero': "),
        ({"class_reference": {"01": 1.0}}, "`class_reference.01.[key]` = '01': "),
        ({"class_reference": {"0": 1.5, "1": -0.5}}, "`class_reference.1` = -0.5: "),
        ({"default_score": "max_logit"}, "is none of the calibrated scores ['energy', 'msp']"),
    ],
)
def test_documents_with_a_wrong_value(changes: dict[str, Any], reason: str) -> None:
    assert reason in refusal(changes)


def test_score_names_are_fit_for_a_metric_label() -> None:
    score = json.loads(MADE.scores["msp"].to_json())
    assert "`scores.Max Logit.[key]`" in refusal({"scores": {"msp": score, "Max Logit": score}})


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite(value: str) -> None:
    text = VERSION_1.replace('"tau": 0.42', f'"tau": {value}')
    with pytest.raises(ValidationError, match="finite number"):
        Calibration.model_validate_json(text)


# 400 scores under rule pac at 0.95 / 0.95: k = 13.
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"k": 14}, "has the ranks 13 to 13, not `k` = 14"),
        ({"tau": 0.5}, "`tau` = 0.5 is none of the calibration scores in `values`"),
        ({"tau": 2.0}, "`tau` = 2.0 is none of the calibration scores in `values`"),
        ({"n": 401}, "the last rank in `values` is 400, not `n` = 401"),
        ({"values": []}, "`values` = []: "),
        ({"values": [[0.1, 0], [0.2, 400]]}, "`values.0.1` = 0: "),
        ({"values": [[0.2, 1], [0.1, 400]]}, "scores and ranks in `values` must ascend strictly"),
        ({"values": [[0.1, 1], [0.1, 400]]}, "scores and ranks in `values` must ascend strictly"),
        ({"values": [[0.1, 400], [0.2, 400]]}, "scores and ranks in `values` must ascend strictly"),
        ({"values": [[0.1, 10**30]]}, "`values.0.1` = "),
        (
            {"confidence": None},
            "`confidence` goes with the rule `pac` and is null under `marginal`",
        ),
        (
            {"rule": "marginal"},
            "`confidence` goes with the rule `pac` and is null under `marginal`",
        ),
        ({"rule": "percentile"}, "`rule` = 'percentile': "),
        ({"target_tpr": 0.97}, "`k` = 13 of `n` = 400 is too large for rule pac"),
        ({"confidence": 0.99}, "`k` = 13 of `n` = 400 is too large for rule pac"),
        (
            {"rule": "marginal", "confidence": None, "target_tpr": 0.99},
            "`k` = 13 of `n` = 400 is too large for rule marginal",
        ),
        ({"tpr_lower": 0.96}, "`tpr_lower` and `rejection_upper` do not follow from `n` and `k`"),
        (
            {"tpr_lower": 0.99, "rejection_upper": 0.01},
            "`tpr_lower` and `rejection_upper` do not follow from `n` and `k`",
        ),
        ({"target_tpr": 1.0}, "`target_tpr` = 1.0: "),
    ],
)
def test_a_threshold_that_does_not_keep_its_word(changes: dict[str, Any], reason: str) -> None:
    assert MADE.scores["msp"].k == 13
    assert reason in score_refusal(**changes)


@pytest.mark.parametrize("rule", ["pac", "marginal"])
def test_a_rank_that_is_one_too_large_is_noticed_though_all_else_fits(rule: Rule) -> None:
    made = make(rule=rule).scores["msp"]
    bound = clopper_pearson_upper(made.k, made.n, 0.95)
    larger = json.loads(made.to_json()) | {
        "k": made.k + 1,
        "tau": made.values[made.k][0],
        "rejection_upper": bound,
        "tpr_lower": 1 - bound,
    }
    with pytest.raises(ValidationError, match=f"`k` = {made.k + 1} of .* is too large for rule"):
        ScoreCalibration.model_validate(larger)


def test_documents_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        MADE.scores["msp"].tau = 0.0  # type: ignore[misc]
