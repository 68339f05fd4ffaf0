"""The NoC loop: recorded runs, stop rules, and independence of batching."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_predictor import SCENARIOS, Stub, scene

from maskfix.evaluate import Case, Rules, Trace, evaluate_cases, run_cases, summarise
from maskfix.masks import Mask
from maskfix.model.registry import build_network
from maskfix.predictor import PaperProtocol, Predictor
from maskfix.types import Click


def make_case(seed: int, initial: bool = False, height: int = 90) -> Case:
    image, mask = scene(seed, height)
    start = Mask.from_array(np.roll(mask, 6, axis=1)) if initial else None
    return Case(f"case{seed}", lambda: image, Mask.from_array(mask), None, start)


def run_one(case: Case, rules: Rules, predictor: Predictor | None = None) -> Trace:
    predictor = predictor or Predictor(Stub(), protocol="fast")
    [(_, trace)] = run_cases(predictor, [case], rules, 1, keep_masks=True)
    return trace


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if "scripted" not in s])
def test_traces_equal_golden(golden: Path, scenario: str) -> None:
    settings, flip = SCENARIOS[scenario]
    arrays = np.load(golden / "predictor_scene.npz")
    expected = json.loads((golden / "predictor.json").read_text())[scenario]
    labels = arrays["gt"]
    case = Case(
        "scene",
        lambda: arrays["image"],
        Mask.from_array(labels == 1),
        Mask.from_array(labels == -1),
    )
    predictor = Predictor(Stub(), PaperProtocol(**settings), flip=flip)
    trace = run_one(case, Rules(max_clicks=len(expected), target_iou=1.01), predictor)
    assert [[c.y, c.x] for c in trace.clicks] == [step["click"] for step in expected]
    assert [c.positive for c in trace.clicks] == [step["positive"] for step in expected]
    np.testing.assert_allclose(trace.ious, [step["iou"] for step in expected], atol=5e-5)


def test_stop_rules() -> None:
    case = make_case(1, initial=True)
    full = run_one(case, Rules(max_clicks=6, target_iou=1.01))
    assert len(full.ious) == len(full.clicks) == len(full.masks) == 6
    target = full.ious[1]
    assert full.ious[0] < target
    stopped = run_one(case, Rules(target_iou=target))
    assert stopped.ious == full.ious[:2]
    longer = run_one(case, Rules(target_iou=target, min_clicks=4))
    needed = next(k for k in range(4, 7) if full.ious[k - 1] >= target)
    assert longer.ious == full.ious[:needed]


def test_nothing_wrong_needs_no_click() -> None:
    case = make_case(2)
    started = Case(case.name, case.image, case.reference, None, case.reference)
    trace = run_one(started, Rules(target_iou=1.01, min_clicks=3))
    assert (trace.initial_iou, trace.ious, trace.clicks) == (1.0, (), ())
    summary = summarise([trace])
    assert (summary["noc@90"], summary["already@90"], summary["failed@90"]) == (1, 1, 0)
    assert summary["spc"] is None


def test_what_was_right_and_is_broken() -> None:
    """The network answers background everywhere: the whole initial object is broken."""

    def empty(image: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"instances": torch.full((len(image), 1, *image.shape[2:]), -9.0)}

    image, mask = scene(3)
    start = np.roll(mask, 3, axis=1)
    case = Case("a", lambda: image, Mask.from_array(mask), None, Mask.from_array(start))
    trace = run_one(case, Rules(max_clicks=2), Predictor(empty, protocol="paper"))
    assert trace.right == np.count_nonzero(start == mask)
    assert trace.broken_first == trace.broken_last == np.count_nonzero(start & mask)
    assert (trace.ious, trace.boundary_iou) == ((0, 0), 0)
    summary = summarise([trace])
    assert summary["worse@1"] == summary["worse@end"] == 1
    assert summary["broken@1"] == trace.broken_first / trace.right
    assert summary["drops"] == 0


def test_ignored_pixels_count_for_nothing() -> None:
    image, mask = scene(4)
    ignore = np.zeros_like(mask)
    ignore[:, 60:] = True
    target = mask & ~ignore
    start = Mask.from_array(target | ignore)
    case = Case("a", lambda: image, Mask.from_array(target), Mask.from_array(ignore), start)
    trace = run_one(case, Rules())
    assert (trace.initial_iou, trace.clicks, trace.boundary_iou) == (1.0, (), 1.0)
    assert trace.right == np.count_nonzero(~ignore)


def test_images_are_read_once() -> None:
    image, mask = scene(5)
    calls = []

    def read() -> np.ndarray:
        calls.append(1)
        return image

    cases = [Case(f"i{i}", read, Mask.from_array(mask)) for i in range(5)]
    traces = evaluate_cases(Predictor(Stub()), cases, max_clicks=2, in_flight=2)
    assert len(calls) == 1
    assert [t.name for t in traces] == [c.name for c in cases]
    assert sum(t.seconds_read > 0 for t in traces) == 1


def test_jitter_is_seeded_and_stays_inside() -> None:
    case = make_case(6)
    exact = run_one(case, Rules(max_clicks=4, target_iou=1.01))
    moved = [
        run_one(case, Rules(max_clicks=4, target_iou=1.01, jitter=40, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert moved[0].clicks == moved[1].clicks
    assert len({exact.clicks, moved[0].clicks, moved[2].clicks}) == 3
    for click in moved[0].clicks + moved[2].clicks:
        assert 0 <= click.x < 120 and 0 <= click.y < 90
        assert isinstance(click, Click) and click.x == int(click.x)


def test_summary_at_two_limits() -> None:
    def trace(*ious: float) -> Trace:
        clicks = tuple(Click(0, i, True) for i in range(len(ious)))
        return Trace("t", ious, clicks, 0.0, 0.5, False, 100, 0, 0, 0, 1.0, 1.0, 2.0)

    late = trace(*[0.5] * 30, 0.95)
    never = trace(*[0.5] * 40)
    summary = summarise([late, never, trace(0.9)], max_clicks=40)
    assert summary["noc@90"] == pytest.approx((20 + 20 + 1) / 3)
    assert summary["noc40@90"] == pytest.approx((31 + 40 + 1) / 3)
    assert (summary["at_limit@90"], summary["failed@90"]) == (2, 2)
    assert (summary["at_limit40@90"], summary["failed40@90"]) == (1, 1)
    assert len(summary["miou@k"]) == 40
    assert summary["miou@k"][0] == pytest.approx((0.5 + 0.5 + 0.9) / 3)
    assert summary["miou@k"][-1] == pytest.approx((0.95 + 0.5 + 0.9) / 3)
    assert summary["spc"] == 6 / 72 and summary["spc_published"] == 12 / 72
    assert summary["worse@1"] is None
    assert summarise([]) == {"n": 0}


def test_answers_do_not_depend_on_batching() -> None:
    """To the bit, on the CPU: in batches of 16 this network rounds differently."""
    torch.manual_seed(0)
    network = build_network("lite").eval()
    image, mask = scene(7, 300, 280)
    clicks = [Click(int(c), int(r), True) for r, c in np.argwhere(mask)[::50]][:17]
    answers = []
    for batch_size, together in ((1, 1), (64, 17)):
        predictor = Predictor(network, protocol="fast", batch_size=batch_size)
        sessions = [predictor.start(image, mask) for _ in clicks]
        for session, click in zip(sessions, clicks, strict=True):
            session.clicks.append(click)
        for start in range(0, len(sessions), together):
            predictor.step(sessions[start : start + together])
        answers.append([session.probabilities() for session in sessions])
    np.testing.assert_array_equal(answers[0], answers[1])
    traces = []
    cases = [make_case(seed, seed % 2 == 0, 90 + 10 * (seed % 3)) for seed in range(7)]
    for batch_size, in_flight in ((1, 1), (16, 5), (3, 32)):
        predictor = Predictor(network, protocol="fast", batch_size=batch_size)
        found = evaluate_cases(predictor, cases, max_clicks=3, in_flight=in_flight)
        traces.append([(t.ious, t.clicks, t.boundary_iou, t.broken_last) for t in found])
    assert traces[0] == traces[1] == traces[2]
