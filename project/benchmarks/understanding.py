"""Understanding: questions about given pictures, right or wrong. Before and after training it shows what is forgotten.

Questions: rows of JSONL as `project.data.choices` describes them, answered by `project.tasks.Answering`. A row may have

    set, kind    what accuracies are taken over; "all" if missing
    item         rows of one item count as right together or not at all

MME's accuracy and accuracy+ are the accuracy and the share of right items, where an item is a picture; MMBench's
CircularEval is the share of right items, where an item is a question with its choices in every cyclic order.
`project.data.question_files` converts the files of both.

Differences from the official scorers: MME looks for yes or no in the first four characters of an answer, MMBench asks a
language model which choice a free answer means. Here an answer must name one choice itself (`Choices.named_in`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from lightning.pytorch import LightningModule, Trainer
from torchmetrics import Metric

from project.benchmarks.base import Benchmark, Outcome, Results, gather
from project.data.choices import YES_NO, choices_of
from project.trajectory import Prompt, Trajectory

Key = TypeVar("Key", str, tuple[str, str])


class UnderstandingBenchmark(Benchmark):
    """Accuracy of answers to yes/no and multiple-choice questions about pictures.

    `accuracy`: share of right answers. An answer that names no choice, or several, is wrong; `unreadable` is the share
    of these. `set/SET`, `by_kind/KIND`: accuracy by set and by kind. `items`, `set_items/SET`: share of items whose
    answers are all right, if some item has several rows. `yes/said`: share of "yes" among the readable answers to
    yes/no questions; `yes/true`: share of these questions whose answer is yes. All are shares in [0, 1], every row (or
    item) weighs the same.

    Rewards judge drawn pictures, so none is asked about the answers.
    """

    of_pictures = False

    def __init__(self) -> None:
        super().__init__(AnswerShares())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises ValueError, naming the row's place, for a question without a usable answer."""
        super().setup(trainer, pl_module, stage)
        kind = {"fit": "val", "validate": "val"}.get(stage, stage)
        prompts: Sequence[Prompt] = getattr(trainer.datamodule, "prompts", {}).get(kind, ())  # type: ignore[attr-defined]
        for prompt in prompts:
            if self._measures(prompt):
                choices_of(prompt)

    def measure(self, trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> list[Outcome]:
        """Outcomes in {0, 1}. Raises ValueError for a prompt that is no question with a known answer."""
        outcomes = []
        for trajectory, reward in zip(trajectories, rewards, strict=True):
            prompt = trajectory.prompt
            choices = choices_of(prompt)
            named = choices.named_in(trajectory.reasoning)
            said = None if named is None else choices.options[named].casefold()
            truth = choices.options[choices.right].casefold()
            outcomes.append(
                {
                    "set": str(prompt.columns.get("set", "all")),
                    "kind": str(prompt.columns.get("kind", "all")),
                    "item": str(prompt.columns.get("item", prompt.id)),
                    "right": int(named == choices.right),
                    "unreadable": int(named is None),
                    "said_yes": int(said == YES_NO[0]) if choices.yes_no and said is not None else None,
                    "true_yes": int(truth == YES_NO[0]) if choices.yes_no else None,
                    "reward": reward,
                    "text": trajectory.reasoning,
                }
            )
        return outcomes


class AnswerShares(Metric):
    """The figures of `UnderstandingBenchmark`, over all ranks.

    Sets are not known before, and the rows of an item may be on several ranks, so the outcomes are no states of fixed
    size: `compute` gathers them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[Outcome] = []

    def update(self, outcome: Outcome) -> None:
        """Adds one answer."""
        self.outcomes.append({name: value for name, value in outcome.items() if name not in ("text", "reward")})

    def compute(self) -> Results:
        """The figures; without those that nothing was measured for. A collective call."""
        outcomes = gather(self.outcomes)
        if not outcomes:
            return {}
        figures: Results = {"accuracy": _share(outcomes, "right"), "unreadable": _share(outcomes, "unreadable")}
        items = _by(outcomes, lambda o: (o["set"], o["item"]))
        if len(items) < len(outcomes):
            whole = [{"set": name, "right": min(o["right"] for o in rows)} for (name, _), rows in items.items()]
            figures["items"] = _share(whole, "right")
            figures["set_items"] = {name: _share(rows, "right") for name, rows in _by(whole, _set).items()}
        asked = [o for o in outcomes if o["true_yes"] is not None]
        if read := [o for o in asked if o["said_yes"] is not None]:
            figures["yes"] = {"said": _share(read, "said_yes"), "true": _share(asked, "true_yes")}
        figures["set"] = {name: _share(rows, "right") for name, rows in _by(outcomes, _set).items()}
        figures["by_kind"] = {kind: _share(rows, "right") for kind, rows in _by(outcomes, lambda o: o["kind"]).items()}
        return figures

    def reset(self) -> None:
        super().reset()
        self.outcomes = []


def _set(outcome: Outcome) -> str:
    return str(outcome["set"])


def _share(outcomes: Iterable[Outcome], name: str) -> float:
    values = [outcome[name] for outcome in outcomes]
    return sum(values) / len(values)


def _by(outcomes: Iterable[Outcome], key: Callable[[Outcome], Key]) -> dict[Key, list[Outcome]]:
    """The outcomes by a key, in the order of the keys."""
    groups: defaultdict[Key, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[key(outcome)].append(outcome)
    return dict(sorted(groups.items()))
