"""Peak resident memory of `maskfix refine`, with a stub in place of the network.

    python tests/bench/bench_memory.py instances [--counts 1000 5000 50000] [--plot curve.png]
    python tests/bench/bench_memory.py json [--megabytes 1000]
    python tests/bench/bench_memory.py pixels [--megapixels 40] [--instances 500] [--images 3]

`instances`: many small images, ten instances each. `json`: a COCO file is indexed, then written
with a thousand edits. `pixels`: few big images with many instances each. Every measurement is a
process of its own; "above" is what it needs beyond the same process before its first image.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from maskfix.config import RefineConfig
from maskfix.formats import Edit, open_source
from maskfix.masks import Mask
from maskfix.model.checkpoint import Model
from maskfix.model.click_maps import ClickMaps
from maskfix.model.network import ClickNetwork, Features
from maskfix.refinement import run
from maskfix.rle import counts_from_mask, text_from_counts
from maskfix.types import Box

EACH = 10  # instances an image of `instances`
SMALL = (96, 128)


class Stub(ClickNetwork):
    """Answers with the mask it was given, a little lower."""

    def __init__(self) -> None:
        super().__init__(ClickMaps(5), with_prev_mask=True)

    def trunk(self, rgb: Tensor, encoding: Tensor) -> Features:
        return Features(encoding[:, :1])

    def classify(self, features: Features, height: int, width: int) -> dict[str, Tensor]:
        return {"instances": 8 * features.main.roll(9, 2) - 4}


def load_stub(name: object, device: object) -> Model:
    return Model(Stub().eval(), "stub", "stub", {}, "fast", Path("stub"), "0" * 64)


def peak() -> float:
    """MB resident at most, of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- data -------------------------------------------------------------------------------------


def ellipse(height: int, width: int, rng: np.random.Generator, radii: tuple[int, int]) -> Mask:
    """An ellipse inside an image, without an array of the image."""
    b, a = (int(rng.integers(*radii)) for _ in range(2))
    row, col = int(rng.integers(b, height - b)), int(rng.integers(a, width - a))
    y, x = np.mgrid[-b : b + 1, -a : a + 1]
    bits = (y / (b + 0.5)) ** 2 + (x / (a + 0.5)) ** 2 <= 1
    return Mask(height, width, Box(row - b, col - a, row + b + 1, col + a + 1), bits)


def entry(number: int, image: int, mask: Mask, cut: bool) -> dict[str, Any]:
    """An annotation; without the mask's top third if it is to be a bad one."""
    if cut:
        array = mask.bits.copy()
        array[: array.shape[0] // 3] = False
        mask = Mask(mask.height, mask.width, mask.box, array)
    counts = text_from_counts(counts_from_mask(mask))
    segmentation = {"size": [mask.height, mask.width], "counts": counts}
    common = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0}
    return {**common, "segmentation": segmentation, "area": mask.area, "bbox": [0, 0, 1, 1]}


def write_set(
    folder: Path, images: int, each: int, size: tuple[int, int], radii: tuple[int, int]
) -> None:
    """Noise with ellipses, as COCO files of right and of damaged masks, written bit by bit."""
    (folder / "images").mkdir()
    height, width = size
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    picture = cv2.resize(noise, (width, height))
    code = cv2.imencode(".jpg", picture)[1].tobytes()
    files = [(folder / f"{name}.json").open("w") for name in ("reference", "preds")]
    names = [
        {"id": i, "file_name": f"{i}.jpg", "height": height, "width": width} for i in range(images)
    ]
    head = json.dumps({"images": names, "categories": [{"id": 1, "name": "blob"}]})[:-1]
    for file in files:
        file.write(head + ', "annotations": [')
    for i in range(images):
        (folder / "images" / f"{i}.jpg").write_bytes(code)
        for k in range(each):
            mask, number = ellipse(height, width, rng, radii), i * each + k
            for file, cut in zip(files, (False, True), strict=True):
                file.write((", " if number else "") + json.dumps(entry(number, i, mask, cut)))
    for file in files:
        file.write("]}")
        file.close()


# --- measurements, each in a process of its own -----------------------------------------------


