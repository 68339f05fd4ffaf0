"""Data sets for training: images with instance masks, read from folders or tars."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix import rle
from maskfix.errors import InputError, InstanceError
from maskfix.masks import Mask

HOLDOUT_BUCKETS = 1000


class Files:
    """Reads files by name from a folder or, without unpacking it, from a tar."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, tuple[int, int]] | None = None  # name -> (offset, bytes)
        if path.is_file() and tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                members = [m for m in tar.getmembers() if m.isfile()]
            self._members = {m.name: (m.offset_data, m.size) for m in members}
        elif not path.is_dir():
            raise InputError(f"data set {path}: expected a folder or a tar, found neither")

    def names(self) -> list[str]:
        """All file names, relative, sorted."""
        if self._members is not None:
            return sorted(self._members)
        return sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*.*"))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        if self._members is None:
            return (self.path / name).read_bytes()
        offset, size = self._members[name]
        with self.path.open("rb") as tar:
            tar.seek(offset)
            return tar.read(size)


@dataclass(frozen=True)
class Record:
    """One image of a data set and its instances, masks still encoded."""

    file: str
    height: int
    width: int
    annotations: tuple[dict[str, Any], ...]


@dataclass
class InstanceData:
    """Images with instances, decoded on demand and kept in memory up to a limit.

    Attributes:
        name: for messages and for the mixture.
        records: images that have at least one instance.
    """

    name: str
    files: Files
    records: list[Record]
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
        data = np.frombuffer(self.files.read(record.file), np.uint8)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if decoded is None:
            raise InstanceError(f"{self.name}: {record.file} cannot be decoded")
        image = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))
        if image.shape[:2] != (record.height, record.width):
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise InstanceError(
                f"{self.name}: {record.file} is {found}, annotated as "
                f"{record.width}x{record.height}"
            )
        image.flags.writeable = False
        if self._cached + image.nbytes <= self.cache_bytes:
            self._cache[index] = image
            self._cached += image.nbytes
        return image

    def masks(self, index: int) -> list[Mask]:
        """The instances of one image."""
        record = self.records[index]
        masks = []
        for annotation in record.annotations:
            counts = rle.counts_from_text(annotation["segmentation"]["counts"])
            counts = rle.check_counts(counts, record.height, record.width)
            masks.append(rle.mask_from_counts(counts, record.height, record.width))
        return masks

    def subset(self, share: float, heldout: bool) -> InstanceData:
        """The images that a holdout of `share` leaves for training, or those it keeps back."""
        border = share * HOLDOUT_BUCKETS
        records = [r for r in self.records if (_bucket(r.file) < border) == heldout]
        return InstanceData(self.name, self.files, records, self.cache_bytes)


def _bucket(name: str) -> int:
    return zlib.crc32(Path(name).stem.encode()) % HOLDOUT_BUCKETS


def open_data(name: str, path: Path) -> InstanceData:
    """Open ``images/`` with ``annotations.json`` (COCO ground truth) in a folder or tar.

    Raises:
        InputError: the path holds no such data set.
    """
    files = Files(path)
    names = files.names()
    annotations = [n for n in names if Path(n).name == "annotations.json"]
    if len(annotations) != 1:
        raise InputError(
            f"data set {name} at {path}: expected images/ and one annotations.json, "
            f"found {len(annotations)} of the latter"
        )
    content: Mapping[str, Any] = json.loads(files.read(annotations[0]))
    root = Path(annotations[0]).parent
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            by_image.setdefault(annotation["image_id"], []).append(annotation)
    records = [
        Record(
            (root / "images" / image["file_name"]).as_posix(),
            image["height"],
            image["width"],
            tuple(by_image[image["id"]]),
        )
        for image in content["images"]
        if image["id"] in by_image
    ]
    return InstanceData(name, files, records)
