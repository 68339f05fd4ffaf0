"""What the parts of a click take, with pytest-benchmark:

    pytest tests/bench/bench_parts.py --benchmark-columns=min,median,rounds --benchmark-sort=name

One thread a call, as in a run on the CPU. `maskfix bench` measures the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from maskfix import rle
from maskfix.bench.scenes import make_scene
from maskfix.clicks import SimulatedUser
from maskfix.formats.image import read_image
from maskfix.masks import Mask, boundary_iou
from maskfix.model.checkpoint import load_model
from maskfix.model.inference import one_thread_a_call, pack, prepare
from maskfix.model.registry import build_network
from maskfix.predictor import FastProtocol, PaperProtocol, Session
from maskfix.refinement.guard import refusal

pytestmark = pytest.mark.bench
SCENE = make_scene(0)
START, CLICK = SCENE.damaged[0], SCENE.clicks[0]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with one_thread_a_call(), torch.inference_mode():
        yield


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return load_model("lite").network if name == "lite" else build_network(name).eval()


def begin(protocol: FastProtocol | PaperProtocol) -> Session:
    session = protocol.start(SCENE.image, START)
    session.clicks.append(CLICK)
    return session


@pytest.mark.parametrize("form", ["plain", "folded", "packed"])
@pytest.mark.parametrize(("name", "size"), [("lite", 256), ("hrnet18s", 400)])
def test_network(benchmark: BenchmarkFixture, name: str, size: int, form: str) -> None:
    module = network(name)
    image, points = torch.rand(1, 4, size, size), torch.full((1, 2, 3), -1.0)
    points[:, 0] = size / 2
    if form != "plain":
        module = prepare(module)
        image = image.contiguous(memory_format=torch.channels_last)
    if form == "packed":
        module = pack(module, keep=name == "lite")
    benchmark(module, image, points)


@pytest.mark.parametrize("protocol", [FastProtocol(), PaperProtocol(skip_clicks=0)], ids=type)
def test_view(benchmark: BenchmarkFixture, protocol: FastProtocol | PaperProtocol) -> None:
    benchmark(lambda: begin(protocol).view())


@pytest.mark.parametrize("protocol", [FastProtocol(), PaperProtocol(skip_clicks=0)], ids=type)
def test_accept(benchmark: BenchmarkFixture, protocol: FastProtocol | PaperProtocol) -> None:
    def ready() -> tuple[tuple[Session, np.ndarray], dict[str, object]]:
        session = begin(protocol)
        view = session.view()
        return (session, view.mask[0].numpy()), {}

    benchmark.pedantic(lambda session, answer: session.accept(answer), setup=ready, rounds=50)


def test_simulated_user(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: SimulatedUser(SCENE.objects[0]).next_click(START))


def test_boundary_iou(benchmark: BenchmarkFixture) -> None:
    benchmark(boundary_iou, START, SCENE.objects[0])


def test_guard(benchmark: BenchmarkFixture) -> None:
    benchmark(refusal, START, SCENE.objects[0], [CLICK], "normal")


def test_rle_to_text(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: rle.text_from_counts(rle.counts_from_mask(START)))


def test_rle_from_text(benchmark: BenchmarkFixture) -> None:
    text = rle.text_from_counts(rle.counts_from_mask(START))

    def decode() -> Mask:
        return rle.mask_from_counts(rle.counts_from_text(text), START.height, START.width)

    benchmark(decode)


def test_read_jpeg(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), SCENE.image)
    benchmark(read_image, tmp_path / "a.jpg", None)
