"""DVReward: a picture is as good as the atomic yes/no questions of its prompt say (AlphaGRPO, arXiv 2605.12495).

The confidences of a prompt's group form a table, one row per sample and one column per question. An unanswered
cell is no zero: it takes the mean of its column over the samples that count, so that a missing answer never moves
a sample against its group. Shape suffixes: project/trajectory.py.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from project.core.metrics import Mean, Metric
from project.core.nearest import nearest
from project.data.questions import circular
from project.judges.base import Judge
from project.rewards.asking import ask, judge_metrics
from project.rewards.base import Reward, RewardOutput, where
from project.trajectory import Prompt, Question, Trajectory

log = logging.getLogger(__name__)

Confidences = Sequence[float | None]
Aggregate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(confidences [G, Q], is a quality question [Q], weight above 0 [Q]) -> rewards [G]."""


class DVReward(Reward):
    """Asks a judge every question of a prompt about each picture and aggregates its confidences.

    Args:
        judge: the judge that answers the questions.
        aggregation: geometric = sqrt(semantic * quality), each the mean over its questions (semantic alone for a
            prompt without quality questions); mean = their average; all = the mean over all questions.
        binary: round confidences to yes (above 1/2) or no first.
        use_dependencies: a question counts as no if one that it depends on, directly or not, was answered no; else as
            unanswered if one of them is unanswered.
        minimum_answered: a sample with a smaller share of its questions answered is not scored.
        tag_weights: weight of the questions with a tag in all means, e.g. {Count: 2}; 1 for tags not named, 0 leaves
            the tag out.
        weight: factor in the sum of rewards; with 0 it is only logged.

    Raises:
        ValueError: if the aggregation is unknown, minimum_answered outside [0, 1] or a tag's weight below 0.
    """

    def __init__(
        self,
        judge: Judge,
        aggregation: Literal["geometric", "mean", "all"] = "geometric",
        binary: bool = False,
        use_dependencies: bool = False,
        minimum_answered: float = 0.5,
        tag_weights: dict[str, float] | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation={aggregation!r} is unknown: choose one of {', '.join(AGGREGATIONS)}")
        if not 0 <= minimum_answered <= 1:
            raise ValueError(f"minimum_answered={minimum_answered}: give a share of the questions, from 0 to 1")
        for tag, value in (tag_weights or {}).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"tag_weights: {tag}={value}: give a number, 0 or more")
        self.judge = judge
        self.aggregation = aggregation
        self.binary = binary
        self.use_dependencies = use_dependencies
        self.minimum_answered = minimum_answered
        self.tag_weights = dict(tag_weights or {})

    @property
    def longest_wait(self) -> float:
        return self.judge.longest_wait

    def stop_waiting(self) -> None:
        self.judge.stop_waiting()

    def preflight(self) -> None:
        self.judge.preflight()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Questions without a tag are counted in a warning.

        Raises ValueError if a prompt has no semantic question (that counts), if a question depends on one that is not
        there or, in a circle, on itself, or if a tag of `tag_weights` occurs nowhere.
        """
        for prompt in prompts:
            self._check(prompt)
        tags = {question.tag for prompt in prompts for question in prompt.questions}
        for tag in self.tag_weights if prompts else ():
            if tag not in tags:
                raise ValueError(f"tag_weights: no question has the tag {tag!r}: {nearest(tag, tags - {''})}")
        untagged = [(prompt, question) for prompt in prompts for question in prompt.questions if not question.tag]
        if untagged:
            prompt, question = untagged[0]
            log.warning(
                "%d questions have no tag (the first: %s%r): they count with weight 1, no reward/tag/... shows them",
                len(untagged),
                where(prompt),
                question.text,
            )

    def _check(self, prompt: Prompt) -> None:
        if not any(question.kind == "semantic" for question in prompt.questions):
            raise ValueError(
                f"{where(prompt)}prompt {prompt.id!r} has no semantic question, which DVReward needs: decompose the "
                "prompts first (python -m project decompose)"
            )
        if not any(q.kind == "semantic" and self.tag_weights.get(q.tag, 1.0) for q in prompt.questions):
            raise ValueError(f"{where(prompt)}prompt {prompt.id!r}: tag_weights leaves it no semantic question")
        for place, question in enumerate(prompt.questions):
            if any(not 0 <= other < len(prompt.questions) or other == place for other in question.depends_on):
                raise ValueError(
                    f"{where(prompt)}prompt {prompt.id!r}: question {place} ({question.text!r}) depends on "
                    f"{question.depends_on}, but the prompt's questions are numbered 0 to "
                    f"{len(prompt.questions) - 1}: correct depends_on"
                )
        if circle := circular([question.depends_on for question in prompt.questions]):
            raise ValueError(
                f"{where(prompt)}prompt {prompt.id!r}: questions {circle} depend on each other in a circle: correct "
                "depends_on"
            )

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        for prompt in {id(t.prompt): t.prompt for t in trajectories}.values():
            self._check(prompt)
        questions_NQ = [t.prompt.questions for t in trajectories]
        answers = ask(self.judge, trajectories, questions_NQ)
        output = RewardOutput(
            reward_N=torch.zeros(len(trajectories)),
            confidence_NQ=tuple(map(tuple, answers)),
            metrics=confidence_metrics(answers, questions_NQ) | judge_metrics(self.judge.metrics()),
        )
        return replace(output, reward_N=self.within_groups(output, [t.prompt for t in trajectories], 1))

    def within_groups(self, output: RewardOutput, prompts: Sequence[Prompt], group_size: int) -> Tensor:
        """Answers that are missing are imputed from the group. Raises ValueError if a group differs in questions."""
        answers = output.confidence_NQ
        if answers is None:  # nobody was asked about any of them
            return output.reward_N
        rewards: list[Tensor] = []
        for start in range(0, len(prompts), group_size):
            questions = prompts[start].questions
            if any(prompt.questions != questions for prompt in prompts[start : start + group_size]):
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
                    tag_weights=self.tag_weights,
                )
            )
        return torch.cat(rewards) if rewards else torch.zeros(0)


def group_rewards(
    answers_GQ: Sequence[Confidences],
    questions: Sequence[Question],
    *,
    aggregate: Aggregate,
    binary: bool = False,
    use_dependencies: bool = False,
    minimum_answered: float = 0.5,
    tag_weights: Mapping[str, float] | None = None,
) -> Tensor:
    """Rewards of one prompt's samples, fp32 [G]; NaN where too little was answered.

    Samples that are not scored leave no trace in the others' imputed answers. A question that no scored sample
    answered is left out for the whole group; if that leaves no semantic question, nobody is scored.

    Args:
        answers_GQ: confidences in [0, 1]; None = unanswered.
        questions: the Q questions.
        aggregate: of the questions that count.
        binary, use_dependencies, minimum_answered, tag_weights: see `DVReward`.
    """
    raw_GQ = torch.tensor(
        [[math.nan if value is None else value for value in row] for row in answers_GQ], dtype=torch.float64
    ).reshape(len(answers_GQ), len(questions))
    confidence_GQ = (raw_GQ > 0.5).double().where(~torch.isnan(raw_GQ), math.nan) if binary else raw_GQ
    if use_dependencies:
        confidence_GQ = propagated(confidence_GQ, questions)
    weight_Q = torch.tensor([(tag_weights or {}).get(question.tag, 1.0) for question in questions], dtype=torch.float64)
    answered_G = (~torch.isnan(confidence_GQ) & (weight_Q > 0)).sum(1)
    # Rounded shares such as 0.3 * 10 must not lose a sample to the last bit.
    scored_G = (answered_G >= minimum_answered * (weight_Q > 0).sum() - 1e-9) & (answered_G > 0)
    reward_G = torch.full((len(answers_GQ),), math.nan)
    table = imputed(confidence_GQ[scored_G])
    known_Q = ~torch.isnan(table).any(0) & (weight_Q > 0)
    quality_Q = torch.tensor([question.kind == "quality" for question in questions], dtype=torch.bool)
    if not bool((known_Q & ~quality_Q).any()):
        return reward_G
    reward_G[scored_G] = aggregate(table[:, known_Q], quality_Q[known_Q], weight_Q[known_Q]).float()
    return reward_G


def imputed(confidence_GQ: Tensor) -> Tensor:
    """Fills NaN with the mean of its column; a column without any number stays NaN."""
    return confidence_GQ.where(~torch.isnan(confidence_GQ), confidence_GQ.nanmean(0))


def propagated(confidence_GQ: Tensor, questions: Sequence[Question]) -> Tensor:
    """What the dependencies between questions say beyond the answers.

    A question is 0 if one that it depends on, directly or not, was answered no (not above 1/2); else it is NaN if one
    of them is unanswered: whether the dog is brown cannot be known where it is not known whether there is a dog.
    """
    confidence_GQ = confidence_GQ.clone()
    # A chain of dependencies is at most as long as there are questions.
    for _ in questions:
        for place, question in enumerate(questions):
            parents_GD = confidence_GQ[:, list(question.depends_on)]
            confidence_GQ[torch.isnan(parents_GD).any(1), place] = math.nan
            confidence_GQ[(parents_GD <= 0.5).any(1), place] = 0.0
    return confidence_GQ


def geometric(confidence_GQ: Tensor, quality_Q: Tensor, weight_Q: Tensor) -> Tensor:
    """sqrt(semantic * quality); semantic alone without quality questions."""
    semantic_G, quality_G = _means(confidence_GQ, quality_Q, weight_Q)
    return semantic_G if quality_G is None else (semantic_G * quality_G).sqrt()


def average(confidence_GQ: Tensor, quality_Q: Tensor, weight_Q: Tensor) -> Tensor:
    """(semantic + quality) / 2; semantic alone without quality questions."""
    semantic_G, quality_G = _means(confidence_GQ, quality_Q, weight_Q)
    return semantic_G if quality_G is None else (semantic_G + quality_G) / 2


def of_all(confidence_GQ: Tensor, quality_Q: Tensor, weight_Q: Tensor) -> Tensor:
    """Mean over all questions, whatever their kind."""
    return _mean(confidence_GQ, weight_Q)


AGGREGATIONS: Mapping[str, Aggregate] = {
    "geometric": geometric,
    "mean": average,
    "all": of_all,
}


def confidence_metrics(answers: Sequence[Confidences], questions: Sequence[Sequence[Question]]) -> dict[str, Metric]:
    """Mean confidence per tag of what was answered, and the share that was not."""
    by_tag: dict[str, list[float]] = defaultdict(list)
    unanswered: list[bool] = []
    for row, asked in zip(answers, questions, strict=True):
        for value, question in zip(row, asked, strict=True):
            unanswered.append(value is None)
            if value is not None and question.tag:
                by_tag[question.tag].append(value)
    metrics: dict[str, Metric] = {f"reward/tag/{tag}": Mean.over(values) for tag, values in sorted(by_tag.items())}
    return metrics | {"judge/unanswered": Mean.over(unanswered)}


def _means(confidence_GQ: Tensor, quality_Q: Tensor, weight_Q: Tensor) -> tuple[Tensor, Tensor | None]:
    semantic_G = _mean(confidence_GQ[:, ~quality_Q], weight_Q[~quality_Q])
    return semantic_G, _mean(confidence_GQ[:, quality_Q], weight_Q[quality_Q]) if bool(quality_Q.any()) else None


def _mean(confidence_GQ: Tensor, weight_Q: Tensor) -> Tensor:
    return (confidence_GQ * weight_Q).sum(1) / weight_Q.sum()
