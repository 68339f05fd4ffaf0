"""Every shipped recipe loads, builds its network and takes two steps; the tables are covered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_data import write_coco

from maskfix.train.config import RECIPES, describe_recipes, list_recipes, load_recipe
from maskfix.train.distributed import Group
from maskfix.train.readers import FORMATS
from maskfix.train.run import make_trainer

TINY = [
    "data=[{name: tiny, min_area: 20}]",
    "validation=[]",
    "crop.sizes=[[64, 96]]",
    "batch_size=2",
    "epoch_samples=4",
    "epochs=1",
    "clicks.iterations=1",
]
TABLES = {1: 10, 2: 4, 3: 14, 6: 7, 7: 6}  # trained rows (table 6 has one of them twice)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("tiny") / "set")


@pytest.mark.parametrize("name", list_recipes())
def test_two_steps(tiny: Path, tmp_path: Path, name: str) -> None:
    config, cpu = load_recipe(name, TINY), torch.device("cpu")
    paths = {"tiny": str(tiny)}
    trainer = make_trainer(config, paths, tmp_path, None, cpu, 0, Group())
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    for number in range(2):
        trainer._train_batch(trainer.source[(0, number)])
    after = trainer.network.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert trainer.progress.samples == 4


@pytest.mark.parametrize("name", list_recipes())
def test_recipe_states_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    header = text[: text.index("\nbase:" if "\nbase:" in text else "\nnetwork:")]
    assert all(line.startswith("#") for line in header.splitlines())
    assert (f"--recipe {name} " in header and f"runs/{name}" in header) or name == "finetune"
    for data in recipe.data:
        assert f"--data {data.name}=" in header, data.name
        assert data.format == "auto" or data.format in FORMATS
    if name not in {"lite", "finetune"}:
        assert "# Paper: table" in header
        assert (recipe.batch_size, recipe.crop.sizes) == (32, ((320, 480),))
        assert len([line for line in text.splitlines() if not line.startswith("#")]) <= 8


def test_every_trained_row_of_the_tables_has_a_recipe() -> None:
    texts = [(RECIPES / f"{name}.yaml").read_text(encoding="utf-8") for name in list_recipes()]
    for table, rows in TABLES.items():
        assert sum(f"table {table}," in text for text in texts) == rows, table


def test_recipes_differ_as_their_rows_do() -> None:
    plain, final = load_recipe("cocolvis_h18"), load_recipe("cocolvis_h18_itm")
    assert plain.network.arguments == {"with_prev_mask": False} and plain.clicks.iterations == 0
    assert final.network.arguments == {} and final.clicks.iterations == 3
    assert final.optimizer.milestones == (49, 52) and final.epochs == 55
    assert load_recipe("cocolvis_h18_soft_iou").loss.instances == "soft_iou"
    assert load_recipe("sbd_h18_itm").crop.turn and not plain.crop.turn
    assert load_recipe("cocolvis_h18_itm_n5").clicks.iterations == 5
    networks = {load_recipe(n).network.name for n in list_recipes()}
    assert networks == {"lite", "deeplab_r34", "hrnet18", "hrnet18s", "hrnet32"}


def test_titles() -> None:
    titles = describe_recipes()
    assert list(titles) == list_recipes() and all(title.endswith(".") for title in titles.values())
