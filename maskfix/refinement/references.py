"""Which reference mask belongs to which instance."""

from __future__ import annotations

from collections.abc import Mapping

from maskfix.errors import InputError
from maskfix.formats import Annotation, ImageItem, Source
from maskfix.masks import Mask, intersection, iou

WITHOUT_IDS = frozenset({"coco-results", "png-binary"})
"""Formats whose ids are mere positions."""

LEAST_IOU = 0.1
"""Masks that overlap less are not of the same object."""


def match_references(
    item: ImageItem, source: Source, references: Source
) -> tuple[Mapping[int, Mask], str]:
    """Reference masks by instance key.

    By id where both sides have ids and the reference has all of the image's; labels of label maps
    are ids only if every pair overlaps, as two maps may count their instances differently. Else by
    IoU, the best pairs first, each mask used once.

    Returns:
        the matches, and ``"id"`` or ``"IoU"``, or ``""`` where the image has no reference.
    """
    try:
        there = references[references.find_image(item.file)].annotations
    except InputError:
        return {}, ""
    known = {a.id: a.mask for a in there if a.mask is not None}
    formats = {source.format, references.format}
    if item.annotations and all(a.id in known for a in item.annotations):
        pairs = [(a, known[a.id]) for a in item.annotations]
        if not formats & WITHOUT_IDS and ("png-labels" not in formats or all(map(_overlap, pairs))):
            return {a.key: mask for a, mask in pairs}, "id"
    return _match_by_iou(item.annotations, there), "IoU"


def _match_by_iou(
    instances: tuple[Annotation, ...], there: tuple[Annotation, ...]
) -> dict[int, Mask]:
    pairs = [
        (iou(a.mask, b.mask), a.key, b.key, b.mask)
        for a in instances
        for b in there
        if a.mask is not None and b.mask is not None and _same_frame(a.mask, b.mask)
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    matches: dict[int, Mask] = {}
    taken: set[int] = set()
    for overlap, key, other, mask in pairs:
        if overlap >= LEAST_IOU and key not in matches and other not in taken:
            matches[key] = mask
            taken.add(other)
    return matches


def _overlap(pair: tuple[Annotation, Mask]) -> bool:
    annotation, mask = pair
    own = annotation.mask
    return own is not None and _same_frame(own, mask) and intersection(own, mask) > 0


def _same_frame(a: Mask, b: Mask) -> bool:
    return (a.height, a.width) == (b.height, b.width)
