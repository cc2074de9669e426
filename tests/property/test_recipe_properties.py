from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from train.methods.standard import StandardSettings
from train.recipes import (
    DataRecipe,
    DigitsAugment,
    InputRecipe,
    ModelRecipe,
    PretrainRecipe,
    Recipe,
    StageRecipe,
    load_recipe,
    to_toml,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
rates = st.floats(min_value=1e-5, max_value=10.0)


@settings(max_examples=60, deadline=None)
@given(name=texts, held_out=st.lists(texts, max_size=3), rate=rates, noise=rates)
def test_any_recipe_reads_back_equal(
    name: str, held_out: list[str], rate: float, noise: float
) -> None:
    stage = {"epochs": 1, "batch_size": 2, "learning_rate": rate, "weight_decay": rate}
    recipe = Recipe(
        name=name,
        data=DataRecipe(root=name, held_out=tuple(held_out)),
        input=InputRecipe(
            height=8,
            width=8,
            resize="exact",
            resize_height=8,
            resize_width=8,
            interpolation="nearest",
        ),
        augment=DigitsAugment(noise=noise),
        model=ModelRecipe(),
        pretrain=PretrainRecipe.model_validate(stage),
        finetune=StageRecipe.model_validate(stage),
        method=StandardSettings(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text(to_toml(recipe), encoding="utf-8", newline="")
        assert load_recipe(path) == recipe
