"""The noise is what it says: of the given size, keyed by picture and question, and never a made-up answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from project.judges.base import Judge
from project.judges.noisy import NoisyJudge
from project.trajectory import Question


class Sure(Judge):
    """Yes to even questions, no to odd ones, nothing to "?"."""

    @property
    def name(self):
        return "sure"

    def preflight(self):
        return None

    def answer(self, images, questions, prompts):
        return [[None if q.text == "?" else float(int(q.text) % 2 == 0) for q in asked] for asked in questions]


def pictures(number):
    return [np.full((2, 2, 3), n % 256, dtype=np.uint8) + n // 256 for n in range(number)]


def asked(judge, number=200, questions=20):
    row = [Question(text=str(q)) for q in range(questions)]
    return torch.tensor(judge.answer(pictures(number), [row] * number, ["p"] * number))


def test_the_noise_has_the_size_it_says():
    answers = asked(NoisyJudge(Sure(), noise=2.0, floor=0.1))
    logits = torch.logit(answers.double())
    centre = torch.logit(torch.tensor(0.9, dtype=torch.float64))
    errors = torch.cat([logits[:, ::2] - centre, logits[:, 1::2] + centre], 1)
    assert errors.mean().abs() < 0.1 and errors.std() == pytest.approx(2.0, rel=0.05)
    wrong = ((answers[:, ::2] < 0.5).float().mean() + (answers[:, 1::2] > 0.5).float().mean()) / 2
    assert wrong == pytest.approx(0.136, abs=0.02), "P(z > logit(0.9) / 2) = 0.136"


def test_the_same_question_gets_the_same_answer_and_another_seed_another():
    one, again, other = (asked(NoisyJudge(Sure(), seed=seed), 5, 4) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert len(set(one.flatten().tolist())) == one.numel()


def test_unanswered_stays_unanswered_and_without_noise_only_certainty_goes():
    assert NoisyJudge(Sure()).answer(pictures(1), [[Question(text="?")]], ["p"]) == [[None]]
    exact = asked(NoisyJudge(Sure(), noise=0.0, floor=0.2), 1, 2)
    torch.testing.assert_close(exact, torch.tensor([[0.8, 0.2]]))
    assert NoisyJudge(Sure()).name != NoisyJudge(Sure(), seed=1).name


def test_bad_settings_are_named():
    for changes in ({"noise": -1.0}, {"floor": 0.5}):
        with pytest.raises(ValueError, match="floor in"):
            NoisyJudge(Sure(), **changes)
