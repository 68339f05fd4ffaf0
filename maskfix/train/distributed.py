"""Several processes that train one network, started by ``torchrun``.

Each makes its share of every batch; gradients and batch-norm statistics are averaged in one message
a step. Done by hand rather than by DistributedDataParallel because a batch has predictions without
gradients between its lessons, and because parts of a network may get no gradient at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from maskfix.errors import UsageError

_PATIENCE = timedelta(hours=2)  # the others wait while the first one validates


@dataclass(frozen=True)
class Group:
    """The processes of a run; one by itself by default.

    Attributes:
        rank: number of this process.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process validates, logs and saves."""
        return self.rank == 0

    def mean(self, values: list[float]) -> list[float]:
        """Average numbers over all processes."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor / self.world]

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Average tensors of one device and dtype over all processes, in place."""
        kept = list(tensors)
        if self.world == 1 or not kept:
            return
        flat = torch.cat([tensor.flatten() for tensor in kept])
        dist.all_reduce(flat)
        flat /= self.world
        for tensor, part in zip(kept, torch.split(flat, [t.numel() for t in kept]), strict=True):
            tensor.copy_(part.view(tensor.shape))


def join_group(batch_size: int) -> Group:
    """Meet the other processes that ``torchrun`` started; a group of one without it.

    Raises:
        UsageError: the batch cannot be shared evenly.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Group()
    if batch_size % world:
        raise UsageError(f"batch_size {batch_size} cannot be shared evenly by {world} processes")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    return Group(dist.get_rank(), world)


def leave_group(group: Group) -> None:
    """Part from the other processes."""
    if group.world > 1:
        dist.destroy_process_group()
