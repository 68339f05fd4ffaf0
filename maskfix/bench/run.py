"""The benchmark: machine, network, predictor, refine and eval, each against its plain form.

    machine's peak -> network alone -> predictor -> refine from files to files -> eval

What is compared runs in turn in the same process, on the same images. Rates are those of the best
round; medians are given beside them, because a busy machine shows in their difference.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from maskfix.bench.machine import (
    describe_machine,
    finish,
    measure_convolutions,
    measure_peak,
)
from maskfix.bench.measure import Stopwatch, Timing, in_turn
from maskfix.bench.scenes import INSTANCES, SIZE, Scene, make_scene, write_set
from maskfix.config import RefineConfig
from maskfix.errors import CheckpointError, MaskfixError
from maskfix.evaluate import Case, CaseJob, Rules, run_cases
from maskfix.model.checkpoint import Model, load_model, save_weights
from maskfix.model.device import choose_device, multiplies_bfloat16
from maskfix.model.flops import measure_cost
from maskfix.model.graphs import WORTHWHILE
from maskfix.model.inference import one_thread_a_call
from maskfix.model.registry import NETWORKS, build_network
from maskfix.predictor import FastProtocol, PaperProtocol, Predictor, Request
from maskfix.refinement.run import Refinement

BUDGETS = {False: 6.0, True: 1.5}
"""Seconds a part, by whether it is to be quick; a slow network takes more for its few rounds."""

BATCHES = (1, 4, 16, 64)
"""Inputs a call, where there is a GPU."""

EVAL_CLICKS = 3

STAGES = {
    "maskfix.refinement.inputs:read_item": "read images",
    "maskfix.refinement.inputs:Inputs.load": "read masks, plan",
    "maskfix.predictor.fast:FastSession.view": "crop",
    "maskfix.predictor.paper:PaperSession.view": "crop",
    "maskfix.predictor:Predictor._ask": "network",
    "maskfix.predictor.fast:FastSession.accept": "put the answer into the mask",
    "maskfix.predictor.paper:PaperSession.accept": "put the answer into the mask",
    "maskfix.refinement.job:InstanceJob.next_clicks": "clicks",
    "maskfix.refinement.worker:conclude": "guard and report",
    "maskfix.refinement.worker:pack": "RLE",
    "maskfix.refinement.journal:Journal.append": "journal",
    "maskfix.refinement.run:write_results": "write files",
    "maskfix.refinement.run:Inputs": "open the inputs",
    "maskfix.refinement.run:load_model": "load the model",
    "maskfix.predictor:Predictor.__init__": "load the model",
}
"""Where the time of `maskfix refine` goes: functions, and what they are called here."""

Row = dict[str, Any]


@dataclass(frozen=True)
class BenchConfig:
    """What to measure.

    Attributes:
        model: name of shipped weights, a weights file, or the name of a network: then with random
            weights, whose masks mean nothing but take as long.
        device: auto, cpu, cuda, cuda:N or mps.
        quick: fewer rounds and instances.
    """

    model: str = "lite"
    device: str = "auto"
    quick: bool = False


class Bench:
    """One run of `maskfix bench`.

    Raises:
        CheckpointError, UsageError: no such model or device.
    """

    def __init__(self, config: BenchConfig) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self._folder = tempfile.TemporaryDirectory(prefix="maskfix-bench-")
        self.folder = Path(self._folder.name)
        try:
            self.model = _load(config.model, self.device, self.folder)
        except MaskfixError:
            self.close()
            raise
        self.network = self.model.network
        shown = FastProtocol() if self.model.protocol == "fast" else PaperProtocol()
        assert isinstance(shown.zoom_target, int)
        self.size = shown.zoom_target  # side of the network's input
        cost = measure_cost(self.network, self.size)
        self.flops = 2 * (cost.macs - cost.skipped)
        self.budget = BUDGETS[config.quick]
        self.peak = 0.0  # GFLOP/s

    def run(self, say: Callable[[str], None] = lambda text: None) -> Row:
        """Measure everything; every part says in its own method what it holds.

        Args:
            say: called with the name of every part as it begins.
        """
        content: Row = {
            "machine": describe_machine(self.device),
            "model": {
                "name": self.model.name,
                "trained": self.model.trained,
                "protocol": self.model.protocol,
                "input": [self.size, self.size],
                "gflop": self.flops / 1e9,
            },
        }
        with self._folder:
            for name, part in self._parts():
                say(f"measuring: {name}")
                content[name] = part()
        return content

    def close(self) -> None:
        """Remove temporary files; a run does it at its end."""
        self._folder.cleanup()

    def _parts(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Names and measurements, in order."""
        yield "peak", self._peak
        yield (
            "convolutions",
            lambda: measure_convolutions(self.network, self.size, self.peak, self.budget / 2),
        )
        yield "network", self._network
        yield "predictor", self._predictor
        yield "refine", self._refine
        yield "eval", self._eval

    def _peak(self) -> Row:
        found = measure_peak(self.device, self.budget / 3)
        self.peak = found["matmul"]["gflops"]
        return found

    @torch.inference_mode()
    def _network(self) -> list[Row]:
        """The network alone: the plain module, and what the predictor makes of it."""
        if self.device.type == "cpu":
            ways = self._ways_on_cpu()
        else:
            ways = self._ways_on_gpu()
        timings = in_turn({name: run for name, (_, run) in ways.items()}, 1.5 * self.budget)
        return [
            {
                **_rate(name, timings[name], ways[name][0], "inputs"),
                "gflops": ways[name][0] * self.flops / timings[name].best / 1e9,
                "of_peak": ways[name][0] * self.flops / timings[name].best / 1e9 / self.peak,
            }
            for name in ways
        ]

    def _ways_on_cpu(self) -> dict[str, tuple[int, Callable[[], object]]]:
        """Name -> inputs in one go, and what to do."""
        threads = torch.get_num_threads()
        given, many = self._input(1, torch.channels_last), 2 * threads

        def side_by_side(predictor: Predictor) -> None:
            def call() -> None:
                with torch.inference_mode():  # a setting of the thread
                    predictor.logits(*given)

            with one_thread_a_call():
                wait([predictor.submit(call) for _ in range(many)])

        ways = self._plain_way()
        for title, predictor in self._predictors(multiplies_bfloat16()).items():
            ways[f"folded and packed{title}"] = 1, partial(predictor.logits, *given)
            ways[f"{threads} calls side by side{title}"] = many, partial(side_by_side, predictor)
        return ways

    def _ways_on_gpu(self) -> dict[str, tuple[int, Callable[[], object]]]:
        """As `_ways_on_cpu`: batches of different sizes."""

        def call(predictor: Predictor, given: tuple[torch.Tensor, torch.Tensor]) -> None:
            predictor.logits(*given)
            finish(self.device)

        ways = self._plain_way()
        for title, predictor in self._predictors(True).items():
            for batch in BATCHES:
                given = self._input(batch, torch.channels_last)
                for _ in range(WORTHWHILE):  # it is recorded
                    call(predictor, given)
                ways[f"batches of {batch}{title}"] = batch, partial(call, predictor, given)
        return ways

    def _plain_way(self) -> dict[str, tuple[int, Callable[[], object]]]:
        given = self._input(1)

        def call() -> None:
            self.network(*given)
            finish(self.device)

        return {"plain module": (1, call)}

    def _predictors(self, with_half: bool) -> dict[str, Predictor]:
        """What the predictor makes of the model, by what ends the names of its ways."""
        models = {"": self.model}
        if with_half:
            models[", bfloat16"] = replace(self.model, precision="bfloat16")
        return {end: Predictor(model, batch_size=max(BATCHES)) for end, model in models.items()}

    def _input(
        self, batch: int, layout: torch.memory_format = torch.contiguous_format
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise and a click."""
        channels = 4 if self.network.with_prev_mask else 3
        image = torch.rand(batch, channels, self.size, self.size, device=self.device)
        points = torch.full((batch, 2, 3), -1.0, device=self.device)
        points[:, 0] = torch.tensor([self.size / 2, self.size / 2, 0.0])
        return image.contiguous(memory_format=layout), points

    def _predictor(self) -> list[Row]:
        """A click on a given mask: one instance after the other, and together."""
        predictor = Predictor(self.model)
        scene = make_scene(0)
        requests = [
            Request(scene.image, [click], mask)
            for click, mask in zip(scene.clicks, scene.damaged, strict=True)
        ]
        if not self.config.quick and self.model.protocol == "fast":
            requests *= 4

        def one_by_one() -> None:
            for request in requests:
                predictor.predict(request.image, request.clicks, request.mask)

        ways = {
            "one at a time": one_by_one,
            "together": lambda: predictor.predict_many(requests),
        }
        timings = in_turn(ways, self.budget, least_rounds=2)
        return [_rate(name, timing, len(requests), "clicks") for name, timing in timings.items()]

    def _refine(self) -> Row:
        """From files to files: images decoded, clicks followed, masks written as RLE."""
        scenes = [make_scene(seed) for seed in range(4)]
        count = self._images_for_refine(scenes)
        folder = write_set(self.folder / "set", [scenes[i % len(scenes)] for i in range(count)])
        watch = Stopwatch()
        began, used = time.perf_counter(), time.process_time()
        with watch.watch(STAGES):
            summary = self._run_refine(folder)
        seconds, used = time.perf_counter() - began, time.process_time() - used
        instances = count * INSTANCES
        assert summary["status"]["failed"] == 0
        watch.seconds["everything else"] = max(0.0, used - sum(watch.seconds.values()))
        stages = sorted(watch.seconds.items(), key=lambda pair: -pair[1])
        return {
            "images": count,
            "size": list(SIZE),
            "instances": instances,
            "seconds": seconds,
            "per_second": instances / seconds,
            "ms": 1000 * seconds / instances,
            "cpu_ms": 1000 * used / instances,
            "cores_busy": used / seconds,
            "stages": [
                {"stage": stage, "cpu_ms": 1000 * spent / instances, "share": spent / used}
                for stage, spent in stages
            ],
        }

    def _images_for_refine(self, scenes: list[Scene]) -> int:
        """So many images as fill the time, from a first small run, which also warms up."""
        folder = write_set(self.folder / "first", scenes[:2])
        began = time.perf_counter()
        self._run_refine(folder)
        each = (time.perf_counter() - began) / 2
        return max(2, min(200, round(1.5 * self.budget / each)))

    def _run_refine(self, folder: Path) -> Row:
        config = RefineConfig(
            images=folder / "images",
            masks=folder / "masks.json",
            clicks=folder / "clicks.json",
            out=folder / "out",
            model=str(self.model.path),
            device=self.config.device,
        )
        return Refinement(config).run()

    def _eval(self) -> list[Row]:
        """The NoC loop: instance by instance, and many in progress."""
        predictor = Predictor(self.model)
        rules = Rules(max_clicks=EVAL_CLICKS, target_iou=1.01)
        scenes = [make_scene(seed) for seed in range(1 if self.config.quick else 3)]
        cases = [
            Case(f"{i}/{k}", lambda scene=scene: scene.image, mask)  # type: ignore[misc]
            for i, scene in enumerate(scenes)
            for k, mask in enumerate(scene.objects)
        ]

        def one_by_one() -> None:
            for position, case in enumerate(cases):
                session = predictor.start(case.image())
                job = CaseJob(case, position, session, rules, keep_masks=False)
                while clicks := job.next_clicks():
                    session.clicks += clicks
                    predictor.step_here(session)
                job.trace()

        ways = {
            "one at a time": one_by_one,
            "many in progress": lambda: list(
                run_cases(predictor, cases, rules, predictor.in_flight)
            ),
        }
        timings = in_turn(ways, self.budget, least_rounds=2)
        clicks = EVAL_CLICKS * len(cases)
        return [
            {
                **_rate(name, timing, len(cases), "instances"),
                "ms_per_click": 1000 * timing.best / clicks,
            }
            for name, timing in timings.items()
        ]


def _load(name: str, device: torch.device, folder: Path) -> Model:
    """A model; for the bare name of a network, one with random weights in a file in `folder`."""
    try:
        return load_model(name, device)
    except CheckpointError:
        if name not in NETWORKS:
            raise
    torch.manual_seed(0)
    state = build_network(name).state_dict()
    save_weights(folder / f"{name}.safetensors", name, {}, state, {"trained": False})
    return load_model(folder / f"{name}.safetensors", device)


def _rate(name: str, timing: Timing, count: int, what: str) -> Row:
    """A row: milliseconds each, and how many a second."""
    return {
        "way": name,
        "ms": 1000 * timing.best / count,
        "median_ms": 1000 * timing.median / count,
        "per_second": count / timing.best,
        "of": what,
        "rounds": len(timing.seconds),
    }
