"""`python -m project generate` on several devices, with several pictures of a prompt, and in another type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from project.__main__ import main

PROMPTS = ["a red circle", "two blue squares", "a moss coloured star"]
ONE_BY_ONE = ("--batch-size", "1")
"""Batches of one are the same whoever draws them; in other batches numbers are rounded otherwise."""


def draw(folder: Path, out: str, *more: str) -> dict[str, bytes]:
    """Name -> bytes of what the command writes."""
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    files = ["--checkpoint", "data/shapes/umm", "--prompts", str(folder / "prompts.txt"), "--out", str(folder / out)]
    assert main(["generate", *files, "--num-steps", "4", *more]) == 0
    return contents(folder / out)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trajectories.jsonl").read_text().splitlines()]


def levels(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / name)).astype(int)


@pytest.fixture(scope="module")
def three_each(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Three pictures of each prompt, drawn one by one in this process."""
    folder = tmp_path_factory.mktemp("generate")
    return folder, draw(folder, "three", "--num-images", "3", *ONE_BY_ONE)


def test_the_first_of_several_pictures_is_the_only_one(three_each: tuple[Path, dict[str, bytes]]) -> None:
    folder, three = three_each
    one = draw(folder, "one", *ONE_BY_ONE)
    pictures = [f"{n:04d}{sample}.png" for n in range(3) for sample in ("", "_1", "_2")]
    assert list(three) == [*pictures, "trajectories.jsonl"]
    assert {name: three[name] for name in one if name.endswith("png")} == {
        name: content for name, content in one.items() if name.endswith("png")
    }
    assert len({three[name] for name in pictures}) == 9, "each has noise of its own"
    listed = rows(folder / "three")
    assert [row["file"] for row in listed] == pictures and [row["sample"] for row in listed] == [0, 1, 2] * 3
    assert [row for row in listed if row["sample"] == 0] == rows(folder / "one")


def test_two_processes_write_what_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """First the judge of one of them dies, which ends the command; it costs no picture, and the rest is made later."""
    asked = [{"question": "is there a circle ?", "tag": "Existence"}]
    lines = [json.dumps({"prompt": prompt, "semantic_questions": asked}) for prompt in PROMPTS]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    command = ["generate", "--checkpoint", "data/shapes/umm", "--prompts", str(tmp_path / "prompts.jsonl")]
    command += ["--num-steps", "3", "--max-tokens", "4", "--num-images", "2", *ONE_BY_ONE]
    command += ["--rounds", "1", "--gate", "judge", "--judge", "tests.helpers.mortal_judge.MortalJudge"]
    two = [*command, "--device", "cpu,cpu", "--out", str(tmp_path / "two")]
    assert main([*two, "--judge.calls", "3"]) == 1
    said = capsys.readouterr().err
    assert "answers no longer: start it again" in said and "--resume" in said and "Traceback" not in said
    before = rows(tmp_path / "two")
    assert before and all((tmp_path / "two" / row["file"]).is_file() for row in before)
    assert main([*two, "--judge.calls", "99", "--resume"]) == 0
    assert main([*command, "--out", str(tmp_path / "one"), "--judge.calls", "99"]) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_what_is_drawn_together_matters_to_rounding_only(three_each: tuple[Path, dict[str, bytes]]) -> None:
    folder, _ = three_each
    draw(folder, "together", "--num-images", "3")
    assert rows(folder / "together") == rows(folder / "three"), "the reasoning among other things"
    for row in rows(folder / "three"):
        pair = [levels(folder / out, row["file"]) for out in ("three", "together")]
        assert np.abs(pair[0] - pair[1]).max() <= 1, row["file"]


def test_bf16_draws_nearly_the_same(tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        draw(tmp_path, dtype, "--dtype", dtype, "--no-think")
    wide, narrow = ([levels(tmp_path / out, f"{n:04d}.png") for n in range(3)] for out in ("float32", "bfloat16"))
    for one, other in zip(wide, narrow, strict=True):
        assert 0 < np.abs(one - other).mean() < 2
    assert np.abs(wide[0] - wide[1]).mean() > 4, "two prompts differ by more"
    assert [rows(tmp_path / out)[0]["settings"]["dtype"] for out in ("float32", "bfloat16")] == ["float32", "bfloat16"]


def test_temperature_reaches_the_reasoning(tmp_path: Path) -> None:
    for out, more in {
        "zero": ["--temperature", "0", "--seed", "1"],
        "seeded": ["--temperature", "0", "--seed", "2"],
        "hot": ["--temperature", "30", "--top-p", "1"],
    }.items():
        draw(tmp_path, out, *more)
    zero, seeded, hot = ([row["reasoning"] for row in rows(tmp_path / out)] for out in ("zero", "seeded", "hot"))
    assert zero == seeded and not set(zero) & set(hot)
    assert rows(tmp_path / "hot")[0]["settings"]["temperature"] == 30


def test_answers_go_on_from_those_that_are_there(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    asked = ["--ask", "--image", str(tmp_path / "red.png"), *ONE_BY_ONE]
    whole = draw(tmp_path, "answers", *asked)
    lines = whole["answers.jsonl"].splitlines(keepends=True)
    assert [json.loads(line)["question"] for line in lines] == PROMPTS
    (tmp_path / "answers/answers.jsonl").write_bytes(lines[2] + lines[0])
    assert draw(tmp_path, "answers", *asked, "--resume") == whole


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ask", "--num-images", "2"], "a question has one answer"),
        (["--num-images", "0"], "num_images = 0: give at least 1"),
        (["--device", "cpu,gpu"], "'gpu' is none: give cpu"),
    ],
)
def test_what_cannot_be_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square")
    files = ["--checkpoint", "data/shapes/umm", "--prompts", str(tmp_path / "prompts.txt")]
    assert main(["generate", *files, "--out", str(tmp_path / "out"), *more]) == 1
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and not (tmp_path / "out").exists()
