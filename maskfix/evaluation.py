"""A whole evaluation: models on sets, resumable, written as tables, plots and pictures.

Legend of an *entry*: one contestant (a model with a method, or a method alone) on one set, a row of
the table.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from maskfix.benchmarks import Benchmark, known_benchmark, read_annotated, read_benchmark
from maskfix.config import Precision, pack_config
from maskfix.errors import InputError, UsageError
from maskfix.evaluate import THRESHOLDS, Rules, Trace, run_cases, summarise
from maskfix.files import keep_apart
from maskfix.methods import METHODS, Contestant, contestants, needs_model, parse_method
from maskfix.model.checkpoint import load_model
from maskfix.model.device import choose_device
from maskfix.predictor import Predictor
from maskfix.predictor.drive import ClickMethod
from maskfix.refinement.journal import NAME as JOURNAL
from maskfix.refinement.journal import Journal, Record
from maskfix.refinement.merge import config_of, open_shards
from maskfix.report.evaluation import write_report
from maskfix.report.evaluation_page import Strip
from maskfix.report.plots import safe_name
from maskfix.report.published import published_results
from maskfix.report.strips import write_strip
from maskfix.runtime import keep_freed_memory
from maskfix.sharding import Shard
from maskfix.types import Click
from maskfix.version import __version__
from maskfix.words import counted


@dataclass(frozen=True)
class SetConfig:
    """One set to evaluate on.

    Attributes:
        name: a public benchmark's, which says its layout, or any other; shown in tables.
        path: its folder or tar; with `images`, the reference masks in any format.
        images: folder of images, where `path` is not a benchmark.
        initial: masks to start from, None to start from scratch.
    """

    name: str
    path: Path
    images: Path | None = None
    initial: Path | None = None

    def read(self) -> Benchmark:
        """The cases."""
        if self.images is None:
            return read_benchmark(self.name, self.path, self.initial)
        return read_annotated(self.name, self.images, self.path, self.initial)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Settings of `maskfix eval`.

    Attributes:
        sets: at least one; names differ.
        out: a folder to be made.
        models: names of shipped weights, or weights files; methods without a model of ours leave
            them alone.
        methods: of `maskfix.methods.METHODS`; ``NAME=PATH`` for those with files of their own.
        protocol: paper or fast; None is each model's own.
        rules: of the simulated user.
        thresholds: of IoU, rising.
        precision: numbers that our networks compute with; bfloat16 is for devices that have it.
        batch_size: most network inputs in one call.
        workers: threads for the simulated users.
        min_area: smaller instances, in pixels, are passed over; then
        limit: evenly spaced ones are taken, so many.
        strips: pictures of the progress of so many instances an entry, the worst first.
        published: show what others have published of the same benchmarks beside the results.
        device: auto, cpu, cuda, cuda:N or mps.
        resume: go on with an interrupted run in `out`.
        overwrite: replace a run in `out`.
        shard: do this part of the work only; `merge_evaluations` joins the parts.
    """

    sets: tuple[SetConfig, ...]
    out: Path
    models: tuple[str, ...] = ("lite",)
    methods: tuple[str, ...] = ("ritm",)
    protocol: Literal["paper", "fast"] | None = None
    rules: Rules = field(default_factory=Rules)
    thresholds: tuple[float, ...] = THRESHOLDS
    precision: Precision = "float32"
    batch_size: int = 16
    workers: int = 1
    min_area: int = 0
    limit: int | None = None
    strips: int = 6
    published: bool = False
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False
    shard: Shard | None = None

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.sets]
        if not names:
            raise UsageError(
                "nothing to evaluate: give --dataset NAME=PATH, or --images with --reference"
            )
        for what, values in (
            ("--dataset", names), ("--model", self.models), ("--method", self.methods)
        ):  # fmt: skip
            repeated = [value for value in values if values.count(value) > 1]
            if repeated:
                raise UsageError(f"{what}: {repeated[0]} is given twice; names must differ")
        for method in self.methods:
            parse_method(method)
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")
        steps = (0.0, *self.thresholds)
        if not all(a < b <= 1 for a, b in pairwise(steps)) or not self.thresholds:
            raise UsageError("--thresholds: expected rising numbers above 0, at most 1")
        checks: dict[str, tuple[float, float]] = {
            "--max-clicks": (self.rules.max_clicks, 1),
            "--min-clicks": (self.rules.min_clicks, 1),
            "--jitter": (self.rules.jitter, 0),
            "--batch-size": (self.batch_size, 1),
            "--workers": (self.workers, 1),
            "--min-area": (self.min_area, 0),
            "--limit": (1 if self.limit is None else self.limit, 1),
            "--strips": (self.strips, 0),
        }
        for flag, (value, least) in checks.items():
            if value < least:
                raise UsageError(f"{flag}: expected at least {least}, found {value:g}")


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    benchmark: Benchmark
    contestant: Contestant

    @property
    def key(self) -> tuple[str, str, str]:
        """(set, model, method)."""
        return self.benchmark.name, self.contestant.model_name, self.contestant.method

    def make(self, config: EvalConfig) -> ClickMethod:
        """What answers the clicks."""
        zoom = self.benchmark.paper_zoom
        return self.contestant.make(config.protocol, zoom, config.batch_size)


