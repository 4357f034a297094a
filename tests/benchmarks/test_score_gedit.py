"""`python -m project score --benchmark gedit`: edits in two languages, judged by VIEScore."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from project.__main__ import main
from project.benchmarks import gedit
from project.benchmarks.pictures.gedit import GEditPictures
from project.judges.openai.free_text_judge import OpenAIFreeTextJudge
from tests.helpers.chat_server import ChatServer, client, shown
from tests.helpers.score_runs import contents, grey, results, rows_of, save, served
from tests.helpers.tiny_benchmarks import write_gedit, written

Start = Callable[..., ChatServer]


def level(n: int) -> int:
    """Of grey, of the edit n."""
    return 20 + n * n // 3


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Edits of all groups in both languages, and what was made of them, of a level of grey each."""
    items = gedit.read_items(write_gedit(tmp_path / "data"))
    for n, item in enumerate(items):
        save(grey(level(n), side=6 if n % 2 else 8), tmp_path / "edited" / item.picture)
    return tmp_path


def run(
    world: Path, out: str, judge: list[str], *more: str, items: str = "data/gedit.jsonl", pictures: str = "edited"
) -> int:
    words = ["--items", str(world / items), "--pictures", str(world / pictures), "--out", str(world / out)]
    return main(["score", "--benchmark", "gedit", *words, *judge, *more])


def judge_of(server: ChatServer, **settings: Any) -> list[str]:
    return served("OpenAIFreeTextJudge", server, **settings)


def test_both_languages_are_scored_apart_and_as_by_hand(world: Path, start: Start) -> None:
    server = start(writer=written)
    assert run(world, "out", judge_of(server)) == 0
    items = gedit.read_items(world / "data/gedit.jsonl")
    records = [
        gedit.GEditRecord(id=item.id, semantics=level(n) % 11, quality=(level(n) + 3) % 11)
        for n, item in enumerate(items)
    ]
    found = results(world / "out")
    for mode in ("official", "strict"):
        for language in gedit.LANGUAGES:
            assert found[mode][language] == gedit.score(items, records, language, mode).figures()
    english, chinese = (found["official"][language]["fullset"]["O"] for language in ("en", "cn"))
    assert english != chinese and found["overall"] == pytest.approx(english / 10)
    assert found["manifest"]["protocol"].startswith("viescore-1, read strictly")
    assert (found["manifest"]["languages"], found["manifest"]["groups"]) == ("en and cn", "all")
    assert found["coverage"]["strict"]["expected"] == 22
    row = rows_of(world / "out")[3]
    assert (row["id"], row["picture"]) == ("color_alter/cn/key0", "fullset/color_alter/cn/key0.png")
    assert (row["semantics"], row["quality"]) == (1, 4) and "its level is 23" in row["texts"][0]
    report = (world / "out/report.md").read_text()
    assert "SC (intersection)" in report and "| en " in report and "| cn " in report


def test_the_judge_sees_source_and_edit(world: Path, start: Start) -> None:
    server = start(writer=written)
    assert run(world, "out", judge_of(server), "--limit", "1") == 0
    pictures = [shown(body)[0] for body in server.bodies[1:]]
    (edited,), (source, also) = sorted(pictures, key=len)
    assert np.array_equal(source, grey(0)) and np.array_equal(edited, grey(20)) and np.array_equal(also, edited)
    found = results(world / "out")
    assert found["official"]["en"]["fullset"]["O"] == 3.0 and found["strict"]["en"]["fullset"]["O"] is None
    assert set(found["strict"]["en"]["fullset"]["group"]) == {"background_change"}


