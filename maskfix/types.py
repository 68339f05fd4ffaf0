"""The small values that travel through maskfix.

Coordinates: a `Click` has named ``x`` (column, to the right) and ``y`` (row, downwards), in pixels
of the image as annotated; the centre of the top-left pixel is (0, 0). Arrays are (row, column).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Click:
    """One corrective click.

    Attributes:
        x: column in pixels, 0 at the centre of the leftmost pixel.
        y: row in pixels, 0 at the centre of the topmost pixel.
        positive: True where the object is, False where it is not.
    """

    x: float
    y: float
    positive: bool


@dataclass(frozen=True, slots=True)
class Box:
    """Whole pixels: rows ``top`` to ``bottom - 1``, columns ``left`` to ``right - 1``."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows covered."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns covered."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns), to index an (H, W, ...) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)
