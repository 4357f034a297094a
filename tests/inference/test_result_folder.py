"""What `generate` writes: row by row, so that nothing that was made is lost, and the same command goes on."""

from __future__ import annotations

import json
import resource
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from project.__main__ import main
from project.inference.generation import Made, settings_for
from project.inference.refinement import Refinement, Round
from project.inference.result_folder import (
    finished_answers,
    finished_trajectories,
    write_answers,
    write_trajectories,
)
from project.models.base import Defaults
from project.trajectory import Prompt
from tests.helpers import ROOT

CASES = ROOT.parent / "shared" / "cases"
PROMPTS = [Prompt(id=str(n), text=f"prompt {n}") for n in range(4)]


def settings(**changes: Any) -> Any:
    return settings_for(types.SimpleNamespace(defaults=Defaults()), **changes)  # type: ignore[arg-type]


def made(*numbers: int, rounds: int = 0) -> Iterator[Made]:
    for n in numbers:
        image = Image.new("RGB", (4, 4), (n, n, n))
        path = tuple(Round(image=image, text=None) for _ in range(rounds + 1)) if rounds else ()
        yield Made(prompt=PROMPTS[n], image=image, reasoning=f"thought {n}", rounds=path)


def rows(folder: Path, name: str = "trajectories.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_rows_are_written_as_pictures_are_made(tmp_path: Path) -> None:
    def failing() -> Iterator[Made]:
        for one in made(0, 1):
            yield one
            assert [row["prompt"] for row in rows(tmp_path)][-1] == one.prompt.text
        raise ValueError("the third")

    with pytest.raises(ValueError, match="the third"):
        write_trajectories(tmp_path, failing(), settings())
    assert [row["file"] for row in rows(tmp_path)] == ["0000.png", "0001.png"]
    assert finished_trajectories(tmp_path, PROMPTS, settings()) == 2
    assert write_trajectories(tmp_path, made(2, 3), settings(), after=2) == 2
    assert [row["prompt"] for row in rows(tmp_path)] == [prompt.text for prompt in PROMPTS]
    assert Image.open(tmp_path / "0003.png").getpixel((0, 0)) == (3, 3, 3)
    assert finished_trajectories(tmp_path, PROMPTS, settings()) == 4


def test_rows_of_an_earlier_command_go_before_its_pictures_do(tmp_path: Path) -> None:
    write_trajectories(tmp_path, made(0), settings())

    def interrupted() -> Iterator[Made]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        write_trajectories(tmp_path, interrupted(), settings())
    assert [file.name for file in tmp_path.iterdir()] == ["0000.png"]


def test_a_torn_row_and_a_lost_picture_are_made_again(tmp_path: Path) -> None:
    write_trajectories(tmp_path, made(0, 1, 2), settings())
    with (tmp_path / "trajectories.jsonl").open("a") as stream:
        stream.write('{"file": "0003.png", "pro')
    assert finished_trajectories(tmp_path, PROMPTS, settings()) == 3
    (tmp_path / "0001.png").unlink()
    assert finished_trajectories(tmp_path, PROMPTS, settings()) == 1
    write_trajectories(tmp_path, made(1), settings(), after=1)
    assert [row["prompt"] for row in rows(tmp_path)] == ["prompt 0", "prompt 1"]


@pytest.mark.parametrize(
    ("changes", "name"), [({"seed": 1}, "seed"), ({"num_steps": 7}, "settings"), ({"think": False}, "settings")]
)
def test_another_command_does_not_go_on(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    write_trajectories(tmp_path, made(0, 1), settings())
    with pytest.raises(ValueError, match=rf"trajectories\.jsonl:1: its '{name}' is .*leave out --resume"):
        finished_trajectories(tmp_path, PROMPTS, settings(**changes))
    with pytest.raises(ValueError, match=r"trajectories\.jsonl:1: its 'prompt' is 'prompt 0', not 'prompt 1'"):
        finished_trajectories(tmp_path, PROMPTS[1:], settings())


def test_pictures_that_were_not_refined_are_not_finished(tmp_path: Path) -> None:
    refined = settings(refinement=Refinement(rounds=2))
    write_trajectories(tmp_path, made(0, rounds=2), refined)
    write_trajectories(tmp_path, made(1), refined, after=1)
    assert [len(row["rounds"]) for row in rows(tmp_path)] == [3, 0]
    assert finished_trajectories(tmp_path, PROMPTS, refined) == 1
    with pytest.raises(ValueError, match=r":1: has 3 round"):
        finished_trajectories(tmp_path, PROMPTS, settings(refinement=Refinement(rounds=1)))


def test_answers_are_written_as_they_are_given(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[Prompt, str]]:
        yield PROMPTS[0], "yes"
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        write_answers(tmp_path, failing())
    assert finished_answers(tmp_path, PROMPTS) == 1
    write_answers(tmp_path, [(PROMPTS[1], "no")], after=1)
    assert [row["answer"] for row in rows(tmp_path, "answers.jsonl")] == ["yes", "no"]
    with pytest.raises(ValueError, match="its 'question' is 'prompt 0'"):
        finished_answers(tmp_path, PROMPTS[1:])


def test_a_file_that_cannot_grow_is_named(tmp_path: Path) -> None:
    """As on a full disk: the system's own error names no file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"0000\.png"):
            write_trajectories(tmp_path, made(0), settings())
        with pytest.raises(OSError, match=r"answers\.jsonl"):
            write_answers(tmp_path, [(PROMPTS[0], "yes")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# --------------------------------------------------------------------- the command


def command(out: Path, prompts: Path, *more: str) -> list[str]:
    return [
        *("generate", "--checkpoint", "data/shapes/umm", "--prompts", str(prompts), "--out", str(out)),
        *("--num-steps", "3", "--max-tokens", "4", *more),
    ]


def judged(tmp_path: Path, number: int = 3) -> Path:
    asked = [{"question": "is there a circle ?", "tag": "Existence"}]
    lines = [json.dumps({"prompt": f"{n} red circle", "semantic_questions": asked}) for n in range(number)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    return tmp_path / "prompts.jsonl"


def test_a_judge_that_dies_costs_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = judged(tmp_path)
    more = ["--rounds", "1", "--gate", "judge", "--batch-size", "1"]
    judge = ["--judge", "tests.helpers.mortal_judge.MortalJudge", "--judge.calls"]
    out = tmp_path / "out"
    assert main(command(out, prompts, *more, *judge, "3")) == 1
    said = capsys.readouterr().err
    assert "answers no longer: start it again" in said and "--resume" in said and "Traceback" not in said
    # A picture takes one answer, and another one if it is drawn again: the first was refined, the last was not judged.
    *refined, last = [len(row["rounds"]) for row in rows(out)]
    assert set(refined) == {2} and last == 0 and (out / f"{len(refined):04d}.png").is_file()
    assert main(command(out, prompts, *more, *judge, "9", "--resume")) == 0
    assert [len(row["rounds"]) for row in rows(out)] == [2, 2, 2]
    assert main(command(tmp_path / "whole", prompts, *more, *judge, "9")) == 0
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (out / file.name).read_bytes(), file.name


def test_a_broken_picture_is_found_before_anything_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    lines = [json.dumps({"prompt": "a red circle", "image": f"{name}.png"}) for name in ("good", "bad")]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    assert main(command(out, tmp_path / "prompts.jsonl", "--batch-size", "1")) == 1
    assert "prompts.jsonl:2: " in (said := capsys.readouterr().err) and "bad.png is no picture" in said
    assert not out.exists()
    (tmp_path / "prompts.txt").write_text("a red circle")
    assert main(command(out, tmp_path / "prompts.txt", "--image", str(tmp_path / "bad.png"))) == 1
    assert f"error: {tmp_path}/bad.png is no picture" in capsys.readouterr().err


def test_a_picture_taken_upright_is_edited_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32), "red").save(tmp_path / "photo.jpg", exif=exif)
    (tmp_path / "prompts.txt").write_text("a red circle")
    out = tmp_path / "out"
    assert main(command(out, tmp_path / "prompts.txt", "--image", str(tmp_path / "photo.jpg"), "--no-think")) == 0
    edited = Image.open(out / "0000.png")
    assert (edited.height, edited.width) == (64, 32)


@pytest.mark.parametrize("name", ["edit_gray_last", "edit_exif"])
def test_the_pictures_that_people_have_are_edited(tmp_path: Path, name: str) -> None:
    prompts = CASES / "data" / f"{name}.jsonl"
    if not prompts.is_file():
        pytest.skip(f"no file {prompts}")
    assert main(command(tmp_path, prompts, "--batch-size", "1", "--no-think")) == 0
    assert len(rows(tmp_path)) == len(prompts.read_text().splitlines())