def measure_refine(folder: Path) -> dict[str, Any]:
    run.load_model = load_stub  # type: ignore[assignment]
    config = RefineConfig(
        images=folder / "images", masks=folder / "preds.json",
        reference=folder / "reference.json", simulate=1, out=folder / "out",
    )  # fmt: skip
    before, began = peak(), time.process_time()
    summary = run.refine(config)
    seconds = time.process_time() - began
    assert summary["status"]["ok"] > 0.9 * summary["instances"], summary["status"]
    return {
        "instances": summary["instances"],
        "seconds": seconds,
        "peak": peak(),
        "above": peak() - before,
    }


def measure_index(folder: Path) -> dict[str, Any]:
    before, began = peak(), time.process_time()
    source = open_source(folder / "big.json", folder / "images")
    seconds = time.process_time() - began
    size = (folder / "big.json").stat().st_size / 1e6
    return {"annotations": len(source._keys), "MB": size, "seconds": seconds,
            "MB/s": size / seconds, "above": peak() - before}  # type: ignore[attr-defined]  # fmt: skip


def measure_write(folder: Path) -> dict[str, Any]:
    source = open_source(folder / "big.json", folder / "images")
    mask = ellipse(480, 640, np.random.default_rng(0), (20, 40))
    step = max(1, len(source) // 1000)

    def edits() -> Iterator[Edit]:
        for ordinal in range(0, len(source), step):
            yield Edit("replace", ordinal, 24 * ordinal, mask)

    before, began = peak(), time.process_time()
    count = sum(1 for _ in source.write(edits(), folder))
    seconds = time.process_time() - began
    size = (folder / "annotations.json").stat().st_size / 1e6
    return {
        "edits": count,
        "MB": size,
        "seconds": seconds,
        "MB/s": size / seconds,
        "above": peak() - before,
    }


def write_big(folder: Path, megabytes: int) -> None:
    """Polygons of 24 points and run lengths in turn, as in COCO: 24 annotations an image."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    polygon = [round(float(v), 2) for v in rng.uniform(0, 480, 48)]
    runs = entry(0, 0, ellipse(480, 640, rng, (60, 100)), False)["segmentation"]
    tails = [
        json.dumps({"category_id": 1, "iscrowd": 0, "segmentation": s, "area": 5000.25,
                    "bbox": [1.5, 2.5, 99.25, 77.5]})[1:]
        for s in ([polygon], runs)
    ]  # fmt: skip
    count = megabytes * 10**6 // (sum(map(len, tails)) // 2 + 40)
    names = [
        {"id": i, "file_name": f"{i:012}.jpg", "height": 480, "width": 640, "license": 1}
        for i in range(count // 24 + 1)
    ]
    with (folder / "big.json").open("w") as file:
        file.write('{"images": ' + json.dumps(names) + ', "annotations": [')
        for i in range(count):
            file.write((", " if i else "") + f'{{"id": {i}, "image_id": {i // 24}, ' + tails[i % 2])
        file.write('], "categories": [{"id": 1, "name": "blob"}]}')


MEASURES = {"refine": measure_refine, "index": measure_index, "write": measure_write}


def measured(what: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "measure", what, str(folder)], stdout=subprocess.PIPE, check=True
    )
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(what, ", ".join(f"{key} {value:,.1f}" for key, value in facts.items()), flush=True)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["instances", "json", "pixels", "measure"])
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000, 50000])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--megapixels", type=int, default=40)
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--images", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "measure":
        what, folder = arguments.rest
        print(json.dumps(MEASURES[what](Path(folder))))
        return
    curve = []
    for count in arguments.counts if arguments.what == "instances" else [0]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if arguments.what == "json":
                write_big(folder, arguments.megabytes)
                measured("index", folder)
                measured("write", folder)
            elif arguments.what == "pixels":
                height = int((arguments.megapixels * 1e6 * 2 / 3) ** 0.5)
                size = height, height * 3 // 2
                write_set(folder, arguments.images, arguments.instances, size, (40, height // 8))
                measured("refine", folder)
            else:
                write_set(folder, count // EACH, EACH, SMALL, (8, 30))
                curve.append((count, measured("refine", folder)["peak"]))
    if curve and arguments.plot:
        from matplotlib import pyplot

        pyplot.plot(*zip(*curve, strict=True), marker="o")
        pyplot.xlabel("instances")
        pyplot.ylabel("peak resident memory (MB)")
        pyplot.ylim(0)
        pyplot.savefig(arguments.plot)


if __name__ == "__main__":
    main()
