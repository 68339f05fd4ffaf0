"""Sets to evaluate on, as cases: the public benchmarks in their published layouts, and one's own.

`read_benchmark` finds a layout by the benchmark's name; any other name is read by what is there. A
path is a folder or a tar. Pixels are read with OpenCV, as in the published evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from maskfix.archive import Files
from maskfix.benchmarks.folder import Folder, Reader
from maskfix.benchmarks.own import annotated, coco, stems
from maskfix.benchmarks.published import davis585, grey, merged, sbd, voc
from maskfix.errors import InputError, InstanceError
from maskfix.evaluate import Case
from maskfix.formats import open_source

PAPER_ZOOM = {"davis": 600}  # where it is not 400


@dataclass(frozen=True)
class Benchmark:
    """A set to be evaluated.

    Attributes:
        name: as it is shown in tables.
        cases: instances, those of one image side by side.
        notes: what a reader of the numbers should know, a sentence each.
        paper_zoom: longest side that the published protocol brings a zoomed region to.
    """

    name: str
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()
    paper_zoom: int = 400

    def select(self, min_area: int = 0, limit: int | None = None) -> Benchmark:
        """Evenly spaced instances: every (n // limit)-th of those with `min_area` pixels."""
        cases = [case for case in self.cases if case.area >= min_area]
        if limit is not None and limit < len(cases):
            cases = cases[:: len(cases) // limit][:limit]
        return replace(self, cases=tuple(cases))


LAYOUTS: Mapping[str, Reader] = {
    "GrabCut": partial(grey, images="data_GT", masks="boundary_GT"),
    "Berkeley": partial(grey, images="images", masks="masks"),
    "DAVIS": merged,
    "COCO_MVal": merged,
    "SBD": partial(sbd, split="val"),
    "SBD_Train": partial(sbd, split="train"),
    "PascalVOC": voc,
    "DAVIS585": partial(davis585, start=None),
    "DAVIS585_SP": partial(davis585, start="sp"),
    "DAVIS585_STM": partial(davis585, start="stm"),
}
"""Public benchmarks by name."""


def read_benchmark(name: str, path: Path, initial: Path | None = None) -> Benchmark:
    """Read a benchmark.

    Args:
        name: GrabCut, Berkeley, DAVIS, COCO_MVal, SBD, SBD_Train, PascalVOC, DAVIS585 (from
            scratch), DAVIS585_SP or DAVIS585_STM (from its masks), in any spelling; any other name
            for a folder with ``annotations.json`` or ``masks``.
        path: its folder, or a tar of it.
        initial: a COCO file with the masks to start from, under the ids of the reference; for sets
            with ``annotations.json``.

    Raises:
        InputError: something is missing; says what was expected where.
    """
    files = Files(path)
    known = known_benchmark(name)
    reader = _generic if known is None else LAYOUTS[known]
    if initial is not None:
        reader = partial(coco, initial=initial)
    notes: list[str] = []
    benchmark = _benchmark(name, path, reader(Folder(name, files), notes), notes)
    return replace(benchmark, paper_zoom=PAPER_ZOOM.get(_plain(name), benchmark.paper_zoom))


def known_benchmark(name: str) -> str | None:
    """The public benchmark that a name means, in any spelling; None for any other set."""
    return next((known for known in LAYOUTS if _plain(known) == _plain(name)), None)


def read_annotated(
    name: str, images: Path, reference: Path, initial: Path | None = None
) -> Benchmark:
    """Read a set in any format that `maskfix.formats.open_source` knows.

    Args:
        name: for tables.
        images: folder of images.
        reference: COCO file or folder of PNG masks.
        initial: masks to start from, matched to the reference by id, else by overlap; those
            without a reference are left out. Without it every instance starts from scratch.

    Raises:
        InputError: something is missing or not what it should be.
    """
    source = open_source(reference, images)
    notes = list(source.notes)
    starts = None if initial is None else open_source(initial, images)
    return _benchmark(name, reference, annotated(source, starts, notes), notes)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _generic(folder: Folder, notes: list[str]) -> Iterable[Case]:
    """``annotations.json`` with images, or ``images`` and ``masks`` with STEM or STEM_N."""
    if folder.files.has("annotations.json"):
        return coco(folder, notes)
    if not folder.files.has_folder("masks"):
        raise folder.error(
            "images with annotations.json or masks, or the layout of a benchmark given by its name "
            f"({', '.join(LAYOUTS)})"
        )
    return stems(folder)


def _benchmark(name: str, path: Path, found: Iterable[Case], notes: list[str]) -> Benchmark:
    try:
        cases = list(found)
    except InstanceError as error:
        raise InputError(f"{name}: {error}") from error
    present = [case for case in cases if case.area]
    if not present:
        raise InputError(f"{name}: {path} holds no instance to evaluate")
    if len(present) < len(cases):
        empty = len(cases) - len(present)
        notes.append(f"{empty} empty masks are left out: there is nothing to click")
    return Benchmark(name, tuple(present), tuple(notes))
