"""The batch: all masks of a source looked at, ranked, and written as a list.

    source -> images read ahead -> probes, many in one network call -> journal -> triage.csv

Nothing is kept in memory but a number an instance. Chunks, journal and resuming as in
`maskfix.refinement`.
"""

from __future__ import annotations

import csv
import io
import json
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from maskfix.config import pack_config
from maskfix.errors import InputError, InstanceError, UsageError
from maskfix.files import atomic_stream, describe_file, keep_apart
from maskfix.formats import Annotation, ImageItem, Source, open_source
from maskfix.formats.image import read_item
from maskfix.masks import Mask, iou
from maskfix.model.checkpoint import load_model
from maskfix.model.device import choose_device
from maskfix.predictor import Predictor, Session
from maskfix.refinement.inputs import memory_of
from maskfix.refinement.journal import NAME as JOURNAL
from maskfix.refinement.journal import Journal
from maskfix.refinement.merge import config_of, open_shards, take_chunks
from maskfix.refinement.references import match_references
from maskfix.refinement.worker import READ_AHEAD, READ_BYTES
from maskfix.runtime import keep_freed_memory
from maskfix.sharding import Shard
from maskfix.threads import map_ahead
from maskfix.triage.gain import Gain, compare_orders
from maskfix.triage.probe import Probe
from maskfix.triage.score import reasons_of, score_of
from maskfix.triage.shapes import Oddities, oddities
from maskfix.version import __version__

CHUNK_IMAGES = 8  # of perhaps many instances: what an interruption costs
SHOWN_PROBLEMS = 20
LIST, SHEET = "triage.csv", "sheet.csv"
COLUMNS = (
    *("rank", "image", "id", "index", "category", "score", "reasons", "problem", "pixels"),
    *("disagreement", "added", "removed", "border", "found", "edge"),
)
REFERENCE_COLUMN = "iou"


@dataclass(frozen=True, kw_only=True)
class TriageConfig:
    """Settings of `triage`.

    Attributes:
        images: folder of images.
        masks: in any format that `maskfix.formats.open_source` reads.
        out: folder to make.
        budget: so many instances go onto the list for the sheet.
        reference: right masks, to measure the ranking with.
        images_json: for COCO results, a COCO file that names the images.
        masks_format: overrules what the masks look like.
        model: name of shipped weights, or a weights file.
        device: auto, cpu, cuda, cuda:N or mps.
        batch_size: most network inputs in one call.
        workers: threads that read images.
        resume: go on with an interrupted run in `out`.
        overwrite: replace a finished run in `out`.
        shard: do this part of the work only; `merge_triages` joins the parts.
    """

    images: Path
    masks: Path
    out: Path
    budget: int = 200
    reference: Path | None = None
    images_json: Path | None = None
    masks_format: str | None = None
    model: str = "lite"
    device: str = "auto"
    batch_size: int = 16
    workers: int = 2
    resume: bool = False
    overwrite: bool = False
    shard: Shard | None = None

    def __post_init__(self) -> None:
        checks = {
            "--budget": (self.budget, 10**9),
            "--batch-size": (self.batch_size, 4096),
            "--workers": (self.workers, 256),
        }
        for flag, (value, most) in checks.items():
            if not 1 <= value <= most:
                raise UsageError(f"{flag}: expected 1 to {most}, found {value}")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")


@dataclass(frozen=True)
class Loaded:
    """One image with what is known of its instances before the network is asked."""

    item: ImageItem
    image: NDArray[np.uint8] | None
    odd: dict[int, Oddities]
    references: dict[int, Mask]
    problem: str | None = None


@dataclass
class Waiting:
    """An instance whose questions are not answered yet, and the row it goes to."""

    row: dict[str, Any]
    probe: Probe
    odd: Oddities


