"""Settings of the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from maskfix.runtime import keep_freed_memory, wait_passively


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    import os

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's allocator")
def test_big_blocks_come_from_the_heap_and_are_kept() -> None:
    code = """
import mmap, resource
from maskfix.runtime import keep_freed_memory
assert keep_freed_memory()
size = 64 << 20
bytearray(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(size)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert faults < size / mmap.PAGESIZE, faults
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_elsewhere_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


def test_neither_torch_nor_numpy_is_imported() -> None:
    code = "import sys, maskfix.runtime; assert not {'torch', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
