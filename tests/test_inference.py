"""Networks made ready for predicting, and predicting side by side."""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskfix.bench.scenes import make_scene
from maskfix.config import Precision
from maskfix.errors import UsageError
from maskfix.masks import Mask, iou
from maskfix.model import device as device_module
from maskfix.model import inference
from maskfix.model.checkpoint import load_model
from maskfix.model.convolution import FixedConv, TrunkConv, has_pointwise_convolution
from maskfix.model.device import check_precision, multiplies_bfloat16
from maskfix.model.inference import InFloat32, PackedConv, halve, one_thread_a_call, pack, prepare
from maskfix.model.registry import build_network
from maskfix.predictor import FastProtocol, Predictor, Session
from maskfix.predictor.fast import FastSession
from maskfix.predictor.session import FloatArray
from maskfix.types import Click

POINTS = torch.tensor([[[20.0, 30.0, 0.0], [-1.0, -1.0, -1.0]]])


@pytest.fixture
def threads() -> object:
    """Two threads for torch, whatever the machine and the environment."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name).eval()


@pytest.mark.parametrize(
    ("name", "keep"),
    [("lite", True), ("hrnet18s", True), ("hrnet18s", False), ("deeplab_r34", False)],
)
@torch.inference_mode()
def test_packed_networks_answer_as_plain_ones(name: str, keep: bool, threads: object) -> None:
    network = build(name)
    packed = pack(prepare(network), keep)
    assert any(isinstance(module, PackedConv) for module in packed.modules())
    assert not any(isinstance(module, PackedConv) for module in network.modules())
    for size in ((64, 96), (96, 64), (64, 96)):
        image = torch.rand(1, 4, *size)
        answer = packed(image.contiguous(memory_format=torch.channels_last), POINTS)["instances"]
        torch.testing.assert_close(answer, network(image, POINTS)["instances"], rtol=0, atol=2e-5)


@torch.inference_mode()
def test_arranged_weights_are_kept_for_few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "MOST_KEPT", 2)
    layer = nn.Conv2d(4, 8, 3, padding=1)
    kept, none = PackedConv(layer, keep=True), PackedConv(layer, keep=False, activation=nn.ReLU)
    for side in (8, 9, 10, 9):
        image = torch.rand(1, 4, side, side)
        torch.testing.assert_close(kept(image), layer(image))
        torch.testing.assert_close(none(image), layer(image).relu())
    assert [shape[3] for shape in kept.packed] == [8, 9]
    assert not none.packed


def test_foreign_networks_are_not_packed() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    assert pack(network, keep=True) is network
    assert type(network[0]) is nn.Conv2d


def test_threads_are_given_back(threads: object) -> None:
    with one_thread_a_call():
        with one_thread_a_call():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def begin(predictor: Predictor, number: int) -> Session:
    """An instance of its own size and shape, with a click on it."""
    rng = np.random.default_rng(number)
    mask = np.zeros((60 + 40 * (number % 3), 90), bool)
    mask[10 : 30 + number, 20:50] = True
    image = rng.integers(0, 255, (*mask.shape, 3)).astype(np.uint8)
    session = predictor.start(image, Mask.from_array(mask))
    session.clicks = [Click(x=60, y=20 + number, positive=True)]
    return session


@pytest.fixture
def predictor(threads: object) -> Predictor:
    return Predictor(build("lite"), "fast", zoom_target=64)


def answers(predictor: Predictor, batches: list[list[int]]) -> list[np.ndarray]:
    found = []
    for numbers in batches:
        sessions = [begin(predictor, number) for number in numbers]
        predictor.step(sessions)
        found += [session.probabilities() for session in sessions]
    return found


def test_answers_depend_neither_on_company_nor_on_threads(predictor: Predictor) -> None:
    together = answers(predictor, [[0, 1, 2, 3, 4]])
    assert torch.get_num_threads() == 2
    alone = answers(predictor, [[0], [1], [2], [3], [4]])
    torch.set_num_threads(1)
    one_thread = answers(Predictor(build("lite"), "fast", zoom_target=64), [[0, 1], [2, 3, 4]])
    for a, b, c in zip(together, alone, one_thread, strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, c)


def test_batches_answer_as_single_calls(predictor: Predictor) -> None:
    """What happens on a GPU, on the CPU."""
    expected = answers(predictor, [[0, 1, 2, 3, 4]])
    predictor.in_batches, predictor.batch_size = True, 2
    for a, b in zip(expected, answers(predictor, [[0, 1, 2, 3, 4]]), strict=True):
        assert np.abs(a - b).max() < 1e-4


class Greedy(nn.Module):
    """Has memory for one image, and cannot do bright ones."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, image: Tensor, points: Tensor) -> dict[str, Tensor]:
        self.calls.append(len(image))
        if len(image) > 1:
            raise torch.OutOfMemoryError("full")
        if image[:, :3].mean() > 0.9:
            raise ValueError("too bright")
        return {"instances": image[:, :1]}


def test_batches_shrink_when_memory_is_full_and_failures_stay_alone() -> None:
    network = Greedy()
    predictor = Predictor(network, "fast", flip=False, batch_size=4)
    predictor.in_batches = True
    sessions = [begin(predictor, 3 * number) for number in range(4)]
    sessions[2].image[:] = 255  # type: ignore[attr-defined]
    failures: dict[Session, str] = {}
    predictor.step(sessions, failures)
    assert failures == {sessions[2]: "ValueError: too bright"}
    assert network.calls == [4, 2, 1, 1, 2, 1, 1]
    assert predictor.batch_size == 1
    with pytest.raises(ValueError, match="too bright"):
        predictor.step(sessions)


