"""`python -m project score --benchmark wise`: both editions, judged in free text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.__main__ import main
from project.benchmarks import wise
from project.benchmarks.asking import ATTEMPTS
from tests.helpers.chat_server import ChatServer, asked, shown
from tests.helpers.score_runs import contents, grey, results, rows_of, save, served
from tests.helpers.tiny_benchmarks import write_wise, written

Start = Callable[..., ChatServer]
NUMBERS = [number for numbers in wise.RANGES["legacy"].values() for number in numbers[:2]]
LEVELS = {number: 7 * n for n, number in enumerate(NUMBERS)}
PROSE = "A fine picture, I would say."


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Items of the legacy edition, and a picture of each, of a level of grey of its own."""
    write_wise(tmp_path / "data")
    for number, level in LEVELS.items():
        save(grey(level), tmp_path / f"pictures/{number}.png")
    return tmp_path


def run(world: Path, out: str, judge: list[str], *more: str, items: str = "data", pictures: str = "pictures") -> int:
    words = ["--items", str(world / items), "--pictures", str(world / pictures), "--out", str(world / out)]
    return main(["score", "--benchmark", "wise", *words, *judge, *more])


def judge_of(server: ChatServer, **settings: Any) -> list[str]:
    return served("OpenAIFreeTextJudge", server, **settings)


