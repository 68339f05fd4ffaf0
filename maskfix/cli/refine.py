"""``maskfix refine``."""

from __future__ import annotations

import json
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from maskfix.cli.options import (
    BatchSize,
    Device,
    ImagesJson,
    MasksFormatOption,
    ModelName,
    PrecisionName,
    PrecisionOption,
    Shard,
    Simplify,
)


class SegmentationKind(str, Enum):
    """How changed masks are written."""

    same = "same"
    rle = "rle"
    polygon = "polygon"


class EngineName(str, Enum):
    """Where the work is done."""

    local = "local"
    ray = "ray"


class GuardLevel(str, Enum):
    """How readily a result is refused."""

    strict = "strict"
    normal = "normal"
    off = "off"


def refine_command(
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    masks: Annotated[
        Path, typer.Option(help="COCO, COCO results or LVIS JSON, or a folder of PNG masks.")
    ],
    clicks: Annotated[Path | None, typer.Option(help="Click script, YAML or JSON.")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Right masks, any format: scores in the report, simulated clicks."),
    ] = None,
    simulate: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="At most N clicks an instance by a simulated user, after the script's.",
        ),
    ] = 0,
    target_iou: Annotated[
        float, typer.Option(metavar="T", help="Simulated clicks stop at this IoU.")
    ] = 0.9,
    jitter: Annotated[
        float,
        typer.Option(metavar="PIXELS", help="Simulated clicks miss by so much."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the jitter.")] = 0,
    images_json: ImagesJson = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; by default a new one beside the masks.")
    ] = None,
    model: ModelName = "lite",
    device: Device = "auto",
    precision: PrecisionOption = PrecisionName.float32,
    batch_size: BatchSize = 16,
    workers: Annotated[int, typer.Option(help="Threads that read images and judge results.")] = 2,
    masks_format: MasksFormatOption = None,
    segmentation: Annotated[
        SegmentationKind, typer.Option(help="How changed COCO masks are written.")
    ] = SegmentationKind.same,
    simplify: Simplify = 0.0,
    everything: Annotated[
        bool | None,
        typer.Option(
            "--all/--only-clicked",
            help="Every instance: without any clicks, borders snap to where the network is sure; "
            "with clicks, the other instances are reported as they are. By default those that the "
            "script names; with --reference, all.",
        ),
    ] = None,
    guard: Annotated[
        GuardLevel, typer.Option(help="How readily a result is refused for the old mask.")
    ] = GuardLevel.normal,
    min_part: Annotated[
        int,
        typer.Option(
            metavar="PX",
            help="In masks that change, remove islands and fill holes of fewer than PX pixels, but "
            "none that a click holds, and never the only island; 0 leaves all.",
        ),
    ] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
    shard: Shard = None,
    engine: Annotated[
        EngineName, typer.Option(help="Work in this process, or on a Ray cluster.")
    ] = EngineName.local,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the inputs, say what would be done.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first instance that fails.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of a table.")
    ] = False,
) -> int:
    """Repair masks with clicks; the same annotations come back with better masks.

    Example: maskfix refine --images imgs/ --masks preds.json --clicks clicks.yaml
    """
    from maskfix.config import RefineConfig
    from maskfix.sharding import parse_shard

    config = RefineConfig(
        images=images,
        masks=masks,
        clicks=clicks,
        reference=reference,
        simulate=simulate,
        target_iou=target_iou,
        jitter=jitter,
        seed=seed,
        images_json=images_json,
        out=out,
        model=model,
        device=device,
        precision=precision.value,
        batch_size=batch_size,
        workers=workers,
        masks_format=masks_format.value if masks_format else None,
        segmentation=segmentation.value,
        simplify=simplify,
        everything=everything,
        guard=guard.value,
        min_part=min_part,
        resume=resume,
        overwrite=overwrite,
        fail_fast=fail_fast,
        shard=parse_shard(shard),
        engine=engine.value,
    )
    from maskfix.refinement.inputs import Inputs

    if dry_run:
        plan = Inputs(config).plan()
        typer.echo(json.dumps(plan, indent=2, ensure_ascii=False))
        return 1 if plan["problems"] else 0
    from maskfix.refinement.merge import merge_refinements
    from maskfix.refinement.processes import share_out
    from maskfix.refinement.run import Refinement
    from maskfix.report.rows import summary_table

    def say(text: str) -> None:
        typer.echo(text, err=True)

    summary = share_out(
        config, lambda own: Refinement(own).run(say), partial(merge_refinements, say=say)
    )
    if summary is None:
        return 0
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        typer.echo(summary_table(summary))
        where = "" if config.shard else "; look at report.html there"
        typer.echo(f"written to {summary['out']}{where}")
    return 1 if summary["status"]["failed"] else 0
