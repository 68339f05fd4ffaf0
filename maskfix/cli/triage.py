"""``maskfix triage``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskfix.cli.options import (
    BatchSize,
    Device,
    ImagesJson,
    Masks,
    MasksFormatOption,
    ModelName,
    Overwrite,
    Resume,
    Shard,
)
from maskfix.words import counted

if TYPE_CHECKING:
    from maskfix.triage.run import Result


def triage_command(
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    masks: Masks,
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    budget: Annotated[
        int, typer.Option(metavar="N", help="How many masks go onto the list for the sheet.")
    ] = 200,
    reference: Annotated[
        Path | None,
        typer.Option(help="Right masks: says how early the ranking finds what is wrong."),
    ] = None,
    images_json: ImagesJson = None,
    masks_format: MasksFormatOption = None,
    model: ModelName = "lite",
    device: Device = "auto",
    batch_size: BatchSize = 16,
    workers: Annotated[int, typer.Option(help="Threads that read images.")] = 2,
    resume: Resume = False,
    overwrite: Overwrite = False,
    shard: Shard = None,
) -> int:
    """Rank masks by how likely they are wrong, and say why: where clicks pay most.

    Writes OUT/triage.csv, all masks, and OUT/sheet.csv, the first N of them.

    Example: maskfix triage --images imgs/ --masks preds.json --out triage/
    """
    from maskfix.refinement.processes import share_out
    from maskfix.sharding import parse_shard
    from maskfix.triage.run import TriageConfig, merge_triages, triage

    config = TriageConfig(
        images=images,
        masks=masks,
        out=out,
        budget=budget,
        reference=reference,
        images_json=images_json,
        masks_format=masks_format.value if masks_format else None,
        model=model,
        device=device,
        batch_size=batch_size,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        shard=parse_shard(shard),
    )

    def say(text: str) -> None:
        typer.echo(text, err=True)

    result = share_out(config, partial(triage, say=say), partial(merge_triages, say=say))
    return show_result(result, out) if result else 0


def show_result(result: Result, out: Path) -> int:
    """Print what a triage found; returns the exit status."""
    from maskfix.triage.gain import gain_table
    from maskfix.triage.run import SHEET

    for note in result.notes:
        typer.echo(f"note: {note}", err=True)
    for problem in result.problems:
        typer.echo(f"not looked at: {problem}", err=True)
    if result.failed > len(result.problems):
        typer.echo(f"and {result.failed - len(result.problems)} more", err=True)
    if result.gains is not None:
        typer.echo(gain_table(result.gains))
    typer.echo(
        f"{out}: triage.csv ranks {counted(result.instances, 'mask')}; the first {result.listed} "
        f"are in sheet.csv, for maskfix sheet --from {out / SHEET}"
    )
    return 1 if result.failed else 0
