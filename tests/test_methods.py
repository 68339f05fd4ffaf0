"""Who takes part in an evaluation."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from test_cli_eval import run
from test_predictor import scene

from maskfix import methods
from maskfix.baselines import BASELINES
from maskfix.baselines.base import Baseline
from maskfix.errors import UsageError
from maskfix.methods import METHODS, contestants, needs_model, parse_method
from maskfix.predictor import PaperProtocol, Session
from maskfix.predictor.session import FloatArray


class Redness(Baseline):
    """Red pixels are object."""

    def __init__(self, file: Path | None = None) -> None:
        super().__init__(PaperProtocol(zoom_target=None, max_size=48))
        self.file = file

    def answer(self, session: Session) -> FloatArray:
        view = session.view()
        assert max(view.image.shape) == 48
        answer: FloatArray = (view.image[0] > view.image[1] + 0.2).float().numpy()
        return answer


class Fake:
    """In place of an `Entry`."""

    title = "red pixels (2020)"
    arguments: ClassVar[dict[str, Any]] = {}

    def __init__(self, needs: str) -> None:
        self.needs = needs

    def constructor(self) -> type[Redness]:
        return Redness


@pytest.fixture
def red(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods more: ``red``, and ``red-file`` with a file of its own."""
    for name, needs in (("red", "nothing"), ("red-file", "file")):
        monkeypatch.setitem(BASELINES, name, Fake(needs))  # type: ignore[misc]
        monkeypatch.setitem(METHODS, name, Fake.title)


@pytest.mark.parametrize("name", BASELINES)
def test_every_entry_has_its_class(name: str) -> None:
    entry = BASELINES[name]
    assert issubclass(entry.constructor(), Baseline) and entry.title == METHODS[name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ritm", ("ritm", None)),
        ("red", ("red", None)),
        ("red-file=a/b=c.onnx", ("red-file", Path("a/b=c.onnx"))),
        ("magic", "there is no magic; there are: ritm, "),
        ("red=a", "--method: expected red, found 'red=a'"),
        ("ritm=a", "--method: expected ritm, found 'ritm=a'"),
        ("red-file", "--method: expected red-file=PATH, found 'red-file'"),
        ("red-file=", "--method: expected red-file=PATH, found 'red-file='"),
    ],
)
def test_methods_as_they_are_written(red: None, text: str, expected: Any) -> None:
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            parse_method(text)
    else:
        assert parse_method(text) == expected


def test_who_takes_part(red: None) -> None:
    wanted = ["red", "ritm", "red-file=x/sam.onnx", "f-brs-b"]
    models: Any = ["first", "second"]
    found = [(c.model, c.method, c.file) for c in contestants(wanted, models)]
    assert found == [
        ("first", "ritm", None),
        ("first", "f-brs-b", None),
        ("second", "ritm", None),
        ("second", "f-brs-b", None),
        (None, "red", None),
        (None, "red-file", Path("x/sam.onnx")),
    ]
    assert [c.model_name for c in contestants(wanted, [])] == [methods.NO_MODEL, "sam"]
    assert needs_model(["red", "ritm"]) and not needs_model(["red", "red-file=x"])


def test_methods_without_a_model_load_none(red: None, tmp_path: Path) -> None:
    """They run once, however many models are named; these are not even looked for."""
    (tmp_path / "set/images").mkdir(parents=True)
    (tmp_path / "set/masks").mkdir()
    for i in range(2):
        image, mask = scene(i, 64, 96)
        cv2.imwrite(str(tmp_path / f"set/images/{i}.png"), image[..., ::-1])
        cv2.imwrite(str(tmp_path / f"set/masks/{i}.png"), mask.astype(np.uint8) * 255)
    out = tmp_path / "out"
    text = run(
        "eval", "--model", "there-is-none", "--method", "red", "--method", "red-file=x/own.bin",
        "--dataset", f"s={tmp_path / 'set'}", "--max-clicks", 2, "--strips", 1, "--out", out,
    )  # fmt: skip
    assert "| red |" in text and "| own red-file |" in text
    content = json.loads((out / "noc.json").read_text())
    assert content["models"] == []
    assert content["methods"] == {"red": Fake.title, "red-file": Fake.title}
    assert [(r["model"], r["method"]) for r in content["results"]] == [
        ("-", "red"),
        ("own", "red-file"),
    ]
    assert content["results"][0]["miou@k"][0] > 0.8
    with (out / "instances.csv").open(encoding="utf-8", newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == ["-", "-", "own", "own"]
    assert (out / "strips/s_-_red/01.png").exists()
    assert "s / red: the hardest" in (out / "report.html").read_text()
