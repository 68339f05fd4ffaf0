"""Who takes part in an evaluation: models with a method each, and methods that need no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskfix.baselines import BASELINES
from maskfix.errors import UsageError
from maskfix.model.checkpoint import Model
from maskfix.model.registry import Protocol
from maskfix.predictor import FastProtocol, PaperProtocol, Predictor
from maskfix.predictor.drive import ClickMethod

METHODS: dict[str, str] = {
    "ritm": "the paper's: every click is answered by one feed-forward pass",
    **{name: entry.title for name, entry in BASELINES.items()},
}
"""How clicks are answered: name -> title."""

NO_MODEL = "-"  # in place of a model's name


@dataclass(frozen=True)
class Contestant:
    """What answers clicks; on a set, it is a row of the table.

    Attributes:
        method: of `METHODS`.
        model: one of ours, for methods that run on one.
        file: for methods that come with files of their own.
    """

    method: str
    model: Model | None = None
    file: Path | None = None

    @property
    def model_name(self) -> str:
        """As results name it: the model's name, the file's, or ``-``."""
        if self.model is not None:
            return self.model.name
        return NO_MODEL if self.file is None else self.file.stem

    def make(self, protocol: Protocol | None, paper_zoom: int, batch_size: int) -> ClickMethod:
        """Get ready to answer clicks.

        Args:
            protocol: paper, fast, or None for the model's own; methods without a model have one
                of their own.
            paper_zoom: zoom target of the paper's protocol on the set.
            batch_size: most network inputs in one call.

        Raises:
            InputError, UsageError: the method cannot run: files or packages are missing, or the
                model is of a kind that it does not work on.
        """
        if self.model is None:
            given = () if self.file is None else (self.file,)
            entry = BASELINES[self.method]
            made: ClickMethod = entry.constructor()(*given, **entry.arguments)
            return made
        shown = FastProtocol() if (protocol or self.model.protocol) == "fast" else PaperProtocol()
        if isinstance(shown, PaperProtocol):
            shown = PaperProtocol(zoom_target=paper_zoom)
        if self.method == "ritm":
            return Predictor(self.model, shown, batch_size=batch_size)
        entry = BASELINES[self.method]
        made = entry.constructor()(self.model, shown, **entry.arguments)
        return made


def parse_method(text: str) -> tuple[str, Path | None]:
    """``NAME`` or ``NAME=PATH`` as a method and its file.

    Raises:
        UsageError: there is no such method, or a path is missing or too much.
    """
    name, found, path = text.partition("=")
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise UsageError(f"--method: there is no {name}; there are: {known}")
    if (_needs(name) == "file") != bool(path):
        expected = f"{name}=PATH" if _needs(name) == "file" else name
        raise UsageError(f"--method: expected {expected}, found {text!r}")
    return name, Path(path) if found else None


def needs_model(methods: Iterable[str]) -> bool:
    """Whether any of these, as `parse_method` reads them, runs on a model of ours."""
    return any(_needs(parse_method(text)[0]) == "model" for text in methods)


def contestants(methods: Sequence[str], models: Sequence[Model]) -> list[Contestant]:
    """Every model with every method that runs on one, then the other methods, once each."""
    parsed = [parse_method(text) for text in methods]
    with_model = [
        Contestant(name, model) for model in models for name, _ in parsed if _needs(name) == "model"
    ]
    alone = [Contestant(name, None, file) for name, file in parsed if _needs(name) != "model"]
    return with_model + alone


def _needs(name: str) -> str:
    return BASELINES[name].needs if name in BASELINES else "model"
