"""A tiny data set for tests of training: blobs on noise, in COCO JSON with PNG images."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from maskfix.formats.segmentation import encode
from maskfix.masks import Mask

SETTINGS = [
    "data=[{name: tiny, min_area: 20}]",
    "validation=[]",
    "crop.sizes=[[64, 64]]",
    "batch_size=4",
    "epoch_samples=8",
    "epochs=2",
    "log_steps=1",
    "optimizer.warmup=0",
]
"""What makes a run of `lite` on it a matter of seconds."""


def scene(seed: int, height: int = 80, width: int = 96) -> tuple[np.ndarray, list[np.ndarray]]:
    """An image with two objects: (H, W, 3) uint8 and two (H, W) bool."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
    masks = []
    for i, (x, y) in enumerate([(width // 4, height // 3), (3 * width // 4, 2 * height // 3)]):
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, (x, y), (16 + 2 * i, 12), 40 * seed, 0, 360, 1, -1)
        image[mask > 0] = rng.integers(120, 255, 3)
        masks.append(mask.astype(bool))
    return image, masks


def write_coco(folder: Path, count: int = 6) -> Path:
    """Write `count` scenes; returns the folder."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        image, masks = scene(i)
        name = f"{i:03}.png"
        cv2.imwrite(str(folder / "images" / name), image[..., ::-1])
        height, width = image.shape[:2]
        images.append({"id": i, "file_name": name, "height": height, "width": width})
        for k, mask in enumerate(masks):
            kind = "rle" if k else "polygon"
            value, _ = encode(Mask.from_array(mask), kind)
            entry = {"id": 2 * i + k, "image_id": i, "category_id": 1, "segmentation": value}
            annotations.append(entry)
    content = {"images": images, "annotations": annotations, "categories": []}
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
