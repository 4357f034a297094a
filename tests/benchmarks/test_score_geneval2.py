"""`python -m project score --benchmark geneval2`: probabilities of expected answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.__main__ import main
from project.benchmarks import geneval2
from tests.helpers.chat_server import ChatServer
from tests.helpers.score_runs import contents, grey, results, rows_of, save, served, write_rows
from tests.helpers.tiny_benchmarks import write_geneval2

Start = Callable[..., ChatServer]
SCORES = {"00000": (0.4,), "00001": (0.48, 0.48), "00002": (0.0, 0.56)}
"""By the rule below: the server gives all spellings of yes 0.8 of a confidence, and no number a probability."""


def rule(image: np.ndarray, text: str) -> float:
    return 0.5 + float(image.flat[0]) / 1000


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_geneval2(tmp_path)
    for n in range(3):
        save(grey(100 * n), tmp_path / f"pictures/{n:05d}.png")
    return tmp_path


def run(world: Path, out: str, judge: list[str], *more: str, pictures: str = "pictures") -> int:
    words = ["--items", str(world / "geneval2_data.jsonl"), "--pictures", str(world / pictures)]
    return main(["score", "--benchmark", "geneval2", *words, "--out", str(world / out), *judge, *more])


def judge_of(server: ChatServer, **settings: Any) -> list[str]:
    return served("OpenAIShortAnswerJudge", server, **settings)


def test_it_is_scored_as_by_hand(world: Path, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    assert run(world, "out", judge_of(start(rule=rule))) == 0
    prompts = geneval2.read_prompts(world / "geneval2_data.jsonl").prompts
    rows = [geneval2.AtomScores(prompt=name, scores=scores) for name, scores in SCORES.items()]
    found = results(world / "out")
    for mode in ("official", "strict"):
        scores = geneval2.score(rows, prompts, mode)
        assert found[mode] == scores.figures() and found["overall"] == scores.gm
    assert found["overall"] == pytest.approx((0.4 + 0.48 + 0) / 3)
    assert {row["id"]: tuple(row["probabilities"]) for row in rows_of(world / "out")} == SCORES
    report = (world / "out/report.md").read_text()
    assert "| soft-TIFA GM " in report and "| count (AM) " in report and "2 atoms (GM)" in report
    assert "geneval2_data.jsonl has SHA-256" in caplog.text and "09233adbc9f8 (geneval2_data" in caplog.text


def test_a_json_file_of_paths_and_short_names(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judge_of(start(rule=rule))
    assert run(world, "whole", judge) == 0
    prompts = ["a cat", "a red cat", "two cats"]
    for n in range(3):
        save(grey(100 * n), world / f"named/{prompts[n]}.png")
        save(grey(100 * n), world / f"short/{n:04d}.png" if n else world / "short/0.png")
    assert run(world, "short_out", judge, pictures="short") == 0
    monkeypatch.chdir(world)
    paths = {"a cat": "a cat.png", "a red cat": "named/a red cat.png", "two cats": str(world / "named/two cats.png")}
    (world / "paths.json").write_text(json.dumps(paths))
    assert run(world, "out", judge, "--paths", "paths.json", pictures="named") == 0
    for out in ("short_out", "out"):
        assert results(world / out)["official"] == results(world / "whole")["official"]
    assert [row["picture"] for row in rows_of(world / "out")] == [f"{prompt}.png" for prompt in prompts]
    (world / "paths.json").write_text(json.dumps({"a cat": "a cat.png", "a red cat": "gone.png"}))
    assert run(world, "less", judge, "--paths", "paths.json", pictures="named") == 1
    assert results(world / "less")["pictures"]["missing"] == {
        "00001/0": ["gone.png"],
        "00002/0": ["no path of the prompt in paths.json"],
    }
    (world / "paths.json").write_text(json.dumps({"a cat": str(world / "pictures/00000.png")}))
    assert run(world, "outside", judge, "--paths", "paths.json", pictures="named") == 1
    assert "give a folder of pictures that holds all" in capsys.readouterr().err


def test_a_judge_without_log_probabilities_is_told_before_the_work(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(script=lambda n, body: "no log-probs")
    assert run(world, "out", judge_of(server, retries=0)) == 1
    assert "log-probabilities" in capsys.readouterr().err
    assert len(server.bodies) == 1 and not (world / "out").exists()


def test_a_judge_of_another_kind(world: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "out", served("OpenAIFreeTextJudge", start())) == 2
    assert "project.judges.OpenAIFreeTextJudge is no ShortAnswerJudge: name a class that is" in capsys.readouterr().err
    assert not (world / "out").exists()


def test_a_question_without_a_probability_leaves_its_prompt_unjudged(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(number: int, body: dict[str, Any]) -> Any:
        refused = broken and "Is the cat red?" in json.dumps(body)
        return (400, {"error": {"message": "content policy"}}) if refused else None

    broken = False
    server = start(rule=rule, script=script)
    judge = judge_of(server, retries=0)
    assert run(world, "whole", judge) == 0
    broken = True
    assert run(world, "out", judge) == 1
    told = capsys.readouterr().err
    assert "2 of 3 items scored; missing: 00001" in told
    assert "Is the cat red?" in results(world / "out")["pictures"]["not_judged"]["00001/0"]
    assert results(world / "out")["strict"]["gm"] is None
    assert results(world / "out")["official"]["gm"] == pytest.approx(0.2)
    broken = False
    assert run(world, "out", judge) == 0
    assert contents(world / "out") == contents(world / "whole")


def test_files_that_hold_no_prompts(world: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(world / "geneval2_data.jsonl", [])
    assert run(world, "out", judge_of(start())) == 1
    assert "geneval2_data.jsonl holds no prompt" in capsys.readouterr().err
    (world / "geneval2_data.jsonl").unlink()
    assert run(world, "out", judge_of(start())) == 1
    assert "take geneval2_data.jsonl from https://github.com/facebookresearch/GenEval2" in capsys.readouterr().err
