"""Jobs to their ends: in threads, in step, within bounds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from maskfix.masks import Mask
from maskfix.model.registry import build_network
from maskfix.predictor import Predictor, Session
from maskfix.predictor import drive as driving
from maskfix.predictor.drive import Places, drive
from maskfix.types import Click

CLICKS = 3


class PlannedJob:
    """Makes its clicks one by one and notes who was in progress beside it."""

    def __init__(self, session: Session, progress: set[int], name: int) -> None:
        self.session, self.name = session, name
        self.seconds = 0.0
        self.problem: str | None = None
        self.most = 0
        self._progress = progress

    def next_clicks(self) -> list[Click]:
        self._progress.add(self.name)
        self.most = max(self.most, len(self._progress))
        made = len(self.session.clicks)
        return [Click(10 + 9 * made, 12 + self.name, True)] if made < CLICKS else []


def image_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (50, 70, 3)).astype(np.uint8)


def run(predictor: Predictor, images: list[np.ndarray], in_flight: int) -> list[PlannedJob]:
    progress: set[int] = set()

    def jobs() -> Iterator[PlannedJob]:
        for name, image in enumerate(images):
            yield PlannedJob(predictor.start(image), progress, name)

    finished = []
    for job in drive(predictor, jobs(), in_flight):
        progress.discard(job.name)
        finished.append(job)
    return sorted(finished, key=lambda job: job.name)


@pytest.fixture
def predictor() -> Iterator[Predictor]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    yield Predictor(build_network("lite").eval(), "fast", zoom_target=64, batch_size=2)
    torch.set_num_threads(before)


def test_threads_and_batches_bring_all_jobs_to_their_ends(predictor: Predictor) -> None:
    images = [image_of(i) for i in range(5)]
    in_threads = run(predictor, images, in_flight=3)
    assert torch.get_num_threads() == 2
    predictor.in_batches = True
    in_step = run(predictor, images, in_flight=3)
    for a, b in zip(in_threads, in_step, strict=True):
        assert len(a.session.clicks) == len(b.session.clicks) == CLICKS
        assert a.seconds > 0 and b.seconds > 0
        assert 1 <= a.most <= 3 and 1 <= b.most <= 3
        assert np.abs(a.session.probabilities() - b.session.probabilities()).max() < 1e-4


@pytest.mark.parametrize("in_batches", [False, True])
def test_a_job_that_fails_ends_alone(predictor: Predictor, in_batches: bool) -> None:
    def fail_on_black(module: object, inputs: tuple[Tensor, ...]) -> None:
        if (inputs[0][:, :3].amax(dim=(1, 2, 3)) == 0).any():
            raise ValueError("cannot see")

    predictor.in_batches = in_batches
    predictor.network.register_forward_pre_hook(fail_on_black)  # type: ignore[union-attr]
    jobs = run(predictor, [image_of(0), np.zeros((50, 70, 3), np.uint8), image_of(2)], 3)
    assert [job.problem for job in jobs] == [None, "ValueError: cannot see", None]
    assert [len(job.session.clicks) for job in jobs] == [CLICKS, 1, CLICKS]


@pytest.mark.parametrize("in_batches", [False, True])
def test_large_images_leave_fewer_places(
    predictor: Predictor, in_batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor.in_batches = in_batches
    first, second = image_of(0), image_of(1)
    monkeypatch.setattr(driving, "IMAGE_BYTES", first.nbytes + 1)
    one_each = run(predictor, [image_of(i) for i in range(4)], in_flight=4)
    assert max(job.most for job in one_each) <= 2  # the second one is over the bound
    shared = run(predictor, [first, first, first, second], in_flight=4)
    assert len(shared) == 4


def test_places_count_an_image_once(predictor: Predictor) -> None:
    image = image_of(0)
    jobs = [PlannedJob(predictor.start(image), set(), i) for i in range(2)]
    places = Places(most=2)
    for job in jobs:
        assert places.is_free
        places.enter(job)
        assert places.image_bytes == image.nbytes
    assert not places.is_free
    places.leave(jobs[0])
    assert places.is_free and places.image_bytes == image.nbytes
    places.leave(jobs[1])
    assert (places.taken, places.image_bytes) == (0, 0)


def test_leaving_early_gives_threads_back(predictor: Predictor) -> None:
    progress: set[int] = set()
    jobs = (PlannedJob(predictor.start(image_of(i)), progress, i) for i in range(4))
    running = drive(predictor, jobs, 2)
    next(running)
    assert torch.get_num_threads() == 1
    running.close()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("protocol", ["fast", "paper"])
def test_sessions_share_the_image(protocol: str) -> None:
    image = image_of(0)
    session = Predictor(lambda *_: {}, protocol).start(image, Mask.empty(50, 70))
    assert session.image is image
