"""Recipes: defaults, bases, changes by --set, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskfix.errors import UsageError
from maskfix.train.config import TrainConfig, list_recipes, load_recipe


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("optimizer.rl=1", "rl"),
        ("lr=1", "lr"),
        ("optimizer.lr=fast", "optimizer.lr"),
        ("batch_size=1.5", "batch_size"),
        ("crop.mode=spiral", "crop.mode"),
        ("crop.scale=[1]", "crop.scale"),
        ("network.name=[", "YAML"),
        ("batch_size", "key=value"),
        ("seed.x=1", "seed"),
    ],
)
def test_set_refuses_unknown_keys_and_wrong_types(change: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe("lite", [change])


def test_set_changes_one_nested_value_and_nothing_else() -> None:
    plain, changed = load_recipe("lite"), load_recipe("lite", ["optimizer.lr=0.1"])
    assert changed.optimizer.lr == 0.1
    assert changed.optimizer.ema == plain.optimizer.ema and changed.data == plain.data


def test_a_recipe_adds_to_its_base_and_lists_are_replaced(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "epochs: 3\ncrop: {scale: [1, 2], wide: 0.1}\n")
    child = write(tmp_path / "child.yaml", "base: base\ncrop: {scale: [1, 1]}\n")
    recipe = load_recipe(child)
    assert (recipe.epochs, recipe.crop.scale, recipe.crop.wide) == (3, (1.0, 1.0), 0.1)


def test_an_empty_recipe_is_the_papers_final_model(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path / "empty.yaml", "")) == TrainConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", "settings by name"),
        ("epochs: [", "not YAML"),
        ("epochs: many", "epochs"),
        ("base: nothing", "nothing.yaml"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe(write(tmp_path / "bad.yaml", text))


def test_unknown_recipe_lists_those_that_exist() -> None:
    with pytest.raises(UsageError, match="lite"):
        load_recipe("light")
    with pytest.raises(UsageError, match="cannot read"):
        load_recipe("nowhere/none.yaml")


def test_base_files_are_not_listed() -> None:
    names = list_recipes()
    assert "lite" in names and not [name for name in names if name.startswith("_")]
