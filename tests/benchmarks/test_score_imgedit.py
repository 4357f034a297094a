"""`python -m project score --benchmark imgedit`: edits scored in three respects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from project.__main__ import main
from project.benchmarks import imgedit
from tests.helpers.chat_server import ChatServer, shown
from tests.helpers.score_runs import contents, grey, results, rows_of, save, served
from tests.helpers.tiny_benchmarks import write_imgedit, written

Start = Callable[..., ChatServer]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Three edits, and what was made of them, of a level of grey each."""
    write_imgedit(tmp_path / "data")
    for n in range(3):
        save(grey(51 + n), tmp_path / f"edited/{100 + n}.png")
    return tmp_path


def run(world: Path, out: str, judge: list[str], *more: str) -> int:
    words = ["--items", str(world / "data/basic_edit.json"), "--pictures", str(world / "edited")]
    return main(["score", "--benchmark", "imgedit", *words, "--out", str(world / out), *judge, *more])


def judge_of(server: ChatServer) -> list[str]:
    return served("OpenAIFreeTextJudge", server)


def test_it_is_scored_as_by_hand(world: Path, start: Start) -> None:
    server = start(writer=written)
    assert run(world, "out", judge_of(server)) == 0
    types = {"100": "add", "101": "style", "102": "add"}
    texts = [written([grey(51 + n)], "Prompt Compliance:") for n in range(3)]
    records = [imgedit.ImgEditRecord(id=name, answer=text) for name, text in zip(types, texts, strict=True)]
    found = results(world / "out")
    for mode in ("official", "strict"):
        assert found[mode] == imgedit.score(types, records, mode).figures()
    assert found["overall"] == found["official"]["overall"] / 5 and found["official"] != found["strict"]
    assert [row["scores"] for row in rows_of(world / "out")] == [[2, 1, 3], [3, 2, 3], [4, 2, 3]]
    assert rows_of(world / "out")[0]["texts"] == texts[:1]
    asked = {int(shown(body)[0][1].flat[0]): shown(body) for body in server.bodies[1:]}
    (source, _), text = asked[52]
    assert np.array_equal(source, grey(1)) and "make it lighter by 1" in text and "'style'" in text


def test_scores_that_cannot_be_read_are_not_judged(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    def writer(pictures: list[np.ndarray], text: str, attempt: int) -> str:
        said = written(pictures, text)
        return said.rpartition("\n")[0] if broken and pictures and "Visual" in text else said

    broken = True
    server = start(writer=writer)
    assert run(world, "out", judge_of(server)) == 1
    assert "0 of 3 items scored; missing: 100, 101, 102" in capsys.readouterr().err
    assert "there are 2 scores, not 3" in results(world / "out")["pictures"]["not_judged"]["101/0"]
    broken = False
    assert run(world, "out", judge_of(server)) == run(world, "whole", judge_of(server)) == 0
    assert contents(world / "out") == contents(world / "whole")


def test_sources_elsewhere_and_what_is_missing(world: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    judge = judge_of(start(writer=written))
    shutil.move(world / "data/animal", world / "sources/animal")
    assert run(world, "out", judge) == 1
    assert "'100': the source picture " in (told := capsys.readouterr().err) and "Benchmark.tar" in told
    assert run(world, "out", judge, "--sources", str(world / "sources")) == 0
    (world / "sources/animal/2.png").write_bytes(b"no picture")
    assert run(world, "new", judge, "--sources", str(world / "sources")) == 1
    assert "102: " in (told := capsys.readouterr().err) and "is no picture that can be read" in told
    assert not (world / "new").exists()
    file = world / "data/basic_edit.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps({**rows, "101": {"id": "animal/1.png", "edit_type": "add"}}))
    assert run(world, "new", judge, "--sources", str(world / "sources")) == 1
    assert "basic_edit.json: '101': give 'edit_type', 'prompt' and 'id'" in capsys.readouterr().err
    file.write_text("{}")
    assert run(world, "new", judge) == 1
    assert "holds no items" in capsys.readouterr().err
