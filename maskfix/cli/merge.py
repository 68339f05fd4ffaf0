"""``maskfix merge``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from maskfix.cli.options import Overwrite
from maskfix.errors import InputError


def merge_command(
    shards: Annotated[list[Path], typer.Argument(help="The --out of every shard, in any order.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted merge.")
    ] = False,
    overwrite: Overwrite = False,
) -> int:
    """Put what --shard 1/N to N/N made together: the result is that of one run.

    Example: maskfix merge parts/* --out refined
    """
    from maskfix.refinement.merge import command_of

    command = command_of(shards[0])
    if command not in MERGES:
        raise InputError(
            f"{shards[0]}: a shard of {command!r:.40}, which this version cannot merge"
        )
    return MERGES[command](shards, out, resume, overwrite)


def _merge_refinements(shards: list[Path], out: Path, resume: bool, overwrite: bool) -> int:
    from maskfix.refinement.merge import merge_refinements
    from maskfix.report.rows import summary_table

    summary = merge_refinements(shards, out, resume, overwrite, _say)
    typer.echo(summary_table(summary))
    typer.echo(f"written to {out}")
    return 1 if summary["status"]["failed"] else 0


def _merge_evaluations(shards: list[Path], out: Path, resume: bool, overwrite: bool) -> int:
    from maskfix.cli.eval import show_tables
    from maskfix.evaluation import merge_evaluations

    show_tables(merge_evaluations(shards, out, resume, overwrite, _say), out)
    return 0


def _merge_triages(shards: list[Path], out: Path, resume: bool, overwrite: bool) -> int:
    from maskfix.cli.triage import show_result
    from maskfix.triage.run import merge_triages

    return show_result(merge_triages(shards, out, resume, overwrite, _say), out)


def _say(text: str) -> None:
    typer.echo(text, err=True)


MERGES: dict[str, Callable[[list[Path], Path, bool, bool], int]] = {
    "refine": _merge_refinements,
    "eval": _merge_evaluations,
    "triage": _merge_triages,
}
"""How the shards of each command are put together: (shards, out, resume, overwrite) -> status."""
