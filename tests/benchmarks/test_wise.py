"""WISE: files, parsing and scores of both editions; the official scorers' own inputs and outputs (`--golden`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from project.benchmarks import wise
from project.benchmarks.scoring import UnparsedAnswer
from project.benchmarks.wise import CATEGORIES, FILES, RANGES, WEIGHTS, WISEItem, WISERecord, WISEScores, WISEVerdict
from tests.helpers import ROOT
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401

DATA = (ROOT / "../shared/benchmarks/wise").resolve()
ITEM = WISEItem(id=1, prompt="a moon cake", explanation="a round pastry", category="culture", subcategory="Festival")
BAGEL_NAMES = {"Cultural": "culture", **{name.capitalize(): name for name in CATEGORIES[1:]}}


def asked_for(argument: str) -> Sequence[str]:
    """The official scorers' argument: all, or the categories of one file."""
    if argument == "all":
        return CATEGORIES
    return {"culture": FILES["cultural_common_sense"], "science": FILES["natural_science"]}.get(
        argument, FILES["spatio-temporal_reasoning"]
    )


def check(scores: WISEScores, expected: Mapping[str, Any]) -> None:
    """What the official scorer prints: nothing once it has aborted."""
    assert scores.aborted is expected["aborted"]
    categories = {} if scores.aborted else scores.categories
    wanted = {name.lower(): value for name, value in expected["categories"].items()}
    assert categories == pytest.approx({name: value["avg"] for name, value in wanted.items()}, abs=1e-11)
    assert {name: scores.counts[name] for name in categories} == {name: value["n"] for name, value in wanted.items()}
    assert scores.overall == (None if expected["overall"] is None else pytest.approx(expected["overall"], abs=1e-11))


def records_of(files: Sequence[Sequence[Any]]) -> list[WISERecord]:
    """Rows of the files of scores; a line that is no JSON is none."""
    rows = [row for file in files for row in file if isinstance(row, list)]
    return [WISERecord(id=row[0], consistency=row[2], realism=row[3], aesthetic_quality=row[4]) for row in rows]


def test_official_scores(golden_wise_legacy: Mapping[str, Any]) -> None:
    case = golden_wise_legacy
    if case["name"] == "wiscore_table":
        for *scores, expected in case["expected"]:
            assert wise.wiscore(*scores) == pytest.approx(expected, abs=1e-15)
        return
    records = records_of(case["files"])
    scores = wise.score_legacy(records, "official", asked_for(case["category_arg"]))
    expected = case["expected_official"]
    check(scores, expected)
    there = {record.id for record in records}
    missing = [int(name) for name in scores.coverage.missing if int(name) not in there]
    assert missing == (expected["missing_ids"] or [])
    exact = {name.lower(): value for name, value in case["expected_official_category_means_exact"].items()}
    assert scores.categories == pytest.approx(exact, abs=1e-12)
    unweighted = case.get("expected_bagel_cal_score_unweighted", {})
    if "error" in unweighted:
        assert not scores.coverage.complete or any(9.9 in vars(record).values() for record in records)
    elif unweighted:
        rounded = {name: scores.categories[BAGEL_NAMES[name]] for name in unweighted if name != "Overall"}
        assert {**rounded, "Overall": scores.unweighted} == pytest.approx(unweighted, abs=0.005 + 1e-9)


def test_official_scores_of_the_verified_edition(golden_wise_verified: Mapping[str, Any]) -> None:
    case = golden_wise_verified
    verdicts = [WISEVerdict(id=row["prompt_id"], score=row["score"]) for file in case["files"] for row in file]
    scores = wise.score_verified(verdicts, "official", asked_for(case["category_arg"]))
    check(scores, case["expected"])
    there = {verdict.id for verdict in verdicts}
    missing = [int(name) for name in scores.coverage.missing if int(name) not in there]
    assert missing == (case["expected"]["missing_ids"] or [])


def test_official_parsing(golden_wise_parse: Mapping[str, Any]) -> None:
    assert wise.parse_scores(golden_wise_parse["text"], "official") == golden_wise_parse["expected"]


