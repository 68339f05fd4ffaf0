"""The training loop: set up, run, learn, step, validate, save; reads from top to bottom."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from maskfix.errors import InputError, MaskfixError, UsageError
from maskfix.files import atomic_stream
from maskfix.model.checkpoint import save_weights
from maskfix.model.network import ClickNetwork
from maskfix.model.weight_files import load_strictly
from maskfix.train.config import TrainConfig
from maskfix.train.distributed import Group
from maskfix.train.halves import Halves
from maskfix.train.lesson import add_clicks, add_first_clicks, compute_losses
from maskfix.train.logs import RunLog
from maskfix.train.losses import AdaptiveIoU
from maskfix.train.optimize import Average, make_optimizer, rate_factor
from maskfix.train.samples import Batch, BatchSource
from maskfix.train.stopping import stop_on_signal

Validate = Callable[[ClickNetwork], dict[str, float]]
"""Scores a network: names to numbers, ``score`` the one to be small."""

SAVE_SECONDS = 300.0
_SHOWN_BROKEN = 20
_GRACE_SECONDS = 30


class TrainingError(MaskfixError):
    """Training cannot go on, for instance because the loss is no longer a number."""

    exit_code = 1


@dataclass
class Progress:
    """Where a run stands; saved and restored with it."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0  # lessons: forward and backward passes
    samples: int = 0
    seconds: float = 0.0
    best: float = math.inf
    metric: dict[str, float] = field(default_factory=dict)
    recent: list[float] = field(default_factory=list)  # losses since the log's last line
    broken: int = 0  # samples passed over because they could not be read