class Slow(FastSession):
    """Takes an answer late, or not at all."""

    taken = 0

    def accept(self, probabilities: FloatArray) -> bool:
        if not self.clicks:
            raise ValueError("no")
        time.sleep(0.2)
        self.taken += 1
        return False


def test_nothing_goes_on_after_an_error() -> None:
    predictor = Predictor(Greedy(), "fast", flip=False, batch_size=1)
    predictor.in_batches = True
    assert isinstance(predictor.protocol, FastProtocol)
    image = np.zeros((64, 64, 3), np.uint8)
    sessions = [Slow(predictor.protocol, image, None) for _ in range(20)]
    for session in sessions[1:]:
        session.clicks = [Click(x=30, y=30, positive=True)]
    with pytest.raises(ValueError, match="no"):
        predictor.step(sessions)
    taken = [session.taken for session in sessions]
    assert taken == [0, *[1] * 7, *[0] * 12], "eight are in flight"
    time.sleep(0.3)
    assert taken == [session.taken for session in sessions]


def halved(device: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Probabilities of the shipped weights in float32, and in bfloat16 on a device."""
    model = load_model("lite")
    plain = Predictor(model, zoom_target=64)
    network = model.network.to(device)
    half = Predictor(replace(model, network=network, precision="bfloat16"), zoom_target=64)
    return answers(plain, [[0], [1]]), answers(half, [[0], [1]])


def check_halved(plain: list[np.ndarray], half: list[np.ndarray]) -> None:
    for one, other in zip(plain, half, strict=True):
        assert 0 < np.abs(one - other).mean() < 0.005


def test_bfloat16_answers_nearly_as_float32() -> None:
    check_halved(*halved("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bfloat16_on_cuda() -> None:
    check_halved(*halved("cuda"))


def test_bfloat16_leaves_what_is_near_the_input() -> None:
    network = halve(prepare(build("lite")))
    kinds = {name: p.dtype for name, p in network.state_dict().items() if name.endswith("weight")}
    assert isinstance(network.get_submodule("encoder.blocks.1"), InFloat32)
    assert kinds["encoder.stem.layer.weight"] == torch.float32
    assert kinds["encoder.blocks.1.layer.depthwise.weight"] == torch.float32
    for name in ("encoder.blocks.2.expand", "encoder.blocks.11.project", "head", "attention.0.qkv"):
        assert kinds[f"{name}.weight"] == torch.bfloat16
    plain = halve(prepare(build("hrnet18s")))  # names nothing
    assert not any(isinstance(module, InFloat32) for module in plain.modules())


def test_bfloat16_masks_are_those_of_float32() -> None:
    """At the size that is used, from damaged masks to better ones; emulated where it must be."""
    model = load_model("lite")
    plain, half = Predictor(model), Predictor(replace(model, precision="bfloat16"))
    found = []
    for number in range(2):
        scene = make_scene(number)
        masks = []
        for predictor in (plain, half):
            session = predictor.start(scene.image, scene.damaged[number])
            session.clicks = [scene.clicks[number]]
            predictor.step([session])
            masks.append(session.mask())
        assert masks[0] != scene.damaged[number]
        found.append(iou(*masks))
    assert min(found) > 0.998


@pytest.mark.parametrize(("has_it", "packed"), [(True, torch.bfloat16), (False, torch.float32)])
def test_halved_layers_are_packed_where_the_processor_has_the_numbers(
    has_it: bool, packed: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        inference, "has_pointwise_convolution", lambda dtype: has_it or dtype == torch.float32
    )
    network = pack(halve(prepare(build("lite"))), keep=True)
    layer = network.get_submodule("encoder.blocks.2.expand")
    assert isinstance(layer, PackedConv) == has_it
    near_input = network.get_submodule("encoder.stem").layer
    assert isinstance(near_input, PackedConv) and near_input.weight.dtype == torch.float32
    kinds = {m.weight.dtype for m in network.modules() if isinstance(m, PackedConv)}
    assert kinds == {torch.float32, packed}


def test_numbers_are_tried_out_before_a_layer_is_packed_for_them() -> None:
    assert has_pointwise_convolution(torch.bfloat16) or not multiplies_bfloat16()
    assert not has_pointwise_convolution(torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_packed_layers_compute_with_their_own_numbers(dtype: torch.dtype) -> None:
    if not has_pointwise_convolution(dtype):
        pytest.skip(f"the processor, or this torch, has no convolution of {dtype}")
    layer = FixedConv(TrunkConv(8, 16))
    packed = PackedConv(copy.deepcopy(layer).to(dtype), keep=True)
    x = torch.rand(1, 8, 8, 8)
    assert packed(x).dtype == dtype
    torch.testing.assert_close(packed(x).float(), layer(x), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("precision", "device", "has_it", "refused"),
    [
        ("float32", "cpu", False, False),
        ("bfloat16", "cpu", True, False),
        ("bfloat16", "cpu", False, True),
        ("bfloat16", "cuda", False, False),
    ],
)
def test_numbers_that_a_processor_can_only_imitate_are_refused(
    precision: Precision,
    device: str,
    has_it: bool,
    refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_module, "multiplies_bfloat16", lambda: has_it)
    with (
        pytest.raises(UsageError, match="--precision bfloat16: this processor does not have it")
        if refused
        else nullcontext()
    ):
        check_precision(precision, torch.device(device))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_answers_as_the_cpu(predictor: Predictor) -> None:
    expected = answers(predictor, [[0, 1, 2, 3, 4]])
    on_device = Predictor(build("lite").cuda(), "fast", zoom_target=64, batch_size=4)
    for a, b in zip(expected, answers(on_device, [[0, 1, 2, 3, 4]]), strict=True):
        assert np.abs(a - b).max() < 2e-3
