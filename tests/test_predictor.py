"""The predictor: the published protocol against recorded runs, and properties of both protocols."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfix.clicks import SimulatedUser
from maskfix.crops import resample
from maskfix.errors import UsageError
from maskfix.masks import Mask, iou
from maskfix.predictor import FastProtocol, PaperProtocol, Predictor, Request, Session
from maskfix.predictor.paper import PaperSession, Region, expand_region, region_iou
from maskfix.types import Box, Click


class Stub:
    """A closed-form network: bright red near positive clicks is object. Records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, image: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls.append((image, points))
        height, width = image.shape[2:]
        rows = torch.arange(height)[:, None].double()
        cols = torch.arange(width)[None].double()
        s2 = (0.15 * height) ** 2
        half = points.shape[1] // 2
        logits = 3 * (image[:, 0] - image[:, 2]) + 2 * (image[:, 3] - 0.5) - 1
        logits = logits.double()
        for b in range(len(points)):
            for sign, part in ((4, points[b, :half]), (-4, points[b, half:])):
                valid = part[part[:, :2].amax(1) >= 0].double()
                for d2 in _nearest(valid, rows, cols):
                    logits[b] += sign * torch.exp(-d2 / s2)
        return {"instances": logits[:, None].float()}


def _nearest(valid: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor) -> list[torch.Tensor]:
    if not len(valid):
        return []
    distances = [(rows - p[0]) ** 2 + (cols - p[1]) ** 2 for p in valid]
    return [torch.stack(distances).amin(0)]


DEMO_CLICKS = [(100, 190, 1), (150, 160, 1), (55, 50, 0), (200, 300, 1), (20, 20, 0)]
SCENARIOS: dict[str, tuple[dict[str, Any], bool]] = {
    "stub_cvpr400": ({}, True),
    "stub_cvpr600_davis": ({"zoom_target": 600}, True),
    "stub_nozoom_noflip": ({"zoom_target": None}, False),
    "stub_nozoom_flip": ({"zoom_target": None}, True),
    "stub_zoom_skip0_recalc": ({"zoom_target": 200, "skip_clicks": 0, "min_crop": 60}, True),
    "stub_nozoom_maxsize200": ({"zoom_target": None, "max_size": 200}, True),
    "stub_zoom_clicklimit2": ({"clicks_limit": 2}, True),
    "stub_demo_scripted": (
        {"zoom_target": (160, 160), "skip_clicks": -1, "max_size": 800, "threshold": 0.5},
        True,
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_paper_protocol_equals_recorded_runs(golden: Path, scenario: str) -> None:
    settings, flip = SCENARIOS[scenario]
    scene = np.load(golden / "predictor_scene.npz")
    image, reference = scene["image"], scene["gt"]
    recorded = np.load(golden / f"predictor_{scenario}.npz")["prob_stride4"]
    stub = Stub()
    predictor = Predictor(stub, PaperProtocol(**settings), flip=flip)
    session = predictor.start(image)
    assert isinstance(session, PaperSession)
    user = SimulatedUser(reference)
    scripted = [Click(x=x, y=y, positive=bool(p)) for y, x, p in DEMO_CLICKS]
    for k, expected in enumerate(json.loads((golden / "predictor.json").read_text())[scenario]):
        prediction = session.probabilities() > predictor.protocol.threshold
        click = scripted[k] if "scripted" in scenario else user.next_click(prediction)
        assert click is not None
        assert ([click.y, click.x], click.positive) == (expected["click"], expected["positive"])
        stub.calls.clear()
        session.clicks.append(click)
        predictor.step([session])
        region = list(session.region) if session.region else None
        assert region == expected["zoom_roi"]
        assert len(stub.calls) == len(expected["net_calls"])
        for (seen, points), call in zip(stub.calls, expected["net_calls"], strict=True):
            assert list(seen.shape) == call["input_shape"]
            np.testing.assert_allclose(points.numpy(), call["points"], atol=1e-3)
            assert float(seen[:, 3].mean()) == pytest.approx(call["prev_channel_mean"], abs=1e-4)
        probabilities = session.probabilities()
        np.testing.assert_allclose(probabilities[::4, ::4], recorded[k], atol=1e-3)


def test_predict_continues_where_it_stopped(golden: Path) -> None:
    """Click by click through `predict` is the same run, whether or not the mask is handed back."""
    scene = np.load(golden / "predictor_scene.npz")
    recorded = np.load(golden / "predictor_stub_cvpr400.npz")["prob_stride4"]
    run = json.loads((golden / "predictor.json").read_text())["stub_cvpr400"]
    clicks = [Click(x=c["click"][1], y=c["click"][0], positive=c["positive"]) for c in run]
    for hand_back in (False, True):
        stub = Stub()
        predictor = Predictor(stub, protocol="paper")
        answer = None
        for k in range(len(clicks)):
            answer = predictor.predict(
                scene["image"], clicks[: k + 1], answer if hand_back else None
            )
            np.testing.assert_allclose(answer[::4, ::4], recorded[k], atol=1e-3)
        assert len(stub.calls) == len(clicks)
    at_once = Predictor(Stub(), protocol="paper").predict(scene["image"], clicks)
    np.testing.assert_allclose(at_once[::4, ::4], recorded[-1], atol=1e-3)


def test_regions_equal_golden(golden: Path) -> None:
    cases = json.loads((golden / "bbox.json").read_text())
    expansions = [(ast.literal_eval(key), out) for key, out in cases.items() if key[0] == "("]
    assert expansions
    for (region, ratio, least), expected in expansions:
        assert list(expand_region(Region(*region), ratio, least)) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 9, 0, 9), (0, 9, 0, 9), 1.0),
        ((0, 9, 0, 9), (5, 14, 0, 9), 5 / 15),
        ((0, 9, 0, 9), (10, 19, 0, 9), 0.0),
    ],
)
def test_region_iou(a: tuple[int, ...], b: tuple[int, ...], expected: float) -> None:
    assert region_iou(Region(*a), Region(*b)) == pytest.approx(expected)


