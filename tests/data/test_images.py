from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from PIL.Image import Transpose

from dspt.data import UnreadableImage, open_image
from dspt.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = open_image(data, "x.png")
    assert image.mode == "RGB"
    return np.asarray(image)


def three_by_two() -> Image.Image:
    """Red, green, blue over white, black, white."""
    image = Image.new("RGB", (3, 2), WHITE)
    for x, colour in enumerate((RED, GREEN, BLUE)):
        image.putpixel((x, 0), colour)
    image.putpixel((1, 1), (0, 0, 0))
    return image


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert (pixels(encode(three_by_two(), kind, **options)) == np.asarray(three_by_two())).all()


def test_jpeg() -> None:
    shown = pixels(encode(Image.new("RGB", (16, 16), (200, 30, 60)), "JPEG"))
    assert np.abs(shown.astype(int) - (200, 30, 60)).max() < 5


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_modes(mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    image = Image.new("RGB", (4, 3), WHITE).convert(mode)
    assert (pixels(encode(image, kind)) == 255).all()


STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,  # stored turned left, shown turned back right
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", sorted(STORED))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_turns_the_picture_upright(orientation: int, kind: str) -> None:
    upright = three_by_two()
    turn = STORED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(stored, kind, exif=exif, **options)
    assert (pixels(data) == np.asarray(upright)).all()
    assert open_image(data, "x").getexif().get(0x0112) is None  # nobody turns it again


def test_jpeg_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.new("RGB", (20, 10), RED), "JPEG", exif=exif)
    assert open_image(data, "x.jpg").size == (10, 20)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"\xff" * 40])
def test_broken_exif_is_ignored(exif: bytes) -> None:
    data = encode(Image.new("RGB", (20, 10), RED), "JPEG", exif=exif)
    assert open_image(data, "x.jpg").size == (20, 10)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert open_image(encode(three_by_two(), exif=exif), "x").size == (3, 2)


def test_transparency_is_composited_on_white() -> None:
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    assert pixels(encode(image)).tolist() == [[[255] * 3, [255, 0, 0], [127] * 3]]


def test_grey_transparency_is_composited_on_white() -> None:
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (0, 255))
    assert pixels(encode(image)).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize("orientation", [1, 3])
def test_a_transparent_palette_entry_is_white(kind: str, orientation: int) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if kind == "PNG" else {}
    shown = pixels(encode(image, kind, transparency=0, **options)).tolist()
    turned = kind == "PNG" and orientation == 3
    assert shown == [[[255, 0, 0], [255] * 3] if turned else [[255] * 3, [255, 0, 0]]]


