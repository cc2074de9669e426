"""What several commands print."""

from __future__ import annotations

from rich.table import Table

from oodserve.calibration import Calibration


def calibration_table(calibration: Calibration) -> Table:
    """Return a row for each score: its threshold and what it promises."""
    table = Table("score", "rule", "tau", "n", "k", "target TPR", "TPR at least", "decides")
    for name, score in calibration.scores.items():
        rule = score.rule if score.confidence is None else f"{score.rule} {score.confidence:g}"
        decides = "yes" if name == calibration.default_score else ""
        table.add_row(
            name, rule, f"{score.tau:.6g}", str(score.n), str(score.k),
            f"{score.target_tpr:g}", f"{score.tpr_lower:.4f}", decides,
        )  # fmt: skip
    return table
