"""Tables: what is bold, what is escaped, Markdown and LaTeX that other programs would take."""

from __future__ import annotations

import re

import pytest

from tests.reported import make_evaluation
from train.evaluation.seeds import summarise
from train.report.tables import Column, Estimate, Table, better, to_latex, to_markdown
from train.report.text import EXPLANATIONS, latex_report, markdown_report
from train.report.views import detection_table, tables

COLUMNS = (Column("method"), Column.of("auroc"), Column.of("fpr@95tpr_ood"))


def bold(table: Table) -> list[list[bool]]:
    return [[is_best for _, is_best in row] for row in table.texts()]


def test_the_best_of_each_column_is_bold_in_its_direction() -> None:
    table = Table(COLUMNS, (("A", 0.9, 0.2), ("B", 0.95, 0.3), ("C", 0.8, 0.1)))
    assert bold(table) == [[False, False, False], [False, True, False], [False, False, True]]


def test_figures_that_print_alike_are_alike() -> None:
    table = Table(COLUMNS, (("A", 0.90001, 0.1), ("B", 0.90004, 0.1), ("C", 0.8, 0.1)))
    assert [row[1] for row in bold(table)] == [True, True, False]
    assert not any(row[2] for row in bold(table))  # all the same: none is best


def test_a_single_row_and_missing_cells_have_no_best() -> None:
    assert bold(Table(COLUMNS, (("A", 0.9, 0.2),))) == [[False, False, False]]
    table = Table(COLUMNS, (("A", None, 0.2), ("B", None, 0.1)))
    assert bold(table) == [[False, False, False], [False, False, True]]
    assert "\u2013" in to_markdown(table)


def test_best_within_parts_of_the_table() -> None:
    rows = (("near", 0.7, 0.1), ("near", 0.8, 0.1), ("far", 0.9, 0.1), ("far", 0.99, 0.1))
    table = Table(COLUMNS, rows, within=0)
    assert [row[1] for row in bold(table)] == [False, True, False, True]


def test_spreads_intervals_and_counts_are_printed() -> None:
    columns = (Column("n"), Column.of("auroc"), Column.of("auroc", digits=1))
    made = summarise([0.90, 0.92, 0.97])
    table = Table(columns, ((7, made, Estimate(0.5, (0.4, 0.65))), (8, summarise([0.5]), 0.25)))
    texts = [[text for text, _ in row] for row in table.texts()]
    # sd: sqrt((0.03^2 + 0.01^2 + 0.04^2) / 2) = 0.03606.
    assert texts == [["7", "93.00 ± 3.61", "50.0 [40.0, 65.0]"], ["8", "50.00", "25.0"]]
    assert Table(columns, ((1, Estimate(0.5, None), None),)).texts()[0][1][0] == "50.00"


def test_rows_have_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="row 2 has 1 cells for 3 columns"):
        Table(COLUMNS, (("A", 0.9, 0.2), ("B",)))


@pytest.mark.parametrize(
    ("name", "way"),
    [("auroc", "larger"), ("aupr_id@5:1", "larger"), ("ood_miss@95id", "smaller"), ("k", None)],
)
def test_which_way_a_figure_is_better(name: str, way: str | None) -> None:
    assert better(name) == way


def test_markdown_is_a_table_of_as_many_cells() -> None:
    table = Table(COLUMNS, (("A | B *x* <b>", 0.9, 0.2), ("C", 0.8, 0.3)), caption="Best | of")
    lines = to_markdown(table).splitlines()
    assert lines[0] == "**Best \\| of**"
    assert lines[3] == "| --- | ---: | ---: |"
    assert lines[4] == "| A \\| B \\*x\\* &lt;b> | **90.00** | **20.00** |"
    for line in lines[2:]:
        assert len(re.split(r"(?<!\\)\|", line)) == 5


def test_latex_has_the_rules_of_booktabs_and_no_active_characters() -> None:
    table = Table(
        COLUMNS, ((r"a_b & 5% $x$ #1 {y} ~ ^ \z", 0.9, 0.2), ("C", 0.8, 0.3)), caption="50 %_"
    )
    text = to_latex(table, label="tab:x")
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:x}", r"\caption{50 \%\_}"):
        assert text.count(rule) == 1
    assert r"a\_b \& 5\% \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{}" in text
    assert r"\textbackslash{}z" in text
    assert r"\textbf{90.00}" in text
    assert r"\begin{tabular}{lrr}" in text
    assert r"auroc $\uparrow$" in text
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 2
    assert text.isascii()


def test_a_spread_is_printed_in_math() -> None:
    table = Table(COLUMNS, (("A", summarise([0.9, 0.8]), None),))
    assert r"85.00 $\pm$ 7.07 & --" in to_latex(table)


def test_reports_hold_every_figure_of_the_evaluation() -> None:
    evaluation = make_evaluation(name="a_b | <i>")
    markdown, latex = markdown_report(evaluation), latex_report(evaluation)
    assert markdown.startswith("# Evaluation of a_b \\| &lt;i>\n")
    item = evaluation.detection("far", "msp")
    low, high = item.intervals["auroc"]
    cell = f"{100 * item.auroc:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    for text in (markdown, latex):
        assert cell in text
        assert f"{100 * evaluation.accuracy:.2f}" in text
    assert latex.count(r"\begin{table}") == len(tables(evaluation)) == 6
    assert all(f"`{name}`" in markdown for name in EXPLANATIONS)
    assert all(line.startswith("%") for line in latex.split("\n\n")[0].splitlines())


def test_only_what_is_known_has_a_table() -> None:
    evaluation = make_evaluation(calibration=10)
    assert len(tables(evaluation)) == 4
    assert "Note: no figures at tau" in markdown_report(evaluation)


def test_the_short_table_has_the_interval_of_the_auroc_alone() -> None:
    (row, *_) = detection_table(make_evaluation()).texts()
    assert [("[" in text) for text, _ in row] == [False] * 3 + [True] + [False] * 4
