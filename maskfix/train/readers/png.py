"""One's own images with PNG masks: ``images/NAME.*`` and, in ``masks/``, either ``NAME.png``
(a number for every object, 0 background; or black and white for a single one) or ``NAME_1.png``,
``NAME_2.png``, ... (one object each, white)."""

from __future__ import annotations

import io
import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskfix.archive import Files
from maskfix.errors import InputError, InstanceError
from maskfix.formats.image import SUFFIXES
from maskfix.masks import Mask
from maskfix.train.data import InstanceData, Objects, Record, Size
from maskfix.train.readers.pascal import masks_of_labels

_NUMBERED = re.compile(r"(.+)_\d+$")


def recognizes(files: Files, split: str) -> bool:
    """Both folders are there."""
    return files.has_folder("images") and files.has_folder("masks")


def open_png(name: str, files: Files, split: str) -> InstanceData:
    """Open the set; images without a mask are left out."""
    images = {
        PurePosixPath(n).stem: n
        for n in files.names
        if n.startswith("images/") and PurePosixPath(n).suffix.lower() in SUFFIXES
    }
    masks: dict[str, list[str]] = {}
    for file in files.names:
        if not file.startswith("masks/") or not file.lower().endswith(".png"):
            continue
        stem = PurePosixPath(file).stem
        numbered = _NUMBERED.match(stem)
        if stem not in images and numbered:
            stem = numbered[1]
        if stem in images:
            masks.setdefault(stem, []).append(file)
    if not masks:
        raise InputError(f"data set {name}: no masks/NAME.png has its image in images/")
    records = [Record(images[stem], tuple(paths)) for stem, paths in masks.items()]
    return InstanceData(name, files, files, records, decode_png)


def decode_png(files: Files, labels: Any, size: Size) -> Objects:
    """Objects of one image's mask files."""
    masks: list[Mask] = []
    for name in labels:
        array = _read(files, name)
        if len(np.unique(array)) <= 2:
            array = array > 0
        masks += masks_of_labels(array, size, name)
    return Objects(masks)


def _read(files: Files, name: str) -> np.ndarray[Any, Any]:
    """A label map, (H, W) of whole numbers; colours become numbers."""
    try:
        array = np.asarray(Image.open(io.BytesIO(files.read(name))))
    except (UnidentifiedImageError, OSError) as error:
        raise InstanceError(f"{name} cannot be decoded") from error
    if array.ndim == 2:
        return array
    return np.asarray(array[..., :3].astype(np.int64) @ np.array([1, 256, 65536]))
