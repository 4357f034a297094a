"""What servers put into a chat completion, in whatever shape: text, reasoning, and an error in place of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from project.core.reasoning import split_reasoning
from project.judges.openai.failures import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a model said."""

    text: str
    """The answer as it stands in the message; reasoning may be in it, see `split_reasoning`."""
    reasoning: str
    """What the server parted from the answer."""
    cut_off: bool
    """Whether it was ended by its length."""

    @property
    def answer(self) -> str | None:
        """The text behind the reasoning; None if the reasoning did not end."""
        return split_reasoning(self.text)


def read_message(choice: Mapping[str, Any]) -> Message:
    """The message of a choice. Raises KeyError or TypeError if it is none."""
    message = choice["message"]
    content = message["content"]
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    return Message(
        text="".join(_text(part) for part in parts if not _is_reasoning(part)),
        reasoning=str(reasoning) + "".join(_text(part) for part in parts if _is_reasoning(part)),
        cut_off=choice.get("finish_reason") == "length",
    )


def message_of(completion: Any) -> Message:
    """The message of the first choice of a chat completion. Raises Failure if there is none."""
    try:
        return read_message(completion["choices"][0])
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Failure("malformed", f"no chat completion: {str(completion)[:80]!r}") from error


def error_inside(completion: Any) -> Mapping[str, Any] | None:
    """The error that stands where the answer should: some gateways send one with status 200."""
    if not isinstance(completion, Mapping):
        return None
    choices = completion.get("choices")
    for place in (completion, *(choices if isinstance(choices, list) else ())):
        error = place.get("error") if isinstance(place, Mapping) else None
        if error:
            return error if isinstance(error, Mapping) else {"message": error}
    return None


def _text(part: Any) -> str:
    """The text of a part of a content; a part may hold parts again."""
    if isinstance(part, str):
        return part
    for name in ("text", "thinking", "reasoning", "content"):
        found = part.get(name)
        if isinstance(found, str):
            return found
        if isinstance(found, list):
            return "".join(map(_text, found))
    return ""


def _is_reasoning(part: Any) -> bool:
    return isinstance(part, Mapping) and str(part.get("type", "")).startswith(("thinking", "reasoning"))
