"""``maskfix train``: run a recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskfix.errors import UsageError
from maskfix.runtime import keep_freed_memory, wait_passively

if TYPE_CHECKING:
    from maskfix.train.config import TrainConfig
    from maskfix.train.loop import Trainer


def train_command(
    recipe: Annotated[
        str, typer.Option("--recipe", metavar="NAME|FILE.yaml", help="What to train.")
    ] = "",
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="NAME=PATH",
            help="Where a data set of the recipe is: folder, tar, COCO .json, or IMAGES:FILE.json. "
            "Can be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run: checkpoints, weights, logs.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            metavar="FILE",
            help="Weights to start from: ImageNet weights of the trunk, or maskfix weights (then "
            "this is fine-tuning).",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in OUT exactly where it stood.")
    ] = False,
    max_minutes: Annotated[
        float, typer.Option("--max-minutes", min=0, help="Stop after so long, ready to resume.")
    ] = math.inf,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes that prepare batches.")
    ] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting of the recipe. Can be repeated."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe, data and weights; train nothing.")
    ] = False,
    show_recipes: Annotated[
        bool, typer.Option("--list-recipes", help="List the recipes that come with maskfix.")
    ] = False,
) -> None:
    """Train a network by a recipe, or fine-tune one on your own images.

    Start it with torchrun to train on several GPUs or machines.

    Example: maskfix train --recipe finetune --data own=my_data/ --init lite --out runs/own
    """
    from maskfix.train.config import describe_recipes, load_recipe

    if show_recipes:
        for name, title in describe_recipes().items():
            typer.echo(f"{name:28} {title}")
        return
    if not recipe or out is None:
        raise UsageError("--recipe and --out are needed; --list-recipes shows the recipes")
    config = load_recipe(recipe, changes)
    _check_folder(out, resume, dry_run)
    wait_passively()
    keep_freed_memory()
    from maskfix.model.device import choose_device
    from maskfix.train.distributed import join_group, leave_group
    from maskfix.train.run import make_trainer

    group = join_group(config.batch_size)
    try:
        trainer = make_trainer(
            config, _paths(data or []), out, init, choose_device(_own(device)), workers, group
        )
        if group.leads:
            typer.echo(describe(config, trainer))
        if dry_run:
            return
        if resume:
            trainer.resume()
        trainer.run(max_minutes)
        if group.leads:
            typer.echo(_ending(trainer))
    finally:
        leave_group(group)


def _own(device: str) -> str:
    """With torchrun, every process of a machine takes its own GPU."""
    import os

    import torch

    local = os.environ.get("LOCAL_RANK")
    wants_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return f"cuda:{local}" if local is not None and wants_cuda else device


def _check_folder(out: Path, resume: bool, dry_run: bool) -> None:
    if (out / "last.pt").exists() and not resume and not dry_run:
        raise UsageError(f"--out {out} holds a run; go on with --resume, or give another folder")


def _paths(data: list[str]) -> dict[str, str]:
    paths: dict[str, str] = {}
    for text in data:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"--data needs NAME=PATH, found {text!r}")
        if name in paths:
            raise UsageError(f"--data {name} is given twice")
        paths[name] = path
    return paths


def describe(config: TrainConfig, trainer: Trainer) -> str:
    """What is going to be trained on what, in a few lines."""
    network, source = trainer.network, trainer.source
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    lines = [f"network  {config.network.name}, {learning / 1e6:.2f} M parameters learn"]
    for spec, data, share in zip(config.data, source.data, source.shares, strict=True):
        lines.append(f"data     {spec.name}: {len(data.records)} images, {share:.0%} of samples")
    for validation in config.validation:
        start = "damaged masks" if validation.damaged else "scratch"
        lines.append(
            f"validate {validation.name}: at most {validation.limit} objects, from {start}"
        )
    steps = config.epochs * source.batches
    lines.append(
        f"course   {config.epochs} epochs of {source.batches} batches of {config.batch_size}: "
        f"{steps} batches on {trainer.device}"
    )
    return "\n".join(lines)


def _ending(trainer: Trainer) -> str:
    place, out = trainer.progress, trainer.out
    lines = [f"{place.samples} samples in {place.seconds / 60:.1f} minutes; go on with --resume"]
    if place.samples >= trainer.config.epochs * trainer.source.batches * trainer.config.batch_size:
        lines = [f"done: {place.samples} samples in {place.seconds / 60:.1f} minutes"]
    if place.broken:
        lines.append(f"{place.broken} samples were passed over because they could not be read")
    best = out / "best.safetensors"
    if best.exists():
        lines.append(f"best weights ({place.best:.2f} clicks to 90 % IoU): {best}")
    lines.append(f"last weights: {out / 'last.safetensors'}")
    return "\n".join(lines)
