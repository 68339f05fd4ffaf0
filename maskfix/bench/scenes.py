"""Images and masks to measure with, made on the spot: nothing is downloaded, none is anybody's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.clicks import SimulatedUser
from maskfix.damage import damage, smooth_noise
from maskfix.formats.segmentation import encode
from maskfix.masks import Mask
from maskfix.types import Click

SIZE = (480, 640)  # rows, columns
INSTANCES = 3  # an image


@dataclass(frozen=True)
class Scene:
    """An image with objects.

    Attributes:
        image: (480, 640, 3) uint8 RGB.
        objects: the right masks.
        damaged: what somebody else's network might have made of them.
        clicks: for each, where its largest error is deepest.
    """

    image: NDArray[np.uint8]
    objects: tuple[Mask, ...]
    damaged: tuple[Mask, ...]
    clicks: tuple[Click, ...]


def make_scene(seed: int) -> Scene:
    """A scene with three blobs of different textures side by side; the same for the same seed."""
    rng = np.random.default_rng(seed)
    image = _texture(rng)
    objects, damaged, clicks = [], [], []
    for number in range(INSTANCES):
        rows, cols = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float32)
        row, col = rng.uniform(150, 330), 107 + 213 * number + rng.uniform(-20, 20)
        distance = np.hypot((rows - row) / rng.uniform(60, 130), (cols - col) / rng.uniform(50, 80))
        blob = distance + 0.12 * smooth_noise(SIZE, 40, rng) < 1
        image[blob] = _texture(rng)[blob]
        broken = damage(blob, rng)
        mask, start = Mask.from_array(blob), Mask.from_array(broken)
        click = SimulatedUser(mask).next_click(start)
        assert click is not None, "a damaged mask has an error"
        objects.append(mask)
        damaged.append(start)
        clicks.append(click)
    return Scene(image, tuple(objects), tuple(damaged), tuple(clicks))


def _texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shades of one colour with detail of two sizes, (480, 640, 3)."""
    shade = 25 * smooth_noise(SIZE, 60, rng) + 12 * smooth_noise(SIZE, 4, rng)
    return (rng.uniform(50, 205, 3) + shade[..., None]).clip(0, 255).astype(np.uint8)


def write_set(folder: Path, scenes: list[Scene]) -> Path:
    """Write images/ (JPEG), masks.json (COCO) and clicks.json (a click a mask).

    Args:
        folder: to be made; it is returned.
        scenes: one an image.
    """
    (folder / "images").mkdir(parents=True)
    images, annotations, scripts = [], [], []
    for i, scene in enumerate(scenes):
        name = f"{i:04}.jpg"
        cv2.imwrite(str(folder / "images" / name), scene.image[..., ::-1])
        images.append({"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        instances = []
        for k, (mask, click) in enumerate(zip(scene.damaged, scene.clicks, strict=True)):
            number = INSTANCES * i + k
            segmentation, _ = encode(mask, "rle")
            annotations.append(
                {"id": number, "image_id": i, "category_id": 1, "segmentation": segmentation}
            )
            kind = "positive" if click.positive else "negative"
            instances.append({"id": number, "clicks": [{"x": click.x, "y": click.y, "kind": kind}]})
        scripts.append({"file": name, "instances": instances})
    categories = [{"id": 1, "name": "thing"}]
    masks = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "masks.json").write_text(json.dumps(masks), encoding="utf-8")
    script = {"version": 1, "images": scripts}
    (folder / "clicks.json").write_text(json.dumps(script), encoding="utf-8")
    return folder
