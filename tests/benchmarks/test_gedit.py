"""GEdit-Bench: files and scores; the official scorer's own inputs and outputs (`--golden`)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from project.benchmarks import gedit
from project.benchmarks.gedit import GROUPS, GEditItem, GEditMeans, GEditRecord, GEditSet
from tests.helpers import ROOT
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401

DATA = (ROOT / "../shared/benchmarks/gedit").resolve()


def item(group: str, key: str = "0", language: Any = "en", intersection: bool = True) -> GEditItem:
    return GEditItem(group=group, language=language, key=key, instruction="make it red", intersection=intersection)


def record(item: GEditItem, semantics: float | None = 9.0, quality: float | None = 4.0) -> GEditRecord:
    return GEditRecord(id=item.id, semantics=semantics, quality=quality)


def of_tables(case: Mapping[str, Any]) -> tuple[list[GEditItem], list[GEditRecord]]:
    """Edits and scores of the official tables, one for each group. A table without rows still has an edit to make."""
    items, records = [], []
    for group, rows in case["rows_by_group"].items():
        for number, (semantics, quality, intersection, language) in enumerate(rows):
            items.append(item(group, str(number), language, intersection))
            records.append(record(items[-1], semantics, quality))
        items += [] if rows else [item(group, language=case["language"])]
    return items, records


def check(found: GEditSet, expected: Mapping[str, Any]) -> None:
    def wanted(values: Mapping[str, float | None]) -> Any:
        return None if None in values.values() else pytest.approx(values, abs=1e-12)

    figures = {group: means and means.figures() for group, means in found.groups.items()}
    assert figures == {group: wanted(values) for group, values in expected["per_group"].items()}
    assert (found.average and found.average.figures()) == wanted(expected["average"])


def test_official_statistics(golden_gedit_statistics: Mapping[str, Any]) -> None:
    case = golden_gedit_statistics
    items, records = of_tables(case)
    if "error" in case["expected"]:
        lacking = ", ".join(group for group in GROUPS if group not in case["rows_by_group"])
        with pytest.raises(ValueError, match=f"no edits of the groups {lacking}:"):
            gedit.score(items, records, case["language"], "official")
        return
    scores = gedit.score(items, records, case["language"], "official")
    check(scores.fullset, case["expected"]["fullset"])
    check(scores.intersection, case["expected"]["intersection"])


def test_groups_weigh_the_same() -> None:
    items = [item(group) for group in GROUPS] + [item(GROUPS[0], str(key)) for key in range(1, 10)]
    records = [record(i, 10.0 if i.group == GROUPS[0] else 0.0, 10.0) for i in items]
    average = gedit.score(items, records, "en", "strict").fullset.average
    assert average == GEditMeans(semantics=10 / 11, quality=10.0, overall=10 / 11)


def test_strict_takes_no_score_above_ten() -> None:
    items = [item(group, key) for group in GROUPS for key in "ab"]
    records = [record(i, 40.0 if i == items[0] else 9.0) for i in items]
    official, strict = (gedit.score(items, records, "en", mode) for mode in ("official", "strict"))
    assert official.fullset.groups[GROUPS[0]].semantics == 24.5 and official.coverage.complete
    assert strict.fullset.groups[GROUPS[0]].semantics == 9.0
    assert strict.coverage.missing == ("background_change/en/a",)


@pytest.mark.parametrize("value", [None, math.nan, -1.0])
def test_edits_without_scores_are_missing(value: float | None) -> None:
    items = [item(group) for group in GROUPS]
    records = [record(items[0], value), *map(record, items[1:-1])]
    for mode in ("official", "strict"):
        scores = gedit.score(items, records, "en", mode)
        assert scores.coverage.missing == (items[0].id, items[-1].id)
        assert scores.fullset.groups[GROUPS[0]] is None and scores.fullset.average is None


def test_languages_are_scored_apart() -> None:
    items = [item(group, language=language) for group in GROUPS for language in ("en", "cn")]
    records = [record(i, 9.0 if i.language == "en" else 1.0) for i in items]
    for language, value in (("en", 9.0), ("cn", 1.0)):
        scores = gedit.score(items, records, language, "strict")
        assert scores.fullset.average.semantics == value and scores.coverage.expected == 11


def test_a_subset_of_groups() -> None:
    items = [item("text_change")]
    scores = gedit.score(items, [record(items[0])], "en", "strict", groups=["text_change"])
    assert scores.fullset.average.overall == 6.0
    assert scores.table()[1:] == [
        (name, "9.00", "4.00", "6.00", "9.00", "4.00", "6.00") for name in ("average", "text_change")
    ]
    assert scores.figures()["fullset"]["O"] == 6.0


def test_records_must_belong_to_the_items() -> None:
    items = [item(group) for group in GROUPS]
    with pytest.raises(ValueError, match="records are no items of this benchmark: text_change/en/other"):
        gedit.score(items, [record(item("text_change", "other"))], "en", "official")
    twice = [record(i) for i in items] + [record(items[0], 0.0)]
    with pytest.raises(ValueError, match="records occur more than once: background_change/en/0"):
        gedit.score(items, twice, "en", "strict")
    assert gedit.score(items, twice, "en", "official").fullset.groups[GROUPS[0]].semantics == 4.5


def write(folder: Path, **changes: Any) -> Path:
    (folder / "a.png").write_bytes(b"picture")
    row = {
        "task_type": "text_change",
        "key": "a",
        "instruction": "write Hello ",
        "instruction_language": "cn",
        "input_image": "a.png",
        "Intersection_exist": False,
    }
    file = folder / "gedit.jsonl"
    file.write_text(json.dumps(row | changes) + "\n", encoding="utf-8")
    return file


def test_items_of_the_dataset(tmp_path: Path) -> None:
    file = write(tmp_path)
    (found,) = gedit.read_items(file)
    assert (found.id, found.instruction, found.intersection) == ("text_change/cn/a", "write Hello", False)
    assert (found.picture, found.source) == ("fullset/text_change/cn/a.png", tmp_path / "a.png")
    assert gedit.read_items(tmp_path) == (found,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_type": "text"}, r"gedit.jsonl:1: 'text' is no group of GEdit-Bench"),
        ({"instruction_language": "zh"}, r"gedit.jsonl:1: 'zh' is no language of GEdit-Bench"),
        ({"instruction": " "}, r"gedit.jsonl:1: the instruction is ' ', not a text"),
        ({"key": 3}, r"gedit.jsonl:1: the key is 3, not a text"),
        ({"Intersection_exist": None}, r"gedit.jsonl:1: 'Intersection_exist' is None"),
        ({"input_image": None}, r"gedit.jsonl:1: 'input_image' is NoneType"),
    ],
)
def test_bad_rows(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gedit.read_items(write(tmp_path, **changes))


def test_what_is_missing_or_twice(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with pytest.raises(ValueError, match=r"gedit.jsonl: edits occur more than once: text_change/cn/a"):
        gedit.read_items(file)
    with pytest.raises(FileNotFoundError, match=r"gedit.jsonl:1: the source picture .*b.png is missing"):
        gedit.read_items(write(tmp_path, input_image="b.png"))
    with pytest.raises(FileNotFoundError, match=r"none.parquet is missing: give a hub id"):
        gedit.read_items(tmp_path / "none.parquet")
    file.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no edits"):
        gedit.read_items(file)


def test_an_instruction_file(tmp_path: Path) -> None:
    file = tmp_path / "edit.json"
    row = {"prompt": "write Hello", "id": "fullset/text_change/en/a.png", "edit_type": "text_change"}
    file.write_text(json.dumps({"a": row}), encoding="utf-8")
    (found,) = gedit.read_items(file)
    assert (found.id, found.source) == ("text_change/en/a", None)
    with pytest.raises(FileNotFoundError, match="the source picture"):
        gedit.read_items(file, tmp_path)
    (tmp_path / "fullset/text_change/en").mkdir(parents=True)
    (tmp_path / row["id"]).write_bytes(b"picture")
    (found,) = gedit.read_items(file, tmp_path)
    assert found.source == tmp_path / row["id"]
    for change, message in (({"edit_type": "style_change"}, "but 'id' says"), ({"id": "a.png"}, "holds no 'id'")):
        file.write_text(json.dumps({"a": row | change}), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            gedit.read_items(file)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
def test_the_instruction_file_of_uniworld() -> None:
    items = gedit.read_items(DATA / "gedit_edit_uniworld.json")
    assert len(items) == 604 and {i.language for i in items} == {"en"}
    counts = Counter(i.group for i in items)
    assert set(counts) == set(GROUPS) and counts["text_change"] == 99
