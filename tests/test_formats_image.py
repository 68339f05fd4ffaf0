"""Images of every kind come as upright 8-bit RGB; damaged ones are named."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from maskfix.errors import InputError, InstanceError
from maskfix.formats.image import find_image_file, image_size, list_images, read_image

HEIGHT, WIDTH = 6, 10
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = RGB[..., 0]


def grey_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF", "ü ñ 图.png"])
def test_lossless_formats(tmp_path: Path, name: str) -> None:
    assert np.array_equal(read_image(save(tmp_path / name, RGB)), RGB)


def test_webp_and_jpeg(tmp_path: Path) -> None:
    assert np.array_equal(read_image(save(tmp_path / "a.webp", RGB, lossless=True)), RGB)
    smooth = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    read = read_image(save(tmp_path / "a.jpg", smooth, quality=95))
    assert np.abs(read.astype(int) - smooth).max() <= 4


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, GREY])
    wide = (GREY.astype(np.uint16) << 8) + 77
    palette = Image.fromarray(RGB).quantize(8)
    see_through = palette.copy()
    see_through.info["transparency"] = bytes(range(8))
    bits = Image.fromarray(GREY > 99)
    cases = {
        "grey.png": (GREY, grey_rgb(GREY)),
        "rgba.png": (rgba, RGB),
        "la.png": (np.dstack([GREY, GREY]), grey_rgb(GREY)),
        "16.png": (wide, grey_rgb(GREY)),
        "16.tif": (wide, grey_rgb(GREY)),
        "p.png": (palette, np.array(palette.convert("RGB"))),
        "pt.png": (see_through, np.array(palette.convert("RGB"))),
        "1.png": (bits, grey_rgb((GREY > 99) * np.uint8(255))),
    }
    for name, (pixels, expected) in cases.items():
        read = read_image(save(tmp_path / name, pixels), (HEIGHT, WIDTH))
        assert read.dtype == np.uint8 and np.array_equal(read, expected), name


def test_cmyk(tmp_path: Path) -> None:
    image = Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0))
    for name in ("a.jpg", "a.tif"):
        read = read_image(save(tmp_path / name, image))
        assert read.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(read.astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_follows_the_annotated_size(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for pixels in (RGB, GREY):
        path = save(tmp_path / f"a.{suffix}", pixels, exif=exif)
        stored = np.array(Image.open(save(tmp_path / f"b.{suffix}", pixels)).convert("RGB"))
        upright = stored
        if orientation >= 5:
            upright = upright.transpose(1, 0, 2)
        if orientation in (2, 3, 6, 7):
            upright = upright[:, ::-1]
        if orientation in (3, 4, 7, 8):
            upright = upright[::-1]
        assert image_size(path) == upright.shape[:2]
        assert np.array_equal(read_image(path), upright)
        assert np.array_equal(read_image(path, upright.shape[:2]), upright)
        as_stored = read_image(path, (HEIGHT, WIDTH))
        assert np.array_equal(as_stored, stored if orientation >= 5 else upright)


def test_16_bit_images_are_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", GREY.astype(np.uint16) << 8, exif=exif)
    assert np.array_equal(read_image(path), grey_rgb(np.rot90(GREY, -1)))


def test_a_size_that_cannot_be_names_both(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    with pytest.raises(InstanceError, match=r"a\.png is 10x6, annotated as 11x6"):
        read_image(path, (6, 11))


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match="does not exist"):
        read_image(tmp_path / "no.png")
    for content in (b"", b"hello", b"GIF89a"):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(InstanceError, match=r"a\.jpg cannot be read: .*cannot identify"):
            read_image(tmp_path / "a.jpg")
        assert image_size(tmp_path / "a.jpg") is None
    with pytest.raises(InstanceError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_cut_files_are_damaged(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    data = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InstanceError, match="cannot be read"):
            read_image(path)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def test_a_bomb_is_refused_and_a_large_photo_is_not(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(60_000, 60_000))
    with pytest.raises(InstanceError, match="claims 60000x60000 pixels, more than"):
        read_image(tmp_path / "bomb.png")
    large = save(tmp_path / "large.png", Image.new("1", (20_000, 9_500)))
    assert image_size(large) == (9_500, 20_000)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore")  # Pillow warns of damage that it can live with
def test_any_damage_reads_or_is_named(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP"]))
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    sound = buffer.getvalue()
    start = data.draw(st.integers(0, len(sound)))
    end = start + data.draw(st.integers(0, 8))
    path = tmp_path / "a.img"
    path.write_bytes(sound[:start] + data.draw(st.binary(max_size=6)) + sound[end:])
    try:
        image = read_image(path)
    except InstanceError as error:
        assert "\n" not in str(error)
        return
    assert image.dtype == np.uint8 and image.ndim == 3


def test_images_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    names = ["b/1.jpg", "a10.PNG", "a2.jpg", "A1.webp", ".hidden.jpg", "notes.txt", "é.bmp"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert listed == ["A1.webp", "a2.jpg", "a10.PNG", "b/1.jpg", "é.bmp"]
    with pytest.raises(InputError, match="is not a folder"):
        list_images(tmp_path / "a2.jpg")


def test_names_that_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").touch()
    assert find_image_file(tmp_path / "images", "../secret.jpg") is None
    assert find_image_file(tmp_path / "images", str(tmp_path / "secret.jpg")) is None
    assert find_image_file(tmp_path / "images", "a\0.jpg") is None
    assert find_image_file(tmp_path / "images", "\ud800.jpg") is None
    assert find_image_file(tmp_path / "images", "x" * 5000) is None
