"""The training loop: set up, run, step, validate, save; reads from top to bottom."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from maskfix.clicks import training_click
from maskfix.errors import InputError, MaskfixError, UsageError
from maskfix.files import atomic_stream
from maskfix.model.checkpoint import save_weights
from maskfix.model.network import ClickNetwork
from maskfix.train.config import OptimizerConfig, TrainConfig
from maskfix.train.losses import AdaptiveIoU, cross_entropy, focal_loss, soft_iou_loss
from maskfix.train.samples import Batch, BatchSource

Validate = Callable[[ClickNetwork], dict[str, float]]
"""Scores a network: names to numbers, ``score`` the one to be small."""


class TrainingError(MaskfixError):
    """Training cannot go on, for instance because the loss is no longer a number."""

    exit_code = 1


@dataclass
class Progress:
    """Where a run stands; saved and restored with it."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0  # optimizer steps
    samples: int = 0
    seconds: float = 0.0
    best: float = math.inf
    metric: dict[str, float] = field(default_factory=dict)


class Trainer:
    """One training run.

    Args:
        config: what to train.
        network: the network to train, on `device`.
        source: the run's batches.
        out: folder for checkpoints and logs.
        validate: called now and then with the network that would be shipped.
        device: where to train.
        workers: processes that make batches; 0 makes them in this one.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: ClickNetwork,
        source: BatchSource,
        out: Path,
        validate: Validate,
        device: torch.device,
        workers: int = 1,
    ) -> None:
        self.config, self.source, self.out, self.validate = config, source, out, validate
        self.device, self.workers = device, workers
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.network = network.to(device, memory_format=layout)
        self.optimizer = make_optimizer(network, config.optimizer)
        self.average = Average(network, config.optimizer.ema)
        self.progress = Progress()
        self.meter = AdaptiveIoU()
        self.losses: list[float] = []
        self._stop = False

    def run(self, max_minutes: float = math.inf) -> None:
        """Train until the recipe's end, a signal, or the time limit; then validate and save."""
        self.out.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        began = last_validation = last_save = time.monotonic()
        already = self.progress.seconds
        with tqdm(total=self._total(), initial=self.progress.samples, unit=" samples",
                  disable=None, smoothing=0.02) as bar:  # fmt: skip
            for batch in self._batches():
                self._train_batch(batch)
                bar.update(self.config.batch_size)
                bar.set_postfix(loss=f"{self.losses[-1]:.3f}", iou=f"{self.meter.value:.3f}")
                now = time.monotonic()
                self.progress.seconds = already + now - began
                if now - last_validation > 60 * self.config.validate_minutes:
                    self._validate()
                    last_validation = last_save = time.monotonic()
                elif now - last_save > 300:
                    self.save()
                    last_save = now
                if self._stop or now - began > 60 * max_minutes:
                    break
        if not self._stop:
            self._validate()
        self.save()

    def _batches(self) -> Iterator[Batch]:
        """Batches from where the run stands, to its end."""
        remaining = [
            (epoch, batch)
            for epoch in range(self.progress.epoch, self.config.epochs)
            for batch in range(self.source.batches)
            if epoch > self.progress.epoch or batch >= self.progress.batch
        ]
        loader: DataLoader[Batch] = DataLoader(
            self.source,
            batch_size=None,
            sampler=remaining,  # type: ignore[arg-type]
            num_workers=self.workers,
            prefetch_factor=3 if self.workers else None,
            worker_init_fn=_one_thread,
        )
        for (epoch, index), batch in zip(remaining, loader, strict=True):
            self.progress.epoch, self.progress.batch = epoch, index
            yield batch

    def _train_batch(self, batch: Batch) -> None:
        """One batch: clicks on the network's own errors, and a lesson from the last or from all."""
        config, place = self.config, self.progress
        rng = np.random.default_rng([config.seed, place.epoch, place.batch, 2])
        image, target = batch.image.to(self.device), batch.target.to(self.device)
        mask, points = batch.mask.clone(), batch.points.clone()
        reference = batch.target.numpy()[:, 0] > 0.5
        add_clicks(points, reference, mask, 0, rng, only=batch.awaits_click.numpy())
        iterations = int(rng.integers(config.clicks.iterations + 1))
        for iteration in range(iterations + 1):
            if config.clicks.learn_each or iteration == iterations:
                logits = self._learn(image, mask, points, target)
            else:
                logits = self._predict(image, mask, points)
            if iteration < iterations:
                mask = logits.sigmoid().float().cpu()
                add_clicks(points, reference, mask, iteration + 1, rng)
        place.batch += 1
        place.samples += config.batch_size

    def _learn(self, image: Tensor, mask: Tensor, points: Tensor, target: Tensor) -> Tensor:
        """A forward and a backward pass, and a step where enough gradients are gathered."""
        self.network.train()
        with self._autocast():
            output = self.network(self._input(image, mask), points.to(self.device))
        output = {name: logits.float() for name, logits in output.items()}
        losses = compute_losses(output, target, self.config)
        loss = torch.stack(list(losses.values())).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} in epoch {self.progress.epoch}, batch {self.progress.batch}: "
                "lower optimizer.lr, set optimizer.clip_norm, or train without amp"
            )
        every = self.config.optimizer.accumulate
        (loss / every).backward()  # type: ignore[no-untyped-call]
        self.progress.step += 1
        if self.progress.step % every == 0:
            self._step(self.progress.step // every)
        self.losses.append(value)
        self.meter.update(output["instances"], target)
        return output["instances"].detach()

    def _step(self, number: int) -> None:
        settings = self.config.optimizer
        factor = rate_factor(settings, number, self.progress.epoch, self._fraction())
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * group["factor"] * factor
        if settings.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.network, number)

    @torch.no_grad()
    def _predict(self, image: Tensor, mask: Tensor, points: Tensor) -> Tensor:
        self.network.eval()
        with self._autocast():
            logits: Tensor = self.network(self._input(image, mask), points.to(self.device))[
                "instances"
            ]
        return logits

    def _input(self, image: Tensor, mask: Tensor) -> Tensor:
        if not self.network.with_prev_mask:
            return image
        joined = torch.cat([image, mask.to(self.device)], dim=1)
        if self.config.channels_last:
            joined = joined.contiguous(memory_format=torch.channels_last)
        return joined

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp)

    def _total(self) -> int:
        return self.config.epochs * self.source.batches * self.config.batch_size

    def _fraction(self) -> float:
        return self.progress.samples / self._total()

    def _validate(self) -> None:
        """Score the averaged weights, log the scores, keep the best."""
        network = self.average.shipped(self.network)
        scores = self.validate(network)
        self.progress.metric = scores
        self._log(scores)
        if scores["score"] < self.progress.best:
            self.progress.best = scores["score"]
            self.export(self.out / "best.safetensors", network)
        self.save()

    def _log(self, scores: dict[str, float]) -> None:
        """One line a validation in log.csv."""
        place = self.progress
        recent = self.losses[-200:]
        row = {
            "samples": place.samples,
            "minutes": round(place.seconds / 60, 2),
            "loss": round(float(np.mean(recent)), 5) if recent else math.nan,
            "train_iou": round(self.meter.value, 4),
            **{name: round(value, 4) for name, value in scores.items()},
        }
        path = self.out / "log.csv"
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        tqdm.write(json.dumps(row))

    def export(self, path: Path, network: ClickNetwork) -> None:
        """Write a weights file that `maskfix.load_model` reads."""
        place = self.progress
        info = {
            "trained": True,
            "samples": place.samples,
            "seconds": round(place.seconds),
            "data": [spec.name for spec in self.config.data],
            "scores": {name: round(value, 4) for name, value in place.metric.items()},
        }
        recipe = self.config.network
        save_weights(path, recipe.name, recipe.arguments, network.state_dict(), info)

    def save(self) -> None:
        """Write ``last.pt``, from which the run goes on as if it had not stopped."""
        state = {
            "config": msgspec.to_builtins(self.config),
            "network": self.network.state_dict(),
            "average": self.average.weights,
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
            "meter": vars(self.meter),
        }
        with atomic_stream(self.out / "last.pt") as file:
            torch.save(state, file)

    def resume(self) -> None:
        """Go on from ``last.pt``.

        Raises:
            InputError: there is none, or it is of another network.
        """
        path = self.out / "last.pt"
        if not path.exists():
            raise InputError(f"nothing to resume: {path} does not exist; leave out --resume")
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.device)
        stored = state["config"]["network"]
        if stored != msgspec.to_builtins(self.config.network):
            raise UsageError(f"{path} holds a run of {stored}, the recipe asks for another network")
        self.network.load_state_dict(state["network"])
        self.average.weights = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.meter.__dict__.update(state["meter"])

    def _on_signal(self, number: int, frame: object) -> None:
        self._stop = True


