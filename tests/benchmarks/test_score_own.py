"""A benchmark of pictures that somebody writes in a file of their own: `score --benchmark my_file.MyPictures`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from project.__main__ import command_parser, main
from project.core.errors import UsageError
from tests.helpers.chat_server import ChatServer
from tests.helpers.score_runs import grey, results, rows_of, save, served, write_rows

OWN = '''
from dataclasses import dataclass

from project.benchmarks.pictures_of_others.base import ItemFile, Picture, PictureBenchmark, Scored, first_file
from project.benchmarks.scoring import Coverage, mean
from project.core.json_files import read_rows


@dataclass(frozen=True)
class Wanted:
    id: str
    level: int


class LevelPictures(PictureBenchmark[Wanted]):
    """Is a picture as light as it should be?

    Args:
        tolerance: Levels that it may be off.
    """

    def __init__(self, tolerance: int = 0) -> None:
        super().__init__()
        self.tolerance = tolerance

    def read_items(self, path):
        return ItemFile(items=tuple(Wanted(**row) for _, row in read_rows(path)), sha256="0" * 64, version=None)

    def pictures(self, folder, item):
        file, tried = first_file(folder, [item.id])
        return [Picture(item=item.id, sample=0, file=file, tried=tried)]

    def place(self, item, sample):
        return item.id

    def prompt(self, item):
        return f"grey {item.level}"

    def made_by(self):
        return {"tolerance": str(self.tolerance)}

    def preflight(self, items):
        """Nothing to check."""

    def judge(self, images, items, pictures):
        return [{"off": abs(int(i.flat[0]) - item.level)} for i, item in zip(images, items, strict=True)]

    def worth(self, item, row):
        return float(row["off"] <= self.tolerance)

    def told(self, item, row):
        return [f"off by {row['off']}"]

    def score(self, items, rows, mode):
        by_id = {item.id: item for item in items}
        value = mean([self.worth(by_id[row["id"]], row) for row in rows])
        there = {row["id"] for row in rows}
        missing = tuple(name for name in by_id if name not in there)
        coverage = Coverage(expected=len(items), missing=missing)
        table = [("", "score"), ("right", str(value))]
        return Scored(headline=value, figures={"right": value}, table=table, coverage=coverage)


class Unfinished(PictureBenchmark[Wanted]):
    """Lacks nearly everything."""


class Colliding(LevelPictures):
    def __init__(self, out: str = "") -> None:
        super().__init__()


class Untyped(LevelPictures):
    def __init__(self, tolerance) -> None:
        super().__init__(tolerance)
'''


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of somebody with a benchmark, items and pictures of their own."""
    (tmp_path / "own_levels.py").write_text(OWN)
    write_rows(tmp_path / "levels.jsonl", [{"id": f"p{n}", "level": 10 * n} for n in range(4)])
    for n in range(4):
        save(grey(11 * n), tmp_path / f"pictures/p{n}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_levels", None)


def run(out: str, benchmark: str = "own_levels.LevelPictures", *more: str) -> int:
    words = ["--items", "levels.jsonl", "--pictures", "pictures", "--out", out]
    return main(["score", f"--benchmark={benchmark}", *words, *more])


def test_it_is_named_by_class_path_and_its_arguments_are_options(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("out") == 0
    assert results(desk / "out")["overall"] == 0.25 and results(desk / "out")["benchmark"] == "level"
    assert [row["off"] for row in rows_of(desk / "out")] == [0, 1, 2, 3]
    assert "# level, official" in capsys.readouterr().out
    assert run("near", "own_levels.LevelPictures", "--tolerance", "2") == 0
    assert results(desk / "near")["overall"] == 0.75
    assert results(desk / "near")["manifest"]["tolerance"] == "2"
    assert run("bad", "own_levels.LevelPictures", "--tolerance", "much") == 2
    assert "tolerance is 'much': give int" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ("wize", "there is no benchmark 'wize': did you mean 'wise'?"),
        ("own_level.LevelPictures", "there is no own_level.LevelPictures (No module named 'own_level')"),
        ("own_levels.Levels", "there is no own_levels.Levels (module 'own_levels' has no attribute 'Levels')"),
        ("own_levels.Wanted", "own_levels.Wanted is no PictureBenchmark: name a class that is"),
        ("own_levels.mean", "own_levels.mean is no PictureBenchmark: name a class that is"),
        ("own_levels.Unfinished", "own_levels.Unfinished lacks judge, made_by, "),
        ("own_levels.Colliding", "the arguments of Colliding cannot be options"),
        ("own_levels.Untyped", "the arguments of Untyped cannot be options"),
    ],
)
def test_what_is_no_benchmark_is_one_message(
    desk: Path, capsys: pytest.CaptureFixture[str], benchmark: str, message: str
) -> None:
    assert run("out", benchmark) == 2
    assert message in capsys.readouterr().err and not (desk / "out").exists()


def test_the_last_benchmark_counts_and_none_is_one_message(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--benchmark", "wise", "--benchmark", "own_levels.LevelPictures", "--tolerance", "1"]) == 2
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
    assert main(["score", "--benchmark", "own_levels.LevelPictures", "--help"]) == 0
    assert "Levels that it may be off." in capsys.readouterr().out


def test_arguments_of_another_benchmark_are_unknown(
    desk: Path, capsys: pytest.CaptureFixture[str], start: Callable[..., ChatServer]
) -> None:
    assert run("out", "own_levels.LevelPictures", *served("OpenAIJudge", start())) == 2
    assert "unknown option --judge: choose of " in capsys.readouterr().err
