"""Recipes: everything that decides a training run, in one TOML file that rejects what it ignores.

A table of the file is a class below, a key is one of its attributes, and the attribute's docstring
is the key's reference. `to_toml` writes the effective recipe, defaults included; it reads back
equal.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from oodserve.bundle import InputSpec
from oodserve.errors import RecipeError
from oodserve.images import Preprocessing
from oodserve.schema import Document
from train.faults import explain
from train.methods.registry import MethodSettings
from train.methods.synthesis.settings import SynthesisSettings
from train.networks.norms import FeatureNorm
from train.scorers.registry import SCORERS, ScorerTables, knobs_of

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
PositiveShare = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the range {list(bounds)} runs backwards; state the smaller value first")
    return bounds


AugmentPlace = Literal["host", "device"]
"""Who augments: the processes that read, or the device that trains."""

Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""Smallest and largest value that is drawn."""
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
"""The same, of values above 0."""

PROCEDURAL = "procedural"
"""Value of `data.outliers` that stands for `train.data.procedural`."""

SYNTHESISED = "synthesised"
"""Value of `data.outliers` that stands for `train.methods.synthesis`."""


class DataRecipe(Document):
    """``[data]``: where the images are and which of them are for what."""

    root: str
    """Folder of the data: either ``train/CLASS/*`` with ``test/CLASS/*`` and, where they exist,
    ``validation``, ``calibration`` and ``ood/NAME``, or plainly ``CLASS/*``."""
    held_out: tuple[str, ...] = ()
    """Classes to leave out of training; their test images measure out-of-distribution detection."""
    validation_fraction: PositiveShare = 0.1
    """Share of each class that training is watched on; only where the tree has no such split. Drawn
    from ``train/``, or from all images of a plain tree."""
    calibration_fraction: Share = 0.2
    """Share of each class kept for the threshold, drawn likewise; 0 for no calibration split."""
    test_fraction: PositiveShare = 0.2
    """Share of each class kept for the figures; only in a plain tree."""
    outliers: str = ""
    """Images of none of the classes to train with: a folder, ``procedural`` for generated pictures,
    ``synthesised`` for ones made from each batch by ``[synthesis]``, or empty for none."""
    outlier_count: Count = 4096
    """Number of different procedural pictures."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the splits and of the procedural pictures; `Recipe.seed` does not move either."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that read and augment; 0 does so in this one. Results do not depend on it."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        taken = self.validation_fraction + self.calibration_fraction + self.test_fraction
        if taken >= 1:
            raise ValueError(
                f"the fractions for validation, calibration and test add up to {taken:g}; "
                "leave a part for training"
            )
        return self


class InputRecipe(Preprocessing):
    """``[input]``: what the model takes. Stated by each recipe, since serving repeats it."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB mean of pixel values in [0, 1]; the default is ImageNet's."""
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    """RGB standard deviation in [0, 1]; the default is ImageNet's."""

    def spec(self) -> InputSpec:
        """Return the same as a part of a bundle's manifest."""
        values = {name: getattr(self, name) for name in Preprocessing.model_fields}
        return InputSpec(preprocessing=Preprocessing(**values), mean=self.mean, std=self.std)


class NoAugment(Document):
    """``[augment]`` with ``preset = "none"``: training sees what evaluation sees."""

    preset: Literal["none"] = "none"


class DigitsAugment(Document):
    """``[augment]`` for bright ink on a dark ground: from scanned digits to drawn ones.

    Lengths are shares of the picture's side, so they hold at any size.
    """

    preset: Literal["digits"] = "digits"
    rotation_degrees: NonNegative = 15.0
    """Largest rotation to either side."""
    scale: PositiveRange = (0.6, 1.15)
    """Size relative to the original, uniform."""
    aspect: Annotated[float, Field(ge=1)] = 1.4
    """Largest ratio by which width and height are stretched apart."""
    shear_degrees: NonNegative = 12.0
    """Largest slant to either side."""
    overhang: NonNegative = 0.04
    """How far the scaled picture may be shifted over the border, in sides; inside it may lie
    anywhere."""
    warp: NonNegative = 0.03
    """Standard deviation of the shift of the nine points of a coarse grid, in sides."""
    pen_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the pictures whose strokes are traced along their middle with a pen."""
    pen: Range = (0.0, 0.04)
    """Growth of those lines at each side, beyond two pixels; in sides of the picture."""
    ink_level: Range = (0.35, 0.6)
    """Brightness, as a share of full, that becomes the edge of the ink: the higher, the thinner."""
    ink_gain: PositiveRange = (1.0, 8.0)
    """Contrast at that edge, log-uniform: 1 keeps the greys of a scan, 8 is a pen's edge."""
    ink_probability: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of the other pictures whose ink is redrawn by `ink_level` and `ink_gain`."""
    thickness: Range = (-0.03, 0.015)
    """Growth of the ink of the other pictures at each side, in sides; negative erodes."""
    blur_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the pictures that are blurred by one pixel."""
    noise: NonNegative = 0.03
    """Largest standard deviation of added noise, of full brightness."""


