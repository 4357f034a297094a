"""The folder that `python -m project generate` writes: pictures and `trajectories.jsonl`, or `answers.jsonl`.

A row is written as soon as what it speaks of is there, so a command that ends in the middle loses nothing that was
made; `finished_trajectories` and `finished_answers` tell what the same command need not make again.

The pictures of prompt 7 are `0007.png`, and further ones of the same prompt `0007_1.png`, `0007_2.png` ... With
refinement `0007_round0.png` ... are the pictures of every round, and `0007_strip.png` shows them side by side.
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
from project.core.growing_rows import Row, whole_rows, write_sorted
from project.core.json_files import append_row
from project.inference.generation import GenerationSettings, Made, Place
from project.inference.refinement import strip
from project.trajectory import Prompt

TRAJECTORIES = "trajectories.jsonl"
ANSWERS = "answers.jsonl"


def write_rows(file: Path, rows: Iterable[tuple[Place, Row]], kept: Mapping[Place, Row]) -> int:
    """Adds rows to a file that holds those of `kept` first; in the end all are in order. Returns how many were added.

    Other rows of an earlier command go first: they would speak of pictures that are being replaced.

    Raises OSError naming the file that cannot be written.
    """
    write_sorted(file, kept)
    written = dict(kept)
    for place, row in rows:
        append_row(file, row)
        written[place] = row
    if list(written) != sorted(written):
        write_sorted(file, written)
    return len(written) - len(kept)


def saved_trajectories(folder: Path, made: Iterable[Made], settings: GenerationSettings) -> Iterator[tuple[Place, Row]]:
    """Writes the pictures; the row of each, which is not written. Raises OSError naming the file."""
    for one in made:
        yield one.place, _saved(folder, name_of(one.place), one, settings)


def answer_rows(questions: Sequence[Prompt], answers: Iterable[tuple[Place, str]]) -> Iterator[tuple[Place, Row]]:
    """The row of each answer."""
    for place, text in answers:
        yield place, {**_question(place, questions[place.prompt]), "answer": text}


def finished_trajectories(
    folder: Path, prompts: Sequence[Prompt], settings: GenerationSettings, places: Sequence[Place]
) -> dict[Place, Row]:
    """Which of the pictures at `places` have a whole row and are there.

    Raises ValueError (file:line) for a row of another prompt, seed or setting, or of a picture that is not asked for.
    """
    asked = {f"{name_of(place)}.png": place for place in places}
    rounds = settings.refinement.rounds
    finished = {}
    for line, row in whole_rows(folder / TRAJECTORIES):
        place = asked.get(str(row.get("file")))
        if place is None:
            raise ValueError(f"{line}: {row.get('file')!r} is not among what is asked for: {GO_ON}")
        _check(line, row, _asked(name_of(place), prompts[place.prompt], settings))
        said = row.get("rounds", [])
        if (rounds and not said) or not (folder / row["file"]).is_file():
            continue
        if len(said) != (rounds + 1 if rounds else 0):
            raise ValueError(f"{line}: has {len(said)} round(s): {GO_ON}")
        finished[place] = row
    return finished


def finished_answers(folder: Path, questions: Sequence[Prompt]) -> dict[Place, Row]:
    """The questions that have an answer. Raises ValueError (file:line) for rows of other questions."""
    finished = {}
    for line, row in whole_rows(folder / ANSWERS):
        number = row.get("number")
        if not isinstance(number, int) or not 0 <= number < len(questions):
            raise ValueError(f"{line}: its 'number' is {number!r}, which is not among what is asked for: {GO_ON}")
        place = Place(number)
        _check(line, row, _question(place, questions[number]))
        finished[place] = row
    return finished


def name_of(place: Place) -> str:
    """Of the files of a picture, without what follows it."""
    return f"{place.prompt:04d}" + (f"_{place.sample}" if place.sample else "")


GO_ON = "resume with the very command that wrote it, or leave out --resume to begin anew"


def _check(place: str, row: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name, value in json.loads(json.dumps(asked)).items():
        if row.get(name) != value:
            raise ValueError(f"{place}: its {name!r} is {row.get(name)!r}, not {value!r}: {GO_ON}")


def _saved(folder: Path, name: str, one: Made, settings: GenerationSettings) -> Row:
    """Writes a picture and those of its rounds; its row."""
    row = _asked(name, one.prompt, settings) | {"sample": one.place.sample, "reasoning": one.reasoning or ""}
    _write_picture(folder / row["file"], one.image)
    rounds = []
    for place, round in enumerate(one.rounds):
        file = f"{name}_round{place}.png"
        _write_picture(folder / file, round.image)
        text = round.text if place else None
        rounds.append({"file": file, "reflection": text, "score": round.score, "kept": round.kept})
    if rounds:
        _write_picture(folder / f"{name}_strip.png", strip(one.rounds))
    return row | ({"rounds": rounds} if settings.refinement.rounds else {})


def _asked(name: str, prompt: Prompt, settings: GenerationSettings) -> Row:
    """What a row says of what was asked for."""
    refinement = settings.refinement
    return {
        "file": f"{name}.png",
        "prompt": prompt.text,
        "image": prompt.image,
        **({"gate": refinement.gate, "wording": refinement.wording} if refinement.rounds else {}),
        "seed": settings.seed,
        "settings": {
            "think": settings.think,
            "dtype": settings.dtype,
            **asdict(settings.defaults),
            "guidance": asdict(settings.drawing if prompt.image is None else settings.editing),
        },
    }


def _question(place: Place, prompt: Prompt) -> Row:
    return {"number": place.prompt, "question": prompt.text, "image": prompt.image}


def _write_picture(file: Path, image: Image.Image) -> None:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    write_atomically(file, stream.getvalue())
