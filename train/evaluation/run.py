"""Evaluating a finished run: its images are scored, measured, and the figures written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from oodserve.errors import DataError
from train.checkpoint import replace_text
from train.data.folders import Splits, open_splits
from train.data.sources import ImageSource
from train.evaluation.document import EVALUATION, Evaluation, RunFacts
from train.evaluation.measure import measure, refuse_unknown_members
from train.evaluation.ood_folders import open_ood_folders, refuse_overlaps
from train.evaluation.scored import ScoredSets
from train.evaluation.scoring import score_source
from train.evaluation.settings import EvaluationSettings
from train.figures.scores import score_histograms
from train.figures.style import save_png
from train.run import TrainedRun
from train.scorers.fitting import check_scorers

SCORES_FIGURE = "scores.png"


@dataclass(frozen=True, eq=False)
class Evaluated:
    """An evaluation with what it was computed from.

    Attributes
    ----------
    evaluation : Evaluation
    sets : ScoredSets
        The arrays.
    splits : Splits
        The run's images.
    ood : mapping of str to ImageSource
        Images of all out-of-distribution sets, given ones included.
    """

    evaluation: Evaluation
    sets: ScoredSets
    splits: Splits
    ood: Mapping[str, ImageSource]


def evaluate(run: TrainedRun, settings: EvaluationSettings | None = None) -> Evaluated:
    """Score the test and calibration images and every out-of-distribution set of a run.

    Parameters
    ----------
    run : TrainedRun
    settings : EvaluationSettings or None
        None for the defaults.

    Raises
    ------
    DataError
        There is no out-of-distribution set, or one is unfit; see `train.evaluation.ood_folders`.
    ConfigurationError, NonFiniteScore
        See `train.evaluation.measure.measure`.
    RecipeError
        A score is unknown or does not fit the model.
    """
    return _evaluated(run, _opened(run, settings or EvaluationSettings()))


@dataclass(frozen=True, eq=False)
class _Opened:
    """An evaluation that can begin: nothing that was asked for is at fault."""

    settings: EvaluationSettings
    names: tuple[str, ...]
    splits: Splits
    ood: Mapping[str, ImageSource]


def _opened(run: TrainedRun, settings: EvaluationSettings) -> _Opened:
    """Check everything that can be checked before an image is scored, the cheapest first."""
    recipe = run.recipe
    leading = tuple(dict.fromkeys((recipe.default_score, *recipe.scores)))
    names = settings.scores or leading
    splits = open_splits(recipe.data, recipe.input)
    new = [name for name in names if name not in recipe.scores]
    check_scorers(new, recipe.scorers, run.model, n_train=len(splits.train))
    if not splits.ood and not settings.ood:
        raise DataError(
            f"`{recipe.data.root}` has no out-of-distribution images: neither a folder `ood/NAME` "
            "nor `data.held_out` classes; name a folder with `--ood NAME=FOLDER`"
        )
    refuse_unknown_members(settings.groups, known=(*splits.ood, *settings.ood))
    given = open_ood_folders(settings.ood, splits, background=recipe.input.background)
    refuse_overlaps(splits)
    return _Opened(settings, names, splits, {**splits.ood, **given})


def _evaluated(run: TrainedRun, opened: _Opened) -> Evaluated:
    """Score all images and measure."""
    names, splits = opened.names, opened.splits
    scorers = run.scorers(names)
    kept = splits.calibration
    sets = ScoredSets(
        test=score_source(run.model, splits.test.source, run.input, scorers=scorers),
        labels=splits.test.labels,
        ood={
            name: score_source(run.model, source, run.input, scorers=scorers)
            for name, source in opened.ood.items()
        },
        calibration=None
        if kept is None
        else score_source(run.model, kept.source, run.input, scorers=scorers),
    )
    evaluation = measure(sets, scores=names, settings=opened.settings, run=facts(run))
    return Evaluated(evaluation, sets, splits, opened.ood)


def evaluate_run(
    run: TrainedRun,
    folder: Path,
    *,
    scores: tuple[str, ...] | None = None,
    settings: EvaluationSettings | None = None,
) -> Evaluated:
    """Evaluate a run and write `evaluation.json` and `scores.png` into a folder.

    Parameters
    ----------
    run : TrainedRun
    folder : Path
        Usually the run's own; made, where it is missing, once nothing asked for is at fault.
    scores : tuple of str, or None
        Instead of those of `settings`.
    settings : EvaluationSettings or None
        None for the defaults.

    Raises
    ------
    As `evaluate` does.
    """
    settings = settings or EvaluationSettings()
    opened = _opened(run, settings if scores is None else replace(settings, scores=scores))
    folder.mkdir(parents=True, exist_ok=True)
    done = _evaluated(run, opened)
    figure = score_histograms(
        done.sets.test.scores,
        {name: scored.scores for name, scored in done.sets.ood.items()},
        tau={
            item.score: item.at_tau.tau
            for item in done.evaluation.selective
            if item.at_tau is not None
        },
    )
    save_png(figure, folder / SCORES_FIGURE)
    # Last: where it is, the evaluation is complete.
    replace_text(folder / EVALUATION, done.evaluation.to_json())
    return done


def facts(run: TrainedRun) -> RunFacts:
    """Return what a document says of its run."""
    return RunFacts(
        name=run.recipe.name,
        method=run.recipe.method.method_name,
        seed=run.recipe.seed,
        classes=run.classes,
        held_out=run.held_out,
        data_fingerprint=run.fingerprint,
    )
