from __future__ import annotations

import logging
import multiprocessing
import sqlite3
import threading

import numpy as np
import pytest

from project.core.errors import WrongReturn
from project.core.metrics import Sum, values
from project.judges.answer_store import _write_ahead
from project.judges.base import Judge
from project.judges.cache import CachedJudge
from project.trajectory import Question

A, B = Question(text="a?", tag="Count"), Question(text="b?")


def picture(value, shape=(4, 6, 3)):
    return np.full(shape, value, dtype=np.uint8)


class Grey(Judge):
    """Confidence = grey value / 100, None for black; remembers what it was asked."""

    def __init__(self, name="grey"):
        self.called = name
        self.asked = []
        self.ready = 0

    @property
    def name(self):
        return self.called

    def preflight(self):
        self.ready += 1

    def answer(self, images, questions, prompts):
        for image, row, prompt in zip(images, questions, prompts, strict=True):
            self.asked += [(int(image.flat[0]), prompt, question.text) for question in row]
        return [
            [image.flat[0] / 100 if image.any() else None for _ in row]
            for image, row in zip(images, questions, strict=True)
        ]

    def metrics(self):
        return {"judge/calls": Sum(value=float(len(self.asked)))}


def test_a_replay_makes_no_calls(tmp_path):
    images, questions, prompts = [picture(10), picture(20), picture(10)], [[A, B], [A], [B]], ["x", "x", "x"]
    expected = [[0.1, 0.1], [0.2], [0.1]]
    first, second = Grey(), Grey()
    cached = CachedJudge(first, str(tmp_path / "cache"))
    cached.preflight()
    assert cached.answer(images, questions, prompts) == expected
    # equal questions about equal pictures are asked once also at first
    assert first.asked == [(10, "x", "a?"), (10, "x", "b?"), (20, "x", "a?")]
    assert values(cached.metrics()) == {
        "judge/calls": 3.0, "judge/cache/hits": 0.0, "judge/cache/misses": 3.0,
        "judge/cache/errors": 0.0, "judge/cache/hit_rate": 0.0,
    }  # fmt: skip
    again = CachedJudge(second, str(tmp_path / "cache"))
    again.preflight()
    assert again.answer(images, questions, prompts) == expected
    assert second.asked == [] and second.ready == 1
    metrics = values(again.metrics())
    assert (metrics["judge/cache/hits"], metrics["judge/cache/hit_rate"]) == (3.0, 1.0)
    assert "judge/cache/hit_rate" not in values(again.metrics())
    assert again.name == "grey"


def test_whatever_the_answer_depends_on_is_in_the_key(tmp_path):
    def ask(judge, image, question, prompt):
        CachedJudge(judge, str(tmp_path)).answer([image], [[question]], [prompt])
        return len(judge.asked)

    assert ask(Grey(), picture(10), A, "x") == 1
    assert ask(Grey(), picture(10), Question(text="a?", kind="quality"), "x") == 0
    assert ask(Grey(), picture(11), A, "x") == 1
    assert ask(Grey(), picture(10, (6, 4, 3)), A, "x") == 1
    assert ask(Grey(), picture(10), B, "x") == 1
    assert ask(Grey(), picture(10), A, "y") == 1
    assert ask(Grey("grey:template-2"), picture(10), A, "x") == 1
    # where the prompt ends and the question begins matters
    assert ask(Grey(), picture(10), Question(text="xa?"), "") == 1
    assert ask(Grey(), picture(10), A, "x") == 0


def test_only_what_is_missing_is_asked_and_no_answer_is_never_kept(tmp_path):
    judge = Grey()
    cached = CachedJudge(judge, str(tmp_path))
    assert cached.answer([picture(0), picture(10)], [[A], [A]], ["x", "x"]) == [[None], [0.1]]
    judge.asked.clear()
    assert cached.answer([picture(0), picture(10)], [[A], [A, B]], ["x", "x"]) == [[None], [0.1, 0.1]]
    assert judge.asked == [(0, "x", "a?"), (10, "x", "b?")]


def test_a_confidence_out_of_range_is_refused_and_not_kept(tmp_path):
    judge = Grey()
    cached = CachedJudge(judge, str(tmp_path))
    for _ in range(2):
        with pytest.raises(WrongReturn, match=r"judge 'grey' at .*test_cache.py:\d+ gave a confidence outside"):
            cached.answer([picture(200)], [[A]], ["x"])
    assert len(judge.asked) == 2


