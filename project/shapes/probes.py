"""Probes of the embedded world for an audit: rendered scenes with and without mistakes, and what is true."""

from __future__ import annotations

import numpy as np

from project.judges.audit import Probe
from project.shapes.decomposer import scene_questions
from project.shapes.degradation import with_junk, with_uneven_background
from project.shapes.grammar import COLOUR_DESCRIPTORS, SHAPE_DESCRIPTORS, describe, sample_disguises
from project.shapes.mistakes import make_mistake
from project.shapes.questions import Shows, parse_question
from project.shapes.renderer import render
from project.shapes.scenes import KINDS, Kind, Layout, Scene, sample_layout
from project.shapes.split import SPLITS, pairs_of, sample_scene_of
from project.trajectory import Question

SPOILED = {"Geometry": with_junk, "Coherence": with_uneven_background}
"""Per tag of a quality question the picture that it denies."""
TAGS = ("Existence", "Attribute", "Count", "Spatial", *SPOILED)
PROMPT_TAGS = ("Direct prompt", "Indirect prompt")
_PAIRS = tuple(pair for split in SPLITS for pair in pairs_of(split))


def shapes_probes(number: int, seed: int = 0) -> list[Probe]:
    """`number` probes, evenly over the tags, whose true answers are yes and no in turn.

    Scenes are of all kinds and splits; every second picture of a semantic question has one mistake, whatever the
    answer. Raises ValueError for fewer than one yes and one no a tag.
    """
    if number < 2 * len(TAGS):
        raise ValueError(f"{number} probes: give at least {2 * len(TAGS)}, for a yes and a no of each of the tags")
    rng = np.random.default_rng([seed, 3])
    return [_probe(rng, TAGS[n % len(TAGS)], truth=n // len(TAGS) % 2 == 0) for n in range(number)]


def prompt_probes(number: int, seed: int = 0) -> list[Probe]:
    """`number` probes about whole prompts, direct and indirect ones ("is there a grass coloured star ?").

    Scenes are of all kinds and splits. In the picture of a true no, one thing is wrong. Raises ValueError for fewer
    than a yes and a no of each of the two tags.
    """
    if number < 2 * len(PROMPT_TAGS):
        raise ValueError(
            f"{number} probes: give at least {2 * len(PROMPT_TAGS)}, for a yes and a no of each of the tags"
        )
    rng = np.random.default_rng([seed, 5])
    return [
        _prompt_probe(rng, PROMPT_TAGS[n % 2], KINDS[n // 4 % len(KINDS)], truth=n // 2 % 2 == 0) for n in range(number)
    ]


def sample_question(rng: np.random.Generator, tag: str, *, truth: bool) -> tuple[Scene, Layout, Question]:
    """A scene, a layout that was drawn for it, and a question of this tag with this answer.

    For a tag of `SPOILED` the answer "no" becomes true when the picture is spoiled. Scenes are drawn until one has a
    fitting question.
    """
    while True:
        scene = sample_scene_of(rng, KINDS[rng.integers(len(KINDS))], SPLITS[rng.integers(len(SPLITS))])
        layout = sample_layout(rng, scene)
        if tag in SPOILED:
            (question,) = (asked for asked in scene_questions(scene) if asked.tag == tag)
            return scene, layout, question
        if rng.random() < 0.5:
            layout = make_mistake(rng, scene, layout, _PAIRS)
        fitting = _answered_with(scene, layout, tag, truth)
        if fitting:
            return scene, layout, fitting[rng.integers(len(fitting))]


def _probe(rng: np.random.Generator, tag: str, *, truth: bool) -> Probe:
    scene, layout, question = sample_question(rng, tag, truth=truth)
    pixels = SPOILED[tag](rng, layout) if tag in SPOILED and not truth else render(layout)
    return Probe(image=pixels, question=question, truth=truth, prompt=describe(scene))


def _prompt_probe(rng: np.random.Generator, tag: str, kind: Kind, *, truth: bool) -> Probe:
    scene = sample_scene_of(rng, kind, SPLITS[rng.integers(len(SPLITS))])
    disguises = None if tag == PROMPT_TAGS[0] else sample_disguises(rng, scene, COLOUR_DESCRIPTORS, SHAPE_DESCRIPTORS)
    prompt = describe(scene, disguises)
    layout = sample_layout(rng, scene)
    if not truth:
        layout = make_mistake(rng, scene, layout, _PAIRS)
    question = Question(text=Shows(prompt=prompt, scene=scene).text, tag=tag)
    return Probe(image=render(layout), question=question, truth=truth, prompt=prompt)


def _answered_with(scene: Scene, layout: Layout, tag: str, truth: bool) -> list[Question]:
    """The scene's questions of a tag whose answer for the layout is `truth`."""
    questions = [(asked, parse_question(asked.text)) for asked in scene_questions(scene) if asked.tag == tag]
    return [asked for asked, parsed in questions if parsed is not None and parsed.holds(layout) == truth]
