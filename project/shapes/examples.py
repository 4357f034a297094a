"""The stream of pre-training examples, drawn on the fly from seen compositions and seen descriptors only.

    draw             prompt -> picture                                  (direct prompts)
    think_and_draw   "think", prompt -> reasoning, picture              (direct and indirect prompts)
    caption          picture, "describe" -> direct description
    question         picture, question -> "yes" / "no"                  (balanced)
    reflect          "think", picture, "reflect" + prompt -> reflection, corrected picture
    reflect_own      the same on pictures that a model drew itself (see `own_pictures`)
    questions        picture, then several times: question -> "yes" / "no"   (see `asking`)
    questions_own    the same on pictures that a model drew itself
    edit             "think", picture, instruction -> reasoning, edited picture   (see `editing`)

A right arrow stands before what is learned: texts with `loss` and pictures with the role "drawn". Context order of a
picture that is looked at is that of image editing: VAE block ("clean"), ViT block ("seen_by_vit"), then text.

Word dropout: in `draw` and `think_and_draw` each word of the prompt is left out with probability 0.12, while reasoning
and picture stay true. The model then learns to guess what it was not told with the true frequencies, so that its
guesses stay spread: a descriptor it never saw is treated like a missing word, and RL finds the right guess among its
samples. Descriptors that are `unseen` (see `split`) occur nowhere here, not even uninformatively.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np

from project.data.interleaved import Example, Picture, Text
from project.shapes.asking import Learner, look_and_answer, look_at_own
from project.shapes.decomposer import scene_questions
from project.shapes.degradation import with_junk, with_uneven_background
from project.shapes.editing import EDIT_KINDS, apply, result_scene, sample_edit
from project.shapes.grammar import DESCRIBE, REFLECT, THINK, Disguise, describe, sample_disguises, think
from project.shapes.mistakes import correct, make_mistake, reflect
from project.shapes.own_pictures import Pool
from project.shapes.questions import Clean, Plain, parse_question
from project.shapes.renderer import render
from project.shapes.scenes import (
    CELLS,
    KINDS,
    RELATIONS,
    SIZES,
    Kind,
    Layout,
    Scene,
    sample_layout,
)
from project.shapes.split import pairs_of, sample_scene_of, scene_split, seen_words

Task = Literal[
    "draw", "think_and_draw", "caption", "question", "reflect", "reflect_own", "questions", "questions_own", "edit"
]
DEFAULT_RATES: dict[Task, float] = {
    "draw": 0.35,
    "think_and_draw": 0.45,
    "caption": 0.1,
    "question": 0.1,
    "reflect": 0.0,
    "reflect_own": 0.0,
    "questions": 0.0,
    "questions_own": 0.0,
    "edit": 0.0,
}
OWN_TASKS: tuple[Task, ...] = ("reflect_own", "questions_own")
"""Those on pictures that a model drew itself."""
QUALITY_RATE = 0.15
"""Share of quality questions among the questions."""
RIGHT_RATE = 0.25
"""Share of pictures without a fault in `reflect`."""
OTHER_DEMAND_RATE = 0.5
"""Share of `reflect_own` whose number, size, relation or order of colours is asked for anew, whatever the picture was
drawn for: so that the prompt alone never tells whether the picture is right."""


def draw(rng: np.random.Generator, scene: Scene, *, word_dropout: float = 0.12) -> Example:
    """Direct prompt -> picture."""
    prompt = drop_words(rng, describe(scene), word_dropout)
    return Example(blocks=(Text(text=prompt), _drawn(sample_layout(rng, scene))), task="draw")


def think_and_draw(
    rng: np.random.Generator, scene: Scene, *, word_dropout: float = 0.12, indirect: float = 0.5
) -> Example:
    """Direct or (with probability `indirect`) indirect prompt -> reasoning -> picture."""
    disguises = sample_disguises(rng, scene, *seen_words()) if rng.random() < indirect else None
    blocks = (
        Text(text=THINK),
        Text(text=drop_words(rng, describe(scene, disguises), word_dropout)),
        Text(text=think(scene), loss=True),
        _drawn(sample_layout(rng, scene)),
    )
    return Example(blocks=blocks, task="think_and_draw")


def caption(rng: np.random.Generator, scene: Scene) -> Example:
    """Picture -> direct description."""
    picture = Picture(pixels=render(sample_layout(rng, scene)), role="seen_by_vit")
    return Example(blocks=(picture, Text(text=DESCRIBE), Text(text=describe(scene), loss=True)), task="caption")


def question(rng: np.random.Generator, scene: Scene) -> Example:
    """Picture and one of the scene's questions -> yes or no, equally often."""
    yes = bool(rng.random() < 0.5)
    layout = sample_layout(rng, scene)
    if rng.random() < QUALITY_RATE:
        pixels, text = _quality_question(rng, layout, yes)
    else:
        layout = layout if yes else make_mistake(rng, scene, layout, pairs_of("seen"))
        pixels, text = render(layout), _semantic_question(rng, scene, layout, yes)
    answer = Text(text="yes" if yes else "no", loss=True)
    return Example(blocks=(Picture(pixels=pixels, role="seen_by_vit"), Text(text=text), answer), task="question")


