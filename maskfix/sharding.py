"""The share that one of several processes has in a task."""

from __future__ import annotations

import re
from dataclasses import dataclass

from maskfix.errors import UsageError

_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``number`` of ``count``, counted from 1: every count-th piece of the work."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= _MOST:
            raise UsageError(
                f"--shard: expected I/N with I from 1 to N, N at most {_MOST}; found {self}"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def takes(self, position: int) -> bool:
        """Whether a piece of the work, counted from 0, belongs to this part."""
        return position % self.count == self.number - 1


def parse_shard(text: str | None) -> Shard | None:
    """The value of ``--shard``, like 2/8.

    Raises:
        UsageError: something else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text, re.ASCII)
    if match is None:
        raise UsageError(f"--shard: expected I/N, like 2/8; found {text!r}")
    return Shard(int(match[1]), int(match[2]))
