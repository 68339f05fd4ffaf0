"""The simulated user of the metric and of training."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfix.clicks import SimulatedUser, miss, squared_distances, training_click_candidates
from maskfix.masks import Mask
from maskfix.types import Click


def test_clicker_equals_golden(golden: Path) -> None:
    arrays = np.load(golden / "clicker.npz")
    for case, expected in json.loads((golden / "clicker.json").read_text()).items():
        user = SimulatedUser(arrays[f"{case}__gt"])
        for row, col, positive, _ in expected["clicks_exact_integer_edt"]:
            click = user.next_click(arrays[f"{case}__pred"])
            if click is None:  # the published code then clicks (0, 0) for ever
                assert (row, col, positive) == (0, 0, False), case
            else:
                assert click == Click(x=col, y=row, positive=positive), case


def test_training_candidates_equal_golden(golden: Path) -> None:
    arrays = np.load(golden / "next_points.npz")
    for b in range(len(arrays["pred"])):
        candidates, positive = training_click_candidates(
            arrays["gt"][b, 0] > 0.5, arrays["pred"][b, 0]
        )
        np.testing.assert_array_equal(candidates, np.flatnonzero(arrays["candidate_mask"][b]))
        changed = arrays["points_out_click1_first_candidate"][b] != arrays["points_in"][b]
        if candidates.size:
            assert positive == (np.flatnonzero(changed.any(axis=1))[0] < changed.shape[0] // 2)


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        (["....", ".##.", ".##.", "...."], ["....", "....", "....", "...."], (1, 1, True)),
        (["#...", "....", "....", "...."], ["....", "....", "....", "...#"], (3, 3, False)),  # tie
        (["####", "####", "####", "####"], ["####", "####", "####", "####"], None),
        (["###.", "###.", "###.", "...."], ["....", "....", "....", "...#"], (1, 1, True)),
    ],
)
def test_first_click(
    reference: list[str], prediction: list[str], expected: tuple[int, int, bool] | None
) -> None:
    def array(rows: list[str]) -> np.ndarray:
        return np.array([[c == "#" for c in row] for row in rows])

    click = SimulatedUser(array(reference)).next_click(array(prediction))
    assert click == (expected and Click(x=expected[1], y=expected[0], positive=expected[2]))


def test_no_pixel_is_clicked_twice_and_the_user_ends() -> None:
    reference = np.zeros((5, 6), bool)
    reference[1:4, 1:4] = True
    user = SimulatedUser(reference)
    clicks = [user.next_click(np.zeros_like(reference)) for _ in range(10)]
    assert len(set(clicks[:9])) == 9 and clicks[9] is None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_squared_distances_are_exact(height: int, width: int, seed: int) -> None:
    region = np.random.default_rng(seed).random((height, width)) < 0.9
    padded = np.pad(region, 1)
    rows, cols = np.nonzero(~padded)
    for row, col in [(r, c) for r in range(height) for c in range(width)][
        :: 1 + height * width // 40
    ]:
        nearest = ((rows - row - 1) ** 2 + (cols - col - 1) ** 2).min()
        assert squared_distances(region)[row, col] == (nearest if region[row, col] else 0)


def test_missed_clicks_are_seeded_and_stay_in_the_image() -> None:
    click = Click(x=3, y=2, positive=False)
    made = [miss(click, 5.0, seed, "a/1", 1, 20, 30) for seed in range(50)]
    assert made == [miss(click, 5.0, seed, "a/1", 1, 20, 30) for seed in range(50)]
    assert len(set(made)) > 20 and not any(c.positive for c in made)
    assert all(0 <= c.x < 30 and 0 <= c.y < 20 for c in made)
    assert miss(click, 0.0, 1, "a/1", 1, 20, 30) == click
    assert miss(click, 5.0, 1, "a/2", 1, 20, 30) != made[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_masks_are_clicked_as_arrays_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, prediction = rng.random((2, 17, 23)) < 0.3
    reference[:5] = prediction[:, 18:] = False  # so that windows are smaller than the image
    as_array, as_mask = SimulatedUser(reference), SimulatedUser(Mask.from_array(reference))
    for _ in range(6):
        click = as_array.next_click(prediction)
        assert click == as_mask.next_click(Mask.from_array(prediction))
