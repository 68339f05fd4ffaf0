"""Annotation formats behind one function and one small set of types."""

from __future__ import annotations

from pathlib import Path

from maskfix.errors import InputError
from maskfix.formats.base import Annotation, Edit, ImageItem, Note, Source
from maskfix.formats.coco import open_coco

__all__ = ["Annotation", "Edit", "ImageItem", "Note", "Source", "open_source"]


def open_source(
    masks: Path,
    images_dir: Path,
    images_json: Path | None = None,
    masks_format: str | None = None,
) -> Source:
    """Open a set of masks with its images; the format is told from the content.

    Args:
        masks: a COCO, COCO results or LVIS file, or a folder of PNG masks.
        images_dir: the folder of images.
        images_json: for COCO results, a COCO file that names the images.
        masks_format: coco, coco-results, lvis, png-binary, png-labels or png-instances, to
            overrule what the content looks like.

    Raises:
        InputError: missing, unreadable, or not what it is said to be.
    """
    if not masks.exists():
        raise InputError(f"{masks} does not exist; a file or folder of masks is expected")
    return open_coco(masks, images_dir, images_json)
