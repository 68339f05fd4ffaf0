"""How many clicks a model needs: the simulated user and the predictor, many instances in step.

`evaluate_cases` runs the loop of the NoC metric (paper, section 5), `summarise` turns its traces
into the numbers of a table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfix import metrics
from maskfix.clicks import IGNORE, SimulatedUser, miss
from maskfix.errors import InstanceError
from maskfix.masks import Mask, boundary_iou
from maskfix.predictor import Predictor, Session
from maskfix.predictor.drive import ClickMethod, drive
from maskfix.rle import Runs
from maskfix.types import Click

THRESHOLDS = (0.80, 0.85, 0.90)
NOC_LIMIT = 20


class Case:
    """One instance to be found by clicks. Masks are kept as run lengths: a set may be large.

    Args:
        name: unique within its set.
        image: reads the image, (H, W, 3) uint8 RGB. Cases of one image that follow each other
            share one loader object: it is then called once for all of them.
        reference: the object.
        ignore: pixels that count for nothing, None for none.
        initial: the mask to start from, None to start from scratch.

    Attributes:
        name, image: as given.
        area: of the object in pixels.
        from_mask: whether there is a mask to start from.
    """

    def __init__(
        self,
        name: str,
        image: Callable[[], NDArray[np.uint8]],
        reference: Mask,
        ignore: Mask | None = None,
        initial: Mask | None = None,
    ) -> None:
        self.name, self.image = name, image
        self.area, self.from_mask = reference.area, initial is not None
        self._reference = Runs.of(reference)
        self._ignore = None if ignore is None else Runs.of(ignore)
        self._initial = None if initial is None else Runs.of(initial)

    @property
    def reference(self) -> Mask:
        """The object."""
        return self._reference.mask()

    @property
    def ignore(self) -> Mask | None:
        """Pixels that count for nothing."""
        return None if self._ignore is None else self._ignore.mask()

    @property
    def initial(self) -> Mask | None:
        """The mask to start from."""
        return None if self._initial is None else self._initial.mask()

    def labels(self) -> NDArray[Any]:
        """The reference as (H, W) bool, or int8 with -1 for ignored pixels where there are any."""
        target = self.reference.to_array()
        ignore = self.ignore
        if ignore is None:
            return target
        labels = target.astype(np.int8)
        labels[ignore.to_array()] = IGNORE
        return labels


@dataclass(frozen=True)
class Rules:
    """When the simulated user stops, and how well he aims.

    Attributes:
        max_clicks: at most so many clicks.
        target_iou: stops when the IoU is there; above 1 he goes on while anything is wrong.
        min_clicks: makes so many clicks at least, if there is anything wrong.
        jitter: clicks miss their pixel by normal noise of so many pixels in x and y, within the
            image; the sign stays, so that a click may fall outside the error it was meant for.
        seed: of the jitter. The noise of a click depends on seed, instance and click number only.
    """

    max_clicks: int = NOC_LIMIT
    target_iou: float = 0.9
    min_clicks: int = 1
    jitter: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened to one case.

    Attributes:
        name: of the case.
        ious: after each click, single precision.
        clicks: made by the simulated user.
        initial_iou: before the first click.
        boundary_iou: in the end; ignored pixels count as background.
        from_mask: whether there was a mask to start from.
        area: of the reference in pixels.
        right: pixels of the image that were right before the first click.
        broken_first, broken_last: those of them that are wrong after the first and the last click.
        seconds_network: its share of the network's time, preparation of inputs included.
        seconds_user: of the simulated user and the measuring.
        seconds_read: to read the image, for the first case of the image; else 0.
        masks: after each click; only kept on request.
    """

    name: str
    ious: tuple[float, ...]
    clicks: tuple[Click, ...]
    initial_iou: float
    boundary_iou: float
    from_mask: bool
    area: int
    right: int
    broken_first: int
    broken_last: int
    seconds_network: float = 0.0
    seconds_user: float = 0.0
    seconds_read: float = 0.0
    masks: tuple[Mask, ...] = ()

    @property
    def counted_ious(self) -> tuple[float, ...]:
        """`ious`; where nothing was wrong and no click was made, the IoU as it was."""
        return self.ious or (self.initial_iou,)


