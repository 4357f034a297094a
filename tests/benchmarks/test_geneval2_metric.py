"""GenEval2's metric: several ranks give what one gives."""

from __future__ import annotations

import pytest

from project.benchmarks.geneval2 import AtomPrompt, AtomQuestion
from project.benchmarks.geneval2_metric import SoftTIFAMetric

PROMPTS = [
    AtomPrompt(
        id=id,
        prompt="p",
        atom_count=3,
        questions=tuple(AtomQuestion(text="is it ?", answer="Yes", skill=skill) for skill in skills),
    )
    for id, skills in (("a", ["object", "count"]), ("b", ["object"]))
]
OUTCOMES = [{"id": "a", "scores": [0.9, 0.4]}, {"id": "b", "scores": [0.1]}]


def filled(*outcomes: dict[str, object]) -> SoftTIFAMetric:
    metric = SoftTIFAMetric(PROMPTS)
    for outcome in outcomes:
        metric.update(outcome)
    return metric


def test_figures_by_hand() -> None:
    figures = filled(*OUTCOMES).compute()
    assert figures["official"] == figures["strict"] and figures["coverage"] == 1.0
    official = figures["official"]
    assert official["gm"] == pytest.approx(0.35) and official["am"] == pytest.approx(0.375)
    assert official["skill"] == pytest.approx({"object": 0.5, "count": 0.4})
    assert official["atoms"] == pytest.approx({"3": 0.35})


def test_ranks_add_up() -> None:
    ranks = [filled(outcome) for outcome in OUTCOMES]
    names = {id(getattr(rank, name)): name for rank in ranks for name in ("seen_P", "score_PQ")}
    gathered = {name: [getattr(rank, name) for rank in ranks] for name in ("seen_P", "score_PQ")}
    metric = ranks[0]
    # What torchmetrics calls to gather a state of all ranks.
    metric.sync(dist_sync_fn=lambda state, group: gathered[names[id(state)]], distributed_available=lambda: True)
    assert metric.scores("strict") == filled(*OUTCOMES).scores("strict")


def test_missing_and_strange_prompts() -> None:
    figures = filled(OUTCOMES[0]).compute()
    assert figures["coverage"] == 0.5 and figures["strict"]["gm"] is None
    assert figures["official"]["gm"] == pytest.approx(0.6)
    with pytest.raises(ValueError, match="more than once: b"):
        filled(*OUTCOMES, OUTCOMES[1]).compute()
    for strange in ({"id": "z", "scores": [1.0]}, {"id": "a", "scores": [1.0]}):
        with pytest.raises(ValueError, match=f"{strange['id']} with 1 scores is no prompt"):
            filled(strange)
    with pytest.raises(ValueError, match="no prompt"):
        SoftTIFAMetric([])
