"""The gold judge: its comparison by hand, and a run whose judge is fooled on purpose."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

from project.callbacks.checkpoint import SaveLast
from project.callbacks.gold_judge import GoldJudge, chosen_parts, compare, correlation, growth
from project.datamodule import PromptDataModule
from project.judges.base import Judge, JudgeUnavailable
from project.trajectory import Prompt, Question
from tests.helpers import toys


class Fixed(Judge):
    """Always as sure; None = never answers."""

    def __init__(self, confidence: float | None = 0.5) -> None:
        self.confidence = confidence
        self.pictures = 0

    @property
    def name(self) -> str:
        return "fixed"

    def preflight(self) -> None:
        pass

    def answer(
        self, images: Sequence[np.ndarray], questions: Sequence[Sequence[Question]], prompts: Sequence[str]
    ) -> list[list[float | None]]:
        self.pictures += len(images)
        return [[self.confidence] * len(asked) for asked in questions]


def test_comparison_by_hand() -> None:
    train = torch.tensor([0.0, 1.0, 4.0, 5.0])
    gold = torch.tensor([1.0, 0.0, 5.0, 4.0])
    found = compare(train, gold, [2, 2])
    assert (found.train_reward, found.reward, found.gap) == (2.5, 2.5, 0.0)
    # Over all samples the groups' levels agree; within each group the two disagree completely.
    assert found.correlation == pytest.approx(15 / 17)
    assert found.correlation_in_group == pytest.approx(-1.0)
    assert found.figures["gap"] == 0.0 and found.gaps == (0.0, 0.0)


def test_samples_without_both_rewards_do_not_count() -> None:
    nan = math.nan
    train = torch.tensor([0.2, nan, 0.4, 0.9, 0.3, 0.5])
    gold = torch.tensor([0.1, 0.7, nan, 0.8, 0.1, 0.2])
    found = compare(train, gold, [3, 3])
    kept = [0, 3, 4, 5]
    assert found.gap == pytest.approx((train[kept].mean() - gold[kept].mean()).item())
    assert found.correlation == pytest.approx(np.corrcoef(train[kept], gold[kept])[0, 1], abs=1e-6)
    # Sample 0 is alone in its group, so it is its own mean.
    a, b = (np.concatenate([[0.0], r[3:].numpy() - r[3:].numpy().mean()]) for r in (train, gold))
    assert found.correlation_in_group == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)
    assert found.gaps == pytest.approx((0.1, 0.2))
    nothing = compare(torch.tensor([nan, 1.0]), torch.tensor([1.0, nan]), [2])
    assert all(math.isnan(value) for value in nothing.figures.values()) and nothing.gaps == ()
    assert math.isnan(correlation(torch.tensor([0.1] * 3), torch.tensor([0.1, 0.2, 0.3])))


def test_whole_groups_are_drawn_and_not_always_the_same() -> None:
    groups = [range(start, start + 4) for start in range(0, 40, 4)]
    assert chosen_parts(groups[:2], 100, updates=0) == groups[:2], "all, if there are fewer"
    drawn = [chosen_parts(groups, 6, updates=n) for n in range(20)]
    for chosen in drawn:
        assert len(chosen) == 2 and chosen == sorted(chosen, key=groups.index)
    assert len({tuple(chosen) for chosen in drawn}) > 10
    assert drawn[3] == chosen_parts(groups, 6, updates=3)


def group_of(confidences: Sequence[float]) -> Any:
    """Two prompts with one question and two samples each; of the four the train judge was so confident."""
    prompts = [Prompt(id=name, text="a", questions=(Question(text="is it ?"),)) for name in "pq"]
    group = toys.group(prompts, size=2)
    return dataclasses.replace(
        group, scores=dataclasses.replace(group.scores, confidence_NQ=tuple((c,) for c in confidences))
    )


class Run:
    """What the callback asks of a trainer, its logger and the run."""

    def __init__(self) -> None:
        self.updates = 0
        self.loggers = [self]
        self.logged: list[dict[str, float]] = []
        self.steps: list[int] = []

    def log_metrics(self, figures: dict[str, float], step: int) -> None:
        self.logged.append(figures)
        self.steps.append(step)


def watch(gold: GoldJudge, run: Run, train_rewards: Sequence[float]) -> None:
    """One update per train reward: all samples have it but for +- 0.01, one way or the other by the group."""
    for reward in train_rewards:
        run.updates += 1
        group = group_of([reward + 0.01, reward + 0.01, reward - 0.01, reward - 0.01])
        gold.on_train_batch_end(run, run, {"group": group}, None, 0)


def test_a_judge_that_is_fooled_is_noticed_once(caplog: pytest.LogCaptureFixture) -> None:
    """The train reward climbs from 0.5 to 0.9 while the gold judge keeps saying 0.5."""
    gold, run = GoldJudge(Fixed(0.5), every_n_updates=1, threshold=0.2, window=2), Run()
    with caplog.at_level(logging.WARNING, "project.callbacks.gold_judge"):
        watch(gold, run, [0.5, 0.5, 0.6, 0.65, 0.7])
        assert not caplog.records, "grown by 0.175"
        watch(gold, run, [0.8, 0.9, 0.9, 0.9])
    (record,) = caplog.records
    assert "At update 6 the train reward has grown by 0.250" in record.getMessage() and "fixed" in record.getMessage()
    assert [figures["gold/gap"] for figures in run.logged] == pytest.approx(
        [0, 0, 0.1, 0.15, 0.2, 0.3, 0.4, 0.4, 0.4], abs=1e-6
    )
    assert run.logged[0]["gold/reward"] == 0.5 and "gold/correlation" not in run.logged[0], "no spread by gold"


def test_no_warning_where_both_rewards_rise_or_the_gap_was_there_from_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    honest, run = GoldJudge(Fixed(), every_n_updates=1, threshold=0.05, window=2), Run()
    for level in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        honest.reward.judge.confidence = level
        watch(honest, run, [level + 0.2])
    assert [figures["gold/gap"] for figures in run.logged] == pytest.approx([0.2] * 6, abs=1e-6)
    assert not caplog.records


def test_chance_is_no_reason_for_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The gap of a group is anything from 0 to 0.8: means over a few groups differ by more than the threshold."""
    gold, run = GoldJudge(Fixed(0.1), every_n_updates=1, threshold=0.2, window=2), Run()
    for high in (1, 2, 3, 3, 2, 2):
        run.updates += 1
        confidences = [0.9 if place < high else 0.1 for place in range(4)]
        gold.on_train_batch_end(run, run, {"group": group_of(confidences)}, None, 0)
    gaps = [figures["gold/gap"] for figures in run.logged]
    assert np.mean(gaps[2:4]) - np.mean(gaps[:2]) > 0.2
    assert not caplog.records and not gold.warned
    assert growth([[0.1, 0.3], [0.2]], [[0.5], [0.7]]) == pytest.approx((0.4, math.sqrt(0.01 / 3 + 0.02 / 2)))
    assert growth([[0.1]], [[0.9]]) == pytest.approx((0.8, math.inf))


