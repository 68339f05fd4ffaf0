"""``maskfix bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from maskfix.cli.options import Device


def bench_command(
    model: Annotated[
        str,
        typer.Option(
            help="Name of shipped weights, a weights file, or a network's name: random weights."
        ),
    ] = "lite",
    device: Device = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers there too.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds: rougher numbers.")] = False,
) -> None:
    """Measure how fast this machine is, and how fast maskfix is on it. Takes about a minute.

    Rates are those of the best round; where the median is much slower, the machine was busy.

    Example: maskfix bench --model hrnet18s --json bench.json
    """
    from maskfix.bench.report import as_text
    from maskfix.bench.run import Bench, BenchConfig
    from maskfix.files import atomic_write

    bench = Bench(BenchConfig(model, device, quick))
    content = bench.run(lambda text: typer.echo(text, err=True))
    typer.echo(as_text(content))
    if json_file is not None:
        atomic_write(json_file, json.dumps(content, indent=2).encode())
        typer.echo(f"written to {json_file}")
