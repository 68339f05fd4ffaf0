"""Samples: what they hold, and that only (seed, epoch, sample) decides about them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_data import SETTINGS, scene, write_coco
from torch.utils.data import DataLoader

from maskfix.crops import Size
from maskfix.errors import InputError
from maskfix.masks import Mask
from maskfix.train.augment import jitter_colors, random_view
from maskfix.train.config import CropConfig, TrainConfig, load_recipe
from maskfix.train.data import InstanceData, Objects
from maskfix.train.readers import open_data
from maskfix.train.samples import IGNORE, Batch, BatchSource

TENSORS = ("image", "target", "mask", "points", "awaits_click")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> InstanceData:
    return open_data("tiny", write_coco(tmp_path_factory.mktemp("tiny") / "set"))


def recipe(*changes: str) -> TrainConfig:
    return load_recipe("lite", [*SETTINGS, *changes])


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in TENSORS)


@pytest.mark.parametrize("mode", ["zoom", "scale"])
def test_workers_and_order_do_not_matter(data: InstanceData, mode: str) -> None:
    config = recipe(f"crop.mode={mode}")
    alone = BatchSource(config, [data])
    wanted = [(0, 0), (0, 1), (3, 1)]
    loader: DataLoader[Batch] = DataLoader(alone, None, sampler=wanted, num_workers=2)
    made = list(loader)
    again = BatchSource(config, [replace(data, _cache={})])
    for index, batch in list(zip(wanted, made, strict=True))[::-1]:
        assert same(batch, again[index]), index
    assert not same(made[0], made[1]) and not same(made[1], made[2])
    other = BatchSource(recipe(f"crop.mode={mode}", "seed=1"), [data])
    assert not same(other[0, 0], made[0])


def test_processes_share_a_batch(data: InstanceData) -> None:
    config = recipe()
    whole = BatchSource(config, [data])[1, 1]
    parts = [BatchSource(config, [data], rank, 2)[1, 1] for rank in range(2)]
    for name in TENSORS:
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name)), name
    assert [part.first for part in parts] == [4, 6]


@pytest.mark.parametrize("mode", ["zoom", "scale"])
def test_clicks_fit_the_target(data: InstanceData, mode: str) -> None:
    batch = BatchSource(recipe(f"crop.mode={mode}", "start.damaged=0", "batch_size=24"), [data])[
        0, 0
    ]
    assert batch.image.dtype == torch.uint8 and batch.target.dtype == torch.int8
    assert set(batch.target.unique().tolist()) == {0, 1} and not batch.mask.any()
    half = batch.points.shape[1] // 2
    for b in range(len(batch.image)):
        assert (batch.target[b] == 1).sum() >= 20
        for slot, (row, col, index) in enumerate(batch.points[b].int().tolist()):
            if index >= 0:
                assert index == 100 and batch.target[b, 0, row, col] == int(slot < half)
        assert batch.points[b, 0, 0] >= 0  # one positive at least
    assert not batch.awaits_click.any()


def test_damaged_starts(data: InstanceData) -> None:
    changes = (
        "start={damaged: 1, unclicked: 0.25, iou: [0.6, 0.9], context: 0}",
        "batch_size=40",
    )
    batch = BatchSource(recipe(*changes), [data])[0, 0]
    given = batch.mask[:, 0] == 1
    started = given.flatten(1).any(1)
    target = batch.target[:, 0] == 1
    meet, join = (given & target).flatten(1).sum(1), (given | target).flatten(1).sum(1)
    iou = (meet / join)[started]
    assert started.float().mean() > 0.8 and bool(((iou >= 0.6) & (iou <= 0.9)).all())
    assert bool((batch.points[started] == -1).all())
    assert 0.5 < batch.awaits_click[started].float().mean() < 1


def test_merging_two_objects(data: InstanceData) -> None:
    source = BatchSource(recipe("clicks.merge=1", "crop.wide=1", "batch_size=12"), [data])
    from cv2 import connectedComponents

    parts = [connectedComponents(t[0].numpy().view(np.uint8))[0] - 1 for t in source[0, 0].target]
    assert parts.count(2) >= 10


def test_a_pass_shows_every_image_once(data: InstanceData) -> None:
    source = BatchSource(recipe("epoch_samples=0", "batch_size=2"), [data])
    assert source.batches == 3
    drawn = [
        source._choose(np.random.default_rng(0), epoch, number, fixed=True)[1]
        for epoch in range(2)
        for number in range(6)
    ]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6)) and drawn[:6] != drawn[6:]


def test_importance_draws_hard_images_more_often(data: InstanceData) -> None:
    shares = [0.9, 0.1, 0.1, 0.1, 0.1, 0.1]
    records = [replace(r, share=s) for r, s in zip(data.records, shares, strict=True)]
    config = recipe("data=[{name: tiny, importance: 1.25}]", "epoch_samples=0")
    source = BatchSource(config, [replace(data, records=records)])
    rng = np.random.default_rng(0)
    drawn = [source._choose(rng, 0, 0, fixed=True)[1] for _ in range(2000)]
    expected = 0.9**1.25 / (0.9**1.25 + 5 * 0.1**1.25)
    assert drawn.count(0) / 2000 == pytest.approx(expected, abs=0.03)


def decode_one_with_the_rest(files: object, labels: object, size: Size) -> Objects:
    """One thing, one region of stuff, a void frame."""
    masks = scene(0)[1]
    void = np.zeros(size, bool)
    void[:, :8] = True
    return Objects([Mask.from_array(masks[0])], [Mask.from_array(masks[1])], Mask.from_array(void))


def test_stuff_is_drawn_as_often_as_asked_and_void_is_ignored(data: InstanceData) -> None:
    changed = replace(data, decode=decode_one_with_the_rest)
    plain = "crop={mode: scale, sizes: [[80, 96]], scale: [1, 1]}"
    for stuff in (0.0, 1.0):
        spec = f"data=[{{name: tiny, min_area: 20, stuff: {stuff}}}]"
        source = BatchSource(recipe(plain, spec, "batch_size=24", "clicks.merge=0"), [changed])
        target = source[0, 0].target
        assert (target == IGNORE).flatten(1).any(1).all()
        areas = {int((t == 1).sum()) for t in target}
        assert len(areas) == (2 if stuff else 1)


def test_background_samples(data: InstanceData) -> None:
    """Where no object is left, samples show background only as often as the recipe allows."""
    narrow = "crop={mode: scale, sizes: [[24, 24]], scale: [1, 1]}"
    empty = {}
    for share in (0.0, 1.0):
        spec = f"data=[{{name: tiny, min_area: 100, background: {share}}}]"
        batch = BatchSource(recipe(narrow, spec, "batch_size=60"), [data])[0, 0]
        without = ~(batch.target == 1).flatten(1).any(1)
        empty[share] = int(without.sum())
        half = batch.points.shape[1] // 2
        assert bool((batch.points[without][:, :half] == -1).all())
    assert empty[0.0] == 0 and empty[1.0] > 10


def test_a_view_moves_image_and_mask_alike() -> None:
    image, masks = scene(3)
    painted = np.zeros_like(image)
    painted[masks[0]] = 255
    for seed in range(12):
        rng = np.random.default_rng(seed)
        view = random_view(80, 96, Size(70, 110), CropConfig(turn=True), rng)
        bright = view.image(painted)[..., 0] > 127
        mask = view.mask(Mask.from_array(masks[0]))
        assert (bright ^ mask).sum() <= 0.06 * max(mask.sum(), 50)


def test_a_view_without_change_is_the_image() -> None:
    image, masks = scene(1)
    config = CropConfig(scale=(1.0, 1.0))
    views = [random_view(80, 96, Size(80, 96), config, np.random.default_rng(i)) for i in range(8)]
    shown = [view.image(image) for view in views]
    assert all((s == image).all() or (s == image[:, ::-1]).all() for s in shown)
    assert len({s.tobytes() for s in shown}) == 2
    assert any((view.mask(Mask.from_array(masks[1])) == masks[1]).all() for view in views)


def test_colours_move_within_their_limits() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    seen = np.array([jitter_colors(grey, np.random.default_rng(i))[0, 0] for i in range(300)])
    assert (seen == 100).all(1).mean() == pytest.approx(1 / 16, abs=0.05)
    assert seen.min() >= 100 * 0.85 - 64 - 10 - 1 and seen.max() <= 140 + 64 + 10 + 1
    assert seen.std(0).min() > 20


def test_holdout_splits_by_image(data: InstanceData) -> None:
    kept, held = data.subset(0.5, heldout=False), data.subset(0.5, heldout=True)
    names = [{r.file for r in part.records} for part in (kept, held)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == len(data.records)
    assert len(data.subset(0.0, heldout=True).records) == 0
    with pytest.raises(InputError, match="nothing to train on in tiny"):
        BatchSource(recipe(), [data.subset(0.0, heldout=True)])
