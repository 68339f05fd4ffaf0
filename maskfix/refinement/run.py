"""The batch: images in, better annotations and a report out.

    source + click script -> tasks -> jobs in the predictor -> guard -> journal -> annotations

`inputs` says what is to be done, in chunks of images that depend on nothing else; a `worker` does a
chunk; the `journal` keeps what is done, and `finish` makes the final files from it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from maskfix.config import RefineConfig, pack_config
from maskfix.errors import InstanceError, UsageError
from maskfix.files import keep_apart
from maskfix.model.checkpoint import Model, load_model
from maskfix.model.device import choose_device
from maskfix.predictor import Predictor
from maskfix.refinement.finish import summarise_rows, write_results
from maskfix.refinement.inputs import Inputs
from maskfix.refinement.journal import NAME as JOURNAL
from maskfix.refinement.journal import Journal
from maskfix.refinement.outcome import check_line
from maskfix.refinement.ray_engine import import_ray, work_with_ray
from maskfix.refinement.worker import Finished, Worker
from maskfix.runtime import keep_freed_memory

Say = Callable[[str], None]


class Refinement:
    """One run of `maskfix refine`.

    Args:
        config: what to do.

    Raises:
        InputError, UsageError: inputs that cannot be used; raised before anything is written.
    """

    def __init__(self, config: RefineConfig) -> None:
        self.config = config
        self.inputs = Inputs(config)

    def run(self, say: Say = lambda text: None) -> dict[str, Any]:
        """Do the work; returns the summary that is written to summary.json.

        A shard leaves its journal alone; `maskfix.refinement.merge` makes the files of all.

        Args:
            say: called with a line now and then, for a person to read.
        """
        config, inputs = self.config, self.inputs
        with_ray = config.engine == "ray"
        if with_ray:
            import_ray()
        device = choose_device("cpu" if with_ray else config.device)
        model = load_model(config.model, device, "float32" if with_ray else config.precision)
        if not model.trained:
            say(f"warning: {model.path} holds random weights: results are meaningless")
        for note in inputs.source.notes:
            say(f"note: {note}")
        if inputs.lost and config.fail_fast:
            raise InstanceError(inputs.lost[0].row.reason)
        out = prepare_out(config)
        chunks = inputs.chunks()
        about = {"config": pack_config(config), "model": describe(model), "chunks": len(chunks)}
        identity = inputs.identity(model.checksum)
        journal = Journal(out / JOURNAL, identity, config.resume, check_line, about)
        try:
            todo = chunks[journal.chunks_done :]
            work = self._work_with_ray(todo, model) if with_ray else self._work(todo, model)
            for finished in work:
                journal.append(finished.lines, {"matched_by": finished.matched_by})
        finally:
            journal.close()
        if config.shard is None:
            summary = write_results(inputs, journal, out, describe(model), say)
        else:
            summary = summarise_rows(journal)
            say(f"shard {config.shard} is done; put all of them together with: maskfix merge")
        summary["out"] = str(out)
        return summary

    def _work(self, todo: list[list[int]], model: Model) -> Iterator[Finished]:
        """Do chunks in this process."""
        keep_freed_memory()
        worker = Worker(self.inputs, Predictor(model, batch_size=self.config.batch_size))
        images, began, count = sum(map(len, todo)), time.monotonic(), 0
        with tqdm(total=images, unit=" images", disable=None, smoothing=0.05) as bar:

            def tell(images: int, instances: int) -> None:
                nonlocal count
                count += instances
                rate = count / max(1e-9, time.monotonic() - began)
                bar.set_postfix_str(f"{rate:.1f} instances/s", refresh=False)
                bar.update(images)

            try:
                for chunk in todo:
                    yield worker.work(chunk, tell)
            finally:
                worker.close()

    def _work_with_ray(self, todo: list[list[int]], model: Model) -> Iterator[Finished]:
        """Do chunks on a Ray cluster."""
        with tqdm(total=sum(map(len, todo)), unit=" images", disable=None) as bar:
            for chunk, finished in zip(
                todo, work_with_ray(self.inputs, todo, model.checksum), strict=True
            ):
                yield finished
                bar.update(len(chunk))


def refine(config: RefineConfig) -> dict[str, Any]:
    """Refine a set of masks and write the result; see `RefineConfig`.

    Returns:
        the summary, as written to ``summary.json``, and ``out``, the folder.

    Raises:
        InputError, UsageError: inputs or settings that cannot be used.
    """
    return Refinement(config).run()


def describe(model: Model) -> dict[str, Any]:
    """What the summary says of a model."""
    return {
        "name": model.name,
        "file": str(model.path),
        "sha256": model.checksum,
        "trained": model.trained,
    }


def prepare_out(config: RefineConfig) -> Path:
    """The output folder; refuses to touch an existing one unless told to."""
    out = config.out or _free_folder(config.masks)
    if out.exists() and not (config.overwrite or config.resume):
        if not out.is_dir() or any(out.iterdir()):
            raise UsageError(
                f"--out: {out} exists; give another, or --overwrite, or --resume to go on"
            )
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
