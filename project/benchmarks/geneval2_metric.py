"""GenEval2's figures over all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from project.benchmarks.geneval2 import AtomPrompt, AtomScores, SoftTIFA, score
from project.benchmarks.scoring import MODES, Mode


class SoftTIFAMetric(Metric):
    """Collects the scores of prompts and gives the figures of both modes.

    Shape suffixes: P prompts, Q questions (of the prompt that has most).

    Args:
        prompts: of the whole benchmark, in its order.

    Raises:
        ValueError: without prompts.
    """

    seen_P: Tensor
    score_PQ: Tensor

    def __init__(self, prompts: Sequence[AtomPrompt]) -> None:
        super().__init__()
        if not prompts:
            raise ValueError("no prompt: give at least one")
        self.prompts = tuple(prompts)
        self._place = {prompt.id: n for n, prompt in enumerate(prompts)}
        most = max(len(prompt.questions) for prompt in prompts)
        self.add_state("seen_P", default=torch.zeros(len(prompts), dtype=torch.long), dist_reduce_fx="sum")
        # Every prompt belongs to one rank, so that a sum over ranks only adds zeros.
        self.add_state("score_PQ", default=torch.zeros(len(prompts), most, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outcome: Mapping[str, Any]) -> None:
        """Adds a prompt: the keys are `id` and `scores`, one for each question.

        Raises ValueError for a prompt that is not there, and for another number of scores.
        """
        place, scores = self._place.get(outcome["id"]), outcome["scores"]
        if place is None or len(scores) != len(self.prompts[place].questions):
            raise ValueError(f"{outcome['id']} with {len(scores)} scores is no prompt of this benchmark")
        self.seen_P[place] += 1
        self.score_PQ[place, : len(scores)] += torch.tensor(scores, dtype=torch.float64, device=self.score_PQ.device)

    def scores(self, mode: Mode) -> SoftTIFA:
        """The figures of one mode, of what this metric holds. Raises as `geneval2.score`."""
        score_PQ = self.score_PQ.tolist()
        rows = [
            AtomScores(prompt=prompt.id, scores=tuple(score_PQ[n][: len(prompt.questions)]))
            for n, prompt in enumerate(self.prompts)
            for _ in range(int(self.seen_P[n]))
        ]
        return score(rows, self.prompts, mode)

    def compute(self) -> dict[str, Any]:
        """`official` and `strict`, each with `gm`, `am`, `skill/SKILL` and `atoms/NUMBER`, shares of 1; `coverage`, the
        share of prompts scored. A figure that `strict` does not give is None."""
        both = {mode: self.scores(mode) for mode in MODES}
        return {
            **{mode: figures.figures() for mode, figures in both.items()},
            "coverage": both["strict"].coverage.share,
        }
