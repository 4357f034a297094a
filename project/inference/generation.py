"""Prompts in, pictures or answers out, with what was reasoned: what `python -m project generate` makes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from PIL import Image

from project.core.images import check_pictures
from project.core.randomness import keyed_generator
from project.inference.pipeline import PipelineOutput, UnifiedPipeline
from project.inference.refinement import Refinement, Round, refine
from project.models.base import Defaults, UnifiedModel
from project.samplers.guidance import Guidance
from project.tasks.editing import picture_in_file
from project.trajectory import Prompt

NO_REFINEMENT = Refinement(rounds=0)


class Place(NamedTuple):
    """Which prompt of a file, and which of its pictures; both count from 0."""

    prompt: int
    sample: int = 0


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Everything that decides the bytes of a picture, but the weights and the prompt.

    Attributes:
        drawing, editing: guidance of pictures made from nothing, and of edits.
        retokenize: see `UnifiedPipeline.__call__`.
        refinement: what is done with the pictures that were drawn.
        dtype: of the weights.
    """

    seed: int = 0
    think: bool = True
    batch_size: int = 32
    defaults: Defaults
    drawing: Guidance
    editing: Guidance
    retokenize: bool = False
    refinement: Refinement = NO_REFINEMENT
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Made:
    """A picture that was made of a prompt."""

    place: Place
    prompt: Prompt
    image: Image.Image
    reasoning: str | None
    rounds: tuple[Round, ...] = ()
    """The first picture and those of every round of refinement; empty without any."""


def settings_for(
    model: UnifiedModel,
    *,
    seed: int = 0,
    think: bool = True,
    batch_size: int = 32,
    image_guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    renorm: Any = None,
    retokenize: bool = False,
    refinement: Refinement = NO_REFINEMENT,
    **changes: Any,
) -> GenerationSettings:
    """A checkpoint's defaults with the given changes (those that are not None).

    Raises ValueError for numbers that nothing can be drawn with.
    """
    defaults = replace(model.defaults, **{name: value for name, value in changes.items() if value is not None})
    for name, value in (("batch_size", batch_size), ("max_tokens", defaults.max_tokens)):
        if value < 1:
            raise ValueError(f"{name} = {value}: give at least 1")
    if not 0 <= defaults.top_p <= 1:
        raise ValueError(f"top_p = {defaults.top_p}: give a share of the probability, from 0 (greedy) to 1")
    if not 0 <= defaults.temperature < math.inf:
        raise ValueError(f"temperature = {defaults.temperature}: give 0 (greedy) or more")
    named = {"image": image_guidance, "interval": guidance_interval, "renorm": renorm}
    said = {name: value for name, value in named.items() if value is not None}
    drawing = Guidance(text=defaults.guidance, interval=defaults.guidance_interval)
    editing = Guidance(text=defaults.guidance, image=2.0, interval=(0.0, 1.0), renorm="text_channel")
    return GenerationSettings(
        seed=seed,
        think=think,
        batch_size=batch_size,
        defaults=defaults,
        drawing=replace(drawing, **said),
        editing=replace(editing, **said),
        retokenize=retokenize,
        refinement=refinement,
        dtype=str(model.dtype).removeprefix("torch."),
    )


def places_of(prompts: Sequence[Prompt], num_images: int = 1) -> list[Place]:
    """Every picture of every prompt. Raises ValueError for less than one picture each."""
    if num_images < 1:
        raise ValueError(f"num_images = {num_images}: give at least 1")
    return [Place(prompt, sample) for prompt in range(len(prompts)) for sample in range(num_images)]


def check_sources(prompts: Sequence[Prompt]) -> None:
    """Reads every source image once. Raises FileNotFoundError or ValueError for one that cannot be read."""
    first = {prompt.image: prompt for prompt in reversed(prompts) if prompt.image is not None}
    check_pictures(first.values(), picture_in_file)


