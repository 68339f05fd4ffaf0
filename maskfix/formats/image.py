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
from PIL.TiffImagePlugin import TiffImageFile

from maskfix.errors import InputError, InstanceError
from maskfix.formats.base import ImageItem

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp"})
MOST_PIXELS = 500_000_000
"""A file that claims more is refused before it is decoded."""

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is below some scanners' images; ours is above

Image.init()  # now, in one thread: Pillow's own lazy loading of decoders is not safe in several
_FORMATS: list[str] = [
    name for name in ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP") if name in Image.OPEN
]
_ORIENTATION = 0x0112  # EXIF tag; these values swap rows and columns, and this swaps them back
_BACK = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


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
        # A file of ours, as Pillow maps one of its own and then misreads turned grey TIFFs.
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InstanceError(
                    f"image {path} claims {image.width}x{image.height} pixels, "
                    f"more than {MOST_PIXELS}"
                )
            back = _BACK.get(image.getexif().get(_ORIENTATION, 1))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            upright = _to_rgb(image)
            found = (upright.height, upright.width)
            if expected_size in (None, found):
                return np.array(upright)
            if back is not None and expected_size == found[::-1]:
                return np.array(upright.transpose(back))
            raise _wrong_size(path, found, expected_size)
    except InstanceError:
        raise
    except FileNotFoundError:
        raise InstanceError(f"image {path} does not exist") from None
    except Exception as error:  # decoders raise anything at all on damaged files
        raise InstanceError(f"image {path} cannot be read: {_one_line(error)}") from error


def read_item(item: ImageItem) -> NDArray[np.uint8]:
    """The pixels of an annotated image, as `read_image`, in the size it was annotated in.

    Raises:
        InstanceError: see `read_image`; or the file was not found.
    """
    if item.problem or item.path is None:
        raise InstanceError(item.problem or "the image file was not found")
    size = None if item.height is None or item.width is None else (item.height, item.width)
    return read_image(item.path, size)


def image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of an image as EXIF turns it, from its header; None if unreadable."""
    try:
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if isinstance(image, TiffImageFile):  # which says the upright size, or did once
                width, height = image.tag_v2[256], image.tag_v2[257]
            turned = image.getexif().get(_ORIENTATION, 1) in _BACK
            return (width, height) if turned else (height, width)
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
            if os.path.isfile(folder / form):
                return folder / form
    return None


def _wrong_size(path: Path, found: tuple[int, int], wanted: tuple[int, int]) -> InstanceError:
    return InstanceError(
        f"image {path} is {found[1]}x{found[0]}, annotated as {wanted[1]}x{wanted[0]}"
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
