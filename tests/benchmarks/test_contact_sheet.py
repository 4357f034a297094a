"""The contact sheet: what stands where, what is cut, and which pictures are chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from project.benchmarks.contact_sheet import (
    BAD,
    BAR,
    GAP,
    GOOD,
    LINE,
    SIDE,
    SIZE,
    TALLEST,
    TEXT,
    SheetEntry,
    chosen,
    contact_sheet,
    wrapped,
)

WIDTH = BAR + GAP + SIDE + GAP + TEXT


def plain(color: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.full((*size, 3), color, np.uint8)


def entry(**changes: Any) -> SheetEntry:
    return SheetEntry(**{"picture": plain((255, 0, 0)), "title": "a cup", "lines": ["found"], "worth": 1.0} | changes)


def at(sheet: np.ndarray, left: int, top: int, width: int, height: int) -> set[tuple[int, ...]]:
    """The colours of a part of a sheet."""
    part = sheet[top : top + height, left : left + width].reshape(-1, 3)
    return {tuple(int(level) for level in pixel) for pixel in np.unique(part, axis=0)}


def inked_lines(sheet: np.ndarray, left: int) -> list[int]:
    """Numbers of the lines of text that have letters, of the entry at the top whose text begins at `left`."""
    dark = (sheet[GAP:, left : left + TEXT].max(axis=2) < 100).any(axis=1)
    return sorted({int(row) // LINE for row in np.flatnonzero(dark)})


def test_every_entry_has_its_place() -> None:
    blue, red, green = (plain(color) for color in ((0, 0, 255), (255, 0, 0), (0, 255, 0)))
    sheet = contact_sheet([entry(picture=blue), entry(picture=red, worth=0.0), entry(picture=green)])
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * SIDE + 3 * GAP, 2 * WIDTH + 3 * GAP, 3)
    left, second, below = GAP + BAR + GAP, 2 * GAP + WIDTH + BAR + GAP, 2 * GAP + SIDE
    assert at(sheet, left, GAP, SIDE, SIDE) == {(0, 0, 255)}
    assert at(sheet, second, GAP, SIDE, SIDE) == {(255, 0, 0)}
    assert at(sheet, left, below, SIDE, SIDE) == {(0, 255, 0)}
    assert at(sheet, second, below, SIDE, SIDE) == {(255, 255, 255)}
    assert at(sheet, GAP, GAP, BAR, SIDE) == {GOOD} and at(sheet, 2 * GAP + WIDTH, GAP, BAR, SIDE) == {BAD}
    assert contact_sheet([entry()] * 3, columns=3).shape == (SIDE + 2 * GAP, 3 * WIDTH + 4 * GAP, 3)


def test_pictures_of_any_size_fit() -> None:
    checks = np.zeros((2, 2, 3), np.uint8)
    checks[0, 0] = checks[1, 1] = 255
    small = contact_sheet([entry(picture=checks)], columns=1)
    left = GAP + BAR + GAP
    assert at(small, left, GAP, SIDE, SIDE) == {(0, 0, 0), (255, 255, 255)}, "no smoothing"
    assert at(small, left, GAP, SIDE // 2, SIDE // 2) == {(255, 255, 255)}
    wide = contact_sheet([entry(picture=plain((9, 9, 9), (300, 600)))], columns=1)
    assert at(wide, left, GAP, SIDE, SIDE // 2) == {(9, 9, 9)}
    assert at(wide, left, GAP + SIDE // 2, SIDE, SIDE // 2) == {(255, 255, 255)}


def test_the_picture_that_was_edited_stands_before_the_other() -> None:
    sheet = contact_sheet([entry(source=plain((0, 255, 0)))], columns=1)
    assert sheet.shape[1] == WIDTH + SIDE + GAP + 2 * GAP
    assert at(sheet, GAP + BAR + GAP, GAP, SIDE, SIDE) == {(0, 255, 0)}
    assert at(sheet, GAP + BAR + GAP + SIDE + GAP, GAP, SIDE, SIDE) == {(255, 0, 0)}


def test_title_worth_and_lines_are_written_one_below_the_other() -> None:
    left = GAP + BAR + GAP + SIDE + GAP
    assert inked_lines(contact_sheet([entry(lines=[])], columns=1), left) == [0, 1]
    assert inked_lines(contact_sheet([entry(lines=["one\ntwo", "three"])], columns=1), left) == [0, 1, 2, 3, 4]


def test_long_texts_are_cut_and_what_was_found_is_not_lost_behind_a_long_prompt() -> None:
    many = contact_sheet([entry(lines=[f"line {n}" for n in range(99)])], columns=1)
    prompt = contact_sheet([entry(title="word " * 999, lines=["the last line"])], columns=1)
    left = GAP + BAR + GAP + SIDE + GAP
    assert many.shape[0] == TALLEST // LINE * LINE + 2 * GAP
    assert len(inked_lines(many, left)) == TALLEST // LINE
    other = contact_sheet([entry(title="word " * 999, lines=["another line"])], columns=1)
    assert prompt.shape[0] <= TALLEST + 2 * GAP and (prompt != other).any()


def test_lines_are_as_wide_as_the_place() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 15
    assert " ".join(wrapped(text)) == text.strip() and len(wrapped(text)) > 3
    assert len(wrapped(text, bold=True)) > len(wrapped(text))
    assert wrapped("") == [""]
    word = "x" * 200
    assert "".join(wrapped(word)) == word and all(len(line) < TEXT / SIZE * 3 for line in wrapped(word))


def test_the_same_entries_give_the_same_sheet() -> None:
    entries = [entry(title="кружка"), entry(worth=0.3)]
    assert (contact_sheet(entries) == contact_sheet(entries)).all()
    assert (contact_sheet([entry(title="кружка")]) != contact_sheet([entry(title="тарелка")])).any()


@pytest.mark.parametrize(
    ("entries", "columns", "message"),
    [
        ([], 2, "a sheet of 0 entries in 2 columns"),
        ([entry()], 0, "1 entries in 0 columns"),
        ([entry(picture=np.zeros((4, 4, 3)))], 1, r"a picture is float64 \[4, 4, 3\]: give uint8"),
        ([entry(picture=np.zeros((4, 4), np.uint8))], 1, r"a picture is uint8 \[4, 4\]"),
    ],
)
def test_what_is_no_sheet(entries: list[SheetEntry], columns: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contact_sheet(entries, columns)


def test_good_and_bad_by_turns_and_from_all_categories() -> None:
    worths = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    categories = ["a", "a", "a", "a", "b", "b", "a"]
    places = chosen(worths, categories, each=2)
    assert [worths[n] for n in places] == [1.0, 0.0, 1.0, 0.0]
    assert {categories[n] for n in places[::2]} == {categories[n] for n in places[1::2]} == {"a", "b"}
    assert places == chosen(worths, categories, each=2)


def test_the_best_and_the_worst_of_shares() -> None:
    worths = [n / 10 for n in range(11)]
    assert chosen(worths, ["a"] * 11, each=2) == [10, 0, 9, 1]
    assert chosen(worths, ["a", "b"] * 5 + ["a"], each=2) == [10, 0, 9, 1]
    assert chosen([0.1, 0.9, 0.5], ["a"] * 3) == [1, 0, 2], "fewer good ones than bad ones"
    assert chosen([1.0, 0.95, 0.9, 0.0], ["a", "a", "b", "a"], each=2) == [0, 3, 2], "the best of each category first"


def test_where_all_are_alike() -> None:
    assert sorted(chosen([1.0] * 3, ["a"] * 3)) == sorted(chosen([0.0] * 3, ["a"] * 3)) == [0, 1, 2]
    assert len(chosen([1.0] * 9, ["a"] * 9, each=4)) == 4
    assert chosen([], []) == []


def test_equals_are_not_the_first_ones_of_the_file() -> None:
    assert sorted(chosen([1.0] * 100, ["a"] * 100)) != [0, 1, 2, 3]
