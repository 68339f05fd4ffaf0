"""What holds whatever the network answers: stub networks, hostile ones among them, and chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfix.formats import Annotation, ImageItem
from maskfix.formats.click_script import ById, InstanceScript
from maskfix.masks import Mask
from maskfix.predictor import FastProtocol, PaperProtocol, Predictor
from maskfix.predictor.drive import drive
from maskfix.predictor.fast import FastSession
from maskfix.refinement.job import InstanceJob
from maskfix.refinement.outcome import Outcome, conclude
from maskfix.refinement.plan import Task
from maskfix.types import Click

Answer = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]


def noise(image: torch.Tensor, points: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    return torch.randn(image[:, :1].shape, generator=chance) * 8


def blobs(image: torch.Tensor, points: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    coarse = torch.randn((len(image), 1, 4, 4), generator=chance) * 8
    return torch.nn.functional.interpolate(coarse, image.shape[2:], mode="bilinear")


def contrary(image: torch.Tensor, points: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """The mask turned inside out, and the opposite of every click around it."""
    logits = 8 - 16 * image[:, 3:4]
    half = points.shape[1] // 2
    for slot, (row, col, _) in enumerate(points[0].tolist()):
        if row >= 0:
            top, left = max(0, int(row) - 6), max(0, int(col) - 6)
            logits[:, :, top : top + 13, left : left + 13] = -8 if slot < half else 8
    return logits


ANSWERS: dict[str, Answer] = {
    "noise": noise,
    "blobs": blobs,
    "contrary": contrary,
    "everything": lambda image, points, chance: torch.full_like(image[:, :1], 8),
    "nothing": lambda image, points, chance: torch.full_like(image[:, :1], -8),
    "the mask": lambda image, points, chance: 16 * image[:, 3:4] - 8,
}


class Stub:
    """A network that answers as told, and counts its calls."""

    def __init__(self, answer: str, seed: int) -> None:
        self.answer, self.calls = ANSWERS[answer], 0
        self.chance = torch.Generator().manual_seed(seed)

    def __call__(self, image: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"instances": self.answer(image, points, self.chance)}


class Case:
    """A mask on an image and clicks, drawn by chance; no two clicks on one pixel."""

    def __init__(self, seed: int, answer: str) -> None:
        rng = np.random.default_rng(seed)
        self.height, self.width = (int(n) for n in rng.integers(20, 90, 2))
        self.image = rng.integers(0, 256, (self.height, self.width, 3)).astype(np.uint8)
        coarse = rng.random((4, 4)) < rng.uniform(0.1, 0.9)
        coarse[tuple(rng.integers(0, 4, 2))] = True
        big = np.kron(coarse, np.ones((self.height // 4, self.width // 4), bool))
        self.start = Mask.from_array(
            np.pad(big, ((0, self.height - len(big)), (0, self.width - len(big[0]))))
        )
        pixels = rng.permutation(self.height * self.width)[: rng.integers(1, 6)]
        self.clicks = tuple(
            Click(int(p % self.width), int(p // self.width), bool(rng.random() < 0.5))
            for p in pixels
        )
        self.stub = Stub(answer, seed % 2**31)

    def predictor(self, protocol: FastProtocol | PaperProtocol) -> Predictor:
        return Predictor(self.stub, protocol)


def refine(
    predictor: Predictor, case: Case, start: Mask, clicks: tuple[Click, ...], guard: str
) -> tuple[Mask, Outcome]:
    """What `maskfix refine` does with one instance: its mask afterwards, and its outcome."""
    annotation = Annotation(0, 1, 0, "thing", 1, start)
    item = ImageItem(0, 1, "a.png", None, case.height, case.width, (annotation,))
    task = Task(annotation, InstanceScript(ById(1), clicks), start)
    [job] = drive(predictor, [InstanceJob(task, predictor.start(case.image, start))], 1)
    assert not job.problem, job.problem
    outcome = conclude(item, task, *job.parts(), job.used, None, 0, guard)  # type: ignore[arg-type]
    masks = [edit.mask for edit in outcome.edits if edit.mask is not None]
    return masks[0] if masks else start, outcome


def agrees(mask: Mask, clicks: tuple[Click, ...]) -> bool:
    return all(mask.contains(int(c.y), int(c.x)) == c.positive for c in clicks)


cases = st.builds(Case, st.integers(0, 2**32 - 1), st.sampled_from(list(ANSWERS)))
protocols = st.sampled_from(
    [FastProtocol(zoom_target=64), PaperProtocol(zoom_target=64), PaperProtocol(zoom_target=None)]
)


@settings(max_examples=80, deadline=None)
@given(cases, protocols, st.sampled_from(["normal", "strict"]), st.randoms())
def test_accepted_masks_agree_with_all_clicks_in_any_order_and_run_again_change_nothing(
    case: Case, protocol: FastProtocol | PaperProtocol, guard: str, chance: object
) -> None:
    clicks = list(case.clicks)
    chance.shuffle(clicks)  # type: ignore[attr-defined]
    for order in (case.clicks, case.clicks[::-1], tuple(clicks)):
        predictor = case.predictor(protocol)
        mask, outcome = refine(predictor, case, case.start, order, guard)
        if outcome.row.status == "rejected":
            assert mask == case.start and outcome.row.reason
            continue
        assert agrees(mask, order)
        calls = case.stub.calls
        again, outcome = refine(predictor, case, mask, order, guard)
        assert again == mask and outcome.row.status == "unchanged" and case.stub.calls == calls


@settings(max_examples=60, deadline=None)
@given(cases)
def test_the_fast_protocol_obeys_clicks_even_without_a_guard(case: Case) -> None:
    predictor = case.predictor(FastProtocol(zoom_target=64))
    assert agrees(refine(predictor, case, case.start, case.clicks, "off")[0], case.clicks)
    for start in (case.start, None):  # one click after the other
        session = predictor.start(case.image, start)
        for number, click in enumerate(case.clicks):
            if not number and start is None:  # nothing can be found without a positive click
                click = Click(click.x, click.y, True)
            session.clicks.append(click)
            predictor.step([session])
            assert agrees(session.mask(), tuple(session.clicks))


@settings(max_examples=60, deadline=None)
@given(cases)
def test_nothing_changes_outside_the_region_of_influence(case: Case) -> None:
    """The crop: a box around mask and positive clicks, `expansion` times as large in each
    direction, then grown to the shape of a network input."""
    protocol = FastProtocol(zoom_target=64, min_crop=8)
    predictor = case.predictor(protocol)
    session = predictor.start(case.image, case.start)
    assert isinstance(session, FastSession)
    session.clicks = list(case.clicks)
    predictor.step([session])
    region = session.region
    assert region is not None
    changed = session.mask().to_array() ^ case.start.to_array()
    changed[region.slices] = False
    assert not changed.any()
    box = case.start.box
    rows = [box.top, box.bottom - 1, *(c.y for c in case.clicks if c.positive)]
    cols = [box.left, box.right - 1, *(c.x for c in case.clicks if c.positive)]
    tall = max(8, protocol.expansion * (max(rows) - min(rows) + 1))
    broad = max(8, protocol.expansion * (max(cols) - min(cols) + 1))
    size = protocol.size_for(tall, broad)
    shape = size.height / size.width
    assert region.height <= max(tall, shape * broad) + 1
    assert region.width <= max(broad, tall / shape) + 1


@pytest.mark.parametrize("answer", list(ANSWERS))
def test_clicks_that_the_mask_agrees_with_are_not_shown_to_the_network(answer: str) -> None:
    for seed in range(5):
        case = Case(seed, answer)
        satisfied = tuple(
            Click(c.x, c.y, case.start.contains(int(c.y), int(c.x))) for c in case.clicks
        )
        predictor = case.predictor(FastProtocol(zoom_target=64))
        mask, outcome = refine(predictor, case, case.start, satisfied, "normal")
        assert mask == case.start and outcome.row.status == "unchanged" and not case.stub.calls
