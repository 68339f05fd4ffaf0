"""The guard: what each rule refuses, and what passes."""

from __future__ import annotations

import numpy as np
import pytest

from maskfix.masks import Mask
from maskfix.refinement.guard import LIMITS, RULES, refusal
from maskfix.types import Click

SIZE = 120


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    array = np.zeros((SIZE, SIZE), bool)
    array[top : top + height, left : left + width] = True
    return array


OLD = box(40, 40, 20, 20)  # its square root of area is 20
INSIDE = Click(45, 45, True)


@pytest.mark.parametrize(
    ("after", "clicks", "normal", "strict"),
    [
        (OLD, [INSIDE], None, None),
        (box(40, 40, 20, 24), [Click(62, 50, True)], None, None),
        # clicks
        (OLD, [Click(62, 50, True)], "contradicts", "contradicts"),
        (OLD, [Click(50, 50, False)], "contradicts", "contradicts"),
        (OLD, [Click(50, 50, False), INSIDE, Click(50, 50, True)], None, None),  # the last counts
        # less and less is left, though a click asked for it
        (box(40, 40, 20, 9), [Click(55, 50, False)], None, None),
        (box(40, 40, 20, 7), [Click(55, 50, False)], None, "empties"),
        (box(40, 40, 20, 1), [Click(55, 50, False)], "empties", "empties"),
        (box(0, 0, 0, 0), [Click(55, 50, False)], "empties", "empties"),
        # more and more is added, where a click asked for it
        (box(40, 40, 20, 45), [Click(75, 50, True)], None, "explodes"),
        (box(0, 0, 60, 60), [Click(10, 10, True)], "explodes", "explodes"),
        # added where the mask never was, however little the rest changes
        (OLD | box(50, 82, 5, 5), [Click(84, 52, True)], None, "strays"),
        (OLD | box(110, 110, 8, 8), [Click(112, 112, True)], "strays", "strays"),
        # added or removed without a click there
        (OLD | box(30, 40, 10, 20), [INSIDE], "unasked", "unasked"),
        (OLD | box(30, 40, 10, 20), [INSIDE, Click(50, 34, True)], None, None),
        (OLD & ~box(40, 40, 12, 12), [Click(55, 55, True)], "unasked", "unasked"),
        (OLD & ~box(40, 40, 12, 12), [Click(45, 45, False)], None, None),
        (OLD & ~box(40, 40, 7, 7), [Click(55, 55, True)], None, "unasked"),
        (OLD & ~box(40, 40, 20, 2), [Click(55, 55, True)], None, None),  # a border may move
    ],
)
def test_rules(after: np.ndarray, clicks: list[Click], normal: str, strict: str) -> None:
    before, result = Mask.from_array(OLD), Mask.from_array(after)
    for level, expected in (("normal", normal), ("strict", strict), ("off", None)):
        reason = refusal(before, result, clicks, level)  # type: ignore[arg-type]
        assert (reason is None) == (expected is None), (level, reason)
        if expected is not None:
            rule = RULES[expected]
            assert rule(before, result, clicks, LIMITS[level]) == reason  # type: ignore[index]


@pytest.mark.parametrize(
    ("after", "positive", "words"),
    [(OLD, True, None), (OLD, False, "negative click at (45, 45)"), (OLD & False, False, "empty")],
)
def test_a_new_instance_has_only_to_be_there_and_agree_with_its_clicks(
    after: np.ndarray, positive: bool, words: str | None
) -> None:
    nothing = Mask.empty(SIZE, SIZE)
    reason = refusal(nothing, Mask.from_array(after), [Click(45, 45, positive)], "normal")
    assert reason is None if words is None else words in str(reason)


def test_reasons_give_places_in_the_image_and_amounts() -> None:
    before = Mask.from_array(OLD)
    after = Mask.from_array(OLD | box(30, 44, 10, 10))
    assert "(48, 34)" in str(refusal(before, after, [], "normal"))
    assert "grew 9.0 times" in str(
        refusal(before, Mask.from_array(box(0, 0, 60, 60)), [], "normal")
    )


def test_masks_at_the_border_of_the_image_are_no_trouble() -> None:
    whole = Mask.from_array(np.ones((SIZE, SIZE), bool))
    assert refusal(whole, whole, [], "strict") is None
    corner = Mask.from_array(box(0, 0, 10, 10))
    assert "left" in str(refusal(whole, corner, [Click(0, 0, True)], "strict"))
