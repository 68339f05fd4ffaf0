"""Splitting one mask in two, and cleaning without clicks: exact on masks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfix.masks import Mask, components, intersection, union
from maskfix.refinement.clean import BAND, snap, sure_clicks, surroundings
from maskfix.refinement.split import split_mask
from maskfix.types import Click

SHAPE = (40, 60)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    array = np.zeros(SHAPE, bool)
    array[top : top + height, left : left + width] = True
    return array


WHOLE = box(10, 10, 20, 40)
KEEP, OTHER = Click(15, 20, True), Click(44, 20, False)


def lead_of(mask: Mask, kept: np.ndarray) -> np.ndarray:
    return np.where(kept, 0.5, -0.5)[mask.box.slices].astype(np.float32)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (box(10, 10, 20, 13), box(10, 10, 20, 13)),  # the network says where
        (box(0, 0, 40, 60), box(10, 10, 20, 20)),  # it sees one of them only: nearest click
        (box(0, 0, 0, 0), box(10, 10, 20, 20)),
        # what is cut off from every click of its side goes to the other side
        (box(10, 10, 20, 13) | box(12, 30, 4, 4), box(10, 10, 20, 13)),
        (box(10, 10, 20, 25) & ~box(12, 20, 4, 4), box(10, 10, 20, 25)),
    ],
)
def test_a_connected_mask_is_split(kept: np.ndarray, expected: np.ndarray) -> None:
    mask = Mask.from_array(WHOLE)
    first, second = split_mask(mask, lead_of(mask, kept), [KEEP, OTHER])
    moved = np.count_nonzero(first.to_array() ^ expected)
    assert moved <= 20, moved  # a column: the middle between two clicks is nobody's
    np.testing.assert_array_equal(second.to_array(), WHOLE & ~first.to_array())


def test_parts_that_do_not_touch_are_not_cut() -> None:
    left, right, third = box(5, 5, 10, 10), box(5, 30, 10, 10), box(25, 30, 10, 10)
    mask = Mask.from_array(left | right | third)
    lead = lead_of(mask, box(0, 0, 20, 60))  # the third part looks like the other side
    first, second = split_mask(mask, lead, [Click(8, 8, True), Click(35, 8, False)])
    np.testing.assert_array_equal(first.to_array(), left)
    np.testing.assert_array_equal(second.to_array(), right | third)


@st.composite
def splits(draw: st.DrawFn) -> tuple[Mask, np.ndarray, list[Click]]:
    height, width = draw(st.integers(2, 14)), draw(st.integers(2, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = rng.random((height, width)) < draw(st.floats(0.3, 1.0))
    bits.ravel()[rng.permutation(bits.size)[:2]] = True
    mask = Mask.from_array(bits)
    pixels = rng.permutation(np.flatnonzero(bits))[: draw(st.integers(2, 6))]
    signs = [True, False, *(rng.random(4) < 0.5)]
    clicks = [
        Click(int(p % width), int(p // width), bool(sign))
        for p, sign in zip(pixels, signs, strict=False)
    ]
    lead = rng.normal(0, 1, mask.bits.shape) * draw(st.sampled_from([0, 1e-3, 1]))
    return mask, (lead + draw(st.sampled_from([-1, 0, 1]))).astype(np.float32), clicks


@settings(max_examples=200, deadline=None)
@given(splits())
def test_a_split_is_a_partition_that_obeys_all_clicks(
    case: tuple[Mask, np.ndarray, list[Click]],
) -> None:
    mask, lead, clicks = case
    first, second = split_mask(mask, lead, clicks)
    assert first.area and second.area and not intersection(first, second)
    assert union(first, second) == mask
    for click in clicks:
        side = first if click.positive else second
        assert side.contains(int(click.y), int(click.x))


def clean(mask: Mask, answer: np.ndarray) -> Mask:
    box = surroundings(mask)
    return snap(mask, box, answer[box.slices])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_cleaning_stays_in_its_band_and_where_the_network_is_sure(
    seed: int, level: float, adversarial: bool
) -> None:
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, 25, 2)
    old = box(top, left, *rng.integers(1, 35, 2)) | box(5, 5, 4, 4)
    mask = Mask.from_array(old)
    answer = rng.random(SHAPE).astype(np.float32) * level
    if adversarial:
        answer = (~old).astype(np.float32)
    new = clean(mask, answer).to_array()
    changed = new != old
    assert (answer[changed & new] > 0.8).all() and (answer[changed & ~new] < 0.2).all()
    rows, cols = np.nonzero(changed)
    reach = max(1.5, BAND * np.sqrt(mask.area))
    for row, col in zip(rows, cols, strict=True):
        y, x = np.nonzero(old != old[row, col])
        assert np.hypot(y - row, x - col).min() <= reach * 1.05  # OpenCV's distances are rough


def test_cleaning_moves_a_border_and_leaves_what_is_almost_right() -> None:
    mask = Mask.from_array(WHOLE)
    right = box(10, 10, 20, 42)
    np.testing.assert_array_equal(clean(mask, right.astype(np.float32)).to_array(), right)
    almost = WHOLE | box(10, 50, 10, 1)
    assert clean(mask, almost.astype(np.float32)) == mask
    assert clean(mask, np.full(SHAPE, 0.5, np.float32)) == mask


def test_sure_clicks_lie_deep_on_either_side() -> None:
    ring = box(4, 4, 32, 32) & ~box(10, 10, 20, 20)
    inside, outside = sure_clicks(Mask.from_array(ring))
    assert inside.positive and ring[int(inside.y), int(inside.x)]
    assert not outside.positive and (outside.x, outside.y) == (19, 19)
    assert [c.positive for c in sure_clicks(Mask.from_array(np.ones(SHAPE, bool)))] == [True]
    assert len(components(Mask.from_array(ring))) == 1
