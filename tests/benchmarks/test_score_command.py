"""`python -m project score`: pictures that any model drew, in the layouts of the official scripts."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from project.benchmarks import dpg, tiif
from project.benchmarks.geneval.colors import CLIPColors
from project.benchmarks.geneval.items import read_items
from project.benchmarks.geneval.mask2former import Mask2FormerDetector
from project.benchmarks.geneval.pictures import judge_pictures
from project.benchmarks.geneval.summary import score
from project.benchmarks.pictures.report import markdown
from project.judges.base import JudgeUnavailable
from project.shapes.judge import DetectorJudge
from tests.helpers import ROOT, chat_server
from tests.helpers.chat_server import ChatServer
from tests.helpers.picture_worlds import (
    DETECTOR,
    TYPES,
    DPGWorld,
    TIIFWorld,
    geneval,
    write_dpg_world,
    write_geneval,
    write_tiif_world,
)
from tests.helpers.score_runs import contents, results, rows_of, save, served, write_rows
from tests.helpers.tiny_geneval import write_tiny_clip, write_tiny_mask2former

SERVER = {"base_url": "http://localhost:1/v1", "model": "none"}
SHORT = "project.judges.OpenAIShortAnswerJudge"
DOTTED = [word for name, value in SERVER.items() for word in (f"--judge.server.{name}", value)]
TEXT_JUDGE = json.dumps({"class_path": "project.judges.OpenAITextJudge", "init_args": {"server": SERVER}})
Start = Callable[..., ChatServer]


def server_options(server: ChatServer, **settings: Any) -> list[str]:
    return served("OpenAIJudge", server, **settings)


# --------------------------------------------------------------------------- TIIF-Bench


@pytest.fixture
def tiif_world(tmp_path: Path) -> TIIFWorld:
    return write_tiif_world(tmp_path)


def test_tiif_is_scored_as_by_hand(tiif_world: TIIFWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiif_world.run("out") == 0
    items = tiif.read_items(*(tiif_world.folder / f"data/testmini_{kind}" for kind in ("prompts", "eval_prompts")))
    records = [tiif.TIIFRecord(id=name, answers=one.truth) for name, one in tiif_world.drawn.items()]
    found = results(tiif_world.folder / "out")
    for mode in ("official", "strict"):
        assert found[mode] == tiif.score(items, records, mode).figures()
    assert 0 < found["official"]["type"]["text"]["short"] < 1
    assert found["overall"] == pytest.approx(sum(found["official"]["overall"].values()) / 2)
    assert found["pictures"] == {"asked": 12, "judged": 12, "missing": {}, "not_judged": {}}
    assert found["manifest"]["judge"] == "shapes-detector" and found["manifest"]["items_version"] is None
    row = rows_of(tiif_world.folder / "out")[1]
    assert (row["id"], row["picture"]) == ("shape+color/0/long", "shape+color/mine/long_description/0.png")
    assert len(row["confidences"]) == len(tiif_world.drawn[row["id"]].questions)
    report = (tiif_world.folder / "out/report.md").read_text()
    assert "12 of 12 items scored" in report and "| overall " in report
    assert report in capsys.readouterr().out


def test_tiif_of_one_of_several_models(tiif_world: TIIFWorld, capsys: pytest.CaptureFixture[str]) -> None:
    for item, one in tiif_world.drawn.items():
        save(255 - one.picture, tiif_world.file(item, "other"))
    assert tiif_world.run("out") == 1
    assert "several models (mine, other): name one with --model" in capsys.readouterr().err
    by_path = ("--judge.class_path", DETECTOR)
    assert tiif_world.run("a", "--model", "mine", judge=by_path) == tiif_world.run("b", "--model", "other") == 0
    assert results(tiif_world.folder / "a")["overall"] != results(tiif_world.folder / "b")["overall"]
    for kind in TYPES:
        (tiif_world.folder / "output" / kind / "mine").rename(tiif_world.folder / "flat")
        shutil.copytree(tiif_world.folder / "flat", tiif_world.folder / "without_model" / kind)
        shutil.rmtree(tiif_world.folder / "flat")
    assert tiif_world.run("c", "--pictures", str(tiif_world.folder / "without_model")) == 0
    assert results(tiif_world.folder / "c")["official"] == results(tiif_world.folder / "a")["official"]


def test_missing_pictures_are_named_and_counted(tiif_world: TIIFWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiif_world.run("whole") == 0
    hidden = tiif_world.file("text/1/short")
    hidden.rename(tiif_world.folder / "hidden.png")
    assert tiif_world.run("out") == 1
    told = capsys.readouterr().err
    assert "11 of 12 items scored; missing: text/1/short" in told
    assert "or say --allow-missing" in told
    found = results(tiif_world.folder / "out")
    assert found["pictures"]["missing"] == {
        "text/1/short/0": ["text/mine/short_description/1", "text/short_description/1"]
    }
    assert found["coverage"]["strict"] == {"expected": 12, "scored": 11, "missing": ["text/1/short"], "dropped": []}
    assert "tried text/mine/short_description/1" in (tiif_world.folder / "out/report.md").read_text()
    assert tiif_world.run("out", "--allow-missing") == 0
    (tiif_world.folder / "hidden.png").rename(hidden)
    assert tiif_world.run("out") == 0
    assert contents(tiif_world.folder / "out") == contents(tiif_world.folder / "whole")


def test_no_picture_at_all_is_told_before_anything(tiif_world: TIIFWorld, capsys: pytest.CaptureFixture[str]) -> None:
    (tiif_world.folder / "empty").mkdir()
    assert tiif_world.run("out", "--pictures", str(tiif_world.folder / "empty")) == 1
    told = capsys.readouterr().err
    assert "holds none of the 12 pictures" in told and "shape+color/MODEL/short_description/0" in told
    assert not (tiif_world.folder / "out").exists()
    assert tiif_world.run("out", "--pictures", "nowhere") == 1
    assert "nowhere is no folder" in capsys.readouterr().err


def test_pictures_of_every_kind_are_read(tiif_world: TIIFWorld) -> None:
    assert tiif_world.run("whole") == 0
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: viewers turn it by 90 degrees to the right.
    ways: dict[str, Callable[[Image.Image, Path], None]] = {
        ".jpg": lambda image, file: image.save(file, quality=98, subsampling=0),
        ".JPEG": lambda image, file: image.transpose(Image.Transpose.ROTATE_90).save(file, quality=98, exif=exif),
        ".png": lambda image, file: image.quantize(256).save(file),
        ".tif": lambda image, file: image.convert("CMYK").save(file),
        ".webp": lambda image, file: image.save(file, lossless=True),
        ".bmp": lambda image, file: image.save(file),
    }
    for n, (item, one) in enumerate(tiif_world.drawn.items()):
        file = tiif_world.file(item)
        file.unlink()
        suffix, write = list(ways.items())[n % len(ways)]
        write(Image.fromarray(one.picture), file.with_suffix(suffix))
    assert tiif_world.run("out") == 0
    found = rows_of(tiif_world.folder / "out")
    assert {Path(row["picture"]).suffix for row in found} == set(ways)
    for row, whole in zip(found, rows_of(tiif_world.folder / "whole"), strict=True):
        assert row["confidences"] == pytest.approx(whole["confidences"], abs=0.2), row["picture"]
    assert results(tiif_world.folder / "out")["official"] == results(tiif_world.folder / "whole")["official"]


def test_sizes_may_differ_and_what_cannot_be_judged_does_not_take_others_with_it(
    tiif_world: TIIFWorld, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    large = tiif_world.file("text/0/short")
    Image.fromarray(tiif_world.drawn["text/0/short"].picture).resize((96, 80)).save(large)
    tiif_world.file("text/2/long").write_bytes(b"no picture")
    assert tiif_world.run("out") == 1
    reasons = results(tiif_world.folder / "out")["pictures"]["not_judged"]
    assert set(reasons) == {"text/0/short/0", "text/2/long/0"}
    assert "the detector reads uint8" in reasons["text/0/short/0"]
    assert "is no picture that can be read" in reasons["text/2/long/0"]
    assert "10 of 12 items scored; missing: text/0/short, text/2/long" in capsys.readouterr().err
    tiif_world.file("text/2/long").unlink()
    assert tiif_world.run("large", "--allow-missing", judge=server_options(start())) == 0
    assert results(tiif_world.folder / "large")["pictures"]["judged"] == 11


def test_unanswered_questions_are_asked_again_and_nothing_else(
    tiif_world: TIIFWorld, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(number: int, body: dict[str, Any]) -> str | None:
        image, text = chat_server.asked(body)
        wrong = (image == tiif_world.drawn["text/1/long"].picture).all() if image.shape == (64, 64, 3) else False
        return "neither" if broken and wrong and asked in text else None

    asked, broken = tiif_world.drawn["text/1/long"].questions[0], True
    server = start(script=script)
    judge = server_options(server, retries=1)
    assert tiif_world.run("out", judge=judge) == 1
    assert results(tiif_world.folder / "out")["pictures"]["not_judged"] == {
        "text/1/long/0": f"1 of {len(tiif_world.drawn['text/1/long'].questions)} questions were not answered"
    }
    assert "missing: text/1/long" in capsys.readouterr().err
    broken, before = False, len(server.bodies)
    assert tiif_world.run("out", judge=judge) == 0
    again = [chat_server.asked(body) for body in server.bodies[before:]]
    about = [image for image, _ in again if image.shape == (64, 64, 3)]
    assert about and all((image == tiif_world.drawn["text/1/long"].picture).all() for image in about)
    server.kill()
    assert tiif_world.run("out", "--mode", "strict", judge=judge) == 0, "all rows are there: nobody is asked"


def test_a_judge_that_goes_away_costs_nothing_that_was_judged(
    tiif_world: TIIFWorld, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start()
    judge = server_options(server, patience=0.3, probe_seconds=0.05, retries=0, timeout=20)
    server.script = lambda n, body: server.kill() if n == 30 else None  # type: ignore[func-returns-value]
    assert tiif_world.run("out", "--batch-size", "2", judge=judge) == 1
    assert "give the same command again to judge the rest" in capsys.readouterr().err
    kept = rows_of(tiif_world.folder / "out")
    assert 2 <= len(kept) < 12
    server.script = lambda n, body: None
    server.start()
    assert tiif_world.run("out", judge=judge) == tiif_world.run("whole", judge=judge) == 0
    assert rows_of(tiif_world.folder / "out")[: len(kept)] == kept
    assert contents(tiif_world.folder / "out") == contents(tiif_world.folder / "whole")


def test_killed_at_any_point_it_goes_on_with_the_same_command(tiif_world: TIIFWorld) -> None:
    assert tiif_world.run("whole", "--batch-size", "2") == 0
    slow = tiif_world.command("out", "--batch-size", "2", judge=("--judge", "tests.helpers.slow_judge.SlowJudge"))
    file = tiif_world.folder / "out/rows.jsonl"
    rng = np.random.default_rng()
    before = 0
    for _ in range(2):
        until = before + int(rng.integers(1, 5))
        with subprocess.Popen([sys.executable, "-m", "project", *slow], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while not file.is_file() or file.read_bytes().count(b"\n") < until:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        before = file.read_bytes().count(b"\n")
        assert before < 12
    # A kill in the middle of a write leaves half a row.
    with file.open("ab") as stream:
        stream.write(b'{"id": "text/0')
    assert tiif_world.run("out", "--batch-size", "2") == 0
    assert contents(tiif_world.folder / "out") == contents(tiif_world.folder / "whole")


def test_what_is_judged_together_is_the_same_after_an_interruption(
    tiif_world: TIIFWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes: list[int] = []
    answer, stops = DetectorJudge.answer, 2

    def counted(self: DetectorJudge, images: Any, *asked: Any) -> Any:
        if len(sizes) == stops:
            raise JudgeUnavailable("the judge is away")
        sizes.append(len(images))
        return answer(self, images, *asked)

    monkeypatch.setattr(DetectorJudge, "answer", counted)
    tiif_world.file("shape+color/1/short").write_bytes(b"no picture")
    assert tiif_world.run("out", "--batch-size", "5") == 1
    assert sizes == [4, 5] and "9 of 12 pictures are judged" in capsys.readouterr().err
    save(tiif_world.drawn["shape+color/1/short"].picture, tiif_world.file("shape+color/1/short"))
    stops = 9
    assert tiif_world.run("out", "--batch-size", "5") == 0
    assert sizes == [4, 5, 1, 2]


def test_a_judge_that_answers_too_little_is_a_fault_of_its_class(
    tiif_world: TIIFWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DetectorJudge, "answer", lambda self, images, *asked: [[1.0] for _ in images])
    assert tiif_world.run("out") == 1
    assert "judge 'shapes-detector' at " in capsys.readouterr().err
    assert not (tiif_world.folder / "out/results.json").exists()


def test_a_picture_that_changed_is_judged_again(tiif_world: TIIFWorld) -> None:
    assert tiif_world.run("out") == 0
    other = tiif_world.drawn["text/1/long"].picture
    save(other, tiif_world.file("text/1/short"))
    assert tiif_world.run("out") == tiif_world.run("whole") == 0
    assert contents(tiif_world.folder / "out") == contents(tiif_world.folder / "whole")


def test_the_first_items_alone(tiif_world: TIIFWorld) -> None:
    assert tiif_world.run("out", "--limit", "3") == 0
    assert results(tiif_world.folder / "out")["coverage"]["strict"]["expected"] == 3
    assert tiif_world.run("out") == tiif_world.run("whole") == 0
    assert contents(tiif_world.folder / "out") == contents(tiif_world.folder / "whole")
    assert tiif_world.run("out", "--limit", "3") == 0
    assert len(rows_of(tiif_world.folder / "out")) == 12, "rows beyond the limit are kept"
    assert results(tiif_world.folder / "out")["pictures"]["asked"] == 3


@pytest.mark.parametrize(
    ("options", "judge", "message"),
    [
        ((), (), "--judge must be given: see --help"),
        (("--detector", "project.benchmarks.Mask2FormerDetector"), ("--judge", DETECTOR), "unknown option --detector:"),
        ((), ("--judge", "tests.helpers.mortal_judge.Nobody"), "there is no tests.helpers.mortal_judge.Nobody"),
        ((), ("--judge", TEXT_JUDGE), "project.judges.OpenAITextJudge is no Judge or FreeTextJudge: name"),
        ((), ("--judge", SHORT, *DOTTED), "project.judges.OpenAIShortAnswerJudge is no Judge or FreeTextJudge: name"),
        (("--samples", "4"), ("--judge", DETECTOR), "unknown option --samples:"),
        (("--limit", "0"), ("--judge", DETECTOR), "limit=0: give at least 1 item"),
        (("--batch-size", "0"), ("--judge", DETECTOR), "--batch-size 0: give at least 1"),
        (("--items", "nowhere"), ("--judge", DETECTOR), "nowhere holds no folder testmini_prompts"),
    ],
)
def test_what_cannot_be_is_one_message(
    tiif_world: TIIFWorld,
    capsys: pytest.CaptureFixture[str],
    options: Sequence[str],
    judge: Sequence[str],
    message: str,
) -> None:
    assert tiif_world.run("out", *options, judge=judge) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tiif_world.folder / "out").exists()


def test_a_folder_holds_the_rows_of_one_judge_and_of_one_version(
    tiif_world: TIIFWorld, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiif_world.run("out") == 0
    assert tiif_world.run("out", judge=server_options(start())) == 1
    assert "holds rows of another run (judge 'shapes-detector', not " in capsys.readouterr().err
    file = tiif_world.folder / "data/testmini_prompts/text_prompts.jsonl"
    file.write_text(file.read_text().replace("a ", "one ", 1))
    assert tiif_world.run("out") == 1
    assert "items_sha256" in capsys.readouterr().err


def test_a_markdown_table() -> None:
    assert markdown([("", "score"), ("overall", "7.00"), ("  entity", "-")]) == [
        "|            | score |",
        "| ---------- | ----: |",
        "| overall    |  7.00 |",
        "| \u00a0\u00a0\u00a0\u00a0entity |     - |",
    ]


# --------------------------------------------------------------------------- DPG-Bench


@pytest.fixture
def dpg_world(tmp_path: Path) -> DPGWorld:
    return write_dpg_world(tmp_path)


def test_dpg_in_every_layout_is_scored_as_by_hand(dpg_world: DPGWorld) -> None:
    items = dpg.read_items(dpg_world.folder / "dpg_bench.csv")
    records = []
    for item in items:
        truths = [dict(enumerate(one.truth, start=1)) for one in dpg_world.drawn[item.id]]
        records.append(dpg.DPGRecord(id=item.id, answers=tuple(truths)))
    for pictures in ("grids", "folders", "files"):
        assert dpg_world.run(pictures, f"{pictures}_out") == 0
        found = results(dpg_world.folder / f"{pictures}_out")
        for mode in ("official", "strict"):
            assert found[mode] == dpg.score(items, records, mode).figures(), pictures
        assert 0 < found["strict"]["overall"] < 1
    quarters = [row["quarter"] for row in rows_of(dpg_world.folder / "grids_out")]
    assert quarters == [0, 1, 2, 3] * 4
    dropped = results(dpg_world.folder / "grids_out")["coverage"]["official"]["dropped"]
    assert dropped[0] == ["item0", "question 1, the first row of the file"]
    assert "left out as the official script does" in (dpg_world.folder / "grids_out/report.md").read_text()


def test_dpg_with_one_picture_each_and_with_no_grid(dpg_world: DPGWorld, capsys: pytest.CaptureFixture[str]) -> None:
    for name, four in dpg_world.drawn.items():
        save(four[0].picture, dpg_world.folder / "single" / f"{name}.png")
    assert dpg_world.run("single", "single_out", "--samples", "1") == 0
    assert [row["sample"] for row in rows_of(dpg_world.folder / "single_out")] == [0] * 4
    save(np.zeros((63, 64, 3), np.uint8), dpg_world.folder / "grids/item2.png")
    (dpg_world.folder / "grids/item3.png").unlink()
    assert dpg_world.run("grids", "out") == 1
    told = results(dpg_world.folder / "out")["pictures"]
    assert "63 x 64 is no grid" in told["not_judged"]["item2/3"]
    assert told["missing"]["item3/1"] == [
        "item3", "item3/0001", "item3/00001", "item3/1", "item3_0001", "item3_00001", "item3_1",
    ]  # fmt: skip
    assert "2 of 4 items scored; missing: item2, item3" in capsys.readouterr().err


# --------------------------------------------------------------------------- GenEval


def test_geneval_with_detections_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_geneval(tmp_path)
    found = [{"class": "cup", "box": [1, 1, 9, 9], "score": 0.9}]
    rows = [
        {"picture": f"{n:05d}/{m}", "detections": found if m < 3 else []}
        for n in range(3)
        for m in range(4)
        if (n, m) != (2, 3)
    ]
    write_rows(tmp_path / "detections.jsonl", rows)
    made = {"file": str(tmp_path / "detections.jsonl"), "detector": "mmdet mask2former"}
    detector = ["--detector", json.dumps({"class_path": "project.benchmarks.DetectionsFile", "init_args": made})]
    parts = [*detector, "--colors", "tests.helpers.tiny_geneval.RedColors"]
    assert geneval(tmp_path, "out", *parts) == 1
    assert "11 of 12 items scored; missing: 00002/3" in capsys.readouterr().err
    told = results(tmp_path / "out")
    assert "has no row of picture 00002/3" in told["pictures"]["not_judged"]["00002/3"]
    assert told["official"]["tag"] == {"single_object": 0.75, "colors": pytest.approx(3 / 7)}
    assert told["official"]["overall"] == pytest.approx((0.75 + 3 / 7) / 2) and told["strict"]["overall"] is None
    assert told["manifest"]["label"] == "geneval (mmdet mask2former, from a file)"
    reasons = [row["reason"] for row in rows_of(tmp_path / "out")]
    assert reasons[8] == "expected blue cup>=1, found 0 blue; and 1 red" and reasons[0] == ""
    write_rows(tmp_path / "detections.jsonl", [*rows, {"picture": "00002/3", "detections": found}])
    assert geneval(tmp_path, "out", *parts) == 1
    assert "holds rows of another run (detector " in capsys.readouterr().err
    assert geneval(tmp_path, "new", *parts, pictures="drawn") == 0
    assert results(tmp_path / "new")["strict"]["tag"] == {"single_object": 0.75, "colors": 3 / 8}
    assert rows_of(tmp_path / "new")[5]["picture"] == "0001_1.png"


def test_geneval_with_its_two_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = write_geneval(tmp_path)
    sides = {"short_side": 64, "long_side": 96, "minimum_score": 0.0, "device": "cpu"}
    made = {"model": write_tiny_mask2former(tmp_path / "detector"), **sides}
    clip = write_tiny_clip(tmp_path / "clip")
    # Random weights know neither the photograph nor the plain colours of the self-tests.
    monkeypatch.setattr(Mask2FormerDetector, "preflight", lambda self: None)
    monkeypatch.setattr(CLIPColors, "preflight", lambda self: None)
    items = read_items(tmp_path / "evaluation_metadata.jsonl").items
    each, samples = [items[n // 4] for n in range(12)], [n % 4 for n in range(12)]
    rows = judge_pictures(pictures, each, samples, Mask2FormerDetector(**made), CLIPColors(clip, "cpu"))
    detector = {"class_path": "project.benchmarks.Mask2FormerDetector", "init_args": made}
    colors = {"class_path": "project.benchmarks.CLIPColors", "init_args": {"model": clip, "device": "cpu"}}
    assert geneval(tmp_path, "out", "--detector", json.dumps(detector), "--colors", json.dumps(colors)) == 0
    told = rows_of(tmp_path / "out")
    assert [(row["id"], row["sample"], row["correct"], row["reason"]) for row in told] == [
        (row.item, row.sample, row.correct, row.reason) for row in rows
    ]
    found = results(tmp_path / "out")
    assert found["overall"] == score(rows, items, "official").overall
    assert found["manifest"]["label"] == "geneval-hf" and clip in found["manifest"]["colors"]
