"""Images with instance masks, decoded on demand; read from folders or, unpacked, from tars.

What a data set looks like on disk is the business of `maskfix.train.readers`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.archive import Files
from maskfix.errors import InstanceError
from maskfix.masks import Mask

HOLDOUT_BUCKETS = 1000


class Objects(NamedTuple):
    """What is annotated in one image.

    Attributes:
        things: instances, the objects to segment.
        stuff: regions without a shape of their own (sky, grass), taken for objects at times.
        ignore: what is neither object nor background.
        ids: of the things, where annotations have them; else empty.
    """

    things: list[Mask]
    stuff: list[Mask] = []  # noqa: RUF012 - never changed
    ignore: Mask | None = None
    ids: list[int | str | None] = []  # noqa: RUF012 - never changed


class Size(NamedTuple):
    """Rows and columns of an image."""

    height: int
    width: int


@dataclass(frozen=True)
class Record:
    """One image of a data set, masks still encoded.

    Attributes:
        file: its name among the data set's images.
        labels: what the data set's `decode` needs.
        size: as annotated; None where only the image knows.
        share: how often it is drawn, relative to others.
    """

    file: str
    labels: Any
    size: Size | None = None
    share: float = 1.0


Decode = Callable[[Files, Any, Size], Objects]
"""(label files, a record's labels, size of the image) -> its objects; InstanceError if broken."""


@dataclass
class InstanceData:
    """Images with instances; decoded images are kept in memory up to a limit.

    Attributes:
        name: for messages and for the mixture.
        images: where the images are.
        labels: where separate label files are.
        records: the images.
        decode: reads one record's labels; a function of a module, so that workers can have it.
        cache_bytes: so much memory for decoded images, in every worker.
    """

    name: str
    images: Files
    labels: Files
    records: list[Record]
    decode: Decode
    cache_bytes: int = 4 << 30
    _cache: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    _cached: int = 0

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. Read-only.

        Raises:
            InstanceError: the image cannot be decoded or has another size than annotated.
        """
        if index in self._cache:
            return self._cache[index]
        record = self.records[index]
        content = self.images.read(record.file)
        image = decode_image(content, f"{self.name}: {record.file}", record.size)
        image.flags.writeable = False
        if self._cached + image.nbytes <= self.cache_bytes:
            self._cache[index] = image
            self._cached += image.nbytes
        return image

    def objects(self, index: int) -> Objects:
        """What is annotated in one image.

        Raises:
            InstanceError: a mask is broken.
        """
        record = self.records[index]
        size = record.size or Size(*self.image(index).shape[:2])
        try:
            return self.decode(self.labels, record.labels, size)
        except InstanceError as error:
            raise InstanceError(f"{self.name}: {record.file}: {error}") from error

    def subset(self, share: float, heldout: bool) -> InstanceData:
        """The images that a holdout of `share` leaves for training, or those it keeps back."""
        border = share * HOLDOUT_BUCKETS
        records = [r for r in self.records if (_bucket(r.file) < border) == heldout]
        return replace(self, records=records, _cache={}, _cached=0)


def decode_image(content: bytes, what: str, size: Size | None = None) -> NDArray[np.uint8]:
    """An image file's pixels, (H, W, 3) uint8 RGB.

    Turned upright as EXIF says, unless only the stored orientation has the annotated size.

    Raises:
        InstanceError: damaged, or of another size than annotated; `what` says which.
    """
    data = np.frombuffer(content, np.uint8)
    found = ""
    for flag in (0, cv2.IMREAD_IGNORE_ORIENTATION):
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR | flag) if content else None
        if decoded is None:
            raise InstanceError(f"{what} cannot be decoded")
        if size is None or decoded.shape[:2] == size:
            return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
        found = found or f"{decoded.shape[1]}x{decoded.shape[0]}"
    assert size is not None
    raise InstanceError(f"{what} is {found}, annotated as {size.width}x{size.height}")


def _bucket(name: str) -> int:
    return zlib.crc32(PurePosixPath(name).stem.encode()) % HOLDOUT_BUCKETS