class MixoeAugment(Document):
    """``[augment]`` of the MixOE papers: exact resize, random crop to the input, flip, colour."""

    preset: Literal["mixoe"] = "mixoe"
    resize: Count = 512
    """Side in pixels that the image is scaled to, whatever its aspect ratio."""
    flip_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the images that are mirrored."""
    brightness: NonNegative = 32 / 255
    """Largest relative change of brightness."""
    saturation: NonNegative = 0.5
    """Largest relative change of saturation."""
    where: AugmentPlace = "host"
    """``device`` augments where the model trains, and workers only decode."""


class AscoodAugment(Document):
    """``[augment]`` of the ASCOOD paper: a random part, scaled to the input, and a flip."""

    preset: Literal["ascood"] = "ascood"
    area: PositiveRange = (0.08, 1.0)
    """Share of the image's area that the part has."""
    aspect: PositiveRange = (3 / 4, 4 / 3)
    """Width to height of the part, log-uniform."""
    flip_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the images that are mirrored."""
    where: AugmentPlace = "host"
    """``device`` augments where the model trains, and workers only decode."""


AugmentRecipe = Annotated[
    NoAugment | DigitsAugment | MixoeAugment | AscoodAugment, Field(discriminator="preset")
]
"""A recipe's ``[augment]`` table: ``preset`` decides which other keys there may be."""


class ModelRecipe(Document):
    """``[model]``: the network and where its weights start."""

    architecture: Literal["resnet18", "resnet34", "resnet50"] = "resnet50"
    stem: Literal["imagenet", "small"] = "imagenet"
    """``small`` is a 3x3 convolution of stride 1 without max-pooling, for inputs below 64 px."""
    weights: str = "none"
    """``none``, a name that torchvision knows (``IMAGENET1K_V1``), or a .safetensors or .pth
    file."""
    feature_norm: FeatureNorm = "none"
    """``zscore`` standardises each sample's features, as ASCOOD does; ``l2`` scales them to the
    same length and keeps their mean."""
    sigma: Positive = 0.5
    """Standard deviation of the features after ``zscore``."""


class StageRecipe(Document):
    """``[finetune]``: one stage of training by SGD with a per-step cosine schedule."""

    epochs: Annotated[int, Field(ge=0)]
    """Passes over the training images; 0 skips the stage."""
    batch_size: Count
    """Training images per step."""
    outlier_batch_size: Annotated[int, Field(ge=0)] = 0
    """Outlier images per step; 0 for as many as training images."""
    learning_rate: Positive
    """Learning rate of the first step."""
    weight_decay: NonNegative
    """L2 penalty of the optimiser."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    min_learning_rate: NonNegative = 1e-6
    """Learning rate at the end."""
    head_rate_factor: Positive = 1.0
    """Learning rate of the classifier on the features, as a multiple of the others'."""
    gradient_clip_norm: Positive | None = None
    """Largest norm of the gradient; without this key it is not clipped."""
    accumulate: Count = 1
    """Parts that each process takes its rows of a batch in, to save memory; the step is that of the
    whole batch, but for batch normalisation in training."""
    batch_norm: Literal["train", "frozen"] = "train"
    """``frozen`` normalises by the running statistics that the stage began with and keeps them;
    scale and shift still learn."""

    @model_validator(mode="after")
    def _optimiser_is_possible(self) -> Self:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"`min_learning_rate` = {self.min_learning_rate:g} is above "
                f"`learning_rate` = {self.learning_rate:g}; the schedule falls"
            )
        if self.nesterov and self.momentum == 0:
            raise ValueError("`nesterov` needs a `momentum` above 0; set `nesterov = false`")
        for key in ("batch_size", "outlier_batch_size"):
            if getattr(self, key) % self.accumulate:
                raise ValueError(
                    f"`{key}` = {getattr(self, key)} cannot be divided into `accumulate` = "
                    f"{self.accumulate} equal parts"
                )
        return self


class PretrainRecipe(StageRecipe):
    """``[pretrain]``: plain classification before the method starts."""

    from_run: str = ""
    """Run folder whose pretrained checkpoint is taken instead of training this stage."""


