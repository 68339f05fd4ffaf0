"""Training speed with every optimisation, without each of them, and without all, in one run.

    python tests/bench/bench_train.py [--batches 6] [--data lite.tar]

Each variant trains `lite` in a process of its own, on 16 samples of 224 x 224 a batch with one
worker and the same draws (1.5 rollouts a batch on average), because two of the optimisations are
settings of the process. A lesson is a forward and a backward pass of one sample; where a lesson is
learnt from every rollout, a sample gives 2.5 of them on average instead of 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ALL_ON = {
    "channels_last": True,
    "learn_each": True,
    "freeze_norm": True,
    "halves": True,
    "process": True,
    "cache": True,
}
VARIANTS = {
    "all on": {},
    "both threads on the whole batch": {"halves": False},
    "and statistics of batch norm learnt": {"halves": False, "freeze_norm": False},
    "contiguous layout": {"channels_last": False},
    "only the last rollout teaches": {"learn_each": False},
    "spinning OpenMP, memory given back": {"process": False},
    "images decoded anew": {"cache": False},
    "all off": dict.fromkeys(ALL_ON, False),
}
WARM_UP = 1


def write_images(folder: Path, count: int = 32) -> None:
    """Noisy photographs of 480 x 640 with two objects each, as JPEG."""
    import cv2

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tiny_data import scene

    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        image, masks = scene(i, 480, 640)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), image[..., ::-1])
        labels = masks[0] + 2 * masks[1].astype(np.uint8)
        cv2.imwrite(str(folder / "masks" / f"{i}.png"), labels)


def measure(data: str, batches: int, flags: dict[str, bool]) -> dict[str, float]:
    """Samples and lessons a second of one variant; runs in its own process."""
    if flags["process"]:
        from maskfix.runtime import keep_freed_memory, wait_passively

        wait_passively()
        keep_freed_memory()
    import torch

    from maskfix.train.config import load_recipe
    from maskfix.train.distributed import Group
    from maskfix.train.run import make_trainer

    changes = {
        "data": "[{name: bench}]",
        "validation": "[]",
        "crop.sizes": "[[224, 224]]",
        "epoch_samples": str(16 * (batches + WARM_UP)),
        "epochs": "1",
        "channels_last": str(flags["channels_last"]).lower(),
        "clicks.learn_each": str(flags["learn_each"]).lower(),
        "optimizer.freeze_norm": str(flags["freeze_norm"]).lower(),
    }
    config = load_recipe("lite", [f"{key}={value}" for key, value in changes.items()])
    with tempfile.TemporaryDirectory() as out:
        cpu = torch.device("cpu")
        trainer = make_trainer(config, {"bench": data}, Path(out), None, cpu, 1, Group())
        if not flags["halves"]:
            trainer.halves._pool = None
        if not flags["cache"]:
            trainer.source.data[0].cache_bytes = 0
        began, lessons = 0.0, 0
        for number, batch in enumerate(trainer._batches()):
            if number == WARM_UP:
                began, lessons = time.perf_counter(), trainer.progress.step
            trainer._train_batch(batch)
        seconds = time.perf_counter() - began
    done = trainer.progress.step - lessons
    return {"samples": 16 * batches / seconds, "lessons": 16 * done / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--data", help="a data set; synthetic images by default")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        flags = json.loads(arguments.variant)
        print(json.dumps(measure(arguments.data, arguments.batches, flags)))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or folder
        if not arguments.data:
            write_images(Path(folder) / "set")
            data = str(Path(folder) / "set")
        first: dict[str, float] = {}
        print(f"{'':36} samples/s  lessons/s  lessons relative to all on")
        for name, off in VARIANTS.items():
            command = [sys.executable, __file__, "--batches", str(arguments.batches)]
            command += ["--data", data, "--variant", json.dumps({**ALL_ON, **off})]
            root = str(Path(__file__).parents[2])
            environment = {**os.environ, "PYTHONPATH": root}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            result = json.loads(done.stdout)
            first = first or result
            share = result["lessons"] / first["lessons"]
            print(f"{name:36} {result['samples']:9.2f}  {result['lessons']:9.2f}  {share:.2f}")


if __name__ == "__main__":
    main()
