"""A reward for reflections that clarify the request, compare the picture with it, and instruct what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from project.core.metrics import Mean, Metric
from project.judges.base import TextJudge, check_answers
from project.rewards.asking import judge_metrics
from project.rewards.base import Reward, RewardOutput
from project.rewards.dvreward import Confidences, group_rewards, of_all
from project.trajectory import Prompt, Question, Trajectory

STEPS: Mapping[str, str] = {
    "clarify": "Does the text say in its own words what the request asks for?",
    "compare": "Does the text compare what the picture shows with what the request asks for?",
    "instruct": "Does the text say exactly what to change in the picture, or that nothing needs to change?",
}


class JudgedStructure(Reward):
    """Mean confidence of a judge of texts that the last text takes the three steps; for the text objective alone.

    Unanswered questions are treated as by DVReward: they never move a sample against its group. A sample without any
    text has 1: it wrote nothing wrong.

    Args:
        judge: the judge that reads the texts.
        steps: a question for each step; default: does the text clarify, compare, instruct.
        minimum_answered: a sample with a smaller share of its questions answered is not scored.
        weight: factor in the sum of rewards; with 0 it is only logged.
        mask_image: a text that was denied a step (confidence not above 1/2) also takes the image of its sample out of
            training, whatever the weight.

    Raises:
        ValueError: if there is no step or minimum_answered is outside [0, 1].
    """

    def __init__(
        self,
        judge: TextJudge,
        steps: dict[str, str] | None = None,
        minimum_answered: float = 0.5,
        weight: float = 0.1,
        mask_image: bool = False,
    ) -> None:
        super().__init__(weight=weight, text_only=True)
        if not 0 <= minimum_answered <= 1:
            raise ValueError(f"minimum_answered={minimum_answered}: give a share of the questions, from 0 to 1")
        if steps is not None and not steps:
            raise ValueError("steps is empty: give a question per step, or leave it out")
        self.judge = judge
        self.steps = dict(STEPS if steps is None else steps)
        self.minimum_answered = minimum_answered
        self.mask_image = mask_image

    @property
    def longest_wait(self) -> float:
        return self.judge.longest_wait

    def stop_waiting(self) -> None:
        self.judge.stop_waiting()

    def preflight(self) -> None:
        self.judge.preflight()

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        answers = self._ask(trajectories)
        formed_N = torch.tensor(
            [all(value is None or value > 0.5 for value in row) for row in answers], dtype=torch.bool
        )
        return RewardOutput(
            reward_N=self._rewards(answers, 1),
            details=tuple(map(tuple, answers)),
            well_formed_N=formed_N if self.mask_image else None,
            metrics=self._metrics(answers) | judge_metrics(self.judge.metrics()),
        )

    def within_groups(self, output: RewardOutput, prompts: Sequence[Prompt], group_size: int) -> Tensor:
        """Answers that are missing are imputed from the group."""
        return self._rewards([row or (None,) * len(self.steps) for row in output.details], group_size)

    def _rewards(self, answers: Sequence[Confidences], group_size: int) -> Tensor:
        questions = [Question(text=text) for text in self.steps.values()]
        rewards = [
            group_rewards(
                answers[start : start + group_size],
                questions,
                aggregate=of_all,
                minimum_answered=self.minimum_answered,
            )
            for start in range(0, len(answers), group_size)
        ]
        return torch.cat(rewards) if rewards else torch.zeros(0)

    def _ask(self, trajectories: Sequence[Trajectory]) -> list[list[float | None]]:
        """Confidences per sample and step. Raises WrongReturn unless the judge gives numbers in [0, 1] or None."""
        written = [n for n, trajectory in enumerate(trajectories) if trajectory.texts]
        asked = [(trajectories[n].texts[-1].text, trajectories[n].prompt.text) for n in written]
        distinct = list(dict.fromkeys(asked))
        found = self.judge.answer_texts(
            [text for text, _ in distinct], list(self.steps.values()), [prompt for _, prompt in distinct]
        )
        check_answers(found, [len(self.steps)] * len(distinct), self.judge.name, self.judge.answer_texts)
        rows = dict(zip(distinct, found, strict=True))
        answers: list[list[float | None]] = [[1.0] * len(self.steps) for _ in trajectories]
        for n, key in zip(written, asked, strict=True):
            answers[n] = list(rows[key])
        return answers

    def _metrics(self, answers: Sequence[Sequence[float | None]]) -> dict[str, Metric]:
        """Mean confidence per step of what was answered."""
        return {
            f"reward/structure/{step}": Mean.over(row[place] for row in answers)
            for place, step in enumerate(self.steps)
        }
