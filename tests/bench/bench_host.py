"""How many clicked instances a second the processor can serve, were the network to take no time.

    python tests/bench/bench_host.py [--images 200] [--processes 1 2]

`maskfix refine` from files to files, 640 x 480, three instances an image with a click each, a stub
in place of the network: once as on the CPU (`threads`), once in batches as on a GPU (`batches`).
Several processes do a shard each. A GPU is never served faster than this, so the stages are what
is left to save there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from bench_memory import load_stub

from maskfix.bench.measure import Stopwatch
from maskfix.bench.run import STAGES
from maskfix.bench.scenes import INSTANCES, make_scene, write_set
from maskfix.config import RefineConfig
from maskfix.predictor import Predictor
from maskfix.refinement import run
from maskfix.sharding import Shard


class Batching(Predictor):
    """Works in batches, as if the stub were on a GPU."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self.in_batches = True


def refine(folder: Path, out: Path, in_batches: bool, shard: Shard) -> dict[str, float]:
    """Do a shard; processor seconds by stage, and the seconds by the clock."""
    run.load_model = load_stub  # type: ignore[assignment]
    if in_batches:
        run.Predictor = Batching  # type: ignore[misc]
    config = RefineConfig(
        images=folder / "images",
        masks=folder / "masks.json",
        clicks=folder / "clicks.json",
        out=out / str(shard).replace("/", "-"),
        device="cpu",
        shard=shard if shard.count > 1 else None,
    )
    watch, began, used = Stopwatch(), time.perf_counter(), time.process_time()
    with watch.watch(STAGES):
        summary = run.refine(config)
    assert not summary["status"]["failed"], summary["status"]
    used = time.process_time() - used
    rest = used - sum(watch.seconds.values())
    return {**watch.seconds, "everything else": rest, "clock": time.perf_counter() - began}


def measure(folder: Path, in_batches: bool, processes: int, instances: int) -> None:
    """All shards at the same time, each in a fresh process."""
    with (
        tempfile.TemporaryDirectory() as out,
        ProcessPoolExecutor(processes, get_context("spawn")) as pool,
    ):
        work = partial(refine, folder, Path(out), in_batches)
        found = list(pool.map(work, [Shard(i + 1, processes) for i in range(processes)]))
    seconds = max(each.pop("clock") for each in found)
    stages: Counter[str] = Counter()
    for each in found:
        stages.update(each)  # type: ignore[arg-type]
    way = "batches" if in_batches else "threads"
    used, rate = 1000 * sum(stages.values()) / instances, instances / seconds
    print(
        f"\n{way}, {processes} processes: {rate:.0f} instances/s, {used:.1f} ms of processor each"
    )
    for stage, spent in stages.most_common():
        print(f"  {stage:30s} {1000 * spent / instances:6.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scenes = [make_scene(seed) for seed in range(4)]
        data = write_set(Path(folder) / "set", [scenes[i % 4] for i in range(options.images)])
        for in_batches in (False, True):
            for processes in options.processes:
                measure(data, in_batches, processes, INSTANCES * options.images)


if __name__ == "__main__":
    main()
