"""What an evaluation is asked for, and how the command line writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oodserve.calibration import Rule
from oodserve.errors import ConfigurationError

BASE_RATES = ("5:1",)
"""In-distribution to out-of-distribution images, as in the literature on outlier exposure."""

CONFIDENCE = 0.95
"""Of every interval, two-sided."""

RESAMPLES = 1000


@dataclass(frozen=True)
class EvaluationSettings:
    """What to evaluate beside the run's own test images and out-of-distribution sets.

    Attributes
    ----------
    ood : mapping of str to Path
        Further out-of-distribution sets: name to folder of images.
    scores : tuple of str, or None
        Scores to evaluate; None for those of the recipe.
    base_rates : tuple of str
        ID:OOD proportions at which average precision is reported too, such as ``5:1``.
    groups : mapping of str to tuple of str
        Group name, such as ``near``, to the sets whose mean is reported.
    rule, target_tpr, rule_confidence
        How tau is taken from the calibration images; see `oodserve.calibration`.
    resamples : int
        Of the bootstrap.

    Raises
    ------
    ConfigurationError
        A base rate, `target_tpr`, `rule_confidence` or `resamples` cannot be right.
    """

    ood: Mapping[str, Path] = field(default_factory=dict)
    scores: tuple[str, ...] | None = None
    base_rates: tuple[str, ...] = BASE_RATES
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rule: Rule = "pac"
    target_tpr: float = 0.95
    rule_confidence: float = 0.95
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        for text in self.base_rates:
            parse_base_rate(text)
        for name in ("target_tpr", "rule_confidence"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ConfigurationError(
                    f"`{name}` = {value!r} is not strictly between 0 and 1; give a share such as "
                    "0.95"
                )
        if self.resamples < 1:
            raise ConfigurationError(
                f"`resamples` = {self.resamples} leaves nothing to take intervals from; give 1 or "
                f"more, such as {RESAMPLES}"
            )


def parse_base_rate(text: str) -> float:
    """Return the in-distribution images for each outlier of a text such as ``5:1``.

    Raises
    ------
    ConfigurationError
        It is not two positive numbers with a colon between.

    Examples
    --------
    >>> parse_base_rate("5:1"), parse_base_rate("1:2")
    (5.0, 0.5)
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?):(\d{1,9}(?:\.\d{1,9})?)", text)
    inside, outside = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if inside <= 0 or outside <= 0:
        raise ConfigurationError(
            f"the base rate `{text}` is not ID:OOD; expected two positive numbers such as `5:1`"
        )
    return inside / outside


def parse_ood_sets(texts: Sequence[str]) -> dict[str, Path]:
    """Return the sets of texts such as ``textures=data/dtd``.

    Raises
    ------
    ConfigurationError
        A text is not NAME=FOLDER, or a name is given twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, folder = _split(text, "the out-of-distribution set", "NAME=FOLDER")
        if name in found:
            raise ConfigurationError(
                f"two out-of-distribution sets are named `{name}`; give each a name of its own"
            )
        found[name] = Path(folder)
    return found


def parse_groups(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the groups of texts such as ``far=textures,noise``; a repeated name adds to it.

    Raises
    ------
    ConfigurationError
        A text is not GROUP=SET[,SET...].
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, members = _split(text, "the group", "GROUP=SET[,SET...]")
        sets = tuple(member.strip() for member in members.split(","))
        if not all(sets):
            raise ConfigurationError(
                f"the group `{text}` has an empty member; expected GROUP=SET[,SET...]"
            )
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *sets)))
    return found


def _split(text: str, what: str, form: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not re.fullmatch(r"[\w][\w .-]*", name) or not value:
        raise ConfigurationError(
            f"{what} `{text}` is not {form}; the name has letters, digits, `_`, `-` or `.`"
        )
    return name, value
