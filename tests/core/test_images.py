"""One way from a file to a picture: upright, on white, eight bits; what cannot be read is named."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.core.images import MOST_PIXELS, picture_of_bytes, read_picture, read_picture_of, rgb
from tests.helpers import ROOT

CASES = ROOT.parent / "shared" / "cases" / "pictures"
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)


def saved(file: Path, image: Image.Image, **options: object) -> Path:
    image.save(file, **options)
    return file


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["png", "tiff", "webp"])
def test_a_picture_is_turned_upright_once(tmp_path: Path, orientation: int, format: str) -> None:
    """By the definition of EXIF: where the first row and the first column of the stored picture belong."""
    turned = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PIXELS),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "webp" else {}
    file = saved(tmp_path / f"a.{format}", Image.fromarray(PIXELS), exif=exif, **options)
    assert np.array_equal(read_picture(file), turned)


def test_broken_exif_data_say_nothing(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", Image.fromarray(PIXELS), exif=b"Exif\0\0XX\0")
    assert np.array_equal(read_picture(file), PIXELS)


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [9, 9, 9, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    expected = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]  # 0.2 * 0 + 0.8 * 255
    assert read_picture(saved(tmp_path / "rgba.png", Image.fromarray(rgba))).tolist() == expected
    assert np.array(rgb(Image.fromarray(rgba).convert("RGBa")))[0, 2].tolist() == [204, 204, 204]

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert read_picture(saved(tmp_path / "p.png", palette)).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    clear = saved(tmp_path / "clear.png", palette, transparency=0)
    assert read_picture(clear).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    assert read_picture(saved(tmp_path / "c.gif", palette, transparency=0)).tolist() == [[[255] * 3, [40, 50, 60]]]

    grey = Image.fromarray(np.array([[[7, 0], [7, 255]]], dtype=np.uint8), mode="LA")
    assert read_picture(saved(tmp_path / "la.png", grey)).tolist() == [[[255] * 3, [7] * 3]]
    # One colour of a picture without an alpha channel may be declared transparent.
    colour = saved(tmp_path / "key.png", Image.fromarray(PIXELS), transparency=tuple(map(int, PIXELS[0, 0])))
    assert read_picture(colour)[0, 0].tolist() == [255] * 3 and np.array_equal(read_picture(colour)[1:], PIXELS[1:])


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    assert read_picture(saved(tmp_path / "l.png", Image.new("L", (2, 1), 7))).tolist() == [[[7] * 3] * 2]
    assert read_picture(saved(tmp_path / "1.png", Image.new("1", (1, 1), 1))).tolist() == [[[255] * 3]]
    cmyk = read_picture(saved(tmp_path / "cmyk.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100))
    assert np.abs(cmyk.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_16_bits_are_scaled_to_8(tmp_path: Path, name: str) -> None:
    levels = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    file = tmp_path / name
    if name == "a.pgm":
        file.write_bytes(b"P5 6 1 65535\n" + levels.astype(">u2").tobytes())
    else:
        Image.fromarray(levels).save(file)
    assert read_picture(file)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert read_picture(file).shape == (1, 6, 3)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_a_known_range_are_refused_by_file(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.tiff is no picture .*'{mode}'.*save the picture with 8 or 16 bits"):
        read_picture(saved(tmp_path / "a.tiff", Image.new(mode, (2, 2))))


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    file = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert read_picture(file)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000)])
def test_tiny_and_thin_pictures_are_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    assert read_picture(saved(tmp_path / "a.png", Image.new("RGB", size))).shape == (size[1], size[0], 3)


def png_of_size(height: int, width: int) -> bytes:
    """A header alone."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(("height", "width"), [(20_000, 20_000), (10_000, 9000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, height: int, width: int) -> None:
    assert height * width > MOST_PIXELS
    whole = png_of_size(height, width) + b"\0\0\0\x01IDAT\0" + struct.pack(">I", zlib.crc32(b"IDAT\0"))
    (tmp_path / "bomb.png").write_bytes(whole)
    with pytest.raises(ValueError, match=r"bomb\.png .*more .*than a picture may have \(89,000,000\): scale it down"):
        read_picture(tmp_path / "bomb.png")


def broken(image: Image.Image, format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format)
    return stream.getvalue()[: len(stream.getvalue()) // 2]


NOISE = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
BAD = {
    "cut.png": (broken(NOISE, "PNG"), "is no picture that can be read"),
    "cut.jpg": (broken(NOISE, "JPEG"), "is no picture that can be read"),
    "cut.webp": (broken(NOISE, "WEBP"), "is no picture that can be read"),
    "cut.gif": (broken(NOISE, "GIF"), "is no picture that can be read"),
    "cut.tiff": (broken(NOISE, "TIFF"), "is no picture that can be read"),
    "text.png": (b"not a picture", "is no picture that can be read"),
    "empty.png": (b"", "is empty: copy or download the picture again"),
    "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "run `git lfs pull`"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_named(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} {message}|{name} .*{message}") as caught:
        read_picture(tmp_path / name)
    assert str(caught.value).count(name) == 1
    with pytest.raises(ValueError, match=rf"^rows\.jsonl:4: .*{name}"):
        read_picture_of("rows.jsonl:4", tmp_path / name)


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    NOISE.resize((512, 512)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    second = whole.index(b"IDAT", whole.index(b"IDAT") + 4)
    (tmp_path / "a.png").write_bytes(whole[:second] + b"\xb8DAT" + whole[second + 4 :])
    with pytest.raises(ValueError, match=r"a\.png is no picture that can be read"):
        read_picture(tmp_path / "a.png")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png does not exist"):
        read_picture(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match="is a folder, not a picture"):
        read_picture(tmp_path)


def test_the_pictures_that_people_have() -> None:
    if not CASES.is_dir():
        pytest.skip(f"no pictures at {CASES}")
    upright = read_picture(CASES / "exif6_upright.png")
    assert np.array_equal(read_picture(CASES / "exif6.jpg"), upright)
    assert len(np.unique(read_picture(CASES / "gray16.png"))) == 64
    for name in ("alpha.png", "alpha.webp", "palette.png"):
        assert read_picture(CASES / name)[0, 0].tolist() == [255, 255, 255], name
    for name in ("bomb.png", "empty.png", "truncated.jpg"):
        with pytest.raises(ValueError, match=name):
            read_picture(CASES / name)
    for name in ("la.png", "cmyk.jpg", "onepixel.png", "thin.png", "anim.gif", "plain.png"):
        assert read_picture(CASES / name).dtype == np.uint8


def test_bytes_are_read_as_the_file_that_they_come_from(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "a.png"
    Image.fromarray(colours).save(file, exif=exif)
    found = picture_of_bytes(file.read_bytes(), "the source of a")
    assert found.shape == (4, 6, 3) and np.array_equal(found, read_picture(file))
    for content in (b"", b"no picture", file.read_bytes()[:-40]):
        with pytest.raises(ValueError, match=r"^the source of a is no picture that can be read \([^<>]+\): give a PNG"):
            picture_of_bytes(content, "the source of a")
