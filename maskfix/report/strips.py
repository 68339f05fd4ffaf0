"""The progress of one instance as a row of pictures (as Figure 5 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maskfix.files import atomic_write
from maskfix.masks import Mask
from maskfix.report.overlay import draw_clicks, draw_masks, side_by_side
from maskfix.report.sheet_picture import region_around
from maskfix.types import Box, Click

Picture = NDArray[np.uint8]

SHOWN = (1, 2, 3, 5, 10)  # clicks after which a picture is taken; and after the last
HEIGHT, TITLE = 240, 26  # pixels of a picture and of the line above it
GROUND, INK = (20, 22, 26), (236, 239, 244)  # of that line


def write_strip(
    path: Path,
    image: Picture,
    reference: Mask,
    initial: Mask | None,
    masks: Sequence[Mask],
    clicks: Sequence[Click],
    ious: Sequence[float],
) -> None:
    """Draw reference, starting mask (if any) and the masks after some clicks, side by side.

    Args:
        path: PNG file; its folder is made.
        image: (H, W, 3) uint8 RGB.
        masks: after each click.
        clicks: as many.
        ious: before the first click and after each.
    """
    height, width = image.shape[:2]
    region = region_around(height, width, [reference, *masks[-1:]], clicks)
    panels = [_panel(image, reference, (), region, "reference")]
    if initial is not None:
        panels.append(_panel(image, initial, (), region, f"given · IoU {ious[0]:.3f}"))
    shown = sorted({k for k in (*SHOWN, len(masks)) if 1 <= k <= len(masks)})
    for k in shown:
        title = f"click {k} · IoU {ious[k]:.3f}"
        panels.append(_panel(image, masks[k - 1], clicks[:k], region, title))
    path.parent.mkdir(parents=True, exist_ok=True)
    strip = side_by_side(panels, gap=3, ground=GROUND[0])
    done, content = cv2.imencode(".png", strip[:, :, ::-1])
    assert done
    atomic_write(path, content.tobytes())


def _panel(image: Picture, mask: Mask, clicks: Sequence[Click], region: Box, title: str) -> Picture:
    """One picture: the region enlarged first, so that outlines and dots keep their thickness."""
    scale = HEIGHT / region.height
    width = max(1, round(region.width * scale))
    enlarged: Any = cv2.resize(image[region.slices], (width, HEIGHT), interpolation=cv2.INTER_AREA)
    bits = mask.window(region).view(np.uint8)
    shape = cv2.resize(bits, (width, HEIGHT), interpolation=cv2.INTER_NEAREST)
    drawn = draw_masks(enlarged, [Mask.from_array(shape.astype(bool))])
    moved = [
        Click((c.x - region.left + 0.5) * scale, (c.y - region.top + 0.5) * scale, c.positive)
        for c in clicks
    ]
    drawn = draw_clicks(drawn, moved)
    return np.vstack([_line(title, width), drawn])


def _line(text: str, width: int) -> Picture:
    """A line of text, as much of it as there is room for."""
    line = Image.new("RGB", (width, TITLE), GROUND)
    ImageDraw.Draw(line).text((6, TITLE // 2), text, INK, ImageFont.load_default(13), anchor="lm")
    return np.asarray(line)
