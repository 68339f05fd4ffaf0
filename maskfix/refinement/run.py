"""The batch: images in, better annotations and a report out.

    source + click script -> tasks -> jobs in the predictor -> guard -> journal -> annotations

Images are read ahead in threads while the network works. Work is cut into chunks of images that
depend on the inputs alone; see `maskfix.refinement.journal`.
"""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from maskfix.config import RefineConfig
from maskfix.errors import InputError, InstanceError, UsageError
from maskfix.files import keep_apart
from maskfix.formats import ImageItem, Source, open_source
from maskfix.formats.click_script import ImageScript, read_click_script
from maskfix.formats.image import read_item
from maskfix.masks import Mask
from maskfix.model.checkpoint import Model, load_model
from maskfix.model.device import choose_device
from maskfix.predictor import Predictor
from maskfix.predictor.drive import drive
from maskfix.refinement.clean import CleaningJob
from maskfix.refinement.gallery import write_report_page
from maskfix.refinement.job import InstanceJob
from maskfix.refinement.journal import NAME as JOURNAL
from maskfix.refinement.journal import Journal
from maskfix.refinement.outcome import Outcome, conclude, failed, pack, unpack_edits
from maskfix.refinement.plan import Task, plan_image
from maskfix.refinement.references import match_references
from maskfix.refinement.split import SplitJob
from maskfix.report.rows import Row, Summary, read_rows, write_rows, write_summary
from maskfix.runtime import keep_freed_memory
from maskfix.threads import map_ahead
from maskfix.version import __version__

CHUNK_IMAGES = 64
IN_FLIGHT = 2  # instances in progress, in network batches
READ_AHEAD = 2  # images, per worker


@dataclass(frozen=True)
class Loaded:
    """One image that is ready to be worked on."""

    item: ImageItem
    image: NDArray[np.uint8] | None
    tasks: list[Task]
    references: dict[int, Mask]
    matched_by: str
    problem: str | None = None


