"""``maskfix weights``: convert, export, list and describe weight files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskfix.errors import UsageError

if TYPE_CHECKING:
    from maskfix.model.checkpoint import Model
    from maskfix.model.network import ClickNetwork

app = typer.Typer(no_args_is_help=True, help="Convert, export, list and describe network weights.")

MILLION, THOUSAND_MILLION = 1e6, 1e9

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="Official RITM checkpoint (.pth).")],
    out: Annotated[Path, typer.Argument(help="Weights file to write (.safetensors).")],
    half: Annotated[
        bool, typer.Option("--half", help="Half the size: 16-bit kernels, slightly inexact.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Convert a published checkpoint to a maskfix weights file.

    Example: maskfix weights convert coco_lvis_h18_itermask.pth h18.safetensors
    """
    from maskfix.model.checkpoint import load_model, save_weights

    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; give --overwrite to replace it, or another name")
    model = load_model(file)
    info = {**model.info, "converted_from": file.name, "converted_from_sha256": model.checksum}
    state = model.network.state_dict()
    save_weights(out, model.network_name, model.arguments, state, info, half=half)
    typer.echo(f"{out}: {model.network_name}, {out.stat().st_size / MILLION:.1f} MB")


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="Shipped weights, or a weights file.")
    ],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write a network as an ONNX file, to run without torch; its answers are compared with torch.

    The file's metadata say what goes in and comes out. Takes a minute or so.

    Example: maskfix weights export lite --out lite.onnx
    """
    from maskfix.clicks import MASK_THRESHOLD
    from maskfix.model.checkpoint import load_model
    from maskfix.model.onnx_export import export_onnx

    if out.suffix.lower() != ".onnx":
        raise UsageError(f"--out: {out} does not end in .onnx; give the name of the file to write")
    if out.exists() and not overwrite:
        raise UsageError(f"--out: {out} exists; give --overwrite to replace it, or another name")
    loaded = load_model(model)
    difference = export_onnx(loaded, out, MASK_THRESHOLD)
    size = out.stat().st_size / MILLION
    typer.echo(
        f"{out}: {loaded.network_name}, {size:.1f} MB; logits differ from torch by at most "
        f"{difference:.1g}"
    )


@app.command("list")
def list_weights(as_json: AsJson = False) -> None:
    """List the weights that are shipped, and the networks that can be trained or converted.

    Example: maskfix weights list
    """
    from maskfix.model.registry import NETWORKS, shipped_weights

    shipped = shipped_weights()
    titles = {name: entry.title for name, entry in NETWORKS.items()}
    rows = [
        {
            "name": name,
            "title": titles.get(name, ""),
            "weights": str(shipped[name]) if name in shipped else None,
        }
        for name in [*shipped, *(name for name in NETWORKS if name not in shipped)]
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        where = row["weights"] or "no weights shipped"
        typer.echo(f"{row['name']:{width}}  {row['title'] or '-'}: {where}")
    typer.echo("Others: train them, or convert a published checkpoint ('maskfix weights convert').")


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="Shipped weights, a network, or a file.")
    ],
    as_json: AsJson = False,
) -> None:
    """Describe weights: size, cost beside the paper's Table 4, arguments, origin, checksum.

    Example: maskfix weights show lite
    """
    from maskfix.model.registry import NETWORKS, build_network, complete_arguments, shipped_weights

    if name in NETWORKS and name not in shipped_weights() and not Path(name).exists():
        facts = _facts(name, complete_arguments(name, {}), build_network(name), None)
    else:
        from maskfix.model.checkpoint import load_model

        model = load_model(name)
        facts = _facts(model.network_name, model.arguments, model.network, model)
    typer.echo(json.dumps(facts, indent=2) if as_json else _as_text(facts))


def _facts(
    network_name: str, arguments: dict[str, Any], network: ClickNetwork, model: Model | None
) -> dict[str, Any]:
    from maskfix.model.flops import TABLE4, measure_cost
    from maskfix.model.registry import NETWORKS

    cost = measure_cost(network)
    row = TABLE4.get(network_name)
    paper = row and {
        "parameters": round(row.parameters * MILLION),
        "flops": round(row.flops * THOUSAND_MILLION),
        "note": row.note or None,
    }
    return {
        "network": network_name,
        "title": NETWORKS[network_name].title,
        "weights": str(model.path) if model else None,
        "sha256": model.checksum if model else None,
        "trained": model.trained if model else None,
        "protocol": NETWORKS[network_name].protocol,
        "arguments": arguments,
        "parameters": cost.parameters,
        "multiply_adds": cost.macs,
        "multiply_adds_skipped": cost.skipped,
        "flops": cost.flops,
        "paper": paper,
        "info": model.info if model else {},
    }


def _as_text(facts: dict[str, Any]) -> str:
    paper = facts["paper"] or {}
    multiply_adds = f"{facts['multiply_adds'] / THOUSAND_MILLION:.2f} G at 400x400"
    if facts["multiply_adds_skipped"]:
        skipped = facts["multiply_adds_skipped"] / THOUSAND_MILLION
        multiply_adds += f", {skipped:.2f} G of them needless and skipped"
    lines = {
        "network": f"{facts['network']} ({facts['title']})",
        "weights": facts["weights"] or "none shipped",
        "sha256": facts["sha256"] or "-",
        "protocol": facts["protocol"],
        "arguments": ", ".join(f"{key}={value}" for key, value in facts["arguments"].items()),
        "parameters": _beside(facts, paper, "parameters", MILLION, "M"),
        "multiply-adds": multiply_adds,
        "FLOPs": _beside(facts, paper, "flops", THOUSAND_MILLION, "G"),
        "note": paper.get("note"),
        **facts["info"],
    }
    if facts["trained"] is False:
        lines["trained"] = "no: these weights are random"
    return "\n".join(f"{key:14} {value}" for key, value in lines.items() if value is not None)


def _beside(
    facts: dict[str, Any], paper: dict[str, Any], key: str, unit: float, symbol: str
) -> str:
    ours = f"{facts[key] / unit:.2f} {symbol}"
    return f"{ours} (Table 4 of the paper: {paper[key] / unit:.2f} {symbol})" if paper else ours
