"""Coverage, and answers that cannot be read."""

from __future__ import annotations

import pytest

from project.benchmarks.scoring import Coverage, UnparsedAnswer, listed, mean, require_known, require_unique


def test_a_gap_is_counted_and_named() -> None:
    coverage = Coverage(expected=4, missing=("b", "d"))
    assert (coverage.scored, coverage.share, coverage.complete) == (2, 0.5, False)
    with pytest.raises(ValueError, match="2 of 4 items scored; missing: b, d"):
        coverage.require_complete()


def test_a_whole_benchmark_is_complete_also_where_parts_are_dropped() -> None:
    coverage = Coverage(expected=4, dropped=(("a", "its first question"),))
    coverage.require_complete()
    assert str(coverage) == "4 of 4 items scored; left out as the official script does: a (its first question)"


def test_nothing_to_score_is_not_complete() -> None:
    assert Coverage(expected=0).share == 0.0 and not Coverage(expected=0).complete
    with pytest.raises(ValueError, match="no items to score"):
        Coverage(expected=0).require_complete()


def test_an_answer_is_shown_from_its_beginning() -> None:
    error = UnparsedAnswer("no score", "x" * 500)
    assert "x" * 120 + "..." in str(error) and "x" * 121 not in str(error)
    assert error.answer == "x" * 500


def test_long_lists_are_cut() -> None:
    assert listed([str(n) for n in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert listed(["a"]) == "a"


def test_means() -> None:
    assert mean([]) is None
    assert mean([0.25, 0.75]) == 0.5


def test_ids_are_checked() -> None:
    require_unique(["a", "b"], "records")
    require_known(["a"], {"a", "b"}, "records")
    with pytest.raises(ValueError, match="records occur more than once: a:"):
        require_unique(["a", "b", "a"], "records")
    with pytest.raises(ValueError, match="records are no items of this benchmark: c:"):
        require_known(["a", "c"], {"a", "b"}, "records")
