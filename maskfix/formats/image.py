"""Image files: finding them and reading them as 8-bit RGB."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from maskfix.errors import InputError, InstanceError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp"})
MOST_PIXELS = 500_000_000
"""A file that claims more is refused before it is decoded."""

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is below some scanners' images; ours is above

Image.init()  # now, in one thread: Pillow's own lazy loading of decoders is not safe in several
_FORMATS = [f for f in ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP") if f in Image.OPEN]
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap rows and columns


def read_image(path: Path, expected_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an image, (H, W, 3) uint8 RGB.

    Alpha is dropped, 16 bits keep their upper eight, of several frames the first is read. A photo
    may be stored lying on its side: it is turned upright as its EXIF data says if that gives the
    size that was annotated (or none is known), else kept as stored if that gives it.

    Args:
        path: JPEG, PNG, WebP, TIFF or BMP.
        expected_size: (height, width) as annotated.

    Raises:
        InstanceError: missing, damaged or cut file, or another size than annotated.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            upright = _chosen_orientation(image, path, expected_size)
            image.load()
            rgb = _to_rgb(image)
            return np.array(ImageOps.exif_transpose(rgb) if upright else rgb)
    except InstanceError:
        raise
    except FileNotFoundError:
        raise InstanceError(f"image {path} does not exist") from None
    except Exception as error:  # decoders raise anything at all on damaged files
        raise InstanceError(f"image {path} cannot be read: {_one_line(error)}") from error


def image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of an image as EXIF turns it, from its header; None if unreadable."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return _size(image, upright=True)
    except Exception:  # as above; whoever reads the pixels will say what is wrong
        return None


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder and those below it, in natural order (2 before 10).

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; a folder of images is expected")
    found = [
        Path(directory, name)
        for directory, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
    ]
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key that takes digits as numbers, then the plain name to be unique."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def find_image_file(folder: Path, name: str) -> Path | None:
    """The file an annotation names, below the folder: by its whole name, else by its last part."""
    inside = name.replace("\\", "/").lstrip("/")
    basename = posixpath.basename(inside)
    for candidate in (inside, basename) if ".." not in inside.split("/") else (basename,):
        for form in (candidate, *(unicodedata.normalize(f, candidate) for f in ("NFC", "NFD"))):
            path = folder / form
            if path.is_file():
                return path
    return None


def _chosen_orientation(image: Image.Image, path: Path, expected: tuple[int, int] | None) -> bool:
    """Whether to turn the image upright; raises InstanceError for a size that cannot be."""
    if image.width * image.height > MOST_PIXELS:
        raise InstanceError(
            f"image {path} claims {image.width}x{image.height} pixels, more than {MOST_PIXELS}"
        )
    turned = _size(image, upright=True)
    if expected is None or expected == turned:
        return True
    if expected == _size(image, upright=False):
        return False
    raise InstanceError(
        f"image {path} is {turned[1]}x{turned[0]}, annotated as {expected[1]}x{expected[0]}"
    )


def _size(image: Image.Image, *, upright: bool) -> tuple[int, int]:
    swapped = upright and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if swapped else (image.height, image.width)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode; the EXIF data stays."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        grey = Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8))
        grey.info.update(image.info)
        return _with_exif(grey, image).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _with_exif(image: Image.Image, source: Image.Image) -> Image.Image:
    image.info["exif"] = source.getexif().tobytes()
    return image


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
