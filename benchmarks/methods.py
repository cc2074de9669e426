"""The tables of methods and scores: train what is missing, tabulate, and keep the results.

python -m benchmarks.methods train/presets/plumage_methods.toml --jobs 2

Runs go to `runs/NAME`, are cached there, and go on where they were interrupted. The tables, figures
and every value are copied to `benchmarks/results/`, with the commit and the machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import describe

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Make the tables, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path, metavar="COMPARISON.toml")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    arguments = parser.parse_args()
    name = arguments.comparison.stem
    folder = Path("runs") / name
    command = [
        sys.executable, "-m", "train", "compare", str(arguments.comparison),
        "--to", str(folder), "--jobs", str(arguments.jobs),
    ]  # fmt: skip
    code = subprocess.run(command, check=False).returncode
    if code:
        return code
    keep(folder, name)
    return 0


def keep(folder: Path, name: str) -> None:
    """Copy tables and figures to the results, with what they were made on."""
    RESULTS.mkdir(exist_ok=True)
    table = (folder / "comparison.md").read_text(encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(f"{table}\n{describe()}\n", encoding="utf-8")
    shutil.copyfile(folder / "comparison.json", RESULTS / f"{name}.json")
    shutil.copyfile(folder / "comparison.tex", RESULTS / f"{name}.tex")
    for figure in sorted(folder.glob("comparison*.png")):
        shutil.copyfile(figure, RESULTS / figure.name.replace("comparison", name))


if __name__ == "__main__":
    sys.exit(main())
