"""GenEval2: does a picture show every atom (object, count, attribute, position, verb) of its prompt? By soft-TIFA.

Source: https://github.com/facebookresearch/GenEval2.

**Data.** `geneval2_data.jsonl` of that repository: 800 prompts, 100 each of 3 to 10 atoms, one JSON object a line with
the prompt, its questions with the answers expected, and the skill that each question tests. `read_prompts` reads it.
The id of a prompt is its place in the file, in five digits. `atom_count` is what the authors say of a prompt; it may
have up to three questions more.

**Protocol.** One picture a prompt. A judge that sees pictures is asked each question. The score of a question is the
probability that it gives to the expected answer, over the spellings of that answer (`spellings`): "Yes", or a number
for "How many ...?".

**Metric.** Soft-TIFA of a prompt: the arithmetic mean (AM) or the geometric mean (GM) of its questions' scores; one
question of score 0 makes the GM 0. Overall AM and GM are means over prompts. Per skill: the mean over all questions of
that skill. Per atomicity: the mean GM over the prompts of an `atom_count`. All in percent.

**Modes.** The formulas are the same. `official` averages over the prompts that are there; `strict` gives a figure only
where every prompt that it needs was scored.

**Quirks.** One model's GenEval2 was reported from 7.9 to 20.4 by guidance, steps and size alone: state them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks.asking import Judged, Unjudged
from project.benchmarks.scoring import Coverage, Mode, mean, percent, require_known, require_unique
from project.benchmarks.versions import file_version
from project.core.json_files import read_rows
from project.judges.short_answers import ShortAnswer, ShortAnswerJudge, check_probabilities

PUBLISHED = {"09233adbc9f877fba205f1a20efa4a8640e7e62a91dfd55893562bed8a928e43": "geneval2_data.jsonl of GenEval2"}
DIGITS = {
    word: str(number)
    for number, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AtomQuestion:
    """A question about a picture, with the answer that its prompt asks for."""

    text: str
    answer: str
    skill: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AtomPrompt:
    """A prompt of GenEval2."""

    id: str
    prompt: str
    atom_count: int
    questions: tuple[AtomQuestion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AtomPrompts:
    """A file of prompts."""

    prompts: tuple[AtomPrompt, ...]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AtomScores:
    """What the judge said about one prompt's picture."""

    prompt: str
    """Id of the prompt."""
    scores: tuple[float, ...]
    """Probability of the expected answer to each of its questions, in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftTIFA:
    """The figures, shares of 1. One is None where prompts are missing that it needs: all of them (`strict`), or any."""

    mode: Mode
    gm: float | None
    am: float | None
    skills: Mapping[str, float | None]
    """Arithmetic mean by skill."""
    atomicity: Mapping[int, float | None]
    """Geometric mean by number of atoms."""
    coverage: Coverage

    def figures(self) -> dict[str, Any]:
        """Nested figures for logging, shares of 1; absent ones are None."""
        return {
            "gm": self.gm,
            "am": self.am,
            "skill": dict(self.skills),
            "atoms": {str(atoms): value for atoms, value in self.atomicity.items()},
        }

    def table(self) -> list[tuple[str, ...]]:
        """Rows of figure and score [%], the overall GM and AM first."""
        values = {
            "soft-TIFA GM": self.gm,
            "soft-TIFA AM": self.am,
            **{f"{skill} (AM)": value for skill, value in self.skills.items()},
            **{f"{atoms} atoms (GM)": value for atoms, value in self.atomicity.items()},
        }
        return [("", "score"), *((name, percent(value)) for name, value in values.items())]


def read_prompts(file: str | Path) -> AtomPrompts:
    """The prompts of a file such as `geneval2_data.jsonl`, in its order.

    Another version than the published one is warned of.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming file and line, for what is no prompt; for a file without prompts.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: take geneval2_data.jsonl from https://github.com/facebookresearch/GenEval2 and "
            "give its path"
        )
    prompts = tuple(_prompt(row, f"{n:05d}", place) for n, (place, row) in enumerate(read_rows(path)))
    if not prompts:
        raise ValueError(f"{path} holds no prompt: download it again")
    return AtomPrompts(prompts=prompts, sha256=file_version(path, PUBLISHED))


def spellings(answer: str) -> tuple[str, ...]:
    """Ways to write an answer, all of which mean it: in lower case, with a capital, and a number in digits."""
    word = answer.strip().lower()
    return tuple(dict.fromkeys((word, word.capitalize(), *([DIGITS[word]] if word in DIGITS else []))))


def ask(
    judge: ShortAnswerJudge, prompts: Sequence[AtomPrompt], pictures: Sequence[np.ndarray]
) -> list[Judged[AtomScores] | Unjudged]:
    """What a judge says of the picture of each prompt, uint8 [height, width, 3].

    A prompt is unjudged if one of its questions has no answer. Raises ValueError unless there is one picture a prompt,
    and JudgeUnavailable if the judge has stopped answering altogether.
    """
    asked = [
        [ShortAnswer(question=question.text, spellings=spellings(question.answer)) for question in prompt.questions]
        for prompt in prompts
    ]
    found = judge.probabilities(pictures, asked)
    check_probabilities(found, [len(row) for row in asked], judge.name, judge.probabilities)
    return [_outcome(judge.name, prompt, row) for prompt, row in zip(prompts, found, strict=True)]


