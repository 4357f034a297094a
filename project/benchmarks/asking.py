"""Asks a judge that answers in free text about the items of a benchmark. An answer is read strictly, never guessed.

An answer that cannot be read is asked for again, a bounded number of times. The first attempt is the judge's most
probable text, so that results can be repeated. Asking again in the same way would give the same text; a further attempt
is therefore drawn at a low temperature with a seed of its own (see `FreeTextRequest`). It is low because the answer
should differ in its form and not in its judgement. What cannot be read in the end is an `Unjudged` item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from project.benchmarks.scoring import UnparsedAnswer, require_unique
from project.judges.free_text import FreeText, FreeTextJudge, FreeTextRequest, check_written

ATTEMPTS = 3
Answer = TypeVar("Answer")
Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class Enquiry(Generic[Answer, Record]):
    """What a judge is asked about an item, and how a record is made of what it writes.

    Args:
        id: Of the item.
        template: Name and version of the words of the requests; with the judge's name it says who gave a record.
        requests: One or several.
        read: Makes an answer of the text to a request. Raises UnparsedAnswer if it cannot be read.
        record: Makes the item's record of the answers to all requests, in their order.
        together: All requests are asked again where the answer to one of them cannot be read, as some official scripts
            do; else that one alone.
    """

    id: str
    template: str
    requests: tuple[FreeTextRequest, ...]
    read: Callable[[str], Answer]
    record: Callable[[Sequence[Answer]], Record]
    together: bool = False


@dataclass(frozen=True, kw_only=True)
class Judged(Generic[Record]):
    """An item with a record.

    Args:
        id: Of the item.
        judge: The judge's name and the template.
        record: For the scorer of the benchmark.
        texts: What the record was read from, one for each request.
        attempts: How often the judge was asked, 1 if every answer could be read at once.
    """

    id: str
    judge: str
    record: Record
    texts: tuple[str, ...]
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """An item without a record.

    Args:
        id: Of the item.
        judge: The judge's name and the template.
        reason: `unanswered`: the judge gave no answer to a request, after all of its own retries. Asked in another run
            it may answer. `unparsed`: no attempt at a request gave an answer that can be read.
        message: What happened, and what helps.
        texts: What the judge wrote at last, one for each request; None where it wrote nothing.
        attempts: How often the judge was asked.
    """

    id: str
    judge: str
    reason: Literal["unanswered", "unparsed"]
    message: str
    texts: tuple[str | None, ...]
    attempts: int


def ask(
    judge: FreeTextJudge, enquiries: Sequence[Enquiry[Any, Record]], attempts: int = ATTEMPTS
) -> list[Judged[Record] | Unjudged]:
    """What the judge says of each item. The requests of an attempt at all items are sent together.

    Args:
        judge: Who is asked.
        enquiries: One for each item.
        attempts: How often a request is sent at most.

    Raises ValueError without attempts or for two enquiries of one id, and whatever the judge raises: JudgeUnavailable
    if it has stopped answering altogether.
    """
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}: a judge is asked at least once")
    require_unique((enquiry.id for enquiry in enquiries), "items to judge")
    name = judge.name
    states = [_State(enquiry, f"{name}:{enquiry.template}") for enquiry in enquiries]
    for attempt in range(attempts):
        sent = [(state, place) for state in states for place in state.begin(attempt)]
        if not sent:
            break
        written = judge.write([replace(state.enquiry.requests[place], attempt=attempt) for state, place in sent])
        check_written(written, len(sent), name, judge.write)
        for (state, place), answer in zip(sent, written, strict=True):
            state.take(place, answer)
    return [state.outcome() for state in states]


class _State(Generic[Record]):
    """What is known of one item."""

    def __init__(self, enquiry: Enquiry[Any, Record], judge: str) -> None:
        self.enquiry = enquiry
        self.judge = judge
        self.answers: dict[int, Any] = {}
        """Place of a request -> what was read."""
        self.texts: list[str | None] = [None] * len(enquiry.requests)
        self.attempts = 0
        self.failure: UnparsedAnswer | None = None
        """The last one."""
        self.unanswered = False

    def begin(self, attempt: int) -> list[int]:
        """Places of the requests to send at this attempt; none if there is nothing to ask, or no use in it."""
        places = range(len(self.enquiry.requests))
        left = [place for place in places if place not in self.answers]
        if self.unanswered or not left:
            return []
        self.attempts = attempt + 1
        if not self.enquiry.together:
            return left
        self.answers.clear()
        return list(places)

    def take(self, place: int, answer: FreeText | None) -> None:
        self.texts[place] = None if answer is None else answer.text
        if answer is None:
            self.unanswered = True
            return
        try:
            if answer.cut_off:
                raise UnparsedAnswer("it was cut off at the longest length (max_tokens)", answer.text)
            self.answers[place] = self.enquiry.read(answer.text)
        except UnparsedAnswer as failure:
            self.failure = failure

    def outcome(self) -> Judged[Record] | Unjudged:
        if not self.unanswered and len(self.answers) == len(self.enquiry.requests):
            return Judged(
                id=self.enquiry.id,
                judge=self.judge,
                record=self.enquiry.record([self.answers[place] for place in range(len(self.texts))]),
                texts=tuple(text for text in self.texts if text is not None),
                attempts=self.attempts,
            )
        return Unjudged(
            id=self.enquiry.id,
            judge=self.judge,
            reason="unanswered" if self.unanswered else "unparsed",
            message=(
                f"judge {self.judge} did not answer: see its failures in the log, then judge the item again"
                if self.unanswered
                else str(self.failure)
            ),
            texts=tuple(self.texts),
            attempts=self.attempts,
        )
