"""DVReward: a picture is as good as the atomic yes/no questions of its prompt say (AlphaGRPO, arXiv 2605.12495).

The confidences of a prompt's group form a table, one row per sample and one column per question. An unanswered
cell is no zero: it takes the mean of its column over the samples that count, so that a missing answer never moves
a sample against its group. Shape suffixes: project/trajectory.py.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from project.judges.base import Judge
from project.rewards.base import Reward, RewardOutput
from project.trajectory import Prompt, Question, Trajectory

Confidences = Sequence[float | None]


class DVReward(Reward):
    """Asks a judge every question of a prompt about each picture and aggregates its confidences.

    Args:
        judge: who answers.
        aggregation: geometric = sqrt(semantic * quality), each the mean over its questions (semantic alone for a
            prompt without quality questions); mean = their average; all = the mean over all questions.
        binary: round confidences to yes (above 1/2) or no first.
        use_dependencies: a question counts as no if one that it depends on was answered no.
        minimum_answered: a sample with a smaller share of its questions answered is not scored.
        weight: factor in the sum of rewards; with 0 it is only logged.

    Raises:
        ValueError: if the aggregation is unknown or minimum_answered outside [0, 1].
    """

    def __init__(
        self,
        judge: Judge,
        aggregation: Literal["geometric", "mean", "all"] = "geometric",
        binary: bool = False,
        use_dependencies: bool = False,
        minimum_answered: float = 0.5,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation={aggregation!r} is unknown: choose one of {', '.join(AGGREGATIONS)}")
        if not 0 <= minimum_answered <= 1:
            raise ValueError(f"minimum_answered={minimum_answered}: give a share of the questions, from 0 to 1")
        self.judge = judge
        self.aggregation = aggregation
        self.binary = binary
        self.use_dependencies = use_dependencies
        self.minimum_answered = minimum_answered

    def preflight(self) -> None:
        self.judge.preflight()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError if a prompt has no semantic question, or a question depends on one that is not there."""
        for prompt in prompts:
            where = f"{prompt.place}: " if prompt.place else ""
            if not any(question.kind == "semantic" for question in prompt.questions):
                raise ValueError(
                    f"{where}prompt {prompt.id!r} has no semantic question, which DVReward needs: decompose the "
                    "prompts first (python -m project decompose)"
                )
            for place, question in enumerate(prompt.questions):
                if any(not 0 <= other < len(prompt.questions) or other == place for other in question.depends_on):
                    raise ValueError(
                        f"{where}prompt {prompt.id!r}: question {place} ({question.text!r}) depends on "
                        f"{question.depends_on}, but the prompt's questions are numbered 0 to "
                        f"{len(prompt.questions) - 1}: correct depends_on"
                    )

    def score(self, trajectories: Sequence[Trajectory], group_size: int) -> RewardOutput:
        self.check([trajectory.prompt for trajectory in trajectories])
        answers = self._ask(trajectories)
        rewards: list[Tensor] = []
        for start in range(0, len(trajectories), group_size):
            questions = trajectories[start].prompt.questions
            if any(t.prompt.questions != questions for t in trajectories[start : start + group_size]):
                raise ValueError(
                    f"samples {start} to {start + group_size - 1} are one group but differ in their questions"
                )
            rewards.append(
                group_rewards(
                    answers[start : start + group_size],
                    questions,
                    aggregate=AGGREGATIONS[self.aggregation],
                    binary=self.binary,
                    use_dependencies=self.use_dependencies,
                    minimum_answered=self.minimum_answered,
                )
            )
        questions_NQ = [trajectory.prompt.questions for trajectory in trajectories]
        return RewardOutput(
            reward_N=torch.cat(rewards) if rewards else torch.zeros(0),
            confidence_NQ=tuple(map(tuple, answers)),
            metrics=confidence_metrics(answers, questions_NQ),
        )

    def _ask(self, trajectories: Sequence[Trajectory]) -> Sequence[Confidences]:
        """The judge's confidences. Raises ValueError if they are not one number in [0, 1], or None, per question."""
        answers = self.judge.answer(
            [trajectory.image.pixels_HWC.numpy() for trajectory in trajectories],
            [trajectory.prompt.questions for trajectory in trajectories],
            [trajectory.prompt.text for trajectory in trajectories],
        )
        asked = [len(trajectory.prompt.questions) for trajectory in trajectories]
        if [len(row) for row in answers] != asked:
            raise ValueError(
                f"judge {self.judge.name!r} must answer every question of every picture, with None if unknown"
            )
        if any(not 0 <= value <= 1 for row in answers for value in row if value is not None):
            raise ValueError(f"judge {self.judge.name!r} gave a confidence outside [0, 1]: return None for no answer")
        return answers


