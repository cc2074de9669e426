"""The figures of a comparison: every value as JSON, tables as Markdown and LaTeX."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from oodserve.errors import DataError
from train.checkpoint import replace_text
from train.comparison.plan import Plan
from train.evaluation.document import Evaluation, read_evaluation
from train.evaluation.seeds import Summary, over_seeds, summarise
from train.figures.comparison import method_dots, score_grid
from train.figures.style import save_png
from train.report.tables import Cell, Column, Table, to_latex, to_markdown

DOCUMENT, MARKDOWN, LATEX = "comparison.json", "comparison.md", "comparison.tex"

FORMAT_VERSION = 2

SHOWN = ("auroc", "fpr@95tpr_ood")
"""Figures that the tables show, a table for each on each out-of-distribution set."""


SUMMARISED = 2
"""Scores, the first ones that every method has, for which there is a summary."""


@dataclass(frozen=True)
class Compared:
    """Evaluations of several methods over several seeds.

    Attributes
    ----------
    evaluations : mapping of str to tuple of Evaluation
        Method's title to one evaluation for each seed.
    scores, ood_sets : tuple of str
        What the tables show, in order.
    """

    evaluations: Mapping[str, tuple[Evaluation, ...]]
    scores: tuple[str, ...]
    ood_sets: tuple[str, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the first method."""
        return tuple(item.run.seed for item in next(iter(self.evaluations.values())))

    def accuracy(self, title: str) -> Summary:
        """Return a method's accuracy over its seeds."""
        return summarise([item.accuracy for item in self.evaluations[title]])

    def has(self, title: str, score: str) -> bool:
        """Return whether a method was evaluated by a score, with every seed."""
        return all(score in item.scores for item in self.evaluations[title])

    def figures(self, title: str, score: str, ood_set: str) -> dict[str, Summary]:
        """Return a method's figures over its seeds, by one score on one set."""
        return over_seeds(self.evaluations[title], score=score, ood_sets=[ood_set])

    def figure(self, title: str, score: str, ood_set: str, name: str) -> Summary | None:
        """Return one of `figures`, or None where the method was not evaluated by the score."""
        return self.figures(title, score, ood_set)[name] if self.has(title, score) else None

    def best(self, title: str, ood_set: str, figure: str = "auroc") -> tuple[str, Summary]:
        """Return the score with the largest mean of a figure, and that figure."""
        each = {
            score: self.figures(title, score, ood_set)[figure]
            for score in self.scores
            if self.has(title, score)
        }
        return max(each.items(), key=lambda item: item[1].mean)


def collect(plan: Plan) -> Compared:
    """Read the evaluations of a comparison whose runs are all made.

    Raises
    ------
    DataError
        One is missing or damaged, or lacks a score or an out-of-distribution set.
    """
    comparison = plan.comparison
    evaluations = {
        variant.title: tuple(
            _evaluation_of(plan.folder_of(variant, seed)) for seed in comparison.seeds
        )
        for variant in comparison.variants
    }
    return _checked(Compared(evaluations, plan.scores, comparison.ood_sets))


def collect_runs(folders: Sequence[Path]) -> Compared:
    """Read the evaluations of run folders; runs of one name and method are its seeds.

    Raises
    ------
    DataError
        One is missing or damaged, two have the same seed, or the runs have no
        out-of-distribution set in common.
    """
    grouped: dict[str, list[Evaluation]] = {}
    for folder in folders:
        evaluation = _evaluation_of(folder)
        grouped.setdefault(f"{evaluation.run.name}: {evaluation.run.method}", []).append(evaluation)
    everything = [item for items in grouped.values() for item in items]
    scores = tuple(dict.fromkeys(score for item in everything for score in item.scores))
    ood_sets = _shared([item.ood_sets for item in everything])
    return _checked(
        Compared({title: tuple(items) for title, items in grouped.items()}, scores, ood_sets)
    )


