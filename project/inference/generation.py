"""Prompts in, pictures or answers out, with what was reasoned: what `python -m project generate` does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from project.core.atomic_files import atomic_file
from project.core.randomness import keyed_generator
from project.inference.pipeline import PipelineOutput, UnifiedPipeline
from project.inference.refinement import Refinement, Round, refine, strip
from project.models.base import Defaults, UnifiedModel
from project.samplers.guidance import Guidance
from project.trajectory import Prompt

NO_REFINEMENT = Refinement(rounds=0)
TRAJECTORIES = "trajectories.jsonl"
ANSWERS = "answers.jsonl"


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


def generate(pipe: UnifiedPipeline, prompts: Sequence[Prompt], settings: GenerationSettings) -> Iterator[Made]:
    """A picture per prompt, in order; the image of a prompt that has one is edited.

    Randomness hangs on the seed and the prompt's place, not on the batch, so one picture can be drawn again alone.

    Raises FileNotFoundError or ValueError for a source image that cannot be read.
    """
    d = settings.defaults
    for start, batch in _batches(prompts, settings.batch_size):
        made: dict[int, Made] = {}
        for editing in (False, True):
            places = [n for n, prompt in enumerate(batch) if (prompt.image is not None) == editing]
            if not places:
                continue
            output = pipe(
                [batch[n].text for n in places],
                [read_image(batch[n].image) for n in places] if editing else None,
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
        yield from _refined(pipe, [made[n] for n in range(len(batch))], start, settings)


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
        d.reflect_prompt,
        [one.prompt for one in made],
        [one.image for one in made],
        [one.reasoning for one in made],
        settings.refinement,
        lambda place, round: _generator(settings, made[place].prompt, start + place, round),
    )
    return [replace(one, image=path[-1].image, rounds=tuple(path)) for one, path in zip(made, rounds, strict=True)]


def answer(
    pipe: UnifiedPipeline, questions: Sequence[Prompt], settings: GenerationSettings
) -> Iterator[tuple[Prompt, str]]:
    """Each question with its answer, about the image that it has, if any. Greedy. Raises as `generate`."""
    for start, batch in _batches(questions, settings.batch_size):
        answered: dict[int, str] = {}
        for seen in (False, True):
            places = [n for n, prompt in enumerate(batch) if (prompt.image is not None) == seen]
            if not places:
                continue
            answers = pipe.ask(
                [batch[n].text for n in places],
                [read_image(batch[n].image) for n in places] if seen else None,
                think=settings.think,
                generator=[_generator(settings, batch[n], start + n) for n in places],
                max_tokens=settings.defaults.max_tokens,
            )
            answered.update(zip(places, answers, strict=True))
        yield from ((prompt, answered[n]) for n, prompt in enumerate(batch))


def read_image(file: str | Path | None) -> Image.Image:
    """The picture in a file. Raises FileNotFoundError or ValueError naming it."""
    path = Path(file or "")
    if not path.is_file():
        raise FileNotFoundError(f"there is no image {path}: check the path (now in {Path.cwd()})")
    try:
        image = Image.open(path)
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:  # PNG: SyntaxError
        raise ValueError(f"{path} is no image that can be read ({error}): give a PNG, JPEG or the like") from None
    return image


def write_trajectories(folder: Path, made: Iterable[Made], settings: GenerationSettings) -> int:
    """`0000.png ...` and `trajectories.jsonl`; rows appear whole. Returns how many were written.

    The rows of an earlier command go first: they would speak of pictures that are being replaced.
    With refinement also `0000_round0.png ...`, the picture of every round, and `0000_strip.png`, all side by side.
    """

    def rows() -> Iterator[dict[str, Any]]:
        for number, one in enumerate(made):
            name = f"{number:04d}.png"
            one.image.save(folder / name)
            rounds = []
            for place, round in enumerate(one.rounds):
                file = f"{number:04d}_round{place}.png"
                round.image.save(folder / file)
                rounds.append({"file": file, "reflection": round.text if place else None, "score": round.score,
                               "kept": round.kept})  # fmt: skip
            if rounds:
                strip(one.rounds).save(folder / f"{number:04d}_strip.png")
            refinement = {"gate": settings.refinement.gate, "rounds": rounds} if rounds else {}
            yield {
                "file": name,
                "prompt": one.prompt.text,
                "image": one.prompt.image,
                "reasoning": one.reasoning or "",
                **refinement,
                "seed": settings.seed,
                "settings": {
                    "think": settings.think,
                    **asdict(settings.defaults),
                    "guidance": asdict(settings.drawing if one.prompt.image is None else settings.editing),
                },
            }

    (folder / TRAJECTORIES).unlink(missing_ok=True)
    return _write(folder, TRAJECTORIES, rows())


def write_answers(folder: Path, answers: Iterable[tuple[Prompt, str]]) -> int:
    """`answers.jsonl`, which appears whole. Returns how many were written."""
    rows = ({"question": prompt.text, "image": prompt.image, "answer": text} for prompt, text in answers)
    return _write(folder, ANSWERS, rows)


def _write(folder: Path, name: str, rows: Iterable[dict[str, Any]]) -> int:
    written = 0
    with atomic_file(folder / name) as file:
        for row in rows:
            file.write(f"{json.dumps(row)}\n".encode())
            written += 1
    return written


def _batches(prompts: Sequence[Prompt], size: int) -> Iterator[tuple[int, Sequence[Prompt]]]:
    for start in range(0, len(prompts), size):
        yield start, prompts[start : start + size]


def _generator(settings: GenerationSettings, prompt: Prompt, place: int, round: int = 0) -> Any:
    rounds = [round] if round else []
    return keyed_generator(settings.seed, "generate", prompt.text, place, *rounds)