def test_pictures_of_all_sizes_are_asked_about_together(
    world: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    write = OpenAIFreeTextJudge.write

    def counted(self: OpenAIFreeTextJudge, requests: Any) -> Any:
        numbers.append(len(requests))
        return write(self, requests)

    monkeypatch.setattr(OpenAIFreeTextJudge, "write", counted)
    assert run(world, "out", judge_of(start(writer=written)), "--batch-size", "12") == 0
    assert numbers == [24, 20], "two requests for each of 22 edits"


def test_one_language_and_some_groups(world: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    judge = judge_of(start(writer=written))
    shutil.move(world / "edited/fullset", world / "inner")
    assert run(world, "cn", judge, "--language", "cn", "--groups", "[ps_human,color_alter]", pictures="inner") == 0
    found = results(world / "cn")
    assert set(found["strict"]) == {"cn"} and found["overall"] == found["strict"]["cn"]["fullset"]["O"] / 10
    assert set(found["strict"]["cn"]["fullset"]["group"]) == {"ps_human", "color_alter"}
    assert [row["id"] for row in rows_of(world / "cn")] == ["color_alter/cn/key0", "ps_human/cn/key0"]
    assert run(world, "out", judge, "--groups", "[ps_humans]", pictures="inner") == 1
    assert "'ps_humans' is no group of GEdit-Bench: choose of" in capsys.readouterr().err
    rows = [line for line in (world / "data/gedit.jsonl").read_text().splitlines() if '"en"' in line]
    (world / "data/english.jsonl").write_text("\n".join(rows))
    assert run(world, "out", judge, "--language", "cn", pictures="inner", items="data/english.jsonl") == 1
    assert "none of the 11 edits is of the language cn" in capsys.readouterr().err
    assert not (world / "out").exists()


def test_an_instruction_file_with_its_sources(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    items = gedit.read_items(world / "data/gedit.jsonl")
    rows = {
        f"{item.group}{item.language}": {"prompt": item.instruction, "id": item.picture, "edit_type": item.group}
        for item in items
    }
    (world / "edits.json").write_text(json.dumps(rows))
    for item in items:
        save(grey(1), world / "originals" / item.picture)
    judge = judge_of(start(writer=written))
    assert run(world, "out", judge, items="edits.json") == 1
    assert "edits.json holds instructions alone: give --sources" in capsys.readouterr().err
    assert run(world, "out", judge, "--sources", str(world / "originals"), items="edits.json") == 0
    assert run(world, "whole", judge) == 0
    assert results(world / "out")["official"]["en"]["fullset"] == results(world / "whole")["official"]["en"]["fullset"]
    assert results(world / "out")["official"]["en"]["intersection"]["O"] is None
    assert "gedit: 22 items with the digest" in caplog.text and "UniWorld's English file" in caplog.text


def test_a_source_that_cannot_be_read_is_told_before_the_work(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(writer=written)
    (world / "data/sources/ps_human/0.png").write_bytes(b"no picture")
    assert run(world, "out", judge_of(server)) == 1
    assert "ps_human/en/key0: " in (told := capsys.readouterr().err) and "is no picture that can be read" in told
    assert not server.bodies and not (world / "out").exists()


def test_sources_may_be_bytes_and_are_read_as_files_are(world: Path) -> None:
    benchmark = GEditPictures(client(OpenAIFreeTextJudge, "http://localhost:1/v1"))

    def item(source: Any) -> gedit.GEditItem:
        return gedit.GEditItem(
            group="ps_human", language="en", key="a", instruction="smile", intersection=True, source=source
        )

    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.concatenate([grey(0), grey(200)])).save(stream, format="JPEG", quality=98, exif=exif)
    found = benchmark.source(item(stream.getvalue()))
    assert found.shape == (8, 16, 3) and found[:, 0].mean() > 150 > 50 > found[:, -1].mean(), "turned upright"
    with pytest.raises(ValueError, match=r"^the source picture of ps_human/en/a is no picture that can be read \(cann"):
        benchmark.source(item(base64.b64encode(stream.getvalue())))
    with pytest.raises(ValueError, match="ps_human/en/a has no source picture"):
        benchmark.source(item(None))


def test_what_a_judge_writes_in_prose_is_not_judged_and_asked_again_later(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = True

    def writer(pictures: list[np.ndarray], text: str, attempt: int) -> str:
        # Of one edit the second part alone, and of another one a score that is none.
        if broken and len(pictures) == 1 and pictures[0].flat[0] == 23:
            return "It looks natural to me."
        if broken and len(pictures) == 2 and pictures[1].flat[0] == 25:
            return '{"score": [11, 10], "reasoning": "great"}'
        return written(pictures, text)

    server = start(writer=writer)
    assert run(world, "out", judge_of(server)) == 1
    found = results(world / "out")
    reasons = found["pictures"]["not_judged"]
    assert set(reasons) == {"color_alter/cn/key0/0", "material_alter/en/key0/0"}
    assert "It looks natural to me." in reasons["color_alter/cn/key0/0"]
    assert "not from 0 to 10" in reasons["material_alter/en/key0/0"]
    assert "20 of 22 items scored; missing: material_alter/en/key0, color_alter/cn/key0" in capsys.readouterr().err
    assert found["strict"]["en"]["fullset"]["O"] is None, "no average without a group"
    broken = False
    assert run(world, "out", judge_of(server)) == run(world, "whole", judge_of(server)) == 0
    assert contents(world / "out") == contents(world / "whole")


def test_an_edit_that_occurs_twice_and_the_wrong_judge(
    world: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(writer=written)
    file = world / "data/gedit.jsonl"
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    assert run(world, "out", judge_of(server)) == 1
    assert "edits occur more than once: background_change/en/key0" in capsys.readouterr().err
    assert run(world, "out", served("OpenAIShortAnswerJudge", server)) == 2
    assert "project.judges.OpenAIShortAnswerJudge is no FreeTextJudge" in capsys.readouterr().err


def test_what_is_told_of_an_edit(world: Path) -> None:
    benchmark = GEditPictures(client(OpenAIFreeTextJudge, "http://localhost:1/v1"))
    (item, *_) = gedit.read_items(world / "data/gedit.jsonl")
    texts = ['{"score": [9, 10], "reasoning": "lighter\nas asked"}', '{"score": [10, 4], "reasoning": " "}']
    row = {"semantics": 9, "quality": 4, "texts": texts}
    assert benchmark.worth(item, row) == 0.6 and benchmark.told(item, row) == ["SC 9, PQ 4, O 6.00", "lighter as asked"]
