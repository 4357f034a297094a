"""Answers kept on disk: the same question about the same picture is paid for once, in this run and in later ones."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from project.core.digest import digest, image_digest
from project.core.metrics import Mean, Metric, Sum
from project.judges.base import Judge, check_answers, check_pictures
from project.trajectory import Question

log = logging.getLogger(__name__)

FILE = "answers.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, confidence REAL NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON answers (used);
"""
KEYS_PER_QUERY = 500
"""SQLite's oldest bound on variables of a statement is 999."""
PATIENCE = 60.0
"""Longest wait for another process that writes [s]."""
ROOM = 0.9
"""After eviction the file is at most this share of its bound, so that not every call evicts."""


class CachedJudge(Judge):
    """Asks another judge only what it has not answered before.

    An answer is found again by the picture's bytes, the prompt, the question and the judge's name (which holds model
    and template version). Questions without an answer are never kept: they are asked again. Several processes of one
    machine may share a folder, which must lie on a local disk (SQLite's write-ahead log does not work over NFS). A
    cache that fails in mid-run (a full disk) is reported once, and the judge is asked instead.

    Args:
        judge: who is asked.
        folder: of the file `answers.sqlite`.
        max_bytes: of that file; beyond it the answers that were not used for longest are forgotten.

    Raises:
        ValueError: if the bound is below 100 kB.
    """

    def __init__(self, judge: Judge, folder: str, max_bytes: int = 1_000_000_000) -> None:
        if max_bytes < 100_000:
            raise ValueError(f"max_bytes={max_bytes}: give at least 100000 (about 1000 answers)")
        self.judge = judge
        self.file = Path(folder) / FILE
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._warned = False

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def longest_wait(self) -> float:
        return self.judge.longest_wait

    def stop_waiting(self) -> None:
        self.judge.stop_waiting()

    def preflight(self) -> None:
        """Also of the judge. Raises ValueError if the file is no cache or cannot be written."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self._database() as database:
                database.execute("UPDATE answers SET used = used WHERE 0")
        except (sqlite3.Error, OSError) as error:
            raise ValueError(
                f"the judge's cache {self.file} cannot be used ({error}): delete it if it is broken, or give another "
                "folder that can be written"
            ) from error
        self.judge.preflight()

    def answer(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[Sequence[Question]],
        prompts: Sequence[str],
    ) -> list[list[float | None]]:
        """See `Judge.answer`. Raises whatever the judge raises, and WrongReturn for answers that are none."""
        check_pictures(images, questions, prompts)
        judge = self.judge.name.encode()
        keys = [
            [digest(judge, picture, prompt.encode(), question.text.encode()) for question in asked]
            for picture, asked, prompt in zip(map(image_digest, images), questions, prompts, strict=True)
        ]
        wanted = list(dict.fromkeys(key for row in keys for key in row))
        found: dict[bytes, float | None] = dict(self._stored(wanted))
        with self._lock:
            self._counts["hits"] += len(found)
            self._counts["misses"] += len(wanted) - len(found)
        if len(found) < len(wanted):
            found |= self._asked(images, questions, prompts, keys, found)
        return [[found[key] for key in row] for row in keys]

    def metrics(self) -> dict[str, Metric]:
        """The judge's own, and hits and misses of the cache with the share of hits; reset on read."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        asked = counts["hits"] + counts["misses"]
        own: dict[str, Metric] = {
            f"judge/cache/{name}": Sum(value=float(counts[name])) for name in ("hits", "misses", "errors")
        }
        rate = Mean(total=float(counts["hits"]), count=float(asked))
        return self.judge.metrics() | own | {"judge/cache/hit_rate": rate}

    # ----------------------------------------------------------------- helpers

    def _asked(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[Sequence[Question]],
        prompts: Sequence[str],
        keys: Sequence[Sequence[bytes]],
        known: Mapping[bytes, float | None],
    ) -> dict[bytes, float | None]:
        """The judge's answers to what is not known, each key asked once; kept on disk."""
        left = set(known)
        open_rows: list[tuple[int, dict[bytes, Question]]] = []
        for n, row in enumerate(keys):
            missing = {key: q for key, q in zip(row, questions[n], strict=True) if key not in left}
            left |= missing.keys()
            if missing:
                open_rows.append((n, missing))
        answers = self.judge.answer(
            [images[n] for n, _ in open_rows],
            [list(missing.values()) for _, missing in open_rows],
            [prompts[n] for n, _ in open_rows],
        )
        check_answers(answers, [len(missing) for _, missing in open_rows], self.judge.name, self.judge.answer)
        new = {
            key: value
            for (_, missing), row in zip(open_rows, answers, strict=True)
            for key, value in zip(missing, row, strict=True)
        }
        self._store({key: value for key, value in new.items() if value is not None})
        return new

    def _stored(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """What is on disk of these keys; they count as used now."""
        found: dict[bytes, float] = {}
        with self._forgiving(), self._database() as database:
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                found |= database.execute(f"SELECT key, confidence FROM answers WHERE key IN ({marks})", some)
            now = time.time()
            database.executemany("UPDATE answers SET used = ? WHERE key = ?", [(now, key) for key in found])
        return found

    def _store(self, answers: Mapping[bytes, float]) -> None:
        now = time.time()
        with self._forgiving(), self._database() as database:
            rows = [(key, value, now) for key, value in answers.items()]
            database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
            self._evict(database)

    def _evict(self, database: sqlite3.Connection) -> None:
        """Forgets the least recently used answers if the file is larger than its bound."""
        (pages,), (free,), (page_bytes,) = (
            database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
        )
        used = (pages - free) * page_bytes
        if used <= self.max_bytes:
            return
        (rows,) = database.execute("SELECT count(*) FROM answers").fetchone()
        surplus = int(rows * (1 - ROOM * self.max_bytes / used)) + 1
        database.execute("DELETE FROM answers WHERE key IN (SELECT key FROM answers ORDER BY used LIMIT ?)", (surplus,))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """One transaction on a connection of its own: threads and forked processes never share one."""
        database = sqlite3.connect(self.file, timeout=PATIENCE)
        try:
            # Deleted pages leave the file; this must be said before the first table is made.
            database.execute("PRAGMA auto_vacuum = FULL")
            _write_ahead(database)
            # Without a sync per call a power cut may cost the last answers, never the file.
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA journal_size_limit = {self.max_bytes // 10}")
            database.executescript(SCHEMA)
            with database:
                yield database
        finally:
            database.close()

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        """A cache is a convenience: where it fails the run goes on without it, and says so once."""
        try:
            yield
        except sqlite3.Error as error:
            with self._lock:
                self._counts["errors"] += 1
                warned, self._warned = self._warned, True
            if not warned:
                log.warning("the judge's cache %s does not work (%s): asking the judge instead", self.file, error)


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switches to write-ahead logging. Where several make the file at once sqlite does not wait for this by itself."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
