"""Recorded networks: what happens on CUDA, with recordings that are run anew on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskfix.model import graphs
from maskfix.model.graphs import WORTHWHILE, Record, Recorded, power_of_two
from maskfix.model.inference import prepare
from maskfix.model.registry import NETWORKS, build_network
from maskfix.predictor import Predictor

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def run_anew(run: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
    """A recording without CUDA: the function itself, its result at one place."""
    result = run()
    return lambda: result.copy_(run()), result


def inputs(batch: int, slots: int, side: int = 64) -> tuple[Tensor, Tensor]:
    """Noise with ``slots`` clicks of either sign, some of them unused."""
    image = torch.rand(batch, 4, side, side)
    points = torch.randint(0, side, (batch, 2 * slots, 3)).float()
    points[torch.rand(batch, 2 * slots) < 0.3] = -1
    return image, points


def logits_of(network: torch.nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda image, points: network(image, points)["instances"]


@torch.inference_mode()
def check(device: str, record: Record | None, tolerance: float) -> Recorded:
    """Sizes that mix, each often enough: all answers as without recordings."""
    torch.manual_seed(0)
    run = logits_of(prepare(build_network("lite").eval().to(device)))
    recorded = Recorded(run, 4, record)
    sizes = [(4, 1), (3, 2), (1, 1), (4, 2), (3, 1), (2, 3), (4, 1), (4, 4), (3, 1), (4, 1), (3, 2)]
    answers = []
    for batch, slots in sizes * 2:
        image, points = (tensor.to(device) for tensor in inputs(batch, slots))
        answers.append((recorded(image, points), run(image, points)))
    for answer, expected in answers:  # at the end: none may lie where the next one went
        torch.testing.assert_close(answer, expected, rtol=0, atol=tolerance)
    return recorded


def test_recordings_answer_as_the_network() -> None:
    recorded = check("cpu", run_anew, 1e-5)
    kinds = {(size[0], size[-1]) for size in recorded.recordings}
    assert kinds == {(4, 1), (4, 2)}, "3 is filled up to 4; (1, 1), (2, 4), (4, 4) are too rare"


@pytest.mark.gpu
@needs_cuda
def test_cuda_graphs_answer_as_the_network() -> None:
    assert len(check("cuda", None, 2e-2).recordings) == 2


@torch.inference_mode()
def test_a_size_that_cannot_be_recorded_is_tried_once() -> None:
    tried = []

    def fail(run: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        tried.append(run)
        raise RuntimeError("operation not permitted when stream is capturing")

    recorded = Recorded(lambda image, points: image[:, :1] + 1, 4, fail)
    for _ in range(2 * WORTHWHILE):
        image, points = inputs(2, 1)
        assert torch.equal(recorded(image, points), image[:, :1] + 1)
    assert len(tried) == 1 and not recorded.recordings


@torch.inference_mode()
def test_recordings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_BYTES", 1000)  # 5 floats a pixel: 180 + 320 + 500 bytes
    recorded = Recorded(lambda image, points: image[:, :1] + 1, 4, run_anew)
    for side in (3, 4, 5, 6):
        for _ in range(2 * WORTHWHILE):
            image, points = inputs(1, 1, side)
            assert torch.equal(recorded(image, points), image[:, :1] + 1)
    assert [size[-2] for size in recorded.recordings] == [3, 4, 5]
    recorded.stop()
    assert torch.equal(recorded(image, points), image[:, :1] + 1) and not recorded.recordings


@torch.inference_mode()
def test_batches_are_not_filled_up_beyond_the_limit() -> None:
    recorded = Recorded(lambda image, points: image[:, :1] + 1, 6, run_anew)
    for batch in (5, 6, 6, 5, 8, 8, 8, 8):
        image, points = inputs(batch, 1, 8)
        assert torch.equal(recorded(image, points), image[:, :1] + 1)
    assert [size[0] for size in recorded.recordings] == [6]


@pytest.mark.parametrize(
    ("number", "expected"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (16, 16), (17, 32)]
)
def test_powers_of_two(number: int, expected: int) -> None:
    assert power_of_two(number) == expected


class NeedsTheHost(TorchDispatchMode):
    """Notes operations that a recording cannot hold: values are read, or come from Python."""

    BY_VALUE = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)]
        elsewhere = any(tensor.device.type != "meta" and tensor.ndim for tensor in made)
        name = func.overloadpacket.__name__
        if name.startswith(self.BY_VALUE) or elsewhere:
            self.found.add(name)
        return result


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, {}) for name in NETWORKS),
        *((name, {"encoding": "distance"}) for name in NETWORKS if name != "lite"),
    ],
)
@torch.no_grad()
def test_nothing_in_a_network_waits_for_the_device(name: str, arguments: dict[str, str]) -> None:
    """Not in inference mode, which hides operations inside of others."""
    network = prepare(build_network(name, **arguments).eval()).to("meta")
    image, points = (tensor.to("meta") for tensor in inputs(2, 2))
    with NeedsTheHost() as host:
        network(image, points)
    assert host.found == set()


def test_the_check_finds_what_it_looks_for() -> None:
    with NeedsTheHost() as host:
        torch.zeros(2, device="meta").new_tensor([1.0, 2.0])
        torch.tensor([1.0, 2.0]).max().item()
    assert {"lift_fresh", "_local_scalar_dense", "max"} <= host.found


@pytest.mark.gpu
@needs_cuda
def test_a_predictor_on_cuda_records() -> None:
    assert isinstance(Predictor(build_network("lite").eval().cuda()).logits, Recorded)