def test_many_questions_in_one_call(tmp_path):
    questions = [Question(text=str(n)) for n in range(1200)]
    judge = Grey()
    cached = CachedJudge(judge, str(tmp_path))
    for _ in range(2):
        assert cached.answer([picture(10)], [questions], ["x"]) == [[0.1] * 1200]
    assert len(judge.asked) == 1200


def test_the_least_recently_used_go_when_it_is_full(tmp_path):
    judge = Grey()
    cached = CachedJudge(judge, str(tmp_path), max_bytes=100_000)
    favourite = [Question(text="favourite?")]
    for block in range(40):
        cached.answer([picture(10)], [[Question(text=f"{block} {n}") for n in range(100)]], ["x"])
        cached.answer([picture(10)], [favourite], ["x"])
    database = sqlite3.connect(cached.store.file)
    (rows,) = database.execute("SELECT count(*) FROM answers").fetchone()
    database.close()
    assert 500 < rows < 3000
    assert cached.store.file.stat().st_size <= 100_000
    assert sum(text == "favourite?" for _, _, text in judge.asked) == 1
    judge.asked.clear()
    cached.answer([picture(10)], [[Question(text="39 0"), Question(text="0 0")]], ["x"])
    assert [text for _, _, text in judge.asked] == ["0 0"]


def _work(folder, start, rounds, failures):
    judge = Grey()
    cached = CachedJudge(judge, folder)
    cached.preflight()
    for n in range(rounds):
        value = 1 + (start + n) % rounds
        if cached.answer([picture(value)], [[A, B]], ["x"]) != [[value / 100] * 2]:
            failures.put(f"wrong answer for {value}")
    if errors := values(cached.metrics())["judge/cache/errors"]:
        failures.put(f"{errors} errors")


def test_several_processes_share_a_folder(tmp_path):
    """They create it together, too."""
    context = multiprocessing.get_context("fork")
    failures = context.SimpleQueue()
    workers = [context.Process(target=_work, args=(str(tmp_path / "c"), 7 * n, 30, failures)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures.empty(), failures.get()
    assert [worker.exitcode for worker in workers] == [0] * 6
    judge = Grey()
    CachedJudge(judge, str(tmp_path / "c")).answer([picture(n) for n in range(1, 31)], [[A, B]] * 30, ["x"] * 30)
    assert judge.asked == []


def test_threads_share_a_judge(tmp_path):
    cached = CachedJudge(Grey(), str(tmp_path))
    wrong = []

    def work():
        for n in range(1, 20):
            if cached.answer([picture(n)], [[A]], ["x"]) != [[n / 100]]:
                wrong.append(n)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics = values(cached.metrics())
    assert wrong == [] and metrics["judge/cache/errors"] == 0
    assert metrics["judge/cache/hits"] + metrics["judge/cache/misses"] == 4 * 19


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY])
def test_a_file_that_others_are_making_is_waited_for(code):
    """sqlite does not wait at this point: it says at once that the file is locked."""

    class Contended:
        tried = 0

        def execute(self, statement):
            self.tried += 1
            if self.tried < 3:
                error = sqlite3.OperationalError("not now")
                error.sqlite_errorcode = code
                raise error

    database = Contended()
    if code == sqlite3.SQLITE_BUSY:
        _write_ahead(database)
        assert database.tried == 3
    else:
        with pytest.raises(sqlite3.OperationalError):
            _write_ahead(database)
        assert database.tried == 1


def test_a_cache_that_breaks_in_mid_run_is_reported_once_and_the_judge_asked(tmp_path, caplog):
    judge = Grey()
    cached = CachedJudge(judge, str(tmp_path))
    cached.preflight()
    for file in tmp_path.iterdir():
        file.write_bytes(b"this is no database, whatever its name says" * 100)
    with caplog.at_level(logging.WARNING, "project.judges.answer_store"):
        for _ in range(2):
            assert cached.answer([picture(10)], [[A]], ["x"]) == [[0.1]]
    assert len(judge.asked) == 2 and values(cached.metrics())["judge/cache/errors"] == 4
    assert len(caplog.records) == 1 and "asking the judge instead" in caplog.text
    with pytest.raises(ValueError, match=r"answers\.sqlite cannot be used .*delete it"):
        CachedJudge(judge, str(tmp_path)).preflight()


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 100000"):
        CachedJudge(Grey(), str(tmp_path), max_bytes=10)
    with pytest.raises(ValueError, match="one prompt per image"):
        CachedJudge(Grey(), str(tmp_path)).answer([picture(1)], [], ["x"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be used"):
        CachedJudge(Grey(), str(tmp_path / "file")).preflight()
