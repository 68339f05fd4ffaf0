"""How likely a colour is inside and outside of the object, learnt from seeds.

Mixtures of Gaussians in CIE Lab, as Rother et al. 2004 ("GrabCut") and Gulshan et al.
2010 have them. The components come from the binary splitting of Orchard and Bouman 1991 ("Color
quantization of images"), which draws no random numbers.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.baselines.seeds import BoolArray, Scene

FloatArray = NDArray[np.float64]

COMPONENTS = 5
NOISE = 8.0  # deviation in Lab units that every component has at least, in all directions
OUTLIERS = 0.05  # share of colours that follow no component but are spread evenly
EVEN = 1 / (100 * 200 * 200)  # density of an even spread over Lab
_MOST_SAMPLES = 4000


def lab(image: NDArray[np.uint8]) -> FloatArray:
    """(h, w, 3) uint8 RGB as CIE Lab, L in [0, 100]."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float64)


def log_densities(scene: Scene, colours: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log densities of every pixel's colour, (h, w) each: as object, as background.

    Clicks weigh as much as all other seeds together: few pixels, but a person looked at them.

    Args:
        scene: where the seeds are.
        colours: (h, w, 3), its image in Lab.
    """
    found = []
    for seeds in (scene.inside, scene.outside):
        samples, weights = _samples(colours, seeds, scene.clicked)
        found.append(log_density(colours.reshape(-1, 3), samples, weights))
    height, width = colours.shape[:2]
    return found[0].reshape(height, width), found[1].reshape(height, width)


def _samples(
    colours: FloatArray, seeds: BoolArray, clicked: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Colours of seeds, (N, 3), and their weights, (N,), of sum 1."""
    chosen, weights = [], []
    for region in (seeds & clicked, seeds & ~clicked):
        found = colours[region]
        if len(found):
            found = found[:: -(-len(found) // _MOST_SAMPLES)]
            chosen.append(found)
            weights.append(np.full(len(found), 1 / len(found)))
    share = np.concatenate(weights)
    return np.concatenate(chosen), share / share.sum()


def log_density(colours: FloatArray, samples: FloatArray, weights: FloatArray) -> FloatArray:
    """Log density of a mixture learnt from samples.

    Args:
        colours: (M, 3), to be judged.
        samples: (N, 3), at least one.
        weights: (N,), of sum 1.

    Returns:
        (M,).
    """
    density = np.full(len(colours), OUTLIERS * EVEN)
    for members in split(samples, weights):
        share = weights[members].sum()
        mean, covariance = _moments(samples[members], weights[members])
        covariance += NOISE**2 * np.eye(3)
        offsets = colours - mean
        mahalanobis = np.einsum("mi,ij,mj->m", offsets, np.linalg.inv(covariance), offsets)
        scale = np.sqrt((2 * np.pi) ** 3 * np.linalg.det(covariance))
        density += (1 - OUTLIERS) * share / scale * np.exp(-mahalanobis / 2)
    return np.asarray(np.log(density))


def split(samples: FloatArray, weights: FloatArray) -> list[NDArray[np.int64]]:
    """Divide samples into at most `COMPONENTS` clusters; indices of the members of each.

    The cluster with most spread along one direction is cut at its mean across that direction.
    """
    clusters = [np.arange(len(samples))]
    while len(clusters) < COMPONENTS:
        spreads = [_spread(samples[members], weights[members]) for members in clusters]
        widest = int(np.argmax([spread for spread, _ in spreads]))
        spread, above = spreads[widest]
        if spread <= 1e-9 or above.all() or not above.any():
            break
        members = clusters.pop(widest)
        clusters += [members[above], members[~above]]
    return clusters


def _spread(samples: FloatArray, weights: FloatArray) -> tuple[float, BoolArray]:
    """Weighted sum of squares along the main axis, and which samples lie above the mean there."""
    mean, covariance = _moments(samples, weights)
    values, axes = np.linalg.eigh(covariance)
    return float(values[-1] * weights.sum()), (samples - mean) @ axes[:, -1] > 0


def _moments(samples: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean, (3,), and covariance, (3, 3)."""
    share = weights / weights.sum()
    mean = share @ samples
    offsets = samples - mean
    return mean, (offsets * share[:, None]).T @ offsets
