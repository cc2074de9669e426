"""From arrays to the evaluation document: figures, tau, groups, refusals, the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from oodserve.calibration import calibrate_score
from oodserve.errors import ConfigurationError, DataError, NonFiniteScore
from train.evaluation.document import EVALUATION, Evaluation, RunFacts, read_evaluation
from train.evaluation.measure import measure
from train.evaluation.scored import ScoredSets, ScoredSource
from train.evaluation.settings import (
    EvaluationSettings,
    parse_base_rate,
    parse_groups,
    parse_ood_sets,
)

RUN = RunFacts(
    name="tiny", method="mixoe", seed=3, classes=("a", "b", "c"), held_out=("d",),
    data_fingerprint="0" * 64,
)  # fmt: skip
QUICK = EvaluationSettings(resamples=40, groups={"all": ("near", "far")})
SCORES = ("energy", "msp")


def scored(rng: np.random.Generator, count: int, margin: float) -> ScoredSource:
    logits = rng.normal(0, 1, (count, 3))
    logits[np.arange(count), rng.integers(3, size=count)] += margin
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return ScoredSource(
        logits=logits.astype(np.float32),
        scores={
            "energy": np.log(np.exp(logits).sum(axis=1)).astype(np.float32),
            "msp": shares.max(axis=1).astype(np.float32),
        },
    )


@pytest.fixture(scope="module")
def sets() -> ScoredSets:
    rng = np.random.default_rng(1)
    test = scored(rng, 90, 3.0)
    labels = test.logits.argmax(axis=1).astype(np.int64)
    labels[::10] = (labels[::10] + 1) % 3
    return ScoredSets(
        test=test,
        labels=labels,
        ood={"near": scored(rng, 40, 1.0), "far": scored(rng, 25, 0.0)},
        calibration=scored(rng, 150, 3.0),
    )


@pytest.fixture(scope="module")
def evaluation(sets: ScoredSets) -> Evaluation:
    return measure(sets, scores=SCORES, settings=QUICK, run=RUN)


def test_figures_are_scikit_learns(sets: ScoredSets, evaluation: Evaluation) -> None:
    assert evaluation.accuracy == pytest.approx(0.9)
    assert evaluation.ood_sets == ("near", "far")
    for item in evaluation.detections:
        inside = sets.test.scores[item.score]
        outside = sets.ood[item.ood_set].scores[item.score]
        scores, is_in = np.r_[inside, outside], np.r_[np.ones(90), np.zeros(outside.size)]
        assert item.images == outside.size
        assert item.auroc == pytest.approx(roc_auc_score(is_in, scores))
        weights = np.where(is_in == 1, 5 * outside.size / 90, 1.0)
        pair = item.base_rates["5:1"]
        assert pair.aupr_ood == pytest.approx(
            average_precision_score(1 - is_in, -scores, sample_weight=weights)
        )
        assert item.figures()["aupr_id@5:1"] == pair.aupr_id


def test_every_figure_lies_in_its_interval_or_near(evaluation: Evaluation) -> None:
    for item in evaluation.detections:
        wanted = set(item.figures()) | {"risk_with_ood"}
        assert set(item.intervals) == wanted
        for name, value in item.figures().items():
            low, high = item.intervals[name]
            assert 0 <= low <= high <= 1
            assert low - 0.05 <= value <= high + 0.05, name


def test_tau_is_calibrations_own_and_its_rates_are_counted(
    sets: ScoredSets, evaluation: Evaluation
) -> None:
    assert sets.calibration is not None
    for item in evaluation.selective:
        made = calibrate_score(
            sets.calibration.scores[item.score], rule="pac", target_tpr=0.95, confidence=0.95
        )
        at = item.at_tau
        assert at is not None
        assert (at.tau, at.k, at.n, at.tpr_lower) == (made.tau, made.k, 150, made.tpr_lower)
        inside = sets.test.scores[item.score].astype(np.float64)
        flagged = int((inside < made.tau).sum())
        errors = int(((inside >= made.tau) & sets.wrong).sum())
        assert (at.false_alarms.count, at.false_alarms.total) == (flagged, 90)
        assert (at.selective_risk.count, at.selective_risk.total) == (errors, 90 - flagged)
        exact = binomtest(errors, 90 - flagged).proportion_ci(0.95, method="exact")
        assert at.selective_risk.exact == pytest.approx((exact.low, exact.high), abs=1e-9)
        assert at.coverage.bootstrap is not None
        for name, source in sets.ood.items():
            found = evaluation.detection(name, item.score).at_tau
            assert found is not None
            outside = source.scores[item.score].astype(np.float64)
            assert found.ood_recall.count == int((outside < made.tau).sum())


def test_a_group_is_the_plain_mean_over_its_sets(evaluation: Evaluation) -> None:
    for item in evaluation.groups:
        assert item.ood_sets == ("near", "far")
        for name, value in item.figures.items():
            if name == "risk_with_ood":
                continue
            each = [evaluation.detection(s, item.score).figures()[name] for s in item.ood_sets]
            assert value == pytest.approx(np.mean(each))
            low, high = item.intervals[name]
            assert low <= high
    assert [(item.group, item.score) for item in evaluation.groups] == [
        ("all", "energy"), ("all", "msp"),
    ]  # fmt: skip


def test_the_seed_decides_the_intervals_and_nothing_else(
    sets: ScoredSets, evaluation: Evaluation
) -> None:
    again = measure(sets, scores=SCORES, settings=QUICK, run=RUN)
    assert again.to_json() == evaluation.to_json()
    other = measure(sets, scores=SCORES, settings=QUICK, run=RUN.model_copy(update={"seed": 4}))
    assert other.detections[0].auroc == evaluation.detections[0].auroc
    assert other.detections[0].intervals != evaluation.detections[0].intervals


def test_without_enough_calibration_images_there_is_no_tau(sets: ScoredSets) -> None:
    assert sets.calibration is not None
    none = measure(replace(sets, calibration=None), scores=SCORES, settings=QUICK, run=RUN)
    assert none.notes == ("no figures at tau: the data keep no calibration split",)
    few = ScoredSource(
        logits=sets.calibration.logits[:20],
        scores={name: values[:20] for name, values in sets.calibration.scores.items()},
    )
    made = measure(replace(sets, calibration=few), scores=SCORES, settings=QUICK, run=RUN)
    assert len(made.notes) == 1
    assert made.notes[0].startswith("no figures at tau: ")
    assert "59" in made.notes[0]  # (1 - 0.05)^59 < 0.05
    for found in (none, made):
        assert all(item.at_tau is None for item in found.selective)
        assert all(item.at_tau is None for item in found.detections)
        assert "ood_recall" not in found.detections[0].figures()


def test_ties_and_single_images_have_figures(sets: ScoredSets) -> None:
    one = ScoredSource(np.zeros((1, 3), np.float32), {"flat": np.zeros(1, np.float32)})
    flat = ScoredSets(test=one, labels=np.zeros(1, np.int64), ood={"x": one}, calibration=None)
    made = measure(flat, scores=("flat",), settings=EvaluationSettings(resamples=3), run=RUN)
    item = made.detections[0]
    assert (item.auroc, item.fpr95_ood, item.miss95_id) == (0.5, 1.0, 1.0)
    assert made.selective[0].aurc == 0.0


def test_non_finite_scores_are_refused_by_name(sets: ScoredSets) -> None:
    broken = scored(np.random.default_rng(0), 8, 1.0)
    broken.scores["msp"][2] = np.nan
    with pytest.raises(
        NonFiniteScore, match="the score `msp` is NaN or infinite on 1 of 8 images of the set `bad`"
    ):
        measure(replace(sets, ood={"bad": broken}), scores=SCORES, settings=QUICK, run=RUN)
    with pytest.raises(NonFiniteScore, match="of the set `calibration`"):
        measure(replace(sets, calibration=broken), scores=SCORES, settings=QUICK, run=RUN)


def test_empty_sets_are_refused_by_name(sets: ScoredSets) -> None:
    empty = ScoredSource(
        np.zeros((0, 3), np.float32), {name: np.zeros(0, np.float32) for name in SCORES}
    )
    with pytest.raises(DataError, match="the set `void` has no images; put some there"):
        measure(replace(sets, ood={"void": empty}), scores=SCORES, settings=QUICK, run=RUN)
    with pytest.raises(DataError, match="there is no out-of-distribution set to evaluate on"):
        measure(replace(sets, ood={}), scores=SCORES, settings=QUICK, run=RUN)


def test_groups_name_sets_that_exist(sets: ScoredSets) -> None:
    settings = replace(QUICK, groups={"near": ("held_out",)})
    with pytest.raises(
        ConfigurationError,
        match="the group `near` names the set `held_out`, which is not evaluated; the sets are "
        "`near`, `far`",
    ):
        measure(sets, scores=SCORES, settings=settings, run=RUN)


# The file.


def test_the_document_reads_back(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / EVALUATION).write_text(evaluation.to_json())
    assert read_evaluation(tmp_path) == evaluation
    document = json.loads(evaluation.to_json())
    assert document["format_version"] == 2
    assert document["scores"] == ["energy", "msp"]
    assert document["detections"][0]["fpr@95tpr_ood"] == evaluation.detections[0].fpr95_ood


def test_without_a_file_there_is_no_evaluation(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            '{"format_version": 1, "accuracy": 0.9}',
            "has the format version `1`; this program reads",
        ),
        (
            '{"format_version": 3}',
            "has the format version `3`; this program reads version 2: write",
        ),
        ("[]", "has the format version `None`"),
        ("{", "is damaged, not JSON"),
        ('{"format_version": 2, "accuracy": 2}', "is damaged: .*missing key `run`"),
    ],
)
def test_files_that_cannot_be_read_say_what_to_do(content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / EVALUATION).write_text(content)
    with pytest.raises(DataError, match=f"{text}.*python -m train evaluate"):
        read_evaluation(tmp_path)


def test_a_folder_in_its_place_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / EVALUATION).mkdir()
    with pytest.raises(DataError, match=r"cannot read `.*evaluation\.json`"):
        read_evaluation(tmp_path)


def test_counts_and_scores_must_agree(evaluation: Evaluation, tmp_path: Path) -> None:
    document = json.loads(evaluation.to_json())
    document["selective"][0]["at_tau"]["coverage"]["count"] -= 1
    (tmp_path / EVALUATION).write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"`value` = .* is not \d+ of 90"):
        read_evaluation(tmp_path)
    document = json.loads(evaluation.to_json())
    del document["detections"][1]
    (tmp_path / EVALUATION).write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"are not of the scores .* each once"):
        read_evaluation(tmp_path)


def test_an_unknown_detection_lists_those_there_are(evaluation: Evaluation) -> None:
    with pytest.raises(
        DataError,
        match="no evaluation of the score `gen` on the set `near`; the sets are near, far, the "
        "scores energy, msp",
    ):
        evaluation.detection("near", "gen")


# Settings.


@pytest.mark.parametrize(
    ("text", "rate"), [("5:1", 5.0), ("1:1", 1.0), ("1:4", 0.25), ("2.5:1", 2.5)]
)
def test_base_rates(text: str, rate: float) -> None:
    assert parse_base_rate(text) == rate


@pytest.mark.parametrize("text", ["5", "5:0", "0:1", "-1:1", "a:b", "5:1:1", "", "1e3:1", "nan:1"])
def test_what_is_no_base_rate(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"the base rate `.*` is not ID:OOD; expected two"):
        EvaluationSettings(base_rates=(text,))


def test_sets_and_groups_of_the_command_line() -> None:
    assert parse_ood_sets(["a=x/y", "b=c=d"]) == {"a": Path("x/y"), "b": Path("c=d")}
    assert parse_groups(["near=a,b", "far=c", "near=d, a"]) == {
        "near": ("a", "b", "d"),
        "far": ("c",),
    }


@pytest.mark.parametrize("text", ["folder", "=folder", "name=", "a/b=c", "<b>=c"])
def test_what_is_no_set(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"the out-of-distribution set `.*` is not NAME=FO"
    ):
        parse_ood_sets([text])


def test_sets_and_groups_that_cannot_be_meant() -> None:
    with pytest.raises(ConfigurationError, match="two out-of-distribution sets are named `a`"):
        parse_ood_sets(["a=x", "a=y"])
    with pytest.raises(ConfigurationError, match="the group `near=a,,b` has an empty member"):
        parse_groups(["near=a,,b"])
    with pytest.raises(ConfigurationError, match="`resamples` = 0 leaves nothing to take interva"):
        EvaluationSettings(resamples=0)


@pytest.mark.parametrize("name", ["target_tpr", "rule_confidence"])
@pytest.mark.parametrize("value", [0.0, 1.0, 95.0, float("nan")])
def test_shares_that_are_none_are_refused_at_once(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"`{name}` = {value} is not strictly between 0"):
        EvaluationSettings(**{name: value})  # type: ignore[arg-type]
