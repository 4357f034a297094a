"""A language model decomposes prompts: questions, a check of each, and questions of quality (AlphaGRPO, 2605.12495)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from project.decomposition.base import QUALITY_TAGS, SEMANTIC_TAGS, ChatModel, Decomposer
from project.decomposition.prompts import (
    PROMPT_VERSION,
    Messages,
    again,
    decompose_messages,
    quality_messages,
    validate_messages,
)
from project.decomposition.replies import read_objections, read_quality, read_semantic
from project.trajectory import Question

T = TypeVar("T")

RELATIONAL = frozenset({"Spatial", "Negative"})
"""Tags of questions about nothing that could be drawn well or badly: they need no question of quality."""


class LLMDecomposer(Decomposer):
    """Semantic questions, validated one by one, then quality questions: three or more calls per prompt.

    If the model objects to one of its own semantic questions, or its reply cannot be read, the prompt is decomposed
    again, with the faults named; if that does not help, `decompose` raises ValueError with the last faults.

    Args:
        client: the language model.
        again: how often a prompt is decomposed again, and how often any other unreadable reply is asked for again.
        validate: let the model check its semantic questions.
        quality: write quality questions.

    Raises:
        ValueError: if `again` is below 0.
    """

    def __init__(self, client: ChatModel, again: int = 5, validate: bool = True, quality: bool = True) -> None:
        if again < 0:
            raise ValueError(f"again={again}: give 0 or more")
        self.client = client
        self.again = again
        self.validate = validate
        self.quality = quality

    @property
    def name(self) -> str:
        left_out = "".join(
            f"-no_{part}" for part, kept in (("validate", self.validate), ("quality", self.quality)) if not kept
        )
        return f"llm:{self.client.name}:prompts-{PROMPT_VERSION}{left_out}"

    def preflight(self) -> None:
        self.client.preflight()

    def close(self) -> None:
        self.client.close()

    def decompose(self, prompt: str) -> tuple[Question, ...]:
        semantic = self._semantic(prompt)
        return (*semantic, *(self._quality(prompt, semantic) if self.quality else ()))

    def _semantic(self, prompt: str) -> tuple[Question, ...]:
        first = chat = decompose_messages(prompt)
        objections: list[str] = []
        for attempt in range(self.again + 1):
            reply = self.client.chat(chat, attempt)
            try:
                questions = read_semantic(reply.answer, SEMANTIC_TAGS)
            except ValueError as error:
                objections = [str(error)]
            else:
                objections = self._objections(prompt, questions) if self.validate else []
                if not objections:
                    return questions
            chat = again(first, reply.text, objections)
        raise ValueError(f"no valid questions in {self.again + 1} attempts, at last because {'; '.join(objections)}")

    def _objections(self, prompt: str, questions: Sequence[Question]) -> list[str]:
        return self._read(
            validate_messages(prompt, questions), lambda reply: read_objections(reply, questions), "verdicts"
        )

    def _quality(self, prompt: str, semantic: Sequence[Question]) -> tuple[Question, ...]:
        """Raises ValueError if there is no readable reply."""
        ids = [number for number, asked in enumerate(semantic, start=1) if asked.tag not in RELATIONAL]
        if not ids:
            return ()
        chat = quality_messages(prompt, [semantic[number - 1] for number in ids], ids)
        return self._read(chat, lambda reply: read_quality(reply, QUALITY_TAGS, semantic, ids), "quality questions")

    def _read(self, first: Messages, read: Callable[[str], T], what: str) -> T:
        """What `read` makes of a reply, asking again for one that it cannot read."""
        chat, fault = first, ""
        for attempt in range(self.again + 1):
            reply = self.client.chat(chat, attempt)
            try:
                return read(reply.answer)
            except ValueError as error:
                fault = str(error)
                chat = again(first, reply.text, [fault])
        raise ValueError(f"no readable {what} in {self.again + 1} attempts, at last because {fault}")
