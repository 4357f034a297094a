"""Texts of a judge kept on disk: the same request is paid for once, in this run and in later ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from project.core.digest import digest
from project.judges.answer_store import AnswerStore, CachedAnswers
from project.judges.free_text import FreeText, FreeTextJudge, FreeTextRequest, check_written

FILE = "texts.sqlite"


class CachedFreeTextJudge(CachedAnswers, FreeTextJudge):
    """Asks another judge only what it has not answered before.

    An answer is found again by the request's text, pictures and attempt, and the judge's name (which holds model,
    template version and settings). Requests without an answer are never kept. Several processes of one machine may
    share a folder, also with `CachedJudge`; it must lie on a local disk. A cache that fails in mid-run (a full disk) is
    reported once, and the judge is asked instead.

    Args:
        judge: who is asked.
        folder: of the file `texts.sqlite`.
        max_bytes: of that file; beyond it the answers that were not used for longest are forgotten.

    Raises:
        ValueError: if the bound is below 100 kB.
    """

    def __init__(self, judge: FreeTextJudge, folder: str, max_bytes: int = 1_000_000_000) -> None:
        self.judge = judge
        self.store: AnswerStore[str] = AnswerStore(Path(folder) / FILE, "answer TEXT", max_bytes)

    def write(self, requests: Sequence[FreeTextRequest]) -> list[FreeText | None]:
        """See `FreeTextJudge.write`. Equal requests are sent once. Raises whatever the judge raises, and WrongReturn
        for answers that are none."""
        judge = self.judge.name.encode()
        keys = [digest(judge, request.key) for request in requests]
        wanted = dict(zip(keys, requests, strict=True))
        found: dict[bytes, FreeText | None] = {
            key: FreeText(**json.loads(answer)) for key, answer in self.store.found(list(wanted)).items()
        }
        missing = {key: request for key, request in wanted.items() if key not in found}
        if missing:
            answers = self.judge.write(list(missing.values()))
            check_written(answers, len(missing), self.judge.name, self.judge.write)
            new = dict(zip(missing, answers, strict=True))
            self.store.keep({key: json.dumps(asdict(answer)) for key, answer in new.items() if answer is not None})
            found |= new
        return [found[key] for key in keys]