def scene(seed: int, height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A red blob on noise, and its mask."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
    row, col = rng.integers(25, 60), rng.integers(30, 80)
    y, x = np.mgrid[:height, :width]
    mask = (y - row) ** 2 + (x - col) ** 2 < 18**2
    image[mask, 0] += 150
    return image, mask


@pytest.mark.parametrize("protocol", ["paper", "fast"])
@pytest.mark.parametrize("flip", [False, True])
def test_many_at_once_agree_with_one_at_a_time(protocol: str, flip: bool) -> None:
    requests = []
    for seed in range(7):
        image, mask = scene(seed, 90 + 10 * (seed % 2))
        row, col = np.argwhere(mask)[len(np.argwhere(mask)) // 2]
        clicks = [Click(int(col), int(row), True), Click(2, 3, False)][: 1 + seed % 2]
        requests.append(Request(image, clicks, mask if seed % 3 == 0 else None))
    one = Predictor(Stub(), protocol=protocol, flip=flip, batch_size=2)
    many = Predictor(Stub(), protocol=protocol, flip=flip, batch_size=16)
    together = many.predict_many(requests)
    for request, answer in zip(requests, together, strict=True):
        alone = one.predict(request.image, request.clicks, request.mask)
        np.testing.assert_allclose(answer, alone, atol=1e-4)


def test_first_prediction_uses_the_given_mask() -> None:
    image, mask = scene(1)
    for protocol in ("paper", "fast"):
        stub = Stub()
        Predictor(stub, protocol=protocol).predict(image, [Click(60, 45, True)], mask)
        assert float(stub.calls[0][0][:, 3].max()) == 1.0


def test_fast_keeps_what_is_outside_the_crop_bit_for_bit() -> None:
    image, mask = scene(3, 400, 500)
    predictor = Predictor(Stub(), protocol="fast")
    session = predictor.start(image, mask)
    row, col = np.argwhere(mask)[0]
    session.clicks.append(Click(int(col), int(row), True))
    predictor.step([session])
    region = session.region  # type: ignore[attr-defined]
    assert region.height < 400 and region.width < 500
    outside = np.ones(mask.shape, bool)
    outside[region.slices] = False
    np.testing.assert_array_equal(session.mask().to_array()[outside], mask[outside])


@pytest.mark.parametrize("size", [(7, 9), (33, 400), (512, 40), (1, 1)])
def test_any_image_size(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    click = Click(size[1] - 1, size[0] - 1, True)
    for protocol in ("paper", "fast"):
        answer = Predictor(Stub(), protocol=protocol).predict(image, [click, Click(0, 0, False)])
        assert answer.shape == size and answer.dtype == np.float32
        assert np.isfinite(answer).all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 119), st.integers(0, 89), st.booleans()), max_size=6),
    st.integers(0, 5),
    st.booleans(),
)
def test_fast_masks_agree_with_every_click(
    made: list[tuple[int, int, bool]], seed: int, from_mask: bool
) -> None:
    clicks = list({(x, y): Click(x, y, positive) for x, y, positive in made}.values())
    image, mask = scene(seed)
    predictor = Predictor(Stub(), protocol="fast")
    session = predictor.start(image, mask if from_mask else None)
    for click in clicks:
        session.clicks.append(click)
        predictor.step([session])
        found = session.mask()
        assert all(found.contains(int(c.y), int(c.x)) == c.positive for c in session.clicks)


