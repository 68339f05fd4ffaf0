"""PNG files as raw samples, written back with the same depth, palette and other chunks."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskfix.errors import InstanceError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_MADE_ANEW = (b"IHDR", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT")

Samples = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class PngFile:
    """A PNG file.

    Attributes:
        samples: (H, W) or (H, W, channels) uint8 or uint16 as stored: ids, palette entries, grey.
        depth: bits a sample: 1, 2, 4, 8 or 16.
        colour: PNG's colour type.
        chunks: everything but the pixels (palette, transparency, texts), as stored.
    """

    samples: Samples
    depth: int
    colour: int = _GREY
    chunks: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def is_palette(self) -> bool:
        """Whether samples are entries of a palette."""
        return self.colour == _PALETTE

    @property
    def largest(self) -> int:
        """The largest sample that means something."""
        palette = dict(self.chunks).get(b"PLTE") if self.is_palette else None
        return 2**self.depth - 1 if palette is None else len(palette) // 3 - 1

    @property
    def white(self) -> int:
        """The largest sample that fits; 255 for a palette, where it usually means void."""
        return 255 if self.is_palette else 2**self.depth - 1

    @property
    def values(self) -> Samples:
        """One value a pixel, (H, W): the sample, of colours the largest; alpha does not count."""
        if self.samples.ndim == 2:
            return self.samples
        colours = self.samples[..., : 1 if self.colour == _GREY_ALPHA else 3]
        return np.asarray(colours.max(axis=2))

    def with_values(self, values: Samples) -> PngFile:
        """The same file with other values where they differ; alpha stays."""
        changed = values != self.values
        samples = self.samples.copy()
        if samples.ndim == 2:
            samples[changed] = values[changed]
        else:
            samples[changed, : 1 if self.colour == _GREY_ALPHA else 3] = values[changed][:, None]
        return replace(self, samples=samples)


def read_png(path: Path) -> PngFile:
    """Read a PNG file.

    Raises:
        InstanceError: missing, damaged or cut file, no PNG, or 16 bits a colour.
    """
    try:
        data = path.read_bytes()
        chunks = tuple(_chunks(data))
        kept = tuple(chunk for chunk in chunks if chunk[0] not in _MADE_ANEW)
        _, _, depth, colour = struct.unpack(">IIBB", chunks[0][1][:10])
        if depth == 16 and colour != _GREY:
            raise InstanceError(f"mask {path} has 16 bits a colour; only grey may have 16")
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            samples = np.array(image)
    except InstanceError:
        raise
    except FileNotFoundError:
        raise InstanceError(f"mask {path} does not exist") from None
    except Exception as error:  # decoders raise anything at all on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InstanceError(f"mask {path} cannot be read as PNG: {reason}") from error
    if colour == _GREY and depth in (2, 4):  # which Pillow spreads over 0..255
        samples = samples // (255 // (2**depth - 1))
    return PngFile(samples.astype(np.uint16 if depth == 16 else np.uint8), depth, colour, kept)


def encode_png(file: PngFile) -> bytes:
    """The bytes of a PNG file."""
    height, width = file.samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, file.depth, file.colour, 0, 0, 0)
    rows = _packed(file.samples.reshape(height, -1), file.depth)
    pixels = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())  # filter 0 before every row
    parts = [(b"IHDR", header), *file.chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(name, data) for name, data in parts)


def _packed(rows: Samples, depth: int) -> NDArray[np.uint8]:
    """Samples of depth bits as bytes, every row beginning a new one."""
    if depth >= 8:
        return np.asarray(rows.astype(f">u{depth // 8}").view(np.uint8))
    a_byte = 8 // depth
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % a_byte))).reshape(len(rows), -1, a_byte)
    shifts = 8 - depth * np.arange(1, a_byte + 1)
    return np.asarray((padded.astype(np.uint8) << shifts).sum(axis=2), np.uint8)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of every chunk."""
    if not data.startswith(_SIGNATURE):
        raise ValueError("it is no PNG file")
    position = len(_SIGNATURE)
    while position < len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        yield name, data[position + 8 : position + 8 + length]
        position += 12 + length


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