class Evaluation:
    """One run of `maskfix eval`.

    Args:
        config: what to do.

    Raises:
        InputError, UsageError: inputs that cannot be used; raised before anything is written.
    """

    def __init__(self, config: EvalConfig) -> None:
        self.config = config
        device = choose_device(config.device)
        wanted = config.models if needs_model(config.methods) else ()
        self.models = [load_model(name, device, config.precision) for name in wanted]
        self.contestants = contestants(config.methods, self.models)
        labels = [(c.model_name, c.method) for c in self.contestants]
        for label in labels:
            if labels.count(label) > 1:
                raise UsageError(f"two files are named {label[0]}; rename one of them")
        self.whole = [entry.read() for entry in config.sets]
        self.benchmarks = [b.select(config.min_area, config.limit) for b in self.whole]
        for benchmark in self.benchmarks:
            if not benchmark.cases:
                raise UsageError(
                    f"--min-area: no instance of {benchmark.name} has {config.min_area} pixels"
                )
        for contestant in self.contestants:
            if contestant.model is None:  # files and packages that are missing should show now
                Entry(self.benchmarks[0], contestant).make(config)

    def run(self, say: Callable[[str], None] = lambda text: None) -> dict[str, Any] | None:
        """Do the work.

        Args:
            say: called with a line now and then, for a person to read.

        Returns:
            the content of noc.json; None of a shard, which leaves its journal alone.
        """
        for benchmark in self.benchmarks:
            for note in benchmark.notes:
                say(f"note: {benchmark.name}: {note}")
        for model in self.models:
            if not model.trained:
                say(f"warning: {model.path} holds random weights: results are meaningless")
        keep_freed_memory()
        journal = self._open_journal()
        try:
            done = self._finished(journal)
            for entry in self.entries():
                self._evaluate(entry, done.setdefault(entry.key, {}), journal)
        finally:
            journal.close()
        if self.config.shard is not None:
            say(f"shard {self.config.shard} is done; put all together with: maskfix merge")
            return None
        return self._write(done, say)

    def take(
        self, shards: Sequence[Record], say: Callable[[str], None] = lambda text: None
    ) -> dict[str, Any]:
        """Make the results of what shards have done; returns the content of noc.json.

        Raises:
            InputError: the shards are of other inputs.
        """
        difference = shards[0].compare(self._identity(), but="shard")
        if difference:
            raise InputError(f"{shards[0].path.parent}: the inputs have changed: {difference}")
        found = [self._finished(shard) for shard in shards]
        journal = self._open_journal()
        try:
            done = self._finished(journal)
            for entry in self.entries():
                here = done.setdefault(entry.key, {})
                traces = {i: t for part in found for i, t in part.get(entry.key, {}).items()}
                for position in sorted(traces.keys() - here.keys()):
                    here[position] = traces[position]
                    journal.append([{"row": pack(entry.key, position, traces[position])}])
        finally:
            journal.close()
        return self._write(done, say)

    def _open_journal(self) -> Journal:
        out = self._prepare_out()
        own = sum(len(self._own(entry.benchmark)) for entry in self.entries())
        about = {"config": pack_config(self.config), "chunks": own}
        return Journal(out / JOURNAL, self._identity(), self.config.resume, check_line, about)

    def _own(self, benchmark: Benchmark) -> list[int]:
        """Positions of the cases to run: of the shard's images."""
        shard, own = self.config.shard, []
        groups = groupby(enumerate(benchmark.cases), key=lambda pair: pair[1].image)
        for number, (_, group) in enumerate(groups):
            if shard is None or shard.takes(number):
                own += [position for position, _ in group]
        return own

    def entries(self) -> Iterator[Entry]:
        """Rows of the table: sets, in each the contestants."""
        for benchmark in self.benchmarks:
            for contestant in self.contestants:
                yield Entry(benchmark, contestant)

    def _evaluate(self, entry: Entry, done: dict[int, Trace], journal: Journal) -> None:
        """Run the cases that are not done yet."""
        own = self._own(entry.benchmark)
        todo = [i for i in own if i not in done]
        if not todo:
            return
        config = self.config
        predictor = entry.make(config)
        cases = [entry.benchmark.cases[i] for i in todo]
        in_flight = 2 * config.workers
        if isinstance(predictor, Predictor):
            in_flight = predictor.in_flight
        threads = ThreadPoolExecutor(config.workers) if config.workers > 1 else nullcontext()
        title = " ".join(entry.key)
        with (
            threads as pool,
            tqdm(total=len(own), initial=len(done), desc=title,
                 unit=" instances", disable=None) as bar,
        ):  # fmt: skip
            for position, trace in run_cases(predictor, cases, config.rules, in_flight, pool):
                done[todo[position]] = trace
                journal.append([{"row": pack(entry.key, todo[position], trace)}])
                bar.update()

    def _finished(self, journal: Journal | Record) -> dict[tuple[str, str, str], dict[int, Trace]]:
        """What the journal holds already: traces by entry and position."""
        found: dict[tuple[str, str, str], dict[int, Trace]] = {}
        for line in journal.lines():
            key, position, trace = unpack(line["row"])
            found.setdefault(key, {})[position] = trace
        return found

    def _write(
        self, done: dict[tuple[str, str, str], dict[int, Trace]], say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Make the final files."""
        config = self.config
        results = []
        for entry in self.entries():
            traces = [trace for _, trace in sorted(done[entry.key].items())]
            name, model, method = entry.key
            summary = summarise(traces, config.thresholds, config.rules.max_clicks)
            results.append({"set": name, "model": model, "method": method, **summary})
        content = {**self._header(), **self._about(), "results": results}
        if config.published:
            content["published"] = self._published(say)
        for folder in ("strips", "plots"):  # of a run that was replaced
            shutil.rmtree(config.out / folder, ignore_errors=True)
        rows = Rows({entry.key: done[entry.key] for entry in self.entries()})
        strips = list(self._strips(done))
        for note in write_report(config.out, content, rows, strips):
            say(f"note: {note}")
        return content

    def _published(self, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """What others have measured on these sets, from scratch."""
        known = {
            entry.name: known_benchmark(entry.name)
            for entry in self.config.sets
            if entry.images is None and entry.initial is None
        }
        found = list(published_results({k: v for k, v in known.items() if v is not None}))
        if not found:
            say("note: --published: none of these sets is a benchmark with published numbers")
        return found

    def _strips(self, done: dict[tuple[str, str, str], dict[int, Trace]]) -> Iterator[Strip]:
        """Run the worst instances again and draw their progress."""
        target = self.config.thresholds[-1]
        for entry in self.entries():
            traces = done[entry.key]

            def badness(i: int, traces: dict[int, Trace] = traces) -> tuple[float, float]:
                ious = traces[i].counted_ious
                needed = next((k for k, iou in enumerate(ious) if iou >= target), len(ious))
                return -needed, max(ious)

            worst = sorted(traces, key=badness)[: self.config.strips]
            cases = [entry.benchmark.cases[i] for i in worst]
            predictor = entry.make(self.config)
            again = dict(run_cases(predictor, cases, self.config.rules, 8, keep_masks=True))
            folder = self.config.out / "strips" / safe_name("_".join(entry.key))
            for rank, case in enumerate(cases):
                trace = again[rank]
                path = folder / f"{rank + 1:02}.png"
                write_strip(
                    path, case.image(), case.reference, case.initial,
                    trace.masks, trace.clicks, (trace.initial_iou, *trace.ious),
                )  # fmt: skip
                clicks, iou = len(trace.clicks), trace.counted_ious[-1]
                yield Strip(
                    entry.key, f"{case.name}: {counted(clicks, 'click')}, IoU {iou:.3f}", path
                )

    def _identity(self) -> dict[str, Any]:
        """What identifies this run: a journal of another one is not continued."""
        shard = self.config.shard
        return {"command": "eval", **self._header(), "shard": shard and str(shard)}

    def _header(self) -> dict[str, Any]:
        """What noc.json begins with."""
        config = self.config
        return {
            "format": 1,
            "maskfix": __version__,
            "settings": {
                **asdict(config.rules),
                "thresholds": list(config.thresholds),
                "min_area": config.min_area,
                "limit": config.limit,
                "protocol": config.protocol,
                "precision": config.precision,
                "methods": list(config.methods),
            },
            "sets": [
                {
                    "name": entry.name,
                    "path": str(entry.path.resolve()),
                    "initial": None if entry.initial is None else str(entry.initial.resolve()),
                    "instances": len(whole.cases),
                    "evaluated": len(benchmark.cases),
                    "notes": list(benchmark.notes),
                }
                for entry, whole, benchmark in zip(
                    config.sets, self.whole, self.benchmarks, strict=True
                )
            ],
            "models": [
                {
                    "name": model.name,
                    "network": model.network_name,
                    "sha256": model.checksum,
                    "protocol": config.protocol or model.protocol,
                    "trained": model.trained,
                }
                for model in self.models
            ],
        }

    def _about(self) -> dict[str, Any]:
        return {
            "methods": {c.method: METHODS[c.method] for c in self.contestants},
            "machine": {
                "device": str(choose_device(self.config.device)),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    def _prepare_out(self) -> Path:
        out = self.config.out
        for entry in self.config.sets:
            keep_apart(out, [entry.path, entry.images, entry.initial])
        if out.exists() and not (self.config.overwrite or self.config.resume):
            if not out.is_dir() or any(out.iterdir()):
                raise UsageError(
                    f"--out: {out} exists; give another, or --overwrite, or --resume to go on"
                )
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out: {out} cannot be made: {error.strerror}") from error
        return out


def pack(key: tuple[str, str, str], position: int, trace: Trace) -> dict[str, Any]:
    """A trace as it is written to the journal."""
    return {
        "set": key[0],
        "model": key[1],
        "method": key[2],
        "position": position,
        "name": trace.name,
        "area": trace.area,
        "from_mask": trace.from_mask,
        "initial_iou": trace.initial_iou,
        "ious": list(trace.ious),
        "clicks": [[click.x, click.y, int(click.positive)] for click in trace.clicks],
        "boundary_iou": trace.boundary_iou,
        "right": trace.right,
        "broken": [trace.broken_first, trace.broken_last],
        "seconds": [trace.seconds_network, trace.seconds_user, trace.seconds_read],
    }


@dataclass(frozen=True)
class Rows:
    """The rows of all traces, made anew whenever they are gone through; numbered by entry.

    Attributes:
        traces: by position, by the entry's key.
    """

    traces: dict[tuple[str, str, str], dict[int, Trace]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for key, own in self.traces.items():
            for position, (_, trace) in enumerate(sorted(own.items())):
                yield pack(key, position, trace)


def unpack(row: dict[str, Any]) -> tuple[tuple[str, str, str], int, Trace]:
    """What `pack` was given."""
    trace = Trace(
        name=row["name"],
        ious=tuple(row["ious"]),
        clicks=tuple(Click(x, y, bool(positive)) for x, y, positive in row["clicks"]),
        initial_iou=row["initial_iou"],
        boundary_iou=row["boundary_iou"],
        from_mask=row["from_mask"],
        area=row["area"],
        right=row["right"],
        broken_first=row["broken"][0],
        broken_last=row["broken"][1],
        seconds_network=row["seconds"][0],
        seconds_user=row["seconds"][1],
        seconds_read=row["seconds"][2],
    )
    return (row["set"], row["model"], row["method"]), row["position"], trace


def check_line(line: dict[str, Any]) -> None:
    """Look at a journal line; raises what `unpack` does."""
    unpack(line["row"])


def merge_evaluations(
    folders: Sequence[Path],
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Put the shards of an evaluation together; see `maskfix.refinement.merge.merge_refinements`.

    Returns:
        the content of noc.json.
    """
    shards = open_shards(folders, check_line)
    config = config_of(shards[0], EvalConfig)
    config = replace(config, shard=None, out=out, resume=resume, overwrite=overwrite, device="auto")
    return Evaluation(config).take(shards, say)


def evaluate(config: EvalConfig) -> dict[str, Any] | None:
    """Evaluate models on sets and write the results; see `EvalConfig`.

    Returns:
        the content of noc.json; see `maskfix.report.evaluation.write_report`. None of a shard.

    Raises:
        InputError, UsageError: inputs or settings that cannot be used.
    """
    return Evaluation(config).run()


__all__ = ["EvalConfig", "Evaluation", "SetConfig", "evaluate", "merge_evaluations"]
