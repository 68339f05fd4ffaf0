"""`maskfix refine --engine ray` on a cluster of two workers on this machine."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_refine import Run, annotations_of, make_set, run, without_times

from maskfix.refinement import inputs, ray_engine
from maskfix.refinement.worker import Finished

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'maskfix[ray]'")

__all__ = ["run"]  # a fixture

IMAGES = 9
CHUNK = 2

# A driver that is killed when it has written two chunks.
DRIVER = f"""
import os, signal
from maskfix.refinement import inputs, journal
inputs.CHUNK_IMAGES = {CHUNK}
append = journal.Journal.append
def append_and_die(self, *arguments):
    append(self, *arguments)
    if self.chunks_done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.append = append_and_die
from maskfix.cli.main import main
main()
"""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """Two cores of this machine; the address to reach it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    context = ray.init(
        num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()
    with warnings.catch_warnings():  # Ray does not wait for the processes that it ends
        warnings.simplefilter("ignore", ResourceWarning)
        del context
        gc.collect()


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    make_set(tmp_path, IMAGES)
    monkeypatch.setattr(inputs, "CHUNK_IMAGES", CHUNK)
    found = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    return ["refine", *found, "--reference", tmp_path / "reference.json", "--simulate", 1]


class Mortal(ray_engine.RayWorker):
    """Dies once, in the middle of the work."""

    grave: Path

    def work(self, chunk: list[int]) -> Finished:
        finished = super().work(chunk)
        if 4 in chunk and not self.grave.exists():
            self.grave.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return finished


def same_results(first: Path, second: Path) -> None:
    for name in ("annotations.json", "report.csv"):
        assert (first / name).exists()
    assert (first / "annotations.json").read_bytes() == (second / "annotations.json").read_bytes()
    assert without_times(first) == without_times(second)
    assert len(annotations_of(first)) == len(without_times(first)) == IMAGES


def test_a_worker_that_is_killed_changes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object]
) -> None:
    assert run(*arguments, "--out", tmp_path / "local") == 0
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_engine, "RayWorker", Mortal)
    monkeypatch.setattr(Mortal, "grave", tmp_path / "grave", raising=False)
    assert run(*arguments, "--out", tmp_path / "spread", "--engine", "ray") == 0
    assert (tmp_path / "grave").exists()
    same_results(tmp_path / "spread", tmp_path / "local")


def test_a_driver_that_is_killed_and_resumed_changes_nothing(
    run: Run, tmp_path: Path, arguments: list[object], cluster: str
) -> None:
    assert run(*arguments, "--out", tmp_path / "local") == 0
    spread = [*map(str, arguments), "--out", str(tmp_path / "spread"), "--engine", "ray"]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *spread],
        env={**os.environ, "RAY_ADDRESS": cluster}, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    journal = tmp_path / "spread" / "journal.jsonl"
    assert journal.read_bytes().count(b'"closed"') == 2
    assert run(*spread, "--resume") == 0
    same_results(tmp_path / "spread", tmp_path / "local")


def test_what_a_worker_complains_of_is_one_line(
    run: Run, tmp_path: Path, arguments: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images" / "5.png").write_bytes(b"no image")
    out = ["--out", tmp_path / "out", "--engine", "ray", "--fail-fast"]
    assert run(*arguments, *out) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("maskfix: error: 5.png: image") and "cannot be read" in error