@dataclass
class Result:
    """What a run found.

    Attributes:
        instances: in the list.
        failed: of those, how many could not be looked at.
        listed: how many are on the list for the sheet.
        problems: why they could not, a line each, the first `SHOWN_PROBLEMS`.
        gains: orders of looking, with a reference.
        notes: what was noticed, a sentence each.
    """

    instances: int
    failed: int
    listed: int
    problems: list[str] = field(default_factory=list)
    gains: dict[str, Gain] | None = None
    notes: list[str] = field(default_factory=list)


def triage(config: TriageConfig, say: Callable[[str], None] = lambda text: None) -> Result | None:
    """Rank the instances of a source; writes ``triage.csv`` and ``sheet.csv``.

    Args:
        config: what to do.
        say: called with a line now and then, for a person to read.

    Returns:
        what was found; None of a shard, which leaves its journal alone.

    Raises:
        InputError, UsageError: inputs that cannot be used.
    """
    source = _open(config)
    references = open_source(config.reference, config.images) if config.reference else None
    keep_freed_memory()
    model = load_model(config.model, choose_device(config.device))
    if not model.trained:
        say(f"warning: {model.path} holds random weights: the ranking is meaningless")
    predictor = Predictor(model, protocol="fast", flip=False, batch_size=config.batch_size)
    _prepare(config)
    journal = _open_journal(config, source, model.checksum)
    try:
        _work(_Looker(config, source, references, predictor), journal, len(source))
    finally:
        journal.close()
    if config.shard is not None:
        say(f"shard {config.shard} is done; put all of them together with: maskfix merge")
        return None
    result = _write_lists(config, with_reference=references is not None)
    result.notes = [*source.notes, *result.notes]
    return result


