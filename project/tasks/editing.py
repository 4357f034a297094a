"""Editing: look at a given picture, reason about the instruction, draw the picture changed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from project.core.images import check_pictures, read_picture_of
from project.samplers.guidance import Guidance
from project.tasks.base import EvaluationTask, Rollout
from project.tasks.drawing import Canvas, given_picture
from project.tasks.one_turn import OneTurn
from project.tasks.request import Request
from project.tasks.turn import Turn
from project.trajectory import Group, ImageSegment, Prompt

log = logging.getLogger(__name__)


def picture_in_file(prompt: Prompt) -> np.ndarray:
    """The picture that the prompt's `image` names, uint8 [height, width, 3], see `read_picture`.

    Raises FileNotFoundError or ValueError naming the prompt's place and the file.
    """
    if prompt.image is None:
        where = f"{prompt.place}: " if prompt.place else ""
        raise ValueError(f"{where}prompt {prompt.id!r} names no picture: give the row an `image`")
    return read_picture_of(prompt.place, prompt.image)


def editing_as(task: EvaluationTask, source: Callable[[Prompt], np.ndarray]) -> Editing:
    """Edits of the pictures that `source` gives, of the size and with the reasoning of the first turn of a task.

    Guidance without the image keeps the norms as BAGEL does in edits (`text_channel`); scales and interval stay. An
    `Editing` keeps all but its source. Raises ValueError for a task that draws nothing.
    """
    if isinstance(task, Editing):
        return task._changed(source=source)
    if not task.turns:
        raise ValueError(f"{type(task).__name__} draws nothing, so it cannot edit: name project.tasks.Editing")
    turn = task.turns[0]
    canvas = turn.canvas
    return Editing(
        height=canvas.height,
        width=canvas.width,
        think=turn.think,
        max_tokens=turn.max_tokens,
        temperature=turn.temperature,
        top_p=turn.top_p,
        guidance=dataclasses.replace(canvas.guidance, renorm="text_channel"),
        source=source,
    )


class Editing(OneTurn):
    """One trajectory is a given picture, an instruction, reasoning, and the changed picture.

    Args:
        height, width: size of the pictures [pixels]; a source of another size is resized to it.
        think: write reasoning before drawing.
        max_tokens, temperature, top_p: how the reasoning is written, see ReasoningT2I.
        guidance: classifier-free guidance, the same in rollout and in replay. Without the image it reads only texts.
        shared_noise: start all samples of a group from one initial noise.
        source: import path of a function that gives a prompt's picture, uint8 [height, width, 3].
        prompts_per_forward: prompts whose G samples are drawn together; None = all of an update.
    """

    def __init__(
        self,
        height: int = 512,
        width: int = 512,
        think: bool = True,
        max_tokens: int = 512,
        temperature: float = 1.0,
        top_p: float = 0.8,
        guidance: Guidance = Guidance(text=4.0, image=2.0, interval=(0.0, 1.0), renorm="text_channel"),
        shared_noise: bool = False,
        source: Callable[[Prompt], np.ndarray] = picture_in_file,
        prompts_per_forward: int | None = None,
    ) -> None:
        turn = Turn(
            canvas=Canvas(height=height, width=width, guidance=guidance, shared_noise=shared_noise),
            think=think,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
        )
        super().__init__(turn)
        self.source = source
        self.prompts_per_forward = prompts_per_forward
        self._resized = False

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Reads the picture of every prompt. Raises what the source raises."""
        check_pictures(prompts, self.source)

    def rollout(self, rollout: Rollout) -> list[Group]:
        sources = {n: self._source(rollout.prompts[n]) for n in {n // rollout.size for n in rollout.mine}}
        requests = [
            Request(
                prompt=rollout.prompt(n),
                key=rollout.keys[n],
                text=rollout.prompt(n).text,
                source=sources[n // rollout.size],
            )
            for n in rollout.mine
        ]
        # The context of a given picture is long: texts are not written ahead of their pictures.
        together = self.prompts_per_forward
        group = self.turn.rollout_group(rollout, requests, together, texts=together)
        return [dataclasses.replace(group, task="edit", log_prefix="edit/")]

    def _source(self, prompt: Prompt) -> ImageSegment:
        pixels = self.source(prompt)
        wanted = (self.turn.canvas.height, self.turn.canvas.width)
        if pixels.shape[:2] != wanted:
            if not self._resized:
                log.warning(
                    "prompt %r: its picture of %dx%d pixels is resized to %dx%d, as all of another size will be",
                    prompt.id, *pixels.shape[:2], *wanted,
                )  # fmt: skip
                self._resized = True
            image = Image.fromarray(pixels).resize(wanted[::-1], Image.Resampling.BICUBIC)
            pixels = np.array(image)
        return given_picture(pixels)
