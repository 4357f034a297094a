"""`python -m project score --benchmark tiif` by a judge that gets all questions of a picture in one text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.__main__ import main
from project.benchmarks import tiif
from project.benchmarks.pictures.tiif import TIIFPictures
from project.judges.openai.free_text_judge import OpenAIFreeTextJudge
from tests.helpers.chat_server import ChatServer, client, shown
from tests.helpers.score_runs import contents, grey, results, rows_of, save, served
from tests.helpers.tiny_benchmarks import write_tiif, written

Start = Callable[..., ChatServer]


@pytest.fixture
def items(tmp_path: Path) -> tuple[tiif.TIIFItem, ...]:
    """The items of tmp_path/data; their pictures, of a level of grey each, lie in tmp_path/output."""
    write_tiif(tmp_path / "data")
    found = tiif.read_items(tmp_path / "data/testmini_prompts", tmp_path / "data/testmini_eval_prompts")
    for n, item in enumerate(found):
        kind, line, length = item.id.split("/")
        save(grey(n), tmp_path / f"output/{kind}/{length}_description/{line}.png")
    return found


def run(folder: Path, out: str, judge: list[str], *more: str) -> int:
    words = ["--items", str(folder / "data"), "--pictures", str(folder / "output"), "--out", str(folder / out)]
    return main(["score", "--benchmark", "tiif", *words, *judge, *more])


def test_rows_hold_words_and_figures_are_those_of_the_words(
    tmp_path: Path, items: tuple[tiif.TIIFItem, ...], start: Start
) -> None:
    server = start(writer=written)
    assert run(tmp_path, "out", served("OpenAIFreeTextJudge", server)) == 0
    answers = [tuple(written([grey(n)], tiif.judge_text(item)).split()) for n, item in enumerate(items)]
    assert len(set(answers)) == 3
    records = [tiif.TIIFRecord(id=item.id, answers=given) for item, given in zip(items, answers, strict=True)]
    found = results(tmp_path / "out")
    for mode in ("official", "strict"):
        assert found[mode] == tiif.score(items, records, mode).figures()
    assert [tuple(row["answers"]) for row in rows_of(tmp_path / "out")] == answers
    assert found["manifest"]["protocol"] == "all questions in one text: tiif-1, read strictly, at most 3 attempts"
    assert len(server.bodies) == 1 + len(items), "a request for each picture"


def test_one_folder_holds_one_protocol(
    tmp_path: Path, items: tuple[tiif.TIIFItem, ...], start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(writer=written)
    assert run(tmp_path, "out", served("OpenAIFreeTextJudge", server)) == 0
    assert run(tmp_path, "out", served("OpenAIJudge", server)) == 1
    assert "protocol 'all questions in one text" in (told := capsys.readouterr().err) and "not 'one question" in told


def test_a_line_without_an_answer_gives_no_answers_to_other_questions(
    tmp_path: Path, items: tuple[tiif.TIIFItem, ...], start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    def writer(pictures: list[np.ndarray], text: str, attempt: int) -> str:
        said = written(pictures, text)
        return f"Let me see.\n{said}" if broken and pictures and pictures[0].flat[0] == 2 else said

    broken = True
    server = start(writer=writer)
    judge = served("OpenAIFreeTextJudge", server)
    assert run(tmp_path, "out", judge) == 1
    reasons = results(tmp_path / "out")["pictures"]["not_judged"]
    assert (
        set(reasons) == {f"{items[2].id}/0"} and "'Let me see.' does not say yes or no" in reasons[f"{items[2].id}/0"]
    )
    assert f"7 of 8 items scored; missing: {items[2].id}" in capsys.readouterr().err
    broken, before = False, len(server.bodies)
    assert run(tmp_path, "out", judge) == 0
    about = [shown(body)[0][0].flat[0] for body in server.bodies[before:] if "Look closely" in shown(body)[1]]
    assert about == [2]
    assert run(tmp_path, "whole", judge) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_worth_is_the_share_of_right_answers(items: tuple[tiif.TIIFItem, ...]) -> None:
    benchmark = TIIFPictures(client(OpenAIFreeTextJudge, "http://localhost:1/v1"))
    rows: list[dict[str, Any]] = [{"answers": ["yes", "yes", "yes"]}, {"confidences": [0.9, 0.1, 0.7]}]
    assert items[0].expected == ("yes", "no", "yes")
    assert [benchmark.worth(items[0], row) for row in rows] == [pytest.approx(2 / 3), 1.0]
    assert benchmark.told(items[0], rows[0])[1] == "yes   Is it a dog?  (wrong)"
    assert benchmark.told(items[0], rows[1])[1] == "0.10  Is it a dog?"
