"""An update's work grows no faster than in proportion to what it is asked to do; `-s` prints the figures."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest

from project.planning.counted_update import CountingCallback
from project.planning.measured import Cost, Recorder
from project.rewards.random import RandomReward
from project.samplers.guidance import Guidance
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.self_reflection import SelfReflection
from tests.helpers.policies import TinyBagel
from tests.helpers.sampling import sde
from tests.helpers.tiny_module import PROMPTS, make_module, train

GUIDED = Guidance(text=2.0, interval=(0.0, 1.0))


class Outlined(TinyBagel):
    def outline(self):
        return self.load().to("meta")


@dataclass
class Work:
    """Of an update: what was counted, and the seconds of another one.

    Attributes:
        gflop: operations, without those on texts that have ended and other padding.
        needed: GFLOP by the plan's arithmetic, in the phases that it knows.
    """

    gflop: float
    padding: float
    needed: float
    calls: int
    seconds: float
    tokens: int


def update(group=8, prompts=2, tokens=6, rounds=None, trained=3):
    task = ReasoningT2I(height=8, width=8, max_tokens=tokens, top_p=1.0, guidance=GUIDED, prompts_per_forward=2)
    if rounds is not None:
        settings = {"candidates": 2, "max_tokens": tokens, "right": None, "rectification": None}
        task = SelfReflection(task, rounds=rounds, requests_per_forward=16, **settings)
    settings = {"policy": Outlined(), "task": task, "sampler": sde(18, trained, (0, 16))}
    rows = [PROMPTS[n % 3].__class__(id=str(n), text=PROMPTS[n % 3].text) for n in range(prompts)]
    cost, counting = Cost(), CountingCallback("32-true", prompts=prompts)
    for callback, updates in ((Recorder(cost), 3), (counting, 2)):
        module = make_module(num_generations=group, micro_batch_size=4, **settings)
        train(module, updates, [RandomReward(seed=2)], [callback], [rows] * updates)
    phases = counting.counted.phases.values()
    padding = sum(phase.padding for phase in phases)
    return Work(
        gflop=(sum(phase.done.flops for phase in phases) - padding) / 1e9,
        padding=padding / 1e9,
        needed=sum(phase.needed or 0.0 for phase in phases) / 1e9,
        calls=sum(phase.done.calls for phase in phases),
        seconds=cost.seconds("total"),
        tokens=counting.counted.text_tokens,
    )


AXES = {
    "group": (4, 8, 16, 32),
    "prompts": (2, 4, 8, 16),
    "rounds": (1, 2, 4),
    "trained": (2, 4, 8, 16),
    "tokens": (8, 16, 32, 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("axis", AXES)
def test_work_grows_in_lines(axis):
    """What one more costs does not rise by more than 10% from the smallest to the largest update.

    This model is so narrow that attention, which grows with the square of a text, is as much work as its matrices. So
    longer texts are compared with the plan's arithmetic, which knows that.
    """
    found = {value: update(**{axis: value}) for value in AXES[axis]}
    for value, of in found.items():
        print(
            f"{axis}={value:<4}{of.gflop:8.3f} GFLOP ({of.needed:.3f} needed) + {of.padding:.3f} padding"
            f"{of.calls:8} calls{of.seconds:7.2f} s{of.tokens:6} tokens"
        )
    if axis == "tokens":
        ratios = [of.gflop / of.needed for of in found.values()]
        assert ratios[-1] <= 1.1 * ratios[0], ratios
    for cost in ("gflop", "calls"):
        points = [(value, getattr(of, cost)) for value, of in found.items()]
        slopes = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(points)]
        assert axis == "tokens" or slopes[-1] <= 1.1 * slopes[0], (cost, slopes)
