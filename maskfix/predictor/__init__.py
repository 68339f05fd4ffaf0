"""Clicks and masks in, better masks out: arrays outside, tensors inside.

A `Predictor` runs many instances at once, each with its own image, clicks and previous mask. How an
instance is shown to the network is a protocol's business (`paper`, `fast`); what happens between
two clicks is a `Session`'s.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maskfix.clicks import MASK_THRESHOLD
from maskfix.errors import UsageError
from maskfix.masks import Mask
from maskfix.model.checkpoint import Model
from maskfix.model.graphs import Recorded
from maskfix.model.inference import halve, one_thread_a_call, pack, prepare
from maskfix.model.network import ClickNetwork
from maskfix.predictor.fast import FastProtocol
from maskfix.predictor.paper import PaperProtocol
from maskfix.predictor.session import FloatArray, Session, View
from maskfix.types import Click

Digest = tuple[tuple[int, ...], str, int]
Network = Callable[[Tensor, Tensor], dict[str, Tensor]]
T = TypeVar("T")
P = ParamSpec("P")
Group = list[tuple[Session, View]]  # of views of one size, for one network call

IN_BATCHES = 8  # batches' worth of sessions in progress

__all__ = ["FastProtocol", "PaperProtocol", "Predictor", "Request", "Session"]


@dataclass(frozen=True)
class Request:
    """One instance for `Predictor.predict_many`; fields as the arguments of `Predictor.predict`."""

    image: NDArray[np.uint8]
    clicks: Sequence[Click]
    mask: NDArray[Any] | Mask | None = None


class Predictor:
    """Predicts masks from clicks, with or without masks to start from.

    Args:
        model: a `Model`, or any callable that takes the tensors that
            `maskfix.model.network.ClickNetwork` describes.
        protocol: ``"paper"``, ``"fast"``, or a configured `PaperProtocol` or `FastProtocol`;
            by default the model's own.
        zoom_target: overrides the protocol's. ``"paper"`` knows a longest side, (height, width),
            and None for no zooming; ``"fast"`` the side of its square crops.
        flip: average the answers for the image and its mirror image; by default with ``paper``.
        threshold: a pixel is in the mask where its probability is above this; a configured protocol
            has its own.
        batch_size: most network inputs in one call; a flip counts as one more. On the CPU every
            instance has a call of its own, as many side by side as torch has threads.

    Attributes:
        logits: what the network answers to the tensors that `ClickNetwork` describes, on its
            device: (B, 1, H, W) float32. To be called in inference mode.
    """

    def __init__(
        self,
        model: Model | Network,
        protocol: Literal["paper", "fast"] | PaperProtocol | FastProtocol | None = None,
        zoom_target: int | tuple[int, int] | Literal["default"] | None = "default",
        flip: bool | None = None,
        threshold: float = MASK_THRESHOLD,
        batch_size: int = 16,
    ) -> None:
        network = model.network if isinstance(model, Model) else model
        if protocol is None:
            protocol = model.protocol if isinstance(model, Model) else "paper"
        settings = _settings(protocol, threshold)
        if zoom_target != "default":
            settings = replace(settings, zoom_target=zoom_target)  # type: ignore[arg-type]
        self.protocol = settings
        self.flip = isinstance(settings, PaperProtocol) if flip is None else flip
        self.batch_size = batch_size
        self.network = network
        half = isinstance(model, Model) and model.precision == "bfloat16"
        if isinstance(network, nn.Module):
            keep, prepared = isinstance(settings, FastProtocol), prepare(network)
            self.network = pack(halve(prepared) if half else prepared, keep)
        self.with_mask = bool(getattr(network, "with_prev_mask", True))
        parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
        self.device = next((p.device for p in parameters), torch.device("cpu"))
        self.in_batches = self.device.type != "cpu"
        logits = partial(_logits, self.network, half)
        is_recorded = self.device.type == "cuda" and isinstance(network, ClickNetwork)
        self.logits = Recorded(logits, batch_size) if is_recorded else logits
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, "predict")
        self._last: tuple[Session, Digest, Digest] | None = None  # of image and answer

    def predict(
        self,
        image: NDArray[np.uint8],
        clicks: Sequence[Click],
        mask: NDArray[Any] | Mask | None = None,
    ) -> FloatArray:
        """Predict one instance.

        Without a mask the clicks are followed one after the other, as if a person had waited for
        each answer. With a mask, that is the mask of the previous step (a prediction, or one from
        elsewhere), and all clicks are shown at once. A call that adds one click to the call before,
        on the same image, with no mask or with what that call returned, goes on from
        there: the region that was looked at is kept, as in the published loop.

        Args:
            image: (H, W, 3) uint8 RGB.
            clicks: all clicks of the instance in order, in image pixels.
            mask: (H, W) bool, or probabilities in [0, 1].

        Returns:
            (H, W) float32 probabilities.
        """
        session = self._continue(image, clicks, mask)
        if session is None:
            session = self.start(image, mask)
            session.clicks = list(clicks)
            if mask is None:
                self._replay([session], lambda sessions: self.step_here(sessions[0]))
            else:
                self.step_here(session)
        answer = session.probabilities()
        self._last = (session, _digest(image), _digest(answer))
        return answer

    def predict_many(self, requests: Sequence[Request]) -> list[FloatArray]:
        """`predict` for many instances together; answers agree to 1e-4.

        On the CPU an answer does not depend on what else is asked for, nor on the number of
        threads, to the bit.
        """
        sessions = []
        for request in requests:
            session = self.start(request.image, request.mask)
            session.clicks = list(request.clicks)
            sessions.append(session)
        given = [request.mask is not None for request in requests]
        self.step([s for s, has_mask in zip(sessions, given, strict=True) if has_mask])
        self._replay(
            [s for s, has_mask in zip(sessions, given, strict=True) if not has_mask], self.step
        )
        return [session.probabilities() for session in sessions]

    def start(self, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None = None) -> Session:
        """Begin an instance. Append clicks to its ``clicks``, then call `step`."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"image: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
            )
        return self.protocol.start(image, mask)

    def step(self, sessions: Sequence[Session], failures: dict[Session, str] | None = None) -> None:
        """Predict each session's mask anew from its clicks and its present mask.

        Args:
            sessions: to be predicted together.
            failures: if given, a session that cannot be predicted is put there with the reason,
                and the others are; else the error is raised.
        """
        with one_thread_a_call():
            if not self.in_batches:
                self._step_each(sessions, failures)
                return
            for first in range(0, len(sessions), self.in_flight):  # all at once may fill the memory
                self._step_in_batches(sessions[first : first + self.in_flight], failures)

    def step_here(self, session: Session) -> None:
        """`step` for one session in the calling thread; in an answer's last bits it may differ from
        `step` unless `one_thread_a_call` is in force."""
        if self.in_batches:
            self._step_in_batches([session], None)
            return
        while session.accept(self._ask([session.view()]).of(0)):
            pass

    @property
    def is_side_by_side(self) -> bool:
        """Whether sessions are predicted in threads, each by itself.

        So it is on the CPU: larger batches gain nothing there, and round differently from smaller
        ones, so that an answer would depend on what else is in its batch. Of networks that are not
        ours we do not know whether threads may share them.
        """
        return not self.in_batches and isinstance(self.network, ClickNetwork)

    @property
    def at_once(self) -> int:
        """Sessions predicted at a time: in one network call, or in as many threads."""
        if self.in_batches:
            return max(1, self.batch_size // (2 if self.flip else 1))
        return self._threads if self.is_side_by_side else 1

    @property
    def in_flight(self) -> int:
        """Sessions to have in progress: in batches so many that those of every size fill up."""
        return (IN_BATCHES if self.in_batches else 2) * self.at_once

    def submit(self, task: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run something in one of the threads that predict; to be used, and waited for, while
        `one_thread_a_call` is in force."""

        def run() -> T:
            if torch.get_num_threads() > 1:  # a setting that every thread has for itself
                torch.set_num_threads(1)
            return task(*args, **kwargs)

        return self._pool.submit(run)

    def _step_each(self, sessions: Sequence[Session], failures: dict[Session, str] | None) -> None:
        """A network call for every session."""
        for session, result in list(self._try(self.step_here, sessions)):
            if isinstance(result, Exception):
                note_failure(session, result, failures)

    def _try(
        self, task: Callable[[Session], T], sessions: Sequence[Session]
    ) -> Iterator[tuple[Session, T | Exception]]:
        """What becomes of each session, in order: a result, or the error that was raised."""

        def attempt(session: Session) -> T | Exception:
            try:
                return task(session)
            except Exception as error:
                return error

        if self.in_batches or self.is_side_by_side:
            running = [self.submit(attempt, session) for session in sessions]
            results: Iterator[T | Exception] = (future.result() for future in running)
        else:
            results = map(attempt, sessions)
        return zip(sessions, results, strict=True)

    def _step_in_batches(
        self, sessions: Sequence[Session], failures: dict[Session, str] | None
    ) -> None:
        """Few calls for many sessions; the device need not wait for what is done with answers."""
        waiting = list(sessions)
        while waiting:
            accepting: list[tuple[Session, Future[bool]]] = []
            try:
                for group in self._groups(waiting, failures):
                    for part, answer in self._ask_safely(group, failures):
                        accepting += [
                            (session, self.submit(_take, session, answer, number))
                            for number, (session, _) in enumerate(part)
                        ]
            finally:  # nothing goes on behind the caller's back
                wait([future for _, future in accepting])
            waiting = []
            for session, future in accepting:
                if (error := future.exception()) is not None:
                    note_failure(session, error, failures)
                elif future.result():
                    waiting.append(session)

    def _groups(
        self, sessions: Sequence[Session], failures: dict[Session, str] | None
    ) -> Iterator[Group]:
        """Sessions with their views, of one size each, at most `at_once` together."""
        groups: dict[tuple[int, ...], Group] = {}
        for session, view in self._try(lambda session: session.view(), sessions):
            if isinstance(view, Exception):
                note_failure(session, view, failures)
                continue
            group = groups.setdefault(tuple(view.image.shape), [])
            group.append((session, view))
            if len(group) >= self.at_once:
                yield groups.pop(tuple(view.image.shape))
        yield from groups.values()

    def _ask_safely(
        self, group: Group, failures: dict[Session, str] | None
    ) -> list[tuple[Group, Answer]]:
        """`_ask`, in halves where a batch fails: memory may hold those."""
        try:
            return [(group, self._ask([view for _, view in group]))]
        except Exception as error:
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
            if len(group) == 1 or not (out_of_memory or failures is not None):
                note_failure(group[0][0], error, failures)
                return []
        half = len(group) // 2
        if out_of_memory:
            if isinstance(self.logits, Recorded):
                self.logits.stop()
            self.batch_size = half * (2 if self.flip else 1)
        return self._ask_safely(group[:half], failures) + self._ask_safely(group[half:], failures)

    @torch.inference_mode()
    def _ask(self, views: Sequence[View]) -> Answer:
        """The network's answer to views of one size; the device may still be at work on it."""
        on_cuda = self.device.type == "cuda"
        image, points = network_inputs(views, self.with_mask, self.flip, pinned=on_cuda)
        image = image.to(self.device, non_blocking=on_cuda)
        points = points.to(self.device, non_blocking=on_cuda)
        logits = self.logits(image, points)
        if self.flip:
            logits = average_mirrored(logits)
        return Answer(logits.sigmoid())

    def _replay(self, sessions: list[Session], step: Callable[[Sequence[Session]], None]) -> None:
        """Follow the clicks one by one; all sessions move in step."""
        clicks = {id(session): session.clicks for session in sessions}
        for session in sessions:
            session.clicks = []
        for number in range(max((len(c) for c in clicks.values()), default=0)):
            moving = [s for s in sessions if number < len(clicks[id(s)])]
            for session in moving:
                session.clicks.append(clicks[id(session)][number])
            step(moving)

    def _continue(
        self,
        image: NDArray[np.uint8],
        clicks: Sequence[Click],
        mask: NDArray[Any] | Mask | None,
    ) -> Session | None:
        """The session of the call before, taken one click further, if this call is its sequel."""
        if self._last is None:
            return None
        session, last_image, answer = self._last
        if not clicks or list(clicks[:-1]) != session.clicks or _digest(image) != last_image:
            return None
        if mask is None:
            is_sequel = not session.given
        else:
            is_sequel = isinstance(mask, np.ndarray) and _digest(mask) == answer
        if not is_sequel:
            return None
        session.clicks.append(clicks[-1])
        self.step_here(session)
        return session


def _logits(network: Network, half: bool, image: Tensor, points: Tensor) -> Tensor:
    """(B, 1, h, w) float32 on the device."""
    kind = image.device.type
    with torch.autocast(kind, torch.bfloat16, cache_enabled=False) if half else nullcontext():
        return network(image, points)["instances"].float()


class Answer:
    """A network's answer on its way from the device, (B, 1, h, w) probabilities.

    From CUDA it comes as soon as it is ready, whatever the device has been asked since.
    """

    def __init__(self, probabilities: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if not probabilities.is_cuda:
            self._values = probabilities.cpu()
            return
        self._device = probabilities.device
        self._values = torch.empty(probabilities.shape, pin_memory=True)
        self._values.copy_(probabilities, non_blocking=True)
        self._arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._arrived.record(torch.cuda.current_stream(self._device))

    def of(self, number: int) -> FloatArray:
        """(h, w), one of the batch; waits for it."""
        values: FloatArray = self._values.numpy()[number, 0]
        if self._arrived is not None:
            with torch.cuda.device(self._device):  # else the thread would wake the first GPU
                self._arrived.synchronize()
            values = values.copy()  # pinned memory is dear
        return values


def _take(session: Session, answer: Answer, number: int) -> bool:
    return session.accept(answer.of(number))


def note_failure(
    session: Session, error: BaseException, failures: dict[Session, str] | None
) -> None:
    """Put a failed session among the failures, with one line; without such a dict, raise."""
    if failures is None:
        raise error
    failures[session] = " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _settings(
    protocol: str | PaperProtocol | FastProtocol, threshold: float
) -> PaperProtocol | FastProtocol:
    if not isinstance(protocol, str):
        return protocol
    if protocol == "paper":
        return PaperProtocol(threshold=threshold)
    if protocol == "fast":
        return FastProtocol(threshold=threshold)
    raise UsageError(f"protocol: expected paper or fast, found {protocol!r}")


def _digest(array: NDArray[Any]) -> Digest:
    """What tells whether an array holds what it held; the array itself may be filled anew."""
    return array.shape, array.dtype.str, zlib.crc32(np.ascontiguousarray(array).data)


def network_inputs(
    views: Sequence[View], with_mask: bool, flip: bool, pinned: bool = False
) -> tuple[Tensor, Tensor]:
    """Images and points of a batch as `ClickNetwork` takes them; with `flip` their mirror images
    follow. `pinned` is memory that CUDA fetches from by itself."""
    count, size = len(views), views[0].image.shape[1:]
    image = torch.empty(
        (2 * count if flip else count, 4 if with_mask else 3, *size),
        memory_format=torch.channels_last,
        pin_memory=pinned,
    )
    for row, view in zip(image, views, strict=False):
        row[:3] = view.image
        if with_mask:
            row[3:] = view.mask
    points = pack_points(views)
    if flip:
        image[count:] = image[:count].flip(3)
        points = torch.cat([points, mirror_points(points, image.shape[3])])
    return image, points.pin_memory() if pinned else points


def average_mirrored(logits: Tensor) -> Tensor:
    """Logits of images followed by those of their mirror images, (2B, 1, H, W) -> (B, 1, H, W)."""
    straight, mirrored = logits.chunk(2)
    return (straight + mirrored.flip(3)) / 2


def pack_points(views: Sequence[View]) -> Tensor:
    """The points tensor of a batch, (B, 2N, 3) float32; see `ClickNetwork`."""
    most = 1
    for view in views:
        positive = sum(point.positive for point in view.points)
        most = max(most, positive, len(view.points) - positive)
    packed = np.full((len(views), 2 * most, 3), -1, np.float32)
    for rows, view in zip(packed, views, strict=True):
        free = {True: 0, False: most}
        for point in view.points:
            rows[free[point.positive]] = point.row, point.col, point.index
            free[point.positive] += 1
    return torch.from_numpy(packed)


def mirror_points(points: Tensor, width: int) -> Tensor:
    """The points of the mirror image; unused slots stay."""
    mirrored = points.clone()
    used = points[..., :2].amax(-1) >= 0
    mirrored[..., 1] = torch.where(used, width - 1 - points[..., 1], points[..., 1])
    return mirrored
