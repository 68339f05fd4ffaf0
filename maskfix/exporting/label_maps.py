"""PNG label maps: the number of the instance, or of the class, in every pixel."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfix.errors import InstanceError
from maskfix.exporting.writer import Facts, FileNames, Settings, SizedItem, Thing, Writer
from maskfix.formats.png_file import PngFile, encode_png

MOST_IN_8_BITS = 254  # 255 is void
MOST = 65534


class LabelMapWriter(Writer):
    """``masks/IMAGE.png``, 0 background, 1, 2, ... instances, and ``labels.csv``, which names them.

    Where masks overlap the smaller one is on top, so that a button is not hidden by its coat.
    Crowds and empty masks are not in the maps. Maps have 8 bits, 16 from 255 instances on.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self._names = FileNames(folder / "masks")
        self._hidden = 0
        self._rows = csv.writer(self.create("labels.csv"), lineterminator="\n")
        self._rows.writerow(["image", "label", "id", "category", "pixels", "hidden"])

    def add(self, item: SizedItem, things: list[Thing]) -> int:
        """See `Writer`."""
        shown = [t for t in things if t.mask.area and not t.annotation.is_crowd]
        if len(shown) > MOST:
            raise InstanceError(f"{len(shown)} instances are more than a PNG can number")
        labels = paint(item, [(self._value(t, i), t) for i, t in enumerate(shown, start=1)])
        write_map(self._names.path(item, ".png"), labels, self._largest(len(shown)))
        for number, thing in enumerate(shown, start=1):
            self._note(item, thing, self._value(thing, number), labels)
        return len(shown)

    def close(self) -> Facts:
        """See `Writer`."""
        note = f"{self._hidden} pixels lie under other masks and are not in the maps"
        return Facts({"hidden_pixels": self._hidden}, (note,) if self._hidden else ())

    def _value(self, thing: Thing, number: int) -> int:
        return number

    def _largest(self, count: int) -> int:
        return count

    def _note(self, item: SizedItem, thing: Thing, value: int, labels: NDArray[Any]) -> None:
        visible = int(np.count_nonzero(labels[thing.mask.box.slices][thing.mask.bits] == value))
        hidden = thing.mask.area - visible
        self._hidden += hidden
        annotation = thing.annotation
        self._rows.writerow(
            [item.file, value, annotation.id, annotation.category, thing.mask.area, hidden]
        )


class ClassMapWriter(LabelMapWriter):
    """``masks/IMAGE.png``, 0 background, 1, 2, ... classes, and ``classes.csv``, which names them.

    As `LabelMapWriter`, but instances of one class are one.
    """

    def add(self, item: SizedItem, things: list[Thing]) -> int:
        """See `Writer`."""
        if len(self.classes.names) > MOST:
            raise InstanceError(f"{len(self.classes.names)} classes are more than a PNG can number")
        return super().add(item, things)

    def close(self) -> Facts:
        """See `Writer`."""
        rows = csv.writer(self.create("classes.csv"), lineterminator="\n")
        rows.writerow(["value", "category"])
        rows.writerows(enumerate(self.classes.names, start=1))
        return super().close()

    def _value(self, thing: Thing, number: int) -> int:
        return 1 + self.classes.place(thing.annotation)

    def _largest(self, count: int) -> int:
        return len(self.classes.names)


def paint(item: SizedItem, things: list[tuple[int, Thing]]) -> NDArray[np.uint16]:
    """(H, W) values, smaller masks over larger ones; of equal ones the later on top.

    Raises:
        InstanceError: a mask is of another size than its image.
    """
    labels = np.zeros((item.height, item.width), np.uint16)
    for value, (annotation, mask) in sorted(things, key=lambda pair: -pair[1].mask.area):
        if (mask.height, mask.width) != labels.shape:
            raise InstanceError(
                f"mask {annotation.id} is {mask.width}x{mask.height}, its image "
                f"{item.width}x{item.height}"
            )
        labels[mask.box.slices][mask.bits] = value
    return labels


def write_map(path: Path, labels: NDArray[np.uint16], largest: int) -> None:
    """A grey PNG of as many bits as its largest value needs: 8 or 16."""
    depth = 8 if largest <= MOST_IN_8_BITS else 16
    samples = labels.astype(np.uint8) if depth == 8 else labels
    path.write_bytes(encode_png(PngFile(samples, depth)))
