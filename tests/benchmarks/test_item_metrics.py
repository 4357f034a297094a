"""Metrics over a table of items: the scorers' own figures, over several ranks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from project.benchmarks import dpg, gedit, tiif, wise
from project.benchmarks.item_metrics import DPGMetric, GEditMetric, ItemMetric, TIIFMetric, WISEMetric

TEXTS = [
    tiif.TIIFItem(id=f"text/{n}/short", type="text", length="short", prompt="x", questions=("a", "b")[: n + 1],
                  expected=("yes", "no")[: n + 1])
    for n in range(2)
]  # fmt: skip
QUESTIONS = tuple(dpg.DPGQuestion(number=n, text="x", parents=(), category="entity - whole") for n in (1, 5))
DENSE = [dpg.DPGItem(id=name, prompt="x", questions=QUESTIONS[:number]) for name, number in (("a", 2), ("b", 1))]
WISE = [
    wise.WISEItem(id=number, prompt="x", explanation="x", category="culture", subcategory="Art") for number in (1, 2)
]
EDITS = [
    gedit.GEditItem(group=group, language="en", key="0", instruction="x", intersection=False) for group in gedit.GROUPS
]
CASES: dict[str, tuple[ItemMetric, list[dict[str, Any]]]] = {
    "tiif": (
        TIIFMetric(TEXTS),
        [{"id": "text/0/short", "answers": ["yes"]}, {"id": "text/1/short", "answers": ["no", "no"]}],
    ),
    "dpg": (
        DPGMetric(DENSE, pictures=2),
        [{"id": "a", "answers": [["yes", "Yes."], ["no", "yes"]]}, {"id": "b", "answers": [["no"], ["yes"]]}],
    ),
    "wise legacy": (WISEMetric(WISE, "legacy"), [{"id": "1", "scores": [2, 1, 0]}, {"id": "2", "scores": [1, 1, 2]}]),
    "wise verified": (WISEMetric(WISE, "verified"), [{"id": "1", "scores": [1]}, {"id": "2", "scores": [0]}]),
    "gedit": (
        GEditMetric(EDITS, "en"),
        [{"id": item.id, "semantics": float(n), "quality": 4.0} for n, item in enumerate(EDITS)],
    ),
}


def filled(metric: ItemMetric, outcomes: Sequence[dict[str, Any]]) -> ItemMetric:
    metric = copy.deepcopy(metric)
    for outcome in outcomes:
        metric.update(outcome)
    return metric


def overall(name: str, results: dict[str, Any]) -> Any:
    return {
        "tiif": lambda: results["type"]["text"]["short"],
        "gedit": lambda: (results["fullset"]["SC"], results["fullset"]["PQ"]),
        "dpg": lambda: results["overall"],
    }.get(name, lambda: results["category"]["culture"])()


@pytest.mark.parametrize(
    ("name", "official", "strict"),
    [
        ("tiif", 0.6667, pytest.approx(2 / 3)),
        ("dpg", pytest.approx((0.5 + 0.5) / 2), pytest.approx((0.75 + 0.5) / 2)),
        ("wise legacy", pytest.approx((0.8 + 0.55) / 2), pytest.approx((0.8 + 0.55) / 2)),
        ("wise verified", 0.5, 0.5),
        ("gedit", (5.0, 4.0), (5.0, 4.0)),
    ],
)
def test_figures_of_both_modes(name: str, official: Any, strict: Any) -> None:
    results = filled(*CASES[name]).compute()
    assert results["coverage"] == 1.0
    assert overall(name, results["official"]) == official
    assert overall(name, results["strict"]) == strict


@pytest.mark.parametrize("name", CASES)
def test_ranks_add_up(name: str) -> None:
    metric, outcomes = CASES[name]
    whole, one, other = filled(metric, outcomes), filled(metric, outcomes[1:]), filled(metric, outcomes[:1])
    one.merge_state(other)
    assert one.compute() == whole.compute()


@pytest.mark.parametrize("name", CASES)
def test_an_item_that_was_not_judged_is_not_covered(name: str) -> None:
    metric, outcomes = CASES[name]
    unread = {key: value if key == "id" else None for key, value in outcomes[0].items()}
    results = filled(metric, [unread, *outcomes[1:]]).compute()
    assert results["coverage"] == pytest.approx(1 - 1 / len(outcomes))
    assert filled(metric, outcomes[1:]).compute() == results


@pytest.mark.parametrize("name", CASES)
def test_items_are_judged_once_and_are_known(name: str) -> None:
    metric, outcomes = CASES[name]
    with pytest.raises(ValueError, match=f"judged more than once: {outcomes[0]['id']}"):
        filled(metric, [*outcomes, outcomes[0]]).compute()
    with pytest.raises(ValueError, match="other is no item of this benchmark"):
        filled(metric, [outcomes[0] | {"id": "other"}])


def test_answers_that_cannot_be_read_stay_apart_from_no() -> None:
    metric, outcomes = CASES["dpg"]
    for answers in ([["perhaps"], ["yes"]], [[None], ["yes"]], [["yes"]], [["yes", "no"], ["yes"]]):
        results = filled(metric, [outcomes[0], {"id": "b", "answers": answers}]).compute()
        assert results["coverage"] == 0.5, answers
        assert results["strict"]["overall"] == 0.75, answers


def test_more_answers_than_questions_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="text/0/short has 3 values, and no item has more than 2 questions"):
        filled(CASES["tiif"][0], [{"id": "text/0/short", "answers": ["yes"] * 3}])
