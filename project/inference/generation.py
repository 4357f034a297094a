"""Prompts in, pictures or answers out, with what was reasoned: what `python -m project generate` makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Everything that decides the bytes of a picture, but the weights and the prompt.

    Attributes:
        drawing, editing: guidance of pictures made from nothing, and of edits.
        retokenize: see `UnifiedPipeline.__call__`.
        refinement: what is done with the pictures that were drawn.
    """

    seed: int = 0
    think: bool = True
    batch_size: int = 32
    defaults: Defaults
    drawing: Guidance
    editing: Guidance
    retokenize: bool = False
    refinement: Refinement = NO_REFINEMENT


@dataclass(frozen=True, kw_only=True)
class Made:
    """What became of a prompt."""

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
    )


def check_sources(prompts: Sequence[Prompt]) -> None:
    """Reads every source image once. Raises FileNotFoundError or ValueError for one that cannot be read."""
    first = {prompt.image: prompt for prompt in reversed(prompts) if prompt.image is not None}
    check_pictures(first.values(), picture_in_file)


def generate(
    pipe: UnifiedPipeline, prompts: Sequence[Prompt], settings: GenerationSettings, after: int = 0
) -> Iterator[Made]:
    """A picture for each prompt behind the first `after`, in order; the image of a prompt that has one is edited.

    Randomness hangs on the seed and the prompt's place, not on the batch, so one picture can be drawn again alone.

    Raises FileNotFoundError or ValueError for a source image that cannot be read, and what a judge raises that dies
    during refinement: the pictures that are drawn by then come first, without rounds.
    """
    d = settings.defaults
    for start, batch in _batches(prompts, settings.batch_size, after):
        made: dict[int, Made] = {}
        for editing in (False, True):
            places = [n for n, prompt in enumerate(batch) if (prompt.image is not None) == editing]
            if not places:
                continue
            output = pipe(
                [batch[n].text for n in places],
                [_source(batch[n]) for n in places] if editing else None,
                think=settings.think,
                height=None if editing else d.height,
                width=None if editing else d.width,
                num_steps=d.num_steps,
                shift=d.shift,
                guidance=settings.editing if editing else settings.drawing,
                generator=[_generator(settings, batch[n], start + n) for n in places],
                max_tokens=d.max_tokens,
                top_p=d.top_p,
                retokenize=settings.retokenize,
            )
            for n, image, reasoning in zip(places, output.images, output.texts, strict=True):
                made[n] = Made(prompt=batch[n], image=image, reasoning=reasoning)
        drawn = [made[n] for n in range(len(batch))]
        try:
            refined = _refined(pipe, drawn, start, settings)
        except Exception:
            yield from drawn
            raise
        yield from refined


def _refined(pipe: UnifiedPipeline, made: list[Made], start: int, settings: GenerationSettings) -> list[Made]:
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
        lambda place, round: _generator(settings, made[place].prompt, start + place, round),
    )
    return [replace(one, image=path[-1].image, rounds=tuple(path)) for one, path in zip(made, rounds, strict=True)]


def answer(
    pipe: UnifiedPipeline, questions: Sequence[Prompt], settings: GenerationSettings, after: int = 0
) -> Iterator[tuple[Prompt, str]]:
    """Each question behind the first `after` with its answer, about the image that it has, if any. Greedy.

    Raises as `generate`.
    """
    for start, batch in _batches(questions, settings.batch_size, after):
        answered: dict[int, str] = {}
        for seen in (False, True):
            places = [n for n, prompt in enumerate(batch) if (prompt.image is not None) == seen]
            if not places:
                continue
            answers = pipe.ask(
                [batch[n].text for n in places],
                [_source(batch[n]) for n in places] if seen else None,
                think=settings.think,
                generator=[_generator(settings, batch[n], start + n) for n in places],
                max_tokens=settings.defaults.max_tokens,
            )
            answered.update(zip(places, answers, strict=True))
        yield from ((prompt, answered[n]) for n, prompt in enumerate(batch))


def _source(prompt: Prompt) -> Image.Image:
    return Image.fromarray(picture_in_file(prompt))


def _batches(prompts: Sequence[Prompt], size: int, after: int) -> Iterator[tuple[int, Sequence[Prompt]]]:
    for start in range(after, len(prompts), size):
        yield start, prompts[start : start + size]


def _generator(settings: GenerationSettings, prompt: Prompt, place: int, round: int = 0) -> Any:
    rounds = [round] if round else []
    return keyed_generator(settings.seed, "generate", prompt.text, place, *rounds)
