"""`YesNoModel`: the confidence with which a model behind an OpenAI-compatible server says yes.

One chat completion of one token per question; the confidence is P(yes) / (P(yes) + P(no)) over all spellings of both
among the most probable first tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from project.judges.base import JudgeUnavailable
from project.judges.openai.servers import ChatServers, Failure, ServersUnavailable, addresses, key_of
from project.judges.templates import confidence_of, is_no, is_yes

Chat = list[dict[str, Any]]
"""Messages in the form of the API."""

UNCERTAIN = 0.05
"""How far a token that the server did not list may move a confidence before it counts as unknown."""
PREFLIGHT_ATTEMPTS = 3

# What servers say, in messages of their own making, when a question cannot be answered.
TOO_LONG = re.compile(
    r"context.(length|size|window)|n_ctx|max_model_len|maximum model length|exceed_context", re.IGNORECASE
)
NO_LOG_PROBS = re.compile(r"log_?probs?", re.IGNORECASE)
NO_PICTURES = re.compile(r"image|multi-?modal|vision|mmproj", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The first token of an answer."""

    alternatives: tuple[tuple[str, float], ...]
    """The most probable tokens with their log-probabilities [nats], in any order; empty if the server gave none."""
    text: str

    @property
    def hard_answer(self) -> float | None:
        """1 or 0 if the text says yes or no, else None."""
        return 1.0 if is_yes(self.text) else 0.0 if is_no(self.text) else None


