"""Work in threads: order, and how much is made before it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from maskfix.formats import Annotation, ImageItem
from maskfix.masks import Mask
from maskfix.refinement.inputs import memory_of
from maskfix.threads import map_ahead


@pytest.mark.parametrize(
    ("ahead", "room", "most"),
    [
        (3, None, 3),
        (0, None, 0),
        (3, lambda result: 99, 3),
        (3, lambda result: 1, 1),
        (3, lambda result: 0, 0),
        (3, lambda result: 0 if result == 4 else 2, 2),
    ],
)
def test_results_come_in_order_and_few_of_them_wait(
    ahead: int, room: Callable[[int], int] | None, most: int
) -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item

    early = []
    with ThreadPoolExecutor(1) as pool:
        for number, result in enumerate(map_ahead(work, range(10), pool, ahead, room)):
            assert result == number
            pool.submit(lambda: None).result()  # what was handed in before is done
            early.append(len(begun) - number - 1)
    assert begun == list(range(10))
    assert max(early) == most
    if room is not None:
        assert early[0] == 0
        assert max(early[6:]) <= room(4)


def test_memory_of_an_image() -> None:
    mask = Mask.from_array(np.pad(np.ones((20, 10), bool), 5))
    annotations = (Annotation(0, 1, 0, "", 1, mask), Annotation(1, 2, 1, "", 1, None))
    item = ImageItem(0, 1, "a.png", None, 30, 20, annotations)
    image = np.zeros((30, 20, 3), np.uint8)
    assert memory_of(item, image, {0: mask}) == 1800 + 2 * 200
    assert memory_of(ImageItem(0, 1, "a.png", None, None, None), None, {}) == 1
