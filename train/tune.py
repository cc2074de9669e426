"""Choosing hyper-parameters by outliers that are made of the validation images.

The objective is the mean AUROC over the eight kinds of `train.data.validation_outliers` (Appendix
D.3 of the MixOE preprint, arXiv 2106.03917), subject to the validation accuracy not falling by more
than a floor below that of the pretrained model. Test images and out-of-distribution sets are not
read: trials train on a tree that has none.

DIR/
  tuning.json        recipe, search space, floor and seed; a search of others is refused
  data/              links to the training and validation images
  pretrained/        the run whose weights all trials start from
  study.log          every trial so far (Optuna's journal)
  trials/NNNN/       the run of the trial in progress; removed once it is measured
  trials.json        the measured trials
  best.toml          the recipe of the best one
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from oodserve.errors import DataError, NonFiniteScore, RecipeError
from oodserve.metrics import accuracy, auroc
from train import checkpoint
from train.data.folders import open_splits
from train.data.sources import seed_sequence
from train.data.validation_outliers import KINDS, ValidationOutliers
from train.divergence import Diverged
from train.evaluation.scoring import score_source
from train.fit import Stop, fit, resume
from train.pretraining import pretraining_alone
from train.recipes import DataRecipe, Recipe, to_toml
from train.run import CARD, RECIPE, TrainedRun, load_run
from train.tuning.outcomes import Outcome, Result, Tuning, describe, write_results
from train.tuning.tree import training_tree

SETTINGS, DATA, PRETRAINED_RUN = "tuning.json", "data", "pretrained"
STUDY, TRIALS = "study.log", "trials"

_ROUNDING = 1e-9
"""Accuracies are shares of whole images; only their last bits may differ."""


def tune(tuning: Tuning, folder: Path, *, trials: int, console: Console, stop: Stop) -> Result:
    """Make trials until there are `trials` of them, and write what was found.

    A search that was interrupted and goes on makes the trials that it would have made otherwise.

    Parameters
    ----------
    tuning : Tuning
    folder : Path
        New, or of the same search.
    trials : int
        How many in all.
    console : Console
        Where progress is shown.
    stop : callable
        Asked after every step of training.

    Raises
    ------
    DataError
        The folder is of another search, its data changed, or the data lack what is needed.
    RecipeError
        The recipe, or a value of the search space in it, has faults, or `trials` is below 1. Only
        training that diverged is an outcome.
    train.fit.Interrupted
        `stop` said so; calling again goes on.
    """
    if trials < 1:
        raise RecipeError(f"`--trials {trials}` is below 1; give the number of trials")
    recipe = tuning.recipe()
    if not recipe.finetune.epochs:
        raise RecipeError("`finetune.epochs` is 0, so that nothing would differ; set it above 0")
    if not recipe.pretrain.epochs and not recipe.pretrain.from_run:
        raise RecipeError(
            "`pretrain.epochs` is 0 and `pretrain.from_run` is empty, so that there is no "
            "pretrained model to start from and to compare with; set one of them"
        )
    _claim(folder, tuning, recipe)
    data = training_tree(recipe.data, folder / DATA)
    baseline = _pretrain(recipe, data, folder / PRETRAINED_RUN, console=console, stop=stop)
    study = _open_study(folder / STUDY)
    while len(found := _outcomes(study)) < trials:
        console.rule(f"trial {len(found) + 1} of {trials}")
        outcome = _trial(tuning, folder, study, len(found), data, baseline, console, stop)
        console.print(describe(outcome), highlight=False)
        write_results(folder, tuning, Result(baseline.accuracy, tuple(_outcomes(study))))
    result = Result(baseline.accuracy, tuple(found))
    write_results(folder, tuning, result)
    return result


@dataclass(frozen=True)
class _Baseline:
    folder: Path
    accuracy: float
    fingerprint: str


def _claim(folder: Path, tuning: Tuning, recipe: Recipe) -> None:
    """Note what is searched for, or refuse a folder of another search."""
    settings = {
        "format_version": 1,
        "recipe": to_toml(recipe),
        "search": {dimension.key: dimension.rule for dimension in tuning.space},
        "accuracy_floor": tuning.accuracy_floor,
        "seed": tuning.seed,
    }
    path = folder / SETTINGS
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"`{folder}` holds something else already; give another folder")
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.replace_text(path, json.dumps(settings, indent=1) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != settings:
        raise DataError(
            f"`{folder}` is of a search with another recipe, space, floor or seed; give another "
            "folder with `--to`"
        )


def _pretrain(
    recipe: Recipe, data: DataRecipe, folder: Path, *, console: Console, stop: Stop
) -> _Baseline:
    """Make the run whose weights all trials start from, and measure it."""
    changed = recipe.model_copy(update={"data": data})
    plain = pretraining_alone(changed, name=f"{recipe.name} pretrained")
    _make(plain, folder, console=console, stop=stop)
    card = load_run(folder).card
    return _Baseline(folder, card.quality["validation"]["accuracy"], card.data_fingerprint)


def _make(recipe: Recipe, folder: Path, *, console: Console, stop: Stop) -> None:
    """Train a run, as far as it is not done."""
    if (folder / CARD).exists():
        return
    if (folder / RECIPE).exists():
        resume(folder, console=console, stop=stop)
    else:
        fit(recipe, folder, console=console, stop=stop)


def _open_study(path: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(
        study_name="tuning", storage=storage, direction="maximize", load_if_exists=True
    )
    # What an interruption left open is asked for again, with the same answer.
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _trial(
    tuning: Tuning, folder: Path, study: optuna.Study, number: int, data: DataRecipe,
    baseline: _Baseline, console: Console, stop: Stop,
) -> Outcome:  # fmt: skip
    """Ask for values, train with them, measure and tell."""
    # A sampler of its own for each trial: what it draws depends on the trials before, not on
    # whether they were made in this process.
    seed = int(seed_sequence(tuning.seed, "tuning", number).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    trial = study.ask({item.key: item.distribution() for item in tuning.space})
    run = folder / TRIALS / f"{number:04d}"
    outcome = _measure(tuning, trial.params, number, run, data, baseline, console, stop)
    trial.set_constraint(
        "accuracy", 0.0 if outcome.feasible else _shortfall(outcome, tuning, baseline)
    )
    trial.set_user_attr("outcome", asdict(outcome))
    study.tell(trial, outcome.auroc)
    shutil.rmtree(run, ignore_errors=True)
    return outcome


def _shortfall(outcome: Outcome, tuning: Tuning, baseline: _Baseline) -> float:
    """Return by how much the accuracy is below the floor, above 0."""
    return max(_ROUNDING, baseline.accuracy + tuning.accuracy_floor - outcome.accuracy)


def _measure(
    tuning: Tuning, values: dict[str, Any], number: int, run: Path, data: DataRecipe,
    baseline: _Baseline, console: Console, stop: Stop,
) -> Outcome:  # fmt: skip
    recipe = tuning.recipe(values)
    recipe = recipe.model_copy(
        update={
            "data": data,
            "pretrain": recipe.pretrain.model_copy(update={"from_run": str(baseline.folder)}),
        }
    )
    try:
        _make(recipe, run, console=console, stop=stop)
        trained = load_run(run)
        if trained.fingerprint != baseline.fingerprint:
            raise DataError(
                f"the images in `{data.root}` changed during the search; start a new one"
            )
        reached, by_kind = measure_run(trained, seed=tuning.seed)
    except (Diverged, NonFiniteScore) as error:
        return Outcome(number, values, 0.0, {}, 0.0, feasible=False, diverged=str(error))
    feasible = reached - baseline.accuracy >= tuning.accuracy_floor - _ROUNDING
    mean = float(np.mean(list(by_kind.values())))
    return Outcome(number, values, mean, by_kind, reached, feasible=feasible)


def measure_run(run: TrainedRun, *, seed: int) -> tuple[float, dict[str, float]]:
    """Return a run's validation accuracy, and its AUROC against each kind of outliers.

    Parameters
    ----------
    run : TrainedRun
        Its default score is measured.
    seed : int
        Of the outliers.

    Raises
    ------
    NonFiniteScore
        A score is NaN or infinite.
    """
    name = run.recipe.default_score
    scorers = run.scorers([name])
    images = open_splits(run.recipe.data, run.recipe.input).validation
    inside = score_source(run.model, images.source, run.input, scorers=scorers)
    reached = accuracy(inside.logits.argmax(axis=1), images.labels)
    by_kind = {}
    for kind in KINDS:
        outliers = ValidationOutliers(images.source, kind, seed)
        outside = score_source(run.model, outliers, run.input, scorers=scorers)
        by_kind[kind] = auroc(inside.scores[name], outside.scores[name])
    return reached, by_kind


def _outcomes(study: optuna.Study) -> list[Outcome]:
    told: list[FrozenTrial] = study.get_trials(states=(TrialState.COMPLETE,))
    return [Outcome(**trial.user_attrs["outcome"]) for trial in told]
