"""Which methods there are. A new one is a file of its own and one line in each table here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Protocol

from pydantic import Field

from train.methods.ascood import Ascood, AscoodSettings
from train.methods.logit_mixoe import LogitMixoe, LogitMixoeSettings
from train.methods.method import Method, Settings
from train.methods.mixoe import Mixoe, MixoeSettings
from train.methods.standard import Standard, StandardSettings

MethodSettings = Annotated[
    StandardSettings | MixoeSettings | LogitMixoeSettings | AscoodSettings,
    Field(discriminator="name"),
]
"""A recipe's ``[method]`` table: ``name`` decides which other keys there may be."""


class Build(Protocol):
    """Make the method that its settings describe."""

    def __call__(self, settings: Any, /) -> Method:
        """Return the method; the settings are of the class it is registered with."""


@dataclass(frozen=True)
class Registration:
    """A method's settings and what they build."""

    settings: type[Settings]
    build: Build


METHODS: Mapping[str, Registration] = MappingProxyType(
    {
        "standard": Registration(StandardSettings, Standard),
        "mixoe": Registration(MixoeSettings, Mixoe),
        "logit_mixoe": Registration(LogitMixoeSettings, LogitMixoe),
        "ascood": Registration(AscoodSettings, Ascood),
    }
)
"""Every method by its name."""


def build_method(settings: MethodSettings) -> Method:
    """Return the method that the settings describe."""
    return METHODS[settings.name].build(settings)
