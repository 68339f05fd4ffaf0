"""From a finished instance to its row in the report and its edits of the annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec

from maskfix.config import Guard
from maskfix.formats import Edit, ImageItem
from maskfix.formats.base import EditKind
from maskfix.formats.click_script import New
from maskfix.masks import Mask, boundary_iou, intersection, iou
from maskfix.refinement.guard import refusal
from maskfix.refinement.parts import tidy
from maskfix.refinement.plan import Task
from maskfix.report.rows import Row, Status, make_row
from maskfix.rle import Runs
from maskfix.types import Click


@dataclass(frozen=True)
class Outcome:
    """What became of one task.

    Attributes:
        row: for the report.
        edits: of the annotations; none where they stay as they are.
        overlap: pixels of intersection and union with the reference, before and after.
        image: ordinal of the image; None if there is none.
        key: of the annotation; None if there is none.
        clicks: that were used.
        refused: the result that was rejected.
    """

    row: Row
    edits: tuple[Edit, ...] = ()
    overlap: tuple[int, int, int, int] | None = None
    image: int | None = None
    key: int | None = None
    clicks: tuple[Click, ...] = ()
    refused: Mask | None = None


def failed(item: ImageItem, task: Task | None, reason: str) -> Outcome:
    """A task that could not be done."""
    annotation = task.annotation if task else None
    row = Row(
        item.file,
        annotation.id if annotation else None,
        annotation.category if annotation else "",
        status="failed",
        reason=reason,
    )
    return Outcome(row, image=item.ordinal, key=annotation.key if annotation else None)


def conclude(
    item: ImageItem,
    task: Task,
    after: Mask,
    rest: Mask | None,
    clicks: Sequence[Click],
    reference: Mask | None,
    seconds: float,
    guard: Guard,
    min_part: int = 0,
) -> Outcome:
    """Judge a result and write its row.

    Args:
        item: the image.
        task: what was to be done.
        after: the predictor's result; the task's own mask where it was not run.
        rest: what was split off from it, to be a new instance.
        clicks: those that were used.
        reference: the right mask, if known.
        seconds: time it took.
        guard: how readily a result is refused.
        min_part: smaller islands and holes go, in pixels, where the mask changes.
    """
    annotation, script = task.annotation, task.script
    nothing = Mask.empty(after.height, after.width)
    start = judged = task.mask or nothing
    rest = rest or nothing
    if min_part and (annotation is None or annotation.mask != after):
        after, rest = tidy(after, rest, clicks, min_part)
        judged, _ = tidy(start, nothing, clicks, min_part)  # else the guard took it for a fault
    reason = None
    if not script.split and (clicks or after != judged):
        reason = refusal(judged, after, clicks, guard)
    refused = after if reason else None
    if reason:
        after = start
    edits = () if reason else _edits(item, task, after, rest)
    if script.action == "delete":
        after = nothing
    before = (annotation.mask if annotation else None) or nothing
    status: Status = "rejected" if reason else "ok" if edits else "unchanged"
    category = script.category or (annotation.category if annotation else "")
    if isinstance(script.selector, New):
        category = script.selector.category
    row = Row(
        image=item.file,
        id=annotation.id if annotation else None,
        category=category,
        clicks=len(clicks),
        iou_change=iou(before, after),
        pixels_added=after.area - intersection(before, after),
        pixels_removed=before.area - intersection(before, after),
        status=status,
        reason=reason or _remark(task, rest, bool(edits and not clicks)),
        ms=round(1000 * seconds, 2),
        **_scores(before, after, reference),
    )
    overlap = _overlap(before, after, reference)
    key = annotation.key if annotation else None
    return Outcome(row, edits, overlap, item.ordinal, key, tuple(clicks), refused)


def _edits(item: ImageItem, task: Task, mask: Mask, rest: Mask) -> tuple[Edit, ...]:
    """The changes that make the annotations say what came out; `rest` is a new instance."""
    annotation, script = task.annotation, task.script
    if script.action == "delete" and annotation is not None:
        return (Edit("delete", item.ordinal, annotation.key),)
    if annotation is None:
        assert isinstance(script.selector, New)
        return (Edit("add", item.ordinal, None, mask, script.selector.category),)
    edits = []
    if annotation.mask != mask:
        edits.append(Edit("replace", item.ordinal, annotation.key, mask, script.category))
    elif script.category and script.category != annotation.category:
        edits.append(Edit("recategorize", item.ordinal, annotation.key, None, script.category))
    if task.absorbed is not None:
        edits.append(Edit("delete", item.ordinal, task.absorbed.key))
    if rest.area:
        edits.append(Edit("add", item.ordinal, None, rest, annotation.category))
    return tuple(edits)


def _remark(task: Task, rest: Mask, is_unclicked: bool) -> str:
    script = task.script
    if task.absorbed is not None:
        return f"took in instance {task.absorbed.id}"
    if script.split:
        nothing = "no negative click is in the mask: there is nothing to split"
        return "split" if rest.area else nothing
    if is_unclicked and not (script.action or script.category):
        return "cleaned without clicks"
    return {"delete": "deleted", "accept": "accepted as it is"}.get(script.action or "", "")


def _scores(before: Mask, after: Mask, reference: Mask | None) -> dict[str, float]:
    if reference is None:
        return {}
    return {
        "iou_before": iou(before, reference),
        "iou_after": iou(after, reference),
        "biou_before": boundary_iou(before, reference),
        "biou_after": boundary_iou(after, reference),
    }


def _overlap(before: Mask, after: Mask, reference: Mask | None) -> tuple[int, int, int, int] | None:
    if reference is None:
        return None
    meet_before, meet_after = intersection(before, reference), intersection(after, reference)
    return (
        meet_before,
        before.area + reference.area - meet_before,
        meet_after,
        after.area + reference.area - meet_after,
    )


def pack(outcome: Outcome) -> dict[str, Any]:
    """An outcome as a journal line."""
    return {
        "row": make_row(outcome.row),
        "overlap": outcome.overlap,
        "image": outcome.image,
        "key": outcome.key,
        "clicks": [[click.x, click.y, click.positive] for click in outcome.clicks],
        "refused": None if outcome.refused is None else _pack_mask(outcome.refused),
        "edits": [
            {
                "kind": edit.kind,
                "image": edit.image,
                "key": edit.key,
                "category": edit.category,
                "mask": None if edit.mask is None else _pack_mask(edit.mask),
            }
            for edit in outcome.edits
        ],
    }


class _PackedMask(TypedDict):
    size: tuple[int, int]
    counts: str


class _PackedEdit(TypedDict):
    kind: EditKind
    image: int
    key: int | None
    category: str | None
    mask: _PackedMask | None


class _PackedOutcome(TypedDict):
    row: Row
    overlap: tuple[int, int, int, int] | None
    image: int | None
    key: int | None
    clicks: list[tuple[float, float, bool]]
    refused: _PackedMask | None
    edits: list[_PackedEdit]


def check_line(line: dict[str, Any]) -> None:
    """Look at a journal line.

    Raises:
        msgspec.ValidationError: `pack` cannot have made it.
    """
    msgspec.convert(line, _PackedOutcome)


def unpack_edits(line: dict[str, Any]) -> list[Edit]:
    """The edits of a journal line."""
    return [
        Edit(
            edit["kind"],
            edit["image"],
            edit["key"],
            None if edit["mask"] is None else unpack_mask(edit["mask"]),
            edit["category"],
        )
        for edit in line["edits"]
    ]


def _pack_mask(mask: Mask) -> dict[str, Any]:
    return {"size": [mask.height, mask.width], "counts": Runs.of(mask).text}


def unpack_mask(packed: dict[str, Any]) -> Mask:
    """A mask as `pack` writes it."""
    height, width = packed["size"]
    return Runs(height, width, packed["counts"]).mask()