def merge_triages(
    folders: Sequence[Path],
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Put the shards of a triage together; see `maskfix.refinement.merge.merge_refinements`."""
    shards = open_shards(folders, check_line)
    config = config_of(shards[0], TriageConfig)
    config = replace(config, shard=None, out=out, resume=resume, overwrite=overwrite)
    source = _open(config)
    checksum = shards[0].header["triage"]
    difference = shards[0].compare(_header(config, checksum, source), but="shard")
    if difference:
        raise InputError(f"{shards[0].path.parent}: the inputs have changed: {difference}")
    _prepare(config)
    journal = _open_journal(config, source, checksum)
    try:
        take_chunks(journal, shards, len(_chunks(config, len(source))))
    finally:
        journal.close()
    result = _write_lists(config, with_reference=config.reference is not None)
    result.notes = [*source.notes, *result.notes]
    return result


def check_line(line: dict[str, Any]) -> None:
    """Look at a journal line; raises KeyError, TypeError or ValueError if it is of no instance."""
    float(line["row"]["score"]), int(line["row"]["pixels"])


def _open(config: TriageConfig) -> Source:
    source = open_source(config.masks, config.images, config.images_json, config.masks_format)
    if len(source) and all(source[i].path is None for i in range(len(source))):
        raise InputError(
            f"--images: none of the {len(source)} images of {config.masks} is in {config.images}; "
            f"the first is {source.file_of(0)}"
        )
    return source


def _open_journal(config: TriageConfig, source: Source, checksum: str) -> Journal:
    header = _header(config, checksum, source)
    about = {"config": pack_config(config), "chunks": len(_chunks(config, len(source)))}
    return Journal(config.out / JOURNAL, header, config.resume, check_line, about)


def _chunks(config: TriageConfig, images: int) -> list[range]:
    """The images to look at; those of this process's shard."""
    chunks = [range(s, min(s + CHUNK_IMAGES, images)) for s in range(0, images, CHUNK_IMAGES)]
    shard = config.shard
    return [chunk for i, chunk in enumerate(chunks) if shard is None or shard.takes(i)]


def _work(looker: _Looker, journal: Journal, images: int) -> None:
    todo = _chunks(looker.config, images)[journal.chunks_done :]
    with (
        ThreadPoolExecutor(looker.config.workers) as pool,
        tqdm(total=sum(map(len, todo)), unit=" images", disable=None, smoothing=0.05) as bar,
    ):
        ahead = READ_AHEAD * looker.config.workers
        asked: deque[list[dict[str, Any]]] = deque()  # rows of chunks, perhaps still waiting
        for chunk in todo:
            rows: list[dict[str, Any]] = []
            asked.append(rows)
            for loaded in map_ahead(looker.load, chunk, pool, ahead, _room):
                rows += looker.look(loaded)
                bar.update()
            while asked and all(row["score"] != "" for row in asked[0]):
                journal.append([{"row": row} for row in asked.popleft()])
        looker.ask()
        for rows in asked:
            journal.append([{"row": row} for row in rows])


def _room(loaded: Loaded) -> int:
    """How many images like this one may wait."""
    return READ_BYTES // memory_of(loaded.item, loaded.image, loaded.references)


class _Looker:
    """Looks at images; rows are complete after the next `ask`."""

    def __init__(
        self, config: TriageConfig, source: Source, references: Source | None, predictor: Predictor
    ) -> None:
        self.config, self.source, self.references = config, source, references
        self.predictor = predictor
        self._waiting: list[Waiting] = []

    def load(self, ordinal: int) -> Loaded:
        """Read an image, and look at the shapes of its masks. Safe in many threads."""
        item = self.source[ordinal]
        problem, image = None, None
        try:
            image = read_item(item)
        except InstanceError as error:
            problem = str(error)
        references: dict[int, Mask] = {}
        if self.references is not None:
            references = dict(match_references(item, self.source, self.references)[0])
        return Loaded(item, image, oddities(item.annotations), references, problem)

    def look(self, loaded: Loaded) -> list[dict[str, Any]]:
        """The rows of an image, crowds left out; the network's part comes with `ask`."""
        rows = []
        for annotation in loaded.item.annotations:
            if annotation.is_crowd:
                continue
            row = _row(loaded.item, annotation, loaded.references.get(annotation.key))
            rows.append(row)
            mask, image = annotation.mask, loaded.image
            problem = loaded.problem or annotation.problem or _unusable(mask, image)
            if problem is not None:
                _fail(row, problem, score=0.0 if loaded.problem else 1.0)
                continue
            assert mask is not None and image is not None
            probe = Probe(self.predictor, image, mask)
            self._waiting.append(Waiting(row, probe, loaded.odd[annotation.key]))
            if len(self._waiting) >= self.predictor.in_flight:
                self.ask()
        return rows

    def ask(self) -> None:
        """Put all questions to the network, and finish the rows that wait for answers."""
        waiting, self._waiting = self._waiting, []
        failures: dict[Session, str] = {}
        questions = [question for one in waiting for question in one.probe.questions]
        self.predictor.step(questions, failures)
        for one in waiting:
            problem = next((failures[q] for q in one.probe.questions if q in failures), None)
            if problem is not None:
                _fail(one.row, f"it could not be predicted: {problem}", score=0.0)
                continue
            signs = one.probe.signs()
            one.row["score"] = score_of(signs, one.odd)
            one.row["reasons"] = "; ".join(reasons_of(signs, one.odd))
            for name in ("disagreement", "added", "removed", "border", "found", "edge"):
                one.row[name] = round(getattr(signs, name), 4)


def _row(item: ImageItem, annotation: Annotation, reference: Mask | None) -> dict[str, Any]:
    mask = annotation.mask
    row: dict[str, Any] = dict.fromkeys(COLUMNS[1:], "")
    row |= {
        "image": item.file,
        "id": str(annotation.id),
        "index": annotation.index,
        "category": annotation.category,
        "pixels": 0 if mask is None else mask.area,
    }
    if reference is not None and mask is not None:
        same = (mask.height, mask.width) == (reference.height, reference.width)
        row[REFERENCE_COLUMN] = round(iou(mask, reference), 6) if same else ""
    return row


def _unusable(mask: Mask | None, image: NDArray[np.uint8] | None) -> str | None:
    """Why the network cannot look at a mask that was read."""
    assert mask is not None and image is not None
    if not mask.area:
        return "the mask is empty"
    if (mask.height, mask.width) != image.shape[:2]:
        return (
            f"the mask is {mask.width}x{mask.height}, the image {image.shape[1]}x{image.shape[0]}"
        )
    return None


def _fail(row: dict[str, Any], problem: str, score: float) -> None:
    row["problem"] = row["reasons"] = problem
    row["score"] = score


def _write_lists(config: TriageConfig, with_reference: bool) -> Result:
    """Rank the journal's rows into both lists."""
    path = config.out / JOURNAL
    offsets, numbers = _read_numbers(path)
    scores, areas, errors = numbers.T
    columns = [*COLUMNS, *([REFERENCE_COLUMN] if with_reference else [])]
    result = Result(instances=scores.size, failed=0, listed=0)
    order = np.argsort(-scores, kind="stable")
    with (
        path.open("rb") as journal,
        atomic_stream(config.out / LIST) as whole,
        atomic_stream(config.out / SHEET) as short,
    ):
        for stream in (whole, short):
            stream.write(_csv_line(columns))
        for rank, place in enumerate(order.tolist(), start=1):
            journal.seek(int(offsets[place]))
            row = json.loads(journal.readline())["row"]
            line = _csv_line([_cell({**row, "rank": rank}, name) for name in columns])
            whole.write(line)
            can_be_shown = row["score"] > 0
            if can_be_shown and result.listed < config.budget:
                short.write(line)
                result.listed += 1
            if row["problem"]:
                result.failed += 1
                if result.failed <= SHOWN_PROBLEMS:
                    where = f"{row['image']}: instance {row['id']}"
                    result.problems.append(f"{where}: {row['problem']}")
    if with_reference:
        known = np.isfinite(errors)
        if known.sum() < scores.size:
            result.notes.append(f"{scores.size - known.sum()} masks have no reference")
        if errors[known].sum() > 0:
            result.gains = compare_orders(scores[known], areas[known], errors[known])
        else:
            result.notes.append("no mask differs from its reference: nothing to measure")
    return result


def _read_numbers(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where the rows of a journal are, in bytes, and (N, 3): score, area, error (NaN: unknown)."""
    offsets, numbers = array("q"), array("d")
    offset = 0
    with path.open("rb") as file:
        for line in file:
            row = json.loads(line).get("row")
            if row is not None:
                overlap = row.get(REFERENCE_COLUMN, "")
                error = np.nan if overlap == "" else 1 - overlap
                offsets.append(offset)
                numbers.extend((row["score"], row["pixels"], error))
            offset += len(line)
    return np.array(offsets, np.int64), np.array(numbers, np.float64).reshape(-1, 3)


def _cell(row: dict[str, Any], name: str) -> Any:
    value = row.get(name, "")
    return f"{value:.4f}" if name == "score" else value


def _csv_line(values: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode("utf-8", "replace")


def _prepare(config: TriageConfig) -> None:
    """Make the output folder; refuses to touch what is in one unless told to."""
    out = config.out
    if out.exists() and not (config.resume or config.overwrite):
        if not out.is_dir() or any(out.iterdir()):
            raise UsageError(
                f"--out: {out} exists; give another, or --overwrite, or --resume to go on"
            )
    keep_apart(out, [config.images, config.masks, config.reference, config.images_json])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be made: {error.strerror}") from error


def _header(config: TriageConfig, checksum: str, source: Source) -> dict[str, Any]:
    """What identifies this run in its journal."""
    reference, names = config.reference, config.images_json
    return {
        "command": "triage",
        "maskfix": __version__,
        "triage": checksum,
        "images": f"{config.images.resolve()} ({len(source)} images)",
        "format": config.masks_format,
        "masks": source.stamp,
        "reference": reference and describe_file(reference),
        "names": names and describe_file(names),
        "shard": config.shard and str(config.shard),
    }