def test_a_later_click_changes_only_what_is_near_it() -> None:
    """Of an answer that adds a long bar and a far piece, the bar's part around the click stays."""
    image = np.zeros((256, 256, 3), np.uint8)
    given = np.zeros((256, 256), bool)
    given[40:216, 40:140] = True
    given[40:60, 220:230] = True
    session = FastProtocol().start(image, given)

    def answer(wanted: np.ndarray, click: Click) -> np.ndarray:
        session.clicks.append(click)
        session.view()
        assert session.region is not None
        soft = resample(wanted[session.region.slices].astype(np.float32), session.size)
        assert not session.accept(soft)
        return session.mask().to_array()

    thin = given.copy()
    thin[40:216, 140:144] = True  # borders may be put right anywhere by the first click
    first = answer(thin, Click(141, 100, True))
    assert np.count_nonzero(first ^ thin) < 0.01 * np.count_nonzero(thin)
    later = first.copy()
    later[100:116, 140:216] = True  # from the mask to the right, 16 pixels high
    later[180:200, 60:80] = False  # far from the click
    second = answer(later, Click(152, 108, True))
    added = np.argwhere(second & ~first)
    assert {(108, 146), (108, 152), (108, 170)} <= {(int(r), int(c)) for r, c in added}
    assert added[:, 1].max() < 152 + 30  # 3 times its depth of 8 is 24
    assert not (first & ~second).any()
    assert np.array_equal(answer(second, Click(152, 108, True)), second)


def test_fast_looks_at_the_pixel_nearest_to_a_click() -> None:
    """A click between two pixels counts for the nearer one, also where that is the crop's edge."""
    image, mask = scene(3, 400, 500)
    session = Predictor(Stub(), protocol="fast").start(image, mask)
    session.view()
    region = session.region  # type: ignore[attr-defined]
    session.clicks.append(Click(region.right - 0.4, (region.top + region.bottom) / 2, True))
    session.view()
    assert session.region.right > region.right  # type: ignore[attr-defined]


