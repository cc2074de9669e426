"""What is installed, and under which names."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROGRAMS = {"train", "export", "server", "demo"}


def test_the_wheel_holds_the_library_alone() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["oodserve"]


def test_nothing_installed_owns_the_names_of_our_programs() -> None:
    owners = importlib.metadata.packages_distributions()
    assert {name: owners[name] for name in PROGRAMS & set(owners)} == {}


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    pinned = {
        _normal(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    extras = PROJECT["project"]["optional-dependencies"]
    # One of cpu and gpu is installed, triton by choice; the tested set has `cpu`.
    tested = {name: wanted for name, wanted in extras.items() if name not in {"gpu", "triton"}}
    declared = [*PROJECT["project"]["dependencies"], *itertools.chain(*tested.values())]
    names = {_normal(re.split(r"[\[<>=;~! ]", requirement)[0]) for requirement in declared}
    assert names - pinned == set()


def test_the_tested_torch_is_the_one_that_make_installs() -> None:
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text()
    assert "torch==2.13.0" in (ROOT / "Makefile").read_text()


def test_the_version_is_stated_once_for_all() -> None:
    source = (ROOT / "oodserve" / "__init__.py").read_text()
    assert f'__version__ = "{PROJECT["project"]["version"]}"' in source


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
