"""Answering: look at a given picture, read a question, write the answer. For evaluation: nothing is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from project.core.digest import image_digest
from project.core.images import check_pictures
from project.core.randomness import uniform
from project.data.choices import choices_of
from project.models.base import UnifiedModel
from project.models.reading import Reading, read
from project.tasks.base import EvaluationTask, Rollout
from project.tasks.drawing import given_picture
from project.tasks.editing import picture_in_file
from project.tasks.turn import text_metrics, text_segments
from project.trajectory import Group, ImageSegment, Prompt, Trajectory

LETTER = "Answer with the option's letter from the given choices directly."
"""What is said below choices, as LLaVA-1.5 says it (arXiv 2310.03744)."""


class Answering(EvaluationTask):
    """One trajectory is a given picture, which the vision encoder alone sees, a question, and the text of the answer.

    It reads and writes as `UnifiedPipeline.ask` does. The picture is the trajectory's `source`; there is no other. A
    row with `choices` (see `project.data.choices`) is asked with the choices and their letters below the question.

    Args:
        max_tokens: most tokens of the answer, with its reasoning.
        temperature: temperature of the answer; 0 = greedy.
        top_p: share of the probability that tokens are drawn from.
        think: ask for reasoning before the answer, in the words of the checkpoint.
        instruction: what is said below the choices; None = choices are not listed, and the bare question is asked.
        source: import path of a function that gives a prompt's picture, uint8 [height, width, 3].

    Raises:
        ValueError: for fewer than one token, a negative temperature or a share outside (0, 1].
    """

    def __init__(
        self,
        max_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        think: bool = False,
        instruction: str | None = LETTER,
        source: Callable[[Prompt], np.ndarray] = picture_in_file,
    ) -> None:
        if max_tokens < 1 or not temperature >= 0 or not 0 < top_p <= 1:
            raise ValueError(
                f"max_tokens={max_tokens}, temperature={temperature}, top_p={top_p}: give at least one token, a "
                "temperature from 0 (greedy) and a share of the probability above 0 and up to 1"
            )
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.top_p = top_p
        self.think = think
        self.instruction = instruction
        self.source = source

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Reads the picture of every prompt. Raises what the source raises, and ValueError for unusable choices."""
        for prompt in prompts:
            self._text(prompt)
        check_pictures(prompts, self.source)

    def rollout(self, rollout: Rollout) -> list[Group]:
        """Raises ValueError in training."""
        if rollout.training:
            raise ValueError("answering questions is for evaluation: it trains nothing")
        trajectories = self._answers(rollout) if rollout.mine else []
        metrics = text_metrics(trajectories)
        return [Group(trajectories=tuple(trajectories), size=rollout.size, task="answer", metrics=metrics)]

    @torch.no_grad()
    def _answers(self, rollout: Rollout) -> list[Trajectory]:
        model = rollout.model
        prompts = [rollout.prompt(n) for n in rollout.mine]
        keys = [rollout.keys[n] for n in rollout.mine]
        sources = self._sources(model, prompts)
        with rollout.stopwatch.phase("rollout_text"):
            known = read(
                model,
                [
                    Reading(text=self._text(prompt), picture=source.pixels_HWC)
                    for prompt, source in zip(prompts, sources, strict=True)
                ],
                lambda room: model.static_context(1, room),
                system=model.defaults.ask_think_prompt if self.think else "",
                latents=False,
            )
            main = known.main.select(known.row_N, room=model.text_room(self.max_tokens))
            numbers = uniform(keys, "text", self.max_tokens)
            _, sampled = model.sample_text(main, numbers, temperature=self.temperature, top_p=self.top_p)
        return [
            Trajectory(prompt=prompt, key=key, segments=(text,), source=source)
            for prompt, key, text, source in zip(prompts, keys, text_segments(model, sampled), sources, strict=True)
        ]

    def _sources(self, model: UnifiedModel, prompts: Sequence[Prompt]) -> list[ImageSegment]:
        """The picture of each prompt, resized as for the autoencoder; equal pictures are one, which is read once."""
        resize = model.picture_transforms[0].resize
        known: dict[bytes, ImageSegment] = {}
        found = []
        for prompt in prompts:
            pixels = self.source(prompt)
            key = image_digest(pixels)
            if key not in known:
                known[key] = given_picture(np.array(resize(Image.fromarray(pixels))))
            found.append(known[key])
        return found

    def _text(self, prompt: Prompt) -> str:
        """What the model reads of a question."""
        if self.instruction is None or not prompt.columns.get("choices"):
            return prompt.text
        return "\n".join(part for part in (prompt.text, choices_of(prompt).listing, self.instruction) if part)