class YesNoModel:
    """Asks a model over HTTP, several questions at a time: what judges of pictures and of texts share.

    Args:
        probe: makes the chat that tells whether a server works.
        probe_is: what the probe is, in the words of a message ("a question about ...").
        base_url, model, and so on: see `project.judges.openai.judge.OpenAIJudge`.

    Raises:
        ValueError: for an address that is none, a missing key, or numbers out of range.
    """

    def __init__(
        self,
        probe: Callable[[], Chat],
        probe_is: str,
        *,
        base_url: str | list[str],
        model: str,
        api_key: str | None,
        api_key_env: str | None,
        concurrency: int,
        timeout: float,
        retries: int,
        breaker_failures: int,
        probe_seconds: float,
        patience: float,
        text_fallback: bool,
        minimum_mass: float,
        top_logprobs: int,
        extra_body: dict[str, Any] | None,
    ) -> None:
        for name, value, least in (
            ("concurrency", concurrency, 1),
            ("retries", retries, 0),
            ("breaker_failures", breaker_failures, 1),
            ("top_logprobs", top_logprobs, 2),
        ):
            if value < least:
                raise ValueError(f"{name}={value}: give {least} or more")
        for name, seconds in (("timeout", timeout), ("probe_seconds", probe_seconds), ("patience", patience)):
            if not seconds > 0:
                raise ValueError(f"{name}={seconds}: give a number of seconds above 0")
        if not 0 <= minimum_mass <= 1:
            raise ValueError(f"minimum_mass={minimum_mass}: give a probability, from 0 to 1")
        self.probe = probe
        self.probe_is = probe_is
        self.model = model
        self.text_fallback = text_fallback
        self.minimum_mass = minimum_mass
        self.top_logprobs = top_logprobs
        self.extra_body = dict(extra_body or {})
        self.has_key = bool(api_key or api_key_env)
        self.servers = ChatServers(
            addresses(base_url),
            api_key=key_of(api_key, api_key_env),
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            breaker_failures=breaker_failures,
            probe_seconds=probe_seconds,
            patience=patience,
            probe=lambda: self._body(self.probe()),
        )
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def name(self, template: str) -> str:
        """Model, template and whatever else changes an answer; not the address."""
        options = {"minimum_mass": self.minimum_mass, "top_logprobs": self.top_logprobs, **self.extra_body}
        digest = hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=4).hexdigest()
        fallback = "+text" if self.text_fallback else ""
        return f"openai:{self.model}:{template}{fallback}:{digest}"

    def confidences(self, chats: Sequence[Chat]) -> list[float | None]:
        """Of each chat the confidence in "yes"; None where there is no answer, after all retries, or neither word.

        Raises:
            JudgeUnavailable: if no server answers for `patience` seconds, or every one of at least
                `breaker_failures` questions failed.
        """
        bodies = [self._body(chat) for chat in chats]
        try:
            outcomes = self.servers.ask_all(bodies, read_reply if self.text_fallback else read_with_log_probs)
        except ServersUnavailable as error:
            raise JudgeUnavailable(f"judge {self.model!r}: {error}") from error
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        if len(failures) == len(outcomes) >= self.servers.breaker_failures:
            raise JudgeUnavailable(
                f"judge {self.model!r}: every one of {len(outcomes)} questions failed, at last with "
                f"{failures[-1].kind}: {failures[-1]}"
            )
        return [None if isinstance(outcome, Failure) else self._confidence(outcome) for outcome in outcomes]

    def stop_waiting(self) -> None:
        """See `Judge.stop_waiting`."""
        self.servers.stop_waiting()

    def metrics(self) -> dict[str, float]:
        """Counters since the last call, by name; reset on read."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        own = {name: float(counts[name]) for name in ("fallbacks", "undecided")}
        return {f"judge/{name}": value for name, value in {**self.servers.metrics(), **own}.items()}

    def preflight(self) -> None:
        """The probe, to every server. Raises ValueError with the remedy if one cannot answer it."""
        for url in self.servers.urls:
            try:
                reply = self._asked_patiently(url)
            except Failure as failure:
                raise ValueError(f"judge at {url}: {self._remedy(url, failure)}") from failure
            confidence = first_token_confidence(reply.alternatives, self.minimum_mass)
            if confidence is None and not (self.text_fallback and reply.hard_answer is not None):
                raise ValueError(f"judge at {url}: {self._no_confidence(reply)}")

    # ----------------------------------------------------------------- one question

    def _body(self, chat: Chat) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": chat,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": self.top_logprobs,
            **self.extra_body,
        }

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

    # ----------------------------------------------------------------- before training

    def _asked_patiently(self, url: str) -> Reply:
        """A passing hiccup is no reason to refuse a run. Raises Failure."""
        body = self._body(self.probe())
        for _ in range(PREFLIGHT_ATTEMPTS - 1):
            try:
                return self.servers.once(url, body, read_reply)
            except Failure as failure:
                if failure.kind not in ("timeout", "server_error", "malformed", "rate_limit"):
                    raise
        return self.servers.once(url, body, read_reply)

    def _remedy(self, url: str, failure: Failure) -> str:
        if failure.kind == "connection":
            return f"nothing answers there ({failure}): start the server, or correct base_url"
        if failure.kind == "timeout":
            return f"{failure}: wait until it has loaded its model, or raise timeout"
        if failure.status in (401, 403):
            sent = "the key was refused" if self.has_key else "it wants a key and none was sent"
            return f"{sent} ({failure}): set api_key_env to the name of the environment variable that holds the key"
        if failure.status == 404 or (failure.kind == "rejected" and re.search(r"\bmodel\b.*\bnot\b", str(failure))):
            models = self.servers.models(url)
            if models and self.model not in models:
                return f"there is no model {self.model!r} ({failure}): set model to one of {', '.join(models)}"
            if not models:
                return f"no chat completions under this address ({failure}): give base_url up to and including /v1"
        if failure.kind == "malformed":
            return f"that is no chat completion ({failure}): is this an OpenAI-compatible server?"
        for said, remedy in (
            (
                NO_LOG_PROBS,
                f"it does not give the {self.top_logprobs} log-probabilities asked for: raise the server's bound "
                f"(vLLM: --max-logprobs {self.top_logprobs}), lower top_logprobs, or set text_fallback",
            ),
            (
                TOO_LONG,
                f"its context is too short for {self.probe_is}: lengthen it (vLLM: --max-model-len, llama.cpp: "
                "--ctx-size), or ask about less",
            ),
            (NO_PICTURES, f"model {self.model!r} does not take the picture: serve a vision-language model"),
        ):
            if said.search(str(failure)):
                return f"{remedy}. It says: {failure}"
        return f"the question is refused ({failure}): see the server's log"

    def _no_confidence(self, reply: Reply) -> str:
        if not reply.alternatives:
            return (
                "its answers come without log-probabilities, which confidences are made of: use a server that gives "
                "them (vLLM, SGLang, llama.cpp), or set text_fallback for hard answers of 0 and 1"
            )
        if len(reply.alternatives) < self.top_logprobs and any(is_yes(t) or is_no(t) for t, _ in reply.alternatives):
            return (
                f"it lists only {len(reply.alternatives)} of {self.top_logprobs} log-probabilities, too few to tell "
                f"P(yes) from P(no): raise the server's bound (vLLM: --max-logprobs {self.top_logprobs})"
            )
        return (
            f"model {self.model!r} begins its answer with {reply.text!r}, and neither yes nor no is probable: switch "
            "its reasoning off (extra_body: {chat_template_kwargs: {enable_thinking: false}}), or use another model"
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
    """The first token of a chat completion. Raises Failure if it is none."""
    try:
        choice = completion["choices"][0]
        text = str(choice["message"]["content"] or "")
        tokens = (choice.get("logprobs") or {}).get("content") or []
        listed = [(str(t["token"]), float(t["logprob"])) for t in (tokens[0]["top_logprobs"] if tokens else [])]
        # The token that was chosen need not be among those listed.
        if tokens and tokens[0]["token"] not in (token for token, _ in listed):
            listed.append((str(tokens[0]["token"]), float(tokens[0]["logprob"])))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Failure("malformed", f"no chat completion: {str(completion)[:80]!r}") from error
    return Reply(alternatives=tuple(listed), text=text)


def read_with_log_probs(completion: Any) -> Reply:
    """As `read_reply`; an answer without log-probabilities is a Failure too."""
    reply = read_reply(completion)
    if not reply.alternatives:
        # `preflight` saw them, so this is a hiccup: ask again.
        raise Failure("incomplete", "an answer without log-probabilities")
    return reply
