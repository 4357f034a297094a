"""The folder that `python -m project generate` writes: pictures and `trajectories.jsonl`, or `answers.jsonl`.

A row is written as soon as what it speaks of is there, so a command that ends in the middle loses nothing that was
made; `finished_trajectories` and `finished_answers` count what the same command need not make again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from project.core.atomic_files import write_atomically
from project.core.json_files import append_row, read_rows
from project.inference.generation import GenerationSettings, Made
from project.inference.refinement import strip
from project.trajectory import Prompt

TRAJECTORIES = "trajectories.jsonl"
ANSWERS = "answers.jsonl"


def write_trajectories(folder: Path, made: Iterable[Made], settings: GenerationSettings, after: int = 0) -> int:
    """`0000.png ...` and their rows, behind the first `after` rows, which stay. Returns how many were written.

    The other rows of an earlier command go first: they would speak of pictures that are being replaced.
    With refinement also `0000_round0.png ...`, the picture of every round, and `0000_strip.png`, all side by side.

    Raises OSError naming the file that cannot be written.
    """
    _keep(folder / TRAJECTORIES, after)
    written = 0
    for one in made:
        append_row(folder / TRAJECTORIES, _saved(folder, after + written, one, settings))
        written += 1
    return written


def write_answers(folder: Path, answers: Iterable[tuple[Prompt, str]], after: int = 0) -> int:
    """The rows of `answers.jsonl` behind the first `after`, which stay. Returns how many were written."""
    _keep(folder / ANSWERS, after)
    written = 0
    for prompt, text in answers:
        append_row(folder / ANSWERS, {**_question(prompt), "answer": text})
        written += 1
    return written


def finished_trajectories(folder: Path, prompts: Sequence[Prompt], settings: GenerationSettings) -> int:
    """How many of the prompts, from the first on, have a whole row and its picture.

    Raises ValueError (file:line) for a row of another prompt, seed or setting.
    """
    rows = _whole_rows(folder / TRAJECTORIES)
    rounds = settings.refinement.rounds
    for number, (prompt, (place, row)) in enumerate(zip(prompts, rows, strict=False)):
        _check(place, row, _asked(number, prompt, settings))
        said = row.get("rounds", [])
        if (rounds and not said) or not (folder / row["file"]).is_file():
            return number
        if len(said) != (rounds + 1 if rounds else 0):
            raise ValueError(f"{place}: has {len(said)} round(s): {GO_ON}")
    return min(len(rows), len(prompts))


def finished_answers(folder: Path, questions: Sequence[Prompt]) -> int:
    """How many of the questions, from the first on, have an answer. Raises ValueError for rows of other questions."""
    rows = _whole_rows(folder / ANSWERS)
    for prompt, (place, row) in zip(questions, rows, strict=False):
        _check(place, row, _question(prompt))
    return min(len(rows), len(questions))


GO_ON = "resume with the very command that wrote it, or leave out --resume to begin anew"


def _check(place: str, row: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name, value in json.loads(json.dumps(asked)).items():
        if row.get(name) != value:
            raise ValueError(f"{place}: its {name!r} is {row.get(name)!r}, not {value!r}: {GO_ON}")


def _saved(folder: Path, number: int, one: Made, settings: GenerationSettings) -> dict[str, Any]:
    """Writes the pictures of a prompt; its row."""
    row = _asked(number, one.prompt, settings) | {"reasoning": one.reasoning or ""}
    _write_picture(folder / row["file"], one.image)
    rounds = []
    for place, round in enumerate(one.rounds):
        file = f"{number:04d}_round{place}.png"
        _write_picture(folder / file, round.image)
        text = round.text if place else None
        rounds.append({"file": file, "reflection": text, "score": round.score, "kept": round.kept})
    if rounds:
        _write_picture(folder / f"{number:04d}_strip.png", strip(one.rounds))
    return row | ({"rounds": rounds} if settings.refinement.rounds else {})


def _asked(number: int, prompt: Prompt, settings: GenerationSettings) -> dict[str, Any]:
    """What a row says of what was asked for."""
    refinement = settings.refinement
    return {
        "file": f"{number:04d}.png",
        "prompt": prompt.text,
        "image": prompt.image,
        **({"gate": refinement.gate, "wording": refinement.wording} if refinement.rounds else {}),
        "seed": settings.seed,
        "settings": {
            "think": settings.think,
            **asdict(settings.defaults),
            "guidance": asdict(settings.drawing if prompt.image is None else settings.editing),
        },
    }


def _question(prompt: Prompt) -> dict[str, Any]:
    return {"question": prompt.text, "image": prompt.image}


def _write_picture(file: Path, image: Image.Image) -> None:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    write_atomically(file, stream.getvalue())


def _whole_rows(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """(place, row) up to the first that is none: the last one of a command that was killed may be half written."""

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            yield from read_rows(file)
        except ValueError:
            return

    return list(rows()) if file.is_file() else []


def _keep(file: Path, number: int) -> None:
    """Leaves the first rows of a file; none, no file."""
    if number:
        write_atomically(file, "".join(f"{json.dumps(row)}\n" for _, row in _whole_rows(file)[:number]))
    else:
        file.unlink(missing_ok=True)
