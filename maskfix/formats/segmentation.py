"""The "segmentation" of a COCO annotation <-> `Mask`."""

from __future__ import annotations

from typing import Any, Literal

from maskfix.errors import InstanceError
from maskfix.masks import Mask
from maskfix.polygons import mask_from_polygons, polygons_from_mask
from maskfix.rle import (
    check_counts,
    counts_from_mask,
    counts_from_text,
    mask_from_counts,
    text_from_counts,
)

Kind = Literal["polygon", "rle", "counts"]
Size = tuple[int, int]


def kind_of(value: object) -> Kind:
    """How a segmentation is written: polygons, compressed run lengths, or plain counts."""
    if isinstance(value, list):
        return "polygon"
    if isinstance(value, dict) and isinstance(value.get("counts"), list):
        return "counts"
    return "rle"


def decode(value: object, size: Size | None) -> Mask:
    """Read a segmentation.

    Args:
        value: as in the JSON; null or an empty list is an object without a mask yet: empty.
        size: (height, width) of the image as annotated; None takes what run lengths say.

    Raises:
        InstanceError: damaged, or of an image of another size.
    """
    if value is None or value == []:
        return Mask.empty(*(size or (0, 0)))
    if isinstance(value, list):
        if size is None:
            raise InstanceError("polygons need the size of the image, which is not known")
        return mask_from_polygons(value, *size)
    if not isinstance(value, dict):
        raise InstanceError(f"segmentation must be polygons or run lengths, found {value!r:.40}")
    stated = stated_size(value)
    if stated is None:
        found = value.get("size")
        raise InstanceError(f'run lengths need "size": [height, width], found {found!r:.40}')
    height, width = stated
    if size is not None and (height, width) != size:
        raise InstanceError(
            f"run lengths are of an image of {width}x{height}, the image is {size[1]}x{size[0]}"
        )
    counts = value.get("counts")
    if isinstance(counts, str):
        checked = check_counts(counts_from_text(counts), height, width)
    elif isinstance(counts, list):
        checked = check_counts(counts, height, width)
    else:
        raise InstanceError(f'run lengths need "counts", text or a list, found {counts!r:.40}')
    return mask_from_counts(checked, height, width)


def encode(
    mask: Mask, kind: Kind, old: object = None, simplify: float = 0.0
) -> tuple[Any, str | None]:
    """Write a mask as one kind of segmentation.

    Args:
        mask: the object.
        kind: what is wanted.
        old: what stood there; other keys of it and their order are kept.
        simplify: of polygons, see `polygons_from_mask`.

    Returns:
        The value for JSON, and a note if it could not be of the kind wanted.
    """
    note = None
    if kind == "polygon":
        polygons, has_holes = polygons_from_mask(mask, simplify)
        if polygons and not has_holes:
            return polygons, None
        what = "has holes" if has_holes else "is empty"
        note = f"the mask {what}, which polygons cannot hold; written as run lengths"
    counts = counts_from_mask(mask)
    runs = {
        "size": [mask.height, mask.width],
        "counts": counts.tolist() if kind == "counts" else text_from_counts(counts),
    }
    return {**(old if isinstance(old, dict) else {}), **runs}, note


def as_written(mask: Mask, segmentation: object, simplify: float) -> Mask:
    """What `encode` made of a mask: another one only where it has simplified polygons."""
    if not simplify or not isinstance(segmentation, list):
        return mask
    return decode(segmentation, (mask.height, mask.width))


def stated_size(value: object) -> Size | None:
    """(height, width) of the image as run lengths state it; None of anything else."""
    match value:
        case {"size": [int(height), int(width)]} if height >= 0 and width >= 0:
            return height, width
    return None
