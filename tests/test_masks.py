"""Masks, run lengths and polygons against plain arrays, pycocotools and the published code."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from maskfix.errors import InstanceError
from maskfix.masks import (
    NO_BOX,
    Mask,
    boundary_iou,
    components,
    enclose,
    intersect,
    intersection,
    iou,
    union,
)
from maskfix.polygons import mask_from_polygons, polygons_from_mask
from maskfix.rle import (
    check_counts,
    counts_from_mask,
    counts_from_text,
    mask_from_counts,
    text_from_counts,
)
from maskfix.types import Box

images = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20))
pairs = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=16).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def decode(text: str | bytes, height: int, width: int) -> Mask:
    return mask_from_counts(check_counts(counts_from_text(text), height, width), height, width)


def blob(height: int, width: int, *, seed: int) -> Mask:
    """A smooth random object of about a third of the image."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), min(height, width) / 12)
    return Mask.from_array(smooth > np.quantile(smooth, 0.66))


# --- Mask -------------------------------------------------------------------------------------


def test_box_is_tight_and_array_comes_back() -> None:
    image = np.zeros((6, 9), bool)
    image[2:4, 5] = image[3, 7] = True
    mask = Mask.from_array(image)
    assert mask.box == Box(2, 5, 4, 8)
    assert mask.bits.tolist() == [[True, False, False], [True, False, True]]
    assert mask.area == 3
    assert np.array_equal(mask.to_array(), image)
    assert mask.contains(3, 7) and not mask.contains(2, 7) and not mask.contains(0, 0)


def test_empty_mask() -> None:
    empty = Mask.from_array(np.zeros((4, 5), bool))
    assert empty == Mask.empty(4, 5) and empty.box == NO_BOX and empty.area == 0
    assert empty.to_array().shape == (4, 5) and not empty.to_array().any()
    assert components(empty) == []


@given(images, st.integers(-25, 25), st.integers(-25, 25), st.integers(0, 30), st.integers(0, 30))
def test_any_window(image: np.ndarray, top: int, left: int, height: int, width: int) -> None:
    around = np.zeros((120, 120), bool)
    around[40 : 40 + image.shape[0], 40 : 40 + image.shape[1]] = image
    expected = around[40 + top : 40 + top + height, 40 + left : 40 + left + width]
    box = Box(top, left, top + height, left + width)
    mask = Mask.from_array(image)
    assert np.array_equal(mask.window(box), expected)
    inside = np.zeros_like(image)
    shared = intersect(box, Box(0, 0, *image.shape))
    inside[shared.slices] = image[shared.slices]
    assert Mask.from_window(*image.shape, box, expected) == Mask.from_array(inside)