class Average:
    """Running average of a network's weights and statistics.

    Args:
        network: what to average.
        decay: weight of the past; starts smaller and rises to this. 0 keeps no average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items() if decay}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if not self.decay:
                continue
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)

    def shipped(self, network: ClickNetwork) -> ClickNetwork:
        """A copy of the network with the averaged weights, in eval mode."""
        import copy

        clone = copy.deepcopy(network)
        if self.decay:
            clone.load_state_dict(self.weights)
        return clone.eval()


def make_optimizer(network: ClickNetwork, settings: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam with the trunk's learning rate lowered; decay only where weights are multiplied."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
            factor = settings.trunk if name.startswith(network.backbone_prefixes) else 1.0
            groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": params, "factor": factor, "weight_decay": decay}
            for (factor, decay), params in groups.items()
        ],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
    )


def rate_factor(settings: OptimizerConfig, step: int, epoch: int, fraction: float) -> float:
    """The learning rate relative to its peak, after `step` steps at `fraction` of the run."""
    factor = min(1.0, step / settings.warmup) if settings.warmup else 1.0
    factor *= 0.1 ** sum(epoch >= milestone for milestone in settings.milestones)
    if settings.cosine:
        factor *= 0.01 + 0.99 * (1 + math.cos(math.pi * fraction)) / 2
    return factor


def compute_losses(
    output: dict[str, Tensor], target: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    """The recipe's losses, averaged over samples, weighted."""
    settings, logits = config.loss, output["instances"]
    if settings.instances == "bce":
        main = cross_entropy(logits, target)
    elif settings.instances == "soft_iou":
        main = soft_iou_loss(logits, target)
    else:
        normalized = settings.instances == "nfl"
        main = focal_loss(logits, target, settings.alpha, settings.gamma, normalized)
    losses = {"instances": main.mean()}
    if settings.auxiliary and "instances_aux" in output:
        auxiliary = cross_entropy(output["instances_aux"], target).mean()
        losses["auxiliary"] = settings.auxiliary * auxiliary
    return losses


def add_clicks(
    points: Tensor,
    reference: np.ndarray[Any, np.dtype[np.bool_]],
    mask: Tensor,
    iteration: int,
    rng: np.random.Generator,
    only: np.ndarray[Any, np.dtype[np.bool_]] | None = None,
) -> None:
    """Give every sample one click on its worst error (paper, section 3.2), in place.

    As in the published code, click i takes the place of the i-th last random click.

    Args:
        points: (B, 2N, 3), changed in place.
        reference: (B, h, w) bool.
        mask: (B, 1, h, w) probabilities that the clicks correct.
        iteration: 0 for a click before the first prediction, then 1, 2, ...
        only: (B,) bool, the samples that get one; all if None.
    """
    slots = points.shape[1] // 2
    index = max(iteration, 1)
    for b, probabilities in enumerate(mask[:, 0].numpy()):
        if only is not None and not only[b]:
            continue
        click = training_click(reference[b], probabilities, rng)
        if click is not None:
            slot = (slots if click.positive else 2 * slots) - index
            if iteration == 0:
                slot = 0 if click.positive else slots
            points[b, slot] = torch.tensor([click.y, click.x, index])


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(2)
