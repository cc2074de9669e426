r"""Tables of figures, written as Markdown or as LaTeX with the rules of booktabs.

The best figure of each column is bold. Best is decided on what is printed: figures that print alike
are all bold, and where all of them do none is: no difference is suggested which the digits do not
show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from train.evaluation.seeds import Summary


@dataclass(frozen=True)
class Estimate:
    """A figure with the interval of its sampling."""

    value: float
    interval: tuple[float, float] | None


Cell = str | int | float | Estimate | Summary | None
"""Text, a count, a figure, one with an interval, one over seeds, or nothing: a dash."""

Better = Literal["larger", "smaller"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "\u2013": "--",
    "\u2014": "---",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≥": r"$\geq$",
}

BETTER: dict[str, Better] = {
    "accuracy": "larger",
    "auroc": "larger",
    "aupr_ood": "larger",
    "aupr_id": "larger",
    "ood_recall": "larger",
    "coverage": "larger",
    "fpr@95tpr_ood": "smaller",
    "ood_miss@95id": "smaller",
    "aurc": "smaller",
    "false_alarms": "smaller",
    "selective_risk": "smaller",
    "risk_with_ood": "smaller",
}
"""Which way each figure is better; ``aupr_ood@5:1`` is as ``aupr_ood``."""


def better(figure: str) -> Better | None:
    """Return which way a figure is better, or None for a name that is no figure.

    Examples
    --------
    >>> better("aupr_ood@5:1"), better("fpr@95tpr_ood"), better("images")
    ('larger', 'smaller', None)
    """
    if figure in BETTER:
        return BETTER[figure]
    return BETTER.get(figure.partition("@")[0])


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    title : str
    better : "larger", "smaller" or None
        None for a column in which nothing is best, such as one of names.
    scale : float
        Figures are multiplied by it to be printed; 100 for percent.
    digits : int
        After the decimal point. Counts, which are int, are printed as they are.
    """

    title: str
    better: Better | None = None
    scale: float = 100.0
    digits: int = 2

    @classmethod
    def of(cls, figure: str, *, digits: int = 2) -> Column:
        """Return the column of a figure, in percent."""
        return cls(title=figure, better=better(figure), digits=digits)


@dataclass(frozen=True)
class Table:
    """Columns and rows; every row has a cell for each column.

    Attributes
    ----------
    columns : tuple of Column
    rows : tuple of tuple of Cell
    caption : str
    within : int or None
        Number of the column whose text parts the rows: best is then best among the rows with the
        same text, such as that of one set of outliers. None: among all rows.

    Raises
    ------
    ValueError
        A row has more or fewer cells than there are columns.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    within: int | None = None

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} has {len(row)} cells for {len(self.columns)} columns"
                )

    def texts(self) -> list[list[tuple[str, bool]]]:
        """Return each row as (text, whether it is best in its column)."""
        return [
            [
                (_text(cell, column), self._is_best(row, number))
                for number, (cell, column) in enumerate(zip(row, self.columns, strict=True))
            ]
            for row in self.rows
        ]

    def _is_best(self, row: tuple[Cell, ...], number: int) -> bool:
        column = self.columns[number]
        rivals = [
            other
            for other in self.rows
            if self.within is None or other[self.within] == row[self.within]
        ]
        printed = [printed_value(other[number], column) for other in rivals]
        values = [value for value in printed if value is not None] or [0.0]
        if column.better is None or min(values) == max(values):
            return False
        best = max(values) if column.better == "larger" else min(values)
        return printed_value(row[number], column) == best


def to_markdown(table: Table) -> str:
    """Return a table of GitHub's Markdown, with a final newline; numbers are right-aligned."""
    lines = [f"**{escape_markdown(table.caption)}**", ""] if table.caption else []
    lines.append(_row([escape_markdown(column.title) for column in table.columns]))
    lines.append(
        "|" + "".join(" ---: |" if right else " --- |" for right in numeric_columns(table))
    )
    for row in table.texts():
        cells = [(escape_markdown(text), bold) for text, bold in row]
        lines += [_row([f"**{text}**" if bold else text for text, bold in cells])]
    return "\n".join(lines) + "\n"


def to_latex(table: Table, *, label: str = "") -> str:
    r"""Return a ``table`` environment; the document needs ``\usepackage{booktabs}``."""
    alignment = "".join("r" if right else "l" for right in numeric_columns(table))
    lines = [r"\begin{table}", r"\centering"]
    if table.caption:
        lines.append(rf"\caption{{{escape_latex(table.caption)}}}")
    if label:
        lines.append(rf"\label{{{label}}}")
    lines += [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    lines.append(_line([escape_latex(_arrowed(column)) for column in table.columns]))
    lines.append(r"\midrule")
    for row in table.texts():
        lines.append(
            _line(
                [
                    rf"\textbf{{{escape_latex(text)}}}" if bold else escape_latex(text)
                    for text, bold in row
                ]
            )
        )
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _text(cell: Cell, column: Column) -> str:
    def number(value: float) -> str:
        return f"{value * column.scale:.{column.digits}f}"

    if cell is None:
        return "\u2013"  # an en dash
    if isinstance(cell, str | int):
        return str(cell)
    if isinstance(cell, Summary):
        return number(cell.mean) + (f" ± {number(cell.sd)}" if cell.sd is not None else "")
    if isinstance(cell, Estimate):
        if cell.interval is None:
            return number(cell.value)
        low, high = cell.interval
        return f"{number(cell.value)} [{number(low)}, {number(high)}]"
    return number(cell)


def printed_value(cell: Cell, column: Column) -> float | None:
    """Return the figure with the digits that are printed; None for what is none."""
    value = cell.mean if isinstance(cell, Summary) else cell
    value = value.value if isinstance(value, Estimate) else value
    if value is None or isinstance(value, str):
        return None
    return value if isinstance(value, int) else round(value * column.scale, column.digits)


def numeric_columns(table: Table) -> list[bool]:
    """Return which columns have figures and no text."""
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    return [bool(cells) and not any(isinstance(cell, str) for cell in cells) for cells in columns]


def _arrowed(column: Column) -> str:
    arrows = {"larger": " ↑", "smaller": " ↓"}
    return column.title + (arrows[column.better] if column.better else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def escape_markdown(text: str) -> str:
    """Return text that GitHub's Markdown shows as it is, in one line."""
    quoted = re.sub(r"([\\|*`])", r"\\\1", text.replace("\n", " "))
    return quoted.replace("<", "&lt;")


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is, in one line."""
    replace: Callable[[re.Match[str]], str] = lambda found: _LATEX[found[0]]  # noqa: E731
    pattern = "|".join(map(re.escape, _LATEX))
    return re.sub(pattern, replace, text.replace("\n", " "))
