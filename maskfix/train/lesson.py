"""What one batch teaches: the recipe's losses, and clicks on the network's own errors."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskfix.clicks import MASK_THRESHOLD, training_click
from maskfix.train.config import TrainConfig
from maskfix.train.losses import cross_entropy, focal_loss, soft_iou_loss
from maskfix.train.samples import CONTEXT_CLICKS
from maskfix.types import Click

FIRST_CLICKS = 3  # at most, on a mask to start from


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
    reference: NDArray[np.bool_],
    mask: Tensor,
    iteration: int,
    generators: list[np.random.Generator],
) -> None:
    """Give every sample one click on its worst error (paper, section 3.2), in place.

    As in the published code, click i takes the place of the i-th last random click.

    Args:
        points: (B, 2N, 3), changed in place.
        reference: (B, h, w) bool.
        mask: (B, 1, h, w) probabilities that the clicks correct.
        iteration: 1, 2, ...
        generators: one a sample.
    """
    for b, probabilities in enumerate(mask[:, 0].numpy()):
        click = training_click(reference[b], probabilities, generators[b])
        if click is not None:
            _write_click(points[b], click, iteration, iteration)


def add_first_clicks(
    points: Tensor,
    reference: NDArray[np.bool_],
    mask: Tensor,
    several: float,
    generators: list[np.random.Generator],
    awaits: NDArray[np.bool_],
) -> None:
    """Give samples that start from a mask clicks on its errors, in place.

    Args:
        points, reference, mask, generators: see `add_clicks`.
        several: probability of each further click, on another error; at most three in all.
        awaits: (B,) bool, the samples that get any.
    """
    for b in np.flatnonzero(awaits):
        probabilities, rng = mask[b, 0].numpy(), generators[b]
        for number in range(FIRST_CLICKS):
            click = training_click(reference[b], probabilities, rng)
            if click is None:
                break
            # behind the context clicks, before the slots that `add_clicks` will use
            _write_click(points[b], click, points.shape[1] // 2 - CONTEXT_CLICKS - number, 1)
            if number + 1 == FIRST_CLICKS or rng.random() >= several:
                break
            probabilities = _without_error_at(reference[b], probabilities, click)


def _write_click(points: Tensor, click: Click, slot_from_end: int, index: int) -> None:
    """Put a click into a slot of a (2N, 3) tensor, counted from the end of its sign's half."""
    slots = len(points) // 2
    slot = (slots if click.positive else 2 * slots) - slot_from_end
    points[slot] = torch.tensor([click.y, click.x, index])


def _without_error_at(
    reference: NDArray[np.bool_], probabilities: NDArray[np.float32], click: Click
) -> NDArray[np.float32]:
    """The probabilities with the error that a click lies in put right."""
    wrong = reference != (probabilities > MASK_THRESHOLD)
    _, labels = cv2.connectedComponents(wrong.view(np.uint8))
    hit = labels == labels[int(click.y), int(click.x)]
    return np.where(hit, reference.astype(np.float32), probabilities)
