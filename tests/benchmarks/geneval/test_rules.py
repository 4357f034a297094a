"""GenEval's rules on known detections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from project.benchmarks.geneval.detections import Detection
from project.benchmarks.geneval.items import Item, item_of
from project.benchmarks.geneval.rules import Verdict, evaluate, relative_position
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401


def of_table(colors: Mapping[str, Sequence[str]]) -> Any:
    """The colours of a class's detections, in their order."""
    return lambda group: list(colors[group[0].class_name])[: len(group)] if group else []


def detected(boxes: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, tuple[Detection, ...]]:
    return {
        name: tuple(Detection(class_name=name, box=tuple(row[:4]), score=row[4]) for row in rows)
        for name, rows in boxes.items()
    }


def item(*include: Mapping[str, Any], exclude: Sequence[Mapping[str, Any]] = (), tag: str = "colors") -> Item:
    return item_of({"tag": tag, "include": list(include), "exclude": list(exclude), "prompt": "p"}, "00000")


def test_official_verdicts(golden_geneval_evaluate: Mapping[str, Any]) -> None:
    case = golden_geneval_evaluate
    asked = item_of(case["metadata"], "00000")
    verdict = evaluate(asked, detected(case["detections"]), of_table(case["colors"]))
    assert verdict.correct == case["expected"]["correct"]
    assert in_order(verdict.reason) == in_order(case["expected"]["reason"])


def in_order(reason: str) -> str:
    """Two relations sorted by name: the official scorer joins a set of them, whose order changes from run to run."""
    return re.sub(r"found ([a-z ]+) and ([a-z ]+) target", lambda m: f"found {sorted(m.groups())} target", reason)


def test_two_relations_are_told_in_the_order_of_their_names() -> None:
    placed = item({"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]})
    verdict = evaluate(placed, detected({"dog": [[0, 0, 9, 9, 0.9]], "cat": [[60, 60, 69, 69, 0.9]]}), of_table({}))
    assert verdict == Verdict(correct=False, reason="expected cat left of target, found below and right of target")
    assert in_order(verdict.reason) == in_order("expected cat left of target, found right of and below target")


def test_official_positions(golden_geneval_relative_position: Mapping[str, Any]) -> None:
    case = golden_geneval_relative_position
    found = relative_position(tuple(case["box_a"]), tuple(case["box_b"]), case["position_threshold"])
    assert list(found) == case["expected_a_relative_to_b"]


def test_positions_by_hand() -> None:
    here = (0.0, 0.0, 10.0, 10.0)
    assert relative_position(here, (30.0, 0.0, 40.0, 10.0)) == ("left of",)
    assert relative_position((30.0, 30.0, 40.0, 40.0), here) == ("below", "right of")
    assert relative_position(here, here) == ()
    # The centres are 2 pixels apart, and 0.1 (10 + 10) = 2 does not count.
    assert relative_position((2.0, 0.0, 12.0, 10.0), here) == ()
    # 4 - 2 = 2 of 4 pixels: exactly one half is no relation, a little more is.
    assert relative_position((4.0, 0.0, 14.0, 10.0), here) == ()
    assert relative_position((4.1, 0.0, 14.1, 10.0), here) == ("right of",)
    assert relative_position((4.1, 0.0, 14.1, 10.0), here, threshold=0.2) == ()


def test_colours_are_asked_only_where_they_matter() -> None:
    def never(group: Sequence[Detection]) -> Sequence[str]:
        raise AssertionError("no rule needs a colour")

    two = item({"class": "dog", "count": 2, "color": "red"}, {"class": "cat", "count": 1})
    verdict = evaluate(two, detected({"dog": [[0, 0, 9, 9, 0.9]]}), never)
    assert verdict.reason == "expected dog>=2, found 1\nexpected cat>=1, found 0"


def test_several_colours_are_counted_in_the_order_of_the_colours() -> None:
    wanted = item({"class": "dog", "count": 3, "color": "red"})
    dogs = detected({"dog": [[20 * n, 0, 20 * n + 9, 9, 0.9] for n in range(4)]})
    verdict = evaluate(wanted, dogs, of_table({"dog": ["white", "red", "blue", "red"]}))
    assert verdict.reason == "expected red dog>=3, found 1 red; and 1 red, 1 blue, 1 white"


def test_a_target_of_the_wrong_colour_is_none() -> None:
    placed = item(
        {"class": "dog", "count": 1, "color": "red"}, {"class": "cat", "count": 1, "position": ["right of", 0]}
    )
    seen = detected({"dog": [[0, 0, 9, 9, 0.9]], "cat": [[50, 0, 59, 9, 0.9]]})
    assert evaluate(placed, seen, of_table({"dog": ["red"]})).correct
    verdict = evaluate(placed, seen, of_table({"dog": ["blue"]}))
    assert verdict.reason.splitlines()[1:] == ["no target for cat to be right of"]


def test_every_object_must_have_the_relation_to_every_target() -> None:
    placed = item({"class": "dog", "count": 2}, {"class": "cat", "count": 1, "position": ["right of", 0]})
    cat = [40, 0, 49, 9, 0.9]
    right = evaluate(placed, detected({"dog": [[0, 0, 9, 9, 0.9], [9, 0, 18, 9, 0.9]], "cat": [cat]}), of_table({}))
    wrong = evaluate(placed, detected({"dog": [[0, 0, 9, 9, 0.9], [90, 0, 99, 9, 0.9]], "cat": [cat]}), of_table({}))
    assert right.correct
    assert wrong.reason == "expected cat right of target, found left of target"


def test_exclusion_counts_what_the_inclusion_does_not() -> None:
    three = item({"class": "dog", "count": 3}, exclude=[{"class": "dog", "count": 4}], tag="counting")
    dogs = [[20 * n, 0, 20 * n + 9, 9, 0.95] for n in range(4)]
    assert evaluate(three, detected({"dog": dogs[:3]}), of_table({})).correct
    assert evaluate(three, detected({"dog": dogs}), of_table({})).reason == "expected dog<4, found 4"
