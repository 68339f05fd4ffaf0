"""Clicks and masks in, better masks out: arrays outside, tensors inside.

A `Predictor` runs many instances at once, each with its own image, clicks and previous mask. How an
instance is shown to the network is a protocol's business (`paper`, `fast`); what happens between
two clicks is a `Session`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maskfix.clicks import MASK_THRESHOLD
from maskfix.errors import UsageError
from maskfix.masks import Mask
from maskfix.model.checkpoint import Model
from maskfix.model.inference import prepare
from maskfix.predictor.fast import FastProtocol
from maskfix.predictor.paper import PaperProtocol
from maskfix.predictor.session import FloatArray, Session, View
from maskfix.types import Click

Network = Callable[[Tensor, Tensor], dict[str, Tensor]]

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
        zoom_target: overrides the protocol's.
        flip: average the answers for the image and its mirror image; by default with ``paper``.
        threshold: a pixel is in the mask where its probability is above this.
        batch_size: most network inputs in one call; a flip counts as one more. On the CPU every
            instance has a call of its own.
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
        self.network = prepare(network) if isinstance(network, nn.Module) else network
        self.with_mask = bool(getattr(network, "with_prev_mask", True))
        parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
        self.device = next((p.device for p in parameters), torch.device("cpu"))
        self._last: tuple[Session, NDArray[np.uint8], FloatArray] | None = None

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
                self._replay([session])
            else:
                self.step([session])
        answer = session.probabilities()
        self._last = (session, image, answer)
        return answer

    def predict_many(self, requests: Sequence[Request]) -> list[FloatArray]:
        """`predict` for many instances together; answers agree to 1e-4, on the CPU exactly."""
        sessions = []
        for request in requests:
            session = self.start(request.image, request.mask)
            session.clicks = list(request.clicks)
            sessions.append(session)
        given = [request.mask is not None for request in requests]
        self.step([s for s, has_mask in zip(sessions, given, strict=True) if has_mask])
        self._replay([s for s, has_mask in zip(sessions, given, strict=True) if not has_mask])
        return [session.probabilities() for session in sessions]

    def start(self, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None = None) -> Session:
        """Begin an instance. Append clicks to its ``clicks``, then call `step`."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"image: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
            )
        return self.protocol.start(image, mask)

    @torch.inference_mode()
    def step(self, sessions: Sequence[Session], failures: dict[Session, str] | None = None) -> None:
        """Predict each session's mask anew from its clicks and its present mask.

        Args:
            sessions: to be predicted together.
            failures: if given, a session that cannot be predicted is put there with the reason,
                and the others are; else the error is raised.
        """
        waiting = list(sessions)
        while waiting:
            again: list[Session] = []
            groups: dict[tuple[int, ...], list[tuple[Session, View]]] = {}
            most = self.at_once
            for session in waiting:
                try:
                    view = session.view()
                except Exception as error:
                    note_failure(session, error, failures)
                    continue
                group = groups.setdefault(tuple(view.image.shape), [])
                group.append((session, view))
                if len(group) == most:
                    again += self._run_safely(group, failures)
                    group.clear()
            for group in groups.values():
                if group:
                    again += self._run_safely(group, failures)
            waiting = again

    def _run_safely(
        self, group: list[tuple[Session, View]], failures: dict[Session, str] | None
    ) -> list[Session]:
        """`_run`, in halves where a batch fails: memory may hold those, and the rest is saved."""
        try:
            return self._run(group)
        except Exception as error:
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
            if len(group) == 1 or not (out_of_memory or failures is not None):
                note_failure(group[0][0], error, failures)
                return []
        half = len(group) // 2
        if out_of_memory:
            self.batch_size = half * (2 if self.flip else 1)
        return self._run_safely(group[:half], failures) + self._run_safely(group[half:], failures)

    @property
    def at_once(self) -> int:
        """Sessions in one network call.

        One on the CPU: larger batches gain nothing there, and round differently from smaller ones,
        so that an answer would depend on what else is in its batch.
        """
        if self.device.type == "cpu":
            return 1
        return max(1, self.batch_size // (2 if self.flip else 1))

    def _run(self, group: list[tuple[Session, View]]) -> list[Session]:
        """One network call; returns the sessions that want another look."""
        views = [view for _, view in group]
        image, points = network_inputs(views, self.with_mask, self.flip)
        logits = self.network(image.to(self.device), points.to(self.device))["instances"].float()
        if self.flip:
            logits = average_mirrored(logits)
        answers = logits.sigmoid().cpu().numpy()[:, 0]
        return [s for (s, _), answer in zip(group, answers, strict=True) if s.accept(answer)]

    def _replay(self, sessions: list[Session]) -> None:
        """Follow the clicks one by one; all sessions move in step."""
        clicks = {id(session): session.clicks for session in sessions}
        for session in sessions:
            session.clicks = []
        for number in range(max((len(c) for c in clicks.values()), default=0)):
            moving = [s for s in sessions if number < len(clicks[id(s)])]
            for session in moving:
                session.clicks.append(clicks[id(session)][number])
            self.step(moving)

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
        if not clicks or list(clicks[:-1]) != session.clicks or not _same(image, last_image):
            return None
        if session.given if mask is None else not _same(mask, answer):
            return None
        session.clicks.append(clicks[-1])
        self.step([session])
        return session


def note_failure(session: Session, error: Exception, failures: dict[Session, str] | None) -> None:
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


def _same(a: NDArray[Any] | Mask, b: NDArray[Any]) -> bool:
    return a is b or (isinstance(a, np.ndarray) and np.array_equal(a, b))


def network_inputs(views: Sequence[View], with_mask: bool, flip: bool) -> tuple[Tensor, Tensor]:
    """Images and points of a batch as `ClickNetwork` takes them; with `flip` their mirror images
    follow."""
    image = torch.stack([view.image for view in views])
    if with_mask:
        image = torch.cat([image, torch.stack([view.mask for view in views])], dim=1)
    points = pack_points(views)
    if flip:
        image = torch.cat([image, image.flip(3)])
        points = torch.cat([points, mirror_points(points, image.shape[3])])
    return image.contiguous(memory_format=torch.channels_last), points


def average_mirrored(logits: Tensor) -> Tensor:
    """Logits of images followed by those of their mirror images, (2B, 1, H, W) -> (B, 1, H, W)."""
    straight, mirrored = logits.chunk(2)
    return (straight + mirrored.flip(3)) / 2


def pack_points(views: Sequence[View]) -> Tensor:
    """The points tensor of a batch, (B, 2N, 3) float32; see `ClickNetwork`."""
    most = max(
        1,
        *(sum(p.positive for p in view.points) for view in views),
        *(sum(not p.positive for p in view.points) for view in views),
    )
    packed = torch.full((len(views), 2 * most, 3), -1.0)
    for b, view in enumerate(views):
        free = {True: 0, False: most}
        for point in view.points:
            packed[b, free[point.positive]] = torch.tensor(
                [point.row, point.col, point.index], dtype=torch.float32
            )
            free[point.positive] += 1
    return packed


def mirror_points(points: Tensor, width: int) -> Tensor:
    """The points of the mirror image; unused slots stay."""
    mirrored = points.clone()
    used = points[..., :2].amax(-1) >= 0
    mirrored[..., 1] = torch.where(used, width - 1 - points[..., 1], points[..., 1])
    return mirrored
