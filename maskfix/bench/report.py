"""A benchmark's result as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def as_text(content: dict[str, Any]) -> str:
    """Tables of everything; see `maskfix.bench.run.Bench.run` for `content`."""
    machine, model, peak = content["machine"], content["model"], content["peak"]
    refine = content["refine"]
    height, width = refine["size"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['instructions']}; "
        f"{machine['threads']} threads on {machine['device']}; load {machine['load']}",
        f"maskfix {machine['maskfix']}, torch {machine['torch']}, python {machine['python']}",
        f"model {model['name']}, input {model['input'][0]}x{model['input'][1]}, "
        f"{model['gflop']:.2f} GFLOP a click",
        "",
        f"peak: matrix product {peak['matmul']['gflops']:.1f} GFLOP/s, "
        f"memory {peak['memory']['gb_per_s']:.1f} GB/s",
        "",
        "convolutions that cost most, each alone",
        *_table(
            ("input", "kernel", "stride", "share", "GFLOP/s", "of peak"),
            [
                (
                    "x".join(map(str, row["input"][1:])),
                    "x".join(map(str, row["kernel"])),
                    f"{row['stride']}",
                    f"{row['count']} x = {row['share']:.0%}",
                    f"{row['gflops']:.1f}",
                    f"{row['of_peak']:.0%}",
                )
                for row in content["convolutions"]
            ],
        ),
        "",
        "network alone",
        *_ways(content["network"]),
        "",
        f"predictor, a click on a given mask ({width}x{height})",
        *_ways(content["predictor"]),
        "",
        f"refine, from files to files ({refine['instances']} instances with a click each on "
        f"{refine['images']} JPEGs of {width}x{height})",
        f"  {refine['per_second']:.1f} instances/s, {refine['ms']:.1f} ms each; "
        f"{refine['cpu_ms']:.1f} ms of processor time each, {refine['cores_busy']:.2f} cores busy",
        *_table(
            ("where the time goes", "ms of processor", "share"),
            [(r["stage"], f"{r['cpu_ms']:.2f}", f"{r['share']:.1%}") for r in refine["stages"]],
        ),
        "",
        "eval",
        *_ways(content["eval"]),
    ]
    return "\n".join(lines)


def _ways(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Ways to do one thing, the first of which the others are compared with."""
    titles = [f"{rows[0]['of']}", "ms", "median", "a second", "times"]
    with_flops = "gflops" in rows[0]
    if with_flops:
        titles += ["GFLOP/s", "of peak"]
    cells = []
    for row in rows:
        cell = [row["way"], f"{row['ms']:.1f}", f"{row['median_ms']:.1f}"]
        cell += [f"{row['per_second']:.1f}", f"{row['per_second'] / rows[0]['per_second']:.2f}"]
        if with_flops:
            cell += [f"{row['gflops']:.1f}", f"{row['of_peak']:.0%}"]
        cells.append(cell)
    return _table(titles, cells)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be; the first to the left, the others to the right."""
    everything = [list(titles), *map(list, rows)]
    widths = [max(len(row[i]) for row in everything) for i in range(len(titles))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in everything
    ]
