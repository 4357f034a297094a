"""`together`: what one rank raises, all raise."""

from __future__ import annotations

import pytest

from project.core.errors import ScoringFailed
from project.judges.agreement import together
from project.judges.base import JudgeUnavailable


def test_a_rank_whose_judge_is_lost_says_so_and_raises() -> None:
    said: list[bool] = []
    with pytest.raises(JudgeUnavailable, match="nobody answers") as caught, together(lambda x: said.append(x) or x):
        raise JudgeUnavailable("nobody answers")
    assert said == [True] and caught.value.agreed


def test_another_rank_raises_with_it() -> None:
    with pytest.raises(ScoringFailed, match="another rank") as caught, together(lambda lost: True):
        pass
    assert caught.value.agreed


def test_nothing_happens_while_all_are_well() -> None:
    said: list[bool] = []
    with together(lambda lost: said.append(lost) or lost):
        pass
    assert said == [False]


def test_other_errors_pass_at_once() -> None:
    with pytest.raises(KeyError), together(lambda lost: pytest.fail("asked")):
        raise KeyError("x")
