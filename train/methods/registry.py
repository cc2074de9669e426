"""Which methods there are. A new one is a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Union

from pydantic import Field

from train.methods.ascood import Ascood, AscoodSettings
from train.methods.energy_oe import EnergyOe, EnergyOeSettings
from train.methods.ice import Ice, IceSettings
from train.methods.logit_mixing import LogitMixing, LogitMixingSettings
from train.methods.logit_mixoe import LogitMixoe, LogitMixoeSettings
from train.methods.logitnorm import Logitnorm, LogitnormSettings
from train.methods.method import Method, Settings
from train.methods.mixoe import Mixoe, MixoeSettings
from train.methods.mixup import Mixup, MixupSettings
from train.methods.oe import Oe, OeSettings
from train.methods.rotation import Rotation, RotationSettings
from train.methods.standard import Standard, StandardSettings


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
        "logitnorm": Registration(LogitnormSettings, Logitnorm),
        "mixup": Registration(MixupSettings, Mixup),
        "logit_mixing": Registration(LogitMixingSettings, LogitMixing),
        "oe": Registration(OeSettings, Oe),
        "energy_oe": Registration(EnergyOeSettings, EnergyOe),
        "mixoe": Registration(MixoeSettings, Mixoe),
        "logit_mixoe": Registration(LogitMixoeSettings, LogitMixoe),
        "ascood": Registration(AscoodSettings, Ascood),
        "ice": Registration(IceSettings, Ice),
        "rotation": Registration(RotationSettings, Rotation),
    }
)
"""Every method by its name."""

if TYPE_CHECKING:
    MethodSettings = Settings
else:
    _SETTINGS = tuple(registration.settings for registration in METHODS.values())
    MethodSettings = Annotated[Union[_SETTINGS], Field(discriminator="name")]  # noqa: UP007
"""A recipe's ``[method]`` table: ``name`` decides which other keys there may be."""


def build_method(settings: MethodSettings) -> Method:
    """Return the method that the settings describe."""
    return METHODS[settings.method_name].build(settings)
