"""Which device to compute on, and with which numbers."""

from __future__ import annotations

from pathlib import Path

import torch

from maskfix.config import Precision
from maskfix.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device that a ``--device`` names.

    Args:
        name: auto (CUDA, then Apple's MPS, then the CPU), cpu, cuda, cuda:N or mps.

    Raises:
        UsageError: no such device here.
    """
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
        return torch.device(best)
    kind, _, number = name.partition(":")
    if kind == "cpu" and not number:
        return torch.device("cpu")
    if kind == "mps" and not number and has_mps:
        return torch.device("mps")
    count = torch.cuda.device_count() if kind == "cuda" else 0
    if count and (not number or (number.isdecimal() and int(number) < count)):
        return torch.device(name)
    if kind in {"cuda", "mps"}:
        there = f"{count} CUDA devices" if kind == "cuda" else "no MPS"
        raise UsageError(f"--device {name}: this machine has {there}; use auto or cpu")
    raise UsageError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse numbers that a device can only imitate.

    Raises:
        UsageError: bfloat16 on a processor without its arithmetic.
    """
    if precision == "bfloat16" and device.type == "cpu" and not multiplies_bfloat16():
        raise UsageError(
            "--precision bfloat16: this processor does not have it, and would take a hundred times "
            "as long; use float32, or a GPU"
        )


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and bool({"avx512_bf16", "amx_bf16"} & set(flags.read_text().split()))