def test_the_reward_itself_is_compared_where_training_asked_no_judge() -> None:
    gold, run = GoldJudge(Fixed(0.2), every_n_updates=1), Run()
    group = group_of([0.5] * 4)
    run.updates = 1
    silent = dataclasses.replace(group, scores=dataclasses.replace(group.scores, confidence_NQ=()))
    gold.on_train_batch_end(run, run, {"group": silent}, None, 0)
    assert run.logged[0]["gold/train_reward"] == 0.5, "toy samples have the rewards 0 and 1"
    assert run.logged[0]["gold/gap"] == pytest.approx(0.3)


class Away(Fixed):
    def answer(self, *_: Any) -> Any:
        raise JudgeUnavailable("nobody is there")


def test_training_goes_on_without_the_gold_judge(caplog: pytest.LogCaptureFixture) -> None:
    gold, run = GoldJudge(Away(), every_n_updates=1), Run()
    watch(gold, run, [0.5])
    assert run.logged == [] and "update 1 is not compared" in caplog.text and "nobody is there" in caplog.text


def test_a_mute_gold_judge_compares_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gold, run = GoldJudge(Fixed(None), every_n_updates=1, window=1), Run()
    watch(gold, run, [0.1, 0.9, 0.9])
    assert run.logged == [{"gold/unanswered": 1.0}] * 3
    assert gold.first_gaps == [] and not caplog.records


def test_it_asks_only_now_and_then() -> None:
    gold, run = GoldJudge(Fixed(), every_n_updates=3, samples=1), Run()
    watch(gold, run, [0.5] * 7)
    assert run.steps == [3, 6] and len(run.logged) == 2 and gold.reward.judge.pictures == 4
    gold.on_train_batch_end(run, run, None, None, 0)
    gold.on_train_batch_end(run, run, {"group": 3}, None, 0)
    with pytest.raises(ValueError, match="window=0"):
        GoldJudge(Fixed(), window=0)


QUESTION = '"semantic_questions": [{"question": "is it ?", "tag": "Count"}]'


def test_prompts_without_questions_are_refused_before_training(fit: Any) -> None:
    with pytest.raises(ValueError, match="no semantic question"):
        fit(GoldJudge(Fixed(), every_n_updates=1), updates=2)


def test_its_state_is_kept() -> None:
    gold, run = GoldJudge(Fixed(0.5), every_n_updates=1, threshold=0.2, window=2), Run()
    watch(gold, run, [0.5, 0.5, 0.6])
    again = GoldJudge(Fixed(0.5), every_n_updates=1, threshold=0.2, window=2)
    again.load_state_dict(gold.state_dict())
    assert gold.state_key == again.state_key and "fixed" in gold.state_key
    watch(again, run, [0.9])
    assert [sum(gaps) / 2 for gaps in again.last_gaps] == pytest.approx([0.1, 0.4], abs=1e-6)
    watch(again, run, [0.9])
    assert again.warned


def test_in_a_real_run_it_logs_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    rows = "".join(f'{{"prompt": "{"x" * n}", {QUESTION}}}\n' for n in range(1, 13))
    (tmp_path / "train.jsonl").write_text(rows)

    def train(gold: GoldJudge, updates: int, ckpt_path: Path | None = None) -> None:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=updates,
            callbacks=[gold, SaveLast(every_n_updates=1)],
            logger=CSVLogger(tmp_path, name="", version=f"to_{updates}"),
            default_root_dir=tmp_path,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        data = PromptDataModule(str(tmp_path / "train.jsonl"), prompts_per_update=2)
        trainer.fit(toys.Tiny(toys.Net()), data, ckpt_path=ckpt_path)

    # Toy trajectories have rewards 0 and 1 in every group, but all the confidence 0.25.
    train(GoldJudge(Fixed(0.2), every_n_updates=2, window=1), 4)
    metrics = (tmp_path / "to_4/metrics.csv").read_text().splitlines()
    column = metrics[0].split(",").index("gold/gap")
    assert [float(line.split(",")[column]) for line in metrics[1:] if line.split(",")[column]] == pytest.approx(
        [0.05, 0.05], abs=1e-6
    )
    again = GoldJudge(Fixed(0.2), every_n_updates=2, window=1)
    train(again, 6, tmp_path / "checkpoints/last.ckpt")
    assert again.first_gaps == [pytest.approx([0.05, 0.05], abs=1e-6)] and len(again.last_gaps) == 1