def reflect_and_redraw(rng: np.random.Generator, scene: Scene) -> Example:
    """Picture with one fault (or none) -> reflection -> the picture without it, all else unchanged."""
    right = sample_layout(rng, scene)
    shown = right if rng.random() < RIGHT_RATE else make_mistake(rng, scene, right, pairs_of("seen"))
    return reflection_example(scene, shown=render(shown), reflection=reflect(scene, shown), corrected=right)


def reflect_on_own(rng: np.random.Generator, pool: Pool, *, indirect: float = 0.5) -> Example:
    """Picture that a model drew, direct or indirect prompt -> true reflection -> the picture put right."""
    own = pool.sample(rng)
    scene = own.scene
    if rng.random() < OTHER_DEMAND_RATE:
        scene = other_demand(rng, scene, own.layout, met=bool(rng.random() < 0.5))
    return reflection_example(
        scene,
        disguises=sample_disguises(rng, scene, *seen_words()) if rng.random() < indirect else None,
        shown=own.pixels,
        reflection=reflect(scene, own.layout, placed=True),
        corrected=correct(scene, own.layout),
    )


def edit_and_draw(rng: np.random.Generator) -> Example:
    """Picture and instruction -> what the edited picture shows, and that picture."""
    edit = sample_edit(rng, EDIT_KINDS[rng.integers(len(EDIT_KINDS))], "seen")
    results = apply(edit.change, edit.source)
    after = results[rng.integers(len(results))]
    shown = render(edit.source)
    blocks = (
        Text(text=THINK),
        Picture(pixels=shown, role="clean"),
        Picture(pixels=shown, role="seen_by_vit"),
        Text(text=edit.instruction),
        Text(text=think(result_scene(edit, after)), loss=True),
        _drawn(after),
    )
    return Example(blocks=blocks, task="edit")


def other_demand(rng: np.random.Generator, scene: Scene, layout: Layout, *, met: bool) -> Scene:
    """The scene with its relation, size or number drawn anew, so that the layout meets it or not.

    Of a pair the colours may be exchanged: which colour belongs to which shape is what is overlooked most. Where
    nothing does as wished the scene is left as it is.
    """
    others = [other for other in _variants(scene) if other.satisfied_by(layout) == met]
    return others[rng.integers(len(others))] if others else scene


def _variants(scene: Scene) -> list[Scene]:
    """The scene with each relation, each size, each number of several, or with both orders of its colours."""
    if scene.relation is not None:
        return [replace(scene, relation=relation) for relation in RELATIONS]
    if scene.count > 1:
        return [replace(scene, count=count) for count in range(2, CELLS + 1)]
    if scene.kind == "size":
        return [replace(scene, objects=(replace(scene.objects[0], size=size),)) for size in SIZES]
    if scene.kind == "pair":
        first, second = scene.objects
        exchanged = (replace(first, colour=second.colour), replace(second, colour=first.colour))
        return [other for other in (scene, replace(scene, objects=exchanged)) if scene_split(other) == "seen"]
    return []


