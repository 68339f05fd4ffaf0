"""Semantic Boundaries Dataset and Pascal VOC 2012, as downloaded.

"Pascal VOC + SBD" of the paper is both of them as two data sets of one recipe.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from maskfix.archive import Files
from maskfix.errors import InstanceError
from maskfix.masks import Mask
from maskfix.train.data import InstanceData, Objects, Record, Size
from maskfix.train.readers.pickles import load_plain

SCORES = "sbd_samples_weights.pkl"
"""Optional, beside train.txt: a list of (index, image name, IoU of a network trained before)."""

_SPARSE = 0.08  # of its box: what fills less of it is an artefact of the annotation
_VOID = 255
_ROOTS = ("", "dataset/", "benchmark_RELEASE/dataset/")


def recognizes_sbd(files: Files, split: str) -> bool:
    """``dataset/`` of the download, or the folder above it."""
    return any(
        files.has(f"{root}{split}.txt") and files.has_folder(f"{root}inst") for root in _ROOTS
    )


def open_sbd(name: str, files: Files, split: str) -> InstanceData:
    """SBD; images are drawn by importance where `SCORES` is there and the recipe asks for it."""
    root = next(root for root in _ROOTS if files.has(f"{root}{split}.txt"))
    shares: dict[str, float] = {}
    if files.has(f"{root}{SCORES}"):
        rows = load_plain(files.read(f"{root}{SCORES}"), SCORES)
        shares = {str(image): 1 - float(iou) for _, image, iou in rows}
    records = [
        Record(f"{root}img/{stem}.jpg", f"{root}inst/{stem}.mat", share=shares.get(stem, 1.0))
        for stem in files.read(f"{root}{split}.txt").decode().split()
    ]
    return InstanceData(name, files, files, records, decode_sbd)


def decode_sbd(files: Files, labels: Any, size: Size) -> Objects:
    """Instances of ``GTinst.Segmentation``."""
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(files.read(labels)))
        segmentation = np.asarray(content["GTinst"][0, 0]["Segmentation"])
    except InstanceError:
        raise
    except Exception as error:  # damaged .mat files raise anything
        raise InstanceError(f"{labels} has no GTinst.Segmentation: {error}") from error
    masks = masks_of_labels(segmentation, size, labels)
    return Objects([m for m in masks if m.area >= _SPARSE * m.box.height * m.box.width])


def recognizes_voc(files: Files, split: str) -> bool:
    """``VOC2012/`` of the download, or the folders above it."""
    return _voc_root(files) is not None


def _voc_root(files: Files) -> str | None:
    roots = ("", "VOC2012/", "VOCdevkit/VOC2012/")
    return next((root for root in roots if files.has_folder(f"{root}SegmentationObject")), None)


def open_voc(name: str, files: Files, split: str) -> InstanceData:
    """Pascal VOC 2012; void pixels are ignored."""
    root = _voc_root(files)
    stems = files.read(f"{root}ImageSets/Segmentation/{split}.txt").decode().split()
    records = [
        Record(f"{root}JPEGImages/{stem}.jpg", f"{root}SegmentationObject/{stem}.png")
        for stem in stems
    ]
    return InstanceData(name, files, files, records, decode_voc)


def decode_voc(files: Files, labels: Any, size: Size) -> Objects:
    """Instances of a palette PNG, whose indices are instance numbers."""
    try:
        indices = np.asarray(Image.open(io.BytesIO(files.read(labels))))
    except OSError as error:
        raise InstanceError(f"{labels} cannot be decoded") from error
    if indices.ndim != 2:
        raise InstanceError(f"{labels}: expected a palette image, found colours")
    masks = masks_of_labels(np.where(indices == _VOID, 0, indices), size, labels)
    return Objects(masks, ignore=Mask.from_array(indices == _VOID))


def masks_of_labels(labels: np.ndarray[Any, Any], size: Size, what: str) -> list[Mask]:
    """One mask for every number but 0 of an (H, W) label map.

    Raises:
        InstanceError: it is of another size than the image.
    """
    if labels.shape != size:
        found = "x".join(str(n) for n in reversed(labels.shape))
        raise InstanceError(f"{what} is {found}, its image {size.width}x{size.height}")
    return [Mask.from_array(labels == number) for number in np.unique(labels) if number]
