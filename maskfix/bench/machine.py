"""What the machine can do, whatever maskfix makes of it."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskfix.bench.measure import in_turn
from maskfix.model.convolution import FixedConv
from maskfix.model.inference import PackedConv, input_shapes, prepare
from maskfix.model.network import ClickNetwork
from maskfix.version import __version__

MATMUL = 1024
MEMORY = 32 << 20  # float32 numbers, far more than any cache holds
SHAPES = 5  # of convolutions: those that cost most


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, device, threads and versions."""
    on_cuda = device.type == "cuda"
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if on_cuda else device.type,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "maskfix": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure_peak(device: torch.device, budget: float) -> dict[str, Any]:
    """Matrix products in GFLOP/s, and copies of memory in GB/s (read and written)."""
    matrix = torch.rand(MATMUL, MATMUL, device=device)
    source = torch.rand(MEMORY, device=device)
    target = torch.empty_like(source)

    def multiply() -> None:
        torch.mm(matrix, matrix)
        finish(device)

    def copy() -> None:
        target.copy_(source)
        finish(device)

    timings = in_turn({"matmul": multiply, "memory": copy}, budget)
    return {
        "matmul": {"size": MATMUL, "gflops": 2 * MATMUL**3 / timings["matmul"].best / 1e9},
        "memory": {"gb_per_s": 2 * 4 * MEMORY / timings["memory"].best / 1e9},
    }


@torch.inference_mode()
def measure_convolutions(
    network: ClickNetwork, size: int, peak: float, budget: float
) -> list[dict[str, Any]]:
    """The convolution shapes of a network that cost most, each by itself.

    Args:
        network: on its device, in eval mode.
        size: side of its input in pixels.
        peak: GFLOP/s of matrix products.
        budget: seconds.

    Returns:
        for each shape ``input``, ``kernel``, ``stride``, ``groups``, ``count`` (in one pass),
        ``share`` of the network's convolutions, ``gflops`` per second and ``of_peak``.
    """
    device = network.mean.device
    shapes = input_shapes(prepared := prepare(network), size)
    costs: Counter[tuple[Any, ...]] = Counter()
    counts: Counter[tuple[Any, ...]] = Counter()
    chosen: dict[tuple[Any, ...], tuple[nn.Conv2d | FixedConv, tuple[int, ...]]] = {}
    for layer, shape in shapes.items():
        assert isinstance(layer, nn.Conv2d | FixedConv)
        stride = layer.stride if isinstance(layer.stride, int) else layer.stride[0]
        key = (shape, tuple(layer.weight.shape), stride, layer.groups)
        pixels = shape[0] * (shape[2] // stride) * (shape[3] // stride)
        costs[key] += 2 * layer.weight.numel() * pixels
        counts[key] += 1
        chosen[key] = layer, shape
    del prepared
    ways = {str(key): _convolve(*chosen[key], device) for key, _ in costs.most_common(SHAPES)}
    timings = in_turn(ways, budget)
    total = sum(costs.values())
    rows = []
    for key, cost in costs.most_common(SHAPES):
        shape, kernel, stride, groups = key
        rate = cost / counts[key] / timings[str(key)].best / 1e9
        row = {"input": shape, "kernel": kernel, "stride": stride, "groups": groups}
        row |= {"count": counts[key], "share": cost / total}
        rows.append({**row, "gflops": rate, "of_peak": rate / peak})
    return rows


def _convolve(
    layer: nn.Conv2d | FixedConv, shape: tuple[int, ...], device: torch.device
) -> Callable[[], None]:
    """To run one convolution as the predictor does."""
    run: nn.Module = layer
    if device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        run = PackedConv(layer, keep=True)
    x = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)

    def convolve() -> None:
        run(x)
        finish(device)

    return convolve
