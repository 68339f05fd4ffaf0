"""Several processes on one machine, started by ``torchrun``: each does a shard, one merges them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

from maskfix.errors import UsageError
from maskfix.sharding import Shard

PATIENCE = timedelta(days=100)  # torchrun ends all if one fails; until then they wait


class Shareable(Protocol):
    """Settings of a command that can do a part of its work."""

    @property
    def out(self) -> Path | None: ...

    @property
    def shard(self) -> Shard | None: ...

    @property
    def device(self) -> str: ...

    @property
    def resume(self) -> bool: ...

    @property
    def overwrite(self) -> bool: ...


Config = TypeVar("Config", bound=Shareable)
Result = TypeVar("Result")


def share_out(
    config: Config,
    run: Callable[[Config], Result | None],
    merge: Callable[[Sequence[Path], Path, bool, bool], Result],
) -> Result | None:
    """Do a command's work, with the other processes that ``torchrun`` started, if any.

    Each process does its shard in ``OUT/shards``, on the GPU of its number if there is one.

    Args:
        config: of the whole.
        run: does the work that a config asks for.
        merge: makes ``out`` of the folders of all shards; with flags to resume and to overwrite.

    Returns:
        what ``run`` or ``merge`` returns; None in the processes that do not merge.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        return run(config)
    if config.out is None or config.shard is not None:
        raise UsageError("under torchrun, give --out, and no --shard: every process does one")
    is_new = not config.out.exists() or (config.out.is_dir() and not any(config.out.iterdir()))
    if not (is_new or config.resume or config.overwrite):
        raise UsageError(f"--out: {config.out} exists; give another, or --overwrite, or --resume")
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        dist.barrier()  # all have looked at --out
        folders = [config.out / "shards" / str(number + 1) for number in range(world)]
        share: Any = replace(
            config,  # type: ignore[type-var]
            out=folders[rank],
            shard=Shard(rank + 1, world),
            device=_own_device(config.device),
        )
        run(share)
        dist.barrier()
        if rank:
            return None
        return merge(folders, config.out, not config.overwrite, config.overwrite)
    finally:
        dist.destroy_process_group()


def _own_device(device: str) -> str:
    """The GPU of this process; whatever else was asked for stays."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device
