"""GenEval's metric: several ranks give what one gives."""

from __future__ import annotations

import pytest

from project.benchmarks.geneval.items import Include, Item
from project.benchmarks.geneval.metric import GenEvalMetric

ITEMS = [
    Item(id=f"{n:05d}", tag=tag, prompt="p", include=(Include(class_name="dog", count=1),))
    for n, tag in enumerate(("counting", "colors", "colors"))
]
OUTCOMES = [{"id": item.id, "sample": n, "correct": (item.id, n) != ("00001", 1)} for item in ITEMS for n in range(2)]


def filled(outcomes: list[dict[str, object]]) -> GenEvalMetric:
    metric = GenEvalMetric(ITEMS, samples=2)
    for outcome in outcomes:
        metric.update(outcome)
    return metric


def test_figures_by_hand() -> None:
    figures = filled(OUTCOMES).compute()
    assert figures["official"] == figures["strict"]
    assert figures["strict"] == {
        "overall": pytest.approx((1 + 3 / 4) / 2),
        "images": pytest.approx(5 / 6),
        "prompts": 1.0,
        "tag": {"counting": 1.0, "colors": 0.75},
    }
    assert figures["coverage"] == 1.0


def test_ranks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = [filled(OUTCOMES[:1]), filled(OUTCOMES[1:])]
    # What torchmetrics calls to gather a state of all ranks.
    states = {id(rank.seen_IS): "seen_IS" for rank in ranks} | {id(rank.correct_IS): "correct_IS" for rank in ranks}
    gathered = {name: [getattr(rank, name) for rank in ranks] for name in ("seen_IS", "correct_IS")}
    metric = ranks[0]
    metric.sync(dist_sync_fn=lambda state, group: gathered[states[id(state)]], distributed_available=lambda: True)
    assert [metric.scores(mode).overall for mode in ("official", "strict")] == [7 / 8, 7 / 8]
    assert metric.seen_IS.sum() == len(OUTCOMES)


def test_missing_and_strange_pictures() -> None:
    figures = filled(OUTCOMES[:5]).compute()
    assert figures["coverage"] == pytest.approx(5 / 6)
    assert figures["strict"]["overall"] is None and figures["strict"]["tag"] == {"counting": 1.0, "colors": None}
    assert figures["official"]["tag"] == {"counting": 1.0, "colors": pytest.approx(2 / 3)}
    with pytest.raises(ValueError, match="00001/1"):
        filled([*OUTCOMES, OUTCOMES[3]]).compute()
    for strange in ({"id": "00009", "sample": 0}, {"id": "00001", "sample": 2}):
        with pytest.raises(ValueError, match=f"{strange['id']}/{strange['sample']} is no picture"):
            filled([strange | {"correct": True}])
    with pytest.raises(ValueError, match="0 items"):
        GenEvalMetric([])
