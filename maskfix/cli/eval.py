"""``maskfix eval`` and ``maskfix compare``."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskfix.baselines import BASELINES
from maskfix.cli.options import (
    BatchSize,
    Device,
    Overwrite,
    PrecisionName,
    PrecisionOption,
    Resume,
    Shard,
)
from maskfix.errors import UsageError

if TYPE_CHECKING:
    from maskfix.evaluation import SetConfig


class ProtocolName(str, Enum):
    """How images are shown to a network."""

    paper = "paper"
    fast = "fast"


def evaluate_command(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="A public benchmark by its name (GrabCut, Berkeley, DAVIS, SBD, SBD_Train, "
            "PascalVOC, COCO_MVal, DAVIS585, DAVIS585_SP, DAVIS585_STM), or any name for a folder "
            "or tar with annotations.json, or with images and masks. Can be repeated.",
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of images, for --reference.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Right masks of --images: COCO JSON or PNG folder.")
    ] = None,
    masks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="Masks to start from instead of from nothing: of --images, or of the dataset NAME "
            "(a COCO file with the same ids).",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of shipped weights, or a weights file; by default lite. Can be repeated."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=PATH]",
            help="How clicks are answered: ritm (the default), or, to compare with, "
            f"{', '.join(BASELINES)}. Can be repeated.",
        ),
    ] = None,
    protocol: Annotated[
        ProtocolName | None, typer.Option(help="By default each model's own.")
    ] = None,
    max_clicks: Annotated[int, typer.Option(help="At most so many clicks an instance.")] = 20,
    thresholds: Annotated[
        str, typer.Option(help="IoU thresholds, rising, with commas.")
    ] = "0.80,0.85,0.90",
    target_iou: Annotated[
        float | None,
        typer.Option(
            help="Clicks stop at this IoU; by default at the last threshold. 1.01: never, for "
            "whole curves."
        ),
    ] = None,
    min_clicks: Annotated[int, typer.Option(help="At least so many clicks an instance.")] = 1,
    jitter: Annotated[
        float, typer.Option(metavar="S", help="Clicks miss by so many pixels (normal noise).")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the jitter.")] = 0,
    min_area: Annotated[int, typer.Option(help="Pass over smaller instances, in pixels.")] = 0,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Evaluate N evenly spaced instances of each.")
    ] = None,
    precision: PrecisionOption = PrecisionName.float32,
    batch_size: BatchSize = 16,
    workers: Annotated[
        int, typer.Option(help="Threads for the simulated users; not for ritm on the CPU.")
    ] = 1,
    strips: Annotated[int, typer.Option(help="Pictures of the N hardest instances of each.")] = 6,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="Show what others have published of these benchmarks, too."
        ),
    ] = False,
    device: Device = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    shard: Shard = None,
) -> None:
    """Measure how many clicks a model needs, with a simulated user (NoC).

    Example: maskfix eval --dataset GrabCut=data/GrabCut --out noc
    """
    from maskfix.evaluate import Rules
    from maskfix.evaluation import EvalConfig, Evaluation, merge_evaluations
    from maskfix.refinement.processes import share_out
    from maskfix.sharding import parse_shard

    levels = _numbers(thresholds)
    config = EvalConfig(
        sets=_sets(dataset or [], images, reference, masks or []),
        out=out,
        models=tuple(model or ["lite"]),
        methods=tuple(method or ["ritm"]),
        protocol=None if protocol is None else protocol.value,
        rules=Rules(
            max_clicks=max_clicks,
            target_iou=levels[-1] if target_iou is None else target_iou,
            min_clicks=min_clicks,
            jitter=jitter,
            seed=seed,
        ),
        thresholds=levels,
        precision=precision.value,
        batch_size=batch_size,
        workers=workers,
        min_area=min_area,
        limit=limit,
        strips=strips,
        published=published,
        device=device,
        resume=resume,
        overwrite=overwrite,
        shard=parse_shard(shard),
    )

    def say(text: str) -> None:
        typer.echo(text, err=True)

    content = share_out(
        config, lambda own: Evaluation(own).run(say), partial(merge_evaluations, say=say)
    )
    if content is not None:
        show_tables(content, out)


def show_tables(content: dict[str, Any], out: Path) -> None:
    """Print what an evaluation found, and where the rest of it is."""
    from maskfix.report.tables import markdown_tables

    typer.echo(markdown_tables(content))
    typer.echo(f"written to {out}: report.html, noc.json, instances.csv, table.md")


def compare_command(
    run_a: Annotated[Path, typer.Argument(help="Folder written by maskfix eval.")],
    run_b: Annotated[Path, typer.Argument(help="Another one, say of newer weights.")],
    fail_if_worse: Annotated[
        bool,
        typer.Option(
            "--fail-if-worse",
            help="Exit with status 1 if B certainly needs more clicks on any set: its 95 % "
            "interval lies above 0.",
        ),
    ] = False,
) -> None:
    """Compare two evaluations instance by instance.

    Example: maskfix compare noc-old noc-new --fail-if-worse
    """
    from maskfix.compare import compare

    comparison = compare(run_a, run_b)
    typer.echo(comparison.as_text(), nl=False)
    if fail_if_worse and any(difference.is_worse for difference in comparison.differences):
        raise typer.Exit(1)


def _sets(
    datasets: list[str], images: Path | None, reference: Path | None, masks: list[str]
) -> tuple[SetConfig, ...]:
    """The sets that the flags name."""
    from maskfix.evaluation import SetConfig

    named: dict[str, Path] = {}
    for text in datasets:
        name, found, path = text.partition("=")
        if not (found and name and path):
            raise UsageError(f"--dataset: expected NAME=PATH, found {text!r}")
        if name in named:
            raise UsageError(f"--dataset: {name} is given twice; names must differ")
        named[name] = Path(path)
    starts: dict[str | None, Path] = {}
    for text in masks:
        name, found, path = text.partition("=")
        key, file = (name, path) if found and name in named else (None, text)
        if key in starts:
            raise UsageError(f"--masks: {text} is the second for one set; give one")
        starts[key] = Path(file)
    if (images is None) != (reference is None):
        raise UsageError("--images and --reference go together: images and their right masks")
    if None in starts and images is None:
        known = ", ".join(named) or "none given"
        raise UsageError(
            f"--masks: {starts[None]} belongs to no set; give NAME=FILE with the name of a "
            f"--dataset ({known}), or --images and --reference"
        )
    sets = [SetConfig(name, path, None, starts.get(name)) for name, path in named.items()]
    if images is not None and reference is not None:
        sets.append(SetConfig(images.resolve().name, reference, images, starts.get(None)))
    return tuple(sets)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--thresholds: expected numbers with commas, as 0.80,0.90; found {text!r}"
        ) from None
