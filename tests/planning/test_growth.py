"""An update's work grows no faster than in proportion to what it is asked to do; `-s` prints the figures."""

from __future__ import annotations

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


def update(group=8, prompts=2, tokens=6, rounds=None, trained=3):
    """An update of the tiny policy: (GFLOP, calls, seconds, sampled tokens). The seconds are of another one."""
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
    flops, calls = (sum(getattr(phase.done, name) for phase in phases) for name in ("flops", "calls"))
    return flops / 1e9, calls, cost.seconds("total"), counting.counted.text_tokens


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

    Where it is texts that grow, one more is a token that was sampled: texts end where they want.
    """
    found = {value: update(**{axis: value}) for value in AXES[axis]}
    for value, (gflop, calls, seconds, tokens) in found.items():
        print(f"{axis}={value:<4} {gflop:8.3f} GFLOP {calls:8} calls {seconds:7.2f} s {tokens:6} tokens")
    points = [(of[3] if axis == "tokens" else value, of[0]) for value, of in found.items()]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)]
    assert slopes[-1] <= 1.1 * slopes[0], slopes
