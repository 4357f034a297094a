"""DPG-Bench: files, grids, dependencies and scores; the official scorer's own inputs and outputs (`--golden`)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.benchmarks import dpg
from project.benchmarks.dpg import DPGItem, DPGQuestion, DPGRecord
from project.benchmarks.scoring import UnparsedAnswer
from tests.helpers import ROOT
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401

DATA = (ROOT / "../shared/benchmarks/dpg").resolve()
FIRST_ROW = "the first row of the file"


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def row(number: int = 1, dependency: str = "0", **columns: Any) -> dict[str, Any]:
    return {
        "item_id": "a",
        "text": "a dog, and a cat",
        "proposition_id": number,
        "dependency": dependency,
        "tuple": f"entity - whole (x{number})",
        "question_natural_language": f"Is it {number}?",
    } | columns


def item(name: str, *parents: tuple[int, ...], category: str = "entity - whole", first: bool = False) -> DPGItem:
    questions = tuple(
        DPGQuestion(number=n, text=f"is it {n} ?", parents=above, category=category, first_row=first and n == 1)
        for n, above in enumerate(parents, start=1)
    )
    return DPGItem(id=name, prompt="a dog", questions=questions)


def record(name: str, *pictures: str) -> DPGRecord:
    """Answers of pictures as letters: y is yes, n is no, and everything else itself."""
    words = {"y": "yes", "n": "no"}
    answers = [{n: words.get(letter, letter) for n, letter in enumerate(given, start=1)} for given in pictures]
    return DPGRecord(id=name, answers=tuple(answers))


@pytest.mark.parametrize("skipped", [True, False])
def test_official_scores(golden_dpg_scores: Mapping[str, Any], skipped: bool, tmp_path: Path) -> None:
    case = golden_dpg_scores
    items = dpg.read_items(write(tmp_path / "dpg_bench.csv", case["rows"]))
    records = [
        DPGRecord(
            id=name,
            answers=tuple({int(number): word for number, word in given.items()} for given in by_picture.values()),
        )
        for name, by_picture in case["answers"].items()
    ]
    assert {len(r.answers) for r in records} == {case["pic_num"]}
    expected = case["expected_official_skips_first_csv_row" if skipped else "expected_all_rows"]
    scores = dpg.score(items, records, "official", case["pic_num"], skip_first_row=None if skipped else False)
    assert scores.overall == pytest.approx(expected["dpg_score_x100"] / 100, abs=1e-12)
    assert set(scores.items) == set(expected["per_image"])
    for name, image in expected["per_image"].items():
        assert scores.items[name] == pytest.approx(image["per_crop"], abs=1e-12)
        assert np.mean(scores.items[name]) == pytest.approx(image["avg"], abs=1e-12)
    for found, level in ((scores.broad, "L1"), (scores.detailed, "L2")):
        wanted = {name: value / 100 for name, value in expected[f"{level}_category_x100"].items()}
        assert found == pytest.approx(wanted, abs=1e-12)
    dropped = [name for name, reason in scores.coverage.dropped if FIRST_ROW not in reason]
    assert dropped == expected["dropped_images"]


def test_strict_keeps_the_first_question() -> None:
    items, records = [item("a", (), (1,), first=True)], [record("a", "ny")]
    official, strict = (dpg.score(items, records, mode, pictures=1) for mode in ("official", "strict"))
    assert official.coverage.missing == ("a",) and official.overall is None
    assert [name for name, _ in official.coverage.dropped] == ["a", "a"]
    assert strict.overall == 0.0 and strict.coverage.complete and not strict.coverage.dropped


def test_strict_follows_dependencies_in_any_order() -> None:
    items, records = [item("a", (), (3,), (1,))], [record("a", "nyy")]
    official, strict = (dpg.score(items, records, mode, pictures=1) for mode in ("official", "strict"))
    assert official.items["a"] == (pytest.approx(1 / 3),)
    assert strict.items["a"] == (0.0,)


def test_a_circle_of_dependencies_ends() -> None:
    scores = dpg.score([item("a", (2,), (1,), ())], [record("a", "yny")], "strict", pictures=1)
    assert scores.items["a"] == (pytest.approx(1 / 3),)


def test_strict_tables_are_made_of_all_pictures_after_dependencies() -> None:
    items, records = [item("a", (), (1,))], [record("a", "ny", "yy")]
    official, strict = (dpg.score(items, records, mode, pictures=2) for mode in ("official", "strict"))
    assert official.broad == {"entity": 1.0}, "the last picture alone"
    assert strict.broad == {"entity": 0.5} and strict.detailed == {"entity - whole": 0.5}
    assert strict.overall == official.overall == 0.5


def test_strict_reads_words_not_bytes() -> None:
    items, records = [item("a", ())], [DPGRecord(id="a", answers=({1: "Yes."},))]
    official, strict = (dpg.score(items, records, mode, pictures=1) for mode in ("official", "strict"))
    assert official.items["a"] == (0.0,) and strict.items["a"] == (1.0,)


@pytest.mark.parametrize(
    "answers", [({1: "perhaps"},), ({},), (), ({1: "yes"}, {1: "yes"})], ids=["prose", "unanswered", "none", "two"]
)
def test_what_strict_cannot_score_is_missing(answers: Any) -> None:
    scores = dpg.score(
        [item("a", ()), item("b", ())], [record("b", "y"), DPGRecord(id="a", answers=answers)], "strict", 1
    )
    assert scores.coverage.missing == ("a",) and scores.overall == 1.0
    with pytest.raises(ValueError, match="1 of 2 items scored; missing: a"):
        scores.coverage.require_complete()


def test_a_record_of_no_item() -> None:
    with pytest.raises(ValueError, match="records are no items of this benchmark: b"):
        dpg.score([item("a", ())], [record("b", "y")], "strict", 1)
    with pytest.raises(ValueError, match="records occur more than once: a"):
        dpg.score([item("a", ())], [record("a", "y")] * 2, "official", 1)


@pytest.mark.parametrize(("text", "yes"), [("yes", True), (" No.", False), ("**Yes**\n", True)])
def test_answers(text: str, yes: bool) -> None:
    assert dpg.parse_answer(text) is yes


@pytest.mark.parametrize("text", ["", "yes and no", "yesterday", "I cannot tell"])
def test_answers_that_are_none(text: str) -> None:
    with pytest.raises(UnparsedAnswer, match="neither yes nor no"):
        dpg.parse_answer(text)


def test_a_grid_is_cut_row_by_row() -> None:
    grid = np.arange(4 * 6 * 3).reshape(4, 6, 3)
    crops = dpg.grid_crops(grid)
    assert [crop.shape for crop in crops] == [(2, 3, 3)] * 4
    assert np.array_equal(np.vstack([np.hstack(crops[:2]), np.hstack(crops[2:])]), grid)
    assert dpg.grid_crops(grid, 1)[0] is grid
    with pytest.raises(ValueError, match="3 x 6 is no grid of 4 pictures"):
        dpg.grid_crops(grid[:3])
    with pytest.raises(ValueError, match="no grid of 2 pictures"):
        dpg.grid_crops(grid, 2)


def test_items_of_a_file(tmp_path: Path) -> None:
    rows = [row(), row(2, "1, 0", tuple="global -  (style)")]
    (found,) = dpg.read_items(write(tmp_path / "dpg_bench.csv", rows))
    first, second = found.questions
    assert (found.id, found.prompt, first.number, first.text) == ("a", "a dog, and a cat", 1, "Is it 1?")
    assert (first.parents, first.category, first.broad) == ((), "entity - whole", "entity")
    assert (first.first_row, second.first_row) == (True, False)
    assert (second.parents, second.category, second.broad) == ((1,), "global -", "global")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(dependency="one")], r"dpg_bench.csv:2: 'dependency' is 'one', not a number"),
        ([row(), row(proposition_id="")], r"dpg_bench.csv:3: 'proposition_id' is '', not a number"),
        ([row(), row()], r"dpg_bench.csv:3: question 1 of a occurs twice"),
        ([row(question_natural_language=" ")], r"dpg_bench.csv:2: question 1 of a has no text"),
        ([{"item_id": "a"}], r"dpg_bench.csv:1: lacks the columns text, proposition_id"),
    ],
)
def test_bad_files(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dpg.read_items(write(tmp_path / "dpg_bench.csv", rows))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dpg_bench.csv is missing: .*ELLA"):
        dpg.read_items(tmp_path / "dpg_bench.csv")
    for path in (tmp_path, tmp_path / "prompts.json"):
        with pytest.raises(FileNotFoundError, match="give the folder prompts"):
            dpg.read_prompts(path)


def test_prompts_of_a_folder_and_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog\n", encoding="utf-8")
    assert dpg.read_prompts(tmp_path) == {"a": "a dog"}
    (tmp_path / "prompts.json").write_text('{"a.txt": "a dog"}', encoding="utf-8")
    assert dpg.read_prompts(tmp_path / "prompts.json") == {"a": "a dog"}
    (tmp_path / "prompts.json").write_text('{"a.txt": 3}', encoding="utf-8")
    with pytest.raises(ValueError, match="the prompt 'a' is no text"):
        dpg.read_prompts(tmp_path / "prompts.json")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
def test_official_prompts() -> None:
    prompts = dpg.read_prompts(DATA / "prompts")
    assert len(prompts) == 1065
    assert prompts == dpg.read_prompts(DATA / "dpgbench_prompts_uniworld.json")


def test_table() -> None:
    items = [item("pad", ()), item("a", (), category="other - count")]
    table = dpg.score(items, [record("a", "y"), record("pad", "n")], "strict", 1).table()
    assert table == [
        ("", "score"),
        ("overall", "50.00"),
        ("entity", "0.00"),
        ("  entity - whole", "0.00"),
        ("other", "100.00"),
        ("  other - count", "100.00"),
    ]
