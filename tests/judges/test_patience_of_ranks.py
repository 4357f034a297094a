"""Ranks wait for the one whose judge is away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from project.judges.cache import CachedJudge
from project.judges.noisy import NoisyJudge
from project.judges.openai.judge import OpenAIJudge
from project.judges.openai.server import Server
from project.judges.openai.text_judge import OpenAITextJudge
from project.rewards.dvreward import DVReward
from project.rewards.holistic import HolisticReward
from project.rewards.judged_structure import JudgedStructure
from project.rewards.random import RandomReward
from project.shapes.judge import DetectorJudge
from tests.helpers import ROOT


def test_the_other_ranks_wait_for_a_judge_that_is_away(tmp_path: Path) -> None:
    """Two processes. Without the longer time-out the one that waits is lost."""
    command = [sys.executable, "-m", "tests.helpers.two_ranks_waiting"]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=120)[0].split() for rank in ranks]
    assert said[0] == ["met", "lost"] and said[1][0] == "met"


def test_how_long_a_judge_is_waited_for_is_known_to_its_reward(tmp_path: Path) -> None:
    server = Server("http://localhost:1/v1", "x", patience=7200.0, retries=1, timeout=20.0)
    judge, text_judge = OpenAIJudge(server), OpenAITextJudge(server)
    assert judge.longest_wait == 7200 + 2 * (20 + 30), "the patience, and twice a time-out and a pause"
    around = [CachedJudge(judge, str(tmp_path)), NoisyJudge(judge), DVReward(judge), HolisticReward(judge)]
    for one in (*around, text_judge, JudgedStructure(text_judge)):
        assert one.longest_wait == judge.longest_wait, one
    assert DVReward(DetectorJudge()).longest_wait == RandomReward().longest_wait == 0
