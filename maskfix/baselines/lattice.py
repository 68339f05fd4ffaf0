"""The pixels of an image as a graph: 8 neighbours, distances along edges.

Legend: h, w the image; E its edges, each once; pixels are numbered in reading order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # right, down, down right, down left


@dataclass(frozen=True)
class Edges:
    """Pairs of neighbours.

    Attributes:
        one, other: (E,) int32, pixels.
        length: (E,) 1, or the square root of 2 for diagonal ones.
    """

    one: IntArray
    other: IntArray
    length: FloatArray


def neighbours(height: int, width: int) -> Edges:
    """All pairs of pixels that touch, if only at a corner."""
    pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    one, other, length = [], [], []
    for down, right in _STEPS:
        here = pixels[: height - down, max(0, -right) : width - max(0, right)]
        there = pixels[down:, max(0, right) : width + min(0, right)]
        one.append(here.ravel())
        other.append(there.ravel())
        length.append(np.full(here.size, np.hypot(down, right)))
    return Edges(np.concatenate(one), np.concatenate(other), np.concatenate(length))


def squared_differences(edges: Edges, values: NDArray[np.float64]) -> FloatArray:
    """(E,) squared difference of (h, w) or (h, w, C) values along every edge."""
    flat = values.reshape(values.shape[0] * values.shape[1], -1)
    return np.asarray(((flat[edges.one] - flat[edges.other]) ** 2).sum(axis=1))


def geodesic(
    edges: Edges, lengths: FloatArray, sources: NDArray[np.bool_]
) -> tuple[FloatArray, IntArray]:
    """Shortest paths from a set of pixels.

    Args:
        edges: of the graph.
        lengths: (E,) above 0, of its edges.
        sources: (h, w) bool, at least one.

    Returns:
        (h, w) length of the way to the nearest source, and (h, w) int32, the next pixel on it;
        sources and what cannot be reached have -1 there.
    """
    count = sources.size
    graph = csr_array(coo_array((lengths, (edges.one, edges.other)), shape=(count, count)))
    found, previous, _ = dijkstra(
        graph,
        directed=False,
        indices=np.flatnonzero(sources),
        min_only=True,
        return_predecessors=True,
    )
    previous[previous < 0] = -1
    return found.reshape(sources.shape), previous.reshape(sources.shape)
