"""TIIF-Bench: files, parsing and scores; the official scorer's own inputs and outputs (`--golden`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from project.benchmarks import tiif
from project.benchmarks.scoring import UnparsedAnswer
from project.benchmarks.tiif import ATTRIBUTES, GROUPS, LENGTHS, TYPES, TIIFItem, TIIFRecord
from tests.helpers import ROOT
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401

DATA = (ROOT / "../shared/benchmarks/tiif").resolve()
NAMES = {
    **{f"Basic_{name} - {name}": name for name in GROUPS["Basic"]},
    **{f"Advanced_{name} - {name}": name for name in GROUPS["Advanced"]},
    "Real_Complex - Complex": "Complex",
}
"""Column of the official table -> attribute."""
GROUP_NAMES = {f"{name.replace(' ', '_')}_Following_Overall - Overall": name for name in GROUPS}
OVERALL = "Overall average score of 9 sub-attributes"


def item(kind: str = "text", line: int = 0, length: Any = "short", expected: tuple[str, ...] = ("yes",)) -> TIIFItem:
    questions = tuple(f"is it {n} ?" for n in range(len(expected)))
    return TIIFItem(
        id=f"{kind}/{line}/{length}", type=kind, length=length, prompt="a cat", questions=questions, expected=expected
    )


def judged(records: Mapping[str, Any]) -> tuple[list[TIIFItem], list[TIIFRecord]]:
    items, answers = [], []
    for kind, by_length in records.items():
        for length, rows in by_length.items():
            for line, row in enumerate(rows):
                items.append(item(kind, line, length, tuple(row["gt"])))
                answers.append(TIIFRecord(id=items[-1].id, answers=tuple(row["pred"])))
    return items, answers


def check_summary(case: Mapping[str, Any]) -> None:
    expected = case["expected"]
    assert set(expected["groups"]) == {*NAMES, *GROUP_NAMES, OVERALL}
    for model, records in case["records"].items():
        scores = tiif.score(*judged(records), "official")
        for kind in TYPES:
            wanted = expected["per_type_rounded4"][model].get(kind, {})
            assert scores.types[kind] == {length: wanted.get(length) for length in LENGTHS}, kind
        assert scores.mean_accuracy == expected["mean_accuracy_column"][model]
        for column, name in NAMES.items():
            assert scores.attributes[name] == expected["groups"][column][model], name
        for column, name in GROUP_NAMES.items():
            assert scores.groups[name] == expected["groups"][column][model], name
        assert scores.overall == expected["groups"][OVERALL][model]


def test_official_parsing(golden_tiif_parse: Mapping[str, Any]) -> None:
    text, number = golden_tiif_parse["model_output"], golden_tiif_parse["n_questions"]
    expected = golden_tiif_parse["expected"]
    if "error" in expected:
        with pytest.raises(UnparsedAnswer) as error:
            tiif.parse_answers(text, number, "official")
        found, wanted = (int(word) for word in expected["message"].split() if word.isdigit())
        assert error.value.reason == f"{found} answers to {wanted} questions"
    else:
        assert list(tiif.parse_answers(text, number, "official")) == expected["preds"]


def test_official_summary(golden_tiif_summary: Mapping[str, Any]) -> None:
    check_summary(golden_tiif_summary)


def test_official_summary_of_a_model(golden_tiif_summary_real: Mapping[str, Any]) -> None:
    check_summary(golden_tiif_summary_real)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
@pytest.mark.parametrize("judge", ["GPT-4o", "QwenVL"])
def test_official_means_of_published_accuracies(judge: str) -> None:
    file = DATA / "published_testmini_results_25_models.json"
    published = json.loads(file.read_text(encoding="utf-8"))[judge]
    coverage = tiif.Coverage(expected=0)
    for model, types in published["per_type_rounded4"].items():
        exact = {kind: {length: types[kind][length] for length in LENGTHS} for kind in TYPES}
        scores = tiif._averaged(exact, "official", coverage)
        groups = published["groups"]
        assert {n: scores.attributes[n] for n in ATTRIBUTES} == {n: groups[c][model] for c, n in NAMES.items()}
        assert {n: scores.groups[n] for n in GROUPS} == {n: groups[c][model] for c, n in GROUP_NAMES.items()}
        assert scores.overall == groups[OVERALL][model]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
def test_testmini() -> None:
    items = tiif.read_items(DATA / "testmini_prompts", DATA / "testmini_eval_prompts")
    assert len(items) == 2 * 277
    assert {item.type for item in items} == set(TYPES)
    assert sum(len(item.questions) for item in items if item.length == "short") == 1446
    right = [TIIFRecord(id=item.id, answers=item.expected) for item in items]
    for mode in ("official", "strict"):
        scores = tiif.score(items, right, mode)
        assert scores.overall == {"short": 1.0, "long": 1.0} and scores.coverage.complete


def test_nine_attributes_of_39_types() -> None:
    assert len(ATTRIBUTES) == 9 and len(TYPES) == len(set(TYPES)) == 39
    assert sorted(ATTRIBUTES) == sorted(name for names in GROUPS.values() for name in names)


def test_strict_rounds_nothing() -> None:
    items = [item(kind, 0, length, ("yes", "yes", "yes")) for kind in TYPES for length in LENGTHS]
    records = [TIIFRecord(id=i.id, answers=("yes", "No ", "no")) for i in items]
    assert tiif.score(items, records, "official").overall == {"short": 0.3333, "long": 0.3333}
    strict = tiif.score(items, records, "strict")
    assert strict.overall == pytest.approx({"short": 1 / 3, "long": 1 / 3}, abs=1e-12)
    assert strict.mean_accuracy == pytest.approx(1 / 3, abs=1e-12)


def test_the_official_mean_of_all_types_is_rounded_once() -> None:
    items = [item(expected=("yes",) * 3), item(length="long", expected=("yes",) * 1250)]
    right = {"short": 1, "long": 571}
    records = [
        TIIFRecord(id=i.id, answers=("yes",) * right[i.length] + ("no",) * (len(i.expected) - right[i.length]))
        for i in items
    ]
    scores = tiif.score(items, records, "official")
    assert scores.types["text"] == {"short": 0.3333, "long": 0.4568}
    assert scores.mean_accuracy == 0.3951, "the mean of the rounded ones is 0.39505, and rounded 0.395"


def test_strict_gives_no_mean_of_fewer_types() -> None:
    items = [item(kind, 0, "short") for kind in TYPES]
    records = [TIIFRecord(id=i.id, answers=("yes",)) for i in items if i.type not in ("style", "color+2d")]
    official, strict = (tiif.score(items, records, mode) for mode in ("official", "strict"))
    assert official.overall["short"] == 1.0 and official.attributes["Attribute+Relation"]["short"] == 1.0
    assert strict.overall["short"] is None and strict.attributes["Attribute+Relation"]["short"] is None
    assert strict.groups["Advanced"]["short"] is None and strict.groups["Basic"]["short"] == 1.0
    for scores in (official, strict):
        assert scores.coverage.missing == ("color+2d/0/short", "style/0/short")


def test_strict_does_not_pair_too_few_answers() -> None:
    items = [item(expected=("yes", "no"))]
    records = [TIIFRecord(id="text/0/short", answers=("yes",))]
    official, strict = (tiif.score(items, records, mode) for mode in ("official", "strict"))
    assert official.types["text"]["short"] == 1.0
    assert official.coverage.dropped == (("text/0/short", "1 answers to 2 questions"),)
    assert strict.types["text"]["short"] is None and strict.coverage.missing == ("text/0/short",)


def test_records_must_belong_to_the_items() -> None:
    record = TIIFRecord(id="text/0/short", answers=("yes",))
    with pytest.raises(ValueError, match="records occur more than once: text/0/short"):
        tiif.score([item()], [record, record], "strict")
    with pytest.raises(ValueError, match="no items of this benchmark: text/0/short"):
        tiif.score([item("style")], [record], "strict")


@pytest.mark.parametrize(
    ("text", "number", "answers"),
    [("Yes.\n\nNO", 2, ("yes", "no")), ("1. yes\n2) no\n", 2, ("yes", "no")), ("**no**, it is not", 1, ("no",))],
)
def test_strict_parsing(text: str, number: int, answers: tuple[str, ...]) -> None:
    assert tiif.parse_answers(text, number, "strict") == answers


@pytest.mark.parametrize(
    ("text", "number", "reason"),
    [
        ("no\nextra commentary line\nyes it is", 2, "does not say yes or no"),
        ("Yesterday it\nno", 1, "does not say yes or no"),
        ("2. yes\n1. no", 2, "answer 1 has the number 2"),
        ("yes\nno", 1, "2 answers to 1 questions"),
        ("", 1, "0 answers to 1 questions"),
    ],
)
def test_strict_parsing_refuses(text: str, number: int, reason: str) -> None:
    with pytest.raises(UnparsedAnswer, match=reason):
        tiif.parse_answers(text, number, "strict")


def test_the_judge_gets_every_question_and_the_form() -> None:
    text = tiif.judge_text(item(expected=("yes", "no")))
    assert "1. is it 0 ?\n2. is it 1 ?" in text and "Write 2 lines" in text
    assert "Write 1 line," in tiif.judge_text(item())


def test_table() -> None:
    rows = tiif.score([item()], [TIIFRecord(id="text/0/short", answers=("no",))], "official").table()
    assert rows[:2] == [("", "short", "long"), ("overall", "0.00", "-")]
    assert ("  Text Generation", "0.00", "-") in rows and len(rows) == 2 + 3 + 9


def write(folder: Path, kind: str = "text", **changes: Any) -> tuple[Path, Path]:
    row = {"type": kind, "short_description": "a cat", "long_description": "a big cat"}
    asked = {"type": kind, "yn_question_list": ["a cat? ", "big?"], "yn_answer_list": ["Yes", "no"]}
    row |= {key: value for key, value in changes.items() if key in row}
    asked |= {key: value for key, value in changes.items() if key in asked and key != "type"}
    prompts, questions = folder / "testmini_prompts", folder / "testmini_eval_prompts"
    for place, name, content in ((prompts, "prompts", row), (questions, "eval_prompts", asked)):
        place.mkdir()
        (place / f"{kind}_{name}.jsonl").write_text(json.dumps(content) + "\n", encoding="utf-8")
    return prompts, questions


def test_items_of_files(tmp_path: Path) -> None:
    short, long = tiif.read_items(*write(tmp_path))
    assert (short.id, short.prompt, short.questions) == ("text/0/short", "a cat", ("a cat?", "big?"))
    assert (long.id, long.prompt, long.expected) == ("text/0/long", "a big cat", ("Yes", "no"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "txt"}, r"'txt' is no type of TIIF-Bench"),
        ({"type": "style"}, r"text_prompts.jsonl:1: 'type' is 'style', not 'text'"),
        ({"yn_answer_list": ["yes"]}, r"text_eval_prompts.jsonl:1: has 2 questions and 1 answers"),
        ({"yn_answer_list": ["yes", "maybe"]}, r"text_eval_prompts.jsonl:1: .* holds 'maybe', neither yes nor no"),
        ({"yn_question_list": "a cat?"}, r"text_eval_prompts.jsonl:1: 'yn_question_list' is 'a cat\?', not a list"),
        ({"long_description": " "}, r"text_prompts.jsonl:1: 'long_description' is ' ', not a text"),
    ],
)
def test_bad_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiif.read_items(*write(tmp_path, **changes))


def test_files_that_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    prompts, questions = write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no TYPE_prompts\.jsonl"):
        tiif.read_items(tmp_path, questions)
    with (prompts / "text_prompts.jsonl").open("a", encoding="utf-8") as stream:
        stream.write((prompts / "text_prompts.jsonl").read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match=r"has 1 lines and .* has 2"):
        tiif.read_items(prompts, questions)
    (questions / "text_eval_prompts.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"text_eval_prompts\.jsonl is missing"):
        tiif.read_items(prompts, questions)
