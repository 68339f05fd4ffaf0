"""Settings of the process that have to be made before torch is imported.

Measured on two cores with a training run of `lite` (batches of 16 at 192 x 192, one worker):

* OpenMP threads that spin while they wait take the core from the process that decodes the next
  batch: 6 times slower than with ``OMP_WAIT_POLICY=PASSIVE``.
* glibc gives big blocks back to the system as soon as they are free, and every tensor of the next
  step faults its pages in again: keeping them made training up to 2.5 times faster.

Imports neither torch nor numpy.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER = 2**31 - 1
_TOP_PAD = 256 << 20


def wait_passively() -> None:
    """Let idle OpenMP threads sleep. To be called before torch is imported; a user's own
    ``OMP_WAIT_POLICY`` is kept."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_freed_memory() -> bool:
    """Let the allocator keep what is freed for the next use; for long runs that allocate alike.

    Returns:
        whether there was anything to set: on Linux with glibc only.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD))
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in settings)
