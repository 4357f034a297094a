"""What cannot be is one message with the remedy, before anything is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from project.__main__ import main
from project.benchmarks.pictures.dpg import DPGPictures
from project.benchmarks.published import PublishedBenchmark
from project.shapes.judge import DetectorJudge
from tests.helpers import ROOT, all_published, chat_server, tiny_geneval
from tests.helpers.chat_server import ChatServer
from tests.helpers.score_runs import results

Start = Callable[..., ChatServer]
PROSE = "I think the picture is rather nice, overall."


def published(kind: str, items: Path, pictures: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """A `PublishedBenchmark` of this kind, as YAML says it."""
    judged = {"class_path": f"project.benchmarks.{kind}Pictures", "init_args": pictures}
    init_args = {"pictures": judged, "items": str(items), **arguments}
    return {"class_path": "project.benchmarks.PublishedBenchmark", "init_args": init_args}


def judge(kind: str, server: ChatServer) -> dict[str, Any]:
    return {"class_path": f"project.judges.{kind}", "init_args": chat_server.options(server.url)}


def run(folder: Path, *benchmarks: dict[str, Any], command: str = "test", **settings: Any) -> int:
    """What a user runs: the demo's configuration and these benchmarks over it."""
    changes = {"benchmarks": [*benchmarks], **all_published.SETTINGS, **settings}
    (folder / "mine.yaml").write_text(yaml.safe_dump(changes))
    configs = ["--config", str(ROOT / "configs/shapes/demo.yaml"), "--config", str(folder / "mine.yaml")]
    return main([command, *configs, f"--run.root={folder / 'runs'}", "--run.name=mine"])


def nothing_drawn(folder: Path) -> bool:
    return not list((folder / "runs").rglob("*.png"))