def test_the_legacy_edition_is_scored_as_by_hand(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run(world, "out", judge_of(start(writer=written))) == 0
    records = [
        wise.WISERecord(id=number, **wise.parse_scores(written([grey(level)], "Consistency:")))
        for number, level in LEVELS.items()
    ]
    found = results(world / "out")
    for mode in ("official", "strict"):
        scores = wise.score_legacy(records, mode, expected=NUMBERS)
        assert found[mode] == scores.figures() and scores.overall is not None
    assert found["overall"] == scores.overall and 0.2 < scores.overall < 0.8
    assert found["pictures"] == {"asked": 12, "judged": 12, "missing": {}, "not_judged": {}}
    assert found["manifest"]["edition"] == "legacy"
    assert found["manifest"]["protocol"] == "wise-legacy-1, read strictly, at most 3 attempts"
    row = rows_of(world / "out")[1]
    assert (row["id"], row["picture"], row["consistency"], row["realism"], row["aesthetic_quality"]) == (
        "2", "2.png", 1.0, 2.0, 0.0,
    )  # fmt: skip
    assert row["texts"] == ["Consistency: 1\nRealism: 2\nAesthetic Quality: 0"]
    assert "12 of 12 items scored" in capsys.readouterr().out
    (warning,) = [record.getMessage() for record in caplog.records if "digest" in record.getMessage()]
    assert "wise_legacy: 12 items" in warning and "(as published)" in warning and "(rewritten)" in warning


def test_the_verified_edition_in_every_layout(world: Path, start: Start) -> None:
    merged: list[Any] = []
    for file in sorted(write_wise(world / "verified", "verified").glob("*.json")):
        merged += json.loads(file.read_text())
    (world / "merge.json").write_text(json.dumps(merged))
    of_category = {number: name for name, numbers in wise.RANGES["verified"].items() for number in numbers[:2]}
    of_file = {kind: name for name, kinds in wise.FILES.items() for kind in kinds}
    for n, (number, category) in enumerate(of_category.items()):
        for place in (f"flat/{number}", f"categories/{category}/{number}", f"files/{of_file[category]}/{number}"):
            save(grey(n), world / f"{place}.png")
    judge = judge_of(start(writer=written))
    layouts = {"flat": "merge.json", "categories": "verified", "files": "verified"}
    for pictures, items in layouts.items():
        assert run(world, f"{pictures}_out", judge, "--edition", "verified", items=items, pictures=pictures) == 0
        found = results(world / f"{pictures}_out")
        assert found["strict"]["category"] == dict.fromkeys(wise.CATEGORIES, 0.5) and found["overall"] == 0.5
    assert [row["score"] for row in rows_of(world / "flat_out")] == [0, 1] * 6


def test_one_file_alone_has_categories_and_no_overall_score(world: Path, start: Start) -> None:
    assert run(world, "out", judge_of(start(writer=written)), items="data/natural_science.json") == 0
    found = results(world / "out")
    assert found["overall"] is None and found["coverage"]["strict"]["expected"] == 6
    assert set(found["official"]["category"]) == {"biology", "physics", "chemistry"}


def test_a_judge_that_writes_prose_is_asked_a_bounded_number_of_times(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = {7: ATTEMPTS, 14: 1, 21: ATTEMPTS}
    """Level -> attempts that are prose."""

    def writer(pictures: list[np.ndarray], text: str, attempt: int) -> str:
        prose = bool(pictures) and attempt < strange.get(int(pictures[0].flat[0]), 0)
        return PROSE if prose else written(pictures, text)

    server = start(writer=writer)
    assert run(world, "out", judge_of(server)) == 1
    levels = [int(shown(body)[0][0].flat[0]) for body in server.bodies if "Consistency" in shown(body)[1]]
    assert [levels.count(level) for level in (7, 14, 21, 28)] == [ATTEMPTS, 2, ATTEMPTS, 1]
    reasons = results(world / "out")["pictures"]["not_judged"]
    assert set(reasons) == {"2/0", "402/0"} and PROSE in reasons["2/0"]
    assert "10 of 12 items scored; missing: 2, 402" in capsys.readouterr().err
    assert results(world / "out")["strict"]["category"]["culture"] == 0.0, "the figures of what is there, and no guess"
    assert results(world / "out")["official"]["overall"] is None, "the official scorer ends without figures"
    strange, before = {21: ATTEMPTS}, len(server.bodies)
    assert run(world, "out", judge_of(server), "--allow-missing") == 0
    again = {int(shown(body)[0][0].flat[0]) for body in server.bodies[before:] if "Consistency" in shown(body)[1]}
    assert again == {7, 21}, "nothing else is asked again"
    strange = {}
    assert run(world, "out", judge_of(server)) == run(world, "whole", judge_of(server)) == 0
    assert contents(world / "out") == contents(world / "whole")


def test_a_judge_that_goes_away_costs_nothing_that_was_judged(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(writer=written)
    judge = judge_of(server, patience=0.3, probe_seconds=0.05, retries=0, timeout=1, breaker_failures=1)
    server.script = lambda n, body: server.kill() if n == 7 else None  # type: ignore[func-returns-value]
    assert run(world, "out", judge, "--batch-size", "2") == 1
    assert "give the same command again to judge the rest" in capsys.readouterr().err
    kept = rows_of(world / "out")
    assert 2 <= len(kept) < 12
    server.script = lambda n, body: None
    server.start()
    assert run(world, "out", judge) == run(world, "whole", judge) == 0
    assert all(row in rows_of(world / "out") for row in kept)
    assert contents(world / "out") == contents(world / "whole")


def test_missing_pictures_and_names_with_zeros(world: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "pictures/402.png").rename(world / "pictures/0402.png")
    assert run(world, "out", judge_of(start(writer=written))) == 1
    assert "11 of 12 items scored; missing: 402" in capsys.readouterr().err
    tried = results(world / "out")["pictures"]["missing"]["402/0"]
    assert tried == ["402", "spatio-temporal_reasoning/402", "time/402"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--judge", "project.judges.OpenAIJudge"], "project.judges.OpenAIJudge is no FreeTextJudge: name a class"),
        ([], "--judge must be given"),
        (["--edition", "final"], "edition is 'final': give one of 'legacy', 'verified'"),
        (["--edition", "verified"], "cultural_common_sense_verified.json is missing"),
        (["--edition", "verified", "--rewritten", "true"], "there for the legacy edition alone"),
        (["--rewritten", "true"], "cultural_common_sense_rewrite.json is missing"),
        (["--samples", "4"], "unknown option --samples"),
    ],
)
def test_what_cannot_be_is_one_message(
    world: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    judge = ["--judge", "project.judges.OpenAIFreeTextJudge"]
    server = ["--judge.server.base_url", "http://localhost:1/v1", "--judge.server.model", "none"]
    given = [*options, *(server if "--judge" in options else [] if not options else [*judge, *server])]
    assert run(world, "out", [], *given) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (world / "out").exists()


def test_items_that_occur_twice_or_are_none(world: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    judge = judge_of(start(writer=written))
    rows = json.loads((world / "data/natural_science.json").read_text())
    (world / "twice.json").write_text(json.dumps([*rows, rows[0]]))
    assert run(world, "out", judge, items="twice.json") == 1
    assert "twice.json[6]: 'prompt_id' 701 occurs twice: keep one of the rows" in capsys.readouterr().err
    (world / "none.json").write_text("[]")
    assert run(world, "out", judge, items="none.json") == 1
    assert "holds no items" in capsys.readouterr().err


def test_a_folder_holds_the_rows_of_one_edition(world: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    judge = judge_of(start(writer=written))
    assert run(world, "out", judge) == 0
    write_wise(world / "data", "verified")
    shutil.copytree(world / "pictures", world / "verified_pictures")
    assert run(world, "out", judge, "--edition", "verified") == 1
    assert "edition 'legacy', not 'verified'" in capsys.readouterr().err


def test_the_judge_sees_the_picture_and_what_it_must_show(world: Path, start: Start) -> None:
    server = start(writer=written)
    assert run(world, "out", judge_of(server), "--limit", "1") == 0
    image, text = asked(server.bodies[-1])
    assert np.array_equal(image, grey(0)) and "what comes to mind at 1" in text and "the number 1" in text
