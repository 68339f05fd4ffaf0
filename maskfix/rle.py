"""COCO run lengths: text <-> counts <-> `Mask`, without an array of the whole image.

Counts are the lengths of alternating runs, zeros first, down the columns of the image (column-major
order). The text packs them five bits a character, every count after the third as its difference to
the one two before it. Equal to pycocotools on everything valid; everything else is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskfix.errors import InstanceError
from maskfix.masks import Mask
from maskfix.types import Box

Counts = NDArray[np.int64]

_MOST_CHARACTERS = 7  # of one count: 35 bits, where pycocotools has 32
_MOST_PIXELS = 2**32 - 1  # pycocotools counts in 32 bits
_SHIFTS = 5 * np.arange(_MOST_CHARACTERS, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Runs:
    """A mask in little memory: compressed run lengths of an image of height x width."""

    height: int
    width: int
    text: str

    @classmethod
    def of(cls, mask: Mask) -> Runs:
        """Pack a mask."""
        return cls(mask.height, mask.width, text_from_counts(counts_from_mask(mask)))

    def mask(self) -> Mask:
        """Unpack it."""
        return mask_from_counts(counts_from_text(self.text), self.height, self.width)


def counts_from_text(text: str | bytes) -> Counts:
    """Unpack the compressed form, (R,) int64.

    Raises:
        InstanceError: a character that cannot be there, or a text cut in the middle of a count.
    """
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise InstanceError(_bad_character(error.start)) from error
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    bad = np.flatnonzero((codes < 0) | (codes > 63))
    if bad.size:
        raise InstanceError(_bad_character(int(bad[0])))
    if not codes.size:
        return np.zeros(0, np.int64)
    lasts = np.flatnonzero((codes & 32) == 0)
    if not lasts.size or lasts[-1] != codes.size - 1:
        raise InstanceError("run lengths end in the middle of a number: the text was cut")
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    lengths = lasts - firsts + 1
    if lengths.max() > _MOST_CHARACTERS:
        raise InstanceError("a run length is longer than any image")
    position = np.arange(codes.size) - np.repeat(firsts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * position), firsts)
    negative = (codes[lasts] & 16) != 0
    values[negative] -= np.int64(1) << (5 * lengths[negative])
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def text_from_counts(counts: Counts) -> str:
    """Pack (R,) int64 counts into the compressed form."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    # The fewest groups of five bits that hold the number and its sign.
    magnitude = np.where(values < 0, ~values, values)
    lengths = 1 + (magnitude[:, None] >= (np.int64(16) << _SHIFTS[:-1])).sum(axis=1)
    place = np.arange(_MOST_CHARACTERS)
    codes = (values[:, None] >> _SHIFTS) & 31
    codes |= np.where(place < lengths[:, None] - 1, 32, 0)
    packed = codes[place < lengths[:, None]].astype(np.uint8) + np.uint8(48)
    return str(packed.tobytes(), "ascii")


def check_counts(counts: Sequence[object] | Counts, height: int, width: int) -> Counts:
    """Counts as int64 that cover an image exactly.

    Raises:
        InstanceError: something that is no whole number, a negative run, or a wrong sum.
    """
    if isinstance(counts, np.ndarray):
        values = counts
    else:
        for count in counts:
            if not isinstance(count, int) or isinstance(count, bool) or abs(count) >= 2**63:
                raise InstanceError(f"run lengths must be whole numbers, found {count!r:.40}")
        values = np.array(counts, np.int64)
    if values.size and values.min() < 0:
        raise InstanceError(f"run length {int(values.min())} is negative")
    if height * width > _MOST_PIXELS:
        raise InstanceError(f"an image of {width}x{height} pixels is more than COCO can count")
    total = int(values.clip(max=_MOST_PIXELS).sum())
    if total != height * width:
        raise InstanceError(
            f"run lengths cover {total} pixels, the image has {height * width} "
            f"({width}x{height}): they are damaged or of another image"
        )
    return values


def mask_from_counts(counts: Counts, height: int, width: int) -> Mask:
    """Decode checked counts of an image of height x width."""
    ends = np.cumsum(counts)[1::2]
    lengths = counts[1::2]
    ends, lengths = ends[lengths > 0], lengths[lengths > 0]
    if not ends.size:
        return Mask.empty(height, width)
    starts = ends - lengths
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height + 1
    first_row, last_row = starts % height, (ends - 1) % height
    if np.any(starts // height != (ends - 1) // height):  # a run that goes on in the next column
        top, bottom = 0, height
    else:
        top, bottom = int(first_row.min()), int(last_row.max()) + 1
    rows = bottom - top
    begins = (starts // height - left) * rows + first_row - top
    steps = np.zeros(rows * (right - left) + 1, np.int8)
    steps[begins] += 1
    steps[begins + lengths] -= 1
    bits = np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(right - left, rows).T
    return Mask(height, width, Box(top, left, bottom, right), np.ascontiguousarray(bits))


def counts_from_mask(mask: Mask) -> Counts:
    """Run lengths of a mask, (R,) int64, covering its image."""
    height, box = mask.height, mask.box
    columns = np.zeros((box.width, box.height + 1), bool)  # one zero below every column
    columns[:, :-1] = mask.bits.T
    flat = columns.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    column, row = np.divmod(edges, box.height + 1)
    positions = (column + box.left) * height + row + box.top
    starts, ends = positions[::2], positions[1::2]
    apart = np.flatnonzero(starts[1:] != ends[:-1])  # else the run goes on in the next column
    starts = np.concatenate([starts[:1], starts[1:][apart]])
    ends = np.concatenate([ends[:-1][apart], ends[-1:]])
    bounds = np.stack([starts, ends], axis=1).ravel()
    total = height * mask.width
    counts = np.diff(bounds, prepend=0, append=total).astype(np.int64)
    return counts[:-1] if counts.size > 1 and counts[-1] == 0 else counts


def _bad_character(position: int) -> str:
    return f"run lengths have a character at position {position} that cannot be there"
