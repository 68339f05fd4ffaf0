"""Peak resident memory, with a stub in place of the network, and what is resident an instance.

    python tests/bench/bench_memory.py instances [--commands refine ...] [--counts 1000 5000 50000]
    python tests/bench/bench_memory.py json [--megabytes 1000]
    python tests/bench/bench_memory.py pixels [--megapixels 40] [--instances 500] [--images 3]

`instances`: many small images, ten instances each: simulated clicks (`refine`), two clicks an
instance from a script (`script`), `triage`, or twenty clicks an instance (`eval`). `json`: a COCO
file is indexed, then written with a thousand edits. `pixels`: few big images with many instances
each. Every measurement is a process of its own; "above" is what it needs beyond the same process
before its first image, or before it opens the file. With `--out FOLDER` the numbers are written
there as memory-*.json, and drawn as memory-instances.svg. `--network lite` measures that one in
place of the stub; its weights then count as "above".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from maskfix import evaluation, methods
from maskfix.config import RefineConfig
from maskfix.evaluation import EvalConfig, SetConfig
from maskfix.formats import Edit, open_source
from maskfix.masks import Mask
from maskfix.model.checkpoint import Model
from maskfix.model.click_maps import ClickMaps
from maskfix.model.network import ClickNetwork, Features
from maskfix.predictor import Predictor
from maskfix.refinement import run
from maskfix.rle import counts_from_mask, text_from_counts
from maskfix.triage import run as triage_run
from maskfix.triage.run import TriageConfig
from maskfix.types import Box

EACH = 10  # instances an image of `instances`
SMALL = (96, 128)
STUB_SIDE = 64  # pixels of its input: what it does not compute need not be prepared


class Stub(ClickNetwork):
    """Answers with the mask it was given, a little lower."""

    def __init__(self) -> None:
        super().__init__(ClickMaps(5), with_prev_mask=True)

    def trunk(self, rgb: Tensor, encoding: Tensor) -> Features:
        return Features(encoding[:, :1])

    def classify(self, features: Features, height: int, width: int) -> dict[str, Tensor]:
        return {"instances": 8 * features.main.roll(9, 2) - 4}


def load_stub(name: object, device: object, precision: object = "float32") -> Model:
    return Model(Stub().eval(), "stub", "stub", {}, "fast", Path("stub"), "0" * 64)


def peak() -> float:
    """MiB resident at most, of this process so far; `getrusage` would count its parent, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


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


def clicks(number: int, mask: Mask) -> str:
    """An instance of a click script: one click where its mask is cut, one beside it."""
    box = mask.box
    inside = f"{{x: {(box.left + box.right) // 2}, y: {box.top + box.height // 6}, kind: positive}}"
    outside = f"{{x: {box.left}, y: {box.top}, kind: negative}}"
    return f"  - id: {number}\n    clicks:\n    - {inside}\n    - {outside}\n"


def write_set(
    folder: Path, images: int, each: int, size: tuple[int, int], radii: tuple[int, int]
) -> None:
    """Noise with ellipses: COCO files of right and of damaged masks, and two clicks on each."""
    (folder / "images").mkdir()
    height, width = size
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    picture = cv2.resize(noise, (width, height))
    code = cv2.imencode(".jpg", picture)[1].tobytes()
    files = [(folder / f"{name}.json").open("w") for name in ("reference", "preds")]
    script = (folder / "clicks.yaml").open("w")
    script.write("version: 1\nimages:\n")
    names = [
        {"id": i, "file_name": f"{i}.jpg", "height": height, "width": width} for i in range(images)
    ]
    head = json.dumps({"images": names, "categories": [{"id": 1, "name": "blob"}]})[:-1]
    for file in files:
        file.write(head + ', "annotations": [')
    for i in range(images):
        (folder / "images" / f"{i}.jpg").write_bytes(code)
        script.write(f"- file: {i}.jpg\n  instances:\n")
        for k in range(each):
            mask, number = ellipse(height, width, rng, radii), i * each + k
            for file, cut in zip(files, (False, True), strict=True):
                file.write((", " if number else "") + json.dumps(entry(number, i, mask, cut)))
            script.write(clicks(number, mask))
    for file in files:
        file.write("]}")
    for file in (*files, script):
        file.close()


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


# --- measurements, each in a process of its own -----------------------------------------------


def measure_refine(folder: Path, **settings: Any) -> dict[str, Any]:
    config = RefineConfig(
        images=folder / "images", masks=folder / "preds.json", out=folder / "out", **settings
    )

    def work() -> int:
        summary = run.refine(config)
        assert not summary["status"]["failed"], summary["status"]
        return int(summary["instances"])

    return timed(work)


def measure_simulated(folder: Path) -> dict[str, Any]:
    return measure_refine(folder, reference=folder / "reference.json", simulate=1)


def measure_script(folder: Path) -> dict[str, Any]:
    return measure_refine(folder, clicks=folder / "clicks.yaml")


def measure_triage(folder: Path) -> dict[str, Any]:
    config = TriageConfig(images=folder / "images", masks=folder / "preds.json", out=folder / "out")

    def work() -> int:
        result = triage_run.triage(config)
        assert result is not None and not result.failed
        return result.instances

    return timed(work)


