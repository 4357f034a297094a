"""What `generate` writes: row by row, so that nothing that was made is lost, and the same command goes on."""

from __future__ import annotations

import json
import resource
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from project.__main__ import main
from project.inference.generation import Made, Place, places_of, settings_for
from project.inference.refinement import Refinement, Round
from project.inference.result_folder import (
    ANSWERS,
    TRAJECTORIES,
    Row,
    answer_rows,
    finished_answers,
    finished_trajectories,
    saved_trajectories,
    write_rows,
)
from project.models.base import Defaults
from project.trajectory import Prompt
from tests.helpers import ROOT

CASES = ROOT.parent / "shared" / "cases"
PROMPTS = [Prompt(id=str(n), text=f"prompt {n}") for n in range(4)]


def settings(**changes: Any) -> Any:
    return settings_for(types.SimpleNamespace(defaults=Defaults(), dtype=torch.float32), **changes)  # type: ignore[arg-type]


def made(*numbers: int, rounds: int = 0, samples: int = 1) -> Iterator[Made]:
    for n in numbers:
        for sample in range(samples):
            image = Image.new("RGB", (4, 4), (n, n, sample))
            path = tuple(Round(image=image, text=None) for _ in range(rounds + 1)) if rounds else ()
            yield Made(
                place=Place(n, sample), prompt=PROMPTS[n], image=image, reasoning=f"thought {n} {sample}", rounds=path
            )


def write(folder: Path, some: Iterable[Made], chosen: Any = None, kept: dict[Place, Row] | None = None) -> int:
    rows = saved_trajectories(folder, some, chosen or settings())
    return write_rows(folder / TRAJECTORIES, rows, kept or {})


def finished(folder: Path, chosen: Any = None, prompts: list[Prompt] = PROMPTS, samples: int = 1) -> dict[Place, Row]:
    return finished_trajectories(folder, prompts, chosen or settings(), places_of(prompts, samples))


def rows(folder: Path, name: str = "trajectories.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_rows_are_written_as_pictures_are_made(tmp_path: Path) -> None:
    def failing() -> Iterator[Made]:
        for one in made(0, 1):
            yield one
            assert [row["prompt"] for row in rows(tmp_path)][-1] == one.prompt.text
        raise ValueError("the third")

    with pytest.raises(ValueError, match="the third"):
        write(tmp_path, failing())
    assert [row["file"] for row in rows(tmp_path)] == ["0000.png", "0001.png"]
    kept = finished(tmp_path)
    assert list(kept) == [(0, 0), (1, 0)]
    assert write(tmp_path, made(2, 3), kept=kept) == 2
    assert [row["prompt"] for row in rows(tmp_path)] == [prompt.text for prompt in PROMPTS]
    assert Image.open(tmp_path / "0003.png").getpixel((0, 0)) == (3, 3, 0)
    assert len(finished(tmp_path)) == 4


def test_rows_of_an_earlier_command_go_before_its_pictures_do(tmp_path: Path) -> None:
    write(tmp_path, made(0))

    def interrupted() -> Iterator[Made]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, interrupted())
    assert [file.name for file in tmp_path.iterdir()] == ["0000.png"]


def test_a_torn_row_and_a_lost_picture_are_made_again(tmp_path: Path) -> None:
    write(tmp_path, made(0, 1, 2))
    whole = rows(tmp_path)
    with (tmp_path / "trajectories.jsonl").open("a") as stream:
        stream.write('{"file": "0003.png", "pro')
    assert list(finished(tmp_path)) == [(0, 0), (1, 0), (2, 0)]
    (tmp_path / "0001.png").unlink()
    kept = finished(tmp_path)
    assert list(kept) == [(0, 0), (2, 0)]
    assert write(tmp_path, made(1), kept=kept) == 1
    assert rows(tmp_path) == whole


