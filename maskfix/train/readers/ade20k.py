"""ADE20K as downloaded: ``NAME_seg.png`` beside ``NAME.jpg``, instance numbers in its blue channel.

Red and green name the class, blue counts instances, 0 where nothing was annotated. Every segment
has its number, stuff like sky and wall too; classes of stuff are told by their names in no file of
the download, so all segments count as objects.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskfix.archive import Files
from maskfix.train.data import InstanceData, Objects, Record, Size, decode_image
from maskfix.train.readers.pascal import masks_of_labels

_FOLDERS = {"train": "training", "val": "validation"}
_SEGMENTS = "_seg.png"


def _names(files: Files, split: str) -> list[str]:
    folder = f"/images/ADE/{_FOLDERS.get(split, split)}/"
    plain = f"/images/{_FOLDERS.get(split, split)}/"
    found = (n for n in files.names if n.endswith(_SEGMENTS))
    return [n for n in found if folder in f"/{n}" or plain in f"/{n}"]


def recognizes(files: Files, split: str) -> bool:
    """Segment images of the split are there."""
    return bool(_names(files, split))


def open_ade20k(name: str, files: Files, split: str) -> InstanceData:
    """Open one split."""
    records = [Record(n.removesuffix(_SEGMENTS) + ".jpg", n) for n in _names(files, split)]
    return InstanceData(name, files, files, records, decode_ade20k)


def decode_ade20k(files: Files, labels: Any, size: Size) -> Objects:
    """One object for every instance number."""
    rgb = decode_image(files.read(labels), labels, size)
    return Objects(masks_of_labels(np.asarray(rgb[..., 2]), size, labels))
