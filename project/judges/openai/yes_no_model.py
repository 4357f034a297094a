"""`YesNoModel`: the confidence with which a model behind an OpenAI-compatible server says yes.

One chat completion of one token per question; the confidence is P(yes) / (P(yes) + P(no)) over all spellings of both
among the most probable first tokens.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from project.core.metrics import Metric, Sum
from project.core.reasoning import answer_start
from project.judges.openai.answers import answers_of
from project.judges.openai.failures import Failure
from project.judges.openai.replies import read_message
from project.judges.openai.server import Server
from project.judges.openai.servers import Servers
from project.judges.templates import confidence_of, is_no, is_yes, word_in

Chat = list[dict[str, Any]]
"""Messages in the form of the API."""

UNCERTAIN = 0.05
"""How far a token that the server did not list may move a confidence before it counts as unknown."""
TIMEOUT = 60.0
"""Longest wait for an answer, if the server's options do not say [s]."""

# What servers say, in messages of their own making, when a question cannot be answered.
NO_LOG_PROBS = re.compile(r"log_?probs?", re.IGNORECASE)
NO_PICTURES = re.compile(r"image|multi-?modal|vision|mmproj", re.IGNORECASE)
NO_REASONING = "switch its reasoning off (extra_body: {chat_template_kwargs: {enable_thinking: false}})"
TOKEN_ID = re.compile(r"token_id:\d+")
"""How vLLM writes a token with --return-tokens-as-token-ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The first token of an answer: the one behind the reasoning, if there is any."""

    alternatives: tuple[tuple[str, float], ...]
    """The most probable tokens with their log-probabilities [nats], in any order; empty if the server gave none."""
    text: str
    """The answer, or what there is of the reasoning."""
    unfinished: bool = False
    """There is no answer, because the reasoning did not end."""

    @property
    def hard_answer(self) -> float | None:
        """1 or 0 if the text says yes or no, else None."""
        if self.unfinished:
            return None
        return 1.0 if is_yes(self.text) else 0.0 if is_no(self.text) else None


