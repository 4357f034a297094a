"""Who writes the questions of a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod

from project.trajectory import Question


class Decomposer(ABC):
    """Turns a prompt into the atomic yes/no questions of DVReward, all phrased so that "yes" is good."""

    @abstractmethod
    def decompose(self, prompt: str) -> tuple[Question, ...]:
        """The semantic questions of the prompt, then its quality questions.

        `depends_on` holds positions in this very list. Raises ValueError if the prompt cannot be decomposed.
        """
