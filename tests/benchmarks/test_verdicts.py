"""What a scored folder keeps for people and for comparisons: verdicts and the contact sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.benchmarks import tiif
from project.benchmarks.pictures.tiif import TIIFPictures
from project.benchmarks.pictures.verdicts import sheet_entries, verdict_rows, write_verdicts
from project.core.images import read_picture
from project.shapes.judge import DetectorJudge
from tests.helpers.picture_worlds import write_dpg_world, write_tiif_world
from tests.helpers.score_runs import rows_of

SOURCE = np.full((8, 8, 3), 7, np.uint8)


class EditedPictures(TIIFPictures):
    """As if every item edited a picture."""

    def source(self, item: tiif.TIIFItem) -> np.ndarray | None:
        return SOURCE


@pytest.fixture
def found(tmp_path: Path) -> tuple[Path, Any, list[dict[str, Any]]]:
    """A scored folder, its items and its rows."""
    world = write_tiif_world(tmp_path)
    assert world.run("a") == 0
    return tmp_path, TIIFPictures(DetectorJudge()).read_items(tmp_path / "data").items, rows_of(tmp_path / "a")


def test_a_verdict_says_what_a_comparison_needs(found: tuple[Path, Any, list[dict[str, Any]]]) -> None:
    folder, items, rows = found
    verdicts = [json.loads(line) for line in (folder / "a/verdicts.jsonl").read_text().splitlines()]
    assert verdicts == json.loads(json.dumps(verdict_rows(TIIFPictures(DetectorJudge()), items, rows)))
    one = verdicts[1]
    assert (one["id"], one["sample"], one["prompt"]) == ("shape+color/0/long", 0, items[1].prompt)
    assert one["picture"] == "shape+color/mine/long_description/0.png" and "reasoning" not in one
    counted = {"groups": ["long", "Attribute", "shape+color"], "weight": 1.0, "unit": "shape+color/0"}
    right = round(one["worth"] * len(items[1].questions))
    assert one["counted"] == {**counted, "right": right, "asked": len(items[1].questions)}


def test_the_sheet_shows_reasoning_and_what_was_edited(found: tuple[Path, Any, list[dict[str, Any]]]) -> None:
    folder, items, rows = found
    rows = [{**row, "reasoning": f"I draw {row['id']}."} for row in rows]
    benchmark = EditedPictures(DetectorJudge())
    verdicts = verdict_rows(benchmark, items, rows)
    entries = sheet_entries(benchmark, items, verdicts, lambda row: read_picture(folder / "output" / row["picture"]))
    assert len(entries) == 8
    by_title = {item.prompt: item for item in items}
    for entry in entries:
        item = by_title[entry.title]
        assert entry.source is SOURCE and entry.lines[0] == f"I draw {item.id}."
        assert len(entry.lines) == 1 + len(item.questions)
        kind, line, length = item.id.split("/")
        shown = read_picture(folder / f"output/{kind}/mine/{length}_description/{line}.png")
        assert (entry.picture == shown).all()


def test_pictures_that_cannot_be_read_are_not_shown(found: tuple[Path, Any, list[dict[str, Any]]]) -> None:
    folder, items, rows = found
    benchmark = TIIFPictures(DetectorJudge())
    verdicts = verdict_rows(benchmark, items, rows)

    def some(row: dict[str, Any]) -> np.ndarray | str:
        return "gone" if "short" in row["id"] else SOURCE

    titles = {item.prompt for item in items if item.length == "short"}
    entries = sheet_entries(benchmark, items, verdicts, some)
    assert entries and not titles & {entry.title for entry in entries}
    assert (folder / "a/sheet.png").is_file()
    write_verdicts(folder / "a", benchmark, items, rows, lambda row: "gone")
    assert not (folder / "a/sheet.png").exists() and (folder / "a/verdicts.jsonl").is_file()


def test_a_sheet_shows_the_quarters_of_a_grid(tmp_path: Path) -> None:
    world = write_dpg_world(tmp_path)
    assert world.run("grids", "of_grids") == world.run("folders", "of_folders") == 0
    assert (tmp_path / "of_grids/sheet.png").read_bytes() == (tmp_path / "of_folders/sheet.png").read_bytes()
