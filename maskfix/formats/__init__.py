"""Annotation formats behind one function and one small set of types."""

from __future__ import annotations

from pathlib import Path

from maskfix.errors import InputError, UsageError
from maskfix.formats.base import Annotation, Edit, ImageItem, Source, Written
from maskfix.formats.coco import open_coco
from maskfix.formats.png import PNG_FORMATS, open_png

__all__ = ["FORMATS", "Annotation", "Edit", "ImageItem", "Source", "Written", "open_source"]

FORMATS = ("coco", "coco-results", "lvis", *PNG_FORMATS)


def open_source(
    masks_path: Path,
    images_dir: Path,
    images_json: Path | None = None,
    masks_format: str | None = None,
) -> Source:
    """Open a set of masks with its images; the format is told from the content.

    Args:
        masks_path: a COCO, COCO results or LVIS file, or a folder of PNG masks.
        images_dir: the folder of images.
        images_json: for COCO results, a COCO file that names the images.
        masks_format: one of `FORMATS`, to overrule what the content looks like.

    Raises:
        InputError: missing, unreadable, or not what it is said to be.
        UsageError: an unknown format, or one that a file or folder cannot have.
    """
    if masks_format is not None and masks_format not in FORMATS:
        raise UsageError(f"masks format {masks_format} is unknown; known: {', '.join(FORMATS)}")
    if not images_dir.is_dir():
        raise InputError(f"{images_dir} is not a folder; a folder of images is expected")
    if not masks_path.exists():
        raise InputError(f"{masks_path} does not exist; a file or folder of masks is expected")
    wants_folder = masks_format in PNG_FORMATS
    if masks_format is not None and wants_folder != masks_path.is_dir():
        found = "a folder" if masks_path.is_dir() else "a file"
        raise UsageError(f"{masks_path} is {found}, which cannot be {masks_format}")
    if not masks_path.is_dir():
        return open_coco(masks_path, images_dir, images_json, masks_format)
    if images_json is not None:
        raise UsageError("images are found by name for PNG masks; leave --images-json out")
    return open_png(masks_path, images_dir, masks_format)