@given(pairs)
def test_set_operations(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = Mask.from_array(pair[0]), Mask.from_array(pair[1])
    both, either = pair[0] & pair[1], pair[0] | pair[1]
    assert intersection(a, b) == both.sum()
    assert union(a, b) == Mask.from_array(either)
    assert iou(a, b) == (both.sum() / either.sum() if either.any() else 1.0)


def test_boxes() -> None:
    assert intersect(Box(0, 0, 4, 4), Box(2, 3, 9, 9)) == Box(2, 3, 4, 4)
    assert intersect(Box(0, 0, 4, 4), Box(4, 0, 9, 9)) == NO_BOX
    assert enclose(Box(1, 2, 3, 4), Box(0, 3, 2, 9)) == Box(0, 2, 3, 9)
    assert enclose(NO_BOX, Box(5, 5, 6, 6)) == Box(5, 5, 6, 6)


def published_boundary_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Boundary IoU as its authors compute it: full image, padded, eroded step by step."""
    steps = max(1, round(0.02 * float(np.hypot(*a.shape))))
    bands = []
    for image in (a.astype(np.uint8), b.astype(np.uint8)):
        padded = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)
        bands.append(image - eroded[1:-1, 1:-1])
    return float(np.sum(bands[0] & bands[1]) / np.sum(bands[0] | bands[1]))


@pytest.mark.parametrize("seed", range(6))
def test_boundary_iou_is_the_published_one(seed: int) -> None:
    a, b = blob(150 + 40 * seed, 300, seed=seed), blob(150 + 40 * seed, 300, seed=seed + 100)
    moved = np.roll(a.to_array(), 3, axis=1)
    for other in (b, Mask.from_array(moved)):
        expected = published_boundary_iou(a.to_array(), other.to_array())
        assert boundary_iou(a, other) == pytest.approx(expected, abs=1e-12)


def test_boundary_iou_of_empty_masks() -> None:
    empty, full = Mask.empty(9, 9), Mask.from_array(np.ones((9, 9), bool))
    assert boundary_iou(empty, empty) == 1
    assert boundary_iou(empty, full) == boundary_iou(full, empty) == 0
    assert boundary_iou(full, full) == 1


def test_components_largest_first_and_diagonals_touch() -> None:
    image = np.zeros((8, 8), bool)
    image[0, 0] = image[1, 1] = True
    image[4:7, 4:8] = True
    image[5, 5] = False
    large, small = components(Mask.from_array(image))
    assert (large.box, large.area) == (Box(4, 4, 7, 8), 11)
    assert (small.box, small.area) == (Box(0, 0, 2, 2), 2)
    assert union(large, small) == Mask.from_array(image)


# --- run lengths ------------------------------------------------------------------------------


@given(images)
def test_runs_equal_pycocotools_both_ways(image: np.ndarray) -> None:
    height, width = image.shape
    theirs = coco_mask.encode(np.asfortranarray(image.astype(np.uint8)))["counts"]
    mask = Mask.from_array(image)
    assert text_from_counts(counts_from_mask(mask)) == theirs.decode()
    assert decode(theirs, height, width) == mask


@given(st.lists(st.integers(0, 2**31), max_size=12))
def test_text_of_any_counts(values: list[int]) -> None:
    counts = np.array(values, np.int64)
    assert counts_from_text(text_from_counts(counts)).tolist() == values


@pytest.mark.parametrize("seed", range(3))
def test_runs_of_real_sizes(seed: int) -> None:
    mask = blob(480, 640, seed=seed)
    theirs: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.to_array().view(np.uint8)))
    assert text_from_counts(counts_from_mask(mask)).encode() == theirs["counts"]
    assert decode(theirs["counts"], 480, 640) == mask


def test_zero_runs_in_the_middle_are_valid() -> None:
    counts = check_counts([0, 2, 0, 1, 3, 0], 2, 3)
    assert mask_from_counts(counts, 2, 3).to_array().tolist() == [[1, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cover 0 pixels"),
        ("52", "cover 7 pixels"),
        ("5 2", "position 1"),
        ("5é", "position 1"),
        ("5\N{SNOWMAN}", "position 1"),
        ("52X", "middle of a number"),
        ("PPPPPPPPPPP0", "longer than any image"),
        ("O1", "negative"),
    ],
)
def test_damaged_text_is_named(text: str, reason: str) -> None:
    with pytest.raises(InstanceError, match=reason):
        decode(text, 3, 4)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([5, 2], "cover 7 pixels, the image has 12"),
        ([13, -1], "-1 is negative"),
        ([6, 6.0], "6.0"),
        ([True, 11], "True"),
        ([None], "None"),
        ([10**30], "10000"),
        ([2**62, 2**62, 2**62, 2**62, 12], "the image has 12"),
    ],
)
def test_damaged_counts_are_named(counts: list[object], reason: str) -> None:
    with pytest.raises(InstanceError, match=reason):
        check_counts(counts, 3, 4)


@given(st.binary(max_size=30), st.integers(0, 9), st.integers(0, 9))
def test_any_bytes_decode_or_are_refused(text: bytes, height: int, width: int) -> None:
    try:
        mask = decode(text, height, width)
    except InstanceError:
        return
    assert mask.to_array().shape == (height, width)


# --- polygons ---------------------------------------------------------------------------------

coordinates = st.floats(-40, 60, allow_nan=False).map(lambda value: round(value, 2))
outlines = st.lists(
    st.lists(coordinates, min_size=6, max_size=24).map(lambda flat: flat[: len(flat) // 2 * 2]),
    min_size=1,
    max_size=3,
)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools.decode on numpy 2
@given(outlines, st.integers(1, 30), st.integers(1, 30))
def test_polygons_equal_pycocotools(polygons: list[list[float]], height: int, width: int) -> None:
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
    assert np.array_equal(mask_from_polygons(polygons, height, width).to_array(), theirs)


def test_a_square_covers_its_pixels() -> None:
    mask = mask_from_polygons([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6)
    assert mask.box == Box(1, 1, 3, 4) and mask.area == 6


@pytest.mark.parametrize("polygon", [[2, 2, 2, 2, 2, 2], [1.2, 1.2, 1.3, 1.3, 1.2, 1.2]])
def test_a_polygon_without_area_is_empty(polygon: list[float]) -> None:
    assert mask_from_polygons([polygon], 5, 6) == Mask.empty(5, 6)


@pytest.mark.parametrize(
    ("polygon", "reason"),
    [
        ([1, 2, 3, 4], "polygon 0 has 4 numbers"),
        ([1, 2, 3, 4, 5, 6, 7], "polygon 0 has 7 numbers"),
        ([1, 2, 3, 4, 5, float("nan")], "nan"),
        ([1, 2, 3, 4, 5, float("inf")], "inf"),
        ([1, 2, 3, 4, 5, 10**400], "1000"),
        ([1, 2, 3, 4, 5, None], "None"),
        ([1, 2, 3, 4, 5, "6"], "'6'"),
        (5, "must be a list"),
        ([0, 0, 3e6, 0, 3e6, 3e6], "more than any image"),
    ],
)
def test_damaged_polygons_are_named(polygon: object, reason: str) -> None:
    with pytest.raises(InstanceError, match=reason):
        mask_from_polygons([polygon], 5, 6)


@settings(max_examples=200)
@given(images)
def test_outlines_rasterise_back_exactly_but_for_holes(image: np.ndarray) -> None:
    filled = np.pad(image, 1).astype(np.uint8)
    outside = np.zeros((filled.shape[0] + 2, filled.shape[1] + 2), np.uint8)
    cv2.floodFill(filled, outside, (0, 0), 2)
    solid = (filled != 2)[1:-1, 1:-1]
    polygons, has_holes = polygons_from_mask(Mask.from_array(image))
    assert has_holes == bool((solid != image).any())
    assert np.array_equal(mask_from_polygons(polygons, *image.shape).to_array(), solid)


def test_parts_become_polygons_of_three_points_or_more() -> None:
    image = np.zeros((30, 30), bool)
    image[2, 2] = image[5:9, 5:20] = image[12:30, 29] = True
    polygons, has_holes = polygons_from_mask(Mask.from_array(image))
    assert len(polygons) == 3 and not has_holes
    assert all(len(polygon) >= 6 for polygon in polygons)
    assert mask_from_polygons(polygons, 30, 30) == Mask.from_array(image)


def test_a_ring_has_holes() -> None:
    image = np.ones((5, 5), bool)
    image[2, 2] = False
    assert polygons_from_mask(Mask.from_array(image))[1]
    assert polygons_from_mask(Mask.empty(5, 5)) == ([], False)