class CaseJob:
    """A case on its way through `drive`: measures, then clicks."""

    def __init__(
        self,
        case: Case,
        position: int,
        session: Session,
        rules: Rules,
        keep_masks: bool,
        at_once: int = 1,
    ) -> None:
        self.case, self.position, self.session, self.rules = case, position, session, rules
        self._at_once = at_once  # users who think at the same time; each has a share of the seconds
        self.problem: str | None = None
        self.seconds = self.seconds_user = self.seconds_read = 0.0
        self.ious: list[float] = []  # the first one before any click
        self.masks: list[Mask] | None = [] if keep_masks else None
        self._labels = case.labels()
        self._user = SimulatedUser(self._labels)
        self._right: NDArray[np.bool_] | None = None
        self._broken: list[int] = []

    def next_clicks(self) -> list[Click]:
        """See `maskfix.predictor.drive.Job`."""
        began = time.perf_counter()
        prediction = self.session.mask().to_array()
        self._measure(prediction)
        click = None if self._is_done() else self._user.next_click(prediction)
        self.seconds_user += (time.perf_counter() - began) / self._at_once
        return [] if click is None else [self._aim(click)]

    def trace(self) -> Trace:
        """The result, when it is finished."""
        case, mask = self.case, self.session.mask()
        ignore = case.ignore
        if ignore is not None:
            mask = Mask.from_array(mask.to_array() & ~ignore.to_array())
        assert self._right is not None
        return Trace(
            name=case.name,
            ious=tuple(self.ious[1:]),
            clicks=tuple(self.session.clicks),
            initial_iou=self.ious[0],
            boundary_iou=boundary_iou(mask, case.reference),
            from_mask=case.from_mask,
            area=case.area,
            right=int(np.count_nonzero(self._right)),
            broken_first=self._broken[min(1, len(self._broken) - 1)],
            broken_last=self._broken[-1],
            seconds_network=self.seconds,
            seconds_user=self.seconds_user,
            seconds_read=self.seconds_read,
            masks=tuple(self.masks or ()),
        )

    def _measure(self, prediction: NDArray[np.bool_]) -> None:
        labels = self._labels
        self.ious.append(float(np.float32(metrics.iou(labels, prediction))))
        is_right = prediction == (labels == 1)
        if labels.dtype != np.bool_:
            is_right &= labels != IGNORE
        if self._right is None:
            self._right = is_right
        self._broken.append(int(np.count_nonzero(self._right & ~is_right)))
        if self.masks is not None and len(self.ious) > 1:
            self.masks.append(self.session.mask())

    def _is_done(self) -> bool:
        rules, made = self.rules, len(self.ious) - 1
        if made >= rules.max_clicks:
            return True
        return made >= rules.min_clicks and bool(metrics.reaches(self.ious[-1], rules.target_iou))

    def _aim(self, click: Click) -> Click:
        height, width = self._labels.shape
        rules, number = self.rules, len(self.ious)
        return miss(click, rules.jitter, rules.seed, self.case.name, number, height, width)


def run_cases(
    predictor: ClickMethod,
    cases: Sequence[Case],
    rules: Rules,
    in_flight: int,
    pool: Executor | None = None,
    keep_masks: bool = False,
) -> Iterator[tuple[int, Trace]]:
    """Run cases in step; one that is finished makes room for the next.

    Args:
        predictor: predicts all of a round together.
        cases: in the order they are begun; those of one image side by side.
        rules: of the simulated user.
        in_flight: so many cases at a time. Traces do not depend on it.
        pool: threads for the simulated users.
        keep_masks: keep the mask after every click in the traces.

    Yields:
        (position of the case, its trace) as cases finish.
    """

    at_once = 1
    if isinstance(predictor, Predictor) and predictor.is_side_by_side:
        at_once = predictor.at_once

    def jobs() -> Iterator[CaseJob]:
        for _, group in groupby(enumerate(cases), key=lambda pair: pair[1].image):
            image, seconds = None, 0.0
            for position, case in group:
                if image is None:
                    began = time.perf_counter()
                    image = case.image()
                    seconds = time.perf_counter() - began
                session = predictor.start(image, case.initial)
                job = CaseJob(case, position, session, rules, keep_masks, at_once)
                job.seconds_read, seconds = seconds, 0.0
                yield job

    for job in drive(predictor, jobs(), in_flight, pool):
        if job.problem:
            raise InstanceError(f"{job.case.name} cannot be predicted: {job.problem}")
        yield job.position, job.trace()