def write(compared: Compared, folder: Path) -> None:
    """Write `comparison.json`, `comparison.md` and `comparison.tex`."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = tables_of(compared)
    replace_text(folder / DOCUMENT, to_json(compared))
    replace_text(folder / MARKDOWN, as_markdown(compared))
    replace_text(folder / LATEX, "\n".join(to_latex(table) for table in tables))


def draw(compared: Compared, folder: Path, *, score: str) -> list[Path]:
    """Draw the methods beside each other, and for each set all methods by all scores.

    Returns
    -------
    list of Path
        `comparison.png`, and `comparison_SET.png` for each out-of-distribution set.
    """
    titles = list(compared.evaluations)
    dots = method_dots(
        {
            name: {
                title: [item.detection(name, score).auroc for item in compared.evaluations[title]]
                for title in titles
            }
            for name in compared.ood_sets
        },
        {
            name: {
                title: (best[0], best[1].mean)
                for title in titles
                for best in [compared.best(title, name)]
            }
            for name in compared.ood_sets
        },
        score=score,
    )
    paths = [save_png(dots, folder / "comparison.png")]
    for name in compared.ood_sets:
        found = [
            [compared.figure(title, each, name, "auroc") for each in compared.scores]
            for title in titles
        ]
        means = [[math.nan if one is None else one.mean for one in row] for row in found]
        grid = score_grid(means, methods=titles, scores=compared.scores, title=name)
        paths.append(save_png(grid, folder / f"comparison_{name}.png"))
    return paths


def as_markdown(compared: Compared) -> str:
    """Return all tables as one Markdown page."""
    seeds = ", ".join(str(seed) for seed in compared.seeds)
    spread = "mean ± sample standard deviation" if len(compared.seeds) > 1 else "values"
    parts = [to_markdown(table) for table in tables_of(compared)]
    note = f"In percent; {spread} over the seeds {seeds}. Best of each column in bold.\n"
    return "\n".join([*parts, note])


def tables_of(compared: Compared) -> list[Table]:
    """Return the tables: a summary, then for each set each of `SHOWN`, methods by scores."""
    titles = list(compared.evaluations)
    shared = [
        score for score in compared.scores if all(compared.has(title, score) for title in titles)
    ]
    return [
        *(summary_table(compared, score=score) for score in shared[:SUMMARISED]),
        *(_table(compared, ood_set, figure) for ood_set in compared.ood_sets for figure in SHOWN),
    ]


def summary_table(compared: Compared, *, score: str) -> Table:
    """Return one table with accuracy and, for each set, AUROC by one score."""
    columns = (Column("method"), Column.of("accuracy"), *map(_auroc_column, compared.ood_sets))
    rows = tuple(
        (
            title,
            compared.accuracy(title),
            *(compared.figure(title, score, name, "auroc") for name in compared.ood_sets),
        )
        for title in compared.evaluations
    )
    return Table(columns, rows, caption=f"AUROC by {score}")


def to_json(compared: Compared) -> str:
    """Return every value, one per seed, as JSON."""
    document = {
        "format_version": FORMAT_VERSION,
        "seeds": list(compared.seeds),
        "ood_sets": list(compared.ood_sets),
        "scores": list(compared.scores),
        "methods": [_method(compared, title) for title in compared.evaluations],
    }
    return json.dumps(document, indent=1) + "\n"


def _evaluation_of(run: Path) -> Evaluation:
    evaluation = read_evaluation(run)
    if evaluation is None:
        raise DataError(
            f"the run `{run}` has not been evaluated; use `python -m train evaluate {run}`"
        )
    return evaluation


def _method(compared: Compared, title: str) -> dict[str, Any]:
    evaluations = compared.evaluations[title]
    rows = []
    for ood_set in compared.ood_sets:
        for score in filter(partial(compared.has, title), compared.scores):
            each = [item.detection(ood_set, score).figures() for item in evaluations]
            rows.append(
                {"ood_set": ood_set, "score": score}
                | {name: [figures[name] for figures in each] for name in each[0]}
            )
    return {
        "method": title,
        "accuracy": [item.accuracy for item in evaluations],
        "detections": rows,
    }


def _table(compared: Compared, ood_set: str, figure: str) -> Table:
    columns = [Column("method"), Column.of("accuracy")]
    direction = Column.of(figure).better
    columns += [Column(score, better=direction) for score in compared.scores]
    rows = []
    for title in compared.evaluations:
        cells: list[Cell] = [title, compared.accuracy(title)]
        cells += [compared.figure(title, score, ood_set, figure) for score in compared.scores]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows), caption=f"{figure} on {ood_set}")


def _auroc_column(ood_set: str) -> Column:
    return Column(ood_set, better="larger")


def _shared(lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    shared = tuple(name for name in lists[0] if all(name in names for names in lists))
    if not shared:
        raise DataError(
            "the runs have no out-of-distribution set in common: "
            f"{[list(names) for names in lists]}"
        )
    return shared


def _checked(compared: Compared) -> Compared:
    """Return the argument if everything that the tables show is there."""
    for title, evaluations in compared.evaluations.items():
        for item in evaluations:
            missing = [name for name in compared.ood_sets if name not in item.ood_sets]
            if missing:
                raise DataError(
                    f"there is no out-of-distribution set `{missing[0]}` in the evaluation of "
                    f"{title}; its sets: {', '.join(item.ood_sets)}"
                )
    return compared