@pytest.mark.parametrize(("mode", "clear", "solid"), [("RGB", BLUE, RED), ("L", 7, 0)])
def test_a_transparent_colour_is_white(mode: str, clear: Any, solid: Any) -> None:
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), solid)
    shown = pixels(encode(image, transparency=clear)).tolist()
    assert shown == [[[255] * 3, [255, 0, 0] if mode == "RGB" else [0] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    levels = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    shown = pixels(encode(Image.fromarray(levels), kind))
    assert shown[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (shown == shown[..., :1]).all()


def png(width: int, height: int, depth: int, colour: int, raw: bytes, *extra: bytes) -> bytes:
    """A PNG by hand, for what Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join(chunk(part[:4], part[4:]) for part in extra)
    body += chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def test_sixteen_bit_colour_keeps_the_high_byte() -> None:
    raw = b"\0" + struct.pack(">3H", 65535, 32768, 255)
    assert pixels(png(1, 1, 16, 2, raw)).tolist() == [[[255, 128, 0]]]


def test_the_transparent_level_of_sixteen_bit_grey_is_white() -> None:
    raw = b"\0" + struct.pack(">2H", 300, 0)
    shown = pixels(png(2, 1, 16, 0, raw, b"tRNS" + struct.pack(">H", 300)))
    assert shown[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_the_first_frame_is_shown(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (pixels(data) == RED).all()


def test_multi_picture_jpeg_of_cameras() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (WHITE, RED)]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert (pixels(data) > 250).all()


def tiff(levels: np.ndarray, photometric: int = 1) -> bytes:
    """A TIFF by hand, one strip: photometric 1 has black as zero, 0 has white."""
    raw, (height, width) = levels.tobytes(), levels.shape
    kind = {"u": 1, "i": 2, "f": 3}[levels.dtype.kind]
    tags = [(256, width), (257, height), (258, levels.itemsize * 8), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, height), (279, len(raw)), (339, kind)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(raw)) + raw + directory


@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_zero(bits: int) -> None:
    full = 2**bits - 1
    levels = np.array([[0, full // 3, full]], dtype=f"<u{bits // 8}")
    assert pixels(tiff(levels))[0, :, 0].tolist() == [0, 85, 255]
    assert pixels(tiff(levels, 0))[0, :, 0].tolist() == [255, 170, 0]


@pytest.mark.parametrize(
    "levels",
    [
        np.array([[0, 65536]], dtype="<u4"),
        np.array([[0, 2**31]], dtype="<u4"),
        np.array([[0, -1]], dtype="<i4"),
        np.array([[0, -1]], dtype="<i2"),
        np.array([[0.0, 0.5]], dtype="<f4"),
    ],
)
def test_levels_without_an_agreed_white_are_refused_and_not_clipped(levels: np.ndarray) -> None:
    with pytest.raises(UnreadableImage, match="without an agreed white"):
        open_image(tiff(levels), "x.tif")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_ink_on_white(kind: str) -> None:
    ink = np.array([0, 60, 255, 51])
    shown = pixels(encode(Image.new("CMYK", (16, 16), tuple(ink)), kind, quality=100))
    wanted = (255 - ink[:3]) * (255 - ink[3]) / 255
    assert np.abs(shown - wanted).max() <= 2


def test_palette_entries_may_be_half_transparent() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    shown = pixels(encode(image, transparency=bytes([255, 128, 0])))
    assert shown.tolist() == [[[0, 0, 0], [255, 127, 127], [255, 255, 255]]]


@pytest.mark.parametrize("size", [(1, 1), (30_000, 1), (1, 30_000)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP"])
def test_one_pixel_and_very_long(size: tuple[int, int], kind: str) -> None:
    image = open_image(encode(Image.new("RGB", size, RED), kind), "x")
    assert image.size == size
    assert image.getpixel((size[0] - 1, size[1] - 1)) == RED


GOOD = encode(Image.effect_noise((64, 64), 50).convert("RGB"))
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is an empty file"),
        (b"hello", "not one of JPEG, PNG"),
        (POSTSCRIPT, "not one of JPEG, PNG"),
        (GOOD[: len(GOOD) // 2], "cannot be decoded"),
        (GOOD[:40], "cannot be decoded"),
        (encode(Image.new("RGB", (64, 64), RED), "JPEG")[:300], "cannot be decoded"),
        (png(40_000, 40_000, 1, 0, b""), "too many pixels"),
        (png(0, 0, 8, 0, b""), "cannot be decoded"),
    ],
)
def test_what_cannot_be_shown_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        open_image(data, "cats/7.jpg")
    assert isinstance(caught.value, UserError)
    message = str(caught.value)
    assert message.startswith("picture cats/7.jpg ")
    assert reason in message
    assert len(message.splitlines()) == 1


def test_truncated_pictures_stay_refused() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


SEEDS = [GOOD[:400], encode(three_by_two(), "GIF"), encode(three_by_two(), "JPEG")]


@settings(deadline=None)
@given(
    st.sampled_from([*SEEDS, encode(three_by_two(), "TIFF")]), st.integers(0, 2**31), st.binary()
)
def test_damaged_bytes_give_a_picture_or_the_one_error(data: bytes, at: int, junk: bytes) -> None:
    at %= len(data)
    try:
        image = open_image(data[:at] + junk + data[at + len(junk) :], "x")
    except UnreadableImage:
        return
    assert image.mode == "RGB"
