"""Refinement at inference: look at one's own picture, say what is wrong, draw again; as often as one likes.

By default every picture is refined (un-gated). A gate refines only some: `judge`, those that our own judge doubts;
`oracle`, those that a benchmark marked wrong, which nobody could know in real use: results carry that word.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image

from project.benchmarks.base import Benchmark
from project.inference.pipeline import PipelineOutput
from project.judges.base import Judge
from project.rewards.dvreward import DVReward
from project.tasks.editing import given_picture
from project.tasks.rounds import RoundRule, check_wording, instruction
from project.trajectory import Prompt, SampleKey, Trajectory

Redraw = Callable[[Sequence[str], Sequence[Image.Image], Sequence[torch.Generator]], PipelineOutput]
"""(instructions, pictures, noise) -> a reflection and a picture each."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """A picture on the way, and what was said before it was drawn."""

    image: Image.Image
    text: str | None
    score: float | None = None
    """By the judge or the benchmark; None = nobody scored it."""
    kept: bool = False
    """Whether it is the picture of the round before: the gate or the reflection found nothing wrong with it."""


class Critic(ABC):
    """Scores pictures of prompts."""

    @abstractmethod
    def scores(self, prompts: Sequence[Prompt], images: Sequence[Image.Image]) -> list[float | None]:
        """Higher is better, in [0, 1]; None = no score."""


class JudgeCritic(Critic):
    """DVReward by a judge. Raises ValueError for prompts without questions."""

    def __init__(self, judge: Judge, prompts: Sequence[Prompt]) -> None:
        self.reward = DVReward(judge)
        self.reward.check(prompts)
        self.reward.preflight()

    def scores(self, prompts: Sequence[Prompt], images: Sequence[Image.Image]) -> list[float | None]:
        rewards = self.reward.score(_shown(prompts, images)).reward_N.tolist()
        return [None if math.isnan(reward) else reward for reward in rewards]


class BenchmarkCritic(Critic):
    """1 for what a benchmark calls right, 0 for what it calls wrong, no score for what it could not judge: an oracle.

    Raises ValueError if the benchmark calls nothing right, cannot measure these prompts, or does not work.
    """

    def __init__(self, benchmark: Benchmark, prompts: Sequence[Prompt]) -> None:
        if benchmark.right is None:
            raise ValueError(
                f"{type(benchmark).__name__} tells no right pictures from wrong ones (its `right` is None)"
            )
        benchmark.check(prompts)
        benchmark.preflight()
        self.benchmark = benchmark
        self.right = benchmark.right

    def scores(self, prompts: Sequence[Prompt], images: Sequence[Image.Image]) -> list[float | None]:
        outcomes = self.benchmark.measure(_shown(prompts, images), [None] * len(prompts))
        verdicts = [outcome[self.right] for outcome in outcomes]
        return [None if verdict is None else float(verdict) for verdict in verdicts]


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How pictures are refined.

    Attributes:
        rounds: K.
        gate: none, or who decides which pictures are refined.
        critic: who scores every round's picture, and decides where there is a gate.
        below: pictures with a lower score are refined; those without a score are not.
        wording: what is said beside a picture, with "{prompt}" where the prompt is to stand; None = the model's own
            default.

    Raises:
        ValueError: for rounds below 0, a gate without its critic, or a wording without "{prompt}".
    """

    rounds: int
    gate: Literal["none", "judge", "oracle"] = "none"
    critic: Critic | None = None
    below: float = 0.5
    wording: str | None = None

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise ValueError(f"rounds={self.rounds}: give 0 or more")
        check_wording(self.wording)
        if self.gate != "none" and self.critic is None:
            needed = "--judge" if self.gate == "judge" else "--benchmark"
            raise ValueError(f"--gate {self.gate} needs {needed}: name its class path")


def refine(
    redraw: Redraw,
    template: str,
    prompts: Sequence[Prompt],
    images: Sequence[Image.Image],
    texts: Sequence[str | None],
    refinement: Refinement,
    noise: Callable[[int, int], torch.Generator],
) -> list[list[Round]]:
    """Per prompt its first picture, then one entry per round.

    Args:
        redraw: looks, reflects and draws.
        template: what is said beside the picture; holds "{prompt}".
        images, texts: the first pictures and the reasoning before them.
        noise: (place, round) -> generator.
    """

    def judged(places: Sequence[int], pictures: Sequence[Image.Image]) -> dict[int, float | None]:
        if refinement.critic is None or not places:
            return {}
        return dict(zip(places, refinement.critic.scores([prompts[n] for n in places], pictures), strict=True))

    rule = RoundRule(below=None if refinement.gate == "none" else refinement.below)
    every = range(len(prompts))
    scores = judged(every, images)
    rounds = [[Round(image=images[n], text=texts[n], score=scores.get(n))] for n in every]
    going = set(every)
    for number in range(1, refinement.rounds + 1):
        now = [n for n in every if n in going and rule.refines(rounds[n][-1].score)]
        drawn = redraw(
            [instruction(template, prompts[n].text) for n in now],
            [rounds[n][-1].image for n in now],
            [noise(n, number) for n in now],
        ) if now else PipelineOutput(images=[], texts=[])  # fmt: skip
        new = dict(zip(now, zip(drawn.images, drawn.texts, strict=True), strict=True))
        right = {n for n, (_, text) in new.items() if rule.finds_nothing(text)}
        scores = judged([n for n in now if n not in right], [new[n][0] for n in now if n not in right])
        for n in every:
            before = rounds[n][-1]
            if n not in new:
                rounds[n].append(replace(before, text=None, kept=True))
            elif n in right:
                rounds[n].append(replace(before, text=new[n][1], kept=True))
            else:
                rounds[n].append(Round(image=new[n][0], text=new[n][1], score=scores.get(n)))
        going = going.intersection(now) - right
    return rounds


def strip(rounds: Sequence[Round], gap: int = 4) -> Image.Image:
    """The pictures of all rounds side by side, of the height of the first."""
    pictures = [r.image for r in rounds]
    height = pictures[0].height
    scaled = [p if p.height == height else p.resize((round(p.width * height / p.height), height)) for p in pictures]
    whole = Image.new("RGB", (sum(p.width for p in scaled) + gap * (len(scaled) - 1), height), "white")
    left = 0
    for picture in scaled:
        whole.paste(picture, (left, 0))
        left += picture.width + gap
    return whole


def _shown(prompts: Sequence[Prompt], images: Sequence[Image.Image]) -> list[Trajectory]:
    return [
        Trajectory(
            prompt=prompt,
            key=SampleKey(seed=0, update=-1, prompt=prompt.id),
            segments=(given_picture(np.array(image.convert("RGB"))),),
        )
        for prompt, image in zip(prompts, images, strict=True)
    ]