def group_rewards(
    answers_GQ: Sequence[Confidences],
    questions: Sequence[Question],
    *,
    aggregate: Callable[[Tensor, Tensor], Tensor],
    binary: bool = False,
    use_dependencies: bool = False,
    minimum_answered: float = 0.5,
) -> Tensor:
    """Rewards of one prompt's samples, fp32 [G]; NaN where too little was answered.

    Samples that are not scored leave no trace in the others' imputed answers. A question that no scored sample
    answered is left out for the whole group; if that leaves no semantic question, nobody is scored.

    Args:
        answers_GQ: confidences in [0, 1]; None = unanswered.
        questions: the Q questions.
        aggregate: (confidences [G, Q], is a quality question [Q]) -> rewards [G].
        binary, use_dependencies, minimum_answered: see `DVReward`.
    """
    raw_GQ = torch.tensor(
        [[math.nan if value is None else value for value in row] for row in answers_GQ], dtype=torch.float64
    ).reshape(len(answers_GQ), len(questions))
    answered_GQ = ~torch.isnan(raw_GQ)
    # Rounded shares such as 0.3 * 10 must not lose a sample to the last bit.
    scored_G = (answered_GQ.sum(1) >= minimum_answered * len(questions) - 1e-9) & answered_GQ.any(1)
    confidence_GQ = (raw_GQ > 0.5).double().where(answered_GQ, math.nan) if binary else raw_GQ
    if use_dependencies:
        confidence_GQ = denied(confidence_GQ, questions)
    reward_G = torch.full((len(answers_GQ),), math.nan)
    table = imputed(confidence_GQ[scored_G])
    known_Q = ~torch.isnan(table).any(0)
    quality_Q = torch.tensor([question.kind == "quality" for question in questions], dtype=torch.bool)
    if not bool((known_Q & ~quality_Q).any()):
        return reward_G
    reward_G[scored_G] = aggregate(table[:, known_Q], quality_Q[known_Q]).float()
    return reward_G


def imputed(confidence_GQ: Tensor) -> Tensor:
    """Fills NaN with the mean of its column; a column without any number stays NaN."""
    return confidence_GQ.where(~torch.isnan(confidence_GQ), confidence_GQ.nanmean(0))


def denied(confidence_GQ: Tensor, questions: Sequence[Question]) -> Tensor:
    """0 for every question that depends, directly or not, on one answered no (not above 1/2)."""
    confidence_GQ = confidence_GQ.clone()
    # A chain of dependencies is at most as long as there are questions.
    for _ in questions:
        for place, question in enumerate(questions):
            for other in question.depends_on:
                confidence_GQ[confidence_GQ[:, other] <= 0.5, place] = 0.0
    return confidence_GQ


def geometric(confidence_GQ: Tensor, quality_Q: Tensor) -> Tensor:
    """sqrt(semantic * quality); semantic alone without quality questions."""
    semantic_G, quality_G = _means(confidence_GQ, quality_Q)
    return semantic_G if quality_G is None else (semantic_G * quality_G).sqrt()


def average(confidence_GQ: Tensor, quality_Q: Tensor) -> Tensor:
    """(semantic + quality) / 2; semantic alone without quality questions."""
    semantic_G, quality_G = _means(confidence_GQ, quality_Q)
    return semantic_G if quality_G is None else (semantic_G + quality_G) / 2


def of_all(confidence_GQ: Tensor, quality_Q: Tensor) -> Tensor:
    """Mean over all questions, whatever their kind."""
    return confidence_GQ.mean(1)


AGGREGATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "geometric": geometric,
    "mean": average,
    "all": of_all,
}


def confidence_metrics(answers: Sequence[Confidences], questions: Sequence[Sequence[Question]]) -> dict[str, float]:
    """Mean confidence per tag of what was answered, and the share that was not."""
    by_tag: dict[str, list[float]] = defaultdict(list)
    unanswered = total = 0
    for row, asked in zip(answers, questions, strict=True):
        for value, question in zip(row, asked, strict=True):
            total += 1
            if value is None:
                unanswered += 1
            elif question.tag:
                by_tag[question.tag].append(value)
    metrics = {f"reward/tag/{tag}": sum(values) / len(values) for tag, values in sorted(by_tag.items())}
    return metrics | {"judge/unanswered": unanswered / total if total else 0.0}


def _means(confidence_GQ: Tensor, quality_Q: Tensor) -> tuple[Tensor, Tensor | None]:
    semantic_G = confidence_GQ[:, ~quality_Q].mean(1)
    return semantic_G, confidence_GQ[:, quality_Q].mean(1) if bool(quality_Q.any()) else None
