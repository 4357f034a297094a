"""One question about the whole prompt: the reward that DVReward is compared with (AlphaGRPO, arXiv 2605.12495)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from project.core.metrics import Mean, Metric
from project.judges.base import Judge
from project.rewards.asking import ask, judge_metrics
from project.rewards.base import Reward, RewardOutput
from project.trajectory import Question, Trajectory

PROMPT = "{prompt}"


class HolisticReward(Reward):
    """The judge's confidence that the picture is what the whole prompt asks for.

    The question itself names the request, so this reward needs no judge with `show_request`.

    Args:
        judge: the judge that answers the question.
        instruction: the question; {prompt} in it becomes the prompt's text. The embedded world's detector understands
            "is there {prompt} ?".
        binary: round confidences to yes (above 1/2) or no.
        weight: factor in the sum of rewards; with 0 it is only logged.

    Raises:
        ValueError: if the instruction does not name the prompt.
    """

    def __init__(
        self,
        judge: Judge,
        instruction: str = 'Is this picture a good and complete rendering of the request "{prompt}"?',
        binary: bool = False,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if PROMPT not in instruction:
            raise ValueError(f"instruction={instruction!r}: write {PROMPT} where the prompt is to stand")
        self.judge = judge
        self.instruction = instruction
        self.binary = binary

    @property
    def longest_wait(self) -> float:
        return self.judge.longest_wait

    def stop_waiting(self) -> None:
        self.judge.stop_waiting()

    def preflight(self) -> None:
        self.judge.preflight()

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        # `replace`, not `format`: a prompt may hold braces of its own.
        questions = [[Question(text=self.instruction.replace(PROMPT, t.prompt.text))] for t in trajectories]
        confidence_N = [row[0] for row in ask(self.judge, trajectories, questions)]
        metrics: dict[str, Metric] = {
            "reward/holistic": Mean.over(confidence_N),
            "judge/unanswered": Mean.over(value is None for value in confidence_N),
        }
        if self.binary:
            confidence_N = [None if value is None else float(value > 0.5) for value in confidence_N]
        return RewardOutput(
            reward_N=torch.tensor([math.nan if value is None else value for value in confidence_N]),
            metrics=metrics | judge_metrics(self.judge.metrics()),
        )