def test_a_judge_of_the_wrong_kind(tmp_path: Path, start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    dpg = all_published.write_dpg(tmp_path / "dpg")
    assert run(tmp_path, published("DPG", dpg, {"judge": judge("OpenAIFreeTextJudge", start())})) == 2
    assert "mine.yaml:9: project.judges.OpenAIFreeTextJudge is no Judge: name a class that is" in capfd.readouterr().err
    wise = all_published.write_wise(tmp_path / "wise", "legacy")
    assert run(tmp_path, published("WISE", wise, {"judge": all_published.DETECTOR})) == 2
    assert "project.shapes.DetectorJudge is no FreeTextJudge: name a class that is" in capfd.readouterr().err


def test_a_judge_without_log_probabilities(tmp_path: Path, start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    server = start(script=lambda number, body: "no log-probs")
    items = all_published.write_geneval2(tmp_path)
    assert run(tmp_path, published("GenEval2", items, {"judge": judge("OpenAIShortAnswerJudge", server)})) == 1
    said = capfd.readouterr().err
    assert "come without log-probabilities" in said and "use a server that gives them" in said
    assert "text_fallback" not in said, "this judge has no such setting"
    assert nothing_drawn(tmp_path) and len(server.bodies) == 1


def test_a_detector_of_another_architecture(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clip = tiny_geneval.write_tiny_clip(tmp_path / "clip")
    detector = {"class_path": "project.benchmarks.Mask2FormerDetector", "init_args": {"model": clip}}
    items = all_published.write_geneval(tmp_path)
    assert run(tmp_path, published("GenEval", items, {"detector": detector})) == 1
    assert f"{clip}: is a clip model, not mask2former: take facebook/mask2former" in capfd.readouterr().err
    assert nothing_drawn(tmp_path)


def test_duplicate_ids(tmp_path: Path, start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    folder = all_published.write_wise(tmp_path / "wise", "legacy")
    file = folder / "cultural_common_sense.json"
    file.write_text(json.dumps(json.loads(file.read_text()) * 2))
    assert run(tmp_path, published("WISE", folder, {"judge": judge("OpenAIFreeTextJudge", start())})) == 1
    assert f"{file}[1]: 'prompt_id' 1 occurs twice: keep one of the rows" in capfd.readouterr().err


def test_no_items_are_left(tmp_path: Path, start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    items = all_published.write_gedit(tmp_path)
    rows = [line for line in items.read_text().splitlines() if '"text_change"' not in line]
    items.write_text("\n".join(rows) + "\n")
    kept = {"judge": judge("OpenAIFreeTextJudge", start()), "groups": ["text_change"]}
    assert run(tmp_path, published("GEdit", items, kept)) == 1
    assert "none of the 20 edits is of the language en or cn and of the groups text_change" in capfd.readouterr().err


def test_prose_is_asked_for_again_and_then_named(
    tmp_path: Path, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:

    def write(pictures: list[np.ndarray], text: str, attempt: int) -> str:
        return PROSE if "triangle" in text else all_published.answer(pictures, text, attempt)

    server = start(writer=write)
    folder = all_published.write_wise(tmp_path / "wise", "legacy")
    texts = {row["prompt_id"]: row["Prompt"] for file in folder.iterdir() for row in json.loads(file.read_text())}
    silent = {str(number) for number, text in texts.items() if "triangle" in text}
    assert 0 < len(silent) < len(texts)
    assert run(tmp_path, published("WISE", folder, {"judge": judge("OpenAIFreeTextJudge", server)})) == 1
    (out,) = (tmp_path / "runs/mine/benchmarks").iterdir()
    said = results(out)
    assert set(said["pictures"]["not_judged"]) == {f"{number}/0" for number in silent}
    assert set(said["coverage"]["strict"]["missing"]) == silent and said["overall"] is None
    assert said["coverage"]["strict"]["expected"] == len(texts), "the denominator does not shrink"
    told = capfd.readouterr().err
    assert f"{next(iter(silent))}/0 (there is no score of consistency" in told and PROSE in told
    asked = [body for body in server.bodies if "triangle" in json.dumps(body["messages"])]
    assert len(asked) == 3 * len(silent), "attempts are bounded"


def test_prompts_of_another_version_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = all_published.write_tiif(tmp_path)
    assert run(tmp_path, published("TIIF", items, {"judge": all_published.DETECTOR}, limit=1)) == 0
    (warned,) = [message for message in caplog.messages if "cannot be compared with published ones" in message]
    digest = results(next((tmp_path / "runs/mine/benchmarks").iterdir()))["manifest"]["items_sha256"]
    assert f"2 items with the digest {digest[:12]}, none of the published b42725e33e3d (testmini, both" in warned


OTHER = {"class_path": "project.shapes.ShapesExamples", "init_args": {"batches": 4, "batch_size": 2}}
MEASURED_BY_NOBODY = {"val": f"{ROOT / 'data/shapes/eval.jsonl'}[::500]"}


@pytest.mark.parametrize(
    "command, data, message",
    [
        (
            "test",
            OTHER,
            "dpg: its pictures are not drawn, because ShapesExamples gives no prompts of it: name project.",
        ),
        ("validate", {"init_args": MEASURED_BY_NOBODY}, "or leave data.init_args.val out"),
        (
            "predict",
            {"init_args": {"predict": MEASURED_BY_NOBODY["val"]}},
            "use `generate` for pictures in a folder and `test` for",
        ),
    ],
)
def test_data_and_commands_that_do_not_draw_a_benchmark(
    tmp_path: Path, command: str, data: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    items = all_published.write_dpg(tmp_path)
    dpg = published("DPG", items, {"judge": all_published.DETECTOR})
    assert run(tmp_path, dpg, command=command, data=data) == 1
    said = capfd.readouterr().err
    assert message in said and said.count("\nerror: ") <= 1 and nothing_drawn(tmp_path)


def test_a_benchmark_whose_batches_are_switched_off_does_not_pass_for_measured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dpg = published("DPG", all_published.write_dpg(tmp_path), {"judge": all_published.DETECTOR})
    trainer = {**all_published.SETTINGS["trainer"], "limit_test_batches": 0}
    assert run(tmp_path, dpg, trainer=trainer) == 1
    assert "its pictures are not drawn" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["a b", "Wise", "a/b", ""])
def test_a_name_that_cannot_be_a_folder(name: str) -> None:
    with pytest.raises(ValueError, match=f"name={name!r}: it is part of the names of figures and folders"):
        PublishedBenchmark(DPGPictures(DetectorJudge()), "dpg_bench.csv", name=name)
