"""`python -m project decompose` as a user runs it, killed and resumed, and what bad input says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from project.__main__ import main
from project.data.prompts import read_prompts
from project.shapes.decomposer import ShapesDecomposer
from tests.helpers import ROOT

SHAPES = ["--decomposer", "project.shapes.decomposer.ShapesDecomposer"]
COLOURS, FORMS = ("red", "green", "blue", "yellow", "purple", "black"), ("circle", "square", "star", "ring", "cross")


def fifty() -> list[str]:
    """50 prompts of the embedded world; one is there twice, one cannot be decomposed."""
    prompts = [f"a {size} {colour} {form}" for size in ("small", "large") for colour in COLOURS for form in FORMS]
    return [*prompts[:48], prompts[3], "a photo of a cat"]


def llm(url: str, **settings: Any) -> list[str]:
    options = ["--decomposer", "project.decomposition.llm.LLMDecomposer"]
    options += ["--decomposer.client", "project.decomposition.openai_client.OpenAIChat"]
    client = {"base_url": url, "model": "tiny-llm", "probe_seconds": 0.05, **settings}
    return [*options, *(f"--decomposer.client.server.{name}={value}" for name, value in client.items())]


def decompose(file: Path, output: Path, *options: str) -> int:
    return main(["decompose", "--input", str(file), "--output", str(output), *options])


def refuse_cats(stage: str, prompt: str, attempt: int) -> str | None:
    return "I would rather not." if "cat" in prompt else None


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_embedded_world_keeps_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "some.jsonl"
    lines = (ROOT / "data/shapes/train.jsonl").read_text().splitlines(keepends=True)[:40]
    source.write_text("".join(lines))
    output = tmp_path / "deep" / "train.jsonl"
    assert decompose(source, output, *SHAPES) == 0
    assert read_prompts(output) == read_prompts(source)
    first = rows(output)[0]
    assert first["semantic_questions"][1] == {
        "question_type": "semantic", "question": "is the circle black ?", "is_valid": True, "tag": "Attribute",
        "depends_on": [0],
    }  # fmt: skip
    assert not (tmp_path / "deep/train.jsonl.partial").exists() and not (tmp_path / "deep/train.invalid.jsonl").exists()
    shown = capsys.readouterr().out
    assert "40 of 40 prompts decomposed by project.shapes.decomposer.ShapesDecomposer" in shown
    figures = json.loads((tmp_path / "deep/train.summary.json").read_text())
    prompts = read_prompts(source)
    counts = [sum(q.kind == "semantic" for q in prompt.questions) for prompt in prompts]
    assert figures["questions_per_prompt"]["semantic"] == {
        "mean": sum(counts) / 40, "least": min(counts), "most": max(counts)
    }  # fmt: skip
    assert figures["tags"]["quality"] == {"Geometry": 40, "Coherence": 40}
    # what exists is never written over
    assert decompose(source, output, *SHAPES) == 1
    assert "exists: give another name" in capsys.readouterr().err


def test_killed_in_the_middle_and_resumed(start: Any, tmp_path: Path) -> None:
    """No row lost, none doubled, nothing asked twice but what was at work when the axe fell."""
    server = start(mischief=refuse_cats, seconds=0.05)
    source, output = tmp_path / "prompts.txt", tmp_path / "train.jsonl"
    source.write_text("\n".join(fifty()) + "\n")
    journal = tmp_path / "train.jsonl.partial"
    options = [*llm(server.url), "--decomposer.again=1", "--concurrency=4"]
    command = [sys.executable, "-m", "project", "decompose", "--input", str(source), "--output", str(output), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 15):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read().decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    settled = journal.read_bytes().count(b"\n") - 1
    assert 15 <= settled < 45 and not output.exists()
    with journal.open("ab") as stream:
        stream.write(b'{"id": "torn", "prompt": "a r')
    asked = len(server.requests)
    server.seconds = 0.0
    assert main([*command[3:]]) == 0
    first = [prompt for stage, prompt, attempt in server.requests if stage == "decompose" and attempt == 0]
    assert 50 <= len(first) <= 54, "at most the four at work when it was killed are asked about again"
    assert len(server.requests) - asked <= 3 * (50 - settled) + 2
    prompts, found = fifty(), rows(output)
    assert [row["prompt"] for row in found] == prompts[:49], "all rows, in the input's order"
    assert [row["original_index"] for row in found] == list(range(49))
    assert [row["id"] for row in found] == [prompt.id for prompt in read_prompts(source)[:49]]
    for prompt in read_prompts(output):
        assert prompt.questions == ShapesDecomposer().decompose(prompt.text)
    (invalid,) = rows(tmp_path / "train.invalid.jsonl")
    assert invalid["prompt"] == "a photo of a cat" and invalid["place"] == f"{source}:50"
    assert "no JSON object in 'I would rather not.'" in invalid["reason"]
    assert not journal.exists()
    figures = json.loads((tmp_path / "train.summary.json").read_text())
    assert (figures["prompts"], figures["written"], figures["invalid"]) == (50, 49, 1)


def test_prompts_that_could_not_be_asked_about_stay_open(
    start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(
        mischief=lambda stage, prompt, attempt: (429, {"error": {"message": "slow"}}) if "blue" in prompt else None
    )
    source, output = tmp_path / "p.txt", tmp_path / "t.jsonl"
    source.write_text("a red circle\na blue circle\na green star\n")
    assert decompose(source, output, *llm(server.url, retries=0)) == 1
    assert f"1 of 3 prompts could not be asked about (the first: {source}:2: rate_limit: 429: slow)" in caplog.text
    assert not output.exists()
    server.mischief = lambda *_: None
    server.requests.clear()
    assert decompose(source, output, *llm(server.url)) == 0
    assert {prompt for _, prompt, _ in server.requests} == {"a blue circle"}
    assert [row["prompt"] for row in rows(output)] == source.read_text().splitlines()


def test_servers_that_die_end_it_and_the_same_command_goes_on(start: Any, tmp_path: Path) -> None:
    server = start()
    server.dies_after = 20
    source, output = tmp_path / "p.txt", tmp_path / "t.jsonl"
    source.write_text("\n".join(fifty()[:30]))
    settings = {"retries": 0, "breaker_failures": 1, "patience": 0.2}
    assert decompose(source, output, *llm(server.url, **settings), "--concurrency=3") == 1
    done = (tmp_path / "t.jsonl.partial").read_bytes().count(b"\n") - 1
    assert 4 <= done <= 6
    server.dies_after = None
    assert decompose(source, output, *llm(server.url)) == 0
    assert [row["prompt"] for row in rows(output)] == fifty()[:30]


def test_begun_work_is_gone_on_with_by_the_same_decomposer_only(
    start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(mischief=lambda stage, prompt, attempt: (429, {}) if "blue" in prompt else None)
    source, output = tmp_path / "p.txt", tmp_path / "t.jsonl"
    source.write_text("a red circle\na blue circle\n")
    assert decompose(source, output, *llm(server.url, retries=0)) == 1
    assert decompose(source, output, *SHAPES) == 1
    assert "was begun with llm:openai:tiny-llm:prompts-1, not with project.shapes.decomposer" in capsys.readouterr().err
    (tmp_path / "t.jsonl.partial").write_text('{"no": "journal"}\n')
    assert decompose(source, output, *SHAPES) == 1
    assert "is no journal of begun work" in capsys.readouterr().err
    # a journal that was torn in its first line holds nothing
    (tmp_path / "t.jsonl.partial").write_text('{"decomp')
    assert decompose(source, output, *SHAPES) == 0
    assert len(rows(output)) == 2


def test_a_changed_prompt_of_the_same_id_is_asked_about_again(start: Any, tmp_path: Path) -> None:
    server = start(mischief=lambda stage, prompt, attempt: (429, {}) if "blue" in prompt else None)
    source, output = tmp_path / "p.jsonl", tmp_path / "t.jsonl"
    source.write_text('{"id": "a", "prompt": "a red circle"}\n{"id": "b", "prompt": "a blue circle"}\n')
    assert decompose(source, output, *llm(server.url, retries=0)) == 1
    source.write_text('{"id": "a", "prompt": "a red star"}\n{"id": "b", "prompt": "a green circle"}\n')
    assert decompose(source, output, *llm(server.url)) == 0
    assert [row["semantic_questions"][0]["question"] for row in rows(output)] == [
        "is there a star ?",
        "is there a circle ?",
    ]


def test_pictures_and_columns_travel_along(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/cat.png").write_bytes(b"")
    source = tmp_path / "in/p.jsonl"
    source.write_text(
        json.dumps({"prompt": "a red circle", "image": "cat.png", "author": "Zoë", "original_index": 9}) + "\n"
    )
    output = tmp_path / "out/t.jsonl"
    assert decompose(source, output, *SHAPES) == 0
    (prompt,) = read_prompts(output)
    assert Path(prompt.image).samefile(tmp_path / "in/cat.png")
    assert prompt.columns == {"author": "Zoë", "original_index": 9} and prompt.id == read_prompts(source)[0].id


def test_invalid_prompts_are_an_input_once_corrected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, output = tmp_path / "p.txt", tmp_path / "t.jsonl"
    source.write_text("a red circle\na cat\n")
    assert decompose(source, output, *SHAPES) == 0
    assert (
        f"1 of 2 prompts were left out, see {tmp_path}/t.invalid.jsonl (the first: {source}:2: 'a cat' is no"
        in caplog.text
    )
    invalid = tmp_path / "t.invalid.jsonl"
    invalid.write_text(invalid.read_text().replace('"a cat"', '"a blue star"'))
    assert decompose(invalid, tmp_path / "rest.jsonl", *SHAPES) == 0
    (row,) = rows(tmp_path / "rest.jsonl")
    assert row["prompt"] == "a blue star" and row["original_index"] == 1


def test_no_valid_prompt_at_all_is_a_failure(tmp_path: Path) -> None:
    source, output = tmp_path / "p.txt", tmp_path / "t.jsonl"
    source.write_text("a cat\n")
    assert decompose(source, output, *SHAPES) == 1
    assert not output.exists() and len(rows(tmp_path / "t.invalid.jsonl")) == 1


BAD_REPLIES = {
    "no_json": ("Sure, here you are!", "there is no JSON object in 'Sure, here you are!'"),
    "cut_off": ('{"questions": [{"id": 1, "quest', "the JSON is broken"),
    "empty": ('{"questions": []}', "the list 'questions' is empty"),
    "untagged": ('{"questions": [{"id": 1, "question": "Is it?"}]}', "'Is it?' has no tag: choose of Style,"),
}


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_bad_replies_are_named_with_file_and_line(case: str, start: Any, tmp_path: Path) -> None:
    reply, reason = BAD_REPLIES[case]
    server = start(mischief=lambda stage, prompt, attempt: reply if "blue" in prompt else None)
    source, output = tmp_path / "p.txt", tmp_path / "t.jsonl"
    source.write_text("a red circle\n\na blue circle\n")
    assert decompose(source, output, *llm(server.url), "--decomposer.again=0") == 0
    (invalid,) = rows(tmp_path / "t.invalid.jsonl")
    assert invalid["place"] == f"{source}:3" and reason in invalid["reason"]


BAD_INPUT = {
    "not_utf8": (b"a red circle\na bl\xfce circle\n", [], "p.txt:2: is not UTF-8 text (byte 4): convert the file"),
    "empty": (b"\n", [], "p.txt: holds no prompt"),
    "output": (b"a\n", ["--output", "t.csv"], "--output t.csv: give a name that ends with .jsonl"),
    "concurrency": (b"a\n", ["--concurrency", "0"], "--concurrency 0: give at least 1"),
    "class": (
        b"a\n",
        ["--decomposer", "project.shapes.decomposer.ShapeDecomposer"],
        "did you mean 'ShapesDecomposer'",
    ),
    "no_server": (b"a\n", llm("http://127.0.0.1:1/v1"), "nothing answers there"),
    "no_address": (b"a\n", llm("localhost"), "base_url='localhost' is no address"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_named(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, options, message = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_bytes(content)
    assert main(["decompose", "--input", "p.txt", "--output", "t.jsonl", *SHAPES, *options]) != 0
    assert message in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p.txt"], "nothing is left behind"