def evaluate_cases(
    predictor: ClickMethod,
    cases: Sequence[Case],
    max_clicks: int = NOC_LIMIT,
    target_iou: float = 0.9,
    in_flight: int = 32,
) -> list[Trace]:
    """Run the simulated user on cases; one trace a case, in order. See `Rules`, `run_cases`."""
    rules = Rules(max_clicks=max_clicks, target_iou=target_iou)
    found = dict(run_cases(predictor, cases, rules, in_flight))
    return [found[position] for position in range(len(cases))]


def summarise(
    traces: Iterable[Trace],
    thresholds: Sequence[float] = THRESHOLDS,
    max_clicks: int = NOC_LIMIT,
) -> dict[str, Any]:
    """The numbers of a table, ready for JSON (None where a number does not exist).

    Args:
        traces: of one set.
        thresholds: of IoU; 0.9 makes keys that end in ``@90``.
        max_clicks: that the traces were made with. Above 20, the NoC keys are given at 20 and, as
            ``noc100@90`` for 100, at that limit.

    Returns:
        ``n``, ``clicks``; for every threshold ``noc@``, ``at_limit@`` (NoC equals the limit, as
        published tables count), ``failed@`` (never reached), ``already@`` (reached without a
        click); ``miou@0``, ``miou@k`` (a list, after 1, 2, ... clicks; finished instances keep
        their last IoU), ``miou_area`` (its mean up to 20); ``biou`` in the end; ``drops``, the
        share of clicks after the first that lower the IoU by more than 1 %; ``spc``, seconds a
        click of network and user; ``spc_published`` with reading the image. From masks also, of
        the instances, ``worse@1`` and ``worse@end`` (IoU lowered by more than 1 % since the
        beginning), and the mean shares ``broken@1`` and ``broken@end`` of initially right pixels
        that are wrong then.
    """
    traces = list(traces)
    if not traces:
        return {"n": 0}
    lists = [trace.counted_ious for trace in traces]
    clicks = sum(len(trace.clicks) for trace in traces)
    result: dict[str, Any] = {"n": len(traces), "clicks": clicks}
    for limit in sorted({min(NOC_LIMIT, max_clicks), max_clicks}):
        suffix = "" if limit <= NOC_LIMIT else str(limit)
        cut = [values[:limit] for values in lists]
        for threshold in thresholds:
            counts = metrics.noc(cut, threshold, limit)
            at = f"{suffix}@{100 * threshold:g}"
            result[f"noc{at}"] = float(counts.mean())
            result[f"at_limit{at}"] = metrics.at_limit(counts, limit)
            result[f"failed{at}"] = metrics.failed(cut, threshold)
    for threshold in thresholds:
        already = [metrics.reaches(trace.initial_iou, threshold) for trace in traces]
        result[f"already@{100 * threshold:g}"] = int(np.sum(already))
    curve = metrics.miou_curve(lists, max_clicks)
    result["miou@0"] = _mean([trace.initial_iou for trace in traces])
    result["miou@k"] = [_number(value) for value in curve]
    result["miou_area"] = _mean(curve[:NOC_LIMIT])
    result["biou"] = _mean([trace.boundary_iou for trace in traces])
    result["drops"] = metrics.drops([trace.ious for trace in traces])
    result |= _harm([trace for trace in traces if trace.from_mask])
    seconds = sum(trace.seconds_network + trace.seconds_user for trace in traces)
    reading = sum(trace.seconds_read for trace in traces)
    result["spc"] = seconds / clicks if clicks else None
    result["spc_published"] = (seconds + reading) / clicks if clicks else None
    return result


def _harm(traces: list[Trace]) -> dict[str, float | None]:
    """What became of masks that were given."""
    first = [t.counted_ious[0] < t.initial_iou - metrics.DROP for t in traces]
    last = [t.counted_ious[-1] < t.initial_iou - metrics.DROP for t in traces]
    return {
        "worse@1": _mean(first),
        "worse@end": _mean(last),
        "broken@1": _mean([t.broken_first / max(1, t.right) for t in traces]),
        "broken@end": _mean([t.broken_last / max(1, t.right) for t in traces]),
    }


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
