"""The report as one page of HTML that needs nothing but itself.

No request leaves the page: style and script are inline and named by their hashes in the policy, and
figures are data. So it can be mailed, archived, or opened from a disk.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from train.evaluation.document import Evaluation
from train.figures.style import to_png, to_svg
from train.report.tables import Cell, Table, numeric_columns, printed_value
from train.report.text import EXPLANATIONS, headline, intervals_note
from train.report.views import tables

_HERE = Path(__file__).parent

Kind = Literal["chart", "pictures"]
"""Lines and bars, which are inlined as SVG and turned dark with the page; or pixels, as PNG."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its words.

    Attributes
    ----------
    name : str
        Of its file and anchor.
    title : str
    caption : str
        What is to be seen, and how it was made.
    alternative : str
        For who cannot see it: what it shows, with the figures that matter.
    figure : Figure
    kind : "chart" or "pictures"
    """

    name: str
    title: str
    caption: str
    alternative: str
    figure: Figure
    kind: Kind = "chart"


def html_report(evaluation: Evaluation, pictures: Sequence[Picture]) -> str:
    """Return `report.html`.

    Parameters
    ----------
    evaluation : Evaluation
    pictures : sequence of Picture
        In their order.
    """
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        "default-src 'none'; img-src data:; "
        f"style-src '{_source(style)}'; script-src '{_source(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = f"Evaluation of {evaluation.run.name}"
    body = [
        f"<header><h1>{escape(title)}</h1>",
        f"<p>{escape(headline(evaluation))}</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in evaluation.notes),
        _cards(evaluation),
        "</header>",
        '<nav aria-label="Sections"><ul>'
        '<li><a href="#tables">Tables</a></li><li><a href="#figures">Figures</a></li>'
        '<li><a href="#meaning">What the figures mean</a></li></ul></nav>',
        '<main><section id="tables"><h2>Tables</h2>',
        f'<p class="soft">{escape(intervals_note(evaluation))}</p>',
        *(_table(table) for table in tables(evaluation)),
        "</section>",
        '<section id="figures"><h2>Figures</h2><div class="figures">',
        *(_picture(picture) for picture in pictures),
        "</div></section>",
        '<section id="meaning"><h2>What the figures mean</h2><dl>',
        *(f"<dt>{escape(name)}</dt><dd>{escape(what)}</dd>" for name, what in EXPLANATIONS.items()),
        "</dl></section></main>",
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            # An icon of its own, or the browser would ask for one.
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style></head><body>",
            *body,
            f"<script>{script}</script></body></html>\n",
        ]
    )


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"


def _cards(evaluation: Evaluation) -> str:
    score = evaluation.scores[0]
    low, high = evaluation.accuracy_interval
    cards = [("Accuracy", _percent(evaluation.accuracy), f"{_percent(low)} to {_percent(high)}")]
    for name in evaluation.ood_sets:
        item = evaluation.detection(name, score)
        low, high = item.intervals["auroc"]
        title = f"AUROC, {score}, {name}"
        cards.append((title, _percent(item.auroc), f"{_percent(low)} to {_percent(high)}"))
    made = evaluation.selective[0].at_tau
    if made is not None and made.false_alarms.value is not None:
        rate = made.false_alarms
        assert rate.value is not None
        cards.append(
            (f"False alarms at tau, {score}", _percent(rate.value), f"{rate.count} of {rate.total}")
        )
    items = "".join(
        f'<div><dt>{escape(title)}</dt><dd>{value}</dd><dd class="soft">{escape(more)}</dd></div>'
        for title, value, more in cards
    )
    return f'<dl class="cards">{items}</dl>'


def _table(table: Table) -> str:
    numbers = numeric_columns(table)
    classes = [' class="number"' if number else "" for number in numbers]
    heads = "".join(
        f'<th scope="col"{of}>{escape(column.title)}</th>'
        for column, of in zip(table.columns, classes, strict=True)
    )
    lines = []
    for row, texts in zip(table.rows, table.texts(), strict=True):
        cells = (
            f'<td{of} data-value="{escape(_key(cell, number, table), quote=True)}">'
            f"{_shown(text, is_best)}</td>"
            for number, (cell, (text, is_best), of) in enumerate(
                zip(row, texts, classes, strict=True)
            )
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    label = escape(table.caption, quote=True)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table><caption>{escape(table.caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _key(cell: Cell, number: int, table: Table) -> str:
    """Return what a cell is sorted by; nothing where there is nothing."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    return repr(printed_value(cell, table.columns[number]))


def _shown(text: str, is_best: bool) -> str:
    value, bracket, rest = text.partition(" [")
    shown = escape(value)
    if is_best:
        shown = f"<strong>{shown}</strong>"
    return f"{shown} <span>[{escape(rest)}</span>" if bracket else shown


def _picture(picture: Picture) -> str:
    if picture.kind == "chart":
        kind, data = "svg+xml", to_svg(picture.figure)
    else:
        kind, data = "png", to_png(picture.figure)
    width, height = (round(96 * inches) for inches in picture.figure.get_size_inches())
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    wide = "" if picture.kind == "chart" else ' class="wide"'
    return (
        f'<figure{wide} id="{escape(picture.name, quote=True)}">'
        f'<img class="{picture.kind}" src="{source}" width="{width}" height="{height}" '
        f'alt="{escape(picture.alternative, quote=True)}">'
        f"<figcaption><b>{escape(picture.title)}.</b> {escape(picture.caption)}</figcaption>"
        "</figure>"
    )


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
