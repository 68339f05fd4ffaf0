"""``maskfix bench``: its clocks, its scenes, and one quick run."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from maskfix.bench import run as bench_run
from maskfix.bench.measure import Stopwatch, Timing, in_turn
from maskfix.bench.run import STAGES, Bench, BenchConfig
from maskfix.bench.scenes import INSTANCES, SIZE, make_scene, write_set
from maskfix.cli.main import app
from maskfix.errors import CheckpointError, UsageError
from maskfix.formats import open_source
from maskfix.formats.click_script import read_click_script
from maskfix.masks import iou


def test_ways_are_timed_in_turn_after_a_first_round() -> None:
    made: list[str] = []
    ways = {name: lambda name=name: made.append(name) for name in "ab"}  # type: ignore[misc]
    timings = in_turn(ways, budget=0, least_rounds=3)
    assert made == ["a", "b"] * 4
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]
    timing = Timing((3.0, 1.0, 2.5))
    assert (timing.best, timing.median) == (1.0, 2.5)


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.fixture
def kitchen(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a function that calls another one, and a class."""
    module = ModuleType("kitchen")

    class Cook:
        def stir(self) -> str:
            burn(0.02)
            return "soup"

    def serve() -> str:
        burn(0.01)
        return module.Cook().stir()

    module.Cook, module.serve = Cook, serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kitchen", module)
    return module


def test_stopwatch_gives_every_stage_its_own_time(kitchen: ModuleType) -> None:
    watch = Stopwatch()
    before = kitchen.serve, kitchen.Cook.stir
    with watch.watch({"kitchen:serve": "serve", "kitchen:Cook.stir": "stir"}):
        assert kitchen.serve() == "soup"
        threads = [threading.Thread(target=kitchen.serve) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (kitchen.serve, kitchen.Cook.stir) == before
    assert watch.calls == {"serve": 3, "stir": 3}
    assert 0.029 < watch.seconds["serve"] < 0.05
    assert 0.059 < watch.seconds["stir"] < 0.09


def test_stopwatch_lets_go_after_an_error(kitchen: ModuleType) -> None:
    before = kitchen.serve
    with (
        pytest.raises(AttributeError),
        Stopwatch().watch({"kitchen:serve": "a", "kitchen:no": "b"}),
    ):
        pass
    assert kitchen.serve is before


def test_scenes_are_a_set_that_can_be_refined(tmp_path: Path) -> None:
    scene = make_scene(1)
    assert np.array_equal(scene.image, make_scene(1).image)
    for right, damaged, click in zip(scene.objects, scene.damaged, scene.clicks, strict=True):
        assert 0.6 < iou(right, damaged) < 0.95
        row, col = round(click.y), round(click.x)
        assert right.contains(row, col) == click.positive != damaged.contains(row, col)
    folder = write_set(tmp_path / "set", [scene, make_scene(2)])
    source = open_source(folder / "masks.json", folder / "images")
    assert [(item.height, item.width) for item in source] == [SIZE, SIZE]
    assert [a.mask for a in source[0].annotations] == list(scene.damaged)
    script = read_click_script(folder / "clicks.json")
    assert [len(image.instances) for image in script.images] == [INSTANCES, INSTANCES]


def finite_numbers(content: object) -> bool:
    if isinstance(content, dict):
        return all(finite_numbers(value) for value in content.values())
    if isinstance(content, list):
        return all(finite_numbers(value) for value in content)
    return not isinstance(content, float) or math.isfinite(content)


def test_a_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench_run.BUDGETS, True, 0.0)
    file = tmp_path / "bench.json"
    done = CliRunner().invoke(app, ["bench", "--quick", "--device", "cpu", "--json", str(file)])
    assert done.exit_code == 0, done.output
    for text in ("matrix product", "plain module", "instances/s", "network", "many in progress"):
        assert text in done.stdout
    content = json.loads(file.read_text())
    assert finite_numbers(content)
    assert content["model"]["name"] == "lite" and content["peak"]["matmul"]["gflops"] > 1
    for part in ("network", "predictor", "eval"):
        assert all(row["per_second"] > 0 and row["rounds"] >= 2 for row in content[part])
    refine = content["refine"]
    assert refine["instances"] == 2 * INSTANCES
    assert sum(row["share"] for row in refine["stages"]) == pytest.approx(1, abs=0.05)
    called = {row["stage"] for row in refine["stages"] if row["cpu_ms"] > 0}
    assert called >= {*STAGES.values()}


def test_what_is_measured_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Carried out on the CPU, which imitates bfloat16."""
    monkeypatch.setattr(bench_run, "BATCHES", (1, 2))
    monkeypatch.setattr(bench_run, "multiplies_bfloat16", lambda: True)
    bench = Bench(BenchConfig("lite", "cpu"))
    bench.size = 64
    with torch.inference_mode():
        ways = bench._ways_on_gpu()
        for _, run in ways.values():
            run()
    bench.close()
    assert {name: count for name, (count, _) in ways.items()} == {
        "plain module": 1,
        "batches of 1": 1,
        "batches of 2": 2,
        "batches of 1, bfloat16": 1,
        "batches of 2, bfloat16": 2,
    }
    assert [name for name in bench._ways_on_cpu() if "bfloat16" in name] == [
        "folded and packed, bfloat16",
        f"{torch.get_num_threads()} calls side by side, bfloat16",
    ]


def test_a_network_without_weights_is_random() -> None:
    bench = Bench(BenchConfig("hrnet18s", "cpu"))
    assert (bench.model.trained, bench.size) == (False, 400)
    assert 15 < bench.flops / 1e9 < 17.84  # Table 4, less what is skipped
    bench.close()


def test_unknown_models_and_devices() -> None:
    with pytest.raises(CheckpointError, match="neither a file nor"):
        Bench(BenchConfig("hrnet19", "cpu"))
    with pytest.raises(UsageError, match="--device abacus"):
        Bench(BenchConfig("lite", "abacus"))