def test_one_session_that_fails_does_not_fail_the_others() -> None:
    class Fragile(Stub):
        def __call__(self, image: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
            if bool((image[:, 0].amax((1, 2)) > 0.95).any()):
                raise torch.OutOfMemoryError("too bright\nfor this device")
            return super().__call__(image, points)

    predictor = Predictor(Fragile(), protocol="fast")
    sessions = []
    for seed in range(5):
        image, mask = scene(seed)
        if seed == 2:
            image[mask, 0] = 255
        session = predictor.start(image, mask)
        row, col = np.argwhere(mask)[0]
        session.clicks.append(Click(int(col), int(row), False))
        sessions.append(session)
    failures: dict[Session, str] = {}
    predictor.step(sessions, failures)
    assert failures == {sessions[2]: "OutOfMemoryError: too bright for this device"}
    assert all(s.mask().contains(*_first(s)) is False for s in sessions if s is not sessions[2])
    with pytest.raises(torch.OutOfMemoryError):
        predictor.step(sessions)


def _first(session: Session) -> tuple[int, int]:
    return int(session.clicks[0].y), int(session.clicks[0].x)


def test_large_changes_that_no_click_asked_for_are_taken_back() -> None:
    """The network sees two red disks as object; the click is about the first only."""
    image = np.full((120, 200, 3), 40, np.uint8)
    y, x = np.mgrid[:120, :200]
    near, far = (y - 60) ** 2 + (x - 60) ** 2 < 900, (y - 60) ** 2 + (x - 150) ** 2 < 900
    image[near | far] = (255, 0, 0)
    half = near & (x < 70)

    def network(pixels: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"instances": 20 * (pixels[:, :1] - 0.5)}

    predictor = Predictor(network, FastProtocol(expansion=4.0))
    for mask, expected in ((half, near), (None, near | far)):
        session = predictor.start(image, mask)
        session.clicks.append(Click(x=80, y=60, positive=True))
        predictor.step([session])
        assert iou(session.mask(), Mask.from_array(expected)) > 0.95


@pytest.mark.parametrize(
    ("region", "size"),
    [
        ((100, 100), (256, 256)),
        ((204, 204), (256, 256)),
        ((205, 205), (320, 320)),
        ((320, 320), (320, 320)),
        ((300, 100), (320, 192)),
        ((400, 200), (384, 256)),
        ((200, 400), (256, 384)),
        ((480, 640), (256, 384)),
    ],
)
def test_the_fast_protocol_has_a_few_sizes(region: tuple[int, int], size: tuple[int, int]) -> None:
    assert FastProtocol().size_for(*region) == size


@pytest.mark.parametrize("zoom_target", [None, (256, 256), 100, 0])
def test_the_fast_protocol_wants_one_side(zoom_target: Any) -> None:
    with pytest.raises(UsageError, match="zoom_target: the fast protocol expects a multiple of 32"):
        Predictor(Stub(), "fast", zoom_target=zoom_target)


def test_a_buffer_that_was_filled_anew_is_another_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    first, second = Click(100, 190, True), Click(20, 20, False)
    predictor, fresh = Predictor(Stub()), Predictor(Stub())
    buffer = image.copy()
    answer = predictor.predict(buffer, [first])
    buffer[:] = image[::-1]
    expected = fresh.predict(buffer, [first, second])
    np.testing.assert_array_equal(predictor.predict(buffer, [first, second]), expected)
    answer[:] = 0  # an answer that was edited is a mask from elsewhere
    predictor.predict(buffer, [first])
    edited = predictor.predict(buffer, [first], np.zeros_like(answer))
    edited[:] = 0
    expected = Predictor(Stub()).predict(buffer, [first, second], np.zeros_like(answer))
    again = predictor.predict(buffer, [first, second], edited)
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("protocol", [FastProtocol(64), PaperProtocol(64)])
def test_a_window_is_a_part_of_the_probabilities(protocol: FastProtocol | PaperProtocol) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
    start = np.zeros((120, 160), bool)
    start[40:60, 50:80] = True
    predictor = Predictor(Stub(), protocol)
    session = predictor.start(image, start)
    boxes = [Box(0, 0, 120, 160), Box(0, 0, 5, 5), Box(30, 40, 55, 160), Box(45, 55, 50, 60)]
    for _ in range(2):
        whole = session.probabilities()
        assert whole.shape == (120, 160)
        for box in boxes:
            np.testing.assert_array_equal(session.window(box), whole[box.slices])
        session.clicks.append(Click(90, 50, True))
        predictor.step([session])
