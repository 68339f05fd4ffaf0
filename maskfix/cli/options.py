"""Options that several commands share: one name, one type, one help text."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class MasksFormat(str, Enum):
    """Formats that --masks may have."""

    coco = "coco"
    coco_results = "coco-results"
    lvis = "lvis"
    png_binary = "png-binary"
    png_labels = "png-labels"
    png_instances = "png-instances"


class PrecisionName(str, Enum):
    """What a network computes with."""

    float32 = "float32"
    bfloat16 = "bfloat16"


Masks = Annotated[Path, typer.Option(help="Masks in any format that refine takes.")]
ImagesJson = Annotated[
    Path | None, typer.Option(help="COCO file that names the images of a results list.")
]
MasksFormatOption = Annotated[
    MasksFormat | None, typer.Option(help="Overrules what the masks look like.")
]
Ids = Annotated[str | None, typer.Option(metavar="ID,ID,...", help="Only these instances.")]
ModelName = Annotated[str, typer.Option(help="Name of shipped weights, or a weights file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[
    PrecisionName,
    typer.Option("--precision", help="Numbers to compute with; bfloat16 where the device has it."),
]
BatchSize = Annotated[int, typer.Option(help="Most network inputs in one call.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in OUT.")]
Simplify = Annotated[
    float,
    typer.Option(
        metavar="PX",
        help="Leave out points of polygons (COCO, YOLO) that move the outline by at most PX "
        "pixels; 0 is exact. No effect on run lengths, PNG and brushes.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Do the I-th of N parts; maskfix merge joins them."),
]