def test_the_editions() -> None:
    for edition, ranges in RANGES.items():
        assert [number for numbers in ranges.values() for number in numbers] == list(range(1, 1001))
        assert sum(WEIGHTS[edition].values()) == pytest.approx(1.0)
        assert wise.category_of(1001, edition) is None and wise.category_of("1", edition) is None
    assert wise.category_of(567, "legacy") == "time" and wise.category_of(567, "verified") == "space"
    assert [name for names in FILES.values() for name in names] == list(CATEGORIES)


def all_right(skipped: Sequence[int] = ()) -> list[WISERecord]:
    return [
        WISERecord(id=number, consistency=2, realism=2.0, aesthetic_quality=2)
        for number in range(1, 1001)
        if number not in skipped
    ]


def test_a_whole_edition() -> None:
    for mode in ("official", "strict"):
        scores = wise.score_legacy(all_right(), mode)
        assert scores.overall == pytest.approx(1.0) and scores.unweighted == pytest.approx(1.0)
        assert scores.coverage.complete and not scores.aborted
        assert scores.table()[:2] == [("", "score", "prompts"), ("overall", "100.00", "")]
        assert scores.table()[-1] == ("chemistry", "100.00", "100")


def test_weights_are_not_the_mean_of_the_categories() -> None:
    verdicts = [WISEVerdict(id=number, score=int(number <= 400)) for number in range(1, 1001)]
    scores = wise.score_verified(verdicts, "strict")
    assert scores.overall == pytest.approx(0.4) and scores.unweighted == pytest.approx(1 / 6)


def test_strict_names_what_is_missing_and_goes_on() -> None:
    official, strict = (wise.score_legacy(all_right(skipped=[7, 640]), mode) for mode in ("official", "strict"))
    assert official.aborted and official.overall is None
    assert not strict.aborted and strict.overall == pytest.approx(1.0)
    for scores in (official, strict):
        assert scores.coverage.missing == ("7", "640")


def test_strict_takes_only_scores_that_there_are() -> None:
    odd = WISERecord(id=7, consistency=9.9, realism=9.9, aesthetic_quality=9.9)
    official, strict = (wise.score_legacy([*all_right([7]), odd], mode) for mode in ("official", "strict"))
    assert official.categories["culture"] > 1.0 and official.coverage.complete
    assert strict.categories["culture"] == pytest.approx(1.0) and strict.coverage.missing == ("7",)


@pytest.mark.parametrize("score", ["2", None, True])
def test_scores_that_are_no_numbers(score: Any) -> None:
    odd = WISERecord(id=7, consistency=score, realism=1, aesthetic_quality=1)
    official = wise.score_legacy([*all_right([7]), odd], "official")
    assert not official.aborted and official.counts["culture"] == 399
    assert official.coverage.missing == ("7",) and official.coverage.dropped == (("7", "a score that cannot be used"),)


def test_strict_refuses_repeated_and_strange_numbers() -> None:
    for extra, message in ((7, "prompts occur more than once: 7"), (1001, "no items of this benchmark: 1001")):
        more = [*all_right(), WISERecord(id=extra, consistency=0, realism=0, aesthetic_quality=0)]
        with pytest.raises(ValueError, match=message):
            wise.score_legacy(more, "strict")
    assert wise.score_legacy(more, "official").coverage.dropped == (("1001", "no prompt of these categories"),)


def test_a_subset_is_scored_by_itself() -> None:
    verdicts = [WISEVerdict(id=401, score=1), WISEVerdict(id=521, score=0)]
    scores = wise.score_verified(verdicts, "strict", ("time", "space"), expected={401, 402, 521})
    assert scores.categories == {"time": 1.0, "space": 0.0} and scores.overall is None
    assert scores.coverage.missing == ("402",) and scores.coverage.expected == 3