def generate(
    pipe: UnifiedPipeline,
    prompts: Sequence[Prompt],
    settings: GenerationSettings,
    places: Sequence[Place] | None = None,
) -> Iterator[Made]:
    """A picture for each of `places` (each prompt's first one if None), in order; an image that a prompt has is edited.

    Randomness depends on the seed and the picture's place, not on the batch, so one picture can be drawn again alone.

    Raises FileNotFoundError or ValueError for a source image that cannot be read, and what a judge raises that dies
    during refinement: the pictures that are drawn by then come first, without rounds.
    """
    d = settings.defaults
    for batch in batches(places_of(prompts) if places is None else places, settings.batch_size):
        made: dict[Place, Made] = {}
        for editing in (False, True):
            alike = [place for place in batch if (prompts[place.prompt].image is not None) == editing]
            if not alike:
                continue
            own = [prompts[place.prompt] for place in alike]
            output = pipe(
                [prompt.text for prompt in own],
                _sources(own) if editing else None,
                think=settings.think,
                height=None if editing else d.height,
                width=None if editing else d.width,
                num_steps=d.num_steps,
                shift=d.shift,
                guidance=settings.editing if editing else settings.drawing,
                generator=[_generator(settings, *which) for which in zip(own, alike, strict=True)],
                max_tokens=d.max_tokens,
                temperature=d.temperature,
                top_p=d.top_p,
                retokenize=settings.retokenize,
            )
            for place, prompt, image, text in zip(alike, own, output.images, output.texts, strict=True):
                made[place] = Made(place=place, prompt=prompt, image=image, reasoning=text)
        drawn = [made[place] for place in batch]
        try:
            refined = _refined(pipe, drawn, settings)
        except Exception:
            yield from drawn
            raise
        yield from refined


def _refined(pipe: UnifiedPipeline, made: list[Made], settings: GenerationSettings) -> list[Made]:
    """With the rounds of refinement, if there are any; the last round's picture is the one that counts."""
    if not settings.refinement.rounds:
        return made
    d = settings.defaults

    def redraw(texts: Sequence[str], images: Sequence[Image.Image], noise: Sequence[Any]) -> PipelineOutput:
        return pipe(
            texts,
            images,
            think=True,
            num_steps=d.num_steps,
            shift=d.shift,
            guidance=settings.editing,
            generator=noise,
            max_tokens=d.max_tokens,
            temperature=d.temperature,
            top_p=d.top_p,
            retokenize=settings.retokenize,
        )

    rounds = refine(
        redraw,
        d.reflect_prompt if settings.refinement.wording is None else settings.refinement.wording,
        [one.prompt for one in made],
        [one.image for one in made],
        [one.reasoning for one in made],
        settings.refinement,
        lambda row, round: _generator(settings, made[row].prompt, made[row].place, round),
    )
    return [replace(one, image=path[-1].image, rounds=tuple(path)) for one, path in zip(made, rounds, strict=True)]


def answer(
    pipe: UnifiedPipeline,
    questions: Sequence[Prompt],
    settings: GenerationSettings,
    places: Sequence[Place] | None = None,
) -> Iterator[tuple[Place, str]]:
    """The answer to the question at each of `places` (all if None), about the image that it has, if any. Greedy.

    Raises as `generate`.
    """
    for batch in batches(places_of(questions) if places is None else places, settings.batch_size):
        answered: dict[Place, str] = {}
        for seen in (False, True):
            alike = [place for place in batch if (questions[place.prompt].image is not None) == seen]
            if not alike:
                continue
            own = [questions[place.prompt] for place in alike]
            answers = pipe.ask(
                [prompt.text for prompt in own],
                _sources(own) if seen else None,
                think=settings.think,
                generator=[_generator(settings, *which) for which in zip(own, alike, strict=True)],
                max_tokens=settings.defaults.max_tokens,
            )
            answered.update(zip(alike, answers, strict=True))
        yield from ((place, answered[place]) for place in batch)


def batches(places: Sequence[Place], size: int) -> list[Sequence[Place]]:
    """The places in order, `size` at a time."""
    return [places[start : start + size] for start in range(0, len(places), size)]


def _sources(prompts: Sequence[Prompt]) -> list[Image.Image]:
    """The images of prompts that have one; each file is opened once."""
    first = {prompt.image: prompt for prompt in reversed(prompts)}
    opened = {file: Image.fromarray(picture_in_file(prompt)) for file, prompt in first.items()}
    return [opened[prompt.image] for prompt in prompts]


def _generator(settings: GenerationSettings, prompt: Prompt, place: Place, round: int = 0) -> Any:
    """Of a prompt's first picture as if it had no other."""
    sample: list[int | str] = ["sample", place.sample] if place.sample else []
    rounds = [round] if round else []
    return keyed_generator(settings.seed, "generate", prompt.text, place.prompt, *sample, *rounds)
