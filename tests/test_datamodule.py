"""The order of prompts: a function of seed and epoch, the same for any number of ranks, resumable anywhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from project.datamodule import EvaluationLoader, PromptDataModule, PromptLoader
from project.trajectory import Prompt

PROMPTS = [Prompt(id=str(n), text=str(n)) for n in range(11)]


def loader(**others: int) -> PromptLoader:
    return PromptLoader(PROMPTS, prompts_per_update=4, **{"seed": 3, **others})


def ids(batches: object) -> list[list[str]]:
    return [[prompt.id for prompt in batch] for batch in batches]  # type: ignore[attr-defined]


def test_an_epoch_is_one_pass_and_the_next_another() -> None:
    training = loader()
    first, second = ids(training), ids(training)
    assert len(training) == len(first) == 2 and all(len(batch) == 4 for batch in first)
    assert len({i for batch in first for i in batch}) == 8
    assert first != second
    assert ids(loader()) == first != ids(loader(seed=4))
    training.set_epoch(0)
    assert ids(training) == first
    unshuffled = PromptLoader(PROMPTS, prompts_per_update=4, shuffle=False)
    assert ids(unshuffled) == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]


@pytest.mark.parametrize("done", range(5))
def test_goes_on_where_it_stopped(done: int) -> None:
    """Three epochs of two updates, cut after `done` updates."""

    def run(training: PromptLoader, epochs: range, limit: int) -> list[list[str]]:
        seen: list[list[str]] = []
        for epoch in epochs:
            training.set_epoch(epoch)
            for batch in training:
                seen.append([prompt.id for prompt in batch])
                if len(seen) == limit:
                    return seen
        return seen

    whole = run(loader(), range(3), 6)
    cut = loader()
    start = run(cut, range(3), done) if done else []
    resumed = loader()
    resumed.load_state_dict(cut.state_dict())
    assert start + run(resumed, range(resumed.epoch, 3), 6) == whole


def test_a_position_among_other_prompts_is_refused() -> None:
    other = PromptLoader(PROMPTS[:9], prompts_per_update=4)
    with pytest.raises(ValueError, match="prompts = 11, now it is 9"):
        other.load_state_dict(loader().state_dict())


def test_refuses_what_is_no_update() -> None:
    with pytest.raises(ValueError, match="prompts_per_update = 0: give at least 1"):
        PromptLoader(PROMPTS, prompts_per_update=0)
    with pytest.raises(ValueError, match=r"11 training prompt.* fewer than prompts_per_update = 12"):
        PromptLoader(PROMPTS, prompts_per_update=12)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_evaluation_gives_every_rank_the_same_lengths(world_size: int) -> None:
    parts = [list(EvaluationLoader(PROMPTS, batch_size=2, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({tuple(map(len, part)) for part in parts}) == 1
    dealt = [p for part in parts for batch in part for p in batch]
    real = [p.id for p in dealt if not p.padding]
    assert sorted(real) == sorted(p.id for p in PROMPTS)
    assert len(dealt) == -(-len(PROMPTS) // world_size) * world_size
    assert all(p.id == PROMPTS[-1].id for p in dealt if p.padding), "the last prompt fills up"


def test_datamodule_reads_what_the_stage_needs(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\nb\nc\n")
    data = PromptDataModule(train=str(tmp_path / "train.txt"), test="missing.txt", prompts_per_update=2)
    data.setup("fit")
    assert len(data.train_dataloader()) == 1
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match=r"`predict` needs prompts: set data\.init_args\.predict"):
        data.setup("predict")
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        data.setup("test")


def test_benchmarks_may_have_prompts_of_their_own(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name}1\n{name}2\n{name}3\n")
    data = PromptDataModule(val={"one": f"{tmp_path}/a.txt", "two": f"{tmp_path}/b.txt[:1]"}, eval_batch_size=2)
    data.setup("validate")
    batches = [list(each) for each in data.val_dataloader()]
    assert [[[p.text for p in batch] for batch in each] for each in batches] == [[["a1", "a2"], ["a3"]], [["b1"]]]
    assert [{p.benchmark for batch in each for p in batch} for each in batches] == [{"one"}, {"two"}]
    assert data.test_dataloader() == [], "no prompts, no loader"


def test_the_settings_of_the_datamodule_are_those_of_its_loaders(tmp_path: Path) -> None:
    rows = "".join(f'{{"caption": "{n}"}}\n' for n in range(9))
    (tmp_path / "rows.jsonl").write_text(rows)
    file, names = str(tmp_path / "rows.jsonl"), {"prompt": "caption"}

    def loaders(rank: int = 0, world_size: int = 1, **settings: Any) -> tuple[PromptLoader, list[EvaluationLoader]]:
        data = PromptDataModule(train=file, val={"one": file}, columns=names, **settings)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, callbacks=[])  # type: ignore[assignment]
        data.setup("fit")
        return data.train_dataloader(), data.val_dataloader()

    def texts(batches: Any) -> list[list[str]]:
        return [[prompt.text for prompt in batch] for batch in batches]

    training, (evaluation,) = loaders(prompts_per_update=4, seed=5, eval_batch_size=7)
    expected = PromptLoader(training.prompts, prompts_per_update=4, seed=5)
    assert texts(training) == texts(expected)
    assert texts(loaders(prompts_per_update=4, seed=6)[0]) != texts(loaders(prompts_per_update=4, seed=5)[0])
    assert [len(batch) for batch in evaluation] == [7, 2]
    assert texts(loaders(prompts_per_update=4, shuffle=False)[0])[0] == ["0", "1", "2", "3"]
    ranks = [loaders(rank, 2, prompts_per_update=4, shuffle=False) for rank in range(2)]
    assert [texts(one)[0] for one, _ in ranks] == [["0", "1", "2", "3"]] * 2, "samples are dealt, not prompts"
    assert [texts(one)[0][:2] for _, (one,) in ranks] == [["0", "2"], ["1", "3"]]
    plain = PromptDataModule(train=file, columns=names, prompts_per_update=3)
    plain.setup("fit")
    assert sorted(p.text for p in plain.prompts["train"]) == [str(n) for n in range(9)]
