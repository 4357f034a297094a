"""Probes of the embedded world for an audit: rendered scenes with and without mistakes, and what is true."""

from __future__ import annotations

import numpy as np

from project.judges.audit import Probe
from project.shapes.decomposer import scene_questions
from project.shapes.degradation import with_junk, with_uneven_background
from project.shapes.grammar import describe
from project.shapes.mistakes import make_mistake
from project.shapes.questions import parse_question
from project.shapes.renderer import render
from project.shapes.scenes import KINDS, Layout, Scene, sample_layout
from project.shapes.split import SPLITS, pairs_of, sample_scene_of
from project.trajectory import Question

SPOILED = {"Geometry": with_junk, "Coherence": with_uneven_background}
"""Per tag of a quality question the picture that it denies."""
TAGS = ("Existence", "Attribute", "Count", "Spatial", *SPOILED)
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


def _answered_with(scene: Scene, layout: Layout, tag: str, truth: bool) -> list[Question]:
    """The scene's questions of a tag whose answer for the layout is `truth`."""
    questions = [(asked, parse_question(asked.text)) for asked in scene_questions(scene) if asked.tag == tag]
    return [asked for asked, parsed in questions if parsed is not None and parsed.holds(layout) == truth]
