"""How long an update takes with a judge of 200 ms a call: serial, concurrent, overlapped with drawing, cached.

    python -m pytest -m slow -s tests/test_judge_timing.py

8 prompts, G = 8, 8 questions a picture: 512 calls an update, of which each sleeps in an HTTP server of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.__main__ import main
from tests.helpers import ROOT, chat_server

SECONDS = 0.2
QUESTIONS = 8


def prompts(file: Path) -> None:
    """Training prompts with eight questions each."""
    rows = []
    for line in (ROOT / "data/shapes/train.jsonl").read_text().splitlines()[:64]:
        row = json.loads(line)
        asked = [{"question": q["question"], "tag": q["tag"]} for q in row["semantic_questions"]]
        quality = [{"question": f"is quality {n} good ?", "tag": "Geometry"} for n in range(QUESTIONS)]
        rows.append({**row, "semantic_questions": asked, "quality_questions": quality[: QUESTIONS - len(asked)]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def reward(file: Path, url: str, concurrency: int, cache: Path | None = None) -> str:
    judge: dict[str, Any] = {
        "class_path": "project.judges.openai.judge.OpenAIJudge",
        "init_args": chat_server.options(url, concurrency=concurrency, image_size=64),
    }
    if cache is not None:
        judge = {"class_path": "project.judges.cache.CachedJudge", "init_args": {"judge": judge, "folder": str(cache)}}
    dvreward = {"class_path": "project.rewards.dvreward.DVReward", "init_args": {"judge": judge}}
    file.write_text(yaml.safe_dump({"rewards": [dvreward]}))
    return f"config={file}"


@pytest.mark.slow
def test_concurrency_overlap_and_cache_each_save_time(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    prompts(tmp_path / "train.jsonl")
    with chat_server.ChatServer(seconds=SECONDS) as running:
        serial = reward(tmp_path / "serial.yaml", running.url, 1).removeprefix("config=")
        many = reward(tmp_path / "many.yaml", running.url, 32)
        cached = reward(tmp_path / "cached.yaml", running.url, 32, tmp_path / "cache")
        overlap = "model.init_args.overlap=true model.init_args.task.init_args.prompts_per_forward=2"
        rows = {
            "serial": "base",
            "+ concurrency": many,
            "+ overlap": f"{many} {overlap}",
            "+ cache, empty": f"{cached} {overlap}",
            "+ cache, again": f"{overlap} {cached}",
        }
        arguments = ["--config", "configs/shapes/demo.yaml", "--config", serial, "--updates", "1"]
        settings = {"train": tmp_path / "train.jsonl", "prompts_per_update": 8}
        for key, value in settings.items():
            arguments += ["--set", f"data.init_args.{key}={value}"]
        for name in list(rows)[1:]:
            arguments += ["--compare", rows[name]]
        figures = tmp_path / "figures.json"
        assert main(["bench", *arguments, "--json", str(figures)]) == 0
        calls = len(running.bodies)
    costs = json.loads(figures.read_text())["costs"]
    seconds = {name: costs[key]["seconds"]["total"] for name, key in rows.items()}
    with capsys.disabled():
        for name, value in seconds.items():
            waited = costs[rows[name]]["seconds"].get("judge", 0) + costs[rows[name]]["seconds"].get("judge_wait", 0)
            ratio = value / seconds["serial"]
            print(f"\n{name:16} {value:7.2f} s  {ratio:6.1%}  waiting for the judge {waited:6.2f} s", end="")
        print(f"\n{calls} calls in all")
    assert seconds["+ concurrency"] < 0.3 * seconds["serial"]
    assert seconds["+ overlap"] < seconds["+ concurrency"]
    assert seconds["+ cache, again"] < seconds["+ cache, empty"]
