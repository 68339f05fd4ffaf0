"""The public benchmarks, each in the layout it is published in."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskfix.benchmarks.folder import GREY_IGNORE, Folder, Image, make_case
from maskfix.errors import InputError
from maskfix.evaluate import Case

VOC_VOID_INDEX, VOC_VOID_GREY = 255, 220


def grey(folder: Folder, notes: list[str], images: str, masks: str) -> Iterator[Case]:
    """One grey mask an image: 128 does not count, above is object."""
    pictures = folder.members(images, "the images")
    found = folder.members(masks, "a mask for every image")
    for stem, name in pictures.items():
        grey = folder.pixels(folder.partner(found, stem, masks))[:, :, 0]
        yield make_case(stem, folder.image(name), grey > GREY_IGNORE, grey == GREY_IGNORE)


def merged(folder: Folder, notes: list[str]) -> Iterator[Case]:
    """One color mask an image: whatever is not black is the object."""
    pictures = folder.members("img", "the images")
    found = folder.members("gt", "a mask for every image")
    for stem, name in pictures.items():
        target = folder.pixels(folder.partner(found, stem, "gt")).max(axis=2) > 0
        yield make_case(stem, folder.image(name), target)


def sbd(folder: Folder, notes: list[str], split: str) -> Iterator[Case]:
    """Every instance of every image of the split; MATLAB label maps."""
    from scipy.io import loadmat

    listing = folder.read(f"{split}.txt", "the names of the images")
    for stem in listing.decode().split():
        picture = f"img/{stem}.jpg"
        if not folder.files.has(picture):
            raise folder.error(f"{picture}, named by {split}.txt")
        content = io.BytesIO(folder.read(f"inst/{stem}.mat", f"named by {split}.txt"))
        try:
            labels = loadmat(content)["GTinst"]["Segmentation"][0, 0]
        except Exception as error:  # a damaged file can go wrong in any way
            raise InputError(
                f"{folder.name}: inst/{stem}.mat has no GTinst.Segmentation: {error}"
            ) from error
        yield from _labelled(stem, folder.image(picture), labels, None)


def _labelled(
    stem: str, image: Callable[[], Image], labels: NDArray[Any], void: int | None
) -> Iterator[Case]:
    """Every label but 0 and `void` is an instance."""
    ignore = None if void is None else labels == void
    for label in np.unique(labels):
        if label not in (0, void):
            yield make_case(f"{stem}#{label}", image, labels == label, ignore)


def voc(folder: Folder, notes: list[str]) -> Iterator[Case]:
    """Every instance; the void border does not count."""
    pictures = folder.members("JPEGImages", "the images")
    found = folder.members("SegmentationObject", "the instance masks")
    listing = "ImageSets/Segmentation/test.pickle"
    if folder.files.has(listing):
        names, ids = _plain_pickle(folder.files.read(listing), f"{folder.name}: {listing}")
        for stem, grey_value in zip(names, ids, strict=True):
            grey = cv2.cvtColor(
                folder.pixels(folder.partner(found, stem, "SegmentationObject")),
                cv2.COLOR_BGR2GRAY,
            )
            image = folder.image(folder.partner(pictures, stem, "JPEGImages"))
            yield make_case(
                f"{stem}#{grey_value}", image, grey == grey_value, grey == VOC_VOID_GREY
            )
        return
    notes.append(
        "the list of the published numbers, ImageSets/Segmentation/test.pickle, is not there: "
        "every instance of ImageSets/Segmentation/val.txt is evaluated"
    )
    listing = "ImageSets/Segmentation/val.txt"
    for stem in folder.read(listing, "the names of the images").decode().split():
        name = folder.partner(found, stem, "SegmentationObject")
        with PillowImage.open(io.BytesIO(folder.files.read(name))) as mask:
            if mask.mode not in ("P", "L"):
                raise InputError(f"{folder.name}: {name} has no palette; the masks as published do")
            labels = np.array(mask)
        image = folder.image(folder.partner(pictures, stem, "JPEGImages"))
        yield from _labelled(stem, image, labels, VOC_VOID_INDEX)


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, strings and numbers, numpy's included; nothing that could run."""

    ALLOWED = frozenset({"scalar", "dtype", "ndarray", "_reconstruct"})

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def _plain_pickle(content: bytes, what: str) -> tuple[list[str], list[int]]:
    try:
        names, ids = _PlainUnpickler(io.BytesIO(content)).load()
        if len(names) != len(ids):
            raise ValueError(f"{len(names)} names, {len(ids)} ids")
        return [str(name) for name in names], [int(number) for number in ids]
    except Exception as error:  # a pickle can go wrong in any way
        raise InputError(f"{what} is not two lists, names and instance ids: {error}") from error


def davis585(folder: Folder, notes: list[str], start: str | None) -> Iterator[Case]:
    """A folder a sequence: FRAME.jpg, OBJECT_FRAME.png, init_{sp,stm}_OBJECT_FRAME.png."""
    names = [PurePosixPath(name) for name in folder.files.names]
    frames = {(path.parent, path.stem): path for path in names if path.suffix.lower() == ".jpg"}
    masks = [
        path
        for path in names
        if path.suffix.lower() == ".png" and not path.name.startswith("init_") and "_" in path.stem
    ]
    if not frames or not masks:
        raise folder.error("a folder a sequence with FRAME.jpg and OBJECT_FRAME.png")
    images: dict[PurePosixPath, Callable[[], Image]] = {}
    for path in sorted(masks, key=lambda p: (p.parent, p.stem.split("_", 1)[1], p.stem)):
        frame = frames.get((path.parent, path.stem.split("_", 1)[1]))
        if frame is None:
            raise folder.error(f"the frame of {path}")
        image = images.setdefault(frame, folder.image(frame.as_posix()))
        target = folder.pixels(path.as_posix())[:, :, 0] > GREY_IGNORE
        initial = None
        if start is not None:
            name = path.with_name(f"init_{start}_{path.name}").as_posix()
            if not folder.files.has(name):
                raise folder.error(f"{name}, the mask to start from")
            initial = folder.pixels(name)[:, :, 0] > GREY_IGNORE
        yield make_case(path.with_suffix("").as_posix(), image, target, None, initial)
