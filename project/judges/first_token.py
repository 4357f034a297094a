"""What judges share that run a language model themselves: questions one by one, and the first token's confidence.

Shape suffixes: project/trajectory.py; here R is one row per question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from project.judges.base import check_pictures
from project.judges.templates import confidence_of
from project.trajectory import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question about one picture."""

    picture: int
    """Place of the picture among those that the judge was given."""
    question: str
    prompt: str


def one_by_one(
    images: Sequence[np.ndarray], questions: Sequence[Sequence[Question]], prompts: Sequence[str]
) -> list[Asked]:
    """Every question, picture by picture. Raises ValueError unless there is one list and one prompt per picture."""
    check_pictures(images, questions, prompts)
    return [
        Asked(picture=n, question=question.text, prompt=prompt)
        for n, (asked, prompt) in enumerate(zip(questions, prompts, strict=True))
        for question in asked
    ]


def regrouped(answers: Sequence[float | None], questions: Sequence[Sequence[Question]]) -> list[list[float | None]]:
    """The answers to the questions of `one_by_one`, as one list per picture."""
    rest = iter(answers)
    return [list(islice(rest, len(asked))) for asked in questions]


def device_of(name: str | None) -> torch.device:
    """The device named; for None the accelerator that this process uses, else the CPU."""
    if name is None:
        # By its number: with several ranks each has its own.
        name = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def confidences(log_prob_RV: Tensor, yes: Sequence[int], no: Sequence[int], minimum: float) -> list[float | None]:
    """P(yes) / (P(yes) + P(no)) of each row's next token; None where both together have less than `minimum`.

    Args:
        log_prob_RV: log-probabilities of the first token of the answer, over the whole vocabulary.
        yes, no: ids of all tokens that say so (see `project.judges.templates.answer_ids`).
        minimum: least probability of both together, for an answer.
    """
    # In double precision a mass of e^-700 is still a number, so no answer is lost to underflow.
    mass_RV = log_prob_RV.double().exp()
    yes_R, no_R = (mass_RV[:, list(ids)].sum(-1).tolist() for ids in (yes, no))
    return [confidence_of(*masses, minimum) for masses in zip(yes_R, no_R, strict=True)]
