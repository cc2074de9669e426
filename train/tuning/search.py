"""Search spaces: which keys of a recipe are varied, and over what."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from oodserve.errors import RecipeError

SEARCHED = ("method", "finetune", "synthesis")
"""Tables that may be searched: what comes after pretraining, which all trials share."""

_FORMS = "uniform:LOW:HIGH, log:LOW:HIGH, integer:LOW:HIGH or choice:A,B,..."


@dataclass(frozen=True)
class Dimension:
    """One key of a recipe and the values it may take.

    Attributes
    ----------
    key : str
        Such as ``method.mix_alpha``.
    rule : str
        Such as ``log:0.1:10``.
    """

    key: str
    rule: str

    def distribution(self) -> BaseDistribution:
        """Return what values are drawn from; both ends of a range belong to it.

        Raises
        ------
        RecipeError
            The rule has another form, or its range is empty.
        """
        kind, _, rest = self.rule.partition(":")
        if kind == "choice" and rest:
            return CategoricalDistribution([part.strip() for part in rest.split(",")])
        parts = rest.split(":")
        if kind in ("uniform", "log", "integer") and len(parts) == 2:
            bounds = [_number(part) for part in parts]
            low, high = bounds
            whole = all(bound.is_integer() for bound in bounds)
            if math.isfinite(low) and low < high < math.inf and (kind != "log" or low > 0):
                if kind == "integer" and whole:
                    return IntDistribution(int(low), int(high))
                if kind != "integer":
                    return FloatDistribution(low, high, log=kind == "log")
        raise RecipeError(
            f"`{self.key}` = {self.rule!r} is no range; expected {_FORMS}, with finite LOW < HIGH, "
            "whole numbers for integer, and LOW above 0 for log"
        )


def load_search(path: Path | None, given: Sequence[str] = ()) -> tuple[Dimension, ...]:
    """Return a search space from a file and from the command line; the latter replaces keys.

    Parameters
    ----------
    path : Path or None
        TOML with the tables and keys of a recipe and a rule as each value.
    given : sequence of str
        Each ``KEY.PATH=RULE``.

    Returns
    -------
    tuple of Dimension
        By key.

    Raises
    ------
    RecipeError
        The file cannot be read, a rule is malformed, a key is in no table of `SEARCHED`, or there
        is no key at all.
    """
    rules = {} if path is None else _flatten(_read(path))
    for text in given:
        key, equals, rule = text.partition("=")
        if not equals:
            raise RecipeError(
                f"the search `{text}` is not of the form KEY.PATH=RULE, such as "
                "method.mix_alpha=log:0.1:10"
            )
        rules[key.strip()] = rule.strip()
    if not rules:
        raise RecipeError(
            "there is nothing to search; give `--search KEY.PATH=RULE`, or a file with "
            "`--search-file`"
        )
    space = tuple(Dimension(key, rules[key]) for key in sorted(rules))
    for dimension in space:
        table, dot, _ = dimension.key.partition(".")
        if table not in SEARCHED or not dot:
            raise RecipeError(
                f"`{dimension.key}` cannot be searched: all trials share data, model and "
                f"pretraining; keys of {', '.join(SEARCHED)} can"
            )
        dimension.distribution()
    return space


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the search space `{path}` ({error})") from error
    except ValueError as error:
        raise RecipeError(f"the search space `{path}` is not TOML: {error}") from error


def _flatten(tables: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    rules: dict[str, str] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            rules |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            rules[prefix + key] = value
        else:
            raise RecipeError(f"`{prefix}{key}` = {value!r} is no range; expected {_FORMS}")
    return rules


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