def measure_eval(folder: Path) -> dict[str, Any]:
    entry = SetConfig("set", folder / "reference.json", folder / "images", folder / "preds.json")
    config = EvalConfig(sets=(entry,), out=folder / "out")

    def work() -> int:
        content = evaluation.evaluate(config)
        assert content is not None
        return int(content["results"][0]["n"])

    return timed(work)


def measure_index(folder: Path) -> dict[str, Any]:
    def work() -> int:
        source = open_source(folder / "big.json", folder / "images")
        return len(source._keys)  # type: ignore[attr-defined]

    return with_rate(timed(work), folder / "big.json")


def measure_write(folder: Path) -> dict[str, Any]:
    source = open_source(folder / "big.json", folder / "images")
    mask = ellipse(480, 640, np.random.default_rng(0), (20, 40))
    step = max(1, len(source) // 1000)

    def edits() -> Iterator[Edit]:
        for ordinal in range(0, len(source), step):
            yield Edit("replace", ordinal, 24 * ordinal, mask)

    facts = timed(lambda: sum(1 for _ in source.write(edits(), folder)))
    return with_rate(facts, folder / "annotations.json")


def timed(work: Callable[[], int]) -> dict[str, Any]:
    """Do work that returns a count; what it took."""
    before, cpu, clock = peak(), time.process_time(), time.monotonic()
    count = work()
    return {
        "count": count,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.monotonic() - clock,
        "peak_MiB": peak(),
        "above_MiB": peak() - before,
    }


def with_rate(facts: dict[str, Any], path: Path) -> dict[str, Any]:
    size = path.stat().st_size / 1e6
    return {**facts, "file_MB": size, "MB_per_cpu_s": size / facts["cpu_s"]}


MEASURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "refine": measure_simulated,
    "script": measure_script,
    "triage": measure_triage,
    "eval": measure_eval,
    "index": measure_index,
    "write": measure_write,
}
COMMANDS = ("refine", "script", "triage", "eval")


def measure(what: str, folders: list[str], network: str) -> None:
    """Measure in this process; prints the facts of each folder as a line of JSON."""
    if network == "stub":
        for module in (run, triage_run, evaluation):
            vars(module)["load_model"] = load_stub
        for module in (run, triage_run, methods):
            vars(module)["Predictor"] = partial(Predictor, zoom_target=STUB_SIDE)
    for folder in folders:
        print(json.dumps(MEASURES[what](Path(folder))))


def measured(what: str, folder: Path, network: str = "stub") -> dict[str, Any]:
    """Measure in a process of its own."""
    words = [sys.executable, __file__, "measure", what, str(folder), "--network", network]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(what, ", ".join(f"{key} {value:,.1f}" for key, value in facts.items()), flush=True)
    return {"what": what, **facts}


# --- what is done with the numbers --------------------------------------------------------------


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_GiB": round(pages / 2**30, 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def each_instance(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Bytes of peak memory an instance, between the least and the greatest count, by command."""
    found = {}
    for what in dict.fromkeys(row["what"] for row in rows):
        own = [row for row in rows if row["what"] == what]
        first, last = own[0], own[-1]
        if last["count"] > first["count"]:
            more = (last["peak_MiB"] - first["peak_MiB"]) * 2**20
            found[what] = more / (last["count"] - first["count"])
            print(f"{what}: {found[what]:,.0f} bytes an instance")
    return found


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for what in dict.fromkeys(row["what"] for row in rows):
        own = [row for row in rows if row["what"] == what]
        counts, peaks = ([row[key] for row in own] for key in ("count", "peak_MiB"))
        axes.plot(counts, peaks, marker="o", label=what)
    axes.set(xlabel="instances", ylabel="peak resident memory (MiB)", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path)


def write_results(folder: Path, what: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"command": sys.argv, "machine": machine(), "measured": rows}
    if what == "instances":
        content["bytes_an_instance"] = each_instance(rows)
        draw(rows, folder / "memory-instances.svg")
    (folder / f"memory-{what}.json").write_text(json.dumps(content, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["instances", "json", "pixels", "measure"])
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=["refine"])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000, 50000])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--megapixels", type=int, default=40)
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--network", default="stub")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.what == "measure":
        what, *folders = arguments.rest
        measure(what, folders, arguments.network)
        return
    rows = []
    for count in sorted(arguments.counts) if arguments.what == "instances" else [0]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if arguments.what == "json":
                write_big(folder, arguments.megabytes)
                rows += [measured("index", folder), measured("write", folder)]
                continue
            if arguments.what == "pixels":
                height = int((arguments.megapixels * 1e6 * 2 / 3) ** 0.5)
                size, radii = (height, height * 3 // 2), (40, height // 8)
                write_set(folder, arguments.images, arguments.instances, size, radii)
            else:
                write_set(folder, count // EACH, EACH, SMALL, (8, 30))
            for command in arguments.commands:
                rows.append(measured(command, folder, arguments.network))
                shutil.rmtree(folder / "out")
    if arguments.out:
        write_results(arguments.out, arguments.what, rows)


if __name__ == "__main__":
    main()