class Refinement:
    """One run of `maskfix refine`.

    Args:
        config: what to do.

    Raises:
        InputError, UsageError: inputs that cannot be used; raised before anything is written.
    """

    def __init__(self, config: RefineConfig) -> None:
        self.config = config
        self.source = open_source(
            config.masks, config.images, config.images_json, config.masks_format
        )
        self.references: Source | None = None
        if config.reference is not None:
            self.references = _open_reference(config.reference, config.images, config.images_json)
        self.scripts, self.lost = self._read_script()
        self.images = self._choose_images()
        self._check_images()
        self.matched_by: Counter[str] = Counter()  # images of the present chunk

    @property
    def chunks(self) -> list[list[int]]:
        """The images to work on, as ordinals, in chunks."""
        return [
            self.images[start : start + CHUNK_IMAGES]
            for start in range(0, len(self.images), CHUNK_IMAGES)
        ]

    def plan(self) -> dict[str, Any]:
        """What a run would do, for ``--dry-run``: everything is read but the pixels."""
        items = [self.source[i] for i in self.images]
        tasks = [task for item in items for task in self._tasks(item, None)]
        problems = [item.problem for item in items] + [task.problem for task in tasks]
        problems += [outcome.row.reason for outcome in self.lost]
        return {
            "format": self.source.format,
            "images": len(self.source),
            "images_to_do": len(self.images),
            "instances_to_do": len(tasks),
            "clicks": sum(len(task.script.clicks) for task in tasks),
            "problems": [problem for problem in problems if problem],
            "notes": list(self.source.notes),
        }

    def run(self, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
        """Do the work; returns the summary that is written to summary.json.

        Args:
            say: called with a line now and then, for a person to read.
        """
        config = self.config
        keep_freed_memory()
        device = choose_device(config.device)
        model = load_model(config.model, device)
        if not model.trained:
            say(f"warning: {model.path} holds random weights: results are meaningless")
        predictor = Predictor(model, batch_size=config.batch_size)
        out = self._prepare_out()
        for note in self.source.notes:
            say(f"note: {note}")
        journal = Journal(out / JOURNAL, self._header(model), config.resume)
        try:
            self._work(predictor, journal)
        finally:
            journal.close()
        summary = self._write(journal, out, model, say)
        summary["out"] = str(out)
        return summary

    def _work(self, predictor: Predictor, journal: Journal) -> None:
        """Do the chunks that the journal does not have yet."""
        chunks = self.chunks
        todo = chunks[journal.chunks_done :]
        with (
            ThreadPoolExecutor(self.config.workers) as pool,
            tqdm(total=sum(map(len, todo)), unit=" images", disable=None, smoothing=0.05) as bar,
        ):
            began, count = time.monotonic(), 0
            for chunk in todo:
                self.matched_by.clear()
                lines: list[tuple[int, dict[str, Any]]] = []
                for order, outcome in self._refine_chunk(predictor, chunk, pool, bar):
                    count += 1
                    rate = count / max(1e-9, time.monotonic() - began)
                    bar.set_postfix_str(f"{rate:.1f} instances/s", refresh=False)
                    if outcome.row.status == "failed" and self.config.fail_fast:
                        raise InstanceError(f"{outcome.row.image}: {outcome.row.reason}")
                    lines.append((order, pack(outcome)))  # masks as bits would fill the memory
                lines.sort(key=lambda pair: pair[0])
                journal.append([line for _, line in lines], {"matched_by": dict(self.matched_by)})

    def _refine_chunk(
        self, predictor: Predictor, chunk: list[int], pool: ThreadPoolExecutor, bar: tqdm[Any]
    ) -> Iterator[tuple[int, Outcome]]:
        """All instances of a chunk as they finish, each with its place in the report."""
        done: deque[tuple[int, Outcome]] = deque()
        places: dict[int, tuple[int, Loaded]] = {}

        def jobs() -> Iterator[InstanceJob]:
            place = 0
            for loaded in self._read_ahead(chunk, pool):
                bar.update()
                if loaded.problem:
                    affected: list[Task | None] = [*loaded.tasks] or [None]
                    for task in affected:
                        done.append((place, failed(loaded.item, task, loaded.problem)))
                        place += 1
                    continue
                for task in loaded.tasks:
                    job = self._begin(predictor, loaded, task)
                    if isinstance(job, Outcome):
                        done.append((place, job))
                    else:
                        places[id(job)] = place, loaded
                        yield job
                    place += 1

        for job in drive(predictor, jobs(), IN_FLIGHT * predictor.at_once):
            place, loaded = places.pop(id(job))
            yield place, self._conclude(loaded.item, job)
            while done:
                yield done.popleft()
        yield from done

    def _begin(self, predictor: Predictor, loaded: Loaded, task: Task) -> InstanceJob | Outcome:
        """Start a task, or finish it at once when the network has no part in it."""
        if task.problem:
            return failed(loaded.item, task, task.problem)
        assert loaded.image is not None
        height, width = loaded.image.shape[:2]
        reference = loaded.references.get(task.annotation.key) if task.annotation else None
        mask = task.mask or Mask.empty(height, width)
        script, config = task.script, self.config
        simulate = config.simulate
        cleans = config.cleans and mask.area > 0
        if script.action is not None or not (script.clicks or (simulate and reference) or cleans):
            return conclude(loaded.item, task, mask, None, (), reference, 0, config.guard)
        if script.split:
            first, second = (predictor.start(loaded.image) for _ in range(2))
            return SplitJob(task, first, reference, other=second)
        session = predictor.start(loaded.image, task.mask)
        if cleans:
            return CleaningJob(task, session, reference)
        target = script.target or config.target_iou
        name = f"{loaded.item.file}/{task.annotation.id if task.annotation else 'new'}"
        return InstanceJob(
            task, session, reference, simulate, target, config.jitter, config.seed, name
        )

    def _conclude(self, item: ImageItem, job: InstanceJob) -> Outcome:
        if job.problem:
            return failed(item, job.task, f"it could not be predicted: {job.problem}")
        return conclude(
            item,
            job.task,
            *job.parts(),
            job.used,
            job.reference,
            job.seconds,
            self.config.guard,
        )

    def _read_ahead(self, chunk: list[int], pool: ThreadPoolExecutor) -> Iterator[Loaded]:
        """Load images in order, some of them before they are asked for."""
        for loaded in map_ahead(self._load, chunk, pool, READ_AHEAD * self.config.workers):
            yield self._note_match(loaded)

    def _note_match(self, loaded: Loaded) -> Loaded:
        if self.references is not None:
            self.matched_by[loaded.matched_by or "none"] += 1
        return loaded

    def _load(self, ordinal: int) -> Loaded:
        """Read one image and plan its tasks."""
        item = self.source[ordinal]
        try:
            image = read_item(item)
        except InstanceError as error:
            return Loaded(item, None, self._tasks(item, None), {}, "", str(error))
        tasks = self._tasks(item, image.shape[:2])
        references, matched_by = {}, ""
        if self.references is not None:
            found, matched_by = match_references(item, self.source, self.references)
            shape = image.shape[:2]
            references = {k: m for k, m in found.items() if (m.height, m.width) == shape}
        return Loaded(item, image, tasks, references, matched_by if references else "")

    def _tasks(self, item: ImageItem, shape: tuple[int, ...] | None) -> list[Task]:
        height, width = shape or (item.height or 1 << 30, item.width or 1 << 30)
        everything = self.config.everything or self.references is not None
        script = self.scripts.get(item.ordinal)
        return plan_image(item, script, height, width, everything, self.source.category_id)

    def _read_script(self) -> tuple[dict[int, ImageScript], list[Outcome]]:
        """The script by image ordinal, and rows for the images it names that do not exist."""
        if self.config.clicks is None:
            return {}, []
        scripts: dict[int, ImageScript] = {}
        lost: list[Outcome] = []
        for script in read_click_script(self.config.clicks).images:
            try:
                ordinal = self.source.find_image(script.file)
            except InputError as error:
                reason = f"{self.config.clicks}:{script.line}: {error}"
                row = Row(script.file, None, status="failed", reason=reason)
                lost.append(Outcome(row))
                continue
            if ordinal in scripts:
                raise UsageError(
                    f"{self.config.clicks}:{script.line}: {script.file} is the image of line "
                    f"{scripts[ordinal].line} under another name; put its instances together"
                )
            scripts[ordinal] = script
        return scripts, lost

    def _choose_images(self) -> list[int]:
        """Ordinals of the images with something to do."""
        if self.config.everything or self.references is not None:
            return list(range(len(self.source)))
        return sorted(self.scripts)

    def _check_images(self) -> None:
        """A wrong folder of images is an error of the command, not of every image."""
        if len(self.images) < 2 or any(self.source[i].path is not None for i in self.images):
            return
        raise InputError(
            f"--images: none of the {len(self.images)} images to work on is in "
            f"{self.config.images}; the first is {self.source.file_of(self.images[0])}"
        )

    def _prepare_out(self) -> Path:
        """The output folder; refuses to touch an existing one unless told to."""
        out = self.config.out or _free_folder(self.config.masks)
        if out.exists() and not (self.config.overwrite or self.config.resume):
            if not out.is_dir() or any(out.iterdir()):
                raise UsageError(
                    f"--out: {out} exists; give another, or --overwrite, or --resume to go on"
                )
        config = self.config
        inputs = [config.images, config.masks, config.clicks, config.reference, config.images_json]
        # PNG masks would be images of the next run; JSON files are not.
        keep_apart(out, inputs, around=None if config.masks.is_dir() else config.images)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out: {out} cannot be made: {error.strerror}") from error
        if config.overwrite and (out / JOURNAL).exists():
            _remove_run(out)
        return out

    def _header(self, model: Model) -> dict[str, Any]:
        """What identifies this run in its journal."""
        config = self.config
        inputs = {
            name: _stamp(path)
            for name, path in {
                "masks": config.masks,
                "clicks": config.clicks,
                "reference": config.reference,
                "images_json": config.images_json,
            }.items()
        }
        return {
            "maskfix": __version__,
            "model": model.checksum,
            **inputs,
            "images": [str(config.images.resolve()), len(self.source)],
            "format": self.source.format,
            "chunk": CHUNK_IMAGES,
            "simulate": config.simulate,
            "target_iou": config.target_iou,
            "jitter": config.jitter,
            "seed": config.seed,
            "everything": config.everything,
            "guard": config.guard,
            "batch_size": config.batch_size,
        }

    def _write(
        self, journal: Journal, out: Path, model: Model, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Make the final files from the journal."""
        edits = (edit for line in journal.lines() for edit in unpack_edits(line))
        notes = self.source.write(edits, out, self.config.segmentation)
        remarks: dict[tuple[int, int | None], str] = {(n.image, n.key): n.text for n in notes}
        summary = Summary()

        def rows() -> Iterator[dict[str, Any]]:
            for line in [pack(outcome) for outcome in self.lost]:
                summary.add(line["row"], None)
                yield line["row"]
            for line in journal.lines():
                row = line["row"]
                for edit in line["edits"]:
                    remark = remarks.get((edit["image"], edit["key"]))
                    if remark:
                        row["reason"] = "; ".join(filter(None, [row["reason"], remark]))
                summary.add(row, line["overlap"])
                yield row

        for _ in write_rows(rows(), out):
            pass
        matched_by: Counter[str] = Counter()
        for closing in journal.closings():
            matched_by.update(closing["matched_by"])
        if matched_by["none"]:
            say(f"note: no reference mask fits {matched_by['none']} of {matched_by.total()} images")
        content = {
            **summary.finish(),
            "references_matched_by": matched_by,
            "model": {
                "name": model.name,
                "file": str(model.path),
                "sha256": model.checksum,
                "trained": model.trained,
            },
            "versions": {
                "maskfix": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "command": sys.argv,
        }
        write_summary(content, out)
        lost = len(self.lost)
        write_report_page(
            out, read_rows(out), journal.lines(), lost, self.source, self.config, content
        )
        return content


def refine(config: RefineConfig) -> dict[str, Any]:
    """Refine a set of masks and write the result; see `RefineConfig`.

    Returns:
        the summary, as written to ``summary.json``, and ``out``, the folder.

    Raises:
        InputError, UsageError: inputs or settings that cannot be used.
    """
    return Refinement(config).run()


def _open_reference(reference: Path, images: Path, images_json: Path | None) -> Source:
    """The reference masks; ``--images-json`` is for them too if they name no images themselves."""
    try:
        return open_source(reference, images, images_json)
    except InputError as error:
        if images_json is None:
            raise
        try:
            return open_source(reference, images)
        except InputError:
            raise error from None


def _free_folder(masks: Path) -> Path:
    """``preds-refined`` beside ``preds.json``, with a number if that is taken."""
    base = masks.resolve().with_name(f"{masks.resolve().stem}-refined")
    number, out = 1, base
    while out.exists():
        number += 1
        out = base.with_name(f"{base.name}-{number}")
    return out


def _remove_run(out: Path) -> None:
    """Remove what a run has written, so that nothing of it is taken for the next one's."""
    for pattern in ("annotations.json", "report.*", "summary.json", ".*.part"):
        for path in out.glob(pattern):
            path.unlink()
    shutil.rmtree(out / "masks", ignore_errors=True)
    (out / JOURNAL).unlink()


def _stamp(path: Path | None) -> list[Any] | None:
    """What tells whether an input is still the same: its name, size and time."""
    if path is None:
        return None
    status = path.stat()
    return [str(path.resolve()), status.st_size if path.is_file() else 0, status.st_mtime_ns]
