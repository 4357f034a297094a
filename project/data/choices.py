"""Questions about pictures with a known answer: yes or no, or one of several choices. Reading a row, and an answer.

A row of a question file has `image`, `question` (or `prompt`) and `answer`, and may have `choices`:

    {"image": "a.png", "question": "Is there a dog?", "answer": "no"}
    {"image": "a.png", "question": "What is it?", "choices": ["a cat", "a dog"], "answer": "B"}

Without `choices` the answer is yes or no. With them it is the letter of a choice (A is the first) or its text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from project.core.reasoning import split_reasoning
from project.trajectory import Prompt

YES_NO = ("yes", "no")
_AROUND = " \t\r\n.,:;!?\"'`*()[]"
"""What may stand around a whole answer."""
_WORDS = ("A", "I")
"""Letters that are words, as in "A dog": with `_WORD` behind them they name no choice."""
_WORD = re.compile(r"\s+(?!(?:or|nor|and|but|not|is)\b)\w")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a question may be answered with, and what is right."""

    options: tuple[str, ...]
    right: int
    lettered: bool
    """Whether the options have letters (A is the first)."""

    @property
    def yes_no(self) -> bool:
        """Whether the answer is yes or no."""
        return sorted(map(_plain, self.options)) == sorted(YES_NO)

    @property
    def listing(self) -> str:
        """A line for each option with its letter; empty without letters."""
        if not self.lettered:
            return ""
        return "\n".join(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, self.options, strict=False))

    def named_in(self, text: str) -> int | None:
        """The place of the one option that an answer names; None if it names none or several.

        If the whole answer is a letter or the text of an option, it names that one. Otherwise every option that occurs
        in whole words counts, and every letter that stands alone ("The answer is B."). An option or a letter within a
        longer option that is named ("red" in "dark red") does not count. Reasoning before the answer is left out.
        """
        answer = split_reasoning(text)
        if answer is None:
            return None
        whole = _plain(answer)
        same = {place for place, option in enumerate(self.options) if _plain(option) == whole}
        if self.lettered and len(whole) == 1 and whole.upper() in self._letters:
            same.add(ascii_uppercase.index(whole.upper()))
        named = same or self._mentioned(answer)
        return named.pop() if len(named) == 1 else None

    @property
    def _letters(self) -> str:
        return ascii_uppercase[: len(self.options)]

    def _mentioned(self, answer: str) -> set[int]:
        """Places of all options that occur somewhere in an answer."""
        found = set()
        rest = " ".join(answer.split())
        for place in sorted(range(len(self.options)), key=lambda n: -len(self.options[n])):
            # A dot within a number is a part of it: "2.5" does not name 2.
            option = rf"(?<!\w)(?<!\d\.){re.escape(_plain(self.options[place]))}(?!\w)(?!\.\d)"
            rest, times = re.subn(option, "\n", rest, flags=re.IGNORECASE)
            if times:
                found.add(place)
        if self.lettered:
            for match in re.finditer(rf"(?<![\w'])[{self._letters}](?![\w'])", rest):
                if match[0] not in _WORDS or not _WORD.match(rest, match.end()):
                    found.add(ascii_uppercase.index(match[0]))
        return found


def choices_of(prompt: Prompt) -> Choices:
    """The choices of a question and the right one.

    Raises ValueError, naming the row's place, if the row is no question with a known answer.
    """
    try:
        return _choices(prompt.columns.get("choices"), prompt.columns.get("answer"))
    except ValueError as error:
        where = f"{prompt.place}: " if prompt.place else ""
        raise ValueError(f"{where}question {prompt.id!r}: {error}") from None


def _choices(given: Any, answer: Any) -> Choices:
    if isinstance(answer, bool):
        answer = "yes" if answer else "no"
    if isinstance(answer, int | float):
        answer = str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError(f"its `answer` is {answer!r}: give the right answer as a text")
    if given is None or given == []:
        if _plain(answer) not in YES_NO:
            raise ValueError(f"its `answer` is {answer!r} and it has no `choices`: answer yes or no, or give choices")
        return Choices(options=YES_NO, right=YES_NO.index(_plain(answer)), lettered=False)
    options = _options(given)
    plain = [_plain(option) for option in options]
    right = {place for place, option in enumerate(plain) if option == _plain(answer)}
    letter = answer.strip()
    if len(letter) == 1 and letter in ascii_uppercase[: len(options)]:
        right.add(ascii_uppercase.index(letter))
    if len(right) != 1:
        what = "the letter of one choice and the text of another" if right else "none of its choices, nor their letter"
        raise ValueError(f"its `answer` {answer!r} is {what} ({', '.join(options)}): correct the row")
    return Choices(options=options, right=right.pop(), lettered=True)


def _options(given: Any) -> tuple[str, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(f"its `choices` are {given!r}: give a list of texts")
    options = tuple(str(option).strip() for option in given)
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise ValueError(f"it has {len(options)} choice(s): give 2 to {len(ascii_uppercase)}")
    if not all(map(_plain, options)) or len(set(map(_plain, options))) < len(options):
        raise ValueError(f"its `choices` ({', '.join(options)}) are empty or the same: give different texts")
    return options


def _plain(text: str) -> str:
    """A text in lower case, without what stands around it and with single blanks."""
    return " ".join(text.casefold().split()).strip(_AROUND)
