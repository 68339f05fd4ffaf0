"""Settings of the commands: one frozen dataclass each, checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from maskfix.errors import UsageError
from maskfix.sharding import Shard

Guard = Literal["strict", "normal", "off"]
Precision = Literal["float32", "bfloat16"]

MOST_SIMPLIFY = 1000
"""Pixels."""


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Settings of `maskfix.refine`.

    Attributes:
        images: folder of images.
        masks: COCO, COCO results or LVIS file, or folder of PNG masks.
        clicks: click script, YAML or JSON.
        reference: right masks, for simulated clicks and for scores.
        simulate: at most so many simulated clicks an instance, after those of the script.
        target_iou: simulated clicks stop at this IoU with the reference.
        jitter: simulated clicks miss by normal noise of so many pixels.
        seed: of that noise.
        images_json: for COCO results, a COCO file that names the images.
        out: a folder to be made; by default a new one beside the masks.
        model: name of shipped weights, or a weights file.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: numbers that the network computes with; bfloat16 is for devices that have it.
        batch_size: most network inputs in one call.
        workers: threads that read images and judge results.
        masks_format: overrules what the masks look like.
        segmentation: how changed COCO masks are written.
        simplify: leave out vertices of changed polygons that move the outline by at most so many
            pixels; 0 is exact.
        everything: also take the instances that the script does not name: without script and
            simulated clicks they are cleaned, else only reported. None: only if there is a
            reference, for the scores.
        guard: how readily a result is refused in favour of the old mask.
        min_part: in masks that change, smaller islands are removed and smaller holes filled, in
            pixels, unless a click holds them; 0 leaves all.
        resume: go on with an interrupted run in `out`.
        overwrite: replace a finished run in `out`.
        fail_fast: stop at the first instance that fails.
        shard: do this part of the work only; `maskfix.refinement.merge` joins the parts.
        engine: where the work is done: in this process, or on a Ray cluster.
    """

    images: Path
    masks: Path
    clicks: Path | None = None
    reference: Path | None = None
    simulate: int = 0
    target_iou: float = 0.9
    jitter: float = 0.0
    seed: int = 0
    images_json: Path | None = None
    out: Path | None = None
    model: str = "lite"
    device: str = "auto"
    precision: Precision = "float32"
    batch_size: int = 16
    workers: int = 2
    masks_format: str | None = None
    segmentation: Literal["same", "rle", "polygon"] = "same"
    simplify: float = 0.0
    everything: bool | None = None
    guard: Guard = "normal"
    min_part: int = 0
    resume: bool = False
    overwrite: bool = False
    fail_fast: bool = False
    shard: Shard | None = None
    engine: Literal["local", "ray"] = "local"

    @property
    def cleans(self) -> bool:
        """Whether masks are cleaned without clicks."""
        return bool(self.everything) and self.clicks is None and not self.simulate

    def __post_init__(self) -> None:
        if self.clicks is None and (
            self.everything is False or (self.reference is None and not self.everything)
        ):
            raise UsageError(
                "nothing to do: give --clicks FILE, or --all, or --reference FILE with --simulate N"
            )
        if self.simulate and self.reference is None:
            raise UsageError("--simulate needs --reference: the masks that clicks are made from")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")
        if self.resume and self.out is None:
            raise UsageError("--resume needs --out: the folder of the run to go on with")
        if self.shard is not None and self.out is None:
            raise UsageError("--shard needs --out: a folder for each part")
        if self.shard is not None and self.engine == "ray":
            raise UsageError("--shard and --engine ray exclude each other: Ray shares the work out")
        checks = {
            "--simulate": (self.simulate, 0, 1000),
            "--batch-size": (self.batch_size, 1, 4096),
            "--workers": (self.workers, 1, 256),
            "--jitter": (self.jitter, 0, 1000),
            "--seed": (self.seed, 0, 2**63 - 1),
            "--min-part": (self.min_part, 0, 2**31 - 1),
            "--simplify": (self.simplify, 0, MOST_SIMPLIFY),
        }
        for flag, (value, least, most) in checks.items():
            if not least <= value <= most:
                raise UsageError(f"{flag}: expected {least} to {most}, found {value}")
        if not 0 < self.target_iou <= 1:
            raise UsageError(f"--target-iou: expected above 0, at most 1, found {self.target_iou}")
        if not self.images.is_dir():
            raise UsageError(f"--images: {self.images} is not a folder; give the folder of images")


Config = TypeVar("Config")


def pack_config(config: Any) -> dict[str, Any]:
    """Settings (a dataclass) as plain values for JSON; paths become absolute."""
    packed: dict[str, Any] = msgspec.to_builtins(config, enc_hook=lambda path: str(path.resolve()))
    return packed


def unpack_config(packed: dict[str, Any], kind: type[Config]) -> Config:
    """Settings as `pack_config` made them.

    Raises:
        msgspec.ValidationError, UsageError: they cannot be such settings.
    """
    return msgspec.convert(packed, kind, dec_hook=lambda wanted, text: wanted(text))
