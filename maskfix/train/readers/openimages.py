"""OpenImages (V5 to V7) instance masks as downloaded: a CSV and one PNG an object.

Images and masks may lie in any folders below the root; they are found by their names. A mask is
smaller or larger than its image and is brought to its size.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import cv2
import numpy as np

from maskfix.archive import Files
from maskfix.errors import InputError, InstanceError
from maskfix.masks import Mask
from maskfix.train.data import InstanceData, Objects, Record, Size

_CSV = "{}-annotations-object-segmentation.csv"
_SPLITS = {"val": "validation"}


def _table(files: Files, split: str) -> str | None:
    return files.by_basename.get(_CSV.format(_SPLITS.get(split, split)))


def recognizes(files: Files, split: str) -> bool:
    """The split's table is there."""
    return _table(files, split) is not None


def open_openimages(name: str, files: Files, split: str) -> InstanceData:
    """Open one split; objects whose image was not downloaded are left out."""
    table = _table(files, split)
    assert table is not None
    masks: dict[str, list[str]] = {}
    try:
        for row in csv.DictReader(io.StringIO(files.read(table).decode())):
            masks.setdefault(row["ImageID"], []).append(row["MaskPath"])
    except (KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{table}: expected columns ImageID and MaskPath") from error
    found = files.by_basename
    records = [
        Record(found[f"{image}.jpg"], tuple(found.get(path, path) for path in paths))
        for image, paths in masks.items()
        if f"{image}.jpg" in found
    ]
    return InstanceData(name, files, files, records, decode_openimages)


def decode_openimages(files: Files, labels: Any, size: Size) -> Objects:
    """One object a file."""
    masks = []
    for name in labels:
        content = np.frombuffer(files.read(name), np.uint8)
        grey = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if content.size else None
        if grey is None:
            raise InstanceError(f"{name} cannot be decoded")
        scaled = cv2.resize(grey, (size.width, size.height), interpolation=cv2.INTER_NEAREST)
        masks.append(Mask.from_array(np.asarray(scaled > 0)))
    return Objects([mask for mask in masks if mask.bits.size])
