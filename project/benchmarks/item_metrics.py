"""torchmetrics metrics around the scorers of TIIF-Bench, DPG-Bench, WISE and GEdit-Bench.

What a judge said of the items is a table with a row for each item of the benchmark. An item belongs to one rank, so
that the ranks' tables add up, whatever order they were filled in. `compute` scores the whole table in both modes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from project.benchmarks import dpg, gedit, tiif, wise
from project.benchmarks.base import Outcome, Results
from project.benchmarks.scoring import MODES, Coverage, Mode, UnparsedAnswer, listed

Values = Sequence[float | None]


class ItemMetric(Metric, ABC):
    """A table of what was said of each item, and the figures that a scorer makes of it.

    Shape suffixes: I items, V values of an item.

    Args:
        ids: The items, in the same order on every rank.
        width: V, the most values that an item has.
    """

    full_state_update = False
    value_IV: Tensor
    count_I: Tensor

    def __init__(self, ids: Sequence[str], width: int) -> None:
        super().__init__()
        self.ids = tuple(ids)
        self._row = {name: row for row, name in enumerate(self.ids)}
        shape = (len(self.ids), width)
        self.add_state("value_IV", default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count_I", default=torch.zeros(len(self.ids), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, outcome: Outcome) -> Values | None:
        """Up to V numbers of an outcome, None for those that cannot be read; None if nothing can."""

    @abstractmethod
    def scored(self, said: Mapping[str, Values], mode: Mode) -> tuple[dict[str, Any], Coverage]:
        """Figures and coverage of item -> V values, of the items that something was said of."""

    def update(self, outcome: Outcome) -> None:
        """Adds what was said of the item `outcome["id"]`. Raises ValueError if the benchmark does not have it."""
        row = self._row.get(outcome["id"])
        if row is None:
            raise ValueError(f"{outcome['id']} is no item of this benchmark: draw and judge with the same files")
        values = self.values(outcome)
        if values is None:
            return
        width = self.value_IV.shape[1]
        if len(values) > width:
            raise ValueError(f"{outcome['id']} has {len(values)} values, and no item has more than {width} questions")
        padded = [*values, *[None] * (width - len(values))]
        self.value_IV[row] += self.value_IV.new_tensor([torch.nan if v is None else v for v in padded])
        self.count_I[row] += 1

    def compute(self) -> Results:
        """Mode -> figures, and `coverage`, the share of the items with a score.

        Raises ValueError for items that were added more than once, on one rank or on several.
        """
        counts = self.count_I.tolist()
        if twice := [name for name, count in zip(self.ids, counts, strict=True) if count > 1]:
            raise ValueError(f"items were judged more than once: {listed(twice)}: give every item to one rank")
        rows = self.value_IV.tolist()
        said = {
            name: [None if value != value else value for value in row]
            for name, count, row in zip(self.ids, counts, rows, strict=True)
            if count
        }
        results: Results = {}
        for mode in MODES:
            results[mode], coverage = self.scored(said, mode)
            results["coverage"] = coverage.share  # That of the last mode, which is strict.
        return results


class TIIFMetric(ItemMetric):
    """Figures of TIIF-Bench. Outcomes have `answers`, a list of "yes" and "no", or None.

    Args:
        items: What is drawn.
    """

    def __init__(self, items: Sequence[tiif.TIIFItem]) -> None:
        super().__init__([item.id for item in items], max((len(item.questions) for item in items), default=0))
        self.items = tuple(items)

    def values(self, outcome: Outcome) -> Values | None:
        return None if outcome["answers"] is None else [float(answer == "yes") for answer in outcome["answers"]]

    def scored(self, said: Mapping[str, Values], mode: Mode) -> tuple[dict[str, Any], Coverage]:
        records = [
            tiif.TIIFRecord(id=name, answers=tuple("yes" if value else "no" for value in values if value is not None))
            for name, values in said.items()
        ]
        scores = tiif.score(self.items, records, mode)
        return scores.figures(), scores.coverage


class DPGMetric(ItemMetric):
    """Figures of DPG-Bench. Outcomes have `answers`, for each picture a list of texts in the order of the questions.

    Args:
        items: What is drawn.
        pictures: Pictures of each item.
    """

    WORDS = ("no", "yes", "Yes", "?")
    """Values of the table as texts that both modes read as they read the judge's: the third says yes in strict mode
    alone, and the fourth cannot be read there."""

    def __init__(self, items: Sequence[dpg.DPGItem], pictures: int = dpg.PICTURES) -> None:
        self.most = max((len(item.questions) for item in items), default=0)
        super().__init__([item.id for item in items], pictures * self.most)
        self.items, self.pictures = tuple(items), pictures
        self.questions = {item.id: [question.number for question in item.questions] for item in items}

    def values(self, outcome: Outcome) -> Values | None:
        answers, number = outcome["answers"], len(self.questions[outcome["id"]])
        if answers is None or len(answers) != self.pictures or any(len(given) != number for given in answers):
            return None
        padding = [None] * (self.most - number)
        return [value for given in answers for value in (*map(self._value, given), *padding)]

    def _value(self, text: str | None) -> float | None:
        if text is None:
            return None
        if text == "yes":
            return 1.0
        try:
            return 2.0 if dpg.parse_answer(text) else 0.0
        except UnparsedAnswer:
            return 3.0

    def scored(self, said: Mapping[str, Values], mode: Mode) -> tuple[dict[str, Any], Coverage]:
        records = []
        for name, values in said.items():
            numbers = self.questions[name]
            given = [values[n * self.most : n * self.most + len(numbers)] for n in range(self.pictures)]
            answers = tuple(
                {number: self.WORDS[int(v)] for number, v in zip(numbers, picture, strict=True) if v is not None}
                for picture in given
            )
            records.append(dpg.DPGRecord(id=name, answers=answers))
        scores = dpg.score(self.items, records, mode, self.pictures)
        return scores.figures(), scores.coverage


class WISEMetric(ItemMetric):
    """Figures of WISE. Outcomes have `scores`: three for the legacy edition, one for the verified edition, or None.

    Args:
        items: What is drawn.
        edition: Which edition the items are of.
    """

    def __init__(self, items: Sequence[wise.WISEItem], edition: wise.Edition) -> None:
        super().__init__([str(item.id) for item in items], {"legacy": 3, "verified": 1}[edition])
        self.edition = edition
        self.expected: Collection[int] = frozenset(item.id for item in items)

    def values(self, outcome: Outcome) -> Values | None:
        scores: Values | None = outcome["scores"]
        return scores

    def scored(self, said: Mapping[str, Values], mode: Mode) -> tuple[dict[str, Any], Coverage]:
        if self.edition == "legacy":
            records = [
                wise.WISERecord(id=int(name), consistency=c, realism=r, aesthetic_quality=a)
                for name, (c, r, a) in said.items()
            ]
            scores = wise.score_legacy(records, mode, expected=self.expected)
        else:
            verdicts = [wise.WISEVerdict(id=int(name), score=score) for name, (score,) in said.items()]
            scores = wise.score_verified(verdicts, mode, expected=self.expected)
        return scores.figures(), scores.coverage


class GEditMetric(ItemMetric):
    """Figures of GEdit-Bench in one language. Outcomes have `semantics` and `quality`, or None for them.

    Args:
        items: The edits.
        language: Of the instructions.
        groups: Those that the average is over.
    """

    def __init__(
        self, items: Sequence[gedit.GEditItem], language: gedit.Language, groups: Sequence[str] = gedit.GROUPS
    ) -> None:
        super().__init__([item.id for item in items], 2)
        self.items, self.language, self.groups = tuple(items), language, tuple(groups)

    def values(self, outcome: Outcome) -> Values | None:
        return [outcome["semantics"], outcome["quality"]]

    def scored(self, said: Mapping[str, Values], mode: Mode) -> tuple[dict[str, Any], Coverage]:
        records = [gedit.GEditRecord(id=name, semantics=sc, quality=pq) for name, (sc, pq) in said.items()]
        scores = gedit.score(self.items, records, self.language, mode, self.groups)
        return scores.figures(), scores.coverage
