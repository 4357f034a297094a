"""Who writes the questions of a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from project.core.reasoning import split_reasoning
from project.trajectory import Question

SEMANTIC_TAGS = (
    "Style",
    "Environment",
    "Viewpoint",
    "Existence",
    "Count",
    "Attribute",
    "Action",
    "Spatial",
    "Text",
    "Negative",
)
QUALITY_TAGS = ("Geometry", "Anatomy", "Texture", "Coherence", "Lighting", "Physics", "Legibility", "Aesthetics")


class DecomposerUnavailable(RuntimeError):
    """A prompt could not be put to whoever decomposes; that says nothing about the prompt.

    `for_good`: nobody answers any longer, so that asking on is of no use.
    """

    def __init__(self, message: str, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


class Decomposer(ABC):
    """Turns a prompt into the atomic yes/no questions of DVReward, all phrased so that "yes" is good.

    `decompose` may be called from several threads at a time.
    """

    @property
    def name(self) -> str:
        """Identity for reports, and for whether begun work may be gone on with: model, version of its prompts ..."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    @abstractmethod
    def decompose(self, prompt: str) -> tuple[Question, ...]:
        """The semantic questions of the prompt, then its quality questions.

        `depends_on` holds positions in this very list. Raises ValueError, with the reason, if the prompt cannot be
        decomposed, and DecomposerUnavailable if that could not be found out.
        """

    def preflight(self) -> None:
        """Check, before any work, that prompts can be decomposed. Raises ValueError with the remedy if not."""
        return None

    def close(self) -> None:
        """Give up what is being waited for: nobody wants it any more."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a language model answers."""

    text: str
    """Reasoning may stand in it."""
    cut_off: bool = False
    """Whether it was ended by its length."""

    @property
    def answer(self) -> str:
        """The text behind the reasoning. Raises ValueError if there is no whole answer: a draft is none."""
        if self.cut_off:
            raise ValueError("the reply was cut off by its length: answer more shortly (max_tokens is the bound)")
        answer = split_reasoning(self.text)
        if answer is None:
            raise ValueError("the reply holds reasoning that does not end, and no answer")
        return answer


class ChatModel(ABC):
    """A language model that an LLM-based decomposer talks to. `chat` may be called from several threads at a time."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Identity for reports: the model, and whatever else changes what it says."""

    @abstractmethod
    def chat(self, messages: Sequence[Mapping[str, str]], attempt: int = 0) -> Reply:
        """What it answers to a chat of `{"role", "content"}`.

        Attempt 0 is the likeliest answer; further attempts draw others.

        Raises:
            ValueError: if the model does not take this chat.
            DecomposerUnavailable: if it could not be asked.
        """

    @abstractmethod
    def preflight(self) -> None:
        """Check, before any work, that the model answers. Raises ValueError with the remedy if it does not."""

    def close(self) -> None:
        """Give up what is being waited for."""
        return None
