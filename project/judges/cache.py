"""Answers kept on disk: the same question about the same picture is paid for once, in this run and in later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from project.core.digest import digest, image_digest
from project.judges.answer_store import AnswerStore, CachedAnswers
from project.judges.base import Judge, check_answers, check_pictures
from project.trajectory import Question

FILE = "answers.sqlite"


class CachedJudge(CachedAnswers, Judge):
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
        self.judge = judge
        self.store: AnswerStore[float] = AnswerStore(Path(folder) / FILE, "confidence REAL", max_bytes)

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
        found: dict[bytes, float | None] = dict(self.store.found(wanted))
        if len(found) < len(wanted):
            found |= self._asked(images, questions, prompts, keys, found)
        return [[found[key] for key in row] for row in keys]

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
        self.store.keep({key: value for key, value in new.items() if value is not None})
        return new
