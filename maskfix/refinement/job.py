"""One instance on its way through the predictor: whose clicks come next, and what came out."""

from __future__ import annotations

from dataclasses import dataclass, field

from maskfix.clicks import SimulatedUser, miss
from maskfix.masks import Mask, iou
from maskfix.predictor import Session
from maskfix.refinement.plan import Task
from maskfix.types import Click


@dataclass
class InstanceJob:
    """Follows a script's clicks, all at once, then those of a simulated user, one by one.

    Clicks that the mask already agrees with ask for nothing: the network is not run for them alone,
    but sees them beside others. So a script that is carried out changes nothing a second time.

    Attributes:
        task: what is to be done.
        session: the instance in the predictor.
        reference: the right mask, if known.
        simulate: at most so many simulated clicks.
        target: IoU at which simulated clicks stop.
        jitter, seed, name: how far simulated clicks miss, see `maskfix.clicks.miss`.
        seconds: time spent, its share of every network call it was in.
        used: the clicks so far.
        problem: why it could not be predicted.
    """

    task: Task
    session: Session
    reference: Mask | None = None
    simulate: int = 0
    target: float = 1.0
    jitter: float = 0.0
    seed: int = 0
    name: str = ""
    seconds: float = 0.0
    used: list[Click] = field(default_factory=list)
    problem: str | None = None
    _pending: list[Click] = field(init=False)
    _simulated: int = field(init=False, default=0)
    _user: SimulatedUser | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._pending = list(self.task.script.clicks)
        if self.reference is not None and self.simulate:
            self._user = SimulatedUser(self.reference)

    def next_clicks(self) -> list[Click]:
        """See `maskfix.predictor.drive.Job`."""
        mask = self.session.mask()
        clicks, self._pending = self._pending, []
        self.used += clicks
        if any(mask.contains(round(c.y), round(c.x)) != c.positive for c in clicks):
            return clicks
        simulated = self._next_simulated(mask)
        if simulated is None:
            return []  # clicks that agree with the mask need no run
        self.used.append(simulated)
        return [*clicks, simulated]

    def parts(self) -> tuple[Mask, Mask]:
        """The finished instance's mask, and what was split off from it; empty if nothing was."""
        mask = self.session.mask()
        return mask, Mask.empty(mask.height, mask.width)

    def _next_simulated(self, mask: Mask) -> Click | None:
        if self._user is None or self._simulated >= self.simulate:
            return None
        assert self.reference is not None
        if iou(mask, self.reference) >= self.target:
            return None
        self._simulated += 1
        click = self._user.next_click(mask)
        if click is None:
            return None
        number = self._simulated
        return miss(click, self.jitter, self.seed, self.name, number, mask.height, mask.width)
