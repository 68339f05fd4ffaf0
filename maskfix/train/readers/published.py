"""COCO+LVIS as the published code stores it: ``hannotation.pickle`` and pickled PNG layers.

``<split>/hannotation.pickle`` is {image: {"num_instance_masks": n, "hierarchy": {object: None or
{"parent": ..., ...}}}}; ``<split>/masks/<image>.pickle`` is ([PNG bytes of a uint8 layer], [(layer,
value) of every object]). Objects from n on are stuff. An object with a parent is a part of another
and is not drawn by itself, as in the published training.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from maskfix.archive import Files
from maskfix.errors import InputError, InstanceError
from maskfix.masks import Mask
from maskfix.train.data import InstanceData, Objects, Record, Size
from maskfix.train.readers.pickles import load_plain


def recognizes(files: Files, split: str) -> bool:
    """The index of the split is there."""
    return files.has(f"{split}/hannotation.pickle")


def open_published(name: str, files: Files, split: str) -> InstanceData:
    """Open one split."""
    index = f"{split}/hannotation.pickle"
    content = load_plain(files.read(index), index)
    try:
        records = [
            Record(
                f"{split}/images/{image}.jpg",
                (f"{split}/masks/{image}.pickle", entry["num_instance_masks"], _roots(entry)),
            )
            for image, entry in sorted(content.items())
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{index}: expected objects of images by name: {error!r}") from error
    return InstanceData(name, files, files, records, decode_layers)


def _roots(entry: dict[str, Any]) -> tuple[int, ...]:
    hierarchy = entry["hierarchy"].items()
    return tuple(
        int(number) for number, node in hierarchy if node is None or node.get("parent") is None
    )


def decode_layers(files: Files, labels: Any, size: Size) -> Objects:
    """Root objects of one image."""
    name, instances, roots = labels
    try:
        encoded, where = load_plain(files.read(name), name)
        layers = [cv2.imdecode(np.frombuffer(e, np.uint8), cv2.IMREAD_UNCHANGED) for e in encoded]
        masks = {
            number: Mask.from_array(layers[where[number][0]] == where[number][1])
            for number in roots
        }
    except (InputError, cv2.error, IndexError, TypeError, ValueError) as error:
        raise InstanceError(f"{name}: damaged mask layers: {error}") from error
    if any((mask.height, mask.width) != size for mask in masks.values()):
        raise InstanceError(f"{name}: mask layers are of another size than the image")
    shown = {number: mask for number, mask in masks.items() if mask.bits.size}
    return Objects(
        [mask for number, mask in shown.items() if number < instances],
        [mask for number, mask in shown.items() if number >= instances],
    )