class Trainer:
    """One training run.

    Args:
        config: what to train.
        network: the network to train.
        source: the run's batches.
        out: folder for checkpoints and logs.
        validate: called now and then with the network that would be shipped; None for never.
        device: where to train.
        workers: processes that make batches; 0 makes them in this one.
        group: the processes that train together.

    Attributes:
        validates_first: score the network before the first lesson too, as fine-tuning wants it: the
            best weights are then never worse than those it began with.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: ClickNetwork,
        source: BatchSource,
        out: Path,
        validate: Validate | None,
        device: torch.device,
        workers: int = 1,
        group: Group | None = None,
    ) -> None:
        self.config, self.source, self.out, self.validate = config, source, out, validate
        self.device, self.workers, self.group = device, workers, group or Group()
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.network = network.to(device)
        _lay_out(network, self.layout)
        self.halves = Halves(device)
        self.optimizer = make_optimizer(network, config.optimizer)
        self.average = Average(network, config.optimizer.ema)
        self.progress = Progress()
        self.meter = AdaptiveIoU()
        self.log: RunLog | None = None
        self.validates_first = False
        self._validated = -1  # samples at the last validation
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        # Statistics of the whole batch, and random numbers drawn in order.
        self._wants_whole = [*self._norms, *(m for m in network.modules() if _draws(m))]

    def run(self, max_minutes: float = math.inf) -> None:
        """Train until the recipe's end, a signal, or the time limit; then validate and save.

        Raises:
            TrainingError: the loss is no longer a number.
            InputError: the data cannot be read.
        """
        place = self.progress
        if self.group.leads:
            self.out.mkdir(parents=True, exist_ok=True)
            self.log = RunLog(self.out, place.samples)
        if self.validates_first and not place.samples:
            self._validate()
        began = last_validation = last_save = time.monotonic()
        already = place.seconds
        with stop_on_signal() as stop, self._bar() as bar:
            for batch in self._batches():
                value = self._train_batch(batch)
                self._note_broken(batch)
                bar.update(self.config.batch_size)
                bar.set_postfix(loss=f"{value:.3f}", iou=f"{self.meter.value:.3f}")
                now = time.monotonic()
                place.seconds = already + now - began
                if now - last_validation > 60 * self.config.validate_minutes:
                    self._validate()
                    self.save()
                    last_validation = last_save = time.monotonic()
                elif now - last_save > SAVE_SECONDS:
                    self.save()
                    last_save = now
                if self._agree(stop.requested or now - began > 60 * max_minutes):
                    break
            if not stop.requested:
                self._validate()
            self.save()

    def _bar(self) -> tqdm[Any]:
        """Progress, samples per second, time left."""
        return tqdm(
            total=self._total(),
            initial=self.progress.samples,
            unit=" samples",
            smoothing=0.02,
            disable=None if self.group.leads else True,
        )

    def _batches(self) -> Iterator[Batch]:
        """Batches from where the run stands, to its end."""
        place = self.progress
        remaining = [
            (epoch, batch)
            for epoch in range(place.epoch, self.config.epochs)
            for batch in range(self.source.batches)
            if epoch > place.epoch or batch >= place.batch
        ]
        loader: DataLoader[Batch] = DataLoader(
            self.source,
            batch_size=None,
            sampler=remaining,
            num_workers=self.workers,
            prefetch_factor=3 if self.workers else None,
            worker_init_fn=_quiet_worker,
        )
        batches = iter(loader)
        for place.epoch, place.batch in remaining:
            try:
                batch = next(batches)
            except MaskfixError as error:  # a worker's comes with its traceback
                raise InputError(str(error).strip().rpartition("Error: ")[2]) from error
            yield batch

    def _train_batch(self, batch: Batch) -> float:
        """One batch: clicks on the network's own errors, and a lesson from the last or from all.

        Returns:
            the last lesson's loss.
        """
        config, place = self.config, self.progress
        seeds = [config.seed, place.epoch, place.batch]
        torch.manual_seed(
            int(np.random.SeedSequence([*seeds, self.group.rank]).generate_state(1)[0])
        )
        generators = [
            np.random.default_rng([config.seed, place.epoch, batch.first + i, 2])
            for i in range(len(batch.image))
        ]
        iterations = int(np.random.default_rng([*seeds, 2]).integers(config.clicks.iterations + 1))
        image = batch.image.to(self.device).float().div_(255)
        target = batch.target.to(self.device).float()
        reference = batch.target.numpy()[:, 0] == 1
        mask, points = batch.mask.float(), batch.points.clone()
        awaits = batch.awaits_click.numpy()
        add_first_clicks(points, reference, mask, config.start.several, generators, awaits)
        value = math.nan
        for iteration in range(iterations + 1):
            joined = self._input(image, mask)
            if config.clicks.learn_each or iteration == iterations:
                logits, value = self._learn(joined, points, target)
            else:
                logits = self._predict(joined, points)
            if iteration < iterations:
                mask = logits.sigmoid().float().cpu()
                add_clicks(points, reference, mask, iteration + 1, generators)
        place.batch += 1
        place.samples += config.batch_size
        return value

    def _learn(self, image: Tensor, points: Tensor, target: Tensor) -> tuple[Tensor, float]:
        """A forward and a backward pass, and a step where enough gradients are gathered."""
        self.network.train()
        if self.config.optimizer.freeze_norm:
            for norm in self._norms:
                norm.eval()
        learn = partial(self._learn_part, image, points, target)
        apart = not any(layer.training for layer in self._wants_whole)
        done = self.halves.map(learn, len(target)) if apart else [learn(slice(None))]
        (value,) = self.group.mean([sum(loss for _, loss, _ in done)])
        place = self.progress
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} in epoch {place.epoch}, batch {place.batch}: lower "
                "optimizer.lr, set optimizer.clip_norm, or train without amp; the last good state "
                f"is {self.out / 'last.pt'}"
            )
        for _, _, gradients in done:
            self._add(gradients)
        place.step += 1
        every = self.config.optimizer.accumulate
        if place.step % every == 0:
            self._step(place.step // every)
        logits = torch.cat([part for part, _, _ in done])
        self.meter.update(logits, target)
        place.recent.append(value)
        if len(place.recent) >= self.config.log_steps:
            self._log_loss()
        return logits, value

    def _learn_part(
        self, image: Tensor, points: Tensor, target: Tensor, rows: slice
    ) -> tuple[Tensor, float, Sequence[Tensor | None]]:
        """Logits, share of the loss, and gradients of some rows of a batch."""
        with self._autocast():
            output = self.network(image[rows], points[rows].to(self.device))
        output = {name: logits.float() for name, logits in output.items()}
        losses = compute_losses(output, target[rows], self.config)
        share = len(target[rows]) / len(target)
        loss = share * torch.stack(list(losses.values())).sum()
        every = self.config.optimizer.accumulate
        gradients = torch.autograd.grad(loss / every, self._parameters, allow_unused=True)
        return output["instances"].detach(), float(loss.detach()), gradients

    def _add(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None:
                held = parameter.grad
                parameter.grad = gradient if held is None else held.add_(gradient)

    def _step(self, number: int) -> None:
        settings, place = self.config.optimizer, self.progress
        epoch = place.epoch + place.batch / self.source.batches
        factor = rate_factor(settings, number, epoch, place.samples / self._total())
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * group["factor"] * factor
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        statistics = [b for b in self.network.buffers() if b.is_floating_point()]
        self.group.average([*gradients, *statistics])
        if settings.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.network, number)

    def _predict(self, image: Tensor, points: Tensor) -> Tensor:
        self.network.eval()
        return torch.cat(self.halves.map(partial(self._predict_part, image, points), len(image)))

    @torch.no_grad()
    def _predict_part(self, image: Tensor, points: Tensor, rows: slice) -> Tensor:
        with self._autocast():
            output = self.network(image[rows], points[rows].to(self.device))
        logits: Tensor = output["instances"]
        return logits

    def _input(self, image: Tensor, mask: Tensor) -> Tensor:
        if self.network.with_prev_mask:
            image = torch.cat([image, mask.to(self.device)], dim=1)
        return image.contiguous(memory_format=self.layout)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp)

    def _total(self) -> int:
        return self.config.epochs * self.source.batches * self.config.batch_size

    def _agree(self, stop: bool) -> bool:
        """Whether any process wants to stop; all must, or the others would wait for it."""
        return self.group.mean([float(stop)])[0] > 0

    def _note_broken(self, batch: Batch) -> None:
        for problem in batch.broken:
            self.progress.broken += 1
            if self.progress.broken <= _SHOWN_BROKEN:
                tqdm.write(f"passed over: {problem}")

    def _log_loss(self) -> None:
        place = self.progress
        row = {
            "samples": float(place.samples),
            "step": float(place.step),
            "loss": float(np.mean(place.recent)),
            "train_iou": self.meter.value,
            "lr": self.optimizer.param_groups[-1]["lr"],
        }
        place.recent.clear()
        if self.log:
            self.log.add_loss(row)

    def _validate(self) -> None:
        """Score the averaged weights, log the scores, keep the best."""
        place = self.progress
        if not self.group.leads or self._validated == place.samples:
            return
        self._validated = place.samples
        network = self.average.shipped(self.network)
        if self.validate is not None:
            place.metric = self.validate(network)
            if place.metric["score"] < place.best:
                place.best = place.metric["score"]
                self.export(self.out / "best.safetensors", network)
            assert self.log is not None
            row = {"samples": float(place.samples), "minutes": round(place.seconds / 60, 2)}
            self.log.add_scores(row | place.metric)
            shown = ", ".join(f"{name} {value:.2f}" for name, value in place.metric.items())
            tqdm.write(f"{place.samples} samples, {place.seconds / 60:.0f} minutes: {shown}")
        self.export(self.out / "last.safetensors", network)

    def export(self, path: Path, network: ClickNetwork) -> None:
        """Write a weights file that `maskfix.load_model` reads."""
        place, recipe = self.progress, self.config.network
        info = {
            "trained": True,
            "samples": place.samples,
            "seconds": round(place.seconds),
            "data": [spec.name for spec in self.config.data],
            "scores": {name: round(value, 4) for name, value in place.metric.items()},
        }
        save_weights(path, recipe.name, recipe.arguments, network.state_dict(), info)

    def save(self) -> None:
        """Write ``last.pt``, from which the run goes on as if it had not stopped."""
        if not self.group.leads:
            return
        gathered = {n: p.grad for n, p in self.network.named_parameters() if p.grad is not None}
        state = {
            "config": msgspec.to_builtins(self.config),
            "network": self.network.state_dict(),
            "average": self.average.weights,
            "optimizer": self.optimizer.state_dict(),
            "gradients": gathered,
            "progress": vars(self.progress),
            "meter": vars(self.meter),
        }
        with atomic_stream(self.out / "last.pt") as file:
            torch.save(state, file)

    def resume(self) -> None:
        """Go on from ``last.pt``.

        Raises:
            InputError: there is none, or it is damaged.
            UsageError: it is of another network.
        """
        path = self.out / "last.pt"
        if not path.exists():
            raise InputError(f"nothing to resume: {path} does not exist; leave out --resume")
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.device)
            stored = state["config"]["network"]
        except Exception as error:  # unpickling raises nearly anything on damaged files
            reason = str(error).split("\n")[0]
            raise InputError(f"{path}: expected a saved run; it is damaged: {reason}") from error
        if stored != msgspec.to_builtins(self.config.network):
            raise UsageError(f"{path} holds a run of {stored}, the recipe asks for another network")
        load_strictly(self.network, state["network"], str(path))
        self.average.weights = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        for name, parameter in self.network.named_parameters():
            parameter.grad = state.get("gradients", {}).get(name)
        for name, value in state["progress"].items():
            setattr(self.progress, name, value)
        if state["config"]["validation"] != msgspec.to_builtins(self.config.validation):
            self.progress.best = math.inf  # of other instances: not to be compared
        self.meter.__dict__.update(state["meter"])


def _draws(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout | nn.Dropout2d)


def _lay_out(network: nn.Module, layout: torch.memory_format) -> None:
    """Bring kernels to a memory layout, in place."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _quiet_worker(worker: int) -> None:
    """Leave the cores to the training process, and signals to it."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Schedulers send SIGTERM to every process of a job; the trainer needs batches until it saved.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS))
    os.nice(2)