@pytest.mark.parametrize(
    "text",
    [
        "Consistency: 2\nRealism: 1\nAesthetic Quality: 0",
        "**Consistency:** 2\n**Realism:** 1\n**Aesthetic Quality:** 0",
        "consistency\uff1a2, REALISM = 1/2, aesthetic quality - 0.",
        "Consistency: 2 (good)\nRealism: 1\nAesthetic Quality: 0\nSo Consistency: 2.",
    ],
)
def test_strict_parsing(text: str) -> None:
    assert wise.parse_scores(text) == {"consistency": 2.0, "realism": 1.0, "aesthetic_quality": 0.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2\n1\n0", "there is no score of consistency, realism, aesthetic quality"),
        ("Consistency: 10\nRealism: 1\nAesthetic Quality: 1", "Consistency is 10, none of 0, 1 and 2"),
        ("Consistency: 1.5\nRealism: 1\nAesthetic Quality: 1", r"Consistency is 1\.5, none of"),
        ("Consistency: 2/5\nRealism: 1\nAesthetic Quality: 1", "there is no score of consistency"),
        ("Consistency: 1.0/5\nRealism: 1\nAesthetic Quality: 1", "there is no score of consistency"),
        ("Consistency: 1\nRealism: 1", "there is no score of aesthetic quality"),
        ("Consistency: 1\nConsistency: 2\nRealism: 1\nAesthetic Quality: 1", "Consistency is scored twice"),
        ("I cannot evaluate", "there is no score"),
    ],
)
def test_strict_parsing_refuses(text: str, reason: str) -> None:
    with pytest.raises(UnparsedAnswer, match=reason):
        wise.parse_scores(text)


@pytest.mark.parametrize(("text", "verdict"), [("1", 1), (" 0.\n", 0), ("**Score:** 1", 1)])
def test_verdicts(text: str, verdict: int) -> None:
    assert wise.parse_verdict(text) == verdict


@pytest.mark.parametrize("text", ["", "2", "10", "1 0", "yes"])
def test_verdicts_that_are_none(text: str) -> None:
    with pytest.raises(UnparsedAnswer, match="neither 0 nor 1"):
        wise.parse_verdict(text)


def test_the_form_that_is_asked_for_can_be_read() -> None:
    form = wise.judge_text(ITEM).rsplit("\n\n", 1)[1].partition(":\n")[2].replace("N", "1")
    assert set(wise.parse_scores(form).values()) == {1.0}
    for text in (wise.judge_text(ITEM), wise.verdict_text(ITEM)):
        assert ITEM.prompt in text and ITEM.explanation in text


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
@pytest.mark.parametrize(
    ("name", "edition", "rewritten"),
    [
        ("legacy", "legacy", False),
        ("legacy", "legacy", True),
        ("bagel_final_data_with_hint.json", "legacy", False),
        ("verified", "verified", False),
        ("verified/merge.json", "verified", False),
    ],
)
def test_official_files(name: str, edition: Any, rewritten: bool) -> None:
    items = wise.read_items(DATA / name, edition, rewritten)
    assert [item.id for item in items] == list(range(1, 1001))
    names = {"Cultural knowledge": "culture", "Physical Knowledge": "physics", "Ecology": "biology"}
    for file in [DATA / name] if name.endswith(".json") else sorted((DATA / name).glob("*.json")):
        for row in json.loads(file.read_text(encoding="utf-8")):
            assert items[row["prompt_id"] - 1].category == names.get(row["Category"], row["Category"].lower())


def write(folder: Path, **changes: Any) -> Path:
    for first, name in zip((1, 401, 641), FILES, strict=True):
        row = {"Prompt": "a cake ", "Explanation": "a pastry", "Subcategory": "Festival", "prompt_id": first}
        (folder / f"{name}_verified.json").write_text(json.dumps([row | changes]), encoding="utf-8")
    return folder


def test_items_of_files(tmp_path: Path) -> None:
    items = wise.read_items(write(tmp_path), "verified")
    assert [(i.id, i.category, i.prompt) for i in items] == [
        (1, "culture", "a cake"),
        (401, "time", "a cake"),
        (641, "biology", "a cake"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Explanation": ""}, r"cultural_common_sense_verified.json\[0\]: 'Explanation' is '', not a text"),
        ({"prompt_id": 1001}, r"verified.json\[0\]: 'prompt_id' is 1001, not a number of 1 to 1000"),
        ({"prompt_id": 5}, r"reasoning_verified.json\[0\]: 'prompt_id' 5 occurs twice"),
    ],
)
def test_bad_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wise.read_items(write(tmp_path, **changes), "verified")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cultural_common_sense_rewrite.json is missing: the legacy edition"):
        wise.read_items(tmp_path, "legacy", rewritten=True)
