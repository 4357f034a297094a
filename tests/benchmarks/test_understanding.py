"""Understanding: figures by hand, over ranks, and in a run whose policy forgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from project.__main__ import main
from project.benchmarks import understanding
from project.benchmarks.understanding import UnderstandingBenchmark
from project.callbacks.before_after import load
from project.trajectory import Group, Prompt, SampleKey, TextSegment, Trajectory
from tests.helpers import ROOT


def answer(name: str, text: str, **columns: Any) -> Trajectory:
    nothing = torch.zeros(0)
    said = TextSegment(ids_T=nothing, log_prob_T=nothing, entropy_T=nothing, finished=True, text=text)
    prompt = Prompt(id=name, text="?", columns=columns, place=f"q.jsonl:{name}")
    return Trajectory(prompt=prompt, key=SampleKey(seed=0, update=0, prompt=name), segments=(said,))


COLOURS = ["red", "green"]
ANSWERS = [
    answer("1", "Yes.", answer="yes", set="dogs", kind="k", item="one"),
    answer("2", "yes", answer="no", set="dogs", kind="k", item="one"),
    answer("3", "yes", answer="yes", set="dogs", item="two"),
    answer("4", "no", answer="no", set="dogs", item="two"),
    answer("5", "yes or no", answer="no", set="cats"),
    answer("6", "B", answer="green", choices=COLOURS, set="cats"),
    answer("7", "red", answer="B", choices=COLOURS),
    answer("8", "red, green", answer="A", choices=COLOURS),
]


def group(*trajectories: Trajectory) -> Group:
    return Group(trajectories=trajectories, size=1)


def test_figures_by_hand() -> None:
    benchmark = UnderstandingBenchmark()
    benchmark.update(group(*ANSWERS))
    figures = benchmark.figures()
    assert figures == {
        "accuracy": 4 / 8,
        "unreadable": 2 / 8,
        "items": 2 / 6,  # two of the dogs, and the one cat that is right
        "set_items": {"all": 0.0, "cats": 1 / 2, "dogs": 1 / 2},
        "yes": {"said": 3 / 4, "true": 2 / 5},
        "set": {"all": 0.0, "cats": 1 / 2, "dogs": 3 / 4},
        "by_kind": {"all": 3 / 6, "k": 1 / 2},
    }
    rows = {row["id"]: row for row in benchmark._rows()}
    assert json.loads(json.dumps(rows)) == rows
    assert [rows[str(n)]["right"] for n in range(1, 9)] == [1, 0, 1, 1, 0, 1, 0, 0]
    assert [rows[str(n)]["unreadable"] for n in range(1, 9)] == [0, 0, 0, 0, 1, 0, 0, 1]
    assert rows["7"]["said_yes"] is None and rows["5"]["said_yes"] is None and rows["5"]["true_yes"] == 0
    assert rows["8"]["text"] == "red, green" and rows["8"]["set"] == rows["8"]["kind"] == "all"


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_what_was_not_asked_has_no_figure() -> None:
    benchmark = UnderstandingBenchmark()
    benchmark.update(group(*ANSWERS[5:6]))
    assert benchmark.figures() == {
        "accuracy": 1.0,
        "unreadable": 0.0,
        "set": {"cats": 1.0},
        "by_kind": {"all": 1.0},
    }
    benchmark.reset()
    assert benchmark.figures() == {}


def test_its_figures_are_those_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of an item lie on different ranks."""
    alone, *ranks = (UnderstandingBenchmark() for _ in range(3))
    alone.update(group(*ANSWERS))
    expected = alone.figures()
    for n, rank in enumerate(ranks):
        rank.update(group(*ANSWERS[n::2]))
    sent: list[Any] = []
    monkeypatch.setattr(understanding, "gather", lambda outcomes: sent.extend(outcomes) or outcomes)
    for rank in ranks:
        rank.figures()
    monkeypatch.setattr(understanding, "gather", lambda outcomes: sent)
    assert [rank.figures() for rank in ranks] == [expected] * 2


def test_a_prompt_that_is_no_question_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^q.jsonl:9: question '9': its `answer` is None"):
        UnderstandingBenchmark().update(group(answer("9", "yes")))


def validate(folder: Path, *, command: str = "validate", questions: str, **more: Any) -> int:
    """Measures the embedded checkpoint with the recipe; later keys go over it."""
    val = {"shapes": f"{ROOT}/data/shapes/eval.jsonl[:4]", "understanding": questions}
    overlay = {
        "run": {"name": "guard", "root": str(folder / "runs")},
        "trainer": {"enable_progress_bar": False},
        "data": {"init_args": {"val": val, "prompts_per_update": 2}},
        **more,
    }
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    files = (ROOT / "configs/shapes/demo.yaml", ROOT / "configs/shapes/understanding.yaml", folder / "overlay.yaml")
    return main([command, *(part for file in files for part in ("--config", str(file)))])


def test_a_broken_question_is_named_before_a_model_is_loaded(tmp_path: Path, capsys: Any) -> None:
    row = json.loads((ROOT / "data/shapes/understanding.jsonl").read_text().splitlines()[3])
    (tmp_path / "q.jsonl").write_text(json.dumps({**row, "answer": "maybe"}) + "\n")
    policy = {"init_args": {"policy": {"init_args": {"directory": str(tmp_path / "no checkpoint")}}}}
    assert validate(tmp_path, questions=f"{tmp_path}/q.jsonl", model=policy) == 1
    assert f"error: {tmp_path}/q.jsonl:1: question 'understanding-count-0000': its `answer` is 'maybe'" in (
        capsys.readouterr().err
    )


def test_a_run_that_forgets_shows_it_in_its_results(tmp_path: Path, capsys: Any) -> None:
    """Updates so large that nothing is left of the policy: drawn pictures and answers stand in one table."""
    wild = {
        "update": {"gradient_clip": 1e6},
        "num_generations": 2,
        "optimizer": {"init_args": {"lr": 0.05}},
        "trainable": {"parameter_groups": {"embed_tokens": {"lr": 0.05}}},
    }
    code = validate(
        tmp_path,
        command="fit",
        questions=f"{ROOT}/data/shapes/understanding.jsonl[:25]",
        model={"init_args": wild},
        trainer={"max_steps": 2, "enable_progress_bar": False, "callbacks": []},
    )
    assert code == 0
    folder = tmp_path / "runs/guard/version_0"
    results = json.loads((folder / "results.json").read_text())
    before, after = (results[when]["understanding"] for when in ("before", "after"))
    assert before["accuracy"] > 0.7 and before["set"]["colour"] == 1.0
    assert after["accuracy"] < 0.5
    assert {file.name for file in (folder / "evaluations").iterdir()} == {
        f"{name}_{update}.jsonl" for name in ("shapes", "understanding") for update in (0, 2)
    }
    rows = [json.loads(line) for line in (folder / "evaluations/understanding_0.jsonl").read_text().splitlines()]
    assert len(rows) == 25 and {row["reward"] for row in rows} == {None}
    assert (folder / "before_after.png").is_file()
    assert len(load(folder / "before_after.pt")) == 4, "questions take no places of drawn pictures"
    capsys.readouterr()
    assert main(["results", str(folder)]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if "/" in line}
    first, last, change = (float(number) for number in lines["understanding/accuracy"])
    assert change < -0.2 and change == pytest.approx(last - first, abs=2e-3)
    assert "shapes/direct" in lines and "understanding/unreadable" in lines
    files = [str(folder / f"evaluations/understanding_{update}.jsonl") for update in (0, 2)]
    assert main(["compare", "--before", files[0], "--after", files[1]]) == 0
