"""Crops of images with the outlines of masks, as pages of `maskfix.report.sheet_page` show them.

Coordinates are those of the whole image: a crop says which box of it is shown, and is scaled to
that box by the browser, whatever its own size is.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.masks import NO_BOX, Mask, enclose
from maskfix.types import Box, Click

LONGEST = 384  # pixels of the longer side of a crop
QUALITY = 80  # of JPEG: WebP is a quarter smaller, and takes thirty times as long
MARGIN, LEAST_MARGIN = 0.4, 12  # around the object: in its own extent, and in pixels


def region_around(
    height: int, width: int, masks: Iterable[Mask], clicks: Iterable[Click] = ()
) -> Box:
    """The part of an image that shows masks and clicks and some of what is around them: a square
    where the image is large enough.

    Args:
        height, width: of the image.
        masks: of that image; where there is nothing in them, the whole image is shown.
        clicks: in it.
    """
    box = NO_BOX
    for mask in masks:
        box = enclose(box, mask.box)
    for click in clicks:
        row, col = round(click.y), round(click.x)
        box = enclose(box, Box(row, col, row + 1, col + 1))
    if box == NO_BOX:
        return Box(0, 0, height, width)
    extent = max(box.height, box.width)
    side = extent + 2 * (round(MARGIN * extent) + LEAST_MARGIN)
    top, bottom = _span(box.top, box.bottom, side, height)
    left, right = _span(box.left, box.right, side, width)
    return Box(top, left, bottom, right)


def _span(start: int, stop: int, length: int, limit: int) -> tuple[int, int]:
    """So many pixels around start..stop, moved and cut to lie in 0..limit."""
    length = min(length, limit)
    first = min(max(0, (start + stop - length) // 2), limit - length)
    return first, first + length


def make_picture(
    image: NDArray[np.uint8],
    region: Box,
    masks: Mapping[str, Sequence[Mask]],
    clicks: Sequence[Click] = (),
) -> dict[str, Any]:
    """One crop.

    Args:
        image: (H, W, 3) uint8 RGB.
        region: of it.
        masks: by what they are; several for one are shown together.
        clicks: to be shown.

    Returns:
        what assets/stage.js takes.
    """
    scale = min(1.0, LONGEST / max(region.height, region.width))
    size = max(1, round(region.width * scale)), max(1, round(region.height * scale))
    crop: Any = image[region.slices]
    if scale < 1:  # from half the size on no pixel is passed over, and averaging takes 8 x as long
        how = cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA
        crop = cv2.resize(crop, size, interpolation=how)
    bgr = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
    done, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return {
        "src": f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}",
        "box": {
            "left": region.left,
            "top": region.top,
            "width": region.width,
            "height": region.height,
        },
        "masks": {
            name: "".join(outline(mask, scale) for mask in group) for name, group in masks.items()
        },
        "clicks": [{"x": c.x, "y": c.y, "positive": c.positive} for c in clicks],
    }


def outline(mask: Mask, scale: float = 1.0) -> str:
    """The contours of a mask as an SVG path through the centres of its border pixels.

    Args:
        mask: the mask.
        scale: it will be shown at; details that are smaller than half a pixel then are left out.
    """
    if not mask.bits.size:
        return ""
    contours, _ = cv2.findContours(
        mask.bits.view(np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_SIMPLE,
        offset=(mask.box.left, mask.box.top),
    )
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.5 / scale, True)[:, 0] if scale < 1 else contour[:, 0]
        steps = np.diff(points, axis=0)
        moves = "".join(f"l{x} {y}" for x, y in steps.tolist())
        parts.append(f"M{points[0, 0]} {points[0, 1]}{moves}z")
    return "".join(parts)