def reflection_example(
    scene: Scene,
    *,
    shown: np.ndarray,
    reflection: str,
    corrected: Layout,
    disguises: Sequence[Disguise] | None = None,
) -> Example:
    """A reflection on any picture `shown`, uint8 [64, 64, 3]; the prompt is direct unless there are disguises."""
    blocks = (
        Text(text=THINK),
        Picture(pixels=shown, role="clean"),
        Picture(pixels=shown, role="seen_by_vit"),
        Text(text=f"{REFLECT} {describe(scene, disguises)}"),
        Text(text=reflection, loss=True),
        _drawn(corrected),
    )
    return Example(blocks=blocks, task="reflect")


def sample_example(
    rng: np.random.Generator,
    rates: Mapping[Task, float] = DEFAULT_RATES,
    *,
    word_dropout: float = 0.12,
    indirect: float = 0.5,
    kinds: Mapping[Kind, float] | None = None,
    own: Pool | None = None,
    learner: Learner = "policy",
) -> Example:
    """One example: its task is drawn by `rates`, the kind of its scene by `kinds` (both relative; default even).

    `own` are the pictures of the tasks with that ending. Raises ValueError if they are needed and not there.
    `learner` says what questions may be about.
    """
    builders: dict[Task, Callable[[np.random.Generator, Scene], Example]] = {
        "draw": lambda rng, scene: draw(rng, scene, word_dropout=word_dropout),
        "think_and_draw": lambda rng, scene: think_and_draw(rng, scene, word_dropout=word_dropout, indirect=indirect),
        "caption": caption,
        "question": question,
        "reflect": reflect_and_redraw,
    }
    task = _choose(rng, rates)
    if task in OWN_TASKS:
        if own is None:
            raise ValueError(f"{task} needs pictures that a model drew: give them as `own`, or set its rate to 0")
        return reflect_on_own(rng, own, indirect=indirect) if task == "reflect_own" else look_at_own(rng, own, learner)
    if task == "edit":
        return edit_and_draw(rng)
    if task == "questions":
        return look_and_answer(rng, learner)
    kind = _choose(rng, kinds) if kinds is not None else KINDS[rng.integers(len(KINDS))]
    return builders[task](rng, sample_scene_of(rng, kind, "seen"))


def examples(
    rng: np.random.Generator,
    rates: Mapping[Task, float] = DEFAULT_RATES,
    *,
    word_dropout: float = 0.12,
    indirect: float = 0.5,
    kinds: Mapping[Kind, float] | None = None,
) -> Iterator[Example]:
    """An endless stream of `sample_example`."""
    while True:
        yield sample_example(rng, rates, word_dropout=word_dropout, indirect=indirect, kinds=kinds)


def drop_words(rng: np.random.Generator, text: str, rate: float) -> str:
    """The text with each word left out with probability `rate`, but never all of them."""
    words = text.split()
    kept = [word for word, draw in zip(words, rng.random(len(words)).tolist(), strict=True) if draw >= rate]
    return " ".join(kept) if kept else text


Choice = TypeVar("Choice", bound=str)


def _choose(rng: np.random.Generator, rates: Mapping[Choice, float]) -> Choice:
    """A key, with probability in proportion to its rate. Raises ValueError if no rate is positive."""
    total = sum(rates.values())
    if total <= 0 or min(rates.values()) < 0:
        raise ValueError(f"rates {dict(rates)} must not be negative and one of them must be positive")
    threshold = rng.random() * total
    for choice, rate in rates.items():
        threshold -= rate
        if threshold < 0:
            return choice
    return next(choice for choice, rate in rates.items() if rate > 0)


def _drawn(layout: Layout) -> Picture:
    return Picture(pixels=render(layout), role="drawn")


def _semantic_question(rng: np.random.Generator, scene: Scene, layout: Layout, yes: bool) -> str:
    """One of the scene's semantic questions whose answer for the layout is `yes`."""
    texts = [asked.text for asked in scene_questions(scene) if asked.kind == "semantic"]
    parsed = {text: parse_question(text) for text in texts}
    fitting = [text for text, asked in parsed.items() if asked is not None and asked.holds(layout) == yes]
    return fitting[rng.integers(len(fitting))]


def _quality_question(rng: np.random.Generator, layout: Layout, yes: bool) -> tuple[np.ndarray, str]:
    """A picture and a quality question about it; for "no", a cell of junk or an uneven background."""
    if rng.random() < 0.5:
        return render(layout) if yes else with_junk(rng, layout), Clean().text
    return render(layout) if yes else with_uneven_background(rng, layout), Plain().text
