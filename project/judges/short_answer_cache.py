"""Probabilities of short answers kept on disk: each is paid for once, in this run and in later ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from project.core.digest import digest, image_digest
from project.judges.answer_store import AnswerStore, CachedAnswers
from project.judges.cache import FILE
from project.judges.short_answers import ShortAnswer, ShortAnswerJudge, check_lists, check_probabilities


class CachedShortAnswerJudge(CachedAnswers, ShortAnswerJudge):
    """Asks another judge only what it has not answered before; see `CachedJudge`, whose file it shares.

    A probability is found again by the picture's bytes, the question, the spellings and the judge's name.

    Args:
        judge: who is asked.
        folder: of the file `answers.sqlite`.
        max_bytes: of that file; beyond it the answers that were not used for longest are forgotten.

    Raises:
        ValueError: if the bound is below 100 kB.
    """

    def __init__(self, judge: ShortAnswerJudge, folder: str, max_bytes: int = 1_000_000_000) -> None:
        self.judge = judge
        self.store: AnswerStore[float] = AnswerStore(Path(folder) / FILE, "confidence REAL", max_bytes)

    def probabilities(
        self, images: Sequence[np.ndarray], answers: Sequence[Sequence[ShortAnswer]]
    ) -> list[list[float | None]]:
        """See `ShortAnswerJudge.probabilities`. Raises whatever the judge raises, and WrongReturn for answers that are
        none."""
        check_lists(images, answers)
        judge = self.judge.name.encode()
        keys = [
            [_key(judge, picture, answer) for answer in row]
            for picture, row in zip(map(image_digest, images), answers, strict=True)
        ]
        wanted = list(dict.fromkeys(key for row in keys for key in row))
        found: dict[bytes, float | None] = dict(self.store.found(wanted))
        left = {
            n: {key: answer for key, answer in zip(row, answers[n], strict=True) if key not in found}
            for n, row in enumerate(keys)
        }
        if open_rows := [(n, missing) for n, missing in left.items() if missing]:
            rows = self.judge.probabilities(
                [images[n] for n, _ in open_rows], [list(missing.values()) for _, missing in open_rows]
            )
            numbers = [len(missing) for _, missing in open_rows]
            check_probabilities(rows, numbers, self.judge.name, self.judge.probabilities)
            new = {
                key: value
                for (_, missing), row in zip(open_rows, rows, strict=True)
                for key, value in zip(missing, row, strict=True)
            }
            self.store.keep({key: value for key, value in new.items() if value is not None})
            found |= new
        return [[found[key] for key in row] for row in keys]


def _key(judge: bytes, picture: bytes, answer: ShortAnswer) -> bytes:
    return digest(judge, picture, answer.question.encode(), *(spelling.encode() for spelling in answer.spellings))
