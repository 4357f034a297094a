"""Where the reasoning of a language model ends and its answer begins."""

from __future__ import annotations

STARTS = ("<think>", "<thinking>", "<reasoning>", "<seed:think>", "◁think▷", "[THINK]", "<|START_THINKING|>")
ENDS = ("</think>", "</thinking>", "</reasoning>", "</seed:think>", "◁/think▷", "[/THINK]", "<|END_THINKING|>")
"""Marks of the models that people serve, in the order of `STARTS`."""


def answer_start(text: str) -> int | None:
    """Where the answer begins in a text: behind the last reasoning that ended. None if reasoning began and did not
    end: a draft in it is no answer."""
    end = max((place + len(mark) for mark in ENDS if (place := text.rfind(mark)) >= 0), default=0)
    # A mark inside a JSON answer is a word of it.
    head = text[end:].partition("{")[0]
    return None if any(mark in head for mark in STARTS) else end


def split_reasoning(text: str) -> str | None:
    """The answer alone; None if there is none, because reasoning did not end."""
    start = answer_start(text)
    return None if start is None else text[start:]
