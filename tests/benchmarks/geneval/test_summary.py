"""GenEval's figures from verdicts, in both modes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from project.benchmarks.geneval.items import Include, Item
from project.benchmarks.geneval.summary import PictureRow, Share, official_report, score, table
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401


def item(id: str, tag: str) -> Item:
    return Item(id=id, tag=tag, prompt=f"prompt {id}", include=(Include(class_name="dog", count=1),))


def rows(**verdicts: str) -> list[PictureRow]:
    """colors_0="+-" is a right and a wrong picture of item colors_0, of tag colors."""
    return [
        PictureRow(item=name, sample=sample, tag=name.partition("_")[0], correct=sign == "+")
        for name, signs in verdicts.items()
        for sample, sign in enumerate(signs)
        if sign != "."
    ]


ITEMS = [item("counting_0", "counting"), item("colors_0", "colors"), item("colors_1", "colors")]


def test_official_summaries(golden_geneval_summary: Mapping[str, Any]) -> None:
    case = golden_geneval_summary
    found, of_item = [], Counter[str]()
    for row in case["rows"]:
        number = of_item[row["metadata"]]
        of_item[row["metadata"]] += 1
        found.append(PictureRow(item=row["metadata"], sample=number, tag=row["tag"], correct=row["correct"]))
    items = [item(name, next(r["tag"] for r in case["rows"] if r["metadata"] == name)) for name in of_item]
    scores, expected = score(found, items, "official", max(of_item.values())), case["expected"]
    assert scores.images and scores.prompts
    assert (scores.images.total, scores.prompts.total) == (expected["total_images"], expected["total_prompts"])
    assert scores.images.value == expected["correct_images"] and scores.prompts.value == expected["correct_prompts"]
    assert scores.overall == pytest.approx(expected["overall"], rel=1e-15)
    assert list(scores.tags) == list(expected["per_tag"])
    for tag, wanted in expected["per_tag"].items():
        share = scores.tags[tag]
        assert share == Share(correct=wanted["n_correct"], total=wanted["n"]) and share.value == wanted["acc"]
    assert official_report(scores) == expected["stdout"]


def test_both_modes_agree_where_nothing_is_missing() -> None:
    whole = rows(colors_0="+-", counting_0="++", colors_1="--")
    official, strict = score(whole, ITEMS, "official", 2), score(whole, ITEMS, "strict", 2)
    assert official.overall == strict.overall == pytest.approx((1 / 4 + 1) / 2)
    assert official.images == strict.images == Share(correct=3, total=6)
    assert official.prompts == strict.prompts == Share(correct=2, total=3)
    assert list(official.tags) == ["colors", "counting"] and list(strict.tags) == ["counting", "colors"]
    assert strict.coverage.complete


def test_strict_shrinks_no_denominator() -> None:
    """One picture of colors_1 is missing: official takes the mean of the others, strict gives no figure for it."""
    partly = rows(colors_0="++", counting_0="+-", colors_1="-.")
    official, strict = score(partly, ITEMS, "official", 2), score(partly, ITEMS, "strict", 2)
    assert official.overall == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert strict.overall is None and strict.images is None and strict.prompts is None
    assert strict.tags == {"counting": Share(correct=1, total=2), "colors": None}
    assert official.coverage == strict.coverage
    assert (strict.coverage.missing, strict.coverage.expected) == (("colors_1/1",), 6)
    assert table(strict).splitlines() == [
        "counting           50.00",
        "colors                 -",
        "correct images         -",
        "correct prompts        -",
        "overall                -",
        f"(strict; {strict.coverage})",
    ]


def test_a_tag_without_pictures_is_no_figure_of_the_official_script() -> None:
    alone = rows(counting_0="+")
    assert score(alone, ITEMS, "official", 1).overall == 1
    assert score(alone, ITEMS, "strict", 1).tags["colors"] is None


def test_nothing_scored_is_no_figure() -> None:
    for mode in ("official", "strict"):
        scores = score([], ITEMS, mode, 1)
        assert scores.overall is None and scores.images is None and scores.coverage.scored == 0
        with pytest.raises(ValueError, match="at least one picture"):
            official_report(scores)


def test_refused() -> None:
    with pytest.raises(ValueError, match="colors_0/0"):
        score([*rows(colors_0="+"), *rows(colors_0="-")], ITEMS, "official", 1)
    with pytest.raises(ValueError, match="colors_9/0"):
        score(rows(colors_9="+"), ITEMS, "official", 1)
    with pytest.raises(ValueError, match="counting_0/0"):
        score([], [*ITEMS, ITEMS[0]], "strict", 1)