class YesNoModel:
    """Asks a model over HTTP, several questions at a time: what judges of pictures and of texts share.

    Args:
        server: who is asked.
        probe: makes the chat that tells whether a server works.
        probe_is: what the probe is, in the words of a message ("a question about ...").
        text_fallback: where the log-probabilities lack both yes and no, take yes or no of the text as 1 or 0; counted.
            None = the client has no such setting, and no message names it.
        minimum_mass: an answer whose first token says yes or no with less probability than this is no answer.
        top_logprobs: first tokens whose log-probabilities are asked for; OpenAI and vLLM allow 20.

    Raises:
        ValueError: for a missing key, or numbers out of range.
    """

    def __init__(
        self,
        server: Server,
        probe: Callable[[], Chat],
        probe_is: str,
        *,
        text_fallback: bool | None,
        minimum_mass: float,
        top_logprobs: int,
    ) -> None:
        if top_logprobs < 2:
            raise ValueError(f"top_logprobs={top_logprobs}: give 2 or more")
        if not 0 <= minimum_mass <= 1:
            raise ValueError(f"minimum_mass={minimum_mass}: give a probability, from 0 to 1")
        self.server = server
        self.text_fallback = bool(text_fallback)
        self._or_text = "" if text_fallback is None else ", or set text_fallback for hard answers of 0 and 1"
        self.minimum_mass = minimum_mass
        self.top_logprobs = top_logprobs
        self.servers = Servers(
            server,
            timeout=TIMEOUT,
            probe=lambda: self._body(probe()),
            probe_is=probe_is,
            remedies=(
                (
                    NO_LOG_PROBS,
                    f"it does not give the {top_logprobs} log-probabilities asked for: raise the server's bound "
                    f"(vLLM: --max-logprobs {top_logprobs}), or lower top_logprobs{self._or_text}",
                ),
                (NO_PICTURES, f"model {server.model!r} does not take the picture: serve a vision-language model"),
            ),
        )
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def name(self, template: str) -> str:
        """Model, template and whatever else changes an answer; not the address."""
        fallback = "+text" if self.text_fallback else ""
        return self.server.identity(
            f"{template}{fallback}", minimum_mass=self.minimum_mass, top_logprobs=self.top_logprobs
        )

    def confidences(self, chats: Sequence[Chat]) -> list[float | None]:
        """Of each chat the confidence in "yes"; None where there is no answer, after all retries, or neither word.

        Raises:
            JudgeUnavailable: if no server answers for `patience` seconds, or every one of at least
                `breaker_failures` questions failed.
        """
        return [None if reply is None else self._confidence(reply) for reply in self.replies(chats)]

    def replies(self, chats: Sequence[Chat]) -> list[Reply | None]:
        """Of each chat the first token of the answer; None where there is no answer, after all retries.

        Raises as `confidences`.
        """
        read = read_reply if self.text_fallback else read_with_log_probs
        return answers_of(self.servers, [self._body(chat) for chat in chats], read)

    @property
    def longest_wait(self) -> float:
        """See `Judge.longest_wait`."""
        return self.servers.longest_wait

    def stop_waiting(self) -> None:
        """See `Judge.stop_waiting`."""
        self.servers.stop_waiting()

    def metrics(self) -> dict[str, Metric]:
        """Counters since the last call, by name; reset on read."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        own = {name: float(counts[name]) for name in ("fallbacks", "undecided")}
        return {f"judge/{name}": Sum(value=value) for name, value in {**self.servers.metrics(), **own}.items()}

    def preflight(self) -> None:
        """The probe, to every server. Raises ValueError with the remedy if one cannot answer it."""
        for address, reply in self.servers.preflight(read_reply):
            confidence = first_token_confidence(reply.alternatives, self.minimum_mass)
            if confidence is None and not (self.text_fallback and reply.hard_answer is not None):
                raise ValueError(f"judge at {address.shown}: {self._no_confidence(reply)}")

    # ----------------------------------------------------------------- one question

    def _body(self, chat: Chat) -> dict[str, Any]:
        return self.server.body(chat, max_tokens=1, temperature=0, logprobs=True, top_logprobs=self.top_logprobs)

    def _confidence(self, reply: Reply) -> float | None:
        """None if the model said neither yes nor no."""
        if (confidence := first_token_confidence(reply.alternatives, self.minimum_mass)) is not None:
            return confidence
        if self.text_fallback and (hard := reply.hard_answer) is not None:
            self._count("fallbacks")
            return hard
        self._count("undecided")
        return None

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def _no_confidence(self, reply: Reply) -> str:
        if reply.unfinished:
            return (
                f"model {self.server.model!r} reasons ({reply.text[:40]!r}) and comes to no answer within "
                f"{self._body([]).get('max_tokens')} tokens: {NO_REASONING}, or raise max_tokens"
            )
        if any(TOKEN_ID.fullmatch(token) for token, _ in reply.alternatives):
            return (
                "its log-probabilities name tokens by number (token_id:...) and not by text: start the server without "
                "--return-tokens-as-token-ids"
            )
        if not reply.alternatives:
            return (
                "its answers come without log-probabilities, which confidences are made of: use a server that gives "
                f"them (vLLM, SGLang, llama.cpp){self._or_text}"
            )
        if len(reply.alternatives) < self.top_logprobs and any(is_yes(t) or is_no(t) for t, _ in reply.alternatives):
            return (
                f"it lists only {len(reply.alternatives)} of {self.top_logprobs} log-probabilities, too few to tell "
                f"P(yes) from P(no): raise the server's bound (vLLM: --max-logprobs {self.top_logprobs})"
            )
        return (
            f"model {self.server.model!r} begins its answer with {reply.text!r}, and neither yes nor no is probable: "
            f"{NO_REASONING}, or use another model"
        )


def first_token_confidence(alternatives: Sequence[tuple[str, float]], minimum_mass: float = 0.0) -> float | None:
    """P(yes) / (P(yes) + P(no)) from the listed first tokens; None if neither is listed, or too little to tell.

    An answer that is not listed counts as 0, unless the list is so short that this would be a guess: if the most
    that an unlisted token can weigh would move the confidence by more than `UNCERTAIN`, it is unknown.

    Args:
        alternatives: tokens and their log-probabilities [nats], in any order; a text may occur several times.
        minimum_mass: least probability of yes and no together, for an answer.
    """
    masses = [(token, math.exp(min(log_prob, 0.0))) for token, log_prob in alternatives if not math.isnan(log_prob)]
    yes = sum(mass for token, mass in masses if is_yes(token))
    no = sum(mass for token, mass in masses if is_no(token))
    if (yes > 0 and no > 0) or yes + no == 0:
        return confidence_of(yes, no, minimum_mass)
    unlisted = max(0.0, min(1.0 - sum(mass for _, mass in masses), *(mass for _, mass in masses), 1.0))
    return confidence_of(yes, no, minimum_mass) if unlisted <= UNCERTAIN * (yes + no + unlisted) else None


def read_reply(completion: Any) -> Reply:
    """The first token of the answer in a chat completion. Raises Failure if it is none."""
    try:
        choice = completion["choices"][0]
        message = read_message(choice)
        tokens = (choice.get("logprobs") or {}).get("content") or []
        texts = [_text(token) for token in tokens]
        start = answer_start("".join(texts))
        if message.answer is None or start is None or (message.reasoning and not message.text.strip()):
            return Reply(alternatives=(), text=message.reasoning or message.text or "".join(texts), unfinished=True)
        place = _answer_token(texts, start, message.answer.strip(), bool(message.reasoning))
        return Reply(alternatives=() if place is None else _listed(tokens[place]), text=message.answer)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Failure("malformed", f"no chat completion: {str(completion)[:80]!r}") from error


def read_with_log_probs(completion: Any) -> Reply:
    """As `read_reply`; an answer without log-probabilities is a Failure too."""
    reply = read_reply(completion)
    if not reply.alternatives and not reply.unfinished:
        # `preflight` saw them, so this is a hiccup: ask again.
        raise Failure("incomplete", "an answer without log-probabilities")
    return reply


def _answer_token(tokens: Sequence[str], start: int, answer: str, reasoned: bool) -> int | None:
    """Place of the answer's first token: log-probabilities may cover the reasoning too.

    The answer is the end of the tokens' text. Where it cannot be found there (servers write tokens in their own way),
    it begins at character `start`, behind the last mark that ends reasoning. None if there are no tokens, or if all
    that is known is that some of them are reasoning.
    """
    text = "".join(tokens)
    end = len(text.rstrip())
    if answer and text[:end].endswith(answer):
        start = max(start, end - len(answer))
    elif start == 0 and reasoned:
        return None
    ends = list(accumulate(map(len, tokens)))
    behind = [number for number, place in enumerate(ends) if place > start or start == 0]
    # White space and marks before a word (`**Yes**`) are tokens of their own.
    words = (number for number in behind if word_in(text[start : ends[number]]))
    return next(words, behind[0] if behind else None)


def _listed(token: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """A token's alternatives, and itself, with their log-probabilities."""
    listed = [(_text(one), _log_prob(one)) for one in token.get("top_logprobs") or []]
    # The token that was chosen need not be among those listed.
    if _text(token) not in (text for text, _ in listed):
        listed.append((_text(token), _log_prob(token)))
    return tuple(listed)


def _text(token: Mapping[str, Any]) -> str:
    """A token's text; from its bytes where the server writes its number in place of it."""
    text = str(token["token"])
    if TOKEN_ID.fullmatch(text) and token.get("bytes"):
        return bytes(token["bytes"]).decode(errors="replace")
    return text


def _log_prob(token: Mapping[str, Any]) -> float:
    """Minus infinity is null in JSON."""
    return -math.inf if token["logprob"] is None else float(token["logprob"])
