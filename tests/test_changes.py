"""Which changes of a mask may stay."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from maskfix.predictor.changes import Limits, Place, keep_asked, keep_near

BoolArray = NDArray[np.bool_]
SIDE = 40.0  # the mask: rows 30 to 69, columns 30 to 69
LIMITS = Limits()  # shallow 1.2, unasked 6 pixels of depth at most


def paint(*boxes: tuple[int, int, int, int]) -> BoolArray:
    """(100, 100), boxes of top, left, bottom, right."""
    array = np.zeros((100, 100), bool)
    for top, left, bottom, right in boxes:
        array[top:bottom, left:right] = True
    return array


MASK = paint((30, 30, 70, 70))
SURE, UNSURE = np.full((100, 100), 0.4, np.float32), np.full((100, 100), 0.05, np.float32)
RIGHT = (40, 70, 60, 80)  # ten columns more, 5 deep
CORNER = (10, 10, 30, 30)  # a block of 20 x 20 that touches the mask's corner, 10 deep
THIN = (70, 30, 72, 70)  # two rows more, 1 deep
IN_RIGHT, IN_THIN, IN_CORNER = Place(50, 75, True), Place(71, 50, True), Place(20, 20, True)


@pytest.mark.parametrize(
    ("added", "sureness", "clicks", "stay"),
    [
        ([RIGHT], SURE, [IN_RIGHT], [RIGHT]),
        ([RIGHT], UNSURE, [IN_RIGHT], [RIGHT]),  # a click need not be sure
        ([RIGHT, THIN], SURE, [IN_RIGHT], [RIGHT, THIN]),  # borders move anywhere
        ([RIGHT, THIN], UNSURE, [IN_RIGHT], [RIGHT]),  # if the network is sure
        ([RIGHT, THIN], SURE, [IN_THIN], [THIN]),  # five times as deep as what was clicked
        ([CORNER, RIGHT], SURE, [IN_RIGHT], [RIGHT]),  # deeper than a border can be
        ([CORNER, RIGHT], SURE, [IN_CORNER], [CORNER, RIGHT]),
        ([CORNER, RIGHT], SURE, [IN_CORNER, IN_RIGHT], [CORNER, RIGHT]),
        ([CORNER, RIGHT, THIN], SURE, [Place(50, 50, True)], [RIGHT, THIN]),  # asks for nothing
        ([RIGHT], SURE, [Place(50, 75, False)], []),  # the wrong sign
    ],
)
def test_what_a_first_answer_may_add(
    added: list[tuple[int, int, int, int]],
    sureness: NDArray[np.float32],
    clicks: list[Place],
    stay: list[tuple[int, int, int, int]],
) -> None:
    taken = keep_asked(MASK, MASK | paint(*added), sureness, clicks, SIDE, LIMITS)
    np.testing.assert_array_equal(taken, MASK | paint(*stay))


def test_what_is_removed_needs_negative_clicks() -> None:
    hole, thin = paint((40, 40, 56, 56)), paint((68, 30, 70, 70))
    after = MASK & ~hole & ~thin
    taken = keep_asked(MASK, after, SURE, [Place(48, 48, False)], SIDE, LIMITS)
    np.testing.assert_array_equal(taken, after)
    taken = keep_asked(MASK, after, SURE, [Place(48, 48, True)], SIDE, LIMITS)
    np.testing.assert_array_equal(taken, MASK & ~thin)


def test_of_a_clicked_piece_what_is_much_deeper_elsewhere_was_not_meant() -> None:
    arm, block = (48, 70, 52, 80), (35, 80, 65, 100)  # 2 deep, and 10 deep behind it
    after = MASK | paint(arm, block)
    at_arm = keep_asked(MASK, after, SURE, [Place(50, 74, True)], SIDE, LIMITS)
    assert at_arm[48:52, 70:77].all() and not at_arm[40:60, 85:97].any()
    at_block = keep_asked(MASK, after, SURE, [Place(50, 90, True)], SIDE, LIMITS)
    np.testing.assert_array_equal(at_block, after)


def test_a_click_beside_the_middle_counts_as_one_in_it() -> None:
    after = MASK | paint(RIGHT, (60, 30, 70, 30), (26, 40, 30, 60))  # the last one 2 deep
    taken = keep_asked(MASK, after, SURE, [Place(45, 73, True)], SIDE, LIMITS)
    np.testing.assert_array_equal(taken, after)


@pytest.mark.parametrize(
    ("click", "stay"),
    [
        (IN_RIGHT, [RIGHT]),  # reach 15 holds it
        (IN_THIN, [(70, 45, 71, 56), (71, 44, 72, 57)]),  # reach 6, 0.15 of the side
        (Place(50, 50, True), []),
        (Place(50, 75, False), []),
    ],
)
def test_a_later_click_changes_what_is_near(
    click: Place, stay: list[tuple[int, int, int, int]]
) -> None:
    taken = keep_near(MASK, MASK | paint(RIGHT, THIN), [click], SIDE, LIMITS)
    np.testing.assert_array_equal(taken, MASK | paint(*stay))
