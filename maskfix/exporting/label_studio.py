"""Label Studio: tasks with brush masks, and the labelling interface that goes with them.

A brush mask is the RGBA image of the mask, every sample 0 or 255, packed bit by bit: 32 bits with
the number of samples, 5 with the bits a sample less one, four times 4 with the bits of a run length
less one; then packets: a bit that says whether one sample repeats, 2 bits that choose one of the
four, the length less one in that many bits, and the sample.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from maskfix.exporting.cvat import row_runs
from maskfix.exporting.writer import Facts, Settings, SizedItem, Thing, Writer, safe_name
from maskfix.masks import Mask
from maskfix.types import Box

LENGTH_BITS = (3, 4, 8, 16)
SAMPLE_BITS, CHANNELS = 8, 4


class LabelStudioWriter(Writer):
    """``tasks.json``, to be imported, and ``config.xml``, the labelling interface of the project.

    One brush region an instance; empty masks are left out.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self._file = self.create("tasks.json")
        self._file.write("[")
        self._count = 0

    def add(self, item: SizedItem, things: list[Thing]) -> int:
        """See `Writer`."""
        shown = [thing for thing in things if thing.mask.area]
        task = {
            "data": {"image": self.settings.url + quote(safe_name(item))},
            "annotations": [{"result": [self._region(item, thing) for thing in shown]}],
        }
        self._file.write(("\n" if not self._count else ",\n") + json.dumps(task))
        self._count += 1
        return len(shown)

    def close(self) -> Facts:
        """See `Writer`."""
        self._file.write("]\n")
        labels = "".join(
            f"    <Label value={quoteattr(name)}/>\n" for name in dict.fromkeys(self.classes.names)
        )
        config = (
            '<View>\n  <Image name="image" value="$image"/>\n'
            f'  <BrushLabels name="tag" toName="image">\n{labels}  </BrushLabels>\n</View>\n'
        )
        (self.folder / "config.xml").write_text(config, encoding="utf-8")
        return Facts()

    def _region(self, item: SizedItem, thing: Thing) -> dict[str, Any]:
        annotation, mask = thing
        name = self.classes.names[self.classes.place(annotation)]
        return {
            "id": f"{item.ordinal}-{annotation.index}",
            "type": "brushlabels",
            "from_name": "tag",
            "to_name": "image",
            "original_width": item.width,
            "original_height": item.height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": list(brush_rle(mask)), "brushlabels": [name]},
            "meta": {"id": annotation.id},
        }


def brush_rle(mask: Mask) -> bytes:
    """A mask as Label Studio packs it."""
    bits = mask.window(Box(0, 0, mask.height, mask.width))
    runs = CHANNELS * np.array(row_runs(bits), np.int64)
    words = [f"{CHANNELS * bits.size:032b}", f"{SAMPLE_BITS - 1:05b}"]
    words += [f"{length - 1:04b}" for length in LENGTH_BITS]
    for number, run in enumerate(runs.tolist()):
        sample = "1" * SAMPLE_BITS if number % 2 else "0" * SAMPLE_BITS
        while run > 0:
            piece = min(run, 1 << LENGTH_BITS[-1])
            choice = next(i for i, n in enumerate(LENGTH_BITS) if piece <= 1 << n)
            words.append(f"1{choice:02b}{piece - 1:0{LENGTH_BITS[choice]}b}{sample}")
            run -= piece
    text = "".join(words)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
