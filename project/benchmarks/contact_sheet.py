"""A contact sheet: pictures with their prompts and with what was found in them, as one picture.

Pure functions of arrays. The sheet is uint8 [height, width, 3]: for a file, and for TensorBoard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 192
"""Of the square that a picture is fitted into [pixels]."""
TEXT = 340
"""Width of the text beside a picture [pixels]."""
GAP = 10
"""Between pictures, texts and entries [pixels]."""
TALLEST = 330
"""Height of an entry [pixels]; what is not shown by then is left out, with a mark."""
BAR = 6
"""Width of the coloured bar at the left of an entry [pixels]."""
SIZE, LINE = 12, 15
"""Of letters, and from one line to the next [pixels]."""
GOOD, BAD = (33, 102, 172), (217, 95, 2)
"""Colours of the bar at a worth of 1 and of 0; they differ for colour-blind people too."""
MORE = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetEntry:
    """A picture, and what stands beside it."""

    picture: np.ndarray
    """uint8 [height, width, 3], of any size."""
    title: str
    """The prompt."""
    lines: Sequence[str]
    """What was found."""
    worth: float
    """0 to 1."""
    source: np.ndarray | None = None
    """The picture that was edited, shown before the other; None if nothing was."""


def contact_sheet(entries: Sequence[SheetEntry], columns: int = 2) -> np.ndarray:
    """The entries, row by row, uint8 [height, width, 3].

    Texts that are longer than their place are cut, and a mark says so. Raises ValueError without entries, for fewer
    than one column, and for a picture of another form.
    """
    if not entries or columns < 1:
        raise ValueError(f"a sheet of {len(entries)} entries in {columns} columns: give at least one of each")
    shown = [_entry(entry) for entry in entries]
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    width = max(image.width for image in shown)
    heights = [max(image.height for image in row) for row in rows]
    size = (columns * width + (columns + 1) * GAP, sum(heights) + (len(rows) + 1) * GAP)
    sheet = Image.new("RGB", size, "white")
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            sheet.paste(image, (GAP + column * (width + GAP), top))
        top += height + GAP
    return np.array(sheet)


def chosen(worths: Sequence[float], categories: Sequence[str], each: int = 4) -> list[int]:
    """Places of good and bad pictures by turns: the same for the same input, and spread over categories.

    Good are those with a worth above the middle between the lowest and the highest, or above 0.5 if all are equal. The
    best of each category comes first, then the second best of each, and so on; the bad ones likewise, from the worst.

    Args:
        worths: Of all pictures, 0 to 1.
        categories: Of all pictures.
        each: Good pictures, and bad ones, that are wanted. If there are fewer of one kind there are fewer in all.
    """
    if not worths:
        return []
    low, high = min(worths), max(worths)
    middle = (low + high) / 2 if low < high else 0.5
    # Equals in a random order that is always the same: the first ones of a file are often alike.
    order = np.random.default_rng(0).permutation(len(worths)).tolist()
    good = _spread([n for n in sorted(order, key=lambda n: -worths[n]) if worths[n] > middle], categories)[:each]
    bad = _spread([n for n in sorted(order, key=lambda n: worths[n]) if worths[n] <= middle], categories)[:each]
    both = min(len(good), len(bad))
    by_turns = [n for pair in zip(good, bad, strict=False) for n in pair]
    return [*by_turns, *good[both:], *bad[both:]]


def _spread(places: Sequence[int], categories: Sequence[str]) -> list[int]:
    """The first of each category, then the second of each, and so on."""
    seen: dict[str, int] = {}
    turns = []
    for place in places:
        turns.append(seen.get(categories[place], 0))
        seen[categories[place]] = turns[-1] + 1
    return [place for _, place in sorted(zip(turns, places, strict=True), key=lambda pair: pair[0])]


def _entry(entry: SheetEntry) -> Image.Image:
    pictures = [_fitted(picture) for picture in (entry.source, entry.picture) if picture is not None]
    title = [(line, True) for line in wrapped(entry.title, bold=True)]
    found = [f"worth {entry.worth:.2f}", *(part for line in entry.lines for part in line.splitlines())]
    lines = title + [(line, False) for text in found for line in wrapped(text)]
    most = TALLEST // LINE
    if len(lines) > most:
        # A long prompt leaves room for what was found.
        lines = [*title[: most // 2 - 1], (MORE, True), *lines[len(title) :]] if len(title) >= most // 2 else lines
        lines = lines if len(lines) <= most else [*lines[: most - 1], (MORE, False)]
    height = max(SIDE, LINE * len(lines))
    image = Image.new("RGB", (BAR + GAP + len(pictures) * (SIDE + GAP) + TEXT, height), "white")
    draw = ImageDraw.Draw(image)
    share = min(max(entry.worth, 0.0), 1.0)
    color = tuple(round(share * good + (1 - share) * bad) for good, bad in zip(GOOD, BAD, strict=True))
    draw.rectangle((0, 0, BAR - 1, height - 1), fill=color)
    for n, picture in enumerate(pictures):
        image.paste(picture, (BAR + GAP + n * (SIDE + GAP), 0))
    left = image.width - TEXT
    for n, (line, bold) in enumerate(lines):
        draw.text((left, n * LINE), line, fill="black", font=_font(bold))
    return image


def wrapped(text: str, bold: bool = False, width: int = TEXT) -> list[str]:
    """The text in lines that are at most `width` pixels wide; a word that is wider is broken."""
    font = _font(bold)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += [] if not lines[-1] else [""]
        for letter in word:
            if font.getlength(lines[-1] + letter) > width and lines[-1]:
                lines.append("")
            lines[-1] += letter
    return lines


def _fitted(picture: np.ndarray) -> Image.Image:
    """The picture in a square of `SIDE` on white; small ones become larger without smoothing."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"a picture is {picture.dtype} {list(picture.shape)}: give uint8 [height, width, 3]")
    image = Image.fromarray(picture)
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    fitted = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(fitted, ((SIDE - fitted.width) // 2, 0))
    return square


@cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: it is everywhere the same, and has Greek and Cyrillic letters."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), SIZE)
