"""A judge's answers on disk, found again by their key."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from project.core.metrics import Mean, Metric, Sum
from project.judges.base import BehindJudge

Value = TypeVar("Value", float, str)
log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, {column} NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON answers (used);
"""
KEYS_PER_QUERY = 500
"""SQLite's oldest bound on variables of a statement is 999."""
PATIENCE = 60.0
"""Longest wait for another process that writes [s]."""
ROOM = 0.9
"""After eviction the file is at most this share of its bound, so that not every call evicts."""


class AnswerStore(Generic[Value]):
    """A SQLite file of answers. Several threads and processes of one machine may share it.

    Args:
        file: on a local disk (SQLite's write-ahead log does not work over NFS).
        column: name and type of what is kept: "confidence REAL" for numbers, "answer TEXT" for texts.
        max_bytes: of the file; beyond it the answers that were not used for longest are forgotten.

    Raises:
        ValueError: if the bound is below 100 kB.
    """

    def __init__(self, file: Path, column: str, max_bytes: int) -> None:
        if max_bytes < 100_000:
            raise ValueError(f"max_bytes={max_bytes}: give at least 100000 (about 1000 answers)")
        self.file = file
        self.column = column
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._warned = False

    def preflight(self) -> None:
        """Makes the file if there is none. Raises ValueError if it is no such file or cannot be written."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self._database() as database:
                database.execute("UPDATE answers SET used = used WHERE 0")
        except (sqlite3.Error, OSError) as error:
            raise ValueError(
                f"the judge's cache {self.file} cannot be used ({error}): delete it if it is broken, or give another "
                "folder that can be written"
            ) from error

    def found(self, keys: Sequence[bytes]) -> dict[bytes, Value]:
        """What is on disk of these different keys; they count as used now, and as hits or misses."""
        found = self._stored(keys)
        with self._lock:
            self._counts["hits"] += len(found)
            self._counts["misses"] += len(keys) - len(found)
        return found

    def keep(self, answers: Mapping[bytes, Value]) -> None:
        """Writes answers; the least recently used ones go if the file grows too large."""
        now = time.time()
        with self._forgiving(), self._database() as database:
            rows = [(key, value, now) for key, value in answers.items()]
            database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
            self._evict(database)

    def metrics(self) -> dict[str, Metric]:
        """Hits and misses with the share of hits, and errors, since the last call; reset on read."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        asked = counts["hits"] + counts["misses"]
        own: dict[str, Metric] = {
            f"judge/cache/{name}": Sum(value=float(counts[name])) for name in ("hits", "misses", "errors")
        }
        return own | {"judge/cache/hit_rate": Mean(total=float(counts["hits"]), count=float(asked))}

    # ----------------------------------------------------------------- helpers

    def _stored(self, keys: Sequence[bytes]) -> dict[bytes, Value]:
        name = self.column.split()[0]
        found: dict[bytes, Value] = {}
        with self._forgiving(), self._database() as database:
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                found |= database.execute(f"SELECT key, {name} FROM answers WHERE key IN ({marks})", some)
            now = time.time()
            database.executemany("UPDATE answers SET used = ? WHERE key = ?", [(now, key) for key in found])
        return found

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
            database.executescript(SCHEMA.format(column=self.column))
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


class CachedAnswers(BehindJudge):
    """What judges share that ask another `judge` only what is not in their `store`."""

    judge: Any
    store: AnswerStore[Any]

    @property
    def behind(self) -> Any:
        return self.judge

    @property
    def name(self) -> str:
        return str(self.judge.name)

    def preflight(self) -> None:
        """Also of the judge. Raises ValueError if the file is no cache or cannot be written."""
        self.store.preflight()
        super().preflight()

    def metrics(self) -> dict[str, Metric]:
        """The judge's own, and hits and misses of the cache with the share of hits; reset on read."""
        return super().metrics() | self.store.metrics()