def test_pictures_that_come_in_any_order_are_listed_in_theirs(tmp_path: Path) -> None:
    """As several processes make them; a crash leaves the rows as they came."""

    def failing() -> Iterator[Made]:
        yield from made(2, 0)
        raise ValueError("a crash")

    with pytest.raises(ValueError, match="a crash"):
        write(tmp_path, failing())
    assert [row["file"] for row in rows(tmp_path)] == ["0002.png", "0000.png"]
    write(tmp_path, made(3, 1), kept=finished(tmp_path))
    assert [row["prompt"] for row in rows(tmp_path)] == [prompt.text for prompt in PROMPTS]


def test_several_pictures_of_a_prompt_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, made(0, 1, samples=3))
    names = ["0000.png", "0000_1.png", "0000_2.png", "0001.png", "0001_1.png", "0001_2.png"]
    assert [(row["file"], row["sample"]) for row in rows(tmp_path)] == list(zip(names, [0, 1, 2] * 2, strict=True))
    assert sorted(file.name for file in tmp_path.glob("*.png")) == names
    assert Image.open(tmp_path / "0001_2.png").getpixel((0, 0)) == (1, 1, 2)
    (tmp_path / "0000_1.png").unlink()
    assert len(finished(tmp_path, samples=3)) == 5 and (0, 1) not in finished(tmp_path, samples=3)
    with pytest.raises(ValueError, match=r":2: '0000_1\.png' is not among what is asked for: resume with the very"):
        finished(tmp_path)


def test_a_command_for_more_pictures_goes_on_from_one_for_fewer(tmp_path: Path) -> None:
    write(tmp_path, made(0, 1))
    assert list(finished(tmp_path, samples=2)) == [(0, 0), (1, 0)]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"num_steps": 7}, "settings"),
        ({"think": False}, "settings"),
        ({"temperature": 0.0}, "settings"),
    ],
)
def test_another_command_does_not_go_on(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    write(tmp_path, made(0, 1))
    with pytest.raises(ValueError, match=rf"trajectories\.jsonl:1: its '{name}' is .*leave out --resume"):
        finished(tmp_path, settings(**changes))
    with pytest.raises(ValueError, match=r"trajectories\.jsonl:1: its 'prompt' is 'prompt 0', not 'prompt 1'"):
        finished(tmp_path, prompts=PROMPTS[1:])


def test_pictures_that_were_not_refined_are_not_finished(tmp_path: Path) -> None:
    refined = settings(refinement=Refinement(rounds=2))
    write(tmp_path, made(0, rounds=2), refined)
    write(tmp_path, made(1), refined, finished(tmp_path, refined))
    assert [len(row["rounds"]) for row in rows(tmp_path)] == [3, 0]
    assert list(finished(tmp_path, refined)) == [(0, 0)]
    with pytest.raises(ValueError, match=r":1: has 3 round"):
        finished(tmp_path, settings(refinement=Refinement(rounds=1)))


def test_answers_are_written_as_they_are_given(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[Place, str]]:
        yield Place(1), "no"
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        write_rows(tmp_path / ANSWERS, answer_rows(PROMPTS, failing()), {})
    kept = finished_answers(tmp_path, PROMPTS)
    assert list(kept) == [(1, 0)]
    write_rows(tmp_path / ANSWERS, answer_rows(PROMPTS, [(Place(0), "yes")]), kept)
    assert [(row["question"], row["answer"]) for row in rows(tmp_path, ANSWERS)] == [
        ("prompt 0", "yes"),
        ("prompt 1", "no"),
    ]
    with pytest.raises(ValueError, match="its 'question' is 'prompt 0'"):
        finished_answers(tmp_path, PROMPTS[1:])
    with pytest.raises(ValueError, match=r"answers\.jsonl:2: its 'number' is 1"):
        finished_answers(tmp_path, PROMPTS[:1])


def test_a_file_that_cannot_grow_is_named(tmp_path: Path) -> None:
    """As on a full disk: the system's own error names no file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"0000\.png"):
            write(tmp_path, made(0))
        with pytest.raises(OSError, match=r"answers\.jsonl"):
            write_rows(tmp_path / ANSWERS, answer_rows(PROMPTS, [(Place(0), "yes")]), {})
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
