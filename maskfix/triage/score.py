"""From signs to a score, and to reasons in words.

The score is a logistic model of "this mask is wrong", for data where one mask in five is. Weights
of what network and image say were fitted on training images (110 masks of DUTS, 140 of CCP, each
right and damaged); those of odd shapes, which are too rare there, were set by hand.
"""

from __future__ import annotations

import math

from maskfix.triage.probe import Signs
from maskfix.triage.shapes import Oddities

BIAS = 13.7
DISAGREEMENT, BORDER, OFFSET = 5.2, 1.7, 0.02
"""Weights of log(value + OFFSET)."""

EDGE = -0.6

ODD = {"crumbs": 0.7, "box": 1.0, "cut": 0.7, "twin": 1.5, "holds": 1.5}
"""What each oddity adds."""

MANY_CRUMBS = 3

MUCH, FEW_EDGES, LITTLE = 0.08, 1.5, 0.4
"""Where a sign is worth a word: beyond these, masks of training images are rarely right."""


def score_of(signs: Signs, odd: Oddities) -> float:
    """How likely a mask is to be wrong, 0..1."""
    logit = BIAS + EDGE * signs.edge
    logit += DISAGREEMENT * math.log(signs.disagreement + OFFSET)
    logit += BORDER * math.log(signs.border + OFFSET)
    logit += sum(ODD[name] for name in _names(odd))
    return 1 / (1 + math.exp(-logit))


def reasons_of(signs: Signs, odd: Oddities) -> list[str]:
    """Why a mask may be wrong, most telling first."""
    words = []
    if signs.disagreement >= MUCH:
        words.append(
            f"the network would add {signs.added:.0%} and remove {signs.removed:.0%} of it"
        )
    names = _names(odd)
    if "twin" in names:
        words.append(f"nearly the same as instance {odd.twin}")
    if "holds" in names:
        words.append(f"lies over instances {', '.join(odd.holds)}: several objects in one?")
    if "box" in names:
        words.append("it is a box")
    if "cut" in names:
        words.append(f"cut straight at {' and '.join(odd.cut)}")
    if "crumbs" in names:
        words.append(f"{odd.crumbs} crumbs")
    if signs.found < LITTLE:
        words.append(f"a click in its middle finds only {signs.found:.0%} of it")
    if signs.edge < FEW_EDGES:
        words.append("its outline is not on edges of the image")
    return words


def _names(odd: Oddities) -> list[str]:
    """The oddities that count."""
    there = {
        "crumbs": odd.crumbs >= MANY_CRUMBS,
        "box": odd.box,
        "cut": bool(odd.cut),
        "twin": odd.twin is not None,
        "holds": bool(odd.holds),
    }
    return [name for name, counts in there.items() if counts]
