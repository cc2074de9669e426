from __future__ import annotations

import re
from pathlib import Path

import pytest

from oodserve.bundle import InputSpec
from oodserve.errors import RecipeError
from oodserve.images import Preprocessing
from train.comparison.plan import load_plan
from train.recipes import DigitsAugment, MixoeAugment, NoAugment, load_recipe, to_toml
from train.scorers.registry import SCORERS

PRESETS = Path(__file__).parents[2] / "train" / "presets"
FILES = sorted(PRESETS.glob("*.toml"))
COMPARISONS = [path for path in FILES if "\n[[variants]]" in path.read_text()]
RECIPES = [path for path in FILES if path not in COMPARISONS]

MINIMAL = """
name = "small"

[data]
root = "images"

[input]
height = 32
width = 32
resize = "exact"
resize_height = 32
resize_width = 32
interpolation = "bilinear"

[model]
architecture = "resnet18"

[pretrain]
epochs = 1
batch_size = 8
learning_rate = 0.1
weight_decay = 0.0

[finetune]
epochs = 1
batch_size = 8
learning_rate = 0.1
weight_decay = 0.0

[method]
name = "standard"
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(MINIMAL)
    return path


def test_defaults_are_filled_in(minimal: Path) -> None:
    recipe = load_recipe(minimal)
    assert recipe.seed == 0
    assert recipe.augment == NoAugment()
    assert recipe.scores == ("msp", "energy")
    assert recipe.finetune.momentum == 0.9
    assert recipe.finetune.gradient_clip_norm is None
    assert recipe.input.mean == (0.485, 0.456, 0.406)


def test_the_input_becomes_the_bundles(minimal: Path) -> None:
    spec = load_recipe(minimal, ["input.background=[1, 2, 3]"]).input.spec()
    assert spec == InputSpec(
        preprocessing=Preprocessing(
            height=32,
            width=32,
            resize="exact",
            resize_height=32,
            resize_width=32,
            interpolation="bilinear",
            background=(1, 2, 3),
        ),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("seed=7", "seed", 7),
        ("finetune.epochs = 12", "finetune.epochs", 12),
        ("finetune.learning_rate=1e-3", "finetune.learning_rate", 1e-3),
        ("data.root=some/where", "data.root", "some/where"),
        ('data.root="quoted = here"', "data.root", "quoted = here"),
        ("data.root=a\nb = 1", "data.root", "a\nb = 1"),
        ('data.held_out=["2", "5"]', "data.held_out", ("2", "5")),
        ("finetune.nesterov=false", "finetune.nesterov", False),
        ("augment.preset=mixoe", "augment", MixoeAugment()),
    ],
)
def test_overrides(minimal: Path, override: str, where: str, value: object) -> None:
    found: object = load_recipe(minimal, [override])
    for piece in where.split("."):
        found = getattr(found, piece)
    assert found == value


def test_the_last_override_wins(minimal: Path) -> None:
    assert load_recipe(minimal, ["seed=1", "seed=2"]).seed == 2


def test_the_effective_recipe_reads_back_equal(minimal: Path, tmp_path: Path) -> None:
    recipe = load_recipe(minimal, ["augment.preset=digits", "finetune.gradient_clip_norm=5"])
    assert isinstance(recipe.augment, DigitsAugment)
    text = to_toml(recipe)
    (tmp_path / "effective.toml").write_text(text)
    assert load_recipe(tmp_path / "effective.toml") == recipe
    assert "min_learning_rate = 1e-06" in text
    assert "background = [255, 255, 255]" in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["finetune.learning_rte=1"], "unknown key `finetune.learning_rte`, did you mean `learni"),
        (["sed=1"], "unknown key `sed`, did you mean `seed`?"),
        (["method.mix_alpha=1"], "unknown key `method.mix_alpha`; known: name"),
        (
            ["method.name=mixoe", "data.outliers=procedural", "method.mix_alfa=1"],
            "unknown key `method.mix_alfa`, did you mean `mix_alpha`?",
        ),
        (["augment.preset=none", "augment.noise=1"], "unknown key `augment.noise`; known: preset"),
        (["data.root.deep=1", "seed=0"], "treats `data.root` as a table, but the recipe has the"),
        (["seed"], "the override `seed` is not of the form `key.path=value`"),
        (["data.=3"], "the override `data.=3` is not of the form `key.path=value`"),
        (["augment.noise=0.1"], "missing key `augment.preset`"),
        (["method.name=mixo"], "`method.name` = 'mixo': expected one of 'standard', 'logitn"),
        (["finetune.epochs=-1"], "`finetune.epochs` = -1: input should be greater than or equal"),
        (["finetune.epochs=many"], "`finetune.epochs` = 'many': input should be a valid integer"),
        (["scores=msp"], "`scores` = 'msp': input should be a valid tuple"),
        (['scores=["msp", "margin"]'], "`scores` names `margin`, which is unknown; known: msp, e"),
        (['scores=["msp", "msp"]'], "`scores` = ['msp', 'msp']: name one to four different sco"),
        (["default_score=max_logit"], "`default_score` = 'max_logit' is none of `scores` = ['ms"),
        (["finetune.epochs=0", "pretrain.epochs=0"], "are both 0: nothing to train"),
        (["method.name=mixoe"], "`method.name` = 'mixoe' trains with outliers, but `data.outlie"),
        (["scorers.margin.k=3"], "`margin` is no score; known: msp, e"),
        (["scorers.msp.k=3"], "score `msp` has no knobs"),
        (["scorers.knn.neighbours=3"], "neighbours"),
        (["data.test_fraction=0.9"], "data: the fractions for validation, calibration and test a"),
        (["pretrain.min_learning_rate=1"], "`min_learning_rate` = 1 is above `learning_rate` ="),
        (["finetune.momentum=0"], "`nesterov` needs a `momentum` above 0; set `nesterov = false`"),
        (
            ["augment.preset=digits", "augment.scale=[2, 1]"],
            "augment.scale: the range [2.0, 1.0] runs backwards; state the smaller value first",
        ),
        (["input.resize_height=16"], "input: the resized image (16 x 32) is smaller than the cr"),
        (["input.std=[1, 1, 0]"], "`input.std.2` = 0: input should be greater than 0"),
    ],
)
def test_faults_are_named(minimal: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(minimal, overrides)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(MINIMAL.replace('root = "images"', ""))
    with pytest.raises(RecipeError, match=r"broken\.toml` has faults: missing key `data\.root`$"):
        load_recipe(path)


def test_all_faults_are_listed(minimal: Path) -> None:
    with pytest.raises(RecipeError, match=r"`finetune\.epochs` = -1.*; unknown key `sed`"):
        load_recipe(minimal, ["sed=1", "finetune.epochs=-1"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe `.*absent\.toml`"):
        load_recipe(tmp_path / "absent.toml")


def test_what_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("name: yaml")
    with pytest.raises(RecipeError, match=r"recipe\.toml` is not TOML: .*line 1"):
        load_recipe(path)


def test_there_are_presets() -> None:
    assert {path.stem for path in RECIPES} >= {"fgvc_mixoe", "fgvc_logit_mixoe", "fgvc_ascood"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_preset_loads(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_every_comparison_loads(path: Path) -> None:
    plan = load_plan(path, Path("runs"))
    assert len(plan.runs) == len(plan.comparison.seeds) * len(plan.comparison.variants)
    assert all(set(task.scores) <= set(SCORERS) for task in plan.runs)


def test_the_published_settings() -> None:
    for name in ("fgvc_mixoe", "fgvc_logit_mixoe"):
        recipe = load_recipe(PRESETS / f"{name}.toml")
        assert (recipe.pretrain.epochs, recipe.finetune.epochs) == (90, 10)
        assert (recipe.finetune.learning_rate, recipe.finetune.weight_decay) == (1e-3, 1e-5)
        assert recipe.augment == MixoeAugment()
        assert (recipe.input.resize, recipe.input.resize_height, recipe.input.height) == (
            "exact",
            512,
            448,
        )
    ascood = load_recipe(PRESETS / "fgvc_ascood.toml")
    assert (ascood.pretrain.epochs, ascood.finetune.epochs) == (0, 30)
    assert (ascood.finetune.learning_rate, ascood.finetune.weight_decay) == (1e-2, 5e-4)
    assert ascood.input.resize == "shorter_side"
