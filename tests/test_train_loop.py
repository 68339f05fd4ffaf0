"""The engine: a run that is cut and resumed is the run that was not cut."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import SETTINGS, write_coco

from maskfix.errors import InputError, UsageError
from maskfix.model.checkpoint import load_model
from maskfix.train.config import OptimizerConfig, load_recipe
from maskfix.train.distributed import Group
from maskfix.train.halves import Halves
from maskfix.train.lesson import add_clicks, add_first_clicks
from maskfix.train.loop import Trainer, TrainingError
from maskfix.train.optimize import Average, rate_factor
from maskfix.train.run import make_trainer
from maskfix.train.stopping import stop_on_signal


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("tiny") / "set")


def trainer(tiny: Path, out: Path, *changes: str, workers: int = 0) -> Trainer:
    config = load_recipe("lite", [*SETTINGS, *changes])
    cpu = torch.device("cpu")
    return make_trainer(config, {"tiny": str(tiny)}, out, None, cpu, workers, Group())


def losses(out: Path) -> list[tuple[str, str]]:
    with (out / "loss.csv").open(newline="") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


def stop_after(run: Trainer, batches: int) -> None:
    """Let a run be cut after some batches, as by a time limit."""
    train_batch: Callable[..., float] = run._train_batch
    done = 0

    def count(batch: object) -> float:
        nonlocal done
        value = train_batch(batch)
        done += 1
        if done == batches:
            os.kill(os.getpid(), signal.SIGTERM)
        return value

    run._train_batch = count  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("optimizer.accumulate=3", "clicks.learn_each=false", "clicks.iterations=1"),
        (
            "network={name: hrnet18s, arguments: {ocr_width: 16}}",  # dropout, batch norm
            "epoch_samples=4",
            "batch_size=2",
            "optimizer.accumulate=2",
        ),
        ("optimizer.freeze_norm=true",),
        (
            "network={name: hrnet18s, arguments: {ocr_width: 16}}",  # dropout
            "epoch_samples=4",
            "batch_size=2",
            "optimizer.freeze_norm=true",
        ),
    ],
    ids=["lite", "accumulate", "dropout", "halves", "dropout, norm frozen"],
)
def test_a_resumed_run_has_the_same_losses_bit_for_bit(
    tiny: Path, tmp_path: Path, changes: tuple[str, ...]
) -> None:
    trainer(tiny, tmp_path / "whole", *changes).run()
    cut = trainer(tiny, tmp_path / "cut", *changes)
    stop_after(cut, 1)
    cut.run()
    assert 0 < len(losses(tmp_path / "cut")) < len(losses(tmp_path / "whole"))
    again = trainer(tiny, tmp_path / "cut", *changes, workers=2)
    again.resume()
    again.run()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    states = [torch.load(tmp_path / n / "last.pt", weights_only=True) for n in ("whole", "cut")]
    for part in ("network", "average"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), (part, name)


def test_lines_after_the_checkpoint_are_written_anew(tiny: Path, tmp_path: Path) -> None:
    run = trainer(tiny, tmp_path)
    stop_after(run, 1)
    run.run()
    with (tmp_path / "loss.csv").open("a") as file:
        file.write("8.0,99.0,5.0,0.1,0.001\n9.0,100")
    again = trainer(tiny, tmp_path)
    again.resume()
    again.run()
    steps = [float(step) for step, _ in losses(tmp_path)]
    assert steps == sorted(set(steps)) and 99.0 not in steps


def test_a_finished_run_leaves_weights_logs_and_curves(tiny: Path, tmp_path: Path) -> None:
    change = "validation=[{name: tiny, limit: 3, min_area: 20}]"
    run = trainer(tiny, tmp_path, change, "validate_minutes=0.001", "epochs=1", "epoch_samples=4")
    run.run()
    for name in ("best", "last"):
        model = load_model(tmp_path / f"{name}.safetensors")
        assert model.network_name == "lite" and model.info["samples"] == 4
    assert 1 <= run.progress.metric["score"] <= 20
    assert (tmp_path / "validation.csv").read_text().startswith("samples,minutes,score,tiny_noc85")
    assert (tmp_path / "curves.svg").read_text().startswith("<svg")
    assert len((tmp_path / "validation.csv").read_text().splitlines()) == 2
    averaged = run.average.shipped(run.network)
    assert run.validate is not None and run.validate(averaged) == run.progress.metric


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_ask_to_stop_once_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        os.kill(os.getpid(), number)
        assert stop.requested and signal.getsignal(number) is before
    assert signal.getsignal(number) is before
    with stop_on_signal() as stop:
        assert not stop.requested and signal.getsignal(number) is not before
    assert signal.getsignal(number) is before


def test_a_loss_that_is_no_number_ends_the_run_with_advice(tiny: Path, tmp_path: Path) -> None:
    run = trainer(tiny, tmp_path)
    with torch.no_grad():
        next(run.network.parameters()).fill_(math.nan)
        for parameter in run.network.parameters():
            parameter.mul_(math.nan)
    with pytest.raises(TrainingError, match=r"nan in epoch 0, batch 0.*optimizer\.lr"):
        run.run()


def test_broken_images_are_passed_over_alike_for_any_workers(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set")
    (folder / "images" / "002.png").write_bytes(b"no image")
    (folder / "images" / "004.png").unlink()
    logs = []
    for workers in (0, 2):
        out = tmp_path / f"run{workers}"
        run = trainer(folder, out, workers=workers)
        run.run()
        assert run.progress.broken > 0
        logs.append(losses(out))
    assert logs[0] == logs[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_broken_images_is_an_error_of_one_line(tmp_path: Path, workers: int) -> None:
    folder = write_coco(tmp_path / "set")
    for path in (folder / "images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(
        InputError, match=r"are broken: tiny: images/00.*cannot be decoded"
    ) as error:
        trainer(folder, tmp_path / "run", workers=workers).run()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "error"), [(None, "does not exist"), (b"damaged", "damaged")])
def test_resume_without_a_sound_checkpoint(
    tiny: Path, tmp_path: Path, content: bytes | None, error: str
) -> None:
    if content is not None:
        (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(InputError, match=error):
        trainer(tiny, tmp_path).resume()


def test_resume_refuses_another_network(tiny: Path, tmp_path: Path) -> None:
    run = trainer(tiny, tmp_path)
    run.save()
    with pytest.raises(UsageError, match="another network"):
        trainer(tiny, tmp_path, "network.arguments={radius: 3}").resume()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (OptimizerConfig(milestones=(49, 52)), {(1, 48.9, 0.9): 1, (1, 49, 0.9): 0.1,
                                                (1, 52, 0.9): 0.01}),
        (OptimizerConfig(warmup=10), {(1, 0, 0): 0.1, (5, 0, 0): 0.5, (20, 0, 0): 1}),
        (OptimizerConfig(cosine=True), {(1, 0, 0.0): 1, (1, 0, 0.5): 0.505, (1, 0, 1.0): 0.01}),
    ],
    ids=["milestones", "warmup", "cosine"],
)  # fmt: skip
def test_course_of_the_learning_rate(
    settings: OptimizerConfig, expected: dict[tuple[int, float, float], float]
) -> None:
    for (step, epoch, fraction), factor in expected.items():
        assert rate_factor(settings, step, epoch, fraction) == pytest.approx(factor)


def test_average_follows_slowly_and_counters_at_once() -> None:
    network = torch.nn.BatchNorm2d(1)
    average = Average(network, 0.9)
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.num_batches_tracked.fill_(7)
    average.update(network, 1000)
    assert float(average.weights["weight"]) == pytest.approx(1.1)
    assert int(average.weights["num_batches_tracked"]) == 7


def test_clicks_take_the_slots_of_the_published_code(golden: Path) -> None:
    recorded = np.load(golden / "next_points.npz")
    for number in (1, 2, 3):
        points = torch.from_numpy(recorded["points_in"].copy())
        reference, masks = recorded["gt"][:, 0] > 0.5, torch.from_numpy(recorded["pred"])
        generators = [np.random.default_rng(i) for i in range(len(points))]
        add_clicks(points, reference, masks, number, generators)
        expected = recorded[f"points_out_click{number}_first_candidate"]
        for b, candidates in enumerate(recorded["candidate_mask"]):
            changed = (expected[b] != recorded["points_in"][b]).any(axis=1)
            moved = (points[b].numpy() != recorded["points_in"][b]).any(axis=1)
            if not candidates.any():
                assert not moved.any()
                continue
            (slot,) = np.flatnonzero(changed | moved)
            row, col, index = points[b, slot].numpy()
            assert candidates[int(row), int(col)] and index == number == expected[b, slot, 2]


def test_first_clicks_go_to_different_errors_of_the_given_mask() -> None:
    reference = np.zeros((1, 40, 40), bool)
    reference[0, 5:35, 5:35] = True
    given = reference.astype(np.float32)
    given[0, 5:15, 5:15] = 0  # missing
    given[0, 28:40, 36:40] = given[0, :4] = 1  # two false parts
    mask = torch.from_numpy(given)[:, None]
    seen: set[int] = set()
    for seed in range(20):
        points = torch.full((1, 16, 3), -1.0)
        rng = [np.random.default_rng(seed)]
        add_first_clicks(points, reference, mask, 0.5, rng, np.array([True]))
        used = points[0][points[0, :, 0] >= 0]
        regions = {(bool(r < 15 and c < 15 and r > 4), bool(r < 4)) for r, c, _ in used.tolist()}
        assert len(regions) == len(used)
        seen.add(len(used))
    assert seen == {1, 2, 3}
    points = torch.full((1, 16, 3), -1.0)
    add_first_clicks(points, reference, mask, 0.5, rng, np.array([False]))
    assert bool((points == -1).all())


@pytest.mark.parametrize(
    ("threads", "device", "size", "expected"),
    [
        (2, "cpu", 8, [(0, 4), (4, 8)]),
        (2, "cpu", 5, [(0, 2), (2, 5)]),
        (2, "cpu", 1, [(0, 1)]),
        (1, "cpu", 8, [(0, 8)]),
        (2, "cuda", 8, [(0, 8)]),
    ],
)
def test_halves_of_a_batch(
    threads: int,
    device: str,
    size: int,
    expected: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    halves = Halves(torch.device(device))
    assert halves.map(lambda rows: (rows.start, rows.stop), size) == expected


def test_halves_learn_what_the_whole_batch_does(tiny: Path, tmp_path: Path) -> None:
    changes = ["optimizer.freeze_norm=true", "clicks.learn_each=false"]
    for out, threads in (("whole", 1), ("halves", 2)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        run = trainer(tiny, tmp_path / out, *changes)
        assert (run.halves._pool is None) == (threads == 1)
        run.run()
        torch.set_num_threads(before)
    whole, halves = losses(tmp_path / "whole"), losses(tmp_path / "halves")
    assert len(whole) >= 4
    for (_, one), (_, two) in zip(whole, halves, strict=True):
        assert float(one) == pytest.approx(float(two), abs=1e-5)


DDP = """
    import sys, torch
    from pathlib import Path
    from tiny_data import SETTINGS
    from maskfix.train.config import load_recipe
    from maskfix.train.distributed import join_group, leave_group
    from maskfix.train.run import make_trainer
    torch.set_num_threads(1)
    if __name__ == "__main__":
        changes = [*SETTINGS, "optimizer.freeze_norm=true", "optimizer.ema=0"]
        config = load_recipe("lite", changes)
        group = join_group(config.batch_size)
        out = Path(sys.argv[2])
        cpu = torch.device("cpu")
        make_trainer(config, {"tiny": sys.argv[1]}, out, None, cpu, 0, group).run()
        leave_group(group)
"""


def test_two_processes_do_what_one_does_with_the_double_batch(tiny: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(DDP))
    tests, package = Path(__file__).parent, Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tests}{os.pathsep}{package}",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    for how, out in (([], "one"), (torchrun, "two")):
        command = [sys.executable, *how, str(script), str(tiny), str(tmp_path / out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in two] and len(one) >= 4
    for (_, alone), (_, together) in zip(one, two, strict=True):
        assert float(alone) == pytest.approx(float(together), abs=1e-5)