def _outcome(judge: str, prompt: AtomPrompt, found: Sequence[float | None]) -> Judged[AtomScores] | Unjudged:
    known = tuple(value for value in found if value is not None)
    if len(known) == len(found):
        record = AtomScores(prompt=prompt.id, scores=known)
        return Judged(id=prompt.id, judge=judge, record=record, texts=(), attempts=1)
    open_questions = [asked.text for asked, value in zip(prompt.questions, found, strict=True) if value is None]
    return Unjudged(
        id=prompt.id,
        judge=judge,
        reason="unanswered",
        message=f"judge {judge} gives no probability to the answers of {open_questions}: see its failures in the log; "
        "a judge whose tokenizer does not know yes, no and the numbers as whole words cannot be used",
        texts=(),
        attempts=1,
    )


def geometric_mean(scores: Sequence[float]) -> float:
    """GM of the scores of a prompt, in [0, 1]; 0 if one of them is 0."""
    return math.prod(scores) ** (1 / len(scores))


def score(rows: Sequence[AtomScores], prompts: Sequence[AtomPrompt], mode: Mode) -> SoftTIFA:
    """The figures of a run.

    `official`: over the prompts that were scored; a skill or atomicity without any has no entry. `strict`: over all
    prompts; a figure of which a prompt is missing is None. Where nothing is missing both give the same.

    Args:
        rows: one for each prompt that was scored.
        prompts: of the whole benchmark.
        mode: see above.

    Raises:
        ValueError: for two rows of one prompt, a row of a prompt that is not there, two prompts of one id, and for
            scores that are not one probability a question.
    """
    given = {row.prompt: row.scores for row in rows}
    require_unique([prompt.id for prompt in prompts], "prompts of the benchmark")
    require_unique([row.prompt for row in rows], "scores of prompts")
    require_known(given, {prompt.id for prompt in prompts}, "scores of prompts")
    missing = tuple(prompt.id for prompt in prompts if prompt.id not in given)
    # What has no scores is a gap in `strict`, and as if it were not there in `official`.
    asked = [prompt for prompt in prompts if prompt.id in given or mode == "strict"]
    gm: list[float | None] = []
    am: list[float | None] = []
    skills: dict[str, list[float | None]] = {}
    atomicity: dict[int, list[float | None]] = {}
    for prompt in asked:
        scores = given.get(prompt.id)
        if scores is not None:
            _check(prompt, scores)
        gm.append(None if scores is None else geometric_mean(scores))
        am.append(None if scores is None else mean(scores))
        atomicity.setdefault(prompt.atom_count, []).append(gm[-1])
        for question, value in zip(prompt.questions, scores or [None] * len(prompt.questions), strict=True):
            skills.setdefault(question.skill, []).append(value)
    return SoftTIFA(
        mode=mode,
        gm=_whole_mean(gm),
        am=_whole_mean(am),
        skills={skill: _whole_mean(values) for skill, values in skills.items()},
        atomicity={atoms: _whole_mean(values) for atoms, values in sorted(atomicity.items())},
        coverage=Coverage(expected=len(prompts), missing=missing),
    )


def table(figures: SoftTIFA) -> str:
    """The figures in percent, one a line; a dash where there is none."""
    lines = [f"{name:<16} {value:>7}" for name, value in figures.table()[1:]]
    return "\n".join([*lines, f"({figures.mode}; {figures.coverage})"])


def _whole_mean(values: Sequence[float | None]) -> float | None:
    """The mean, None if a value is missing or there are none."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def _check(prompt: AtomPrompt, scores: Sequence[float]) -> None:
    if len(scores) != len(prompt.questions):
        raise ValueError(
            f"prompt {prompt.id} has {len(prompt.questions)} questions and {len(scores)} scores: leave the prompt out "
            "if the judge did not answer all of them"
        )
    if wrong := [value for value in scores if not 0 <= value <= 1]:
        raise ValueError(f"prompt {prompt.id}: score {wrong[0]} is no probability")


def _prompt(row: Mapping[str, Any], id: str, place: str) -> AtomPrompt:
    match row:
        case {"prompt": str(text), "atom_count": int(atoms), "vqa_list": [*asked], "skills": [*skills]} if (
            text.strip() and atoms > 0 and asked
        ):
            pass
        case _:
            raise ValueError(
                f"{place}: give prompt (a text), atom_count (a whole number), vqa_list ([question, answer] each) and "
                "skills (texts)"
            )
    if len(asked) != len(skills):
        raise ValueError(f"{place}: {len(asked)} questions and {len(skills)} skills: give one skill a question")
    questions = []
    for pair, skill in zip(asked, skills, strict=True):
        match pair, skill:
            case [str(question), str(answer)], str(name) if question.strip() and answer.strip() and name.strip():
                questions.append(AtomQuestion(text=question, answer=answer, skill=name))
            case _:
                raise ValueError(f"{place}: question {pair!r} of skill {skill!r}: give [question, answer], and a text")
    return AtomPrompt(id=id, prompt=text, atom_count=atoms, questions=tuple(questions))
