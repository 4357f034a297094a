"""The work of an update grows as what is asked for: operations are counted, so every machine says the same."""

from __future__ import annotations

from collections import Counter

import pytest
from lightning import Callback

from project.planning.counting import Operations
from project.samplers.guidance import Guidance
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.self_reflection import SelfReflection
from project.trajectory import Prompt
from tests.helpers.policies import TinyBagel
from tests.helpers.sampling import sde
from tests.helpers.tiny_module import make_module, plain_descent, train

GUIDANCE = Guidance(text=2.0, interval=(0.0, 1.0))


class EndlessTexts(TinyBagel):
    """Texts are as long as they may be."""

    def load(self):
        model = super().load()
        forward = type(model).forward

        def endless(self, query, contexts=()):
            output = forward(self, query, contexts)
            if query.logits is not None:
                output.logits[..., self.special.text_end] = -1e4
            return output

        model.__class__ = type("Endless", (type(model),), {"forward": endless})
        return model


class Counted(Callback):
    """Operations and calls of an update."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        stopwatch = pl_module.stopwatch
        self.operations = Operations(pl_module.model.named_parameters(), lambda: stopwatch.current)
        self.operations.__enter__()

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.operations.__exit__(None, None, None)
        self.flops, self.calls = Counter(), Counter()
        for part in self.operations.parts:
            self.flops[part.phase] += part.tally.flops
            self.calls[part.phase] += part.tally.calls


def counted(prompts=2, samples=4, tokens=8, rounds=0, trained=2, **task):
    """One update of different prompts."""
    drawing = {"height": 8, "width": 8, "max_tokens": tokens, "top_p": 1.0, "guidance": GUIDANCE, **task}
    made = ReasoningT2I(**drawing)
    if rounds:
        made = SelfReflection(made, rounds=rounds, train_first=True, max_tokens=tokens, guidance=GUIDANCE, credit="own")
    module = make_module(
        policy=EndlessTexts(), task=made, sampler=sde(16, trained, (0, 12)), num_generations=samples,
        optimizer=plain_descent,
    )  # fmt: skip
    count = Counted()
    asked = [Prompt(id=str(n), text=f"a red circle and {n} blue square") for n in range(prompts)]
    train(module, updates=1, callbacks=[count], batches=[asked])
    return count


SIZES = {"samples": (4, 8, 16), "prompts": (2, 4, 8), "rounds": (1, 2, 3), "trained": (2, 4, 8), "tokens": (8, 16, 32)}
STEEPER = {"tokens": 1.15}
"""How much steeper the second stretch may be, where it is not 1.001: a token looks at all tokens before it."""


@pytest.mark.slow
@pytest.mark.parametrize("what", SIZES)
def test_operations_grow_no_faster_than_what_is_asked_for(what):
    one, two, three = SIZES[what]
    first, second, third = (sum(counted(**{what: size}).flops.values()) for size in (one, two, three))
    slopes = (second - first) / (two - one), (third - second) / (three - two)
    assert 0 < slopes[1] <= STEEPER.get(what, 1.001) * slopes[0], (first, second, third)


@pytest.mark.slow
def test_prompts_together_need_the_calls_of_one():
    """The same operations, but for a beginning that all prompts share: it is read once."""
    together, alone = counted(prompts=16, samples=2), counted(prompts=16, samples=2, prompts_per_forward=1)
    assert 0.9 * alone.flops["rollout_text"] < together.flops["rollout_text"] <= alone.flops["rollout_text"]
    assert together.flops["rollout_image"] == alone.flops["rollout_image"]
    for phase in ("rollout_text", "rollout_image"):
        assert together.calls[phase] < alone.calls[phase] / 12, phase
