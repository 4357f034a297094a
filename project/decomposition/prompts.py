"""What a language model is told when it decomposes a prompt: three tasks, all answered in JSON.

    decompose   a text-to-image prompt -> semantic questions with tags and dependencies
    validate    prompt and questions -> three verdicts per question
    quality     prompt and questions -> how well the things asked for are drawn

Whoever changes a word raises `PROMPT_VERSION`: it is part of a decomposer's name, so that a file is never half made
with the old words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from project.decomposition.base import QUALITY_TAGS, SEMANTIC_TAGS
from project.trajectory import Question

PROMPT_VERSION = "1"

DECOMPOSE = f"""\
You prepare the examination of a text-to-image model. You are given the prompt of a picture. Write down everything \
that the prompt demands of the picture, as yes/no questions for an examiner who sees the picture but has never read \
the prompt.

Think of the prompt as a graph: the things that must be there, what each is like and how many there are, and how they \
stand to each other. Ask about every part of it once.

Rules
- One question, one fact. "Is there a red car?" is two facts: "Is there a car?", then "Is the car red?".
- "Yes" always means that the prompt is met, also for what the prompt forbids: "Is the picture free of people?".
- Ask only what the prompt says or necessarily implies. Invent nothing, however likely it is.
- Work out riddles and hints first: where the prompt describes a thing without naming it, ask about the thing meant.
- Each question is understood by itself, names what it is about, and can be answered by looking.
- depends_on: ids of the questions that need the answer "yes" before this one makes sense: "Is the car red?" depends \
on "Is there a car?".
- tag: exactly one of {", ".join(SEMANTIC_TAGS)}.
    Style: medium or manner. Environment: place, time of day, weather, background. Viewpoint: camera and framing.
    Existence: something is there. Count: how many. Attribute: colour, size, material, state, and the like.
    Action: what someone or something does. Spatial: how things stand to each other. Text: what is written.
    Negative: what must be absent.

Answer with one JSON object and nothing else:
{{"questions": [{{"id": 1, "question": "Is there a car?", "tag": "Existence", "depends_on": []}}, \
{{"id": 2, "question": "Is the car red?", "tag": "Attribute", "depends_on": [1]}}]}}"""

VALIDATE = """\
You check the questions of an examination. An examiner will answer them about a picture that a text-to-image model \
made for the prompt, without reading the prompt. Give three verdicts on every question:
- necessary: must the answer be "yes" for every picture that meets the prompt?
- invented: does it demand anything that the prompt neither says nor necessarily implies?
- unambiguous: is it one yes/no question with one meaning, which can be answered by looking at the picture?
Be strict, and name the fault in a few words where there is one.

Answer with one JSON object and nothing else, with one verdict per question:
{"verdicts": [{"id": 1, "necessary": true, "invented": false, "unambiguous": true, "reason": ""}]}"""

QUALITY = f"""\
You prepare the examination of a text-to-image model. You are given the prompt of a picture and the questions that \
are already asked about what it shows. Write the questions about how well it is drawn: where would a weak model fail \
at exactly these things?

Rules
- Phrase each so that "yes" is good: "Do the hands have five fingers each?", never "Are the hands deformed?".
- Ask about the things of the prompt, not about pictures in general. One or two questions for each thing that can be \
drawn well or badly; none about mere relations between things.
- One question, one fact, understood by itself, answered by looking. Do not repeat what is asked already.
- Judge by the style that the prompt wants: a cartoon needs no photographic texture.
- about: ids of the questions whose thing it is about.
- tag: exactly one of {", ".join(QUALITY_TAGS)}.
    Geometry: shape and proportion. Anatomy: bodies. Texture: surfaces. Coherence: parts and picture fit together.
    Lighting: light and shadow. Physics: weight, support, contact. Legibility: writing. Aesthetics: composition, colour.

Answer with one JSON object and nothing else:
{{"questions": [{{"id": 1, "question": "Are the wheels of the car round?", "tag": "Geometry", "about": [1]}}]}}"""

AGAIN = """\
That cannot be used:
{objections}

Write the whole answer again without these faults: one JSON object and nothing else."""

Messages = list[dict[str, str]]


def decompose_messages(prompt: str) -> Messages:
    return _messages(DECOMPOSE, _task(prompt))


def validate_messages(prompt: str, questions: Sequence[Question]) -> Messages:
    return _messages(VALIDATE, _task(prompt, questions))


def quality_messages(prompt: str, questions: Sequence[Question], ids: Sequence[int]) -> Messages:
    """`ids[n]` is the id of question n, which is to be drawn well."""
    return _messages(QUALITY, _task(prompt, questions, ids))


def again(messages: Messages, reply: str, objections: Sequence[str]) -> Messages:
    """The chat goes on: what is wrong with the reply."""
    faults = "\n".join(f"- {objection}" for objection in objections)
    return [
        *messages,
        {"role": "assistant", "content": reply},
        {"role": "user", "content": AGAIN.format(objections=faults)},
    ]


def _messages(system: str, user: str) -> Messages:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _task(prompt: str, questions: Sequence[Question] | None = None, ids: Sequence[int] | None = None) -> str:
    """The prompt, and the questions with ids from 1, as JSON: nothing in them can be taken for an instruction's end."""
    task: dict[str, Any] = {"prompt": prompt}
    if questions is not None:
        numbers = range(1, len(questions) + 1) if ids is None else ids
        task["questions"] = [
            {"id": number, "question": asked.text, "tag": asked.tag}
            for number, asked in zip(numbers, questions, strict=True)
        ]
    return json.dumps(task, ensure_ascii=False)
