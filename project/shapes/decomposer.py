"""The rule-based decomposer of the embedded world: a scene's dependency graph, read off its grammar.

Semantic: every shape that must exist (Existence); its colour and size (Attribute) and its number (Count), which
depend on it; the relation (Spatial), which depends on both; and how many shapes there are in all (Count), because
nothing else may stand in the picture. Quality: Geometry and Coherence.
"""

from __future__ import annotations

from project.decomposition.base import Decomposer
from project.shapes.grammar import parse
from project.shapes.questions import Clean, Coloured, Counts, Exists, PictureQuestion, Plain, Related, Sized
from project.shapes.scenes import Scene
from project.trajectory import Question


class ShapesDecomposer(Decomposer):
    """Decomposes direct and indirect prompts of the embedded world."""

    def decompose(self, prompt: str) -> tuple[Question, ...]:
        scene = parse(prompt, indirect=True)
        if scene is None:
            raise ValueError(
                f"{prompt!r} is no prompt of the embedded world: see the grammar in project/shapes/grammar.py"
            )
        return scene_questions(scene)


def scene_questions(scene: Scene) -> tuple[Question, ...]:
    """The questions that a picture of the scene answers with yes."""
    questions: list[Question] = []

    def ask(question: PictureQuestion, tag: str, *depends_on: int) -> int:
        questions.append(Question(text=question.text, tag=tag, depends_on=depends_on))
        return len(questions) - 1

    many = scene.count > 1
    existence = []
    for thing in scene.objects:
        exists = ask(Exists(shape=thing.shape), "Existence")
        existence.append(exists)
        ask(Coloured(shape=thing.shape, colour=thing.colour, many=many), "Attribute", exists)
        if thing.size is not None:
            ask(Sized(shape=thing.shape, size=thing.size, many=many), "Attribute", exists)
        if many:
            ask(Counts(number=scene.count, shape=thing.shape), "Count", exists)
    if scene.relation is not None:
        first, second = (thing.shape for thing in scene.objects)
        ask(Related(first=first, relation=scene.relation, second=second), "Spatial", *existence)
    ask(Counts(number=scene.total), "Count")
    questions.append(Question(text=Clean().text, kind="quality", tag="Geometry"))
    questions.append(Question(text=Plain().text, kind="quality", tag="Coherence"))
    return tuple(questions)
