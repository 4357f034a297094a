"""A benchmark of pictures that somebody writes in a file of their own: `score --benchmark my_file.MyPictures`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from project.__main__ import command_parser, main
from project.core.errors import UsageError
from tests.helpers import ROOT
from tests.helpers.chat_server import ChatServer
from tests.helpers.score_runs import grey, results, rows_of, save, served, write_rows

GUIDE = (ROOT / "project/benchmarks/README.md").read_text(encoding="utf-8")
OWN = GUIDE.partition("<!-- file: bright_pictures.py -->\n```python\n")[2].partition("\n```")[0]
BROKEN = """
from bright_pictures import BrightPictures, Wanted
from project.benchmarks.pictures.base import PictureBenchmark


class Unfinished(PictureBenchmark[Wanted]):
    pass


class Colliding(BrightPictures):
    def __init__(self, out: str = "") -> None:
        super().__init__()


class Untyped(BrightPictures):
    def __init__(self, slack) -> None:
        super().__init__(slack)


def function():
    pass
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of somebody with a benchmark, items and pictures of their own."""
    (tmp_path / "bright_pictures.py").write_text(OWN)
    (tmp_path / "broken_pictures.py").write_text(BROKEN)
    write_rows(tmp_path / "levels.jsonl", [{"id": f"p{n}", "prompt": "grey", "least": 11 * n} for n in range(4)])
    for n in range(4):
        save(grey(10 * n), tmp_path / f"pictures/p{n}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("bright_pictures", "broken_pictures"):
        sys.modules.pop(name, None)


def run(out: str, benchmark: str = "bright_pictures.BrightPictures", *more: str) -> int:
    words = ["--items", "levels.jsonl", "--pictures", "pictures", "--out", out]
    return main(["score", f"--benchmark={benchmark}", *words, *more])


def test_it_is_named_by_class_path_and_its_arguments_are_options(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("out") == 0
    assert results(desk / "out")["overall"] == 0.25 and results(desk / "out")["benchmark"] == "bright"
    assert [row["brightness"] for row in rows_of(desk / "out")] == [0, 10, 20, 30]
    assert "# bright, official" in capsys.readouterr().out
    assert run("near", "bright_pictures.BrightPictures", "--slack", "2") == 0
    assert results(desk / "near")["overall"] == 0.75
    assert results(desk / "near")["manifest"]["slack"] == "2.0"
    assert run("bad", "bright_pictures.BrightPictures", "--slack", "much") == 2
    assert "slack is 'much': give float" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ("wize", "there is no benchmark 'wize': did you mean 'wise'?"),
        ("bright.BrightPictures", "there is no bright.BrightPictures (No module named 'bright')"),
        ("bright_pictures.Bright", "there is no bright_pictures.Bright (module 'bright_pictures' has no attribute"),
        ("bright_pictures.Wanted", "bright_pictures.Wanted is no PictureBenchmark: name a class that is"),
        ("broken_pictures.function", "broken_pictures.function is no PictureBenchmark: name a class that is"),
        ("broken_pictures.Unfinished", "broken_pictures.Unfinished lacks judge, made_by, "),
        ("broken_pictures.Colliding", "the arguments of Colliding cannot be options"),
        ("broken_pictures.Untyped", "the arguments of Untyped cannot be options"),
    ],
)
def test_what_is_no_benchmark_is_one_message(
    desk: Path, capsys: pytest.CaptureFixture[str], benchmark: str, message: str
) -> None:
    assert run("out", benchmark) == 2
    assert message in capsys.readouterr().err and not (desk / "out").exists()


def test_the_last_benchmark_counts_and_none_is_one_message(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--benchmark", "wise", "--benchmark", "bright_pictures.BrightPictures", "--slack", "1"]) == 2
    assert capsys.readouterr().err == "error: --items and --pictures and --out must be given: see --help\n"
    assert main(["score", "--items", "levels.jsonl", "--pictures", "pictures", "--out", "out"]) == 2
    assert "--benchmark must be given" in capsys.readouterr().err
    assert main(["score", "--benchmark"]) == 2
    with pytest.raises(UsageError, match="there is no benchmark ''"):
        command_parser("score", ["--benchmark="])


def test_help_shows_the_options_of_the_benchmark(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--help"]) == 0
    told = capsys.readouterr().out
    assert "dpg, gedit, geneval, geneval2, imgedit, tiif, wise" in " ".join(told.split()) and "--edition" not in told
    assert main(["score", "--benchmark", "wise", "--help"]) == 0
    assert "--edition {legacy,verified}" in capsys.readouterr().out
    assert main(["score", "--benchmark", "bright_pictures.BrightPictures", "--help"]) == 0
    assert "Levels of brightness that may be lacking." in capsys.readouterr().out


def test_arguments_of_another_benchmark_are_unknown(
    desk: Path, capsys: pytest.CaptureFixture[str], start: Callable[..., ChatServer]
) -> None:
    assert run("out", "bright_pictures.BrightPictures", *served("OpenAIJudge", start())) == 2
    assert "unknown option --judge: choose of " in capsys.readouterr().err