class Recipe(Document):
    """A whole recipe."""

    name: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of initial weights, order, augmentation and the method's draws."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Device to train on; ``auto`` takes a GPU where there is one."""
    compile: bool = False
    """Whether the backbone is compiled by `torch.compile`; needs a C++ compiler, or Triton."""
    scores: tuple[str, ...] = ("msp", "energy")
    """Out-of-distribution scores that are evaluated and exported, at most four."""
    default_score: str = "energy"
    """The one of them that decides, unless a request names another."""
    data: DataRecipe
    input: InputRecipe
    augment: AugmentRecipe = NoAugment()
    model: ModelRecipe
    pretrain: PretrainRecipe
    finetune: StageRecipe
    method: MethodSettings
    synthesis: SynthesisSettings = SynthesisSettings()
    scorers: ScorerTables = Field(default_factory=dict, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _state_the_knobs_of_chosen_scores(cls, data: Any) -> Any:
        """Give each score of the recipe its table, so that a run's recipe states every knob."""
        scores = data.get("scores", cls.model_fields["scores"].default)
        tables = data.get("scorers", {})
        if not isinstance(scores, list | tuple) or not isinstance(tables, dict):
            return data
        chosen: dict[str, Any] = {name: {} for name in scores if knobs_of(name)}
        return {**data, "scorers": {**chosen, **tables}}

    @model_validator(mode="after")
    def _scores_exist(self) -> Self:
        unknown = [score for score in self.scores if score not in SCORERS]
        if unknown:
            raise ValueError(
                f"`scores` names `{unknown[0]}`, which is unknown; known: {', '.join(SCORERS)}"
            )
        if not 1 <= len(set(self.scores)) == len(self.scores) <= 4:
            raise ValueError(f"`scores` = {list(self.scores)}: name one to four different scores")
        if self.default_score not in self.scores:
            raise ValueError(
                f"`default_score` = {self.default_score!r} is none of `scores` = "
                f"{list(self.scores)}"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.pretrain.epochs == self.finetune.epochs == 0 and not self.pretrain.from_run:
            raise ValueError("`pretrain.epochs` and `finetune.epochs` are both 0: nothing to train")
        method, name = self.method, self.method.method_name
        if method.needs_outliers and self.finetune.epochs and not self.data.outliers:
            raise ValueError(
                f"`method.name` = {name!r} trains with outliers, but `data.outliers` is empty; "
                f"give a folder, {PROCEDURAL!r} or {SYNTHESISED!r}"
            )
        outlier_batch = self.finetune.outlier_batch_size
        made_of_batch = method.needs_outliers and self.data.outliers == SYNTHESISED
        one_each = method.pairs_outliers or made_of_batch
        if one_each and outlier_batch not in (0, self.finetune.batch_size):
            raise ValueError(
                f"`method.name` = {name!r} pairs each image with one outlier, but "
                f"`finetune.outlier_batch_size` = {outlier_batch} is not "
                f"`finetune.batch_size` = {self.finetune.batch_size}; set it to 0"
            )
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides to it.

    Parameters
    ----------
    path : Path
        A TOML file.
    overrides : sequence of str
        Each ``key.path=value``, the value in TOML; what is not TOML is taken as a string, so
        ``data.root=images`` needs no quotes.

    Raises
    ------
    RecipeError
        The file cannot be read, or an unknown key (with the nearest known one), a missing key or a
        value that cannot be right (with what was expected).
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe `{path}` ({error})") from error
    except ValueError as error:
        raise RecipeError(f"the recipe `{path}` is not TOML: {error}") from error
    for override in overrides:
        _override(tables, override)
    try:
        return Recipe.model_validate(tables)
    except ValidationError as error:
        raise RecipeError(f"the recipe `{path}` has faults: {explain(error, Recipe)}") from error


def to_toml(recipe: Recipe) -> str:
    """Return the effective recipe, defaults included; `load_recipe` reads it back equal."""
    return "\n".join(_table(recipe.model_dump(mode="json", exclude_none=True), prefix=""))


def _override(tables: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    pieces = key.strip().split(".")
    if not equals or not all(pieces):
        raise RecipeError(
            f"the override `{override}` is not of the form `key.path=value`, "
            "such as `finetune.epochs=5`"
        )
    table = tables
    for depth, piece in enumerate(pieces[:-1], start=1):
        table = table.setdefault(piece, {})
        if not isinstance(table, dict):
            raise RecipeError(
                f"the override `{override}` treats `{'.'.join(pieces[:depth])}` as a table, "
                f"but the recipe has the value {table!r} there"
            )
    table[pieces[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # More than one key means that the text held a line break: not one TOML value.
    return parsed["value"] if len(parsed) == 1 else text


def _table(values: Mapping[str, Any], *, prefix: str) -> list[str]:
    lines = [
        f"{key} = {_literal(value)}" for key, value in values.items() if not isinstance(value, dict)
    ]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{key}]", *_table(value, prefix=f"{prefix}{key}.")]
    return [*lines, ""] if not prefix else lines


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON does not.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return repr(value)
