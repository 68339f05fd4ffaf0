"""Memory of `maskfix refine` does not grow with the number of instances.

Measured as in tests/bench/bench_memory.py, which has larger numbers, and on the other commands.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))
from bench_memory import EACH, SMALL, write_set

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

COUNTS = (100, 1000)
MOST = 2500
"""Bytes an instance. Some 1,600 are measured, much of it what the allocator had not yet used; an
annotation with its mask that is not let go takes more than a thousand more."""

MEASURE = """
import sys
sys.path.insert(0, sys.argv[1])
import bench_memory
from maskfix.refinement import gallery, inputs, journal
from maskfix.report import refinement_page
inputs.CHUNK_IMAGES = 2  # a chunk is held until it is done, the page's rows until it is written
refinement_page.MOST_ROWS = gallery.MOST_PICTURES = 20
journal.os.fsync = lambda file: None  # slow on a busy disk
bench_memory.measure("script", sys.argv[2:], "stub")
"""


def test_refining_more_instances_takes_no_more_memory(tmp_path: Path) -> None:
    folders = [tmp_path / str(count) for count in COUNTS]
    for folder, count in zip(folders, COUNTS, strict=True):
        folder.mkdir()
        write_set(folder, count // EACH, EACH, SMALL, (8, 30))
    words = [
        sys.executable,
        "-c",
        MEASURE,
        str(Path(__file__).parent / "bench"),
        *map(str, folders),
    ]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    small, large = map(json.loads, done.stdout.splitlines())
    assert [small["count"], large["count"]] == list(COUNTS)
    growth = (large["peak_MiB"] - small["peak_MiB"]) * 2**20 / (COUNTS[1] - COUNTS[0])
    assert growth < MOST, f"{growth:.0f} bytes an instance"
