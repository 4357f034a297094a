"""The one way from a file to a picture: upright, opaque, eight bits of red, green and blue.

Sizes in messages are height x width [pixels].
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from project.core.git_lfs import is_lfs_pointer

Source = TypeVar("Source")
MOST_PIXELS = 89_000_000
"""More than any camera's picture of its whole sensor in common use; decoded it takes 270 MB."""
GIVE = "give a PNG, JPEG or WebP file"
ORIENTATION = 0x0112
"""EXIF tag: how the camera was held."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its orientation."""
MANY = 200
"""Pictures that take long enough to read that one wants to see how far it is."""


def read_picture(file: str | Path) -> np.ndarray:
    """The picture in a file, uint8 [height, width, 3], see `rgb`; of an animation the first frame.

    Raises FileNotFoundError if there is no such file; ValueError, naming it, for one that cannot be read whole, has
    more than `MOST_PIXELS`, or has values that are no levels.
    """
    path = Path(file)
    if not path.is_file():
        what = "is a folder, not a picture" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}: check the path of the picture (now in {Path.cwd()})")
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    if empty:
        raise ValueError(f"{path} is empty: copy or download the picture again")
    if is_lfs_pointer(path):
        raise ValueError(f"{path} is a Git LFS pointer, not the picture itself: run `git lfs pull`")
    return _decoded(path, str(path))


def picture_of_bytes(content: bytes, name: str) -> np.ndarray:
    """The picture in what a file holds, as `read_picture`. `name` is for messages.

    Raises ValueError for one that cannot be read.
    """
    return _decoded(io.BytesIO(content), name)


def png(picture: np.ndarray, texts: Mapping[str, str] | None = None) -> bytes:
    """A picture, uint8 [height, width, 3], as the content of a PNG file, with texts that stay in it (`texts_in`)."""
    stream, chunks = io.BytesIO(), PngInfo()
    for key, text in (texts or {}).items():
        chunks.add_itxt(key, text)
    Image.fromarray(picture).save(stream, format="PNG", pnginfo=chunks)
    return stream.getvalue()


def texts_in(file: Path) -> dict[str, str]:
    """The texts that a picture's file carries; empty for a file without, or that cannot be read."""
    try:
        with Image.open(file) as opened:
            return {str(key): str(text) for key, text in opened.info.items() if isinstance(text, str)}
    except (OSError, ValueError, SyntaxError):
        return {}


def _decoded(source: Path | io.BytesIO, name: str) -> np.ndarray:
    try:
        # Pillow would warn of what is refused here, before anything is decoded.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(source)
        with opened:
            if (pixels := opened.height * opened.width) <= MOST_PIXELS:
                opened.load()
                return np.array(rgb(opened))
    except Image.DecompressionBombError:
        raise ValueError(f"{name} has more pixels than a picture may have ({MOST_PIXELS:,}): scale it down") from None
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to.
        said = re.sub(r" <_io\.BytesIO object at \w+>", "", str(error).replace(f" {name!r}", ""))
        raise ValueError(
            f"{name} is no picture that can be read ({said or type(error).__name__}): {GIVE}, whole"
        ) from None
    raise ValueError(
        f"{name} is {opened.height}x{opened.width}: {pixels:,} pixels are more than a picture may have "
        f"({MOST_PIXELS:,}): scale it down"
    )


def rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB: turned upright as its EXIF data say, over white where it is transparent.

    16 bits a channel are scaled to 8. Raises ValueError for values without a known range (32-bit numbers).
    """
    image = _upright(image)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _of_16_bits(image)
    if image.mode[0] in "IF":
        raise ValueError(f"values of mode {image.mode!r} have no known range: save the picture with 8 or 16 bits")
    if image.has_transparency_data:
        above = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), above).convert("RGB")
    return image.convert("RGB")


def check_pictures(sources: Collection[Source], read: Callable[[Source], object]) -> None:
    """Reads the picture of every source, so that a broken one is found before any work. Raises what `read` raises."""
    from tqdm import tqdm

    few = len(sources) < MANY
    for source in tqdm(sources, unit="picture", desc="checking pictures", disable=few, leave=False):
        read(source)


def read_picture_of(place: str, file: str | Path) -> np.ndarray:
    """As `read_picture`; its errors begin with the place ("file:line") that names the picture, if there is one."""
    try:
        return read_picture(file)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{place}: {error}" if place else str(error)) from None


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # Some formats are turned while they are read, which clears the tag.
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # Broken EXIF data say nothing: viewers ignore them too.
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _of_16_bits(image: Image.Image) -> Image.Image:
    levels_HW = np.asarray(image).astype(np.float64)
    scaled_HW = np.round(levels_HW / 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled_HW[levels_HW == transparent] = 255
    return Image.fromarray(scaled_HW).convert("RGB")
