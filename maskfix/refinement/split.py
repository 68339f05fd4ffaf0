"""Telling two instances in one mask apart."""

from __future__ import annotations

from collections.abc import Sequence

from maskfix.masks import Mask, components, subtract, union
from maskfix.types import Click


def split_mask(mask: Mask, result: Mask, clicks: Sequence[Click]) -> tuple[Mask, Mask]:
    """Divide a mask between its positive and its negative clicks.

    Parts that do not touch go to the side whose clicks they hold. Within a part that holds both
    kinds, the network's result draws the line; what it cuts off there without a click of that side
    in it stays where it was cut from.

    Args:
        mask: both instances together.
        result: the network's mask for the positive clicks.
        clicks: positive ones on the part that is kept, negative ones on the other.

    Returns:
        the kept part and the other; together they are the mask.
    """
    rest = Mask.empty(mask.height, mask.width)
    for part in components(mask):
        if not _holds(part, clicks, positive=False):
            continue
        if not _holds(part, clicks, positive=True):
            rest = union(rest, part)
            continue
        for piece in components(subtract(part, result)):
            if _holds(piece, clicks, positive=False):
                rest = union(rest, piece)
        for piece in components(subtract(part, rest)):
            if not _holds(piece, clicks, positive=True):
                rest = union(rest, piece)
    return subtract(mask, rest), rest


def _holds(part: Mask, clicks: Sequence[Click], positive: bool) -> bool:
    return any(
        part.contains(round(click.y), round(click.x))
        for click in clicks
        if click.positive == positive
    )
