"""Ids and names as 64-bit codes, so that a million of them are one flat array.

Whole numbers are their own code; other ids and all names are hashed. Two of a million hashed ids
collide with a probability of 3e-8.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]

NO_CODE = -(2**63)
"""Of an id that is missing or cannot be one (null, true, a list)."""


def code_of(value: object) -> int:
    """The code of an id (number or text) or a name; 7 and 7.0 are equal, 7 and "7" are not."""
    if type(value) is int and -(2**63) < value < 2**63:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return NO_CODE
    text = unicodedata.normalize("NFC", str(value))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return max(int.from_bytes(digest, "little", signed=True), NO_CODE + 1)


class CodeIndex:
    """Positions of codes in an array, found by bisection."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes

    @classmethod
    def of(cls, values: Iterable[object]) -> CodeIndex:
        """Index the codes of ids or names, in their order."""
        return cls(np.fromiter((code_of(value) for value in values), np.int64))

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.codes, kind="stable")

    @cached_property
    def _sorted(self) -> Codes:
        return self.codes[self._order]

    def find(self, value: object) -> list[int]:
        """Every position of an id or a name, ascending."""
        code = code_of(value)
        if code == NO_CODE:
            return []
        first, last = (np.searchsorted(self._sorted, code, side=side) for side in ("left", "right"))
        return [int(position) for position in self._order[first:last]]

    def match(self, codes: Codes) -> NDArray[np.int64]:
        """The first position of each of many codes, -1 where there is none."""
        if not self.codes.size:
            return np.full(codes.shape, -1, np.int64)
        places = np.searchsorted(self._sorted, codes).clip(max=self.codes.size - 1)
        found = (self._sorted[places] == codes) & (codes != NO_CODE)
        return np.where(found, self._order[places], -1)

    def repeated(self) -> list[int]:
        """Positions whose code occurs at an earlier one, ascending."""
        same = (self._sorted[1:] == self._sorted[:-1]) & (self._sorted[1:] != NO_CODE)
        return sorted(int(position) for position in self._order[1:][same])
